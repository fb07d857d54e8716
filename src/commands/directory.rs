//! Shared parts of the commands that use a data directory: locks, names of files, random numbers.

use super::Named;
use crate::ids::{DiskId, ProcessId, ServerId};
use crate::replica::Shared;
use crate::store::Identity;
use crate::store::disk::RealDisk;
use crate::time::WallTime;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

/// Returns the current time in the form used in file names.
pub(super) fn label() -> String {
    WallTime::from_system(SystemTime::now()).label()
}

/// Creates the directory if it is missing, and locks it for this process.
pub(super) fn hold_or_make(data: &Path) -> Result<File, String> {
    RealDisk::open(data).named(data.display())?;
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600);
    hold(data, options.open(data.join("lock")))
}

/// Returns the identity of a server with this disk, as of a new process.
pub(super) fn identity(shared: &Shared, id: ServerId, disk: DiskId) -> Result<Identity, String> {
    let mut identity = Identity::new(shared.group, shared.servers, id, disk);
    identity.process = ProcessId(random()? as u64);
    Ok(identity)
}

pub(super) fn random() -> Result<u128, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).named("no randomness")?;
    Ok(u128::from_le_bytes(bytes))
}

/// Locks a data directory for this process, as long as its file `lock`, which is `opened`, is
/// open.
fn hold(data: &Path, opened: io::Result<File>) -> Result<File, String> {
    let shown = data.display();
    let file = opened.named(format_args!("{shown}/lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!("{shown}: a server runs on it")),
        Err(TryLockError::Error(error)) => Err(format!("{shown}/lock: {error}")),
    }
}

/// Locks a directory that is only read. If it has no file `lock`, no server runs on it, and none
/// is created.
pub(super) fn hold_unchanged(data: &Path) -> Result<Option<File>, String> {
    let lock = data.join("lock");
    lock.exists().then(|| hold(data, File::open(&lock))).transpose()
}

/// Returns the command that recovers a data directory, as an operator types it.
pub(super) fn recovery(config: &Path, data: &Path) -> String {
    let config = match config == Path::new("postern.toml") {
        true => String::new(),
        false => format!(" --config {}", config.display()),
    };
    format!("postern recover{config} --data {}", data.display())
}
