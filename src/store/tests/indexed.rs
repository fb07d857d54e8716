//! Logs whose sealed segments have index files: they hold what logs without such files hold, and a
//! lost or damaged file is made again, or noticed.

use super::crash::Stopping;
use super::*;
use crate::content::Content;
use crate::ids::{Secret, UserName};
use crate::mailbox::{Change, Found, Listed, Mailboxes, Outcome};

const SEGMENT_BYTES: u64 = 20_000;
const ACCOUNTS: u64 = 7;

fn name(n: u64) -> UserName {
    UserName::parse(&format!("user-{n}")).unwrap()
}

fn record(index: u64, term: u64, change: &Change<'_>) -> Vec<u8> {
    let at = Position { index: Index(index), term: Term(term) };
    let mut out = Vec::new();
    record::write(&mut out, at, WallTime(index), change.kind(), |out| change.encode(out));
    out
}

/// A store, the state that follows from its log, and what both must hold.
struct World<D: Disk> {
    store: Store<D>,
    mailboxes: Mailboxes,
    applied: Index,
    records: Vec<Vec<u8>>,
    /// The entries of each account's lists.
    lists: Vec<[Vec<u64>; 2]>,
    rng: Rng,
}

impl<D: Disk> World<D> {
    fn over(store: Store<D>, records: Vec<Vec<u8>>) -> World<D> {
        let mut world = World {
            store,
            mailboxes: Mailboxes::new(&Secret::new([1; 32])),
            applied: Index::ZERO,
            records,
            lists: vec![[Vec::new(), Vec::new()]; ACCOUNTS as usize + 1],
            rng: Rng::new(7),
        };
        world.apply();
        world
    }

    fn append(&mut self, record: Vec<u8>) {
        self.store.append(&record).unwrap();
        self.records.push(record);
    }

    /// Appends the entries that make the accounts, and this number of messages.
    fn fill(&mut self, term: u64, messages: u64) {
        let end = self.store.last().0.max(ACCOUNTS) + messages;
        while self.store.last().0 < end {
            let index = self.store.last().0 + 1;
            let text = "x".repeat(self.rng.below(300) as usize + 1);
            let (to, from) = (1 + self.rng.below(ACCOUNTS), 1 + self.rng.below(ACCOUNTS));
            let content = Content::plain(&text);
            self.append(match index {
                1..=ACCOUNTS => {
                    record(index, term, &Change::Create { user: name(index), hash: "" })
                }
                _ => {
                    let (to, from, sender) = (name(to), name(from), Index(from));
                    record(index, term, &Change::Message { to, from, sender, key: None, content })
                }
            });
            if self.rng.below(5) == 0 {
                self.store.flush().unwrap();
            }
        }
        self.store.flush().unwrap();
        self.apply();
    }

    /// Applies the entries that are not applied.
    fn apply(&mut self) {
        for bytes in &self.records[self.applied.0 as usize..] {
            let record = Record::trust(bytes);
            let (segment, first) = self.store.segment_of(record.index);
            self.mailboxes.begin_segment(segment, first);
            let change = Change::decode(record.kind, record.body).unwrap();
            let outcome = self.mailboxes.apply(record.index, &change);
            self.applied = record.index;
            if let (Change::Message { to, sender, .. }, Outcome::Stored(_)) = (change, outcome) {
                let to = self.mailboxes.account(to).unwrap().created();
                self.lists[to.0 as usize][0].push(record.index.0);
                self.lists[sender.0 as usize][1].push(record.index.0);
            }
        }
    }

    /// Makes the index files of all segments but the active one. Returns how many were missing.
    fn index(&mut self) -> io::Result<usize> {
        let mut made = 0;
        while let Some(part) = self.mailboxes.unindexed().cloned() {
            if let Some(job) = self.store.index_job(&part, self.mailboxes.secret_mark())? {
                job.run(self.store.disk(), || false).map_err(|failed| failed.error)?;
                made += 1;
            }
            self.store.note_indexed(part.segment);
            self.mailboxes.forget_indexed();
        }
        Ok(made)
    }

    /// Reads everything in every way.
    fn check(&mut self) -> io::Result<()> {
        self.check_log()?;
        for account in 1..=ACCOUNTS {
            for list in [List::Received, List::Sent] {
                self.check_list(account, list)?;
            }
        }
        Ok(())
    }

    fn check_log(&mut self) -> io::Result<()> {
        let last = self.store.last().0;
        for _ in 0..50 {
            let from = 1 + self.rng.below(last);
            let through = from + self.rng.below(last - from + 1);
            let bytes_max = self.rng.below(30_000) as usize;
            let end = self.store.last_within(Index(from), Index(through), bytes_max);
            assert!((from..=through).contains(&end.0));
            let mut bytes = Vec::new();
            self.store.copy(Index(from), end, &mut bytes)?;
            assert!(bytes == self.records[from as usize - 1..end.0 as usize].concat());
            assert!(bytes.len() <= bytes_max || end.0 == from);
        }
        Ok(())
    }

