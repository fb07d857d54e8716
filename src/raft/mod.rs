#![doc = include_str!("README.md")]
//!
//! # In the code
//!
//! The module is pure: events go in, effects come out, and payloads are opaque bytes.
//!
//! `Raft` is one server's part in the consensus. `raft_log` holds the indexes, with `log_summary`,
//! the terms and configs; `ballot` holds the term and the vote. A server is a follower
//! (`follower`), a candidate (`election`) or the primary (`primary`, with one `progress` for each
//! other server). The primary changes the members in `membership`, and gives its role up in
//! `handover`. `epoch` and `survivor` hold what overrules elections. `condition` is this server's
//! own health.
//!
//! A handler gets the present time, the peers and the output in an `Env`.

mod ballot;
mod condition;
mod election;
mod epoch;
mod follower;
mod handover;
mod log_summary;
mod membership;
mod primary;
mod progress;
mod raft_log;
#[cfg(feature = "simulate")]
mod search;
mod survivor;
mod timers;

pub use epoch::Beginning;
pub use log_summary::LogSummary;
pub use raft_log::{Durable, LogReader};
#[cfg(feature = "simulate")]
pub use search::Decision;

use crate::config::Config;
use crate::effect::{Effect, Out, Quarantine};
use crate::ids::{Index, LinkId, Member, Position, Run, ServerId, Term, Vote};
use crate::packet::{Hello, Packet, Past, PeerHealth, Refusal, Shared};
use crate::peers::{Env, OwnState, Peers, Up};
use crate::record::Kind;
use crate::rng::Rng;
use crate::rules::{Decisions, Rule};
use crate::time::{Moment, WallTime};
use ballot::Ballot;
use condition::Condition;
use election::{Candidacy, Election};
use epoch::Epochs;
use follower::Following;
use handover::Handover;
use primary::Primary;
use raft_log::RaftLog;
use std::time::Duration;
use survivor::Promise;
use timers::{Timer, Timers};

/// Selects which backup campaigns first after the primary goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// A random delay of up to 10 ms.
    #[default]
    Coin,
    /// The backup with the lower id campaigns at once; the other waits 20 ms.
    Rank,
}

/// Why the replica does not accept a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// This server is not the primary, or is stopping.
    NotPrimary,
    /// This server is handing its role over to a backup.
    HandingOver,
    /// The gate is closed: not all servers have been members yet.
    GateClosed,
    /// The group has fewer members than `min_copies`.
    TooFewCopies,
    /// The disk of this member is nearly full.
    NoSpace(ServerId),
}

#[derive(Clone, Debug)]
pub(crate) enum Role {
    Follower(Following),
    Candidate(Candidacy),
    Primary(Primary),
}

/// One server's part in the consensus.
#[derive(Clone, Debug)]
pub(crate) struct Raft {
    pub(crate) me: Member,
    pub(crate) shared: Shared,
    pub(crate) log: RaftLog,
    pub(crate) ballot: Ballot,
    pub(crate) role: Role,
    election: Election,
    /// On a primary: the handover in progress.
    handover: Option<Handover>,
    promise: Promise,
    epochs: Epochs,
    condition: Condition,
    timers: Timers,
    started: Moment,
    /// State changed that the next tick must process before the event loop sleeps.
    dirty: bool,
    /// The process is ending for a quarantine: the replica ignores all further events.
    pub(crate) left: bool,
    pub(crate) decisions: Decisions,
}

impl Raft {
    /// Returns the consensus as it is after a start, with the stored vote and log.
    pub(crate) fn new(
        now: Moment,
        (me, shared): (Member, Shared),
        (vote, summary, acknowledged): (Vote, LogSummary, Index),
        (takeover, rng): (Takeover, Rng),
    ) -> Raft {
        let founder = vote.founder == Some(me.disk) && vote.given == Some(me);
        let held = summary.last().term.epoch() == vote.term.epoch();
        Raft {
            me,
            shared,
            log: RaftLog::new(summary, acknowledged, me),
            ballot: Ballot::new(vote),
            role: Role::Follower(Following::default()),
            election: Election::new(takeover, rng),
            handover: None,
            promise: Promise::default(),
            epochs: Epochs::new(founder && !held),
            condition: Condition::default(),
            timers: Timers::default(),
            started: now,
            dirty: true,
            left: false,
            decisions: Decisions::default(),
        }
    }

