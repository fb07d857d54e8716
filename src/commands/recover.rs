//! `postern recover`: an operator continues with one stopped server alone, because the others are
//! lost.
//!
//! Without the word of `--yes` it changes nothing, and prints what it would do. The word depends
//! on everything that was read: the command acts on exactly what the operator has read, or not at
//! all.

use super::check::report;
use super::directory::{hold_or_make, hold_unchanged, identity, label, random, recovery};
use super::operator::{connect, name, shake};
use super::{Named, Unreached};
use crate::ids::{DiskId, Member, Position, ServerId, Term};
use crate::options;
use crate::replica::Beginning;
use crate::settings::Settings;
use crate::store::check::{Findings, check};
use crate::store::disk::RealDisk;
use crate::store::{Former, Identity, Store};
use crate::time::WallTime;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

/// Prints what a directory holds and what may be lost. With the right word, starts a new epoch
/// with this server alone.
///
/// # Errors
/// Returns a one-line message that states why nothing was changed.
#[cold]
pub fn run(options: &options::Recover) -> Result<ExitCode, String> {
    let settings = Settings::read(&options.config)?;
    let absent = find_absent(&settings)?;
    let mut plan = Plan::read(&settings, options)?;
    super::print(match &options.yes {
        None => plan.report(options, &absent),
        Some(word) if *word == plan.word() => plan.act(&settings, options)?,
        Some(word) => {
            return Err(format!(
                "--yes {word}: is not the word for what is there now; run it without --yes"
            ));
        }
    })
}

fn inspect(data: &Path) -> Result<Findings, String> {
    let disk = RealDisk::read_only(data).named(data.display())?;
    check(&disk).named(data.display())
}

/// Returns a folder relative to the data directory, whether `from` includes that directory or
/// not.
fn within<'a>(options: &options::Recover, from: &'a Path) -> &'a Path {
    from.strip_prefix(&options.data).unwrap_or(from)
}

/// Names the quarantined log with the highest last entry, from which the operator can continue
/// instead.
fn elsewhere(options: &options::Recover, findings: &Findings) -> String {
    let best = findings.former.iter().max_by_key(|former| former.last);
    best.map_or_else(String::new, |Former { folder, last, .. }| {
        let command = recovery(&options.config, &options.data);
        format!("; {folder} holds some, up to entry {last}: {command} --from {folder}")
    })
}

/// Makes sure that no server of the group answers. Returns for each server why it did not.
fn find_absent(settings: &Settings) -> Result<Vec<String>, String> {
    let mut absent = Vec::new();
    for (slot, server) in settings.servers.iter().enumerate() {
        let name = name(settings, slot);
        match connect(server).map(|stream| shake(settings, stream)) {
            Err(why) => absent.push(format!("{name}: {why}")),
            Ok(Ok(_)) => {
                return Err(format!(
                    "{name} answers: a server may continue alone only when the others are lost; if \
                     that one is no longer primary of a group, stop it first"
                ));
            }
            Ok(Err(Unreached::NoAnswer)) => {
                return Err(format!(
                    "{name} takes connections and says nothing: it may come back to life; stop it \
                     first"
                ));
            }
            // A server without room closes the connections that it accepts, but is alive.
            Ok(Err(error)) => {
                return Err(format!(
                    "{name} takes connections and ends them ({error}): stop whatever listens there \
                     first"
                ));
            }
        }
    }
    Ok(absent)
}

/// A data directory, locked so that no server starts on it.
struct Directory {
    path: PathBuf,
    findings: Findings,
    lock: Option<File>,
}

impl Directory {
    fn read(settings: &Settings, path: &Path) -> Result<Directory, String> {
        let lock = hold_unchanged(path)?;
        let findings = inspect(path)?;
        if let Some(Identity { group: found, .. }) = &findings.identity
            && *found != settings.shared.group
        {
            let (shown, wanted) = (path.display(), settings.shared.group);
            return Err(format!("{shown}: it belongs to group {found}, not to {wanted}"));
        }
        Ok(Directory { path: path.to_owned(), findings, lock })
    }

    /// Returns the highest term that its files record.
    fn term(&self) -> Term {
        let vote = self.findings.vote.map_or(Term::ZERO, |vote| vote.term);
        vote.max(self.findings.last.term)
    }
}

