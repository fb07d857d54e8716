//! `postern status`: prints all servers of the group in one table, and what is wrong.

use super::ask::{ask_all, takes_changes};
use super::{Answer, Unreached, exit_code, person};
use crate::address;
use crate::options;
use std::process::ExitCode;
use std::time::Duration;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The columns of the table: a key of STATUS, and its heading.
const COLUMNS: [(&str, &str); 8] = [
    ("role", "role"),
    ("gate", "gate"),
    ("term", "term"),
    ("last_index", "last"),
    ("acknowledged_index", "acknowledged"),
    ("applied_index", "applied"),
    ("sessions", "sessions"),
    ("members", "members"),
];

/// A server, and its answer to STATUS.
pub(super) type Asked = (String, Result<Answer, Unreached>);

/// Prints the table. Fails unless every configured server answers and is a member, and the
/// primary accepts changes.
///
/// # Errors
/// Returns a one-line message that states why there is no server to ask.
#[cold]
pub fn run(options: &options::Status) -> Result<ExitCode, String> {
    let servers = person::servers(&options.group)?;
    let mut asked = ask(servers);
    // An answer lists all servers of the group.
    let unknown: Vec<String> =
        configured(&asked).into_iter().filter(|server| find(&asked, server).is_none()).collect();
    asked.extend(ask(unknown));
    let faults = faults(&asked);
    let mut text = table(&asked);
    let note = person::default_note().filter(|_| asked.iter().all(|(_, answer)| answer.is_err()));
    for line in faults.iter().chain(&note) {
        text += &format!("{line}\n");
    }
    super::print(&text)?;
    Ok(exit_code(faults.is_empty()))
}

/// Asks these servers at once.
pub(super) fn ask(servers: Vec<String>) -> Vec<Asked> {
    let answers = ask_all(&servers, PATIENCE);
    servers.into_iter().zip(answers).collect()
}

/// Returns the servers of the group as the first answer lists them; without an answer, those that
/// were asked.
fn configured(asked: &[Asked]) -> Vec<String> {
    let listed = asked.iter().find_map(|(_, answer)| answer.as_ref().ok()?.get("servers"));
    match listed {
        Some(listed) => listed.split(',').map(str::to_owned).collect(),
        None => asked.iter().map(|(server, _)| server.clone()).collect(),
    }
}

/// Returns the answer of a configured server, which may have been asked by another name.
fn find<'a>(asked: &'a [Asked], server: &str) -> Option<&'a Asked> {
    let id = configured(asked).iter().position(|known| known == server)? + 1;
    let id = format!("{id}/");
    let is_it = |answer: &Answer| answer.get("server").is_some_and(|own| own.starts_with(&id));
    asked.iter().find(|(name, answer)| match answer {
        Ok(answer) if answer.contains_key("server") => is_it(answer),
        _ => address::is_same(name, server),
    })
}

/// Returns the faults of the group, one line each.
fn faults(asked: &[Asked]) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, server) in configured(asked).iter().enumerate() {
        let id = at + 1;
        match find(asked, server) {
            Some((_, Err(why))) => faults.push(format!("server {id} ({server}): {why}")),
            None => faults.push(format!("server {id} ({server}): not asked")),
            Some((_, Ok(_))) => {}
        }
    }
    let answers =
        || asked.iter().filter_map(|(server, answer)| Some((server, answer.as_ref().ok()?)));
    match answers().find(|(_, answer)| takes_changes(answer)) {
        Some((_, answer)) => {
            let missing = answer.get("missing").filter(|missing| *missing != "-");
            let missing = missing.into_iter().flat_map(|missing| missing.split(','));
            faults.extend(missing.map(|id| format!("server {id} is not a member")));
        }
        None => {
            faults.push("no server takes changes".to_owned());
            let why = |(server, answer): (&String, &Answer)| {
                Some(format!("{server}: {}", answer.get("waiting").filter(|why| *why != "-")?))
            };
            faults.extend(answers().filter_map(why));
        }
    }
    faults
}

