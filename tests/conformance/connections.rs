//! How connections end, what they carry, and how their first bytes are classified.

use crate::common::DEADLINE;
use crate::scene::{PASSWORD, Scene};
use socket2::SockRef;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_half_closed_connection_gets_all_its_answers_and_then_the_end() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let script = scene.fill("LOGIN @ann correct-horse\nSEND @bob hi\nSEND @bob ho\nLOG\nPING x");
    let mut pipe = scene.stranger();
    pipe.send(&script);
    pipe.end_input();
    assert_eq!(pipe.rest(), [&scene.fill("OK @ann 0"), "OK 1", "OK 2", "OK 0", "OK x"]);
    scene.play("bob < MSG 1 TIME @ann hi\nbob < MSG 2 TIME @ann ho");
}

#[test]
fn a_half_closed_connection_is_shown_its_mailbox() {
    let mut scene = Scene::of(&["ann"]);
    scene.play("ann > SEND @ann hi\nann < OK 1\nann < MSG 1 TIME @ann hi");
    let mut pipe = scene.stranger();
    pipe.send(&scene.fill("LOGIN @ann correct-horse"));
    pipe.end_input();
    let lines = pipe.rest();
    assert!(lines[0].starts_with("MSG 1 ") && lines[1..] == [scene.fill("OK @ann 1")], "{lines:?}");
}

#[test]
fn a_half_closed_connection_with_nothing_to_answer_gets_the_end() {
    let mut scene = Scene::of(&["ann"]);
    let silent = scene.stranger();
    scene.client("ann").end_input();
    silent.end_input();
    assert_eq!(scene.client("ann").rest(), Vec::<String>::new());
    assert_eq!({ silent }.rest(), Vec::<String>::new());
}

#[test]
fn an_unfinished_last_line_is_not_guessed_at() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let table = [scene.fill("SEND @bob hi"), scene.fill("SEND @bob"), "QUIT".to_owned()];
    for unfinished in table.iter().map(String::as_bytes).chain([&b"\xff"[..], b" "]) {
        let mut pipe = scene.stranger();
        pipe.send(&scene.fill("LOGIN @ann correct-horse"));
        pipe.send_bytes(unfinished);
        pipe.end_input();
        let lines = pipe.rest();
        let refused = lines.last().is_some_and(|line| line.starts_with("ERR bad-argument "));
        assert!(refused && lines.len() == 2, "{unfinished:?}: {lines:?}");
    }
    scene.play("bob > LOG\nbob < OK 0");
}

#[test]
fn more_requests_may_be_sent_than_are_answered_at_a_time() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let lines: String = (1..=1000).map(|n| format!("SEND @bob {n}\nPING {n}\nFOO\n")).collect();
    let lines = scene.fill(&lines);
    let mut writer = scene.client("ann").stream.try_clone().expect("a socket");
    let sender = thread::spawn(move || writer.write_all(lines.as_bytes()));
    let ann = scene.client("ann");
    for n in 1..=1000 {
        assert_eq!(ann.line(), format!("OK {n}"));
        assert_eq!(ann.line(), format!("OK {n}"));
        assert!(ann.line().starts_with("ERR bad-command "));
    }
    sender.join().expect("a thread").expect("the server reads");
    for n in 1..=1000 {
        let line = scene.client("bob").line();
        assert!(line.starts_with(&format!("MSG {n} ")) && line.ends_with(&format!(" {n}")));
    }
}

#[test]
fn a_reader_that_is_slow_delays_nobody_and_gets_every_message_in_order() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let text = "x".repeat(1000);
    let lines: String = (1..=10_000).map(|n| format!("SEND @bob {n} {text}\n")).collect();
    let lines = scene.fill(&lines);
    let mut writer = scene.client("ann").stream.try_clone().expect("a socket");
    let sender = thread::spawn(move || writer.write_all(lines.as_bytes()));
    let ann = scene.client("ann");
    (1..=10_000).for_each(|n| assert_eq!(ann.line(), format!("OK {n}")));
    sender.join().expect("a thread").expect("the server reads");
    let from = scene.name("ann");
    for n in 1..=10_000 {
        let line = scene.client("bob").line();
        let starts = line.starts_with(&format!("MSG {n} "));
        assert!(starts && line.ends_with(&format!(" {from} {n} {text}")), "{n}: {line}");
    }
}

