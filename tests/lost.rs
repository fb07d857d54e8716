//! A server that has quarantined its log, for whatever reason, forms no new group. Otherwise the
//! accounts and messages of the old one would vanish silently, and anybody could create those
//! accounts again. The server reports what it has, waits, and joins a group that has the log; or
//! an operator continues with the quarantined log.

mod common;

use common::{Group, postern, run, stderr};
use std::path::Path;
use std::process::Output;

const LOG: &str = "log/00000000000000000001.log";

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Returns a group of three that has acknowledged messages, and is stopped.
fn stopped() -> (Group, Vec<String>) {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    let texts = ann.send_first("ann", 20);
    group.kill_all();
    (group, texts)
}

fn recover(group: &Group, n: usize, from: &str, yes: Option<&str>) -> Output {
    let mut command = postern();
    command.arg("recover").arg("--config").arg(group.config());
    command.arg("--data").arg(group.data(n)).args(["--from", from]);
    if let Some(word) = yes {
        command.args(["--yes", word]);
    }
    run(command)
}

#[test]
fn three_that_have_lost_their_logs_form_no_group_and_a_person_goes_on() {
    type Harm = fn(&Path);
    let harms: [[Harm; 3]; 3] = [
        [|data| std::fs::write(data.join("vote"), [0; 5000]).unwrap(); 3],
        [|data| flip(&data.join(LOG)); 3],
        [
            |data| std::fs::write(data.join("identity"), []).unwrap(),
            |data| std::fs::write(data.join("identity"), []).unwrap(),
            |data| std::fs::remove_dir_all(data).unwrap(),
        ],
    ];
    for harm in harms {
        let (mut group, texts) = stopped();
        (1..=3).zip(harm).for_each(|(n, harm)| harm(&group.data(n)));
        (1..=3).for_each(|n| group.start(n));
        for n in 1..=3 {
            let others = |status: &common::Status| {
                status["role"] == "blank" && status["waiting"].contains("forms no new group")
            };
            let status = group.wait(n, "it waits", others);
            assert_eq!(status["gate"], "closed");
            let refused = group.connect(n).ask("CREATE ann correct-horse");
            assert!(refused.starts_with("ERR not-ready "), "{refused}");
        }
        // STATUS and log name the quarantined log and the command.
        let status =
            group.wait(1, "it knows of 2", |s| s["waiting"].contains("server 2 has quarantined"));
        let (from, _) = status["set_aside"].split_once(' ').unwrap();
        assert!(status["set_aside"].contains(" up to entry "), "{status:?}");
        assert!(status["waiting"].contains(&format!("--from {from}")), "{status:?}");
        assert!(group.log(1).contains(&format!("--from {from}")), "{}", group.log(1));
        // The servers still wait after a restart of all of them.
        group.kill_all();
        (1..=3).for_each(|n| group.start(n));
        group.wait(1, "it waits again", |status| {
            status["waiting"].contains("server 2 has quarantined")
        });
        assert!((1..=3).all(|n| group.status(n).unwrap()["members"] == "-"));

        // An operator continues with the quarantined log, after reading what may be lost.
        group.kill_all();
        let shown = recover(&group, 1, from, None);
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(text.contains("What may be lost:"), "{text}{}", stderr(&shown));
        let word = text.split("--yes ").nth(1).expect("a word").trim();
        let done = recover(&group, 1, from, Some(word));
        assert!(done.status.success(), "{}", stderr(&done));
        (1..=3).for_each(|n| group.start(n));
        let primary = group.wait_members(3);
        let kept = group.mailbox(primary, "ann");
        assert!(!kept.is_empty() && texts.starts_with(&kept), "{kept:?}");
    }
}

/// A server that is damaged while the others run joins them, and becomes a full member again.
#[test]
fn one_that_has_lost_its_log_joins_the_others() {
    let (mut group, texts) = stopped();
    flip(&group.data(2).join(LOG));
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    assert_eq!(group.mailbox(primary, "ann"), texts);
    assert!(group.status(2).unwrap()["set_aside"].starts_with("quarantine/damaged-"));
    assert_eq!(group.status(1).unwrap()["set_aside"], "-");
}
