//! The other servers of the group: the links to them, and whether they answer.
//!
//! The module is pure. It dials, judges the hellos, chooses between two links to one server, sends
//! pings, and measures the clocks. The replica tells it the events of links and asks the
//! consensus, `src/raft`, what a hello needs to name. The consensus reads here whether a
//! server is *linked*, *recently active* (it answered a message that was sent within the last peer
//! timeout), *unreachable* (it did not) or *down* (its address refuses connections, or another
//! disk answers there). These states decide when the consensus acts; safety never depends on
//! them.
//!
//! `peer` is the state of one server. `dial` opens and loses links. `greeting` judges hellos and
//! chooses between links, and `newcomer` handles a server that connects with an id that is taken.
//! `liveness` exchanges pings, `wall_clock` measures clocks by them, `evidence` collects what
//! `last_survivor = "auto"` demands, and `formation` what servers without a config agree on.

mod dial;
mod evidence;
mod formation;
mod greeting;
mod liveness;
mod newcomer;
mod peer;
mod wall_clock;

pub(crate) use dial::Pending;
pub(crate) use greeting::{OwnState, Up};
pub(crate) use newcomer::Newcomer;
pub(crate) use peer::Peer;

use crate::effect::{Effect, Out};
use crate::ids::{DiskId, LinkId, Member, Position, Run, ServerId};
use crate::incarnation::Seen;
use crate::packet::Shared;
use crate::rng::Rng;
use crate::rules::{Decisions, Rule};
use crate::time::{Moment, WallTime};
use peer::Link;
use std::time::Duration;
use wall_clock::WallClocks;

/// This server, as its hellos describe it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) me: Member,
    /// This process.
    pub(crate) run: Run,
    /// The newest starts of this disk, oldest first; the last one is this start.
    pub(crate) runs: Vec<Run>,
    /// The best last entry among quarantined directories that may hold acknowledged messages.
    pub(crate) former: Option<Position>,
    pub(crate) shared: Shared,
}

/// The other servers at one moment, and the effects of what happens then. The consensus works with
/// this besides its own state.
pub(crate) struct Env<'a> {
    pub(crate) now: Moment,
    /// The time of a record that is written now.
    pub(crate) wall: WallTime,
    pub(crate) peers: &'a mut Peers,
    pub(crate) out: &'a mut Out,
}

/// The other servers of the group.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    own: Identity,
    rng: Rng,
    all: Vec<Peer>,
    /// Links on which the other side has not sent its hello.
    pending: Vec<Pending>,
    /// Servers that connected with the id of a server that is already linked.
    newcomers: Vec<Newcomer>,
    /// The number of hellos that this process has sent.
    hellos: u64,
    seen: Seen,
    clocks: WallClocks,
    heartbeat_at: Moment,
    /// The state of a server changed; the consensus must process that before the event loop
    /// sleeps.
    changed: bool,
    pub(crate) decisions: Decisions,
}

impl Env<'_> {
    fn store_seen(&mut self, disk: DiskId) {
        let seen = self.peers.seen.of(disk).cloned();
        self.out.effects.extend(seen.map(|seen| Effect::RecordIncarnation(Box::new(seen))));
    }
}

impl Peers {
    pub(crate) fn new(now: Moment, own: Identity, seen: Seen, rng: Rng) -> Peers {
        let others = ServerId::all(own.shared.servers).filter(|id| *id != own.me.id);
        Peers {
            all: others.map(|id| Peer::new(id, now)).collect(),
            own,
            rng,
            pending: Vec::new(),
            newcomers: Vec::new(),
            hellos: 0,
            seen,
            clocks: WallClocks::default(),
            heartbeat_at: now,
            changed: false,
            decisions: Decisions::default(),
        }
    }

