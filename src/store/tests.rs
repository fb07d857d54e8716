//! The log on a disk that loses, tears and corrupts data: nothing synced is lost, nothing damaged
//! is served, and a torn tail is distinguished from damage.

mod base;
mod compact;
mod crash;
mod damage;
mod indexed;
mod salvage;
mod scrub;

use super::memory::MemoryDisk;
use super::*;
use crate::ids::{
    DiskId, GroupId, Incarnation, Member, Position, ProcessId, Run, Secret, ServerId, Term,
};
use crate::limits;
use crate::record::{self, Kind};
use crate::replica::Config;
use crate::rng::Rng;
use crate::time::WallTime;

const LABEL: &str = "2026-11-25T03-22-00Z";

fn identity() -> Identity {
    Identity::new(GroupId(1), 3, ServerId::new(1).unwrap(), DiskId(10))
}

fn entry(index: u64, term: u64, text: &str) -> Vec<u8> {
    let at = Position { index: Index(index), term: Term(term) };
    let mut out = Vec::new();
    record::write(&mut out, at, WallTime(0), Kind::MESSAGE, |out| record::write_str(out, text));
    out
}

/// The config of `members` members, as the entry `index`.
fn config(index: u64, members: u8) -> Vec<u8> {
    let at = Position { index: Index(index), term: Term(1) };
    let members = ServerId::all(members).map(|id| Member { id, disk: DiskId(10) });
    let config = Config::new(members, true);
    let mut out = Vec::new();
    record::write(&mut out, at, WallTime(0), Kind::CONFIG, |out| config.encode(out));
    out
}

/// An open store and its records.
type Open<D> = (Opened<D>, Vec<Vec<u8>>);

fn open<D: Disk>(disk: D) -> Result<Open<D>, OpenError> {
    let opened = open_as(disk, &identity())?;
    let mut records = Vec::new();
    let last = opened.store.last();
    opened.store.for_each(Index(1), last, &mut |record| records.push(record.bytes.to_vec()))?;
    Ok((opened, records))
}

/// The state before the first entry.
fn empty() -> Mailboxes {
    Mailboxes::new(&Secret::new([1; Secret::BYTES]))
}

fn open_as<D: Disk>(disk: D, expected: &Identity) -> Result<Opened<D>, OpenError> {
    let opening = Opening { expected, label: LABEL, empty: &empty() };
    Store::open(disk, &opening, &mut |_| {})
}

/// What a folder holds that entries were moved to, and these entries.
fn moved(disk: &MemoryDisk, folder: &str) -> (Reading, Vec<Vec<u8>>) {
    let known = Known { is_tail: true, ..Known::default() };
    let read = || recovery::read(disk, folder, known, None, &mut |_| {}).unwrap();
    let log = recovery::settle(disk, folder, read()).unwrap();
    let (first, mut records) = (log.segments[0].first, Vec::new());
    let keep = &mut |record: &Record<'_>| records.push(record.bytes.to_vec());
    log.for_each(disk, first, log.last(), keep).unwrap();
    (read(), records)
}

/// A new directory whose vote has a term as high as any that these tests write.
fn created<D: Disk>(disk: D) -> Store<D> {
    let mut store = open(disk).unwrap().0.store;
    store.persist(Vote { term: Term(9), ..Vote::default() }).unwrap();
    store
}

/// A store with the entries 1 to `last`, flushed one batch each.
fn filled(last: u64) -> Store<MemoryDisk> {
    let mut store = created(MemoryDisk::default());
    for index in 1..=last {
        store.append(&entry(index, 1, "text")).unwrap();
        store.flush().unwrap();
    }
    store
}

const FIRST: &str = "log/00000000000000000001.log";

#[test]
fn a_start_counts_and_keeps_what_was_flushed() {
    let store = filled(5);
    assert_eq!(store.identity().incarnation, Incarnation(1));
    let (opened, records) = open(store.disk.crash(|| false)).unwrap();
    assert_eq!(opened.store.identity().incarnation, Incarnation(2));
    assert_eq!(records, (1..=5).map(|i| entry(i, 1, "text")).collect::<Vec<_>>());
    assert_eq!(opened.torn, None);
}

