//! Messages: one at a time, and many at once.

use crate::baseline::{self, Baseline};
use crate::client::{self, Client};
use crate::group::{Group, SERVERS};
use crate::load::{self, parts::Observer, plan::Clients};
use crate::stats::{median, us, verdict, worst};
use postern::commands::Answer;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const TEXT_BYTES: usize = 100;
const SENDS: usize = 500;
/// The first messages find caches cold and files short.
const WARM_UP: usize = 50;
/// A message may take as long as this many times what its syncs and round trips take.
const TARGET: f64 = 2.0;
const CLIENTS: usize = 64;
const WARM_UP_TIME: Duration = Duration::from_millis(500);
const LOAD_TIME: Duration = Duration::from_secs(3);
/// After this time without an answer a client of many counts its connection as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// One client, one request at a time.
pub(crate) fn latency(group: &mut Group) -> Result<String, String> {
    let primary = group.settle()?;
    client::create_accounts(group.address(primary))?;
    let mut client = Client::log_in(group.address(primary))?;
    let mut baseline = Baseline::default();
    time_sends(&mut client, WARM_UP)?;
    baseline.measure(group.folder())?;
    let sends = time_sends(&mut client, SENDS)?;
    baseline.measure(group.folder())?;
    let (sync, trip) = (median(&baseline.syncs), median(&baseline.round_trips));
    // A sync, the client's round trip, and the one between servers.
    let floor = sync + 2 * trip;
    let ratio = median(&sends).as_secs_f64() / floor.as_secs_f64();
    Ok(format!(
        "  SEND of {TEXT_BYTES} bytes, one client, {SENDS} times: median {}, worst {}\n  \
         baseline: fdatasync, 3 writers at once: median {}; loopback round trip: median {}\n  \
         one sync and two round trips: {}; SEND is {ratio:.2} times that ({}); target: at most \
         {TARGET}\n",
        us(median(&sends)),
        us(worst(&sends)),
        us(sync),
        us(trip),
        us(floor),
        verdict(ratio <= TARGET),
    ))
}

fn time_sends(client: &mut Client, count: usize) -> Result<Vec<Duration>, String> {
    let request = client::send(TEXT_BYTES);
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        client.must(&request)?;
        samples.push(began.elapsed());
    }
    Ok(samples)
}

/// Many clients with one outstanding request each.
pub(crate) fn batching(group: &mut Group) -> Result<String, String> {
    let primary = group.settle()?;
    let servers: Vec<SocketAddr> = (0..SERVERS).map(|at| group.address(at)).collect();
    let clients = Clients { connections: CLIENTS, outstanding: 1, mailboxes: 1, ..<_>::default() };
    let before = median(&baseline::time_syncs(group.folder())?);
    let (spans, stop) = ([WARM_UP_TIME, LOAD_TIME, PATIENCE], AtomicBool::new(false));
    let mut status = AtEnd { group: &*group, primary, status: None };
    let (outcome, _) = load::drive_clients(&servers, &[clients], spans, &stop, &mut status)?;
    if let Some(why) = outcome.finding {
        return Err(why);
    }
    let status = status.status.ok_or("the primary does not answer")?;
    let after = median(&baseline::time_syncs(group.folder())?);
    let of = |key: &str| status.get(key).map_or("?", String::as_str);
    let sync = (before + after) / 2;
    let (seconds, latencies) = (outcome.ledger.measured as f64 / 1e9, &outcome.ledger.latencies);
    Ok(format!(
        "  {CLIENTS} clients, {seconds:.1} s: {:.0} acknowledged per second; SEND: median {}, worst \
         {}\n  \
         baseline: fdatasync, 3 writers at once: median {}, which is {:.0} per second\n  \
         the primary says: commits_per_sync {}, commit p50 {} us, p99 {} us; \
         sync p50 {} us, p99 {} us, worst {} us\n",
        outcome.ledger.acked as f64 / seconds,
        us(Duration::from_nanos(latencies.value_at_quantile(0.5))),
        us(Duration::from_nanos(latencies.max())),
        us(sync),
        1.0 / sync.as_secs_f64(),
        of("commits_per_sync"),
        of("commit_p50_us"),
        of("commit_p99_us"),
        of("sync_p50_us"),
        of("sync_p99_us"),
        of("sync_worst_us"),
    ))
}

/// Asks the primary as soon as the load is over: the meters of the server forget.
struct AtEnd<'a> {
    group: &'a Group,
    primary: usize,
    status: Option<Answer>,
}

impl Observer for AtEnd<'_> {
    fn end(&mut self) {
        self.status = self.group.status(self.primary);
    }
}

/// The latencies of messages that are sent one after the other for so long.
pub(crate) fn send_for(client: &mut Client, time: Duration) -> Result<Vec<Duration>, String> {
    let end = Instant::now() + time;
    let mut samples = Vec::new();
    while Instant::now() < end {
        samples.extend(time_sends(client, 1)?);
    }
    Ok(samples)
}
