//! An `OK` to a change means that all members have it on disk: their logs hold the same records.

mod common;

use common::Group;

/// Returns whether a log file of a server contains `text`.
fn holds(group: &Group, n: usize, text: &str) -> bool {
    let folder = std::fs::read_dir(group.data(n).join("log")).unwrap();
    folder
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

#[test]
fn all_three_disks_have_it_when_ok_comes() {
    let group = Group::open();
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    for n in 1..=10 {
        let text = format!("text number {n} of this test");
        assert_eq!(ann.ask(&format!("SEND ann {text}")), format!("OK {n}"));
        for server in 1..=3 {
            assert!(holds(&group, server, &text), "server {server} lacks {text}");
        }
    }
}

#[test]
fn backups_apply_what_was_answered() {
    let group = Group::open();
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    for n in 1..=500 {
        ann.send(&format!("SEND ann {n}"));
    }
    for n in 1..=500 {
        assert_eq!(ann.answer(), format!("OK {n}"));
    }
    let last = group.status(primary).unwrap()["applied_index"].clone();
    for n in 1..=3 {
        let status = group.wait(n, "all is applied", |status| status["applied_index"] == last);
        assert_eq!((&status["messages"][..], &status["accounts"][..]), ("500", "1"));
    }
}
