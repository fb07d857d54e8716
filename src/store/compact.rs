//! Frees the space of messages that no mailbox keeps any more: a sealed segment is written anew
//! with those emptied. Each server does this by itself. The state that the log gives stays the
//! same, and so do all indexes and numbers.

use super::checkpoint::Sealed;
use super::disk::{Disk, join};
use super::file_job::{JobError, Lost, RemakeIndexes};
use super::index_file::IndexFile;
use super::rewrite::{NewSegment, Rewrite, Writer, make_index, new_path};
use super::scrub::SealedSegment;
use super::segment::{self, Place, index_name, path};
use super::whole;
use crate::ids::Index;
use crate::limits::KEYS_KEPT;
use crate::mailbox::{Change, List};
use crate::record::{self, Kind, Record};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;

/// What mailboxes keep.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Of the entries up to this one it says which messages nobody keeps. Accounts that later ones
    /// have created may be missing.
    pub through: Index,
    /// The accounts that exist: the entry that created each, and how many of the first messages of
    /// its mailbox are forgotten.
    pub accounts: Arc<Vec<(Index, u64)>>,
}

/// A segment is written anew if that frees one part in so many of it.
const FREED_PART: u64 = 3;

/// A sealed segment to compact.
#[derive(Debug)]
pub struct Compact {
    pub(super) segment: SealedSegment,
    pub(super) survey: Survey,
    /// The segments after it, oldest first.
    pub(super) later: Vec<Sealed>,
    /// To make the index file. It lists the sealed segments, all up to this one.
    pub(super) remake: Box<RemakeIndexes>,
}

/// The keys of ONCE that must be kept.
struct KeptKeys {
    /// All of the entries after this one.
    known_after: Index,
    /// Hashes of keys and their senders that are used again later. If two have the same hash, one
    /// more message is kept.
    used_again: HashSet<u64>,
    hasher: RandomState,
}

impl KeptKeys {
    fn hash(&self, sender: Index, key: &str) -> u64 {
        self.hasher.hash_one((sender.0, key))
    }

    fn holds(&self, at: Index, sender: Index, key: &str) -> bool {
        at > self.known_after || self.used_again.contains(&self.hash(sender, key))
    }
}

impl Compact {
    /// Returns the new segment; `None` if it is not worth it.
    pub(super) fn run<D: Disk>(self, disk: &D) -> Result<Option<NewSegment>, JobError> {
        let Compact { segment, survey, later, remake } = self;
        let known_after = Index(survey.through.0.saturating_sub(KEYS_KEPT));
        let lost = |error| JobError { lost: Some(Lost::Index(segment.id)), error };
        let dead = find_dead(disk, &segment, &survey.accounts).map_err(lost)?;
        let Some(dead) = dead else { return Ok(None) };
        let keys = find_keys(disk, &segment, known_after, &later)?;
        let log = path(&segment.folder, segment.first);
        let new = new_path(&log);
        let (config, end) = (segment.config_before(disk)?, segment.end);
        let rewrite = Rewrite::new(segment, Vec::new());
        let written = write(disk, &rewrite, config, (&dead, &keys));
        let size = match written {
            Ok(size) if size <= end - end / FREED_PART => size,
            other => {
                whole::remove(disk, &new)?;
                other?;
                return Ok(None);
            }
        };
        let is_indexed = make_index(disk, &rewrite, size, *remake);
        Ok(Some(NewSegment { id: rewrite.segment.id, entries: 0, size, is_indexed }))
    }
}

