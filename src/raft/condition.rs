//! The condition of this server itself: whether it is stopping, and the health of its disk.

use crate::limits::{DAMAGED_TIME, SLOW_SYNCS, SLOW_WINDOW};
use crate::time::Moment;
use std::time::Duration;

/// The condition of this server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition {
    /// When the server was told to stop. A stopping server never campaigns.
    pub(super) stopping: Option<Moment>,
    /// Its disk is nearly full.
    pub(super) full: bool,
    /// When it last failed to read an entry of its log and, as primary, tried to hand over
    /// because of that.
    pub(super) damaged: Option<Moment>,
    /// A part of its log is known to be damaged, and not repaired yet. Such a server never
    /// campaigns.
    pub(super) lacks_entries: bool,
    /// When the sync that is under way began.
    pub(super) sync_began: Option<Moment>,
    /// When recent syncs ended that took more than half a peer timeout.
    slow_syncs: Vec<Moment>,
    /// When this server last handed its role over because of slow syncs.
    pub(super) handed_over: Option<Moment>,
}

impl Condition {
    pub(super) fn stop(&mut self, now: Moment) -> bool {
        let first = self.stopping.is_none();
        self.stopping.get_or_insert(now);
        first
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Records that an entry of the log can't be read. Returns whether that is news: it is at
    /// most once a minute.
    pub(super) fn note_damage(&mut self, now: Moment) -> bool {
        let due = self.damaged.is_none_or(|since| now >= since + DAMAGED_TIME);
        if due {
            self.damaged = Some(now);
        }
        due
    }

    pub(super) fn note_synced(&mut self, now: Moment, peer_timeout: Duration) {
        if let Some(began) = self.sync_began.take()
            && now - began > peer_timeout / 2
        {
            self.slow_syncs.retain(|at| now < *at + SLOW_WINDOW);
            self.slow_syncs.push(now);
        }
    }

    pub(super) fn is_slow(&self, now: Moment) -> bool {
        self.slow_syncs.iter().filter(|at| now < **at + SLOW_WINDOW).count() >= SLOW_SYNCS
    }

    /// Returns whether a primary may hand its role over now because its syncs are slow: at most
    /// once per peer timeout.
    pub(super) fn may_hand_over_as_slow(&self, now: Moment, peer_timeout: Duration) -> bool {
        self.handed_over.is_none_or(|at| now >= at + peer_timeout) && self.is_slow(now)
    }
}
