//! What a power cut would leave of the log of a simulated disk, read again only where it changed.

use super::mirror::Entry;
use postern::ids::{DiskId, Index, Term};
use postern::limits::RECORD_BYTES_MAX;
use postern::record::Record;
use postern::store::HEADER_BYTES;
use postern::store::memory::MemoryDisk;

/// The folder of a log's segments, whose names are in the order of their entries.
const LOG: &str = "log";

/// The records of a whole log, without the batch headers: those that a power cut would leave.
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

/// The segments of a log, oldest first.
pub(super) fn segments(disk: &MemoryDisk) -> Vec<String> {
    let paths = disk.paths().into_iter();
    paths.filter(|path| path.strip_prefix(LOG).is_some_and(|rest| rest.starts_with('/'))).collect()
}

/// The segment whose first entry is `first`.
pub(super) fn path(first: Index) -> String {
    format!("{LOG}/{:020}.log", first.0)
}

/// The record of a segment that begins at `at`, or after the batch headers there, and its end.
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

/// Which entries of a truth are in one segment.
#[derive(Debug)]
struct Segment {
    name: String,
    /// How many entries the segments before it have.
    before: usize,
    /// Where its records end.
    ends: Vec<usize>,
}

/// What a power cut would leave of a disk's log, and the highest term stored on it.
#[derive(Debug)]
pub(super) struct Truth {
    pub(super) disk: DiskId,
    pub(super) entries: Vec<Entry>,
    segments: Vec<Segment>,
    pub(super) term: Term,
    /// What it held when a fault damaged it: what it acknowledged before may still be counted.
    pub(super) before_damage: Vec<Entry>,
    /// It is not there any more: wiped, or quarantined.
    pub(super) gone: bool,
}

impl Truth {
    pub(super) fn new(disk: DiskId) -> Truth {
        let (entries, segments, before_damage) = (Vec::new(), Vec::new(), Vec::new());
        Truth { disk, entries, segments, term: Term::ZERO, before_damage, gone: false }
    }

    /// Reads what became durable since it was read before.
    pub(super) fn refresh(&mut self, disk: &MemoryDisk) {
        let mut at = 0;
        disk.look(LOG, |name, bytes, unchanged| {
            self.refresh_segment(at, name, bytes, unchanged);
            at += 1;
        });
        self.keep_segments(at);
    }

