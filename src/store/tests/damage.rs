//! A damaged directory is quarantined and created again, unless it may be the only copy. No loss
//! of durable data goes unnoticed.

use super::*;

/// A store that begins with the two configs that a formation and the gate write, of `members`
/// members. Each entry has its own batch.
pub(super) fn formed(members: u8, last: u64) -> Store<MemoryDisk> {
    let mut store = created(MemoryDisk::default());
    for index in 1..=last {
        let text = entry(index, 1, "text");
        store.append(&if index < 3 { config(index, members) } else { text }).unwrap();
        store.flush().unwrap();
    }
    store
}

/// The offsets of the batches of the first segment.
fn batches(disk: &impl Disk) -> Vec<usize> {
    let bytes = content(disk, FIRST);
    let header = |at: &usize| segment::is_header(&bytes[*at..]);
    (0..bytes.len()).filter(header).collect()
}

/// Flips a bit of the first record in a batch of the first segment.
pub(super) fn harm_batch(disk: &MemoryDisk, batch: usize) {
    let at = batches(disk)[batch] + segment::HEADER_BYTES + 10;
    disk.edit(FIRST, |bytes| bytes[at] ^= 1);
}

pub(super) fn content(disk: &impl Disk, path: &str) -> Vec<u8> {
    let file = disk.open(path, false).unwrap();
    let mut bytes = vec![0; disk.size(&file).unwrap() as usize];
    disk.read_at(&file, &mut bytes, 0).unwrap();
    bytes
}

fn new_disk() -> Identity {
    Identity::new(GroupId(1), 3, ServerId::new(1).unwrap(), DiskId(99))
}

/// Opens the directory, with a new disk number at hand.
fn begin(disk: MemoryDisk) -> Result<Opened<MemoryDisk>, OpenError> {
    open_as(disk, &new_disk())
}

#[test]
fn what_is_damaged_is_quarantined_and_the_directory_begins_anew() {
    type Break = fn(&MemoryDisk);
    let breaks: [(Break, &str); 5] = [
        (|disk| disk.edit(FIRST, |bytes| bytes[100] ^= 1), "log/00000000000000000001.log: at byte"),
        (|disk| disk.edit("vote", |bytes| bytes[30] ^= 1), "vote: it is missing or unreadable"),
        (|disk| disk.remove("vote").unwrap(), "vote: it is missing or unreadable"),
        (|disk| disk.edit("identity", |bytes| bytes[30] ^= 1), "identity: its checksum is wrong"),
        (|disk| disk.remove("identity").unwrap(), "identity: it is missing, the log is not"),
    ];
    for (harm, why) in breaks {
        let disk = formed(3, 4).disk.crash(|| false);
        harm(&disk);
        let log = content(&disk, FIRST);
        let opened = begin(disk).unwrap();
        let quarantine = opened.quarantined.unwrap();
        assert!(quarantine.why.starts_with(why), "{why}: {}", quarantine.why);
        assert_eq!(quarantine.folder, format!("quarantine/damaged-{LABEL}"));
        let mut store = opened.store;
        assert_eq!((store.identity().disk, store.last()), (DiskId(99), Index::ZERO));
        assert_eq!(store.identity().incarnation, Incarnation(1));
        assert_eq!(content(&store.disk, &format!("{}/{FIRST}", quarantine.folder)), log);
        // The next damage does not overwrite what is quarantined.
        store.append(&config(1, 3)).unwrap();
        store.flush().unwrap();
        store.disk.remove("vote").unwrap();
        let again = begin(store.disk).unwrap();
        assert_eq!(again.quarantined.unwrap().folder, format!("{}-2", quarantine.folder));
        assert_eq!(content(&again.store.disk, &format!("{}/{FIRST}", quarantine.folder)), log);
    }
}

#[test]
fn a_segment_that_vanished_is_damage() {
    let mut store = formed(3, 4);
    let firsts = three_segments(&mut store);
    let disk = store.disk.crash(|| false);
    disk.remove(&segment::path(LOG, Index(firsts[2]))).unwrap();
    let quarantine = begin(disk).unwrap().quarantined.unwrap();
    assert!(quarantine.why.ends_with("it is missing"), "{}", quarantine.why);
}

