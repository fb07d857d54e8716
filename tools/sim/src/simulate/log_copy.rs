//! A copy of the log of a process for the checks: the term, kind and checksum of each entry, and
//! the configs.

use postern::ids::{Index, Term};
use postern::mailbox::Change;
use postern::record::{self, Kind, Record};
use postern::replica::{Config, LogReader};
use postern::store::Store;
use postern::store::memory::MemoryDisk;
use postern::time::WallTime;

/// An entry. The checksum covers all its bytes, with the index. An emptied message equals the
/// message from which it was made.
#[derive(Clone, Copy, Debug, Eq)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(super) checksum: u32,
    pub(super) kind: Kind,
    /// The checksum of the record without the content of its message.
    emptied: u32,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        let is_emptied = self.kind == Kind::EMPTIED || other.kind == Kind::EMPTIED;
        let same = if is_emptied {
            self.emptied == other.emptied
        } else {
            self.checksum == other.checksum
        };
        self.term == other.term && same && (is_emptied || self.kind == other.kind)
    }
}

impl Entry {
    pub(super) fn of(record: &Record<'_>) -> Entry {
        let checksum = checksum(record);
        let emptied = match Change::decode(record.kind, record.body) {
            Some(Change::Message { to, from, sender, content, .. }) => {
                let change = Change::Emptied { to, from, sender, bytes: content.bytes() };
                let (mut out, kind) = (Vec::new(), change.kind());
                let encode = |out: &mut Vec<u8>| change.encode(out);
                record::write(&mut out, record.position(), record.time, kind, encode);
                self::checksum(&Record::trust(&out))
            }
            _ => checksum,
        };
        Entry { term: record.term, checksum, kind: record.kind, emptied }
    }

    /// Stands for an entry that is damaged.
    pub(super) const UNREADABLE: Entry =
        Entry { term: Term::ZERO, checksum: 0, kind: Kind(0), emptied: 0 };
}

fn checksum(record: &Record<'_>) -> u32 {
    u32::from_le_bytes(record.bytes[4..8].try_into().expect("a record has a head"))
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
