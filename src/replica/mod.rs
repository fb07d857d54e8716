//! One server's replication: joins the links to the other servers, `crate::peers`, with the
//! consensus, [`crate::raft`].
//!
//! The module is pure: [`Event`]s go in, [`Effect`]s come out. A replica passes the events of
//! links to the peers, judges with both what a hello claims, and passes the packets of linked
//! servers to the one that they concern. `view` exposes the state to other modules.

mod event;
mod greeting;
#[cfg(feature = "simulate")]
mod search;
mod setup;
mod view;

pub use crate::config::{Config, Origin};
pub use crate::effect::{Closing, DialFailure, Effect, Obstacle, Out, Quarantine};
pub use crate::incarnation::{Seen, SeenDisk};
pub use crate::packet::{
    Append, Ask, Epoch, Hello, Packet, Past, PeerHealth, Refusal, Shared, Verdict,
};
#[cfg(feature = "simulate")]
pub use crate::raft::Decision;
pub use crate::raft::{Beginning, Durable, LogReader, LogSummary, NotTaken, Takeover};
pub use crate::rules::{Decisions, Rule};
pub use event::Event;
pub use setup::Setup;
pub use view::RoleView;

use crate::ids::{Index, LinkId};
use crate::peers::Env;
use crate::peers::{Identity, Peers};
use crate::raft::Raft;
use crate::record::Kind;
use crate::rng::Rng;
use crate::time::{Moment, WallTime};

/// One server of the group.
#[derive(Clone, Debug)]
pub struct Replica {
    peers: Peers,
    raft: Raft,
}

impl Replica {
    /// Returns a replica as it is after a start. It does nothing before the first event.
    pub fn new(now: Moment, setup: Setup) -> Replica {
        let (me, shared) = (setup.me, setup.shared);
        let Setup { runs, former, .. } = setup;
        let run = *runs.last().expect("the last run is this start");
        let own = Identity { me, run, runs, former, shared };
        let dials = Rng::new(setup.seed ^ 1);
        Replica {
            peers: Peers::new(now, own, setup.seen, dials),
            raft: Raft::new(
                now,
                (me, shared),
                (setup.vote, setup.summary, setup.acknowledged),
                (setup.takeover, Rng::new(setup.seed)),
            ),
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
        let (raft, peers) = (&mut self.raft, &mut self.peers);
        if raft.left {
            return;
        }
        peers.read_clock(now, wall);
        let wall = peers.stamp(now, wall);
        let env = &mut Env { now, wall, peers, out };
        match event {
            Event::Tick => on_tick(raft, env, log),
            Event::Dialled { link, to } => {
                env.on_dialled(link, to, &raft.own_state());
            }
            Event::Accepted { link } => env.on_accepted(link),
            Event::DialFailed { to, why } => env.peers.on_dial_failed(now, to, why),
            Event::NotAuthentic { link } => env.peers.on_not_authentic(link),
            Event::Ended { link } => env.on_ended(link),
            Event::Received { link, packet, records } => {
                on_received(raft, env, link, packet, records);
            }
            Event::Durable(durable) => raft.on_durable(env, durable),
        }
        if env.peers.owes_pings() {
            env.send_pings(raft.health(now));
        }
        raft.check();
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
        self.raft.propose(&mut Env { now, wall, peers: &mut self.peers, out }, kind, body)
    }

    /// Records whether this server's disk is nearly full, and reports a change to the others at
    /// once.
    pub fn note_space(&mut self, now: Moment, full: bool) {
        self.raft.note_space(now, &mut self.peers, full);
    }

    /// Records that entries for this link can't be read. This server does not retry for the peer
    /// timeout, and hands over to a server that may be able to read them.
    pub fn note_unsent(&mut self, now: Moment, link: LinkId) {
        self.raft.note_unsent(now, &mut self.peers, link);
    }

    /// Ends this process, to quarantine its directory: its state differs from that of two other
    /// members.
    pub fn leave_diverged(&mut self, out: &mut Out) {
        self.raft.leave_diverged(out);
    }

    /// Records whether a part of the log is known to be damaged. Until it is repaired, this server
    /// does not campaign.
    pub fn note_damaged(&mut self, now: Moment, is_damaged: bool) {
        self.raft.note_damaged(now, &mut self.peers, is_damaged);
    }

    /// Reacts to an entry of the log that can't be read. A primary hands over to a server that
    /// may be able to read it, at most once a minute. Returns whether a handover is in progress.
    pub fn leave_damaged(&mut self, now: Moment) -> bool {
        self.raft.leave_damaged(now, &mut self.peers)
    }

    /// Begins to stop. From now on this server never campaigns. A primary hands over, and changes
    /// the members only where the handover requires it.
    pub fn stop(&mut self, now: Moment) {
        self.raft.stop(now, &mut self.peers);
    }

    /// Returns whether a stopping server may end. It may if it was dropped, if no linked member
    /// could drop it, or after two peer timeouts: one for the handover, one for the drop.
    pub fn is_released(&self, now: Moment) -> bool {
        self.raft.is_released(now, &self.peers)
    }

    /// Requests a round of reads and returns its number. The round is confirmed when
    /// [`Replica::confirmed_read`] reaches that number. Returns `None` if this server is not
    /// primary.
    pub fn read_index(&mut self) -> Option<u64> {
        self.raft.read_index()
    }

    /// Returns the newest round in which a majority confirmed that this server is still primary.
    /// Returns `None` until an entry of its own term is acknowledged (ReadIndex, Ongaro §6.4).
    pub fn confirmed_read(&self) -> Option<u64> {
        self.raft.confirmed_read()
    }

    /// Returns the latest time at which the caller must send [`Event::Tick`].
    pub fn next_deadline(&self) -> Option<Moment> {
        let peers = self.peers.next_deadline();
        Some(self.raft.next_deadline().map_or(peers, |raft| raft.min(peers)))
    }
}

fn on_tick(raft: &mut Raft, env: &mut Env<'_>, log: &dyn LogReader) {
    env.peers.take_changed();
    env.expire_pending();
    while let Some(new) = env.take_newcomer() {
        greeting::greet(raft, env, (new.link, None), (&new.hello, &new.past));
    }
    if env.tick() {
        raft.refresh_indexes();
    }
    raft.tick(env, log);
}

fn on_received(raft: &mut Raft, env: &mut Env<'_>, link: LinkId, packet: Packet, records: &[u8]) {
    let now = env.now;
    if let Some(pending) = env.peers.take_pending(link) {
        return greeting::on_first_packet(raft, env, pending, (packet, records));
    }
    if let Packet::Refused(why) = packet {
        if env.on_refused(link, why) {
            raft.heed_refusal(env, why);
        }
        return;
    }
    // A link that this server closed may still deliver packets that were in flight.
    let Some(from) = env.peers.member_on(link) else { return };
    if let Some(term) = packet.term().filter(|term| !term.is_credible(raft.ballot.term())) {
        log::error!("server {from} sent term {term}, which no elections can have reached");
        return env.close_nonsense(link);
    }
    match packet {
        Packet::Ping { sent, wall, health } => {
            let promised = raft.promise_to(from, now);
            env.on_ping(link, (sent, wall, health), promised);
            if !health.leads {
                raft.leave_primary(from);
            }
        }
        Packet::Pong { sent, promised } => {
            if env.on_pong(link, sent, promised) {
                raft.on_active();
            }
        }
        Packet::AskRelease { asked } => env.on_ask_release(from, link, asked),
        Packet::Blank { met } => env.peers.on_blank(link, met),
        _ => raft.on_packet(env, (from, link), packet, records),
    }
}

#[cfg(test)]
mod tests;
