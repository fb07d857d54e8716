//! An operator's override keeps what is readable and deletes nothing. After a crash in the
//! middle, it only has to be repeated.

use super::crash::{Stopping, at_every_call};
use super::damage::{content, formed, harm_batch};
use super::*;
use crate::ids::Vote;

/// The first term of an epoch of server 1.
const EPOCH: Term = Term(1 << 48);

/// Salvages the directory under a new disk number, after the entry `last`.
fn salvage<D: Disk>(disk: D, last: u64) -> Result<Option<String>, OpenError> {
    let mut new = identity();
    new.disk = DiskId(99);
    let vote = Vote { term: EPOCH, given: None, founder: Some(new.disk) };
    let at = Position { index: Index(last + 1), term: EPOCH };
    let config = Config::new([Member { id: new.id, disk: new.disk }], true);
    let mut entry = Vec::new();
    record::write(&mut entry, at, WallTime(0), Kind::CONFIG, |out| config.encode(out));
    Store::salvage(disk, &new, vote, &entry, LABEL)
}

/// Opens and checks a salvaged directory. Returns its records without the new entry.
fn salvaged(at: &str, disk: &MemoryDisk, last: u64) -> Vec<Vec<u8>> {
    let (opened, mut records) = open(disk.crash(|| false)).unwrap_or_else(|e| panic!("{at}: {e}"));
    let identity = opened.store.identity().clone();
    assert_eq!((opened.quarantined, opened.torn, identity.disk), (None, None, DiskId(99)), "{at}");
    assert_eq!((opened.vote.term, opened.vote.founder), (EPOCH, Some(DiskId(99))), "{at}");
    let own = records.pop().unwrap();
    assert_eq!(Record::trust(&own).position().term, EPOCH, "{at}");
    assert_eq!(records.len() as u64, last, "{at}");
    records
}

/// The contents of all files below `quarantine`.
fn quarantine(disk: &MemoryDisk) -> Vec<Vec<u8>> {
    let paths = disk.paths();
    paths.iter().filter(|path| path.starts_with("quarantine/")).map(|p| content(disk, p)).collect()
}

#[test]
fn a_sound_directory_goes_on_as_another_disk() {
    let mut store = formed(3, 4);
    let run = Run { incarnation: Incarnation(6), process: ProcessId(1) };
    let seen = SeenDisk::new(DiskId(5), vec![run]);
    store.see(seen.clone());
    store.seal().unwrap();
    let disk = store.disk.crash(|| false);
    let before = open(disk.copied()).unwrap().1;
    disk.edit(FIRST, |bytes| bytes.extend([7; 100]));
    assert_eq!(salvage(disk.clone(), 4).unwrap(), None, "a torn tail is no damage");
    assert_eq!(salvaged("", &disk, 4), before);
    assert_eq!(open(disk).unwrap().0.store.identity().seen().all(), [seen]);
}

#[test]
fn the_entry_that_goes_on_begins_a_segment_when_the_last_one_is_full() {
    let disk = formed(3, 4).disk.crash(|| false);
    disk.set_segment_bytes(100);
    salvage(disk.clone(), 4).unwrap();
    assert_eq!(segments_of(&disk, LOG), 2);
    salvaged("", &disk, 4);
}

#[test]
fn what_lies_behind_damage_is_quarantined_and_the_rest_goes_on() {
    type Break = fn(&MemoryDisk);
    let breaks: [(&str, u64, Break); 5] = [
        ("an entry", 2, |disk| harm_batch(disk, 3)),
        ("the vote", 4, |disk| disk.edit("vote", |bytes| bytes[30] ^= 1)),
        ("no vote", 4, |disk| disk.remove("vote").unwrap()),
        ("the identity", 4, |disk| disk.edit("identity", |bytes| bytes[30] ^= 1)),
        ("all", 2, |disk| {
            harm_batch(disk, 3);
            disk.edit("vote", |bytes| bytes[30] ^= 1);
            disk.edit("identity", |bytes| bytes[30] ^= 1);
        }),
    ];
    for (what, last, harm) in breaks {
        let disk = formed(2, 4).disk.crash(|| false);
        let sound = open(disk.copied()).unwrap().1;
        harm(&disk);
        let harmed = disk.copied();
        assert!(matches!(open(disk.copied()), Err(OpenError::Damaged(_))), "{what}");
        let folder = salvage(disk.clone(), last).unwrap();
        assert_eq!(folder, Some(format!("quarantine/damaged-{LABEL}")), "{what}");
        assert_eq!(salvaged(what, &disk, last), sound[..last as usize], "{what}");
        let kept = quarantine(&disk);
        for path in harmed.paths() {
            let changed = path == FIRST && last < 4 || path == "vote" || path == "identity";
            assert!(!changed || kept.contains(&content(&harmed, &path)), "{what}: {path}");
        }
    }
}

