//! `postern-load compare`: the same load on other systems, if they are installed.

mod beanstalkd;
mod lines;
mod nats;
mod redis;
mod servers;
mod table;

use crate::baseline::Probe;
use crate::failover::kill_primary;
use crate::failover::next_ack::{Client, next_ack};
use crate::run::counts::Counts;
use crate::run::load::{MakeProtocol, Part};
use crate::run::plan::Clients;
use crate::run::protocol::Protocol;
use crate::run::{self, report::Report};
use clap::Args;
use postern::time::WallTime;
use postern_testkit::client::{self, Client as TextClient};
use postern_testkit::group::{self, Group, SERVERS, binary_beside_this};
use postern_testkit::{print, process};
use servers::Servers;
use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use table::{Comparison, Row};
use tempfile::TempDir;

/// Connections, and outstanding requests of each.
const SETTINGS: [(usize, usize); 3] = [(1, 1), (64, 1), (64, 16)];
const WARM_UP: Duration = Duration::from_secs(1);
/// More than any system needs for an answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// After a kill, a request without an answer is repeated after this time: some are never answered.
const KILL_TIMEOUT: Duration = Duration::from_millis(100);
/// Messages that a system must acknowledge before its leader is killed.
const BEFORE_KILL: usize = 100;
/// Of each probe of the baseline, before the systems and after them.
const BASELINE_TIME: Duration = Duration::from_millis(500);
const POSTERN_MEANING: &str = "`SEND`: on the disks of all three servers (of those that are \
                               members), and never lost afterwards";

/// Options of `postern-load compare`.
#[derive(Debug, Args)]
pub struct Options {
    /// The `postern` binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    postern: Option<PathBuf>,
    /// Measured time of each setting; each system has three settings.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Also kill the leader of each system N times.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=100))]
    kills: u32,
    /// Compare postern only with these.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    #[arg(value_parser = SYSTEMS.map(|system| system.key))]
    only: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Creates the protocol state of a connection, by its number: each has its own queue.
type NewProtocol = fn(usize) -> Box<dyn Protocol>;

/// A system in one configuration.
struct System {
    /// Its name for `--only` and in JSON.
    key: &'static str,
    /// Its name in tables, and its configuration if there are several.
    name: &'static str,
    variant: &'static str,
    program: &'static str,
    /// The argument that prints its version.
    version: &'static str,
    /// What an acknowledgement means, and where that is less than postern's.
    meaning: &'static str,
    /// Starts it and waits until it accepts requests.
    start: fn(&Path, TempDir) -> Result<Servers, String>,
    protocol: NewProtocol,
    /// The protocol while one of three servers is lost; `None` without failover.
    survivor: Option<NewProtocol>,
}

const SYSTEMS: [System; 4] =
    [redis::PER_MESSAGE, redis::PER_BATCH, nats::SYSTEM, beanstalkd::SYSTEM];

/// Prints what the systems reach beside postern.
///
/// # Errors
/// An installed system could not be measured; the rest is printed.
pub fn run(options: &Options) -> Result<(), String> {
    if cfg!(debug_assertions) {
        note("built without --release: these figures mean little");
    }
    process::raise_file_limit();
    let binary = options.postern.clone().map_or_else(binary_beside_this, Ok)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut all = Comparison {
        date: WallTime::from_system(SystemTime::now()).rfc3339().to_string(),
        command: format!("postern-load {}", arguments.join(" ")),
        machine: machine(),
        seconds: options.seconds,
        ..Comparison::default()
    };
    let measure_baseline = |all: &mut Comparison| {
        note("baseline of the machine");
        all.baseline.measure(Probe::ALL, group::folder("compare")?.path(), BASELINE_TIME)
    };
    measure_baseline(&mut all)?;
    all.rows.push(measure_postern(&binary, options).map_err(|why| format!("postern: {why}"))?);
    for system in SYSTEMS {
        if !options.only.is_empty() && !options.only.iter().any(|name| name == system.key) {
            continue;
        }
        match servers::find(system.program) {
            None => all.not_installed.push(system.program.to_owned()),
            Some(program) => match system.measure(&program, options) {
                Ok(row) => all.rows.push(row),
                Err(why) => all.failures.push(format!("{}: {why}", system.key)),
            },
        }
    }
    all.not_installed.dedup();
    measure_baseline(&mut all)?;
    let json = || serde_json::to_string(&all).map_err(|error| error.to_string());
    print(&if options.json { json()? + "\n" } else { all.markdown() })?;
    match &all.failures[..] {
        [] => Ok(()),
        failures => Err(format!("could not measure all: {}", failures.join("; "))),
    }
}

fn measure_postern(binary: &Path, options: &Options) -> Result<Row, String> {
    let version = version(binary, "--version")?;
    let mut row = Row::new("postern", format!("postern {version}"), version, POSTERN_MEANING);
    let mut group = Group::start(binary, false)?;
    let primary = group.settle()?;
    let processes = (0..SERVERS).map(|at| Ok((format!("server {}", at + 1), group.pid(at)?)));
    let processes = processes.collect::<Result<Vec<_>, String>>()?;
    let server = group.address(primary);
    for setting in SETTINGS {
        let mut part = run::create_parts(&[server], &[clients(setting)?])?.remove(0);
        // The others' messages are not read back, either.
        part.accounts = None;
        let measured = measure(&row.title, server, &processes, part, options.seconds);
        row.runs.push(measured.map_err(|why| format!("{why}\n{}", group.last_words()))?);
    }
    drop(group);
    for _ in 0..options.kills {
        note("postern, kill -9 of the primary");
        let mut group = Group::start(binary, false)?;
        let primary = group.settle()?;
        client::create_accounts(group.address(primary))?;
        let mut client = TextClient::log_in(group.address(primary))?;
        (0..BEFORE_KILL).try_for_each(|_| client.must(&client::send(BEFORE_KILL)))?;
        row.add_kill(kill_primary(&mut group)?);
    }
    Ok(row)
}

impl System {
    fn measure(&self, program: &Path, options: &Options) -> Result<Row, String> {
        let version = version(program, self.version)?;
        let comma = if self.variant.is_empty() { "" } else { ", " };
        let title = format!("{} {version}{comma}{}", self.name, self.variant);
        let mut row = Row::new(self.key, title, version, self.meaning);
        let mut servers = (self.start)(program, group::folder("compare")?)?;
        let connections = Rc::new(Cell::new(0));
        let new = self.protocol;
        let protocol: MakeProtocol = Rc::new(move || {
            connections.set(connections.get() + 1);
            new(connections.get())
        });
        for setting in SETTINGS {
            let clients = clients(setting)?;
            let part = Part { clients, protocol: protocol.clone(), accounts: None };
            let (server, processes) = (servers.address(), servers.processes());
            let measured = measure(&row.title, server, &processes, part, options.seconds);
            let measured = measured.and_then(|report| servers.check_all_run().map(|()| report));
            row.runs.push(measured.map_err(|why| why + &servers.last_lines())?);
        }
        drop(servers);
        let Some(survivor) = self.survivor else { return Ok(row) };
        for _ in 0..options.kills {
            note(&format!("{}, kill -9 of the leader", row.title));
            let mut servers = (self.start)(program, group::folder("compare")?)?;
            let took = self.kill_leader(&mut servers, survivor);
            row.add_kill(took.map_err(|why| why + &servers.last_lines())?);
        }
        Ok(row)
    }

