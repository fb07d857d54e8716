//! One server process: the same host as the real one, around a disk in memory. What it wants done
//! to the outside is left in its edges.

use super::kernel::{ConnId, SimKernel};
use super::log_copy::LogCopy;
use postern::host::{Fail, Host, Setup};
use postern::ids::{DiskId, GroupId, Index, ProcessId, Secret, ServerId, SessionId, Vote};
use postern::limits::SEGMENT_BYTES;
use postern::node::{self, Hashed, Job, Node};
use postern::replica::{LogSummary, Quarantine, Shared, Takeover};
use postern::rng::Rng;
use postern::server::{self, Ready, Server};
use postern::store::memory::MemoryDisk;
use postern::store::{Identity, OpenError, OpenOptions, Quarantined, Store};
use postern::time::{Moment, WallTime};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::Duration;

/// The group of every simulated world.
pub(crate) const GROUP: GroupId = GroupId(7);

/// What the servers share.
pub(super) fn secret() -> Secret {
    Secret::new([7; Secret::BYTES])
}

/// The most text clients of a server.
const CLIENTS_MAX: usize = 64;

/// What reaches a process from outside.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Somebody at this address has connected.
    Opened(ConnId, IpAddr),
    /// A dial was taken; see [`Output::Dial`](super::kernel::Output::Dial).
    Dialled(u32, ConnId),
    DialFailed(u32, ErrorKind),
    Bytes(ConnId, Vec<u8>),
    /// The other side sends no more.
    Finished(ConnId),
    Reset(ConnId),
    /// A connection accepts so many bytes before it blocks.
    Room(ConnId, usize),
    Hashed(SessionId, Hashed),
    /// SIGTERM.
    Stop,
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
    /// Links are encrypted, as they are in servers that ship.
    pub(crate) encrypts: bool,
}

impl Default for Settings {
    /// The settings of a scenario.
    fn default() -> Settings {
        Settings {
            peer_timeout_ms: 1000,
            takeover: Takeover::Coin,
            copies_min: 1,
            survivor_auto: false,
            segment_bytes: SEGMENT_BYTES,
            encrypts: false,
        }
    }
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

/// A running server: the one that ships, around another kernel.
pub(crate) struct Process {
    server: Server<SimKernel, MemoryDisk>,
    /// The first password is being hashed.
    pub(super) hashing: bool,
    /// What the start found damaged and has quarantined.
    pub(super) quarantined: Option<Quarantined>,
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
    let mut log_copy = LogCopy::default();
    let options = OpenOptions { label, segment_bytes: settings.segment_bytes };
    let mut opened = Store::open(disk.clone(), &expected, options, |record| {
        log_copy.push(record);
        summary.push(record)
    })?;
    if opened.quarantined.is_some() {
        (summary, log_copy) = (LogSummary::default(), LogCopy::default());
    }
    let quarantined = opened.quarantined.take();
    let host = Host::build(opened, summary, settings.setup(expected.servers, seed));
    let kernel = SimKernel::new(log_copy, settings.encrypts);
    let setup = server::Setup {
        names: ServerId::all(expected.servers).map(SimKernel::name).collect(),
        listens: Vec::new(),
        group: GROUP,
        secret: secret(),
        max_clients: CLIENTS_MAX,
    };
    Ok(Process { server: Server::new(host, kernel, setup), hashing: false, quarantined })
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
        self.server.host().node()
    }

    pub(crate) fn store(&self) -> &Store<MemoryDisk> {
        self.server.host().store()
    }

    pub(crate) fn log_copy(&self) -> &LogCopy {
        &self.server.kernel().log_copy
    }

    /// What the world is to do, and what it observes.
    pub(crate) fn kernel(&mut self) -> &mut SimKernel {
        self.server.kernel_mut()
    }

    /// What is to be quarantined before the next start, once this life is over.
    pub(crate) fn quarantine(&self) -> Option<Quarantine> {
        self.server.host().quarantine()
    }

    /// How many bytes wait for the client of a connection.
    pub(crate) fn output_bytes(&self, conn: ConnId) -> usize {
        let number = self.server.kernel().number_of(conn);
        let session = number.and_then(|number| self.server.session(number));
        session.map_or(0, |session| self.node().output_bytes(session))
    }

    /// Whether another turn has something to do at once.
    pub(crate) fn has_work(&self) -> bool {
        self.server.has_work()
    }

    /// When a turn is wanted, at the latest, on this process's clock.
    pub(crate) fn next_turn(&self) -> Option<Moment> {
        if self.has_work() { Some(Moment(0)) } else { self.server.next_deadline() }
    }

    /// The first part of a turn, up to the sync; whether there is something to sync.
    pub(crate) fn turn(
        &mut self,
        now: Moment,
        wall: WallTime,
        inbox: &mut Vec<Incoming>,
    ) -> Result<bool, Fail> {
        self.kernel().set_clock(now, wall);
        self.server.begin_turn()?;
        for incoming in inbox.drain(..) {
            self.take(incoming)?;
        }
        let stores = self.server.submit()?;
        if !stores {
            self.server.flush()?;
        }
        Ok(stores)
    }

    /// The second part of a turn, when the time that the sync took is over.
    pub(crate) fn store_all(&mut self, now: Moment, wall: WallTime) -> Result<(), Fail> {
        self.kernel().set_clock(now, wall);
        self.server.store_all()?;
        self.server.flush()
    }

    /// Makes everything durable that may be lost without harm, at the end.
    pub(super) fn close(&mut self) -> Result<(), Fail> {
        self.server.close()?;
        self.server.close_connections();
        Ok(())
    }

    /// Whether it was told to stop, and has nothing more to do.
    pub(super) fn is_stopped(&self) -> bool {
        self.server.is_stopped()
    }

    /// The vote that is durable, as far as this process knows.
    pub(crate) fn vote(&self) -> Vote {
        self.server.host().vote()
    }

    fn take(&mut self, incoming: Incoming) -> Result<(), Fail> {
        let kernel = self.server.kernel_mut();
        let ready = match incoming {
            Incoming::Opened(conn, from) => {
                kernel.open(conn, from);
                self.server.on_listener();
                None
            }
            Incoming::Dialled(ticket, conn) => writable(kernel.decide(ticket, Ok(conn))),
            Incoming::DialFailed(ticket, why) => writable(kernel.decide(ticket, Err(why))),
            Incoming::Bytes(conn, bytes) => kernel.receive(conn, &bytes),
            Incoming::Finished(conn) => kernel.finish(conn),
            Incoming::Reset(conn) => kernel.reset(conn),
            Incoming::Room(conn, room) => kernel.set_room(conn, room),
            Incoming::Hashed(session, hashed) => return self.server.on_hashed(session, hashed),
            Incoming::Stop => return self.server.stop(),
        };
        ready.map_or(Ok(()), |(number, ready)| self.server.on_ready(number, ready))
    }
}

/// The readiness of a socket whose dial is decided.
fn writable(number: Option<usize>) -> Option<(usize, Ready)> {
    number.map(|number| (number, Ready { writable: true, ..Ready::default() }))
}

/// What the fake hasher makes of a job.
pub(crate) fn hash(job: &Job) -> Hashed {
    let made = format!("h:{}", job.password);
    match &job.against {
        None => Hashed::Made(made),
        Some(against) => Hashed::Checked(*against == made),
    }
}
