//! The log as the consensus sees it: where it ends, and how far it is stored, committed and
//! acknowledged.

use super::LogSummary;
use crate::config::Config;
use crate::effect::{Effect, Out};
use crate::ids::{Index, Member, Position, Term, Vote};
use crate::record::{self, Kind, Record};
use crate::time::WallTime;
use std::io;

/// The state that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The last durable entry.
    pub last: Index,
    /// The durable vote.
    pub vote: Vote,
}

/// Read access to the log.
pub trait LogReader {
    /// Returns the last entry up to `through` such that the entries from `from` on fit in
    /// `bytes_max` bytes; at least `from`.
    fn last_within(&self, from: Index, through: Index, bytes_max: usize) -> Index;
    /// Passes the records `from` to `through` to `visit` one by one, without copying those in
    /// memory.
    ///
    /// # Errors
    /// When the log can't be read there.
    fn for_each(
        &self,
        from: Index,
        through: Index,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> io::Result<()>;
}

/// The log of this server.
///
/// Invariant: `acknowledged <= committed <= last`, and `stored <= flushed <= last`.
#[derive(Clone, Debug)]
pub(crate) struct RaftLog {
    summary: LogSummary,
    /// The highest index that is durable or being written to disk.
    flushed: Index,
    /// The highest durable index.
    stored: Index,
    /// Raft's commit index: no election can undo it.
    committed: Index,
    /// The highest index that is committed and stored by every member of the primary's newest
    /// config.
    acknowledged: Index,
    /// The acknowledged index with which this server has started. More was acknowledged then.
    known_at_start: Index,
}

impl RaftLog {
    /// Returns the log of `me` after a start: all of it is durable, and acknowledged up to
    /// `acknowledged`.
    pub(super) fn new(summary: LogSummary, acknowledged: Index, me: Member) -> RaftLog {
        let stored = summary.last().index;
        // Only this server can commit in such a config, so everything that it stored is
        // committed.
        let alone = |(_, config): (Index, &Config)| config.count() == 1 && config.has(me);
        let committed = if summary.config().is_some_and(alone) { stored } else { acknowledged };
        let known_at_start = acknowledged;
        RaftLog { summary, flushed: stored, stored, committed, acknowledged, known_at_start }
    }

    pub(crate) fn summary(&self) -> &LogSummary {
        &self.summary
    }

    /// Returns the newest config, committed or not.
    pub(crate) fn config(&self) -> Option<&Config> {
        self.summary.config().map(|(_, config)| config)
    }

    pub(crate) fn last(&self) -> Index {
        self.summary.last().index
    }

    pub(crate) fn stored(&self) -> Index {
        self.stored
    }

    pub(crate) fn flushed(&self) -> Index {
        self.flushed
    }

    pub(crate) fn committed(&self) -> Index {
        self.committed
    }

    /// Returns the newest committed config, if that is known. After a start it is not: later
    /// configs than those that are known to be committed may be, too.
    pub(super) fn committed_config(&self) -> Option<&Config> {
        self.summary.config_up_to(self.committed_since_start())
    }

    /// Returns the commit index, if the group has told it since this server started; otherwise 0.
    /// The commit index that the files show may be far behind that of the group.
    pub(super) fn committed_since_start(&self) -> Index {
        let is_new = self.committed > self.known_at_start;
        if is_new { self.committed } else { Index::ZERO }
    }

    pub(crate) fn acknowledged(&self) -> Index {
        self.acknowledged
    }

    /// Appends an entry of this server's own, and returns its index. Its time is never earlier
    /// than that of the entry before it.
    pub(super) fn append(
        &mut self,
        term: Term,
        wall: WallTime,
        kind: Kind,
        body: impl FnOnce(&mut Vec<u8>),
        out: &mut Out,
    ) -> Index {
        let at = Position { term, index: self.last().next() };
        let start = out.bytes.len();
        record::write(&mut out.bytes, at, wall.max(self.summary.last_time()), kind, body);
        let range = start..out.bytes.len();
        let pushed = self.summary.push(&Record::trust(&out.bytes[range.clone()]));
        pushed.expect("a server writes configs that it can read");
        out.push(Effect::Append(range));
        at.index
    }

