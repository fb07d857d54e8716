//! Membership changes. The primary decides them alone, one server at a time: withdraw, drop, add,
//! and open the gate. As the correction of Ongaro §4.1 demands, it first commits an entry of its
//! own term.

use super::progress::Progress;
use super::{Env, Raft, Role, Timer};
use crate::config::Config;
use crate::ids::{Member, ServerId};
use crate::limits::{PENALTY_DROPS, PENALTY_TIME, PENALTY_WINDOW};
use crate::peers::Peers;
use crate::rules::Rule;
use crate::time::Moment;
use std::fmt;

/// Why a member counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// It is down: its process has ended, or another disk runs under its id.
    Down,
    /// It reports that it is stopping.
    Stopping,
    /// It is unreachable: it has answered nothing for the peer timeout.
    Unreachable,
    /// It answers, but has not stored an entry for the peer timeout after it was sent.
    Sick,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::Down => "its process has ended, or its disk is another one",
            Loss::Stopping => "it stops",
            Loss::Unreachable => "it does not answer",
            Loss::Sick => "it answers, and stores nothing",
        })
    }
}

/// The members that a primary finds lost, and those that it dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    /// Per id, when the member was first found lost.
    noticed: [Option<Moment>; 3],
    /// Recent drops of members that had not announced a stop.
    drops: Vec<(ServerId, Moment)>,
}

impl Losses {
    pub(super) fn any(&self) -> bool {
        self.noticed.iter().any(Option::is_some)
    }

    /// Records which members are lost now, and since when. Returns whether one is newly lost.
    fn note(&mut self, lost: [Option<Moment>; 3]) -> bool {
        let mut news = false;
        for (noticed, lost) in self.noticed.iter_mut().zip(lost) {
            news |= lost.is_some() && noticed.is_none();
            *noticed = lost.and_then(|since| noticed.or(Some(since)));
        }
        news
    }

    /// Records the drop of a member that had not announced a stop.
    fn note_drop(&mut self, id: ServerId, now: Moment) {
        self.drops.retain(|(_, at)| now < *at + PENALTY_WINDOW + PENALTY_TIME);
        self.drops.push((id, now));
    }

    fn is_penalized(&self, id: ServerId, now: Moment) -> bool {
        let drops = self.drops.iter().rev().filter(|(dropped, _)| *dropped == id);
        let last: Vec<Moment> = drops.map(|(_, at)| *at).take(PENALTY_DROPS).collect();
        last.len() == PENALTY_DROPS
            && last[0] - last[PENALTY_DROPS - 1] < PENALTY_WINDOW
            && now < last[0] + PENALTY_TIME
    }
}

impl Raft {
    pub(super) fn change_members(&mut self, env: &mut Env<'_>) {
        self.note_losses(env.now, env.peers);
        self.promise.is_withheld = false;
        self.timers.expired(Timer::Promise, env.now);
        let Some((index, config)) = self.log.summary().config() else { return };
        let config = *config;
        let settled = index <= self.log.committed();
        let stopping = self.condition.is_stopping();
        // The server that received `TimeoutNow` has all entries except a config written now, and
        // could not win the election against it.
        let leaving = stopping && self.handover.as_ref().is_some_and(|handover| handover.is_sent);
        if leaving {
            return;
        }
        let wrote = if settled {
            // With the newest config, an entry of this primary's term is committed: a new primary
            // writes its config again.
            self.drop_lost(env, &config)
                || (!stopping && (self.add_learner(env, &config) || self.open_gate(env, &config)))
        } else {
            // A stopping primary withdraws, too: an uncommitted config may otherwise leave a
            // group that only an operator can repair.
            self.withdraw(env, &config)
        };
        // A change that waits for a promise follows soon. If the primary stepped down before it,
        // the group might be unable to elect a successor.
        if !wrote && !self.promise.is_withheld && self.is_cut_off(env.now, env.peers) {
            self.note(Rule::SteppedDownUnheard);
            self.step_down(env.peers, "a majority of the members is not heard", env.out);
        }
    }

