//! `postern-load run`: many connections that send, read and reconnect, from one thread, and that
//! check every answer.
//!
//! * [`plan`]: the options of clients. `accounts` creates their accounts, `load` is what is
//!   driven. Other systems are driven by the same loop with their own `protocol`.
//! * `driver` has the phases of a run and `turn` one turn of its loop: over each
//!   `connection` with its `socket`, which is a `sender` with its `schedule` and [`text`]s,
//!   or a `receiver`.
//! * `check` judges all numbers and texts; `counts` counts and times.
//! * `cost`, `calls`, `local`: what the servers use of the machine; `report`: the result.

pub(crate) mod accounts;
pub mod background;
mod calls;
mod check;
mod connection;
pub(crate) mod cost;
pub mod counts;
pub(crate) mod driver;
pub mod load;
mod local;
pub mod plan;
pub(crate) mod postern;
pub(crate) mod protocol;
mod receiver;
pub(crate) mod report;
mod schedule;
mod sender;
mod socket;
pub mod text;
mod timer;
mod turn;

use crate::baseline::Baseline;
use accounts::Accounts;
use clap::Args;
use cost::Meter;
use counts::Interval;
use load::{Part, Progress};
use plan::Clients;
use postern_testkit::group::{Group, SERVERS, binary_beside_this};
use postern_testkit::{print, process};
use report::Report;
use std::io::{IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Options of `postern-load run`.
#[derive(Debug, Args)]
pub struct Options {
    /// Servers of a running group [default: start three, with temporary data].
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    servers: Vec<String>,
    /// The `postern` binary to start [default: the one beside this program].
    #[arg(long, value_name = "PATH", conflicts_with = "servers")]
    postern: Option<PathBuf>,
    /// Measured time.
    #[arg(short, long, value_name = "SECONDS", default_value = "10", value_parser = positive)]
    seconds: Duration,
    /// Time before the measured time.
    #[arg(short, long, value_name = "SECONDS", default_value = "2", value_parser = not_negative)]
    warm_up: Duration,
    /// Close a connection without an answer after this time.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = positive)]
    patience: Duration,
    /// Run several kinds of clients at once, from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "Clients")]
    mix: Option<PathBuf>,
    #[command(flatten)]
    clients: Clients,
    /// Count the servers' system calls, which slows them a little.
    #[arg(long)]
    syscalls: bool,
    /// Do not measure the baseline of the machine before and after.
    #[arg(long)]
    no_limits: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// A server and its process, if that runs on this machine.
type Server = (SocketAddr, Option<u32>);

/// Runs a load and prints the result.
///
/// # Errors
/// The load can't run, or the servers violate a guarantee; then the result is printed, too.
pub fn run(options: &Options) -> Result<(), String> {
    let clients = options.all_clients()?;
    process::raise_file_limit();
    let binary = || options.postern.clone().map_or_else(binary_beside_this, Ok);
    let group = match options.servers.is_empty() {
        true => Some(Group::start(&binary()?, false)?),
        false => None,
    };
    let with_logs = |why: String| match &group {
        Some(group) => format!("{why}\n{}", group.last_words()),
        None => why,
    };
    let servers = match &group {
        Some(group) => servers_of(group)?,
        None => resolve(&options.servers)?,
    };
    // The baseline of this machine says nothing about servers on others.
    let is_local = !options.no_limits && servers.iter().all(|(_, pid)| pid.is_some());
    let mut baseline = Baseline::default();
    if is_local {
        baseline.measure_for_load(group.as_ref())?;
    }
    let result = options.run_against(&servers, &clients);
    let mut report = result.map_err(with_logs)?;
    if is_local {
        baseline.measure_for_load(group.as_ref())?;
        report.compare(baseline);
    }
    let json = || serde_json::to_string(&report).map_err(|error| error.to_string());
    print(&if options.json { json()? + "\n" } else { report.text() })?;
    report.outcome.finding.map_or(Ok(()), |why| Err(with_logs(format!("wrong: {why}"))))
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

    fn run_against(&self, servers: &[Server], clients: &[Clients]) -> Result<Report, String> {
        let spans = [self.warm_up, self.seconds, self.patience];
        let report = drive_servers(servers, clients, spans, self.syscalls)?;
        if let Some(primary) = report.outcome.primary.filter(|_| !self.servers.is_empty()) {
            // The result is valid even if the accounts remain.
            let _ = report.accounts.iter().try_for_each(|one| accounts::delete(primary, one));
        }
        Ok(report)
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.1)
}

fn not_negative(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.0)
}

fn parse_seconds(text: &str, min: f64) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (min..=1e6).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("not {min} to 1000000 seconds"))
}

