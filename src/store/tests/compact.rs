//! A compacted log gives the same state as the whole one, from files and from the log alone, and is
//! smaller.

use super::base::{SEED, World};
use super::*;
use crate::mailbox::{Change, Forget, Forgets, Forgotten};
use crate::store::base::segment_id;
use crate::store::file_job::JobDone;

impl World {
    /// Compacts all segments that are worth it. Returns how many bytes that frees.
    fn compact(&mut self) -> u64 {
        let mut survey = Vec::new();
        let mut after = None;
        while let Some(last) = self.mailboxes.survey(after, 5, &mut survey) {
            after = Some(last);
        }
        let accounts = survey.into();
        let (survey, before) = (Survey { through: self.applied, accounts }, self.store.log_bytes());
        for at in 0..self.store.sealed_segments() {
            let id = self.store.segment_id(at).unwrap();
            let job = self.store.compact_job(id, &survey, empty);
            let Some(job) = job else { continue };
            match job.run(self.store.disk(), || false).unwrap() {
                JobDone::Compacted(Some(new)) => self.store.put_rewritten(&new).unwrap(),
                JobDone::Compacted(None) => {}
                other => panic!("{other:?}"),
            }
        }
        before - self.store.log_bytes()
    }

    /// The state that the log alone gives.
    fn check_log(&self, why: &str) {
        let disk = self.store.disk().crash(|| false);
        remove_derived(&disk);
        assert_eq!(self.check(&disk, why), Index::ZERO);
    }
}

#[test]
fn a_compacted_log_gives_the_same_state() {
    let mut freed = 0;
    for seed in SEED..SEED + 30 {
        let mut world = World::new(seed);
        for round in 0..6 {
            let count = world.rng.below(300);
            world.grow(count);
            world.index();
            if world.rng.below(2) == 0 {
                world.checkpoint();
            }
            freed += world.compact();
            let why = format!("seed {seed:#x}, round {round}");
            world.check(&world.store.disk().crash(|| false), &why);
            let disk = world.store.disk().copied();
            world.check(&disk, &why);
            world.check_log(&why);
            if world.rng.below(3) == 0 {
                let opened = open_as(world.store.disk().crash(|| false), &identity()).unwrap();
                let Opened { store, mut mailboxes, acknowledged, .. } = opened;
                base::apply(&store, &mut mailboxes, acknowledged.next(), store.last());
                (world.store, world.mailboxes) = (store, mailboxes);
            }
        }
    }
    assert!(freed > 20_000, "{freed}");
}

/// The mailbox of a deleted account, and what mailboxes forget, leave the disk.
#[test]
fn what_nobody_keeps_is_freed() {
    let mut world = World::new(SEED);
    let (ann, bob) = (base::name(1), base::name(2));
    for user in [ann, bob] {
        world.push_change(&Change::Create { user, hash: "h" });
    }
    let (text, sender) = ("x".repeat(300), Index(1));
    for n in 0..200 {
        let (to, content) = ([ann, ann, bob][n % 3], crate::content::Content::plain(&text));
        world.push_change(&Change::Message { to, from: ann, sender, key: None, content });
        world.flush();
    }
    world.index();
    assert_eq!(world.compact(), 0, "all is kept");
    world.push_change(&Change::Delete { user: bob, checked: Index(2) });
    world.flush();
    let whole = world.store.log_bytes();
    // A third of the messages: not the greater part.
    assert_eq!(world.compact(), 0);
    let checked = world.mailboxes.account(ann).unwrap().password_set;
    world.push_change(&Change::Delete { user: ann, checked });
    world.flush();
    let freed = world.compact();
    assert!(freed * 10 > whole * 7, "{freed} of {whole}");
    assert_eq!(world.compact(), 0, "nothing is left to free");
    world.check_log("empty");
}

/// A message whose key an entry has used again keeps it: without it, that entry would store another
/// message when the log is read.
#[test]
fn a_key_that_was_used_again_stays() {
    let mut world = World::new(SEED);
    let (ann, bob) = (base::name(1), base::name(2));
    for user in [ann, bob] {
        world.push_change(&Change::Create { user, hash: "h" });
    }
    let text = "x".repeat(200);
    let send = |world: &mut World, to, key: Option<&str>| {
        let content = crate::content::Content::plain(&text);
        world.push_change(&Change::Message { to, from: ann, sender: Index(1), key, content });
        world.flush();
    };
    send(&mut world, bob, Some("once"));
    (0..40).for_each(|_| send(&mut world, bob, None));
    send(&mut world, bob, Some("once"));
    (0..100).for_each(|_| send(&mut world, ann, None));
    let account = world.mailboxes.account(bob).unwrap();
    assert_eq!(account.last(), 41);
    let forgotten = Forgotten { messages: 41, bytes: account.kept_bytes() };
    let mut body = Vec::new();
    Forget { user: bob, account: account.created(), forgotten }.encode(&mut body);
    world.push_change(&Change::Forget(Forgets::decode(&body).unwrap()));
    world.flush();
    world.index();
    assert!(world.compact() > 0);
    world.check_log("after the key was used again");
}

