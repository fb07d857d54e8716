//! One server process: the same host as the real one, around a disk in memory. What it wants done
//! to the outside is left in its edges.

use super::edges::Edges;
use super::mirror::Mirror;
use postern::host::{Fail, Host, Setup};
use postern::ids::{DiskId, GroupId, Index, LinkId, ProcessId, Secret, ServerId, SessionId, Vote};
use postern::node::{self, Hashed, Input, Job, Node};
use postern::replica::{DialFailure, Event, LogSummary, Packet, Quarantine, Shared, Takeover};
use postern::rng::Rng;
use postern::store::memory::MemoryDisk;
use postern::store::{Identity, OpenError, OpenOptions, Quarantined, Store};
use postern::time::{Moment, WallTime};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// The group of every simulated world.
pub(crate) const GROUP: GroupId = GroupId(7);

/// What the servers share.
pub(super) fn secret() -> Secret {
    Secret::new([7; Secret::BYTES])
}

/// What reaches a process from outside.
#[derive(Debug)]
pub(crate) enum Incoming {
    Dialled(LinkId, ServerId),
    Accepted(LinkId),
    DialFailed(ServerId, bool),
    Ended(LinkId),
    Packet(LinkId, Packet, Vec<u8>),
    ClientOpened(SessionId),
    ClientBytes(SessionId, Vec<u8>),
    ClientEnded(SessionId),
    ClientBroken(SessionId),
    Hashed(SessionId, Hashed),
    /// SIGTERM.
    Stop,
}

/// What a process does to the outside, in order.
#[derive(Debug)]
pub(crate) enum Act {
    Send(LinkId, Packet, Vec<u8>),
    Dial(ServerId),
    EndLink(LinkId),
    Say(SessionId, Vec<u8>),
    EndClient(SessionId),
}

/// The settings of a simulated group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) peer_timeout_ms: u32,
    pub(crate) takeover: Takeover,
    pub(crate) copies_min: u8,
    pub(crate) survivor_auto: bool,
    /// The size from which a segment of a log is followed by a new one.
    pub(crate) segment_bytes: u64,
}

impl Settings {
    /// `T` in µs.
    pub(super) fn peer_timeout_us(&self) -> u64 {
        u64::from(self.peer_timeout_ms) * 1000
    }

    /// What a host of this group is built from.
    pub(crate) fn setup(&self, servers: u8, seed: u64) -> Setup {
        let shared = Shared {
            group: GROUP,
            servers,
            peer_timeout_ms: self.peer_timeout_ms,
            copies_min: self.copies_min,
            survivor_auto: self.survivor_auto,
        };
        let node = node::Setup {
            addresses: (1..=servers).map(|n| format!("s{n}:5001")).collect(),
            login_timeout: Duration::from_secs(60),
            accounts_open: true,
            secret: secret(),
            version: "simulated",
            recovery: "postern recover".to_owned(),
            former: Vec::new(),
            settings: vec![("takeover".to_owned(), format!("{:?}", self.takeover))],
        };
        Setup { shared, takeover: self.takeover, seed, node }
    }
}

/// A running server: the same host as the real one, with other edges.
pub(crate) struct Process {
    host: Host<MemoryDisk>,
    edges: Edges,
    /// The first password is being hashed.
    pub(super) hashing: bool,
    /// What the start found damaged and has quarantined.
    pub(super) quarantined: Option<Quarantined>,
    stopping: bool,
}

/// Opens a directory and puts a node around it, as `commands::serve` does.
pub(crate) fn start(
    disk: &MemoryDisk,
    id: ServerId,
    settings: Settings,
    label: &str,
    rng: &mut Rng,
) -> Result<Process, OpenError> {
    open(disk, &new_identity(id, rng), settings, label, rng)
}

/// The same for a directory with any identity, whose group may have one server.
pub(crate) fn open(
    disk: &MemoryDisk,
    expected: &Identity,
    settings: Settings,
    label: &str,
    rng: &mut Rng,
) -> Result<Process, OpenError> {
    let (process, seed) = (ProcessId(rng.next_u64()), rng.next_u64());
    let mut expected = expected.clone();
    expected.process = process;
    let mut summary = LogSummary::default();
    let mut mirror = Mirror::default();
    let options = OpenOptions { label, segment_bytes: settings.segment_bytes };
    let mut opened = Store::open(disk.clone(), &expected, options, |record| {
        mirror.push(record);
        summary.push(record)
    })?;
    if opened.quarantined.is_some() {
        (summary, mirror) = (LogSummary::default(), Mirror::default());
    }
    let quarantined = opened.quarantined.take();
    let host = Host::build(opened, summary, settings.setup(expected.servers, seed));
    Ok(Process { host, edges: Edges::new(mirror), hashing: false, quarantined, stopping: false })
}

/// Quarantines the entries after `last`, as the next life of a server does that has left its tail.
pub(super) fn quarantine_tail(
    disk: &MemoryDisk,
    id: ServerId,
    last: Index,
    label: &str,
    rng: &mut Rng,
) -> io::Result<()> {
    let mut summary = LogSummary::default();
    let opened =
        Store::open(disk.clone(), &new_identity(id, rng), label, |record| summary.push(record));
    let mut opened = opened.map_err(|error| io::Error::other(error.to_string()))?;
    opened.store.quarantine_tail(last, label).map(drop)
}

