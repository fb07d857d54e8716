//! Names, passwords and texts: which are allowed, up to the exact limits.

use crate::scene::{PASSWORD, Scene};
use std::ops::RangeInclusive;

/// Sends a text with each of these characters, and expects every one to be refused.
fn forbidden(characters: RangeInclusive<char>) {
    let mut scene = Scene::of(&["ann"]);
    let characters: Vec<char> = characters.filter(|c| !"\t\n".contains(*c)).collect();
    let lines = characters.iter().flat_map(|c| {
        let once = format!("ONCE k @ann {c}b");
        [format!("SEND @ann a{c}b"), once]
    });
    let lines: Vec<String> = lines.map(|line| scene.fill(&line)).collect();
    let ann = scene.client("ann");
    for line in lines {
        let answer = ann.ask(&line);
        assert!(answer.starts_with("ERR bad-text "), "{line:?}: {answer}");
    }
    scene.play("ann > LOG\nann < OK 0");
}

#[test]
fn a_name_has_1_to_32_characters() {
    let mut scene = Scene::of(&["ann"]);
    let longest = format!("{:x<32}", scene.name("l"));
    let eve = scene.client("eve");
    assert_eq!(eve.ask(&format!("CREATE {longest} {PASSWORD}")), format!("OK {longest}"));
    let answer = eve.ask(&format!("CREATE {longest}x {PASSWORD}"));
    assert!(answer.starts_with("ERR bad-argument "), "{answer}");
    // A foreign server may have an account of such a short name.
    let answer = eve.ask(&format!("CREATE q {PASSWORD}"));
    assert!(answer == "OK q" || answer.starts_with("ERR exists "), "{answer}");
    for name in [longest, "q".to_owned()] {
        if name.len() == 32 || answer == "OK q" {
            let mut client = scene.stranger();
            assert_eq!(client.ask(&format!("LOGIN {name} {PASSWORD}")), format!("OK {name} 0"));
            assert_eq!(client.ask(&format!("DELETE {name} {PASSWORD}")), "OK");
        }
    }
}

#[test]
fn a_name_is_of_letters_digits_and_three_signs() {
    let scene = Scene::of(&[]);
    for start in ["a_b.c-d", "0", "9.", "z_"] {
        let (name, mut client) = (scene.name(start), scene.stranger());
        assert_eq!(client.ask(&format!("CREATE {name} {PASSWORD}")), format!("OK {name}"));
        assert_eq!(client.ask(&format!("LOGIN {name} {PASSWORD}")), format!("OK {name} 0"));
        assert_eq!(client.ask(&format!("DELETE {name} {PASSWORD}")), "OK");
    }
}

#[test]
fn other_names_are_refused() {
    let mut scene = Scene::of(&["ann"]);
    for name in [".x", "-x", "_x", "ä", "xä", "x/y", "x+y", "x*", "x,y", "x\u{a0}y", "x\ty", "\"x"]
    {
        scene.refused("ann", "bad-argument", &[&format!("CREATE {name} {PASSWORD}")]);
        scene.refused("ann", "bad-argument", &[&format!("SEND {name} hi")]);
    }
}

#[test]
fn upper_case_of_a_name_is_folded() {
    let mut scene = Scene::of(&["ann"]);
    let big = scene.name("bob").to_uppercase();
    let ann = scene.name("ann").to_uppercase();
    scene.play(&format!(
        "bob > CREATE {big} correct-horse
         bob < OK @bob
         eve > CREATE @bob correct-horse
         eve < ERR exists ...
         bob > LOGIN {big} correct-horse
         bob < OK @bob 0
         bob > SEND {ann} hi
         bob < OK 1
         ann < MSG 1 TIME @bob hi"
    ));
}

#[test]
fn a_password_has_8_to_128_bytes() {
    let mut scene = Scene::of(&[]);
    for (who, password) in [("a", "x".repeat(8)), ("b", "x".repeat(128)), ("c", "ü".repeat(4))] {
        let (name, mut client) = (scene.name(who), scene.stranger());
        assert_eq!(client.ask(&format!("CREATE {name} {password}")), format!("OK {name}"));
        assert_eq!(client.ask(&format!("LOGIN {name} {password}")), format!("OK {name} 0"));
        assert_eq!(client.ask(&format!("DELETE {name} {password}")), "OK");
    }
    for password in ["x".repeat(7), "x".repeat(129), "ü".repeat(3), "ü".repeat(65)] {
        scene.refused("d", "bad-argument", &[&format!("CREATE @d {password}")]);
    }
}