    fn kill_leader(
        &self,
        servers: &mut Servers,
        survivor: NewProtocol,
    ) -> Result<Duration, String> {
        let new = || (self.protocol)(0);
        let mut client = Client::new(servers.address(), &new, TIMEOUT);
        (0..BEFORE_KILL).try_for_each(|_| client.store(b"0.0 before"))?;
        let connections = AtomicUsize::new(1);
        let new = || survivor(connections.fetch_add(1, Ordering::Relaxed));
        next_ack(&servers.other_addresses(), &new, KILL_TIMEOUT, || servers.kill_leader())
    }
}

fn clients((connections, outstanding): (usize, usize)) -> Result<Clients, String> {
    Clients { connections, outstanding, ..Clients::default() }.complete()
}

/// Drives one setting.
fn measure(
    title: &str,
    server: SocketAddr,
    processes: &[(String, u32)],
    part: Part,
    seconds: u64,
) -> Result<Report, String> {
    note(&format!("{title}, {}×{}", part.clients.connections, part.clients.outstanding));
    let spans = [WARM_UP, Duration::from_secs(seconds), TIMEOUT];
    let report = run::watch(&[server], processes, vec![part], spans, false)?.verified()?;
    match &report.outcome.counts {
        Counts { acked: 0, errors, .. } => Err(format!("no acknowledgement; errors: {errors:?}")),
        _ => Ok(report),
    }
}

/// Prints progress to standard error.
fn note(what: &str) {
    // The comparison goes on if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{what}");
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = procfs::sys::kernel::Version::current();
    let kernel =
        kernel.map_or(String::new(), |it| format!("{}.{}.{}", it.major, it.minor, it.patch));
    format!("{cores} cores, Linux {kernel}")
}

/// Returns the version that a program prints: the first word that begins with a digit.
fn version(program: &Path, argument: &str) -> Result<String, String> {
    let text = postern_testkit::run(Command::new(program).arg(argument))?;
    find_version(&text).ok_or_else(|| format!("{}: prints no version: {text}", program.display()))
}

fn find_version(text: &str) -> Option<String> {
    let words =
        text.split([' ', '\n']).map(|word| word.trim_start_matches("v=").trim_start_matches('v'));
    let mut words = words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    words.next().map(str::to_owned)
}

#[cfg(test)]
mod tests;
