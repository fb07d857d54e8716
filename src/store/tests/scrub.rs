//! Damage in sealed segments is found, and entries of another server put it right, to the byte.

use super::damage::content;
use super::*;
use crate::store::file_job::JobDone;

const SEGMENT_BYTES: u64 = 3000;

/// A log of several sealed segments with index files, whose batches have one to four entries.
fn filled() -> Store<MemoryDisk> {
    let disk = MemoryDisk::default();
    disk.set_segment_bytes(SEGMENT_BYTES);
    let mut store = created(disk);
    store.append(&config(1, 3)).unwrap();
    let mut rng = Rng::new(0x5c0b);
    for index in 2..=200 {
        match index {
            50 | 120 => store.append(&config(index, 2)).unwrap(),
            _ => {
                let text = "x".repeat(rng.below(120) as usize);
                store.append(&entry(index, 1, &text)).unwrap();
            }
        }
        if rng.below(3) == 0 {
            store.flush().unwrap();
        }
    }
    store.flush().unwrap();
    index(&mut store, empty(), Index(1));
    assert!(store.sealed_segments() > 4);
    store
}

/// Makes the index files that are missing, from an entry on.
fn index(store: &mut Store<MemoryDisk>, mut mailboxes: Mailboxes, from: Index) {
    for index in (from.0..=200).map(Index) {
        let (segment, first) = store.segment_of(index);
        mailboxes.begin_segment(segment, first);
        mailboxes.pass_over(index);
    }
    while let Some(part) = mailboxes.unindexed().cloned() {
        if let Some(job) = store.index_job(&part, mailboxes.secret_mark()).unwrap() {
            job.run(store.disk(), || false).unwrap();
        }
        store.note_indexed(part.segment);
        mailboxes.forget_indexed();
    }
}

/// Reads a segment, in parts of this size.
fn verify(store: &Store<MemoryDisk>, id: SegmentId, bytes: u64) -> Verified {
    let mut from = None;
    loop {
        let job = store.verify_job(id, from, bytes).unwrap();
        let Ok(JobDone::Verified(of, verified)) = job.run(store.disk(), || false) else {
            panic!("a disk that works is read")
        };
        assert_eq!(of, id);
        if verified.rest.is_none() {
            return verified;
        }
        from = verified.rest;
    }
}

/// Writes the next step of a damaged segment, by at most so many entries of an undamaged log.
fn step(
    store: &Store<MemoryDisk>,
    good: &Store<MemoryDisk>,
    rewrite: Rewrite,
    most: u64,
) -> Result<JobDone, JobError> {
    let mut records = Vec::new();
    if let Some((first, last)) = rewrite.lacks() {
        good.copy(first, last.min(Index(first.0 + most).before()), &mut records).unwrap();
    }
    store.rewrite_job(rewrite, records, empty).run(store.disk(), || false)
}

/// Repairs a segment. Returns whether it got its index file at once.
fn repair(
    store: &mut Store<MemoryDisk>,
    good: &Store<MemoryDisk>,
    id: SegmentId,
    most: u64,
) -> bool {
    let damage = verify(store, id, u64::MAX).damage;
    let lost: u64 = damage.iter().map(|part| part.next.0 - part.first.0).sum();
    let mut rewrite = store.begin_rewrite(damage).expect("it is damaged");
    loop {
        match step(store, good, rewrite, most) {
            Ok(JobDone::Rewritten(Rewritten::Part(next))) => rewrite = next,
            Ok(JobDone::Rewritten(Rewritten::Whole(new))) => {
                assert_eq!((new.id, new.entries), (id, lost));
                store.put_rewritten(&new).unwrap();
                return new.is_indexed;
            }
            other => panic!("the entries fit: {other:?}"),
        }
    }
}

fn path_of(store: &Store<MemoryDisk>, id: SegmentId) -> String {
    segment::path(LOG, store.log.segments[id.number() as usize - 1].first)
}