#[test]
fn one_flush_is_one_sync() {
    let mut store = filled(0);
    let before = store.disk.syncs();
    for index in 1..=100 {
        store.append(&entry(index, 1, "text")).unwrap();
    }
    store.flush().unwrap();
    assert_eq!(store.disk.syncs(), before + 1);
}

#[test]
fn a_torn_batch_is_cut_and_everything_before_it_kept() {
    let seed = 0x5eed;
    println!("seed {seed:#x}");
    let mut rng = Rng::new(seed);
    for round in 0..500 {
        let mut store = filled(3);
        for index in 4..=40 {
            store.append(&entry(index, 1, &"long ".repeat(20))).unwrap();
        }
        store.disk.fail(|failures| failures.syncs = true);
        store.flush().unwrap_err();
        let (opened, records) = open(store.disk.crash(|| rng.below(2) == 0)).unwrap();
        assert!(records.len() >= 3, "round {round}");
        assert_eq!(records[0], entry(1, 1, "text"));
        let last = records.len() as u64;
        let mut store = opened.store;
        store.append(&entry(last + 1, 2, "after")).unwrap();
        store.flush().unwrap();
        let again = open(store.disk.crash(|| false)).unwrap().1;
        assert_eq!(again.len() as u64, last + 1, "round {round}");
    }
}

/// Returns the directory after one failed sync, whose pages look clean, and the end of the
/// process: reads show everything, and not all of it is durable.
fn after_failed_sync(
    store: &mut Store<MemoryDisk>,
    write: impl FnOnce(&mut Store<MemoryDisk>) -> io::Result<()>,
) -> MemoryDisk {
    store.disk.fail(|failures| failures.sync_after = Some(0));
    write(store).unwrap_err();
    store.disk.copied()
}

#[test]
fn what_the_page_cache_shows_after_a_failed_sync_is_written_again() {
    let mut store = filled(3);
    store.append(&entry(4, 1, "unsynced")).unwrap();
    let disk = after_failed_sync(&mut store, Store::flush);
    assert_eq!(open(disk.crash(|| false)).unwrap().1.len(), 3, "it was not durable");
    let (opened, records) = open(disk).unwrap();
    assert_eq!(records.len(), 4);
    assert_eq!(open(opened.store.disk.crash(|| false)).unwrap().1.len(), 4);
}

#[test]
fn a_vote_that_only_the_page_cache_shows_is_written_again() {
    let mut store = filled(1);
    let vote = Vote { term: Term(7), ..Vote::default() };
    let disk = after_failed_sync(&mut store, |store| store.persist(vote));
    let before = Vote { term: Term(9), ..Vote::default() };
    assert_eq!(open(disk.crash(|| false)).unwrap().0.vote, before, "it was not durable");
    let opened = open(disk).unwrap().0;
    assert_eq!(opened.vote, vote);
    assert_eq!(open(opened.store.disk.crash(|| false)).unwrap().0.vote, vote);
}

#[test]
fn every_flipped_bit_in_a_sealed_log_is_damage() {
    let mut store = filled(4);
    store.seal().unwrap();
    let size = store.log_bytes() as usize - segment::HEADER_BYTES;
    for byte in 0..size {
        let disk = store.disk.crash(|| false);
        disk.edit(FIRST, |bytes| bytes[byte] ^= 1 << (byte % 8));
        match open(disk) {
            Err(OpenError::Damaged(_)) => {}
            other => panic!("byte {byte}: {:?}", other.map(|(_, records)| records.len())),
        }
    }
}

#[test]
fn damage_in_an_earlier_batch_is_no_torn_tail() {
    let store = filled(4);
    let size = store.log_bytes() as usize;
    let last_batch = segment::HEADER_BYTES + entry(4, 1, "text").len();
    let disk = store.disk.crash(|| false);
    disk.edit(FIRST, |bytes| bytes[size - last_batch - 1] ^= 1);
    assert!(matches!(open(disk), Err(OpenError::Damaged(_))));
    let disk = store.disk.crash(|| false);
    disk.edit(FIRST, |bytes| bytes[size - 1] ^= 1);
    let (opened, records) = open(disk).unwrap();
    assert_eq!(
        (records.len(), opened.torn.unwrap().at),
        (3, (size - last_batch + segment::HEADER_BYTES) as u64)
    );
}

