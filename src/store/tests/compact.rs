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
