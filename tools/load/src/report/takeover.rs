//! From the death of a primary to the next message that is acknowledged.

use crate::baseline::{Figure, Limit, Limits};
use crate::stats::{median, ms, verdict, worst};
use postern::commands::{Answer, is};
use postern_testkit::client::{self, Client, is_ok};
use postern_testkit::group::{Group, SERVERS};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const RETRY_TIME: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);
/// The median, and the worst.
const TARGET: Duration = Duration::from_millis(20);
const WORST_TARGET: Duration = Duration::from_millis(100);
/// From the start of a server to a group of three.
const RETURN_TARGET: Duration = Duration::from_millis(100);
/// How long a group is left alone before one of its servers returns: what was promised or sent is
/// over then.
const IDLE_TIME: Duration = Duration::from_millis(2500);
const IDLE_RETURNS: usize = 5;
const LIMIT_TIME: Duration = Duration::from_millis(200);
const TEXT_BYTES: usize = 100;

/// Kills so many primaries, each of which comes back.
pub(crate) fn measure(group: &mut Group, times: u32) -> Result<String, String> {
    let mut primary = group.settle()?;
    client::create_accounts(group.address(primary))?;
    let began = Instant::now();
    Client::log_in(group.address(primary))?;
    let first_login = began.elapsed();
    let (mut takeovers, mut returns) = (Vec::new(), Vec::new());
    let mut limits = Limits::default();
    limits.add(Limit::SyncThree, group.folder(), LIMIT_TIME)?;
    for _ in 0..times {
        group.kill(primary)?;
        takeovers.push(take_over(group, &others(&[primary]))?);
        group.reap(primary)?;
        let began = Instant::now();
        group.start_server(primary)?;
        primary = group.settle()?;
        returns.push(began.elapsed());
    }
    let idle = idle_returns(group)?;
    limits.add(Limit::SyncThree, group.folder(), LIMIT_TIME)?;
    let shares = limits.shares(&[
        Figure::latency("takeover", median(&takeovers), Limit::SyncThree),
        Figure::latency("return", median(&returns), Limit::SyncThree),
    ]);
    Ok(report(&takeovers, first_login, &returns) + &report_idle(&idle) + &shares)
}

/// Restarts a backup of a group that nobody asks for anything: only the one that returns is asked
/// how it is, and no other server is woken by that.
fn idle_returns(group: &mut Group) -> Result<Vec<Duration>, String> {
    let mut returns = Vec::new();
    for at in 0..IDLE_RETURNS {
        let primary = group.settle()?;
        let backup = others(&[primary])[at % 2];
        group.terminate(backup)?;
        group.reap(backup)?;
        thread::sleep(IDLE_TIME);
        let began = Instant::now();
        group.start_server(backup)?;
        let attached = |state: &Answer| {
            is(state, "role", "backup") && is(state, "missing", "-") && !is(state, "primary", "-")
        };
        while !group.status(backup).as_ref().is_some_and(attached) {
            if began.elapsed() > PATIENCE {
                return Err(format!("server {} is not attached again", backup + 1));
            }
            thread::sleep(RETRY_TIME);
        }
        returns.push(began.elapsed());
    }
    Ok(returns)
}

fn report_idle(returns: &[Duration]) -> String {
    format!(
        "  the same of a backup, in a group that is idle: median {} ({}), worst {}; target: at \
         most {}\n",
        ms(median(returns)),
        verdict(median(returns) <= RETURN_TARGET),
        ms(worst(returns)),
        ms(RETURN_TARGET),
    )
}

fn report(takeovers: &[Duration], first_login: Duration, returns: &[Duration]) -> String {
    let each: Vec<String> =
        takeovers.iter().map(|t| format!("{:.0}", t.as_secs_f64() * 1e3)).collect();
    format!(
        "  kill -9 to SEND acknowledged, with a login: median {} ({}), worst {} of {} ({}); \
         target: at most {}, and {} for the worst\n  \
         all of them, in ms: {}\n  \
         the first login of all, whose password is hashed: {}\n  \
         restart to three members again: median {} ({}), worst {}; target: at most {}\n",
        ms(median(takeovers)),
        verdict(median(takeovers) <= TARGET),
        ms(worst(takeovers)),
        takeovers.len(),
        verdict(worst(takeovers) <= WORST_TARGET),
        ms(TARGET),
        ms(WORST_TARGET),
        each.join(" "),
        ms(first_login),
        ms(median(returns)),
        verdict(median(returns) <= RETURN_TARGET),
        ms(worst(returns)),
        ms(RETURN_TARGET),
    )
}

/// All servers but these.
pub(crate) fn others(gone: &[usize]) -> Vec<usize> {
    (0..SERVERS).filter(|at| !gone.contains(at)).collect()
}

/// The time from now until somebody's message is acknowledged by one of these servers.
pub(crate) fn take_over(group: &Group, backups: &[usize]) -> Result<Duration, String> {
    let began = Instant::now();
    let backups: Vec<SocketAddr> = backups.iter().map(|at| group.address(*at)).collect();
    let done = AtomicBool::new(false);
    let ends: Vec<Result<Instant, String>> = thread::scope(|scope| {
        let done = &done;
        let both = backups.iter().map(|server| scope.spawn(|| contend(*server, done)));
        // Both must run before one is waited for.
        let both: Vec<_> = both.collect();
        let join = |one: thread::ScopedJoinHandle<'_, _>| {
            one.join().unwrap_or_else(|_| Err("a client panicked".to_owned()))
        };
        both.into_iter().map(join).collect()
    });
    let first = ends.iter().flatten().min();
    let why = || {
        let last: Vec<&str> =
            ends.iter().filter_map(|end| end.as_ref().err()).map(String::as_str).collect();
        format!("nobody took over in {} s: {}", PATIENCE.as_secs(), last.join("; "))
    };
    first.map(|end| *end - began).ok_or_else(why)
}

/// Tries one server until a message is acknowledged there, or `done` says elsewhere.
fn contend(server: SocketAddr, done: &AtomicBool) -> Result<Instant, String> {
    let end = Instant::now() + PATIENCE;
    let mut client = None;
    let mut last = String::new();
    while !done.load(Ordering::Relaxed) && Instant::now() < end {
        match try_send(server, &mut client) {
            Ok(None) => {
                let at = Instant::now();
                done.store(true, Ordering::Relaxed);
                return Ok(at);
            }
            Ok(Some(refusal)) => last = refusal,
            Err(why) => {
                client = None;
                last = why;
            }
        }
        thread::sleep(RETRY_TIME);
    }
    Err(format!("{server}: {last}"))
}

/// Logs in and sends; a refused login may be asked for again on the same connection.
fn try_send(server: SocketAddr, slot: &mut Option<Client>) -> Result<Option<String>, String> {
    let client = match slot {
        Some(client) => client,
        None => slot.insert(Client::connect(server)?),
    };
    let answer = client.ask(&client::login())?;
    if !is_ok(answer) {
        return Ok(Some(answer.to_owned()));
    }
    // Refused here, it is tried again in a new session.
    client.must(&client::send(TEXT_BYTES))?;
    Ok(None)
}
