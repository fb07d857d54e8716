//! `postern handover`: the primary gives its role to a backup.

use super::ask::ask_all;
use super::operator::{Failure, PATIENCE, PAUSE, ask, ask_in_turn, deadline, name};
use super::{Answer, is};
use crate::ids::ServerId;
use crate::options;
use crate::replica::{Packet, Verdict};
use crate::settings::Settings;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

/// Orders the handover, and prints the new primary.
///
/// # Errors
/// Returns a one-line message that states why the role was not handed over.
#[cold]
pub fn run(options: &options::Handover) -> Result<ExitCode, String> {
    let settings = Settings::read(&options.config)?;
    // The primary abandons a handover after the peer timeout; a successful election takes at most
    // as long.
    let deadline = deadline(&settings);
    let to = options.to.and_then(ServerId::new);
    if to.is_some_and(|to| to.slot() >= settings.servers.len()) {
        let (config, count) = (options.config.display(), super::servers(settings.servers.len()));
        return Err(format!("{config}: lists {count}; --to names none of them"));
    }
    if let Some(slot) = to.map(ServerId::slot)
        && newest_primary(&ask_states(&settings)) == Some(slot)
    {
        return super::print(format!("{} is primary already\n", name(&settings, slot)));
    }
    let order = |slot| order(&settings, to, slot);
    let giver = ask_in_turn(&settings, deadline, "postern status", order)?;
    let heir = wait(&settings, giver, deadline)?;
    super::print(format!("{} is primary now\n", name(&settings, heir)))
}

fn ask_states(settings: &Settings) -> Vec<Option<Answer>> {
    ask_all(&settings.servers, PATIENCE).into_iter().map(Result::ok).collect()
}

/// Orders the server at a place of the list to hand over. Returns that place if it does.
fn order(settings: &Settings, to: Option<ServerId>, slot: usize) -> Result<usize, Failure> {
    let server = name(settings, slot);
    let order = Packet::Order { group: settings.shared.group, to };
    let (Packet::Verdict(verdict), _) = ask(settings, slot, (order, &[]), PATIENCE)? else {
        return Err(Failure::Lost("invalid response".to_owned()));
    };
    match verdict {
        Verdict::Taken => {
            log::debug!("{server} hands over");
            Ok(slot)
        }
        Verdict::NotPrimary => Err(Failure::Elsewhere("it is not primary".to_owned())),
        Verdict::NoBackup => {
            let none = to.map_or("none is".to_owned(), |to| format!("server {to} is not"));
            Err(Failure::Refused(format!(
                "{server}: there is no backup that could take over: {none} connected, reachable \
                 and not stopping"
            )))
        }
        Verdict::OtherGroup => Err(Failure::Refused(format!("{server}: is of another group"))),
    }
}

/// Waits until another server is primary. Returns its place in the list.
fn wait(settings: &Settings, giver: usize, deadline: Instant) -> Result<usize, String> {
    loop {
        let answers = ask_states(settings);
        if let Some(heir) = newest_primary(&answers).filter(|newest| *newest != giver) {
            return Ok(heir);
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "{}: the handover did not come about; `postern status` shows how things are",
                name(settings, giver)
            ));
        }
        thread::sleep(PAUSE);
    }
}

/// Returns the server of the highest term among those that claim to be primary. A server that has
/// lost the role may not know it yet.
fn newest_primary(answers: &[Option<Answer>]) -> Option<usize> {
    let primaries = answers.iter().enumerate().filter_map(|(slot, answer)| {
        let answer = answer.as_ref().filter(|answer| is(answer, "role", "primary"))?;
        Some((term(answer.get("term")?)?, slot))
    });
    primaries.max().map(|(_, slot)| slot)
}

/// Parses a term as STATUS shows it: its epoch, if it is not the first, and its number.
fn term(text: &str) -> Option<(u16, u64)> {
    let (epoch, number) = text.split_once('.').unwrap_or(("0", text));
    Some((epoch.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(role: &str, term: &str) -> Option<Answer> {
        let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Some([("role", role), ("term", term)].map(pair).into_iter().collect())
    }

    #[test]
    fn the_primary_of_the_highest_term_counts() {
        let old = answer("primary", "9");
        assert_eq!(newest_primary(&[old.clone(), answer("backup", "10"), None]), Some(0));
        assert_eq!(newest_primary(&[old.clone(), answer("primary", "10"), None]), Some(1));
        assert_eq!(newest_primary(&[answer("primary", "1.1"), old]), Some(0));
        assert_eq!(newest_primary(&[None, answer("candidate", "3"), None]), None);
        assert_eq!(newest_primary(&[answer("primary", "nonsense"), None]), None);
    }
}
