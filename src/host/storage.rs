//! The disk side of a host: the log, the vote, and what of both is not durable yet.

use super::care::{Care, CareJob};
use super::compaction::Compaction;
use super::{Fail, ScrubSettings};
use crate::ids::{SegmentId, Vote};
use crate::latency::Meter;
use crate::limits::{DAMAGED_TIME, JOB_RETRY_TIME, SEAL_TIME, SPACE_RESERVED};
use crate::node::{Node, Wanted};
use crate::replica::Durable;
use crate::store::disk::Disk;
use crate::store::{FileJob, JobDone, JobError, Lost, Store};
use crate::time::{Moment, WallTime};
use std::io;

/// What a job makes.
#[derive(Clone, Copy, Debug)]
enum Making {
    /// The index file of a segment that never had one.
    Index(SegmentId),
    /// The index files that are lost.
    LostIndexes,
    Checkpoint,
    /// A segment without what no mailbox keeps.
    Compaction,
    /// Nothing, or what is damaged.
    Care(CareJob),
}

/// A store, and when what must be written to it.
#[derive(Debug)]
pub(super) struct Storage<D: Disk> {
    pub(super) store: Store<D>,
    /// The vote that is durable.
    pub(super) vote: Vote,
    /// The turn ends with a sync of what it appended.
    pub(super) must_flush: bool,
    /// The turn ends with a sync of this vote.
    pub(super) must_persist: Option<Vote>,
    /// When to seal the last batch, or to save what was seen of other servers.
    seal_at: Option<Moment>,
    /// What is being made.
    making: Option<Making>,
    /// When the next job may begin.
    job_at: Moment,
    pub(super) syncs: Meter,
    pub(super) care: Care,
    compaction: Compaction,
    /// What the node was told of damage.
    told: (bool, Option<Wanted>),
}

impl<D: Disk> Storage<D> {
    /// `vote` is the one that is stored.
    pub(super) fn new(store: Store<D>, vote: Vote, scrub: ScrubSettings) -> Storage<D> {
        Storage {
            store,
            vote,
            must_flush: false,
            must_persist: None,
            seal_at: None,
            making: None,
            job_at: Moment(0),
            syncs: Meter::default(),
            care: Care::new(scrub),
            compaction: Compaction::new(),
            told: (false, None),
        }
    }

    /// Whether the turn must not end without a sync.
    pub(super) fn has_unstored(&self) -> bool {
        self.has_unsynced() || self.must_persist.is_some()
    }

    fn has_unsynced(&self) -> bool {
        self.must_flush && self.store.has_unwritten()
    }

    /// Forgets a sync that has nothing to write: what is appended later asks for its own.
    pub(super) fn skip_empty_flush(&mut self) {
        self.must_flush = self.has_unsynced();
    }

    /// Stores the vote that the turn has given.
    pub(super) fn store_vote(&mut self) -> Result<(), Fail> {
        if let Some(vote) = self.must_persist.take() {
            self.store.persist(vote).map_err(|error| Fail::Io("the vote", error))?;
            self.vote = vote;
        }
        Ok(())
    }

    /// Stores what the turn has appended, with one write and one sync; whether there was anything.
    pub(super) fn store_log(&mut self) -> Result<bool, Fail> {
        let flush = self.has_unsynced();
        self.must_flush = false;
        if flush {
            self.store.flush().map_err(|error| Fail::Io("the log", error))?;
        }
        Ok(flush)
    }

    /// What is durable now.
    pub(super) fn mark(&self) -> Durable {
        Durable { last: self.store.stored(), vote: self.vote }
    }

    /// Plans the next seal.
    pub(super) fn seal_soon(&mut self, now: Moment) {
        // What was seen of others is saved in time, whatever goes on.
        let due = self.seal_at.filter(|_| self.store.has_unsaved());
        let at = due.unwrap_or(now + SEAL_TIME);
        self.seal_at = self.store.has_unsealed().then_some(at);
    }

    /// Seals the log, if it is time.
    pub(super) fn keep_seal(&mut self, now: Moment) -> Result<(), Fail> {
        if self.seal_at.is_some_and(|at| at <= now) {
            self.seal_at = None;
            self.seal()?;
        }
        Ok(())
    }

