//! Verifies sealed segments, and puts entries back in the place of damaged ones.

use super::checkpoint::Sealed;
use super::disk::{Disk, join};
use super::file_job::JobError;
use super::index_file::IndexFile;
use super::paged;
use super::segment::{self, HEADER_BYTES, Header, Hole, Place, Walk, index_name, path};
use super::whole;
use crate::ids::{Index, Position, SegmentId, Term};
use crate::limits::FILE_PIECE_BYTES;
use crate::record::{self, Kind};
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
    /// The newest config before it, if that is known.
    pub(super) config: Option<Index>,
    /// A repair has left the place of a record in doubt.
    pub(super) is_moved: bool,
    /// What is wrong there.
    pub why: &'static str,
}

impl Damage {
    fn new(
        id: SegmentId,
        (first, next): (Index, Index),
        (at, end): (u64, u64),
        config: Option<Index>,
        why: &'static str,
    ) -> Damage {
        Damage { id, first, next, at, end, config, is_moved: false, why }
    }

    /// Whether all of it was written again. Reading it shows whether it is right.
    pub fn is_filled(&self) -> bool {
        self.first == self.next && self.at == self.end
    }
}

/// How far a segment is verified.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedTo {
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
        let last = Position { index: segment.first.before(), term: Term::ZERO };
        let begin = VerifiedTo { offset: 0, place: Place { last, config: None } };
        let VerifiedTo { offset, mut place } = from.unwrap_or(begin);
        let limit = offset.saturating_add(bytes).min(segment.end);
        let mut done = Verified {
            rest: None,
            bytes: limit - offset,
            damage: Vec::new(),
            index_is_lost: false,
        };
        match segment::verify(disk, &file, offset..limit, &mut place) {
            Ok(Ok(offset)) if (limit..segment.end).contains(&offset) => {
                done.rest = Some(VerifiedTo { offset, place });
                return Ok(done);
            }
            Ok(Ok(offset)) if offset == segment.end && place.last.index.next() == segment.next => {
                // What a killed process has put back may be in the page cache alone.
                disk.sync(&file)?;
            }
            // Also when a part can't be read at all.
            _ => {
                done.bytes = segment.end;
                done.damage = segment.damage(disk, &file)?;
            }
        }
        let index = join(&segment.folder, &index_name(segment.first));
        // One that can't be read is as good as missing.
        done.index_is_lost = true;
        if let Some(index) = IndexFile::open(disk, &index, None) {
            done.bytes += disk.size(&index.file).unwrap_or(0);
            done.index_is_lost = !paged::is_sound(disk, &index.file).unwrap_or(false);
        }
        Ok(done)
    }
}

impl SealedSegment {
    /// Finds the newest config before an entry of which the segment itself shows nothing: the
    /// segment before it does.
    fn config_before<D: Disk>(&self, disk: &D) -> io::Result<Index> {
        let Some(Sealed { first, end }) = self.before else { return Ok(Index::ZERO) };
        let file = disk.open(&path(&self.folder, first), false)?;
        let last = Position { index: first.before(), term: Term::ZERO };
        let mut place = Place { last, config: None };
        segment::survey(disk, &file, end, &mut place)?;
        Ok(place.config.unwrap_or_default())
    }

    /// The damage of a segment without a file.
    fn lost(&self) -> Damage {
        let SealedSegment { id, first, next, end, .. } = *self;
        Damage::new(id, (first, next), (0, end), None, "it is missing")
    }

    /// Reads the whole segment for its damage.
    fn damage<D: Disk>(&self, disk: &D, file: &D::File) -> io::Result<Vec<Damage>> {
        let last = Position { index: self.first.before(), term: Term::ZERO };
        let mut place = Place { last, config: None };
        let Walk { size, holes, .. } = segment::survey(disk, file, self.end, &mut place)?;
        let damage = |hole: &Hole| {
            let entries = (hole.first, hole.next.unwrap_or(self.next));
            let end = if hole.next.is_some() { hole.at + hole.bytes } else { self.end };
            Damage::new(self.id, entries, (hole.at, end), hole.config, hole.why)
        };
        let mut all: Vec<Damage> = holes.iter().map(damage).collect();
        if holes.last().is_none_or(|hole| hole.next.is_some()) && size < self.end {
            let entries = (place.last.index.next(), self.next);
            let why = "it ends early";
            all.push(Damage::new(self.id, entries, (size, self.end), place.config, why));
        }
        Ok(all)
    }
}

