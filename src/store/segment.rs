//! The format of a segment, a sequence of batch headers and records, and its reader.
//!
//! ```text
//! +-------+--------+--------+-------------+--------------+
//! | magic | crc32c | synced | first index | config index |   then the records of the batch
//! | u32   | u32    | u64    | u64         | u64          |
//! +-------+--------+--------+-------------+--------------+
//! ```
//!
//! `synced` is the offset in the file up to which everything was durable when the header was
//! written. `config index` names the newest config before the header, or is 0 without one: it
//! reveals the loss of a damaged config. The checksum covers the header and its own offset.

use super::disk::{Disk, join};
use crate::ids::{Index, Position, Term};
use crate::limits::{FILE_PIECE_BYTES, RECORD_BYTES_MAX};
use crate::record::{BadRecord, Kind, Record, checksum};
use byteorder::{ByteOrder, LE};
use std::io;
use std::ops::Range;

/// Bytes of a batch header.
pub const HEADER_BYTES: usize = 32;
/// These bytes occur in no UTF-8 text and are no valid length of a record.
const MAGIC: [u8; 4] = [0xff, 0xc0, 0xfe, 0x80];

/// The name of the segment whose first entry is `first`.
pub(super) fn file_name(first: Index) -> String {
    format!("{:020}.log", first.0)
}

/// The name of the index file of the segment whose first entry is `first`.
pub(super) fn index_name(first: Index) -> String {
    format!("{:020}.idx", first.0)
}

/// The path of the segment whose first entry is `first`.
pub(super) fn path(folder: &str, first: Index) -> String {
    join(folder, &file_name(first))
}

/// The first index of the segment with this name; `None` for other names.
pub(super) fn first_index(name: &str) -> Option<Index> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 20)?;
    digits.parse().ok().map(Index)
}

/// A batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) synced: u64,
    pub(super) first: Index,
    /// The newest config before it.
    pub(super) config: Index,
}

impl Header {
    pub(super) fn encode(self, offset: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        LE::write_u64(&mut bytes[8..], self.synced);
        LE::write_u64(&mut bytes[16..], self.first.0);
        LE::write_u64(&mut bytes[24..], self.config.0);
        let sum = header_checksum(&bytes, offset);
        LE::write_u32(&mut bytes[4..], sum);
        bytes
    }

    /// Reads the header at the start of `bytes`, which lie at `offset` of the file.
    pub(super) fn decode(bytes: &[u8], offset: u64) -> Option<Header> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let sound = is_header(bytes) && LE::read_u32(&bytes[4..]) == header_checksum(bytes, offset);
        let header = Header {
            synced: LE::read_u64(&bytes[8..]),
            first: Index(LE::read_u64(&bytes[16..])),
            config: Index(LE::read_u64(&bytes[24..])),
        };
        let possible = header.synced <= offset && header.config < header.first;
        (sound && possible).then_some(header)
    }
}

/// Whether an item begins as a header does.
pub(super) fn is_header(item: &[u8]) -> bool {
    item.starts_with(&MAGIC)
}

fn header_checksum(header: &[u8], offset: u64) -> u32 {
    crc32c::crc32c_append(checksum(header), &offset.to_le_bytes())
}

/// The result of reading a whole segment, apart from its records.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Walk {
    /// The file's size.
    pub(super) size: u64,
    /// The highest synced offset that any valid header records.
    pub(super) synced: u64,
    /// The newest config that any valid header names.
    pub(super) config: Index,
    /// The unreadable parts, in order. Empty for a good segment.
    pub(super) holes: Vec<Hole>,
}

/// A part of a segment that could not be read, up to the next valid header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) at: u64,
    pub(super) bytes: u64,
    /// The entry that should begin there, and the one with which reading continues; `None` at the
    /// end of the file.
    pub(super) first: Index,
    /// See `first`.
    pub(super) next: Option<Index>,
    /// The newest config before it; `None` after another unreadable part.
    pub(super) config: Option<Index>,
    pub(super) why: &'static str,
    /// Whether the end of the file cuts off the item at `at`. An interrupted write leaves this if
    /// pages were written in order.
    pub(super) short: bool,
}

/// How far the log was read: the next item must follow this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) last: Position,
    /// The newest config; `None` after an unreadable part.
    pub(super) config: Option<Index>,
}

impl Place {
    /// After an entry of which nothing but the index is known.
    pub(super) fn after(last: Index) -> Place {
        Place { last: Position { index: last, term: Term::ZERO }, config: None }
    }
}

