//! The disk side of a host: the log, the vote, and what of both is not durable yet.

use super::Fail;
use crate::ids::{SegmentId, Vote};
use crate::latency::Meter;
use crate::limits::{DAMAGED_TIME, INDEX_RETRY_TIME, SEAL_TIME, SPACE_RESERVED};
use crate::node::Node;
use crate::replica::Durable;
use crate::store::disk::Disk;
use crate::store::{IndexJob, Store};
use crate::time::Moment;
use std::io;

/// What index files a job makes.
#[derive(Clone, Copy, Debug)]
enum Indexing {
    /// That of a segment that never had one.
    New(SegmentId),
    /// Those that are lost.
    Lost,
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
    /// The index files that are being made.
    indexing: Option<Indexing>,
    /// When to make the next one.
    index_at: Moment,
    pub(super) syncs: Meter,
}

impl<D: Disk> Storage<D> {
    /// `vote` is the one that is stored.
    pub(super) fn new(store: Store<D>, vote: Vote) -> Storage<D> {
        Storage {
            store,
            vote,
            must_flush: false,
            must_persist: None,
            seal_at: None,
            indexing: None,
            index_at: Moment(0),
            syncs: Meter::default(),
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

    /// When to begin to make an index file, if a segment lacks its own.
    pub(super) fn index_deadline(&self, node: &Node) -> Option<Moment> {
        let lacks = node.unindexed().is_some() || self.store.has_lost_indexes();
        (lacks && self.indexing.is_none()).then_some(self.index_at)
    }

    /// Returns the next job that makes index files, if it is time for one.
    pub(super) fn next_index(
        &mut self,
        now: Moment,
        node: &mut Node,
    ) -> Result<Option<IndexJob>, Fail> {
        if self.index_deadline(node).is_none_or(|at| now < at) {
            return Ok(None);
        }
        let (indexing, job) = if let Some(part) = node.unindexed() {
            let job = self.store.index_job(part);
            match job.map_err(|error| Fail::Io("an index file", error))? {
                Some(job) => (Indexing::New(part.segment), job),
                None => {
                    node.forget_indexed();
                    return Ok(None);
                }
            }
        } else if let Some(job) = self.store.remake_job(|| node.empty_mailboxes()) {
            (Indexing::Lost, job)
        } else {
            return Ok(None);
        };
        // A disk that does not tell fails when it is written.
        let free = self.store.disk().free_bytes().unwrap_or(u64::MAX);
        if free < SPACE_RESERVED.saturating_add(job.bytes()) {
            self.index_at = now + INDEX_RETRY_TIME;
            return Ok(None);
        }
        if let Indexing::Lost = indexing {
            log::warn!("index files are missing or damaged: they are made again from the log");
        }
        self.indexing = Some(indexing);
        Ok(Some(job))
    }

    /// Notes how a job has ended. On a full disk it is tried again later.
    pub(super) fn on_indexed(
        &mut self,
        now: Moment,
        node: &mut Node,
        made: io::Result<()>,
    ) -> Result<(), Fail> {
        let indexing = self.indexing.take().expect("an index file was being made");
        match (indexing, made) {
            (Indexing::New(segment), Ok(())) => {
                self.store.note_indexed(segment);
                node.forget_indexed();
            }
            (Indexing::Lost, Ok(())) => {
                log::info!("index files that were lost are made again");
                self.store.forget_lost();
            }
            (_, Err(error)) if is_full(&error) => {
                self.index_at = now + INDEX_RETRY_TIME;
            }
            (Indexing::New(_), Err(error)) => return Err(Fail::Io("an index file", error)),
            (Indexing::Lost, Err(error)) => {
                log::error!("index files are lost and can't be made again: {error}");
                self.store.forget_lost();
                self.index_at = now + DAMAGED_TIME;
            }
        }
        Ok(())
    }

    /// When the storage needs a turn: at once for what the node wants durable.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        if self.has_unstored() { Some(Moment(0)) } else { self.seal_at }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
