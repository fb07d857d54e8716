//! `load`: many connections that send, read and come back, from one thread, and that check all
//! that they are told.
//!
//! * [`plan`]: what a person asks for; [`accounts`] makes of it what [`driver`] can drive, as
//!   [`parts`] describe it. Other systems are driven by the same loop with their own [`dialect`].
//! * [`driver`] begins and ends a run, [`turn`] is one turn of its loop: over each
//!   [`connection`], with its [`wire`], which is a [`sender`] with its [`schedule`] and [`text`]s,
//!   or a [`receiver`].
//! * [`check`] judges all numbers and texts; [`ledger`] counts and times.
//! * [`cost`], [`calls`], [`local`]: what the servers take of the machine; [`report`], [`plot`]:
//!   the result.

pub(crate) mod accounts;
pub mod background;
mod calls;
mod check;
pub(crate) mod connection;
mod cost;
pub(crate) mod dialect;
pub(crate) mod driver;
pub(crate) mod ledger;
mod local;
pub(crate) mod parts;
pub mod plan;
mod plot;
mod postern;
mod receiver;
pub(crate) mod report;
mod schedule;
mod sender;
pub mod text;
mod timer;
mod turn;
mod wire;

use self::postern::Accounts;
use crate::baseline::{Limit, Limits};
use clap::Args;
use cost::{Meter, Server};
use parts::{Live, Observer, Outcome};
use plan::Clients;
use postern_testkit::group::binary_beside_this;
use postern_testkit::group::{Group, SERVERS};
use postern_testkit::print;
use postern_testkit::process;
use report::Report;
use std::io::{IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Of each half of the measurement of each limit.
const LIMIT_TIME: Duration = Duration::from_millis(300);

/// Options of `postern-load run`.
#[derive(Debug, Args)]
pub struct Options {
    /// Servers of a group that runs; by default three are started, in a folder that is gone
    /// afterwards.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    servers: Vec<String>,
    /// The `postern` binary that is started; by default the one beside this program.
    #[arg(long, value_name = "PATH", conflicts_with = "servers")]
    postern: Option<PathBuf>,
    /// How long to measure.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// How long to let it run before.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 2.0)]
    warm_up: f64,
    /// A connection without an answer for so long counts as lost.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    patience: f64,
    /// Several kinds of clients at once, from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "Clients")]
    mix: Option<PathBuf>,
    #[command(flatten)]
    clients: Clients,
    /// Counts the servers' system calls, which makes them a little slower.
    #[arg(long)]
    syscalls: bool,
    /// Does not measure what the machine can do, before and after.
    #[arg(long)]
    no_limits: bool,
    /// Prints the result as one JSON object.
    #[arg(long)]
    json: bool,
    /// Draws latency and rate over time, as SVG, with takeovers and storms.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Runs the load and prints what came of it.
///
/// # Errors
/// It can't run, or what the servers did is wrong; then the result is printed all the same.
pub fn run(options: &Options) -> Result<(), String> {
    let clients = options.all_clients()?;
    let spans = options.spans()?;
    process::raise_file_limit();
    let group = match options.servers.is_empty() {
        true => Some(Group::start(&options.binary()?, false)?),
        false => None,
    };
    let local = match &group {
        Some(group) => of_group(group)?,
        None => resolve(&options.servers)?,
    };
    // A machine without servers says nothing of theirs.
    let has_limits = !options.no_limits && local.iter().all(|(_, pid)| pid.is_some());
    let mut limits = Limits::default();
    if has_limits {
        measure_limits(&mut limits, group.as_ref())?;
    }
    let outcome = options.run_against(&local, &clients, spans);
    let (mut report, finding) = match outcome {
        Ok(both) => both,
        Err(why) => return Err(with_last_words(&why, group.as_ref())),
    };
    if has_limits {
        measure_limits(&mut limits, group.as_ref())?;
        report.compare(limits);
    }
    let json = || serde_json::to_string(&report).map_err(|error| error.to_string());
    print(&if options.json { json()? + "\n" } else { report.text() })?;
    match finding {
        None => Ok(()),
        Some(why) => Err(with_last_words(&format!("wrong: {why}"), group.as_ref())),
    }
}

impl Options {
    fn all_clients(&self) -> Result<Vec<Clients>, String> {
        let Some(path) = &self.mix else {
            return Ok(vec![self.clients.clone().complete()?]);
        };
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let mix = text.and_then(|text| plan::read_mix(&text));
        mix.map_err(|why| format!("{}: {why}", path.display()))
    }

    fn binary(&self) -> Result<PathBuf, String> {
        self.postern.clone().map_or_else(binary_beside_this, Ok)
    }

    fn spans(&self) -> Result<[Duration; 3], String> {
        let of = |name: &str, seconds: f64, least: f64| {
            let good = (least..=1e6).contains(&seconds);
            let span = || Duration::from_secs_f64(seconds);
            good.then(span).ok_or_else(|| format!("{name}: {least} to 1000000 seconds"))
        };
        Ok([
            of("warm-up", self.warm_up, 0.0)?,
            of("seconds", self.seconds, 0.1)?,
            of("patience", self.patience, 0.1)?,
        ])
    }

    fn run_against(
        &self,
        servers: &[(SocketAddr, Option<u32>)],
        clients: &[Clients],
        spans: [Duration; 3],
    ) -> Result<(Report, Option<String>), String> {
        let (report, outcome, accounts) = watch_clients(servers, clients, spans, self.syscalls)?;
        if let Some(primary) = outcome.primary.filter(|_| !self.servers.is_empty()) {
            // What it has shown stands, even if its traces stay.
            let _ = accounts::delete(primary, &accounts);
        }
        if let Some(path) = &self.plot {
            let svg = plot::draw(&outcome.ledger, &report.title(), &report.subtitle())?;
            std::fs::write(path, svg).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok((report, outcome.finding))
    }
}

/// Measures the limits that figures of a load are shares of, in addition to what was measured
/// before: the disk's where these servers have their data; where others have it is not known.
pub(crate) fn measure_limits(limits: &mut Limits, group: Option<&Group>) -> Result<(), String> {
    if let Some(group) = group {
        limits.add(Limit::SyncThree, group.folder(), LIMIT_TIME)?;
    }
    limits.add(Limit::Echo, &std::env::temp_dir(), LIMIT_TIME)
}

/// Drives these clients on a group that was started here, and says what came of it.
///
/// # Errors
/// They can't be driven, or what the servers did is wrong.
pub(crate) fn drive_group(
    group: &Group,
    clients: &Clients,
    spans: [Duration; 3],
    counts_calls: bool,
) -> Result<Report, String> {
    let clients = [clients.clone().complete()?];
    let (report, outcome, _) = watch_clients(&of_group(group)?, &clients, spans, counts_calls)?;
    outcome.finding.map_or(Ok(report), Err)
}

/// Drives clients on servers, of which those with a process run here, and looks at these.
fn watch_clients(
    servers: &[(SocketAddr, Option<u32>)],
    clients: &[Clients],
    spans: [Duration; 3],
    counts_calls: bool,
) -> Result<(Report, Outcome, Vec<Rc<Accounts>>), String> {
    let local = servers.iter().filter_map(|(address, pid)| {
        let address = *address;
        pid.map(|pid| Server { address, pid })
    });
    let local: Vec<Server> = local.collect();
    let servers: Vec<SocketAddr> = servers.iter().map(|(address, _)| *address).collect();
    let mut watch =
        Watch { meter: Meter::new(&local, counts_calls), is_live: std::io::stderr().is_terminal() };
    let stop = AtomicBool::new(false);
    let (outcome, accounts) = drive_clients(&servers, clients, spans, &stop, &mut watch)?;
    watch.clear();
    let costs = watch.meter.costs(outcome.primary);
    Ok((Report::new(clients.to_vec(), &outcome, costs), outcome, accounts))
}

/// Makes new accounts in a group, and drives these clients until their time is over or `stop` is
/// set: warm-up, measured time, and patience. What came of it, and the accounts, which stay.
///
/// # Errors
/// The group has no primary, or does not let the clients in. All else is in the outcome.
pub(crate) fn drive_clients(
    servers: &[SocketAddr],
    clients: &[Clients],
    spans: [Duration; 3],
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(Outcome, Vec<Rc<Accounts>>), String> {
    let primary = accounts::find_primary(servers)?;
    // Names that a group which runs on has not seen yet, or only in another run that is over.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = format!("{:x}", since.as_millis());
    let accounts = accounts::accounts(&run, clients);
    accounts::create(primary, clients, &accounts)?;
    let load = accounts::load(clients, &accounts, spans);
    Ok((driver::drive(load, servers, stop, observer)?, accounts))
}

/// Shows the live line, and reads the meters in time.
struct Watch {
    meter: Meter,
    is_live: bool,
}

impl Watch {
    /// Takes the live line away.
    fn clear(&self) {
        if self.is_live {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Observer for Watch {
    fn begin(&mut self) {
        self.meter.begin();
    }

    fn end(&mut self) {
        self.meter.end();
    }

    fn second(&mut self, live: &Live) {
        if !self.is_live {
            return;
        }
        let primary = live.primary.map_or("nobody".to_owned(), |primary| primary.to_string());
        let delivered = match live.delivered {
            0.0 => String::new(),
            delivered => format!("{delivered:.0} delivered/s, "),
        };
        // Somebody who does not look any more is no reason to stop.
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[K{:.0} s: {:.0} acks/s, {delivered}p99 {:.2} ms, {} errors, primary {primary}",
            live.elapsed.as_secs_f64(),
            live.acked,
            live.p99.as_secs_f64() * 1e3,
            live.errors,
        );
    }
}

/// Addresses and processes.
fn of_group(group: &Group) -> Result<Vec<(SocketAddr, Option<u32>)>, String> {
    (0..SERVERS).map(|at| Ok((group.address(at), Some(group.pid(at)?)))).collect()
}

fn resolve(servers: &[String]) -> Result<Vec<(SocketAddr, Option<u32>)>, String> {
    let one = |server: &String| {
        let mut found = server.to_socket_addrs().map_err(|error| format!("{server}: {error}"))?;
        let address = found.next().ok_or_else(|| format!("{server}: has no address"))?;
        Ok((address, local::listener(address)))
    };
    servers.iter().map(one).collect()
}

fn with_last_words(why: &str, group: Option<&Group>) -> String {
    group.map_or(why.to_owned(), |group| format!("{why}\n{}", group.last_words()))
}

#[cfg(test)]
mod tests;
