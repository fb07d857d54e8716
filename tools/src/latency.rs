//! Messages: one at a time, and many at once.

use crate::baseline::{self, Baseline};
use crate::client::{self, Client};
use crate::group::Group;
use crate::stats::{median, us, verdict, worst};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

const TEXT_BYTES: usize = 100;
const SENDS: usize = 500;
/// The first messages find caches cold and files short.
const WARM_UP: usize = 50;
/// A message may take as long as this many times what its syncs and round trips take.
const TARGET: f64 = 2.0;
const CLIENTS: usize = 64;
const LOAD_TIME: Duration = Duration::from_secs(3);

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
    let server = group.address(primary);
    client::create_accounts(server)?;
    let before = median(&baseline::time_syncs(group.folder())?);
    let (sends, took) = load(server)?;
    // At once: the meters of the server forget.
    let status = group.status(primary).ok_or("the primary does not answer")?;
    let after = median(&baseline::time_syncs(group.folder())?);
    let of = |key: &str| status.get(key).map_or("?", String::as_str);
    let sync = (before + after) / 2;
    Ok(format!(
        "  {CLIENTS} clients, {:.1} s: {:.0} acknowledged per second; SEND: median {}, worst {}\n  \
         baseline: fdatasync, 3 writers at once: median {}, which is {:.0} per second\n  \
         the primary says: commits_per_sync {}, commit p50 {} us, p99 {} us; \
         sync p50 {} us, p99 {} us, worst {} us\n",
        took.as_secs_f64(),
        sends.len() as f64 / took.as_secs_f64(),
        us(median(&sends)),
        us(worst(&sends)),
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

/// The latencies of all messages, and the time in which they were sent.
fn load(server: SocketAddr) -> Result<(Vec<Duration>, Duration), String> {
    let clients = (0..CLIENTS).map(|_| Client::log_in(server));
    let clients = clients.collect::<Result<Vec<_>, String>>()?;
    let start = Barrier::new(CLIENTS + 1);
    thread::scope(|scope| {
        let start = &start;
        let send = |mut client| {
            scope.spawn(move || {
                start.wait();
                send_for(&mut client, LOAD_TIME)
            })
        };
        let senders: Vec<_> = clients.into_iter().map(send).collect();
        start.wait();
        let began = Instant::now();
        let mut all = Vec::new();
        for sender in senders {
            all.extend(sender.join().map_err(|_| "a client panicked".to_owned())??);
        }
        Ok((all, began.elapsed()))
    })
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
