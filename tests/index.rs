//! Index files of old segments are made while a group works, serve its mailboxes, and come back
//! when they are lost. Only debug builds can make segments small.
#![cfg(debug_assertions)]

mod common;

use common::{Group, wait_for};
use std::fs;
use std::path::PathBuf;

const MESSAGES: usize = 3000;

fn text(n: usize) -> String {
    format!("message {n} {}", "x".repeat(n % 97))
}

/// Sends messages from ann to ann and bob, in turn.
fn fill(group: &Group, primary: usize) {
    drop(group.client(primary, "bob"));
    let mut ann = group.client(primary, "ann");
    for n in 0..MESSAGES {
        let to = ["ann", "bob"][n % 2];
        ann.send(&format!("SEND {to} {}", text(n)));
        if n % 50 == 49 {
            let oks = (0..).map(|_| ann.line()).filter(|line| line.starts_with("OK ")).take(50);
            assert_eq!(oks.count(), 50);
        }
    }
}

fn check(group: &Group, primary: usize) {
    for (at, user) in ["ann", "bob"].into_iter().enumerate() {
        let expected: Vec<String> = (at..MESSAGES).step_by(2).map(text).collect();
        assert!(group.mailbox(primary, user) == expected, "the mailbox of {user}");
    }
    let mut ann = group.connect(primary);
    assert!(ann.ask("LOGIN ann correct-horse end").starts_with("OK "));
    ann.send("SENT");
    for n in 0..MESSAGES {
        let (line, to) = (ann.line(), ["ann", "bob"][n % 2]);
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        let (i, number) = ((n + 1).to_string(), (n / 2 + 1).to_string());
        assert_eq!(words[..3], ["SENT", &i, &number]);
        assert_eq!(words[4..], [to, &text(n)]);
    }
    assert_eq!(ann.line(), format!("OK {MESSAGES}"));
}

/// Waits until each segment of a server but the last one has its index file.
fn wait_indexed(group: &Group, n: usize) -> Vec<PathBuf> {
    let all = || {
        let (indexes, segments) = (group.log_files(n, ".idx"), group.log_files(n, ".log"));
        (indexes.len() + 1 == segments.len()).then_some(indexes)
    };
    wait_for(all, || format!("server {n} lacks index files: {:?}", group.log_files(n, "")))
}

#[test]
fn mailboxes_are_read_from_index_files_by_every_primary() {
    let mut group = Group::with_small_segments();
    let mut primary = group.wait_members(3);
    fill(&group, primary);
    for n in 1..=3 {
        assert!(wait_indexed(&group, n).len() > 10);
    }
    check(&group, primary);
    for _ in 0..2 {
        group.kill(primary);
        let next = group.wait_members(2);
        check(&group, next);
        group.start(primary);
        primary = group.wait_members(3);
    }
    // A server without a disk is filled from segments with index files.
    let backup = primary % 3 + 1;
    group.kill(backup);
    fs::remove_dir_all(group.data(backup)).unwrap();
    group.start(backup);
    group.wait_members(3);
    wait_indexed(&group, backup);
    group.kill(primary);
    check(&group, group.wait_members(2));
}

#[test]
fn lost_index_files_come_back() {
    let mut group = Group::new(1);
    group.is_faulty = true;
    fs::write(group.faults(1), "segments 20000").unwrap();
    group.start(1);
    group.wait_members(1);
    fill(&group, 1);
    let indexes = wait_indexed(&group, 1);
    // Damage and loss while it runs: reads notice it, and mend it.
    fs::remove_file(&indexes[3]).unwrap();
    fs::write(&indexes[5], "no index file").unwrap();
    let mut cut = fs::read(&indexes[7]).unwrap();
    cut.truncate(5000);
    fs::write(&indexes[7], cut).unwrap();
    let read_all = |user: &str| {
        let mut client = group.connect(1);
        client.send(&format!("LOGIN {user} correct-horse"));
        let last = (0..).map(|_| client.line()).find(|line| !line.starts_with("MSG "));
        last.filter(|line| line.starts_with("OK "))
    };
    let whole = || read_all("ann").and(read_all("bob"));
    wait_for(whole, || format!("mailboxes can't be read: {}", group.log(1)));
    check(&group, 1);
    assert!(group.log(1).contains("index files are missing or damaged"), "{}", group.log(1));
    // Loss while it is down: the start makes them again.
    group.kill(1);
    indexes.iter().for_each(|path| fs::remove_file(path).unwrap());
    group.start(1);
    group.wait_members(1);
    // The entry of the new term may have begun another segment.
    assert!(wait_indexed(&group, 1).starts_with(&indexes));
    check(&group, 1);
}
