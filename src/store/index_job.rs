//! Jobs that make index files, for another thread than that of the event loop.

use super::disk::{Disk, join};
use super::index_file;
use super::segment::{self, index_name, path};
use crate::ids::{Index, Position, SegmentId};
use crate::limits::{FILE_PIECE_BYTES, SEGMENT_BYTES};
use crate::mailbox::{Change, Mailboxes, Part};
use crate::record::checksum;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Index files to make, in the background.
#[derive(Debug)]
pub enum IndexJob {
    /// That of a sealed segment whose entries are all applied.
    Make(Make),
    /// Those that are missing or damaged. What they list depends on everything that was stored
    /// before, so the log is applied once more, from its beginning.
    Remake(Box<Remake>),
}

impl IndexJob {
    /// Returns about how many bytes the largest file has that the job makes.
    pub fn bytes(&self) -> u64 {
        match self {
            IndexJob::Make(Make { offsets, part, .. }) => {
                let messages = offsets.len() as u64 * 12;
                messages + part.blocks.len() as u64 * 50 + FILE_PIECE_BYTES as u64
            }
            // A file is smaller than its segment.
            IndexJob::Remake(_) => SEGMENT_BYTES,
        }
    }

    /// Makes the files, unless `is_cancelled` returns true between two segments. They are durable
    /// on return.
    ///
    /// # Errors
    /// When the disk fails, or a segment is damaged. A file may exist in part, under another name.
    pub fn run<D: Disk>(self, disk: &D, is_cancelled: impl Fn() -> bool) -> io::Result<()> {
        match self {
            IndexJob::Make(Make { folder, segment, offsets, part }) => {
                put(disk, &folder, segment, &offsets, &part)
            }
            IndexJob::Remake(remake) => remake.run(disk, is_cancelled),
        }
    }
}

/// See [`IndexJob::Make`].
#[derive(Debug)]
pub struct Make {
    pub(super) folder: String,
    pub(super) segment: index_file::Segment,
    pub(super) offsets: Arc<Vec<u32>>,
    pub(super) part: Arc<Part>,
}

/// See [`IndexJob::Remake`].
#[derive(Debug)]
pub struct Remake {
    pub(super) folder: String,
    /// The segments to read: all up to the last one that lacks its file.
    pub(super) segments: Vec<Sealed>,
    pub(super) lost: BTreeSet<SegmentId>,
    /// The state before the first entry.
    pub(super) mailboxes: Mailboxes,
}

/// Makes the index file of a segment, in place of an earlier one.
fn put<D: Disk>(
    disk: &D,
    folder: &str,
    segment: index_file::Segment,
    offsets: &[u32],
    part: &Part,
) -> io::Result<()> {
    let path = join(folder, &index_name(segment.first));
    let new = format!("{path}.new");
    let written = index_file::write(disk, &new, segment, offsets, part);
    if written.is_err() {
        // What was written would fill the disk until the next try.
        let _ = disk.remove(&new);
    }
    written.and_then(|()| disk.rename(&new, &path)).and_then(|()| disk.sync_folder(folder))
}

/// A segment that changes no more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    pub(super) first: Index,
    pub(super) end: u64,
}

impl Remake {
    fn run<D: Disk>(mut self, disk: &D, is_cancelled: impl Fn() -> bool) -> io::Result<()> {
        let mut last = Position::default();
        for (number, sealed) in (1..).zip(std::mem::take(&mut self.segments)) {
            if is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let id = SegmentId::new(number).expect("numbers begin with 1");
            let (offsets, last_checksum) = self.apply(disk, id, sealed, &mut last)?;
            let next = SegmentId::new(number + 1).expect("numbers begin with 1");
            self.mailboxes.begin_segment(next, last.index.next());
            if self.lost.contains(&id) {
                let part = self.mailboxes.unindexed().expect("a segment has just ended");
                let (first, entries, end) = (sealed.first, offsets.len() as u64, sealed.end);
                let segment = index_file::Segment { id, first, entries, end, last_checksum };
                put(disk, &self.folder, segment, &offsets, part)?;
            }
            self.mailboxes.forget_indexed();
        }
        Ok(())
    }

    /// Applies a segment. Returns the offsets of its records, and the checksum of the last one.
    fn apply<D: Disk>(
        &mut self,
        disk: &D,
        id: SegmentId,
        Sealed { first, end }: Sealed,
        last: &mut Position,
    ) -> io::Result<(Vec<u32>, u32)> {
        let mut last_checksum = 0;
        self.mailboxes.begin_segment(id, first);
        let offsets = segment::scan(disk, &path(&self.folder, first), end, last, |record| {
            last_checksum = checksum(record.bytes);
            if let Some(change) = Change::decode(record.kind, record.body) {
                self.mailboxes.apply(record.index, &change);
            }
        })?;
        Ok((offsets, last_checksum))
    }
}
