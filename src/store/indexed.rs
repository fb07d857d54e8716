//! The part of the log that reads and makes index files.

use super::base::segment_id;
use super::checkpoint::Sealed;
use super::disk::{Disk, join, named};
use super::file_job::{FileJob, MakeIndex, RemakeIndexes};
use super::index_file::{IndexFile, Points, Row};
use super::log::{Log, Offsets, Segment, keep_open};
use super::rewrite::{NewSegment, new_path};
use super::scrub::SealedSegment;
use super::segment::{self, Place, Seal, index_name, path};
use crate::ids::{Index, SegmentId};
use crate::limits::{FILE_PIECE_BYTES, MESSAGES_PER_STEP, RECORD_BYTES_MAX};
use crate::mailbox::{List, Mailboxes, Part, Visit};
use crate::record::Record;
use crate::replica::LogSummary;
use byteorder::{ByteOrder, LE};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes that are read after the beginning of a record whose length is not known yet.
const GUESS_BYTES: u64 = 1024;
/// Messages that lie further apart in a file are read separately.
const GAP_BYTES: u32 = 4096;

impl<F> Log<F> {
    /// The segment that holds an entry, and its first entry.
    pub(super) fn segment_at(&self, index: Index) -> (SegmentId, Index) {
        let at = self.segment_of(index);
        (segment_id(at), self.segments[at].first)
    }

    fn segment(&self, id: SegmentId) -> io::Result<&Segment> {
        let segment = self.segments.get(id.number() as usize - 1);
        segment.ok_or_else(|| io::Error::other("an index names a segment that does not exist"))
    }

