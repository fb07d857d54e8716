//! Writes a sealed segment anew, beside the old file, whose place the new one takes at the end.
//! Undamaged entries come from the old file, those that are damaged there from other servers.

use super::disk::{Disk, join};
use super::file_job::{JobError, RemakeIndexes};
use super::scrub::{Damage, SealedSegment};
use super::segment::{self, Header, Place, index_name, path};
use super::whole;
use crate::ids::{Index, SegmentId};
use crate::limits::FILE_PIECE_BYTES;
use crate::record::{self, Kind, Record};
use std::io;
use std::ops::Range;

/// Bytes of the records in a batch, at least. Damage of a batch header costs the batch.
pub(super) const BATCH_BYTES: usize = 16 * 1024;

/// The path of the file that is to take the place of another one.
pub(super) fn new_path(path: &str) -> String {
    format!("{path}.new")
}

/// A segment that is being written anew, and how far it is.
#[derive(Clone, Debug)]
pub struct Rewrite {
    pub(super) segment: SealedSegment,
    /// Its damage, in order.
    damage: Vec<Damage>,
    /// How many of these parts are written.
    passed: usize,
    /// The next entry to write.
    next: Index,
    /// The size of the new file. All of it is durable.
    size: u64,
    /// The newest config before the next entry. Unknown before the first one.
    config: Option<Index>,
}

impl Rewrite {
    /// A segment with this damage, none of which is written yet.
    pub(super) fn new(segment: SealedSegment, damage: Vec<Damage>) -> Rewrite {
        let next = segment.first;
        Rewrite { segment, damage, passed: 0, next, size: 0, config: None }
    }

    /// Its number.
    pub fn id(&self) -> SegmentId {
        self.segment.id
    }

    /// The entries that are needed next from other servers: the first and the last one.
    pub fn lacks(&self) -> Option<(Index, Index)> {
        let left = self.damage.get(self.passed..).unwrap_or_default();
        let part = left.iter().find(|part| part.first < part.next)?;
        Some((part.first.max(self.next), part.next.before()))
    }

    /// How many entries come from other servers.
    pub fn damaged_entries(&self) -> u64 {
        self.damage.iter().map(|part| part.next.0 - part.first.0).sum()
    }
}

/// The next step of a rewrite.
#[derive(Debug)]
pub struct Step {
    pub(super) rewrite: Rewrite,
    /// The next ones of the entries that are needed, as far as they have come.
    pub(super) records: Vec<u8>,
    /// To make the index file. It lists the sealed segments, all up to this one.
    pub(super) remake: Box<RemakeIndexes>,
}

/// What a step has done.
#[derive(Debug)]
pub enum Rewritten {
    /// Further entries are needed.
    Part(Rewrite),
    /// All is written.
    Whole(NewSegment),
}

/// A segment that is written anew and durable, under another name.
#[derive(Debug)]
pub struct NewSegment {
    /// Its number.
    pub id: SegmentId,
    /// How many of its entries come from other servers.
    pub entries: u64,
    /// Its size.
    pub(super) size: u64,
    /// Its index file is made, too, under another name.
    pub(super) is_indexed: bool,
}

impl Step {
    pub(super) fn run<D: Disk>(self, disk: &D) -> Result<Rewritten, JobError> {
        let Step { mut rewrite, records, remake } = self;
        if rewrite.size == 0 {
            rewrite.config = Some(rewrite.segment.config_before(disk)?);
        }
        let log = path(&rewrite.segment.folder, rewrite.segment.first);
        let old = whole::open(disk, &log)?;
        let config = rewrite.config.unwrap_or_default();
        let mut writer = Writer::open(disk, &new_path(&log), &rewrite, config)?;
        let mut records = record::each(&records);
        loop {
            let Rewrite { segment, damage, passed, .. } = &rewrite;
            let part = damage.get(*passed);
            let until = part.map_or(segment.next, |part| part.first);
            if writer.next < until {
                let start = passed.checked_sub(1).map_or(0, |before| damage[before].end);
                let old = old.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                let sound = start..part.map_or(segment.end, |part| part.at);
                writer.copy(old, sound, |writer, _, record| writer.put(record))?;
            }
            let Some(part) = part else { break };
            while writer.next < part.next {
                let Some(record) = records.next() else {
                    return Ok(Rewritten::Part(writer.pause(rewrite)?));
                };
                writer.put(&record.map_err(|_| unfit())?)?;
            }
            rewrite.passed += 1;
        }
        if writer.next != rewrite.segment.next || records.next().is_some() {
            return Err(unfit().into());
        }
        let size = writer.end(rewrite.segment.end)?;
        let is_indexed = make_index(disk, &rewrite, size, *remake);
        let (id, entries) = (rewrite.segment.id, rewrite.damaged_entries());
        Ok(Rewritten::Whole(NewSegment { id, entries, size, is_indexed }))
    }
}

