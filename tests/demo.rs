//! The demo shows a failover to a new user. Its servers end with it, however it ends.

mod common;

use common::DEADLINE;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

struct Demo {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    port: u16,
}

impl Demo {
    /// Starts the demo. `test` distinguishes the tests of this file, which run in parallel.
    fn start(test: u16) -> Demo {
        // Three consecutive free ports, below those of outgoing connections.
        let free =
            |port: &u16| (0..3).all(|n| TcpStream::connect(("127.0.0.1", port + n)).is_err());
        let first = 10_000 + (std::process::id() % 1_000) as u16 * 20 + test * 10;
        let port = (0..50).map(|n| first + n * 30).find(free).expect("free ports");
        let mut command = common::postern();
        command.args(["demo", "--port", &port.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Demo { child, stdin, lines, port }
    }

    fn wait(&self, what: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line: {what}"));
            if line.contains(what) {
                return line;
            }
        }
    }

    fn wait_all_gone(&self) {
        let listens = |n| TcpStream::connect(("127.0.0.1", self.port + n)).is_ok();
        let gone = || (!(0..3).any(listens)).then_some(());
        common::wait_for(gone, || "a server outlives the demo".to_owned());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn a_newcomer_sees_a_failover() {
    let mut demo = Demo::start(0);
    let line = demo.wait("is the primary. In another terminal:  nc ");
    let first: u16 = line.split(' ').nth(1).unwrap().parse().unwrap();
    let port: u16 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(port, demo.port + first - 1);
    writeln!(demo.stdin, "kill {first}").unwrap();
    let line = demo.wait("took over after ");
    let second: u16 = line.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(second != first && line.ends_with(" ms."), "{line}");
    demo.wait("is the primary");
    // The remaining backup of two waits for the killed primary.
    writeln!(demo.stdin, "kill {second}").unwrap();
    demo.wait(&format!("Type:  start {second}"));
    writeln!(demo.stdin, "start {second}").unwrap();
    demo.wait("is the primary");
    writeln!(demo.stdin, "start {first}\nquit").unwrap();
    demo.wait("Stopping");
    assert!(demo.child.wait().unwrap().success());
    demo.wait_all_gone();
}

#[test]
fn the_servers_end_with_a_demo_that_is_killed() {
    let mut demo = Demo::start(1);
    demo.wait("is the primary");
    demo.child.kill().and_then(|()| demo.child.wait()).unwrap();
    demo.wait_all_gone();
}
