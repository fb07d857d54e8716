#![doc = include_str!("README.md")]
//!
//! # In the code
//!
//! The module is pure: events go in, effects come out, and payloads are opaque bytes.
//!
//! Read the modules in this order. `event` is the interface; `packet` and `hello` define the
//! messages; `members` and `log_summary` describe what the servers agree on. `peer`, `links`,
//! `reach`, `past` and `newcomer` manage the links to other servers. `election`, `primary`,
//! `changes` (membership changes by the primary), `backup`, `handover`, `epoch`, `survivor` and
//! `wall_clock` hold the protocol. `view` exposes the state to other modules, and `rules` names
//! every decision.

mod backup;
mod changes;
mod election;
mod epoch;
mod event;
mod handover;
mod hello;
mod links;
mod log_summary;
mod members;
mod newcomer;
mod packet;
mod past;
mod peer;
mod primary;
mod reach;
mod rules;
#[cfg(feature = "simulate")]
mod search;
mod seen;
mod setup;
mod survivor;
mod timers;
mod view;
mod wall_clock;

pub use epoch::Beginning;
pub use event::{
    Closing, DialFailure, Durable, Effect, Event, LogReader, Obstacle, Out, Quarantine,
};
pub use hello::{Hello, Refusal, Shared};
pub use log_summary::LogSummary;
pub use members::{Config, Origin};
pub use packet::{Append, Ask, Order, Packet, PeerHealth, Verdict};
pub use past::{Epoch, Past};
pub use rules::{Decisions, Rule};
#[cfg(feature = "simulate")]
pub use search::Decision;
pub use seen::{Seen, SeenDisk};
pub(crate) use seen::{read_runs, write_runs};
pub use setup::{Setup, Takeover};
pub use view::PeerView;

use crate::ids::{
    Incarnation, Index, LinkId, Member, Position, ProcessId, Run, ServerId, Term, Vote,
};
use crate::record::{self, Kind, Record};
use crate::rng::Rng;
use crate::time::{Moment, WallTime};
use backup::Following;
use election::{Candidacy, ElectionState};
use handover::{Handover, Syncs};
use links::Pending;
use newcomer::Newcomer;
use peer::{Link, Peer};
use primary::Primary;
use survivor::Evidence;
use timers::{Timer, Timers};
use wall_clock::WallClocks;

/// A server's role as users see it: `STATUS` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleView {
    /// It has no config.
    Blank,
    /// It receives entries but is not a member.
    Learner,
    /// It follows a primary, or waits for one.
    Backup,
    /// It campaigns.
    Candidate,
    /// It is the primary.
    Primary,
}

#[derive(Clone, Debug)]
enum Role {
    Follower(Following),
    Candidate(Candidacy),
    Primary(Primary),
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

/// One server of the group.
#[derive(Clone, Debug)]
pub struct Replica {
    me: Member,
    incarnation: Incarnation,
    process: ProcessId,
    shared: Shared,
    takeover: Takeover,
    rng: Rng,
    /// Draws the delays of dials.
    dial_rng: Rng,
    timers: Timers,
    clocks: WallClocks,
    /// State changed that [`Event::Tick`] must process before the event loop sleeps.
    needs_tick: bool,
    /// When `stop` was called. A stopping server never campaigns.
    stopping: Option<Moment>,
    stop_said: bool,
    /// Its own disk is nearly full.
    full: bool,
    /// When this server last failed to read an entry of its log and, as primary, tried to hand
    /// over because of that.
    damaged: Option<Moment>,
    /// The process is ending for a quarantine: the replica ignores all further events.
    left: bool,
    decisions: Decisions,
    started: Moment,