    fn check_list(&mut self, account: u64, list: List) -> io::Result<()> {
        let expected = &self.lists[account as usize][list as usize];
        let state = self.mailboxes.account(name(account)).unwrap();
        let mut from = 1 + self.rng.below(20);
        while from <= expected.len() as u64 {
            let mut entries = Vec::new();
            let most = 1 + self.rng.below(30) as usize;
            match self.mailboxes.find(state, list, from, most, &mut entries).unwrap() {
                Found::Listed => {
                    for Listed { entry, rank } in entries {
                        assert_eq!(entry.0, expected[from as usize - 1]);
                        self.check_rank(entry, rank)?;
                        from += 1;
                    }
                }
                Found::File(segment) => {
                    let first = from;
                    let (mut wanted, mut ranks) = (most, Vec::new());
                    let account = (Index(account), list);
                    self.store.read_messages(
                        segment,
                        account,
                        first,
                        &mut |number, rank, record| {
                            assert_eq!(number, from);
                            assert_eq!(record.index.0, expected[from as usize - 1]);
                            assert!(record.bytes == self.records[record.index.0 as usize - 1]);
                            ranks.push((record.index, rank));
                            from += 1;
                            wanted -= 1;
                            wanted > 0
                        },
                    )?;
                    assert!(from > first, "there is progress");
                    if list == List::Sent {
                        for (entry, rank) in ranks {
                            self.check_rank(entry, rank)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl<D: Disk> World<D> {
    /// The rank of a message, and the receiver's first number in that segment, give its number.
    fn check_rank(&self, entry: Index, rank: u32) -> io::Result<()> {
        let record = Record::trust(&self.records[entry.0 as usize - 1]);
        let change = Change::decode(record.kind, record.body);
        let Some(Change::Message { to, .. }) = change else { panic!("a message") };
        let receiver = self.mailboxes.account(to).unwrap();
        let (segment, _) = self.store.segment_of(entry);
        let first = match self.mailboxes.first_received(receiver, segment) {
            Some(first) => first,
            None => self.store.first_received(segment, receiver.created())?,
        };
        let received = &self.lists[receiver.created().0 as usize][List::Received as usize];
        assert_eq!(received[(first - 1) as usize + rank as usize], entry.0);
        Ok(())
    }
}

fn small() -> MemoryDisk {
    let disk = MemoryDisk::default();
    disk.set_segment_bytes(SEGMENT_BYTES);
    disk
}

fn filled_world(messages: u64) -> World<MemoryDisk> {
    let mut world = World::over(created(small()), Vec::new());
    world.fill(1, messages);
    world
}

fn reopened(disk: MemoryDisk) -> World<MemoryDisk> {
    let (opened, records) = open(disk).unwrap();
    World::over(opened.store, records)
}

fn index_files(disk: &MemoryDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.ends_with(".idx")).collect()
}

#[test]
fn a_log_with_index_files_holds_what_it_held_without() {
    let mut world = filled_world(2000);
    world.check().unwrap();
    let made = world.index().unwrap();
    assert!(made > 15, "{made}");
    assert_eq!(index_files(world.store.disk()).len(), made);
    world.check().unwrap();
    // It grows on, and some segments have a file while later ones have none.
    world.fill(1, 1000);
    world.check().unwrap();
    assert!(world.index().unwrap() > 5);
    world.check().unwrap();
}

#[test]
fn a_start_uses_the_files_that_are_there_and_makes_the_others() {
    let mut world = filled_world(2000);
    let made = world.index().unwrap();
    let disk = world.store.disk().crash(|| false);
    assert_eq!(reopened(disk.clone()).index().unwrap(), 0, "they are durable");
    let files = index_files(&disk);
    for gone in [&files[..1], &files[made - 1..], &files[3..7], &files[..]] {
        let disk = disk.copied();
        gone.iter().for_each(|path| disk.remove(path).unwrap());
        let mut world = reopened(disk);
        assert_eq!(world.index().unwrap(), gone.len());
        world.check().unwrap();
    }
}

/// A message in one of several segments is a long way back.
#[test]
fn old_messages_are_found_over_many_segments() {
    let mut world = filled_world(30_000);
    assert!(world.index().unwrap() > 270);
    world.check().unwrap();
}

/// A crash before each call that changes the disk, while an index file is made.
#[test]
fn a_crash_leaves_an_index_file_whole_or_missing() {
    let image = filled_world(300).store.disk().crash(|| false);
    let mut rng = Rng::new(11);
    let mut done = false;
    for calls in 0.. {
        let inner = image.copied();
        let disk = Stopping::after(inner.clone(), u64::MAX);
        let (opened, records) = open(disk.clone()).unwrap();
        let mut world = World::over(opened.store, records);
        disk.stop_after(calls);
        done = world.index().is_ok();
        let mut world = reopened(inner.crash(|| rng.below(2) == 0));
        let left = world.store.disk().paths().into_iter().find(|path| path.ends_with(".new"));
        assert_eq!(left, None, "{calls}");
        world.index().unwrap();
        world.check().unwrap();
        if done {
            break;
        }
    }
    assert!(done);
}

/// Damage that comes while the store is in use is noticed by a read of it, and mended.
#[test]
fn lost_index_files_are_made_again() {
    let mut world = filled_world(300);
    world.index().unwrap();
    let image = world.store.disk().crash(|| false);
    let files = index_files(&image);
    let size = image.size(&image.open(&files[1], false).unwrap()).unwrap() as usize;
    let damages = (0..size).step_by(211).map(|at| vec![(1, Some(at))]);
    let several = [vec![(0, None)], vec![(1, None), (2, Some(5000))]];
    let (mut noticed, mut all) = (0, 0);
    for damage in damages.chain(several) {
        let mut world = reopened(image.copied());
        world.index().unwrap();
        let disk = world.store.disk().clone();
        for (file, at) in damage {
            match at {
                Some(at) => disk.edit(&files[file], |bytes| bytes[at] ^= 1),
                None => disk.remove(&files[file]).unwrap(),
            }
        }
        all += 1;
        while world.check().is_err() || world.store.has_lost_indexes() {
            noticed += 1;
            let job = world.store.remake_job(|| world.mailboxes.emptied());
            job.expect("something was lost").run(&disk, || false).unwrap();
            world.store.forget_lost();
        }
        assert!(!world.store.has_lost_indexes());
    }
    assert!(noticed > 20 && noticed <= all + 1, "{noticed} of {all}");
}

#[test]
fn what_a_damaged_log_lists_is_not_made_up() {
    let mut world = filled_world(300);
    world.index().unwrap();
    let disk = world.store.disk().clone();
    let files = index_files(&disk);
    disk.edit(FIRST, |bytes| bytes[10_000] ^= 1);
    disk.remove(&files[1]).unwrap();
    let (_, first) = world.store.segment_of(world.store.last());
    let in_second = (1..).map(Index).find(|at| world.store.segment_of(*at).0.number() == 2);
    assert!(in_second.is_some_and(|at| at < first));
    let at = in_second.unwrap();
    // The entry itself is read all the same, as other servers need it.
    let mut bytes = Vec::new();
    world.store.copy(at, at, &mut bytes).unwrap();
    assert!(bytes == world.records[at.0 as usize - 1]);
    assert!(world.store.has_lost_indexes());
    // What precedes it is listed, unless that file is lost, too.
    disk.remove(&files[0]).unwrap();
    let job = world.store.remake_job(|| world.mailboxes.emptied()).unwrap();
    let error = job.run(&disk, || false).unwrap_err().error.to_string();
    assert!(error.starts_with(FIRST), "{error}");
    assert!(!disk.paths().contains(&files[1]));
}

#[test]
fn a_cut_removes_the_index_files_that_it_reaches() {
    let mut world = filled_world(2000);
    world.index().unwrap();
    let disk = world.store.disk().crash(|| false);
    let last = world.store.last().0;
    for cut in [last - 10, last / 2, last / 3, 20] {
        let (opened, records) = open(disk.copied()).unwrap();
        let mut world = World::over(opened.store, records);
        world.index().unwrap();
        world.store.cut(Index(cut), LABEL).unwrap();
        // The positions of entries that were cut are forgotten with the process.
        let mut world = reopened(world.store.disk().crash(|| false));
        assert_eq!(world.store.last(), Index(cut));
        world.check().unwrap();
        world.fill(2, 500);
        world.index().unwrap();
        world.check().unwrap();
        let mut world = reopened(world.store.disk().crash(|| false));
        assert_eq!(world.index().unwrap(), 0);
        world.check().unwrap();
    }
}

/// An index file of another segment, which a restored backup may bring, is made again.
#[test]
fn the_index_file_of_another_log_is_not_used() {
    let mut world = filled_world(1000);
    world.index().unwrap();
    let disk = world.store.disk().crash(|| false);
    let files = index_files(&disk);
    let file = disk.open(&files[4], false).unwrap();
    let mut other = vec![0; disk.size(&file).unwrap() as usize];
    disk.read_at(&file, &mut other, 0).unwrap();
    disk.edit(&files[2], |bytes| *bytes = other);
    let mut world = reopened(disk);
    assert_eq!(world.index().unwrap(), 1);
    world.check().unwrap();
}
