//! Crashes before every single disk call of each operation that needs more than one. The next
//! start finds neither damage nor loss.

use super::damage::{content, formed};
use super::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A disk that fails every modifying call after the first `left` ones.
#[derive(Clone, Debug)]
pub(super) struct Stopping {
    inner: Rc<MemoryDisk>,
    left: Rc<Cell<u64>>,
    /// The folders whose names were synced.
    synced: Rc<RefCell<Vec<String>>>,
    /// The offset and the length of each write.
    written: Rc<RefCell<Vec<(u64, usize)>>>,
}

impl Stopping {
    pub(super) fn after(inner: MemoryDisk, calls: u64) -> Stopping {
        let left = Rc::new(Cell::new(calls));
        let inner = Rc::new(inner);
        Stopping { inner, left, synced: Rc::default(), written: Rc::default() }
    }

    /// Lets this number of further calls succeed.
    pub(super) fn stop_after(&self, calls: u64) {
        self.left.set(calls);
    }

    fn step(&self) -> io::Result<()> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| io::Error::other("the power is off"))?);
        Ok(())
    }
}

impl Disk for Stopping {
    type File = usize;
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.inner.list(folder)
    }
    fn open(&self, path: &str, create: bool) -> io::Result<usize> {
        if create {
            self.step()?;
        }
        self.inner.open(path, create)
    }
    fn size(&self, file: &usize) -> io::Result<u64> {
        self.inner.size(file)
    }
    fn read_at(&self, file: &usize, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.inner.read_at(file, into, at)
    }
    fn write_at(&self, file: &usize, bytes: &[u8], at: u64) -> io::Result<()> {
        self.written.borrow_mut().push((at, bytes.len()));
        self.step().and_then(|()| self.inner.write_at(file, bytes, at))
    }
    fn truncate(&self, file: &usize, size: u64) -> io::Result<()> {
        self.step().and_then(|()| self.inner.truncate(file, size))
    }
    fn sync(&self, file: &usize) -> io::Result<()> {
        self.step().and_then(|()| self.inner.sync(file))
    }
    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.synced.borrow_mut().push(folder.to_owned());
        self.step().and_then(|()| self.inner.sync_folder(folder))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step().and_then(|()| self.inner.rename(from, to))
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.step().and_then(|()| self.inner.remove(path))
    }
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        self.inner.make_folder(folder)
    }
    fn boot(&self) -> Option<u128> {
        self.inner.boot()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
    fn segment_bytes(&self) -> u64 {
        self.inner.segment_bytes()
    }
}

/// Runs `work` on the disk `image`, stopped before each of its calls in turn. Passes what a crash
/// then leaves, and whether the work was done, to `check`. A crash keeps nothing unsynced, all of
/// it, or any part. If only the process ends, everything that it saw remains.
pub(super) fn at_every_call(
    image: &MemoryDisk,
    work: impl Fn(Stopping) -> Result<(), OpenError>,
    check: impl Fn(&str, bool, &MemoryDisk),
) {
    let mut rng = Rng::new(0x5eed);
    for calls in 0.. {
        let disk = Stopping::after(image.crash(|| false), calls);
        let done = work(disk.clone()).is_ok();
        for kept in ["nothing", "all", "any part"] {
            let crashed = disk.inner.crash(|| match kept {
                "nothing" => false,
                "all" => true,
                _ => rng.below(2) == 0,
            });
            check(&format!("call {calls}, {kept} kept"), done, &crashed);
        }
        check(&format!("call {calls}, the process ends"), done, &disk.inner);
        if done {
            assert!(calls > 1, "the work has calls");
            return;
        }
    }
}

/// Opens what a crash left, which must not be damaged. Then cuts the power: the next start must
/// find what the first one found.
fn reopened(at: &str, disk: &MemoryDisk) -> Vec<Vec<u8>> {
    let named = match Identity::read(disk).unwrap() {
        Found::Good(identity) => identity.segment,
        _ => Index(1),
    };
    let seen = Stopping::after(disk.copied(), u64::MAX);
    let (opened, records) = open(seen).unwrap_or_else(|why| panic!("{at}: {why}"));
    assert_eq!(opened.quarantined, None, "{at}");
    let newest = opened.store.log.newest();
    assert_eq!(opened.store.identity().segment, newest, "{at}");
    let synced = opened.store.disk.synced.borrow().iter().any(|folder| folder == LOG);
    assert!(newest <= named || synced, "{at}: a name is not durable");
    let (again, same) = open(opened.store.disk.inner.crash(|| false)).unwrap();
    assert_eq!(again.quarantined, None, "{at}");
    assert!(records == same, "{at}: {} records, then {}", records.len(), same.len());
    records
}

