//! A message sent with ONCE is stored once, however often and to whichever server it is sent
//! again: after a failover, after a restart of all servers, and while other requests are pending.

mod common;

use common::Group;

#[test]
fn a_repeat_gives_the_first_answer_again() {
    let mut group = Group::open();
    let first = group.wait_members(3);
    let mut ann = group.client(first, "ann");
    assert_eq!(ann.ask("ONCE k1 ann hello"), "OK 1");
    assert_eq!(ann.ask("ONCE k1 ann hello"), "OK 1");
    assert_eq!(ann.ask("SEND ann hello"), "OK 2", "a SEND is another message");
    assert_eq!(ann.ask("ONCE k2 ann hello"), "OK 3", "as is another key");
    assert!(ann.ask("ONCE k1 ann other").starts_with("ERR key-reused "));
    assert!(ann.ask("ONCE k1 nobody hello").starts_with("ERR key-reused "));
    assert!(ann.ask("ONCE k3 nobody hello").starts_with("ERR no-such-user "));
    assert_eq!(ann.ask("ONCE k3 ann hello"), "OK 4", "a refusal uses no key up");
    // These are pipelined: none waits for the previous answer.
    ann.send("ONCE k4 ann five\nONCE k4 ann five\nONCE k4 ann six\nPING end");
    let answers: Vec<String> = (0..4).map(|_| ann.answer()).collect();
    assert_eq!(answers[..2], ["OK 5", "OK 5"]);
    assert!(answers[2].starts_with("ERR key-reused ") && answers[3] == "OK end", "{answers:?}");

    group.kill(first);
    let second = group.wait_members(2);
    let mut ann = group.client(second, "ann");
    assert_eq!(ann.ask("ONCE k1 ann hello"), "OK 1");
    assert_eq!(ann.ask("ONCE k5 ann six"), "OK 6");
    group.start(first);
    group.wait_members(3);

    group.kill_all();
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    assert_eq!(ann.ask("ONCE k5 ann six"), "OK 6");
    assert_eq!(group.mailbox(primary, "ann").len(), 6);
}
