//! Acknowledged changes are on disk, in the order that survives a power cut. The test observes
//! the system calls of real servers, since a disk that only pretends to sync passes every other
//! test. Needs strace; otherwise the test prints a note and passes.

mod common;

use common::{Group, run_by};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server under strace. Dropping it ends both.
struct Traced {
    strace: Child,
    trace: PathBuf,
}

impl Drop for Traced {
    fn drop(&mut self) {
        // strace ends after the server, its child. If it were killed at once, the server might
        // still listen when the test goes on.
        let killed = self.server().map(|server| kill_process(server, Signal::KILL));
        if !matches!(killed, Some(Ok(()))) {
            let _ = self.strace.kill();
        }
        let _ = self.strace.wait();
    }
}

impl Traced {
    fn start(group: &Group, n: usize) -> Option<Traced> {
        let is_there = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
        if !is_there.is_ok_and(|status| status.success()) {
            println!("strace is not installed: nothing is tested");
            return None;
        }
        let trace = group.dir.path().join(format!("trace{n}"));
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-y",
            "-e",
            "trace=pwrite64,fdatasync,fsync,rename,writev,write,sendto",
        ]);
        strace.arg("-o").arg(&trace);
        let mut command = run_by(strace, &group.serve(n));
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let traced = Traced { strace: command.spawn().unwrap(), trace };
        let missing = || format!("server {n} does not answer under strace");
        common::wait_for(|| group.status(n), missing);
        Some(traced)
    }

    /// Returns the server's process, the only child of strace.
    fn server(&self) -> Option<Pid> {
        let strace = self.strace.id();
        let children = std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"));
        Pid::from_raw(children.ok()?.split_whitespace().next()?.parse().ok()?)
    }

    /// Returns the server's calls on the files of its directory and on its clients, in order.
    fn calls(&self, data: &Path) -> Vec<Call> {
        let text = std::fs::read_to_string(&self.trace).unwrap();
        let data = data.display().to_string();
        text.lines().filter_map(|line| Call::read(line, &data)).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    /// A write to a file. Its path, like that of `Sync`, is relative to the data directory; a
    /// synced folder makes its names durable.
    Write(String),
    Sync(String),
    /// The beginning of an answer to a client.
    Said(String),
}

impl Call {
    fn read(line: &str, data: &str) -> Option<Call> {
        let (_, call) = line.split_once(' ')?;
        let (name, rest) = call.trim().split_once('(')?;
        let path = rest.split(['<', '>']).nth(1)?;
        let file = path.strip_prefix(data).map(|file| file.trim_start_matches('/').to_owned());
        match (name, file) {
            ("pwrite64", Some(file)) => Some(Call::Write(file)),
            ("fdatasync" | "fsync", Some(file)) => Some(Call::Sync(file)),
            ("write" | "sendto" | "writev", None)
                if path.starts_with("socket:") || path.starts_with("TCP") =>
            {
                rest.split('"').nth(1).map(|words| Call::Said(words.to_owned()))
            }
            _ => None,
        }
    }
}

const LOG: &str = "log/00000000000000000001.log";

/// Returns the position of the first such call at or after `from`.
fn find(calls: &[Call], from: usize, what: &Call) -> usize {
    let at = calls[from..].iter().position(|call| call == what);
    from + at.unwrap_or_else(|| panic!("{what:?} does not come in {:#?}", &calls[from..]))
}

#[test]
fn a_message_is_written_and_synced_before_it_is_acknowledged() {
    let mut group = Group::new(1);
    let Some(traced) = Traced::start(&group, 1) else { return };
    group.wait(1, "it lets clients in", |status| status["waiting"] == "-");
    let mut ann = group.client(1, "ann");
    assert_eq!(ann.ask("SEND ann hello"), "OK 1");
    let calls = traced.calls(&group.data(1));
    let (write, sync) = (|f: &str| Call::Write(f.to_owned()), |f: &str| Call::Sync(f.to_owned()));
    // The directory: each file is synced before its name, and the identity last.
    let vote = find(&calls, 0, &write("vote"));
    let vote_synced = find(&calls, vote, &sync("vote"));
    let log = find(&calls, vote_synced, &write(LOG));
    let log_synced = find(&calls, log, &sync(LOG));
    let named = find(&calls, log_synced, &sync("log"));
    let identity = find(&calls, named, &write("identity.new"));
    let identity_synced = find(&calls, identity, &sync("identity.new"));
    find(&calls, identity_synced, &sync(""));
    // The message is written and synced before its answer.
    let said = calls
        .iter()
        .rposition(|call| matches!(call, Call::Said(words) if words.starts_with("OK 1")));
    let said = said.unwrap_or_else(|| panic!("it was told: {calls:#?}"));
    let write = calls[..said].iter().rposition(|call| *call == write(LOG)).expect("it is written");
    assert!(calls[write..said].contains(&sync(LOG)), "{:#?}", &calls[write..said]);
    drop(traced);
    group.start(1);
    group.wait_members(1);
    assert_eq!(group.mailbox(1, "ann"), ["hello"]);
}

/// A server that learns of a term together with its first entry stores the term first. A log with
/// a later term than the vote would make two votes in one term possible.
#[test]
fn a_vote_is_synced_before_the_log_of_its_term_is_written() {
    let mut group = Group::new(3);
    group.start(1);
    group.start(2);
    let Some(traced) = Traced::start(&group, 3) else { return };
    let primary = common_primary(&group);
    let mut ann = group.client(primary, "ann");
    assert_eq!(ann.ask("SEND ann hello"), "OK 1");
    if primary == 3 {
        println!("chance gave the role to the traced server: nothing is seen");
        return;
    }
    // The traced server is stopped while another one is elected, and then reads all of it at
    // once.
    let server = traced.server().unwrap();
    let before = traced.calls(&group.data(3)).len();
    kill_process(server, Signal::STOP).unwrap();
    let mut handover = common::postern();
    handover.arg("handover").arg("--config").arg(group.config());
    // The handover waits for the traced server as well.
    let handover = handover.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut handover = handover.unwrap();
    let other = 3 - primary;
    group.wait(other, "it is elected", |status| status["role"] == "primary");
    kill_process(server, Signal::CONT).unwrap();
    assert!(handover.wait().unwrap().success());
    group.wait(other, "it leads all three", |status| {
        status["role"] == "primary"
            && status["members"].split(',').count() == 3
            && status["acknowledged_index"] == status["last_index"]
    });
    let calls = traced.calls(&group.data(3));
    let calls = &calls[before..];
    let vote = find(calls, 0, &Call::Write("vote".to_owned()));
    let log = find(calls, 0, &Call::Write(LOG.to_owned()));
    let synced = find(calls, vote, &Call::Sync("vote".to_owned()));
    assert!(vote < synced && synced < log, "{calls:#?}");
}

/// Returns the primary. Server 3 is not among the children of the group, but may lead, too.
fn common_primary(group: &Group) -> usize {
    let find = || {
        (1..=3).find(|n| {
            group.status(*n).is_some_and(|status| {
                status["role"] == "primary"
                    && status["waiting"] == "-"
                    && status["members"].split(',').count() == 3
            })
        })
    };
    common::wait_for(find, || "nobody leads".to_owned())
}
