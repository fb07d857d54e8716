//! The state of a search: three replicas, their disks and the packets between them. It is small
//! enough to be copied at every step.

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

/// Time does not advance: every decision is an action.
const NOW: Moment = Moment(1_000_000);
const WALL: WallTime = WallTime(0);
const SERVERS: u8 = 3;

/// The records that a server has written. The first `durable` are on disk.
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
    /// The number of records that the next sync makes durable, and the vote.
    flush: Option<usize>,
    persist: Option<Vote>,
    /// Its acknowledged entries were compared with those of the group up to here.
    compared: u64,
}

impl Server {
    fn has_unsynced(&self) -> bool {
        self.flush.is_some() || self.persist.is_some()
    }
}

type Queue = VecDeque<Rc<(Packet, Vec<u8>)>>;

/// By index: the term in which an entry was first acknowledged, and its record.
type Acknowledged = BTreeMap<u64, (Term, Rc<[u8]>)>;

/// A state.
#[derive(Clone, Debug)]
pub(super) struct World {
    servers: [Server; SERVERS as usize],
    linked: [[bool; SERVERS as usize]; SERVERS as usize],
    /// By sender and receiver.
    packets: [[Queue; SERVERS as usize]; SERVERS as usize],
    left: Bounds,
    disks: u128,
    acknowledged: Rc<Acknowledged>,
    primaries: Rc<BTreeMap<Term, u8>>,
}

fn id(n: u8) -> ServerId {
    ServerId::new(n).expect("servers are 1, 2 and 3")
}

fn slot(n: u8) -> usize {
    usize::from(n) - 1
}