/// A log that is not mounted looks like one that vanished. Creating a new directory would hide
/// that it exists.
#[test]
fn a_directory_without_any_log_is_left_alone() {
    for harm in [|_: &MemoryDisk| (), |disk: &MemoryDisk| disk.edit("identity", Vec::clear)] {
        let disk = formed(3, 4).disk.crash(|| false);
        disk.remove(FIRST).unwrap();
        harm(&disk);
        let before = content(&disk, "identity");
        let opened = begin(disk.clone()).map(|opened| opened.quarantined);
        assert!(matches!(&opened, Err(OpenError::Damaged(why)) if why == NO_LOG), "{opened:?}");
        assert_eq!(content(&disk, "identity"), before);
        assert_eq!(disk.paths().len(), 2, "{:?}", disk.paths());
        assert!(
            check::check(&disk).unwrap().damage.contains(&NO_LOG.to_owned()) || before.is_empty()
        );
    }
    // A directory of which only the vote is left is not created again, either.
    let disk = formed(3, 4).disk.crash(|| false);
    disk.remove(FIRST).unwrap();
    disk.remove("identity").unwrap();
    assert_eq!(check::check(&disk).unwrap().damage, [LONE_VOTE]);
    assert!(matches!(begin(disk), Err(OpenError::Damaged(_))));
}

/// A server records what it has lost, and its last readable entry, before moving it. It must not
/// form a new group, because nobody would notice the loss there.
#[test]
fn what_is_quarantined_is_remembered() {
    type Break = fn(&MemoryDisk);
    let breaks: [(Break, u64); 3] = [
        (|disk| harm_batch(disk, 3), 2),
        (|disk| disk.edit("vote", Vec::clear), 4),
        (|disk| disk.edit("identity", Vec::clear), 4),
    ];
    for (harm, last) in breaks {
        let disk = formed(3, 4).disk.crash(|| false);
        harm(&disk);
        let opened = begin(disk).unwrap();
        let folder = opened.quarantined.unwrap().folder;
        let last = Position { index: Index(last), term: Term(1) };
        let former = [Former { folder, last, opened: true }];
        assert_eq!(opened.former, former);
        let again = begin(opened.store.disk.crash(|| false)).unwrap();
        assert_eq!((again.quarantined, &again.former[..]), (None, &former[..]));
        assert_eq!(check::check(&again.store.disk).unwrap().former, former);
    }
}

/// A group that never admitted a client may form again: it has acknowledged nothing.
#[test]
fn what_no_client_has_used_is_remembered_as_that() {
    let closed = |index: u64, term: u64| {
        let members = ServerId::all(3).map(|id| Member { id, disk: DiskId(10) });
        let at = Position { index: Index(index), term: Term(term) };
        let mut out = Vec::new();
        let config = Config::new(members, false);
        record::write(&mut out, at, WallTime(0), Kind::CONFIG, |out| config.encode(out));
        out
    };
    type Break = fn(&MemoryDisk);
    let breaks: [(Break, bool); 3] = [
        (|disk| disk.edit("vote", Vec::clear), false),
        (|disk| disk.edit("identity", Vec::clear), false),
        (|disk| harm_batch(disk, 1), true),
    ];
    for (harm, may_have) in breaks {
        let mut store = created(MemoryDisk::default());
        for entry in [closed(1, 0), closed(2, 1)] {
            store.append(&entry).unwrap();
            store.flush().unwrap();
        }
        store.seal().unwrap();
        let disk = store.disk.crash(|| false);
        harm(&disk);
        let former = begin(disk).unwrap().former;
        assert_eq!(former.iter().map(|former| former.opened).collect::<Vec<_>>(), [may_have]);
    }
    // A directory that is quarantined for another reason is read like at a start: a missing
    // segment that its identity names may have held more.
    for (vanishes, may_have) in [(false, false), (true, true)] {
        let mut store = created(MemoryDisk::default());
        store.append(&closed(1, 0)).unwrap();
        store.flush().unwrap();
        store.roll().unwrap();
        store.append(&closed(2, 1)).unwrap();
        store.flush().unwrap();
        store.seal().unwrap();
        let disk = store.disk.crash(|| false);
        if vanishes {
            disk.remove(&segment::path(LOG, Index(2))).unwrap();
        }
        Store::quarantine(&disk, "old-copy", LABEL).unwrap();
        assert_eq!(former::read(&disk).unwrap()[0].opened, may_have);
    }
    // A directory that was never used.
    let disk = open(MemoryDisk::default()).unwrap().0.store.disk;
    disk.edit("identity", Vec::clear);
    assert!(begin(disk).unwrap().former.iter().all(|former| !former.opened));
}

