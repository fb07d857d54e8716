//! Planned handover (Ongaro §3.10), and how a server that was told to stop leaves the group.

use super::event::Out;
use super::packet::{Order, Packet, Verdict};
use super::peer::{Link, Peer};
use super::rules::Rule;
use super::{Replica, Role, Timer};
use crate::ids::{GroupId, LinkId, Member, ServerId, Term};
use crate::limits::{DAMAGED_TIME, SLOW_SYNCS, SLOW_WINDOW};
use crate::time::Moment;

/// A handover in progress: the primary accepts no changes until it is decided.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    /// The reason. With a slow disk the primary never chooses a slow backup; with a damaged log,
    /// never a damaged one.
    why: Rule,
    /// The backup that the operator chose.
    to: Option<ServerId>,
    /// The member that received `TimeoutNow`.
    told: Option<Member>,
}

impl Handover {
    /// Returns whether a backup received `TimeoutNow`.
    pub(super) fn is_told(&self) -> bool {
        self.told.is_some()
    }
}

/// Measures the syncs of this server's own disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Syncs {
    began: Option<Moment>,
    /// When recent syncs ended that took more than half a peer timeout.
    slow: Vec<Moment>,
    /// When this server last handed its role over because of slow syncs.
    handed_over: Option<Moment>,
}

impl Syncs {
    pub(super) fn begin(&mut self, now: Moment) {
        self.began = Some(now);
    }
}

impl Replica {
    /// Begins to stop. From now on this server never campaigns. A primary hands over, and changes
    /// the members only where the handover requires it.
    pub fn stop(&mut self, now: Moment) {
        if self.stopping.is_none() {
            self.stopping = Some(now);
            self.timers.set(Timer::Stop, now + self.peer_timeout() * 2);
            self.needs_tick = true;
        }
    }

    /// Returns whether a stopping server may end. It may if it was dropped, if no linked member
    /// could drop it, or after two peer timeouts: one for the handover, one for the drop.
    pub fn is_released(&self, now: Moment) -> bool {
        let Some(began) = self.stopping else { return false };
        let dropped = self.config().is_none_or(|config| !config.has(self.me));
        let alone = !self.members_linked().any(|(_, stopping)| !stopping);
        dropped || alone || now >= began + self.peer_timeout() * 2
    }