    /// Adds a received record to the log and its bytes to `out`. The caller appends these bytes
    /// with one effect.
    pub(super) fn push_received(&mut self, record: &Record<'_>, out: &mut Out) {
        self.summary.push(record).expect("its configs were just read");
        out.bytes.extend_from_slice(record.bytes);
    }

    /// Removes the entries after `keep`.
    ///
    /// # Panics
    /// When one of them is committed.
    pub(super) fn cut(&mut self, keep: Index, out: &mut Out) {
        assert!(
            keep >= self.committed,
            "an append overwrites entry {} although {} are committed",
            keep.next(),
            self.committed
        );
        self.summary.cut(keep);
        self.flushed = self.flushed.min(keep);
        self.stored = self.stored.min(keep);
        out.push(Effect::Cut(keep));
    }

    /// Returns whether entries wait to be written.
    pub(super) fn has_unflushed(&self) -> bool {
        self.flushed < self.last()
    }

    /// Requests a write and a sync of all entries.
    pub(super) fn flush(&mut self, out: &mut Out) {
        self.flushed = self.last();
        out.push(Effect::Flush);
    }

    pub(super) fn note_durable(&mut self, last: Index) {
        assert!(last <= self.last(), "nothing is stored that was not appended");
        // The sync also covered entries that were proposed after this turn's batch began.
        self.flushed = self.flushed.max(last);
        self.stored = last;
    }

    /// Raises the commit index. Returns whether it has risen.
    pub(super) fn commit(&mut self, to: Index) -> bool {
        let news = to > self.committed;
        self.committed = self.committed.max(to);
        self.summary.settle(self.committed);
        news
    }

    /// Raises the acknowledged index. Returns whether it has risen.
    pub(super) fn acknowledge(&mut self, to: Index) -> bool {
        let news = to > self.acknowledged;
        self.acknowledged = self.acknowledged.max(to);
        news
    }

    /// Returns the indexes, for a picture of the state.
    #[cfg(feature = "simulate")]
    pub(super) fn indexes(&self) -> [Index; 4] {
        [self.flushed, self.stored, self.committed, self.acknowledged]
    }

    pub(super) fn check(&self) {
        assert!(self.acknowledged <= self.committed, "acknowledged goes beyond committed");
        assert!(self.committed <= self.last(), "committed goes beyond the log");
        assert!(self.stored <= self.flushed && self.flushed <= self.last());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DiskId, ServerId};

    /// After a start, configs may be committed that are newer than what is known to be
    /// acknowledged: the last one up to there must not be taken for the last committed one.
    #[test]
    fn the_committed_config_is_known_once_the_group_has_told() {
        let me = Member { id: ServerId::new(1).unwrap(), disk: DiskId(1) };
        let other = Member { id: ServerId::new(2).unwrap(), disk: DiskId(2) };
        let mut summary = LogSummary::default();
        for index in 1..=4 {
            let config = Config::new([me, other], index > 2);
            let mut bytes = Vec::new();
            let at = Position { index: Index(index), term: Term(1) };
            record::write(&mut bytes, at, WallTime(0), Kind::CONFIG, |out| config.encode(out));
            summary.push(&Record::trust(&bytes)).unwrap();
        }
        let mut log = RaftLog::new(summary, Index(2), me);
        assert_eq!((log.committed(), log.acknowledged()), (Index(2), Index(2)));
        assert!(log.committed_config().is_none());
        assert_eq!(log.committed_since_start(), Index::ZERO, "nor is it told to others");
        log.commit(Index(3));
        assert!(log.committed_config().is_some_and(|config| config.gate_open));
    }
}
