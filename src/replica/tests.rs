//! Whole groups of replicas in virtual time, on disks and links that are plain vectors: elections,
//! takeovers, drops, returns, and what must never be lost.

mod alone;
mod hello;

use super::*;
use crate::names::GroupId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

const MS: u64 = 1_000;

#[derive(Clone, Debug, Default)]
struct FakeLog {
    records: Vec<Vec<u8>>,
}

impl LogReader for FakeLog {
    fn fit(&self, from: Index, through: Index, _: usize) -> Index {
        // Small pieces, so that windows and probes are exercised.
        Index(from.0 + 2).min(through)
    }
    fn copy(&self, from: Index, through: Index, out: &mut Vec<u8>) -> io::Result<()> {
        for at in from.0..=through.0 {
            out.extend_from_slice(&self.records[at as usize - 1]);
        }
        Ok(())
    }
}

/// What survives a crash: the log, the vote, who the disk is.
#[derive(Clone, Debug)]
struct FakeDisk {
    disk: DiskId,
    incarnation: u64,
    log: FakeLog,
    vote: Vote,
}

#[derive(Debug)]
struct Server {
    replica: Replica,
    disk: FakeDisk,
    /// What was answered to clients: index and text.
    answered: Vec<(Index, String)>,
    proposed: BTreeMap<Index, (Term, String)>,
    inbox: Vec<Incoming>,
    sick: bool,
}

#[derive(Clone, Debug)]
enum Incoming {
    Dialled(LinkId, ServerId),
    Accepted(LinkId),
    DialFailed(ServerId, bool),
    Ended(LinkId),
    Packet(LinkId, Packet, Vec<u8>),
}

struct World {
    now: Moment,
    rng: Rng,
    servers: u8,
    running: BTreeMap<u8, Server>,
    stopped: BTreeMap<u8, FakeDisk>,
    /// A link's two ends, one of them here.
    ends: BTreeMap<LinkId, (u8, LinkId, u8)>,
    /// Ordered by time, then by when it was sent.
    wire: BTreeMap<(Moment, u64), (u8, Incoming)>,
    /// When each end's last packet arrives: links keep their order.
    last_arrival: BTreeMap<LinkId, Moment>,
    cut: BTreeSet<(u8, u8)>,
    serial: u64,
    /// Everything that was ever answered, by index.
    truth: BTreeMap<Index, String>,
    primaries: BTreeMap<Term, u8>,
    silence_ms: u32,
    auto: bool,
}

fn id(n: u8) -> ServerId {
    ServerId::new(n).unwrap()
}

