//! The replica's in-memory summary of its own log: its end, its terms and its configs.

use crate::config::Config;
use crate::fields::{Field, fields, read_all};
use crate::ids::{DiskId, Index, Position, Run, Term};
use crate::limits::SEEN_MAX;
use crate::packet::Epoch;
use crate::record::{Kind, Record};
use crate::time::WallTime;

/// The in-memory summary of a log.
#[derive(Clone, Debug, Default)]
pub struct LogSummary {
    last: Position,
    last_time: WallTime,
    /// The first entry of each term, in order.
    terms: Vec<Position>,
    /// The last settled config and all later ones; see [`LogSummary::settle`].
    configs: Vec<(Index, Config)>,
    /// The runs with which configs added disks: the newest settled one of each disk, and all
    /// later ones.
    added: Vec<(Index, (DiskId, Run))>,
    /// One of the configs that were removed from `configs` has an open gate.
    gate_was_open: bool,
    /// The epochs that the log holds, each with the index of its first entry.
    epochs: Vec<(Index, Epoch)>,
    /// The epochs that the group has refused to follow, each with the index of the entry that
    /// says so.
    refused: Vec<(Index, Epoch)>,
}

fields!(LogSummary { last, last_time, terms, configs, added, gate_was_open, epochs, refused });

impl LogSummary {
    /// Returns the summary of no entry, after `last`: of a log whose beginning is elsewhere.
    pub fn after(last: Index) -> LogSummary {
        let last = Position { index: last, term: Term::ZERO };
        LogSummary { last, ..LogSummary::default() }
    }

