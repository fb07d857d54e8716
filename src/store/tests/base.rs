//! A start from the checkpoint and index files gives the state that the whole log gives, whichever
//! of these files are missing, damaged, or left behind by a crash.

use super::*;
use crate::content::Content;
use crate::ids::UserName;
use crate::limits::KEYS_KEPT;
use crate::mailbox::{Account, Change, Forget, Forgets, Forgotten, Limits, Once};

pub(super) const SEED: u64 = 0xba5e;
const SEGMENT_BYTES: u64 = 4096;
/// What each message says: more than the rest of its record.
const TEXT: &str = "Most messages that people and programs send to each other are longer than the \
                    head of their record: without its text, such a message takes less space.";
/// Names that accounts have, one after the other.
const NAMES: u64 = 12;

pub(super) fn name(n: u64) -> UserName {
    UserName::parse(&format!("user-{n}")).unwrap()
}

/// A store whose entries change accounts in every way, and the state after them.
pub(super) struct World {
    pub(super) store: Store<MemoryDisk>,
    pub(super) rng: Rng,
    term: u64,
    pub(super) mailboxes: Mailboxes,
    pub(super) applied: Index,
    /// The messages with keys, newest last: sender, key, receiver.
    keys: Vec<(Index, String, UserName)>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let disk = MemoryDisk::default();
        disk.set_segment_bytes(SEGMENT_BYTES);
        let mut store = created(disk);
        store.persist(Vote { term: Term(1000), ..Vote::default() }).unwrap();
        let (rng, mailboxes) = (Rng::new(seed), empty());
        World { store, rng, term: 1, mailboxes, applied: Index::ZERO, keys: Vec::new() }
    }

    fn push(&mut self, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) {
        let at = Position { index: self.store.last().next(), term: Term(self.term) };
        let mut record = Vec::new();
        record::write(&mut record, at, WallTime(at.index.0), kind, body);
        self.store.append(&record).unwrap();
    }

    pub(super) fn push_change(&mut self, change: &Change<'_>) {
        self.push(change.kind(), |out| change.encode(out));
    }

    /// Appends entries, and applies those of whole batches.
    pub(super) fn grow(&mut self, count: u64) {
        for _ in 0..count {
            self.grow_by_one();
            if self.rng.below(4) == 0 {
                self.flush();
            }
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        self.store.flush().unwrap();
        self.apply();
    }

    fn grow_by_one(&mut self) {
        let user = name(self.rng.below(NAMES));
        let hash = format!("hash-{}", self.store.last());
        let set = self.mailboxes.account(user).map(|account| account.password_set);
        let checked = set.unwrap_or(Index(1));
        let wrong = self.rng.below(8) == 0;
        let checked = if wrong { Index(1) } else { checked };
        match self.rng.below(30) {
            0 => self.term += 1,
            1 => {
                let members = 1 + self.rng.below(3) as u8;
                let config = Config::new(
                    ServerId::all(members).map(|id| Member { id, disk: DiskId(10) }),
                    true,
                );
                return self.push(Kind::CONFIG, |out| config.encode(out));
            }
            2..=4 => return self.push_change(&Change::Create { user, hash: &hash }),
            5 => return self.push_change(&Change::Delete { user, checked }),
            6 => return self.push_change(&Change::Password { user, checked, hash: &hash }),
            7 => {
                let limit = |most| if most < 20 { u64::MAX } else { most };
                let (messages, bytes) = (self.rng.below(60), self.rng.below(9000));
                let limits = Limits { messages: limit(messages), bytes: limit(bytes) };
                return self.push_change(&Change::Limits(limits));
            }
            8 => return self.forget(),
            _ => {}
        }
        let from = name(self.rng.below(NAMES));
        let sender = self.mailboxes.account(from).map_or(Index(1), Account::created);
        let key = format!("key-{}", self.rng.below(40));
        let key = (self.rng.below(3) == 0).then_some(key);
        let content = Content::plain(TEXT);
        let message = Change::Message { to: user, from, sender, key: key.as_deref(), content };
        self.push_change(&message);
        self.keys.extend(key.map(|key| (sender, key, user)));
    }

    /// Appends an entry that forgets some messages of some mailboxes.
    fn forget(&mut self) {
        let mut body = Vec::new();
        for user in (0..NAMES).map(name) {
            let Some(account) = self.mailboxes.account(user) else { continue };
            let messages = self.rng.below(account.last() + 2);
            let bytes = account.forgotten.bytes + self.rng.below(account.kept_bytes() + 1);
            let (account, forgotten) = (account.created(), Forgotten { messages, bytes });
            if self.rng.below(3) == 0 {
                Forget { user, account, forgotten }.encode(&mut body);
            }
        }
        let change = Change::Forget(Forgets::decode(&body).unwrap());
        self.push_change(&change);
    }

    fn apply(&mut self) {
        let (from, through) = (self.applied.next(), self.store.last());
        let World { store, mailboxes, .. } = self;
        apply(store, mailboxes, from, through);
        self.applied = through;
    }

    /// Makes the index files of sealed segments.
    pub(super) fn index(&mut self) {
        let mark = self.mailboxes.secret_mark();
        while let Some(part) = self.mailboxes.unindexed().cloned() {
            if let Some(job) = self.store.index_job(&part, mark).unwrap() {
                job.run(self.store.disk(), || false).unwrap();
            }
            self.store.note_indexed(part.segment);
            self.mailboxes.forget_indexed();
        }
    }

    /// Makes a checkpoint of all segments that have index files.
    pub(super) fn checkpoint(&mut self) {
        let lacks =
            |store: &Store<MemoryDisk>| store.checkpoint.segments < store.log.indexed().len();
        self.store.checkpoint.is_due = lacks(&self.store);
        while let Some(job) = self.store.checkpoint_job(self.mailboxes.secret_mark()) {
            job.run(self.store.disk(), || false).unwrap();
            self.store.note_checkpoint();
            self.store.checkpoint.is_due = lacks(&self.store);
        }
    }

    /// Asserts that a directory opens with the state that the log gives. Returns the entry from
    /// which on it applied the log.
    pub(super) fn check(&self, disk: &MemoryDisk, why: &str) -> Index {
        let opened = open_as(disk.clone(), &identity()).unwrap();
        let Opened { store, mut mailboxes, acknowledged, summary, quarantined, .. } = opened;
        assert_eq!(quarantined, None, "{why}");
        assert_eq!(store.last(), self.applied, "{why}");
        apply(&store, &mut mailboxes, acknowledged.next(), store.last());
        self.compare(&store, &mailboxes, why);
        let mut expected = self.store.log.summary.clone();
        let mut summary = summary;
        for summary in [&mut expected, &mut summary] {
            summary.settle(self.applied);
        }
        assert_eq!(format!("{summary:?}"), format!("{expected:?}"), "{why}");
        acknowledged
    }

    fn compare(&self, store: &Store<MemoryDisk>, mailboxes: &Mailboxes, why: &str) {
        let all = |mailboxes: &Mailboxes| mailboxes.names_after(None).collect::<Vec<_>>();
        assert_eq!(all(mailboxes), all(&self.mailboxes), "{why}");
        assert_eq!(mailboxes.messages(), self.mailboxes.messages(), "{why}");
        assert_eq!(mailboxes.limits(), self.mailboxes.limits(), "{why}");
        for user in all(mailboxes) {
            let account = |mailboxes: &Mailboxes| described(mailboxes.account(user).unwrap());
            assert_eq!(account(mailboxes), account(&self.mailboxes), "{why}");
            for list in [List::Received, List::Sent] {
                let read = |store, mailboxes| entries_of(store, mailboxes, user, list);
                let found = read(store, mailboxes);
                assert_eq!(found, read(&self.store, &self.mailboxes), "{why}: {user} {list:?}");
            }
        }
        for (sender, key, to) in self.keys.iter().rev().take(2 * KEYS_KEPT as usize) {
            for text in [TEXT, "other"] {
                let content = Content::plain(text);
                let once = Once { sender: *sender, key, to: *to, content };
                assert_eq!(mailboxes.known(&once), self.mailboxes.known(&once), "{why}: {key}");
            }
        }
    }

    fn derived(&self) -> Vec<String> {
        let mut paths = self.store.disk().paths();
        paths.retain(|path| path.ends_with(".idx") || path == checkpoint::FILE);
        paths
    }
}

