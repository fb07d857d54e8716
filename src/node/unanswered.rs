//! The changes of clients that are in the log and not yet acknowledged.

use crate::ids::{Index, SessionId};
use crate::limits::UNANSWERED_BYTES_MAX;
use crate::time::Moment;
use std::collections::VecDeque;

/// A change whose client waits for the answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) index: Index,
    pub(super) session: SessionId,
    pub(super) bytes: usize,
    pub(super) taken: Moment,
}

/// The changes in log order, and the sum of their bytes.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    queue: VecDeque<Pending>,
    bytes: usize,
}

impl Unanswered {
    /// Returns whether no more changes are accepted.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= UNANSWERED_BYTES_MAX
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.bytes += pending.bytes;
        self.queue.push_back(pending);
    }

    /// Returns whether a client waits for this entry, and for none before it.
    pub(super) fn awaits(&self, index: Index) -> bool {
        self.queue.front().is_some_and(|pending| pending.index == index)
    }

    /// Removes and returns the change in this entry, if a client waits for it.
    pub(super) fn take(&mut self, index: Index) -> Option<Pending> {
        let pending = self.awaits(index).then(|| self.queue.pop_front()).flatten()?;
        self.bytes -= pending.bytes;
        Some(pending)
    }

    #[cfg(feature = "simulate")]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}