/// Makes the index file of the new segment, under another name. Returns whether that was possible:
/// what comes before may be damaged, too.
pub(super) fn make_index<D: Disk>(
    disk: &D,
    rewrite: &Rewrite,
    size: u64,
    mut remake: RemakeIndexes,
) -> bool {
    let Some(last) = remake.segments.last_mut() else { return false };
    last.end = size;
    let made = remake.run_new(disk);
    if let Err(JobError { error, .. }) = &made {
        let name = index_name(rewrite.segment.first);
        // What was written would fill the disk.
        let _ = whole::remove(disk, &new_path(&join(&rewrite.segment.folder, &name)));
        log::warn!("{name}: it can't be made yet: {error}");
    }
    made.is_ok()
}

pub(super) fn unfit() -> io::Error {
    io::Error::other("the entries of another server do not fit")
}

/// The new file of a segment.
pub(super) struct Writer<'a, D: Disk> {
    disk: &'a D,
    file: D::File,
    next: Index,
    config: Index,
    /// What is written and durable.
    size: u64,
    /// What follows it, and where in it the current batch begins.
    piece: Vec<u8>,
    batch: Option<usize>,
}

impl<'a, D: Disk> Writer<'a, D> {
    /// Opens the new file, to go on after what is written. `config` is the newest one before the
    /// next entry.
    pub(super) fn open(
        disk: &'a D,
        path: &str,
        rewrite: &Rewrite,
        config: Index,
    ) -> io::Result<Writer<'a, D>> {
        let Rewrite { next, size, .. } = *rewrite;
        let file = disk.open(path, true)?;
        // A step that was interrupted may have left more.
        disk.truncate(&file, size)?;
        Ok(Writer { disk, file, next, config, size, piece: Vec::new(), batch: None })
    }

    /// Passes the entries in an undamaged part of the old file to `put`, each with its offset. The
    /// part begins with a header.
    pub(super) fn copy(
        &mut self,
        old: &D::File,
        part: Range<u64>,
        mut put: impl FnMut(&mut Self, u32, &Record<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut place = Place::after(self.next.before());
        let (disk, mut done, end) = (self.disk, Ok(()), part.end);
        let read = segment::verify(disk, old, part, &mut place, |offset, record| {
            if done.is_ok() {
                done = put(self, offset, record);
            }
        })?;
        done?;
        match read {
            Ok(at) if at == end => Ok(()),
            Ok(_) => Err(io::Error::other("the segment has changed")),
            Err((at, why)) => Err(io::Error::other(format!("at byte {at}: {why}"))),
        }
    }

    /// Adds the next entry.
    pub(super) fn put(&mut self, record: &Record<'_>) -> io::Result<()> {
        if record.index != self.next {
            return Err(unfit());
        }
        if self.batch.is_none_or(|begin| self.piece.len() - begin >= BATCH_BYTES) {
            if self.piece.len() >= FILE_PIECE_BYTES {
                self.flush()?;
            }
            self.batch = Some(self.piece.len());
            self.put_header();
        }
        self.piece.extend_from_slice(record.bytes);
        if record.kind == Kind::CONFIG {
            self.config = record.index;
        }
        self.next = record.index.next();
        Ok(())
    }

    fn put_header(&mut self) {
        let offset = self.size + self.piece.len() as u64;
        let header = Header { synced: self.size, first: self.next, config: self.config };
        self.piece.extend_from_slice(&header.encode(offset));
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.write_at(&self.file, &self.piece, self.size)?;
        self.disk.sync(&self.file)?;
        self.size += self.piece.len() as u64;
        self.piece.clear();
        self.batch = None;
        Ok(())
    }

    /// Ends a step, after which the rewrite goes on later.
    fn pause(mut self, rewrite: Rewrite) -> io::Result<Rewrite> {
        self.flush()?;
        Ok(Rewrite { next: self.next, size: self.size, config: Some(self.config), ..rewrite })
    }

    /// Ends the file. Returns its size, which differs from that of the old one: by that the index
    /// files of both are told apart.
    pub(super) fn end(mut self, old_size: u64) -> io::Result<u64> {
        if self.size + self.piece.len() as u64 == old_size {
            self.put_header();
        }
        self.flush()?;
        Ok(self.size)
    }
}
