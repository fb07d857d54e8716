//! The tools with which people type requests work. Each netcat's script gets all its answers, an
//! interactive session shows messages from others, and the commands of telnet clients are
//! ignored.

mod common;

use common::{Client, DEADLINE, Group};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

/// A running tool, with pipes.
struct Tool {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Tool {
    /// Connects with the tool that is the first word of `command`, and its options. Returns
    /// `None` if it is not installed.
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
            // Lines of a tool that was killed are not needed.
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let input = child.stdin.take();
        Some(Tool { child, input, lines })
    }

    fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(text.as_bytes()).expect("it reads its input");
    }

    /// Returns the next line; `None` at the end.
    fn try_line(&self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Err(RecvTimeoutError::Timeout) => panic!("no line in {DEADLINE:?}"),
            line => line.ok(),
        }
    }

    fn line(&self) -> String {
        self.try_line().expect("a line, not the end")
    }

    /// Returns all lines up to the end.
    fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.try_line()).collect()
    }

    /// Skips the lines that telnet itself prints.
    fn pass_greeting(&self) {
        while !self.line().starts_with("Escape character is") {}
    }

    /// Waits until the tool ends by itself, and returns its exit code.
    fn code(&mut self) -> Option<i32> {
        common::wait_child(&mut self.child, || "it does not end".to_owned()).code()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// When a tool ends after the server has closed the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    AtOnce,
    /// It reads its input until it fails to send a further line.
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

/// Types into a tool whose input stays open, while another client sends a message.
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
    // The tool ends 3 seconds after its input ended, answered or not.
    pipe(&group, 4, "nc.openbsd -q 3", "\n");
    talk(&group, "nc.openbsd", Ends::WithItsInput);
}

#[test]
fn traditional_nc() {
    let group = Group::alone();
    // The tool ends at most 20 seconds after its input ended, and at once when the server closes.
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
    // At most 20 seconds, too; without -t it is half a second.
    pipe(&group, 1, "socat -t 20", "\n");
    talk(&group, "socat", Ends::AtOnce);
}

#[test]
fn telnet() {
    // A piped script is not tested: its end would end telnet before the answers arrive.
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
    // WILL NAWS, TSPEED, TTYPE, NEW-ENVIRON; DO ECHO; WILL and DO SGA.
    putty.send_bytes(
        b"\xff\xfb\x1f\xff\xfb\x20\xff\xfb\x18\xff\xfb\x27\xff\xfd\x01\xff\xfb\x03\xff\xfd\x03\
          CREATE ann correct-horse\r\n",
    );
    assert_eq!(putty.line(), "OK ann");
    // A command may come in pieces.
    for piece in [&b"\xff"[..], b"\xfb", b"\x18\xff\xfb", b"\x18PI", b"NG a\r\n"] {
        putty.send_bytes(piece);
    }
    assert_eq!(putty.line(), "OK a");
}

#[test]
fn telnet_shows_answers_after_an_interrupt() {
    let group = Group::alone();
    let Some(mut tool) = Tool::start("telnet", &group.servers[0]) else { return };
    tool.pass_greeting();
    tool.write("PING a\n");
    assert_eq!(tool.line(), "OK a");
    // SIGINT acts like ^C: telnet requests a timing mark, and shows nothing before that is
    // answered.
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

fn send_urgent(client: &Client, byte: &[u8; 1]) {
    let socket = socket2::SockRef::from(&client.stream);
    assert_eq!(socket.send_out_of_band(byte).unwrap(), 1);
}

#[test]
fn an_urgent_byte_stays_in_its_place() {
    let group = Group::alone();
    let mut client = group.connect(1);
    // Telnet sends the data mark after an interrupt as urgent data, so that it is noticed before
    // unread input.
    client.send_bytes(b"PING a\n\xff\xf4\xff");
    send_urgent(&client, b"\xf2");
    client.send("PING b");
    assert_eq!([client.line(), client.line()], ["OK a", "OK b"]);
    // Within a line it is a byte of that line.
    client.send_bytes(b"PING \xff");
    send_urgent(&client, b"\xf2");
    client.send("\nPING c");
    assert!(client.line().starts_with("ERR bad-text "));
    assert_eq!(client.line(), "OK c");
}

#[test]
fn nothing_is_taken_out_of_a_line() {
    let group = Group::alone();
    let mut client = group.client(1, "ann");
    let lines: [&[u8]; 18] = [
        b"PING \xffx\n",
        b"PING x\xff\n",
        b"\xff\r\n",
        b"\xff\xff\n",
        b"\xff\xf2\n",
        b"\xff\xfa\n",
        b"\xff\xfb\r\n",
        b"PING \0\r\n",
        b"SEND ann a\r\0SEND ann b\n",
        b"SEND ann pay 1\xff\xfd00\n",
        b"SEND ann \xff\xfe\n",
        // Windows-1251.
        b"SEND ann \xef\xf0\xee\xe2\xe5\xf0\xff\xfe\n",
        b"SEND ann \xff\xf4\n",
        // A window's size, in the middle of a line.
        b"SEND ann hi\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0 ho\n",
        // UTF-16 with its mark, either way.
        b"\xff\xfeP\0I\0N\0G\0\n",
        b"\0\r\0\n",
        b"\xfe\xff\0P\0I\0N\0G\0\n",
        b"\xff\xfb\x18PING \xff\xf4\n",
    ];
    for line in lines {
        client.send_bytes(line);
        client.send("PING next");
        let answer = client.line();
        assert!(answer.starts_with("ERR bad-text "), "{line:x?}: {answer}");
        assert_eq!(client.line(), "OK next", "{line:x?}: one answer a line");
    }
    assert_eq!(client.ask("SEND ann c"), "OK 1", "nothing was stored");
}

#[test]
fn a_line_that_ends_in_an_option_keeps_its_end() {
    let group = Group::alone();
    let mut client = group.client(1, "bob");
    client.send_bytes(b"SEND bob \xff\xfe\nPASSWD correct-horse battery-staple\n");
    assert!(client.line().starts_with("ERR bad-text "));
    assert_eq!(client.line(), "OK");
    assert_eq!(group.connect(1).ask("LOGIN bob battery-staple"), "OK bob 0");
}
