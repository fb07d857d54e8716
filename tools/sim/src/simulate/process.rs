//! A server process: the host and server that ship, on a disk in memory and a simulated kernel.

use super::kernel::{ConnId, SimKernel};
use super::log_copy::{Entry, LogCopy};
use postern::host::{Fail, Host, ScrubSettings, Setup};
use postern::ids::{DiskId, GroupId, Index, ProcessId, Secret, ServerId, SessionId, Vote};
use postern::limits::{DIGEST_ENTRIES, SEGMENT_BYTES};
use postern::mailbox::Mailboxes;
use postern::node::{self, Hashed, Job, Node, Retention};
use postern::replica::{Quarantine, Shared, Takeover};
use postern::rng::Rng;
use postern::server::{self, Ready, Server};
use postern::store::memory::MemoryDisk;
use postern::store::{Identity, JobDone, JobError, OpenError, Opened, Opening, Quarantined, Store};
use postern::time::{Moment, WallTime};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::Duration;

/// The id of every simulated group.
pub(crate) const GROUP: GroupId = GroupId(7);

/// The secret of the group.
pub(super) fn secret() -> Secret {
    Secret::new([7; Secret::BYTES])
}

/// The setting `max_clients`.
const CLIENTS_MAX: usize = 64;

/// An event for a process.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A connection from this address.
    Opened(ConnId, IpAddr),
    /// A dial with this ticket has succeeded.
    Dialled(u32, ConnId),
    DialFailed(u32, ErrorKind),
    Bytes(ConnId, Vec<u8>),
    /// The other side has shut down its write side.
    Finished(ConnId),
    Reset(ConnId),
    /// Sets how many bytes can be written before the socket blocks. At first it never blocks.
    Room(ConnId, usize),
    Hashed(SessionId, Hashed),
    /// The end of the job with files.
    Made(Result<JobDone, JobError>),
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
    /// The size at which a log continues in a new segment.
    pub(crate) segment_bytes: u64,
    /// Links are encrypted, as in a real server.
    pub(crate) encrypts: bool,
    /// Entries after each of which the members compare digests.
    pub(crate) digest_entries: u64,
    /// How much mailboxes keep.
    pub(crate) retention: Retention,
}

impl Default for Settings {
    /// The default settings of scenarios.
    fn default() -> Settings {
        Settings {
            peer_timeout_ms: 1000,
            takeover: Takeover::Coin,
            copies_min: 1,
            survivor_auto: false,
            segment_bytes: SEGMENT_BYTES,
            encrypts: false,
            digest_entries: 50,
            retention: Retention::default(),
        }
    }
}

impl Settings {
    /// Settings of servers that are tested outside the simulator: server 1 leads if it can.
    pub(crate) fn by_rank() -> Settings {
        Settings {
            peer_timeout_ms: 2000,
            takeover: Takeover::Rank,
            digest_entries: DIGEST_ENTRIES,
            ..Settings::default()
        }
    }

    /// The peer timeout `T` in µs.
    pub(super) fn peer_timeout_us(&self) -> u64 {
        u64::from(self.peer_timeout_ms) * 1000
    }

    /// Returns what a host of this group is built from.
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
            recovery: "postern recover".to_owned(),
            former: Vec::new(),
            digest_entries: self.digest_entries,
            settings: format!("takeover={:?}", self.takeover),
            retention: self.retention,
        };
        let scrub = ScrubSettings { bytes_per_second: 1024 * 1024, round: Duration::from_secs(20) };
        Setup { shared, takeover: self.takeover, seed, scrub, node }
    }
}

/// A running server.
pub(crate) struct Process {
    server: Server<SimKernel, MemoryDisk>,
    /// The oldest password job is being hashed.
    pub(super) hashing: bool,
    /// A job with files runs.
    pub(super) making: bool,
    /// What the start has quarantined since it is damaged.
    pub(super) quarantined: Option<Quarantined>,
}

