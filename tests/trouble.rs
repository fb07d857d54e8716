//! A group that cannot serve reports why: which server it waits for, why that is missing, and
//! what would help. STATUS, refusals and the log say the same.

mod common;

use common::{Group, Status};
use std::fs;

/// Kills two servers one after the other. The last one, a backup of two, waits.
fn last_of_three(group: &mut Group) -> [usize; 3] {
    let primary = group.wait_members(3);
    let first = 1 + primary % 3;
    let last = 1 + first % 3;
    group.kill(first);
    group.wait_members(2);
    group.kill(primary);
    [first, primary, last]
}

#[test]
fn a_last_survivor_names_who_can_help_and_the_way_out() {
    let mut group = Group::open();
    let [first, primary, last] = last_of_three(&mut group);
    let awaited = format!("for a primary: server {primary} ({}) ", group.servers[primary - 1]);
    let says_so = |status: &Status| {
        status["waiting"].starts_with(&awaited) && status["waiting"].contains(" refuses conn")
    };
    let status = group.wait(last, "it names its primary", says_so);
    assert_eq!(status["waiting_for"], primary.to_string());
    assert!(status["waiting"].contains(", lost ") && status["waiting"].contains("alone with: "));
    let answer = group.connect(last).ask("LOGIN ann correct-horse");
    assert!(answer.starts_with("ERR not-primary - waiting for a primary: server "), "{answer}");

    // The server that was dropped restarts: it is connected, but cannot help.
    group.start(first);
    let state = format!("peer_{first}_state");
    let still = |status: &Status| status[&state] != "lost" && says_so(status);
    group.wait(last, "it still waits for the other one", still);
    // The right server with an empty disk cannot help either.
    fs::remove_dir_all(group.data(primary)).unwrap();
    group.start(primary);
    let status = group.wait(last, "it tells disks apart", |status| {
        status["waiting"].contains(" is connected with disk ")
            && status["waiting"].contains(", which can't help: its disk ")
    });
    assert_eq!(status["waiting_for"], primary.to_string());

    // A lasting state is logged.
    let line = group.wait_line(last, "no changes are taken for ");
    assert!(line.contains("waiting for a primary: server ") && line.contains("postern recover"));
}

#[test]
fn whoever_was_never_attached_is_named_with_the_reason() {
    let mut group = Group::new(3);
    group.start(1);
    group.start(2);
    let name = format!("server 3 ({}) ", group.servers[2]);
    let refused = format!("{name}refuses connections");
    group.wait(1, "3 alone is missing", |status| {
        status["waiting_for"] == "3" && status["waiting"].contains(&refused)
    });
    let answer = group.connect(1).ask("CREATE ann correct-horse");
    let expected = format!("ERR not-ready waiting for all servers once: {name}");
    assert!(answer.starts_with(&expected), "{answer}");
    // The server that listens there has another secret.
    let stranger = Group::new(3);
    let own = fs::read_to_string(group.config()).unwrap();
    let secret = |text: &str| text.lines().find(|l| l.starts_with("secret")).unwrap().to_owned();
    let other = fs::read_to_string(stranger.config()).unwrap();
    fs::write(group.config(), own.replace(&secret(&own), &secret(&other))).unwrap();
    group.start(3);
    let wrong = format!("{name}does not know this group's secret");
    group.wait(1, "the secret is wrong", |status| status["waiting"].contains(&wrong));
    // The secret is corrected.
    group.terminate(3);
    fs::write(group.config(), own).unwrap();
    group.start(3);
    group.wait_members(3);
}
