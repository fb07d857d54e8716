//! The form of lines, requests and answers.

use crate::common::Client;
use crate::scene::{PASSWORD, Scene};
use std::thread;

#[test]
fn a_newcomers_first_conversation_goes_as_shown() {
    Scene::of(&["bob"]).play(
        "ann > CREATE @ann correct-horse
         ann < OK @ann
         ann > LOGIN @ann correct-horse
         ann < OK @ann 0
         ann > SEND @bob lunch at noon?
         ann < OK 1
         bob < MSG 1 TIME @ann lunch at noon?
         bob > SEND @ann fine, at the gate
         bob < OK 1
         ann < MSG 1 TIME @bob fine, at the gate",
    );
}

#[test]
fn a_server_waits_for_the_first_bytes() {
    Scene::of(&[]).play(
        "ann > PING no greeting comes before this
         ann < OK no greeting comes before this",
    );
}

#[test]
fn a_carriage_return_before_the_line_end_is_dropped() {
    Scene::of(&["ann"]).play(
        "ann > PING x\r
         ann < OK x
         ann > LOG\r
         ann < OK 0",
    );
}

#[test]
fn a_line_may_have_4096_bytes_with_its_end() {
    let mut scene = Scene::of(&[]);
    for (bytes, end) in [(4096, "\n"), (4096, "\r\n"), (4095, "\n"), (4095, "\r\n")] {
        let text = "x".repeat(bytes - "PING ".len() - end.len());
        scene.client("ann").send_bytes(format!("PING {text}{end}").as_bytes());
        assert_eq!(scene.client("ann").line(), format!("OK {text}"), "{bytes} with {end:?}");
    }
}

#[test]
fn a_longer_line_is_thrown_away_and_the_next_one_is_read() {
    let mut scene = Scene::of(&[]);
    for (bytes, end) in [(4097, "\n"), (4097, "\r\n"), (4098, "\n"), (9000, "\n"), (1 << 20, "\n")]
    {
        let text = "x".repeat(bytes - "PING ".len() - end.len());
        scene.client("ann").send_bytes(format!("PING {text}{end}").as_bytes());
        scene.play("ann < ERR too-long ...");
    }
}

#[test]
fn the_longest_message_fits_in_a_line() {
    let mut scene = Scene::of(&["ann"]);
    let longest = format!("{:x<32}", scene.name("zoe"));
    let (name, text) = (scene.name("ann"), "ü".repeat(1920));
    let zoe = scene.client("zoe");
    assert_eq!(zoe.ask(&format!("CREATE {longest} {PASSWORD}")), format!("OK {longest}"));
    assert_eq!(zoe.ask(&format!("LOGIN {longest} {PASSWORD}")), format!("OK {longest} 0"));
    assert_eq!(zoe.ask(&format!("ONCE {} {name} {text}", "k".repeat(64))), "OK 1");
    let line = scene.client("ann").line();
    assert!(line.ends_with(&format!(" {longest} {text}")) && line.len() < 4096, "{line}");
    assert_eq!(scene.client("zoe").ask(&format!("DELETE {longest} {PASSWORD}")), "OK");
}

#[test]
fn commands_are_case_insensitive() {
    Scene::of(&[]).play(
        "ann > create @ann correct-horse
         ann < OK @ann
         ann > LogIn @ann correct-horse
         ann < OK @ann 0
         ann > pinG X
         ann < OK X",
    );
}

#[test]
fn arguments_are_separated_by_one_or_more_spaces() {
    Scene::of(&[]).play(
        "ann > CREATE   @ann  correct-horse
         ann < OK @ann
         ann > LOGIN  @ann    correct-horse   0
         ann < OK @ann 0
         ann > LOG    0     7
         ann < OK 0",
    );
}

#[test]
fn a_text_is_the_rest_of_the_line_after_exactly_one_space() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let bob = scene.name("bob");
    let tab = "\t a  b\t ";
    for (n, text) in ["a  b", " a", "  a", "a ", " ", "  ", tab].into_iter().enumerate() {
        let ann = scene.client("ann");
        assert_eq!(ann.ask(&format!("SEND   {bob} {text}")), format!("OK {}", 2 * n + 1));
        assert_eq!(ann.ask(&format!("ONCE k{n}  {bob} {text}")), format!("OK {}", 2 * n + 2));
        let from = format!(" {} {text}", scene.name("ann"));
        for _ in ["SEND", "ONCE"] {
            let line = scene.client("bob").line();
            assert!(line.ends_with(&from), "{line:?} does not end in {from:?}");
        }
    }
}

#[test]
fn the_text_of_a_ping_comes_back_as_typed() {
    let mut scene = Scene::of(&[]);
    for text in ["a  b", " a", "  a", "a\t", "a ", "a  ", "  "] {
        let ann = scene.client("ann");
        ann.send(&format!("PING {text}"));
        assert_eq!(ann.line(), format!("OK {text}"));
    }
}

#[test]
fn an_empty_line_is_ignored() {
    Scene::of(&["ann"]).play(
        "ann >
         ann > \r
         ann >
         ann > PING x
         ann < OK x",
    );
}

#[test]
fn text_is_utf_8() {
    Scene::of(&["ann", "bob"]).play(
        "ann > SEND @bob żółw, 海, 🐢
         ann < OK 1
         bob < MSG 1 TIME @ann żółw, 海, 🐢
         bob > PING żółw, 海, 🐢
         bob < OK żółw, 海, 🐢",
    );
}