/// Opens a directory and starts a server on it, as `commands::serve` does.
pub(crate) fn start(
    disk: &MemoryDisk,
    id: ServerId,
    settings: Settings,
    label: &str,
    acknowledged: &[Entry],
    rng: &mut Rng,
) -> Result<Process, OpenError> {
    let disk_new = new_identity(id, rng);
    open(disk, &disk_new, settings, label, acknowledged, rng)
}

/// Opens a directory of the group.
pub(crate) fn open_store(
    disk: MemoryDisk,
    expected: &Identity,
    label: &str,
) -> Result<Opened<MemoryDisk>, OpenError> {
    let empty = Mailboxes::new(&secret());
    Store::open(disk, &Opening { expected, label, empty: &empty }, &mut |_| {})
}

/// Starts a server of a given identity, whose group may have one server. `acknowledged` are entries
/// that its log has where the disk does not show it.
pub(crate) fn open(
    disk: &MemoryDisk,
    expected: &Identity,
    settings: Settings,
    label: &str,
    acknowledged: &[Entry],
    rng: &mut Rng,
) -> Result<Process, OpenError> {
    let (process, seed) = (ProcessId(rng.next_u64()), rng.next_u64());
    let mut expected = expected.clone();
    expected.process = process;
    disk.set_segment_bytes(settings.segment_bytes);
    let mut opened = open_store(disk.clone(), &expected, label)?;
    let log_copy = LogCopy::of(&opened.store, acknowledged);
    let quarantined = opened.quarantined.take();
    let host = Host::build(opened, settings.setup(expected.servers, seed));
    let kernel = SimKernel::new(log_copy, settings.encrypts);
    let setup = server::Setup {
        names: ServerId::all(expected.servers).map(SimKernel::name).collect(),
        listens: Vec::new(),
        group: GROUP,
        secret: secret(),
        max_clients: CLIENTS_MAX,
    };
    Ok(Process {
        server: Server::new(host, kernel, setup),
        hashing: false,
        making: false,
        quarantined,
    })
}

/// Quarantines the entries after `last`, as the next start of a server does that has requested it.
pub(super) fn quarantine_tail(
    disk: &MemoryDisk,
    id: ServerId,
    last: Index,
    label: &str,
    rng: &mut Rng,
) -> io::Result<()> {
    let opened = open_store(disk.clone(), &new_identity(id, rng), label);
    let mut opened = opened.map_err(|error| io::Error::other(error.to_string()))?;
    opened.store.quarantine_tail(last, label).map(drop)
}

/// Whether the directory must not be kept without the entries after `last`.
pub(super) fn has_emptied(
    disk: &MemoryDisk,
    id: ServerId,
    last: Index,
    label: &str,
    rng: &mut Rng,
) -> bool {
    let opened = open_store(disk.clone(), &new_identity(id, rng), label);
    opened.is_ok_and(|opened| opened.store.has_emptied(last))
}

/// The identity for an empty directory.
fn new_identity(id: ServerId, rng: &mut Rng) -> Identity {
    let disk = DiskId(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()));
    Identity::new(GROUP, 3, id, disk)
}

impl Process {
    pub(crate) fn node(&self) -> &Node {
        self.server.host().node()
    }

    /// Changes an account in memory.
    pub(super) fn corrupt(&mut self) {
        self.server.corrupt();
    }

    pub(crate) fn store(&self) -> &Store<MemoryDisk> {
        self.server.host().store()
    }

    pub(crate) fn log_copy(&self) -> &LogCopy {
        &self.server.kernel().log_copy
    }

    pub(crate) fn kernel(&mut self) -> &mut SimKernel {
        self.server.kernel_mut()
    }

    /// Returns what the process requests to quarantine before the next start.
    pub(crate) fn quarantine(&self) -> Option<Quarantine> {
        self.server.host().quarantine()
    }

    /// The number of bytes that wait to be sent to a client.
    pub(crate) fn output_bytes(&self, conn: ConnId) -> usize {
        let number = self.server.kernel().number_of(conn);
        let session = number.and_then(|number| self.server.session(number));
        session.map_or(0, |session| self.node().output_bytes(session))
    }

