//! A client that does not read costs little memory, delays nobody, and loses nothing. It keeps
//! its connection only while it is logged in and may still send requests.

mod common;

use common::{Client, Group, connect_small, wait_full};
use std::io::Write;
use std::net::Shutdown;

#[test]
fn a_slow_reader_costs_little_and_delays_nobody() {
    let group = Group::alone();
    let mut ann = group.client(1, "ann");
    group.client(1, "bob");
    // More than the kernel's buffers of both sides hold, 10 MB at most.
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
    // When it reads, it gets every message once and in order.
    for n in 1..=count {
        assert!(slow.line().starts_with(&format!("MSG {n} ")), "message {n}");
    }
}

#[test]
fn only_a_logged_in_reader_may_sleep() {
    let mut group = Group::new(1);
    let config = std::fs::read_to_string(group.config()).unwrap();
    let config = config.replace("# login_timeout_s = 60 ", "login_timeout_s = 1 #");
    std::fs::write(group.config(), config).unwrap();
    group.start(1);
    group.wait_members(1);
    drop(group.client(1, "bob"));
    group.fill(1, "bob", 3000);
    let server = &group.servers[0];
    let say = |bytes: &[u8]| {
        let mut stream = connect_small(server);
        stream.write_all(bytes).unwrap();
        stream
    };
    let login = b"LOGIN bob correct-horse\n";
    let sleeper = say(b"LOGIN bob correct-horse end\nLOG 0\n");
    // The client's input ends before the answer, or in the middle of it.
    let before = say(login);
    before.shutdown(Shutdown::Write).unwrap();
    let within = say(login);
    let logged_in = say(b"LOGIN bob correct-horse end\nLOG 0\n");
    let stopped = say(login);
    let help = say(&b"HELP\n".repeat(5000));
    for stream in [&sleeper, &before, &within, &logged_in, &stopped, &help] {
        wait_full(stream);
    }
    for stream in [&within, &logged_in] {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    // Only the connection of this request and `sleeper` remain.
    group.wait(1, "all others are closed", |status| status["connections"] == "2");
    assert_eq!(group.status(1).unwrap()["sessions"], "1");
}