#[test]
fn a_long_answer_does_not_hold_up_others() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let name = scene.name("ann");
    let text = "x".repeat(3000);
    for n in 1..=50 {
        let line = format!("SEND {name} {text}");
        assert_eq!(scene.client("bob").ask(&line), format!("OK {n}"));
    }
    let logs = "LOG\n".repeat(200);
    let mut slow = scene.client("ann").stream.try_clone().expect("a socket");
    let sender = thread::spawn(move || slow.write_all(logs.as_bytes()));
    scene.client("bob").send("PING x");
    assert_eq!(scene.client("bob").line(), "OK x");
    let ann = scene.client("ann");
    (0..200).for_each(|_| assert_eq!(ann.answer(), "OK 50"));
    sender.join().expect("a thread").expect("the server reads");
}

/// Waits until a user is listed as offline.
fn wait_offline(scene: &mut Scene, watcher: &str, who: &str) {
    let list = format!("LIST {}", scene.name(who));
    let offline = format!("USER {} offline", scene.name(who));
    let end = Instant::now() + DEADLINE;
    loop {
        let client = scene.client(watcher);
        client.send(&list);
        let line = client.line();
        assert_eq!(client.line(), "OK 1");
        if line == offline {
            return;
        }
        assert!(Instant::now() < end, "{line}");
    }
}

#[test]
fn a_session_ends_when_its_client_is_gone() {
    let mut scene = Scene::of(&["ann", "bob"]);
    for reset in [false, true] {
        let mut phone = scene.stranger();
        let answer = phone.ask(&scene.fill("LOGIN @bob correct-horse end"));
        assert!(answer.starts_with("OK "), "{answer}");
        scene.play(
            "ann > LIST @bob
             ann < USER @bob online
             ann < OK 1",
        );
        scene.client("bob").ask("LOGOUT");
        if reset {
            SockRef::from(&phone.stream).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
        drop(phone);
        wait_offline(&mut scene, "ann", "bob");
        scene.play("bob > LOGIN @bob correct-horse\nbob < OK @bob 0");
    }
}

#[test]
fn what_a_vanished_client_had_asked_for_is_carried_out() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let send = scene.fill("SEND @bob my last words");
    let name = scene.name("ann");
    scene.client("ann").send(&send);
    scene.play("ann < OK 1\nbob < MSG 1 TIME @ann my last words");
    let mut gone = scene.stranger();
    assert_eq!(gone.ask(&format!("LOGIN {name} {PASSWORD}")), format!("OK {name} 0"));
    gone.send(&send);
    drop(gone);
    scene.play("bob < MSG 2 TIME @ann my last words");
}

#[test]
fn any_first_byte_but_0_begins_a_text_client() {
    let scene = Scene::of(&[]);
    for byte in 1..=255 {
        let mut client = scene.stranger();
        client.send_bytes(&[byte, b'\n']);
        client.send("PING x");
        client.end_input();
        let lines = client.rest();
        let (last, before) = lines.split_last().expect("an answer");
        let refused = before.iter().all(|line| line.starts_with("ERR bad-"));
        assert!(last == "OK x" && refused && lines.len() <= 2, "{byte}: {lines:?}");
    }
}

#[test]
fn a_first_byte_of_0_begins_no_text_client() {
    let scene = Scene::of(&[]);
    let mut client = scene.stranger();
    client.send_bytes(b"\0\nPING x\nPING y\n");
    client.end_input();
    let mut bytes = Vec::new();
    // A connection that is closed with unread input ends in a reset.
    let _ = std::io::Read::read_to_end(&mut client.stream, &mut bytes);
    let said = String::from_utf8_lossy(&bytes);
    assert!(!said.contains("OK") && !said.contains("ERR"), "{said}");
}

#[test]
fn servers_and_clients_may_be_silent_and_mixed() {
    let mut scene = Scene::of(&["ann"]);
    let silent: Vec<_> = (0..20).map(|_| scene.stranger()).collect();
    scene.play("ann > PING x\nann < OK x");
    for mut client in silent {
        assert_eq!(client.ask("PING late"), "OK late");
    }
}
