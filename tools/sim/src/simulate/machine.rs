//! A machine of a simulated group: its disk, its clocks, its process and its faults.

use super::clock::Clock;
use super::damage::Backup;
use super::network::Owner;
use super::process::{Incoming, Process};
use super::wall_clock::WallClock;
use postern::ids::DiskId;
use postern::store::memory::MemoryDisk;

/// Which sync blocks a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Busy {
    #[default]
    No,
    /// The sync of a batch.
    Storing,
    /// Any other one.
    Syncing,
}

/// A machine and its process.
#[derive(Default)]
pub(super) struct Server {
    pub(super) disk: MemoryDisk,
    pub(super) disk_id: Option<DiskId>,
    /// The disk that was replaced by an old copy of itself. The other servers refuse it until the
    /// group has dropped and added it again.
    pub(super) rolled_back: Option<DiskId>,
    pub(super) backups: Vec<Backup>,
    pub(super) sync_us: u64,
    pub(super) process: Option<Process>,
    /// Changes when a process starts and when it ends.
    pub(super) generation: u32,
    pub(super) inbox: Vec<Incoming>,
    pub(super) state: ProcessState,
    /// When the process has its next turn, in virtual time.
    pub(super) wake_at: u64,
    pub(super) clock: Clock,
    pub(super) wall: WallClock,
    pub(super) faults: MachineFaults,
}

/// What a process waits for.
#[derive(Default)]
pub(super) struct ProcessState {
    pub(super) busy: Busy,
    pub(super) paused: bool,
    pub(super) pauses: u32,
    /// The sync has completed while the process was paused.
    pub(super) sync_over: bool,
    /// The time of the latest turn, and how many turns there were at that time.
    pub(super) turns: (u64, u32),
}

/// Faults of a machine that last.
#[derive(Default)]
pub(super) struct MachineFaults {
    pub(super) power_off: bool,
    /// The server is lost for good.
    pub(super) stays_down: bool,
    /// How many faults make the address refuse connections.
    pub(super) refuses: u32,
    pub(super) slow_sync_us: u64,
    /// The config file differs from that of the other servers.
    pub(super) misconfigured: bool,
    /// Dials to the first server reach the second one.
    pub(super) misdials: Option<(usize, usize)>,
    /// How many more times the process crashes soon after its start.
    pub(super) crashes_left: u32,
}

impl Server {
    /// An empty machine whose syncs take about `sync_us`.
    pub(super) fn new(sync_us: u64) -> Server {
        Server { sync_us, wake_at: u64::MAX, ..Server::default() }
    }

    /// Whether the server has this disk, and not an old copy of it.
    pub(super) fn has_disk(&self, disk: DiskId) -> bool {
        self.disk_id == Some(disk) && self.rolled_back != Some(disk)
    }

    /// Names the process that runs on machine `host`.
    pub(super) fn owner(&self, host: usize) -> Owner {
        Owner { host, generation: self.generation }
    }

    /// Stops the process as SIGSTOP does. Returns the number of the pause.
    pub(super) fn pause(&mut self) -> u32 {
        self.state.paused = true;
        self.state.pauses += 1;
        self.wake_at = u64::MAX;
        self.state.pauses
    }
}
