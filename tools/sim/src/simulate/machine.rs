//! A machine of a simulated group: its disk, its clocks, the process on it and its faults.

use super::clock::Clock;
use super::damage::Copied;
use super::process::{Incoming, Process};
use super::wall::WallClock;
use postern::ids::DiskId;
use postern::store::memory::MemoryDisk;

/// Why a process takes nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    No,
    /// In a turn's sync.
    Storing,
    /// In a sync besides.
    Syncing,
}

/// A machine and what runs on it.
pub(super) struct Server {
    pub(super) disk: MemoryDisk,
    pub(super) disk_id: Option<DiskId>,
    /// The disk that was replaced by an old copy of itself: the others refuse it, unless the group
    /// drops it and adds it again.
    pub(super) rolled_back: Option<DiskId>,
    pub(super) process: Option<Process>,
    pub(super) life: u32,
    pub(super) clock: Clock,
    pub(super) rate: u64,
    pub(super) wall: WallClock,
    pub(super) inbox: Vec<Incoming>,
    pub(super) busy: Busy,
    /// The sync ended while the process was stopped.
    pub(super) sync_over: bool,
    pub(super) paused: bool,
    pub(super) pauses: u32,
    pub(super) powered: bool,
    /// It stays down whatever happens.
    pub(super) for_good: bool,
    pub(super) refuses: u32,
    pub(super) sync_us: u64,
    pub(super) slow_sync_us: u64,
    /// Its config file is not that of the others.
    pub(super) misconfigured: bool,
    /// Its dials to the first reach the second.
    pub(super) misdials: Option<(u8, u8)>,
    /// It dies so often more, each time soon after its start.
    pub(super) storm: u32,
    pub(super) copies: Vec<Copied>,
    pub(super) wake_at: u64,
    pub(super) turns: (u64, u32),
}

impl Server {
    /// Whether it has this disk, and not an old copy of it.
    pub(super) fn has_disk(&self, disk: DiskId) -> bool {
        self.disk_id == Some(disk) && self.rolled_back != Some(disk)
    }

    /// Notes that the group has added a disk.
    pub(super) fn note_added(&mut self, disk: DiskId) {
        self.rolled_back.take_if(|rolled_back| *rolled_back == disk);
    }

    /// An empty machine whose syncs take about so many µs.
    pub(super) fn new(sync_us: u64) -> Server {
        Server {
            disk: MemoryDisk::default(),
            disk_id: None,
            rolled_back: None,
            process: None,
            life: 0,
            clock: Clock::new(0, 1000),
            rate: 1000,
            wall: WallClock::default(),
            inbox: Vec::new(),
            busy: Busy::No,
            sync_over: false,
            paused: false,
            pauses: 0,
            powered: true,
            for_good: false,
            refuses: 0,
            sync_us,
            slow_sync_us: 0,
            misconfigured: false,
            misdials: None,
            storm: 0,
            copies: Vec::new(),
            wake_at: u64::MAX,
            turns: (0, 0),
        }
    }
}
