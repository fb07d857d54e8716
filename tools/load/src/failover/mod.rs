//! `postern-load failover`: how long the loss of a server interrupts clients, and how long it takes
//! to rejoin.

pub(crate) mod next_ack;

use crate::baseline::{Baseline, Figure, Probe};
use crate::run::accounts::Accounts;
use crate::run::background::Background;
use crate::run::counts::histogram;
use crate::run::plan::Clients;
use crate::run::postern::Postern;
use crate::run::protocol::Protocol;
use crate::stats::{max, median, ms, us, verdict};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use next_ack::next_ack;
use postern::commands::{Answer, is};
use postern::limits::PENALTY_DROPS;
use postern_testkit::client::{self, Client, RECEIVER, SENDER};
use postern_testkit::group::{Group, SERVERS, binary_beside_this};
use postern_testkit::{print, process};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Of one step of a client, as in `testkit::client`.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
const KILL_TARGETS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
const SECOND_TARGET: Duration = Duration::from_millis(50);
const SIGTERM_TARGET: Duration = Duration::from_millis(20);
const REJOIN_TARGET: Duration = Duration::from_millis(100);
const RECONNECT_TARGET: Duration = Duration::from_secs(2);
/// The p99 of a load during the loss and the rejoin of backups, relative to that of a quiet group.
const P99_RATIO_TARGET: f64 = 2.0;
/// A promise to the old primary binds a backup for this long after a takeover: an eighth of the
/// peer timeout, and the time of a ping.
const PROMISE_TIME: Duration = Duration::from_millis(600);
/// After this time a group without requests is idle: no promise is valid, no seal is due.
const IDLE_TIME: Duration = Duration::from_millis(2500);
/// Pauses of the load before and after each loss of a backup, so that its p99 is that of a group
/// that loses a server every 4 s.
const PAUSE: Duration = Duration::from_secs(1);
/// Clients that send while the primary stops.
const SENDERS: usize = 4;
/// Clients that reconnect after a takeover.
const RECONNECTING: usize = 5000;
const LOAD_TIME: Duration = Duration::from_secs(3600);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Options of `postern-load failover`.
#[derive(Debug, Args)]
pub struct Options {
    /// The `postern` binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    postern: Option<PathBuf>,
    /// Measure only these kinds.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    only: Vec<Kind>,
    /// Losses of each kind.
    #[arg(long, default_value_t = 10, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// From kill -9 of the primary to the next acknowledged message.
    Kill,
    /// From kill -9 of the new primary, before the first one is back, to the next acknowledged
    /// message.
    Second,
    /// From SIGTERM of the primary, while clients send, to the next acknowledged message.
    Sigterm,
    /// From the start of a lost backup to a group of three, idle and under load.
    Rejoin,
    /// From kill -9 of the primary until 5,000 clients are logged in again.
    Reconnect,
}

/// Prints all kinds, or those of `--only`.
///
/// # Errors
/// A kind can't be measured.
pub fn run(options: &Options) -> Result<(), String> {
    process::raise_file_limit();
    let postern = options.postern.clone().map_or_else(binary_beside_this, Ok)?;
    for kind in Kind::value_variants() {
        if options.only.is_empty() || options.only.contains(kind) {
            let text = kind.measure(&postern, options.times as usize);
            let text = text.map_err(|why| format!("{kind:?}: {why}").to_lowercase())?;
            print(&format!("{}\n{text}", format!("{kind:?}").to_lowercase()))?;
        }
    }
    Ok(())
}

impl Kind {
    fn measure(self, postern: &Path, times: usize) -> Result<String, String> {
        if self == Kind::Rejoin {
            return Ok(rejoin_idle(postern, times)? + &rejoin_under_load(postern, times)?);
        }
        with_group(postern, self == Kind::Second, |group| match self {
            Kind::Kill => kill(group, times),
            Kind::Second => second(group, times),
            Kind::Sigterm => sigterm(group, times),
            Kind::Reconnect | Kind::Rejoin => reconnect(group, times),
        })
    }
}

/// Runs a measurement on a new group with accounts whose password every server knows.
fn with_group<T>(
    postern: &Path,
    survivor_auto: bool,
    measure: impl FnOnce(&mut Group) -> Result<T, String>,
) -> Result<T, String> {
    let mut group = Group::start(postern, survivor_auto)?;
    let primary = group.settle()?;
    client::create_accounts(group.address(primary))?;
    // Servers share verified passwords: from now on a login needs no hash.
    Client::log_in(group.address(primary))?;
    let measured = measure(&mut group);
    let panics = group.warnings().into_iter().find(|line| line.contains("panicked"));
    let measured = panics.map_or(measured, Err);
    measured.map_err(|why| format!("{why}\n{}", group.last_words()))
}