/// Entries of another server to put in the place of damage, or a part of them.
#[derive(Debug)]
pub struct Repair {
    pub(super) segment: SealedSegment,
    pub(super) damage: Damage,
    /// The records, which follow each other. Nothing, if only headers are damaged.
    pub(super) records: Vec<u8>,
}

/// The most headers that are sought before a record.
const HEADERS_SOUGHT: usize = 64;
/// The most bytes of headers beside the records of one repair that are looked at.
const HEADERS_BYTES_MAX: usize = FILE_PIECE_BYTES;

/// What a repair has done.
#[derive(Clone, Debug)]
pub struct Repaired {
    /// The damage that is left. It is empty at the end.
    pub rest: Damage,
    /// Records may lie where the index file does not expect them.
    pub moved: bool,
}

impl Repair {
    /// Writes the records where they were. Batch headers between them are not the same on all
    /// servers: each record that is undamaged shows where it lies, and the room between records
    /// is filled with headers. If that leaves the place of a record in doubt, the index file, which
    /// names the old one, is removed first.
    pub(super) fn run<D: Disk>(self, disk: &D) -> Result<Repaired, JobError> {
        let Repair { segment, mut damage, records } = self;
        let at = damage.at;
        let file = disk.open(&path(&segment.folder, segment.first), true)?;
        let room = (damage.end - at) as usize;
        let size = disk.size(&file)?.saturating_sub(at) as usize;
        let mut found = vec![0; size.min(room).min(records.len() + HEADERS_BYTES_MAX)];
        segment::read_sectors(disk, &file, &mut found, at);
        let mut config = match damage.config {
            Some(config) => config,
            None => segment.config_before(disk)?,
        };
        let mut out = Vec::new();
        // A record that is not found follows the one before it, unless the next one shows room for
        // headers between them.
        let (mut next, mut in_doubt, mut moved) = (damage.first, false, damage.is_moved);
        for record in record::each(&records) {
            let record = record.map_err(|_| unfit())?;
            if record.index != next || next >= damage.next {
                return Err(unfit().into());
            }
            let begin = |headers: &usize| out.len() + headers * HEADER_BYTES;
            let lies = |headers: &usize| {
                let begin = begin(headers);
                found.get(begin..begin + record.bytes.len()) == Some(record.bytes)
            };
            let headers = (0..=HEADERS_SOUGHT).find(lies);
            // A segment begins with a header.
            let least = usize::from(at == 0 && out.is_empty());
            let count = headers.unwrap_or(0).max(least);
            moved |= in_doubt && count > 0;
            in_doubt = headers.is_none();
            (0..count).for_each(|_| put_header(at, &mut out, record.index, config));
            out.extend_from_slice(record.bytes);
            if record.kind == Kind::CONFIG {
                config = record.index;
            }
            next = record.index.next();
        }
        let rest = room.checked_sub(out.len()).ok_or_else(unfit)?;
        if next == damage.next {
            if !rest.is_multiple_of(HEADER_BYTES) {
                return Err(unfit().into());
            }
            in_doubt &= rest > 0;
            (0..rest / HEADER_BYTES).for_each(|_| put_header(at, &mut out, next, config));
        }
        moved |= in_doubt;
        if moved {
            remove_index(disk, &segment)?;
        }
        for (piece, bytes) in (0..).zip(out.chunks(FILE_PIECE_BYTES)) {
            disk.write_at(&file, bytes, at + piece * FILE_PIECE_BYTES as u64)?;
            disk.sync(&file)?;
        }
        disk.sync_folder(&segment.folder)?;
        (damage.at, damage.first, damage.config) = (at + out.len() as u64, next, Some(config));
        damage.is_moved = moved;
        Ok(Repaired { rest: damage, moved })
    }
}

fn unfit() -> io::Error {
    io::Error::other("the entries of another server do not fit")
}

/// Appends a header to `out`, whose first byte is at `start` of the file.
fn put_header(start: u64, out: &mut Vec<u8>, first: Index, config: Index) {
    let offset = start + out.len() as u64;
    out.extend_from_slice(&Header { synced: offset, first, config }.encode(offset));
}

fn remove_index<D: Disk>(disk: &D, segment: &SealedSegment) -> io::Result<()> {
    whole::remove(disk, &join(&segment.folder, &index_name(segment.first)))?;
    disk.sync_folder(&segment.folder)
}
