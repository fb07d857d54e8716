//! `compare`: the same load on what people would use instead, where it is installed.

mod ask;
mod beanstalkd;
mod kills;
mod lines;
mod measure;
mod nats;
mod own;
mod peer;
mod redis;
mod servers;
mod table;

use crate::baseline::{Limit, Limits};
use clap::{Args, ValueEnum};
use measure::SETTINGS;
use peer::Peer;
use postern::time::WallTime;
use postern_testkit::group::binary_beside_this;
use postern_testkit::print;
use postern_testkit::{group, process};
use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};
use table::{Report, Row};

/// Of each half of the measurement of each limit.
const LIMIT_TIME: Duration = Duration::from_millis(500);

/// Options of `postern-load compare`.
#[derive(Debug, Args)]
pub struct Options {
    /// The `postern` binary; by default the one beside this program.
    #[arg(long, value_name = "PATH")]
    postern: Option<PathBuf>,
    /// How long each measurement is; each system has three of them.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often the leader of each system is killed, too.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=100))]
    kills: u32,
    /// Measures only these, beside postern.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<System>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    /// A group of three, which is always measured.
    Postern,
    /// Three servers with sentinels, `WAIT 2` after each message.
    Redis,
    /// The same, one `WAIT 2` for all messages that are sent together.
    RedisBatch,
    /// Three servers, a JetStream stream with three replicas.
    Nats,
    /// One server that syncs each message.
    Beanstalkd,
}

impl System {
    /// Postern is no peer of itself.
    fn peer(self) -> Option<Peer> {
        Some(match self {
            System::Postern => return None,
            System::Redis => redis::PER_MESSAGE,
            System::RedisBatch => redis::PER_BATCH,
            System::Nats => nats::PEER,
            System::Beanstalkd => beanstalkd::PEER,
        })
    }

    fn key(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }
}

/// Prints what all systems, or those that were asked for, reach beside postern.
///
/// # Errors
/// A system that is installed could not be measured; then the rest is printed all the same.
pub fn run(options: &Options) -> Result<(), String> {
    if cfg!(debug_assertions) {
        note("built without --release: these figures say little");
    }
    process::raise_file_limit();
    let binary = options.postern.clone().map_or_else(binary_beside_this, Ok)?;
    let mut report = Report {
        date: WallTime::from_system(SystemTime::now()).rfc3339().to_string(),
        command: command(std::env::args().skip(1)),
        machine: machine(),
        seconds: options.seconds,
        ..Report::default()
    };
    measure_limits(&mut report.limits)?;
    let own = own::measure(&binary, options);
    report.rows.push(own.map_err(|why| format!("postern: {why}"))?);
    for system in System::value_variants() {
        let is_wanted = options.only.is_empty() || options.only.contains(system);
        let Some(peer) = system.peer().filter(|_| is_wanted) else { continue };
        let Some(program) = servers::find(peer.program) else {
            report.missing.push(peer.program.to_owned());
            continue;
        };
        match measure_peer(*system, &peer, &program, options) {
            Ok(row) => report.rows.push(row),
            Err(why) => report.failures.push(format!("{}: {why}", system.key())),
        }
    }
    report.missing.dedup();
    measure_limits(&mut report.limits)?;
    print(&if options.json { format!("{}\n", report.json()) } else { report.markdown() })?;
    match &report.failures[..] {
        [] => Ok(()),
        failures => Err(format!("could not measure all: {}", failures.join("; "))),
    }
}

/// Half of what is known of the machine: it is looked at before the systems and after them.
fn measure_limits(limits: &mut Limits) -> Result<(), String> {
    note("limits of the machine");
    let folder = group::folder("compare")?;
    for limit in Limit::ALL {
        limits.add(limit, folder.path(), LIMIT_TIME)?;
    }
    Ok(())
}

fn measure_peer(
    system: System,
    peer: &Peer,
    program: &Path,
    options: &Options,
) -> Result<Row, String> {
    let version = peer::version(program, peer.version)?;
    let title = peer.title(&version);
    let mut row = Row {
        key: system.key(),
        title: title.clone(),
        version,
        meaning: peer.meaning,
        figures: Vec::new(),
        resident: Vec::new(),
        takeovers: Vec::new(),
    };
    let mut servers = (peer.start)(program, group::folder("compare")?)?;
    let connections = Rc::new(Cell::new(0));
    for setting in SETTINGS {
        note(&format!("{title}, {}×{}", setting.0, setting.1));
        let part = measure::part(peer.dialect, &connections, setting);
        let time = Duration::from_secs(options.seconds);
        let measured = measure::measure(servers.address(), &servers.pids(), part, time);
        let measured = measured.and_then(|figures| servers.check_all_run().map(|()| figures));
        let last_words = |why| format!("{why}{}", servers.last_words());
        row.figures.push(measured.map_err(last_words)?);
    }
    for pid in servers.pids() {
        row.resident.push(process::memory(pid)?.resident);
    }
    drop(servers);
    let Some(survivor) = peer.survivor else { return Ok(row) };
    for _ in 0..options.kills {
        note(&format!("{title}, kill -9 of the leader"));
        let mut servers = (peer.start)(program, group::folder("compare")?)?;
        let taken_over = kills::take_over(&mut servers, peer.dialect, survivor);
        let last_words = |why| format!("{why}{}", servers.last_words());
        row.takeovers.push(taken_over.map_err(last_words)?);
    }
    Ok(row)
}

/// Says what is being done, beside the result.
fn note(what: &str) {
    // Who does not look is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// What was typed, without where the program is.
fn command(arguments: impl Iterator<Item = String>) -> String {
    ["postern-load".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, Linux {}", kernel.trim_end())
}

#[cfg(test)]
mod tests {
    //! Each system that is installed acknowledges what it is asked to store, as its dialect asks.
    //! Where one is missing, its test says so and passes.

    use super::*;
    use ask::Asker;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn store_one(system: System) {
        let peer = system.peer().expect("a peer");
        let Some(program) = servers::find(peer.program) else {
            eprintln!("{} is not installed: nothing was tested", peer.program);
            return;
        };
        peer::version(&program, peer.version).expect("a version");
        let servers = (peer.start)(&program, group::folder("compare").expect("a folder"));
        let servers = servers.unwrap_or_else(|why| panic!("{}: {why}", peer.name));
        let asker = Asker::connect(servers.address(), (peer.dialect)(7), PATIENCE);
        let mut asker = asker.unwrap_or_else(|why| panic!("{why}{}", servers.last_words()));
        for text in ["0.0 hello", "0.1"] {
            assert_eq!(asker.store(text.as_bytes()), Ok(Ok(())), "{}", servers.last_words());
        }
    }

    #[test]
    fn redis_acknowledges_each_message() {
        store_one(System::Redis);
    }

    #[test]
    fn redis_acknowledges_batches() {
        store_one(System::RedisBatch);
    }

    #[test]
    fn nats_acknowledges() {
        store_one(System::Nats);
    }

    #[test]
    fn beanstalkd_acknowledges() {
        store_one(System::Beanstalkd);
    }

    #[test]
    fn what_was_typed_is_repeated() {
        let arguments = ["compare", "--seconds", "5"].map(str::to_owned);
        assert_eq!(command(arguments.into_iter()), "postern-load compare --seconds 5");
    }
}
