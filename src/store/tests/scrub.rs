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
    let mut mailboxes = empty();
    for index in (1..=200).map(Index) {
        let (segment, first) = store.segment_of(index);
        mailboxes.begin_segment(segment, first);
        mailboxes.pass_over(index);
    }
    while let Some(part) = mailboxes.unindexed().cloned() {
        let job = store.index_job(&part, mailboxes.secret_mark()).unwrap().unwrap();
        job.run(store.disk(), || false).unwrap();
        store.note_indexed(part.segment);
        mailboxes.forget_indexed();
    }
    assert!(store.sealed_segments() > 4);
    store
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

/// Repairs a segment from an undamaged log, with so many entries at a time. Returns whether its
/// index file is to be made again.
fn repair(
    store: &mut Store<MemoryDisk>,
    good: &Store<MemoryDisk>,
    id: SegmentId,
    most: u64,
) -> bool {
    let mut moved = false;
    for mut damage in verify(store, id, u64::MAX).damage {
        while damage.at < damage.end {
            let mut records = Vec::new();
            let last = Index(damage.next.0.min(damage.first.0 + most)).before();
            if damage.first < damage.next {
                good.copy(damage.first, last, &mut records).unwrap();
            }
            let job = store.repair_job(damage.clone(), records).unwrap();
            let Ok(JobDone::Repaired(repaired)) = job.run(store.disk(), || false) else {
                panic!("the entries fit: {damage:?}")
            };
            store.end_repair();
            (damage, moved) = (repaired.rest, moved || repaired.moved);
        }
    }
    moved
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

/// Every single bit of a segment: what was there comes back, in its place.
#[test]
fn a_flipped_bit_is_found_and_put_right() {
    let good = filled();
    let id = good.segment_id(2).unwrap();
    let path = path_of(&good, id);
    let whole = content(good.disk(), &path);
    for at in 0..whole.len() {
        let mut store = filled_again(&good);
        store.disk().edit(&path, |bytes| bytes[at] ^= 1 << (at % 8));
        for bytes in [700, u64::MAX] {
            assert_eq!(verify(&store, id, bytes).damage.len(), 1, "byte {at}");
        }
        assert!(!repair(&mut store, &good, id, 3), "byte {at}");
        assert!(content(store.disk(), &path) == whole, "byte {at}");
        assert!(verify(&store, id, u64::MAX).damage.is_empty());
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
    let seed = 0x10_57;
    println!("seed {seed:#x}");
    let (mut rng, mut kept) = (Rng::new(seed), 0);
    for round in 0..300 {
        let mut store = filled_again(&good);
        let id = store.segment_id(rng.below(store.sealed_segments() as u64) as usize).unwrap();
        let path = path_of(&store, id);
        let size = content(store.disk(), &path).len();
        let at = rng.below(size as u64) as usize;
        let end = size.min(at + 1 + rng.below(1500) as usize);
        match rng.below(4) {
            0 => store.disk().edit(&path, |bytes| bytes.truncate(at)),
            1 => store.disk().remove(&path).unwrap(),
            _ => store.disk().edit(&path, |bytes| bytes[at..end].fill(0)),
        }
        let moved = repair(&mut store, &good, id, 1 + rng.below(10));
        let why = format!("round {round}: {path} from {at} to {end}");
        assert!(verify(&store, id, 500).damage.is_empty(), "{why}");
        // The index file names places, so it stays only where all records have theirs.
        let index = path.replace(".log", ".idx");
        assert_eq!(store.disk().paths().contains(&index), !moved, "{why}");
        assert!(moved || offsets(&store, id) == offsets(&good, id), "{why}");
        kept += u64::from(!moved);
        let expected = all(&good);
        assert!(all(&store) == expected, "{why}");
        // A start reads all of it, and finds the configs where headers name them.
        let disk = store.disk().copied();
        for name in disk.paths().iter().filter(|name| name.ends_with(".idx")) {
            disk.remove(name).unwrap();
        }
        let opened = open_as(disk, &identity()).unwrap();
        assert!(opened.quarantined.is_none() && all(&opened.store) == expected, "{why}");
    }
    assert!((20..280).contains(&kept), "{kept}");
}

/// Reads all entries, one by one.
fn all(store: &Store<MemoryDisk>) -> Vec<u8> {
    let mut records = Vec::new();
    for index in (1..=store.last().0).map(Index) {
        store.copy(index, index, &mut records).unwrap();
    }
    records
}

/// The offsets of the records in a segment.
fn offsets(store: &Store<MemoryDisk>, id: SegmentId) -> Vec<u32> {
    let sealed = &store.log.segments[id.number() as usize - 1];
    let mut last = Position { index: sealed.first.before(), term: Term::ZERO };
    let path = path_of(store, id);
    segment::scan(store.disk(), &path, sealed.end, &mut last, |_| ()).unwrap()
}

#[test]
fn entries_that_do_not_fit_are_refused() {
    let good = filled();
    let mut store = filled_again(&good);
    let id = store.segment_id(1).unwrap();
    let path = path_of(&store, id);
    store.disk().edit(&path, |bytes| bytes[400] ^= 1);
    let damage = verify(&store, id, u64::MAX).damage.remove(0);
    let mut records = Vec::new();
    for index in damage.first.0..damage.next.0 {
        records.extend(entry(index, 1, "another text"));
    }
    let before = content(store.disk(), &path);
    let job = store.repair_job(damage, records).unwrap();
    assert!(job.run(store.disk(), || false).is_err());
    assert!(content(store.disk(), &path) == before);
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