/// Returns a row for each server.
pub(super) fn table(asked: &[Asked]) -> String {
    fn columns<'a>(cell: impl Fn((&str, &'static str)) -> &'a str) -> Vec<String> {
        COLUMNS.map(|column| cell(column).to_owned()).to_vec()
    }
    let mut rows = vec![[vec!["server".to_owned()], columns(|(_, head)| head)].concat()];
    for (server, answer) in asked {
        let rest = match answer {
            Err(why) => vec![why.to_string()],
            Ok(answer) => columns(|(key, _)| answer.get(key).map_or("-", String::as_str)),
        };
        rows.push([vec![server.clone()], rest].concat());
    }
    let last = |row: &Vec<String>, column: usize| column + 1 == row.len();
    // The last cell of a row may be wider than its column.
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| !last(row, column) || column > COLUMNS.len());
        cells.filter_map(|row| row.get(column)).map(String::len).max()
    };
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let gap = if last(row, column) { 0 } else { width(column).unwrap_or(0) + 2 };
            text += &format!("{cell:gap$}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVERS: [&str; 3] = ["a:1", "b:2", "c:3"];

    fn answer(id: usize, role: &str, missing: &str, waiting: &str) -> Result<Answer, Unreached> {
        let pairs = [
            ("server", &format!("{id}/0badcafe")[..]),
            ("servers", "a:1,b:2,c:3"),
            ("role", role),
            ("missing", missing),
            ("waiting", waiting),
        ];
        Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect())
    }

    fn asked(answers: [Result<Answer, Unreached>; 3]) -> Vec<Asked> {
        SERVERS.map(str::to_owned).into_iter().zip(answers).collect()
    }

    #[test]
    fn a_group_is_whole_with_all_members_and_a_primary_that_takes_changes() {
        let backup = |id| answer(id, "backup", "-", "not primary; server 1 is");
        let whole = asked([answer(1, "primary", "-", "-"), backup(2), backup(3)]);
        assert_eq!(faults(&whole), [""; 0]);

        let two = asked([answer(1, "primary", "3", "-"), backup(2), Err(Unreached::Refused)]);
        assert_eq!(faults(&two), ["server 3 (c:3): refused", "server 3 is not a member"]);

        let unreachable =
            asked([answer(1, "primary", "-", "-"), backup(2), Err(Unreached::NoAnswer)]);
        assert_eq!(faults(&unreachable), ["server 3 (c:3): no answer"]);

        let full = asked([answer(1, "primary", "-", "for space"), backup(2), backup(3)]);
        assert_eq!(faults(&full)[..2], ["no server takes changes", "a:1: for space"]);

        let dead = asked([(); 3].map(|()| Err(Unreached::NoName("gone".to_owned()))));
        assert_eq!(faults(&dead).len(), 4);
        assert_eq!(faults(&dead)[0], "server 1 (a:1): no such name (gone)");
    }

    #[test]
    fn a_server_may_be_asked_by_another_name() {
        let mut asked = asked([
            answer(2, "backup", "-", "not primary; server 1 is"),
            Err(Unreached::Refused),
            Err(Unreached::Refused),
        ]);
        asked[0].0 = "localhost:2".to_owned();
        assert_eq!(find(&asked, "b:2").unwrap().0, "localhost:2");
        assert_eq!(find(&asked, "c:3").unwrap().0, "c:3");
        assert_eq!(find(&asked, "a:1"), None);
    }

    #[test]
    fn a_table_has_a_row_for_each_server() {
        let why = Unreached::NoName("a long story".to_owned());
        let asked = asked([answer(1, "primary", "-", "-"), Err(why), Err(Unreached::Refused)]);
        let table = table(&asked);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("a:1     primary  -"), "{table}");
        assert!(lines[2].ends_with("no such name (a long story)"), "{table}");
    }
}