    /// Returns the job that makes the index file of the sealed segment with these positions;
    /// `None` if the file exists, which is noted then.
    pub(super) fn index_job<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        part: &Arc<Part>,
        secret_mark: u64,
    ) -> io::Result<Option<FileJob>> {
        let at = part.segment.number() as usize - 1;
        let Some(offsets) = self.segments[at].share() else { return Ok(None) };
        let segment = &self.segments[at];
        assert_eq!(segment.first, part.first, "positions are of the segment that they name");
        let seal = self.describe(disk, segment, &offsets)?;
        let file = join(&self.folder, &index_name(segment.first));
        // One that can't be read is replaced.
        if let Some(index) = IndexFile::open(disk, &file, Some((part.segment, seal)))
            && index.head.secret_mark == secret_mark
        {
            self.note_indexed(part.segment);
            return Ok(None);
        }
        let mut summary = segment.summary.clone().expect("a sealed segment has a summary");
        // All of it was acknowledged, or it would not be applied.
        summary.settle(seal.last_index());
        let (folder, part) = (self.folder.clone(), Arc::clone(part));
        let job = MakeIndex { folder, seal, offsets, part, summary, secret_mark };
        Ok(Some(FileJob::Index(job)))
    }

    /// Describes a sealed segment as its index file does.
    fn describe<D: Disk<File = F>>(
        &self,
        disk: &D,
        segment: &Segment,
        offsets: &[u32],
    ) -> io::Result<Seal> {
        let last = *offsets.last().expect("a sealed segment has entries");
        let head = self.read(disk, segment, u64::from(last)..u64::from(last) + 8)?;
        let last_checksum = head.get(4..).filter(|sum| sum.len() == 4).map(LE::read_u32);
        let last_checksum = last_checksum.ok_or(io::ErrorKind::UnexpectedEof)?;
        let Segment { first, end, .. } = *segment;
        Ok(Seal { first, entries: segment.entries(), end, last, last_checksum })
    }

    /// Notes that the index file of a segment is durable. The offsets of its records leave the
    /// memory.
    pub(super) fn note_indexed(&mut self, id: SegmentId) {
        if let Some(segment) = self.segments.get_mut(id.number() as usize - 1) {
            segment.offsets = Offsets::Filed(segment.entries());
            segment.summary = None;
            self.summary.settle(segment.next().before());
        }
    }

    /// The segments up to the first one without an index file.
    pub(super) fn indexed(&self) -> &[Segment] {
        let is_indexed = |segment: &&Segment| matches!(segment.offsets, Offsets::Filed(_));
        let count = self.segments.iter().take_while(is_indexed).count();
        &self.segments[..count]
    }

    /// Whether a read has found index files missing or damaged.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.borrow().is_empty()
    }

    /// Returns the job that makes the index files again which a read has found missing or
    /// damaged, if there are any. `empty` is the state before the first entry.
    pub(super) fn remake_job(&self, empty: impl FnOnce() -> Mailboxes) -> Option<FileJob> {
        let lost = self.lost.borrow().clone();
        let job = (!lost.is_empty()).then(|| self.remake(lost, empty()));
        job.map(|job| FileJob::LostIndexes(Box::new(job)))
    }

    /// What makes these index files again. `mailboxes` are the state before the first entry.
    pub(super) fn remake(&self, lost: BTreeSet<SegmentId>, mailboxes: Mailboxes) -> RemakeIndexes {
        let last = lost.last().map_or(0, |last| last.number() as usize);
        let sealed = |segment: &Segment| Sealed { first: segment.first, end: segment.end };
        let segments = self.segments[..last].iter().map(sealed).collect();
        RemakeIndexes { folder: self.folder.clone(), segments, lost, mailboxes }
    }

    /// Puts a segment that is written anew in the place of the old one, and its index file.
    pub(super) fn put_rewritten<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        new: &NewSegment,
    ) -> io::Result<()> {
        let NewSegment { id, size, is_indexed, .. } = *new;
        let segment = &mut self.segments[id.number() as usize - 1];
        let log = path(&self.folder, segment.first);
        let index = join(&self.folder, &index_name(segment.first));
        self.opened.get_mut().clear();
        self.indexes.get_mut().clear();
        *self.scanned.get_mut() = None;
        disk.rename(&new_path(&log), &log)?;
        segment.end = size;
        // Beside the old, damaged segment, the new index file would describe nothing: a start would
        // read the segment, and could not go on.
        disk.sync_folder(&self.folder)?;
        if is_indexed {
            disk.rename(&new_path(&index), &index)?;
            disk.sync_folder(&self.folder)?;
        } else {
            self.lost.get_mut().insert(id);
        }
        Ok(())
    }

    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.borrow().is_empty()
    }

    pub(super) fn take_suspect(&self) -> Option<SegmentId> {
        self.suspects.borrow_mut().pop_first()
    }

    pub(super) fn note_suspect(&self, id: SegmentId) {
        self.suspects.borrow_mut().insert(id);
    }

    /// Describes a sealed segment with an index file, all of whose entries were acknowledged.
    pub(super) fn sealed(&self, id: SegmentId) -> Option<SealedSegment> {
        let at = id.number() as usize - 1;
        let segment = self.segments.get(at)?;
        let Offsets::Filed(_) = segment.offsets else { return None };
        let sealed = |segment: &Segment| Sealed { first: segment.first, end: segment.end };
        let before = at.checked_sub(1).map(|before| sealed(&self.segments[before]));
        let (folder, Sealed { first, end }) = (self.folder.clone(), sealed(segment));
        Some(SealedSegment { id, folder, first, next: segment.next(), end, before })
    }

    /// The segments after one, as far as they are written.
    pub(super) fn written_after(&self, id: SegmentId) -> Vec<Sealed> {
        let last = self.segments.len() - 1;
        let end = |at: usize, segment: &Segment| match at == last {
            true => self.written(),
            false => segment.end,
        };
        let after = self.segments.iter().enumerate().skip(id.number() as usize);
        after.map(|(at, segment)| Sealed { first: segment.first, end: end(at, segment) }).collect()
    }

    /// Notes that an index file is missing or damaged.
    pub(super) fn note_lost(&mut self, id: SegmentId) {
        self.lost.get_mut().insert(id);
    }

    /// Closes index files that may have changed.
    pub(super) fn close_indexes(&mut self) {
        self.indexes.get_mut().clear();
        *self.scanned.get_mut() = None;
    }

    /// Notes that a remake has ended: what it has not mended is found again by the next read.
    pub(super) fn forget_lost(&mut self) {
        self.lost.get_mut().clear();
        self.close_indexes();
    }

    /// Reads from the index file of a segment. If that fails, notes that the file is lost.
    fn with_index<D: Disk<File = F>, T>(
        &self,
        disk: &D,
        segment: &Segment,
        read: impl FnOnce(&IndexFile<F>) -> io::Result<T>,
    ) -> io::Result<T> {
        let id = segment_id(self.segment_of(segment.first));
        let file = join(&self.folder, &index_name(segment.first));
        let open = || {
            let index = IndexFile::open(disk, &file, None);
            let index = index.filter(|index| index.is_of(segment));
            index.map(Rc::new).ok_or_else(|| io::Error::other("it is missing or damaged"))
        };
        let index = keep_open(&mut self.indexes.borrow_mut(), segment.first, open).cloned();
        index.and_then(|index| read(&index)).map_err(|error| {
            self.lost.borrow_mut().insert(id);
            named(&file, &error)
        })
    }

    /// Returns where the records `from` to `last` of a segment are in its file, and the entry with
    /// which that part begins: not later than `from`.
    pub(super) fn extent<D: Disk<File = F>>(
        &self,
        disk: &D,
        segment: &Segment,
        from: Index,
        last: Index,
    ) -> io::Result<(Index, Range<u64>)> {
        let Offsets::Filed(_) = segment.offsets else {
            return Ok((from, segment.offset(from)..segment.offset(last.next())));
        };
        let points = self.points(disk, segment)?;
        let entry = |index: Index| (index.0 - segment.first.0) as u32;
        let (begin, start) = floor(&points, entry(from));
        let after = points.partition_point(|(at, _)| *at <= entry(last));
        let end = points.get(after).map_or(segment.end, |(_, offset)| u64::from(*offset));
        Ok((Index(segment.first.0 + u64::from(begin)), u64::from(start)..end))
    }

    /// See [`Log::last_within`], for a segment with an index file.
    pub(super) fn last_filed<D: Disk<File = F>>(
        &self,
        disk: &D,
        segment: &Segment,
        from: Index,
        bytes_max: u64,
    ) -> io::Result<Index> {
        let points = self.points(disk, segment)?;
        let (_, start) = floor(&points, (from.0 - segment.first.0) as u32);
        let end = u64::from(start) + bytes_max;
        if segment.end <= end {
            return Ok(segment.next().before());
        }
        let within = points.partition_point(|(_, offset)| u64::from(*offset) <= end);
        let next = within.checked_sub(1).map_or(0, |at| points[at].0);
        Ok(Index(segment.first.0 + u64::from(next)).before())
    }

    /// Returns the points of a segment. If its index file is lost, the segment itself is read for
    /// them, and those of the last such segment are remembered.
    fn points<D: Disk<File = F>>(&self, disk: &D, segment: &Segment) -> io::Result<Points> {
        if let Ok(points) = self.with_index(disk, segment, |index| index.points(disk)) {
            return Ok(points);
        }
        let mut scanned = self.scanned.borrow_mut();
        if let Some((_, points)) = scanned.as_ref().filter(|(of, _)| *of == segment.first) {
            return Ok(Rc::clone(points));
        }
        let offsets = self.find_offsets(disk, segment);
        let offsets = offsets.inspect_err(|_| self.suspect(segment))?;
        let points: Points = (0..).zip(offsets).collect();
        *scanned = Some((segment.first, Rc::clone(&points)));
        Ok(points)
    }

    /// See [`Archive::first_received`](crate::mailbox::Archive::first_received).
    pub(super) fn first_received<D: Disk<File = F>>(
        &self,
        disk: &D,
        segment: SegmentId,
        account: Index,
    ) -> io::Result<u64> {
        self.with_index(disk, self.segment(segment)?, |index| {
            let row = index.find(disk, account)?;
            let row = row.ok_or_else(|| io::Error::other("it lacks an account"))?;
            Ok(row.first(List::Received))
        })
    }

    /// See [`Archive::read_messages`](crate::mailbox::Archive::read_messages).
    pub(super) fn read_messages<D: Disk<File = F>>(
        &self,
        disk: &D,
        newest: SegmentId,
        (account, list): (Index, List),
        from: u64,
        visit: &mut Visit<'_>,
    ) -> io::Result<()> {
        let (id, row) = self.find_row(disk, newest, account, list, from)?;
        let segment = self.segment(id)?;
        let mut number = from;
        if number >= row.next(list) {
            return Err(io::Error::other("an index lacks a message"));
        }
        while number < row.next(list) {
            let offsets = self.with_index(disk, segment, |index| {
                index.offsets(disk, &row, list, number, MESSAGES_PER_STEP)
            })?;
            let mut rest = &offsets[..];
            while !rest.is_empty() {
                let (near, far) = rest.split_at(near(rest));
                let read = self.read_near(disk, segment, near, &mut number, visit);
                if !read.inspect_err(|_| self.suspect(segment))? {
                    return Ok(());
                }
                rest = far;
            }
        }
        Ok(())
    }

    /// Finds the row of an account in the segment that holds a message.
    fn find_row<D: Disk<File = F>>(
        &self,
        disk: &D,
        newest: SegmentId,
        account: Index,
        list: List,
        number: u64,
    ) -> io::Result<(SegmentId, Row)> {
        let find = |id: SegmentId| -> io::Result<(SegmentId, Row)> {
            let row = self.with_index(disk, self.segment(id)?, |index| {
                let row = index.find(disk, account)?;
                row.ok_or_else(|| io::Error::other("it lacks an account"))
            });
            row.map(|row| (id, row))
        };
        let mut at = find(newest)?;
        'search: while at.1.first(list) > number {
            // The farthest one that still lies after the message, or the one before it.
            let [near, far] = at.1.earlier.skips;
            for skip in [far, near].into_iter().flatten() {
                let skipped = find(skip)?;
                if skipped.1.first(list) > number {
                    at = skipped;
                    continue 'search;
                }
            }
            let previous = at.1.earlier.previous;
            at = find(previous.ok_or_else(|| io::Error::other("an index lacks a message"))?)?;
        }
        Ok(at)
    }

    /// Reads the messages at these offsets, which are near each other. Returns whether `visit`
    /// wants more.
    fn read_near<D: Disk<File = F>>(
        &self,
        disk: &D,
        segment: &Segment,
        offsets: &[(u32, u32)],
        number: &mut u64,
        visit: &mut Visit<'_>,
    ) -> io::Result<bool> {
        let [start, last] = [offsets[0], offsets[offsets.len() - 1]].map(|at| u64::from(at.0));
        let mut piece = self.read(disk, segment, start..last + GUESS_BYTES)?;
        let tail = &piece[piece.len().min((last - start) as usize)..];
        let length = if tail.len() < 4 { 0 } else { u64::from(LE::read_u32(tail)) };
        if (GUESS_BYTES..=RECORD_BYTES_MAX as u64).contains(&length) {
            piece = self.read(disk, segment, start..last + length)?;
        }
        for (offset, rank) in offsets {
            let bytes = piece.get((u64::from(*offset) - start) as usize..).unwrap_or(&[]);
            let record = Record::parse(bytes).map_err(|why| {
                segment::damaged(&path(&self.folder, segment.first), (*offset).into(), why.as_str())
            })?;
            *number += 1;
            if !visit(*number - 1, *rank, &record) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes files that belong to no segment: those that a crash has left unfinished, and index
    /// files of segments that an operator has moved. Notes the index files that are missing.
    pub(super) fn tidy<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<()> {
        let names = self.segments.iter().map(|segment| index_name(segment.first));
        let own: BTreeSet<String> = names.collect();
        let found = disk.list(&self.folder)?;
        let held: BTreeSet<&String> = found.iter().collect();
        for at in 0..self.indexed().len() {
            if !held.contains(&index_name(self.segments[at].first)) {
                self.note_lost(segment_id(at));
            }
        }
        for name in found {
            let is_index = name.ends_with(".idx") && !own.contains(&name);
            if is_index || name.ends_with(".new") {
                disk.remove(&join(&self.folder, &name))?;
            }
        }
        Ok(())
    }

    /// Removes the index files of all segments that a cut after `last` changes.
    pub(super) fn remove_indexes<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        last: Index,
    ) -> io::Result<()> {
        let (kept, mut any) = (self.segment_of(last), false);
        self.indexes.get_mut().clear();
        *self.scanned.get_mut() = None;
        for at in (kept..self.segments.len()).rev() {
            match disk.remove(&join(&self.folder, &index_name(self.segments[at].first))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => {
                    removed?;
                    any = true;
                }
            }
        }
        if any {
            disk.sync_folder(&self.folder)?;
        }
        // It becomes the active one.
        let offsets = match &self.segments[kept].offsets {
            Offsets::Growing(_) => {
                self.segments[kept].summary = None;
                return Ok(());
            }
            Offsets::Known(offsets) => offsets.to_vec(),
            Offsets::Filed(_) => self.find_offsets(disk, &self.segments[kept])?,
        };
        self.segments[kept].offsets = Offsets::Growing(offsets);
        self.segments[kept].summary = None;
        Ok(())
    }

    /// Reads the log up to an entry for its summary.
    pub(super) fn read_summary<D: Disk<File = F>>(
        &self,
        disk: &D,
        through: Index,
    ) -> io::Result<LogSummary> {
        let kept = self.segment_of(through);
        let by_index = |at: usize| {
            let summary = self.with_index(disk, &self.segments[at], |index| index.summary(disk));
            summary.ok().map(|summary| (at + 1, summary))
        };
        let whole = || (0, LogSummary::after(self.segments[0].first.before()));
        let (begin, mut summary) = (0..kept).rev().find_map(by_index).unwrap_or_else(whole);
        let (mut last, mut pushed) = (summary.last(), Ok(()));
        for segment in &self.segments[begin..=kept] {
            let path = path(&self.folder, segment.first);
            segment::scan(disk, &path, segment.end, &mut last, |record| {
                if pushed.is_ok() && record.index <= through {
                    pushed = summary.push(record);
                }
            })?;
        }
        pushed.map(|()| summary).map_err(io::Error::other)
    }

    /// Reads a segment to find where its records begin.
    fn find_offsets<D: Disk<File = F>>(&self, disk: &D, segment: &Segment) -> io::Result<Vec<u32>> {
        let Segment { first, end, .. } = *segment;
        let mut last = Place::after(first.before()).last;
        segment::scan(disk, &path(&self.folder, first), end, &mut last, |_| ())
    }
}

/// Returns the last point that is not after an entry.
fn floor(points: &[(u32, u32)], entry: u32) -> (u32, u32) {
    points[points.partition_point(|(at, _)| *at <= entry).max(1) - 1]
}

/// Returns how many of the messages at these offsets, the first ones, are read at once.
fn near(offsets: &[(u32, u32)]) -> usize {
    let far = |at: &usize| {
        offsets[*at].0 - offsets[*at - 1].0 > GAP_BYTES
            || (offsets[*at].0 - offsets[0].0) as usize + RECORD_BYTES_MAX > FILE_PIECE_BYTES
    };
    (1..offsets.len()).find(far).unwrap_or(offsets.len())
}
