//! What people type with comes through: each netcat's script gets all its answers, a session that
//! is typed is shown what others send, and what telnet clients say beside the lines is ignored.

mod common;

use common::{DEADLINE, Group};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A running tool, with pipes.
struct Tool {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Tool {
    /// Connects with the first word of `command` and its options; `None` if it is not installed.
    fn start(command: &str, server: &str) -> Option<Tool> {
        let mut words = command.split(' ');
        let program = words.next().unwrap_or_default();
        let mut tool = Command::new(program);
        tool.args(words);
        if program == "socat" {
            tool.args(["-", &format!("TCP:{server}")]);
        } else {
            tool.args(server.split(':'));
        }
        tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = match tool.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                println!("skipped: {program} is not installed");
                return None;
            }
            child => child.expect("it starts"),
        };
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("it has a pipe"));
        std::thread::spawn(move || {
            // A line of a tool that is killed interests nobody.
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let input = child.stdin.take();
        Some(Tool { child, input, lines })
    }

    fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(text.as_bytes()).expect("it reads its input");
    }

    /// The next line; `None` at the end.
    fn try_line(&self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Err(RecvTimeoutError::Timeout) => panic!("no line in {DEADLINE:?}"),
            line => line.ok(),
        }
    }

    fn line(&self) -> String {
        self.try_line().expect("a line, not the end")
    }

    /// All lines up to the end.
    fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.try_line()).collect()
    }

    /// Passes over what telnet says itself.
    fn pass_greeting(&self) {
        while !self.line().starts_with("Escape character is") {}
    }

    /// Waits until it ends by itself.
    fn code(&mut self) -> Option<i32> {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// When a tool ends that is told nothing more by the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    AtOnce,
    /// It reads on, to find at a later line that nobody takes it.
    WithItsInput,
}

/// Pipes the group's `n`th script through a tool.
fn pipe(group: &Group, n: usize, command: &str, line_end: &str) {
    let mut bob = group.client(1, "bob");
    let Some(mut tool) = Tool::start(command, &group.servers[0]) else { return };
    let script =
        format!("CREATE ann{n} correct-horse\nLOGIN ann{n} correct-horse\nSEND bob by {command}\n");
    tool.write(&script.replace('\n', line_end));
    tool.input = None;
    assert_eq!(tool.rest(), [format!("OK ann{n}"), format!("OK ann{n} 0"), format!("OK {n}")]);
    assert_eq!(tool.code(), Some(0), "{command}");
    assert!(bob.line().ends_with(&format!(" ann{n} by {command}")));
}

/// Types to a tool whose input stays open, and lets another client send something.
fn talk(group: &Group, command: &str, ends: Ends) {
    let Some(mut tool) = Tool::start(command, &group.servers[0]) else { return };
    if command == "telnet" {
        tool.pass_greeting();
    }
    tool.write("CREATE ann correct-horse\n");
    assert_eq!(tool.line(), "OK ann", "{command}");
    tool.write("LOGIN ann correct-horse\n");
    assert_eq!(tool.line(), "OK ann 0", "{command}");
    assert_eq!(group.client(1, "bob").ask("SEND ann hello"), "OK 1");
    let shown = tool.line();
    assert!(shown.starts_with("MSG 1 ") && shown.ends_with(" bob hello"), "{command}: {shown}");
    tool.write("QUIT\n");
    assert_eq!(tool.line(), "OK bye", "{command}");
    if ends == Ends::WithItsInput {
        tool.input = None;
    }
    assert_eq!(tool.rest(), Vec::<String>::new(), "{command}");
    assert_eq!(tool.code(), Some(0), "{command}");
}

#[test]
fn openbsd_nc() {
    let group = Group::alone();
    pipe(&group, 1, "nc.openbsd -N", "\n");
    pipe(&group, 2, "nc.openbsd -N -C", "\n");
    pipe(&group, 3, "nc.openbsd -N", "\r\n"); // so PowerShell pipes lines
    // It leaves so many seconds after its input ended, answered or not.
    pipe(&group, 4, "nc.openbsd -q 3", "\n");
    talk(&group, "nc.openbsd", Ends::WithItsInput);
}

#[test]
fn traditional_nc() {
    let group = Group::alone();
    // At most so many seconds after its input ended, and at once when the server is done.
    pipe(&group, 1, "nc.traditional -q 20", "\n");
    pipe(&group, 2, "nc.traditional -q 20 -C", "\n");
    talk(&group, "nc.traditional", Ends::AtOnce);
}

#[test]
fn ncat() {
    let group = Group::alone();
    pipe(&group, 1, "ncat", "\n");
    pipe(&group, 2, "ncat -C", "\n");
    talk(&group, "ncat -C", Ends::WithItsInput);
}

#[test]
fn socat() {
    let group = Group::alone();
    // The same; without -t it is half a second.
    pipe(&group, 1, "socat -t 20", "\n");
    talk(&group, "socat", Ends::AtOnce);
}

