//! When a client ends its input, all its requests are answered, then the connection ends.
//! Requests that arrive in one piece are answered one by one, in order.

mod common;

use common::Group;

#[test]
fn half_close_gets_all_answers_and_then_the_end() {
    let group = Group::alone();
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
    let group = Group::alone();
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