/// The end at `n` of its link to `other`. No packet of an earlier link is ever in flight.
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
    /// A group of three: server 1 is primary in term 1, all entries are on all disks, and the gate
    /// is open.
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
            packets: Default::default(),
            left: Bounds { terms: 1, cuts: 1, ..Bounds::default() },
            disks: 9,
            acknowledged: Rc::default(),
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
            world.link(a, b);
        }
        world.apply(Action::Decide(1, Decision::Campaign));
        world.settle();
        world.left = *bounds;
        world
    }

    /// Delivers and syncs until no packet is in flight.
    pub(super) fn settle(&mut self) {
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

    /// Returns a copy of this state after these actions.
    pub(super) fn after(&self, actions: &[Action]) -> World {
        let mut world = self.clone();
        for action in actions {
            world.apply(*action);
        }
        world
    }

    /// Lists the actions that may happen next.
    pub(super) fn actions(&self, into: &mut Vec<Action>) {
        into.clear();
        for from in all() {
            for to in all() {
                if !self.packets[slot(from)][slot(to)].is_empty() {
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
        if server.has_unsynced() {
            into.push(Action::Sync(n));
        }
        if self.left.crashes > 0 {
            into.push(Action::Crash(n, false));
            if server.has_unsynced() {
                into.push(Action::Crash(n, true));
            }
        }
        if replica.role() != RoleView::Primary {
            if self.left.terms > 0 {
                into.push(Action::Decide(n, Decision::Campaign));
            }
            return;
        }
        if self.left.entries > 0 {
            into.push(Action::Propose(n));
        }
        if self.left.changes > 0 {
            into.push(Action::Decide(n, Decision::Withdraw));
            for other in all().filter(|other| *other != n) {
                into.push(Action::Decide(n, Decision::Drop(id(other))));
                into.push(Action::Decide(n, Decision::Add(id(other))));
            }
        }
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Deliver { from, to } => {
                let packet = self.packets[slot(from)][slot(to)].pop_front();
                let packet = packet.expect("a delivered packet is in flight");
                let (packet, records) = (&packet.0, &packet.1);
                let event = Event::Received { link: link(to, from), packet: *packet, records };
                self.handle(to, event);
                self.end_turn(to);
            }
            Action::Sync(n) => self.sync(n),
            Action::Propose(n) => self.propose(n),
            Action::Decide(n, what) => {
                let decided = u8::from(self.decide(n, what));
                let is_campaign = what == Decision::Campaign;
                *(if is_campaign { &mut self.left.terms } else { &mut self.left.changes }) -=
                    decided;
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
            Action::Link(a, b) => self.link(a, b),
            Action::Cut(a, b) => {
                self.left.cuts -= 1;
                self.unlink(a, b);
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

    fn handle(&mut self, n: u8, event: Event<'_>) {
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
        if !self.left.late_syncs && (server.has_unsynced()) {
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
        self.handle(n, Event::Durable(mark));
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
                Effect::SendWith(to, sent) => (to, sent.0, sent.1),
                Effect::SendEntries { link, append, first, last } => {
                    let mut records = Vec::new();
                    server
                        .disk
                        .for_each(first, last, &mut |record| {
                            records.extend_from_slice(record.bytes);
                        })
                        .expect("the log has them");
                    (link, Packet::Append(append), records)
                }
                Effect::Quarantine(quarantine) => {
                    panic!("server {n} quarantines {quarantine:?}")
                }
                Effect::Dial(_) | Effect::Close(..) | Effect::RecordIncarnation(..) => continue,
            };
            // Pings only feed timers, which do not exist here.
            let idle = matches!(packet, Packet::Ping { .. } | Packet::Pong { .. });
            let other = (to.0 % 10) as u8;
            if !idle && self.linked[slot(n)][slot(other)] {
                self.packets[slot(n)][slot(other)].push_back(Rc::new((packet, records)));
            }
        }
    }

    fn start(&mut self, n: u8) {
        let server = &mut self.servers[slot(n)];
        server.disk.incarnation += 1;
        let mut summary = LogSummary::default();
        for record in &server.disk.records {
            summary.push(&Record::trust(record)).expect("the log is valid");
        }
        let shared = Shared {
            group: GroupId(7),
            servers: SERVERS,
            peer_timeout_ms: 2_000,
            copies_min: 1,
            survivor_auto: false,
        };
        let start = u64::from(n) * 100 + server.disk.incarnation;
        let incarnation = Incarnation(server.disk.incarnation);
        let setup = Setup {
            me: Member { id: id(n), disk: server.disk.id },
            shared,
            takeover: Takeover::Coin,
            vote: server.disk.vote,
            summary,
            acknowledged: Index::ZERO,
            seen: Default::default(),
            runs: vec![Run { incarnation, process: ProcessId(start) }],
            former: None,
            seed: start,
        };
        server.replica = Some(Replica::new(NOW, setup));
        let greet = self.left.cuts == 0;
        for other in all().filter(|other| greet && *other != n) {
            if self.servers[slot(other)].replica.is_some() {
                self.link(n, other);
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
            self.unlink(n, other);
        }
    }

    /// Links two servers. They exchange their hellos at once.
    fn link(&mut self, a: u8, b: u8) {
        let (here, there) = (link(a, b), link(b, a));
        self.linked[slot(a)][slot(b)] = true;
        self.linked[slot(b)][slot(a)] = true;
        self.handle(a, Event::Dialled { link: here, to: id(b) });
        self.handle(b, Event::Accepted { link: there });
        // The hello of the dialler, and that of the other side. No other packet precedes them.
        for (from, to) in [(a, b), (b, a)] {
            if let Some(packet) = self.packets[slot(from)][slot(to)].pop_front() {
                let (packet, records) = (packet.0, &packet.1);
                self.handle(to, Event::Received { link: link(to, from), packet, records });
            }
        }
        self.end_turn(a);
        self.end_turn(b);
    }

    fn unlink(&mut self, a: u8, b: u8) {
        for (n, other) in [(a, b), (b, a)] {
            let was = std::mem::take(&mut self.linked[slot(n)][slot(other)]);
            self.packets[slot(n)][slot(other)].clear();
            if was {
                self.handle(n, Event::Ended { link: link(n, other) });
                self.end_turn(n);
            }
        }
    }

    /// Checks the invariants of a server after its turn.
    fn compare(&mut self, n: u8) {
        let server = &self.servers[slot(n)];
        let Some(replica) = &server.replica else { return };
        if replica.role() == RoleView::Primary && !self.primaries.contains_key(&replica.term()) {
            // A primary of an earlier term, elected late, can't get entries acknowledged.
            let earlier = self.acknowledged.iter().filter(|(_, (term, _))| *term < replica.term());
            for (at, (_, record)) in earlier {
                let own = server.disk.records.get(*at as usize - 1);
                assert!(
                    own == Some(record),
                    "primary {n} lacks entry {at}, which was acknowledged"
                );
            }
            Rc::make_mut(&mut self.primaries).insert(replica.term(), n);
        }
        if replica.role() == RoleView::Primary {
            assert_eq!(self.primaries[&replica.term()], n, "two primaries in one term");
        }
        let acknowledged = replica.acknowledged().0;
        let leads = replica.role() == RoleView::Primary;
        for at in server.compared + 1..=acknowledged {
            let record = &server.disk.records[at as usize - 1];
            if let Some(known) = self.acknowledged.get(&at) {
                assert!(
                    known.1 == *record,
                    "entry {at} was acknowledged, but differs at server {n}"
                );
                continue;
            }
            assert!(leads, "server {n} applies entry {at}, which was never acknowledged");
            self.assert_stored(replica, at, record);
            Rc::make_mut(&mut self.acknowledged).insert(at, (replica.term(), Rc::clone(record)));
        }
        self.servers[slot(n)].compared = acknowledged.max(self.servers[slot(n)].compared);
    }

    /// Checks that an acknowledged entry is durable on all members of the config.
    fn assert_stored(&self, replica: &Replica, at: u64, record: &Rc<[u8]>) {
        let config = replica.config().expect("a primary has a config");
        for member in config.members() {
            let disk = &self.servers[member.id.slot()].disk;
            if disk.id == member.disk {
                let stored = disk.durable as u64 >= at && disk.records[at as usize - 1] == *record;
                assert!(stored, "entry {at} is acknowledged, but not stored by member {member}");
            }
        }
    }

    #[cfg(test)]
    pub(super) fn claim_acknowledged(&mut self, at: u64, text: &str) {
        Rc::make_mut(&mut self.acknowledged).insert(at, (Term(1), text.as_bytes().into()));
    }

    /// Returns a hash of everything that affects the future.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut into = Hashing(DefaultHasher::new());
        let written = self.write(&mut into);
        written.expect("a write to a hasher does not fail");
        into.0.finish()
    }

    fn write(&self, into: &mut Hashing) -> fmt::Result {
        write!(into, "{:?}{:?}{:?}", self.left, self.linked, self.primaries)?;
        for (at, (_, record)) in self.acknowledged.iter() {
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
        for queue in self.packets.iter().flatten() {
            into.0.write_usize(queue.len());
            for packet in queue {
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
