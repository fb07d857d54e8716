//! Files that can be made again from the log: written once, in pieces, and read a page at a time.
//! Each page has a checksum, so that a reader notices damage in what it reads and reads no more.

use super::disk::Disk;
use crate::fields::{Field, read_all};
use crate::limits::FILE_PIECE_BYTES;
use std::io;
use std::ops::Range;

/// Bytes of a page in the file.
const PAGE_BYTES: usize = 4096;
/// Bytes of a page without its checksum. Offsets count these bytes alone.
pub(super) const PAGE_DATA: usize = PAGE_BYTES - 4;

fn page_checksum(data: &[u8], page: u64) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(data), &page.to_le_bytes()).to_le_bytes()
}

/// Writes a new file. Each piece is synced by itself: one sync of the whole file would delay those
/// of the log.
pub(super) struct PagedWriter<'a, D: Disk> {
    disk: &'a D,
    file: D::File,
    /// Whole pages, and the data of one that is not complete.
    buffer: Vec<u8>,
    page: u64,
    written: u64,
}

impl<'a, D: Disk> PagedWriter<'a, D> {
    /// Creates the file, or empties it.
    pub(super) fn create(disk: &'a D, path: &str) -> io::Result<PagedWriter<'a, D>> {
        let file = disk.open(path, true)?;
        disk.truncate(&file, 0)?;
        Ok(PagedWriter { disk, file, buffer: Vec::new(), page: 0, written: 0 })
    }

    /// The data bytes of the page that is not complete.
    fn partial(&self) -> usize {
        self.buffer.len() % PAGE_BYTES
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = PAGE_DATA - self.partial();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.partial() == PAGE_DATA {
                self.end_page()?;
            }
        }
        Ok(())
    }

    /// Fills the page with zeros, unless it is empty: what follows begins with a page.
    pub(super) fn pad(&mut self) -> io::Result<()> {
        match self.partial() {
            0 => Ok(()),
            partial => self.write(&[0; PAGE_DATA][partial..]),
        }
    }

    fn end_page(&mut self) -> io::Result<()> {
        let data = &self.buffer[self.buffer.len() - PAGE_DATA..];
        let sum = page_checksum(data, self.page);
        self.buffer.extend_from_slice(&sum);
        self.page += 1;
        if self.buffer.len() >= FILE_PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.write_at(&self.file, &self.buffer, self.written)?;
        self.disk.sync(&self.file)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the file. All of it is durable on return; its name is not.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.pad()?;
        self.flush()
    }
}

/// Reads the bytes at `at` of a paged file, `into.len()` of them.
///
/// # Errors
/// When the file can't be read, is too short, or does not hold what was written to it.
pub(super) fn read<D: Disk>(
    disk: &D,
    file: &D::File,
    at: u64,
    mut into: &mut [u8],
) -> io::Result<()> {
    let mut pages = Vec::new();
    let (mut page, mut skip) = (at / PAGE_DATA as u64, (at % PAGE_DATA as u64) as usize);
    while !into.is_empty() {
        let count = (skip + into.len()).div_ceil(PAGE_DATA).min(FILE_PIECE_BYTES / PAGE_BYTES);
        pages.resize(count * PAGE_BYTES, 0);
        let read = disk.read_at(file, &mut pages, page * PAGE_BYTES as u64)?;
        if read < pages.len() {
            return Err(damaged("it ends early"));
        }
        for bytes in pages.chunks_exact(PAGE_BYTES) {
            let (data, sum) = bytes.split_at(PAGE_DATA);
            if page_checksum(data, page) != sum {
                return Err(damaged(&format!("page {page} has a wrong checksum")));
            }
            let data = &data[skip..];
            let (now, later) = into.split_at_mut(data.len().min(into.len()));
            now.copy_from_slice(&data[..now.len()]);
            (into, skip) = (later, 0);
            page += 1;
        }
    }
    Ok(())
}

/// Bytes that a [`PagedReader`] reads at once.
const AHEAD_BYTES: u64 = 8 * PAGE_DATA as u64;

/// Reads bytes of a paged file one after the other.
pub(super) struct PagedReader<'a, D: Disk> {
    disk: &'a D,
    file: &'a D::File,
    /// What is left to read.
    rest: Range<u64>,
    /// The bytes before `rest` that were not taken yet begin at `taken`.
    buffer: Vec<u8>,
    taken: usize,
}

impl<'a, D: Disk> PagedReader<'a, D> {
    /// Reads these data bytes of a file.
    pub(super) fn new(disk: &'a D, file: &'a D::File, bytes: Range<u64>) -> PagedReader<'a, D> {
        PagedReader { disk, file, rest: bytes, buffer: Vec::new(), taken: 0 }
    }

    /// Reads all data bytes of a file, from `at` on.
    pub(super) fn from(disk: &'a D, file: &'a D::File, at: u64) -> io::Result<Self> {
        let pages = disk.size(file)? / PAGE_BYTES as u64;
        Ok(PagedReader::new(disk, file, at..at.max(pages * PAGE_DATA as u64)))
    }

    /// Returns the next `count` bytes.
    ///
    /// # Errors
    /// When the file can't be read, is damaged, or has fewer.
    pub(super) fn take(&mut self, count: usize) -> io::Result<&[u8]> {
        let missing = (self.taken + count).saturating_sub(self.buffer.len()) as u64;
        if missing > 0 {
            if missing > self.rest.end.saturating_sub(self.rest.start) {
                return Err(damaged("it ends early"));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            // To the end of a page, so that none is read twice.
            let page = PAGE_DATA as u64;
            let wanted = (self.rest.start + missing.max(AHEAD_BYTES)).next_multiple_of(page);
            let end = wanted.min(self.rest.end);
            let kept = self.buffer.len();
            self.buffer.resize(kept + (end - self.rest.start) as usize, 0);
            read(self.disk, self.file, self.rest.start, &mut self.buffer[kept..])?;
            self.rest.start = end;
        }
        self.taken += count;
        Ok(&self.buffer[self.taken - count..self.taken])
    }

    /// Returns the next value, which is encoded in `bytes` bytes.
    ///
    /// # Errors
    /// As [`PagedReader::take`], and when the bytes are no such value.
    pub(super) fn value<T: Field>(&mut self, bytes: usize) -> io::Result<T> {
        read_all(self.take(bytes)?).ok_or_else(|| damaged("it holds an invalid value"))
    }
}

