//! Membership changes. The primary decides them alone, one server at a time: withdraw, drop, add,
//! and open the gate. As the correction of Ongaro §4.1 demands, it first commits an entry of its
//! own term.

use super::event::Out;
use super::handover::Handover;
use super::rules::Rule;
use super::{Config, Replica, Role, Timer};
use crate::ids::{Member, ServerId};
use crate::limits::{PENALTY_DROPS, PENALTY_TIME, PENALTY_WINDOW};
use crate::time::{Moment, WallTime};
use std::fmt;

/// Why a member counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// It is down: its process has ended, or another disk runs under its id.
    Gone,
    /// It reports that it is stopping.
    Stopping,
    /// It is unreachable: it has answered nothing for the peer timeout.
    Unheard,
    /// It answers, but has not stored an entry for the peer timeout after it was sent.
    Sick,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::Gone => "its process has ended, or its disk is another one",
            Loss::Stopping => "it stops",
            Loss::Unheard => "it does not answer",
            Loss::Sick => "it answers, and stores nothing",
        })
    }
}

impl Replica {
    pub(super) fn change_members(&mut self, now: Moment, wall: WallTime, out: &mut Out) {
        self.note_losses(now);
        self.withholds = false;
        self.timers.expired(Timer::Promise, now);
        let Some((index, config)) = self.summary.config() else { return };
        let config = *config;
        let settled = index <= self.committed;
        let stopping = self.stopping.is_some();
        // The server that received `TimeoutNow` has all entries except a config written now, and
        // could not win the election against it.
        let leaving = stopping && self.handover.as_ref().is_some_and(Handover::is_told);
        if leaving {
            return;
        }
        let wrote = if settled {
            self.own_term_committed()
                && (self.drop_lost(now, wall, &config, out)
                    || (!stopping
                        && (self.add_learner(now, wall, &config, out)
                            || self.open_gate(wall, &config, out))))
        } else {
            // A stopping primary withdraws, too: an uncommitted config may otherwise leave a
            // group that only an operator can repair.
            self.withdraw(now, wall, &config, out)
        };
        // A change that waits for a promise follows soon. If the primary stepped down before it,
        // the group might be unable to elect a successor.
        if !wrote && !self.withholds && self.cut_off(now) {
            self.note(Rule::SteppedDownUnheard);
            self.step_down("a majority of the members is not heard", out);
        }
    }