#[test]
fn a_new_password_keeps_the_same_limits() {
    let mut scene = Scene::of(&["ann"]);
    let (long, longest) = ("x".repeat(129), "x".repeat(128));
    scene.refused("ann", "bad-argument", &["PASSWD correct-horse 7-bytes"]);
    scene.refused("ann", "bad-argument", &[&format!("PASSWD correct-horse {long}")]);
    scene.play(&format!(
        "ann > PASSWD correct-horse {longest}
         ann < OK
         ann > PASSWD {longest} 8--bytes
         ann < OK
         ann > PASSWD 8--bytes correct-horse
         ann < OK"
    ));
}

#[test]
fn a_password_has_no_spaces_or_control_characters() {
    let mut scene = Scene::of(&[]);
    for password in ["correct horse", "correct\thorse", "correct\u{7f}horse", "correct\u{85}horse"]
    {
        scene.refused("ann", "bad-argument", &[&format!("CREATE @ann {password}")]);
    }
}

#[test]
fn a_text_has_1_to_3840_bytes() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let (longest, wide) = ("x".repeat(3840), "€".repeat(1280));
    scene.play(&format!(
        "ann > SEND @bob x
         ann < OK 1
         bob < MSG 1 TIME @ann x
         ann > SEND @bob {longest}
         ann < OK 2
         bob < MSG 2 TIME @ann {longest}
         ann > ONCE key @bob {wide}
         ann < OK 3
         bob < MSG 3 TIME @ann {wide}"
    ));
    let (long, wide) = (format!("SEND @bob {longest}x"), format!("ONCE k @bob {wide}x"));
    scene.refused("ann", "too-long", &[&long, &wide]);
    scene.refused("ann", "bad-argument", &["SEND @bob", "SEND @bob ", "ONCE k @bob "]);
}

#[test]
fn a_text_has_no_control_characters() {
    forbidden('\0'..='\u{1f}');
}

#[test]
fn a_text_has_no_del() {
    forbidden('\u{7f}'..='\u{7f}');
}

#[test]
fn a_text_has_no_c1_control_characters() {
    forbidden('\u{80}'..='\u{9f}');
}

#[test]
fn a_text_has_no_line_separators() {
    forbidden('\u{2028}'..='\u{2029}');
}

#[test]
fn a_text_has_no_bidi_embeddings_or_overrides() {
    forbidden('\u{202a}'..='\u{202e}');
}

#[test]
fn a_text_has_no_bidi_isolates() {
    forbidden('\u{2066}'..='\u{2069}');
}

#[test]
fn a_text_may_have_tabs_and_all_other_characters() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let texts = [
        "\t",
        "a\tb",
        "\u{20}~",
        "\u{a0}¡",
        "\u{200b}\u{200e}\u{200f}\u{2027}",
        "\u{202f}\u{2065}\u{206a}",
        "e\u{301} \u{feff}",
        "\u{d7ff}\u{e000}\u{fffd}\u{ffff}",
        "👩\u{200d}🚀 \u{10ffff}",
    ];
    for (n, text) in (1..).zip(texts) {
        scene.play(&format!(
            "ann > SEND @bob {text}
             ann < OK {n}
             bob < MSG {n} TIME @ann {text}"
        ));
    }
}

#[test]
fn what_is_not_utf_8_is_refused() {
    let mut scene = Scene::of(&["ann"]);
    let send = scene.fill("SEND @ann ");
    let table: [&[u8]; 6] =
        [b"\xff", b"\x80", b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"];
    for bytes in table {
        for start in [send.as_bytes(), b"PING ", b"", b"CREATE "] {
            scene.client("ann").send_bytes(&[start, b"a", bytes, b"\n"].concat());
            scene.play("ann < ERR bad-text ...");
        }
    }
    scene.play("ann > LOG\nann < OK 0");
}
