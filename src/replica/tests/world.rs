//! Replicas, their disks and their links in virtual time.

use super::super::past::Past;
use super::super::*;
use crate::ids::{DiskId, GroupId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

pub(super) const MS: u64 = 1_000;

#[derive(Clone, Debug, Default)]
pub(super) struct FakeLog {
    pub(super) records: Vec<Vec<u8>>,
}

impl LogReader for FakeLog {
    fn last_within(&self, from: Index, through: Index, _: usize) -> Index {
        // Small appends, so that several in flight and probes occur.
        Index(from.0 + 2).min(through)
    }
    fn for_each(
        &self,
        from: Index,
        through: Index,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> io::Result<()> {
        for at in from.0..=through.0 {
            visit(&Record::trust(&self.records[at as usize - 1]));
        }
        Ok(())
    }
}

/// The state that survives a crash: the log, the vote and the disk's identity.
#[derive(Clone, Debug)]
pub(super) struct FakeDisk {
    pub(super) disk: DiskId,
    pub(super) incarnation: u64,
    pub(super) log: FakeLog,
    pub(super) vote: Vote,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) replica: Replica,
    pub(super) disk: FakeDisk,
    /// The entries acknowledged to clients: index and text.
    pub(super) answered: Vec<(Index, String)>,
    pub(super) proposed: BTreeMap<Index, (Term, String)>,
    pub(super) inbox: Vec<Incoming>,
    pub(super) sick: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Incoming {
    Dialled(LinkId, ServerId),
    Accepted(LinkId),
    DialFailed(ServerId, bool),
    Ended(LinkId),
    Packet(LinkId, Packet, Vec<u8>),
}

pub(super) struct World {
    pub(super) now: Moment,
    pub(super) rng: Rng,
    pub(super) servers: u8,
    pub(super) running: BTreeMap<u8, Server>,
    pub(super) stopped: BTreeMap<u8, FakeDisk>,
    /// Maps a link's id at one end to that end's server, the other end's link id and its server.
    pub(super) ends: BTreeMap<LinkId, (u8, LinkId, u8)>,
    /// Packets in flight, ordered by arrival, then by the order of sending.
    pub(super) wire: BTreeMap<(Moment, u64), (u8, Incoming)>,
    /// When each end's last packet arrives; links preserve order.
    pub(super) last_arrival: BTreeMap<LinkId, Moment>,
    pub(super) cut: BTreeSet<(u8, u8)>,
    pub(super) serial: u64,
    /// Every entry that was ever acknowledged, by index.
    pub(super) truth: BTreeMap<Index, String>,
    pub(super) primaries: BTreeMap<Term, u8>,
    pub(super) peer_timeout_ms: u32,
    pub(super) auto: bool,
    /// How far each server's wall clock is ahead, in ms.
    pub(super) ahead_ms: BTreeMap<u8, u64>,
}

fn failure(refused: bool) -> DialFailure {
    if refused { DialFailure::Refused } else { DialFailure::NoAnswer }
}

pub(super) fn id(n: u8) -> ServerId {
    ServerId::new(n).unwrap()
}

/// Returns the past that follows a hello, with the sender's current start alone; empty for other
/// packets.
pub(super) fn rest_of(packet: &Packet) -> Vec<u8> {
    let mut rest = Vec::new();
    if let Packet::Hello(hello) = packet {
        let run = Run { incarnation: hello.incarnation, process: hello.process };
        Past { runs: vec![run], ..Past::default() }.encode(&mut rest);
    }
    rest
}

/// Makes all others appear to have answered a ping that was sent at this moment.
pub(super) fn hear_all(replica: &mut Replica, at: Moment) {
    replica.peers.iter_mut().for_each(|peer| (peer.heard, peer.answered) = (Some(at), Some(at)));
}

/// Makes one server appear to have answered a ping that was sent at this moment.
pub(super) fn hear(replica: &mut Replica, n: u8, at: Moment) {
    let peer = peer(replica, n);
    (peer.heard, peer.answered) = (Some(at), Some(at));
}

/// Returns a replica's state of another server.
pub(super) fn peer(replica: &mut Replica, n: u8) -> &mut Peer {
    replica.peers.iter_mut().find(|peer| peer.id == id(n)).expect("it is of the group")
}

impl World {
    pub(super) fn new(seed: u64, servers: u8) -> World {
        println!("seed {seed}");
        let mut world = World {
            now: Moment(0),
            rng: Rng::new(seed),
            servers,
            running: BTreeMap::new(),
            stopped: BTreeMap::new(),
            ends: BTreeMap::new(),
            wire: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            cut: BTreeSet::new(),
            serial: 0,
            truth: BTreeMap::new(),
            primaries: BTreeMap::new(),
            peer_timeout_ms: 2000,
            auto: false,
            ahead_ms: BTreeMap::new(),
        };
        for n in 1..=servers {
            world.wipe(n);
        }
        world
    }

    /// Gives a stopped server an empty disk.
    pub(super) fn wipe(&mut self, n: u8) {
        let disk = FakeDisk {
            disk: DiskId(u128::from(self.rng.next_u64()) << 64),
            incarnation: 0,
            log: FakeLog::default(),
            vote: Vote::default(),
        };
        self.stopped.insert(n, disk);
    }

    pub(super) fn start(&mut self, n: u8) {
        let mut disk = self.stopped.remove(&n).expect("it is stopped");
        disk.incarnation += 1;
        let mut summary = LogSummary::default();
        for record in &disk.log.records {
            summary.push(&Record::parse(record).unwrap()).unwrap();
        }
        let shared = Shared {
            group: GroupId(7),
            servers: self.servers,
            peer_timeout_ms: self.peer_timeout_ms,
            copies_min: 1,
            survivor_auto: self.auto,
        };
        let process = ProcessId(self.rng.next_u64());
        let setup = Setup {
            me: Member { id: id(n), disk: disk.disk },
            incarnation: Incarnation(disk.incarnation),
            process,
            shared,
            takeover: Takeover::Coin,
            vote: disk.vote,
            summary,
            seen: Default::default(),
            runs: vec![Run { incarnation: Incarnation(disk.incarnation), process }],
            former: None,
            seed: self.rng.next_u64(),
        };
        let server = Server {
            replica: Replica::new(self.now, setup),
            disk,
            answered: Vec::new(),
            proposed: BTreeMap::new(),
            inbox: Vec::new(),
            sick: false,
        };
        self.running.insert(n, server);
    }

    pub(super) fn start_all(&mut self) {
        for n in 1..=self.servers {
            self.start(n);
        }
    }

    /// Simulates kill -9: durable state stays, links end, and dials are refused.
    pub(super) fn crash(&mut self, n: u8) {
        let server = self.running.remove(&n).expect("it runs");
        self.stopped.insert(n, server.disk);
        let ends: Vec<LinkId> =
            self.ends.iter().filter(|(_, (owner, ..))| *owner == n).map(|(end, _)| *end).collect();
        for end in ends {
            self.close(end);
        }
        self.wire.retain(|_, (to, _)| *to != n);
    }

    pub(super) fn close(&mut self, end: LinkId) {
        if let Some((_, other, owner)) = self.ends.remove(&end) {
            self.ends.remove(&other);
            self.deliver(owner, Some(other), Incoming::Ended(other));
        }
    }

    pub(super) fn deliver(&mut self, to: u8, end: Option<LinkId>, what: Incoming) {
        self.serial += 1;
        let delay = self.rng.below(400) + 50;
        let mut at = Moment(self.now.0 + delay);
        if let Some(end) = end {
            let last = self.last_arrival.entry(end).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.wire.insert((at, self.serial), (to, what));
    }

    pub(super) fn dial(&mut self, from: u8, to: u8) {
        if self.cut.contains(&(from, to)) {
            self.serial += 1;
            let at = Moment(self.now.0 + 500 * MS);
            self.wire.insert((at, self.serial), (from, Incoming::DialFailed(id(to), false)));
        } else if self.running.contains_key(&to) {
            let (own, other) = (LinkId(self.serial + 1), LinkId(self.serial + 2));
            self.serial += 2;
            self.ends.insert(own, (from, other, to));
            self.ends.insert(other, (to, own, from));
            self.deliver(from, Some(own), Incoming::Dialled(own, id(to)));
            self.deliver(to, Some(other), Incoming::Accepted(other));
        } else {
            self.deliver(from, None, Incoming::DialFailed(id(to), true));
        }
    }

    pub(super) fn send(&mut self, end: LinkId, packet: Packet, records: Vec<u8>) {
        let Some(&(from, other, to)) = self.ends.get(&end) else { return };
        if !self.cut.contains(&(from, to)) {
            self.deliver(to, Some(other), Incoming::Packet(other, packet, records));
        }
    }

    fn wall(&self, n: u8) -> WallTime {
        WallTime(self.now.0 / MS + self.ahead_ms.get(&n).unwrap_or(&0))
    }

    /// Runs one turn of one server: its inbox, the tick, the sync, and the resulting effects.
    pub(super) fn turn(&mut self, n: u8) {
        let (now, wall) = (self.now, self.wall(n));
        let Some(server) = self.running.get_mut(&n) else { return };
        let mut outs = Vec::new();
        let mut flush = false;
        let mut vote = None;
        let inbox = std::mem::take(&mut server.inbox);
        let mut step = |server: &mut Server, event: Event<'_>, flush: &mut bool| {
            let mut out = Out::default();
            server.replica.handle(now, wall, event, &server.disk.log, &mut out);
            perform(server, out, flush, &mut vote, &mut outs);
        };
        for incoming in &inbox {
            let event = match incoming {
                Incoming::Dialled(link, to) => Event::Dialled { link: *link, to: *to },
                Incoming::Accepted(link) => Event::Accepted { link: *link },
                Incoming::DialFailed(to, refused) => {
                    Event::DialFailed { to: *to, why: failure(*refused) }
                }
                Incoming::Ended(link) => Event::Ended { link: *link },
                Incoming::Packet(link, packet, records) => {
                    Event::Received { link: *link, packet: *packet, records }
                }
            };
            step(server, event, &mut flush);
        }
        step(server, Event::Tick, &mut flush);
        if (flush || server.replica.vote != server.disk.vote) && !server.sick {
            server.disk.vote = server.replica.vote;
            let last = if flush { server.replica.flushed } else { server.replica.stored };
            let mark = Durable { last, vote: server.disk.vote };
            step(server, Event::Durable(mark), &mut flush);
        }
        self.learn(n);
        for act in outs {
            match act {
                Act::Send(link, packet, records) => self.send(link, packet, records),
                Act::Dial(to) => self.dial(n, to.number()),
                Act::Close(link) => self.close(link),
                Act::Quarantine(quarantine) => {
                    self.crash(n);
                    match quarantine {
                        Quarantine::Everything => self.wipe(n),
                        Quarantine::Tail(last) => {
                            let disk = self.stopped.get_mut(&n).expect("it was just stopped");
                            disk.log.records.truncate(last.0 as usize);
                        }
                    }
                    self.start(n);
                    return;
                }
            }
        }
    }

    /// Checks a server's log and role against every entry that was ever acknowledged.
    pub(super) fn learn(&mut self, n: u8) {
        let server = self.running.get_mut(&n).unwrap();
        let role = server.replica.role();
        if role == RoleView::Primary {
            let other = *self.primaries.entry(server.replica.term()).or_insert(n);
            assert_eq!(other, n, "two primaries of one term");
        }
        let known = server.answered.last().map_or(0, |(index, _)| index.0);
        for at in known + 1..=server.replica.acknowledged().0 {
            let record = Record::parse(&server.disk.log.records[at as usize - 1]).unwrap();
            let text = format!("{}:{}", record.term, String::from_utf8_lossy(record.body));
            server.answered.push((Index(at), text.clone()));
            let truth = self.truth.entry(Index(at)).or_insert_with(|| text.clone());
            assert_eq!(*truth, text, "entry {at} was answered and is another one now");
        }
    }

    /// Runs until `done`, at most `ms` of virtual time.
    pub(super) fn run_until(&mut self, ms: u64, what: &str, done: impl Fn(&World) -> bool) {
        let deadline = Moment(self.now.0 + ms * MS);
        while !done(self) {
            let wire = self.wire.keys().next().map(|(at, _)| *at);
            let timers = self.running.values().filter_map(|server| server.replica.next_deadline());
            let next = timers.chain(wire).min().unwrap_or(deadline);
            self.now = self.now.max(next);
            assert!(self.now <= deadline, "not within {ms} ms: {what}: {}", self.picture());
            while let Some(((at, _), _)) = self.wire.first_key_value()
                && *at <= self.now
            {
                let (_, (to, what)) = self.wire.pop_first().unwrap();
                if let Some(server) = self.running.get_mut(&to) {
                    server.inbox.push(what);
                    self.turn(to);
                }
            }
            let due: Vec<u8> = self
                .running
                .iter()
                .filter(|(_, server)| server.replica.next_deadline() <= Some(self.now))
                .map(|(n, _)| *n)
                .collect();
            for n in due {
                self.turn(n);
            }
        }
    }

    pub(super) fn run(&mut self, ms: u64) {
        let end = Moment(self.now.0 + ms * MS);
        self.run_until(ms + 5_000, "time passes", |world| world.now >= end);
    }

    pub(super) fn picture(&self) -> String {
        let each = self.running.iter().map(|(n, server)| {
            let replica = &server.replica;
            let config = replica.config().map(ToString::to_string).unwrap_or_default();
            format!(
                "{n}: {:?} term {} last {} committed {} answered {} members {config}; ",
                replica.role(),
                replica.term(),
                replica.last(),
                replica.committed(),
                replica.acknowledged()
            )
        });
        each.collect()
    }

    pub(super) fn primary(&self) -> Option<u8> {
        let leads = |server: &Server| {
            server.replica.role() == RoleView::Primary && server.replica.confirmed_read().is_some()
        };
        self.running.iter().filter(|(_, s)| leads(s)).map(|(n, _)| *n).next_back()
    }

    pub(super) fn members(&self) -> usize {
        let primary = self.primary().map(|n| &self.running[&n].replica);
        primary.filter(|replica| settled(replica)).map_or(0, |r| r.config().unwrap().count())
    }

    /// Returns whether all three servers run and are members with their current disks.
    pub(super) fn healthy(&self) -> bool {
        let Some(primary) = self.primary().filter(|_| self.members() == 3) else { return false };
        let config = self.running[&primary].replica.config().unwrap();
        self.running.len() == 3 && self.running.values().all(|s| config.has(s.replica.me()))
    }

    pub(super) fn wait_members(&mut self, ms: u64, count: usize) -> u8 {
        self.run_until(ms, &format!("{count} members"), |world| world.members() == count);
        self.primary().unwrap()
    }

    pub(super) fn propose(&mut self, n: u8, text: &str) -> Option<Index> {
        let wall = self.wall(n);
        let server = self.running.get_mut(&n)?;
        let mut out = Out::default();
        let body = |body: &mut Vec<u8>| body.extend_from_slice(text.as_bytes());
        let index = server.replica.propose(self.now, wall, Kind::MESSAGE, body, &mut out).ok()?;
        server.proposed.insert(index, (server.replica.term(), text.to_owned()));
        let mut flush = false;
        perform(server, out, &mut flush, &mut None, &mut Vec::new());
        Some(index)
    }

    pub(super) fn wait_answered(&mut self, ms: u64, n: u8, index: Index) {
        self.run_until(ms, &format!("entry {index} answered"), |world| {
            world.running[&n].replica.acknowledged() >= index
        });
    }
}

pub(super) fn settled(replica: &Replica) -> bool {
    replica.summary.config().is_some_and(|(index, _)| index <= replica.acknowledged())
}

pub(super) enum Act {
    Send(LinkId, Packet, Vec<u8>),
    Dial(ServerId),
    Close(LinkId),
    Quarantine(Quarantine),
}

pub(super) fn perform(
    server: &mut Server,
    out: Out,
    flush: &mut bool,
    vote: &mut Option<Vote>,
    acts: &mut Vec<Act>,
) {
    for effect in out.effects {
        match effect {
            Effect::Append(range) => {
                for record in record::each(&out.bytes[range]) {
                    let record = record.unwrap();
                    assert_eq!(record.index.0, server.disk.log.records.len() as u64 + 1);
                    server.disk.log.records.push(record.bytes.to_vec());
                }
            }
            Effect::Cut(last) => server.disk.log.records.truncate(last.0 as usize),
            Effect::Flush => *flush = true,
            Effect::Persist(new) => *vote = Some(new),
            Effect::Send(link, packet) => acts.push(Act::Send(link, packet, Vec::new())),
            Effect::Greet(link, greeting) => {
                let (hello, past) = *greeting;
                acts.push(Act::Send(link, Packet::Hello(hello), past));
            }
            Effect::SendEntries { link, append, first, last } => {
                let mut records = Vec::new();
                server
                    .disk
                    .log
                    .for_each(first, last, &mut |record| records.extend_from_slice(record.bytes))
                    .unwrap();
                acts.push(Act::Send(link, Packet::Append(append), records));
            }
            Effect::Dial(to) => acts.push(Act::Dial(to)),
            Effect::Close(link, _) => acts.push(Act::Close(link)),
            Effect::RecordIncarnation(..) => {}
            Effect::Quarantine(quarantine) => acts.push(Act::Quarantine(quarantine)),
        }
    }
}
