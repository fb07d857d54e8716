//! What must hold when all servers are gone: whole directories with one log, and no panic.

use postern::store::disk::RealDisk;
use postern::store::{Store, check};
use postern_testkit::group::{Group, SERVERS};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;

/// The first thing that is wrong, of a group whose servers were killed while all had the same.
pub(super) fn judge(group: &Group) -> Result<u64, String> {
    let mut logs = Vec::new();
    for at in 0..SERVERS {
        let found =
            Command::new(group.binary()).args(["check", "--data"]).arg(group.data(at)).output();
        let found = found.map_err(|error| format!("postern check: {error}"))?;
        if !found.status.success() {
            let said = String::from_utf8_lossy(&found.stdout);
            let why = String::from_utf8_lossy(&found.stderr);
            return Err(format!("server {}: postern check says\n{said}{why}", at + 1));
        }
        let read = read(group.data(at));
        logs.push(read.map_err(|why| format!("server {}: {why}", at + 1))?);
    }
    for (at, log) in logs.iter().enumerate().skip(1) {
        if *log != logs[0] {
            let first = log.iter().zip(&logs[0]).position(|(own, other)| own != other);
            let entry = first.unwrap_or(log.len().min(logs[0].len())) + 1;
            return Err(format!("servers 1 and {} differ from entry {entry} on", at + 1));
        }
    }
    no_panics(group)?;
    Ok(logs[0].len() as u64)
}

/// Nobody panics, whatever happens.
pub(super) fn no_panics(group: &Group) -> Result<(), String> {
    let lines = (0..SERVERS).flat_map(|at| group.log_lines(at));
    match lines.into_iter().find(|line| line.contains("panicked")) {
        Some(line) => Err(line),
        None => Ok(()),
    }
}

/// A hash of each record.
fn read(data: &Path) -> Result<Vec<u64>, String> {
    let disk = RealDisk::open(data).map_err(|error| error.to_string())?;
    let found = check::check(&disk).map_err(|error| error.to_string())?;
    let identity = found.identity.ok_or("it is nobody's")?;
    let mut hashes = Vec::new();
    Store::open(disk, &identity, "verdict", |record| {
        let mut hasher = DefaultHasher::new();
        record.bytes.hash(&mut hasher);
        hashes.push(hasher.finish());
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    Ok(hashes)
}
