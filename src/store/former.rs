//! The quarantined directories of this server: the file `former`, written before anything is
//! moved. A server that has lost its log must never form a new group, because nobody would notice
//! the loss there.
//!
//! The file is text for people. Its last line is the checksum.

use super::disk::Disk;
use super::{quarantine, whole};
use crate::ids::{Index, Position, Term};
use crate::limits::FORMER_KEPT;
use std::fmt::Write;
use std::io;

const FILE: &str = "former";
const TITLE: &str = "postern former 1";
/// An upper bound of the size of the file, in bytes.
const BYTES_MAX: usize = 64 * 1024;

/// A directory that was quarantined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its folder, relative to the data directory.
    pub folder: String,
    /// Its last entry before the first unreadable one.
    pub last: Position,
    /// Whether clients may have been admitted while it was in use. If so, it may hold messages
    /// that were acknowledged.
    pub opened: bool,
}

/// Returns all known directories in the order of their quarantine. If the file exists but is
/// unreadable, returns one entry that stands for unknown directories.
pub(super) fn read<D: Disk>(disk: &D) -> io::Result<Vec<Former>> {
    let Some(bytes) = whole::read(disk, FILE, BYTES_MAX)? else { return Ok(Vec::new()) };
    let unknown = || {
        vec![Former { folder: "quarantine".to_owned(), last: Position::default(), opened: true }]
    };
    let text = std::str::from_utf8(&bytes).ok();
    Ok(text.and_then(decode).unwrap_or_else(unknown))
}

/// Adds a directory that is about to be quarantined. Durable on return. Drops earlier entries
/// whose folders stayed empty.
pub(super) fn add<D: Disk>(disk: &D, new: Former) -> io::Result<()> {
    let mut all = Vec::new();
    for known in read(disk)? {
        if !quarantine::is_empty(disk, &known.folder)? && known.folder != new.folder {
            all.push(known);
        }
    }
    all.push(new);
    if all.len() > FORMER_KEPT {
        let least = all.iter().enumerate().min_by_key(|(_, former)| (former.opened, former.last));
        let least = least.map(|(at, _)| at).expect("there are many");
        all.remove(least);
    }
    whole::replace(disk, FILE, encode(&all).as_bytes())
}

/// Removes a directory that was moved back into use.
pub(super) fn remove<D: Disk>(disk: &D, folder: &str) -> io::Result<()> {
    let mut all = read(disk)?;
    let before = all.len();
    all.retain(|former| former.folder != folder);
    if all.len() == before {
        return Ok(());
    }
    whole::replace(disk, FILE, encode(&all).as_bytes())
}

fn encode(all: &[Former]) -> String {
    let mut text = format!("{TITLE}\n");
    for Former { folder, last, opened } in all {
        let (term, index) = (last.term.0, last.index);
        let gate = if *opened { "opened" } else { "closed" };
        writeln!(text, "{term} {index} {gate} {folder}").expect("a string takes every line");
    }
    let sum = crc32c::crc32c(text.as_bytes());
    text + &format!("crc32c {sum:08x}\n")
}

fn decode(text: &str) -> Option<Vec<Former>> {
    let (lines, sum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let body = &text[..lines.len() + 1];
    if sum != format!("crc32c {:08x}", crc32c::crc32c(body.as_bytes())) {
        return None;
    }
    let mut lines = lines.lines();
    (lines.next()? == TITLE).then_some(())?;
    let former = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let term = Term(words.next()?.parse().ok()?);
        let index = Index(words.next()?.parse().ok()?);
        let opened = words.next()? == "opened";
        Some(Former { folder: words.next()?.to_owned(), last: Position { term, index }, opened })
    };
    lines.map(former).collect()
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryDisk;
    use super::*;

    fn sample(n: u64) -> Former {
        let last = Position { term: Term(n / 3), index: Index(n) };
        Former { folder: format!("quarantine/damaged-{n}"), last, opened: n.is_multiple_of(2) }
    }

    fn filled(disk: &MemoryDisk, n: u64) -> Former {
        let former = sample(n);
        disk.open(&format!("{}/vote", former.folder), true).unwrap();
        former
    }

    #[test]
    fn reads_what_it_wrote_and_forgets_what_never_came() {
        let disk = MemoryDisk::default();
        assert_eq!(read(&disk).unwrap(), []);
        add(&disk, filled(&disk, 1)).unwrap();
        add(&disk, sample(2)).unwrap();
        assert_eq!(read(&disk).unwrap(), [sample(1), sample(2)]);
        add(&disk, filled(&disk, 4)).unwrap();
        assert_eq!(read(&disk.crash(|| false)).unwrap(), [sample(1), sample(4)]);
    }

    #[test]
    fn what_is_moved_back_is_forgotten() {
        let disk = MemoryDisk::default();
        for n in [1, 2] {
            add(&disk, filled(&disk, n)).unwrap();
        }
        remove(&disk, "another").unwrap();
        remove(&disk, &sample(1).folder).unwrap();
        assert_eq!(read(&disk.crash(|| false)).unwrap(), [sample(2)]);
        remove(&disk, &sample(2).folder).unwrap();
        assert_eq!(read(&disk.crash(|| false)).unwrap(), []);
    }

    #[test]
    fn many_are_bounded_and_the_best_are_kept() {
        let disk = MemoryDisk::default();
        for n in (0..100).rev() {
            add(&disk, filled(&disk, n)).unwrap();
        }
        let kept = read(&disk).unwrap();
        assert_eq!(kept.len(), FORMER_KEPT);
        assert!(kept.contains(&sample(98)) && kept.iter().all(|former| former.opened));
    }

    #[test]
    fn the_longest_list_is_read() {
        let disk = MemoryDisk::default();
        let last = Position { term: Term(u64::MAX), index: Index(u64::MAX) };
        let most: Vec<Former> = (0..FORMER_KEPT)
            .map(|n| format!("quarantine/older-than-group-9999-12-31T23-59-59.999Z-{n:010}"))
            .map(|folder| Former { folder, last, opened: true })
            .collect();
        whole::replace(&disk, FILE, encode(&most).as_bytes()).unwrap();
        assert_eq!(read(&disk).unwrap(), most);
    }

    /// Even an unreadable file keeps this server from forming a new group.
    #[test]
    fn one_that_is_damaged_still_says_that_something_was_quarantined() {
        let good = encode(&[sample(1), sample(3)]);
        assert_eq!(decode(&good), Some(vec![sample(1), sample(3)]));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone().into_bytes();
            bad[bit / 8] ^= 1 << (bit % 8);
            let disk = MemoryDisk::default();
            whole::replace(&disk, FILE, &bad).unwrap();
            assert!(read(&disk).unwrap().iter().any(|former| former.opened), "bit {bit}");
        }
        for length in 0..good.len() {
            let disk = MemoryDisk::default();
            whole::replace(&disk, FILE, &good.as_bytes()[..length]).unwrap();
            assert!(read(&disk).unwrap().iter().any(|former| former.opened), "{length} bytes");
        }
    }
}
