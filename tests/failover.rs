//! Acknowledged changes survive kill -9 of the primary. A backup takes over, the other one
//! follows it, and the killed server restarts as a backup.

mod common;

use common::Group;

#[test]
fn kill_9_of_the_primary_loses_nothing() {
    let mut group = Group::open();
    let first = group.wait_members(3);
    let mut ann = group.client(first, "ann");
    let texts = ann.send_first("ann", 20);
    group.kill(first);
    assert!(ann.rest().iter().all(|line| !line.starts_with("OK")));
    let second = group.wait_members(2);
    assert_ne!(second, first);
    assert_eq!(group.mailbox(second, "ann"), texts);
    let mut ann = group.client(second, "ann");
    assert_eq!(ann.ask("SEND ann after"), "OK 21");

    group.start(first);
    assert_eq!(group.wait_members(3), second, "what returns is a backup");
    group.wait(first, "it has everything", |status| status["messages"] == "21");
    // The restarted server has every entry, so it can lead.
    let third = (1..=3).find(|n| *n != first && *n != second).unwrap();
    group.kill(third);
    group.wait_members(2);
    assert_eq!(group.mailbox(second, "ann").len(), 21);
}

#[test]
fn everything_down_and_up_again() {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    assert_eq!(ann.ask("SEND ann kept"), "OK 1");
    group.kill_all();
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    assert_eq!(group.mailbox(primary, "ann"), ["kept"]);
}

#[test]
fn failovers_in_a_row() {
    let mut group = Group::open();
    let mut sent = Vec::new();
    for round in 0..5 {
        let primary = group.wait_members(3);
        let mut ann = group.client(primary, "ann");
        for n in 0..5 {
            let text = format!("round {round} message {n}");
            let answer = ann.ask(&format!("SEND ann {text}"));
            sent.push(text);
            assert_eq!(answer, format!("OK {}", sent.len()));
        }
        group.kill(primary);
        let next = group.wait_members(2);
        assert_eq!(group.mailbox(next, "ann"), sent);
        group.start(primary);
    }
}

#[test]
fn a_request_under_way_when_the_primary_stops_is_answered_or_unknown() {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    for n in 1..=50 {
        ann.send(&format!("SEND ann {n}"));
    }
    assert_eq!(group.terminate(primary), Some(0));
    let lines = ann.rest();
    let answered = lines.iter().filter(|line| line.starts_with("OK")).count();
    let notes = lines.iter().filter(|line| line.starts_with("NOTE ")).count();
    assert_eq!(notes, 1, "{lines:?}");
    let next = group.wait_members(2);
    let kept = group.mailbox(next, "ann");
    assert!(kept.len() >= answered, "{} kept, {answered} answered", kept.len());
}
