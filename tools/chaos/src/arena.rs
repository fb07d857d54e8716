//! The place where it happens: servers, their network and their disks, as far as this machine
//! allows. Everything that is made here is gone when it is dropped.

use super::plan::{Kind, Need};
use postern_testkit::group::{self, Group, SERVERS};
use postern_testkit::network::{Network, Shaping};
use postern_testkit::volume::Volume;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// As debug builds of the server know it.
const FAULTS_VARIABLE: &[u8] = b"POSTERN_DISK_FAULTS";
const PORT: u16 = 5001;
/// Enough for a long run; only what is written takes room.
const VOLUME_MEBIBYTES: u32 = 1024;
const MEMORY_MEBIBYTES: u32 = 256;

/// The group and what it runs in; fields are dropped in this order.
pub(super) struct Arena {
    pub(super) group: Group,
    volumes: Vec<Volume>,
    network: Option<Network>,
    disk_faults: bool,
    slow_links: bool,
    folder: Arc<TempDir>,
}

impl Arena {
    /// Makes what these kinds need, and a group of which no server runs. What can't be had is
    /// said in `words`.
    pub(super) fn build(
        postern: &Path,
        kinds: &[Kind],
        settings: &str,
        words: &mut Vec<String>,
    ) -> Result<Arena, String> {
        let folder = Arc::new(group::folder("chaos")?);
        let needs = |needed: &[Need]| kinds.iter().any(|kind| needed.contains(&kind.need()));
        let (mut network, mut slow_links) = (None, false);
        if needs(&[Need::Network, Need::SlowLinks]) {
            network = note(words, "network", "three namespaces", Network::new());
        }
        if let Some(network) = network.as_ref().filter(|_| needs(&[Need::SlowLinks])) {
            let slowness = network.slow_down(1).and_then(|found| {
                network.speed_up(1)?;
                Ok(found)
            });
            let how = match slowness {
                Ok(Shaping::TokenBucket) => "by tbf, for this kernel has no netem",
                _ => "by netem",
            };
            slow_links = note(words, "slow links", how, slowness).is_some();
        }
        let mut volumes = Vec::new();
        if needs(&[Need::Volume, Need::SmallDisk]) {
            volumes = mount_all(folder.path(), words);
        }
        let binary =
            fs::read(postern).map_err(|error| format!("{}: {error}", postern.display()))?;
        let disk_faults = binary.windows(FAULTS_VARIABLE.len()).any(|part| part == FAULTS_VARIABLE);
        if needs(&[Need::DiskFaults]) {
            let found = if disk_faults { Ok(()) } else { Err("this is no debug build".to_owned()) };
            note(words, "disk faults", "by the server's own disk", found);
        }
        let mut sites = group::loopback_placements(folder.path())?;
        for (at, site) in sites.iter_mut().enumerate() {
            if let Some(network) = &network {
                site.address = SocketAddr::from((network.address(at + 1), PORT));
                site.namespace = Some(network.namespace(at + 1));
            }
            if let Some(volume) = volumes.get(at) {
                site.data = volume.path().join("data");
            }
            site.disk_faults = disk_faults.then(|| rules(folder.path(), at));
        }
        let group = Group::create(postern, Arc::clone(&folder), sites, settings)?;
        Ok(Arena { group, volumes, network, disk_faults, slow_links, folder })
    }

    /// Whether this kind of fault can be had here.
    pub(super) fn allows(&self, kind: Kind) -> bool {
        match kind.need() {
            Need::Nothing => true,
            Need::Volume => !self.volumes.is_empty(),
            Need::SmallDisk => !self.volumes.is_empty() || self.disk_faults,
            Need::DiskFaults => self.disk_faults,
            Need::Network => self.network.is_some(),
            Need::SlowLinks => self.slow_links,
        }
    }

    /// The network, of a fault that [`Arena::allows`] had a look at.
    pub(super) fn network(&self) -> Result<&Network, String> {
        self.network.as_ref().ok_or_else(|| "there are no network namespaces".to_owned())
    }

    /// The small disk of a server, if it has one.
    pub(super) fn volume(&self, at: usize) -> Option<&Volume> {
        self.volumes.get(at)
    }

    /// Tells the disk of a server what to do wrong from now on; nothing, when `rules` is empty.
    pub(super) fn order(&self, at: usize, order: &str) -> Result<(), String> {
        let path = rules(self.folder.path(), at);
        let new = path.with_extension("new");
        let written = fs::write(&new, order).and_then(|()| fs::rename(&new, &path));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Ends everything, and keeps what the servers have left behind; where.
    pub(super) fn keep(self) -> Result<PathBuf, String> {
        let Arena { group, volumes, network, folder, .. } = self;
        drop(group);
        for volume in &volumes {
            let kept = volume.path().with_extension("kept");
            let copied =
                Command::new("cp").arg("-r").arg(volume.path().join("data")).arg(&kept).status();
            copied.map_err(|error| format!("cp: {error}"))?;
        }
        drop((volumes, network));
        let folder = Arc::try_unwrap(folder).map_err(|_| "the folder is in use".to_owned())?;
        Ok(folder.keep())
    }
}

fn rules(folder: &Path, at: usize) -> PathBuf {
    folder.join(format!("disk{}.faults", at + 1))
}

/// Says whether something can be had.
fn note<T>(words: &mut Vec<String>, what: &str, how: &str, made: Result<T, String>) -> Option<T> {
    match made {
        Ok(made) => {
            words.push(format!("{what}: {how}"));
            Some(made)
        }
        Err(why) => {
            words.push(format!("{what}: none ({why})"));
            None
        }
    }
}

/// A small disk for each server, or for none.
fn mount_all(folder: &Path, words: &mut Vec<String>) -> Vec<Volume> {
    let each = |mount: &dyn Fn(&Path) -> Result<Volume, String>| {
        (1..=SERVERS).map(|n| mount(&folder.join(format!("disk{n}")))).collect()
    };
    let in_files: Result<Vec<Volume>, String> = each(&|at| Volume::in_file(at, VOLUME_MEBIBYTES));
    let how = "an ext4 for each server";
    if let Some(volumes) = note(words, "small disks in files", how, in_files) {
        return volumes;
    }
    let in_memory = each(&|at| Volume::in_memory(at, MEMORY_MEBIBYTES));
    note(words, "small disks in memory", "a tmpfs for each server", in_memory).unwrap_or_default()
}