    /// Makes everything durable that may be lost without harm.
    pub(super) fn seal(&mut self) -> Result<(), Fail> {
        self.store.seal().map_err(|error| Fail::Io("the log", error))
    }

    /// When to begin the next job, if there is something to make.
    pub(super) fn job_deadline(&self, node: &Node) -> Option<Moment> {
        let lacks = node.unindexed().is_some()
            || self.store.has_lost_indexes()
            || self.store.wants_checkpoint();
        let care = self.care.deadline(&self.store);
        let compaction = self.compaction.deadline(node, &self.store);
        let compaction = compaction.filter(|_| self.may_compact());
        let lacks = lacks.then_some(self.job_at);
        let at = [lacks, care, compaction].into_iter().flatten().min();
        at.filter(|_| self.making.is_none())
    }

    /// What the node must be told of damage, if that has changed.
    pub(super) fn damage_news(&mut self, now: Moment) -> Option<(bool, Option<Wanted>)> {
        let news = (self.care.is_damaged(), self.care.wanted(now));
        let is_new = news != self.told;
        self.told = news;
        is_new.then_some(news)
    }

    /// When the node must be told that entries are needed again.
    pub(super) fn repair_deadline(&self) -> Option<Moment> {
        self.care.retry_at().filter(|_| self.told.1.is_none())
    }

    /// Returns the next job, if it is time for one.
    pub(super) fn next_job(
        &mut self,
        now: Moment,
        node: &mut Node,
    ) -> Result<Option<FileJob>, Fail> {
        if self.job_deadline(node).is_none_or(|at| now < at) {
            return Ok(None);
        }
        if let Some((rewrite, records)) = self.care.next_rewrite(now, &self.store) {
            let empty = || node.mailboxes().emptied();
            let job = self.store.rewrite_job(rewrite, records, empty);
            if !self.has_room(&job) {
                self.care.postpone_repair(now + JOB_RETRY_TIME);
                return Ok(None);
            }
            self.making = Some(Making::Care(CareJob::Rewrite));
            return Ok(Some(job));
        }
        if let Some((making, job)) = self.care.suspect_job(now, &self.store) {
            self.making = Some(Making::Care(making));
            return Ok(Some(job));
        }
        if now < self.job_at {
            return Ok(self.spare_job(now, node));
        }
        let secret_mark = node.mailboxes().secret_mark();
        let (making, job) = if let Some(part) = node.unindexed() {
            let job = self.store.index_job(part, secret_mark);
            match job.map_err(|error| Fail::Io("an index file", error))? {
                Some(job) => (Making::Index(part.segment), job),
                None => {
                    node.forget_indexed();
                    return Ok(None);
                }
            }
        } else if let Some(job) = self.store.remake_job(|| node.mailboxes().emptied()) {
            (Making::LostIndexes, job)
        } else if let Some(job) = self.store.checkpoint_job(secret_mark) {
            (Making::Checkpoint, job)
        } else {
            return Ok(self.spare_job(now, node));
        };
        if !self.has_room(&job) {
            self.job_at = now + JOB_RETRY_TIME;
            return Ok(None);
        }
        if let Making::LostIndexes = making {
            log::warn!("index files are missing or damaged: they are made again from the log");
        }
        self.making = Some(making);
        Ok(Some(job))
    }

    fn has_room(&self, job: &FileJob) -> bool {
        self.free_bytes() >= SPACE_RESERVED.saturating_add(job.bytes())
    }

    /// The free space. A disk that does not tell fails when it is written.
    fn free_bytes(&self) -> u64 {
        self.store.disk().free_bytes().unwrap_or(u64::MAX)
    }

    /// Whether all sealed segments and their index files are sound, as far as is known.
    fn may_compact(&self) -> bool {
        !self.care.is_damaged() && !self.store.has_lost_indexes() && !self.store.has_suspects()
    }

    /// Returns the next job that can wait: one that frees space, or reads for damage.
    fn spare_job(&mut self, now: Moment, node: &mut Node) -> Option<FileJob> {
        let job = match self.may_compact() {
            true => self.compaction.next_job(now, node, &self.store),
            false => None,
        };
        let Some(job) = job else { return self.scrub(now) };
        self.making = Some(Making::Compaction);
        Some(job)
    }

