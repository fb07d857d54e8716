//! `postern send` exits with 0 only if every line was acknowledged. `postern tail` prints every
//! message: exactly these lines, once, in order, through any number of failovers.
//!
//! `POSTERN_FAILOVERS=100 cargo test --release --test send_tail` is the long form: a thousand lines
//! for each.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use common::{DEADLINE, Group, postern, run_by, stderr, with_signals};
use postern::rng::Rng;
use rustix::process::{Pid, Signal, kill_process};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use terminal::Terminal;

const LINES_PER_FAILOVER: u64 = 1000;

/// Returns a command that knows the password of all accounts of this test.
fn command(group: &Group, name: &str) -> Command {
    let mut command = postern();
    command.arg(name).env("POSTERN_SERVERS", group.servers.join(","));
    command.env("POSTERN_PASSWORD", "correct-horse").stdin(Stdio::null());
    command
}

/// A running command whose lines come over a channel.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

fn start(command: &Command) -> Running {
    let mut command = with_signals(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("postern runs");
    let (sender, lines) = channel();
    let out = child.stdout.take().expect("it is piped");
    thread::spawn(move || {
        let lines = BufReader::new(out).lines();
        lines.map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
    });
    Running { child, lines }
}

impl Running {
    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line")
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
    }

    /// Waits until the command ends. Returns its exit status, and its output on stderr.
    fn end(mut self) -> (ExitStatus, String) {
        drop(self.child.stdin.take());
        let status = common::wait_child(&mut self.child, || "it does not end".to_owned());
        let mut said = String::new();
        self.child.stderr.take().expect("it is piped").read_to_string(&mut said).unwrap();
        (status, said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn every_line_arrives_once_and_in_order_through_failovers() {
    let failovers = std::env::var("POSTERN_FAILOVERS").map_or(5, |n| n.parse().unwrap());
    let seed = RandomState::new().hash_one("failovers");
    eprintln!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut group = Group::open();
    let mut primary = group.wait_members(3);
    group.client(primary, "ann");
    group.client(primary, "bob");
    let mut tail = command(&group, "tail");
    tail.args(["bob", "--follow"]);
    let tail = start(&tail);
    let mut send = command(&group, "send");
    send.args(["ann", "bob", "--json"]);
    let mut send = start(&send);
    let mut input = send.child.stdin.take().expect("it is piped");
    let mut stored = 0;
    for round in 0..failovers {
        let first = round * LINES_PER_FAILOVER + 1;
        let lines: String =
            (first..first + LINES_PER_FAILOVER).map(|n| format!("line {n}\n")).collect();
        let writer = thread::spawn(move || input.write_all(lines.as_bytes()).map(|()| input));
        let moment = first + rng.below(LINES_PER_FAILOVER);
        while stored < moment {
            stored += 1;
            assert_eq!(send.line(), format!("{{\"line\":{stored},\"n\":{stored}}}"));
        }
        group.kill(primary);
        group.start(primary);
        primary = group.wait_members(3);
        input = writer.join().unwrap().expect("it takes every line");
    }
    drop(input);
    let all = failovers * LINES_PER_FAILOVER;
    for n in stored + 1..=all {
        assert_eq!(send.line(), format!("{{\"line\":{n},\"n\":{n}}}"));
    }
    let (status, said) = send.end();
    assert!(status.success(), "{said}");
    for n in 1..=all {
        let line = tail.line();
        let (number, rest) = line.split_once(' ').unwrap();
        assert_eq!(number, n.to_string(), "{line}");
        assert!(rest.ends_with(&format!("Z ann line {n}")), "{line}");
    }
    assert!(tail.lines.try_recv().is_err(), "and nothing more");
    tail.interrupt();
    assert_eq!(tail.end().0.code(), Some(130));
}

#[test]
fn a_line_that_is_refused_ends_it_and_is_named() {
    let group = Group::alone();
    group.client(1, "ann");
    group.client(1, "bob");
    let table: [(&[&str], &[u8], &str); 6] = [
        (&["ann", "nobody", "hi"], b"", "line 1: there is no account nobody (no-such-user)"),
        (&["ann", "bob"], b"one\n\ntwo\n\x1b[2J\nthree\n", "line 4: control, line separator"),
        (&["ann", "bob"], b"one\n\xff\n", "line 2: is not UTF-8 (bad-text); 1 of 2 messages"),
        (&["ann", "bob"], &[b'x'; 100_000], "line 1: a text has at most 3840 bytes (too-long)"),
        (
            &["ann", "no name"],
            b"one\n",
            "is one word, without spaces (bad-argument); 0 of 1 messages",
        ),
        (&["carl", "bob"], b"one\n", "wrong (wrong-password); 0 of 1 messages were stored"),
    ];
    for (arguments, input, expected) in table {
        let mut send = command(&group, "send");
        send.args(arguments);
        let mut send = start(&send);
        // The command may end before it has read all input.
        let _ = send.child.stdin.take().unwrap().write_all(input);
        let (status, said) = send.end();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.starts_with("postern: ") && said.contains(expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(group.mailbox(1, "bob"), ["one", "two", "one"]);
}

#[test]
fn a_bad_line_need_not_end_it() {
    let group = Group::alone();
    group.client(1, "ann");
    let long = "ä".repeat(50_000);
    let mut input = b"one\n\x1b[31mred\xff\n".to_vec();
    input.extend_from_slice(long.as_bytes());
    input.extend_from_slice(b"\nlast");
    let send = |option: &str| {
        let mut send = command(&group, "send");
        send.args(["ann", "ann", option]);
        let mut send = start(&send);
        send.child.stdin.take().unwrap().write_all(&input).unwrap();
        send.end()
    };
    let (status, said) = send("--skip");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("line 2: is not UTF-8 (bad-text); skipped"), "{said}");
    assert!(said.contains("postern: line 2: is not UTF-8 (bad-text); 2 of "), "{said}");
    assert_eq!(group.mailbox(1, "ann"), ["one", "last"]);
    assert_eq!(send("--lossy"), (std::process::ExitStatus::default(), String::new()));
    let texts = group.mailbox(1, "ann").split_off(2);
    assert_eq!(texts[..2], ["one", "\u{fffd}[31mred\u{fffd}"]);
    assert_eq!(texts.last().unwrap(), "last");
    assert_eq!(texts[2..texts.len() - 1].concat(), long);
}

#[test]
fn a_person_sees_how_far_a_file_is() {
    let group = Group::alone();
    group.client(1, "ann");
    let lines = 50_000;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    std::fs::write(&file, "one line of many\r\n".repeat(lines)).unwrap();
    let mut send = command(&group, "send");
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" < \"$INPUT\""]).env("INPUT", &file);
    let send = run_by(shell, send.args(["ann", "ann"]));
    let mut screen = Terminal::run(&send);
    group.wait(1, "taking messages", |status| status["messages"] != "0");
    // While no message is answered, the progress line must be shown, however fast the machine is.
    group.signal(1, Signal::STOP);
    screen.see("messages are stored (");
    screen.see("; no answer for ");
    group.signal(1, Signal::CONT);
    screen.see(&format!("{lines} messages are stored, in "));
    assert!(screen.end().success());
    assert_eq!(screen.text().lines().count(), 1, "{}", screen.text());
    assert_eq!(group.mailbox(1, "ann").len(), lines);
}

#[test]
fn a_tail_ends_with_its_reader() {
    let group = Group::alone();
    group.client(1, "ann").send_first("ann", 5);
    let mut tail = command(&group, "tail");
    tail.args(["ann", "--after", "0", "--follow"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tail.spawn().expect("postern runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
    for n in 1..=2 {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.ends_with(&format!(" ann message {n}\n")), "{line}");
    }
    drop(lines);
    let (status, said) = Running { child, lines: channel().1 }.end();
    assert_eq!((status.code(), &said[..]), (Some(0), ""));
}

#[test]
fn what_windows_adds_to_files_is_no_part_of_passwords_and_messages() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut send = command(&group, "send");
    send.args(["ann", "ann", "--password-file", "-"]).env_remove("POSTERN_PASSWORD");
    let mut send = start(&send);
    let input = "\u{feff}correct-horse\r\n\u{feff}one\r\n two\r\n";
    send.child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert_eq!(send.end().1, "");
    assert_eq!(group.mailbox(1, "ann"), ["one", " two"]);

    let folder = tempfile::tempdir().unwrap();
    for (name, content, why) in
        [("empty", &b""[..], ": the password is empty"), ("binary", b"\xff\xfep\0", "is not UTF-8")]
    {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        let mut send = command(&group, "send");
        send.args(["ann", "ann", "hi", "--password-file"]).arg(&file);
        let (status, said) = start(&send).end();
        assert!(said.contains(why) && said.contains(name), "{said}");
        assert_eq!(status.code(), Some(1));
    }
}

#[test]
fn the_last_line_needs_no_end_and_others_may_end_in_cr_lf() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut send = command(&group, "send");
    send.args(["ann", "ann"]);
    let mut send = start(&send);
    send.child.stdin.take().unwrap().write_all(b"one\r\n two  spaces \nlast").unwrap();
    assert!(send.end().0.success());
    let mut words = command(&group, "send");
    assert!(
        words
            .args(["ann", "ann", "--", "four", "words", "--like", "these"])
            .status()
            .unwrap()
            .success()
    );
    let texts = ["one", " two  spaces ", "last", "four words --like these"];
    assert_eq!(group.mailbox(1, "ann"), texts);
}

#[test]
fn nobody_to_send_to_is_said_in_time_and_memory_is_bounded() {
    let group = Group::new(3); // none of them runs
    let mut send = command(&group, "send");
    send.args(["ann", "bob", "--wait", "1"]);
    let mut send = start(&send);
    let mut input = send.child.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let piece = "a line of some length that nobody reads\n".repeat(100);
        let mut taken = 0;
        while input.write_all(piece.as_bytes()).is_ok() {
            taken += piece.len();
        }
        taken
    });
    let (status, said) = send.end();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("no primary was found: ") && said.contains(&group.servers[2]), "{said}");
    assert!(said.contains("0 of 256 messages were stored"), "none of them was sent: {said}");
    assert!(!said.contains("outcome unknown"), "{said}");
    let taken = writer.join().unwrap();
    assert!(taken < 1024 * 1024, "{taken} bytes were taken");
}

