//! The servers with their network and disks, as far as this machine supports them.

use super::plan::{Kind, Requirement};
use postern_testkit::group::{self, Group, SERVERS};
use postern_testkit::network::{Network, Shaping};
use postern_testkit::run;
use postern_testkit::volume::Volume;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// The variable that names a file of disk faults. Only debug builds of the server contain it.
const FAULTS_VARIABLE: &[u8] = b"POSTERN_DISK_FAULTS";
const PORT: u16 = 5001;
/// Enough for a run of hours. The file is sparse.
const VOLUME_MEBIBYTES: u32 = 1024;
const MEMORY_MEBIBYTES: u32 = 256;

/// The group and its surroundings. Dropping it removes everything; fields drop in this order.
pub(super) struct Environment {
    pub(super) group: Group,
    volumes: Vec<Volume>,
    network: Option<Network>,
    disk_faults: bool,
    slow_links: bool,
    folder: Arc<TempDir>,
}

impl Environment {
    /// Creates what these kinds require, and a group without running servers. Adds a line to
    /// `notes` for each thing that it has created, or that this machine does not support.
    pub(super) fn build(
        postern: &Path,
        kinds: &[Kind],
        settings: &str,
        notes: &mut Vec<String>,
    ) -> Result<Environment, String> {
        use Requirement::{DiskFaults, SlowLinks, VolumeOrDiskFaults};
        let folder = Arc::new(group::folder("chaos")?);
        let required = |any: &[Requirement]| {
            kinds.iter().any(|kind| any.contains(&kind.properties().requirement))
        };
        let (mut network, mut slow_links) = (None, false);
        if required(&[Requirement::Network, SlowLinks]) {
            network = note(notes, "network namespaces", "one per server", Network::new());
        }
        if let Some(network) = network.as_ref().filter(|_| required(&[SlowLinks])) {
            let shaping = network.slow_down(1).and_then(|way| network.speed_up(1).map(|()| way));
            let how = match shaping {
                Ok(Shaping::TokenBucket) => "tc tbf, since this kernel has no netem",
                _ => "tc netem",
            };
            slow_links = note(notes, "slow links", how, shaping).is_some();
        }
        let mut volumes = Vec::new();
        if required(&[Requirement::Volume, VolumeOrDiskFaults]) {
            volumes = mount_all(folder.path(), notes);
        }
        let binary =
            fs::read(postern).map_err(|error| format!("{}: {error}", postern.display()))?;
        let disk_faults = binary.windows(FAULTS_VARIABLE.len()).any(|part| part == FAULTS_VARIABLE);
        if required(&[DiskFaults]) {
            let found = disk_faults.then_some(()).ok_or("not a debug build of postern".to_owned());
            note(notes, "disk faults", "injected by the servers themselves", found);
        }
        let mut placements = group::loopback_placements(folder.path())?;
        for (at, place) in placements.iter_mut().enumerate() {
            if let Some(network) = &network {
                place.address = SocketAddr::from((network.address(at + 1), PORT));
                place.namespace = Some(network.namespace(at + 1));
            }
            if let Some(volume) = volumes.get(at) {
                place.data = volume.path().join("data");
            }
            place.disk_faults = disk_faults.then(|| faults_path(folder.path(), at));
        }
        let group = Group::create(postern, Arc::clone(&folder), placements, settings)?;
        Ok(Environment { group, volumes, network, disk_faults, slow_links, folder })
    }

    /// Returns whether this kind of fault can be injected here.
    pub(super) fn supports(&self, kind: Kind) -> bool {
        match kind.properties().requirement {
            Requirement::Nothing => true,
            Requirement::Volume => !self.volumes.is_empty(),
            Requirement::VolumeOrDiskFaults => !self.volumes.is_empty() || self.disk_faults,
            Requirement::DiskFaults => self.disk_faults,
            Requirement::Network => self.network.is_some(),
            Requirement::SlowLinks => self.slow_links,
        }
    }

    /// Returns the network, which exists if [`Environment::supports`] allows a fault that needs it.
    pub(super) fn network(&self) -> Result<&Network, String> {
        self.network.as_ref().ok_or_else(|| "no network namespaces".to_owned())
    }

    /// Fills the disk of a server until only `free_bytes` are free.
    pub(super) fn fill_disk(&self, at: usize, free_bytes: u64) -> Result<(), String> {
        match self.volumes.get(at) {
            Some(volume) => volume.fill(free_bytes),
            None => self.set_disk_faults(at, "write * fail ENOSPC"),
        }
    }

    /// Undoes [`Environment::fill_disk`].
    pub(super) fn clear_disk(&self, at: usize) -> Result<(), String> {
        match self.volumes.get(at) {
            Some(volume) => volume.clear(),
            None => self.set_disk_faults(at, ""),
        }
    }

    /// Replaces the rules by which a server injects disk faults; see `src/store/faulty.rs`.
    pub(super) fn set_disk_faults(&self, at: usize, rules: &str) -> Result<(), String> {
        let path = faults_path(self.folder.path(), at);
        let new = path.with_extension("new");
        let written = fs::write(&new, rules).and_then(|()| fs::rename(&new, &path));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Kills the servers, but keeps their data and logs. Returns the folder.
    pub(super) fn keep(self) -> Result<PathBuf, String> {
        let Environment { group, volumes, network, folder, .. } = self;
        drop((group, network));
        let folder = Arc::try_unwrap(folder).map_err(|_| "the folder is in use".to_owned())?;
        let folder = folder.keep();
        for volume in &volumes {
            let (data, kept) = (volume.path().join("data"), volume.path().with_extension("kept"));
            let copied = run(Command::new("cp").arg("-r").arg(data).arg(kept));
            copied.map_err(|why| format!("{}: {why}", folder.display()))?;
        }
        Ok(folder)
    }
}

fn faults_path(folder: &Path, at: usize) -> PathBuf {
    folder.join(format!("disk{}.faults", at + 1))
}

/// Adds a line that says how something was created, or why it is unavailable.
fn note<T>(notes: &mut Vec<String>, what: &str, how: &str, made: Result<T, String>) -> Option<T> {
    match &made {
        Ok(_) => notes.push(format!("{what}: {how}")),
        Err(why) => notes.push(format!("{what}: unavailable ({why})")),
    }
    made.ok()
}

/// Mounts a small file system for each server. Returns an empty list if that fails.
fn mount_all(folder: &Path, notes: &mut Vec<String>) -> Vec<Volume> {
    let each = |mount: &dyn Fn(&Path) -> Result<Volume, String>| {
        (1..=SERVERS).map(|n| mount(&folder.join(format!("disk{n}")))).collect()
    };
    let in_files: Result<Vec<Volume>, String> = each(&|at| Volume::in_file(at, VOLUME_MEBIBYTES));
    if let Some(volumes) = note(notes, "small disks in files", "one ext4 per server", in_files) {
        return volumes;
    }
    let in_memory = each(&|at| Volume::in_memory(at, MEMORY_MEBIBYTES));
    note(notes, "small disks in memory", "one tmpfs per server", in_memory).unwrap_or_default()
}
