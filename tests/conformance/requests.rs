//! The requests, and the form of messages.

use crate::scene::{Scene, is_time};

const COMMANDS: [&str; 13] = [
    "HELP", "PING", "STATUS", "QUIT", "CREATE", "LOGIN", "SEND", "ONCE", "LOG", "LIST", "PASSWD",
    "DELETE", "LOGOUT",
];

/// Returns a scene with Ann and Bob, and three messages in Ann's mailbox.
fn three_messages() -> Scene {
    let mut scene = Scene::of(&["ann", "bob"]);
    scene.play(
        "bob > SEND @ann one
         bob > SEND @ann two
         bob > SEND @ann three
         bob < OK 1
         bob < OK 2
         bob < OK 3
         ann < MSG 1 TIME @bob one
         ann < MSG 2 TIME @bob two
         ann < MSG 3 TIME @bob three",
    );
    scene
}

/// Returns whether a line of help is about this command.
fn is_about(line: &str, command: &str) -> bool {
    let rest = line.strip_prefix("HELP ").and_then(|rest| rest.strip_prefix(command));
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
}

#[test]
fn help_has_one_line_for_each_command() {
    let mut scene = Scene::of(&[]);
    let ann = scene.client("ann");
    ann.send("HELP");
    let mut lines: Vec<String> = Vec::new();
    while lines.last().is_none_or(|line| line != "OK") {
        lines.push(ann.line());
    }
    lines.pop();
    assert!(lines.iter().all(|line| line.starts_with("HELP ")), "{lines:?}");
    for command in COMMANDS {
        let about = lines.iter().filter(|line| is_about(line, command));
        assert_eq!(about.count(), 1, "{command}: {lines:?}");
    }
}

#[test]
fn help_for_a_command_has_its_line_only() {
    let mut scene = Scene::of(&[]);
    for command in COMMANDS {
        let ann = scene.client("ann");
        ann.send(&format!("HELP {}", command.to_lowercase()));
        assert!(is_about(&ann.line(), command), "{command}");
        assert_eq!(ann.line(), "OK");
    }
}

#[test]
fn ping_answers_with_its_text() {
    Scene::of(&["ann"]).play(
        "ann > PING
         ann < OK
         ann > PING are you there?
         ann < OK are you there?
         bob > PING before a login, too
         bob < OK before a login, too",
    );
}

#[test]
fn quit_says_bye_and_closes() {
    Scene::of(&["ann"]).play(
        "ann > QUIT
         ann > PING x
         ann < OK bye
         ann end
         bob > QUIT
         bob < OK bye
         bob end",
    );
}

#[test]
fn create_makes_an_account_and_does_not_log_in() {
    Scene::of(&[]).play(
        "ann > CREATE @ann correct-horse
         ann < OK @ann
         ann > LOG
         ann < ERR not-logged-in ...
         ann > LOGIN @ann correct-horse
         ann < OK @ann 0",
    );
}

#[test]
fn login_shows_the_messages_behind_a_number() {
    let mut scene = three_messages();
    let table: &[(&str, &[u32])] = &[
        ("", &[1, 2, 3]),
        (" 0", &[1, 2, 3]),
        (" 1", &[2, 3]),
        (" 2", &[3]),
        (" 3", &[]),
        (" end", &[]),
        (" -1", &[3]),
        (" -3", &[1, 2, 3]),
        (" -9", &[1, 2, 3]),
        (" -0", &[]),
    ];
    for (after, shown) in table {
        let text = |n: &u32| ["one", "two", "three"][*n as usize - 1];
        let shown = shown.iter().map(|n| format!("ann < MSG {n} TIME @bob {}\n", text(n)));
        let shown: String = shown.collect();
        scene.play(&format!(
            "ann > LOGOUT
             ann < OK
             ann > LOGIN @ann correct-horse{after}
             {shown}
             ann < OK @ann 3"
        ));
    }
}

