//! The disk side of a host: the log, the vote, and what of both is not durable yet.

use super::Fail;
use crate::ids::Vote;
use crate::latency::Meter;
use crate::limits::SEAL_TIME;
use crate::replica::Durable;
use crate::store::Store;
use crate::store::disk::Disk;
use crate::time::Moment;

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
    pub(super) syncs: Meter,
}

impl<D: Disk> Storage<D> {
    /// `vote` is the one that is stored.
    pub(super) fn new(store: Store<D>, vote: Vote) -> Storage<D> {
        let (must_flush, must_persist, seal_at) = (false, None, None);
        Storage { store, vote, must_flush, must_persist, seal_at, syncs: Meter::default() }
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

    /// When the storage needs a turn: at once for what the node wants durable.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        if self.has_unstored() { Some(Moment(0)) } else { self.seal_at }
    }
}