#[test]
fn telnet() {
    // The end of a script would end it before the answers came.
    talk(&Group::alone(), "telnet", Ends::AtOnce);
}

#[test]
fn lines_may_end_with_carriage_return_and_line_feed() {
    let group = Group::alone();
    let mut ann = group.connect(1);
    ann.send_bytes(b"CREATE ann correct-horse\r\nLOGIN ann correct-horse\r\n\r\nPING a\r\n");
    ann.end_input();
    assert_eq!(ann.rest(), ["OK ann", "OK ann 0", "OK a"]);
}

#[test]
fn what_a_telnet_client_negotiates_is_ignored() {
    let group = Group::alone();
    let mut putty = group.connect(1);
    // WILL NAWS, TSPEED, TTYPE, NEW-ENVIRON; DO ECHO; WILL and DO SGA; a window of 80 by 10.
    putty.send_bytes(
        b"\xff\xfb\x1f\xff\xfb\x20\xff\xfb\x18\xff\xfb\x27\xff\xfd\x01\xff\xfb\x03\xff\xfd\x03\
          \xff\xfa\x1f\x00\x50\x00\x0a\xff\xf0CREATE ann correct-horse\r\n",
    );
    assert_eq!(putty.line(), "OK ann");
    putty.send_bytes(b"LOGIN ann correct-horse\r\0");
    assert_eq!(putty.line(), "OK ann 0");
    // The window changes while a line is sent.
    putty.send_bytes(b"SEND ann hi\xff\xfa\x1f\x00\x0a\x00\x0a\xff\xf0 ho\r\0PING a\r\n");
    assert_eq!([putty.answer(), putty.answer()], ["OK 1", "OK a"]);
    assert_eq!(group.mailbox(1, "ann"), ["hi ho"]);
}

#[test]
fn telnet_shows_answers_after_an_interrupt() {
    let group = Group::alone();
    let Some(mut tool) = Tool::start("telnet", &group.servers[0]) else { return };
    tool.pass_greeting();
    tool.write("PING a\n");
    assert_eq!(tool.line(), "OK a");
    // As ^C does: it asks for a timing mark, and shows nothing before that is answered.
    let pid = rustix::process::Pid::from_child(&tool.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    tool.write("PING b\nPING c\nQUIT\n");
    assert_eq!(tool.rest(), ["OK b", "OK c", "OK bye"]);
}

#[test]
fn a_timing_mark_is_refused_before_what_is_said_next() {
    let group = Group::alone();
    let mut client = group.connect(1);
    // Among the first bytes of the connection, and later.
    for _ in 0..2 {
        client.send_bytes(b"\xff\xf4\xff\xfd\x06PING a\n");
        let mut said = [0; 8];
        client.stream.read_exact(&mut said).unwrap();
        assert_eq!(said, *b"\xff\xfc\x06OK a\n");
    }
}

#[test]
fn an_urgent_byte_stays_in_its_place() {
    let group = Group::alone();
    let mut client = group.connect(1);
    client.send_bytes(b"PING a\nPING b\xff\xf4\xff");
    // How telnet sends its data mark, so that it is seen behind input that is not read.
    let socket = socket2::SockRef::from(&client.stream);
    assert_eq!(socket.send_out_of_band(b"\xf2").unwrap(), 1);
    client.send("\nPING c");
    assert_eq!([client.line(), client.line(), client.line()], ["OK a", "OK b", "OK c"]);
}

#[test]
fn a_stray_byte_is_no_telnet() {
    let group = Group::alone();
    let mut client = group.connect(1);
    for line in [&b"PING \xffx\n"[..], b"PING x\xff\n", b"\xff\r\n", b"\xff\xff\n", b"PING \0\r\n"]
    {
        client.send_bytes(line);
        let answer = client.line();
        assert!(answer.starts_with("ERR bad-text "), "{line:x?}: {answer}");
    }
}

#[test]
fn an_endless_subnegotiation_keeps_no_request_from_its_answer() {
    let group = Group::alone();
    let mut client = group.connect(1);
    client.send_bytes(b"\xff\xfb\x1fPING a\n\xff\xfa");
    assert_eq!(client.line(), "OK a");
    client.send_bytes(&b"PING b\n".repeat(1000));
    let swallowed = client.line();
    assert!(swallowed == "OK b" || swallowed.starts_with("ERR bad-command "), "{swallowed}");
    client.send("PING c");
    while client.line() != "OK c" {}
}

#[test]
fn who_negotiates_nothing_speaks_no_telnet() {
    let group = Group::alone();
    let mut client = group.client(1, "ann");
    for line in [&b"SEND ann a\xff\xf9b\n"[..], b"SEND ann a\r\0SEND ann b\n", b"\xff\xfa\n"] {
        client.send_bytes(line);
        let answer = client.line();
        assert!(answer.starts_with("ERR bad-text "), "{line:x?}: {answer}");
    }
    assert_eq!(client.ask("SEND ann c"), "OK 1", "nothing was stored");
}