#[test]
fn a_login_beyond_the_end_is_refused() {
    three_messages().play(
        "ann > LOGOUT
         ann < OK
         ann > LOGIN @ann correct-horse 4
         ann < ERR bad-argument ...
         ann > LOG
         ann < ERR not-logged-in ...",
    );
}

#[test]
fn after_a_login_new_messages_are_pushed_and_only_those() {
    three_messages().play(
        "phone > LOGIN @ann correct-horse end
         phone < OK @ann 3
         bob > SEND @ann four
         bob < OK 4
         phone < MSG 4 TIME @bob four
         ann < MSG 4 TIME @bob four
         phone > LOGOUT
         phone < OK
         phone > LOGIN @ann correct-horse -1
         phone < MSG 4 TIME @bob four
         phone < OK @ann 4
         bob > SEND @ann five
         bob < OK 5
         phone < MSG 5 TIME @bob five
         ann < MSG 5 TIME @bob five",
    );
}

#[test]
fn send_gives_the_number_in_the_receivers_mailbox() {
    Scene::of(&["ann", "bob"]).play(
        "ann > SEND @bob to bob
         ann < OK 1
         ann > SEND @ann to myself
         ann < OK 1
         ann < MSG 1 TIME @ann to myself
         bob < MSG 1 TIME @ann to bob
         bob > SEND @bob to myself
         bob < OK 2
         bob < MSG 2 TIME @bob to myself
         bob > SEND @ann to ann
         bob < OK 2
         ann < MSG 2 TIME @bob to ann",
    );
}

#[test]
fn log_shows_ones_own_mailbox_again() {
    let mut scene = three_messages();
    let table: &[(&str, &[u32], u32)] = &[
        ("", &[1, 2, 3], 3),
        (" 0", &[1, 2, 3], 3),
        (" 2", &[3], 3),
        (" end", &[], 3),
        (" -2", &[2, 3], 3),
        (" 0 2", &[1, 2], 2),
        (" 1 1", &[2], 2),
        (" -2 1", &[2], 2),
        (" -18446744073709551615 1", &[1], 1),
        (" 1 18446744073709551615", &[2, 3], 3),
        (" 1 99", &[2, 3], 3),
        (" 3", &[], 3),
        (" 3 5", &[], 3),
        (" 1 0", &[], 1),
    ];
    for (arguments, shown, last) in table {
        let text = |n: &u32| ["one", "two", "three"][*n as usize - 1];
        let shown = shown.iter().map(|n| format!("ann < MSG {n} TIME @bob {}\n", text(n)));
        let shown: String = shown.collect();
        scene.play(&format!("ann > LOG{arguments}\n{shown}\nann < OK {last}"));
    }
    scene.refused("ann", "bad-argument", &["LOG 4", "LOG 4 1", "LOG 18446744073709551615"]);
}

#[test]
fn log_does_not_move_what_is_pushed() {
    three_messages().play(
        "ann > LOG 0 1
         ann < MSG 1 TIME @bob one
         ann < OK 1
         bob > SEND @ann four
         bob < OK 4
         ann < MSG 4 TIME @bob four
         ann > LOG 3
         ann < MSG 4 TIME @bob four
         ann < OK 4",
    );
}

#[test]
fn list_shows_names_in_order_and_counts_them() {
    let mut scene = Scene::of(&["bob", "ann", "abe"]);
    let pattern = scene.fill("@x")[1..].to_owned();
    scene.play(&format!(
        "ann > LIST *{pattern}
         ann < USER @abe online
         ann < USER @ann online
         ann < USER @bob online
         ann < OK 3
         ann > LIST a*{pattern}
         ann < USER @abe online
         ann < USER @ann online
         ann < OK 2
         ann > LIST ?n?{pattern}
         ann < USER @ann online
         ann < OK 1
         ann > LIST @bob
         ann < USER @bob online
         ann < OK 1
         ann > LIST ?{pattern}
         ann < OK 0"
    ));
}