    /// Returns the linked members, and whether each is stopping.
    fn members_linked(&self) -> impl Iterator<Item = (Member, bool)> + '_ {
        let config = self.config();
        self.peers.iter().filter_map(move |peer| {
            let member = peer.link.as_ref()?.member;
            config
                .is_some_and(|config| config.has(member))
                .then_some((member, peer.health.stopping))
        })
    }

    /// Returns whether this primary accepts no changes because it is handing its role over.
    pub fn is_handing_over(&self) -> bool {
        self.handover.is_some()
    }

    /// Begins a handover to a backup.
    pub(super) fn begin_handover(&mut self, now: Moment, why: Rule) -> Verdict {
        if !matches!(self.role, Role::Primary(_)) {
            return Verdict::NotPrimary;
        }
        if self.possible_heirs(now, why).next().is_none() {
            return Verdict::NoBackup;
        }
        if self.handover.is_none() {
            log::info!("handing over to a backup");
            self.note(why);
            self.handover = Some(Handover { why, to: None, told: None });
            self.timers.set(Timer::Handover, now + self.peer_timeout());
        }
        self.needs_tick = true;
        Verdict::Taken
    }

    /// Carries out an operator's order, the first packet on its link.
    pub(super) fn on_order(&mut self, now: Moment, group: GroupId, order: Order) -> Verdict {
        if group != self.shared.group {
            return Verdict::OtherGroup;
        }
        match order {
            Order::HandOver(to) => self.hand_over_to(now, to),
        }
    }

    /// Carries out an operator's order to make this server, or any backup, primary.
    fn hand_over_to(&mut self, now: Moment, to: Option<ServerId>) -> Verdict {
        let why = Rule::HandedOverOrder;
        let is_leading = matches!(self.role, Role::Primary(_));
        let chosen = |link: &Link| to.is_none_or(|to| link.member.id == to);
        if is_leading && !self.possible_heirs(now, why).any(|(_, link)| chosen(link)) {
            return Verdict::NoBackup;
        }
        let verdict = self.begin_handover(now, why);
        if let Some(handover) = self.handover.as_mut().filter(|handover| handover.told.is_none()) {
            handover.to = to;
        }
        verdict
    }

    /// Reports the stop at once, since the next ping may be late, and begins the handover.
    pub(super) fn tick_stop(&mut self, now: Moment) {
        let Some(began) = self.stopping else { return };
        if !std::mem::replace(&mut self.stop_said, true) {
            self.ping();
        }
        // A handover may fail until a member that was just lost is dropped, so this tries again.
        if self.handover.is_none() && now < began + self.peer_timeout() * 2 {
            self.begin_handover(now, Rule::HandedOverStop);
        }
        self.timers.expired(Timer::Stop, now);
    }

    pub(super) fn tick_handover(&mut self, now: Moment, out: &mut Out) {
        self.hand_over_when_slow(now);
        let Some(handover) = &self.handover else { return };
        if self.timers.expired(Timer::Handover, now) {
            log::warn!("the handover has failed");
            self.note(Rule::HandoverGivenUp);
            self.handover = None;
            self.needs_tick = true;
        } else if handover.told.is_none() && self.acknowledged == self.last() {
            let Some((heir, link)) = self.heir(now, handover.why, handover.to) else { return };
            log::info!("sent TimeoutNow to server {heir}");
            out.send(link, Packet::TimeoutNow { term: self.vote.term });
            if let Some(handover) = &mut self.handover {
                handover.told = Some(heir);
            }
        }
    }

    /// Returns the backup to hand over to: it has every entry, and has the fewest faults.
    fn heir(&self, now: Moment, why: Rule, to: Option<ServerId>) -> Option<(Member, LinkId)> {
        let Role::Primary(primary) = &self.role else { return None };
        let last = self.last();
        let heirs = self.possible_heirs(now, why).filter_map(|(peer, link)| {
            let chosen = to.is_none_or(|to| link.member.id == to);
            let has_all = primary.progress(link.member).map(|p| p.stored) == Some(last) && chosen;
            let faults = (peer.unreachable.is_some(), peer.health.damaged, peer.health.slow);
            has_all.then_some((faults, (link.member, link.id)))
        });
        heirs.min_by_key(|(faults, _)| *faults).map(|(_, heir)| heir)
    }

    /// Returns the members that are recently active, not stopping and reachable for clients,
    /// without the fault because of which this primary hands over.
    fn possible_heirs(&self, now: Moment, why: Rule) -> impl Iterator<Item = (&Peer, &Link)> {
        self.peers.iter().filter_map(move |peer| {
            let link = peer.link.as_ref()?;
            let member = self.config()?.has(link.member);
            // When this server ends anyway, a backup takes over whether clients can reach it or
            // not.
            let unable = peer.health.stopping
                || (why != Rule::HandedOverStop && peer.unreachable.is_some())
                || (why == Rule::HandedOverSlow && peer.health.slow)
                || (why == Rule::HandedOverDamaged && peer.health.damaged);
            (member && !unable && self.hears(link.member, now)).then_some((peer, link))
        })
    }

    /// Handles `TimeoutNow`: campaigns at once if it came from the primary of this term.
    pub(super) fn on_stand_now(&mut self, now: Moment, from: Member, term: Term, out: &mut Out) {
        let follows = matches!(&self.role, Role::Follower(f) if f.primary == Some(from));
        if term == self.vote.term && follows && self.may_campaign().is_some() {
            self.note(Rule::CampaignHandedOver);
            self.ask_for_votes(now, self.vote.term.next(), out);
        }
    }

    pub(super) fn note_synced(&mut self, now: Moment) {
        let half = self.peer_timeout() / 2;
        if let Some(began) = self.syncs.began.take()
            && now - began > half
        {
            self.syncs.slow.retain(|at| now < *at + SLOW_WINDOW);
            self.syncs.slow.push(now);
        }
    }

    pub(super) fn is_slow(&self, now: Moment) -> bool {
        self.syncs.slow.iter().filter(|at| now < **at + SLOW_WINDOW).count() >= SLOW_SYNCS
    }

    /// Records that entries for this link can't be read. This server does not retry for the peer
    /// timeout, and hands over to a server that may be able to read them.
    pub fn note_unsent(&mut self, now: Moment, link: LinkId) {
        let peer_timeout = self.peer_timeout();
        let peer = self.peers.iter().find(|peer| peer.has_link(link));
        let member = peer.and_then(|peer| peer.link.as_ref()).map(|link| link.member);
        if let (Role::Primary(primary), Some(member)) = (&mut self.role, member)
            && let Some(progress) = primary.progress_mut(member)
        {
            progress.blocked = Some(now + peer_timeout);
        }
        self.leave_damaged(now);
    }

    /// Reacts to an entry of the log that can't be read. A primary hands over to a server that
    /// may be able to read it, at most once a minute. Returns whether a handover is in progress.
    pub fn leave_damaged(&mut self, now: Moment) -> bool {
        let due = self.damaged.is_none_or(|since| now >= since + DAMAGED_TIME);
        let able = self.possible_heirs(now, Rule::HandedOverDamaged).next().is_some();
        if due {
            self.damaged = Some(now);
            // Reports the damage to the others at once.
            self.timers.set(Timer::Ping, now);
        }
        if due && able && self.stopping.is_none() {
            self.begin_handover(now, Rule::HandedOverDamaged);
        }
        self.handover.is_some()
    }

    /// Hands over to a member whose syncs are not slow if this primary's are, once per peer
    /// timeout.
    fn hand_over_when_slow(&mut self, now: Moment) {
        let due = self.syncs.handed_over.is_none_or(|at| now >= at + self.peer_timeout());
        if self.handover.is_some() || self.stopping.is_some() || !due || !self.is_slow(now) {
            return;
        }
        let able = self.peers.iter().any(|peer| {
            let member = peer.link.as_ref().map(|link| link.member);
            let known = member.filter(|m| self.config().is_some_and(|config| config.has(*m)));
            known.is_some() && !peer.health.slow && !peer.health.stopping
        });
        if able {
            self.syncs.handed_over = Some(now);
            self.begin_handover(now, Rule::HandedOverSlow);
        }
    }
}
