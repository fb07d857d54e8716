//! What a client has sent.

use crate::scene::{PASSWORD, Scene};

#[test]
fn sent_messages_have_two_numbers() {
    Scene::of(&["ann", "bob", "cyd"]).play(
        "ann > SENT
         ann < OK 0
         cyd > SEND @bob before
         cyd < OK 1
         bob < MSG 1 TIME @cyd before
         ann > SEND @bob one
         ann < OK 2
         bob < MSG 2 TIME @ann one
         ann > SEND @cyd two
         ann < OK 1
         cyd < MSG 1 TIME @ann two
         ann > ONCE k @bob three
         ann < OK 3
         bob < MSG 3 TIME @ann three
         ann > ONCE k @bob three
         ann < OK 3
         ann > SEND @nobody four
         ann < ERR no-such-user ...
         ann > SENT
         ann < SENT 1 2 TIME @bob one
         ann < SENT 2 1 TIME @cyd two
         ann < SENT 3 3 TIME @bob three
         ann < OK 3
         cyd > SENT
         cyd < SENT 1 1 TIME @bob before
         cyd < OK 1
         bob > SENT
         bob < OK 0",
    );
}

#[test]
fn a_part_of_what_was_sent_can_be_asked_for() {
    let mut scene = Scene::of(&["ann", "bob"]);
    for n in 1..=5 {
        scene.play(&format!("ann > SEND @bob {n}\nann < OK {n}\nbob < MSG {n} TIME @ann {n}"));
    }
    scene.play(
        "ann > SENT 3
         ann < SENT 4 4 TIME @bob 4
         ann < SENT 5 5 TIME @bob 5
         ann < OK 5
         ann > SENT 1 2
         ann < SENT 2 2 TIME @bob 2
         ann < SENT 3 3 TIME @bob 3
         ann < OK 3
         ann > SENT -1
         ann < SENT 5 5 TIME @bob 5
         ann < OK 5
         ann > SENT end
         ann < OK 5
         ann > SENT 2 0
         ann < OK 2",
    );
    scene.refused("ann", "bad-argument", &["SENT 6", "SENT x", "SENT 1 x", "SENT 1 2 3"]);
}

#[test]
fn a_message_to_oneself_is_in_both_lists() {
    Scene::of(&["ann"]).play(
        "ann > SEND @ann note
         ann < OK 1
         ann < MSG 1 TIME @ann note
         ann > SENT
         ann < SENT 1 1 TIME @ann note
         ann < OK 1",
    );
}

#[test]
fn sent_messages_have_lines_and_attributes() {
    Scene::of(&["ann", "bob"]).play(
        "ann > WITH title Menu
         ann < OK
         ann > SEND @bob soup␤rice
         ann < OK 1
         bob < MSG 1 TIME @ann Menu: soup␤rice
         ann > SENT
         ann < SENT 1 1 TIME @bob Menu: soup␤rice
         ann < OK 1
         ann > ATTR on
         ann < OK
         ann > SENT
         ann < ATTR 1 title Menu
         ann < SENT 1 1 TIME @bob soup␤rice
         ann < OK 1",
    );
}

/// The numbers of sent messages never change. Those whose receiver is gone are named in rows.
#[test]
fn what_went_to_a_deleted_account_is_gone_and_keeps_its_number() {
    let mut scene = Scene::of(&["ann", "bob", "cyd"]);
    for (n, to) in [(1, "bob"), (1, "cyd"), (2, "cyd"), (2, "bob"), (3, "cyd")] {
        scene.play(&format!("ann > SEND @{to} {n}\nann < OK {n}\n{to} < MSG {n} TIME @ann {n}"));
    }
    scene.play(&format!(
        "cyd > DELETE @cyd {PASSWORD}
         cyd < OK
         cyd end
         ann > SENT
         ann < SENT 1 1 TIME @bob 1
         ann < GONE 2 3
         ann < SENT 4 2 TIME @bob 2
         ann < GONE 5 5
         ann < OK 5
         ann > SENT 1 1
         ann < GONE 2 2
         ann < OK 2
         cyd > CREATE @cyd {PASSWORD}
         cyd < OK @cyd
         ann > SEND @cyd new
         ann < OK 1
         ann > SENT 3
         ann < SENT 4 2 TIME @bob 2
         ann < GONE 5 5
         ann < SENT 6 1 TIME @cyd new
         ann < OK 6
         cyd > LOGIN @cyd {PASSWORD}
         cyd < MSG 1 TIME @ann new
         cyd < OK @cyd 1"
    ));
}

#[test]
fn a_new_account_has_sent_nothing() {
    Scene::of(&["ann", "bob"]).play(&format!(
        "ann > SEND @bob old
         ann < OK 1
         bob < MSG 1 TIME @ann old
         ann > DELETE @ann {PASSWORD}
         ann < OK
         ann end
         ann > CREATE @ann {PASSWORD}
         ann < OK @ann
         ann > LOGIN @ann {PASSWORD}
         ann < OK @ann 0
         ann > SENT
         ann < OK 0
         ann > SEND @bob new
         ann < OK 2
         bob < MSG 2 TIME @ann new
         ann > SENT
         ann < SENT 1 2 TIME @bob new
         ann < OK 1"
    ));
}

/// A long row of messages that are gone takes many turns, and each of them must begin the next.
#[test]
fn a_long_list_is_shown_to_its_end() {
    let mut scene = Scene::of(&["ann", "bob", "cyd"]);
    let send = |scene: &mut Scene, to: &str, count: usize| {
        let lines = scene.fill(&format!("SEND @{to} hi\n")).repeat(count);
        let ann = scene.client("ann");
        ann.send_bytes(lines.as_bytes());
        (0..count).for_each(|_| assert!(ann.line().starts_with("OK ")));
    };
    send(&mut scene, "bob", 1500);
    send(&mut scene, "cyd", 3000);
    send(&mut scene, "bob", 10);
    let name = scene.name("cyd");
    // Its pushes are discarded with the connection.
    scene.client("cyd").send(&format!("DELETE {name} {PASSWORD}"));
    let cyd = scene.client("cyd");
    while cyd.line() != "OK" {}
    let ann = scene.client("ann");
    ann.send("SENT");
    let mut next = 1;
    loop {
        let line = ann.line();
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "SENT" => {
                assert_eq!(number(1), next);
                next += 1;
            }
            "GONE" => {
                assert_eq!(number(1), next);
                next = number(2) + 1;
            }
            _ => {
                assert_eq!(line, "OK 4510");
                break;
            }
        }
    }
    assert_eq!(next, 4511);
}
