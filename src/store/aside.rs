//! Putting aside what can't be kept in the log: moved within the data directory, never deleted,
//! never overwritten.

use super::disk::Disk;
use super::log::Log;
use crate::limits::FILE_PIECE_BYTES;
use crate::names::Index;
use std::io;

/// What was put aside is below it.
const FOLDER: &str = "set-aside";

/// Moves the log, the vote, the checkpoint and the identity into a new folder, whose name is
/// returned. The log goes first, and as one: after a crash at any step the directory is one
/// whose log is missing, which the next start takes for damage, whatever configs the log held;
/// and when the identity is gone too, it is new and empty.
pub(super) fn everything<D: Disk>(disk: &D, kind: &str, label: &str) -> io::Result<String> {
    let folder = make_new(disk, kind, label)?;
    for name in ["log", "checkpoint", "vote", "identity"] {
        if is_there(disk, name)? {
            disk.rename(name, &format!("{folder}/{name}"))?;
            disk.sync_folder(&folder)?;
            disk.sync_folder(".")?;
        }
    }
    Ok(folder)
}

/// Copies all entries behind `last` into a new folder, durably.
pub(super) fn tail<D: Disk>(
    disk: &D,
    log: &Log<D::File>,
    last: Index,
    kind: &str,
    label: &str,
) -> io::Result<String> {
    let folder = make_new(disk, kind, label)?;
    let mut copy = Log::create(disk, &folder, last.next())?;
    let mut piece = Vec::new();
    while copy.last() < log.last() {
        let from = copy.last().next();
        piece.clear();
        log.copy(disk, from, log.fit(from, log.last(), FILE_PIECE_BYTES), &mut piece)?;
        copy.append(disk, &piece)?;
        copy.flush(disk)?;
    }
    copy.seal(disk)?;
    Ok(folder)
}

/// A folder that was not there before, or was empty.
pub(super) fn make_new<D: Disk>(disk: &D, kind: &str, label: &str) -> io::Result<String> {
    let mut folder = format!("{FOLDER}/{kind}-{label}");
    let mut n = 1;
    while !disk.list(&folder)?.is_empty() || !disk.list(&format!("{folder}/log"))?.is_empty() {
        n += 1;
        folder = format!("{FOLDER}/{kind}-{label}-{n}");
    }
    disk.make_folder(&folder)?;
    disk.sync_folder(FOLDER)?;
    disk.sync_folder(".")?;
    Ok(folder)
}

fn is_there<D: Disk>(disk: &D, name: &str) -> io::Result<bool> {
    if name == "log" {
        return Ok(!disk.list(name)?.is_empty());
    }
    match disk.open(name, false) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
