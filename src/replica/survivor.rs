//! `last_survivor = "auto"`: the evidence on which a backup of two members continues alone,
//! separate from all other state. The rule assumes that a refused connection means a dead
//! process; see the description of the setting.

use super::event::Out;
use super::packet::Packet;
use super::peer::Link;
use super::rules::Rule;
use super::{Replica, Role, Timer};
use crate::ids::{Incarnation, LinkId, Member, Position, ProcessId};
use crate::time::{Moment, WallTime};

/// The evidence about the server whose death would leave this one alone.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) member: Member,
    incarnation: Incarnation,
    process: ProcessId,
    /// This process has answered this server's hello on a link that this server dialled.
    pub(super) answered_there: bool,
    /// The config that it promised not to change, and until when.
    pub(super) promised: Option<(Position, Moment)>,
    /// When this server last gave up a promise. Promises for pings sent before that do not count.
    pub(super) released: Option<Moment>,
    /// The number of dials without a result when the link was lost.
    pub(super) older_dials: Option<u32>,
    /// The number of dials refused since then.
    pub(super) refused: u32,
}

impl Replica {
    /// Records that a link was established, if only for a moment. Evidence about an earlier
    /// process is discarded.
    pub(super) fn note_evidence(&mut self, new: &Link) {
        if !self.shared.survivor_auto {
            return;
        }
        let slot = &mut self.evidence[new.member.id.slot()];
        let life = |known: &Evidence| (known.member, known.incarnation, known.process);
        if slot.as_ref().map(life) != Some((new.member, new.incarnation, new.process)) {
            *slot = Some(Evidence {
                member: new.member,
                incarnation: new.incarnation,
                process: new.process,
                answered_there: false,
                promised: None,
                released: None,
                older_dials: None,
                refused: 0,
            });
        }
        if let Some(known) = slot {
            known.older_dials = None;
            known.refused = 0;
            known.answered_there |= new.dialled;
        }
    }

    /// Records the promise in a pong, if it carries one.
    pub(super) fn note_promise(
        &mut self,
        now: Moment,
        from: Member,
        sent: Moment,
        config: Option<Position>,
    ) {
        // This server sent no ping in the future, so such a pong is invalid and promises nothing.
        if sent > now {
            return;
        }
        let until = sent + self.peer_timeout() / 2;
        if let Some(known) = &mut self.evidence[from.id.slot()]
            && known.member == from
            && known.released.is_none_or(|released| sent > released)
        {
            known.promised = config.map(|config| (config, until)).or(known.promised);
        }
    }

    /// Gives up the promise of the primary of two members, which wants to change the members.
    pub(super) fn on_ask_release(
        &mut self,
        now: Moment,
        from: Member,
        link: LinkId,
        asked: Moment,
        out: &mut Out,
    ) {
        if let Some(known) = &mut self.evidence[from.id.slot()] {
            (known.promised, known.released) = (None, Some(now));
        }
        out.send(link, Packet::Released { asked });
    }

    /// Ends this primary's promise: the other member has given up every promise made before the
    /// request.
    pub(super) fn on_released(&mut self, now: Moment, from: Member, asked: Moment) {
        if self.release_asked == Some((from, asked)) {
            self.release_asked = None;
            self.promised_until = now.min(self.promised_until);
            self.note(Rule::PromiseReleased);
            self.needs_tick = true;
        }
    }

    /// Records the loss of a server's link; `under_way` dials started before it.
    pub(super) fn note_lost(&mut self, member: Member, under_way: u32) {
        if let Some(known) = &mut self.evidence[member.id.slot()] {
            known.older_dials = Some(under_way);
            known.refused = 0;
        }
    }

    /// Records that a dial was refused: exactly `ECONNREFUSED`, at the address that had answered.
    pub(super) fn note_refused(&mut self, slot: usize) {
        if let Some(known) = &mut self.evidence[slot]
            && known.older_dials.is_some()
        {
            known.refused += 1;
        }
    }

    /// Continues alone if this server is a backup of two members and the primary has died.
    pub(super) fn tick_survivor(&mut self, now: Moment, wall: WallTime, out: &mut Out) {
        let leads = matches!(self.role, Role::Primary(_));
        if !self.shared.survivor_auto || leads || self.stopping.is_some() {
            return;
        }
        if self.is_only_survivor(now) {
            log::warn!("the primary of two is down: this server continues alone");
            self.note(Rule::WentOnAlone);
            self.begin_epoch(now, wall, out);
        }
    }

    fn is_only_survivor(&self, now: Moment) -> bool {
        let Some((index, config)) = self.summary.config() else { return false };
        if config.count() != 2 || !config.has(self.me) || !self.holds_epoch() {
            return false;
        }
        let Some(other) = config.members().find(|member| *member != self.me) else { return false };
        let Some(known) = &self.evidence[other.id.slot()] else { return false };
        let at = self.summary.position(index);
        known.member == other
            && self.link_to(other).is_none()
            && known.answered_there
            // More dials were refused than had started before the loss, so at least one of them
            // started after it.
            && known.older_dials.is_some_and(|older| known.refused > older)
            && known.promised.is_some_and(|(config, until)| config == at && now < until)
    }

    /// Returns the promise of a primary of two members to the other one; each pong carries one.
    pub(super) fn promise(&mut self, to: Member, now: Moment) -> Option<Position> {
        if !self.shared.survivor_auto || self.withholds {
            return None;
        }
        let Role::Primary(_) = self.role else { return None };
        let (index, config) = self.summary.config()?;
        if config.count() != 2 || !config.has(to) || index > self.acknowledged {
            return None;
        }
        let at = self.summary.position(index);
        self.promised_until = now + self.peer_timeout() / 2;
        // A release from now on refers to an earlier promise.
        self.release_asked = None;
        self.note(Rule::Promised);
        Some(at)
    }

    /// Returns whether no promise prevents a change of the members now. If one does, this server
    /// stops giving promises, and the change waits until the other member gives up the last one
    /// or until that expires.
    pub(super) fn is_free_of_promises(&mut self, now: Moment, out: &mut Out) -> bool {
        if now >= self.promised_until {
            return true;
        }
        // Only the other one of two members ever receives a promise.
        let me = self.me;
        let config = self.config().copied();
        let other = config.and_then(|config| config.members().find(|member| *member != me));
        if let Some(other) = other.filter(|_| self.release_asked.is_none())
            && let Some(link) = self.link_to(other)
        {
            self.release_asked = Some((other, now));
            out.send(link, Packet::AskRelease { asked: now });
        }
        self.note(Rule::PromiseAwaited);
        self.withholds = true;
        self.timers.set(Timer::Promise, self.promised_until);
        false
    }
}
