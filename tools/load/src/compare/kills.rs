//! From the death of a leader to the next message that another server acknowledges.

use super::ask::Asker;
use super::peer::NewDialect;
use super::servers::Servers;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A request that was not answered by then is made again: some are never answered.
const PATIENCE: Duration = Duration::from_millis(100);
/// Before a server that has refused is asked again.
const RETRY_TIME: Duration = Duration::from_millis(1);
/// Longer than any system here needs.
const END: Duration = Duration::from_secs(60);
/// Asked before, so that a group is seen to work.
const BEFORE: usize = 100;
/// What all clients send; nobody compares it.
const TEXT: &[u8] = b"0.0 hello";

/// Kills the leader, and asks the others until one of them acknowledges a message.
///
/// # Errors
/// The group did not work before, or nobody takes over.
pub(crate) fn take_over(
    servers: &mut Servers,
    dialect: NewDialect,
    survivor: NewDialect,
) -> Result<Duration, String> {
    let mut asker = Asker::connect(servers.address(), dialect(0), END)?;
    for _ in 0..BEFORE {
        asker.store(TEXT)?.map_err(|code| format!("refused before: {code}"))?;
    }
    let others = servers.other_addresses();
    let began = Instant::now();
    servers.kill_leader()?;
    let done = AtomicBool::new(false);
    let ends: Vec<Result<Instant, String>> = thread::scope(|scope| {
        let done = &done;
        let contend = |(at, server): (usize, &SocketAddr)| {
            let server = *server;
            scope.spawn(move || contend(server, || survivor(at + 1), began + END, done))
        };
        // All must run before one is waited for.
        let all: Vec<_> = others.iter().enumerate().map(contend).collect();
        let join = |one: thread::ScopedJoinHandle<'_, _>| {
            one.join().unwrap_or_else(|_| Err("a client panicked".to_owned()))
        };
        all.into_iter().map(join).collect()
    });
    match ends.iter().flatten().min() {
        Some(first) => Ok(first.duration_since(began)),
        None => {
            let last: Vec<String> = ends.into_iter().filter_map(Result::err).collect();
            Err(format!("nobody took over in {} s: {}", END.as_secs(), last.join("; ")))
        }
    }
}

/// Asks one server until it acknowledges a message, or somebody else has.
fn contend(
    server: SocketAddr,
    dialect: impl Fn() -> Box<dyn crate::run::dialect::Dialect>,
    end: Instant,
    done: &AtomicBool,
) -> Result<Instant, String> {
    let mut slot = None;
    let mut last = "not asked".to_owned();
    while !done.load(Ordering::Relaxed) && Instant::now() < end {
        let asker = match slot.take() {
            Some(asker) => Ok(asker),
            None => Asker::connect(server, dialect(), PATIENCE),
        };
        let stored = asker.and_then(|mut asker| Ok((asker.store(TEXT)?, asker)));
        match stored {
            Ok((Ok(()), _)) => {
                done.store(true, Ordering::Relaxed);
                return Ok(Instant::now());
            }
            Ok((Err(refusal), asker)) => {
                slot = Some(asker);
                last = refusal;
            }
            Err(why) => last = why,
        }
        thread::sleep(RETRY_TIME);
    }
    Err(format!("{server}: {last}"))
}
