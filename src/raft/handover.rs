//! Planned handover (Ongaro §3.10), and how a server that was told to stop leaves the group.

use super::{Env, Raft, Role, Timer};
use crate::ids::{GroupId, LinkId, Member, ServerId, Term};
use crate::packet::{Packet, Verdict};
use crate::peers::{Peer, Peers};
use crate::rules::Rule;
use crate::time::Moment;

/// A handover in progress: the primary accepts no changes until it is decided.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    /// The reason. With a slow disk the primary never chooses a slow backup; with a damaged log,
    /// never a damaged one.
    why: Rule,
    /// The backup that the operator chose.
    to: Option<ServerId>,
    /// `TimeoutNow` was sent to a backup.
    pub(super) is_sent: bool,
}

/// Another member, with the link to it.
type Heir<'a> = (&'a Peer, (Member, LinkId));

impl Raft {
    /// Begins to stop. From now on this server never campaigns. A primary hands over, and changes
    /// the members only where the handover requires it.
    pub(crate) fn stop(&mut self, now: Moment, peers: &mut Peers) {
        if self.condition.stop(now) {
            self.timers.set(Timer::Stop, now + self.peer_timeout() * 2);
            // Reports the stop at once.
            peers.heartbeat_now(now);
            self.dirty = true;
        }
    }

    /// Returns whether a stopping server may end. It may if it was dropped, if no linked member
    /// could drop it, or after two peer timeouts: one for the handover, one for the drop.
    pub(crate) fn is_released(&self, now: Moment, peers: &Peers) -> bool {
        let Some(began) = self.condition.stopping else { return false };
        let dropped = self.log.config().is_none_or(|config| !config.has(self.me));
        let may_be_dropped = self.linked_members(peers).any(|(peer, _)| !peer.health.stopping);
        dropped || !may_be_dropped || now >= began + self.peer_timeout() * 2
    }

    /// Returns the other members that are linked.
    fn linked_members<'a>(&'a self, peers: &'a Peers) -> impl Iterator<Item = Heir<'a>> {
        peers.iter().filter_map(|peer| {
            let link = peer.link.as_ref()?;
            let is_member = self.log.config()?.has(link.member);
            is_member.then_some((peer, (link.member, link.id)))
        })
    }