/// Who a directory is, if it is empty.
fn new_identity(id: ServerId, rng: &mut Rng) -> Identity {
    let disk = DiskId(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()));
    Identity::new(GROUP, 3, id, disk)
}

impl Process {
    pub(crate) fn node(&self) -> &Node {
        self.host.node()
    }

    pub(crate) fn store(&self) -> &Store<MemoryDisk> {
        self.host.store()
    }

    pub(crate) fn mirror(&self) -> &Mirror {
        &self.edges.mirror
    }

    /// What the world is to do, and passwords to hash.
    pub(crate) fn edges(&mut self) -> &mut Edges {
        &mut self.edges
    }

    /// What is to be quarantined before the next start, once this life is over.
    pub(crate) fn quarantine(&self) -> Option<Quarantine> {
        self.host.quarantine()
    }

    /// When a turn is wanted, at the latest, on this process's clock.
    pub(crate) fn next_turn(&self) -> Option<Moment> {
        if self.edges.has_ready() { Some(Moment(0)) } else { self.host.next_deadline() }
    }

    /// The first part of a turn, up to the sync; whether there is something to sync.
    pub(crate) fn turn(
        &mut self,
        now: Moment,
        wall: WallTime,
        inbox: &mut Vec<Incoming>,
    ) -> Result<bool, Fail> {
        self.edges.set_clock(now, wall);
        self.host.begin_turn(&mut self.edges)?;
        for incoming in inbox.drain(..) {
            self.take(incoming)?;
        }
        for session in self.edges.take_unblocked() {
            self.host.flush_client(session, &mut self.edges)?;
        }
        for session in self.edges.take_ready() {
            self.feed(session)?;
        }
        let stores = self.host.submit(&mut self.edges)?;
        if !stores {
            self.host.flush(&mut self.edges)?;
        }
        Ok(stores)
    }

    /// The second part of a turn, when the time that the sync took is over.
    pub(crate) fn store_all(&mut self, now: Moment, wall: WallTime) -> Result<(), Fail> {
        self.edges.set_clock(now, wall);
        self.host.store_all(&mut self.edges)?;
        self.host.flush(&mut self.edges)
    }

    /// Makes everything durable that may be lost without harm, at the end.
    pub(super) fn close(&mut self) -> Result<(), Fail> {
        self.host.close()
    }

    /// Whether it was told to stop, and has nothing more to do.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopping && self.host.is_stopped()
    }

    /// The vote that is durable, as far as this process knows.
    pub(crate) fn vote(&self) -> Vote {
        self.host.vote()
    }

    fn take(&mut self, incoming: Incoming) -> Result<(), Fail> {
        let event = match &incoming {
            Incoming::Dialled(link, to) => Event::Dialled { link: *link, to: *to },
            Incoming::Accepted(link) => Event::Accepted { link: *link },
            Incoming::DialFailed(to, refused) => {
                let why = if *refused { DialFailure::Refused } else { DialFailure::NoAnswer };
                Event::DialFailed { to: *to, why }
            }
            Incoming::Ended(link) => Event::Ended { link: *link },
            Incoming::Packet(link, packet, records) => {
                Event::Received { link: *link, packet: *packet, records }
            }
            _ => return self.take_of_client(incoming),
        };
        self.handle(Input::Replica(event))
    }

    fn take_of_client(&mut self, incoming: Incoming) -> Result<(), Fail> {
        match incoming {
            Incoming::ClientOpened(session) => {
                self.edges.open(session);
                // Each from an address of its own: who guesses there is another test's business.
                let from = IpAddr::from(Ipv6Addr::from_bits(u128::from(session.0) << 64));
                self.handle(Input::Opened(session, from.into()))
            }
            Incoming::ClientBytes(session, bytes) => {
                if let Some(client) = self.edges.client(session) {
                    client.input.extend_from_slice(&bytes);
                }
                self.feed(session)
            }
            Incoming::ClientEnded(session) => {
                if let Some(client) = self.edges.client(session) {
                    client.input_closed = true;
                }
                self.feed(session)
            }
            Incoming::ClientBroken(session) if self.edges.remove(session) => {
                self.handle(Input::Gone(session))
            }
            Incoming::ClientBroken(_) => Ok(()),
            Incoming::Hashed(session, hashed) => self.handle(Input::Hashed(session, hashed)),
            Incoming::Stop => {
                self.stopping = true;
                self.handle(Input::Stop)
            }
            _ => unreachable!("the others come from servers"),
        }
    }

    /// Hands in the requests that are here, while the node wants them.
    fn feed(&mut self, session: SessionId) -> Result<(), Fail> {
        let Some(client) = self.edges.client(session) else { return Ok(()) };
        let (mut text, input) = (client.text, std::mem::take(&mut client.input));
        let closed = client.input_closed;
        let used = self.host.feed(session, &mut text, &input, closed, &mut self.edges)?;
        if let Some(client) = self.edges.client(session) {
            client.text = text;
            client.input = input;
            client.input.drain(..used);
        }
        Ok(())
    }

    fn handle(&mut self, input: Input<'_>) -> Result<(), Fail> {
        self.host.handle(input, &mut self.edges)
    }
}

/// What the fake hasher makes of a job.
pub(crate) fn hash(job: &Job) -> Hashed {
    let made = format!("h:{}", job.password);
    match &job.against {
        None => Hashed::Made(made),
        Some(against) => Hashed::Checked(*against == made),
    }
}