    pub(super) fn own_term_committed(&self) -> bool {
        matches!(&self.role, Role::Primary(p) if self.log.committed() >= p.term_start)
    }

    /// Returns whether no majority has been recently active since the election. A member whose
    /// link was just lost still counts until the peer timeout.
    fn is_cut_off(&self, now: Moment, peers: &Peers) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        now >= primary.since + self.peer_timeout()
            && !self.makes_majority(|member| peers.was_active(member.id, now))
    }

    fn loss(&self, member: Member, now: Moment, peers: &Peers) -> Option<Loss> {
        let Role::Primary(primary) = &self.role else { return None };
        if member == self.me {
            return None;
        }
        if peers.is_down(member) {
            return Some(Loss::Down);
        }
        if peers.peer(member.id).is_some_and(|peer| peer.health.stopping) {
            return Some(Loss::Stopping);
        }
        let peer_timeout = self.peer_timeout();
        if now < primary.since + peer_timeout {
            return None;
        }
        if !peers.was_active(member.id, now) {
            return Some(Loss::Unreachable);
        }
        let waits = primary.progress(member).and_then(Progress::waits_since);
        waits.is_some_and(|since| now >= since + peer_timeout).then_some(Loss::Sick)
    }

    /// Records when each member was first found lost. For a member that is down, that is when its
    /// link was lost.
    fn note_losses(&mut self, now: Moment, peers: &mut Peers) {
        let Some(config) = self.log.config() else { return };
        let mut lost = [None; 3];
        for member in config.members() {
            lost[member.id.slot()] = self.loss(member, now, peers).map(|loss| {
                let peer = peers.peer(member.id);
                let peer = peer.filter(|peer| loss == Loss::Down && peer.link.is_none());
                peer.and_then(|peer| peer.lost_at).unwrap_or(now)
            });
        }
        if let Role::Primary(primary) = &mut self.role
            && primary.losses.note(lost)
        {
            // Pings the others now, not at the next heartbeat, to learn who is still active.
            peers.ping();
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
    fn withdraw(&mut self, env: &mut Env<'_>, config: &Config) -> bool {
        let before = self.log.committed_config();
        let Some(before) = before.filter(|before| before.has(self.me)).copied() else {
            return false;
        };
        // The previous config may need the lost members just as much. If it has more members, any
        // one of them may return to form a majority.
        let (now, peers) = (env.now, &*env.peers);
        let helps = self.can_commit(&before, now, peers) || before.count() > config.count();
        if self.can_commit(config, now, peers) || !helps || !self.is_free_of_promises(env) {
            return false;
        }
        let added = config.members().find(|member| !before.has(*member));
        if let (Role::Primary(primary), Some(member)) = (&mut self.role, added) {
            // The server must acknowledge again before the primary adds it again, and repeated
            // failures lead to a penalty.
            primary.losses.note_drop(member.id, now);
            if let Some(progress) = primary.progress_mut(member) {
                progress.caught_up = false;
            }
        }
        self.note(Rule::Withdrawn);
        log::warn!("withdrew the config {config}: its members can't be reached");
        self.append_config(self.ballot.term(), env.wall, before.restated(), env.out);
        true
    }

    /// Returns whether a majority of these members can still store entries.
    fn can_commit(&self, config: &Config, now: Moment, peers: &Peers) -> bool {
        config.count_of(|member| self.stores(member, now, peers)) >= config.majority()
    }

    /// Returns whether a member can still store entries: it is not lost, or it is stopping but
    /// recently active.
    fn stores(&self, member: Member, now: Moment, peers: &Peers) -> bool {
        match self.loss(member, now, peers) {
            None => true,
            Some(Loss::Stopping) => peers.is_active(member, now),
            Some(_) => false,
        }
    }

    /// Returns a lost member whose drop can be committed. A drop from three members to two needs
    /// both that remain, so the other one must have answered after the loss was noticed. That one
    /// may be stopping, unless the lost member is stopping as well: servers that are stopped
    /// together leave the config as it is. A primary that is stopping itself drops only a member
    /// that keeps it from handing over to another one.
    fn droppable(&self, config: &Config, now: Moment, peers: &Peers) -> Option<(Member, Loss)> {
        let Role::Primary(primary) = &self.role else { return None };
        let lost = |m: Member| self.loss(m, now, peers).map(|loss| (m, loss));
        config.members().filter_map(lost).find(|(member, loss)| {
            let stops = *loss == Loss::Stopping;
            let noticed = primary.losses.noticed[member.id.slot()];
            let mut rest = config.members().filter(|other| other != member && *other != self.me);
            let is_heir = |other: Member| {
                self.loss(other, now, peers).is_none() && peers.is_active(other, now)
            };
            let is_there = |other: Member| {
                let answered = peers.peer(other.id).and_then(|peer| peer.answered);
                (if stops { is_heir(other) } else { self.stores(other, now, peers) })
                    && peers.is_active(other, now)
                    && answered >= noticed
            };
            match self.condition.is_stopping() {
                false => rest.all(is_there),
                true if stops => false,
                true => config.count() > 2 && rest.all(|other| is_there(other) && is_heir(other)),
            }
        })
    }

    fn drop_lost(&mut self, env: &mut Env<'_>, config: &Config) -> bool {
        let Some((member, loss)) = self.droppable(config, env.now, env.peers) else {
            return false;
        };
        if loss != Loss::Down && !self.is_free_of_promises(env) {
            return false;
        }
        self.note(match loss {
            Loss::Down => Rule::DroppedGone,
            Loss::Stopping => Rule::DroppedStopping,
            Loss::Unreachable => Rule::DroppedUnheard,
            Loss::Sick => Rule::DroppedSick,
        });
        log::warn!("dropped server {member}: {loss}");
        if let Role::Primary(primary) = &mut self.role
            && loss != Loss::Stopping
        {
            primary.losses.note_drop(member.id, env.now);
        }
        if self.is_penalized(member.id, env.now) {
            self.note(Rule::Penalized);
            log::warn!("server {} is not added again for a while", member.id);
        }
        self.append_config(self.ballot.term(), env.wall, config.without(member.id), env.out);
        true
    }

    /// Returns whether the server was recently dropped too often without an announcement. Each
    /// drop and addition costs entries and a new catch-up, so the primary does not add it for a
    /// while.
    pub(crate) fn is_penalized(&self, id: ServerId, now: Moment) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.losses.is_penalized(id, now))
    }

    fn add_learner(&mut self, env: &mut Env<'_>, config: &Config) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        let (now, peers) = (env.now, &*env.peers);
        let learner = peers.linked().map(|(member, _)| member).find(|learner| {
            // If the config holds this id with another disk, the primary drops that disk first.
            config.member(learner.id).is_none()
                && primary.progress(*learner).is_some_and(|progress| progress.caught_up)
                && peers.is_active(*learner, now)
                // Otherwise the primary would withdraw the addition at once and repeat it
                // forever.
                && self.loss(*learner, now, peers).is_none()
                && !primary.losses.is_penalized(learner.id, now)
                // As a member with a full disk it would block clients from sending.
                && peers.peer(learner.id).is_some_and(|peer| !peer.health.full)
        });
        let Some(learner) = learner.filter(|_| self.handover.is_none()) else { return false };
        if !self.is_free_of_promises(env) {
            return false;
        }
        self.note(Rule::Added);
        log::info!("added server {learner}: it has caught up");
        let run = env.peers.run_of(learner).expect("it is linked");
        self.append_config(self.ballot.term(), env.wall, config.with(learner, run), env.out);
        true
    }

    fn open_gate(&mut self, env: &mut Env<'_>, config: &Config) -> bool {
        let complete = config.count() == usize::from(self.shared.servers);
        let (index, term_start) = match (&self.role, self.log.summary().config()) {
            (Role::Primary(primary), Some((index, _))) => (index, primary.term_start),
            _ => return false,
        };
        if config.gate_open || !complete || self.log.acknowledged() < index.max(term_start) {
            return false;
        }
        self.note(Rule::GateOpened);
        log::info!("all servers are attached: the gate is open");
        self.append_config(self.ballot.term(), env.wall, config.opened(), env.out);
        true
    }
}