    /// Returns whether this primary accepts no changes because it is handing its role over.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.handover.is_some()
    }

    /// Begins a handover to the backup `to`, or to any backup. A handover that has not chosen its
    /// backup yet goes to `to` instead.
    fn begin_handover(
        &mut self,
        now: Moment,
        peers: &Peers,
        why: Rule,
        to: Option<ServerId>,
    ) -> Verdict {
        if !self.is_primary() {
            return Verdict::NotPrimary;
        }
        if self.possible_heirs(now, peers, why, to).next().is_none() {
            return Verdict::NoBackup;
        }
        match &mut self.handover {
            Some(handover) if !handover.is_sent => handover.to = to,
            Some(_) => {}
            None => {
                log::info!("handing over to a backup");
                self.note(why);
                self.handover = Some(Handover { why, to, is_sent: false });
                self.timers.set(Timer::Handover, now + self.peer_timeout());
            }
        }
        self.dirty = true;
        Verdict::Taken
    }

    /// Carries out an operator's order, the first packet on its link.
    pub(crate) fn on_order(
        &mut self,
        now: Moment,
        peers: &Peers,
        group: GroupId,
        to: Option<ServerId>,
    ) -> Verdict {
        if group != self.shared.group {
            return Verdict::OtherGroup;
        }
        self.begin_handover(now, peers, Rule::HandedOverOrder, to)
    }

    /// Begins the handover of a stopping primary.
    pub(super) fn tick_stop(&mut self, env: &mut Env<'_>) {
        let Some(began) = self.condition.stopping else { return };
        // A handover may fail until a member that was just lost is dropped, so this tries again.
        if self.handover.is_none() && env.now < began + self.peer_timeout() * 2 {
            self.begin_handover(env.now, env.peers, Rule::HandedOverStop, None);
        }
        self.timers.expired(Timer::Stop, env.now);
    }

    pub(super) fn tick_handover(&mut self, env: &mut Env<'_>) {
        self.hand_over_when_slow(env.now, env.peers);
        let Some(handover) = &self.handover else { return };
        if self.timers.expired(Timer::Handover, env.now) {
            log::warn!("the handover has failed");
            self.note(Rule::HandoverGivenUp);
            self.handover = None;
            self.dirty = true;
        } else if !handover.is_sent && self.log.acknowledged() == self.log.last() {
            // Every member has every entry, since all are acknowledged: the one with the fewest
            // faults takes over.
            let heirs = self.possible_heirs(env.now, env.peers, handover.why, handover.to);
            let heir = heirs.min_by_key(|(peer, _)| {
                (peer.unreachable.is_some(), peer.health.damaged, peer.health.slow)
            });
            let Some((_, (heir, link))) = heir else { return };
            log::info!("sent TimeoutNow to server {heir}");
            env.out.send(link, Packet::TimeoutNow { term: self.ballot.term() });
            if let Some(handover) = &mut self.handover {
                handover.is_sent = true;
            }
        }
    }

    /// Returns the members that are recently active, not stopping and reachable for clients,
    /// without the fault because of which this primary hands over. `to` is the one that an
    /// operator chose.
    fn possible_heirs<'a>(
        &'a self,
        now: Moment,
        peers: &'a Peers,
        why: Rule,
        to: Option<ServerId>,
    ) -> impl Iterator<Item = Heir<'a>> {
        self.linked_members(peers).filter(move |(peer, (member, _))| {
            // When this server ends anyway, a backup takes over whether clients can reach it or
            // not.
            let unable = peer.health.stopping
                || peer.health.lacks_entries
                || (why != Rule::HandedOverStop && peer.unreachable.is_some())
                || (why == Rule::HandedOverSlow && peer.health.slow)
                || (why == Rule::HandedOverDamaged && peer.health.damaged);
            !unable && to.is_none_or(|to| member.id == to) && peers.is_active(*member, now)
        })
    }

    /// Handles `TimeoutNow`: campaigns at once if it came from the primary of this term.
    pub(super) fn on_timeout_now(&mut self, env: &mut Env<'_>, from: Member, term: Term) {
        let follows = matches!(&self.role, Role::Follower(f) if f.primary == Some(from));
        if term == self.ballot.term() && follows && self.may_campaign(env.peers) {
            self.note(Rule::CampaignHandedOver);
            self.ask_for_votes(env, self.ballot.term().next());
        }
    }

    /// Records whether this server's disk is nearly full, and reports a change to the others at
    /// once.
    pub(crate) fn note_space(&mut self, now: Moment, peers: &mut Peers, full: bool) {
        if std::mem::replace(&mut self.condition.full, full) == full {
            return;
        }
        match full {
            true => log::warn!("the disk is nearly full: refusing requests that need room"),
            false => log::info!("the disk has free space again"),
        }
        peers.heartbeat_now(now);
    }

    /// Reacts to an entry of the log that can't be read. A primary hands over to a server that
    /// may be able to read it, at most once a minute. Returns whether a handover is in progress.
    pub(crate) fn leave_damaged(&mut self, now: Moment, peers: &mut Peers) -> bool {
        if self.condition.note_damage(now) {
            // Reports the damage to the others at once.
            peers.heartbeat_now(now);
            if self.handover.is_none() && !self.condition.is_stopping() {
                self.begin_handover(now, peers, Rule::HandedOverDamaged, None);
            }
        }
        self.handover.is_some()
    }

    /// Notes whether a part of the log is damaged.
    pub(crate) fn note_damaged(&mut self, now: Moment, peers: &mut Peers, is_damaged: bool) {
        if self.condition.lacks_entries != is_damaged {
            peers.heartbeat_now(now);
        }
        if self.condition.lacks_entries && !is_damaged {
            // What could not be read can be read again.
            self.condition.damaged = None;
        }
        self.condition.lacks_entries = is_damaged;
        self.dirty = true;
    }

    /// Hands over to a member whose syncs are not slow if this primary's are, once per peer
    /// timeout.
    fn hand_over_when_slow(&mut self, now: Moment, peers: &Peers) {
        let peer_timeout = self.peer_timeout();
        let due = self.condition.may_hand_over_as_slow(now, peer_timeout);
        if self.handover.is_some() || self.condition.is_stopping() || !due {
            return;
        }
        let is_able =
            |peer: &Peer| !peer.health.slow && !peer.health.stopping && !peer.health.lacks_entries;
        if self.linked_members(peers).any(|(peer, _)| is_able(peer)) {
            self.condition.handed_over = Some(now);
            self.begin_handover(now, peers, Rule::HandedOverSlow, None);
        }
    }
}