    /// This server stored the vote of its own epoch, but not the entry that begins the epoch.
    epoch_begun: bool,
    /// When this server first met a later epoch that it does not follow, while its own epoch had
    /// no primary.
    later_epoch: Option<Moment>,
    vote: Vote,
    /// `vote` is durable. Messages of its term wait until then.
    vote_stored: bool,
    summary: LogSummary,
    /// The highest index that is durable or being written to disk.
    flushed: Index,
    /// The highest durable index.
    stored: Index,
    /// Raft's commit index: no election can undo it.
    committed: Index,
    /// The highest index that is committed and stored by every member of the primary's newest
    /// config.
    acknowledged: Index,

    role: Role,
    election: ElectionState,
    /// On a primary: the handover in progress.
    handover: Option<Handover>,
    syncs: Syncs,
    /// Per id, the evidence about a server whose death would leave this server alone.
    evidence: [Option<Evidence>; 3],
    /// This server promised not to change the members before this time. While `withholds` is set,
    /// it gives no new promise.
    promised_until: Moment,
    withholds: bool,
    /// The member that was asked, since the last promise, to give that promise up, and when.
    release_asked: Option<(Member, Moment)>,
    peers: Vec<Peer>,
    /// Links on which the other side has not sent its hello.
    pending: Vec<Pending>,
    /// Servers that connected with the id of a server that is already linked.
    newcomers: Vec<Newcomer>,
    hellos: u64,
    seen: Seen,
    runs: Vec<Run>,
    former: Option<Position>,
    /// When another server last reported that this directory may be an old copy.
    doubted: Option<Moment>,
    /// Later epochs that this server refused; `log_refusals` logs those that the log does not
    /// hold.
    refused: Vec<Epoch>,
}

impl Replica {
    /// Returns a replica as it is after a start. It does nothing before the first event.
    pub fn new(now: Moment, setup: Setup) -> Replica {
        let stored = setup.summary.last().index;
        let others = ServerId::all(setup.shared.servers).filter(|id| *id != setup.me.id);
        let mut timers = Timers::default();
        let founder =
            setup.vote.founder == Some(setup.me.disk) && setup.vote.given == Some(setup.me);
        let held = setup.summary.last().term.epoch() == setup.vote.term.epoch();
        timers.set(Timer::Ping, now);
        // Only this server can commit in such a config, so everything that it stored is
        // committed.
        let alone = setup
            .summary
            .config()
            .is_some_and(|(_, config)| config.count() == 1 && config.has(setup.me));
        let committed = if alone { stored } else { Index::ZERO };
        Replica {
            me: setup.me,
            incarnation: setup.incarnation,
            process: setup.process,
            shared: setup.shared,
            takeover: setup.takeover,
            rng: Rng::new(setup.seed),
            dial_rng: Rng::new(setup.seed ^ 1),
            timers,
            clocks: WallClocks::default(),
            needs_tick: true,
            stopping: None,
            stop_said: false,
            full: false,
            damaged: None,
            left: false,
            decisions: Decisions::default(),
            started: now,
            epoch_begun: founder && !held,
            later_epoch: None,
            vote: setup.vote,
            vote_stored: true,
            summary: setup.summary,
            flushed: stored,
            stored,
            committed,
            acknowledged: Index::ZERO,
            role: Role::Follower(Following::default()),
            election: ElectionState::default(),
            handover: None,
            syncs: Syncs::default(),
            evidence: [None, None, None],
            promised_until: Moment(0),
            withholds: false,
            release_asked: None,
            peers: others.map(|id| Peer::new(id, now)).collect(),
            pending: Vec::new(),
            newcomers: Vec::new(),
            hellos: 0,
            seen: setup.seen,
            runs: setup.runs,
            former: setup.former,
            doubted: None,
            refused: Vec::new(),
        }
    }