    pub(super) fn own_term_committed(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if self.committed >= primary.term_start)
    }

    /// Returns whether no majority has been recently active since the election.
    fn cut_off(&self, now: Moment) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        now >= primary.since + self.peer_timeout() && !self.was_majority_heard(now)
    }

    /// Like [`Replica::hears_majority`], but a member whose link was just lost still counts until
    /// the peer timeout.
    fn was_majority_heard(&self, now: Moment) -> bool {
        let Some(config) = self.config() else { return false };
        let heard = |member: Member| {
            member == self.me
                || self
                    .peer(member.id)
                    .and_then(|peer| peer.heard)
                    .is_some_and(|heard| now < heard + self.peer_timeout())
        };
        config.members().filter(|member| heard(*member)).count() >= config.majority()
    }

    fn loss(&self, member: Member, now: Moment) -> Option<Loss> {
        let Role::Primary(primary) = &self.role else { return None };
        if member == self.me {
            return None;
        }
        if self.is_gone(member) {
            return Some(Loss::Gone);
        }
        if self.peer(member.id).is_some_and(|peer| peer.health.stopping) {
            return Some(Loss::Stopping);
        }
        let peer_timeout = self.peer_timeout();
        if now < primary.since + peer_timeout {
            return None;
        }
        let heard = self.peer(member.id).and_then(|peer| peer.heard);
        if heard.is_none_or(|heard| now >= heard + peer_timeout) {
            return Some(Loss::Unheard);
        }
        let waits = primary.progress(member).and_then(super::primary::Progress::waits_since);
        waits.is_some_and(|since| now >= since + peer_timeout).then_some(Loss::Sick)
    }

    /// Records when each member was first found lost. For a member that is down, that is when its
    /// link was lost.
    fn note_losses(&mut self, now: Moment) {
        let Some(config) = self.config().copied() else { return };
        let losses = ServerId::all(3)
            .map(|id| {
                let member = config.member(id)?;
                let loss = self.loss(member, now)?;
                let peer = self.peer(id).filter(|peer| loss == Loss::Gone && peer.link.is_none());
                Some(peer.and_then(|peer| peer.lost_at).unwrap_or(now))
            })
            .collect::<Vec<_>>();
        let Role::Primary(primary) = &mut self.role else { return };
        let mut news = false;
        for (noticed, loss) in primary.lost_at.iter_mut().zip(&losses) {
            news |= loss.is_some() && noticed.is_none();
            *noticed = loss.and_then(|since| noticed.or(Some(since)));
        }
        primary.has_loss = losses.iter().any(Option::is_some);
        if news {
            // Pings the others now, not at the next heartbeat, to learn who is still active.
            self.ping();
        }
    }

    /// Writes the last committed members again when the newest config can't become committed.
    ///
    /// A primary that crashes after appending its own drop, before the drop is committed, can't
    /// withdraw it after a restart. It needs the vote of the other member of that config, and
    /// refuses its own vote to the dropped server, whose log is shorter. If the other member is
    /// lost in the same moment, the two live servers wait for it or for an operator. All
    /// majorities of three members intersect, so the two could elect the author of the drop under
    /// the previous members. But that is safe only if the author has voted for nobody else since,
    /// and a stored vote proves that for the newest term alone. Raft has the same gap.
    fn withdraw(&mut self, now: Moment, wall: WallTime, config: &Config, out: &mut Out) -> bool {
        let before = self.summary.config_up_to(self.committed).filter(|before| before.has(self.me));
        let Some(before) = before.copied() else { return false };
        // The previous config may need the lost members just as much. If it has more members, any
        // one of them may return to form a majority.
        let helps = self.can_commit(&before, now) || before.count() > config.count();
        if self.can_commit(config, now) || !helps || !self.is_free_of_promises(now, out) {
            return false;
        }
        let again = before.restated();
        let added = config.members().find(|member| !before.has(*member));
        if let (Role::Primary(primary), Some(member)) = (&mut self.role, added) {
            // The server must acknowledge again before the primary adds it again, and repeated
            // failures lead to a penalty.
            primary.note_drop(member.id, now);
            if let Some(progress) = primary.progress_mut(member) {
                progress.caught_up = false;
            }
        }
        self.note(Rule::Withdrawn);
        log::warn!("withdrew the config {config}: its members can't be reached");
        self.append_config(self.vote.term, wall, again, out);
        true
    }

    /// Returns whether a majority of these members can still store entries.
    fn can_commit(&self, config: &Config, now: Moment) -> bool {
        let left = config.members().filter(|member| self.stores(*member, now)).count();
        left >= config.majority()
    }

    /// Returns whether a member can still store entries: it is not lost, or it is stopping but
    /// recently active.
    fn stores(&self, member: Member, now: Moment) -> bool {
        match self.loss(member, now) {
            None => true,
            Some(Loss::Stopping) => self.hears(member, now),
            Some(_) => false,
        }
    }

    /// Returns a lost member whose drop can be committed. A drop from three members to two needs
    /// both that remain, so the other one must have answered after the loss was noticed. That one
    /// may be stopping, unless the lost member is stopping as well: servers that are stopped
    /// together leave the config as it is. A primary that is stopping itself drops only a member
    /// that keeps it from handing over to another one.
    fn droppable(&self, now: Moment, config: &Config) -> Option<(Member, Loss)> {
        let Role::Primary(primary) = &self.role else { return None };
        let mut lost = config.members().filter_map(|m| self.loss(m, now).map(|loss| (m, loss)));
        lost.find(|(member, loss)| {
            let stops = *loss == Loss::Stopping;
            let noticed = primary.lost_at[member.id.slot()];
            let mut rest = config.members().filter(|other| other != member && *other != self.me);
            let is_heir = |other: Member| self.loss(other, now).is_none() && self.hears(other, now);
            let is_there = |other: Member| {
                let answered = self.peer(other.id).and_then(|peer| peer.answered);
                (if stops { is_heir(other) } else { self.stores(other, now) })
                    && self.hears(other, now)
                    && answered >= noticed
            };
            match self.stopping {
                None => rest.all(is_there),
                Some(_) if stops => false,
                Some(_) => {
                    config.count() > 2 && rest.all(|other| is_there(other) && is_heir(other))
                }
            }
        })
    }

    fn drop_lost(&mut self, now: Moment, wall: WallTime, config: &Config, out: &mut Out) -> bool {
        let Some((member, loss)) = self.droppable(now, config) else { return false };
        if loss != Loss::Gone && !self.is_free_of_promises(now, out) {
            return false;
        }
        self.note(match loss {
            Loss::Gone => Rule::DroppedGone,
            Loss::Stopping => Rule::DroppedStopping,
            Loss::Unheard => Rule::DroppedUnheard,
            Loss::Sick => Rule::DroppedSick,
        });
        log::warn!("dropped server {member}: {loss}");
        if let Role::Primary(primary) = &mut self.role
            && loss != Loss::Stopping
        {
            primary.note_drop(member.id, now);
        }
        if self.is_penalized(member.id, now) {
            self.note(Rule::Penalized);
            log::warn!("server {} is not added again for a while", member.id);
        }
        self.append_config(self.vote.term, wall, config.without(member.id), out);
        true
    }

    /// Returns whether the server was recently dropped too often without an announcement. Each
    /// drop and addition costs entries and a new catch-up, so the primary does not add it for a
    /// while.
    pub(super) fn is_penalized(&self, id: ServerId, now: Moment) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        let drops = primary.drops.iter().rev().filter(|(dropped, _)| *dropped == id);
        let last: Vec<Moment> = drops.map(|(_, at)| *at).take(PENALTY_DROPS).collect();
        last.len() == PENALTY_DROPS
            && last[0] - last[PENALTY_DROPS - 1] < PENALTY_WINDOW
            && now < last[0] + PENALTY_TIME
    }

    fn add_learner(&mut self, now: Moment, wall: WallTime, config: &Config, out: &mut Out) -> bool {
        let learner = self.linked().find(|learner| {
            let caught_up = match &self.role {
                Role::Primary(primary) => {
                    primary.progress(*learner).is_some_and(|progress| progress.caught_up)
                }
                _ => false,
            };
            // If the config holds this id with another disk, the primary drops that disk first.
            config.member(learner.id).is_none()
                && caught_up
                && self.hears(*learner, now)
                // Otherwise the primary would withdraw the addition at once and repeat it
                // forever.
                && self.loss(*learner, now).is_none()
                && !self.is_penalized(learner.id, now)
                // As a member with a full disk it would block clients from sending.
                && self.peer(learner.id).is_some_and(|peer| !peer.health.full)
        });
        let Some(learner) = learner.filter(|_| self.handover.is_none()) else { return false };
        if !self.is_free_of_promises(now, out) {
            return false;
        }
        self.note(Rule::Added);
        log::info!("added server {learner}: it has caught up");
        let run = self.run_of(learner).expect("it is linked");
        self.append_config(self.vote.term, wall, config.with(learner, run), out);
        true
    }

    fn open_gate(&mut self, wall: WallTime, config: &Config, out: &mut Out) -> bool {
        let complete = config.count() == usize::from(self.shared.servers);
        let (index, term_start) = match (&self.role, self.summary.config()) {
            (Role::Primary(primary), Some((index, _))) => (index, primary.term_start),
            _ => return false,
        };
        if config.gate_open || !complete || self.acknowledged < index.max(term_start) {
            return false;
        }
        self.note(Rule::GateOpened);
        log::info!("all servers are attached: the gate is open");
        self.append_config(self.vote.term, wall, config.opened(), out);
        true
    }
}