impl World {
    fn new(seed: u64, servers: u8) -> World {
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
            silence_ms: 2000,
            auto: false,
        };
        for n in 1..=servers {
            world.wipe(n);
        }
        world
    }

    /// Gives a stopped server an empty disk.
    fn wipe(&mut self, n: u8) {
        let disk = FakeDisk {
            disk: DiskId(u128::from(self.rng.next_u64()) << 64),
            incarnation: 0,
            log: FakeLog::default(),
            vote: Vote::default(),
        };
        self.stopped.insert(n, disk);
    }

    fn start(&mut self, n: u8) {
        let mut disk = self.stopped.remove(&n).expect("it is stopped");
        disk.incarnation += 1;
        let mut shape = Shape::default();
        for record in &disk.log.records {
            shape.push(&Record::parse(record).unwrap()).unwrap();
        }
        let shared = Shared {
            group: GroupId(7),
            servers: self.servers,
            silence_ms: self.silence_ms,
            copies_min: 1,
            survivor_auto: self.auto,
        };
        let setup = Setup {
            me: Member { id: id(n), disk: disk.disk },
            incarnation: Incarnation(disk.incarnation),
            process: ProcessId(self.rng.next_u64()),
            shared,
            takeover: Takeover::Coin,
            vote: disk.vote,
            shape,
            seen: Vec::new(),
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

    fn start_all(&mut self) {
        for n in 1..=self.servers {
            self.start(n);
        }
    }

    /// kill -9: what was stored stays, links end, dials are refused.
    fn crash(&mut self, n: u8) {
        let server = self.running.remove(&n).expect("it runs");
        self.stopped.insert(n, server.disk);
        let ends: Vec<LinkId> =
            self.ends.iter().filter(|(_, (owner, ..))| *owner == n).map(|(end, _)| *end).collect();
        for end in ends {
            self.close(end);
        }
        self.wire.retain(|_, (to, _)| *to != n);
    }

    fn close(&mut self, end: LinkId) {
        if let Some((_, other, owner)) = self.ends.remove(&end) {
            self.ends.remove(&other);
            self.deliver(owner, Some(other), Incoming::Ended(other));
        }
    }

    fn deliver(&mut self, to: u8, end: Option<LinkId>, what: Incoming) {
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

    fn dial(&mut self, from: u8, to: u8) {
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

    fn send(&mut self, end: LinkId, packet: Packet, records: Vec<u8>) {
        let Some(&(from, other, to)) = self.ends.get(&end) else { return };
        if !self.cut.contains(&(from, to)) {
            self.deliver(to, Some(other), Incoming::Packet(other, packet, records));
        }
    }

    /// One turn of one server: its inbox, the tick, the sync, what follows from that.
    fn turn(&mut self, n: u8) {
        let Some(server) = self.running.get_mut(&n) else { return };
        let (now, wall) = (self.now, WallTime(self.now.0 / MS));
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
                    Event::DialFailed { to: *to, refused: *refused }
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
            let mark = Mark { last, vote: server.disk.vote };
            step(server, Event::Stored(mark), &mut flush);
        }
        self.learn(n);
        for act in outs {
            match act {
                Act::Send(link, packet, records) => self.send(link, packet, records),
                Act::Dial(to) => self.dial(n, to.number()),
                Act::Close(link) => self.close(link),
                Act::Leave(aside) => {
                    self.crash(n);
                    match aside {
                        Aside::Everything => self.wipe(n),
                        Aside::Tail(last) => {
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

    /// Checks what a server claims against everything that was ever answered.
    fn learn(&mut self, n: u8) {
        let server = self.running.get_mut(&n).unwrap();
        let standpoint = server.replica.standpoint();
        if standpoint == Standpoint::Primary {
            let other = *self.primaries.entry(server.replica.term()).or_insert(n);
            assert_eq!(other, n, "two primaries of one term");
        }
        let known = server.answered.last().map_or(0, |(index, _)| index.0);
        for at in known + 1..=server.replica.answered().0 {
            let record = Record::parse(&server.disk.log.records[at as usize - 1]).unwrap();
            let text = format!("{}:{}", record.term, String::from_utf8_lossy(record.body));
            server.answered.push((Index(at), text.clone()));
            let truth = self.truth.entry(Index(at)).or_insert_with(|| text.clone());
            assert_eq!(*truth, text, "entry {at} was answered and is another one now");
        }
    }

    /// Runs until `done`, at most `ms` of virtual time.
    fn run_until(&mut self, ms: u64, what: &str, done: impl Fn(&World) -> bool) {
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

    fn run(&mut self, ms: u64) {
        let end = Moment(self.now.0 + ms * MS);
        self.run_until(ms + 5_000, "time passes", |world| world.now >= end);
    }

    fn picture(&self) -> String {
        let each = self.running.iter().map(|(n, server)| {
            let replica = &server.replica;
            let config = replica.config().map(ToString::to_string).unwrap_or_default();
            format!(
                "{n}: {:?} term {} last {} committed {} answered {} members {config}; ",
                replica.standpoint(),
                replica.term(),
                replica.last(),
                replica.committed(),
                replica.answered()
            )
        });
        each.collect()
    }

    fn primary(&self) -> Option<u8> {
        let leads = |server: &Server| {
            server.replica.standpoint() == Standpoint::Primary
                && server.replica.confirmed_round().is_some()
        };
        self.running.iter().filter(|(_, s)| leads(s)).map(|(n, _)| *n).next_back()
    }

    fn members(&self) -> usize {
        let primary = self.primary().map(|n| &self.running[&n].replica);
        primary.filter(|replica| settled(replica)).map_or(0, |r| r.config().unwrap().count())
    }

    /// All three run, and all are members with the disks that they have.
    fn healthy(&self) -> bool {
        let Some(primary) = self.primary().filter(|_| self.members() == 3) else { return false };
        let config = self.running[&primary].replica.config().unwrap();
        self.running.len() == 3 && self.running.values().all(|s| config.has(s.replica.me()))
    }

    fn wait_members(&mut self, ms: u64, count: usize) -> u8 {
        self.run_until(ms, &format!("{count} members"), |world| world.members() == count);
        self.primary().unwrap()
    }

    fn propose(&mut self, n: u8, text: &str) -> Option<Index> {
        let wall = WallTime(self.now.0 / MS);
        let server = self.running.get_mut(&n)?;
        let mut out = Out::default();
        let body = |body: &mut Vec<u8>| body.extend_from_slice(text.as_bytes());
        let index = server.replica.propose(wall, Kind::MESSAGE, body, &mut out).ok()?;
        server.proposed.insert(index, (server.replica.term(), text.to_owned()));
        let mut flush = false;
        perform(server, out, &mut flush, &mut None, &mut Vec::new());
        server.replica.restless = true;
        Some(index)
    }

    fn wait_answered(&mut self, ms: u64, n: u8, index: Index) {
        self.run_until(ms, &format!("entry {index} answered"), |world| {
            world.running[&n].replica.answered() >= index
        });
    }
}

fn settled(replica: &Replica) -> bool {
    replica.shape.config().is_some_and(|(index, _)| index <= replica.answered())
}

enum Act {
    Send(LinkId, Packet, Vec<u8>),
    Dial(ServerId),
    Close(LinkId),
    Leave(Aside),
}

fn perform(
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
            Effect::SendEntries { link, append, first, last } => {
                let mut records = Vec::new();
                server.disk.log.copy(first, last, &mut records).unwrap();
                acts.push(Act::Send(link, Packet::Append(append), records));
            }
            Effect::Dial(to) => acts.push(Act::Dial(to)),
            Effect::Close(link, _) => acts.push(Act::Close(link)),
            Effect::See(..) => {}
            Effect::Leave(aside) => acts.push(Act::Leave(aside)),
        }
    }
}

/// A group of three with the gate open.
fn formed(seed: u64) -> World {
    formed_with(seed, false)
}

fn formed_with(seed: u64, auto: bool) -> World {
    let mut world = World::new(seed, 3);
    world.auto = auto;
    world.start_all();
    world.run_until(3_000, "the gate is open", |world| {
        world.primary().is_some_and(|n| world.running[&n].replica.gate_open())
    });
    world
}

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    1..=count
}

#[test]
fn one_server_forms_alone_and_answers() {
    let mut world = World::new(1, 1);
    world.start(1);
    world.run_until(1_000, "the gate is open", |world| world.running[&1].replica.gate_open());
    let index = world.propose(1, "hi").unwrap();
    world.wait_answered(100, 1, index);
}

#[test]
fn three_form_in_any_order_and_the_gate_opens_only_then() {
    for seed in seeds(20) {
        let mut world = World::new(seed, 3);
        let mut order: Vec<u8> = vec![1, 2, 3];
        let last = order.remove(world.rng.below(3) as usize);
        if seed % 2 == 0 {
            order.reverse();
        }
        for n in order {
            world.start(n);
            world.run(300);
        }
        assert!(world.primary().is_none(), "two servers form no group");
        world.start(last);
        world.wait_members(3_000, 3);
        world.run_until(1_000, "gate", |world| world.running[&1].replica.gate_open());
    }
}

#[test]
fn an_answered_entry_is_stored_by_all() {
    let mut world = formed(3);
    let primary = world.primary().unwrap();
    for text in ["a", "b", "c", "d", "e", "f", "g"] {
        let index = world.propose(primary, text).unwrap();
        world.wait_answered(100, primary, index);
        for server in world.running.values() {
            assert!(server.replica.stored >= index);
        }
    }
}

#[test]
fn the_backups_take_over_in_milliseconds_when_the_primary_is_killed() {
    for seed in seeds(50) {
        let mut world = formed(seed);
        let old = world.primary().unwrap();
        let index = world.propose(old, "kept").unwrap();
        world.wait_answered(100, old, index);
        let before = world.now;
        world.crash(old);
        let new = world.wait_members(1_000, 2);
        assert_ne!(new, old);
        assert!(world.now - before < Duration::from_millis(60), "{:?}", world.now - before);
        assert!(world.running[&new].replica.answered() > index);
        // What returns is a backup again.
        world.start(old);
        assert_eq!(world.wait_members(1_000, 3), new);
    }
}

#[test]
fn a_killed_backup_is_dropped_and_added_again() {
    for seed in seeds(20) {
        let mut world = formed(seed);
        let primary = world.primary().unwrap();
        let backup = (1..=3).find(|n| *n != primary).unwrap();
        world.crash(backup);
        let index = world.propose(primary, "meanwhile").unwrap();
        world.wait_answered(100, primary, index);
        assert_eq!(world.wait_members(100, 2), primary);
        world.start(backup);
        assert_eq!(world.wait_members(1_000, 3), primary);
        world.run_until(1_000, "the backup applies", |world| {
            world.running[&backup].replica.answered() >= index
        });
    }
}

#[test]
fn a_lost_disk_is_somebody_else_and_is_filled() {
    for seed in seeds(20) {
        let mut world = formed(seed);
        let primary = world.primary().unwrap();
        let index = world.propose(primary, "kept").unwrap();
        world.wait_answered(100, primary, index);
        let victim = (seed % 3) as u8 + 1;
        world.crash(victim);
        world.wipe(victim);
        world.start(victim);
        let primary = world.wait_members(3_000, 3);
        assert_ne!(primary, victim, "a blank server leads nobody");
        world.run_until(1_000, "the new disk has everything", |world| {
            world.running[&victim].replica.answered() >= index
        });
    }
}

#[test]
fn down_to_one_backup_by_backup() {
    let mut world = formed(5);
    let primary = world.primary().unwrap();
    for n in (1..=3).filter(|n| *n != primary) {
        world.crash(n);
        world.run(500);
    }
    assert_eq!(world.wait_members(500, 1), primary);
    let index = world.propose(primary, "alone").unwrap();
    world.wait_answered(100, primary, index);
    for n in (1..=3).filter(|n| *n != primary) {
        world.start(n);
    }
    world.wait_members(2_000, 3);
}

#[test]
fn both_backups_at_once_are_waited_for() {
    // Schedules 7 and 36: what one appended about the other is withdrawn.
    for seed in seeds(30) {
        let mut world = formed(seed);
        let primary = world.primary().unwrap();
        let backups: Vec<u8> = (1..=3).filter(|n| *n != primary).collect();
        world.crash(backups[0]);
        let gap = world.rng.below(3);
        world.run(gap);
        world.crash(backups[1]);
        world.run(5_000);
        world.start(backups[0]);
        world.run(5_000);
        if world.primary().is_none() {
            world.start(backups[1]);
        }
        world.run_until(10_000, "somebody leads", |world| world.primary().is_some());
        let n = world.primary().unwrap();
        let index = world.propose(n, "again").unwrap();
        world.wait_answered(6_000, n, index);
    }
}

#[test]
fn the_backup_of_two_asks_for_the_other() {
    let mut world = formed(6);
    let first = world.primary().unwrap();
    world.crash(first);
    let second = world.wait_members(500, 2);
    world.crash(second);
    world.run(20_000);
    assert_eq!(world.primary(), None, "the last one can't know that it was not dropped");
    world.start(second);
    world.wait_members(3_000, 2);
    world.start(first);
    world.wait_members(3_000, 3);
}

#[test]
fn everything_down_and_up_again() {
    for seed in seeds(20) {
        let mut world = formed(seed);
        let primary = world.primary().unwrap();
        let index = world.propose(primary, "kept").unwrap();
        world.wait_answered(100, primary, index);
        for n in 1..=3 {
            world.crash(n);
        }
        world.run(100);
        world.start_all();
        let primary = world.wait_members(3_000, 3);
        assert!(world.running[&primary].replica.answered() >= index);
    }
}

#[test]
fn a_primary_that_is_cut_off_steps_down_and_its_entries_go() {
    for seed in seeds(20) {
        let mut world = formed(seed);
        let old = world.primary().unwrap();
        for other in (1..=3).filter(|n| *n != old) {
            world.cut.insert((old, other));
            world.cut.insert((other, old));
        }
        for text in ["x", "y", "z"] {
            world.propose(old, text);
        }
        let lost = world.running[&old].replica.last();
        world.run_until(10_000, "a new primary of two", |world| {
            world.primary().is_some_and(|n| n != old) && world.members() == 2
        });
        assert_ne!(world.running[&old].replica.standpoint(), Standpoint::Primary);
        assert!(world.running[&old].replica.answered() < lost);
        let new = world.primary().unwrap();
        let index = world.propose(new, "new").unwrap();
        world.wait_answered(200, new, index);
        world.cut.clear();
        assert_eq!(world.wait_members(6_000, 3), new);
    }
}

#[test]
fn a_primary_that_stepped_down_unheard_is_not_waited_for() {
    let mut world = formed(12);
    let old = world.primary().unwrap();
    let others: Vec<u8> = (1..=3).filter(|n| *n != old).collect();
    // What it says when it steps down is lost, and so are the elections of the others.
    for (a, b) in [(old, others[0]), (old, others[1]), (others[0], others[1])] {
        world.cut.insert((a, b));
        world.cut.insert((b, a));
    }
    world.run_until(6_000, "it steps down", |world| {
        world.running[&old].replica.standpoint() != Standpoint::Primary
    });
    world.cut.clear();
    world.wait_members(8_000, 3);
}

#[test]
fn a_one_way_cut_drops_the_backup_without_a_storm() {
    let mut world = formed(8);
    let primary = world.primary().unwrap();
    let term = world.running[&primary].replica.term();
    let backup = (1..=3).find(|n| *n != primary).unwrap();
    world.cut.insert((backup, primary));
    let index = world.propose(primary, "x").unwrap();
    world.wait_answered(4_000, primary, index);
    world.run(20_000);
    assert_eq!(world.primary(), Some(primary));
    assert_eq!(world.running[&primary].replica.term(), term, "no election was held");
    world.cut.clear();
    world.wait_members(40_000, 3);
}

#[test]
fn a_sick_disk_is_dropped_after_t() {
    let mut world = formed(9);
    let primary = world.primary().unwrap();
    let backup = (1..=3).find(|n| *n != primary).unwrap();
    world.running.get_mut(&backup).unwrap().sick = true;
    let index = world.propose(primary, "x").unwrap();
    world.wait_answered(3_000, primary, index);
    world.wait_members(100, 2);
}

#[test]
fn a_read_waits_for_a_majority_that_answered_after_it() {
    let mut world = formed(10);
    let primary = world.primary().unwrap();
    let ask = |world: &mut World| {
        let replica = &mut world.running.get_mut(&primary).unwrap().replica;
        replica.restless = true;
        replica.ask_round().unwrap()
    };
    let confirmed = |world: &World| world.running[&primary].replica.confirmed_round();
    let round = ask(&mut world);
    assert!(confirmed(&world).unwrap() < round);
    world.run_until(100, "confirmed", |world| confirmed(world) >= Some(round));
    for other in (1..=3).filter(|n| *n != primary) {
        world.cut.insert((other, primary));
    }
    world.run(1);
    let round = ask(&mut world);
    world.run(1_000);
    assert!(confirmed(&world).is_none_or(|confirmed| confirmed < round));
}

#[test]
fn an_old_copy_of_a_directory_is_put_aside() {
    let mut world = formed(11);
    let primary = world.primary().unwrap();
    let backup = (1..=3).find(|n| *n != primary).unwrap();
    let old = world.running[&backup].disk.clone();
    for text in ["a", "b", "c"] {
        let index = world.propose(primary, text).unwrap();
        world.wait_answered(100, primary, index);
    }
    world.crash(backup);
    world.wait_members(500, 2);
    world.start(backup);
    world.wait_members(1_000, 3);
    world.crash(backup);
    world.stopped.insert(backup, old);
    world.start(backup);
    let copy = world.running[&backup].replica.me();
    world.run(5_000);
    assert!(world.healthy(), "it was seen in a later life");
    assert_ne!(world.running[&backup].replica.me(), copy, "it came back as somebody else");
}

#[test]
fn a_stopping_primary_hands_over_in_milliseconds_and_is_dropped() {
    for seed in seeds(20) {
        let mut world = formed(seed);
        let old = world.primary().unwrap();
        let index = world.propose(old, "last").unwrap();
        let now = world.now;
        world.running.get_mut(&old).unwrap().replica.stop(now);
        world.run_until(20, "a backup leads", |world| world.primary().is_some_and(|n| n != old));
        let new = world.primary().unwrap();
        assert!(world.running[&new].replica.answered() >= index);
        world.run_until(20, "it is released", |world| {
            world.running[&old].replica.is_released(world.now)
        });
        assert_eq!(world.members(), 2);
        world.crash(old);
        world.start(old);
        world.wait_members(1_000, 3);
    }
}

#[test]
fn servers_that_stop_together_leave_the_members_as_they_are() {
    for seed in seeds(20) {
        let mut world = formed(seed);
        let now = world.now;
        for server in world.running.values_mut() {
            server.replica.stop(now);
        }
        world.run_until(100, "all are released", |world| {
            world.running.values().all(|server| server.replica.is_released(world.now))
        });
        for server in world.running.values() {
            assert_eq!(server.replica.config().unwrap().count(), 3);
        }
    }
}

#[test]
fn the_last_of_three_goes_on_alone_and_is_followed_when_the_others_return() {
    for seed in seeds(20) {
        let mut world = formed_with(seed, true);
        let first = world.primary().unwrap();
        world.crash(first);
        let second = world.wait_members(500, 2);
        world.run(250 + 50); // a promise runs after T/8
        let index = world.propose(second, "kept").unwrap();
        world.wait_answered(100, second, index);
        world.propose(second, "never sent");
        world.crash(second);
        world.run_until(50, "the last one leads", |world| world.primary().is_some());
        let last = world.primary().unwrap();
        assert!(world.running[&last].replica.answered() >= index);
        let index = world.propose(last, "alone").unwrap();
        world.wait_answered(100, last, index);
        world.start(first);
        world.start(second);
        assert_eq!(world.wait_members(8_000, 3), last);
        world.run_until(1_000, "all is applied", |world| {
            world.running.values().all(|server| server.replica.answered() >= index)
        });
    }
}

#[test]
fn without_a_promise_the_last_one_waits_for_a_person() {
    let mut world = formed_with(3, true);
    let first = world.primary().unwrap();
    let others: Vec<u8> = (1..=3).filter(|n| *n != first).collect();
    world.crash(first);
    world.crash(others[0]);
    world.run(20_000);
    assert_eq!(world.primary(), None, "the members were three");
}

/// Random crashes, returns, cuts and lost disks (never two at once); what was answered stays,
/// and when everything heals, everybody is a member again.
#[test]
fn bad_days() {
    // 1395: a learner that answered pings and stored nothing was added and withdrawn for ever.
    for seed in seeds(500).chain([1395]) {
        let mut world = formed(seed);
        let mut count = 0;
        for _ in 0..60 {
            if let Some(primary) = world.primary() {
                for _ in 0..world.rng.below(4) {
                    count += 1;
                    world.propose(primary, &format!("m{count}"));
                }
            }
            let n = world.rng.below(3) as u8 + 1;
            let other = world.rng.below(3) as u8 + 1;
            match world.rng.below(8) {
                0 | 1 if world.running.contains_key(&n) => world.crash(n),
                2 | 3 if world.stopped.contains_key(&n) => world.start(n),
                4 if n != other => {
                    world.cut.insert((n, other));
                }
                5 => world.cut.clear(),
                6 if world.healthy() => {
                    world.crash(n);
                    world.wipe(n);
                    world.start(n);
                }
                _ => {}
            }
            let (short, long) = (world.rng.below(20), world.rng.below(3_000));
            let pause = if world.rng.below(3) == 0 { long } else { short };
            world.run(pause);
        }
        world.cut.clear();
        for n in 1..=3 {
            if world.stopped.contains_key(&n) {
                world.start(n);
            }
        }
        let primary = world.wait_members(60_000, 3);
        let last = world.running[&primary].replica.last();
        assert!(last < Index(1_000), "{last} entries: the members flap");
        let index = world.propose(primary, "end").unwrap();
        // Appends lost in a cut are found missing after `T`.
        world.wait_answered(20_000, primary, index);
        world.run_until(20_000, "backups apply everything", |world| {
            world.running.values().all(|server| server.replica.answered() >= index)
        });
    }
}