    /// Whether another turn has work now.
    pub(crate) fn has_work(&self) -> bool {
        self.server.has_work()
    }

    /// When the next turn is due, on the clock of the process.
    pub(crate) fn next_turn(&self) -> Option<Moment> {
        if self.has_work() { Some(Moment(0)) } else { self.server.next_deadline() }
    }

    /// Runs the first part of a turn, up to the sync. Returns whether there is a batch to sync.
    pub(crate) fn turn(
        &mut self,
        now: Moment,
        wall: WallTime,
        inbox: &mut Vec<Incoming>,
    ) -> Result<bool, Fail> {
        self.kernel().set_clock(now, wall);
        self.server.begin_turn()?;
        for incoming in inbox.drain(..) {
            self.handle(incoming)?;
        }
        let stores = self.server.submit()?;
        if !stores {
            self.server.flush()?;
        }
        Ok(stores)
    }

    /// Runs a whole turn, with a sync that takes no time.
    pub(crate) fn full_turn(
        &mut self,
        now: Moment,
        wall: WallTime,
        inbox: &mut Vec<Incoming>,
    ) -> Result<(), Fail> {
        if self.turn(now, wall, inbox)? { self.store_all(now, wall) } else { Ok(()) }
    }

    /// Runs the second part of a turn, after the time of the sync.
    pub(crate) fn store_all(&mut self, now: Moment, wall: WallTime) -> Result<(), Fail> {
        self.kernel().set_clock(now, wall);
        self.server.store_all()?;
        self.server.flush()
    }

    /// Makes durable what a crash may lose without harm, at the end of a stop.
    pub(super) fn close(&mut self) -> Result<(), Fail> {
        self.server.close()?;
        self.server.close_connections();
        Ok(())
    }

    /// Whether a stop is complete.
    pub(super) fn is_stopped(&self) -> bool {
        self.server.is_stopped()
    }

    /// The vote that is durable, as far as the process knows.
    pub(crate) fn vote(&self) -> Vote {
        self.server.host().vote()
    }

    fn handle(&mut self, incoming: Incoming) -> Result<(), Fail> {
        let kernel = self.server.kernel_mut();
        let (readable, writable, ended) = match &incoming {
            Incoming::Bytes(..) => (true, false, false),
            Incoming::Finished(_) => (true, false, true),
            Incoming::Reset(_) => (true, true, true),
            _ => (false, true, false),
        };
        let number = match incoming {
            Incoming::Opened(conn, from) => {
                kernel.open(conn, from);
                self.server.on_listener();
                None
            }
            Incoming::Dialled(ticket, conn) => kernel.complete_dial(ticket, Ok(conn)),
            Incoming::DialFailed(ticket, why) => kernel.complete_dial(ticket, Err(why)),
            Incoming::Bytes(conn, bytes) => kernel.change(conn, |end| end.input.extend(bytes)),
            Incoming::Finished(conn) => kernel.change(conn, |end| end.finished = true),
            Incoming::Reset(conn) => {
                kernel.change(conn, |end| end.broken = Some(ErrorKind::ConnectionReset))
            }
            Incoming::Room(conn, room) => kernel.change(conn, |end| end.room = room),
            Incoming::Hashed(session, hashed) => return self.server.on_hashed(session, hashed),
            Incoming::Made(made) => return self.server.on_made(made),
            Incoming::Stop => return self.server.stop(),
        };
        let ready = Ready { readable, writable, ended, ..Ready::default() };
        number.map_or(Ok(()), |number| self.server.on_ready(number, ready))
    }
}

/// Completes a password job without the cost of a real hash.
pub(crate) fn hash(job: &Job) -> Hashed {
    let hash = format!("h:{}", job.password);
    match &job.against {
        None => Hashed::Made(hash),
        Some(against) => Hashed::Checked(*against == hash),
    }
}
