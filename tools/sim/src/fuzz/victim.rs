//! A server of three under attack: a real node on a real log, its links, and what must stay true
//! of it whatever arrives.

use super::prepared::{WALL_MS, prepare};
use crate::simulate::{
    self, ConnId, Entry, GROUP, Incoming, LinkEnd, Output, Process, Settings, address_of,
};
use postern::host::Fail;
use postern::ids::{
    DiskId, Incarnation, Index, LinkId, Member, Position, ProcessId, Run, ServerId, Term,
};
use postern::limits::{PROOFS_SPARE, SEEN_MAX, SEGMENT_BYTES};
use postern::record;
use postern::replica::{Hello, Packet, Past, Shared, Takeover};
use postern::rng::Rng;
use postern::store::Identity;
use postern::store::memory::MemoryDisk;
use postern::time::{Moment, WallTime};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::mem;

/// The most verified passwords that a server may hold while it has a handful of accounts.
const PROOFS_MAX: usize = PROOFS_SPARE + 16;
/// The most disks that a server may remember.
const DISKS_MAX: usize = SEEN_MAX;
/// The most links that may wait for a hello.
const LINKS_MAX: usize = 64;
/// The most packets that one turn may send, whatever arrived in it.
const SENT_MAX: usize = 1024;
/// Packets of the victim that wait to be answered by a friendly peer.
const HEARD_MAX: usize = 64;
const SILENCE_MS: u32 = 2000;
/// The most turns before a server waits.
const TURNS_MAX: usize = 1000;

/// What the victim is when the attack begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Blank,
    Learner,
    Backup,
    Candidate,
    Primary,
}

/// A link, and who is claimed to be at its other end.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) peer: Member,
    /// Packets to bytes, and back.
    end: LinkEnd,
    /// What the victim sent on it.
    heard: VecDeque<(Packet, Vec<u8>)>,
}

/// The victim and everything around it.
pub(super) struct Victim {
    pub(super) process: Process,
    pub(super) links: Vec<Link>,
    pub(super) dials: VecDeque<u32>,
    settings: Settings,
    now: Moment,
    next: u64,
    inbox: Vec<Incoming>,
    /// The entries that were committed, and how far they were acknowledged.
    committed: Vec<Entry>,
    acknowledged: Index,
    term: Term,
}

/// Returns the disk with which a server is a member of the prepared log.
pub(super) fn disk_of(id: ServerId) -> DiskId {
    DiskId(u128::from(id.number()) << 96)
}

fn id(number: u8) -> ServerId {
    ServerId::new(number).expect("1 to 3")
}

/// What an honest server says behind its hello that was started once.
pub(super) fn past(hello: &Hello) -> Vec<u8> {
    let run = Run { incarnation: hello.incarnation, process: hello.process };
    let mut bytes = Vec::new();
    Past { runs: vec![run], ..Past::default() }.encode(&mut bytes);
    bytes
}

impl Victim {
    /// Starts a server of this id, and lets friendly peers bring it to where the attack begins.
    pub(super) fn start(
        me: u8,
        start: Start,
        copies_min: u8,
        auto: bool,
    ) -> Result<Victim, String> {
        let me = id(me);
        let settings = Settings {
            encrypts: false,
            segment_bytes: SEGMENT_BYTES,
            peer_timeout_ms: SILENCE_MS,
            takeover: Takeover::Rank,
            copies_min,
            survivor_auto: auto,
        };
        let disk = MemoryDisk::default();
        let identity = Identity::new(GROUP, 3, me, disk_of(me));
        if start != Start::Blank {
            prepare(&disk, &identity, start == Start::Learner)?;
        }
        let opened = simulate::open(&disk, &identity, settings, "0", &mut Rng::new(1));
        let process = opened.map_err(|error| format!("the directory can't be opened: {error}"))?;
        let mut victim = Victim {
            process,
            links: Vec::new(),
            dials: VecDeque::new(),
            settings,
            now: Moment(1_000_000),
            next: 1,
            inbox: Vec::new(),
            committed: Vec::new(),
            acknowledged: Index::ZERO,
            term: Term::ZERO,
        };
        victim.turn()?;
        if matches!(start, Start::Candidate | Start::Primary) {
            victim.help_to_lead(start == Start::Primary)?;
        }
        Ok(victim)
    }

    fn help_to_lead(&mut self, to_the_end: bool) -> Result<(), String> {
        let me = self.me().id;
        for peer in ServerId::all(3).filter(|peer| *peer != me) {
            let hello = self.hello(Member { id: peer, disk: disk_of(peer) });
            self.connect(hello)?;
        }
        for _ in 0..200 {
            let role = self.process.node().replica().role();
            let leads = role == postern::replica::RoleView::Primary;
            let stands = role == postern::replica::RoleView::Candidate;
            if stands && !to_the_end {
                return Ok(());
            }
            if leads && self.process.node().replica().confirmed_read().is_some() {
                return Ok(());
            }
            self.wait(20)?;
            self.answer_all()?;
        }
        Ok(())
    }