#[test]
fn what_does_not_follow_or_is_foreign_touches_nothing() {
    let disk = formed(3, 4).disk.crash(|| false);
    harm_batch(&disk, 3);
    let before: Vec<_> = disk.paths().iter().map(|path| content(&disk, path)).collect();
    for last in [0, 1, 3, 4] {
        assert!(matches!(salvage(disk.clone(), last), Err(OpenError::Refused(_))), "{last}");
    }
    let other = Identity::new(GroupId(2), 3, ServerId::new(1).unwrap(), DiskId(1));
    let refused = Store::salvage(disk.clone(), &other, Vote::default(), &entry(3, 9, ""), LABEL);
    assert!(matches!(refused, Err(OpenError::Refused(_))));
    let after: Vec<_> = disk.paths().iter().map(|path| content(&disk, path)).collect();
    assert_eq!(before, after);
}

/// An override relies on what `check` reports, whether the identity is readable or not.
#[test]
fn a_log_without_its_beginning_holds_nothing_to_go_on_from() {
    type Break = fn(&MemoryDisk);
    let breaks: [Break; 3] = [
        |_| {},
        |disk| disk.remove("identity").unwrap(),
        |disk| disk.edit("identity", |bytes| bytes[30] ^= 1),
    ];
    for harm in breaks {
        let disk = formed(3, 4).disk.crash(|| false);
        disk.set_segment_bytes(100);
        salvage(disk.clone(), 4).unwrap();
        disk.remove(FIRST).unwrap();
        harm(&disk);
        let findings = check::check(&disk).unwrap();
        assert_eq!(findings.last, Position::default());
        assert!(findings.damage.iter().any(|damage| damage.contains("entries before it")));
        for last in 1..=6 {
            assert!(matches!(salvage(disk.clone(), last), Err(OpenError::Refused(_))), "{last}");
        }
    }
}

/// The last readable entry, and whether the override is complete.
fn state(disk: &MemoryDisk) -> (u64, bool) {
    let found = check::check(disk).unwrap();
    let done = found.damage.is_empty() && found.last.term == EPOCH;
    (found.last.index.0 - u64::from(found.last.term == EPOCH), done)
}

#[test]
fn a_crash_at_any_step_leaves_what_can_be_read() {
    let mut store = formed(2, 2);
    let firsts = three_segments(&mut store);
    let (small, large) = (formed(2, 4).disk.crash(|| false), store.disk.crash(|| false));
    let path = |segment: usize| format!("log/{}", segment::file_name(Index(firsts[segment])));
    type Break<'a> = Box<dyn Fn(&MemoryDisk) + 'a>;
    let breaks: [(u64, &MemoryDisk, Break<'_>); 5] = [
        (4, &small, Box::new(|_| {})),
        (firsts[1] - 1, &large, Box::new(|disk| disk.edit(&path(1), |bytes| bytes[3] ^= 1))),
        (firsts[2] - 1, &large, Box::new(|disk| disk.remove(&path(2)).unwrap())),
        (2, &small, Box::new(|disk| harm_batch(disk, 3))),
        (4, &small, Box::new(|disk| disk.remove("vote").unwrap())),
    ];
    for (last, disk, harm) in breaks {
        let image = disk.copied();
        harm(&image);
        // Make removals durable.
        let image = image.crash(|| true);
        let had_vote = VoteFile::open(&image).unwrap().is_some();
        let work = |disk: Stopping| salvage(disk, last).map(drop);
        at_every_call(&image, work, |at, done, disk| {
            let (found, ended) = state(disk);
            assert_eq!(found, last, "{at}");
            assert!(ended || !done, "{at}");
            let vote = VoteFile::open(disk).unwrap().map_or(Term::ZERO, |(_, vote)| vote.term);
            if had_vote && vote == EPOCH {
                let Found::Good(identity) = Identity::read(disk).unwrap() else { panic!("{at}") };
                assert_eq!(identity.disk, DiskId(99), "{at}: its founder is nowhere");
            }
            if !ended {
                let disk = disk.copied();
                if let Ok((opened, _)) = open(disk.copied()) {
                    assert_eq!(opened.quarantined, None, "{at}: a start would begin anew");
                }
                salvage(disk.clone(), last).unwrap_or_else(|why| panic!("{at}: {why}"));
                salvaged(at, &disk, last);
            }
        });
    }
}
