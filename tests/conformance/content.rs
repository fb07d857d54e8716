//! Line breaks and attributes of messages.

use crate::scene::Scene;

#[test]
fn the_symbol_for_newline_is_a_line_break() {
    Scene::of(&["ann", "bob"]).play(
        "ann > SEND @bob one␤two␤
         ann < OK 1
         bob < MSG 1 TIME @ann one␤two␤
         ann > ONCE k @bob ␤
         ann < OK 2
         bob < MSG 2 TIME @ann ␤
         bob > LOG
         bob < MSG 1 TIME @ann one␤two␤
         bob < MSG 2 TIME @ann ␤
         bob < OK 2",
    );
}

#[test]
fn a_line_break_counts_as_three_bytes() {
    let mut scene = Scene::of(&["ann"]);
    let (longest, longer) = ("␤".repeat(1280), "␤".repeat(1281));
    scene.play(&format!(
        "ann > SEND @ann {longest}
         ann < OK 1
         ann < MSG 1 TIME @ann {longest}"
    ));
    scene.refused("ann", "too-long", &[&format!("SEND @ann {longer}")]);
}

#[test]
fn a_title_is_shown_before_the_text() {
    Scene::of(&["ann", "bob"]).play(
        "ann > WITH title Disk full
         ann < OK
         ann > SEND @bob on lab1
         ann < OK 1
         bob < MSG 1 TIME @ann Disk full: on lab1
         ann > SEND @bob without one
         ann < OK 2
         bob < MSG 2 TIME @ann without one",
    );
}

#[test]
fn attributes_have_lines_of_their_own_for_those_who_ask() {
    Scene::of(&["ann", "bob"]).play(
        "ann > WITH title Disk full
         ann > with click https://example.org/?a=b c
         ann > WITH priority 3
         ann > WITH priority 5
         ann > WITH tags disk,lab
         ann > ONCE k @bob on␤lab1
         ann < OK
         ann < OK
         ann < OK
         ann < OK
         ann < OK
         ann < OK 1
         bob < MSG 1 TIME @ann Disk full: on␤lab1
         bob > ATTR on
         bob < OK
         bob > LOG
         bob < ATTR 1 title Disk full
         bob < ATTR 1 priority 5
         bob < ATTR 1 tags disk,lab
         bob < ATTR 1 click https://example.org/?a=b c
         bob < MSG 1 TIME @ann on␤lab1
         bob < OK 1
         ann > SEND @bob none
         ann < OK 2
         bob < MSG 2 TIME @ann none
         ann > WITH title Pushed
         ann < OK
         ann > SEND @bob now
         ann < OK 3
         bob < ATTR 3 title Pushed
         bob < MSG 3 TIME @ann now
         bob > ATTR off
         bob < OK
         bob > LOG 2
         bob < MSG 3 TIME @ann Pushed: now
         bob < OK 3",
    );
}

/// Both forms reach the sessions of one account that read the same message at the same time.
#[test]
fn each_session_gets_the_form_that_it_asked_for() {
    Scene::of(&["ann"]).play(
        "plain > LOGIN @ann correct-horse
         plain < OK @ann 0
         full > ATTR on
         full < OK
         full > LOGIN @ann correct-horse
         full < OK @ann 0
         again > ATTR on
         again < OK
         again > LOGIN @ann correct-horse
         again < OK @ann 0
         ann > WITH title a
         ann < OK
         ann > SEND @ann b
         ann < OK 1
         ann < MSG 1 TIME @ann a: b
         plain < MSG 1 TIME @ann a: b
         full < ATTR 1 title a
         full < MSG 1 TIME @ann b
         again < ATTR 1 title a
         again < MSG 1 TIME @ann b",
    );
}

#[test]
fn attributes_are_part_of_what_a_key_stands_for() {
    let mut scene = Scene::of(&["ann", "bob"]);
    scene.play(
        "ann > WITH title a
         ann > ONCE k @bob b
         ann < OK
         ann < OK 1
         bob < MSG 1 TIME @ann a: b
         ann > WITH title a
         ann > ONCE k @bob b
         ann < OK
         ann < OK 1",
    );
    scene.refused("ann", "key-reused", &["ONCE k @bob b", "ONCE k @bob a: b"]);
    scene.play(
        "ann > WITH tags a
         ann > ONCE k @bob b
         ann < OK
         ann < ERR key-reused ...",
    );
}

/// Any other line between forgets the attributes, so that they never go with another message than
/// the one that was meant.
#[test]
fn attributes_belong_to_the_request_that_follows() {
    let endless = format!("SEND @bob {}", "x".repeat(4096));
    for between in ["PING", "SEND @bob", "NONSENSE", "SEND @nobody x", "WITH priority 6", &endless]
    {
        let mut scene = Scene::of(&["ann", "bob"]);
        let answer = if between == "PING" { "OK" } else { "ERR ..." };
        scene.play(&format!(
            "ann > WITH title a
             ann < OK
             ann >
             ann > {between}
             ann < {answer}
             ann > SEND @bob b
             ann < OK 1
             bob < MSG 1 TIME @ann b"
        ));
    }
}

#[test]
fn attributes_have_bounds() {
    let mut scene = Scene::of(&["ann"]);
    let (title, long) = ("t".repeat(250), "x".repeat(255));
    for refused in [
        "WITH".to_owned(),
        "WITH title".to_owned(),
        format!("WITH title {title}t"),
        "WITH title a\tb".to_owned(),
        "WITH priority 0".to_owned(),
        "WITH priority 6".to_owned(),
        "WITH priority high".to_owned(),
        format!("WITH tags {long}x"),
        format!("WITH click {long}x"),
        "WITH icon x".to_owned(),
        "ATTR".to_owned(),
        "ATTR maybe".to_owned(),
    ] {
        scene.refused("ann", "bad-argument", &[&refused]);
    }
    scene.refused("ann", "bad-text", &["WITH title a\u{1b}b", "WITH click \u{202e}"]);
    let text = "x".repeat(3840 - 250);
    scene.play(&format!(
        "ann > WITH title {title}
         ann > WITH tags {long}
         ann > WITH click {long}
         ann > SEND @ann {text}x
         ann < OK
         ann < OK
         ann < OK
         ann < ERR too-long ...
         ann > WITH title {title}
         ann > WITH tags {long}
         ann > WITH click {long}
         ann > SEND @ann {text}
         ann < OK
         ann < OK
         ann < OK
         ann < OK 1
         ann < MSG 1 TIME @ann {title}: {text}"
    ));
}

#[test]
fn who_is_logged_out_adds_nothing_but_may_choose_the_form() {
    Scene::of(&[]).play(
        "ann > WITH title x
         ann < ERR not-logged-in ...
         ann > ATTR on
         ann < OK",
    );
}
