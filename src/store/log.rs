//! The log of entries: appended in batches, cut where it conflicts, read from memory or files.

use super::base::segment_id;
use super::disk::Disk;
use super::index_file::{IndexFile, Points};
use super::segment::{HEADER_BYTES, Header, is_header, path};
use crate::ids::{Index, SegmentId};
use crate::limits::{SEGMENTS_OPEN_MAX, TAIL_BYTES_MAX};
use crate::record::Record;
use crate::replica::LogSummary;
use byteorder::{ByteOrder, LE};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// A segment of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first: Index,
    pub(super) offsets: Offsets,
    /// The offset where the items end. In the active segment this includes unwritten items.
    pub(super) end: u64,
    /// Of the log up to its end, for a sealed segment without an index file.
    pub(super) summary: Option<LogSummary>,
}

/// Where the records of a segment begin.
#[derive(Debug)]
pub(super) enum Offsets {
    /// At these offsets, which may become more.
    Growing(Vec<u32>),
    /// At these offsets. The job that makes the index file shares them.
    Known(Arc<Vec<u32>>),
    /// The index file says where some of this number of records begin.
    Filed(u64),
}

impl Segment {
    pub(super) fn new(first: Index, offsets: Vec<u32>, end: u64) -> Segment {
        Segment { first, offsets: Offsets::Growing(offsets), end, summary: None }
    }

    /// A sealed segment with an index file.
    pub(super) fn indexed(first: Index, next: Index, end: u64) -> Segment {
        Segment { first, offsets: Offsets::Filed(next.0 - first.0), end, summary: None }
    }

    /// The number of its entries.
    pub(super) fn entries(&self) -> u64 {
        match &self.offsets {
            Offsets::Filed(entries) => *entries,
            _ => self.known().len() as u64,
        }
    }

    /// The index after its last entry.
    pub(super) fn next(&self) -> Index {
        Index(self.first.0 + self.entries())
    }

    /// The offsets of its records. They are known of a segment that has no index file.
    fn known(&self) -> &[u32] {
        match &self.offsets {
            Offsets::Growing(offsets) => offsets,
            Offsets::Known(offsets) => offsets,
            Offsets::Filed(_) => &[],
        }
    }

    /// The offset of the record, where it is known. For the index after the last entry, the end
    /// of the items.
    pub(super) fn offset(&self, index: Index) -> u64 {
        let at = (index.0 - self.first.0) as usize;
        self.known().get(at).map_or(self.end, |offset| u64::from(*offset))
    }

    fn growing(&mut self) -> &mut Vec<u32> {
        match &mut self.offsets {
            Offsets::Growing(offsets) => offsets,
            _ => unreachable!("only a sealed segment has, or gets, an index file"),
        }
    }

    /// Shares the offsets of its records, if it has no index file.
    pub(super) fn share(&mut self) -> Option<Arc<Vec<u32>>> {
        if let Offsets::Growing(offsets) = &mut self.offsets {
            self.offsets = Offsets::Known(Arc::new(std::mem::take(offsets)));
        }
        match &self.offsets {
            Offsets::Known(offsets) => Some(Arc::clone(offsets)),
            _ => None,
        }
    }
}

/// The log's segments. The last is the active one; its newest bytes are kept in memory.
#[derive(Debug)]
pub(super) struct Log<F> {
    /// The folder of its files.
    pub(super) folder: String,
    /// Never empty; each begins where the one before ends.
    pub(super) segments: Vec<Segment>,
    /// The file of the active segment.
    file: F,
    /// The open files of the most recently read earlier segments, by first index, the latest
    /// last. A log may have more segments than a process may have open files.
    pub(super) opened: RefCell<Vec<(Index, F)>>,
    /// The same for index files.
    pub(super) indexes: RefCell<Vec<(Index, Rc<IndexFile<F>>)>>,
    /// The segments whose index files were found missing or damaged.
    pub(super) lost: RefCell<BTreeSet<SegmentId>>,
    /// The sealed segments in which a read has failed.
    pub(super) suspects: RefCell<BTreeSet<SegmentId>>,
    /// A segment whose index file is lost, and a point for each of its records.
    pub(super) scanned: RefCell<Option<(Index, Points)>>,
    /// Of all entries. Every batch header names the newest config before it, which reveals the loss
    /// of a config.
    pub(super) summary: LogSummary,
    /// The active segment's bytes from `tail_start` to its end.
    tail: Vec<u8>,
    tail_start: u64,
    /// The offset up to which the active segment is written and synced.
    written: u64,
    /// The offset up to which a durable header records the sync.
    sealed: u64,
    /// The active segment is new: its name is not durable yet.
    unnamed: bool,
}