    pub(super) fn me(&self) -> Member {
        self.process.node().replica().me()
    }

    /// Whether the process has ended as it is meant to: its directory is quarantined.
    pub(super) fn has_left(&self) -> bool {
        self.process.quarantine().is_some()
    }

    /// An honest hello of a peer that knows what the victim knows.
    pub(super) fn hello(&self, from: Member) -> Hello {
        let replica = self.process.node().replica();
        Hello {
            shared: Shared {
                group: GROUP,
                servers: 3,
                peer_timeout_ms: self.settings.peer_timeout_ms,
                copies_min: self.settings.copies_min,
                survivor_auto: self.settings.survivor_auto,
            },
            from,
            to: replica.me().id,
            incarnation: Incarnation(1),
            process: ProcessId(u64::from(from.id.number())),
            serial: self.next,
            has_other: false,
            term: replica.term(),
            founder: self.process.vote().founder,
            last: self.position(replica.last()),
        }
    }

    /// The position of an entry of the victim's log.
    pub(super) fn position(&self, index: Index) -> Position {
        let at = (index.0 as usize).wrapping_sub(1);
        let entry = self.process.log_copy().entries().get(at);
        Position { index, term: entry.map_or(Term::ZERO, |entry| entry.term) }
    }

    /// Opens a link on which nothing was said, as if a peer had dialled.
    pub(super) fn accept(&mut self, peer: Member) -> LinkId {
        let link = LinkId(self.next);
        self.next += 1;
        let (end, first) = LinkEnd::dialler(self.settings.encrypts);
        self.links.push(Link { id: link, peer, end, heard: VecDeque::new() });
        let conn = ConnId(link.0);
        self.inbox.push(Incoming::Opened(conn, address_of(conn)));
        self.inbox.push(Incoming::Bytes(conn, first));
        link
    }

    /// Opens a link as if a peer had dialled, and says hello on it.
    pub(super) fn connect(&mut self, hello: Hello) -> Result<(), String> {
        let link = self.accept(hello.from);
        self.send(link, Packet::Hello(hello), &past(&hello))
    }

    /// Answers the oldest dial: the link opens, or the address refuses or stays silent.
    pub(super) fn answer_dial(&mut self, how: u8, hello: Hello) -> Result<(), String> {
        let Some(ticket) = self.dials.pop_front() else { return Ok(()) };
        if how < 2 {
            let why = [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable];
            self.inbox.push(Incoming::DialFailed(ticket, why[usize::from(how)]));
            return self.turn();
        }
        let link = LinkId(self.next);
        self.next += 1;
        let end = LinkEnd::dialled(self.settings.encrypts);
        self.links.push(Link { id: link, peer: hello.from, end, heard: VecDeque::new() });
        self.inbox.push(Incoming::Dialled(ticket, ConnId(link.0)));
        self.turn()?;
        self.send(link, Packet::Hello(hello), &past(&hello))
    }

    /// Delivers a packet, and lets the victim take its turn.
    pub(super) fn send(&mut self, link: LinkId, packet: Packet, rest: &[u8]) -> Result<(), String> {
        if let Some(open) = self.links.iter_mut().find(|open| open.id == link) {
            let bytes = open.end.send(&packet, rest);
            self.inbox.push(Incoming::Bytes(ConnId(link.0), bytes));
        }
        self.turn()
    }

    /// Ends a link from the other side.
    pub(super) fn end(&mut self, link: LinkId) -> Result<(), String> {
        self.links.retain(|open| open.id != link);
        self.inbox.push(Incoming::Reset(ConnId(link.0)));
        self.turn()
    }

    /// Lets time pass in steps of at most 50 ms.
    pub(super) fn wait(&mut self, ms: u64) -> Result<(), String> {
        let end = Moment(self.now.0 + ms * 1000);
        while self.now < end && !self.has_left() {
            self.now = Moment((self.now.0 + 50_000).min(end.0));
            self.turn()?;
        }
        Ok(())
    }

    /// A client connects and sends bytes.
    pub(super) fn client(&mut self, bytes: &[u8]) -> Result<(), String> {
        let conn = ConnId(1_000_000 + self.next % 8);
        self.next += 1;
        self.inbox.push(Incoming::Reset(conn));
        self.inbox.push(Incoming::Opened(conn, address_of(conn)));
        self.inbox.push(Incoming::Bytes(conn, bytes.to_vec()));
        self.turn()
    }

    /// Answers what the victim has sent, as an honest peer would that has everything.
    pub(super) fn answer_all(&mut self) -> Result<(), String> {
        let mut heard = Vec::new();
        for link in &mut self.links {
            heard.extend(link.heard.drain(..).map(|(packet, rest)| (link.id, packet, rest)));
        }
        for (link, packet, rest) in heard {
            if let Some(answer) = honest(packet, &rest) {
                self.send(link, answer, &[])?;
            }
        }
        Ok(())
    }

