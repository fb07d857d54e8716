//! Messages: one at a time, and many at once.

use crate::baseline::{Figure, Limit, Limits};
use crate::run::{self, parts::Observer, plan::Clients};
use crate::stats::{median, p99, us, verdict, worst};
use postern::commands::Answer;
use postern_testkit::client::{self, Client};
use postern_testkit::group::{self, Group, SERVERS};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const TEXT_BYTES: usize = 100;
/// Everything that is compared is measured in turns: a neighbour's work disturbs all alike.
const ROUNDS: usize = 10;
const SENDS_PER_ROUND: usize = 100;
/// For the limits, in each round.
const LIMIT_TIME: Duration = Duration::from_millis(50);
/// The first messages find caches cold and files short.
const WARM_UP: usize = 50;
/// A message may take as long as this many times what its sync and its way take.
const TARGET: f64 = 1.1;
const CLIENTS: usize = 64;
/// Acknowledged per second, of all clients together.
const RATE_TARGET: f64 = 40_000.0;
const WARM_UP_TIME: Duration = Duration::from_millis(500);
const LOAD_TIME: Duration = Duration::from_secs(3);
/// After this time without an answer a client of many counts its connection as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// One client, one request at a time. The way of a message without its sync is that through a
/// group whose data lies in memory.
pub(crate) fn latency(group: &mut Group) -> Result<String, String> {
    let mut in_memory = Group::start_in(group::memory_folder("figures")?, group.binary(), false)?;
    let mut client = new_client(group)?;
    let mut unsynced = new_client(&mut in_memory)?;
    let (mut sends, mut ways, mut limits) = (Vec::new(), Vec::new(), Limits::default());
    for _ in 0..ROUNDS {
        sends.extend(time_sends(&mut client, SENDS_PER_ROUND)?);
        limits.add(Limit::SyncThree, group.folder(), LIMIT_TIME)?;
        limits.add(Limit::SyncSlowest, group.folder(), LIMIT_TIME)?;
        ways.extend(time_sends(&mut unsynced, SENDS_PER_ROUND)?);
        limits.add(Limit::RoundTrip, group.folder(), LIMIT_TIME)?;
    }
    let (sync, way) = (limits.of(Limit::SyncThree).median(), median(&ways));
    let ratio = median(&sends).as_secs_f64() / (sync + way).as_secs_f64();
    let mut text = format!(
        "  SEND of {TEXT_BYTES} bytes, one client, {} times: median {}, p99 {}, worst {}\n  \
         fdatasync, 3 writers at once: median {}; SEND to servers on /dev/shm: median {}\n  \
         together: {}; SEND is {ratio:.2} times that ({}); target: at most {TARGET}\n",
        sends.len(),
        us(median(&sends)),
        us(p99(&sends)),
        us(worst(&sends)),
        us(sync),
        us(way),
        us(sync + way),
        verdict(ratio <= TARGET),
    );
    text += &limits.shares(&[
        Figure::latency("SEND", median(&sends), Limit::SyncThree),
        Figure::latency("SEND", median(&sends), Limit::SyncSlowest),
        Figure::latency("SEND to servers on /dev/shm", way, Limit::RoundTrip),
    ]);
    Ok(text)
}

/// A client whose first messages are already sent.
fn new_client(group: &mut Group) -> Result<Client, String> {
    let primary = group.settle()?;
    client::create_accounts(group.address(primary))?;
    let mut client = Client::log_in(group.address(primary))?;
    time_sends(&mut client, WARM_UP)?;
    Ok(client)
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
    let mut limits = Limits::default();
    let measure = |limits: &mut Limits| {
        limits.add(Limit::SyncThree, group.folder(), 4 * LIMIT_TIME)?;
        limits.add(Limit::Echo, group.folder(), 4 * LIMIT_TIME)
    };
    measure(&mut limits)?;
    let (spans, stop) = ([WARM_UP_TIME, LOAD_TIME, PATIENCE], AtomicBool::new(false));
    let mut status = AtEnd { group: &*group, primary, status: None };
    let (outcome, _) = run::drive_clients(&servers, &[clients], spans, &stop, &mut status)?;
    if let Some(why) = outcome.finding {
        return Err(why);
    }
    let status = status.status.ok_or("the primary does not answer")?;
    measure(&mut limits)?;
    let of = |key: &str| status.get(key).map_or("?", String::as_str);
    let (seconds, latencies) = (outcome.ledger.measured as f64 / 1e9, &outcome.ledger.latencies);
    let of_all = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile));
    let rate = outcome.ledger.acked as f64 / seconds;
    let mut text = format!(
        "  {CLIENTS} clients, {seconds:.1} s: {rate:.0} acknowledged per second ({}); target: at \
         least {RATE_TARGET}\n  \
         SEND: median {}, p99 {}, worst {}\n  \
         the primary says: commits_per_sync {}, commit p50 {} us, p99 {} us; \
         sync p50 {} us, p99 {} us, worst {} us\n",
        verdict(rate >= RATE_TARGET),
        us(of_all(0.5)),
        us(of_all(0.99)),
        us(of_all(1.0)),
        of("commits_per_sync"),
        of("commit_p50_us"),
        of("commit_p99_us"),
        of("sync_p50_us"),
        of("sync_p99_us"),
        of("sync_worst_us"),
    );
    text += &limits.shares(&[
        Figure::rate("SEND", rate, Limit::SyncThree),
        Figure::rate("SEND", rate, Limit::Echo),
        Figure::latency("SEND", of_all(0.5), Limit::SyncThree),
    ]);
    Ok(text)
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