    pub(crate) fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// Returns this server if it is primary, or the recently active primary that it follows.
    pub(crate) fn primary(&self, now: Moment, peers: &Peers) -> Option<Member> {
        match &self.role {
            Role::Primary(_) => Some(self.me),
            Role::Candidate(_) => None,
            Role::Follower(following) => {
                following.primary.filter(|member| peers.is_active(*member, now))
            }
        }
    }

    /// Returns whether clients may connect, as far as this server knows.
    pub(crate) fn gate_open(&self) -> bool {
        // A config is written only when the previous one is committed.
        let summary = self.log.summary();
        let acknowledged = summary.config_up_to(self.log.acknowledged());
        acknowledged.is_some_and(|config| config.gate_open) || summary.gate_was_open()
    }

    /// Returns whether the group has fewer members than `min_copies`.
    pub(crate) fn has_too_few_copies(&self) -> bool {
        self.log.config().map_or(0, Config::count) < usize::from(self.shared.copies_min)
    }

    /// Returns a member whose disk is nearly full, if there is one.
    pub(crate) fn full_member(&self, peers: &Peers) -> Option<ServerId> {
        let is_full = |member: &Member| {
            if *member == self.me {
                return self.condition.full;
            }
            peers.peer(member.id).is_some_and(|peer| peer.is_linked(*member) && peer.health.full)
        };
        self.log.config()?.members().find(is_full).map(|member| member.id)
    }

    /// Returns what this server's hellos say of its term and log.
    pub(crate) fn own_state(&self) -> OwnState {
        let (vote, summary) = (self.ballot.vote(), self.log.summary());
        let only_heard_of = vote.term.epoch() > summary.last().term.epoch();
        let heard_of = self.ballot.epoch().filter(|_| only_heard_of);
        OwnState {
            term: vote.term,
            founder: vote.founder,
            last: summary.position(self.log.stored()),
            epochs: summary.epochs().chain(heard_of).collect(),
            added: summary.run_added(self.me.disk),
        }
    }

    /// Returns the state that this server's pings report.
    pub(crate) fn health(&self, now: Moment) -> PeerHealth {
        PeerHealth {
            leads: self.is_primary(),
            stopping: self.condition.is_stopping(),
            slow: self.condition.is_slow(now),
            full: self.condition.full,
            damaged: self.condition.damaged.is_some(),
            lacks_entries: self.condition.lacks_entries,
        }
    }

