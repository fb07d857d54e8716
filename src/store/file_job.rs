//! Jobs that make index files and checkpoints, for another thread than that of the event loop.

use super::base::{self, Base, Broken, Files, segment_id};
use super::checkpoint::{self, Sealed, Writer};
use super::compact::Compact;
use super::disk::{Disk, join};
use super::index_write::{self, Contents};
use super::rewrite::{NewSegment, Rewritten, Step, new_path};
use super::scrub::{Verified, Verify};
use super::segment::{self, Seal, index_name, path};
use crate::ids::{Index, SegmentId};
use crate::limits::{FILE_PIECE_BYTES, SEGMENT_BYTES};
use crate::mailbox::{Mailboxes, Part};
use crate::replica::LogSummary;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Files to make from others, in the background.
#[derive(Debug)]
pub enum FileJob {
    /// The index file of a sealed segment whose entries are all applied.
    Index(MakeIndex),
    /// Those index files that are missing or damaged. What they list depends on everything that
    /// was stored before, so a part of the log is applied once more.
    LostIndexes(Box<RemakeIndexes>),
    /// The next checkpoint.
    Checkpoint(MakeCheckpoint),
    /// Nothing: a part of a sealed segment is read, to see whether it is damaged.
    Verify(Verify),
    /// A sealed segment, anew.
    Rewrite(Step),
    /// A sealed segment, without the messages that no mailbox keeps.
    Compact(Compact),
}

/// What a job has done.
#[derive(Debug)]
pub enum JobDone {
    /// It has made its files.
    Made,
    /// See [`FileJob::Verify`]. The number of the segment, and what it is like.
    Verified(SegmentId, Verified),
    /// See [`FileJob::Rewrite`].
    Rewritten(Rewritten),
    /// See [`FileJob::Compact`]. `None`: there is too little to free.
    Compacted(Option<NewSegment>),
}

/// A file that is missing or damaged, and can be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The checkpoint.
    Checkpoint,
    /// The index file of this segment.
    Index(SegmentId),
}

/// Why a job has failed.
#[derive(Debug)]
pub struct JobError {
    /// The file that the job could not read, if it is one that can be made again.
    pub lost: Option<Lost>,
    /// What was wrong.
    pub error: io::Error,
}

impl From<io::Error> for JobError {
    fn from(error: io::Error) -> JobError {
        JobError { lost: None, error }
    }
}

impl From<Broken> for JobError {
    fn from(broken: Broken) -> JobError {
        let (lost, error) = match broken {
            Broken::Checkpoint(error) => (Some(Lost::Checkpoint), error),
            Broken::Index(id, error) => (Some(Lost::Index(id)), error),
            Broken::Output(error) => (None, error),
        };
        JobError { lost, error }
    }
}

impl FileJob {
    /// Returns about how many bytes the largest file has that the job makes.
    pub fn bytes(&self) -> u64 {
        match self {
            FileJob::Index(MakeIndex { offsets, part, .. }) => {
                let messages = offsets.len() as u64 * 12;
                messages + part.blocks.len() as u64 * 50 + FILE_PIECE_BYTES as u64
            }
            // A file is smaller than its segment.
            FileJob::LostIndexes(_) => SEGMENT_BYTES,
            FileJob::Checkpoint(checkpoint) => checkpoint.bytes,
            // A compaction looks for room by itself.
            FileJob::Verify(_) | FileJob::Compact(_) => 0,
            FileJob::Rewrite(step) => 2 * step.rewrite.segment.end,
        }
    }

    /// The path of the segment that the job compacts.
    #[cfg(feature = "simulate")]
    pub fn compacted(&self) -> Option<String> {
        let FileJob::Compact(Compact { segment, .. }) = self else { return None };
        Some(path(&segment.folder, segment.first))
    }