    /// Processes one event and appends the resulting effects to `out`.
    ///
    /// # Panics
    /// When an invariant is violated: a crash is safer than wrong data.
    pub fn handle(
        &mut self,
        now: Moment,
        wall: WallTime,
        event: Event<'_>,
        log: &dyn LogReader,
        out: &mut Out,
    ) {
        if self.left {
            return;
        }
        self.clocks.read_own(now, wall);
        // Only these events write records.
        let wall = match event {
            Event::Tick | Event::Durable(_) => self.clocks.stamp(now, wall),
            _ => wall,
        };
        match event {
            Event::Tick => self.on_tick(now, wall, log, out),
            Event::Dialled { link, to } => self.on_dialled(now, link, to, out),
            Event::Accepted { link } => self.on_accepted(now, link, out),
            Event::DialFailed { to, why } => self.on_dial_failed(now, to, why),
            Event::NotAuthentic { link } => self.on_not_authentic(link),
            Event::Ended { link } => self.on_ended(now, link, out),
            Event::Received { link, packet, records } => {
                self.on_received(now, link, packet, records, out);
            }
            Event::Durable(mark) => self.on_stored(now, wall, mark, out),
        }
        self.send_pings(now, out);
        self.check();
    }

    /// Appends a payload to the log as the next entry and returns its index.
    ///
    /// # Errors
    /// Why this server can't accept it now.
    pub fn propose(
        &mut self,
        now: Moment,
        wall: WallTime,
        kind: Kind,
        body: impl FnOnce(&mut Vec<u8>),
        out: &mut Out,
    ) -> Result<Index, NotTaken> {
        if self.stopping.is_some() || self.left || !matches!(self.role, Role::Primary(_)) {
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
        if let Some(id) = self.full_member().filter(|_| kind != Kind::DELETE) {
            return Err(NotTaken::NoSpace(id));
        }
        // This turn's batch may already be on its way to disk, so the next tick must flush this
        // entry.
        self.needs_tick = true;
        let wall = self.clocks.stamp(now, wall);
        Ok(self.append_own(self.vote.term, wall, kind, body, out))
    }

    /// Records whether this server's disk is nearly full, and reports a change to the others at
    /// once.
    pub fn note_space(&mut self, now: Moment, full: bool) {
        if std::mem::replace(&mut self.full, full) == full {
            return;
        }
        match full {
            true => log::warn!("the disk is nearly full: refusing requests that need room"),
            false => log::info!("the disk has free space again"),
        }
        self.timers.set(Timer::Ping, now);
    }

    /// Requests a round of reads and returns its number. The round is confirmed when
    /// [`Replica::confirmed_read`] reaches that number. Returns `None` if this server is not
    /// primary.
    pub fn read_index(&mut self) -> Option<u64> {
        match &mut self.role {
            Role::Primary(primary) => Some(primary.read_index()),
            _ => None,
        }
    }

    /// Returns the newest round in which a majority confirmed that this server is still primary.
    /// Returns `None` until an entry of its own term is acknowledged (ReadIndex, Ongaro §6.4).
    pub fn confirmed_read(&self) -> Option<u64> {
        match &self.role {
            Role::Primary(primary) if self.acknowledged >= primary.term_start => {
                Some(primary.confirmed)
            }
            _ => None,
        }
    }

    /// Returns the latest time at which the caller must send [`Event::Tick`].
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.needs_tick {
            return Some(Moment(0));
        }
        let peers = self.peers.iter().filter_map(|peer| peer.dialling.next);
        let pending = self.pending.iter().map(|pending| pending.deadline);
        let newcomers = self.newcomers.iter().map(|new| new.deadline);
        peers.chain(pending).chain(newcomers).chain(self.timers.next()).min()
    }

    fn note(&mut self, rule: Rule) {
        self.decisions.note(rule);
    }

