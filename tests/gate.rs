//! Clients can use only HELP, PING, STATUS and QUIT until all three servers have been members
//! once.

mod common;

use common::{Client, Group};

fn only_the_four_work(client: &mut Client) {
    assert_eq!(client.ask("PING are you there"), "OK are you there");
    assert_eq!(client.ask("HELP"), "OK");
    assert_eq!(client.ask("STATUS"), "OK");
    for request in ["CREATE ann correct-horse", "LOGIN ann correct-horse", "SEND ann hi", "LOG"] {
        let answer = client.ask(request);
        assert!(answer.starts_with("ERR not-ready "), "{request}: {answer}");
        assert!(answer.contains("server 3"), "the missing one is named: {answer}");
    }
}

#[test]
fn two_servers_let_nobody_in() {
    let mut group = Group::new(3);
    group.start(1);
    let mut early = group.connect(1);
    assert!(early.ask("CREATE ann correct-horse").starts_with("ERR not-ready"));
    group.start(2);
    for n in [1, 2] {
        group.wait(n, "server 3 alone is missing", |status| {
            let waiting = &status["waiting"];
            waiting.contains("server 3")
                && !waiting.contains(if n == 1 { "server 2" } else { "server 1" })
        });
        only_the_four_work(&mut group.connect(n));
    }
    group.start(3);
    let primary = group.wait_members(3);
    // The client that connected first can log in on its existing connection.
    if primary == 1 {
        assert_eq!(early.ask("CREATE ann correct-horse"), "OK ann");
    }
    assert_eq!(early.ask("QUIT"), "OK bye");
    assert_eq!(early.rest(), Vec::<String>::new());
}

#[test]
fn the_gate_stays_open() {
    let mut group = Group::open();
    group.kill(3);
    let primary = group.wait_members(2);
    let mut ann = group.client(primary, "ann");
    assert_eq!(ann.ask("SEND ann still open"), "OK 1");
    let backup = (1..=2).find(|n| *n != primary).unwrap();
    let answer = group.connect(backup).ask("CREATE bob correct-horse");
    let expected = format!("ERR not-primary {} ", group.servers[primary - 1]);
    assert!(answer.starts_with(&expected), "{answer}");
}