/// All that is kept of an account, but for its messages.
fn described(account: &Account) -> impl PartialEq + std::fmt::Debug + use<> {
    let counts = [List::Received, List::Sent].map(|list| account.count(list));
    let (set, hash) = (account.password_set, account.hash());
    (account.created(), set, hash, counts, account.forgotten, account.kept_bytes())
}

/// Applies entries of a log.
pub(super) fn apply(
    store: &Store<MemoryDisk>,
    mailboxes: &mut Mailboxes,
    from: Index,
    through: Index,
) {
    let apply = &mut |record: &Record<'_>| {
        let (segment, first) = store.segment_of(record.index);
        mailboxes.begin_segment(segment, first);
        let _ = mailboxes.apply_record(record);
    };
    store.for_each(from, through, apply).unwrap();
}

/// The entries of the messages in a list, read as a client's session does.
fn entries_of(
    store: &Store<MemoryDisk>,
    mailboxes: &Mailboxes,
    user: UserName,
    list: List,
) -> Vec<Index> {
    let account = mailboxes.account(user).unwrap();
    let (mut next, mut entries) = (1, Vec::new());
    while next <= account.count(list) {
        let mut listed = Vec::new();
        match mailboxes.find(account, list, next, 10, &mut listed).unwrap() {
            crate::mailbox::Found::Listed => entries.extend(listed.iter().map(|at| at.entry)),
            crate::mailbox::Found::File(newest) => {
                let of = (account.created(), list);
                let visit = &mut |_, _, record: &Record<'_>| {
                    entries.push(record.index);
                    true
                };
                store.read_messages(newest, of, next, visit).unwrap();
            }
        }
        next = entries.len() as u64 + 1;
    }
    entries
}