#[test]
fn a_sound_log_is_sound_in_parts_of_any_size() {
    let store = filled();
    for at in 0..store.sealed_segments() {
        let id = store.segment_id(at).unwrap();
        for bytes in [1, 100, 1000, u64::MAX] {
            let verified = verify(&store, id, bytes);
            assert!(verified.damage.is_empty() && !verified.index_is_lost, "{verified:?}");
        }
    }
    assert!(store.segment_id(store.sealed_segments()).is_none());
}

/// Wherever a bit of a segment has changed, all entries come back.
#[test]
fn a_flipped_bit_is_found_and_put_right() {
    let good = filled();
    let expected = all(&good);
    let id = good.segment_id(2).unwrap();
    let path = path_of(&good, id);
    for at in 0..content(good.disk(), &path).len() {
        let mut store = filled_again(&good);
        store.disk().edit(&path, |bytes| bytes[at] ^= 1 << (at % 8));
        for bytes in [700, u64::MAX] {
            assert_eq!(verify(&store, id, bytes).damage.len(), 1, "byte {at}");
        }
        assert!(repair(&mut store, &good, id, 3), "byte {at}");
        let verified = verify(&store, id, u64::MAX);
        assert!(verified.damage.is_empty() && !verified.index_is_lost, "byte {at}");
        assert!(all(&store) == expected, "byte {at}");
    }
}

/// The same directory in other files.
fn filled_again(good: &Store<MemoryDisk>) -> Store<MemoryDisk> {
    open_as(good.disk().copied(), &identity()).unwrap().store
}

/// Wherever many bytes are lost, the entries come back, and the segment is sound.
#[test]
fn lost_bytes_are_filled_with_what_was_there() {
    let good = filled();
    let expected = all(&good);
    let seed = 0x10_57;
    println!("seed {seed:#x}");
    let mut rng = Rng::new(seed);
    for round in 0..300 {
        let mut store = filled_again(&good);
        let id = store.segment_id(rng.below(store.sealed_segments() as u64) as usize).unwrap();
        let path = path_of(&store, id);
        let size = content(store.disk(), &path).len();
        let parts: Vec<(usize, usize)> = (0..1 + rng.below(3))
            .map(|_| {
                let at = rng.below(size as u64) as usize;
                (at, size.min(at + 1 + rng.below(500) as usize))
            })
            .collect();
        match rng.below(4) {
            0 => store.disk().edit(&path, |bytes| bytes.truncate(parts[0].0)),
            1 => store.disk().remove(&path).unwrap(),
            _ => store.disk().edit(&path, |bytes| {
                parts.iter().for_each(|(at, end)| bytes[*at..*end].fill(0));
            }),
        }
        let is_indexed = repair(&mut store, &good, id, 1 + rng.below(10));
        let why = format!("round {round}: {path}, {parts:?}");
        let verified = verify(&store, id, 500);
        assert!(is_indexed && verified.damage.is_empty() && !verified.index_is_lost, "{why}");
        assert!(all(&store) == expected, "{why}");
        // A start reads all of it, and finds the configs where headers name them.
        let disk = store.disk().crash(|| false);
        for name in disk.paths().iter().filter(|name| name.ends_with(".idx")) {
            disk.remove(name).unwrap();
        }
        let opened = open_as(disk, &identity()).unwrap();
        assert!(opened.quarantined.is_none() && all(&opened.store) == expected, "{why}");
    }
}