    /// Appends the summary to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(out);
    }

    /// Reads a summary that is all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Option<LogSummary> {
        read_all(bytes)
    }

    /// Adds the next record.
    ///
    /// # Errors
    /// When it is a config or a refusal that can't be read.
    #[inline]
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), &'static str> {
        assert_eq!(record.index, self.last.index.next(), "entries come in order");
        if matches!(record.kind, Kind::CONFIG | Kind::REFUSAL) {
            self.push_special(record)?;
        }
        if record.term != self.last.term || self.terms.is_empty() {
            self.terms.push(record.position());
        }
        self.last = record.position();
        self.last_time = self.last_time.max(record.time);
        Ok(())
    }

    #[cold]
    fn push_special(&mut self, record: &Record<'_>) -> Result<(), &'static str> {
        if record.kind == Kind::REFUSAL {
            let epoch = Epoch::decode(record.body).ok_or("a refusal is unreadable")?;
            self.refused.push((record.index, epoch));
            return Ok(());
        }
        let config = Config::decode(record.body).ok_or("a config is unreadable")?;
        self.added.extend(config.added().map(|added| (record.index, added)));
        self.configs.push((record.index, config));
        if let (true, Some(founder)) = (record.term.begins_epoch(), config.members().next()) {
            let epoch = Epoch { number: record.term.epoch(), founder: founder.disk };
            self.epochs.push((record.index, epoch));
        }
        Ok(())
    }

    /// Removes the entries after `last`.
    pub fn cut(&mut self, last: Index) {
        self.terms.retain(|start| start.index <= last);
        self.configs.retain(|(index, _)| *index <= last);
        self.added.retain(|(index, ..)| *index <= last);
        self.epochs.retain(|(index, _)| *index <= last);
        self.refused.retain(|(index, _)| *index <= last);
        self.last = self.position(last);
    }

    /// Removes the configs before the last committed one: no cut can make one of them the newest.
    pub fn settle(&mut self, committed: Index) {
        let settled = self.configs.partition_point(|(index, _)| *index <= committed);
        if settled > 1 {
            let forgotten = self.configs.drain(..settled - 1);
            self.gate_was_open |= forgotten.fold(false, |open, (_, c)| open || c.gate_open);
            self.settle_added(committed);
        }
    }

    /// Removes all but the newest settled addition of each disk. Of disks that are not members it
    /// keeps only the last few: such a disk has no role until another entry adds it.
    fn settle_added(&mut self, committed: Index) {
        let settled = self.added.partition_point(|(index, ..)| *index <= committed);
        let open = self.added.split_off(settled);
        let is_member = |disk: DiskId| {
            self.configs.iter().any(|(_, config)| config.members().any(|m| m.disk == disk))
        };
        let mut kept: Vec<(Index, (DiskId, Run))> = Vec::new();
        for new in self.added.drain(..).rev() {
            let (disk, _) = new.1;
            let first = kept.iter().all(|(_, (other, _))| *other != disk);
            if first && (kept.len() < SEEN_MAX || is_member(disk)) {
                kept.push(new);
            }
        }
        self.added.extend(kept.into_iter().rev().chain(open));
    }

    /// Returns the run with which a config, committed or not, last added this disk, if known.
    pub(crate) fn run_added(&self, disk: DiskId) -> Option<Run> {
        self.added.iter().rev().find(|(_, (added, _))| *added == disk).map(|(_, (_, run))| *run)
    }

    /// Returns the position of the last entry.
    pub fn last(&self) -> Position {
        self.last
    }

    /// Returns the epochs that the log holds, in order.
    pub(crate) fn epochs(&self) -> impl DoubleEndedIterator<Item = Epoch> + '_ {
        self.epochs.iter().map(|(_, epoch)| *epoch)
    }

    /// Returns whether the log, committed or not, holds a refusal of this epoch.
    pub(crate) fn has_refused(&self, epoch: Epoch) -> bool {
        self.refused.iter().any(|(_, refused)| *refused == epoch)
    }

    /// Returns how many refusals the log holds.
    pub(crate) fn refusals(&self) -> usize {
        self.refused.len()
    }

    /// Returns the latest time of an entry.
    pub fn last_time(&self) -> WallTime {
        self.last_time
    }

    /// Returns the entry's term; `None` when there is no such entry.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index > self.last.index || index == Index::ZERO {
            return (index == Index::ZERO).then_some(Term::ZERO);
        }
        let run = self.terms.partition_point(|start| start.index <= index);
        Some(self.terms[run - 1].term)
    }

    /// Returns the position of the entry at `index`.
    pub fn position(&self, index: Index) -> Position {
        Position { index, term: self.term(index).unwrap_or_default() }
    }

    /// Returns the index before the first entry of the term that the entry at `index` has.
    pub(crate) fn before_term(&self, index: Index) -> Index {
        let run = self.terms.partition_point(|start| start.index <= index);
        run.checked_sub(1).map_or(Index::ZERO, |run| self.terms[run].index.before())
    }

    /// Returns the newest config and its index. It counts whether it is committed or not.
    pub fn config(&self) -> Option<(Index, &Config)> {
        self.configs.last().map(|(index, config)| (*index, config))
    }

    /// Returns the newest config up to `index`, if it is still remembered.
    pub(crate) fn config_up_to(&self, index: Index) -> Option<&Config> {
        let upto = self.configs.partition_point(|(at, _)| *at <= index);
        upto.checked_sub(1).map(|at| &self.configs[at].1)
    }

    /// Returns whether any config before the newest one has an open gate.
    pub(crate) fn gate_was_open(&self) -> bool {
        let before = self.configs.len().checked_sub(2).map(|at| &self.configs[at].1);
        self.gate_was_open || before.is_some_and(|config| config.gate_open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::ids::{DiskId, Incarnation, Member, ProcessId, ServerId};
    use crate::record;

    fn push(summary: &mut LogSummary, index: u64, term: u64, members: Option<u8>) {
        let mut bytes = Vec::new();
        let at = Position { index: Index(index), term: Term(term) };
        let kind = if members.is_some() { Kind::CONFIG } else { Kind::MESSAGE };
        record::write(&mut bytes, at, WallTime(index), kind, |out| {
            let ids = ServerId::all(members.unwrap_or(1));
            Config::new(ids.map(|id| Member { id, disk: DiskId(1) }), false).encode(out);
        });
        summary.push(&Record::trust(&bytes)).unwrap();
    }

    fn sample() -> LogSummary {
        let mut summary = LogSummary::default();
        push(&mut summary, 1, 0, Some(3));
        push(&mut summary, 2, 1, Some(3));
        push(&mut summary, 3, 1, None);
        push(&mut summary, 4, 4, Some(2));
        push(&mut summary, 5, 4, None);
        summary
    }

    /// Everything that a summary says survives its encoding; nothing shorter or longer passes.
    #[test]
    fn an_encoded_summary_is_the_same() {
        for mut summary in [sample(), with_additions(&[0, 2, 3, 2]), configs(&[1])] {
            summary.settle(Index(3));
            let epoch = Epoch { number: 3, founder: DiskId(9) };
            summary.epochs.push((Index(2), epoch));
            summary.refused.push((Index(3), epoch));
            let mut bytes = Vec::new();
            summary.encode(&mut bytes);
            let decoded = LogSummary::decode(&bytes).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{summary:?}"));
            assert!(LogSummary::decode(&bytes[1..]).is_none());
            assert!(LogSummary::decode(&bytes[..bytes.len() - 1]).is_none());
        }
    }

    #[test]
    fn knows_terms_and_configs() {
        let summary = sample();
        let terms: Vec<_> = (0..=6).map(|at| summary.term(Index(at)).map(|term| term.0)).collect();
        assert_eq!(terms, [Some(0), Some(0), Some(1), Some(1), Some(4), Some(4), None]);
        assert_eq!(summary.before_term(Index(5)), Index(3));
        assert_eq!(summary.before_term(Index(3)), Index(1));
        assert_eq!(summary.before_term(Index(1)), Index(0));
        assert_eq!(summary.config().unwrap().0, Index(4));
        assert_eq!(summary.config_up_to(Index(3)).unwrap().count(), 3);
        assert_eq!(summary.config_up_to(Index(0)), None);
    }

    #[test]
    fn a_cut_brings_back_the_config_before() {
        let mut summary = sample();
        summary.cut(Index(3));
        assert_eq!(summary.last(), Position { term: Term(1), index: Index(3) });
        assert_eq!(summary.config().unwrap().0, Index(2));
        summary.cut(Index(0));
        assert_eq!((summary.last(), summary.config()), (Position::default(), None));
        push(&mut summary, 1, 0, None);
        assert_eq!(summary.term(Index(1)), Some(Term(0)));
    }

    #[test]
    fn settling_keeps_the_last_settled_config() {
        let mut summary = sample();
        summary.settle(Index(3));
        assert_eq!(summary.config_up_to(Index(3)).unwrap().count(), 3);
        summary.settle(Index(5));
        assert!(!summary.gate_was_open());
        assert_eq!(summary.config().unwrap().0, Index(4));
    }

    fn run(n: u64) -> Run {
        Run { incarnation: Incarnation(n), process: ProcessId(n) }
    }

    /// Returns a log of configs that add these servers, each with the run numbered like the
    /// entry; 0 adds none.
    fn with_additions(added: &[u8]) -> LogSummary {
        let mut summary = LogSummary::default();
        for (index, id) in (1..).zip(added) {
            let members = ServerId::all(3).map(|id| Member { id, disk: DiskId(id.slot() as u128) });
            let mut config = Config::new(members, false);
            if let Some(id) = ServerId::new(*id) {
                config.origin = Origin::Added(id, run(index));
            }
            let mut bytes = Vec::new();
            let at = Position { index: Index(index), term: Term(1) };
            record::write(&mut bytes, at, WallTime(0), Kind::CONFIG, |out| config.encode(out));
            summary.push(&Record::trust(&bytes)).unwrap();
        }
        summary
    }

    #[test]
    fn knows_the_run_as_which_each_disk_was_added_last() {
        let runs = |summary: &LogSummary| {
            [0, 1, 2].map(|disk| summary.run_added(DiskId(disk)).map_or(0, |run| run.incarnation.0))
        };
        for settled in 0..=7 {
            let mut summary = with_additions(&[0, 2, 3, 2, 0, 3, 2]);
            summary.settle(Index(settled));
            assert_eq!(runs(&summary), [0, 7, 6], "{settled}");
            summary.cut(Index(settled.max(4)));
            let cut = [[0, 4, 3], [0, 4, 3], [0, 4, 6], [0, 7, 6]];
            assert_eq!(runs(&summary), cut[settled.max(4) as usize - 4], "{settled}");
        }
        let mut summary = with_additions(&[0, 2, 3, 2, 0, 3, 2]);
        summary.settle(Index(7));
        assert_eq!(summary.added.len(), 2, "one of each disk is kept");
    }

    #[test]
    fn additions_of_disks_that_are_long_gone_are_forgotten() {
        let mut summary = with_additions(&[2]);
        let member =
            |id: u8, disk: u128| Member { id: ServerId::new(id).unwrap(), disk: DiskId(disk) };
        for index in 2..100 {
            let added = member(3, 1000 + u128::from(index));
            let config = Config::new([member(2, 1)], false).with(added, run(index));
            let mut bytes = Vec::new();
            let at = Position { index: Index(index), term: Term(1) };
            record::write(&mut bytes, at, WallTime(0), Kind::CONFIG, |out| config.encode(out));
            summary.push(&Record::trust(&bytes)).unwrap();
        }
        summary.settle(Index(90));
        let known = |disk: u128| summary.run_added(DiskId(disk)).map(|run| run.incarnation.0);
        assert_eq!([known(1), known(1002), known(1074)], [Some(1), None, None]);
        assert!((75..100).all(|n| known(1000 + n) == Some(n as u64)));
    }

    #[test]
    fn the_last_time_is_the_greatest() {
        let mut summary = LogSummary::default();
        for (index, time, last) in [(1, 5, 5), (2, 3, 5), (3, 9, 9)] {
            let mut bytes = Vec::new();
            let at = Position { index: Index(index), term: Term(1) };
            record::write(&mut bytes, at, WallTime(time), Kind::MESSAGE, |_| ());
            summary.push(&Record::parse(&bytes).unwrap()).unwrap();
            assert_eq!(summary.last_time(), WallTime(last));
        }
    }

    /// Returns a log of six configs; those at the indexes in `open` have an open gate.
    fn configs(open: &[u64]) -> LogSummary {
        let mut summary = LogSummary::default();
        for index in 1..=6 {
            let id = ServerId::new(1).unwrap();
            let config = Config::new([Member { id, disk: DiskId(1) }], open.contains(&index));
            let mut bytes = Vec::new();
            let at = Position { index: Index(index), term: Term(1) };
            record::write(&mut bytes, at, WallTime(0), Kind::CONFIG, |out| config.encode(out));
            summary.push(&Record::parse(&bytes).unwrap()).unwrap();
        }
        summary
    }

    #[test]
    fn settled_configs_are_forgotten_but_for_the_last_and_an_open_gate_is_not() {
        let kept = |summary: &LogSummary| -> Vec<u64> {
            summary.configs.iter().map(|(index, _)| index.0).collect()
        };
        for (committed, left) in [
            (0, &[1u64, 2, 3, 4, 5, 6] as &[u64]),
            (1, &[1, 2, 3, 4, 5, 6]),
            (2, &[2, 3, 4, 5, 6]),
            (4, &[4, 5, 6]),
            (9, &[6]),
        ] {
            let mut summary = configs(&[]);
            summary.settle(Index(committed));
            assert_eq!(kept(&summary), left, "{committed}");
            assert!(!summary.gate_was_open());
        }
        for open in 1..=6 {
            let mut summary = configs(&[open]);
            assert_eq!(summary.gate_was_open(), open == 5, "the one before the newest");
            summary.settle(Index(4));
            assert_eq!(summary.gate_was_open(), open <= 3 || open == 5, "{open}");
            summary.settle(Index(5));
            assert_eq!(summary.gate_was_open(), open <= 5, "{open}");
        }
    }
}
