//! A reader that does not read costs little memory and delays nobody, and loses nothing.

mod common;

use common::{Client, Group};

#[test]
fn a_slow_reader_costs_little_and_delays_nobody() {
    let group = Group::alone();
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