/// A log of many segments; the last checkpoint is older than the newest index files.
fn filled(seed: u64) -> World {
    println!("seed {seed:#x}");
    let mut world = World::new(seed);
    for round in 0..4 {
        world.grow(300);
        world.index();
        if round == 1 {
            world.checkpoint();
        }
    }
    world.grow(20);
    world
}

#[test]
fn a_start_continues_from_the_files() {
    for seed in SEED..SEED + 20 {
        let mut world = World::new(seed);
        let mut last = Index::ZERO;
        for _ in 0..6 {
            let count = world.rng.below(200);
            world.grow(count);
            if world.rng.below(2) == 0 {
                world.index();
            }
            if world.rng.below(2) == 0 {
                world.checkpoint();
            }
            let disk = world.store.disk().crash(|| false);
            let from = world.check(&disk, &format!("seed {seed:#x}"));
            assert!(from >= last, "no file is forgotten");
            last = from;
        }
        world.index();
        world.checkpoint();
        let from = world.check(&world.store.disk().crash(|| false), "at the end");
        assert_eq!(from.next(), world.store.log.newest(), "only the last segment is read");
    }
}

/// The store goes on with what a start found, and makes the next files from it.
#[test]
fn a_directory_that_was_opened_from_files_grows_as_before() {
    let mut world = filled(SEED);
    for round in 0..5 {
        let opened = open_as(world.store.disk().crash(|| false), &identity()).unwrap();
        let Opened { store, mut mailboxes, acknowledged, .. } = opened;
        apply(&store, &mut mailboxes, acknowledged.next(), store.last());
        world.compare(&store, &mailboxes, "after a start");
        (world.store, world.mailboxes) = (store, mailboxes);
        world.grow(200);
        world.index();
        if round % 2 == 0 {
            world.checkpoint();
        }
        let whole = world.store.disk().crash(|| false);
        for path in world.derived() {
            whole.remove(&path).unwrap();
        }
        assert_eq!(world.check(&whole, "from the log alone"), Index::ZERO);
    }
}

#[test]
fn any_of_the_files_may_be_missing() {
    let mut world = filled(SEED + 1);
    world.index();
    let derived = world.derived();
    assert!(derived.len() > 8, "{derived:?}");
    let mut rounds: Vec<Vec<String>> = derived.iter().map(|path| vec![path.clone()]).collect();
    for _ in 0..60 {
        rounds.push(derived.iter().filter(|_| world.rng.below(2) == 0).cloned().collect());
    }
    rounds.push(derived.clone());
    for removed in rounds {
        let disk = world.store.disk().crash(|| false);
        removed.iter().for_each(|path| disk.remove(path).unwrap());
        let opened = open_as(disk.clone(), &identity()).unwrap();
        let Opened { store, mut mailboxes, acknowledged, .. } = opened;
        apply(&store, &mut mailboxes, acknowledged.next(), store.last());
        // What was removed comes back.
        let applied = mailboxes.clone();
        let mut again = World { store, mailboxes, ..World::new(1) };
        again.applied = again.store.last();
        again.index();
        if let Some(job) = again.store.remake_job(|| applied.emptied()) {
            job.run(again.store.disk(), || false).unwrap();
            again.store.forget_lost();
        }
        again.checkpoint();
        let mut found = again.derived();
        found.sort();
        let mut all = derived.clone();
        all.sort();
        assert_eq!(found, all, "without {removed:?}");
        world.check(&again.store.disk().crash(|| false), &format!("without {removed:?}"));
    }
}

