//! The codes of refusals. The connection continues after each.

use crate::scene::Scene;

#[test]
fn an_unknown_word_is_a_bad_command_and_help_is_named() {
    let mut scene = Scene::of(&[]);
    for line in ["FOO", "PINGS", "FOO @ann correct-horse", "PING\tx", "LOG-IN", "żółw"] {
        scene.client("ann").send(line);
        let answer = scene.client("ann").line();
        assert!(answer.starts_with("ERR bad-command ") && answer.contains("HELP"), "{answer}");
    }
}

#[test]
fn a_missing_extra_or_malformed_argument_shows_the_usage() {
    let mut scene = Scene::of(&["ann"]);
    let logged_out = [
        "HELP PING LOG",
        "STATUS now",
        "QUIT now",
        "CREATE",
        "CREATE @eve",
        "CREATE @eve correct-horse x",
        "CREATE ? correct-horse",
        "LOGIN",
        "LOGIN @ann",
        "LOGIN @ann correct-horse x",
        "LOGIN @ann correct-horse +1",
        "LOGIN @ann correct-horse 1.5",
        "LOGIN @ann correct-horse -",
        "LOGIN @ann correct-horse --1",
        "LOGIN @ann correct-horse 99999999999999999999999",
        "LOGIN @ann correct-horse 0 0",
    ];
    let logged_in = [
        "SEND",
        "SEND @ann",
        "SEND ? hi",
        "ONCE",
        "ONCE k",
        "ONCE k @ann",
        "ONCE k ? hi",
        "LOG x",
        "LOG 0 x",
        "LOG 0 -1",
        "LOG 0 0 0",
        "LIST a b",
        "PASSWD",
        "PASSWD correct-horse",
        "PASSWD correct-horse new-password x",
        "DELETE",
        "DELETE @ann",
        "DELETE @ann correct-horse x",
        "LOGOUT now",
    ];
    for (who, lines) in [("eve", &logged_out[..]), ("ann", &logged_in)] {
        for line in lines {
            let command = line.split(' ').next().expect("a word");
            let line = scene.fill(line);
            let answer = scene.client(who).ask(&line);
            let told = answer.starts_with("ERR bad-argument ") && answer.contains(command);
            assert!(told, "{line}: {answer}");
        }
    }
    scene.play("ann > LOG\nann < OK 0");
}

#[test]
fn who_is_not_logged_in_is_told_so() {
    let lines = [
        "SEND @ann hi",
        "ONCE k @ann hi",
        "LOG",
        "LIST",
        "PASSWD correct-horse new-password",
        "DELETE @ann correct-horse",
        "LOGOUT",
    ];
    Scene::of(&["ann"]).refused("eve", "not-logged-in", &lines);
}

#[test]
fn who_is_logged_in_can_not_log_in() {
    Scene::of(&["ann", "bob"]).play(
        "ann > LOGIN @ann correct-horse
         ann < ERR already-logged-in ...
         ann > LOGIN @bob correct-horse
         ann < ERR already-logged-in ...
         ann > SEND @bob it is still me
         ann < OK 1
         bob < MSG 1 TIME @ann it is still me",
    );
}

#[test]
fn an_account_that_exists_is_not_made_again() {
    Scene::of(&["ann"]).play(
        "eve > CREATE @ann other-horse
         eve < ERR exists ...
         eve > LOGIN @ann correct-horse
         eve < OK @ann 0",
    );
}

#[test]
fn nothing_is_sent_to_who_does_not_exist() {
    Scene::of(&["ann"]).refused("ann", "no-such-user", &["SEND @eve hi", "ONCE k @eve hi"]);
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let mut scene = Scene::of(&["ann"]);
    let lines = ["LOGIN @ann wrong-horse", "LOGIN @nobody wrong-horse"];
    let answers = lines.map(|line| {
        let line = scene.fill(line);
        scene.client("eve").ask(&line)
    });
    assert!(answers[0].starts_with("ERR wrong-password "), "{answers:?}");
    assert_eq!(answers[0], answers[1]);
}