#[test]
fn what_may_be_the_only_copy_is_not_touched() {
    // Two members; three members, and two in a config after the damage; no config at all.
    let two = formed(2, 4);
    let mut later = formed(3, 4);
    later.append(&config(5, 2)).unwrap();
    later.flush().unwrap();
    let none = filled(4);
    for store in [two, later, none] {
        let disk = store.disk.crash(|| false);
        harm_batch(&disk, 3);
        let before = disk.crash(|| false);
        let Err(OpenError::Damaged(_)) = begin(disk.crash(|| false)) else { panic!("opened") };
        for path in [FIRST, "vote", "identity"] {
            assert_eq!(content(&disk, path), content(&before, path));
        }
    }
    let alone = Identity::new(GroupId(1), 1, ServerId::new(1).unwrap(), DiskId(10));
    let store = open_as(MemoryDisk::default(), &alone).unwrap().store;
    store.disk.remove("vote").unwrap();
    let opened = open_as(store.disk, &alone);
    assert!(matches!(opened, Err(OpenError::Damaged(_))));
}

#[test]
fn a_newest_config_that_is_damaged_may_be_of_fewer_members() {
    // The readable config has three members; the one that replaced it is unreadable.
    let mut store = formed(3, 4);
    store.append(&config(5, 2)).unwrap();
    store.flush().unwrap();
    let unsealed = store.disk.crash(|| false);
    store.seal().unwrap();
    let disk = store.disk.crash(|| false);
    harm_batch(&disk, 5);
    let findings = check::check(&disk).unwrap();
    assert_eq!(findings.unread_config, Some(Index(5)));
    assert_eq!(findings.config.unwrap().0.index, Index(2));
    assert!(matches!(begin(disk), Err(OpenError::Damaged(_))));
    // Without a header that says it was durable, this is a torn tail: nobody relies on that
    // config.
    harm_batch(&unsealed, 5);
    assert_eq!(begin(unsealed).unwrap().store.last(), Index(4));
}

#[test]
fn a_damaged_config_is_noticed_from_a_later_segment() {
    let mut store = formed(3, 2);
    store.append(&config(3, 2)).unwrap();
    store.flush().unwrap();
    three_segments(&mut store);
    let disk = store.disk.crash(|| false);
    harm_batch(&disk, 3);
    assert!(matches!(begin(disk), Err(OpenError::Damaged(_))));
    // With a later readable config, the damaged one does not matter.
    let next = store.last().next();
    store.append(&config(next.0, 3)).unwrap();
    store.flush().unwrap();
    let disk = store.disk.crash(|| false);
    harm_batch(&disk, 3);
    assert!(begin(disk).unwrap().quarantined.is_some());
}

#[test]
fn one_that_was_dropped_holds_no_only_copy() {
    let mut store = formed(3, 4);
    let at = Position { index: Index(5), term: Term(1) };
    let others = ServerId::all(3).skip(1).map(|id| Member { id, disk: DiskId(10) });
    let mut without = Vec::new();
    record::write(&mut without, at, WallTime(0), Kind::CONFIG, |out| {
        Config::new(others, true).encode(out);
    });
    store.append(&without).unwrap();
    store.flush().unwrap();
    store.seal().unwrap();
    let disk = store.disk.crash(|| false);
    harm_batch(&disk, 3);
    assert!(begin(disk).unwrap().quarantined.is_some());
}

#[test]
fn a_cut_far_back_names_the_config_before_it() {
    let mut store = formed(3, 4);
    for index in 5..300 {
        let at = if index < 100 { entry(index, 1, "text") } else { config(index, 3) };
        store.append(&at).unwrap();
    }
    store.flush().unwrap();
    store.cut(Index(90), LABEL).unwrap();
    let (opened, records) = open(store.disk.crash(|| false)).unwrap();
    assert_eq!((opened.torn, records.len()), (None, 90));
    let disk = opened.store.disk.crash(|| false);
    harm_batch(&disk, 2);
    assert_eq!(check::check(&disk).unwrap().unread_config, Some(Index(2)));
}