impl<F> Log<F> {
    /// Returns a log of segments that are durable, with its summary. `file` and `sealed` belong to
    /// the last segment.
    pub(super) fn new(
        folder: &str,
        segments: Vec<Segment>,
        file: F,
        summary: LogSummary,
        sealed: u64,
    ) -> Log<F> {
        let written = segments.last().expect("a log has a segment").end;
        Log {
            folder: folder.to_owned(),
            segments,
            file,
            opened: RefCell::default(),
            indexes: RefCell::default(),
            lost: RefCell::default(),
            suspects: RefCell::default(),
            scanned: RefCell::default(),
            summary,
            tail: Vec::new(),
            tail_start: written,
            written,
            sealed,
            unnamed: false,
        }
    }

    /// Creates an empty log in a new file of `folder`, which must exist. Its first entry will be
    /// `first`.
    pub(super) fn create<D: Disk<File = F>>(
        disk: &D,
        folder: &str,
        first: Index,
    ) -> io::Result<Log<F>> {
        let file = create_file(disk, folder, first)?;
        let segments = vec![Segment::new(first, Vec::new(), 0)];
        let mut log = Log::new(folder, segments, file, LogSummary::after(first.before()), 0);
        log.unnamed = true;
        log.write_header_alone(disk)?;
        Ok(log)
    }

    fn active(&self) -> &Segment {
        self.segments.last().expect("a log has a segment")
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log has a segment")
    }

    pub(super) fn last(&self) -> Index {
        self.active().next().before()
    }

    /// The first index of the newest segment.
    pub(super) fn newest(&self) -> Index {
        self.active().first
    }

    /// The last entry that is written and synced.
    pub(super) fn stored(&self) -> Index {
        self.last_begun_before(self.written)
    }

    /// The last entry whose record begins before `offset` of the active segment.
    fn last_begun_before(&self, offset: u64) -> Index {
        let active = self.active();
        let before = active.known().partition_point(|at| u64::from(*at) < offset);
        Index(active.first.0 + before as u64).before()
    }