/// What was found, and what to do with the first of the directories.
struct Plan {
    /// Never empty.
    directories: Vec<Directory>,
    me: Member,
    begin: Beginning,
    /// The lock of the data directory to which the first directory is moved back.
    held: Option<File>,
}

impl Plan {
    fn read(settings: &Settings, options: &options::Recover) -> Result<Plan, String> {
        let source = match &options.from {
            Some(from) => options.data.join(within(options, from)),
            None => options.data.clone(),
        };
        // Two paths may lead to the same directory: locking it twice would report that it is in
        // use.
        let mut known = BTreeSet::new();
        let mut paths: Vec<&PathBuf> = std::iter::once(&source).chain(&options.also).collect();
        paths.retain(|path| known.insert(path.canonicalize().unwrap_or(path.to_path_buf())));
        let directories: Vec<Directory> =
            paths.iter().map(|path| Directory::read(settings, path)).collect::<Result<_, _>>()?;
        let shown = source.display();
        let held = if options.from.is_some() { hold_unchanged(&options.data)? } else { None };
        let findings = &directories[0].findings;
        let named = options.id.and_then(ServerId::new);
        let owner = |findings: &Findings| findings.identity.as_ref().map(|identity| identity.id);
        // A quarantined log has the same owner as the data directory.
        let found = match options.from {
            Some(_) => owner(findings).or(owner(&inspect(&options.data)?)),
            None => owner(findings),
        };
        let id = match (found, named) {
            (Some(found), Some(named)) if found != named => {
                return Err(format!("{shown}: it belongs to server {found}, not to {named}"));
            }
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => {
                return Err(format!(
                    "{shown}: whose it is can't be read in it: name its server by --id"
                ));
            }
        };
        if id.slot() >= settings.servers.len() {
            let servers = super::servers(settings.servers.len());
            return Err(format!("{shown}: the config file lists {servers}, there is no id {id}"));
        }
        let config = findings.config.filter(|_| findings.last != Position::default());
        let Some((_, config)) = config else {
            let elsewhere = elsewhere(options, findings);
            return Err(format!("{shown}: it holds no entry to continue from{elsewhere}"));
        };
        let newest = directories.iter().map(Directory::term).max().unwrap_or_default();
        let me = Member { id, disk: DiskId(random()?) };
        let begin = Beginning::new(me, newest, findings.last, config.gate_open);
        Ok(Plan { directories, me, begin, held })
    }

    /// Returns the directory whose last entry has the highest term, then the highest index.
    fn best(&self) -> &Directory {
        // Of equal ones, `max_by_key` returns the last.
        let from_last = self.directories.iter().rev();
        from_last.max_by_key(|directory| directory.findings.last).expect("one is given")
    }

    fn is_best(&self) -> bool {
        self.best().findings.last == self.directories[0].findings.last
    }

    /// Returns the word for `--yes`: a checksum of everything found, which only an operator who
    /// has read the current report knows.
    fn word(&self) -> String {
        let all: Vec<_> = self.directories.iter().map(|d| (&d.path, &d.findings)).collect();
        format!("{:08x}", crc32c::crc32c(format!("{all:?} {}", self.begin.term).as_bytes()))
    }

    fn report(&self, options: &options::Recover, absent: &[String]) -> String {
        let mut text = String::new();
        for directory in &self.directories {
            text += &describe(directory);
        }
        absent.iter().for_each(|absent| text += &format!("{absent}\n"));
        let best = self.best().path.display();
        if self.directories.len() > 1 {
            let last = self.best().findings.last;
            let equal = self.directories.iter().filter(|other| other.findings.last == last).count();
            text += &match equal {
                1 => format!("\nbest: {best} (the highest term, then the highest index)\n"),
                _ => format!("\n{equal} of them hold equally much, up to entry {last}\n"),
            };
        }
        let mut command = recovery(&options.config, &self.best().path);
        if !self.is_best() {
            for other in self.directories.iter().filter(|d| d.path != self.best().path) {
                command += &format!(" --also {}", other.path.display());
            }
            text += &format!("\nNothing was changed. Continue with the best one:\n  {command}\n");
            return text;
        }
        if let Some(from) = &options.from {
            let data = recovery(&options.config, &options.data);
            command = format!("{data} --from {}", within(options, from).display());
        }
        for also in &options.also {
            command += &format!(" --also {}", also.display());
        }
        if let Some(id) = options.id {
            command += &format!(" --id {id}");
        }
        let (id, epoch) = (self.me.id, self.begin.term.epoch());
        let (data, last) = (options.data.display(), self.directories[0].findings.last);
        text += &format!(
            "\nServer {id} would continue alone with {data}, as epoch {epoch}, after entry \
             {last}.\n\nWhat may be lost:\n"
        );
        for loss in losses(self.me.id, &self.directories[0].findings) {
            text += &format!("  {loss}\n");
        }
        if absent.len() > 1 {
            text += &format!(
                "\nThe others must not run without server {id} until they have joined it: start it \
                 first. They\nthen quarantine what they hold and it does not; nothing is deleted.\n"
            );
        }
        let word = self.word();
        text += &format!("\nNothing was changed. To do it:\n  {command} --yes {word}\n");
        text
    }