#[test]
fn a_crash_in_a_compaction_leaves_the_old_segment_or_the_new_one() {
    let mut world = World::new(SEED + 1);
    world.grow(600);
    for n in 0..12 {
        let user = base::name(n);
        if let Some(account) = world.mailboxes.account(user) {
            let checked = account.password_set;
            world.push_change(&Change::Delete { user, checked });
        }
    }
    world.flush();
    world.index();
    let survey = Survey { through: world.applied, accounts: Vec::new().into() };
    let is_worth_it = |id: &SegmentId| {
        let store = open_as(world.store.disk().copied(), &identity()).unwrap().store;
        let job = store.compact_job(*id, &survey, empty).unwrap();
        matches!(job.run(store.disk(), || false), Ok(JobDone::Compacted(Some(_))))
    };
    let mut ids = (0..world.store.sealed_segments()).map(segment_id);
    let id = ids.find(is_worth_it).expect("all accounts are deleted");
    for steps in 0.. {
        let mut store = open_as(world.store.disk().copied(), &identity()).unwrap().store;
        let job = store.compact_job(id, &survey, empty).unwrap();
        let done = job.run(&crash::Stopping::after(store.disk().clone(), steps), || false);
        let is_done = done.is_ok();
        if let Ok(JobDone::Compacted(Some(new))) = done {
            store.put_rewritten(&new).unwrap();
        }
        for seed in 0..8 {
            let mut rng = Rng::new(seed);
            let disk = store.disk().crash(|| rng.below(2) == 0);
            let why = format!("after {steps} calls, seed {seed}");
            assert_eq!(open_as(disk.copied(), &identity()).unwrap().quarantined, None, "{why}");
            remove_derived(&disk);
            world.check(&disk, &why);
        }
        if is_done {
            assert!(steps > 2, "{steps}");
            break;
        }
    }
}

fn remove_derived(disk: &MemoryDisk) {
    for path in disk.paths() {
        if path.ends_with(".idx") || path == checkpoint::FILE {
            disk.remove(&path).unwrap();
        }
    }
}

/// A survey takes time. Accounts that are created meanwhile are not in it, and their messages stay.
#[test]
fn a_segment_after_the_survey_is_left_alone() {
    let mut world = World::new(SEED + 2);
    let through = Index(10);
    world.grow(600);
    world.index();
    let survey = Survey { through, accounts: Vec::new().into() };
    let segments = (0..world.store.sealed_segments()).map(segment_id);
    let jobs = segments.map(|id| world.store.compact_job(id, &survey, empty).is_some());
    let firsts = world.store.log.segments.iter().skip(1).map(|segment| segment.first);
    for (is_compacted, next) in jobs.zip(firsts) {
        assert!(!is_compacted || next.before() <= through);
    }
}

/// Fills segments: accounts; messages for ann, cyd and bob, in turns; the deletion of cyd and bob;
/// one more entry. Returns the number of the segment with the messages.
fn three_mailboxes(world: &mut World) -> SegmentId {
    world.store.disk().set_segment_bytes(1 << 20);
    let [ann, bob, cyd] = [1, 2, 3].map(base::name);
    world.store.append(&config(1, 3)).unwrap();
    for user in [ann, bob, cyd] {
        world.push_change(&Change::Create { user, hash: "h" });
    }
    world.flush();
    world.store.roll().unwrap();
    for n in 0..90 {
        let text = "x".repeat(60 + world.rng.below(200) as usize + [0, 200, 200][n % 3]);
        let (to, content) = ([ann, cyd, bob][n % 3], crate::content::Content::plain(&text));
        world.push_change(&Change::Message { to, from: ann, sender: Index(2), key: None, content });
    }
    world.flush();
    world.store.roll().unwrap();
    for user in [cyd, bob] {
        let checked = world.mailboxes.account(user).unwrap().password_set;
        world.push_change(&Change::Delete { user, checked });
    }
    world.flush();
    world.store.roll().unwrap();
    world.push_change(&Change::Limits(crate::mailbox::Limits::NONE));
    world.flush();
    world.index();
    world.checkpoint();
    segment_id(1)
}

