//! Three replicas, their disks and what is under way between them, small enough to be copied at
//! every step.

use super::action::{Action, Bounds};
use postern::ids::{
    DiskId, GroupId, Incarnation, Index, LinkId, Member, ProcessId, Run, ServerId, Term, Vote,
};
use postern::record::{self, Kind, Record};
use postern::replica::{
    Decision, Durable, Effect, Event, LogReader, LogSummary, Out, Packet, Replica, RoleView, Setup,
    Shared, Takeover,
};
use postern::time::{Moment, WallTime};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::rc::Rc;

/// Time stands still: every decision is an action.
const NOW: Moment = Moment(1_000_000);
const WALL: WallTime = WallTime(0);
const SERVERS: u8 = 3;

/// What a server has written: records, of which the first `durable` are on disk.
#[derive(Clone, Debug)]
struct Disk {
    id: DiskId,
    incarnation: u64,
    records: Vec<Rc<[u8]>>,
    durable: usize,
    vote: Vote,
}

impl LogReader for Disk {
    fn last_within(&self, _: Index, through: Index, _: usize) -> Index {
        through
    }
    fn for_each(
        &self,
        from: Index,
        through: Index,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> io::Result<()> {
        for record in &self.records[from.0 as usize - 1..through.0 as usize] {
            visit(&Record::trust(record));
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Server {
    disk: Disk,
    /// None while it is down.
    replica: Option<Replica>,
    /// What the next sync makes durable.
    flush: Option<usize>,
    persist: Option<Vote>,
    /// Up to here its answered entries were compared with the truth.
    compared: u64,
}

type Queue = VecDeque<Rc<(Packet, Vec<u8>)>>;

/// By index: the term in which an entry was answered first, and its record.
type Truth = BTreeMap<u64, (Term, Rc<[u8]>)>;

/// A state.
#[derive(Clone, Debug)]
pub(super) struct World {
    servers: [Server; SERVERS as usize],
    linked: [[bool; SERVERS as usize]; SERVERS as usize],
    /// By sender and receiver.
    wires: [[Queue; SERVERS as usize]; SERVERS as usize],
    left: Bounds,
    disks: u128,
    /// What was ever answered.
    truth: Rc<Truth>,
    primaries: Rc<BTreeMap<Term, u8>>,
}

fn id(n: u8) -> ServerId {
    ServerId::new(n).expect("servers are 1, 2 and 3")
}

fn slot(n: u8) -> usize {
    usize::from(n) - 1
}

/// The end at `n` of its link to `other`; nothing of an earlier link is ever under way.
fn link(n: u8, other: u8) -> LinkId {
    LinkId(u64::from(n) * 10 + u64::from(other))
}

fn all() -> impl Iterator<Item = u8> {
    1..=SERVERS
}

fn pairs() -> impl Iterator<Item = (u8, u8)> {
    all().flat_map(|a| (a + 1..=SERVERS).map(move |b| (a, b)))
}

impl World {
    /// A group of three: server 1 leads term 1, all is stored everywhere, the gate is open.
    pub(super) fn formed(bounds: &Bounds) -> World {
        let server = |n: u8| Server {
            disk: Disk {
                id: DiskId(u128::from(n) << 96),
                incarnation: 0,
                records: Vec::new(),
                durable: 0,
                vote: Vote::default(),
            },
            replica: None,
            flush: None,
            persist: None,
            compared: 0,
        };
        let mut world = World {
            servers: [server(1), server(2), server(3)],
            linked: Default::default(),
            wires: Default::default(),
            left: Bounds {
                terms: 1,
                entries: 0,
                changes: 0,
                crashes: 0,
                wipes: 0,
                cuts: 1,
                late_syncs: false,
            },
            disks: 9,
            truth: Rc::default(),
            primaries: Rc::default(),
        };
        let members = all().map(|n| Member { id: id(n), disk: world.servers[slot(n)].disk.id });
        let config = postern::replica::Config::new(members.collect::<Vec<_>>(), true);
        let mut first = Vec::new();
        let at = postern::ids::Position { index: Index(1), term: Term::ZERO };
        record::write(&mut first, at, WALL, Kind::CONFIG, |body| config.encode(body));
        for server in &mut world.servers {
            server.disk.records.push(first.clone().into());
            server.disk.durable = 1;
        }
        for n in all() {
            world.start(n);
        }
        for (a, b) in pairs() {
            world.join(a, b);
        }
        world.apply(Action::Campaign(1));
        world.settle();
        world.left = *bounds;
        world
    }

    /// Delivers and syncs until nothing is under way.
    fn settle(&mut self) {
        let mut actions = Vec::new();
        loop {
            self.actions(&mut actions);
            let next =
                actions.drain(..).find(|a| matches!(a, Action::Deliver { .. } | Action::Sync(_)));
            match next {
                Some(action) => self.apply(action),
                None => return,
            }
        }
    }

    /// A copy of this state after these actions.
    pub(super) fn after(&self, actions: &[Action]) -> World {
        let mut world = self.clone();
        for action in actions {
            world.apply(*action);
        }
        world
    }

    /// What may happen next.
    pub(super) fn actions(&self, into: &mut Vec<Action>) {
        into.clear();
        for from in all() {
            for to in all() {
                if !self.wires[slot(from)][slot(to)].is_empty() {
                    into.push(Action::Deliver { from, to });
                }
            }
        }
        for (a, b) in pairs() {
            let up = |n: u8| self.servers[slot(n)].replica.is_some();
            if self.linked[slot(a)][slot(b)] {
                if self.left.cuts > 0 {
                    into.push(Action::Cut(a, b));
                }
            } else if up(a) && up(b) {
                into.push(Action::Link(a, b));
            }
        }
        for n in all() {
            self.actions_of(n, into);
        }
    }

    fn actions_of(&self, n: u8, into: &mut Vec<Action>) {
        let server = &self.servers[slot(n)];
        let Some(replica) = &server.replica else {
            into.push(Action::Restart(n));
            if self.left.wipes > 0 {
                into.push(Action::Wipe(n));
            }
            return;
        };
        if server.flush.is_some() || server.persist.is_some() {
            into.push(Action::Sync(n));
        }
        if self.left.crashes > 0 {
            into.push(Action::Crash(n, false));
            if server.flush.is_some() || server.persist.is_some() {
                into.push(Action::Crash(n, true));
            }
        }
        if replica.role() != RoleView::Primary {
            if self.left.terms > 0 {
                into.push(Action::Campaign(n));
            }
            return;
        }
        if self.left.entries > 0 {
            into.push(Action::Propose(n));
        }
        if self.left.changes > 0 {
            into.push(Action::Withdraw(n));
            for other in all().filter(|other| *other != n) {
                into.push(Action::Drop(n, other));
                into.push(Action::Add(n, other));
            }
        }
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Deliver { from, to } => {
                let packet = self.wires[slot(from)][slot(to)].pop_front();
                let packet = packet.expect("only what is under way is delivered");
                let (packet, records) = (&packet.0, &packet.1);
                let event = Event::Received { link: link(to, from), packet: *packet, records };
                self.tell(to, event);
                self.end_turn(to);
            }
            Action::Sync(n) => self.sync(n),
            Action::Propose(n) => self.propose(n),
            Action::Campaign(n) => {
                self.left.terms -= u8::from(self.decide(n, Decision::Campaign));
            }
            Action::Drop(n, other) => {
                self.left.changes -= u8::from(self.decide(n, Decision::Drop(id(other))));
            }
            Action::Add(n, other) => {
                self.left.changes -= u8::from(self.decide(n, Decision::Add(id(other))));
            }
            Action::Withdraw(n) => {
                self.left.changes -= u8::from(self.decide(n, Decision::Withdraw));
            }
            Action::Crash(n, kept) => self.crash(n, kept),
            Action::Restart(n) => self.start(n),
            Action::Wipe(n) => {
                self.left.wipes -= 1;
                self.disks += 1;
                let disk = &mut self.servers[slot(n)].disk;
                (disk.id, disk.vote) = (DiskId(self.disks << 96), Vote::default());
                (disk.records, disk.durable) = (Vec::new(), 0);
                self.start(n);
            }
            Action::Link(a, b) => self.join(a, b),
            Action::Cut(a, b) => {
                self.left.cuts -= 1;
                self.part(a, b);
            }
        }
    }

    fn decide(&mut self, n: u8, what: Decision) -> bool {
        let mut out = Out::default();
        let server = &mut self.servers[slot(n)];
        let Some(replica) = &mut server.replica else { return false };
        let decided = replica.decide(NOW, WALL, what, &mut out);
        self.perform(n, out);
        self.end_turn(n);
        decided
    }

    fn propose(&mut self, n: u8) {
        let text = [self.left.entries];
        let mut out = Out::default();
        let Some(replica) = &mut self.servers[slot(n)].replica else { return };
        let body = |body: &mut Vec<u8>| body.extend(text);
        if replica.propose(NOW, WALL, Kind::MESSAGE, body, &mut out).is_ok() {
            self.left.entries -= 1;
        }
        self.perform(n, out);
        self.end_turn(n);
    }

    fn tell(&mut self, n: u8, event: Event<'_>) {
        let mut out = Out::default();
        let server = &mut self.servers[slot(n)];
        let Some(replica) = &mut server.replica else { return };
        replica.handle(NOW, WALL, event, &server.disk, &mut out);
        self.perform(n, out);
    }

    fn end_turn(&mut self, n: u8) {
        let mut out = Out::default();
        let server = &mut self.servers[slot(n)];
        let Some(replica) = &mut server.replica else { return };
        replica.step(NOW, WALL, &server.disk, &mut out);
        self.perform(n, out);
        self.compare(n);
        let server = &self.servers[slot(n)];
        if !self.left.late_syncs && (server.flush.is_some() || server.persist.is_some()) {
            self.sync(n);
        }
    }

    fn sync(&mut self, n: u8) {
        let server = &mut self.servers[slot(n)];
        if let Some(vote) = server.persist.take() {
            server.disk.vote = vote;
        }
        if let Some(count) = server.flush.take() {
            server.disk.durable = count.min(server.disk.records.len());
        }
        let mark = Durable { last: Index(server.disk.durable as u64), vote: server.disk.vote };
        self.tell(n, Event::Durable(mark));
        self.end_turn(n);
    }

    fn perform(&mut self, n: u8, out: Out) {
        let Out { bytes, effects } = out;
        for effect in effects {
            let server = &mut self.servers[slot(n)];
            let (to, packet, records) = match effect {
                Effect::Append(range) => {
                    for record in record::each(&bytes[range]) {
                        let record = record.expect("a replica appends records");
                        server.disk.records.push(record.bytes.into());
                    }
                    continue;
                }
                Effect::Cut(last) => {
                    let keep = last.0 as usize;
                    server.disk.records.truncate(keep);
                    server.disk.durable = server.disk.durable.min(keep);
                    server.flush = server.flush.map(|count| count.min(keep));
                    continue;
                }
                Effect::Flush => {
                    server.flush = Some(server.disk.records.len());
                    continue;
                }
                Effect::Persist(vote) => {
                    server.persist = Some(vote);
                    continue;
                }
                Effect::Send(to, packet) => (to, packet, Vec::new()),
                Effect::Greet(to, greeting) => (to, Packet::Hello(greeting.0), greeting.1),
                Effect::SendEntries { link, append, first, last } => {
                    let mut records = Vec::new();
                    server
                        .disk
                        .for_each(first, last, &mut |record| {
                            records.extend_from_slice(record.bytes);
                        })
                        .expect("they are there");
                    (link, Packet::Append(append), records)
                }
                Effect::Quarantine(quarantine) => {
                    panic!("server {n} puts quarantine {quarantine:?}")
                }
                Effect::Dial(_) | Effect::Close(..) | Effect::RecordIncarnation(..) => continue,
            };
            // Pings only say who is there, and everybody is asked at any time anyway.
            let idle = matches!(packet, Packet::Ping { .. } | Packet::Pong { .. });
            let other = (to.0 % 10) as u8;
            if !idle && self.linked[slot(n)][slot(other)] {
                self.wires[slot(n)][slot(other)].push_back(Rc::new((packet, records)));
            }
        }
    }

    fn start(&mut self, n: u8) {
        let server = &mut self.servers[slot(n)];
        server.disk.incarnation += 1;
        let mut summary = LogSummary::default();
        for record in &server.disk.records {
            summary.push(&Record::trust(record)).expect("it was read before");
        }
        let shared = Shared {
            group: GroupId(7),
            servers: SERVERS,
            peer_timeout_ms: 2_000,
            copies_min: 1,
            survivor_auto: false,
        };
        let life = u64::from(n) * 100 + server.disk.incarnation;
        let process = ProcessId(life);
        let setup = Setup {
            me: Member { id: id(n), disk: server.disk.id },
            incarnation: Incarnation(server.disk.incarnation),
            process,
            shared,
            takeover: Takeover::Coin,
            vote: server.disk.vote,
            summary,
            seen: Default::default(),
            runs: vec![Run { incarnation: Incarnation(server.disk.incarnation), process }],
            former: None,
            seed: life,
        };
        server.replica = Some(Replica::new(NOW, setup));
        let greet = self.left.cuts == 0;
        for other in all().filter(|other| greet && *other != n) {
            if self.servers[slot(other)].replica.is_some() {
                self.join(n, other);
            }
        }
    }

    fn crash(&mut self, n: u8, kept: bool) {
        self.left.crashes -= 1;
        let server = &mut self.servers[slot(n)];
        server.replica = None;
        if let Some(vote) = server.persist.take().filter(|_| kept) {
            server.disk.vote = vote;
        }
        let flushed = server.flush.take().filter(|_| kept);
        let durable = flushed.unwrap_or(server.disk.durable).min(server.disk.records.len());
        server.disk.records.truncate(durable);
        (server.disk.durable, server.compared) = (durable, 0);
        for other in all().filter(|other| *other != n) {
            self.part(n, other);
        }
    }

    /// Links two servers; their hellos are exchanged at once.
    fn join(&mut self, a: u8, b: u8) {
        let (here, there) = (link(a, b), link(b, a));
        self.linked[slot(a)][slot(b)] = true;
        self.linked[slot(b)][slot(a)] = true;
        self.tell(a, Event::Dialled { link: here, to: id(b) });
        self.tell(b, Event::Accepted { link: there });
        // The dialler's hello, and what answers it; no other packet comes before them.
        for (from, to) in [(a, b), (b, a)] {
            if let Some(packet) = self.wires[slot(from)][slot(to)].pop_front() {
                let (packet, records) = (packet.0, &packet.1);
                self.tell(to, Event::Received { link: link(to, from), packet, records });
            }
        }
        self.end_turn(a);
        self.end_turn(b);
    }

    fn part(&mut self, a: u8, b: u8) {
        for (n, other) in [(a, b), (b, a)] {
            let was = std::mem::take(&mut self.linked[slot(n)][slot(other)]);
            self.wires[slot(n)][slot(other)].clear();
            if was {
                self.tell(n, Event::Ended { link: link(n, other) });
                self.end_turn(n);
            }
        }
    }

    /// Compares what a server claims with what was ever claimed.
    fn compare(&mut self, n: u8) {
        let server = &self.servers[slot(n)];
        let Some(replica) = &server.replica else { return };
        if replica.role() == RoleView::Primary && !self.primaries.contains_key(&replica.term()) {
            // One that is elected late, in a term before, can't get anything answered.
            let earlier = self.truth.iter().filter(|(_, (term, _))| *term < replica.term());
            for (at, (_, record)) in earlier {
                let own = server.disk.records.get(*at as usize - 1);
                assert!(own == Some(record), "primary {n} lacks entry {at}, which was answered");
            }
            Rc::make_mut(&mut self.primaries).insert(replica.term(), n);
        }
        if replica.role() == RoleView::Primary {
            assert_eq!(self.primaries[&replica.term()], n, "two primaries of one term");
        }
        let acknowledged = replica.acknowledged().0;
        let leads = replica.role() == RoleView::Primary;
        for at in server.compared + 1..=acknowledged {
            let record = &server.disk.records[at as usize - 1];
            if let Some(known) = self.truth.get(&at) {
                assert!(
                    known.1 == *record,
                    "entry {at} was acknowledged, and is another one at {n}"
                );
                continue;
            }
            assert!(leads, "server {n} applies entry {at}, which was never answered");
            self.assert_stored(replica, at, record);
            Rc::make_mut(&mut self.truth).insert(at, (replica.term(), Rc::clone(record)));
        }
        self.servers[slot(n)].compared = acknowledged.max(self.servers[slot(n)].compared);
    }

    /// Answered means: on the disk of every member of the config it was answered under.
    fn assert_stored(&self, replica: &Replica, at: u64, record: &Rc<[u8]>) {
        let config = replica.config().expect("a primary has a config");
        for member in config.members() {
            let disk = &self.servers[member.id.slot()].disk;
            if disk.id == member.disk {
                let stored = disk.durable as u64 >= at && disk.records[at as usize - 1] == *record;
                assert!(stored, "entry {at} is acknowledged, and not stored by member {member}");
            }
        }
    }

    #[cfg(test)]
    pub(super) fn claim_answered(&mut self, at: u64, text: &str) {
        Rc::make_mut(&mut self.truth).insert(at, (Term(1), text.as_bytes().into()));
    }

    /// A hash of all that may matter for what comes.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut into = Hashing(DefaultHasher::new());
        let written = self.write(&mut into);
        written.expect("a hasher takes every byte");
        into.0.finish()
    }

    fn write(&self, into: &mut Hashing) -> fmt::Result {
        write!(into, "{:?}{:?}{:?}", self.left, self.linked, self.primaries)?;
        for (at, (_, record)) in self.truth.iter() {
            into.0.write_u64(*at);
            into.0.write(record);
        }
        for server in &self.servers {
            let disk = &server.disk;
            write!(into, "{}{:?}{}", disk.id.0, disk.vote, disk.durable)?;
            write!(into, "{:?}{:?}", server.flush, server.persist)?;
            for record in &disk.records {
                into.0.write(record);
            }
            if let Some(replica) = &server.replica {
                replica.picture(into)?;
            }
        }
        let mut bytes = Vec::new();
        for wire in self.wires.iter().flatten() {
            into.0.write_usize(wire.len());
            for packet in wire {
                bytes.clear();
                packet.0.encode(&mut bytes);
                into.0.write(&bytes);
                into.0.write(&packet.1);
            }
        }
        Ok(())
    }
}

struct Hashing(DefaultHasher);

impl Write for Hashing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