    /// Makes the files, unless `is_cancelled` returns true between two segments. They are durable
    /// on return.
    ///
    /// # Errors
    /// When the disk fails, or what the files are made from is damaged. A file may exist in part,
    /// under another name.
    pub fn run<D: Disk>(
        self,
        disk: &D,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<JobDone, JobError> {
        match self {
            FileJob::Index(MakeIndex { folder, seal, offsets, part, summary, secret_mark }) => {
                let (offsets, part, summary) = (&offsets[..], &*part, &summary);
                let contents = Contents { seal, offsets, part, summary, secret_mark };
                put_index(disk, &folder, &contents)?;
            }
            FileJob::LostIndexes(remake) => remake.run(disk, is_cancelled)?,
            FileJob::Checkpoint(make) => make.run(disk)?,
            FileJob::Verify(verify) => {
                return Ok(JobDone::Verified(verify.segment.id, verify.run(disk)?));
            }
            FileJob::Compact(compact) => return Ok(JobDone::Compacted(compact.run(disk)?)),
            FileJob::Rewrite(step) => return Ok(JobDone::Rewritten(step.run(disk)?)),
        }
        Ok(JobDone::Made)
    }
}

/// See [`FileJob::Index`].
#[derive(Debug)]
pub struct MakeIndex {
    pub(super) folder: String,
    pub(super) seal: Seal,
    pub(super) offsets: Arc<Vec<u32>>,
    pub(super) part: Arc<Part>,
    pub(super) summary: LogSummary,
    pub(super) secret_mark: u64,
}

/// See [`FileJob::LostIndexes`].
#[derive(Debug)]
pub struct RemakeIndexes {
    pub(super) folder: String,
    /// All segments up to the last one that lacks its file.
    pub(super) segments: Vec<Sealed>,
    pub(super) lost: BTreeSet<SegmentId>,
    /// The state before the first entry.
    pub(super) mailboxes: Mailboxes,
}

/// See [`FileJob::Checkpoint`].
#[derive(Debug)]
pub struct MakeCheckpoint {
    pub(super) folder: String,
    /// The first entries of the segments that have index files, and of the next one.
    pub(super) names: Vec<Index>,
    /// The last checkpoint is damaged.
    pub(super) begins_anew: bool,
    pub(super) secret_mark: u64,
    /// About how many bytes the checkpoint has.
    pub(super) bytes: u64,
}

/// Makes a file in place of an earlier one, durably.
fn replace<D: Disk, E: From<io::Error>>(
    disk: &D,
    path: &str,
    folder: &str,
    write: impl FnOnce(&str) -> Result<(), E>,
) -> Result<(), E> {
    let new = new_path(path);
    let written = write(&new);
    if written.is_err() {
        // What was written would fill the disk until the next try.
        let _ = disk.remove(&new);
    }
    written?;
    Ok(disk.rename(&new, path).and_then(|()| disk.sync_folder(folder))?)
}

/// Makes the index file of a segment.
fn put_index<D: Disk>(disk: &D, folder: &str, contents: &Contents<'_>) -> io::Result<()> {
    let path = join(folder, &index_name(contents.seal.first));
    replace(disk, &path, folder, |new| index_write::write(disk, new, contents))
}

impl MakeCheckpoint {
    fn run<D: Disk>(self, disk: &D) -> Result<(), JobError> {
        let MakeCheckpoint { folder, names, begins_anew, secret_mark, .. } = self;
        let begin = begins_anew.then_some(0);
        let files = Files::open(disk, &folder, &names, begin, secret_mark);
        let place = files.place(None)?.filter(|_| files.has_indexes());
        let Some(place) = place else {
            let lost = Some(Lost::Index(segment_id(files.segments())));
            return Err(JobError { lost, error: io::ErrorKind::NotFound.into() });
        };
        replace(disk, checkpoint::FILE, ".", |new| {
            let mut writer = Writer::create(disk, new, &place)?;
            files.read(Vec::new(), &mut writer)?;
            Ok(writer.finish()?)
        })
    }
}

impl RemakeIndexes {
    fn run<D: Disk>(self, disk: &D, is_cancelled: impl Fn() -> bool) -> Result<(), JobError> {
        self.remake(disk, None, is_cancelled)
    }

    /// Makes the index file of the last segment, under another name. The segment is written anew,
    /// and has another name, too.
    pub(super) fn run_new<D: Disk>(self, disk: &D) -> Result<(), JobError> {
        let last = segment_id(self.segments.len() - 1);
        self.remake(disk, Some(last), || false)
    }

    fn remake<D: Disk>(
        mut self,
        disk: &D,
        new: Option<SegmentId>,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<(), JobError> {
        let first = self.lost.first().map_or(0, |id| id.number() as usize - 1);
        let (mut begin, mut summary) = (0, LogSummary::default());
        if let Some(base) = base::load(disk, &self.folder, &self.mailboxes, first)? {
            begin = base.segments.len();
            Base { summary, mailboxes: self.mailboxes, .. } = base;
        }
        for (at, sealed) in self.segments.iter().enumerate().skip(begin) {
            if is_cancelled() {
                return Err(io::Error::from(io::ErrorKind::Interrupted).into());
            }
            let id = segment_id(at);
            self.mailboxes.begin_segment(id, sealed.first);
            let is_new = new == Some(id);
            let path = path(&self.folder, sealed.first);
            let path = if is_new { new_path(&path) } else { path };
            let applied = apply(disk, &path, *sealed, &mut self.mailboxes, &mut summary);
            // The segment itself is damaged.
            let damaged = |error| JobError { lost: Some(Lost::Index(id)), error };
            let (offsets, seal) = applied.map_err(damaged)?;
            summary.settle(seal.last_index());
            self.mailboxes.begin_segment(segment_id(at + 1), seal.last_index().next());
            if self.lost.contains(&id) {
                let part = self.mailboxes.unindexed().expect("a segment has just ended");
                let secret_mark = self.mailboxes.secret_mark();
                let (offsets, summary) = (&offsets[..], &summary);
                let contents = Contents { seal, offsets, part, summary, secret_mark };
                if is_new {
                    let index = join(&self.folder, &index_name(sealed.first));
                    index_write::write(disk, &new_path(&index), &contents)?;
                } else {
                    put_index(disk, &self.folder, &contents)?;
                }
            }
            self.mailboxes.forget_indexed();
        }
        Ok(())
    }
}

/// Applies a segment, which `path` holds. Returns the offsets of its records, and describes it.
fn apply<D: Disk>(
    disk: &D,
    path: &str,
    Sealed { first, end }: Sealed,
    mailboxes: &mut Mailboxes,
    summary: &mut LogSummary,
) -> io::Result<(Vec<u32>, Seal)> {
    let (mut last, mut last_checksum) = (summary.last(), 0);
    let mut pushed = Ok(());
    let offsets = segment::scan(disk, path, end, &mut last, |record| {
        last_checksum = segment::checksum_of(record);
        if pushed.is_ok() {
            pushed = summary.push(record);
        }
        let _ = mailboxes.apply_record(record);
    })?;
    pushed.map_err(|why| segment::damaged(path, 0, why))?;
    let entries = offsets.len() as u64;
    let last = *offsets.last().ok_or_else(|| segment::damaged(path, 0, "it holds no entry"))?;
    Ok((offsets, Seal { first, entries, end, last, last_checksum }))
}
