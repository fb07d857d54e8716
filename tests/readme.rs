//! The session that the README shows is how it really looks: each line typed, each answer compared.

mod common;

use common::Group;

/// A shown message's time is of another day.
fn without_time(line: &str) -> String {
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    match words[..] {
        ["MSG", n, time, rest] => {
            assert_eq!(time.len(), "2026-11-23T11:58:03.120Z".len(), "{line}");
            format!("MSG {n} TIME {rest}")
        }
        _ => line.to_owned(),
    }
}

#[test]
fn the_session_in_the_readme() {
    let readme = include_str!("../README.md");
    let session = readme.split("```session\n").nth(1).unwrap().split("```").next().unwrap();
    let group = Group::open();
    let mut client = group.connect(group.wait_members(3));
    let mut answers = 0;
    for line in session.lines() {
        if let Some(typed) = line.strip_prefix("> ") {
            client.send(typed);
        } else {
            assert_eq!(without_time(&client.line()), without_time(line));
            answers += 1;
        }
    }
    assert_eq!(client.rest(), Vec::<String>::new());
    assert!(answers > 10, "the README shows a session");
}
