//! `postern user`: manages accounts as an operator, authenticated by the group's secret.

use super::operator::{NoAnswer, PATIENCE, PAUSE, ask, name};
use super::{Named, person};
use crate::limits::USERS_PER_ANSWER;
use crate::options::{self, UserCommand};
use crate::protocol;
use crate::replica::Packet;
use crate::settings::Settings;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

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
    let request = Packet::Request { group: settings.group };
    // A change may wait one peer timeout for an unreachable member, and a password for its turn
    // to be hashed.
    let peer_timeout = Duration::from_millis(settings.peer_timeout_ms.into());
    let patience = 3 * peer_timeout + HASHES_TIME;
    let deadline = Instant::now() + 2 * peer_timeout + PATIENCE;
    loop {
        let (mut excuses, mut heard) = (Vec::new(), false);
        for slot in 0..settings.servers.len() {
            let server = name(settings, slot);
            let why = match ask(settings, slot, (request, line.as_bytes()), patience) {
                Ok((Packet::Answer, lines)) => match judge(&String::from_utf8_lossy(&lines)) {
                    Judgement::Done(lines) => return Ok(lines),
                    Judgement::Refused(why) => return Err(why),
                    Judgement::Elsewhere(why) => {
                        heard = true;
                        why
                    }
                },
                Ok(_) => "invalid response".to_owned(),
                Err(NoAnswer::Unasked(why)) => why,
                Err(NoAnswer::Lost(why)) => {
                    return Err(format!("{server}: {why}; it may be done: see postern user list"));
                }
            };
            excuses.push(format!("{server}: {why}"));
        }
        // During a takeover there is a new primary in a moment.
        if !heard || Instant::now() >= deadline {
            return Err(excuses.join("; "));
        }
        thread::sleep(PAUSE);
    }
}

/// The meaning of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Done(Vec<String>),
    Refused(String),
    /// Another server may be able to do it.
    Elsewhere(String),
}

fn judge(answer: &str) -> Judgement {
    let mut lines = answer.lines().filter(|line| !line.starts_with("NOTE "));
    let last = lines.next_back().unwrap_or_default();
    if last == "OK" || last.starts_with("OK ") {
        return Judgement::Done(lines.map(str::to_owned).collect());
    }
    let Some(error) = last.strip_prefix("ERR ") else {
        return Judgement::Refused("the server gave no answer".to_owned());
    };
    let (code, words) = error.split_once(' ').unwrap_or((error, ""));
    match code {
        // The first word is the address of the primary.
        "not-primary" => Judgement::Elsewhere(words.split_once(' ').map_or("", |w| w.1).to_owned()),
        "not-ready" | "busy" => Judgement::Elsewhere(words.to_owned()),
        _ => Judgement::Refused(format!("{words} ({code})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_their_last_line() {
        let done =
            |lines: &[&str]| Judgement::Done(lines.iter().map(|l| (*l).to_owned()).collect());
        for (answer, expected) in [
            ("OK ann\n", done(&[])),
            (
                "USER ann online\nUSER bob offline\nOK 2\n",
                done(&["USER ann online", "USER bob offline"]),
            ),
            ("ERR exists there is one\n", Judgement::Refused("there is one (exists)".to_owned())),
            (
                "ERR not-primary - nobody\nNOTE not-primary another one\n",
                Judgement::Elsewhere("nobody".to_owned()),
            ),
        ] {
            assert_eq!(judge(answer), expected, "{answer}");
        }
    }
}
