//! Planned work on the primary's machine interrupts clients only briefly and loses nothing. On
//! command or on SIGTERM, a backup that has every entry accepts the role before the primary gives
//! it up.

mod common;

use common::{Group, postern, run, stderr};
use std::path::Path;
use std::process::Output;

fn handover(config: &Path) -> Output {
    let mut command = postern();
    command.arg("handover").arg("--config").arg(config);
    run(command)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the line that explains a failure.
fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", stderr(output));
    let said = stderr(output);
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("postern: ")).collect();
    assert_eq!(lines.len(), 1, "one line: {said}");
    lines[0].to_owned()
}

/// Returns acknowledged texts, and a client whose burst is on its way to the primary.
fn burst(group: &Group, primary: usize, user: &str) -> (Vec<String>, common::Client) {
    let mut client = group.client(primary, user);
    let texts: Vec<String> = (1..=20).map(|n| format!("message {n}")).collect();
    for (at, text) in texts.iter().enumerate() {
        assert_eq!(client.ask(&format!("SEND {user} {text}")), format!("OK {}", at + 1));
    }
    for n in 1..=50 {
        client.send(&format!("SEND {user} burst {n}"));
    }
    (texts, client)
}

/// Checks that the acknowledged messages are stored, in order, and none of them twice.
fn check_kept(group: &Group, primary: usize, user: &str, texts: &[String], answered: usize) {
    let mut kept = group.mailbox(primary, user);
    assert!(kept.len() >= texts.len() + answered, "{} kept, {answered} answered", kept.len());
    let burst = kept.split_off(texts.len());
    assert_eq!(kept, texts);
    let sent: Vec<String> = (1..=burst.len()).map(|n| format!("burst {n}")).collect();
    assert_eq!(burst, sent);
    let next = texts.len() + burst.len() + 1;
    let mut client = group.client(primary, user);
    assert_eq!(client.ask(&format!("SEND {user} after")), format!("OK {next}"));
}

#[test]
fn the_command_moves_the_role_and_nothing_is_lost() {
    let group = Group::open();
    for user in ["ann", "bob", "cid"] {
        let first = group.wait_members(3);
        let (texts, mut ann) = burst(&group, first, user);
        let output = handover(&group.config());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let second = group.wait_members(3);
        assert_ne!(second, first);
        let server = &group.servers[second - 1];
        assert_eq!(stdout(&output), format!("server {second} at {server} is primary now\n"));
        let lines = ann.rest();
        let answered = lines.iter().filter(|line| line.starts_with("OK")).count();
        check_kept(&group, second, user, &texts, answered);
    }
}

#[test]
fn a_primary_that_is_told_to_stop_hands_over_first() {
    let mut group = Group::open();
    let first = group.wait_members(3);
    let (texts, mut ann) = burst(&group, first, "ann");
    assert_eq!(group.terminate(first), Some(0));
    let lines = ann.rest();
    let answered = lines.iter().filter(|line| line.starts_with("OK")).count();
    let second = group.wait_members(2);
    assert_ne!(second, first);
    assert!(group.log(first).contains("sent TimeoutNow to server"), "{}", group.log(first));
    check_kept(&group, second, "ann", &texts, answered);
}

#[test]
fn where_nobody_can_take_over_one_line_says_so() {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    let others: Vec<usize> = (1..=3).filter(|n| *n != primary).collect();
    for (left, other) in others.into_iter().enumerate() {
        group.kill(other);
        assert_eq!(group.wait_members(2 - left), primary);
    }
    let said = complaint(&handover(&group.config()));
    assert!(said.contains("no backup that could take over"), "{said}");
    assert_eq!(group.wait_members(1), primary, "it is primary as before");
    assert!(group.client(primary, "ann").ask("SEND ann on").starts_with("OK"));

    group.kill(primary);
    let said = complaint(&handover(&group.config()));
    assert_eq!(said.matches(": refused").count(), 3, "{said}");
}

#[test]
fn who_does_not_know_the_secret_orders_nothing() {
    let group = Group::open();
    let primary = group.wait_members(3);
    let other = Group::at(group.servers.clone());
    let said = complaint(&handover(&other.config()));
    assert!(said.contains("does not know this group's secret"), "{said}");
    assert_eq!(group.wait_members(3), primary);
}
