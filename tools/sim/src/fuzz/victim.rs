//! A server of a group of three under attack by hostile peers: a real node on a real log, its
//! links, and the invariants that no input may violate.

use super::prepared::{WALL_MS, prepare};
use super::target::check_memory;
use crate::require;
use crate::simulate::{
    self, ConnId, Entry, GROUP, Incoming, LinkEnd, Output, Process, Settings, address_of,
};
use postern::host::Fail;
use postern::ids::{
    DiskId, Incarnation, Index, LinkId, Member, Position, ProcessId, Run, ServerId, Term,
};
use postern::limits::{PROOFS_SPARE, SEEN_MAX};
use postern::record;
use postern::replica::{Hello, Packet, Past, RoleView, Shared};
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
/// The most packets of a link that a friendly peer answers later.
const RECEIVED_MAX: usize = 64;
/// The most turns before the server must wait.
const TURNS_MAX: usize = 1000;

/// The role of the victim at the start of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Blank,
    Learner,
    Backup,
    Candidate,
    Primary,
}

/// A link and the claimed identity of the peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) peer: Member,
    end: LinkEnd,
    /// Packets that the victim has sent and no peer has answered.
    received: VecDeque<(Packet, Vec<u8>)>,
}

/// The victim and its environment.
pub(super) struct Victim {
    pub(super) process: Process,
    pub(super) links: Vec<Link>,
    pub(super) dials: VecDeque<u32>,
    settings: Settings,
    now: Moment,
    next: u64,
    inbox: Vec<Incoming>,
    /// The committed entries and the acknowledged index so far.
    committed: Vec<Entry>,
    acknowledged: Index,
    term: Term,
}

/// Returns the disk of a member in the prepared log.
pub(super) fn disk_of(id: ServerId) -> DiskId {
    DiskId(u128::from(id.number()) << 96)
}

fn id(number: u8) -> ServerId {
    ServerId::new(number).expect("1 to 3")
}

/// Returns what an honest server that was started once sends after its hello.
pub(super) fn past(hello: &Hello) -> Vec<u8> {
    let run = hello.run;
    let mut bytes = Vec::new();
    Past { runs: vec![run], ..Past::default() }.encode(&mut bytes);
    bytes
}

impl Victim {
    /// Starts a server. Friendly peers help it into the role of `start`.
    pub(super) fn start(
        me: u8,
        start: Start,
        copies_min: u8,
        auto: bool,
    ) -> Result<Victim, String> {
        let me = id(me);
        let settings = Settings { copies_min, survivor_auto: auto, ..Settings::by_rank() };
        let disk = MemoryDisk::default();
        let identity = Identity::new(GROUP, 3, me, disk_of(me));
        if start != Start::Blank {
            prepare(&disk, &identity, start == Start::Learner)?;
        }
        let opened = simulate::open(&disk, &identity, settings, "0", &[], &mut Rng::new(1));
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
            let leads = self.process.node().replica().confirmed_read().is_some();
            if match role {
                RoleView::Candidate => !to_the_end,
                RoleView::Primary => leads,
                _ => false,
            } {
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

    /// Whether the process has exited as intended, to quarantine its directory.
    pub(super) fn has_exited(&self) -> bool {
        self.process.quarantine().is_some()
    }

    /// Returns an honest hello of a peer with the same log.
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
            run: Run {
                incarnation: Incarnation(1),
                process: ProcessId(u64::from(from.id.number())),
            },
            serial: self.next,
            has_other: false,
            term: replica.term(),
            founder: self.process.vote().founder,
            last: self.position(replica.last()),
        }
    }

    /// Returns the position of an entry of the victim.
    pub(super) fn position(&self, index: Index) -> Position {
        let at = (index.0 as usize).wrapping_sub(1);
        let entry = self.process.log_copy().entries().get(at);
        Position { index, term: entry.map_or(Term::ZERO, |entry| entry.term) }
    }

    /// Opens a link from a peer, without a hello.
    pub(super) fn accept(&mut self, peer: Member) -> LinkId {
        let link = LinkId(self.next);
        self.next += 1;
        let (end, first) = LinkEnd::dialler(self.settings.encrypts);
        self.links.push(Link { id: link, peer, end, received: VecDeque::new() });
        let conn = ConnId(link.0);
        self.inbox.push(Incoming::Opened(conn, address_of(conn)));
        self.inbox.push(Incoming::Bytes(conn, first));
        link
    }

    /// Opens a link from a peer and sends a hello.
    pub(super) fn connect(&mut self, hello: Hello) -> Result<(), String> {
        let link = self.accept(hello.from);
        self.send(link, Packet::Hello(hello), &past(&hello))
    }

