//! The operator creates, lists and deletes accounts by the group's secret, on whichever server is
//! primary. If only the operator may create accounts, clients are refused.

mod common;

use common::{Group, postern, run, stderr};
use std::process::Output;

fn user(group: &Group, arguments: &[&str], password: &str) -> Output {
    let mut command = postern();
    command.arg("user").args(arguments).arg("--config").arg(group.config());
    command.env("POSTERN_PASSWORD", password);
    run(command)
}

fn done(group: &Group, arguments: &[&str], password: &str) -> String {
    let output = user(group, arguments, password);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(group: &Group, arguments: &[&str], password: &str, expected: &str) {
    let output = user(group, arguments, password);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
}

#[test]
fn where_the_operator_makes_accounts_nobody_else_does() {
    let mut group = Group::new(3);
    let config = std::fs::read_to_string(group.config()).unwrap();
    let config = config.replace("# accounts = \"open\" ", "accounts = \"operator\" ");
    std::fs::write(group.config(), config).unwrap();
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    let mut client = group.connect(primary);
    assert!(client.ask("CREATE ann correct-horse").starts_with("ERR not-allowed "));
    assert_eq!(done(&group, &["list"], ""), "");
    done(&group, &["add", "ann"], "correct-horse");
    done(&group, &["add", "Bob"], "battery-staple");
    assert_eq!(client.ask("LOGIN ann correct-horse"), "OK ann 0");
    assert_eq!(done(&group, &["list"], ""), "ann online\nbob offline\n");
    refused(&group, &["add", "ann"], "correct-horse", "there is an account ann (exists)");
    refused(&group, &["add", "carl"], "short", "a password has 8 to 128 bytes");
    refused(&group, &["add", "carl"], "two words here", "is one word, without spaces");
    refused(&group, &["passwd", "carl"], "correct-horse", "no account carl (no-such-user)");

    // Another primary executes the commands as well.
    group.kill(primary);
    let primary = group.wait_members(2);
    done(&group, &["passwd", "ann"], "other-horse");
    let mut client = group.connect(primary);
    assert!(client.ask("LOGIN ann correct-horse").starts_with("ERR wrong-password "));
    assert_eq!(client.ask("LOGIN ann other-horse"), "OK ann 0");
    done(&group, &["delete", "--yes", "ann"], "");
    assert!(client.rest().last().unwrap().starts_with("NOTE deleted "), "her session is closed");
    assert_eq!(done(&group, &["list"], ""), "bob offline\n");
    refused(&group, &["delete", "--yes", "ann"], "", "no account ann (no-such-user)");
}

#[test]
fn who_does_not_know_the_secret_is_no_operator() {
    let group = Group::alone();
    let stranger = Group::at(group.servers.clone());
    refused(&stranger, &["add", "eve"], "correct-horse", "does not know this group's secret");
    // A text client is no operator either: the protocol has no such commands.
    let mut client = group.client(1, "ann");
    for line in ["USERS", "RESET ann other-horse", "REMOVE ann"] {
        assert!(client.ask(line).starts_with("ERR bad-command "), "{line}");
    }
}

#[test]
fn what_waits_for_a_silent_member_is_told_as_it_is() {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    group.client(primary, "ann");
    let backup = primary % 3 + 1;
    group.signal(backup, rustix::process::Signal::STOP);
    // The first one waits until the member is dropped; the second one finds it dropped.
    done(&group, &["delete", "--yes", "ann"], "");
    done(&group, &["add", "carl"], "correct-horse");
    assert_eq!(done(&group, &["list"], ""), "carl offline\n");
    group.kill(backup);
}