#[test]
fn list_without_a_pattern_shows_everybody() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let own = ["ann", "bob"].map(|who| format!("USER {} online", scene.name(who)));
    for line in ["LIST", "LIST *"] {
        let ann = scene.client("ann");
        ann.send(line);
        let mut lines = Vec::new();
        let count = loop {
            let line = ann.line();
            match line.strip_prefix("OK ") {
                Some(count) => break count.to_owned(),
                None => lines.push(line),
            }
        };
        assert_eq!(count, lines.len().to_string());
        assert!(own.iter().all(|line| lines.contains(line)), "{lines:?}");
    }
}

#[test]
fn online_is_who_has_a_session() {
    Scene::of(&["ann", "bob"]).play(
        "phone > LOGIN @bob correct-horse
         phone < OK @bob 0
         bob > LOGOUT
         bob < OK
         ann > LIST @bob
         ann < USER @bob online
         ann < OK 1
         phone > LOGOUT
         phone < OK
         ann > LIST @bob
         ann < USER @bob offline
         ann < OK 1
         bob > LOGIN @bob correct-horse
         bob < OK @bob 0
         ann > LIST @bob
         ann < USER @bob online
         ann < OK 1",
    );
}

#[test]
fn logout_stops_pushes_and_the_connection_may_log_in_again() {
    Scene::of(&["ann", "bob"]).play(
        "bob > LOGOUT
         bob < OK
         ann > SEND @bob while away
         ann < OK 1
         bob > PING x
         bob < OK x
         bob > LOGIN @ann correct-horse
         bob < OK @ann 0
         bob > LOGOUT
         bob < OK
         bob > LOGIN @bob correct-horse
         bob < MSG 1 TIME @ann while away
         bob < OK @bob 1",
    );
}

#[test]
fn numbers_count_without_a_gap_in_each_mailbox() {
    let mut scene = Scene::of(&["ann", "bob", "cyd"]);
    for n in 1..=50 {
        scene.play(&format!(
            "ann > SEND @bob b{n}
             ann > SEND @nobody lost
             ann > SEND @cyd c{n}
             ann < OK {n}
             ann < ERR no-such-user ...
             ann < OK {n}
             bob < MSG {n} TIME @ann b{n}
             cyd < MSG {n} TIME @ann c{n}"
        ));
    }
}

#[test]
fn a_time_is_never_earlier_than_that_of_the_record_before() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let lines = scene.fill(&"SEND @ann hi\nSEND @bob hi\n".repeat(200));
    scene.client("ann").send_bytes(lines.as_bytes());
    let mut times = [Vec::new(), Vec::new()];
    for (who, times) in ["ann", "bob"].into_iter().zip(&mut times) {
        while times.len() < 200 {
            let line = scene.client(who).line();
            if let Some(message) = line.strip_prefix("MSG ") {
                times.push(message.split(' ').nth(1).expect("a time").to_owned());
            }
        }
    }
    let [ann, bob] = times;
    let times: Vec<String> = ann.into_iter().zip(bob).flat_map(|(a, b)| [a, b]).collect();
    assert!(times.iter().all(|time| is_time(time)) && times.is_sorted(), "{times:?}");
}

#[test]
fn a_message_keeps_its_time() {
    let mut scene = Scene::of(&["ann"]);
    let send = scene.fill("SEND @ann hi");
    let ann = scene.client("ann");
    assert_eq!(ann.ask(&send), "OK 1");
    let pushed = ann.line();
    ann.send("LOG");
    assert_eq!(ann.line(), pushed);
    assert_eq!(ann.line(), "OK 1");
}

#[test]
fn each_session_of_an_account_gets_every_message() {
    Scene::of(&["ann", "bob"]).play(
        "phone > LOGIN @ann correct-horse
         phone < OK @ann 0
         bob > SEND @ann one
         bob < OK 1
         ann < MSG 1 TIME @bob one
         phone < MSG 1 TIME @bob one
         phone > SEND @ann to myself
         phone < OK 2
         phone < MSG 2 TIME @ann to myself
         ann < MSG 2 TIME @ann to myself",
    );
}
