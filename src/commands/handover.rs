//! `postern handover`: the primary gives its role to a backup.

use super::ask::ask_all;
use super::operator::{NoAnswer, PATIENCE, PAUSE, ask, name};
use super::{Answer, is};
use crate::ids::ServerId;
use crate::options;
use crate::replica::{Packet, Verdict};
use crate::settings::Settings;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// Orders the handover, and prints the new primary.
///
/// # Errors
/// Returns a one-line message that states why the role was not handed over.
#[cold]
pub fn run(options: &options::Handover) -> Result<ExitCode, String> {
    let settings = Settings::read(&options.config)?;
    // The primary abandons a handover after the peer timeout; a successful election takes at most
    // as long.
    let peer_timeout = Duration::from_millis(settings.peer_timeout_ms.into());
    let deadline = Instant::now() + 2 * peer_timeout + PATIENCE;
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
    let giver = order(&settings, to, deadline)?;
    let heir = wait(&settings, giver, deadline)?;
    super::print(format!("{} is primary now\n", name(&settings, heir)))
}

fn ask_states(settings: &Settings) -> Vec<Option<Answer>> {
    ask_all(&settings.servers, PATIENCE).into_iter().map(Result::ok).collect()
}

/// Tries the servers in turn until the primary accepts the order. Returns its place in the list.
fn order(settings: &Settings, to: Option<ServerId>, deadline: Instant) -> Result<usize, String> {
    loop {
        let mut failures = vec!["no server is primary".to_owned()];
        for slot in 0..settings.servers.len() {
            let server = name(settings, slot);
            match hand_over(settings, slot, to) {
                Ok(Verdict::Taken) => {
                    log::debug!("{server} hands over");
                    return Ok(slot);
                }
                Ok(Verdict::NotPrimary) => {}
                Ok(Verdict::NoBackup) => {
                    let none = to.map_or("none is".to_owned(), |to| format!("server {to} is not"));
                    return Err(format!(
                        "{server}: there is no backup that could take over: {none} connected, \
                         reachable and not stopping"
                    ));
                }
                Ok(Verdict::OtherGroup) => return Err(format!("{server}: is of another group")),
                Err(why) => failures.push(format!("{server}: {why}")),
            }
        }
        // During a takeover there is a new primary in a moment.
        if failures.len() > settings.servers.len() || Instant::now() >= deadline {
            return Err(failures.join("; "));
        }
        thread::sleep(PAUSE);
    }
}

fn hand_over(settings: &Settings, slot: usize, to: Option<ServerId>) -> Result<Verdict, String> {
    let order = Packet::Order { group: settings.group, to };
    match ask(settings, slot, (order, &[]), PATIENCE) {
        Ok((Packet::Verdict(verdict), _)) => Ok(verdict),
        Ok(_) => Err("its answer is no verdict".to_owned()),
        Err(NoAnswer::Unasked(why) | NoAnswer::Lost(why)) => Err(why),
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