/// A damaged file is not used, or the damage is in a part that nothing is read from.
#[test]
fn damage_in_any_of_the_files_changes_no_state() {
    let mut world = filled(SEED + 2);
    let mut noticed = 0;
    for path in world.derived() {
        let size = damage::content(world.store.disk(), &path).len() as u64;
        for _ in 0..40 {
            let disk = world.store.disk().crash(|| false);
            let at = world.rng.below(size) as usize;
            match world.rng.below(3) {
                0 => disk.edit(&path, |bytes| bytes.truncate(at)),
                1 => disk.edit(&path, |bytes| bytes[at..].fill(0)),
                _ => disk.edit(&path, |bytes| bytes[at] ^= 0x40),
            }
            let whole = Index(world.store.log.newest().0 - 1);
            let opened = open_as(disk, &identity()).unwrap();
            let Opened { store, mut mailboxes, acknowledged, .. } = opened;
            noticed += u64::from(acknowledged < whole);
            let why = format!("{path} at {at}");
            apply(&store, &mut mailboxes, acknowledged.next(), store.last());
            let names = |mailboxes: &Mailboxes| mailboxes.names_after(None).collect::<Vec<_>>();
            assert_eq!(names(&mailboxes), names(&world.mailboxes), "{why}");
            for user in names(&mailboxes) {
                let of = |mailboxes: &Mailboxes| described(mailboxes.account(user).unwrap());
                assert_eq!(of(&mailboxes), of(&world.mailboxes), "{why}");
            }
        }
    }
    assert!(noticed > 40, "{noticed}");
}

#[test]
fn a_crash_at_any_step_of_a_checkpoint_leaves_the_one_before_or_the_new_one() {
    let world = filled(SEED + 3);
    let mut steps = 0;
    loop {
        let disk = world.store.disk().crash(|| false);
        let mut store = open_as(disk.clone(), &identity()).unwrap().store;
        store.checkpoint.is_due = true;
        let job = store.checkpoint_job(world.mailboxes.secret_mark()).unwrap();
        let done = job.run(&crash::Stopping::after(disk.clone(), steps), || false).is_ok();
        let mut rng = Rng::new(steps);
        let crashed = disk.crash(|| rng.below(2) == 0);
        world.check(&crashed, &format!("after {steps} calls"));
        if done {
            break;
        }
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
}

#[test]
fn a_cut_into_what_the_checkpoint_contains_removes_it_first() {
    let mut world = filled(SEED + 4);
    world.index();
    world.checkpoint();
    let newest = world.store.log.newest();
    for (last, remains) in [(newest, true), (newest.before(), true), (Index(newest.0 - 2), false)] {
        let disk = world.store.disk().crash(|| false);
        let mut store = open_as(disk.clone(), &identity()).unwrap().store;
        store.quarantine_tail(last, LABEL).unwrap();
        assert_eq!(disk.paths().contains(&checkpoint::FILE.to_owned()), remains, "{last}");
        let summary = |disk: &MemoryDisk| {
            let opened = open_as(disk.clone(), &identity()).unwrap();
            assert_eq!(opened.store.last(), last);
            let mut summary = opened.summary;
            summary.settle(last);
            format!("{summary:?}")
        };
        let found = summary(&disk);
        world.derived().iter().for_each(|path| drop(disk.remove(path)));
        assert_eq!(found, summary(&disk));
    }
}

#[test]
fn files_of_another_log_or_of_another_secret_are_not_used() {
    let (world, other) = (filled(SEED + 5), filled(SEED + 6));
    let disk = world.store.disk().crash(|| false);
    for path in other.derived() {
        let bytes = damage::content(other.store.disk(), &path);
        let file = disk.open(&path, true).unwrap();
        disk.truncate(&file, 0).unwrap();
        disk.write_at(&file, &bytes, 0).unwrap();
    }
    world.check(&disk, "with the files of another log");

    let disk = world.store.disk().crash(|| false);
    let empty = Mailboxes::new(&Secret::new([2; Secret::BYTES]));
    let opening = Opening { expected: &identity(), label: LABEL, empty: &empty };
    let opened = Store::open(disk, &opening, &mut |_| {}).unwrap();
    assert_eq!(opened.acknowledged, Index::ZERO);
}
