//! The sessions that the documents show are how they really look: each line is typed, each answer
//! compared.

mod common;

use common::Group;

/// A shown message's time is of another day.
fn without_time(line: &str) -> String {
    let is_message = line.starts_with("MSG ") || line.starts_with("SENT ");
    let form = "2026-11-23T11:58:03.120Z";
    let is_time = |word: &str| word.len() == form.len() && word.ends_with('Z');
    match line.split(' ').find(|word| is_time(word)) {
        Some(time) if is_message => line.replacen(time, "TIME", 1),
        _ => line.to_owned(),
    }
}

/// Plays a session of a document on a new connection; returns how many lines were compared.
fn play(group: &Group, primary: usize, session: &str) -> usize {
    let mut client = group.connect(primary);
    let mut compared = 0;
    for line in session.lines() {
        if let Some(typed) = line.strip_prefix("> ") {
            client.send(typed);
        } else {
            assert_eq!(without_time(&client.line()), without_time(line), "in:\n{session}");
            compared += 1;
        }
    }
    assert_eq!(client.rest(), Vec::<String>::new(), "after:\n{session}");
    compared
}

/// The sessions of a document, in order.
fn sessions(document: &str) -> impl Iterator<Item = &str> {
    document.split("```session\n").skip(1).map(|rest| rest.split("```").next().unwrap())
}

#[test]
fn the_session_in_the_readme() {
    let group = Group::open();
    let primary = group.wait_members(3);
    let compared = sessions(include_str!("../README.md")).map(|text| play(&group, primary, text));
    assert!(compared.sum::<usize>() > 10, "the README shows a session");
}

#[test]
fn the_sessions_in_the_document_of_the_protocol() {
    let group = Group::open();
    let primary = group.wait_members(3);
    let document = include_str!("../src/frontend/README.md");
    let compared: Vec<usize> = sessions(document).map(|text| play(&group, primary, text)).collect();
    assert!(compared.len() >= 3 && compared.iter().all(|count| *count > 1), "{compared:?}");
}