#[test]
fn a_new_directory() {
    let image = MemoryDisk::default();
    at_every_call(
        &image,
        |disk| open(disk).map(drop),
        |at, _, disk| assert!(reopened(at, disk).is_empty(), "{at}"),
    );
}

#[test]
fn what_no_header_calls_synced_is_written_again_at_the_next_start() {
    // After a failed sync the pages look clean: a sync alone would not write them.
    let store = formed(3, 4);
    let batch = segment::HEADER_BYTES + entry(4, 1, "text").len();
    let start = store.log_bytes() - batch as u64;
    let disk = Stopping::after(store.disk.crash(|| false), u64::MAX);
    open(disk.clone()).unwrap();
    assert!(disk.written.borrow().contains(&(start, batch)), "{:?}", disk.written);
}

#[test]
fn a_replaced_identity() {
    let image = formed(3, 3).disk.crash(|| false);
    at_every_call(
        &image,
        |disk| {
            let mut store = open(disk)?.0.store;
            let run = Run { incarnation: Incarnation(9), process: ProcessId(1) };
            store.see(SeenDisk::new(DiskId(7), vec![run]));
            Ok(store.seal()?)
        },
        |at, _, disk| assert_eq!(reopened(at, disk).len(), 3, "{at}"),
    );
}

/// A store whose next batch begins a new segment.
fn full() -> Store<MemoryDisk> {
    let mut store = formed(3, 2);
    let text = "x".repeat(8000);
    while store.log_bytes() < crate::limits::SEGMENT_BYTES {
        let at = store.last().0;
        let batch: Vec<u8> = (1..=20).flat_map(|i| entry(at + i, 1, &text)).collect();
        store.append(&batch).unwrap();
        store.flush().unwrap();
    }
    store
}

/// A segment is named by its first entry, so a segment without an entry must not be followed by a
/// new one: that would replace it, and leave an empty file if the disk is full.
#[test]
fn many_starts_without_an_entry_do_not_end_a_segment() {
    let disk = MemoryDisk::default();
    disk.set_segment_bytes(100);
    let open = || open_as(disk.clone(), &identity());
    let mut store = open().unwrap().store;
    while store.log_bytes() < 100 {
        store = open().unwrap().store;
    }
    disk.fail(|failures| failures.full = true);
    store.append(&entry(1, 1, "text")).and_then(|()| store.flush().map(drop)).unwrap_err();
    disk.fail(|failures| failures.full = false);
    assert_eq!(open().unwrap().quarantined, None);
}

#[test]
fn a_new_segment() {
    let store = full();
    let last = store.last().0;
    let image = store.disk.crash(|| false);
    let stored = Cell::new(0);
    at_every_call(
        &image,
        |disk| {
            stored.set(last);
            let mut store = open(disk)?.0.store;
            for index in [last + 1, last + 2] {
                store.append(&entry(index, 1, &"y".repeat(2000)))?;
                store.flush()?;
                stored.set(index);
            }
            assert_eq!(store.identity().segment, Index(last + 1));
            Ok(())
        },
        |at, _, disk| assert!(reopened(at, disk).len() as u64 >= stored.get(), "{at}"),
    );
}

#[test]
fn a_cut_that_reaches_into_an_earlier_segment() {
    let mut store = formed(3, 2);
    let firsts = three_segments(&mut store);
    let last = store.last().0;
    let image = store.disk.crash(|| false);
    for cut in [firsts[1] - 5, firsts[1] - 1, firsts[1] + 5, firsts[2] - 1, 1] {
        at_every_call(
            &image,
            |disk| Ok(open(disk)?.0.store.cut(Index(cut), LABEL).map(drop)?),
            |at, done, disk| {
                let found = reopened(at, disk).len() as u64;
                let most = if done { cut } else { last };
                assert!((cut..=most).contains(&found), "{at}: cut to {cut}, {found} found");
            },
        );
    }
}