/// A killed process can't have torn what it had written. While the machine keeps running, only an
/// interrupted write is cut, and rot in the last batch is noticed.
#[test]
fn without_a_power_cut_only_an_end_that_is_missing_is_torn() {
    let mut store = filled(2);
    for text in ["one", "two", "three"] {
        store.append(&entry(store.last().0 + 1, 1, text)).unwrap();
    }
    store.flush().unwrap();
    let whole = damage::content(&store.disk, FIRST);
    // The offsets of the items of the last batch, from its end.
    let mut ends = vec![whole.len()];
    for text in ["three", "two", "one"] {
        ends.push(ends[ends.len() - 1] - entry(1, 1, text).len());
    }
    let start = ends[3] - segment::HEADER_BYTES;
    ends.push(start);
    for byte in start..whole.len() {
        for bit in 0..8 {
            let disk = store.disk.copied();
            disk.edit(FIRST, |bytes| bytes[byte] ^= 1 << bit);
            let found = open(disk).map(|(opened, records)| (opened.torn, records.len()));
            assert!(matches!(found, Err(OpenError::Damaged(_))), "{byte}, {bit}: {found:?}");
        }
        let disk = store.disk.copied();
        disk.edit(FIRST, |bytes| bytes.truncate(byte));
        let (opened, records) = open(disk).unwrap_or_else(|why| panic!("{byte}: {why}"));
        assert_eq!(opened.torn.is_some(), !ends.contains(&byte), "{byte}");
        assert!((2..5).contains(&records.len()), "{byte}");
        // After a power cut the pages may have been written in any order.
        let disk = store.disk.crash(|| false);
        disk.edit(FIRST, |bytes| bytes[byte] ^= 1);
        let (opened, records) = open(disk).unwrap_or_else(|why| panic!("{byte}: {why}"));
        assert!(opened.torn.is_some() && (2..5).contains(&records.len()), "{byte}");
    }
}

/// A term is durable before any entry of it, so a vote of an earlier term is outdated. Using it
/// would allow two votes in one term.
#[test]
fn a_vote_older_than_the_log_is_damage() {
    let old = filled(0).disk;
    let mut store = filled(2);
    store.persist(Vote { term: Term(12), ..Vote::default() }).unwrap();
    store.append(&entry(3, 12, "text")).unwrap();
    store.flush().unwrap();
    let disk = store.disk.crash(|| false);
    assert!(open(disk.copied()).is_ok());
    disk.edit("vote", |bytes| *bytes = damage::content(&old, "vote"));
    assert!(matches!(open(disk), Err(OpenError::Damaged(why)) if why == OLD_VOTE));
}

/// Entries that another primary has overwritten are kept in quarantine, if they were on disk.
#[test]
fn what_is_cut_is_quarantined_first() {
    let mut store = filled(6);
    store.append(&entry(7, 1, "in memory")).unwrap();
    assert_eq!(store.cut(Index(6), LABEL).unwrap(), None, "it was never on disk");
    let folder = store.cut(Index(4), LABEL).unwrap().unwrap();
    let (reading, kept) = moved(&store.disk, &folder);
    assert!(reading.damage.is_empty());
    assert_eq!(kept, [entry(5, 1, "text"), entry(6, 1, "text")]);
    assert_eq!(open(store.disk.crash(|| false)).unwrap().1.len(), 4);
}

#[test]
fn missing_files_are_damage() {
    for path in ["vote", "identity"] {
        let store = filled(2);
        store.disk.remove(path).unwrap();
        store.disk.sync_folder(".").unwrap();
        assert!(matches!(open(store.disk), Err(OpenError::Damaged(_))), "{path}");
    }
}

#[test]
fn an_unfinished_new_directory_is_made_again() {
    let store = open(MemoryDisk::default()).unwrap().0.store;
    store.disk.remove("identity").unwrap();
    let (opened, records) = open(store.disk).unwrap();
    assert_eq!((opened.store.identity().incarnation, records.len()), (Incarnation(1), 0));
}

