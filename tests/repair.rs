//! Damage in old segments of the log is found by a running server and put right with entries of
//! the others. A start needs the old segments only where no file tells what is in
//! them. Only debug builds can make segments small.
#![cfg(debug_assertions)]

mod common;

use common::{Group, postern, run, wait_for};
use std::fs;
use std::path::PathBuf;

const MESSAGES: usize = 1500;

/// Returns a group whose segments are small, filled and stopped.
fn stopped() -> Group {
    let mut group = Group::with_small_segments();
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    assert_eq!(ann.send_first("ann", MESSAGES).len(), MESSAGES);
    for n in 1..=3 {
        wait_for(
            || group.data(n).join("checkpoint").exists().then_some(()),
            || format!("server {n} has no checkpoint"),
        );
    }
    group.kill_all();
    group
}

fn flip(path: &PathBuf, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Stops a server, and asserts that its directory is sound.
fn check_directory(group: &mut Group, n: usize) {
    assert_eq!(group.terminate(n), Some(0));
    let mut check = postern();
    check.args(["check", "--data"]).arg(group.data(n));
    let checked = run(check);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// Reads the mailbox. A primary that meets damage hands over instead, so nothing may be damaged.
fn check(group: &Group) {
    let primary = group.wait_members(3);
    assert_eq!(group.mailbox(primary, "ann").len(), MESSAGES);
}

#[test]
fn damage_in_an_old_segment_is_repaired_without_leaving_the_group() {
    let mut group = stopped();
    let segments = group.log_files(2, ".log");
    // Two places in one segment, and another one.
    [9000, 15_000].into_iter().for_each(|at| flip(&segments[1], at));
    flip(&segments[3], 100);
    (1..=3).for_each(|n| group.start(n));
    let status = group.wait(2, "it is repaired", |status| {
        status["log_checked"] != "-" && status["log_damaged"] == "0"
    });
    assert!(status["log_repaired"].parse::<u64>().unwrap() >= 3, "{status:?}");
    assert_eq!(status["set_aside"], "-");
    group.wait_line(2, "are damaged (a record has a wrong checksum): other servers are asked");
    group.wait_line(2, "a damaged part of the log is repaired");
    for n in [1, 3] {
        assert_eq!(group.status(n).unwrap()["log_repaired"], "0");
    }
    check(&group);
    check_directory(&mut group, 2);
}

#[test]
fn two_servers_that_are_damaged_in_different_places_repair_each_other() {
    let mut group = stopped();
    let damaged = [1, 2].map(|n| group.log_files(n, ".log")[n].clone());
    damaged.iter().for_each(|path| flip(path, 7000));
    // The third one can't help.
    [1, 2].into_iter().for_each(|n| group.start(n));
    for n in [1, 2] {
        group.wait(n, "it is repaired", |status| {
            status["log_repaired"] != "0" && status["log_damaged"] == "0"
        });
    }
    group.start(3);
    check(&group);
    [1, 2].into_iter().for_each(|n| check_directory(&mut group, n));
}

/// Two servers can't help each other: they say so, keep what they have, and wait for the third.
#[test]
fn entries_that_two_have_lost_come_back_with_the_third() {
    let mut group = stopped();
    let [first, second] = [1, 2].map(|n| group.log_files(n, ".log")[1].clone());
    // The same entries: neither can help the other.
    for path in [&first, &second] {
        let mut bytes = fs::read(path).unwrap();
        bytes[2000..12_000].fill(0);
        fs::write(path, bytes).unwrap();
    }
    [1, 2].into_iter().for_each(|n| group.start(n));
    for n in [1, 2] {
        group.wait(n, "it is damaged", |status| status["log_damaged"] != "0");
    }
    group.start(3);
    for n in [1, 2] {
        group.wait(n, "it is repaired", |status| status["log_damaged"] == "0");
    }
    check(&group);
}

/// The checkpoint, index files, or both may be gone: they come back, and nothing else changes.
#[test]
fn derived_files_come_back() {
    let mut group = stopped();
    for round in 0..3 {
        for n in 1..=3 {
            if round != 0 {
                group.log_files(n, ".idx").iter().for_each(|path| fs::remove_file(path).unwrap());
            }
            if round != 1 {
                fs::remove_file(group.data(n).join("checkpoint")).unwrap();
            }
            group.start(n);
        }
        check(&group);
        for n in 1..=3 {
            let all = || {
                let (indexes, segments) = (group.log_files(n, ".idx"), group.log_files(n, ".log"));
                let whole = group.data(n).join("checkpoint").exists();
                (whole && indexes.len() + 1 == segments.len()).then_some(())
            };
            wait_for(all, || format!("server {n} lacks files in round {round}"));
        }
        group.kill_all();
    }
}
