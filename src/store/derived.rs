//! What a store has made in the background: index files, checkpoints, and the repair of sealed
//! segments.

use super::base;
use super::checkpoint::Checkpoint;
use super::compact::{Compact, Survey};
use super::disk::Disk;
use super::file_job::{FileJob, Lost, MakeCheckpoint};
use super::log::Segment;
use super::rewrite::{NewSegment, Rewrite, Step};
use super::scrub::{Damage, VerifiedTo, Verify};
use super::{LOG, Store};
use crate::ids::SegmentId;
use crate::limits::{CHECKPOINT_GROWTH, FILE_PIECE_BYTES, MERGED_MAX};
use crate::mailbox::{Mailboxes, Part};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// What is known of the checkpoint.
#[derive(Debug, Default)]
pub(super) struct Checkpointed {
    /// The number of segments that it contains; 0 without one.
    pub(super) segments: usize,
    /// Its size.
    pub(super) bytes: u64,
    /// It is damaged.
    pub(super) is_lost: bool,
    /// It is time for the next one.
    pub(super) is_due: bool,
}

impl Checkpointed {
    /// Reads what a checkpoint that was just made says of itself.
    pub(super) fn find<D: Disk>(disk: &D) -> Checkpointed {
        let Some(found) = Checkpoint::open(disk) else { return Checkpointed::default() };
        let (segments, bytes) = (found.place.segments.len(), found.bytes(disk));
        Checkpointed { segments, bytes, ..Checkpointed::default() }
    }
}