/// Whether all pages of a file hold what was written to them.
///
/// # Errors
/// When the file can't be read.
pub(super) fn is_sound<D: Disk>(disk: &D, file: &D::File) -> io::Result<bool> {
    let size = disk.size(file)?;
    let mut reader = PagedReader::from(disk, file, 0)?;
    for _ in 0..size / PAGE_BYTES as u64 {
        match reader.take(PAGE_DATA) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(false),
            taken => taken?,
        };
    }
    Ok(size.is_multiple_of(PAGE_BYTES as u64))
}

/// Returns the error that a file does not hold what was written to it.
pub(super) fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryDisk;
    use super::*;

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    fn written(bytes: &[u8], piece: usize) -> MemoryDisk {
        let disk = MemoryDisk::default();
        let mut writer = PagedWriter::create(&disk, "paged").unwrap();
        bytes.chunks(piece).for_each(|piece| writer.write(piece).unwrap());
        writer.finish().unwrap();
        disk
    }

    fn read_all(disk: &MemoryDisk, at: usize, length: usize) -> io::Result<Vec<u8>> {
        let file = disk.open("paged", false).unwrap();
        let mut bytes = vec![0; length];
        read(disk, &file, at as u64, &mut bytes).map(|()| bytes)
    }

    #[test]
    fn reads_what_it_wrote_wherever_pages_end() {
        for length in [1, PAGE_DATA - 1, PAGE_DATA, PAGE_DATA + 1, 3 * PAGE_DATA, 600_000] {
            let bytes = sample(length);
            for piece in [1000, PAGE_DATA, 100_000] {
                let disk = written(&bytes, piece);
                assert_eq!(read_all(&disk, 0, length).unwrap(), bytes);
                for at in [1, PAGE_DATA - 2, PAGE_DATA, 2 * PAGE_DATA + 5].map(|at| at % length) {
                    let part = (length - at).min(5000);
                    assert_eq!(read_all(&disk, at, part).unwrap(), bytes[at..at + part]);
                }
                let after = length.next_multiple_of(PAGE_DATA);
                assert!(read_all(&disk, after, 1).is_err(), "after the end");
            }
        }
    }

    #[test]
    fn a_reader_takes_one_piece_after_the_other() {
        let bytes = sample(100_000);
        let disk = written(&bytes, 777);
        let file = disk.open("paged", false).unwrap();
        for (start, end) in [(0, bytes.len()), (5000, 5001), (4092, 90_000), (7, 7)] {
            for piece in [1, 100, 4092, 50_000] {
                let mut reader = PagedReader::new(&disk, &file, start as u64..end as u64);
                let mut at = start;
                while at < end {
                    let count = piece.min(end - at);
                    assert_eq!(reader.take(count).unwrap(), &bytes[at..at + count]);
                    at += count;
                }
                assert!(reader.take(1).is_err());
            }
        }
        let mut whole = PagedReader::from(&disk, &file, 10).unwrap();
        assert_eq!(whole.value::<u32>(4).unwrap().to_le_bytes(), bytes[10..14]);
        disk.edit("paged", |bytes| bytes[20] ^= 1);
        assert!(PagedReader::from(&disk, &file, 10).unwrap().take(1).is_err());
    }

    #[test]
    fn padding_ends_a_page() {
        let disk = MemoryDisk::default();
        let mut writer = PagedWriter::create(&disk, "paged").unwrap();
        for bytes in [&b"ab"[..], b"", b"c"] {
            writer.pad().unwrap();
            writer.write(bytes).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(read_all(&disk, 0, 3).unwrap(), b"ab\0");
        assert_eq!(read_all(&disk, PAGE_DATA, 1).unwrap(), b"c");
    }

    #[test]
    fn damage_is_noticed_in_what_is_read_and_only_there() {
        let bytes = sample(3 * PAGE_DATA);
        for at in [0, 4091, 4092, 4095, 4096, 10_000] {
            let disk = written(&bytes, 9999);
            disk.edit("paged", |bytes| bytes[at] ^= 0x10);
            for page in 0..3 {
                let is_damaged = read_all(&disk, page * PAGE_DATA, PAGE_DATA).is_err();
                assert_eq!(is_damaged, page == at / PAGE_BYTES, "{at}");
            }
        }
        // A page in another place is damage, too.
        let disk = written(&bytes, 9999);
        disk.edit("paged", |bytes| bytes.copy_within(..PAGE_BYTES, PAGE_BYTES));
        assert!(read_all(&disk, PAGE_DATA, 1).is_err());
    }

    #[test]
    fn a_file_is_synced_in_pieces_and_whole_at_the_end() {
        let bytes = sample(1_000_000);
        let disk = written(&bytes, 9999);
        assert_eq!(disk.syncs(), 4);
        disk.sync_folder(".").unwrap();
        assert_eq!(read_all(&disk.crash(|| false), 0, bytes.len()).unwrap(), bytes);
    }
}