/// Returns all servers but these.
fn others(lost: &[usize]) -> Vec<usize> {
    (0..SERVERS).filter(|at| !lost.contains(at)).collect()
}

fn addresses(group: &Group, servers: &[usize]) -> Vec<SocketAddr> {
    servers.iter().map(|at| group.address(*at)).collect()
}

/// Kills the primary of a group with the accounts of `testkit::client`. Returns the time to the
/// next acknowledged message, the login included.
pub(crate) fn kill_primary(group: &mut Group) -> Result<Duration, String> {
    lose_primaries(group, Kind::Kill, 1).map(|samples| max(&samples))
}

fn new_protocol() -> Box<dyn Protocol> {
    let (sender, mailboxes) = (SENDER.to_owned(), vec![RECEIVER.to_owned()]);
    Box::new(Postern::new(Arc::new(Accounts { sender, mailboxes, once: false })))
}

/// Loses primaries of one kind and starts them again. Returns the times to the next acknowledged
/// message.
///
/// A primary counts the losses of other servers towards a penalty, but is lost itself after one or
/// two of them.
fn lose_primaries(group: &mut Group, kind: Kind, times: usize) -> Result<Vec<Duration>, String> {
    let mut samples = Vec::new();
    let pause = match kind {
        Kind::Second => PROMISE_TIME,
        Kind::Sigterm => PAUSE / 5,
        _ => Duration::ZERO,
    };
    for _ in 0..times {
        let mut lost = vec![group.settle()?];
        if kind == Kind::Second {
            group.kill(lost[0])?;
            group.reap(lost[0])?;
            lost.push(group.wait_primary(&others(&lost))?);
        }
        group.leave_alone(pause)?;
        let primary = lost[lost.len() - 1];
        let survivors = addresses(group, &others(&lost));
        let lose = || match kind {
            Kind::Sigterm => group.terminate(primary),
            _ => group.kill(primary),
        };
        samples.push(next_ack(&survivors, &new_protocol, CLIENT_TIMEOUT, lose)?);
        group.reap(primary)?;
        lost.into_iter().try_for_each(|server| group.start_server(server))?;
    }
    Ok(samples)
}

fn kill(group: &mut Group, times: usize) -> Result<String, String> {
    let mut baseline = Baseline::default();
    baseline.measure([Probe::SyncThree], group.folder(), PAUSE / 5)?;
    let samples = lose_primaries(group, Kind::Kill, times)?;
    let [typical, worst] = KILL_TARGETS;
    let mut text = describe("kill -9 of the primary to the next ack", &samples, typical);
    let met = verdict(max(&samples) <= worst);
    let _ = writeln!(text, "  max of {times}: {met}; target: at most {}", ms(worst));
    let each = samples.iter().map(|time| format!("{:.0}", time.as_secs_f64() * 1e3));
    let _ = writeln!(text, "  all of them, ms: {}", each.collect::<Vec<_>>().join(" "));
    let figure = Figure::Latency(median(&samples));
    if let Some(share) = baseline.share("median", figure, Probe::SyncThree) {
        let _ = writeln!(text, "  {}", share.line);
    }
    Ok(text)
}

fn second(group: &mut Group, times: usize) -> Result<String, String> {
    let samples = lose_primaries(group, Kind::Second, times)?;
    Ok(describe("kill -9 of a second primary in a row to the next ack", &samples, SECOND_TARGET))
}

fn sigterm(group: &mut Group, times: usize) -> Result<String, String> {
    let senders = Clients { connections: SENDERS, outstanding: 1, ..Clients::default() };
    let mut load = start_load(group, senders)?;
    let samples = lose_primaries(group, Kind::Sigterm, times)?;
    group.settle()?;
    let counts = load.finish()?.counts;
    let mut text = describe("SIGTERM of the primary to the next ack", &samples, SIGTERM_TARGET);
    let (acked, unknown) = (counts.acked_total, counts.unknown);
    let _ = writeln!(
        text,
        "  {SENDERS} clients that sent meanwhile: {acked} messages acknowledged, {unknown} of \
         unknown outcome ({}); target: none",
        verdict(unknown == 0),
    );
    Ok(text)
}

/// Starts a load that runs until its outcome is asked for.
fn start_load(group: &Group, clients: Clients) -> Result<Background, String> {
    let servers = addresses(group, &others(&[]));
    Background::start(servers, vec![clients.complete()?], LOAD_TIME)
}

/// Calls `measure` with new groups and a number of losses, `times` in total.
///
/// A primary that has dropped a server `PENALTY_DROPS` times within a minute does not add it again
/// for 30 s. A group is therefore replaced before a backup is lost that often.
fn with_groups(
    postern: &Path,
    times: usize,
    mut measure: impl FnMut(&mut Group, usize) -> Result<(), String>,
) -> Result<(), String> {
    const LOSSES: usize = (SERVERS - 1) * (PENALTY_DROPS - 1);
    let mut left = times;
    while left > 0 {
        let losses = left.min(LOSSES);
        with_group(postern, false, |group| measure(group, losses))?;
        left -= losses;
    }
    Ok(())
}