/// Drives clients on a group.
pub(crate) fn drive_group(
    group: &Group,
    clients: &[Clients],
    spans: [Duration; 3],
    counts_calls: bool,
) -> Result<Report, String> {
    drive_servers(&servers_of(group)?, clients, spans, counts_calls)?.verified()
}

fn drive_servers(
    servers: &[Server],
    clients: &[Clients],
    spans: [Duration; 3],
    counts_calls: bool,
) -> Result<Report, String> {
    let addresses: Vec<SocketAddr> = servers.iter().map(|(address, _)| *address).collect();
    let process = |(address, pid): &Server| Some((address.to_string(), (*pid)?));
    let processes: Vec<(String, u32)> = servers.iter().filter_map(process).collect();
    let parts = create_parts(&addresses, clients)?;
    watch(&addresses, &processes, parts, spans, counts_calls)
}

/// Drives parts on servers, and meters processes with their names.
pub(crate) fn watch(
    servers: &[SocketAddr],
    processes: &[(String, u32)],
    parts: Vec<Part>,
    spans: [Duration; 3],
    counts_calls: bool,
) -> Result<Report, String> {
    let (mut meters, mut costs) = (Vec::new(), Vec::new());
    let is_live = std::io::stderr().is_terminal();
    let show = |line: &str| {
        if is_live {
            // The run goes on if standard error is closed.
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        }
    };
    let mut report = |progress| match progress {
        Progress::Begin => {
            let begin = |process| Meter::begin(process, counts_calls);
            meters = processes.iter().filter_map(begin).collect();
        }
        Progress::Interval(interval) => show(&live_line(&interval)),
        Progress::End => {
            costs = meters.drain(..).filter_map(Meter::end).collect();
            show("");
        }
    };
    let clients = parts.iter().map(|part| part.clients.clone()).collect();
    let accounts = parts.iter().filter_map(|part| part.accounts.clone()).collect();
    let outcome = driver::drive(spans, parts, servers, &AtomicBool::new(false), &mut report)?;
    Ok(Report { clients, accounts, ..Report::new(outcome, costs) })
}

/// Creates new accounts for clients.
pub(crate) fn create_parts(
    servers: &[SocketAddr],
    clients: &[Clients],
) -> Result<Vec<Part>, String> {
    let primary = accounts::find_primary(servers)?;
    // A running group may still have the accounts of earlier runs.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = format!("{:x}", since.as_millis());
    let part = |(at, clients): (usize, &Clients)| {
        let accounts = Accounts::new(&run, at, clients);
        accounts::create(primary, &accounts, clients).map(|()| accounts.part(clients))
    };
    clients.iter().enumerate().map(part).collect()
}

/// Formats an interval for the live line.
fn live_line(interval: &Interval) -> String {
    let per_second = |count: u64| count as f64 / counts::seconds(interval.length.max(1));
    format!(
        "{:.0} s: {:.0} acks/s, {:.0} delivered/s, p99 {:.2} ms",
        counts::seconds(interval.began),
        per_second(interval.acked),
        per_second(interval.delivered),
        counts::ms(interval.latency.map_or(0, |[_, p99, _]| p99)),
    )
}

fn servers_of(group: &Group) -> Result<Vec<Server>, String> {
    (0..SERVERS).map(|at| Ok((group.address(at), Some(group.pid(at)?)))).collect()
}

fn resolve(servers: &[String]) -> Result<Vec<Server>, String> {
    let one = |server: &String| {
        let mut found = server.to_socket_addrs().map_err(|error| format!("{server}: {error}"))?;
        let address = found.next().ok_or_else(|| format!("{server}: has no address"))?;
        Ok((address, local::listener(address)))
    };
    servers.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
