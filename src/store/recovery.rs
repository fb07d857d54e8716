//! Reads the log at a start and finds it good, torn at the tail, or damaged. Reading changes
//! nothing. Only an undamaged log is repaired afterwards.

use super::base::Base;
use super::checkpoint::Sealed;
use super::disk::Disk;
use super::identity::Identity;
use super::log::{Log, Segment};
use super::segment::{self, HEADER_BYTES, Hole, Place, Walk, first_index, path};
use super::whole;
use crate::ids::{Index, Position, Vote};
use crate::record::Kind;
use crate::replica::{Config, LogSummary};
use crate::time::WallTime;
use std::io;

/// A torn tail: the remains of a write that a crash has interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file it is in.
    pub file: String,
    /// The offset where the good items end.
    pub at: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// What is wrong at that offset.
    pub why: &'static str,
}

/// A log as found on disk, unchanged.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) segments: Vec<Found>,
    /// Durable data that is missing or changed, in order: where and why.
    pub(super) damage: Vec<String>,
    pub(super) torn: Option<Torn>,
    /// The last entry before the first damage. `last_time` is its time.
    pub(super) last: Position,
    /// See `last`.
    pub(super) last_time: WallTime,
    /// The newest readable config, before or after damage.
    pub(super) config: Option<(Position, Config)>,
    /// The newest config that a valid header names.
    pub(super) named_config: Index,
    /// Of the entries before the first damage.
    pub(super) summary: LogSummary,
}

/// A segment as found on disk.
#[derive(Debug)]
pub(super) struct Found {
    /// The part before the first hole.
    pub(super) good: Segment,
    pub(super) size: u64,
    pub(super) synced: u64,
    /// The number of records found, before and after damage. `last` is the last of them.
    pub(super) records: u64,
    pub(super) last: Index,
}

/// How far a log is read.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The number of segments that are read.
    pub segment: usize,
    /// The number of all segments.
    pub segments: usize,
}

impl Reading {
    /// What reading would find of the segments of `base`.
    fn after(base: &Base) -> Reading {
        let summary = base.summary.clone();
        let next = base.segments.iter().skip(1).map(|sealed| sealed.first);
        let next = next.chain([summary.last().index.next()]);
        let found = |(sealed, next): (&Sealed, Index)| {
            let Sealed { first, end } = *sealed;
            let good = Segment::indexed(first, next, end);
            let (records, last) = (next.0 - first.0, next.before());
            Found { good, size: end, synced: end, records, last }
        };
        let config = summary.config();
        let config = config.map(|(index, config)| (summary.position(index), *config));
        Reading {
            segments: base.segments.iter().zip(next).map(found).collect(),
            last: summary.last(),
            last_time: summary.last_time(),
            config,
            named_config: config.map(|(at, _)| at.index).unwrap_or_default(),
            summary,
            ..Reading::default()
        }
    }

    /// Whether the log holds more than a newly created one.
    pub(super) fn holds_records(&self) -> bool {
        let new = |found: &Found| found.good.first == Index(1) && found.size <= HEADER_BYTES as u64;
        !self.segments.iter().all(new)
    }

    /// Whether clients may have been admitted while this log was in use. `vote` is the vote of
    /// the same directory.
    pub(super) fn may_have_opened(&self, vote: Option<Vote>) -> bool {
        if !self.holds_records() {
            return vote != Some(Vote::default());
        }
        let whole = self.damage.is_empty() && self.torn.is_none();
        !whole || self.config.is_none_or(|(_, config)| config.gate_open)
    }

    /// The index of a durable config that is unreadable and newer than every readable one, if
    /// any.
    pub(super) fn unread_config(&self) -> Option<Index> {
        let read = self.config.map_or(Index::ZERO, |(at, _)| at.index);
        (self.named_config > read).then_some(self.named_config)
    }

    /// Whether a segment after `base` is there: not one that an interrupted write has only begun.
    pub(super) fn has_begun_after(&self, base: &Base) -> bool {
        let last = self.segments.last().map_or(Index::ZERO, |found| found.good.first);
        let is_begun = self.torn.as_ref().is_none_or(|torn| torn.at > least(last));
        self.segments.len() - usize::from(!is_begun) > base.segments.len()
    }

    /// The number of records found.
    pub(super) fn records(&self) -> u64 {
        self.segments.iter().map(|found| found.records).sum()
    }
}

/// What is known of a log before it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The newest segment that the identity names.
    pub(super) segment: Option<Index>,
    /// Whether these segments were cut off a log: the first one may begin with any entry.
    pub(super) is_tail: bool,
    /// Whether the last start was in this boot of the machine: no power cut can have torn
    /// anything.
    pub(super) same_boot: bool,
}

impl Known {
    /// Returns what `identity` and the current boot show.
    pub(super) fn new<D: Disk>(disk: &D, identity: Option<&Identity>) -> Known {
        let boot = disk.boot();
        let same_boot = identity.is_some_and(|identity| boot.is_some() && identity.boot == boot);
        Known { segment: identity.map(|identity| identity.segment), is_tail: false, same_boot }
    }
}

