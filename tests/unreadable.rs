//! An old entry that the primary cannot read ends no server. The primary hands its role to a
//! server that may be able to read it; if no server can, only that read fails. Only debug builds
//! can inject disk faults.
#![cfg(debug_assertions)]

mod common;

use common::Group;
use std::fs;

/// Returns the position in the log of server 1 of a message to bob.
fn place(group: &Group) -> usize {
    let log = fs::read(group.data(1).join("log/00000000000000000001.log")).unwrap();
    let text = b"for bob 1";
    log.windows(text.len()).position(|bytes| bytes == text).expect("it is stored")
}

fn fill(group: &Group, primary: usize) {
    let mut ann = group.client(primary, "ann");
    drop(group.client(primary, "bob"));
    for n in 1..=3 {
        assert_eq!(ann.ask(&format!("SEND bob for bob {n}")), format!("OK {n}"));
        assert_eq!(ann.ask(&format!("SEND ann for ann {n}")), format!("OK {n}"));
    }
}

/// Starts a group in which server 1 must read from its disk what it had in memory before.
fn faulty(count: usize) -> Group {
    let mut group = Group::new(count);
    group.is_faulty = true;
    (1..=count).for_each(|n| group.start(n));
    let primary = group.wait_members(count);
    fill(&group, primary);
    group
}

/// Starts a group that server 1 leads: it was alone for a moment, and the others rejoined.
fn led_by_1() -> Group {
    let mut group = faulty(3);
    group.kill(1);
    group.wait_members(2);
    group.start(1);
    group.wait_members(3);
    for (n, left) in [(2, 2), (3, 1)] {
        assert_eq!(group.terminate(n), Some(0));
        group.wait_members(left);
    }
    [2, 3].into_iter().for_each(|n| group.start(n));
    assert_eq!(group.wait_members(3), 1);
    group
}

#[test]
fn a_primary_that_can_not_read_an_entry_hands_over() {
    let group = led_by_1();
    fs::write(group.faults(1), format!("read log/ flip {}", place(&group))).unwrap();
    let mut bob = group.connect(1);
    bob.send("LOGIN bob correct-horse");
    let said = bob.rest();
    assert!(said.iter().all(|line| !line.starts_with("OK")), "{said:?}");
    let next = group.wait_members(3);
    assert_ne!(next, 1);
    assert_eq!(group.mailbox(next, "bob"), ["for bob 1", "for bob 2", "for bob 3"]);
    assert!(group.status(1).is_some(), "it goes on");
}

/// A new server needs every entry, so no client has to request the one that the primary cannot
/// read.
#[test]
fn a_primary_that_can_not_read_an_entry_for_a_server_hands_over() {
    let mut group = led_by_1();
    assert_eq!(group.terminate(3), Some(0));
    group.wait_members(2);
    fs::remove_dir_all(group.data(3)).unwrap();
    fs::write(group.faults(1), format!("read log/ flip {}", place(&group))).unwrap();
    group.start(3);
    assert_eq!(group.wait_members(3), 2);
    assert_eq!(group.mailbox(2, "bob"), ["for bob 1", "for bob 2", "for bob 3"]);
    assert!(group.status(1).is_some(), "it goes on");
}

#[test]
fn where_nobody_else_is_only_that_read_fails() {
    let mut group = faulty(1);
    group.kill(1);
    group.start(1);
    group.wait_members(1);
    fs::write(group.faults(1), format!("read log/ flip {}", place(&group))).unwrap();
    let mut bob = group.connect(1);
    let answer = bob.ask("LOGIN bob correct-horse");
    assert!(answer.starts_with("ERR unreadable "), "{answer}");
    assert_eq!(bob.ask("PING"), "OK", "the connection goes on");
    let answer = bob.ask("LOGIN bob correct-horse -2");
    assert_eq!(answer, "OK bob 3");
    assert_eq!(group.mailbox(1, "ann"), ["for ann 1", "for ann 2", "for ann 3"]);
    assert_eq!(group.client(1, "ann").ask("SEND bob more"), "OK 4");
}