#[test]
fn directories_of_others_are_refused() {
    let right = identity();
    let wrong = [
        Identity::new(GroupId(2), 3, right.id, right.disk),
        Identity::new(right.group, 1, right.id, right.disk),
        Identity::new(right.group, 3, ServerId::new(2).unwrap(), right.disk),
    ];
    for expected in wrong {
        let disk = filled(2).disk;
        let Err(OpenError::Refused(_)) = open_as(disk, &expected) else {
            panic!("accepted as {expected:?}");
        };
    }
}

#[test]
fn a_cut_removes_entries_for_good() {
    for cut in 0..=6 {
        for unwritten in [false, true] {
            let mut store = filled(6);
            if unwritten {
                store.append(&[entry(7, 1, "a"), entry(8, 1, "b")].concat()).unwrap();
            }
            store.cut(Index(cut), LABEL).unwrap();
            assert_eq!(store.last(), Index(cut));
            store.append(&entry(cut + 1, 2, "new")).unwrap();
            store.flush().unwrap();
            let mut all = Vec::new();
            store.copy(Index(1), Index(cut + 1), &mut all).unwrap();
            let records = open(store.disk.crash(|| false)).unwrap().1;
            assert_eq!(records.len() as u64, cut + 1);
            assert_eq!(records.concat(), all);
            assert_eq!(records.last().unwrap(), &entry(cut + 1, 2, "new"));
        }
    }
}

/// Appends entries of 8 KiB until the log has three segments. Returns the first index of each.
fn three_segments(store: &mut Store<MemoryDisk>) -> Vec<u64> {
    let text = "x".repeat(8000);
    let mut firsts = vec![1];
    let mut index = store.last().0;
    while firsts.len() < 3 {
        let batch: Vec<u8> = (1..=64).flat_map(|i| entry(index + i, 1, &text)).collect();
        store.append(&batch).unwrap();
        store.flush().unwrap();
        let first = store.identity().segment.0;
        if Some(&first) != firsts.last() {
            firsts.push(first);
        }
        index += 64;
    }
    firsts
}

#[test]
fn segments_follow_each_other_and_are_cut_across() {
    let mut store = filled(0);
    let firsts = three_segments(&mut store);
    let last = store.last();
    let (mut opened, records) = open(store.disk.crash(|| false)).unwrap();
    assert_eq!(records.len() as u64, last.0);
    let around = Index(firsts[1] - 1);
    let mut bytes = Vec::new();
    opened.store.copy(around, Index(firsts[1] + 1), &mut bytes).unwrap();
    assert_eq!(record::each(&bytes).filter(Result::is_ok).count(), 3);
    assert_eq!(
        opened.store.last_within(around, last, 1 << 20),
        around,
        "a piece ends with its segment"
    );
    let three = 3 * entry(1, 1, &"x".repeat(8000)).len();
    assert_eq!(opened.store.last_within(Index(1), last, three), Index(3));
    assert_eq!(opened.store.last_within(Index(1), last, three - 1), Index(2));
    assert_eq!(opened.store.last_within(Index(1), last, 0), Index(1));

    let cut = Index(firsts[1] - 5);
    opened.store.cut(cut, LABEL).unwrap();
    assert_eq!(opened.store.identity().segment, Index(1));
    opened.store.append(&entry(cut.0 + 1, 2, "new")).unwrap();
    opened.store.flush().unwrap();
    let records = open(opened.store.disk.crash(|| false)).unwrap().1;
    assert_eq!(records.len() as u64, cut.0 + 1);
}