    /// Turns until nothing is left to do at once, with passwords that take no time, and then the
    /// checks.
    pub(super) fn turn(&mut self) -> Result<(), String> {
        for _ in 0..TURNS_MAX {
            if self.has_left() {
                return Ok(());
            }
            self.one_turn()?;
            if self.inbox.is_empty() && !self.process.has_work() {
                return Ok(());
            }
        }
        Err(format!("the server spins: {TURNS_MAX} turns"))
    }

    fn one_turn(&mut self) -> Result<(), String> {
        for job in mem::take(&mut self.process.kernel().jobs) {
            self.inbox.push(Incoming::Hashed(job.session, simulate::hash(&job)));
        }
        self.now = Moment(self.now.0 + 100);
        let wall = WallTime(WALL_MS + self.now.0 / 1000);
        let syncs =
            self.process.turn(self.now, wall, &mut self.inbox).map_err(|fail| ends(&fail))?;
        if syncs {
            self.process.store_all(self.now, wall).map_err(|fail| ends(&fail))?;
        }
        self.take_outputs()?;
        self.check()
    }

    fn take_outputs(&mut self) -> Result<(), String> {
        let sent = mem::take(&mut self.process.kernel().sent).len();
        if sent > SENT_MAX {
            return Err(format!("too many packets in one turn: {sent}"));
        }
        for act in self.process.kernel().take_outputs() {
            match act {
                Output::Send(conn, bytes) => self.hear(conn, &bytes)?,
                Output::Finish(conn) | Output::Close(conn) => {
                    self.links.retain(|open| open.id.0 != conn.0);
                }
                Output::Dial { ticket, .. } => self.dials.push_back(ticket),
            }
        }
        Ok(())
    }

    /// The victim has sent bytes, to a peer or to a client.
    fn hear(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), String> {
        let Some(link) = self.links.iter_mut().find(|open| open.id.0 == conn.0) else {
            return Ok(());
        };
        let received = link.end.receive(bytes).map_err(|broken| format!("a link: it {broken}"))?;
        for (packet, rest) in received.packets {
            round_trip(packet, &rest)?;
            link.heard.push_back((packet, rest));
            if link.heard.len() > HEARD_MAX {
                link.heard.pop_front();
            }
        }
        if !received.out.is_empty() {
            self.inbox.push(Incoming::Bytes(conn, received.out));
        }
        Ok(())
    }

    /// What no peer may bring about.
    fn check(&mut self) -> Result<(), String> {
        let replica = self.process.node().replica();
        let (committed, answered, term) =
            (replica.committed(), replica.acknowledged(), replica.term());
        let entries = self.process.log_copy().entries();
        if committed.0 < self.committed.len() as u64 || answered < self.acknowledged {
            return Err(format!("the commit index falls: to {committed}, {answered} answered"));
        }
        if term < self.term {
            return Err(format!("the term falls: from {} to {term}", self.term));
        }
        if !self.has_left() && !entries.starts_with(&self.committed) {
            return Err(format!("a committed entry is cut: {} were", self.committed.len()));
        }
        self.committed.extend_from_slice(&entries[self.committed.len()..committed.0 as usize]);
        (self.acknowledged, self.term) = (answered, term);
        let held = self.process.node().held();
        let bounds = [
            ("verified passwords", held.proofs, PROOFS_MAX),
            ("known disks", held.disks, DISKS_MAX),
            ("links without a hello", held.links, LINKS_MAX),
        ];
        match bounds.into_iter().find(|(_, count, most)| count > most) {
            None => Ok(()),
            Some((what, count, _)) => Err(format!("memory grows with {what}: {count}")),
        }
    }
}

fn ends(fail: &Fail) -> String {
    // Numbers belong to the details: the name of a finding has none.
    let words = fail.to_string();
    let name: String = words.chars().filter(|c| !c.is_ascii_digit() && *c != ':').collect();
    format!("the server ends by itself, {name}: {words}")
}

/// A packet must survive its bytes.
fn round_trip(packet: Packet, rest: &[u8]) -> Result<(), String> {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    bytes.extend_from_slice(rest);
    match Packet::decode(&bytes) {
        Ok((read, behind)) if read == packet && behind == rest => Ok(()),
        other => Err(format!("a sent packet can't be read: {packet:?} is {other:?}")),
    }
}

/// What an honest peer answers, if anything.
fn honest(packet: Packet, rest: &[u8]) -> Option<Packet> {
    Some(match packet {
        Packet::Ping { sent, .. } => Packet::Pong { sent, promised: None },
        Packet::AskPreVote(ask) => Packet::PreVote { term: ask.term, granted: true, own: Term(0) },
        Packet::AskVote(ask) => Packet::Vote { term: ask.term, granted: true },
        Packet::Append(append) => {
            let last = record::each(rest).filter_map(Result::ok).last();
            let stored = last.map_or(append.prev.index, |record| record.index);
            Packet::AppendAccepted { term: append.term, stored, round: append.round }
        }
        Packet::Blank { met } => Packet::Blank { met },
        Packet::Proofs => Packet::ProofsTaken,
        _ => return None,
    })
}