    /// Returns the other servers, in the order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter()
    }

    pub(crate) fn peer(&self, id: ServerId) -> Option<&Peer> {
        self.all.iter().find(|peer| peer.id == id)
    }

    fn position(&self, id: ServerId) -> Option<usize> {
        self.all.iter().position(|peer| peer.id == id)
    }

    /// Returns the place of the server whose link in use this is.
    fn position_on(&self, link: LinkId) -> Option<usize> {
        self.all.iter().position(|peer| peer.has_link(link))
    }

    fn link(&self, member: Member) -> Option<&Link> {
        self.peer(member.id)?.link.as_ref().filter(|link| link.member == member)
    }

    pub(crate) fn link_to(&self, member: Member) -> Option<LinkId> {
        self.link(member).map(|link| link.id)
    }

    /// Returns the run of a server that is linked.
    pub(crate) fn run_of(&self, member: Member) -> Option<Run> {
        self.link(member).map(|link| link.run)
    }

    /// Returns the member at the other end of the link in use.
    pub(crate) fn member_on(&self, link: LinkId) -> Option<Member> {
        self.all[self.position_on(link)?].link.as_ref().map(|link| link.member)
    }

    /// Returns the linked servers, and the links to them.
    pub(crate) fn linked(&self) -> impl Iterator<Item = (Member, LinkId)> + Clone + '_ {
        self.all.iter().filter_map(|peer| peer.link.as_ref().map(|link| (link.member, link.id)))
    }

    /// Returns whether the server is recently active: its link is open, and it answered a message
    /// that was sent to it within the last peer timeout.
    pub(crate) fn is_active(&self, member: Member, now: Moment) -> bool {
        self.peer(member.id).is_some_and(|peer| {
            peer.is_linked(member) && peer.has_answered_since(now, self.peer_timeout())
        })
    }

    /// Returns whether a server with this id answered a message that was sent to it within the
    /// last peer timeout. A server whose link was just lost still counts.
    pub(crate) fn was_active(&self, id: ServerId, now: Moment) -> bool {
        self.peer(id).is_some_and(|peer| peer.has_answered_since(now, self.peer_timeout()))
    }

    /// Returns whether the server is down: its link is lost and its address refuses connections,
    /// or another disk answers there.
    pub(crate) fn is_down(&self, member: Member) -> bool {
        self.peer(member.id).is_some_and(|peer| match &peer.link {
            None => peer.dialling.refused,
            Some(link) => link.member != member,
        })
    }

    /// Returns whether a dial to each server has had a result since this server started, or it
    /// has dialled this server.
    pub(crate) fn has_met_all(&self) -> bool {
        self.all.iter().all(|peer| peer.met)
    }

    pub(crate) fn peer_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.own.shared.peer_timeout_ms))
    }

    /// Returns this server's wall clock, extrapolated from the last reading.
    pub(crate) fn read_clock(&mut self, now: Moment, wall: WallTime) {
        self.clocks.read_own(now, wall);
    }

    /// Returns the time of a record that is written now.
    pub(crate) fn stamp(&self, now: Moment, wall: WallTime) -> WallTime {
        self.clocks.stamp(now, wall)
    }

    /// Returns the largest difference between this server's wall clock and that of a recently
    /// active server.
    pub(crate) fn clock_skew(&self, now: Moment) -> Option<Duration> {
        self.clocks.skew(now, self.peer_timeout())
    }

    /// Returns the largest difference between the clocks of any two of this server and `others`;
    /// `None` unless all of them are heard.
    pub(crate) fn clock_spread(
        &self,
        now: Moment,
        others: impl Iterator<Item = ServerId>,
    ) -> Option<Duration> {
        self.clocks.spread(now, self.peer_timeout(), others)
    }

    /// Returns whether the state of a server changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Returns the latest time at which the caller must tick.
    pub(crate) fn next_deadline(&self) -> Moment {
        if self.changed {
            return Moment(0);
        }
        let dials = self.all.iter().filter_map(|peer| peer.dialling.next);
        let pending = self.pending.iter().map(|pending| pending.deadline);
        let newcomers = self.newcomers.iter().map(|new| new.deadline);
        dials.chain(pending).chain(newcomers).fold(self.heartbeat_at, Moment::min)
    }

    /// Returns how many links wait for a hello, and how many disks are recorded.
    #[cfg(feature = "simulate")]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.pending.len(), self.seen.all().len())
    }

    fn note(&mut self, rule: Rule) {
        self.decisions.note(rule);
    }
}