/// A log of years has more segments than a process may have open files.
#[test]
fn few_segments_are_open_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let open_files = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(folder.path())).count()
    };
    // The active segment and the vote.
    let always = 2;
    let disk = || disk::RealDisk::open(folder.path()).unwrap();
    let mut store = created(disk());
    let text = "x".repeat(8000);
    let last = 12 * limits::SEGMENT_BYTES / 8000;
    for index in 1..=last {
        store.append(&entry(index, 1, &text)).unwrap();
        if index % 100 == 0 {
            store.flush().unwrap();
        }
    }
    store.flush().unwrap();
    assert!(store.log.newest() > Index(last / 12 * 10), "there are many segments");
    assert_eq!(open_files(), always);
    for index in (1..=last).step_by(50).chain([1]) {
        let mut records = Vec::new();
        store.copy(Index(index), Index(index), &mut records).unwrap();
        assert_eq!(records, entry(index, 1, &text));
        assert!(open_files() <= always + limits::SEGMENTS_OPEN_MAX);
    }
    drop(store);
    assert_eq!(open_files(), 0);
    let opened = open_as(disk(), &identity()).unwrap();
    assert_eq!((opened.store.last(), open_files()), (Index(last), always));
}

/// The number of segments in a folder.
fn segments_of(disk: &MemoryDisk, folder: &str) -> usize {
    disk.list(folder).unwrap().iter().filter(|name| segment::first_index(name).is_some()).count()
}

#[test]
fn the_disk_determines_the_size_of_segments() {
    let begin = |disk| open_as(disk, &identity()).unwrap().store;
    let fill = |store: &mut Store<MemoryDisk>, first: u64| {
        for index in first..first + 4 {
            store.append(&entry(index, 1, &"x".repeat(100))).unwrap();
            store.flush().unwrap();
        }
    };
    let disk = MemoryDisk::default();
    disk.set_segment_bytes(100);
    let mut store = begin(disk);
    store.persist(Vote { term: Term(9), ..Vote::default() }).unwrap();
    fill(&mut store, 1);
    assert_eq!(segments_of(&store.disk, LOG), 4, "each entry is longer than a segment");
    let mut store = begin(store.disk.crash(|| false));
    fill(&mut store, 5);
    assert_eq!(segments_of(&store.disk, LOG), 8, "those of an old directory are continued");
    let folder = store.quarantine_tail(Index(6), LABEL).unwrap().unwrap();
    assert_eq!((segments_of(&store.disk, LOG), segments_of(&store.disk, &folder)), (6, 2));
    let disk = store.disk.crash(|| false);
    disk.set_segment_bytes(limits::SEGMENT_BYTES);
    let mut store = begin(disk);
    fill(&mut store, 7);
    assert_eq!(segments_of(&store.disk, LOG), 6, "the usual size");
}

#[test]
fn a_cut_at_the_border_of_segments() {
    let mut store = filled(0);
    let firsts = three_segments(&mut store);
    let cut = Index(firsts[2] - 1);
    store.cut(cut, LABEL).unwrap();
    let records = open(store.disk.crash(|| false)).unwrap().1;
    assert_eq!(records.len() as u64, cut.0);
}

#[test]
fn damage_in_a_segment_that_another_follows_is_no_torn_tail() {
    let mut store = filled(0);
    let firsts = three_segments(&mut store);
    let disk = store.disk.crash(|| false);
    let second = format!("log/{}", segment::file_name(Index(firsts[1])));
    disk.edit(&second, |bytes| {
        let end = bytes.len() - 1;
        bytes[end] ^= 1;
    });
    assert!(matches!(open(disk), Err(OpenError::Damaged(_))));
}

#[test]
fn rot_under_a_running_server_is_an_error_not_an_answer() {
    let store = filled(3);
    let store = open(store.disk.crash(|| false)).unwrap().0.store;
    store.disk.edit(FIRST, |bytes| bytes[segment::HEADER_BYTES * 2 + 40] ^= 1);
    store.copy(Index(1), Index(3), &mut Vec::new()).unwrap_err();
}

#[test]
fn what_is_read_half_from_the_file_ends_where_the_file_does() {
    let mut store = filled(0);
    let text = "x".repeat(4000);
    let batch =
        |from: u64| -> Vec<u8> { (from..from + 64).flat_map(|i| entry(i, 1, &text)).collect() };
    for from in [1, 65, 129] {
        store.append(&batch(from)).unwrap();
        store.flush().unwrap();
    }
    store.append(&batch(193)).unwrap();
    let mut all = Vec::new();
    store.copy(Index(1), store.last(), &mut all).unwrap();
    assert_eq!(record::each(&all).filter(Result::is_ok).count(), 256);
}
