//! A disk that fails ends its server, which reports the reason. Every acknowledged change is
//! stored, and nothing is lost. Only debug builds can inject disk faults.
#![cfg(debug_assertions)]

mod common;

use common::Group;
use std::fs;

const FAILURES: [(&str, &str); 2] = [
    ("sync log/ fail EIO", ".log: Input/output error"),
    ("write log/ fail ENOSPC", ".log: No space left on device"),
];

fn faulty_group() -> Group {
    let mut group = Group::new(3);
    group.is_faulty = true;
    (1..=3).for_each(|n| group.start(n));
    group
}

fn expect_end(group: &mut Group, n: usize, reason: &str) {
    assert_eq!(group.wait_end(n), Some(1));
    let log = group.log(n);
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("postern: ") && last.contains(reason), "{log}");
}

#[test]
fn a_backup_that_can_not_store_ends_and_the_group_goes_on() {
    let mut group = faulty_group();
    for (at, (fault, reason)) in FAILURES.into_iter().enumerate() {
        let primary = group.wait_members(3);
        let backup = primary % 3 + 1;
        let mut ann = group.client(primary, "ann");
        fs::write(group.faults(backup), fault).unwrap();
        assert_eq!(ann.ask(&format!("SEND ann {reason}")), format!("OK {}", at + 1));
        expect_end(&mut group, backup, reason);
        fs::remove_file(group.faults(backup)).unwrap();
        group.start(backup);
    }
    let primary = group.wait_members(3);
    assert_eq!(group.mailbox(primary, "ann"), FAILURES.map(|(_, reason)| reason));
}

#[test]
fn a_primary_that_can_not_store_acknowledges_nothing() {
    let mut group = faulty_group();
    for (at, (fault, reason)) in FAILURES.into_iter().enumerate() {
        let primary = group.wait_members(3);
        let mut ann = group.client(primary, "ann");
        fs::write(group.faults(primary), fault).unwrap();
        let once = format!("ONCE key{at} ann {reason}");
        ann.send(&once);
        let said = ann.rest();
        assert!(!said.iter().any(|line| line.starts_with("OK")), "{said:?}");
        expect_end(&mut group, primary, reason);
        let next = group.wait_members(2);
        assert_eq!(group.client(next, "ann").ask(&once), format!("OK {}", at + 1));
        fs::remove_file(group.faults(primary)).unwrap();
        group.start(primary);
    }
    let primary = group.wait_members(3);
    assert_eq!(group.mailbox(primary, "ann"), FAILURES.map(|(_, reason)| reason));
}

#[test]
fn a_bit_that_flips_is_found_at_the_next_start() {
    let mut group = faulty_group();
    let primary = group.wait_members(3);
    let backup = primary % 3 + 1;
    let mut ann = group.client(primary, "ann");
    for n in 1..=9 {
        assert_eq!(ann.ask(&format!("SEND ann message {n}")), format!("OK {n}"));
    }
    group.kill(backup);
    fs::write(group.faults(backup), "read log/ flip 700").unwrap();
    group.start(backup);
    fs::remove_file(group.faults(backup)).unwrap();
    assert!(group.log(backup).contains("damaged: log/"), "{}", group.log(backup));
    group.wait_members(3);
    group.wait(backup, "it is filled", |status| status["messages"] == "9");
    assert_eq!(group.terminate(backup), Some(0));
}