    /// Reads the segment number `at`, from where it is not as it was.
    fn refresh_segment(&mut self, at: usize, name: &str, bytes: &[u8], unchanged: usize) {
        let known = self.segments.get(at).filter(|segment| segment.name == name);
        match known.map(|segment| segment.ends.last().copied().unwrap_or(0)) {
            Some(read) if unchanged >= bytes.len().max(read) => return,
            // The places of the entries after it may be others now.
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
        while let Some((record, end)) = next_record(bytes, read) {
            if record.index.0 as usize != self.entries.len() + 1 {
                return;
            }
            read = end;
            self.entries.push(Entry::of(&record));
            segment.ends.push(end);
        }
    }

    /// Forgets all but the first `count` segments, and their entries.
    fn keep_segments(&mut self, count: usize) {
        if let Some(first) = self.segments.get(count) {
            self.entries.truncate(first.before);
            self.segments.truncate(count);
        }
    }

    /// Whether an entry is, or was before the damage, at this place.
    pub(super) fn held(&self, at: usize, entry: Entry) -> bool {
        self.entries.get(at) == Some(&entry) || self.before_damage.get(at) == Some(&entry)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use postern::ids::{GroupId, Position, ServerId};
    use postern::record::{self, Kind};
    use postern::store::disk::Disk;
    use postern::store::{Identity, OpenOptions, Store};
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

    /// A log with about four entries in a segment, and what a truth knows of it.
    pub(in super::super) fn filled(last: u64) -> (Store<MemoryDisk>, Truth) {
        let identity = Identity::new(GroupId(1), 3, ServerId::new(1).unwrap(), DiskId(10));
        let options = OpenOptions { label: "0", segment_bytes: 1000 };
        let opened = Store::open(MemoryDisk::default(), &identity, options, |_| Ok(()));
        let mut store = opened.unwrap().store;
        append(&mut store, 1, last);
        let mut truth = Truth::new(DiskId(10));
        truth.refresh(store.disk());
        (store, truth)
    }

    /// The terms of the entries, as `truth` knows them after a look; a fresh one finds the same.
    fn terms(truth: &mut Truth, disk: &MemoryDisk) -> Vec<u64> {
        truth.refresh(disk);
        let mut fresh = Truth::new(truth.disk);
        fresh.refresh(&disk.copied());
        assert_eq!(truth.entries, fresh.entries);
        let records = records(disk);
        let found: Vec<Entry> = record::each(&records).map(|r| Entry::of(&r.unwrap())).collect();
        assert!(found.starts_with(&truth.entries));
        truth.entries.iter().map(|entry| entry.term.0).collect()
    }

    #[test]
    fn entries_of_all_segments_are_in_their_order() {
        let (mut store, mut truth) = filled(10);
        assert_eq!(segments(store.disk()).len(), 3);
        assert_eq!(terms(&mut truth, store.disk()), [1; 10]);
        append(&mut store, 1, 40);
        assert!(segments(store.disk()).len() > 9, "their names are more than one digit apart");
        assert_eq!(terms(&mut truth, store.disk()), [1; 40]);
        assert_eq!(record::each(&records(store.disk())).count(), 40);
    }

    #[test]
    fn a_cut_into_an_earlier_segment_is_read_again() {
        let (mut store, mut truth) = filled(16);
        store.cut(Index(6), "0").unwrap();
        append(&mut store, 2, 7);
        assert_eq!(terms(&mut truth, store.disk()), [1, 1, 1, 1, 1, 1, 2]);
        append(&mut store, 2, 16);
        assert_eq!(terms(&mut truth, store.disk())[6..], [2; 10]);
        // Between two looks a segment was removed, and another of its name begun.
        store.cut(Index(4), "0").unwrap();
        append(&mut store, 3, 16);
        assert_eq!(terms(&mut truth, store.disk())[4..], [3; 12]);
    }

    #[test]
    fn what_comes_after_damage_in_an_older_segment_does_not_count() {
        let (mut store, mut truth) = filled(10);
        let disk = store.disk().clone();
        let second = segments(&disk)[1].clone();
        let mut good = Vec::new();
        disk.edit(&second, |bytes| {
            good.clone_from(bytes);
            bytes[HEADER_BYTES + 100] ^= 1;
        });
        assert_eq!(terms(&mut truth, &disk), [1; 4]);
        disk.edit(&second, |bytes| bytes.clone_from(&good));
        assert_eq!(terms(&mut truth, &disk), [1; 10]);
        append(&mut store, 1, 11);
        assert_eq!(terms(&mut truth, &disk), [1; 11]);
        disk.remove(&second).unwrap();
        disk.sync_folder(LOG).unwrap();
        assert_eq!(terms(&mut truth, &disk), [1; 4], "the third has moved up");
    }

    #[test]
    fn a_segment_whose_name_is_not_synced_does_not_count() {
        let (store, mut truth) = filled(4);
        let disk = store.disk();
        let other = filled(8).0.disk().clone();
        let next = segments(&other)[1].clone();
        let mut bytes = Vec::new();
        other.edit(&next, |of| bytes.clone_from(of));
        let file = disk.open(&next, true).unwrap();
        disk.write_at(&file, &bytes, 0).unwrap();
        disk.sync(&file).unwrap();
        assert_eq!(terms(&mut truth, disk), [1; 4]);
        disk.sync_folder(LOG).unwrap();
        assert_eq!(terms(&mut truth, disk), [1; 8]);
    }
}