#[test]
fn the_newest_config_is_found_behind_damage_and_in_later_segments() {
    let mut store = formed(2, 2);
    three_segments(&mut store);
    let next = store.last().next();
    store.append(&config(next.0, 3)).unwrap();
    store.flush().unwrap();
    let disk = store.disk.crash(|| false);
    disk.edit(FIRST, |bytes| bytes[3] ^= 1);
    assert!(begin(disk).unwrap().quarantined.is_some());
}

#[test]
fn a_directory_of_others_is_refused_before_damage_is_looked_for() {
    let disk = formed(3, 4).disk;
    disk.remove("vote").unwrap();
    let other = Identity::new(GroupId(2), 3, ServerId::new(1).unwrap(), DiskId(1));
    let opened = open_as(disk, &other);
    assert!(matches!(opened, Err(OpenError::Refused(_))));
}

#[test]
fn a_gap_between_segments_and_falling_terms_are_damage() {
    let mut store = formed(3, 2);
    let firsts = three_segments(&mut store);
    let disk = store.disk.crash(|| false);
    disk.remove(&format!("log/{}", segment::file_name(Index(firsts[1])))).unwrap();
    let why = begin(disk).unwrap().quarantined.unwrap().why;
    assert!(why.ends_with("entries before it are missing"), "{why}");

    let mut store = formed(3, 2);
    store.append(&entry(3, 5, "high")).unwrap();
    store.flush().unwrap();
    store.append(&entry(4, 4, "low")).unwrap();
    store.flush().unwrap();
    store.seal().unwrap();
    let why = begin(store.disk.crash(|| false)).unwrap().quarantined.unwrap().why;
    assert!(why.ends_with("a term is lower than the one before"), "{why}");
}

#[test]
fn only_a_tail_may_begin_anywhere_and_none_has_a_gap() {
    let mut store = formed(3, 2);
    let firsts = three_segments(&mut store);
    let named = Some(store.identity().segment);
    let misses = |gone: usize, known: Known| {
        let disk = store.disk.crash(|| false);
        disk.remove(&format!("log/{}", segment::file_name(Index(firsts[gone])))).unwrap();
        let damage = recovery::read(&disk, "log", known, None, &mut |_| {}).unwrap().damage;
        damage.iter().filter(|why| why.ends_with("entries before it are missing")).count()
    };
    let tail = Known { is_tail: true, ..Known::default() };
    let log = Known { segment: named, ..Known::default() };
    assert_eq!([misses(0, tail), misses(0, Known::default()), misses(0, log)], [0, 1, 1]);
    assert_eq!([misses(1, tail), misses(1, Known::default()), misses(1, log)], [1, 1, 1]);
}

#[test]
fn the_first_batch_of_a_named_segment_is_never_torn() {
    let mut store = formed(3, 2);
    let text = "x".repeat(8000);
    while store.identity().segment == Index(1) {
        let at = store.last().0;
        let batch: Vec<u8> = (1..=64).flat_map(|i| entry(at + i, 1, &text)).collect();
        store.append(&batch).unwrap();
        store.flush().unwrap();
    }
    let path = format!("log/{}", segment::file_name(store.identity().segment));
    for byte in [3, 20, 28, 32, 48] {
        let disk = store.disk.crash(|| false);
        disk.edit(&path, |bytes| bytes[byte] ^= 1);
        assert!(begin(disk).unwrap().quarantined.is_some(), "byte {byte}");
    }
}

