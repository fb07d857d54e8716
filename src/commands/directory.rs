//! What commands that use a data directory have in common: who holds it, names, chance.

use crate::store::disk::RealDisk;
use crate::time::WallTime;
use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

/// The time, as names of files have it.
pub(super) fn label() -> String {
    WallTime::from_system(SystemTime::now()).label()
}

/// Makes the directory where it is missing, and holds it for this process.
pub(super) fn hold_or_make(data: &Path) -> Result<File, String> {
    RealDisk::open(data).map_err(|error| format!("{}: {error}", data.display()))?;
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600);
    hold(data, options.open(data.join("lock")))
}

pub(super) fn random() -> Result<u128, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(u128::from_le_bytes(bytes))
}

/// Holds a data directory for this process, as long as its file `lock`, which is `opened`, is
/// open.
fn hold(data: &Path, opened: io::Result<File>) -> Result<File, String> {
    let shown = data.display();
    let file = opened.map_err(|error| format!("{shown}/lock: {error}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!("{shown}: a server runs on it")),
        Err(TryLockError::Error(error)) => Err(format!("{shown}/lock: {error}")),
    }
}

/// The same for a directory that is only read: where it has no such file no server runs, and none
/// is made.
pub(super) fn hold_unchanged(data: &Path) -> Result<Option<File>, String> {
    let lock = data.join("lock");
    lock.exists().then(|| hold(data, File::open(&lock))).transpose()
}

/// The command that goes on with a data directory, as a person types it.
pub(super) fn recovery(config: &Path, data: &Path) -> String {
    let mut words = "postern recover".to_owned();
    if config != Path::new("postern.toml") {
        write!(words, " --config {}", config.display()).expect("a string takes every word");
    }
    write!(words, " --data {}", data.display()).expect("a string takes every word");
    words
}