    fn act(&mut self, settings: &Settings, options: &options::Recover) -> Result<String, String> {
        if !self.is_best() {
            let best = self.best().path.display();
            return Err(format!("{best} is the better one: run it without --yes"));
        }
        let new = identity(&settings.shared, self.me.id, self.me.disk)?;
        let (me, begin) = (self.me, self.begin);
        let directory = &mut self.directories[0];
        let shown = options.data.display();
        let lock = if options.from.is_some() { &mut self.held } else { &mut directory.lock };
        if lock.is_none() {
            *lock = Some(hold_or_make(&options.data)?);
        }
        let disk = RealDisk::open(&options.data).named(&shown)?;
        if let Some(from) = &options.from {
            let from = within(options, from).display().to_string();
            Store::take_back(&disk, &from, &label()).named(&shown)?;
        }
        let last = directory.findings.last;
        let time = WallTime::from_system(SystemTime::now()).max(directory.findings.last_time);
        let entry = begin.entry(time);
        let folder = Store::salvage(disk, &new, begin.vote, &entry, &label());
        let folder = folder.named(&shown)?;
        let (id, epoch) = (me.id, begin.term.epoch());
        let mut text =
            format!("Server {id} continues alone, as epoch {epoch}, after entry {last}.\n");
        if let Some(folder) = folder {
            text +=
                &format!("What was damaged, and the entries after it, are in {shown}/{folder}.\n");
        }
        if settings.shared.servers > 1 {
            text += &format!(
                "Start server {id} first, then the others: `postern status` shows when they have \
                 joined.\n"
            );
        }
        Ok(text)
    }
}

/// Describes what a directory holds, for an operator who has to choose.
fn describe(directory: &Directory) -> String {
    let mut text = format!("{}\n", directory.path.display());
    for line in report(&directory.findings).lines() {
        text += &format!("  {line}\n");
    }
    let epoch = directory.term().epoch();
    if epoch > directory.findings.last.term.epoch() {
        text += &format!("  epoch       it knows of epoch {epoch}, and holds no entry of it\n");
    }
    text + "\n"
}

/// Returns what other servers may hold, or held, and what will be lost.
fn losses(id: ServerId, findings: &Findings) -> Vec<String> {
    let mut losses = Vec::new();
    let last = findings.last.index;
    if !findings.damage.is_empty() {
        let found: u64 = findings.segments.iter().map(|segment| segment.entries).sum();
        let after = found.saturating_sub(last.0);
        losses.push(format!(
            "the entries after {last}, which are damaged; {after} entries there can still be \
             read, and are quarantined"
        ));
    }
    let Some((_, config)) = findings.config else { return losses };
    let own = findings.identity.as_ref().map(|identity| identity.disk);
    let named = config.member(id).filter(|member| own.is_none_or(|own| member.disk == own));
    match named {
        None => losses.push(
            "this server was dropped before: everything that was acknowledged since".to_owned(),
        ),
        Some(_) if config.count() == 1 && findings.unread_config.is_none() => {}
        Some(_) => losses.push(
            "if the others dropped this server and continued: everything acknowledged since then"
                .to_owned(),
        ),
    }
    if losses.is_empty() {
        losses.push("nothing that was acknowledged: this server was the only member".to_owned());
    }
    losses
}
