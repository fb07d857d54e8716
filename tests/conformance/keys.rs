//! Keys of `ONCE`.

use crate::scene::Scene;

#[test]
fn a_repeat_gets_the_first_answer_and_stores_nothing() {
    Scene::of(&["ann", "bob"]).play(
        "ann > ONCE k1 @bob hello
         ann < OK 1
         ann > SEND @bob between
         ann < OK 2
         ann > ONCE k1 @bob hello
         ann < OK 1
         bob < MSG 1 TIME @ann hello
         bob < MSG 2 TIME @ann between
         bob > LOG 2
         bob < OK 2",
    );
}

#[test]
fn a_repeat_need_not_wait_for_the_first_answer() {
    Scene::of(&["ann", "bob"]).play(
        "ann > ONCE k @bob hello
         ann > ONCE k @bob hello
         ann > ONCE k @bob other
         ann > ONCE k @bob hello
         ann < OK 1
         ann < OK 1
         ann < ERR key-reused ...
         ann < OK 1
         bob < MSG 1 TIME @ann hello",
    );
}

#[test]
fn a_key_with_another_text_or_receiver_is_reused() {
    let mut scene = Scene::of(&["ann", "bob"]);
    scene.play(
        "ann > ONCE k @bob hello
         ann < OK 1
         bob < MSG 1 TIME @ann hello",
    );
    scene.refused("ann", "key-reused", &["ONCE k @bob hello ", "ONCE k @bob Hello"]);
    scene.refused("ann", "key-reused", &["ONCE k @ann hello", "ONCE k @ann other"]);
    scene.play(
        "ann > ONCE k @bob hello
         ann < OK 1
         ann > LOG
         ann < OK 0",
    );
}

#[test]
fn another_key_is_another_message() {
    Scene::of(&["ann", "bob"]).play(
        "ann > ONCE k @bob hello
         ann < OK 1
         ann > ONCE kk @bob hello
         ann < OK 2
         ann > SEND @bob hello
         ann < OK 3
         bob < MSG 1 TIME @ann hello
         bob < MSG 2 TIME @ann hello
         bob < MSG 3 TIME @ann hello",
    );
}

#[test]
fn keys_are_the_senders_own() {
    Scene::of(&["ann", "bob", "cyd"]).play(
        "ann > ONCE k @cyd hello
         ann < OK 1
         bob > ONCE k @cyd hello
         bob < OK 2
         ann > ONCE k @cyd hello
         ann < OK 1
         cyd < MSG 1 TIME @ann hello
         cyd < MSG 2 TIME @bob hello",
    );
}

#[test]
fn a_key_is_known_in_every_session_of_its_sender() {
    Scene::of(&["ann", "bob"]).play(
        "ann > ONCE k @bob hello
         ann < OK 1
         phone > LOGIN @ann correct-horse
         phone < OK @ann 0
         phone > ONCE k @bob hello
         phone < OK 1
         ann > LOGOUT
         ann < OK
         ann > LOGIN @ann correct-horse
         ann < OK @ann 0
         ann > ONCE k @bob hello
         ann < OK 1
         bob < MSG 1 TIME @ann hello",
    );
}

#[test]
fn a_key_is_of_visible_ascii_characters() {
    let mut scene = Scene::of(&["ann", "bob"]);
    for (n, key) in (1..).zip('!'..='~') {
        let line = scene.fill(&format!("ONCE {key} @bob hi"));
        assert_eq!(scene.client("ann").ask(&line), format!("OK {n}"), "{key}");
    }
    for key in ["ü", "a\tb", "\u{7f}", "a\u{1}", "\u{a0}", "🔑"] {
        let line = scene.fill(&format!("ONCE {key} @bob hi"));
        let answer = scene.client("ann").ask(&line);
        assert!(answer.starts_with("ERR bad-argument "), "{key}: {answer}");
    }
}

#[test]
fn a_key_has_1_to_64_characters() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let (long, other) = ("k".repeat(64), format!("{}j", "k".repeat(63)));
    scene.play(&format!(
        "ann > ONCE {long} @bob one
         ann < OK 1
         ann > ONCE {other} @bob two
         ann < OK 2
         ann > ONCE {long} @bob one
         ann < OK 1
         ann > ONCE {long}k @bob three
         ann < ERR bad-argument ...
         bob < MSG 1 TIME @ann one
         bob < MSG 2 TIME @ann two"
    ));
}

#[test]
fn a_remembered_key_is_answered_before_any_other_refusal() {
    let mut scene = Scene::of(&["ann", "bob"]);
    scene.play(
        "ann > ONCE k @bob hello
         ann < OK 1
         bob < MSG 1 TIME @ann hello",
    );
    scene.refused("ann", "key-reused", &["ONCE k @nobody hello"]);
}

#[test]
fn only_a_stored_message_uses_up_its_key() {
    let mut scene = Scene::of(&["ann"]);
    scene.refused("ann", "no-such-user", &["ONCE k @bob hello"]);
    scene.refused("ann", "bad-text", &["ONCE k @ann hel\u{7f}lo"]);
    scene.refused("ann", "bad-argument", &["ONCE k @ann"]);
    scene.play(
        "ann > ONCE k @ann at last
         ann < OK 1
         ann < MSG 1 TIME @ann at last",
    );
}

#[test]
fn keys_die_with_the_receivers_account() {
    Scene::of(&["ann", "bob"]).play(
        "ann > ONCE k @bob hello
         ann < OK 1
         bob < MSG 1 TIME @ann hello
         bob > DELETE @bob correct-horse
         bob < OK
         bob end
         ann > ONCE k @bob hello
         ann < ERR no-such-user ...
         bob > CREATE @bob correct-horse
         bob < OK @bob
         bob > LOGIN @bob correct-horse
         bob < OK @bob 0
         ann > ONCE k @bob anew
         ann < OK 1
         bob < MSG 1 TIME @ann anew",
    );
}

#[test]
fn keys_die_with_the_senders_account() {
    Scene::of(&["ann", "bob"]).play(
        "ann > ONCE k @bob hello
         ann < OK 1
         bob < MSG 1 TIME @ann hello
         ann > DELETE @ann correct-horse
         ann < OK
         ann end
         ann > CREATE @ann correct-horse
         ann < OK @ann
         ann > LOGIN @ann correct-horse
         ann < OK @ann 0
         ann > ONCE k @bob anew
         ann < OK 2
         bob < MSG 2 TIME @ann anew",
    );
}