/// Kills a backup, another one each time, and starts it again. Returns the time from its start
/// until it is a member.
fn rejoin(group: &mut Group, loss: usize, pause: Duration) -> Result<Duration, String> {
    let primary = group.settle()?;
    let backup = others(&[primary])[loss % (SERVERS - 1)];
    group.kill(backup)?;
    group.reap(backup)?;
    group.wait_primary(&others(&[backup]))?;
    group.leave_alone(pause)?;
    let began = Instant::now();
    group.start_server(backup)?;
    // Only the backup is asked for its status: a request would wake another server.
    let is_member = |state: &Answer| {
        is(state, "role", "backup") && is(state, "missing", "-") && !is(state, "primary", "-")
    };
    while !group.status(backup).as_ref().is_some_and(is_member) {
        if began.elapsed() > CLIENT_TIMEOUT {
            return Err(format!("server {} does not rejoin", backup + 1));
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(began.elapsed())
}

fn rejoin_idle(postern: &Path, times: usize) -> Result<String, String> {
    let mut samples = Vec::new();
    with_groups(postern, times, |group, losses| {
        for loss in 0..losses {
            samples.push(rejoin(group, loss, IDLE_TIME)?);
        }
        Ok(())
    })?;
    Ok(describe("start of a backup to three members, idle", &samples, REJOIN_TARGET))
}

fn rejoin_under_load(postern: &Path, times: usize) -> Result<String, String> {
    let one = || Clients { connections: 1, outstanding: 1, ..Clients::default() };
    let (mut samples, mut quiet, mut lossy) = (Vec::new(), histogram(), histogram());
    with_groups(postern, times, |group, losses| {
        let mut load = start_load(group, one())?;
        group.leave_alone(2 * PAUSE)?;
        // Adding fails only for different bounds.
        let _ = quiet.add(load.finish()?.counts.latencies);
        let mut load = start_load(group, one())?;
        for loss in 0..losses {
            group.leave_alone(PAUSE)?;
            samples.push(rejoin(group, loss, PAUSE)?);
            group.leave_alone(2 * PAUSE)?;
        }
        let _ = lossy.add(load.finish()?.counts.latencies);
        Ok(())
    })?;
    let p99 = |latencies: &Histogram<u64>| latencies.value_at_quantile(0.99);
    let ratio = p99(&lossy) as f64 / p99(&quiet).max(1) as f64;
    let mut text =
        describe("start of a backup to three members, under load", &samples, REJOIN_TARGET);
    for (what, latencies) in [("without a loss", &quiet), ("with the losses", &lossy)] {
        let [p50, p99, max] =
            [0.5, 0.99, 1.0].map(|of| us(Duration::from_nanos(latencies.value_at_quantile(of))));
        let _ = writeln!(text, "  latency of its client {what}: p50 {p50}, p99 {p99}, max {max}");
    }
    let met = verdict(ratio <= P99_RATIO_TARGET);
    let _ = writeln!(
        text,
        "  p99 with the losses: {ratio:.2} times ({met}); target: at most {P99_RATIO_TARGET}"
    );
    Ok(text)
}

fn reconnect(group: &mut Group, times: usize) -> Result<String, String> {
    let clients = Clients { connections: 0, idle: RECONNECTING, ..Clients::default() };
    let mut load = start_load(group, clients)?;
    for _ in 0..times {
        let primary = group.settle()?;
        group.kill(primary)?;
        group.reap(primary)?;
        let next = group.wait_primary(&others(&[primary]))?;
        group.wait_for(next, "sessions", &RECONNECTING.to_string())?;
        group.start_server(primary)?;
    }
    group.settle()?;
    let takeovers = load.finish()?.counts.takeovers;
    let all: Option<Vec<f64>> = takeovers.iter().map(|one| one.reconnected_ms).collect();
    let all = all.filter(|all| all.len() == times).ok_or("not all clients reconnected")?;
    let samples: Vec<Duration> = all.iter().map(|ms| Duration::from_secs_f64(ms / 1e3)).collect();
    let what = format!("kill -9 of the primary to the login of all {RECONNECTING} clients");
    Ok(describe(&what, &samples, RECONNECT_TARGET))
}

fn describe(what: &str, samples: &[Duration], target: Duration) -> String {
    format!(
        "  {what}: median {} ({}), max {}; target: at most {}\n",
        ms(median(samples)),
        verdict(median(samples) <= target),
        ms(max(samples)),
        ms(target),
    )
}
