//! A backup of a running group holds all that was acknowledged, and a new group made from it serves
//! the same accounts, messages, numbers and keys. What is incomplete or damaged makes nothing.

mod common;

use common::{Group, postern, run, stderr};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

const MESSAGES: usize = 3000;

/// Returns a group with messages, some of them stored by keys, and a deleted account.
fn filled() -> Group {
    let group = Group::open();
    let primary = group.wait_members(3);
    drop(group.client(primary, "bob"));
    let mut cyd = group.client(primary, "cyd");
    let mut ann = group.client(primary, "ann");
    assert_eq!(ann.ask("SEND cyd gone"), "OK 1");
    assert_eq!(cyd.ask("DELETE cyd correct-horse"), "OK");
    let text = "x".repeat(300);
    for from in (0..MESSAGES).step_by(100) {
        (from..from + 100).for_each(|n| ann.send(&format!("SEND bob {n} {text}")));
        (from..from + 100).for_each(|_| assert!(ann.answer().starts_with("OK ")));
    }
    assert_eq!(ann.ask("ONCE k1 ann once"), "OK 1");
    group
}

fn backup(group: &Group, out: &str) -> Output {
    let mut command = postern();
    command.arg("backup").arg("--config").arg(group.config()).args(["--out", out]);
    run(command)
}

fn restore(group: &Group, file: &Path) -> Output {
    let mut command = postern();
    command.arg("restore").arg(file).arg("--data").arg(group.data(1));
    command.arg("--servers").arg(group.servers.join(",")).arg("--out").arg(group.config());
    run(command)
}

/// Returns a group of three without a config and without data.
fn unmade() -> Group {
    let group = Group::new(3);
    fs::remove_file(group.config()).unwrap();
    group
}

#[test]
fn a_new_group_from_a_backup_has_everything() {
    let group = filled();
    let file = group.dir.path().join("monday.bak");
    // What is acknowledged when it begins is in it, however shortly before.
    let primary = group.wait_members(3);
    let last = group.client(primary, "ann").ask("SEND bob last");
    let made = backup(&group, file.to_str().unwrap());
    assert!(made.status.success(), "{}", stderr(&made));
    assert_eq!(last, format!("OK {}", MESSAGES + 1));
    let again = backup(&group, file.to_str().unwrap());
    assert!(stderr(&again).contains("exists, and is not overwritten"), "{}", stderr(&again));
    // Changes after the backup are not in it.
    let before = group.messages(primary, "bob");
    assert!(group.client(primary, "ann").ask("SEND bob later").starts_with("OK "));

    let mut other = unmade();
    let restored = restore(&other, &file);
    assert!(restored.status.success(), "{}", stderr(&restored));
    assert!(stderr(&restore(&other, &file)).contains("is not empty"));
    (1..=3).for_each(|n| other.start(n));
    let primary = other.wait_members(3);
    assert_eq!(before.len(), MESSAGES + 1);
    assert!(other.messages(primary, "bob") == before);
    let mut ann = other.client(primary, "ann");
    assert_eq!(ann.ask("ONCE k1 ann once"), "OK 1", "a key is still known");
    assert_eq!(ann.ask("SEND bob new"), format!("OK {}", MESSAGES + 2));
    assert!(other.connect(primary).ask("LOGIN cyd correct-horse").starts_with("ERR "));
    // It is another group: the servers of the old one have nothing to do with it.
    let secret = |group: &Group| {
        let text = fs::read_to_string(group.config()).unwrap();
        text.lines().find(|line| line.starts_with("secret")).unwrap().to_owned()
    };
    assert_ne!(secret(&group), secret(&other));
    let term = |group: &Group, n| group.status(n).unwrap()["term"].clone();
    assert_ne!(term(&group, 1), term(&other, 1));
}

#[test]
fn a_backup_goes_through_a_pipe_also_from_the_last_server() {
    let mut group = filled();
    let primary = group.wait_members(3);
    let before = group.messages(primary, "bob");
    [1, 2, 3].into_iter().filter(|n| *n != primary).for_each(|n| group.kill(n));
    group.wait(primary, "it is alone", |status| status["role"] != "backup");
    let made = backup(&group, "-");
    assert!(made.status.success(), "{}", stderr(&made));

    let mut other = unmade();
    let mut command = postern();
    command.arg("restore").arg("-").arg("--data").arg(other.data(1));
    command.arg("--servers").arg(other.servers.join(",")).arg("--out").arg(other.config());
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&made.stdout).unwrap();
    assert!(child.wait().unwrap().success());
    (1..=3).for_each(|n| other.start(n));
    let primary = other.wait_members(3);
    assert!(other.messages(primary, "bob") == before);
}

#[test]
fn a_damaged_backup_makes_nothing() {
    let group = filled();
    let made = backup(&group, "-").stdout;
    let other = unmade();
    let file = group.dir.path().join("bad.bak");
    let flipped = |at: usize| {
        let mut bytes = made.clone();
        bytes[at] ^= 1;
        bytes
    };
    let end = made.len();
    for (bytes, why) in [
        (made[..end - 1].to_vec(), "it ends early"),
        (made[..end / 2].to_vec(), "it ends early"),
        (Vec::new(), "it ends early"),
        (flipped(0), "no backup of this version"),
        (flipped(end - 1), "its checksum is wrong"),
        (flipped(end / 2), "entry "),
        (flipped(10), "its checksum is wrong"),
        ([&made[..], b"x"].concat(), "its checksum is wrong"),
    ] {
        fs::write(&file, bytes).unwrap();
        let restored = restore(&other, &file);
        assert_eq!(restored.status.code(), Some(1));
        assert!(stderr(&restored).contains(why), "{why}: {}", stderr(&restored));
        let left = fs::read_dir(other.dir.path()).unwrap().count();
        assert_eq!(left, 0, "{why}: it leaves nothing behind");
    }
}

#[test]
fn nobody_without_the_secret_gets_a_backup() {
    let group = filled();
    let other = Group::new(3);
    let config = fs::read_to_string(other.config()).unwrap();
    let servers = format!("servers = {:?}", group.servers);
    let config: Vec<&str> = config.lines().filter(|line| !line.starts_with("servers")).collect();
    fs::write(other.config(), format!("{servers}\n{}\n", config.join("\n"))).unwrap();
    let refused = backup(&other, "-");
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(stderr(&refused).contains("does not know this group's secret"), "{}", stderr(&refused));
}
