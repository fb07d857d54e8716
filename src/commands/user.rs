//! `postern user`: manages accounts as an operator, authenticated by the group's secret.

use super::operator::{Failure, ask, ask_in_turn, deadline};
use super::{Named, person};
use crate::limits::USERS_PER_ANSWER;
use crate::options::{self, UserCommand};
use crate::protocol;
use crate::replica::Packet;
use crate::settings::Settings;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How long a password may wait for its turn to be hashed.
const HASHES_TIME: Duration = Duration::from_secs(20);

/// Lists, creates, changes or deletes accounts.
///
/// # Errors
/// Returns a one-line message that states why the command failed.
#[cold]
pub fn run(options: &options::User) -> Result<ExitCode, String> {
    let settings = Settings::read(&options.config)?;
    match &options.what {
        UserCommand::List => list(&settings)?,
        UserCommand::Add(account) => {
            request(&settings, &["CREATE", &account.name, &person::new_password(account)?])?;
        }
        UserCommand::Passwd(account) => {
            request(&settings, &["RESET", &account.name, &person::new_password(account)?])?;
        }
        UserCommand::Delete { name, yes } => {
            if !yes {
                confirm(name)?;
            }
            request(&settings, &["REMOVE", name])?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks for confirmation before an account is deleted, since nothing can restore it.
fn confirm(name: &str) -> Result<(), String> {
    if !io::stdin().is_terminal() {
        return Err(format!(
            "{name}: nobody can be asked here; --yes deletes it without a question"
        ));
    }
    print!("Delete {name} and all messages in its mailbox? Type the name again: ");
    let mut line = String::new();
    let answer = io::stdout().flush().and_then(|()| io::stdin().read_line(&mut line));
    answer.named("stdin")?;
    match line.trim() == name {
        true => Ok(()),
        false => Err(format!("{name}: nothing was deleted")),
    }
}

/// Prints all accounts, requesting a bounded number at a time.
fn list(settings: &Settings) -> Result<(), String> {
    let mut after = String::new();
    loop {
        let words = ["USERS", &after];
        let users = request(settings, if after.is_empty() { &words[..1] } else { &words })?;
        let mut text = String::new();
        for user in users.iter().filter_map(|line| line.strip_prefix("USER ")) {
            text += user;
            text.push('\n');
            after = user.split(' ').next().unwrap_or_default().to_owned();
        }
        super::print(text)?;
        if users.len() < USERS_PER_ANSWER {
            return Ok(());
        }
    }
}

/// Tries the servers in turn until the primary answers. Returns the lines before its `OK`.
fn request(settings: &Settings, words: &[&str]) -> Result<Vec<String>, String> {
    if words.iter().any(|word| word.is_empty() || word.contains(' ')) {
        return Err("a name or a password is one word, without spaces".to_owned());
    }
    let line = words.join(" ");
    // A request that every server would refuse is not sent.
    protocol::parse_operator(line.as_bytes()).map_err(|refusal| refusal.words.to_owned())?;
    let request = Packet::Request { group: settings.shared.group };
    // A change may wait one peer timeout for an unreachable member, and a password for its turn
    // to be hashed.
    let patience = 3 * Duration::from_millis(settings.shared.peer_timeout_ms.into()) + HASHES_TIME;
    ask_in_turn(settings, deadline(settings), "postern user list", |slot| {
        match ask(settings, slot, (request, line.as_bytes()), patience)? {
            (Packet::Answer, lines) => judge(&String::from_utf8_lossy(&lines)),
            _ => Err(Failure::Lost("invalid response".to_owned())),
        }
    })
}

/// Returns the lines before the `OK` of an answer.
fn judge(answer: &str) -> Result<Vec<String>, Failure> {
    let mut lines = answer.lines().filter(|line| !line.starts_with("NOTE "));
    let last = lines.next_back().unwrap_or_default();
    if last == "OK" || last.starts_with("OK ") {
        return Ok(lines.map(str::to_owned).collect());
    }
    let Some(error) = last.strip_prefix("ERR ") else {
        return Err(Failure::Refused("the server gave no answer".to_owned()));
    };
    let (code, words) = error.split_once(' ').unwrap_or((error, ""));
    Err(match code {
        // The first word is the address of the primary.
        "not-primary" => Failure::Elsewhere(words.split_once(' ').map_or("", |w| w.1).to_owned()),
        "not-ready" | "busy" => Failure::Elsewhere(words.to_owned()),
        _ => Failure::Refused(format!("{words} ({code})")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_their_last_line() {
        let done = |lines: &[&str]| Ok(lines.iter().map(|l| (*l).to_owned()).collect());
        for (answer, expected) in [
            ("OK ann\n", done(&[])),
            (
                "USER ann online\nUSER bob offline\nOK 2\n",
                done(&["USER ann online", "USER bob offline"]),
            ),
            (
                "ERR exists there is one\n",
                Err(Failure::Refused("there is one (exists)".to_owned())),
            ),
            (
                "ERR not-primary - nobody\nNOTE not-primary another one\n",
                Err(Failure::Elsewhere("nobody".to_owned())),
            ),
        ] {
            assert_eq!(judge(answer), expected, "{answer}");
        }
    }
}
