//! Verifies sealed segments.

use super::checkpoint::Sealed;
use super::disk::{Disk, join};
use super::file_job::JobError;
use super::index_file::IndexFile;
use super::paged;
use super::segment::{self, Hole, Place, Seal, Walk, index_name, path};
use super::whole;
use crate::ids::{Index, SegmentId};
use std::io;

/// A sealed segment.
#[derive(Clone, Debug)]
pub(super) struct SealedSegment {
    /// Its number.
    pub(super) id: SegmentId,
    /// The folder of its file.
    pub(super) folder: String,
    pub(super) first: Index,
    /// The first entry of the segment after it.
    pub(super) next: Index,
    /// Its size in bytes.
    pub(super) end: u64,
    /// The one before it: its first entry and its size.
    pub(super) before: Option<Sealed>,
}

/// A damaged part of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub id: SegmentId,
    /// The first entry that can't be read.
    pub first: Index,
    /// The first entry after it that can.
    pub next: Index,
    /// Where the part begins and ends in the file.
    pub at: u64,
    /// See `at`.
    pub end: u64,
    /// What is wrong there.
    pub why: &'static str,
}

impl Damage {
    fn new(
        id: SegmentId,
        (first, next): (Index, Index),
        (at, end): (u64, u64),
        why: &'static str,
    ) -> Damage {
        Damage { id, first, next, at, end, why }
    }
}

/// How far a segment is verified.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedTo {
    /// The segment and its size. A segment that is written anew has another size.
    of: (SegmentId, u64),
    offset: u64,
    place: Place,
}

/// A part of a sealed segment to verify.
#[derive(Debug)]
pub struct Verify {
    pub(super) segment: SealedSegment,
    /// Where to continue; at the beginning for `None`.
    pub(super) from: Option<VerifiedTo>,
    /// About how many bytes to read.
    pub(super) bytes: u64,
}

/// What a part of a segment is like.
#[derive(Debug)]
pub struct Verified {
    /// Where to continue; `None` if all of it is verified.
    pub rest: Option<VerifiedTo>,
    /// How many bytes were read.
    pub bytes: u64,
    /// The damage in all of the segment, if there is any.
    pub damage: Vec<Damage>,
    /// Its index file is missing or damaged. Known at the end.
    pub index_is_lost: bool,
}

impl Verify {
    pub(super) fn run<D: Disk>(self, disk: &D) -> Result<Verified, JobError> {
        let Verify { segment, from, bytes } = self;
        let Some(file) = whole::open(disk, &path(&segment.folder, segment.first))? else {
            return Ok(Verified {
                rest: None,
                bytes: 0,
                damage: vec![segment.lost()],
                index_is_lost: false,
            });
        };
        let of = (segment.id, segment.end);
        let begin = VerifiedTo { of, offset: 0, place: Place::after(segment.first.before()) };
        let VerifiedTo { offset, mut place, .. } =
            from.filter(|from| from.of == of).unwrap_or(begin);
        let limit = offset.saturating_add(bytes).min(segment.end);
        let mut done = Verified {
            rest: None,
            bytes: limit - offset,
            damage: Vec::new(),
            index_is_lost: false,
        };
        match segment::verify(disk, &file, offset..limit, &mut place, |_, _| ()) {
            Ok(Ok(offset)) if (limit..segment.end).contains(&offset) => {
                done.rest = Some(VerifiedTo { of, offset, place });
                return Ok(done);
            }
            Ok(Ok(offset)) if offset == segment.end && place.last.index.next() == segment.next => {
                // What a process has written anew, and was killed, may be in the page cache alone.
                disk.sync(&file)?;
            }
            // Also when a part can't be read at all.
            _ => {
                done.bytes = segment.end;
                done.damage = segment.damage(disk, &file)?;
            }
        }
        done.index_is_lost = true;
        if let Some(index) = segment.index(disk) {
            done.bytes += disk.size(&index.file).unwrap_or(0);
            done.index_is_lost = !paged::is_sound(disk, &index.file).unwrap_or(false);
        }
        Ok(done)
    }
}

impl SealedSegment {
    /// Opens its index file. `None` if that is missing or unreadable, or describes the file that
    /// the segment had before it was written anew.
    pub(super) fn index<D: Disk>(&self, disk: &D) -> Option<IndexFile<D::File>> {
        let file = join(&self.folder, &index_name(self.first));
        let index = IndexFile::open(disk, &file, None)?;
        let Seal { first, end, .. } = index.head.seal;
        let entries = (first, index.head.seal.last_index().next());
        if (index.head.id, entries, end) != (self.id, (self.first, self.next), self.end) {
            return None;
        }
        let log = disk.open(&path(&self.folder, self.first), false).ok()?;
        index.head.seal.fits(disk, &log).unwrap_or(false).then_some(index)
    }

    /// Finds the newest config before the segment, by the one before it.
    ///
    /// # Errors
    /// When that is not known: the end of the segment before can't be read.
    pub(super) fn config_before<D: Disk>(&self, disk: &D) -> io::Result<Index> {
        let Some(Sealed { first, end }) = self.before else { return Ok(Index::ZERO) };
        let file = disk.open(&path(&self.folder, first), false)?;
        let mut place = Place::after(first.before());
        segment::survey(disk, &file, end, &mut place)?;
        let is_whole = place.last.index.next() == self.first;
        let unknown = || io::Error::other("the segment before is damaged at its end");
        place.config.filter(|_| is_whole).ok_or_else(unknown)
    }

    /// The damage of a segment without a file.
    fn lost(&self) -> Damage {
        let SealedSegment { id, first, next, end, .. } = *self;
        Damage::new(id, (first, next), (0, end), "it is missing")
    }

    /// Reads the whole segment for its damage.
    fn damage<D: Disk>(&self, disk: &D, file: &D::File) -> io::Result<Vec<Damage>> {
        let mut place = Place::after(self.first.before());
        let Walk { size, holes, .. } = segment::survey(disk, file, self.end, &mut place)?;
        let damage = |hole: &Hole| {
            let entries = (hole.first, hole.next.unwrap_or(self.next));
            let end = if hole.next.is_some() { hole.at + hole.bytes } else { self.end };
            Damage::new(self.id, entries, (hole.at, end), hole.why)
        };
        let mut all: Vec<Damage> = holes.iter().map(damage).collect();
        if holes.last().is_none_or(|hole| hole.next.is_some()) && size < self.end {
            let entries = (place.last.index.next(), self.next);
            let why = "it ends early";
            all.push(Damage::new(self.id, entries, (size, self.end), why));
        }
        Ok(all)
    }
}
