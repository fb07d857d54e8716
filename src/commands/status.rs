//! `postern status`: all servers of the group in one table.

use super::{Answer, ask_status, is, person};
use crate::options;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the table shows, and under which word.
const COLUMNS: [(&str, &str); 8] = [
    ("role", "role"),
    ("gate", "gate"),
    ("term", "term"),
    ("last_index", "last"),
    ("answered_index", "answered"),
    ("applied_index", "applied"),
    ("sessions", "sessions"),
    ("members", "members"),
];

/// Prints the table; fails when the group has no primary or fewer members than configured.
///
/// # Errors
/// One line that says why there is nothing to ask.
#[cold]
pub fn run(options: &options::Status) -> Result<ExitCode, String> {
    let mut servers = person::servers(&options.group)?;
    let mut answers: Vec<Option<Answer>> =
        servers.iter().map(|server| ask_status(server, PATIENCE)).collect();
    // Of one that answers the others are learned; each has one id, and may have several names.
    let known = answers.iter().flatten().find_map(|answer| answer.get("servers"));
    let known: Vec<String> =
        known.into_iter().flat_map(|all| all.split(',')).map(str::to_owned).collect();
    for (at, server) in known.into_iter().enumerate() {
        let id = format!("{}/", at + 1);
        let answered = |answer: &Answer| answer.get("server").is_some_and(|s| s.starts_with(&id));
        if !servers.contains(&server) && !answers.iter().flatten().any(answered) {
            answers.push(ask_status(&server, PATIENCE));
            servers.push(server);
        }
    }
    let table = table(&servers, &answers) + &reasons(&servers, &answers);
    let written = std::io::stdout().write_all(table.as_bytes());
    written.map_err(|error| format!("stdout: {error}"))?;
    Ok(if is_whole(&answers) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why changes are not taken, as each server says.
fn reasons(servers: &[String], answers: &[Option<Answer>]) -> String {
    let taken = answers
        .iter()
        .flatten()
        .any(|answer| is(answer, "role", "primary") && is(answer, "waiting", "-"));
    if taken {
        return String::new();
    }
    let why = |(server, answer): (&String, &Option<Answer>)| {
        let waiting = answer.as_ref()?.get("waiting").filter(|waiting| *waiting != "-")?;
        Some(format!("{server}: {waiting}\n"))
    };
    servers.iter().zip(answers).filter_map(why).collect()
}

fn is_whole(answers: &[Option<Answer>]) -> bool {
    let primary = answers.iter().flatten().find(|answer| is(answer, "role", "primary"));
    primary.is_some_and(|answer| is(answer, "missing", "-"))
}

fn table(servers: &[String], answers: &[Option<Answer>]) -> String {
    let mut rows = vec![{
        let mut head = vec!["server".to_owned()];
        head.extend(COLUMNS.map(|(_, word)| word.to_owned()));
        head
    }];
    for (server, answer) in servers.iter().zip(answers) {
        let mut row = vec![server.clone()];
        match answer {
            None => row.push("no answer".to_owned()),
            Some(answer) => row.extend(
                COLUMNS.map(|(key, _)| answer.get(key).map_or("-", String::as_str).to_owned()),
            ),
        }
        rows.push(row);
    }
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let gap = if column + 1 == row.len() { 0 } else { width(column).unwrap_or(0) + 2 };
            text += &format!("{cell:gap$}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(role: &str, missing: &str) -> Option<Answer> {
        let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Some([("role", role), ("missing", missing)].map(pair).into_iter().collect())
    }

    #[test]
    fn a_group_is_whole_with_a_primary_and_all_members() {
        assert!(is_whole(&[answer("backup", "-"), answer("primary", "-")]));
        assert!(!is_whole(&[answer("primary", "3")]));
        assert!(!is_whole(&[answer("backup", "-"), None]));
    }

    #[test]
    fn a_table_has_a_row_for_each_server() {
        let servers = ["a:1".to_owned(), "b:2".to_owned()];
        let table = table(&servers, &[answer("primary", "-"), None]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("a:1     primary"), "{table}");
        assert!(lines[2].ends_with("no answer"), "{table}");
    }
}
