//! Endless lines are discarded as they arrive, and nonsense as the first bytes of a connection is
//! answered or closed. The servers are unharmed.

mod common;

use common::Group;
use std::io::Read;

#[test]
fn long_lines_are_thrown_away_as_they_come() {
    let group = Group::alone();
    let mut client = group.connect(1);
    client.send(&"x".repeat(10_000_000));
    assert!(client.answer().starts_with("ERR too-long"));
    assert_eq!(client.ask("PING after"), "OK after");
    // The answers keep the order of the requests.
    client.send(&format!("CREATE ann correct-horse\n{}\nPING end", "x".repeat(5000)));
    assert_eq!(client.answer(), "OK ann");
    assert!(client.answer().starts_with("ERR too-long"));
    assert_eq!(client.answer(), "OK end");
    client.send(&format!("PING {}", "y".repeat(4096 - 6)));
    assert_eq!(client.answer().len(), 4096 - 6 + 3);
    let memory: u64 = group.status(1).unwrap()["memory_bytes"].parse().unwrap();
    assert!(memory < 32 * 1024 * 1024, "{memory} bytes");
}

#[test]
fn nonsense_as_the_first_bytes_is_answered_or_closed() {
    let group = Group::open();
    let primary = group.wait_members(3);
    let text = [&b"\xff\xfeP\0\n\0"[..], b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\n", b"\x01\n"];
    for bytes in text {
        let mut client = group.connect(primary);
        client.send_bytes(bytes);
        assert!(client.line().starts_with("ERR "), "{bytes:?}");
    }
    // A connection that begins like a server's and continues with nonsense is closed.
    let links = [&b"\0\xff\xff\xff\xff"[..], b"\0\x02\0\0\0\xff\xff", b"\0\0\0\0\0", b"\0"];
    for bytes in links {
        let mut client = group.connect(primary);
        client.send_bytes(bytes);
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest);
    }
    assert_eq!(group.wait_members(3), primary, "the others are unharmed");
}
