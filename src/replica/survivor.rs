//! `last_survivor = "auto"`: the evidence on which a backup of two goes on alone, apart from
//! everything else. It trusts that a refused connection means a dead process; see the words of
//! the settings.

use super::event::Out;
use super::packet::Packet;
use super::peer::Link;
use super::rules::Rule;
use super::{Replica, Role, Timer};
use crate::ids::{Incarnation, LinkId, Member, Position, ProcessId};
use crate::time::{Moment, WallTime};

/// What a server knows of the one whose dying would leave it alone.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) member: Member,
    incarnation: Incarnation,
    process: ProcessId,
    /// This very life has answered our hello on a link that we dialled.
    pub(super) answered_there: bool,
    /// The config that it promised not to change, and until when.
    pub(super) promised: Option<(Position, Moment)>,
    /// When the last promise was given up: those for pings that were sent before do not count.
    pub(super) released: Option<Moment>,
    /// Dials whose outcome was not known when the link was lost.
    pub(super) older_dials: Option<u32>,
    /// Dials refused since then.
    pub(super) refused: u32,
}

impl Replica {
    /// A link counts now, or for a moment: evidence of an earlier life is worth nothing.
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

    /// The answer to a ping came with a promise, or without.
    pub(super) fn note_promise(
        &mut self,
        now: Moment,
        from: Member,
        sent: Moment,
        config: Option<Position>,
    ) {
        // A pong from the future is nonsense, and promises nothing.
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

    /// The primary of two wants to change the members: its promise is given up.
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

    /// The other member has given up what it was promised before it was asked.
    pub(super) fn on_released(&mut self, now: Moment, from: Member, asked: Moment) {
        if self.release_asked == Some((from, asked)) {
            self.release_asked = None;
            self.promised_until = now.min(self.promised_until);
            self.note(Rule::PromiseReleased);
            self.needs_tick = true;
        }
    }

    /// The link to a server is lost; `under_way` dials were begun before.
    pub(super) fn note_lost(&mut self, member: Member, under_way: u32) {
        if let Some(known) = &mut self.evidence[member.id.slot()] {
            known.older_dials = Some(under_way);
            known.refused = 0;
        }
    }

    /// A dial was refused: exactly `ECONNREFUSED`, at the address that had answered.
    pub(super) fn note_refused(&mut self, slot: usize) {
        if let Some(known) = &mut self.evidence[slot]
            && known.older_dials.is_some()
        {
            known.refused += 1;
        }
    }

    /// A backup of two whose primary has died goes on alone.
    pub(super) fn tick_survivor(&mut self, now: Moment, wall: WallTime, out: &mut Out) {
        let leads = matches!(self.role, Role::Primary(_));
        if !self.shared.survivor_auto || leads || self.stopping.is_some() {
            return;
        }
        if self.is_only_survivor(now) {
            log::warn!("the primary of two has died: this server goes on alone");
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
            // More were refused than were begun before the loss: one of them was begun after it.
            && known.older_dials.is_some_and(|older| known.refused > older)
            && known.promised.is_some_and(|(config, until)| config == at && now < until)
    }

    /// What the primary of two promises to the other one with each answer to a ping.
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
        // What is released from now on was promised before.
        self.release_asked = None;
        self.note(Rule::Promised);
        Some(at)
    }

    /// Whether the members may be changed now, as far as promises go; if not, none is given any
    /// more, and the change waits until the other member has given up the last one, or that has run
    /// out.
    pub(super) fn is_free_of_promises(&mut self, now: Moment, out: &mut Out) -> bool {
        if now >= self.promised_until {
            return true;
        }
        // Only the other one of two is ever promised anything.
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
