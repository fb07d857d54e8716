//! A copy of the log of a process for the checks: the term, kind and checksum of each entry, and
//! the configs.

use postern::ids::{Index, Term};
use postern::record::{self, Kind, Record};
use postern::replica::{Config, LogReader};
use postern::store::Store;
use postern::store::memory::MemoryDisk;
use postern::time::WallTime;

/// An entry. The checksum covers all its bytes, with the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(super) checksum: u32,
    pub(super) kind: Kind,
}

impl Entry {
    pub(super) fn of(record: &Record<'_>) -> Entry {
        let sum = [record.bytes[4], record.bytes[5], record.bytes[6], record.bytes[7]];
        Entry { term: record.term, checksum: u32::from_le_bytes(sum), kind: record.kind }
    }
}

/// The log of a process as its node has it, stored or not.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogCopy {
    entries: Vec<Entry>,
    configs: Vec<(Index, Config)>,
    last_time: WallTime,
    /// Appended records since the last check: the term, the time of the previous record, the time.
    pub(super) written: Vec<(Term, WallTime, WallTime)>,
}

impl LogCopy {
    /// Reads a log. Where it is damaged it holds `acknowledged`: only those parts of a log are not
    /// read at a start which are known to be acknowledged.
    pub(super) fn of(store: &Store<MemoryDisk>, acknowledged: &[Entry]) -> LogCopy {
        let mut copy = LogCopy::default();
        for index in (1..=store.last().0).map(Index) {
            if store.for_each(index, index, &mut |record| copy.push(record)).is_err() {
                copy.entries.push(acknowledged[index.0 as usize - 1]);
            }
        }
        copy
    }

    pub(super) fn push(&mut self, record: &Record<'_>) {
        self.entries.push(Entry::of(record));
        self.last_time = self.last_time.max(record.time);
        if record.kind == Kind::CONFIG
            && let Some(config) = Config::decode(record.body)
        {
            self.configs.push((record.index, config));
        }
    }

    pub(super) fn append(&mut self, records: &[u8]) {
        for record in record::each(records) {
            let record = record.expect("a replica appends whole records");
            self.written.push((record.term, self.last_time, record.time));
            self.push(&record);
        }
    }

    pub(super) fn cut(&mut self, last: Index) {
        self.entries.truncate(last.0 as usize);
        self.configs.retain(|(index, _)| *index <= last);
    }

    pub(super) fn entry(&self, index: Index) -> Option<Entry> {
        self.entries.get((index.0 as usize).wrapping_sub(1)).copied()
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the newest config up to `index`.
    pub(super) fn config_up_to(&self, index: Index) -> Option<(Index, Config)> {
        self.configs.iter().rev().find(|(at, _)| *at <= index).copied()
    }

    /// The number of configs.
    pub(super) fn configs(&self) -> usize {
        self.configs.len()
    }

    pub(super) fn newest_config(&self) -> Option<(Index, Config)> {
        self.configs.last().copied()
    }
}