#[test]
fn each_request_gets_one_last_line_in_order() {
    Scene::of(&["ann", "bob"]).play(
        "ann > SEND @bob one
         ann > FOO
         ann > LOG
         ann > SEND @nobody two
         ann > PING
         ann > LIST @ann
         ann > SEND @bob
         ann > SEND @bob three
         ann > LOGOUT
         ann > LOGOUT
         ann < OK 1
         ann < ERR bad-command ...
         ann < OK 0
         ann < ERR no-such-user ...
         ann < OK
         ann < USER @ann online
         ann < OK 1
         ann < ERR bad-argument ...
         ann < OK 2
         ann < OK
         ann < ERR not-logged-in ...
         bob < MSG 1 TIME @ann one
         bob < MSG 2 TIME @ann three",
    );
}

#[test]
fn an_ok_comes_before_the_message_that_it_caused() {
    let mut scene = Scene::of(&["ann"]);
    let lines = scene.fill(&"SEND @ann hi\n".repeat(100));
    let ann = scene.client("ann");
    ann.send_bytes(lines.as_bytes());
    let (mut answered, mut pushed) = (0, 0);
    while pushed < 100 {
        let line = ann.line();
        if line.starts_with("MSG ") {
            pushed += 1;
            assert!(line.starts_with(&format!("MSG {pushed} ")), "{line}");
        } else {
            answered += 1;
            assert_eq!(line, format!("OK {answered}"));
        }
        assert!(answered >= pushed, "message {pushed} came before its OK");
    }
}

/// A message that was sent before the request was typed arrives before its answer. No message
/// arrives within the answer.
#[test]
fn nothing_is_pushed_into_the_answer_to_log() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let sends = scene.fill(&"SEND @ann hi\n".repeat(40));
    let mut bob = scene.client("bob").stream.try_clone().expect("a socket");
    let ann = scene.client("ann");
    let sender = thread::spawn(move || {
        (0..50).try_for_each(|_| std::io::Write::write_all(&mut bob, sends.as_bytes()))
    });
    let mut pushed = 0;
    while pushed < 2000 {
        ann.send("LOG");
        let mut lines = Vec::new();
        let last: usize = loop {
            let line = ann.line();
            match line.strip_prefix("OK ") {
                Some(last) => break last.parse().expect("a number"),
                None => lines.push(line),
            }
        };
        let answer = lines.split_off(lines.len() - last);
        for (n, line) in (1..).zip(&answer) {
            assert!(line.starts_with(&format!("MSG {n} ")), "{line} is not message {n}");
        }
        for line in lines {
            pushed += 1;
            assert!(line.starts_with(&format!("MSG {pushed} ")), "{line} is pushed");
        }
        if last == 2000 {
            while pushed < 2000 {
                pushed += 1;
                assert!(ann.line().starts_with(&format!("MSG {pushed} ")));
            }
        }
    }
    sender.join().expect("bob").expect("the server reads");
    (1..=2000).for_each(|n| assert_eq!(scene.client("bob").line(), format!("OK {n}")));
}

/// Ann sends messages to herself and requests her mailbox, all at once. After the last answer to
/// the sending, only the mailbox arrives.
#[test]
fn nothing_is_pushed_before_the_answer_to_log() {
    let messages = 20;
    let mut scene = Scene::of(&["ann"]);
    let lines = scene.fill(&"SEND @ann hi\n".repeat(messages)) + "LOG\n";
    let ann = scene.client("ann");
    ann.send_bytes(lines.as_bytes());
    (1..=messages).for_each(|n| assert_eq!(ann.answer(), format!("OK {n}")));
    for n in 1..=messages {
        assert!(ann.line().starts_with(&format!("MSG {n} ")));
    }
    assert_eq!(ann.line(), format!("OK {messages}"));
}

#[test]
fn of_two_that_create_one_name_one_is_refused() {
    let mut scene = Scene::of(&[]);
    scene.play(
        "ann > CREATE @ann correct-horse
         ann > CREATE @ann correct-horse
         ann < OK @ann
         ann < ERR exists ...",
    );
    let bob = scene.name("bob");
    let line = format!("CREATE {bob} {PASSWORD}");
    let mut clients = [scene.stranger(), scene.stranger(), scene.stranger()];
    clients.iter_mut().for_each(|client| client.send(&line));
    let answers = clients.each_mut().map(Client::line);
    assert_eq!(answers.iter().filter(|line| **line == format!("OK {bob}")).count(), 1);
    assert_eq!(answers.iter().filter(|line| line.starts_with("ERR exists ")).count(), 2);
}

#[test]
fn what_was_refused_stored_nothing() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let long = format!("SEND @bob {}", "x".repeat(3841));
    scene.refused("ann", "too-long", &[&long, &"x".repeat(5000)]);
    scene.refused("ann", "bad-text", &["SEND @bob a\u{7f}", "ONCE k @bob \u{2028}"]);
    scene.refused("ann", "bad-argument", &["SEND @bob", "SEND @bob ", "ONCE ü @bob hi"]);
    scene.refused("ann", "bad-argument", &["CREATE @cyd short", "CREATE @cyd correct horse"]);
    scene.refused("ann", "no-such-user", &["SEND @cyd hi"]);
    scene.play(
        "bob > LOG
         bob < OK 0
         bob > LIST @cyd
         bob < OK 0",
    );
}