/// Reads a segment whose first item must follow `place`. Passes every good record to `visit`,
/// with its offset and whether no hole precedes it. After a hole, reading continues at the next
/// valid header, whatever index it names.
pub(super) fn walk<D: Disk>(
    disk: &D,
    file: &D::File,
    place: &mut Place,
    mut visit: impl FnMut(u32, bool, &Record<'_>) -> Result<(), &'static str>,
) -> io::Result<Walk> {
    walk_window(Window::new(disk, file)?, place, &mut visit)
}

/// Reads the first `end` bytes of a segment as [`walk`] does. What the disk can't read counts as
/// zeros.
pub(super) fn survey<D: Disk>(
    disk: &D,
    file: &D::File,
    end: u64,
    place: &mut Place,
) -> io::Result<Walk> {
    let window = Window::new(disk, file)?;
    let window = Window { size: window.size.min(end), is_patient: true, ..window };
    walk_window(window, place, &mut |_, _, _| Ok(()))
}

fn walk_window<D: Disk>(
    mut window: Window<'_, D>,
    place: &mut Place,
    visit: &mut impl FnMut(u32, bool, &Record<'_>) -> Result<(), &'static str>,
) -> io::Result<Walk> {
    let (size, synced, config) = (window.size, 0, Index::ZERO);
    let mut walk = Walk { size, synced, config, holes: Vec::new() };
    let mut start = 0;
    loop {
        let run = start..window.size;
        let bad = read_run(&mut window, run, true, place, &mut walk, visit)?.err();
        let Some((at, why)) = bad else { return Ok(walk) };
        let (first, config) = (place.last.index.next(), place.config.take());
        let short = next_item_is_short(&mut window, at)?;
        let next = next_header(&mut window, at, first)?;
        let bytes = next.map_or(walk.size, |(next, _)| next) - at;
        let next_index = next.map(|(_, header)| header.first);
        walk.holes.push(Hole { at, bytes, first, next: next_index, config, why, short });
        let Some((next, header)) = next else { return Ok(walk) };
        start = next;
        place.last = Position { index: header.first.before(), term: Term::ZERO };
    }
}

/// Reads a segment that must be whole, of `size` bytes, and whose first item follows `last`. Passes
/// every record before the first damage to `visit`. Returns the offsets of the records, and leaves
/// the position of the last one in `last`.
///
/// # Errors
/// When the file can't be read, or a part of it is damaged.
pub(super) fn scan<D: Disk>(
    disk: &D,
    path: &str,
    size: u64,
    last: &mut Position,
    mut visit: impl FnMut(&Record<'_>),
) -> io::Result<Vec<u32>> {
    let file = disk.open(path, false)?;
    let mut offsets = Vec::new();
    let mut place = Place { last: *last, config: None };
    let walk = walk(disk, &file, &mut place, |offset, sound, record| {
        if sound {
            offsets.push(offset);
            visit(record);
        }
        Ok(())
    })?;
    *last = place.last;
    match walk.holes.first() {
        Some(hole) => Err(damaged(path, hole.at, hole.why)),
        None if walk.size != size => Err(damaged(path, walk.size, "it has another size")),
        None => Ok(offsets),
    }
}

/// What tells a sealed segment apart from another one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    /// The first entry.
    pub(super) first: Index,
    /// The number of entries.
    pub(super) entries: u64,
    /// The size of the segment in bytes.
    pub(super) end: u64,
    /// The offset of the last record, and its checksum.
    pub(super) last: u32,
    /// See `last`.
    pub(super) last_checksum: u32,
}

impl Seal {
    /// The last entry.
    pub(super) fn last_index(&self) -> Index {
        Index(self.first.0 + self.entries).before()
    }

    /// Whether a file is the segment that this describes, as far as its size and its last record
    /// show.
    pub(super) fn fits<D: Disk>(&self, disk: &D, file: &D::File) -> io::Result<bool> {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let read = disk.read_at(file, &mut bytes, self.last.into())?;
        let record = Record::parse(&bytes[..read]).ok();
        let is_last = |record: Record<'_>| {
            record.index == self.last_index() && checksum_of(&record) == self.last_checksum
        };
        Ok(disk.size(file)? == self.end && record.is_some_and(is_last))
    }
}

/// The checksum of a record, as its bytes state it.
pub(super) fn checksum_of(record: &Record<'_>) -> u32 {
    LE::read_u32(&record.bytes[4..])
}

/// Returns the error that a part of a segment is unreadable.
pub(super) fn damaged(path: &str, at: u64, why: &str) -> io::Error {
    io::Error::other(format!("{path}: at byte {at}: {why}"))
}

/// Reads a part of a segment, from an item on: items that begin in `run`. Continues at `place`.
/// Passes each record to `visit`, with its offset. Returns where the items end, or the offset of
/// the first bad one and what is wrong with it.
///
/// # Errors
/// When the file can't be read.
pub(super) fn verify<D: Disk>(
    disk: &D,
    file: &D::File,
    run: Range<u64>,
    place: &mut Place,
    mut visit: impl FnMut(u32, &Record<'_>),
) -> io::Result<Run> {
    let mut window = Window::new(disk, file)?;
    let (size, synced, config) = (window.size, 0, Index::ZERO);
    let mut walk = Walk { size, synced, config, holes: Vec::new() };
    let is_begin = run.start == 0;
    let visit = &mut |offset, _, record: &Record<'_>| {
        visit(offset, record);
        Ok(())
    };
    read_run(&mut window, run, is_begin, place, &mut walk, visit)
}

/// Where items end; or the offset of the first bad one, and what is wrong with it.
type Run = Result<u64, (u64, &'static str)>;

/// Reads valid items that begin in `run`, the first of them a header if it `begins_batch`.
fn read_run<D: Disk>(
    window: &mut Window<'_, D>,
    run: Range<u64>,
    begins_batch: bool,
    place: &mut Place,
    walk: &mut Walk,
    visit: &mut impl FnMut(u32, bool, &Record<'_>) -> Result<(), &'static str>,
) -> io::Result<Run> {
    let sound = walk.holes.is_empty();
    let mut at = run.start;
    while at < window.size.min(run.end) {
        let bytes = window.at(at, RECORD_BYTES_MAX)?;
        let next = place.last.index.next();
        let item = if is_header(bytes) || (begins_batch && at == run.start) {
            match Header::decode(bytes, at) {
                Some(header) if header.first != next => Err("a batch header names another index"),
                Some(header) if place.config.is_some_and(|config| config != header.config) => {
                    Err("a batch header names another config")
                }
                Some(header) => {
                    walk.synced = walk.synced.max(header.synced);
                    walk.config = walk.config.max(header.config);
                    place.config = Some(header.config);
                    Ok(HEADER_BYTES)
                }
                None => Err("a batch header is damaged"),
            }
        } else {
            match Record::parse(bytes) {
                Err(why) => Err(why.as_str()),
                Ok(record) if record.index != next => Err("an index is missing"),
                Ok(record) if record.term < place.last.term => {
                    Err("a term is lower than the one before")
                }
                Ok(record) => visit(at as u32, sound, &record).map(|()| {
                    place.last = record.position();
                    if record.kind == Kind::CONFIG {
                        place.config = Some(record.index);
                    }
                    record.bytes.len()
                }),
            }
        };
        match item {
            Ok(length) => at += length as u64,
            Err(why) => return Ok(Err((at, why))),
        }
    }
    Ok(Ok(at))
}

/// Whether the end of the file cuts off the item at `at`.
fn next_item_is_short<D: Disk>(window: &mut Window<'_, D>, at: u64) -> io::Result<bool> {
    let left = window.size - at;
    if left > RECORD_BYTES_MAX as u64 {
        return Ok(false);
    }
    let bytes = &window.at(at, left as usize)?[..left as usize];
    if is_header(bytes) && bytes.len() >= HEADER_BYTES {
        return Ok(false);
    }
    Ok(bytes.len() < MAGIC.len() || is_header(bytes) || is_short_record(bytes))
}

/// Whether `bytes`, the end of a file, are the beginning of a record. Returns false for a
/// complete record whose length is damaged, alone or followed by others.
fn is_short_record(bytes: &[u8]) -> bool {
    if Record::parse(bytes) != Err(BadRecord::Short) {
        return false;
    }
    let mut whole = bytes.to_vec();
    LE::write_u32(&mut whole, bytes.len() as u32);
    let is_whole = Record::parse(&whole).is_ok();
    !is_whole && (1..bytes.len()).all(|from| Record::parse(&bytes[from..]).is_err())
}

/// The first valid header at or after `from` that names the entry `least` or a later one, and its
/// offset.
fn next_header<D: Disk>(
    window: &mut Window<'_, D>,
    from: u64,
    least: Index,
) -> io::Result<Option<(u64, Header)>> {
    let mut at = from;
    while at + HEADER_BYTES as u64 <= window.size {
        let bytes = window.at(at, HEADER_BYTES)?;
        // The last bytes may begin a header: search them again with the next piece.
        let starts = bytes.len() - HEADER_BYTES + 1;
        for (offset, header) in bytes.windows(HEADER_BYTES).enumerate() {
            let at = at + offset as u64;
            if let Some(header) = Header::decode(header, at).filter(|h| h.first >= least) {
                return Ok(Some((at, header)));
            }
        }
        at += starts as u64;
    }
    Ok(None)
}

/// A part of a file in memory that moves forward.
struct Window<'a, D: Disk> {
    disk: &'a D,
    file: &'a D::File,
    size: u64,
    buffer: Vec<u8>,
    start: u64,
    /// What the disk can't read counts as zeros.
    is_patient: bool,
}

impl<'a, D: Disk> Window<'a, D> {
    fn new(disk: &'a D, file: &'a D::File) -> io::Result<Window<'a, D>> {
        let (size, buffer) = (disk.size(file)?, Vec::new());
        Ok(Window { disk, file, size, buffer, start: 0, is_patient: false })
    }

    /// The bytes from `at`: at least `length`, or all up to the end of the file.
    fn at(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let have = self.start + self.buffer.len() as u64;
        let wanted = (at + length as u64).min(self.size);
        if at < self.start || wanted > have {
            let bytes = (self.size - at).min((FILE_PIECE_BYTES + length) as u64) as usize;
            self.buffer.resize(bytes, 0);
            let read = match self.disk.read_at(self.file, &mut self.buffer, at) {
                Err(_) if self.is_patient => {
                    read_sectors(self.disk, self.file, &mut self.buffer, at)
                }
                read => read?,
            };
            if read < bytes {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a short read"));
            }
            self.start = at;
        }
        Ok(&self.buffer[(at - self.start) as usize..])
    }
}

/// Bytes that a disk can read, or can't read, as a whole.
const SECTOR_BYTES: u64 = 4096;

/// Reads a part of a file that exists, each sector by itself. Zeros are in the place of those that
/// can't be read.
pub(super) fn read_sectors<D: Disk>(disk: &D, file: &D::File, into: &mut [u8], at: u64) -> usize {
    let mut done = 0;
    while done < into.len() {
        let place = at + done as u64;
        let sector_end = (place / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let end = into.len().min(done + (sector_end - place) as usize);
        let sector = &mut into[done..end];
        if disk.read_at(file, sector, place).ok() != Some(sector.len()) {
            sector.fill(0);
        }
        done = end;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryDisk;
    use super::*;

    #[test]
    fn an_item_that_the_end_of_a_file_cuts_off_is_short() {
        let header = Header { synced: 0, first: Index(1), config: Index::ZERO }.encode(0);
        let length = (RECORD_BYTES_MAX as u32).to_le_bytes();
        for (bytes, short) in [
            (&[0xff; MAGIC.len() - 1][..], true),
            (&MAGIC[..], true),
            (&header[..HEADER_BYTES - 1], true),
            (&header[..], false),
            (&length[..], true),
        ] {
            let disk = MemoryDisk::default();
            let file = disk.open("end", true).unwrap();
            disk.write_at(&file, bytes, 0).unwrap();
            let mut window = Window::new(&disk, &file).unwrap();
            assert_eq!(next_item_is_short(&mut window, 0).unwrap(), short, "{bytes:?}");
        }
    }

    #[test]
    fn names_of_segments() {
        assert_eq!(file_name(Index(1)), "00000000000000000001.log");
        assert_eq!(first_index("00000000000000000042.log"), Some(Index(42)));
        for other in ["1.log", "00000000000000000042.idx", "x0000000000000000042.log"] {
            assert_eq!(first_index(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_is_good_at_its_own_offset_only() {
        let header = Header { synced: 100, first: Index(7), config: Index(6) };
        let bytes = header.encode(500);
        assert_eq!(Header::decode(&bytes, 500), Some(header));
        assert_eq!(Header::decode(&bytes, 501), None);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad, 500), None, "bit {bit}");
        }
        assert!(String::from_utf8(MAGIC.to_vec()).is_err());
        assert!(u32::from_le_bytes(MAGIC) as usize > RECORD_BYTES_MAX);
    }
}