    /// Returns the job that reads the next part of sealed segments, if it is time for that.
    fn scrub(&mut self, now: Moment) -> Option<FileJob> {
        let (making, job) = self.care.scrub_job(now, &self.store)?;
        self.making = Some(Making::Care(making));
        Some(job)
    }

    /// Notes how a job has ended. On a full disk it is tried again later.
    pub(super) fn on_made(
        &mut self,
        (now, wall): (Moment, WallTime),
        node: &mut Node,
        made: Result<JobDone, JobError>,
    ) -> Result<(), Fail> {
        let making = self.making.take().expect("a job has begun");
        match (making, made) {
            (Making::Care(job), done) => self.on_cared((now, wall), job, done),
            (Making::Index(segment), Ok(_)) => {
                self.store.note_indexed(segment);
                node.forget_indexed();
            }
            (Making::LostIndexes, Ok(_)) => {
                log::info!("index files that were lost are made again");
                self.store.forget_lost();
            }
            (Making::Checkpoint, Ok(_)) => self.store.note_checkpoint(),
            (Making::Compaction, done) => self.on_compacted(now, done),
            (_, Err(JobError { lost: None, error })) if is_full(&error) => {
                self.job_at = now + JOB_RETRY_TIME;
            }
            (Making::Index(_), Err(JobError { error, .. })) => {
                return Err(Fail::Io("an index file", error));
            }
            (Making::LostIndexes, Err(JobError { error, lost })) => {
                log::error!("index files are lost and can't be made again: {error}");
                self.suspect(lost);
                self.store.forget_lost();
                self.job_at = now + DAMAGED_TIME;
            }
            (Making::Checkpoint, Err(JobError { error, lost })) => {
                log::warn!("no checkpoint can be made: {error}");
                self.suspect(lost);
                lost.into_iter().for_each(|lost| self.store.note_lost(lost));
                self.job_at = now + DAMAGED_TIME;
            }
        }
        Ok(())
    }

    /// Has the segment read whose index file could not be used, or made: the segment itself may be
    /// damaged.
    fn suspect(&self, lost: Option<Lost>) {
        if let Some(Lost::Index(id)) = lost {
            self.store.note_suspect(id);
        }
    }

    /// Puts a compacted segment in the place of the old one.
    fn on_compacted(&mut self, now: Moment, done: Result<JobDone, JobError>) {
        let put = done.and_then(|done| match done {
            JobDone::Compacted(Some(new)) => {
                let before = self.store.log_bytes();
                self.store.put_rewritten(&new)?;
                let (id, freed) = (new.id.number(), before.saturating_sub(self.store.log_bytes()));
                log::info!("segment {id} of the log is compacted: {freed} bytes are freed");
                Ok(())
            }
            _ => Ok(()),
        });
        if let Err(JobError { error, lost }) = put {
            log::warn!("the log can't be compacted: {error}");
            match lost {
                // The round goes on when that segment is read again, and mended.
                Some(_) => self.suspect(lost),
                None => self.compaction.on_failed(now),
            }
        }
    }

    /// Notes how a job of the care has ended.
    fn on_cared(
        &mut self,
        times: (Moment, WallTime),
        job: CareJob,
        done: Result<JobDone, JobError>,
    ) {
        match done {
            Ok(JobDone::Verified(id, verified)) => {
                if self.care.on_verified(times, job, id, verified, &self.store) {
                    self.store.note_lost(Lost::Index(id));
                }
            }
            Ok(JobDone::Rewritten(rewritten)) => {
                if let Err(error) = self.care.on_rewritten(rewritten, &mut self.store) {
                    self.on_care_failed(times.0, job, &error);
                }
            }
            Ok(JobDone::Made | JobDone::Compacted(_)) => {}
            Err(JobError { error, .. }) => self.on_care_failed(times.0, job, &error),
        }
    }

    fn on_care_failed(&mut self, now: Moment, job: CareJob, error: &io::Error) {
        log::error!("the log can't be checked or repaired: {error}");
        self.care.on_failed(now, job, &self.store);
    }

    /// When the storage needs a turn: at once for what the node wants durable.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        if self.has_unstored() { Some(Moment(0)) } else { self.seal_at }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