    /// Returns the latest time at which the caller must tick.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        if self.dirty { Some(Moment(0)) } else { self.timers.next() }
    }

    /// Appends a payload to the log as the next entry and returns its index.
    ///
    /// # Errors
    /// Why this server can't accept it now.
    pub(crate) fn propose(
        &mut self,
        env: &mut Env<'_>,
        kind: Kind,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Index, NotTaken> {
        if self.condition.is_stopping() || self.left || !self.is_primary() {
            return Err(NotTaken::NotPrimary);
        }
        if self.handover.is_some() {
            return Err(NotTaken::HandingOver);
        }
        if !self.gate_open() {
            return Err(NotTaken::GateClosed);
        }
        if self.has_too_few_copies() {
            return Err(NotTaken::TooFewCopies);
        }
        // These make room.
        let frees = matches!(kind, Kind::DELETE | Kind::FORGET);
        if let Some(id) = self.full_member(env.peers).filter(|_| !frees) {
            return Err(NotTaken::NoSpace(id));
        }
        // This turn's batch may already be on its way to disk, so the next tick must flush this
        // entry.
        self.dirty = true;
        env.wall = env.peers.stamp(env.now, env.wall);
        Ok(self.log.append(self.ballot.term(), env.wall, kind, body, env.out))
    }

    /// Makes the decisions that are due, and sends what has accumulated.
    pub(crate) fn tick(&mut self, env: &mut Env<'_>, log: &dyn LogReader) {
        self.dirty = false;
        self.tick_stop(env);
        self.complete_epoch(env);
        if self.epochs.later.is_some() && self.is_healthy(env.now, env.peers) {
            self.epochs.later = None;
        }
        self.tick_survivor(env);
        self.tick_election(env);
        match self.role {
            Role::Primary(_) => self.tick_primary(env, log),
            _ => self.tick_follower(env),
        }
    }

    /// Handles a packet of a linked server.
    pub(crate) fn on_packet(
        &mut self,
        env: &mut Env<'_>,
        (from, link): (Member, LinkId),
        packet: Packet,
        records: &[u8],
    ) {
        match packet {
            Packet::Released { asked } => self.on_released(env.now, from, asked),
            Packet::TimeoutNow { term } => self.on_timeout_now(env, from, term),
            Packet::Append(append) => self.on_append(env, (from, link), append, records),
            Packet::AppendAccepted { term, stored, round } => {
                self.on_append_accepted(env, from, term, stored, round);
            }
            Packet::AppendRejected { term, hint } => self.on_append_rejected(from, term, hint),
            Packet::HigherTerm { term } => self.adopt(env, term),
            Packet::AskPreVote(ask) => self.on_ask_pre_vote(env, (from, link), ask),
            Packet::PreVote { term, granted, own } => {
                self.on_ballot(env, from, (false, term, granted), own);
            }
            Packet::AskVote(ask) => self.on_ask_vote(env, (from, link), ask),
            Packet::Vote { term, granted } => {
                self.on_ballot(env, from, (true, term, granted), term);
            }
            Packet::SteppedDown { .. } => self.leave_primary(from),
            Packet::Refuses(epoch) => self.remember_refused(env.now, env.peers, epoch),
            // The node has processed these.
            Packet::Proofs
            | Packet::ProofsTaken
            | Packet::Settings
            | Packet::Fetch { .. }
            | Packet::Digest { .. }
            | Packet::Fetched => {}
            // These packets are valid only as the first on a link, or only towards operators.
            _ => env.close_nonsense(link),
        }
    }

    pub(crate) fn on_durable(&mut self, env: &mut Env<'_>, durable: Durable) {
        self.log.note_durable(durable.last);
        self.ballot.note_durable(durable.vote);
        self.condition.note_synced(env.now, env.peers.peer_timeout());
        self.ballot.send_owed(env.out);
        match self.role {
            Role::Primary(_) => self.advance(),
            Role::Candidate(_) => self.count_votes(env),
            Role::Follower(_) => self.acknowledge(env.out),
        }
    }

    /// Handles a new link to a server.
    pub(crate) fn on_up(&mut self, now: Moment, peers: &Peers, up: Up) {
        if let Role::Follower(following) = &mut self.role
            && up.restarted
            && following.primary.is_some_and(|primary| primary.id == up.member.id)
        {
            following.primary = None;
        }
        self.restart_progress(now, peers, up.member);
    }

    /// Handles the answer of a server to a ping.
    pub(crate) fn on_active(&mut self) {
        self.dirty |= matches!(&self.role, Role::Primary(primary) if primary.losses.any());
    }

    /// Reacts to the refusal of this server's hello: a server whose directory is an old copy
    /// quarantines it and restarts uninitialized.
    pub(crate) fn heed_refusal(&mut self, env: &mut Env<'_>, why: Refusal) {
        match why {
            // A server that a majority follows is not an old copy, whatever one other server
            // remembers.
            Refusal::OldCopy if !self.leads_majority(env.now, env.peers) => {
                log::warn!("this directory is an old copy: quarantining it");
                self.note(Rule::LeftOldCopy);
                self.leave(Quarantine::Everything, env.out);
            }
            Refusal::Doubtful => {
                self.epochs.doubted = Some(env.now);
                if matches!(self.role, Role::Candidate(_)) {
                    self.lose_round(env.now, env.peers);
                }
            }
            _ => {}
        }
    }

    /// Returns the run with which the group last added the disk of a hello. If the sender's log is
    /// at least as new as this one, it holds every addition that the group relies on. A server
    /// that was away could otherwise take a copy that the group has added meanwhile for an old
    /// one, and keep it from voting for as long as there is no primary.
    pub(crate) fn run_added_by(&self, hello: &Hello, past: &Past) -> Option<Run> {
        let newer = hello.last >= self.last_position();
        past.added.filter(|_| newer).or_else(|| self.log.summary().run_added(hello.from.disk))
    }

    /// Adopts a higher term of the same epoch. A primary or candidate of a lower term becomes a
    /// follower.
    pub(crate) fn adopt(&mut self, env: &mut Env<'_>, term: Term) {
        if term <= self.ballot.term() || term.epoch() != self.ballot.term().epoch() {
            return;
        }
        if self.is_primary() {
            self.note(Rule::SteppedDownTerm);
        }
        self.step_down(env.peers, "there is a higher term", env.out);
        self.ballot.enter(term, env.out);
    }

    /// Becomes a follower without a primary.
    fn step_down(&mut self, peers: &Peers, why: &str, out: &mut Out) {
        self.timers.clear(Timer::Round);
        self.timers.clear(Timer::Batch);
        self.timers.clear(Timer::Handover);
        self.timers.clear(Timer::Promise);
        self.handover = None;
        // Other servers may not have agreed to refusals that are not logged yet.
        self.epochs.refused.clear();
        if self.is_primary() {
            log::warn!("no longer primary: {why}");
            for (_, link) in peers.linked() {
                out.send(link, Packet::SteppedDown { term: self.ballot.term() });
            }
        }
        self.role = Role::Follower(Following::default());
        self.dirty = true;
    }

    /// Stops following this server, which has reported that it is not primary. A link preserves
    /// order, so every append before that report is from an earlier time.
    pub(crate) fn leave_primary(&mut self, from: Member) {
        if let Role::Follower(following) = &mut self.role
            && following.primary == Some(from)
        {
            following.primary = None;
            self.dirty = true;
        }
    }

    /// Ends this process, since its state differs from that of two other members.
    pub(crate) fn leave_diverged(&mut self, out: &mut Out) {
        self.note(Rule::LeftDiverged);
        self.leave(Quarantine::Diverged, out);
    }

    /// Requests a quarantine, which ends this process.
    fn leave(&mut self, quarantine: Quarantine, out: &mut Out) {
        self.left = true;
        out.push(Effect::Quarantine(quarantine));
    }

    fn append_config(&mut self, term: Term, wall: WallTime, config: Config, out: &mut Out) {
        let index = self.log.append(term, wall, Kind::CONFIG, |body| config.encode(body), out);
        log::info!("entry {index} of term {term}: members={config}");
        self.dirty = true;
    }

    fn peer_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.shared.peer_timeout_ms))
    }

    fn last_position(&self) -> Position {
        self.log.summary().last()
    }

    fn note(&mut self, rule: Rule) {
        self.decisions.note(rule);
    }

    /// Checks the invariants; runs after every event.
    pub(crate) fn check(&self) {
        self.log.check();
        match &self.role {
            Role::Primary(primary) => assert!(
                primary.term_start <= self.log.last() && self.ballot.vote().given == Some(self.me),
                "a primary was elected and has written an entry of its term"
            ),
            _ => assert!(
                self.log.acknowledged() <= self.log.stored(),
                "a backup applies only what it stored"
            ),
        }
    }
}
