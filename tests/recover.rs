//! An operator overrules: `postern recover` continues with one server alone, but never while
//! other servers of the group run. In whatever order servers are started afterwards, epochs do
//! not mix.

mod common;

use common::{Group, Status, postern, run, snapshot, stderr};
use postern::ids::{DiskId, Index, Member, Position, ServerId, Term, Vote};
use postern::mailbox::Mailboxes;
use postern::record::{self, Kind, Record};
use postern::replica::{Config, LogReader};
use postern::settings::Settings;
use postern::store::disk::RealDisk;
use postern::store::{Identity, Opening, Store};
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn command(config: &Path, data: &Path) -> Command {
    let mut command = postern();
    command.arg("recover").arg("--config").arg(config).arg("--data").arg(data);
    command
}

/// Returns the word that a dry run prints.
fn word(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    let text = stdout(output);
    let (_, word) = text.trim_end().rsplit_once("--yes ").unwrap_or_else(|| panic!("{text}"));
    word.to_owned()
}

/// Returns the line that explains a failure.
fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", stdout(output));
    let said = stderr(output);
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("postern: ")).collect();
    assert_eq!(lines.len(), 1, "one line: {said}");
    lines[0].to_owned()
}

/// Runs the command without the word, then with it.
fn recover(config: &Path, data: &Path) {
    let word = word(&run(command(config, data)));
    let mut act = command(config, data);
    act.args(["--yes", &word]);
    let output = run(act);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// Returns a group of three that has stored `messages` messages, with all servers killed.
fn dead(messages: usize) -> (Group, Vec<String>) {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    let texts = (1..=messages).map(|n| format!("message {n}")).collect();
    send(&group, primary, &texts);
    for n in 1..=3 {
        group.wait(n, "it has everything", |s| s["messages"] == messages.to_string());
    }
    group.kill_all();
    (group, texts)
}

fn send(group: &Group, primary: usize, texts: &Vec<String>) {
    let mut ann = group.client(primary, "ann");
    for text in texts {
        assert!(ann.ask(&format!("SEND ann {text}")).starts_with("OK"));
    }
}

/// Starts the others after the recovered server, as the command says.
fn join(group: &mut Group, recovered: usize) {
    (1..=3).filter(|n| *n != recovered).for_each(|n| group.start(n));
    assert_eq!(group.wait_members(3), recovered);
}

/// Returns another config file of the same group, with addresses for the other servers at which
/// nobody listens.
fn cut_off(group: &Group, n: usize) -> PathBuf {
    let mut text = std::fs::read_to_string(group.config()).unwrap();
    for server in group.servers.iter().enumerate().filter(|(at, _)| at + 1 != n) {
        text = text.replace(server.1, &format!("{}9", server.1));
    }
    let path = group.dir.path().join("cut-off.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// Opens the directory of a stopped server, as that server does.
fn open(group: &Group, n: usize) -> (Store<RealDisk>, Vec<Vec<u8>>) {
    let settings = Settings::read(&group.config()).unwrap();
    let id = ServerId::new(n as u8).unwrap();
    let expected = Identity::new(settings.shared.group, 3, id, DiskId(1));
    let disk = RealDisk::open(&group.data(n)).unwrap();
    let empty = Mailboxes::new(&settings.secret);
    let opening = Opening { expected: &expected, label: "test", empty: &empty };
    let store = Store::open(disk, &opening, &mut |_| {}).unwrap().store;
    let mut records = Vec::new();
    let keep = &mut |record: &Record<'_>| records.push(record.bytes.to_vec());
    store.for_each(Index(1), store.last(), keep).unwrap();
    (store, records)
}

/// Appends an entry to a log: the members, or the last message again.
fn append(store: &mut Store<RealDisk>, records: &[Vec<u8>], term: Term, config: Option<Config>) {
    let messages = records.iter().map(|record| Record::parse(record).unwrap());
    let message = messages.rev().find(|record| record.kind == Kind::MESSAGE).unwrap();
    let at = Position { index: store.last().next(), term };
    let mut entry = Vec::new();
    let kind = if config.is_some() { Kind::CONFIG } else { message.kind };
    record::write(&mut entry, at, message.time, kind, |out| match config {
        Some(config) => config.encode(out),
        None => out.extend_from_slice(message.body),
    });
    store.append(&entry).unwrap();
    store.flush().unwrap();
}

fn term(records: &[Vec<u8>]) -> Term {
    Record::parse(records.last().unwrap()).unwrap().term
}

/// Returns the only folder in `quarantine`.
fn quarantine(data: &Path) -> PathBuf {
    let folders: Vec<_> = std::fs::read_dir(data.join("quarantine")).unwrap().collect();
    assert_eq!(folders.len(), 1);
    folders[0].as_ref().unwrap().path()
}

fn is_kind(folder: &Path, kind: &str) -> bool {
    folder.file_name().unwrap().to_str().unwrap().starts_with(kind)
}

fn epoch(status: &Status) -> &str {
    status["term"].split_once('.').map_or("0", |(epoch, _)| epoch)
}

#[test]
fn it_looks_first_and_acts_on_what_was_seen() {
    let (mut group, texts) = dead(5);
    let (config, data) = (group.config(), group.data(1));
    let before = snapshot(group.dir.path());
    let looked = run(command(&config, &data));
    assert_eq!(snapshot(group.dir.path()), before, "a look changes nothing");
    let shown = stdout(&looked);
    let parts = ["server      1 of 3", "last        ", "as epoch 1", "may be lost", ": refused"];
    for part in parts {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let word = word(&looked);
    let act = |word: &str| {
        let mut act = command(&config, &data);
        act.args(["--yes", word]);
        run(act)
    };
    assert!(complaint(&act("yes")).contains("is not the word"));
    assert_eq!(snapshot(group.dir.path()), before);

    // The server was started meanwhile, so the word for the earlier state is invalid.
    group.start(1);
    assert!(complaint(&run(command(&config, &data))).contains("server 1 at "), "it runs");
    group.kill(1);
    assert!(complaint(&act(&word)).contains("is not the word"));

    recover(&config, &data);
    assert!(complaint(&act(&word)).contains("is not the word"), "it is not done twice");
    group.start(1);
    assert_eq!(group.wait_members(1), 1);
    assert_eq!(group.mailbox(1, "ann"), texts);
    join(&mut group, 1);
    assert!(group.client(1, "ann").ask("SEND ann after").starts_with("OK"));
    for n in 1..=3 {
        let status = group.wait(n, "it has it all", |status| status["messages"] == "6");
        assert_eq!(epoch(&status), "1");
    }
}

#[test]
fn a_server_that_is_full_is_not_taken_for_lost() {
    // A server without room for a connection accepts it and closes it at once.
    let (group, _) = dead(1);
    let full = TcpListener::bind(&group.servers[1]).unwrap();
    let accepting = full.try_clone().unwrap();
    std::thread::spawn(move || accepting.incoming().for_each(drop));
    let before = snapshot(group.dir.path());
    let said = complaint(&run(command(&group.config(), &group.data(1))));
    assert!(said.contains("server 2 at ") && said.contains("ends them"), "{said}");
    assert_eq!(snapshot(group.dir.path()), before);
}

#[test]
fn the_command_that_a_last_survivor_names_is_enough() {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    let lost = (1..=3).find(|n| *n != primary).unwrap();
    group.kill(lost);
    assert_eq!(group.wait_members(2), primary);
    let texts: Vec<String> = (1..=5).map(|n| format!("message {n}")).collect();
    send(&group, primary, &texts);
    group.kill(primary);
    let last = (1..=3).find(|n| *n != primary && *n != lost).unwrap();
    let status = group.wait(last, "it asks", |status| status["waiting"].contains("alone with: "));
    group.kill(last);
    let words = status["waiting"].split_once("alone with: ").unwrap().1;
    let named = || {
        let mut command = postern();
        command.args(words.split_whitespace().skip(1));
        command
    };
    let word = word(&run(named()));
    let mut act = named();
    act.args(["--yes", &word]);
    assert_eq!(run(act).status.code(), Some(0));
    group.start(last);
    assert_eq!(group.wait_members(1), last);
    assert_eq!(group.mailbox(last, "ann"), texts);
}

#[test]
fn a_history_that_is_only_heard_of_elects_nobody() {
    // Schedule 14: the override was interrupted before its entry was written.
    let (mut group, texts) = dead(5);
    let mut settings = std::fs::read_to_string(group.config()).unwrap();
    settings += "\npeer_timeout_ms = 300\n";
    std::fs::write(group.config(), settings).unwrap();
    let (mut store, _) = open(&group, 1);
    let me = store.identity().clone();
    let term = Term::ZERO.next_epoch(me.id);
    store.persist(Vote { term, given: None, founder: Some(me.disk) }).unwrap();
    drop(store);
    let (mut store, records) = open(&group, 3);
    for _ in 0..3 {
        append(&mut store, &records, self::term(&records), None);
    }
    drop(store);

    for n in 1..=3 {
        // One after the other: otherwise two could form a majority before they learn of the
        // epoch.
        group.start(n);
        group.wait(n, "it knows of the epoch", |status| epoch(status) == "1");
    }
    let end = Instant::now() + Duration::from_millis(3 * 300);
    while Instant::now() < end {
        for n in 1..=3 {
            let status = group.status(n).unwrap();
            assert_eq!(
                status["term"], "1.0",
                "nobody campaigns in an epoch of which it holds nothing"
            );
            assert_ne!(status["role"], "primary", "server {n}");
        }
    }
    group.kill_all();

    // A repeated recovery succeeds: the others follow, and entries that only one of them had are
    // quarantined.
    recover(&group.config(), &group.data(1));
    group.start(1);
    join(&mut group, 1);
    assert_eq!(group.mailbox(1, "ann"), texts);
    for n in 1..=3 {
        let status = group.wait(n, "it follows", |status| status["messages"] == "5");
        assert_eq!(epoch(&status), "5");
    }
    let tail = quarantine(&group.data(3));
    assert!(is_kind(&tail, "epoch-0-"));
    let check = postern().arg("check").arg("--data").arg(&tail).output().unwrap();
    assert!(check.status.success() && stdout(&check).contains("3 entries"), "{}", stderr(&check));
    assert!(!group.data(2).join("quarantine").exists());
}

#[test]
fn two_histories_stay_apart() {
    // Schedule 15: two operators, each unaware of the other.
    let (mut group, texts) = dead(5);
    for n in [1, 3] {
        recover(&group.config(), &group.data(n));
    }
    group.start(1);
    assert_eq!(group.wait_members(1), 1);
    send(&group, 1, &vec!["to the first".to_owned()]);
    group.start(3);
    group.wait(3, "it leads its own", |status| {
        status["role"] == "primary" && status["waiting"] == "-"
    });
    send(&group, 3, &vec!["to the other".to_owned()]);
    let (first, other) = (group.status(1).unwrap(), group.status(3).unwrap());
    assert_eq!((epoch(&first), epoch(&other)), ("1", "3"));
    assert_eq!(first["role"], "primary");
    let history = |own: &str| [&texts[..], &[own.to_owned()]].concat();
    assert_eq!(group.mailbox(1, "ann"), history("to the first"));
    assert_eq!(group.mailbox(3, "ann"), history("to the other"));
    for n in [1, 3] {
        assert!(group.log(n).contains("move its directory away"), "{}", group.log(n));
    }

    // An operator decides, as the log advises.
    group.kill(1);
    std::fs::rename(group.data(1), group.dir.path().join("away")).unwrap();
    group.start(1);
    group.start(2);
    assert_eq!(group.wait_members(3), 3);
    assert_eq!(group.mailbox(3, "ann"), history("to the other"));
    for n in 1..=3 {
        let status = group.wait(n, "it has it all", |status| status["messages"] == "6");
        assert_eq!(epoch(&status), "3");
    }
}

#[test]
fn the_others_may_be_started_together() {
    // They could elect one of themselves before they connect to the recovered server.
    let (mut group, texts) = dead(2);
    recover(&group.config(), &group.data(1));
    group.start(1);
    assert_eq!(group.wait_members(1), 1);
    join(&mut group, 1);
    for n in 1..=3 {
        let status = group.wait(n, "it has it all", |status| status["messages"] == "2");
        assert_eq!(epoch(&status), "1");
    }
    assert_eq!(group.mailbox(1, "ann"), texts);
}

#[test]
fn a_straggler_takes_nothing_from_a_group_that_lives() {
    // Schedule 16.
    let mut group = Group::open();
    group.wait_members(3);
    group.kill(1);
    let primary = group.wait_members(2);
    let texts: Vec<String> = (1..=5).map(|n| format!("message {n}")).collect();
    send(&group, primary, &texts);
    let before = snapshot(&group.data(1));
    let refused = complaint(&run(command(&group.config(), &group.data(1))));
    assert!(refused.contains("server 2 at ") && refused.contains("answers"), "{refused}");
    assert_eq!(snapshot(&group.data(1)), before);

    // Recovers where the running servers are unreachable.
    recover(&cut_off(&group, 1), &group.data(1));
    group.start(1);
    let end = Instant::now() + common::DEADLINE;
    while !group.log(1).contains("refuses this one: ") {
        assert!(Instant::now() < end, "nobody refuses it: {}", group.log(1));
        std::thread::yield_now();
    }
    let said = group.log(2) + &group.log(3);
    assert!(said.contains("refused server 1: "), "both sides say why: {said}");
    assert_eq!(group.status(primary).unwrap()["role"], "primary");
    assert_eq!(epoch(&group.status(primary).unwrap()), "0");
    assert_eq!(group.mailbox(primary, "ann"), texts);

    group.kill(1);
    std::fs::rename(group.data(1), group.dir.path().join("away")).unwrap();
    group.start(1);
    assert_eq!(group.wait_members(3), primary);
    assert_eq!(group.mailbox(primary, "ann"), texts);
}

#[test]
fn the_best_directory_is_the_one_of_the_highest_term() {
    // Schedule 17: 100 entries that were never acknowledged, and 5 that were, of a later term.
    let (mut group, texts) = dead(5);
    let (mut deposed, records) = open(&group, 1);
    let old = term(&records);
    (0..100).for_each(|_| append(&mut deposed, &records, old, None));
    drop(deposed);
    let pair = [2, 3].map(|n| {
        let identity = open(&group, n).0.identity().clone();
        Member { id: identity.id, disk: identity.disk }
    });
    for n in [2, 3] {
        let (mut store, records) = open(&group, n);
        append(&mut store, &records, old.next(), Some(Config::new(pair, true)));
        (0..4).for_each(|_| append(&mut store, &records, old.next(), None));
        store.persist(Vote { term: old.next(), given: Some(pair[0]), founder: None }).unwrap();
    }

    let also = |data: usize, other: usize| {
        let mut command = command(&group.config(), &group.data(data));
        command.arg("--also").arg(group.data(other));
        command
    };
    let before = snapshot(group.dir.path());
    let output = run(also(1, 2));
    let shown = stdout(&output);
    assert!(shown.contains(&format!("best: {}", group.data(2).display())), "{shown}");
    assert!(!shown.contains("--yes"), "the longer one is no choice: {shown}");
    let mut forced = also(1, 2);
    forced.args(["--yes", "00000000"]);
    complaint(&run(forced));
    let output = run(also(2, 1));
    let word = word(&output);
    assert!(stdout(&output).contains(&format!("best: {}", group.data(2).display())));
    assert_eq!(snapshot(group.dir.path()), before);
    let mut act = also(2, 1);
    act.args(["--yes", &word]);
    assert_eq!(run(act).status.code(), Some(0));

    group.start(2);
    join(&mut group, 2);
    let last = texts.last().unwrap();
    let answered = [&texts[..], &[last; 4].map(String::clone)].concat();
    assert_eq!(group.mailbox(2, "ann"), answered);
    for n in [1, 3] {
        group.wait(n, "it has what was answered", |status| status["messages"] == "9");
    }
    assert!(is_kind(&quarantine(&group.data(1)), "old-copy-"), "all is kept");
    assert!(!group.data(3).join("quarantine").exists());
}

#[test]
fn what_can_be_read_of_the_only_copy_goes_on() {
    let mut group = Group::alone();
    let texts: Vec<String> = (1..=30).map(|n| format!("message {n}")).collect();
    send(&group, 1, &texts);
    assert_eq!(group.terminate(1), Some(0));
    let path = group.data(1).join("log/00000000000000000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    std::fs::write(group.data(1).join("identity"), "nonsense").unwrap();
    assert!(complaint(&run(group.serve(1))).contains("postern recover --config "));

    let (config, data) = (group.config(), group.data(1));
    let said = complaint(&run(command(&config, &data)));
    assert!(said.contains("--id"), "{said}");
    let named = || {
        let mut command = command(&config, &data);
        command.args(["--id", "1"]);
        command
    };
    let looked = run(named());
    assert!(stdout(&looked).contains("entries there can still be read"), "{}", stdout(&looked));
    let word = word(&looked);
    let mut act = named();
    act.args(["--yes", &word]);
    let done = run(act);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let folder = quarantine(&data);
    assert!(is_kind(&folder, "damaged-") && stdout(&done).contains("quarantine/damaged-"));
    assert!(snapshot(&folder).into_values().any(|kept| kept == bytes), "nothing is deleted");

    group.start(1);
    group.wait_members(1);
    let kept = group.mailbox(1, "ann");
    assert!(kept.len() > 5 && kept.len() < 30 && texts.starts_with(&kept), "{}", kept.len());
    let next = kept.len() + 1;
    assert_eq!(group.client(1, "ann").ask("SEND ann on"), format!("OK {next}"));
}

#[test]
fn what_holds_nothing_or_is_not_of_the_group_is_refused() {
    let group = Group::new(3);
    let missing = complaint(&run(command(&group.config(), &group.data(1))));
    assert!(missing.contains("No such file"), "{missing}");
    std::fs::create_dir(group.data(1)).unwrap();
    let mut empty = command(&group.config(), &group.data(1));
    empty.args(["--id", "1"]);
    assert!(complaint(&run(empty)).contains("no entry"));
    assert_eq!(std::fs::read_dir(group.data(1)).unwrap().count(), 0);

    let mut other = Group::alone();
    other.kill(1);
    let said = complaint(&run(command(&group.config(), &other.data(1))));
    assert!(said.contains("it belongs to group "), "{said}");
}