#[test]
fn every_flipped_bit_keeps_the_records_or_is_noticed() {
    for sealed in [false, true] {
        let mut store = formed(3, 4);
        if sealed {
            store.seal().unwrap();
        }
        let image = store.disk.crash(|| false);
        let all = open(image.crash(|| false)).unwrap().1;
        let known = if sealed { 4 } else { 3 };
        let places = batches(&image);
        let newest_config = places[2] * 8..places[3] * 8;
        for path in ["identity", "vote", FIRST] {
            for bit in 0..content(&image, path).len() * 8 {
                let disk = image.crash(|| false);
                disk.edit(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
                let at = format!("{path}, bit {bit}, sealed {sealed}");
                let (opened, records) = match open(disk) {
                    Ok(opened) => opened,
                    Err(OpenError::Refused(why)) => {
                        assert!(path == "identity" && why.contains("newer version"), "{at}");
                        continue;
                    }
                    Err(OpenError::Damaged(_)) if path == FIRST && newest_config.contains(&bit) => {
                        continue; // the config may have fewer members
                    }
                    Err(why) => panic!("{at}: {why}"),
                };
                if opened.quarantined.is_none() && records != all {
                    // A torn tail was cut: only data that no header records as durable.
                    assert!(opened.torn.is_some() && records.len() >= known, "{at}");
                    assert!(all.starts_with(&records), "{at}");
                }
            }
        }
    }
}

#[test]
fn a_tail_that_is_quarantined_can_be_read_there() {
    let mut store = formed(3, 4);
    three_segments(&mut store);
    let last = store.last().0;
    store.append(&entry(last + 1, (1 << 48) | 1, "of an epoch")).unwrap();
    let mut gone = Vec::new();
    store.copy(Index(3), Index(last + 1), &mut gone).unwrap();
    let folder = store.quarantine_tail(Index(2), LABEL).unwrap().unwrap();
    assert_eq!(folder, format!("quarantine/epoch-0-{LABEL}"));
    assert_eq!(store.last(), Index(2));
    let disk = store.disk.crash(|| false);
    let (reading, kept) = moved(&disk, &folder);
    assert!(reading.damage.is_empty() && reading.torn.is_none() && reading.segments.len() > 1);
    assert_eq!(kept.concat(), gone);
    assert_eq!(open(disk).unwrap().1.len(), 2);
}

#[test]
fn a_check_sees_damage_and_changes_nothing() {
    let store = formed(3, 4);
    let disk = store.disk.crash(|| false);
    let findings = check::check(&disk).unwrap();
    assert!(findings.damage.is_empty(), "{:?}", findings.damage);
    assert_eq!((findings.last.index, findings.segments[0].last), (Index(4), Index(4)));
    assert_eq!(findings.config.unwrap().1.count(), 3);
    disk.edit(FIRST, |bytes| bytes.extend([7; 100]));
    let findings = check::check(&disk).unwrap();
    assert!(findings.damage.is_empty() && findings.torn.unwrap().bytes == 100);
    // Damage in two batches, and a missing vote.
    harm_batch(&disk, 1);
    harm_batch(&disk, 3);
    disk.remove("vote").unwrap();
    let before = content(&disk, FIRST);
    let findings = check::check(&disk).unwrap();
    assert_eq!(findings.damage.len(), 3, "{:?}", findings.damage);
    assert_eq!(findings.segments[0].last, Index(4), "reading goes on behind damage");
    assert_eq!(content(&disk, FIRST), before);
    let empty = check::check(&MemoryDisk::default()).unwrap();
    assert!(empty.damage.is_empty());
}

/// A directory without an identity was quarantined earlier. A log that is missing now has nothing
/// to do with that move: the start waits for it instead of completing the move.
#[test]
fn an_old_move_is_not_gone_on_with() {
    let disk = formed(3, 4).disk.crash(|| false);
    disk.remove("identity").unwrap();
    let mut store = begin(disk).unwrap().store;
    store.append(&config(1, 3)).unwrap();
    store.flush().unwrap();
    let disk = store.disk.crash(|| false);
    disk.remove(FIRST).unwrap();
    let (identity, vote) = (content(&disk, "identity"), content(&disk, "vote"));
    assert!(matches!(begin(disk.clone()), Err(OpenError::Damaged(why)) if why == NO_LOG));
    assert_eq!((content(&disk, "identity"), content(&disk, "vote")), (identity, vote));
}

/// After a failed sync, reads may show anything of the last batch although the machine keeps
/// running. The batch is torn, and no operator is needed.
#[test]
fn after_a_failed_sync_the_last_batch_may_be_torn() {
    let mut store = formed(2, 4);
    store.append(&entry(5, 1, "text")).unwrap();
    store.disk.fail(|failures| failures.sync_after = Some(0));
    store.flush().unwrap_err();
    let disk = store.disk.copied();
    // Where the pages were dropped, the file reads as zeros.
    let size = content(&disk, FIRST).len();
    let batch = segment::HEADER_BYTES + entry(5, 1, "text").len();
    disk.edit(FIRST, |bytes| bytes[size - batch..].fill(0));
    let (opened, records) = open(disk).unwrap();
    assert_eq!((opened.torn.is_some(), records.len()), (true, 4));
}
