//! The durable entries of a simulated disk: those that remain after a power loss. Only changed
//! segments are read again.

use super::log_copy::Entry;
use postern::ids::{DiskId, Index, Term};
use postern::limits::RECORD_BYTES_MAX;
use postern::record::{Kind, Record};
use postern::store::HEADER_BYTES;
use postern::store::memory::MemoryDisk;

/// The folder of the segments. Their names are ordered as their entries.
const LOG: &str = "log";

/// Returns the durable records of a log, without batch headers.
pub(super) fn records(disk: &MemoryDisk) -> Vec<u8> {
    let mut all = Vec::new();
    disk.look(LOG, |_, segment, _| {
        let mut at = 0;
        while let Some((record, end)) = next_record(segment, at) {
            all.extend_from_slice(record.bytes);
            at = end;
        }
    });
    all
}

/// Returns the records of the messages in a segment.
pub(super) fn messages(disk: &MemoryDisk, path: &str) -> Vec<(Index, Vec<u8>)> {
    let mut messages = Vec::new();
    disk.read(path, |segment| {
        let mut at = 0;
        while let Some((record, end)) = next_record(segment, at) {
            if record.kind == Kind::MESSAGE {
                messages.push((record.index, record.bytes.to_vec()));
            }
            at = end;
        }
    });
    messages
}

/// Returns the paths of the segments, oldest first.
pub(super) fn segments(disk: &MemoryDisk) -> Vec<String> {
    let is_segment = |path: &String| {
        path.strip_prefix(LOG).is_some_and(|rest| rest.starts_with('/') && rest.ends_with(".log"))
    };
    disk.paths().into_iter().filter(is_segment).collect()
}

/// Returns the path of the segment whose first entry is `first`.
pub(super) fn path(first: Index) -> String {
    format!("{LOG}/{:020}.log", first.0)
}

/// Returns the record at `at`, or after the batch headers there, and its end.
fn next_record(segment: &[u8], mut at: usize) -> Option<(Record<'_>, usize)> {
    loop {
        let rest = segment.get(at..)?;
        if u32::from_le_bytes(*rest.first_chunk()?) as usize <= RECORD_BYTES_MAX {
            let record = Record::parse(rest).ok()?;
            return Some((record, at + record.bytes.len()));
        }
        at += HEADER_BYTES;
    }
}

/// Returns the next record after a damaged one at `at`, and its end.
fn after(segment: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let whole = |at: usize| Record::parse(&segment[at..]).ok().map(|record| (record, at));
    let (record, at) = (at + 1..segment.len()).find_map(whole)?;
    Some((record, at + record.bytes.len()))
}

/// The entries of one segment.
#[derive(Debug)]
struct Segment {
    name: String,
    /// The number of entries in earlier segments.
    before: usize,
    /// The ends of its records.
    ends: Vec<usize>,
}

/// The durable entries of a disk, and the highest term stored on it.
#[derive(Debug)]
pub(super) struct DurableLog {
    pub(super) disk: DiskId,
    pub(super) entries: Vec<Entry>,
    segments: Vec<Segment>,
    pub(super) term: Term,
    /// The entries before a fault damaged the disk. A primary may still count them as stored.
    pub(super) before_damage: Vec<Entry>,
    /// The disk was wiped or quarantined.
    pub(super) lost: bool,
}

impl DurableLog {
    pub(super) fn new(disk: DiskId) -> DurableLog {
        let (entries, segments, before_damage) = (Vec::new(), Vec::new(), Vec::new());
        DurableLog { disk, entries, segments, term: Term::ZERO, before_damage, lost: false }
    }

    /// Reads what has changed since the previous call.
    pub(super) fn refresh(&mut self, disk: &MemoryDisk) {
        let mut at = 0;
        disk.look(LOG, |name, bytes, unchanged| {
            self.refresh_segment(at, name, bytes, unchanged);
            at += 1;
        });
        self.keep_segments(at);
    }

    /// Reads segment number `at` from the first changed record on.
    fn refresh_segment(&mut self, at: usize, name: &str, bytes: &[u8], unchanged: usize) {
        let known = self.segments.get(at).filter(|segment| segment.name == name);
        match known.map(|segment| segment.ends.last().copied().unwrap_or(0)) {
            Some(read) if unchanged >= bytes.len().max(read) => return,
            // The indices of the entries in later segments may have changed.
            Some(_) => self.keep_segments(at + 1),
            None => {
                self.keep_segments(at);
                let (name, before, ends) = (name.to_owned(), self.entries.len(), Vec::new());
                self.segments.push(Segment { name, before, ends });
            }
        }
        let segment = self.segments.last_mut().expect("it was kept or pushed");
        while segment.ends.last().is_some_and(|end| *end > unchanged) {
            segment.ends.pop();
        }
        self.entries.truncate(segment.before + segment.ends.len());
        let mut read = segment.ends.last().copied().unwrap_or(0);
        while let Some((record, end)) = next_record(bytes, read).or_else(|| after(bytes, read)) {
            let missing = (record.index.0 as usize).checked_sub(self.entries.len() + 1);
            let Some(missing) = missing else { return };
            for _ in 0..missing {
                self.entries.push(Entry::UNREADABLE);
                segment.ends.push(end - record.bytes.len());
            }
            read = end;
            self.entries.push(Entry::of(&record));
            segment.ends.push(end);
        }
    }

    /// Removes all segments but the first `count`, and their entries.
    fn keep_segments(&mut self, count: usize) {
        if let Some(first) = self.segments.get(count) {
            self.entries.truncate(first.before);
            self.segments.truncate(count);
        }
    }