/// Reads the segments of `folder`: all, or those that `base` does not contain. Calls `watch` after
/// each of them.
///
/// A killed process leaves its last write truncated, which counts as torn. A power cut may tear
/// the last batch in any way. Rot in that batch looks the same, unless a later header records
/// that the batch was durable.
pub(super) fn read<D: Disk>(
    disk: &D,
    folder: &str,
    known: Known,
    base: Option<&Base>,
    watch: &mut dyn FnMut(Progress),
) -> io::Result<Reading> {
    let named = known.segment;
    let mut names: Vec<Index> =
        disk.list(folder)?.iter().filter_map(|name| first_index(name)).collect();
    names.sort_unstable();
    let mut reading = base.map_or_else(Reading::default, Reading::after);
    let config = reading.summary.config().map(|(index, _)| index).unwrap_or_default();
    let mut place = Place { last: reading.summary.last(), config: Some(config) };
    let mut progress = Progress { segment: 0, segments: names.len() };
    for (at, &first) in names.iter().enumerate().skip(reading.segments.len()) {
        let path = path(folder, first);
        if first != place.last.index.next() && (at > 0 || !known.is_tail) {
            reading.damage.push(format!("{path}: entries before it are missing"));
            place.config = None;
        }
        place.last.index = first.before();
        if at == 0 {
            reading.summary = LogSummary::after(first.before());
        }
        let (found, walk) = read_segment(disk, &path, first, &mut place, &mut reading)?;
        // The identity names a new segment only after its first batch is durable.
        let begun = named == Some(first) && found.good.end <= least(first);
        let may_be_torn = at + 1 == names.len() && !begun;
        for hole in walk.holes {
            let Hole { at, why, short, bytes, .. } = hole;
            let killed = short && at + bytes == walk.size;
            if may_be_torn && at >= walk.synced && (killed || !known.same_boot) {
                let (file, bytes) = (path.clone(), walk.size - at);
                reading.torn = Some(Torn { file, at, bytes, why });
                break;
            }
            reading.damage.push(format!("{path}: at byte {at}: {why}"));
        }
        reading.segments.push(found);
        progress.segment = at + 1;
        watch(progress);
    }
    // Report this last: it does not affect the segments before it.
    if let Some(named) = named.filter(|named| !names.contains(named)) {
        reading.damage.push(format!("{}: it is missing", path(folder, named)));
    }
    Ok(reading)
}

fn read_segment<D: Disk>(
    disk: &D,
    path: &str,
    first: Index,
    place: &mut Place,
    reading: &mut Reading,
) -> io::Result<(Found, Walk)> {
    let file = disk.open(path, false)?;
    let undamaged = reading.damage.is_empty();
    let Reading { config: newest, summary, last, last_time, .. } = reading;
    let mut offsets = Vec::new();
    let mut records = 0;
    let mut last_found = place.last.index;
    let mut walk = segment::walk(disk, &file, place, |offset, sound, record| {
        let at = record.position();
        if record.kind == Kind::CONFIG {
            let config = Config::decode(record.body).ok_or("a config is unreadable")?;
            if newest.is_none_or(|(known, _)| known < at) {
                *newest = Some((at, config));
            }
        }
        if undamaged && sound {
            summary.push(record)?;
            (*last, *last_time) = (at, record.time);
        }
        if sound {
            offsets.push(offset);
        }
        records += 1;
        last_found = last_found.max(record.index);
        Ok(())
    })?;
    reading.named_config = reading.named_config.max(walk.config);
    if walk.holes.is_empty() && walk.size <= least(first) {
        let why = if walk.size == 0 { "it is empty" } else { "it holds no entry" };
        let (at, first, config) = (walk.size, place.last.index.next(), place.config);
        walk.holes.push(Hole { at, bytes: 0, first, next: None, config, why, short: true });
    }
    let end = walk.holes.first().map_or(walk.size, |hole| hole.at);
    let mut good = Segment::new(first, offsets, end);
    good.summary = Some(reading.summary.clone());
    Ok((Found { good, size: walk.size, synced: walk.synced, records, last: last_found }, walk))
}

/// The size that a complete segment exceeds. The first segment is created with a header alone, a
/// later one with a header and an entry.
fn least(first: Index) -> u64 {
    if first > Index(1) { HEADER_BYTES as u64 } else { 0 }
}

/// Repairs an undamaged log: cuts its torn tail and makes the rest durable.
pub(super) fn settle<D: Disk>(
    disk: &D,
    folder: &str,
    reading: Reading,
) -> io::Result<Log<D::File>> {
    assert!(reading.damage.is_empty(), "damage is not made whole");
    let mut segments = reading.segments;
    if let Some(torn) = &reading.torn {
        let last = &segments.last().expect("a torn tail is in a segment").good;
        if torn.at <= least(last.first) {
            // The crash came before the identity named the new segment: nothing in it was
            // acknowledged.
            disk.remove(&path(folder, last.first))?;
            segments.pop();
        } else {
            disk.truncate(&disk.open(&path(folder, last.first), false)?, torn.at)?;
        }
    }
    let last = segments.last().expect("the segment that the identity names is there");
    let file = disk.open(&path(folder, last.good.first), false)?;
    // Rewrite in place what no header records as synced. After a crash or a failed sync, the page
    // cache may show data that is not on disk, and a sync alone would not write it.
    whole::copy(disk, &file, &file, last.synced)?;
    // A visible name may not be durable, and a removed name may still be on disk.
    disk.sync_folder(folder)?;
    let synced = last.synced;
    let mut segments: Vec<Segment> = segments.into_iter().map(|found| found.good).collect();
    if let Some(active) = segments.last_mut() {
        active.summary = None;
    }
    Ok(Log::new(folder, segments, file, reading.summary, synced))
}
