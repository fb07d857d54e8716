//! `postern check`: prints what the files of a stopped server hold, and what of it is damaged.

use super::{Named, exit_code};
use crate::ids::{Position, Vote};
use crate::options;
use crate::store::check::{Findings, check, is_of_server};
use crate::store::disk::RealDisk;
use std::process::ExitCode;

/// Prints what a data directory holds. Fails if any of it is damaged.
///
/// # Errors
/// Returns a one-line message that states why the directory cannot be read.
#[cold]
pub fn run(options: &options::Check) -> Result<ExitCode, String> {
    let data = &options.data;
    let shown = data.display();
    let disk = RealDisk::read_only(data).named(&shown)?;
    if !is_of_server(&disk).named(&shown)? {
        return Err(format!("{shown}: holds nothing of a server"));
    }
    let _lock = super::directory::hold_unchanged(data)?;
    let findings = check(&disk).named(&shown)?;
    super::print(report(&findings))?;
    Ok(exit_code(findings.damage.is_empty()))
}

/// Returns what was found, one thing a line.
pub(super) fn report(findings: &Findings) -> String {
    let mut text = String::new();
    let mut row = |name: &str, what: String| text += &format!("{name:12}{what}\n");
    if let Some(identity) = &findings.identity {
        row("group", identity.group.to_string());
        row("server", format!("{} of {}", identity.id, identity.servers));
        row("disk", identity.disk.to_string());
        row("incarnation", identity.incarnation.0.to_string());
    } else {
        row("identity", "-".to_owned());
    }
    let Vote { term, given, .. } = findings.vote.unwrap_or_default();
    row("term", findings.vote.map_or("-".to_owned(), |_| term.to_string()));
    row("vote", given.map_or("-".to_owned(), |member| member.to_string()));
    for segment in &findings.segments {
        let (first, last, entries) = (segment.first, segment.last, segment.entries);
        let range = if entries == 0 { "-".to_owned() } else { format!("{first}..{last}") };
        let bytes = segment.bytes;
        row("segment", format!("{}: {range}, {entries} entries, {bytes} bytes", segment.file));
    }
    let last = Some(findings.last).filter(|last| *last != Position::default());
    let last = last.map(|last| format!("{last}, of {}", findings.last_time.rfc3339()));
    row("last", last.unwrap_or("-".to_owned()));
    let members = findings.config.map(|(at, config)| format!("{config} (entry {at})"));
    row("members", members.unwrap_or("-".to_owned()));
    if let Some(at) = findings.unread_config {
        row("members", format!("unreadable (entry {at}): may be others"));
    }
    if let Some(torn) = &findings.torn {
        let (file, at, bytes, why) = (&torn.file, torn.at, torn.bytes, torn.why);
        row("torn tail", format!("{file}: {bytes} bytes at byte {at}: {why}"));
    }
    for damage in &findings.damage {
        row("damaged", damage.clone());
    }
    if findings.damage.is_empty() {
        row("sound", "every record is as it was written".to_owned());
    }
    text
}
