//! Damaged data is quarantined, never deleted, and the other servers send the entries again. A
//! directory that may be the only copy is not touched, and a torn tail is no damage. `postern
//! check` reports which of these it finds.

mod common;

use common::{Group, postern, run, snapshot, stderr};
use std::path::{Path, PathBuf};
use std::process::Output;

const LOG: &str = "log/00000000000000000001.log";

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn check(data: &Path) -> Output {
    let mut command = postern();
    command.arg("check").arg("--data").arg(data);
    run(command)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns a group of three with messages, in which server `n` is stopped, or killed.
fn three_without(n: usize, killed: bool) -> (Group, Vec<String>) {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    let texts = ann.send_first("ann", 30);
    if killed {
        group.kill(n);
    } else {
        assert_eq!(group.terminate(n), Some(0));
    }
    group.wait_members(2);
    (group, texts)
}

/// Returns the only folder in `quarantine`.
fn quarantine(data: &Path) -> PathBuf {
    let folders: Vec<_> = std::fs::read_dir(data.join("quarantine")).unwrap().collect();
    assert_eq!(folders.len(), 1);
    folders[0].as_ref().unwrap().path()
}

#[test]
fn a_damaged_server_is_filled_by_the_others() {
    type Harm = fn(&Path);
    let harms: [(&str, bool, Harm); 3] = [
        ("log", true, |data| {
            let middle = std::fs::metadata(data.join(LOG)).unwrap().len() / 2;
            flip(&data.join(LOG), middle as usize);
        }),
        ("vote", false, |data| std::fs::remove_file(data.join("vote")).unwrap()),
        ("identity", false, |data| flip(&data.join("identity"), 30)),
    ];
    for (n, (what, killed, harm)) in [1, 2, 3].into_iter().zip(harms) {
        let (mut group, texts) = three_without(n, killed);
        let data = group.data(n);
        harm(&data);
        let mut before = snapshot(&data);
        before.retain(|path, _| !path.ends_with("lock") && !path.ends_with("reserve"));
        let checked = check(&data);
        assert_eq!(checked.status.code(), Some(1), "{}", stdout(&checked));
        assert!(stdout(&checked).contains(&format!("damaged     {what}")), "{}", stdout(&checked));

        group.start(n);
        let primary = group.wait_members(3);
        group.wait(n, "it has everything", |status| status["messages"] == "30");
        assert_eq!(group.mailbox(primary, "ann"), texts);
        let folder = quarantine(&data);
        assert!(folder.file_name().unwrap().to_str().unwrap().starts_with("damaged-"));
        let kept: Vec<Vec<u8>> = snapshot(&folder).into_values().collect();
        assert!(before.values().all(|bytes| kept.contains(bytes)), "{what}: all is kept");
        let said = group.log(n);
        let said = said.lines().find(|line| line.contains("damaged: ")).expect("a warning");
        assert!(said.contains(what) && said.contains("quarantine/damaged-"), "{said}");
        assert_eq!(check(&folder).status.code(), Some(1), "what was quarantined can be looked at");

        assert_eq!(group.terminate(n), Some(0));
        let checked = check(&data);
        assert_eq!(checked.status.code(), Some(0), "{}", stdout(&checked));
        assert!(stdout(&checked).contains("sound"), "{}", stdout(&checked));
        // The server is a full member again: with one other, it continues the group.
        group.start(n);
        group.wait_members(3);
        group.kill((1..=3).find(|other| *other != n).unwrap());
        let primary = group.wait_members(2);
        assert_eq!(group.mailbox(primary, "ann"), texts);
    }
}

/// Returns a group of one whose server has run, and is stopped or killed.
fn one(killed: bool) -> Group {
    let mut group = Group::alone();
    assert_eq!(group.client(1, "ann").ask("SEND ann hi"), "OK 1");
    if killed {
        group.kill(1);
    } else {
        assert_eq!(group.terminate(1), Some(0));
    }
    group
}

#[test]
fn the_only_copy_is_not_touched() {
    for file in ["identity", "vote", LOG] {
        let group = one(false);
        let data = group.data(1);
        flip(&data.join(file), 30);
        let before = snapshot(&data);
        let output = run(group.serve(1));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("postern: ")).collect();
        assert_eq!(lines.len(), 1, "one line: {said}");
        for part in [file, "only copy", "postern check --data ", "postern recover --config "] {
            assert!(lines[0].contains(part), "{said}");
        }
        assert_eq!(snapshot(&data), before, "{file}");
        assert_eq!(check(&data).status.code(), Some(1));
        assert_eq!(snapshot(&data), before, "{file}");
    }
}

/// If the disk that holds the log is not mounted, a new log would hide the old one.
#[test]
fn a_log_that_is_not_there_is_waited_for() {
    let (mut group, texts) = three_without(2, false);
    let data = group.data(2);
    std::fs::rename(data.join("log"), data.join("elsewhere")).unwrap();
    let before = snapshot(&data);
    let output = run(group.serve(2));
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("log: it holds no segment") && said.contains("mounted"), "{said}");
    assert_eq!(snapshot(&data), before);
    std::fs::rename(data.join("elsewhere"), data.join("log")).unwrap();
    group.start(2);
    let primary = group.wait_members(3);
    assert_eq!(group.mailbox(primary, "ann"), texts);
}

/// If the machine has not restarted, rot in the last batch is no torn tail: cutting it would
/// silently lose acknowledged entries.
#[test]
fn rot_in_the_last_batch_is_noticed_while_the_machine_runs_on() {
    let group = one(true);
    let path = group.data(1).join(LOG);
    let last = std::fs::metadata(&path).unwrap().len() as usize - 1;
    flip(&path, last);
    let output = run(group.serve(1));
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("only copy") && said.contains("wrong checksum"), "{said}");
}

#[test]
fn a_torn_tail_is_sound_and_cut_with_a_warning() {
    let mut group = one(true);
    let path = group.data(1).join(LOG);
    let mut bytes = std::fs::read(&path).unwrap();
    // The beginning of a record, as left by a process that is killed while it writes.
    let mut begun = vec![0; 100];
    begun[..4].copy_from_slice(&400u32.to_le_bytes());
    bytes.extend(begun);
    std::fs::write(&path, bytes).unwrap();
    let before = snapshot(&group.data(1));
    let checked = check(&group.data(1));
    assert_eq!(checked.status.code(), Some(0), "{}", stdout(&checked));
    assert!(stdout(&checked).contains("100 bytes"), "{}", stdout(&checked));
    assert_eq!(snapshot(&group.data(1)), before, "a check cuts nothing");
    group.start(1);
    group.wait_members(1);
    assert!(group.log(1).contains("a torn tail of 100 bytes"), "{}", group.log(1));
    assert_eq!(group.mailbox(1, "ann"), ["hi"]);
    let busy = check(&group.data(1));
    assert_eq!(busy.status.code(), Some(1));
    assert!(stderr(&busy).contains("a server runs on it"), "{}", stderr(&busy));
}
