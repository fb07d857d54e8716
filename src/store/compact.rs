//! Frees the space of messages that no mailbox keeps any more: a sealed segment is written anew
//! with those emptied. Each server does this by itself. The state that the log gives stays the
//! same, and so do all indexes and numbers.

use super::base::segment_id;
use super::checkpoint::Sealed;
use super::disk::Disk;
use super::file_job::{JobError, Lost, RemakeIndexes};
use super::rewrite::{BATCH_BYTES, NewSegment, Rewrite, Writer, make_index, new_path};
use super::scrub::SealedSegment;
use super::segment::{self, HEADER_BYTES, Place, path};
use super::whole;
use crate::ids::{Index, SegmentId};
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
/// The size of a segment, divided by this, is about that of its index file.
const INDEX_PART: u64 = 4;
/// So much room stays for what is written meanwhile: a full disk is the time to free space.
const SPARE_BYTES: u64 = 8 * 1024 * 1024;

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
        // Whatever can't be read is read again, for damage.
        let id = segment.id;
        let suspect = |id| move |error| JobError { lost: Some(Lost::Index(id)), error };
        let dead = find_dead(disk, &segment, &survey.accounts).map_err(suspect(id))?;
        let Some(dead) = dead else { return Ok(None) };
        let keys = find_keys(disk, &segment, known_after, &later);
        let keys = keys.map_err(|(id, error)| suspect(id)(error))?;
        let size = measure(disk, &segment, (&dead, &keys)).map_err(suspect(id))?;
        let room = disk.free_bytes().unwrap_or(u64::MAX).saturating_sub(SPARE_BYTES);
        if size > segment.end - segment.end / FREED_PART || size + size / INDEX_PART > room {
            return Ok(None);
        }
        let before = SegmentId::new(id.number() - 1).unwrap_or(id);
        let config = segment.config_before(disk).map_err(suspect(before))?;
        let rewrite = Rewrite::new(segment, Vec::new());
        let new = new_path(&path(&rewrite.segment.folder, rewrite.segment.first));
        let written = write(disk, &rewrite, config, (&dead, &keys));
        if written.is_err() {
            whole::remove(disk, &new)?;
        }
        let size = written?;
        let is_indexed = make_index(disk, &rewrite, size, *remake);
        if !is_indexed {
            // The old files are good. Without an index file nobody could read the new one.
            whole::remove(disk, &new)?;
            return Ok(None);
        }
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
    let missing = || io::Error::other("its index file is missing, damaged or of another file");
    let index = segment.index(disk).ok_or_else(missing)?;
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
) -> Result<KeptKeys, (SegmentId, io::Error)> {
    let (used_again, hasher) = (HashSet::new(), RandomState::new());
    let mut keys = KeptKeys { known_after, used_again, hasher };
    let end = Index(segment.next.0 + KEYS_KEPT);
    let own = Sealed { first: segment.first, end: segment.end };
    let later = later.iter().take_while(|sealed| sealed.first < end);
    let mut used = HashSet::new();
    let mut id = segment.id;
    for Sealed { first, end: size } in std::iter::once(&own).chain(later) {
        let log = path(&segment.folder, *first);
        let file = disk.open(&log, false).map_err(|error| (id, error))?;
        let mut place = Place::after(first.before());
        let read = segment::verify(disk, &file, 0..*size, &mut place, |_, record| {
            if let Some(Change::Message { sender, key: Some(key), .. }) = message(record) {
                let key = keys.hash(sender, key);
                // In the segment itself, only the second use counts.
                if *first != segment.first || !used.insert(key) {
                    keys.used_again.insert(key);
                }
            }
        });
        let read = read.map_err(|error| (id, error))?;
        let read =
            read.and_then(|at| if at == *size { Ok(at) } else { Err((at, "it ends early")) });
        read.map_err(|(at, why)| (id, segment::damaged(&log, at, why)))?;
        id = segment_id(id.number() as usize);
    }
    Ok(keys)
}

fn message<'a>(record: &Record<'a>) -> Option<Change<'a>> {
    Some(record).filter(|record| record.kind == Kind::MESSAGE)?;
    Change::decode(record.kind, record.body)
}

/// Returns about the size that the new segment will have.
fn measure<D: Disk>(
    disk: &D,
    segment: &SealedSegment,
    (dead, keys): (&[u32], &KeptKeys),
) -> io::Result<u64> {
    let log = path(&segment.folder, segment.first);
    let file = disk.open(&log, false)?;
    let mut place = Place::after(segment.first.before());
    let (mut size, mut emptied, mut met) = (0, Vec::new(), 0);
    let read = segment::verify(disk, &file, 0..segment.end, &mut place, |offset, record| {
        let is_dead = dead.binary_search(&offset).is_ok();
        met += usize::from(is_dead && matches!(record.kind, Kind::MESSAGE | Kind::EMPTIED));
        emptied.clear();
        let is_emptied = is_dead && empty(record, keys, &mut emptied).is_some();
        size += if is_emptied { emptied.len() } else { record.bytes.len() } as u64;
    })?;
    read.map_err(|(at, why)| segment::damaged(&log, at, why))?;
    if met < dead.len() {
        return Err(io::Error::other("its index file names messages that are not there"));
    }
    Ok(size + size.div_ceil(BATCH_BYTES as u64) * HEADER_BYTES as u64)
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
