//! Mailboxes keep what the settings say, on all servers alike: after a failover, a restart, a
//! refill and a restore they have forgotten the same messages.

mod common;

use common::{Group, postern, run, stderr, wait_for};
use std::fs;
use std::process::Command;

/// Starts a group of three with further settings.
fn open_with(settings: &str) -> Group {
    let mut group = Group::new(3);
    let config = fs::read_to_string(group.config()).unwrap();
    fs::write(group.config(), config + settings).unwrap();
    (1..=3).for_each(|n| group.start(n));
    group.wait_members(3);
    group
}

/// Waits until a server keeps so many messages.
fn wait_kept(group: &Group, n: usize, kept: u64) {
    group.wait(n, &format!("it keeps {kept} messages"), |status| {
        status["messages"] == kept.to_string()
    });
}

/// The lines of the answer to LOGIN, without the times.
fn mailbox(group: &Group, primary: usize) -> Vec<String> {
    let mut client = group.connect(primary);
    client.send("LOGIN bob correct-horse");
    let mut lines = Vec::new();
    loop {
        let line = client.line();
        let words: Vec<&str> = line.split(' ').collect();
        lines.push(match words[0] {
            "MSG" => format!("{} {}", words[1], words[4]),
            "NOTE" => words[..3].join(" "),
            _ => line.clone(),
        });
        if words[0] == "OK" {
            return lines;
        }
    }
}

fn person(command: &str, group: &Group, server: &str) -> Command {
    let password = group.dir.path().join("password");
    fs::write(&password, "correct-horse\n").unwrap();
    let mut person = postern();
    person.args([command, "--servers", server, "bob", "--password-file"]).arg(password);
    person
}

#[test]
fn all_servers_forget_the_same() {
    let mut group = open_with("keep_messages = 5\n");
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    group.client(primary, "bob");
    for n in 1..=30 {
        assert_eq!(ann.ask(&format!("SEND bob m{n}")), format!("OK {n}"));
    }
    let expected = ["NOTE kept-from 26", "26 m26", "27 m27", "28 m28", "29 m29", "30 m30"];
    let expected: Vec<String> =
        expected.into_iter().chain(["OK bob 30"]).map(str::to_owned).collect();
    (1..=3).for_each(|n| wait_kept(&group, n, 5));
    assert_eq!(mailbox(&group, primary), expected);

    let tail = run(person("tail", &group, &group.servers[primary - 1]));
    let lines = String::from_utf8(tail.stdout.clone()).unwrap();
    assert_eq!(lines.lines().count(), 5, "{lines}");
    assert!(stderr(&tail).contains("messages before 26 are no longer kept"), "{}", stderr(&tail));

    group.kill(primary);
    let next = group.wait_members(2);
    assert_eq!(mailbox(&group, next), expected, "after a failover");
    // A server without its disk is filled with the log, and forgets as the others did.
    fs::remove_dir_all(group.data(primary)).unwrap();
    group.start(primary);
    group.wait_members(3);
    wait_kept(&group, primary, 5);

    let file = group.dir.path().join("backup");
    let mut backup = postern();
    backup.args(["backup", "--config"]).arg(group.config()).arg("--out").arg(&file);
    let saved = run(backup);
    assert!(saved.status.success(), "{}", stderr(&saved));

    group.kill_all();
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    assert_eq!(mailbox(&group, primary), expected, "after a power cut");

    let restored = Group::new(1);
    let mut restore = postern();
    restore.arg("restore").arg(&file).arg("--data").arg(restored.data(1));
    fs::remove_file(restored.config()).unwrap();
    restore.args(["--servers", &restored.servers[0], "--out"]).arg(restored.config());
    let done = run(restore);
    assert!(done.status.success(), "{}", stderr(&done));
    let mut restored = restored;
    restored.start(1);
    restored.wait_members(1);
    assert_eq!(mailbox(&restored, 1), expected, "after a restore");
}

#[test]
fn a_full_mailbox_has_room_again_after_it_has_forgotten_messages() {
    let mut group = open_with("max_messages = 3\n");
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    group.client(primary, "bob");
    for n in 1..=3 {
        assert_eq!(ann.ask(&format!("SEND bob m{n}")), format!("OK {n}"));
    }
    for request in ["SEND bob m4", "ONCE k bob m4"] {
        assert!(ann.ask(request).starts_with("ERR mailbox-full the mailbox of bob"), "{request}");
    }
    let mut send = person("send", &group, &group.servers[primary - 1]);
    let sent = run({
        send.args(["bob", "m4"]);
        send
    });
    assert!(!sent.status.success() && stderr(&sent).contains("is full"), "{}", stderr(&sent));

    // The settings of the next primary count.
    let config = fs::read_to_string(group.config()).unwrap();
    fs::write(group.config(), config + "keep_messages = 1\n").unwrap();
    group.kill_all();
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    wait_kept(&group, primary, 1);
    let mut ann = group.connect(primary);
    assert_eq!(ann.ask("LOGIN ann correct-horse end"), "OK ann 0");
    assert_eq!(ann.ask("ONCE k bob m4"), "OK 4", "a refusal uses up no key");
    let numbers = || {
        let lines = mailbox(&group, primary);
        (lines[..2] == ["NOTE kept-from 4", "4 m4"]).then_some(())
    };
    wait_for(numbers, || format!("{:?}", mailbox(&group, primary)));
}

/// The messages of a deleted account leave the disks of all servers, while these work. Only debug
/// builds can make segments small.
#[cfg(debug_assertions)]
#[test]
fn a_deletion_frees_disk_space() {
    let mut group = Group::with_small_segments();
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    let mut bob = group.client(primary, "bob");
    assert_eq!(ann.ask("SEND ann first"), "OK 1");
    let text = "x".repeat(300);
    for n in 1..=1000 {
        assert_eq!(ann.ask(&format!("SEND bob {text}")), format!("OK {n}"));
    }
    let pushed = (0..1000).filter(|_| bob.line().starts_with("MSG ")).count();
    assert_eq!(pushed, 1000);
    let bytes = |group: &Group, n: usize| -> u64 {
        group.status(n).and_then(|status| status["log_bytes"].parse().ok()).unwrap_or(u64::MAX)
    };
    let before = bytes(&group, primary);
    assert_eq!(bob.ask("DELETE bob correct-horse"), "OK");
    for n in 1..=3 {
        let freed = || (bytes(&group, n) < before / 2).then_some(());
        wait_for(freed, || format!("server {n} has {} of {before} bytes", bytes(&group, n)));
    }
    // A server without its disk is filled with what is left.
    let backup = primary % 3 + 1;
    group.kill(backup);
    fs::remove_dir_all(group.data(backup)).unwrap();
    group.start(backup);
    group.wait_members(3);
    assert!(bytes(&group, backup) < before / 2);
    group.kill_all();
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    let mut ann = group.connect(primary);
    ann.send("LOGIN ann correct-horse");
    assert!(ann.line().ends_with(" ann first"));
    assert_eq!(ann.line(), "OK ann 1");
    ann.send("SENT");
    assert!(ann.line().starts_with("SENT 1 1 "));
    let mut gone = Vec::new();
    loop {
        let line = ann.line();
        if line == "OK 1001" {
            break;
        }
        gone.push(line);
    }
    assert!(gone[0].starts_with("GONE 2 ") && gone.last().unwrap().ends_with(" 1001"), "{gone:?}");
    for n in 1..=3 {
        assert_eq!(group.terminate(n), Some(0));
        let mut check = postern();
        check.args(["check", "--data"]).arg(group.data(n));
        let checked = run(check);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}
