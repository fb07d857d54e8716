//! Moves data that can't stay in use within the data directory. Never deletes or overwrites any.

use super::disk::{Disk, join};
use super::former::{self, Former};
use super::log::Log;
use super::segment::first_index;
use super::whole;
use super::{LOG, checkpoint, identity, vote};
use crate::ids::{Index, Position};
use crate::limits::FILE_PIECE_BYTES;
use std::io;

/// The folder of everything quarantined.
const FOLDER: &str = "quarantine";

/// The parts to move, in this order: the log first and as a whole, the identity last. A directory
/// with an identity and no log is therefore one whose move has begun, or whose log is not
/// mounted.
const PARTS: [&str; 4] = [LOG, checkpoint::FILE, vote::FILE, identity::FILE];

/// Moves the log, the checkpoint, the vote and the identity into a new folder and returns its
/// name. First records in `former` that they existed, the last readable entry `last`, and whether
/// clients may have been admitted.
pub(super) fn everything<D: Disk>(
    disk: &D,
    kind: &str,
    label: &str,
    last: Position,
    opened: bool,
) -> io::Result<String> {
    let folder = make_new(disk, kind, label)?;
    if !is_there(disk, identity::FILE)? {
        // An empty file replaces the missing identity. By it `finish` recognizes an interrupted
        // move.
        let path = format!("{folder}/identity");
        let file = disk.open(&path, true)?;
        disk.sync(&file)?;
        disk.sync_folder(&folder)?;
    }
    former::add(disk, Former { folder: folder.clone(), last, opened })?;
    move_parts(disk, ".", &folder)?;
    Ok(folder)
}

/// Completes a move that a crash has interrupted. Returns its folder, or `None` without such a
/// move.
pub(super) fn finish<D: Disk>(disk: &D) -> io::Result<Option<String>> {
    if is_there(disk, LOG)? || !is_used(disk)? {
        return Ok(None);
    }
    let Some(Former { folder, .. }) = former::read(disk)?.pop() else { return Ok(None) };
    let moved = disk.list(&format!("{folder}/{LOG}"))?.iter().any(|n| first_index(n).is_some());
    // The identity moves last. If there was none, its replacement was created before the move.
    let there = whole::read(disk, &format!("{folder}/identity"), identity::BYTES_MAX)?;
    let here = whole::read(disk, identity::FILE, identity::BYTES_MAX)?;
    let begun = match (&here, &there) {
        (Some(_), None) => true,
        (Some(here), Some(there)) => here == there,
        (None, Some(there)) => there.is_empty(),
        (None, None) => false,
    };
    if !moved || !begun {
        return Ok(None);
    }
    move_parts(disk, ".", &folder)?;
    Ok(Some(folder))
}

/// Whether any part of a used directory exists.
pub(super) fn is_used<D: Disk>(disk: &D) -> io::Result<bool> {
    for name in PARTS {
        if is_there(disk, name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves the parts of a directory from the folder `from` to the folder `to`. Called again after an
/// interruption, it moves the rest. `to` must not hold a part that `from` still has.
pub(super) fn move_parts<D: Disk>(disk: &D, from: &str, to: &str) -> io::Result<()> {
    for name in PARTS {
        let old = join(from, name);
        if is_there(disk, &old)? {
            disk.rename(&old, &join(to, name))?;
            disk.sync_folder(to)?;
            disk.sync_folder(from)?;
        }
    }
    Ok(())
}

/// Copies all entries after `last` into a new folder, durably.
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
        log.copy(
            disk,
            from,
            log.last_within(disk, from, log.last(), FILE_PIECE_BYTES),
            &mut piece,
        )?;
        copy.append(disk, &piece)?;
        copy.flush(disk)?;
    }
    copy.seal(disk)?;
    Ok(folder)
}

/// Whether a folder and its `log` are empty.
pub(super) fn is_empty<D: Disk>(disk: &D, folder: &str) -> io::Result<bool> {
    Ok(disk.list(folder)?.is_empty() && disk.list(&format!("{folder}/{LOG}"))?.is_empty())
}

/// Creates a folder with an unused name, or reuses an empty one. Returns its path.
pub(super) fn make_new<D: Disk>(disk: &D, kind: &str, label: &str) -> io::Result<String> {
    let mut folder = format!("{FOLDER}/{kind}-{label}");
    let mut n = 1;
    while !is_empty(disk, &folder)? {
        n += 1;
        folder = format!("{FOLDER}/{kind}-{label}-{n}");
    }
    disk.make_folder(&folder)?;
    disk.sync_folder(FOLDER)?;
    disk.sync_folder(".")?;
    Ok(folder)
}

fn is_there<D: Disk>(disk: &D, name: &str) -> io::Result<bool> {
    if name.ends_with(LOG) {
        return Ok(!disk.list(name)?.is_empty());
    }
    Ok(whole::open(disk, name)?.is_some())
}