fn compaction_of(world: &World, id: SegmentId) -> FileJob {
    let mut accounts = Vec::new();
    world.mailboxes.survey(None, 99, &mut accounts);
    let survey = Survey { through: world.applied, accounts: accounts.into() };
    world.store.compact_job(id, &survey, empty).unwrap()
}

/// After a crash between the renames of a segment and of its index file, the old index file does
/// not say which messages of the new segment nobody keeps.
#[test]
fn an_index_file_of_another_segment_empties_nothing() {
    let mut world = World::new(SEED);
    let id = three_mailboxes(&mut world);
    let job = compaction_of(&world, id);
    let JobDone::Compacted(Some(_)) = job.run(world.store.disk(), || false).unwrap() else {
        panic!("it is worth it")
    };
    let log = "log/00000000000000000005.log";
    world.store.disk().rename(&format!("{log}.new"), log).unwrap();
    world.store.disk().sync_folder("log").unwrap();
    let opened = open_as(world.store.disk().crash(|| false), &identity()).unwrap();
    let Opened { store, mut mailboxes, acknowledged, .. } = opened;
    base::apply(&store, &mut mailboxes, acknowledged.next(), store.last());
    (world.store, world.mailboxes) = (store, mailboxes);
    let JobError { lost, .. } =
        compaction_of(&world, id).run(world.store.disk(), || false).unwrap_err();
    assert_eq!(lost, Some(Lost::Index(id)));
    // The check of the segment finds it, too, and so it is made again.
    let job = world.store.verify_job(id, None, u64::MAX).unwrap();
    let JobDone::Verified(_, verified) = job.run(world.store.disk(), || false).unwrap() else {
        panic!("it was verified")
    };
    assert!(verified.index_is_lost && verified.damage.is_empty());
}

/// While the segment before is damaged at its end, nobody knows the newest config before a segment:
/// its headers would name none, and a start that reads the whole log would take that for damage.
#[test]
fn no_segment_is_compacted_after_one_that_is_damaged_at_its_end() {
    let mut world = World::new(SEED);
    let id = three_mailboxes(&mut world);
    let job = compaction_of(&world, id);
    world.store.disk().edit(FIRST, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let JobError { lost, .. } = job.run(world.store.disk(), || false).unwrap_err();
    assert_eq!(lost, Some(Lost::Index(SegmentId::FIRST)));
}

/// A later segment that has lost its end may have used a key again.
#[test]
fn no_segment_is_compacted_before_one_that_ends_early() {
    let mut world = World::new(SEED);
    let id = three_mailboxes(&mut world);
    let job = compaction_of(&world, id);
    let after = "log/00000000000000000095.log";
    let mut last = Vec::new();
    world.store.copy(Index(96), Index(96), &mut last).unwrap();
    world.store.disk().edit(after, |bytes| bytes.truncate(bytes.len() - last.len()));
    let JobError { lost, .. } = job.run(world.store.disk(), || false).unwrap_err();
    assert_eq!(lost, Some(Lost::Index(segment_id(2))));
}

/// When a segment is written anew, a check that has read a part of it starts again.
#[test]
fn a_check_goes_on_in_the_same_file_alone() {
    let mut world = World::new(SEED);
    let id = three_mailboxes(&mut world);
    let part = world.store.verify_job(id, None, 25_000).unwrap();
    let JobDone::Verified(_, Verified { rest, .. }) =
        part.run(world.store.disk(), || false).unwrap()
    else {
        panic!("it was verified")
    };
    assert!(rest.is_some() && world.compact() > 0);
    let part = world.store.verify_job(id, rest, u64::MAX).unwrap();
    let JobDone::Verified(_, done) = part.run(world.store.disk(), || false).unwrap() else {
        panic!("it was verified")
    };
    assert!(done.damage.is_empty() && done.bytes > 10_000, "all of it is read: {}", done.bytes);
}

/// A full disk is the time to free space, but a compaction must not take the room of the log.
#[test]
fn a_compaction_without_room_writes_nothing() {
    let mut world = World::new(SEED);
    let id = three_mailboxes(&mut world);
    for is_full in [true, false] {
        world.store.disk().fail(|failures| failures.nearly_full = is_full);
        let done = compaction_of(&world, id).run(world.store.disk(), || false).unwrap();
        assert_eq!(matches!(done, JobDone::Compacted(Some(_))), !is_full);
        let names = world.store.disk().list("log").unwrap();
        assert_eq!(names.iter().any(|name| name.ends_with(".new")), !is_full);
    }
}