#[test]
fn damage_on_its_way_to_quarantine() {
    for file in [FIRST, "identity", "vote"] {
        let image = formed(3, 4).disk.crash(|| false);
        image.edit(file, |bytes| bytes[40] ^= 1);
        let log = content(&image, FIRST);
        at_every_call(
            &image,
            |disk| open(disk).map(drop),
            |at, _, disk| begins_anew(at, disk, &log),
        );
    }
}

#[test]
fn an_old_copy_on_its_way_to_quarantine() {
    // The group has two members: as damage, the directory would be refused.
    let image = formed(2, 4).disk.crash(|| false);
    let log = content(&image, FIRST);
    at_every_call(
        &image,
        |disk| Ok(Store::quarantine(&disk, "old-copy", LABEL).map(drop)?),
        |at, done, disk| {
            let is_whole = ["identity", "vote", FIRST].iter().all(|p| disk.open(p, false).is_ok());
            assert!(!(done && is_whole), "{at}");
            if !is_whole {
                begins_anew(at, disk, &log);
            }
        },
    );
}

/// Checks that the next start has an empty log, and that the old log is kept in quarantine.
fn begins_anew(at: &str, disk: &MemoryDisk, log: &[u8]) {
    let disk = disk.copied();
    let (opened, records) = open(disk).unwrap_or_else(|why| panic!("{at}: {why}"));
    assert!(records.is_empty() && opened.store.last() == Index::ZERO, "{at}");
    let disk = opened.store.disk.crash(|| false);
    let kinds = ["damaged", "old-copy"].iter();
    let folders =
        kinds.flat_map(|kind| ["", "-2"].map(|n| format!("quarantine/{kind}-{LABEL}{n}")));
    let kept: Vec<_> = folders.map(|folder| format!("{folder}/{FIRST}")).collect();
    let kept = kept.iter().filter(|path| disk.open(path, false).is_ok());
    assert!(kept.clone().any(|path| content(&disk, path) == log), "{at}: {kept:?}");
    assert!(open(disk).unwrap().0.quarantined.is_none(), "{at}");
}

#[test]
fn a_tail_on_its_way_to_quarantine() {
    let image = formed(3, 8).disk.crash(|| false);
    let folder = RefCell::new(String::new());
    at_every_call(
        &image,
        |disk| {
            let mut store = open(disk)?.0.store;
            *folder.borrow_mut() = store.quarantine_tail(Index(5), LABEL)?.unwrap();
            Ok(())
        },
        |at, done, disk| {
            let found = reopened(at, disk).len();
            assert!(found == 8 || (5..8).contains(&found), "{at}: {found}");
            assert!(!done || found == 5, "{at}: {found}");
            if found < 8 {
                let folder = format!("quarantine/epoch-0-{LABEL}");
                let (reading, _) = moved(disk, &folder);
                assert!(reading.damage.is_empty() && reading.records() == 3, "{at}");
            }
        },
    );
}

/// Moving a quarantined directory back may be interrupted anywhere and repeated. Both directories
/// still exist then, each with its own files.
#[test]
fn a_directory_on_its_way_back() {
    let image = formed(3, 4).disk.crash(|| false);
    image.edit("vote", Vec::clear);
    let opened = open(image).unwrap().0;
    let folder = opened.quarantined.unwrap().folder;
    let image = opened.store.disk.crash(|| false);
    let blank = content(&image, "identity");
    let log = content(&image, &format!("{folder}/{FIRST}"));
    let identity = content(&image, &format!("{folder}/identity"));
    at_every_call(
        &image,
        |disk| Store::take_back(&disk, &folder, LABEL),
        |at, _, disk| {
            // File systems rename as a whole; this disk may keep only the removal of the old
            // name.
            if at.contains("any part") {
                return;
            }
            let disk = disk.copied();
            match Store::take_back(&disk, &folder, LABEL) {
                Ok(()) | Err(OpenError::Refused(_)) => {}
                Err(why) => panic!("{at}: {why}"),
            }
            let all: Vec<Vec<u8>> = disk.paths().iter().map(|path| content(&disk, path)).collect();
            for kept in [&blank, &log, &identity] {
                assert!(all.contains(kept), "{at}: {:?}", disk.paths());
            }
        },
    );
}