    /// Completes the oldest dial: the link opens, or the address refuses or is unreachable.
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
        self.links.push(Link { id: link, peer: hello.from, end, received: VecDeque::new() });
        self.inbox.push(Incoming::Dialled(ticket, ConnId(link.0)));
        self.turn()?;
        self.send(link, Packet::Hello(hello), &past(&hello))
    }

    /// Delivers a packet to the victim.
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

    /// Advances time in steps of at most 50 ms.
    pub(super) fn wait(&mut self, ms: u64) -> Result<(), String> {
        let end = Moment(self.now.0 + ms * 1000);
        while self.now < end && !self.has_exited() {
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

    /// Answers all packets of the victim as honest peers with all entries do.
    pub(super) fn answer_all(&mut self) -> Result<(), String> {
        let mut received = Vec::new();
        for link in &mut self.links {
            received.extend(link.received.drain(..).map(|(packet, rest)| (link.id, packet, rest)));
        }
        for (link, packet, rest) in received {
            if let Some(answer) = honest(packet, &rest) {
                self.send(link, answer, &[])?;
            }
        }
        Ok(())
    }

    /// Runs turns until the victim waits. Passwords are hashed at once.
    pub(super) fn turn(&mut self) -> Result<(), String> {
        for _ in 0..TURNS_MAX {
            if self.has_exited() {
                return Ok(());
            }
            self.one_turn()?;
            if self.inbox.is_empty() && !self.process.has_work() {
                return Ok(());
            }
        }
        Err(format!("the server is in a busy loop: {TURNS_MAX} turns"))
    }

    fn one_turn(&mut self) -> Result<(), String> {
        if let Some(job) = self.process.kernel().file_job.take() {
            let made = job.run(self.process.store().disk(), || false);
            self.inbox.push(Incoming::Made(made));
        }
        for job in mem::take(&mut self.process.kernel().jobs) {
            self.inbox.push(Incoming::Hashed(job.session, simulate::hash(&job)));
        }
        self.now = Moment(self.now.0 + 100);
        let wall = WallTime(WALL_MS + self.now.0 / 1000);
        let done = self.process.full_turn(self.now, wall, &mut self.inbox);
        done.map_err(|fail| exits(&fail))?;
        self.handle_outputs()?;
        self.check()
    }

    fn handle_outputs(&mut self) -> Result<(), String> {
        let sent = mem::take(&mut self.process.kernel().sent).len();
        require(sent <= SENT_MAX, || format!("too many packets in one turn: {sent}"))?;
        for act in self.process.kernel().take_outputs() {
            match act {
                Output::Send(conn, bytes) => self.receive(conn, &bytes)?,
                Output::Finish(conn) | Output::Close(conn) => {
                    self.links.retain(|open| open.id.0 != conn.0);
                }
                Output::Dial { ticket, .. } => self.dials.push_back(ticket),
            }
        }
        Ok(())
    }

    /// Handles bytes that the victim sends to a peer or to a client.
    fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), String> {
        let Some(link) = self.links.iter_mut().find(|open| open.id.0 == conn.0) else {
            return Ok(());
        };
        let decoded = link.end.receive(bytes).map_err(|broken| format!("a link: it {broken}"))?;
        for (packet, rest) in decoded.packets {
            round_trip(packet, &rest)?;
            link.received.push_back((packet, rest));
            if link.received.len() > RECEIVED_MAX {
                link.received.pop_front();
            }
        }
        if !decoded.out.is_empty() {
            self.inbox.push(Incoming::Bytes(conn, decoded.out));
        }
        Ok(())
    }

    /// Checks the invariants.
    fn check(&mut self) -> Result<(), String> {
        let replica = self.process.node().replica();
        let (committed, acknowledged, term) =
            (replica.committed(), replica.acknowledged(), replica.term());
        let entries = self.process.log_copy().entries();
        require(
            committed.0 >= self.committed.len() as u64 && acknowledged >= self.acknowledged,
            || format!("the commit index decreases: to {committed}, {acknowledged} acknowledged"),
        )?;
        require(term >= self.term, || format!("the term decreases: from {} to {term}", self.term))?;
        require(self.has_exited() || entries.starts_with(&self.committed), || {
            format!("a committed entry is removed: {} were committed", self.committed.len())
        })?;
        self.committed.extend_from_slice(&entries[self.committed.len()..committed.0 as usize]);
        (self.acknowledged, self.term) = (acknowledged, term);
        let held = self.process.node().held();
        let bounds = [
            ("verified passwords", held.proofs, PROOFS_MAX),
            ("known disks", held.disks, DISKS_MAX),
            ("links without a hello", held.links, LINKS_MAX),
        ];
        check_memory(&bounds)
    }
}

fn exits(fail: &Fail) -> String {
    // The name of a finding has no numbers. They belong to the details.
    let message = fail.to_string();
    let name: String = message.chars().filter(|c| !c.is_ascii_digit() && *c != ':').collect();
    format!("the server exits, {name}: {message}")
}

/// Checks that a packet is equal after it was encoded and decoded.
fn round_trip(packet: Packet, rest: &[u8]) -> Result<(), String> {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    bytes.extend_from_slice(rest);
    match Packet::decode(&bytes) {
        Ok((read, after)) if read == packet && after == rest => Ok(()),
        other => Err(format!("a sent packet can't be decoded: {packet:?} is {other:?}")),
    }
}

/// Returns the answer of an honest peer, if there is one.
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