/// Returns the offsets of the messages that no mailbox keeps, in order; `None` unless they are the
/// greater part of what is not emptied yet.
fn find_dead<D: Disk>(
    disk: &D,
    segment: &SealedSegment,
    survey: &[(Index, u64)],
) -> io::Result<Option<Vec<u32>>> {
    let file = join(&segment.folder, &index_name(segment.first));
    let missing = || io::Error::other("it is missing or damaged");
    let index = IndexFile::open(disk, &file, None).ok_or_else(missing)?;
    let mut survey = survey.to_vec();
    survey.sort_unstable();
    let mut dead = Vec::new();
    for row in index.rows(disk)? {
        let row = row?;
        let known = survey.binary_search_by_key(&row.account, |(created, _)| *created);
        let forgotten = known.map_or(u64::MAX, |at| survey[at].1);
        let first = row.first(List::Received);
        let count = forgotten.saturating_add(1).min(row.next(List::Received)).saturating_sub(first);
        if count > 0 {
            let offsets = index.offsets(disk, &row, List::Received, first, count as usize)?;
            dead.extend(offsets.into_iter().map(|(offset, _)| offset));
        }
    }
    dead.sort_unstable();
    let emptied = u64::from(index.head.emptied);
    let dead_now = (dead.len() as u64).saturating_sub(emptied);
    let left = index.head.seal.entries.saturating_sub(emptied);
    Ok((dead_now * 2 > left).then_some(dead))
}

/// Finds the keys of ONCE that messages of a segment must keep. An entry that uses a key again has
/// stored nothing, as long as the key is remembered: without the key, it would.
fn find_keys<D: Disk>(
    disk: &D,
    segment: &SealedSegment,
    known_after: Index,
    later: &[Sealed],
) -> io::Result<KeptKeys> {
    let (used_again, hasher) = (HashSet::new(), RandomState::new());
    let mut keys = KeptKeys { known_after, used_again, hasher };
    let end = Index(segment.next.0 + KEYS_KEPT);
    let own = Sealed { first: segment.first, end: segment.end };
    let later = later.iter().take_while(|sealed| sealed.first < end);
    let mut used = HashSet::new();
    for Sealed { first, end: size } in std::iter::once(&own).chain(later) {
        let log = path(&segment.folder, *first);
        let file = disk.open(&log, false)?;
        let mut place = Place::after(first.before());
        let read = segment::verify(disk, &file, 0..*size, &mut place, |_, record| {
            if let Some(Change::Message { sender, key: Some(key), .. }) = message(record) {
                let key = keys.hash(sender, key);
                // In the segment itself, only the second use counts.
                if *first != segment.first || !used.insert(key) {
                    keys.used_again.insert(key);
                }
            }
        })?;
        read.map_err(|(at, why)| segment::damaged(&log, at, why))?;
    }
    Ok(keys)
}

fn message<'a>(record: &Record<'a>) -> Option<Change<'a>> {
    Some(record).filter(|record| record.kind == Kind::MESSAGE)?;
    Change::decode(record.kind, record.body)
}

/// Writes the segment anew, under another name. Returns its size.
fn write<D: Disk>(
    disk: &D,
    rewrite: &Rewrite,
    config: Index,
    (dead, keys): (&[u32], &KeptKeys),
) -> io::Result<u64> {
    let SealedSegment { folder, first, end, .. } = &rewrite.segment;
    let log = path(folder, *first);
    let old = disk.open(&log, false)?;
    let mut writer = Writer::open(disk, &new_path(&log), rewrite, config)?;
    let mut emptied = Vec::new();
    writer.copy(&old, 0..*end, |writer, offset, record| {
        emptied.clear();
        if dead.binary_search(&offset).is_ok() && empty(record, keys, &mut emptied).is_some() {
            return writer.put(&Record::trust(&emptied));
        }
        writer.put(record)
    })?;
    writer.end(*end)
}

/// Writes the record of a message without its content to `out`; `None` if the content is needed.
fn empty(record: &Record<'_>, keys: &KeptKeys, out: &mut Vec<u8>) -> Option<()> {
    let Change::Message { to, from, sender, key, content } = message(record)? else { return None };
    if key.is_some_and(|key| keys.holds(record.index, sender, key)) {
        return None;
    }
    let change = Change::Emptied { to, from, sender, bytes: content.bytes() };
    record::write(out, record.position(), record.time, change.kind(), |out| change.encode(out));
    Some(())
}
