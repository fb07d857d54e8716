//! As many messages as a group takes, from many senders, and as many deliveries as it makes of
//! those of one.

use crate::baseline::Limits;
use crate::run::{self, plan::Clients, report::Report};
use crate::stats::verdict;
use postern_testkit::group::Group;
use std::fmt::Write;
use std::time::Duration;

/// Warm-up, measured time, and patience.
const SPANS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(10)];
/// The same where system calls are counted, which makes servers slower: in a run of its own.
const COUNTED_SPANS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(10)];

const SENDERS: usize = 64;
/// Requests that each has outstanding.
const DEPTH: usize = 16;
const RECEIVERS: usize = 100;

/// Acknowledged per second, of all senders together.
const RATE_TARGET: f64 = 300_000.0;
/// The latency of 99 of 100 messages, in milliseconds.
const P99_TARGET_MS: f64 = 8.0;
/// Processor time of all three servers for 100,000 acknowledged messages, in seconds.
const CPU_TARGET: f64 = 0.35;
/// Delivered per second, to all receivers together.
const FANOUT_TARGET: f64 = 600_000.0;

/// Many senders with many outstanding requests each.
pub(crate) fn flood(group: &mut Group) -> Result<String, String> {
    group.settle()?;
    let senders = Clients { connections: SENDERS, outstanding: DEPTH, ..Clients::default() };
    let report = measure(group, &senders)?;
    let latency = report.latency_us.as_ref().ok_or("nothing was acknowledged")?;
    let cpu = report.cpu_per_100k().ok_or("the servers' processor time is not known")?;
    let (rate, p99) = (report.acked_per_second, latency.p99 / 1e3);
    let mut text = format!(
        "  {SENDERS} connections x {DEPTH}, {:.1} s: {rate:.0} acknowledged per second ({}); \
         target: at least {RATE_TARGET}\n  \
         SEND: median {:.2} ms, p99 {p99:.2} ms ({}), worst {:.2} ms; target of the p99: at most \
         {P99_TARGET_MS} ms\n  \
         processor time of all servers per 100,000 acknowledged: {cpu:.3} s ({}); target: at most \
         {CPU_TARGET} s\n",
        report.seconds,
        verdict(rate >= RATE_TARGET),
        latency.p50 / 1e3,
        verdict(p99 <= P99_TARGET_MS),
        latency.max / 1e3,
        verdict(cpu <= CPU_TARGET),
    );
    run::drive_group(group, &senders, COUNTED_SPANS, true)?.describe_calls(&mut text);
    report.describe_shares(&mut text);
    Ok(text)
}

/// One sender, many receivers of what it sends.
pub(crate) fn fanout(group: &mut Group) -> Result<String, String> {
    group.settle()?;
    let (connections, receivers) = (1, RECEIVERS);
    let all = Clients { connections, outstanding: DEPTH, receivers, ..Clients::default() };
    let report = measure(group, &all)?;
    let (rate, sent) = (report.delivered_per_second, report.acked_per_second);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "  1 connection x {DEPTH}, {RECEIVERS} receivers, {:.1} s: {rate:.0} delivered per second \
         ({}), {sent:.0} acknowledged; target: at least {FANOUT_TARGET}",
        report.seconds,
        verdict(rate >= FANOUT_TARGET),
    );
    report.describe_shares(&mut text);
    Ok(text)
}

/// The load, between two looks at what the machine can do.
fn measure(group: &Group, clients: &Clients) -> Result<Report, String> {
    let mut limits = Limits::default();
    run::measure_limits(&mut limits, Some(group))?;
    let mut report = run::drive_group(group, clients, SPANS, false)?;
    run::measure_limits(&mut limits, Some(group))?;
    report.compare(limits);
    Ok(report)
}