    /// Whether the disk has an entry at this place, or had it before the damage.
    pub(super) fn held(&self, at: usize, entry: Entry) -> bool {
        self.entries.get(at) == Some(&entry) || self.before_damage.get(at) == Some(&entry)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::open_store;
    use super::*;
    use postern::ids::{GroupId, Position, ServerId};
    use postern::record;
    use postern::store::disk::Disk;
    use postern::store::{Identity, Store};
    use postern::time::WallTime;

    fn entry(index: u64, term: u64) -> Vec<u8> {
        let at = Position { index: Index(index), term: Term(term) };
        let mut out = Vec::new();
        let text = "x".repeat(200);
        record::write(&mut out, at, WallTime(0), Kind::MESSAGE, |out| {
            record::write_str(out, &text);
        });
        out
    }

    fn append(store: &mut Store<MemoryDisk>, term: u64, through: u64) {
        for index in store.last().0 + 1..=through {
            store.append(&entry(index, term)).unwrap();
            store.flush().unwrap();
        }
    }

    /// A log with about four entries in a segment, and its durable entries.
    pub(in super::super) fn filled(last: u64) -> (Store<MemoryDisk>, DurableLog) {
        let identity = Identity::new(GroupId(1), 3, ServerId::new(1).unwrap(), DiskId(10));
        let disk = MemoryDisk::default();
        disk.set_segment_bytes(1000);
        let opened = open_store(disk, &identity, "0");
        let mut store = opened.unwrap().store;
        append(&mut store, 1, last);
        let mut log = DurableLog::new(DiskId(10));
        log.refresh(store.disk());
        (store, log)
    }

    /// Returns the terms of the entries after a refresh, 0 for those that are damaged. A full read
    /// must find the same.
    fn terms(log: &mut DurableLog, disk: &MemoryDisk) -> Vec<u64> {
        log.refresh(disk);
        let mut fresh = DurableLog::new(log.disk);
        fresh.refresh(&disk.copied());
        assert_eq!(log.entries, fresh.entries);
        let records = records(disk);
        for record in record::each(&records).map(Result::unwrap) {
            let known = log.entries.get(record.index.0 as usize - 1);
            assert!(known.is_none_or(|known| *known == Entry::of(&record)));
        }
        log.entries.iter().map(|entry| entry.term.0).collect()
    }

    #[test]
    fn entries_of_all_segments_are_in_order() {
        let (mut store, mut log) = filled(10);
        assert_eq!(segments(store.disk()).len(), 3);
        assert_eq!(terms(&mut log, store.disk()), [1; 10]);
        append(&mut store, 1, 40);
        assert!(segments(store.disk()).len() > 9, "their names are more than one digit apart");
        assert_eq!(terms(&mut log, store.disk()), [1; 40]);
        assert_eq!(record::each(&records(store.disk())).count(), 40);
    }

    #[test]
    fn a_cut_into_an_earlier_segment_is_read_again() {
        let (mut store, mut log) = filled(16);
        store.cut(Index(6), "0").unwrap();
        append(&mut store, 2, 7);
        assert_eq!(terms(&mut log, store.disk()), [1, 1, 1, 1, 1, 1, 2]);
        append(&mut store, 2, 16);
        assert_eq!(terms(&mut log, store.disk())[6..], [2; 10]);
        // A segment is removed, and another one of its name begun, between two refreshes.
        store.cut(Index(4), "0").unwrap();
        append(&mut store, 3, 16);
        assert_eq!(terms(&mut log, store.disk())[4..], [3; 12]);
    }

    #[test]
    fn a_damaged_entry_does_not_count_and_those_after_it_do() {
        let (mut store, mut log) = filled(10);
        let disk = store.disk().clone();
        let second = segments(&disk)[1].clone();
        let mut good = Vec::new();
        disk.edit(&second, |bytes| {
            good.clone_from(bytes);
            bytes[HEADER_BYTES + 100] ^= 1;
        });
        let found = terms(&mut log, &disk);
        let damaged: Vec<usize> = (0..found.len()).filter(|at| found[*at] == 0).collect();
        assert!(found.len() == 10 && matches!(damaged[..], [4..8]), "{found:?}");
        disk.edit(&second, |bytes| bytes.clone_from(&good));
        assert_eq!(terms(&mut log, &disk), [1; 10]);
        append(&mut store, 1, 11);
        assert_eq!(terms(&mut log, &disk), [1; 11]);
        disk.remove(&second).unwrap();
        disk.sync_folder(LOG).unwrap();
        let found = terms(&mut log, &disk);
        assert_eq!(
            (found.len(), &found[..5]),
            (11, &[1, 1, 1, 1, 0][..]),
            "a whole segment is gone"
        );
        assert_eq!(found.last(), Some(&1));
    }

    #[test]
    fn a_segment_whose_name_is_not_synced_does_not_count() {
        let (store, mut log) = filled(4);
        let disk = store.disk();
        let other = filled(8).0.disk().clone();
        let next = segments(&other)[1].clone();
        let mut bytes = Vec::new();
        other.edit(&next, |of| bytes.clone_from(of));
        let file = disk.open(&next, true).unwrap();
        disk.write_at(&file, &bytes, 0).unwrap();
        disk.sync(&file).unwrap();
        assert_eq!(terms(&mut log, disk), [1; 4]);
        disk.sync_folder(LOG).unwrap();
        assert_eq!(terms(&mut log, disk), [1; 8]);
    }
}
