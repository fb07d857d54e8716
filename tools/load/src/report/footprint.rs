//! The memory of servers, and their work without requests.

use crate::stats::verdict;
use postern_testkit::client::{self, Client};
use postern_testkit::group::{Group, SERVERS};
use postern_testkit::process::{self, Memory, Work};
use std::fmt::Write;
use std::time::{Duration, Instant};

const LOGINS: usize = 100;
const LOGGED_OUT: usize = 2000;
const LOGGED_IN: usize = 2000;
/// Resident memory of a server without clients, in KiB.
const RESIDENT_TARGET: i64 = 4 * 1024;
/// Anonymous memory of an idle client, in bytes.
const CLIENT_TARGET: i64 = 400;
/// Processor time of three idle servers together, in percent of one processor.
const IDLE_TARGET: f64 = 0.1;
/// A group is idle after this time: the seal of the last batch is due after a second.
const QUIET_TIME: Duration = Duration::from_secs(2);
const IDLE_TIME: Duration = Duration::from_secs(5);

/// Measures the resident memory of servers without clients, and what clients add.
pub(crate) fn memory(group: &mut Group) -> Result<String, String> {
    let primary = group.settle()?;
    let server = group.address(primary);
    let mut text = String::new();
    group.leave_alone(QUIET_TIME)?;
    describe(&mut text, "idle", primary, &all_memory(group)?);
    client::create_accounts(server)?;
    for _ in 0..LOGINS {
        Client::log_in(server)?;
    }
    group.wait_for(primary, "sessions", "0")?;
    group.leave_alone(QUIET_TIME)?;
    describe(&mut text, &format!("after {LOGINS} logins"), primary, &all_memory(group)?);

    let before = process::memory(group.pid(primary)?)?;
    let mut clients = Vec::with_capacity(LOGGED_OUT + LOGGED_IN);
    for _ in 0..LOGGED_OUT {
        let mut client = Client::connect(server)?;
        // The answer shows that the connection is accepted and that its buffers were used.
        client.must("PING")?;
        clients.push(client);
    }
    let between = process::memory(group.pid(primary)?)?;
    growth(&mut text, "logged out", LOGGED_OUT, before, between);
    for _ in 0..LOGGED_IN {
        clients.push(Client::log_in(server)?);
    }
    group.leave_alone(QUIET_TIME)?;
    let after = process::memory(group.pid(primary)?)?;
    growth(&mut text, "logged in", LOGGED_IN, between, after);
    Ok(text)
}

fn all_memory(group: &Group) -> Result<Vec<Memory>, String> {
    (0..SERVERS).map(|at| process::memory(group.pid(at)?)).collect()
}

fn mib(kib: i64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

fn describe(text: &mut String, when: &str, primary: usize, all: &[Memory]) {
    let one = |(at, memory): (usize, &Memory)| {
        let role = if at == primary { " (primary)" } else { "" };
        let (resident, anonymous) = (mib(memory.resident), mib(memory.anonymous));
        format!("server {}{role} {resident} MiB, {anonymous} of it anonymous", at + 1)
    };
    let each: Vec<String> = all.iter().enumerate().map(one).collect();
    let met = all.iter().all(|memory| memory.resident <= RESIDENT_TARGET);
    let target = mib(RESIDENT_TARGET);
    let (each, met) = (each.join("; "), verdict(met));
    let _ = writeln!(text, "  resident, {when}: {each} ({met}); target: at most {target} MiB");
}

fn growth(text: &mut String, state: &str, count: usize, before: Memory, after: Memory) {
    let each = (after.resident - before.resident) * 1024 / count as i64;
    let anonymous = (after.anonymous - before.anonymous) * 1024 / count as i64;
    let met = verdict(anonymous <= CLIENT_TARGET);
    let _ = writeln!(
        text,
        "  {count} idle clients, {state}: the primary grew by {each} bytes each, {anonymous} of it \
         anonymous ({met}); target: at most {CLIENT_TARGET}",
    );
}

/// Measures context switches and processor time without requests.
pub(crate) fn idle(group: &mut Group) -> Result<String, String> {
    let primary = group.settle()?;
    group.leave_alone(QUIET_TIME)?;
    let work = |group: &Group| -> Result<Vec<Work>, String> {
        (0..SERVERS).map(|at| process::work(group.pid(at)?)).collect()
    };
    let before = work(group)?;
    let began = Instant::now();
    group.leave_alone(IDLE_TIME)?;
    let after = work(group)?;
    let seconds = began.elapsed().as_secs_f64();
    let (mut text, mut all) = (String::new(), 0.0);
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        let role = if at == primary { "primary" } else { "backup" };
        let waits = (after.waits - before.waits) as f64 / seconds;
        let cpu = (after.cpu - before.cpu).as_secs_f64() * 1e3;
        let share = cpu / seconds / 10.0;
        all += share;
        let _ = writeln!(
            text,
            "  server {} ({role}), {seconds:.1} s: {waits:.1} voluntary context switches per \
             second, {cpu:.1} ms of processor time ({share:.2} %)",
            at + 1,
        );
    }
    let met = verdict(all <= IDLE_TARGET);
    let _ = writeln!(text, "  together {all:.2} % ({met}); target: at most {IDLE_TARGET} %");
    Ok(text)
}