/// The names of the new files may reach the disk in any combination, or none.
#[test]
fn a_crash_at_any_step_of_a_rewrite_leaves_a_log_that_can_be_repaired() {
    let good = filled();
    let expected = all(&good);
    let id = good.segment_id(1).unwrap();
    let path = path_of(&good, id);
    for steps in 0.. {
        let mut store = filled_again(&good);
        store.disk().edit(&path, |bytes| bytes[600] ^= 1);
        let damage = verify(&store, id, u64::MAX).damage;
        let rewrite = store.begin_rewrite(damage).unwrap();
        let mut records = Vec::new();
        let (first, last) = rewrite.lacks().unwrap();
        good.copy(first, last, &mut records).unwrap();
        let job = store.rewrite_job(rewrite, records, empty);
        let done = job.run(&crash::Stopping::after(store.disk().clone(), steps), || false);
        let is_done = done.is_ok();
        if let Ok(JobDone::Rewritten(Rewritten::Whole(new))) = done {
            store.put_rewritten(&new).unwrap();
        }
        for seed in 0..8 {
            let mut rng = Rng::new(seed);
            let disk = store.disk().crash(|| rng.below(2) == 0);
            let opened = open_as(disk, &identity()).unwrap();
            let why = format!("after {steps} calls, seed {seed}");
            assert_eq!(opened.quarantined, None, "{why}");
            let Opened { store: mut again, mailboxes, acknowledged, .. } = opened;
            index(&mut again, mailboxes, acknowledged.next());
            assert_eq!(again.sealed_segments(), good.sealed_segments(), "{why}");
            if !verify(&again, id, u64::MAX).damage.is_empty() {
                repair(&mut again, &good, id, u64::from(u32::MAX));
            }
            assert!(all(&again) == expected, "{why}");
            let names = again.disk().paths();
            assert!(names.iter().all(|name| !name.ends_with(".new")), "{why}: {names:?}");
        }
        if is_done {
            assert!(steps > 3, "{steps}");
            break;
        }
    }
}

/// Reads all entries, one by one.
fn all(store: &Store<MemoryDisk>) -> Vec<u8> {
    let mut records = Vec::new();
    for index in (1..=store.last().0).map(Index) {
        store.copy(index, index, &mut records).unwrap();
    }
    records
}

#[test]
fn entries_that_do_not_fit_are_refused() {
    let good = filled();
    let store = filled_again(&good);
    let id = store.segment_id(1).unwrap();
    let path = path_of(&store, id);
    store.disk().edit(&path, |bytes| bytes[400] ^= 1);
    let rewrite = store.begin_rewrite(verify(&store, id, u64::MAX).damage).unwrap();
    let (first, last) = rewrite.lacks().unwrap();
    let mut right = Vec::new();
    good.copy(first, last, &mut right).unwrap();
    let mut beyond = right.clone();
    good.copy(last.next(), last.next(), &mut beyond).unwrap();
    let mut early = Vec::new();
    good.copy(first.before(), last, &mut early).unwrap();
    let before = content(store.disk(), &path);
    for wrong in [beyond, early, right[1..].to_vec()] {
        let job = store.rewrite_job(rewrite.clone(), wrong, empty);
        assert!(job.run(store.disk(), || false).is_err());
        assert!(content(store.disk(), &path) == before);
    }
}

#[test]
fn a_damaged_index_file_is_noticed() {
    let store = filled();
    let id = store.segment_id(1).unwrap();
    let path = path_of(&store, id).replace(".log", ".idx");
    store.disk().edit(&path, |bytes| bytes[5000] ^= 1);
    assert!(verify(&store, id, u64::MAX).index_is_lost);
    store.disk().remove(&path).unwrap();
    assert!(verify(&store, id, u64::MAX).index_is_lost);
}

/// The kernel shows what a killed process has written, long before the disk has it.
#[test]
fn what_is_found_sound_outlasts_a_power_cut() {
    let good = filled();
    let store = filled_again(&good);
    let id = store.segment_id(1).unwrap();
    let path = path_of(&store, id);
    let whole = content(good.disk(), &path);
    store.disk().edit(&path, |bytes| bytes[400] ^= 1);
    // A repair ends between its write and its sync.
    let file = store.disk().open(&path, false).unwrap();
    store.disk().write_at(&file, &whole[400..401], 400).unwrap();
    assert!(content(&store.disk().crash(|| false), &path) != whole);
    assert!(verify(&store, id, u64::MAX).damage.is_empty());
    assert!(content(&store.disk().crash(|| false), &path) == whole);
}