    /// The size of the active segment as far as it is durable.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The size of all segments in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    pub(super) fn has_unwritten(&self) -> bool {
        self.active().end > self.written
    }

    pub(super) fn has_unsealed(&self) -> bool {
        self.sealed < self.written
    }

    /// Adds records to the batch that the next [`Log::flush`] writes.
    pub(super) fn append<D: Disk<File = F>>(&mut self, disk: &D, records: &[u8]) -> io::Result<()> {
        if !self.has_unwritten() {
            // Without an entry, the new segment would have the name of this one.
            if self.written >= disk.segment_bytes() && self.active().entries() > 0 {
                self.roll(disk)?;
            }
            let header = self.header();
            let offset = self.active().end;
            self.push(&header.encode(offset));
        }
        let mut rest = records;
        while !rest.is_empty() {
            let (record, behind) = rest.split_at(LE::read_u32(rest) as usize);
            self.summary.push(&Record::trust(record)).map_err(io::Error::other)?;
            let offset = self.active().end as u32;
            self.active_mut().growing().push(offset);
            self.push(record);
            rest = behind;
        }
        Ok(())
    }

    /// The header to write after all items.
    fn header(&self) -> Header {
        let config = self.summary.config().map(|(index, _)| index).unwrap_or_default();
        Header { synced: self.written, first: self.active().next(), config }
    }

    fn push(&mut self, item: &[u8]) {
        self.tail.extend_from_slice(item);
        self.active_mut().end += item.len() as u64;
    }

    pub(super) fn roll<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<()> {
        let first = self.active().next();
        let summary = self.summary.clone();
        let sealed = self.active_mut();
        sealed.growing().shrink_to_fit();
        sealed.summary = Some(summary);
        self.file = create_file(disk, &self.folder, first)?;
        self.segments.push(Segment::new(first, Vec::new(), 0));
        (self.tail_start, self.written, self.sealed, self.unnamed) = (0, 0, 0, true);
        self.tail.clear();
        Ok(())
    }

    /// Writes and syncs the batch. Returns the first index of the active segment when this sync
    /// made its name durable. `identity` must name that segment before anything is acknowledged.
    pub(super) fn flush<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<Option<Index>> {
        let batch = &self.tail[(self.written - self.tail_start) as usize..];
        let active = self.segments.last().expect("a log has a segment");
        disk.write_at(&self.file, batch, self.written)?;
        disk.sync(&self.file)?;
        self.written = active.end;
        let named = self.unnamed.then_some(active.first);
        if self.unnamed {
            disk.sync_folder(&self.folder)?;
            self.unnamed = false;
        }
        if self.tail.len() > TAIL_BYTES_MAX {
            let surplus = self.tail.len() - TAIL_BYTES_MAX / 2;
            self.tail.drain(..surplus);
            self.tail.shrink_to(TAIL_BYTES_MAX);
            self.tail_start += surplus as u64;
        }
        Ok(named)
    }

    /// Writes and syncs a header after the last batch, unless a batch is unwritten or the header
    /// exists.
    pub(super) fn seal<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<()> {
        if self.has_unwritten() || !self.has_unsealed() {
            return Ok(());
        }
        self.write_header_alone(disk)
    }

    fn write_header_alone<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<()> {
        let synced = self.written;
        let header = self.header();
        self.push(&header.encode(synced));
        self.flush(disk)?;
        // Undetected rot in this header is harmless: the next header repeats all that it records.
        self.sealed = self.written;
        Ok(())
    }

    /// The segment that becomes the last one when a cut after `last` reaches into an earlier
    /// segment; `None` when it does not.
    pub(super) fn cut_reaches(&self, last: Index) -> Option<Index> {
        let keep = self.segments[self.segment_of(last)].first;
        (keep < self.active().first).then_some(keep)
    }

    /// Removes all entries after `last`. The cut is durable on return. Before a cut into an
    /// earlier segment, `identity` must name that segment.
    pub(super) fn cut<D: Disk<File = F>>(&mut self, disk: &D, last: Index) -> io::Result<()> {
        if last >= self.last() {
            return Ok(());
        }
        let indexed = self.indexed().last().map(Segment::next);
        if indexed.is_some_and(|next| last.next() < next) {
            // What came before the end of an indexed segment is not in memory any more.
            self.summary = self.read_summary(disk, last)?;
        } else {
            self.summary.cut(last);
        }
        self.remove_indexes(disk, last)?;
        if let Some(first) = self.cut_reaches(last) {
            while self.active().first > first {
                let gone = self.segments.pop().expect("an earlier segment stays");
                disk.remove(&path(&self.folder, gone.first))?;
                // Sync each removal by itself: a crash must not leave a gap.
                disk.sync_folder(&self.folder)?;
            }
            self.opened.get_mut().clear();
            self.file = disk.open(&path(&self.folder, first), false)?;
            self.unnamed = false;
            self.written = self.active().end;
            self.tail.clear();
            self.tail_start = self.written;
        }
        let active = self.active_mut();
        let end = active.offset(last.next());
        let entries = (last.next().0 - active.first.0) as usize;
        active.growing().truncate(entries);
        active.end = end;
        if end > self.written {
            // The cut is within the batch being gathered, none of which is on disk.
            self.tail.truncate((end - self.tail_start) as usize);
            return Ok(());
        }
        self.tail.truncate(end.saturating_sub(self.tail_start) as usize);
        self.tail_start = self.tail_start.min(end);
        if end < self.written {
            disk.truncate(&self.file, end)?;
            disk.sync(&self.file)?;
            self.written = end;
        }
        self.write_header_alone(disk)
    }

    pub(super) fn segment_of(&self, index: Index) -> usize {
        self.segments.partition_point(|segment| segment.first <= index).max(1) - 1
    }

    /// The last entry up to `through` that can be read together with `from` in `bytes_max`
    /// bytes; at least `from`.
    pub(super) fn last_within<D: Disk<File = F>>(
        &self,
        disk: &D,
        from: Index,
        through: Index,
        bytes_max: usize,
    ) -> Index {
        let segment = &self.segments[self.segment_of(from)];
        let through = through.min(segment.next().before());
        if let Offsets::Filed(_) = segment.offsets {
            // Reading reports what is wrong with the index file.
            let last = self.last_filed(disk, segment, from, bytes_max as u64);
            return last.unwrap_or(from).clamp(from, through.max(from));
        }
        let start = segment.offset(from);
        let (mut low, mut high) = (from.0, through.0.max(from.0));
        while low < high {
            let middle = low.midpoint(high + 1);
            let end = segment.offset(Index(middle).next());
            if end - start <= bytes_max as u64 { low = middle } else { high = middle - 1 }
        }
        Index(low)
    }

    /// Passes the records `from` to `through` to `visit`, from memory where the tail holds them,
    /// otherwise from files.
    ///
    /// # Errors
    /// When a file can't be read, or does not hold what was written to it.
    pub(super) fn for_each<D: Disk<File = F>>(
        &self,
        disk: &D,
        from: Index,
        through: Index,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> io::Result<()> {
        let mut next = from;
        while next <= through {
            let segment = &self.segments[self.segment_of(next)];
            let mut last = through.min(segment.next().before());
            if last < next {
                return Err(io::Error::other(format!("entry {next} is not in the log")));
            }
            let start = segment.offset(next);
            let is_active = segment.first == self.active().first;
            if is_active && start >= self.tail_start {
                let at = |index: Index| (index.0 - segment.first.0) as usize;
                for offset in &segment.known()[at(next)..=at(last)] {
                    let bytes = &self.tail[(u64::from(*offset) - self.tail_start) as usize..];
                    // The record was checked on arrival. Rot in memory is detected on disk.
                    visit(&Record::trust(&bytes[..LE::read_u32(bytes) as usize]));
                }
            } else {
                if is_active {
                    // The file may lack what is still in memory.
                    last = last.min(self.last_begun_before(self.tail_start));
                }
                let (begin, bytes) = self.extent(disk, segment, next, last)?;
                let visit_known = &mut |record: &Record<'_>| {
                    if record.index >= next {
                        visit(record);
                    }
                };
                let piece = self.read(disk, segment, bytes);
                let read = piece.and_then(|piece| visit_piece(&piece, begin, last, visit_known));
                read.inspect_err(|_| self.suspect(segment))?;
            }
            next = last.next();
        }
        Ok(())
    }

    /// Notes that a read of a segment has failed.
    pub(super) fn suspect(&self, segment: &Segment) {
        if segment.first != self.active().first {
            self.suspects.borrow_mut().insert(segment_id(self.segment_of(segment.first)));
        }
    }

    /// Reads bytes of a segment's file; fewer only at its end.
    pub(super) fn read<D: Disk<File = F>>(
        &self,
        disk: &D,
        segment: &Segment,
        bytes: Range<u64>,
    ) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; (bytes.end - bytes.start) as usize];
        let read = if segment.first == self.active().first {
            disk.read_at(&self.file, &mut piece, bytes.start)?
        } else {
            let mut opened = self.opened.borrow_mut();
            let open = || disk.open(&path(&self.folder, segment.first), false);
            let file = keep_open(&mut opened, segment.first, open)?;
            disk.read_at(file, &mut piece, bytes.start)?
        };
        piece.truncate(read);
        Ok(piece)
    }

    /// Appends the records `from` to `through` to `out`.
    ///
    /// # Errors
    /// See [`Log::for_each`].
    pub(super) fn copy<D: Disk<File = F>>(
        &self,
        disk: &D,
        from: Index,
        through: Index,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.for_each(disk, from, through, &mut |record| out.extend_from_slice(record.bytes))
    }
}