impl<D: Disk> Store<D> {
    /// Returns the job that makes the index file of the sealed segment with these positions;
    /// `None` if the file exists.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn index_job(&mut self, part: &Arc<Part>, secret_mark: u64) -> io::Result<Option<FileJob>> {
        let job = self.log.index_job(&self.disk, part, secret_mark);
        self.plan_checkpoint();
        job
    }

    /// Whether it is time for the next checkpoint.
    pub fn wants_checkpoint(&self) -> bool {
        self.checkpoint.is_due
    }

    pub(super) fn plan_checkpoint(&mut self) {
        let Checkpointed { segments, bytes, .. } = self.checkpoint;
        let new = self.log.indexed().get(segments..).unwrap_or_default();
        let grown: u64 = new.iter().map(|segment| segment.end).sum();
        let is_large = grown >= bytes.saturating_mul(CHECKPOINT_GROWTH);
        self.checkpoint.is_due = !new.is_empty() && (is_large || new.len() >= MERGED_MAX);
    }

    /// Returns the job that makes the next checkpoint, if it is time for one.
    pub fn checkpoint_job(&self, secret_mark: u64) -> Option<FileJob> {
        if !self.wants_checkpoint() {
            return None;
        }
        let indexed = self.log.indexed();
        let Checkpointed { bytes, is_lost, .. } = self.checkpoint;
        let names = indexed.iter().map(|segment| segment.first);
        let names = names.chain(indexed.last().map(Segment::next)).collect();
        let (folder, begins_anew) = (LOG.to_owned(), is_lost);
        let bytes = bytes + FILE_PIECE_BYTES as u64;
        let make = MakeCheckpoint { folder, names, begins_anew, secret_mark, bytes };
        Some(FileJob::Checkpoint(make))
    }

    /// Notes that a checkpoint was made.
    pub fn note_checkpoint(&mut self) {
        self.checkpoint = Checkpointed::find(&self.disk);
        self.plan_checkpoint();
    }

    /// Notes that a file is missing or damaged which can be made again.
    pub fn note_lost(&mut self, lost: Lost) {
        match lost {
            Lost::Checkpoint => self.checkpoint.is_lost = true,
            Lost::Index(id) => self.log.note_lost(id),
        }
    }

    /// Whether a read has found index files missing or damaged.
    pub fn has_lost_indexes(&self) -> bool {
        self.log.has_lost()
    }

    /// Returns the job that makes the index files again which a read has found missing or
    /// damaged, if there are any. `empty` is the state before the first entry.
    pub fn remake_job(&self, empty: impl FnOnce() -> Mailboxes) -> Option<FileJob> {
        self.log.remake_job(empty)
    }

    /// The number of sealed segments that index files list.
    pub fn sealed_segments(&self) -> usize {
        self.log.indexed().len()
    }

    /// Returns the number of the sealed segment at this place, if it has an index file.
    pub fn segment_id(&self, at: usize) -> Option<SegmentId> {
        (at < self.sealed_segments()).then(|| base::segment_id(at))
    }

    /// Whether reads have failed in sealed segments.
    pub fn has_suspects(&self) -> bool {
        self.log.has_suspects()
    }

    /// Returns a sealed segment in which a read has failed, once.
    pub fn take_suspect(&self) -> Option<SegmentId> {
        self.log.take_suspect()
    }

    /// Notes that a sealed segment must be read again.
    pub fn note_suspect(&self, id: SegmentId) {
        self.log.note_suspect(id);
    }

    /// Returns the job that reads about `bytes` bytes of a sealed segment, after `from`; `None`
    /// if the segment has no index file, so that its entries may not be acknowledged.
    pub fn verify_job(
        &self,
        id: SegmentId,
        from: Option<VerifiedTo>,
        bytes: u64,
    ) -> Option<FileJob> {
        let segment = self.log.sealed(id)?;
        Some(FileJob::Verify(Verify { segment, from, bytes }))
    }

    /// Begins to write a sealed segment anew that has this damage.
    pub fn begin_rewrite(&self, damage: Vec<Damage>) -> Option<Rewrite> {
        let segment = self.log.sealed(damage.first()?.id)?;
        Some(Rewrite::new(segment, damage))
    }

    /// Returns the job that goes on with a rewrite, by entries of another server. `empty` is the
    /// state before the first entry.
    pub fn rewrite_job(
        &self,
        rewrite: Rewrite,
        records: Vec<u8>,
        empty: impl FnOnce() -> Mailboxes,
    ) -> FileJob {
        let lost = BTreeSet::from([rewrite.segment.id]);
        let remake = Box::new(self.log.remake(lost, empty()));
        FileJob::Rewrite(Step { rewrite, records, remake })
    }

    /// Returns the job that compacts a sealed segment; `None` if the survey does not reach its end,
    /// or the checkpoint describes that.
    pub fn compact_job(
        &self,
        id: SegmentId,
        survey: &Survey,
        empty: impl FnOnce() -> Mailboxes,
    ) -> Option<FileJob> {
        let segment = self.log.sealed(id)?;
        let is_described = self.checkpoint.segments == id.number() as usize;
        if is_described || segment.next.before() > survey.through {
            return None;
        }
        let remake = Box::new(self.log.remake(BTreeSet::from([id]), empty()));
        let (survey, later) = (survey.clone(), self.log.written_after(id));
        Some(FileJob::Compact(Compact { segment, survey, later, remake }))
    }

    /// Puts a segment that is written anew in the place of the old one, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn put_rewritten(&mut self, new: &NewSegment) -> io::Result<()> {
        // A checkpoint that ends with this segment describes the old one.
        if self.checkpoint.segments == new.id.number() as usize {
            self.checkpoint = Checkpointed { is_lost: true, ..Checkpointed::default() };
            self.plan_checkpoint();
        }
        self.log.put_rewritten(&self.disk, new)
    }

    /// Notes that a remake has ended: what it has not mended is found again by the next read.
    pub fn forget_lost(&mut self) {
        self.log.forget_lost();
    }

    /// Notes that the index file of a segment is durable.
    pub fn note_indexed(&mut self, segment: SegmentId) {
        self.log.note_indexed(segment);
        self.plan_checkpoint();
    }
}
