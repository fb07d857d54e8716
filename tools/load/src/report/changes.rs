//! What changes of the members cost: the second death in a row, a planned handover, a backup that
//! is dropped and comes back.

use super::latency::send_for;
use super::takeover::{others, take_over};
use crate::stats::{median, ms, p99, us, verdict, worst};
use postern_testkit::client::{self, Client, is_ok};
use postern_testkit::group::Group;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const SECOND_TARGET: Duration = Duration::from_millis(50);
const HANDOVER_TARGET: Duration = Duration::from_millis(20);
/// How often the p99 of a quiet time the p99 of one with changes may be.
const RATIO_TARGET: f64 = 2.0;
const SEND_TIME: Duration = Duration::from_secs(4);
/// When, within that time, a backup dies, and when it is started again.
const DEATH: Duration = Duration::from_secs(1);
const RETURN: Duration = Duration::from_secs(2);
/// Clients that send while the primary stops, and for how long before.
const SENDERS: usize = 4;
const BUSY_TIME: Duration = Duration::from_millis(200);
const TEXT_BYTES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);
/// A promise runs so long after a takeover: an eighth of `T`, and what a ping takes.
const PROMISE_TIME: Duration = Duration::from_millis(600);

/// Measures all three.
pub(crate) fn measure(group: &mut Group) -> Result<String, String> {
    let primary = group.settle()?;
    client::create_accounts(group.address(primary))?;
    // From now on the password is known to all servers.
    Client::log_in(group.address(primary))?;
    let mut text = second_death(group)?;
    text += &handover(group)?;
    text += &coming_and_going(group)?;
    Ok(text)
}

fn row(name: &str, times: &[Duration], target: Duration) -> String {
    format!(
        "  {name} to SEND acknowledged: median {} ({}), worst {}; target: at most {}\n",
        ms(median(times)),
        verdict(median(times) <= target),
        ms(worst(times)),
        ms(target),
    )
}

fn second_death(group: &mut Group) -> Result<String, String> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let first = group.settle()?;
        group.kill(first)?;
        group.reap(first)?;
        let second = group.wait_primary(&others(&[first]))?;
        thread::sleep(PROMISE_TIME);
        group.kill(second)?;
        times.push(take_over(group, &others(&[first, second]))?);
        group.reap(second)?;
        group.start_server(first)?;
        group.start_server(second)?;
    }
    Ok(row("the second kill -9 in a row", &times, SECOND_TARGET))
}

/// Clients send all the time while the role goes to another server.
fn handover(group: &mut Group) -> Result<String, String> {
    let (mut times, mut known, mut unknown) = (Vec::new(), 0, 0);
    for _ in 0..ROUNDS {
        let primary = group.settle()?;
        let server = group.address(primary);
        let clients = (0..SENDERS).map(|_| Client::log_in(server));
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        thread::scope(|scope| {
            let send = |client| scope.spawn(move || send_until_closed(client));
            let senders: Vec<_> = clients.into_iter().map(send).collect();
            thread::sleep(BUSY_TIME);
            group.terminate(primary)?;
            times.push(take_over(group, &others(&[primary]))?);
            for sender in senders {
                let sent = sender.join().map_err(|_| "a client panicked".to_owned())??;
                known += sent.known;
                unknown += u32::from(sent.unknown);
            }
            Ok::<_, String>(())
        })?;
        group.reap(primary)?;
        group.start_server(primary)?;
    }
    Ok(row("SIGTERM of the primary", &times, HANDOVER_TARGET)
        + &format!(
            "  of {} requests under way then, by {SENDERS} clients {ROUNDS} times, {unknown} had \
             an unknown outcome ({}), after {known} answers; target: none\n",
            SENDERS * ROUNDS,
            verdict(unknown == 0),
        ))
}

/// What one client was told before its server closed the connection.
struct Sent {
    /// Answers that say what became of a request.
    known: u32,
    /// The last request may have been stored.
    unknown: bool,
}

fn send_until_closed(mut client: Client) -> Result<Sent, String> {
    let request = client::send(TEXT_BYTES);
    let end = Instant::now() + PATIENCE;
    let mut known = 0;
    while Instant::now() < end {
        match client.ask(&request) {
            Ok(answer) if answer.starts_with("ERR unknown-outcome") => {
                return Ok(Sent { known, unknown: true });
            }
            Ok(answer) if is_ok(answer) => known += 1,
            // A refusal stores nothing; nor does what comes behind it.
            Ok(_) => return Ok(Sent { known: known + 1, unknown: false }),
            Err(_) => return Ok(Sent { known, unknown: !client.was_told() }),
        }
    }
    Err("the server that was to stop goes on".to_owned())
}

/// One client's messages while nothing happens, and while a backup dies and comes back.
fn coming_and_going(group: &mut Group) -> Result<String, String> {
    let (mut quiet, mut busy) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let primary = group.settle()?;
        let server = group.address(primary);
        let mut client = Client::log_in(server)?;
        quiet.extend(send_for(&mut client, SEND_TIME / 2)?);
        // In turn: one that was dropped three times in a minute waits before it is added.
        let backup = others(&[primary])[round % 2];
        let sends = thread::scope(|scope| {
            let sender = scope.spawn(move || send_for(&mut client, SEND_TIME));
            thread::sleep(DEATH);
            group.kill(backup)?;
            group.reap(backup)?;
            thread::sleep(RETURN - DEATH);
            group.start_server(backup)?;
            sender.join().map_err(|_| "a client panicked".to_owned())?
        })?;
        busy.extend(sends);
    }
    let ratio = p99(&busy).as_secs_f64() / p99(&quiet).as_secs_f64();
    Ok(format!(
        "  SEND while nothing happens: median {}, p99 {}, worst {}; while a backup dies and comes \
         back: median {}, p99 {}, worst {}: p99 {ratio:.2} times ({}); target: at most \
         {RATIO_TARGET}\n",
        us(median(&quiet)),
        us(p99(&quiet)),
        us(worst(&quiet)),
        us(median(&busy)),
        us(p99(&busy)),
        us(worst(&busy)),
        verdict(ratio <= RATIO_TARGET),
    ))
}
