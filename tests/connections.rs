//! What a connection may rely on: half-close, slow reading without harm to others, resets in the
//! middle of a request, long lines, and nonsense.

mod common;

use common::{Client, Group};
use socket2::SockRef;
use std::io::Read;
use std::time::Duration;

fn alone() -> Group {
    let mut group = Group::new(1);
    group.start(1);
    group.wait_members(1);
    group
}

#[test]
fn half_close_gets_all_answers_and_then_the_end() {
    let group = alone();
    group.client(1, "bob");
    let mut ann = group.connect(1);
    ann.send("CREATE ann correct-horse\nLOGIN ann correct-horse\nSEND bob hi\nSEND bob ho\nPING x");
    ann.end_input();
    assert_eq!(ann.rest(), ["OK ann", "OK ann 0", "OK 1", "OK 2", "OK x"]);
    let mut ann = group.connect(1);
    ann.send_bytes(b"PING a\nPING b");
    ann.end_input();
    let lines = ann.rest();
    assert_eq!(lines[0], "OK a");
    assert!(lines[1].starts_with("ERR bad-argument") && lines.len() == 2, "{lines:?}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let group = alone();
    let mut ann = group.client(1, "ann");
    let lines: String = (1..=2000).map(|n| format!("SEND ann {n}\nPING {n}\nFOO\n")).collect();
    let mut writer = ann.stream.try_clone().unwrap();
    let sender =
        std::thread::spawn(move || std::io::Write::write_all(&mut writer, lines.as_bytes()));
    for n in 1..=2000 {
        assert_eq!(ann.answer(), format!("OK {n}"));
        assert_eq!(ann.answer(), format!("OK {n}"));
        assert!(ann.answer().starts_with("ERR bad-command"));
    }
    sender.join().unwrap().unwrap();
}

#[test]
fn a_slow_reader_costs_little_and_delays_nobody() {
    let group = alone();
    let mut ann = group.client(1, "ann");
    group.client(1, "bob");
    // More than the kernel's buffers of both sides take, 10 MB at most.
    let mut slow = Client::try_connect(&group.servers[0]).unwrap();
    assert_eq!(slow.ask("LOGIN bob correct-horse end"), "OK bob 0");
    let text = "x".repeat(3000);
    let before: u64 = group.status(1).unwrap()["memory_bytes"].parse().unwrap();
    let count = 5000;
    for n in 1..=count {
        ann.send(&format!("SEND bob {text}"));
        if n % 50 == 0 {
            for m in n - 49..=n {
                assert_eq!(ann.answer(), format!("OK {m}"));
            }
        }
    }
    let after: u64 = group.status(1).unwrap()["memory_bytes"].parse().unwrap();
    assert!(after < before + 4 * 1024 * 1024, "15 MB sent: {before} to {after} bytes");
    // And when it reads, it gets every message once and in order.
    for n in 1..=count {
        assert!(slow.line().starts_with(&format!("MSG {n} ")), "message {n}");
    }
}

#[test]
fn a_reset_in_the_middle_of_a_request_harms_nobody() {
    let group = alone();
    let mut bob = group.client(1, "bob");
    for (n, part) in ["SEND bob never fin", "SEND bob taken\nSEND bob par", "LOG\nLOG\nLO", ""]
        .into_iter()
        .enumerate()
    {
        let mut ann = group.client(1, "ann");
        ann.send_bytes(part.as_bytes());
        let socket = SockRef::from(&ann.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        drop(ann);
        group.wait(1, "its session is gone", |status| status["sessions"] == "1");
        assert_eq!(bob.ask(&format!("PING {n}")), format!("OK {n}"));
    }
    let texts = group.mailbox(1, "bob");
    assert!(texts.is_empty() || texts == ["taken"], "{texts:?}");
}

#[test]
fn long_lines_are_thrown_away_as_they_come() {
    let group = alone();
    let mut client = group.connect(1);
    client.send(&"x".repeat(10_000_000));
    assert!(client.answer().starts_with("ERR too-long"));
    assert_eq!(client.ask("PING after"), "OK after");
    client.send(&format!("PING {}", "y".repeat(4096 - 6)));
    assert_eq!(client.answer().len(), 4096 - 6 + 3);
    let memory: u64 = group.status(1).unwrap()["memory_bytes"].parse().unwrap();
    assert!(memory < 32 * 1024 * 1024, "{memory} bytes");
}

#[test]
fn nonsense_as_the_first_bytes_is_answered_or_closed() {
    let group = Group::open();
    let primary = group.wait_members(3);
    let text = [&b"\xff\xfe\n"[..], b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\n", b"\x01\n"];
    for bytes in text {
        let mut client = group.connect(primary);
        client.send_bytes(bytes);
        assert!(client.line().starts_with("ERR "), "{bytes:?}");
    }
    // What begins like a server and goes on like nothing is closed.
    let links = [&b"\0\xff\xff\xff\xff"[..], b"\0\x02\0\0\0\xff\xff", b"\0\0\0\0\0", b"\0"];
    for bytes in links {
        let mut client = group.connect(primary);
        client.send_bytes(bytes);
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest);
    }
    assert_eq!(group.wait_members(3), primary, "the others are unharmed");
}