#[test]
fn ctrl_c_ends_with_130_and_nothing_is_sent_twice() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut send = command(&group, "send");
    send.args(["ann", "ann", "--json"]);
    let mut send = start(&send);
    let mut input = send.child.stdin.take().unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    assert_eq!(
        (send.line(), send.line()),
        ("{\"line\":1,\"n\":1}".into(), "{\"line\":2,\"n\":2}".into())
    );
    send.interrupt();
    assert_eq!(send.end().0.code(), Some(130));
    assert_eq!(group.mailbox(1, "ann"), ["one", "two"]);
}

#[test]
fn tail_shows_what_is_asked_for() {
    let group = Group::alone();
    let mut ann = group.client(1, "ann");
    for n in 1..=5 {
        assert_eq!(ann.ask(&format!("SEND ann text {n}")), format!("OK {n}"));
    }
    for (after, expected) in [("0", 1..6), ("3", 4..6), ("-2", 4..6), ("end", 6..6)] {
        let mut tail = command(&group, "tail");
        let output = tail.args(["ann", "--after", after]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let said = String::from_utf8(output.stdout).unwrap();
        let texts: Vec<&str> =
            said.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap()).collect();
        assert_eq!(texts, expected.map(|n| format!("text {n}")).collect::<Vec<_>>(), "{after}");
    }
    let mut tail = command(&group, "tail");
    let output = tail.args(["ann", "--after", "6"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the last message is number 5"), "{}", stderr(&output));
    // A slow reader gets all messages, however short the search for a primary may be.
    let text = "x".repeat(3000);
    (0..600).for_each(|_| assert!(ann.ask(&format!("SEND ann {text}")).starts_with("OK")));
    let mut tail = command(&group, "tail");
    tail.args(["ann", "--wait", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tail.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let pause = Instant::now() + Duration::from_millis(1500);
    let mut lines = 0;
    for line in (&mut out).lines() {
        line.unwrap();
        lines += 1;
        // The pause makes the reader slow; it waits for no state.
        thread::sleep(if lines == 1 { pause - Instant::now() } else { Duration::ZERO });
    }
    assert_eq!(lines, 605);
    assert!(child.wait().unwrap().success());
    // A reader that has seen enough closes the pipe, which is no failure.
    let mut tail = command(&group, "tail");
    tail.args(["ann", "--follow"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tail.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    drop(out);
    assert_eq!(ann.ask("SEND ann more"), "OK 606");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_message_with_lines_and_a_title_arrives_whole() {
    let group = Group::alone();
    group.client(1, "ann");
    let send = |arguments: &[&str], input: &[u8]| {
        let mut send = command(&group, "send");
        send.args(arguments);
        let mut send = start(&send);
        let _ = send.child.stdin.take().unwrap().write_all(input);
        let (status, said) = send.end();
        (status.code(), said)
    };
    let attributes = [
        "--title",
        "Disk full",
        "--priority",
        "5",
        "--tags",
        "disk,lab",
        "--click",
        "http://lab1/",
    ];
    let whole = [&["ann", "ann", "--whole"][..], &attributes].concat();
    assert_eq!(send(&whole, b"one\r\n\ntwo\n"), (Some(0), String::new()));
    assert_eq!(send(&["ann", "ann", "three\nfour"], b""), (Some(0), String::new()));
    assert_eq!(send(&["ann", "ann", "--title", "t"], b"five\nsix\n"), (Some(0), String::new()));
    for (arguments, input, expected) in [
        (&["ann", "ann", "--whole"][..], &[b'x'; 5000][..], "has at most 3840 bytes"),
        (&["ann", "ann", "--whole"], &[b'x'; 3841], "has at most 3840 bytes"),
        (&["ann", "ann", "--whole"], b"\xff", "it is not UTF-8"),
        (&["ann", "ann", "--whole"], b"\n", "is empty"),
        (&["ann", "ann", "--title", "a\tb", "x"], b"", "a title has at most 250 bytes"),
    ] {
        let (code, said) = send(arguments, input);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
    let tail = |arguments: &[&str]| {
        let output = command(&group, "tail").arg("ann").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let texts = ["Disk full: one␤␤two", "three␤four", "t: five", "t: six"];
    for (line, text) in tail(&[]).lines().zip(texts) {
        assert!(line.ends_with(&format!("Z ann {text}")), "{line}");
    }
    let json = tail(&["--json"]);
    let first = "\"from\":\"ann\",\"text\":\"one\\n\\ntwo\",\"title\":\"Disk full\",\
                 \"priority\":5,\"tags\":\"disk,lab\",\"click\":\"http://lab1/\"}";
    assert!(json.lines().next().unwrap().ends_with(first), "{json}");
    assert!(json.lines().nth(1).unwrap().ends_with("\"text\":\"three\\nfour\"}"), "{json}");
    assert_eq!(group.mailbox(1, "ann"), texts);
}
