//! The primary changes the members by itself, one server at a time: withdraw, drop, add, and the
//! gate (Ongaro §4.1 with its correction: an entry of the own term is committed first).

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
    /// Its process has ended, or its disk is another one.
    Gone,
    /// It says that it is about to end.
    Stopping,
    /// It has answered nothing for `T`.
    Unheard,
    /// It answers, and has not stored for `T` what it was sent.
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
        self.note_losses(now, out);
        self.withholds = false;
        self.timers.expired(Timer::Promise, now);
        let Some((index, config)) = self.summary.config() else { return };
        let config = *config;
        let settled = index <= self.committed;
        let stopping = self.stopping.is_some();
        // Who was told to take over has everything but such a config, and could not win with it.
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
            // A stopping primary does so too: what it leaves uncommitted may need a person.
            self.withdraw(now, wall, &config, out)
        };
        // What a promise holds back comes soon: who stepped down before could not be replaced.
        if !wrote && !self.withholds && self.cut_off(now) {
            self.note(Rule::SteppedDownUnheard);
            self.step_down("a majority of the members is not heard", out);
        }
    }

    pub(super) fn own_term_committed(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if self.committed >= primary.term_start)
    }

    /// No majority was heard for `T`; counted from the election at the earliest.
    fn cut_off(&self, now: Moment) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        now >= primary.since + self.peer_timeout() && !self.was_majority_heard(now)
    }

    /// Like [`Replica::hears_majority`], but a link that was just lost still has its `T`.
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

    /// Notes since when each member is lost: of one that is gone, since its link was.
    fn note_losses(&mut self, now: Moment, out: &mut Out) {
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
            // The others are asked now, not at the next heartbeat.
            self.ping(now, out);
        }
    }

    /// Writes the last committed members again when the newest config can't become committed.
    ///
    /// A primary that crashes over its own uncommitted drop can't do that after its restart: it
    /// needs the vote of the other member of that drop, and refuses its own to the dropped server,
    /// whose log is shorter. If the other member is lost in the same moment, the two that live wait
    /// for it or for a person. All majorities of three members meet, so they could elect the author
    /// of the drop under the members before; but only if it has voted for nobody else since, and a
    /// stored vote tells that of the newest term alone. Raft has the same gap.
    fn withdraw(&mut self, now: Moment, wall: WallTime, config: &Config, out: &mut Out) -> bool {
        let before = self.summary.config_up_to(self.committed).filter(|before| before.has(self.me));
        let Some(before) = before.copied() else { return false };
        // The one before may need the lost as much. If it has more members, any of them may come.
        let helps = self.can_commit(&before, now) || before.count() > config.count();
        if self.can_commit(config, now) || !helps || !self.is_free_of_promises(now, out) {
            return false;
        }
        let again = before.restated();
        let added = config.members().find(|member| !before.has(*member));
        if let (Role::Primary(primary), Some(member)) = (&mut self.role, added) {
            // It is asked anew before it is tried again, and not for ever.
            primary.note_drop(member.id, now);
            if let Some(progress) = primary.progress_mut(member) {
                progress.caught_up = false;
            }
        }
        self.note(Rule::Withdrawn);
        log::warn!("the members {config} can't be reached: withdrawn");
        self.append_config(self.vote.term, wall, again, out);
        true
    }

    /// Whether a majority of these members still stores.
    fn can_commit(&self, config: &Config, now: Moment) -> bool {
        let left = config.members().filter(|member| self.stores(*member, now)).count();
        left >= config.majority()
    }

    /// Whether a member is not lost; one that is stopping stores as long as it is heard.
    fn stores(&self, member: Member, now: Moment) -> bool {
        match self.loss(member, now) {
            None => true,
            Some(Loss::Stopping) => self.hears(member, now),
            Some(_) => false,
        }
    }

    /// Of the lost members one whose drop can be committed. From three to two that needs both that
    /// remain: the other one must be there, after the loss was noticed, and may be stopping unless
    /// both are: servers that are stopped together leave the config as it is. A primary that is
    /// stopping itself drops only who keeps it from handing over to another one.
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
        log::warn!("server {member} is dropped: {loss}");
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

    /// Dropped too often without an announcement, and not long enough ago: whatever makes it come
    /// and go, each time costs entries and a filling.
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
            // One whose id is still in the config under another disk is dropped there first.
            config.member(learner.id).is_none()
                && caught_up
                && self.hears(*learner, now)
                // Else it would be withdrawn in the same moment, and added again, for ever.
                && self.loss(*learner, now).is_none()
                && !self.is_penalized(learner.id, now)
                // As a member it would keep everybody from sending.
                && self.peer(learner.id).is_some_and(|peer| !peer.health.full)
        });
        let Some(learner) = learner.filter(|_| self.handover.is_none()) else { return false };
        if !self.is_free_of_promises(now, out) {
            return false;
        }
        self.note(Rule::Added);
        log::info!("server {learner} has caught up and is added");
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
