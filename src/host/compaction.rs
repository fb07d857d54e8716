//! Frees the space of messages that were deleted or forgotten: now and then a round over all sealed
//! segments.

use crate::limits::COMPACTION_TIME;
use crate::node::Node;
use crate::store::disk::Disk;
use crate::store::{FileJob, Store, Survey};
use crate::time::Moment;

/// See the module.
#[derive(Debug)]
pub(super) struct Compaction {
    /// How many messages were removed when the last round began; `None` before the first one.
    seen: Option<u64>,
    /// No round, and no step of one, begins before this.
    due: Moment,
    round: Option<Round>,
}

#[derive(Debug)]
struct Round {
    began: Moment,
    /// What the mailboxes keep, as of its beginning.
    survey: Survey,
    /// The place of the next segment.
    at: usize,
}

/// After a round this goes by, as a multiple of the time that it took: a large log, of which a
/// little is always being removed, must not keep the disk busy.
const PAUSE: u32 = 4;

impl Compaction {
    pub(super) fn new() -> Compaction {
        Compaction { seen: None, due: Moment(0) + COMPACTION_TIME, round: None }
    }

    /// When the next step is due; `None` if there is nothing to free.
    pub(super) fn deadline(&self, node: &Node, store: &Store<impl Disk>) -> Option<Moment> {
        let is_new = self.seen != Some(node.removed()) && store.sealed_segments() > 0;
        (self.round.is_some() || is_new).then_some(self.due)
    }

    /// Returns the next job, if it is time for one.
    pub(super) fn next_job(
        &mut self,
        now: Moment,
        node: &mut Node,
        store: &Store<impl Disk>,
    ) -> Option<FileJob> {
        if self.deadline(node, store).is_none_or(|at| now < at) {
            return None;
        }
        if self.round.is_none() {
            // A part of the accounts is asked in each turn. What is removed meanwhile may be
            // missing.
            let (through, removed, accounts) = node.survey()?;
            self.seen = Some(removed);
            self.round = Some(Round { began: now, survey: Survey { through, accounts }, at: 0 });
        }
        let round = self.round.as_mut()?;
        while let Some(id) = store.segment_id(round.at) {
            round.at += 1;
            let empty = || node.mailboxes().emptied();
            if let Some(job) = store.compact_job(id, &round.survey, empty) {
                return Some(job);
            }
        }
        let pause = now.since(round.began) * PAUSE;
        (self.round, self.due) = (None, now + pause.max(COMPACTION_TIME));
        None
    }

    /// Ends the round after a job has failed. The next one comes later.
    pub(super) fn on_failed(&mut self, now: Moment) {
        (self.seen, self.round, self.due) = (None, None, now + COMPACTION_TIME);
    }
}