/// Returns the open file of a segment, and keeps it open for a while.
pub(super) fn keep_open<F>(
    opened: &mut Vec<(Index, F)>,
    first: Index,
    open: impl FnOnce() -> io::Result<F>,
) -> io::Result<&F> {
    match opened.iter().position(|(of, _)| *of == first) {
        Some(at) => opened[at..].rotate_left(1),
        None => {
            let file = open()?;
            if opened.len() == SEGMENTS_OPEN_MAX {
                opened.remove(0);
            }
            opened.push((first, file));
        }
    }
    Ok(&opened.last().expect("it was opened").1)
}

fn create_file<D: Disk>(disk: &D, folder: &str, first: Index) -> io::Result<D::File> {
    let file = disk.open(&path(folder, first), true)?;
    // A crash may have left a file of this name. Nothing in it was acknowledged.
    disk.truncate(&file, 0)?;
    Ok(file)
}

/// Passes the records `from` to `through`, which `piece` holds, to `visit`.
fn visit_piece(
    piece: &[u8],
    from: Index,
    through: Index,
    visit: &mut dyn FnMut(&Record<'_>),
) -> io::Result<()> {
    let damaged = |at: Index, why: &str| io::Error::other(format!("entry {at} in the log: {why}"));
    let mut rest = piece;
    let mut next = from;
    while next <= through {
        if is_header(rest) && rest.len() >= HEADER_BYTES {
            rest = &rest[HEADER_BYTES..];
            continue;
        }
        let record = Record::parse(rest).map_err(|why| damaged(next, why.as_str()))?;
        if record.index != next {
            return Err(damaged(next, "another entry stands there"));
        }
        visit(&record);
        rest = &rest[record.bytes.len()..];
        next = next.next();
    }
    Ok(())
}