    fn peer(&self, id: ServerId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    fn link(&self, member: Member) -> Option<&Link> {
        self.peer(member.id)?.link.as_ref().filter(|link| link.member == member)
    }

    fn link_to(&self, member: Member) -> Option<LinkId> {
        self.link(member).map(|link| link.id)
    }

    /// Returns the run of a server that is linked.
    fn run_of(&self, member: Member) -> Option<Run> {
        self.link(member).map(Link::run)
    }

    /// Returns whether the server is recently active: its link is open, and it answered a message
    /// that was sent to it within the last peer timeout.
    fn hears(&self, member: Member, now: Moment) -> bool {
        self.peer(member.id).is_some_and(|peer| peer.hears(member, now, self.peer_timeout()))
    }

    /// Returns whether the server is down: its link is lost and its address refuses connections,
    /// or another disk answers there.
    fn is_gone(&self, member: Member) -> bool {
        self.peer(member.id).is_some_and(|peer| peer.is_gone(member))
    }

    fn append_own(
        &mut self,
        term: Term,
        wall: WallTime,
        kind: Kind,
        body: impl FnOnce(&mut Vec<u8>),
        out: &mut Out,
    ) -> Index {
        let at = Position { term, index: self.last().next() };
        let start = out.bytes.len();
        record::write(&mut out.bytes, at, wall.max(self.summary.last_time()), kind, body);
        let range = start..out.bytes.len();
        let pushed = self.summary.push(&Record::trust(&out.bytes[range.clone()]));
        pushed.expect("a server writes configs that it can read");
        out.push(Effect::Append(range));
        at.index
    }

    fn append_config(&mut self, term: Term, wall: WallTime, config: Config, out: &mut Out) {
        let index = self.append_own(term, wall, Kind::CONFIG, |body| config.encode(body), out);
        log::info!("entry {index} of term {term}: members={config}");
        self.needs_tick = true;
    }

    fn on_tick(&mut self, now: Moment, wall: WallTime, log: &dyn LogReader, out: &mut Out) {
        self.needs_tick = false;
        self.tick_links(now, out);
        self.tick_stop(now);
        self.complete_epoch(now, wall, out);
        if self.later_epoch.is_some() && self.is_healthy(now) {
            self.later_epoch = None;
        }
        self.tick_survivor(now, wall, out);
        self.tick_election(now, wall, out);
        match self.role {
            Role::Primary(_) => self.tick_primary(now, wall, log, out),
            _ => self.tick_backup(now, out),
        }
    }

    fn on_received(
        &mut self,
        now: Moment,
        link: LinkId,
        packet: Packet,
        records: &[u8],
        out: &mut Out,
    ) {
        if let Some(at) = self.pending.iter().position(|pending| pending.link == link) {
            return self.on_first_packet(now, at, (packet, records), out);
        }
        if let Packet::Refused(why) = packet {
            return self.on_refused(now, link, why, out);
        }
        // A link that this server closed may still deliver packets that were in flight.
        let Some(at) = self.peers.iter().position(|peer| peer.has_link(link)) else { return };
        let from = self.peers[at].link.as_ref().expect("this peer has this link").member;
        if let Some(term) = packet.term().filter(|term| !term.is_credible(self.vote.term)) {
            log::error!("server {from} sent term {term}, which no elections can have reached");
            return self.close_nonsense(now, link, out);
        }
        match packet {
            Packet::Ping { sent, wall, health } => {
                self.measure_clock(at, now, sent, wall);
                let promised = self.promise(from, now);
                out.send(link, Packet::Pong { sent, promised });
                self.ping_together(now);
                self.needs_tick |= health != self.peers[at].health;
                self.peers[at].health = health;
                if !health.leads {
                    self.leave_primary(from);
                }
            }
            Packet::Pong { sent, promised } => {
                self.on_pong(at, sent, now, out);
                self.note_promise(now, from, sent, promised);
            }
            Packet::AskRelease { asked } => self.on_ask_release(now, from, link, asked, out),
            Packet::Released { asked } => self.on_released(now, from, asked),
            Packet::TimeoutNow { term } => self.on_stand_now(now, from, term, out),
            Packet::Blank { met } => {
                self.peers[at].said_blank = Some(met);
                self.needs_tick = true;
            }
            Packet::Append(append) => self.on_append(now, from, link, append, records, out),
            Packet::AppendAccepted { term, stored, round } => {
                self.on_acknowledged(from, term, stored, round, out);
            }
            Packet::AppendRejected { term, hint } => self.on_append_rejected(from, term, hint),
            Packet::HigherTerm { term } => self.adopt(term, out),
            Packet::AskPreVote(ask) => self.on_ask_pre_vote(now, from, link, ask, out),
            Packet::PreVote { term, granted, own } => {
                self.on_pre_vote(from, term, granted, own, out);
            }
            Packet::AskVote(ask) => self.on_ask_vote(now, from, link, ask, out),
            Packet::Vote { term, granted } => self.on_vote(from, term, granted, out),
            Packet::SteppedDown { .. } => self.leave_primary(from),
            Packet::Refuses(epoch) => self.remember_refused(now, epoch),
            // The node has processed these.
            Packet::Proofs | Packet::ProofsTaken | Packet::Settings => {}
            // These packets are valid only as the first on a link, or only towards operators.
            _ => self.close_nonsense(now, link, out),
        }
    }

    fn on_stored(&mut self, now: Moment, wall: WallTime, mark: Durable, out: &mut Out) {
        assert!(mark.last <= self.last(), "nothing is stored that was not appended");
        // The sync also covered entries that were proposed after this turn's batch began.
        self.flushed = self.flushed.max(mark.last);
        self.stored = mark.last;
        self.vote_stored |= mark.vote == self.vote;
        self.note_synced(now);
        self.send_owed_vote(out);
        match self.role {
            Role::Primary(_) => self.advance(),
            Role::Candidate(_) => self.count_votes(now, wall, out),
            Role::Follower(_) => self.acknowledge(out),
        }
    }

    /// Adopts a higher term of the same epoch. A primary or candidate of a lower term becomes a
    /// follower.
    fn adopt(&mut self, term: Term, out: &mut Out) {
        if term <= self.vote.term || term.epoch() != self.vote.term.epoch() {
            return;
        }
        if matches!(self.role, Role::Primary(_)) {
            self.note(Rule::SteppedDownTerm);
        }
        self.step_down("there is a higher term", out);
        self.set_vote(Vote { term, given: None, ..self.vote }, out);
    }

    fn set_vote(&mut self, vote: Vote, out: &mut Out) {
        assert!(vote.term >= self.vote.term, "terms never fall");
        self.vote = vote;
        self.vote_stored = false;
        out.push(Effect::Persist(vote));
    }

    /// Becomes a follower without a primary.
    fn step_down(&mut self, why: &str, out: &mut Out) {
        self.timers.clear(Timer::Round);
        self.timers.clear(Timer::Batch);
        self.timers.clear(Timer::Handover);
        self.timers.clear(Timer::Promise);
        self.handover = None;
        // Other servers may not have agreed to refusals that are not logged yet.
        self.refused.clear();
        if matches!(self.role, Role::Primary(_)) {
            log::warn!("no longer primary: {why}");
            for peer in &self.peers {
                if let Some(link) = &peer.link {
                    out.send(link.id, Packet::SteppedDown { term: self.vote.term });
                }
            }
        }
        self.role = Role::Follower(Following::default());
        self.needs_tick = true;
    }

    /// Checks the invariants; runs after every event.
    fn check(&self) {
        assert!(self.acknowledged <= self.committed, "answered goes beyond committed");
        assert!(self.committed <= self.last(), "committed goes beyond the log");
        assert!(self.stored <= self.flushed && self.flushed <= self.last());
        match &self.role {
            Role::Primary(primary) => assert!(
                primary.term_start <= self.last() && self.vote.given == Some(self.me),
                "a primary was elected and has written an entry of its term"
            ),
            _ => assert!(self.acknowledged <= self.stored, "a backup applies only what it stored"),
        }
    }
}

#[cfg(test)]
mod tests;
