//! The result of a run, for a person and for programs.

use super::cost::Cost;
use super::ledger::{Ledger, Nanos};
use super::parts::Outcome;
use super::plan::Clients;
use crate::baseline::{Figure, Limit, Limits, Share};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// All that is known at the end; `--json` prints it as it is.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// `ok`, or what was wrong.
    pub(crate) verdict: String,
    /// What ran.
    pub(crate) clients: Vec<Clients>,
    /// How long it was measured, after the warm-up.
    pub(crate) seconds: f64,
    /// Messages acknowledged in that time.
    pub(crate) acked: u64,
    /// The same per second.
    pub(crate) acked_per_second: f64,
    /// Messages delivered to receivers in that time.
    pub(crate) delivered: u64,
    /// The same per second.
    pub(crate) delivered_per_second: f64,
    /// Latencies of acknowledgements; none when there were none.
    pub(crate) latency_us: Option<Latency>,
    /// Refusals by their codes, and what ended or prevented connections, from the very beginning.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Messages acknowledged from the very beginning.
    pub(crate) acked_in_all: u64,
    /// Messages without an outcome, which may stand in a mailbox or not.
    pub(crate) unknown: u64,
    /// Messages that were sent again with their keys.
    pub(crate) repeated: u64,
    /// Messages of the open loop that were due and never sent.
    pub(crate) unsent: u64,
    /// Connections that were lost after they had been let in.
    pub(crate) lost: u64,
    /// Mailboxes whose whole contents were compared with what was acknowledged.
    pub(crate) mailboxes_read: usize,
    /// Changes of the primary.
    pub(crate) takeovers: Vec<Change>,
    /// Reconnect storms.
    pub(crate) storms: Vec<Comeback>,
    /// What the servers took, where they run on this machine.
    pub(crate) servers: Vec<Cost>,
    /// What the machine can do without them; nothing where it was not measured.
    pub(crate) limits: Limits,
    /// How much of it that is which is above.
    pub(crate) shares: Vec<Share>,
}

/// Microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    /// Half did not take longer.
    pub(crate) p50: f64,
    /// 90 of 100 did not.
    pub(crate) p90: f64,
    /// 99 of 100 did not.
    pub(crate) p99: f64,
    /// 999 of 1000 did not.
    pub(crate) p999: f64,
    /// The longest.
    pub(crate) max: f64,
}

/// Another primary was found.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    /// Seconds since the load began, warm-up included.
    pub(crate) at: f64,
    /// From the loss of the old primary until somebody was let in by the new one.
    pub(crate) after_ms: f64,
    /// Where it is.
    pub(crate) primary: String,
}

/// A reconnect storm.
#[derive(Debug, Serialize)]
pub(crate) struct Comeback {
    /// Seconds since the load began, warm-up included.
    pub(crate) at: f64,
    /// Connections that were closed.
    pub(crate) connections: usize,
    /// Until all were let in again; none when the run ended before.
    pub(crate) took_ms: Option<f64>,
}

impl Report {
    /// What came of a run.
    pub(crate) fn new(clients: Vec<Clients>, outcome: &Outcome, servers: Vec<Cost>) -> Report {
        let ledger = &outcome.ledger;
        let seconds = ledger.measured as f64 / 1e9;
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let takeover = |one: &super::ledger::Takeover| Change {
            at: one.at as f64 / 1e9,
            after_ms: ms(one.after),
            primary: one.primary.to_string(),
        };
        let storm = |one: &super::ledger::Storm| Comeback {
            at: one.at as f64 / 1e9,
            connections: one.connections,
            took_ms: one.took.map(ms),
        };
        Report {
            verdict: outcome.finding.clone().unwrap_or_else(|| "ok".to_owned()),
            clients,
            seconds,
            acked: ledger.acked,
            acked_per_second: per_second(ledger.acked),
            delivered: ledger.delivered,
            delivered_per_second: per_second(ledger.delivered),
            latency_us: latency(ledger),
            errors: ledger.errors.clone(),
            acked_in_all: ledger.acked_ever,
            unknown: ledger.unknown,
            repeated: ledger.repeated,
            unsent: outcome.unsent,
            lost: ledger.lost,
            mailboxes_read: outcome.mailboxes_read,
            takeovers: ledger.takeovers.iter().map(takeover).collect(),
            storms: ledger.storms.iter().map(storm).collect(),
            servers,
            limits: Limits::default(),
            shares: Vec::new(),
        }
    }

    /// Puts the figures beside what the machine can do.
    pub(crate) fn compare(&mut self, limits: Limits) {
        self.shares = limits.share_list(&self.figures());
        self.limits = limits;
    }

    fn figures(&self) -> Vec<Figure> {
        let (acked, delivered) = (self.acked_per_second, self.delivered_per_second);
        let mut figures = Vec::new();
        if self.acked > 0 {
            figures.push(Figure::rate("acknowledged", acked, Limit::SyncThree));
            figures.push(Figure::rate("acknowledged", acked, Limit::Echo));
        }
        if self.delivered > 0 {
            figures.push(Figure::rate("delivered", delivered, Limit::Echo));
        }
        if let Some(Latency { p50, .. }) = self.latency_us {
            let p50 = Duration::from_secs_f64(p50 / 1e6);
            figures.push(Figure::latency("p50", p50, Limit::SyncThree));
        }
        figures
    }

    /// Processor time of all servers for 100,000 acknowledged messages, in seconds; none where
    /// they do not run on this machine.
    pub(crate) fn cpu_per_100k(&self) -> Option<f64> {
        let all: f64 = self.servers.iter().map(|one| one.cpu_seconds).sum();
        (!self.servers.is_empty()).then(|| self.per_100k(all))
    }

    fn per_100k(&self, seconds: f64) -> f64 {
        seconds / (self.acked.max(1) as f64 / 1e5)
    }

    /// In lines that a person reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for clients in &self.clients {
            let _ = writeln!(text, "{clients}");
        }
        let _ = writeln!(
            text,
            "{:.1} s: {:.0} acknowledged per second",
            self.seconds, self.acked_per_second
        );
        if self.delivered > 0 {
            let _ = writeln!(text, "  {:.0} delivered per second", self.delivered_per_second);
        }
        if let Some(Latency { p50, p90, p99, p999, max }) = self.latency_us {
            let ms = |us: f64| format!("{:.2}", us / 1e3);
            let all = [p50, p90, p99, p999, max].map(ms);
            let [p50, p90, p99, p999, max] = all;
            let _ = writeln!(
                text,
                "  latency, ms: p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}"
            );
        }
        self.describe_shares(&mut text);
        self.describe_servers(&mut text);
        self.describe_trouble(&mut text);
        let _ = writeln!(
            text,
            "  {} acknowledged in all, {} mailboxes read back: {}",
            self.acked_in_all, self.mailboxes_read, self.verdict
        );
        text
    }

    /// What ran, in one line.
    pub(crate) fn title(&self) -> String {
        let (first, rest) = (self.clients.first(), self.clients.len().saturating_sub(1));
        let first = first.map_or(String::new(), ToString::to_string);
        if rest > 0 { format!("{first}; and {rest} more kinds of clients") } else { first }
    }

    /// What came of it, in one line.
    pub(crate) fn subtitle(&self) -> String {
        let mut text = format!("{:.0} acknowledged per second", self.acked_per_second);
        if self.delivered > 0 {
            let _ = write!(text, ", {:.0} delivered", self.delivered_per_second);
        }
        if let Some(Latency { p50, p99, max, .. }) = self.latency_us {
            let [p50, p99, max] = [p50, p99, max].map(|us| us / 1e3);
            let _ = write!(text, "; p50 {p50:.2} ms, p99 {p99:.2} ms, longest {max:.1} ms");
        }
        text + if self.verdict == "ok" { "; all answers were right" } else { "; NOT ALL RIGHT" }
    }

    /// Lines for rates and latencies: how much of what the machine can do they are.
    pub(crate) fn describe_shares(&self, text: &mut String) {
        text.push_str(&self.limits.shares(&self.figures()));
    }

    fn describe_servers(&self, text: &mut String) {
        let Some(all) = self.cpu_per_100k() else { return };
        let _ = writeln!(
            text,
            "  the servers' processor time per 100,000 acknowledged: {all:.3} s together"
        );
        for one in &self.servers {
            let role = if one.is_primary { " (primary)" } else { "" };
            let _ = writeln!(
                text,
                "    {}{role}: {:.3} s; resident {:.1} MiB",
                one.server,
                self.per_100k(one.cpu_seconds),
                one.resident_kib as f64 / 1024.0
            );
        }
        self.describe_calls(text);
    }

    /// A line for system calls, where they were counted.
    pub(crate) fn describe_calls(&self, text: &mut String) {
        let counted = self.servers.iter().filter_map(|one| one.system_calls_are).next();
        let Some(what) = counted else { return };
        let per = |calls: u64| calls as f64 / self.acked.max(1) as f64;
        let all: Option<u64> = self.servers.iter().map(|one| one.system_calls).sum();
        let primary = self.servers.iter().find(|one| one.is_primary);
        let shown = |calls: Option<u64>| {
            calls.map_or("not counted".to_owned(), |calls| format!("{:.3}", per(calls)))
        };
        let _ = writeln!(
            text,
            "  system calls per acknowledged ({what}): primary {}, all servers {}",
            shown(primary.and_then(|one| one.system_calls)),
            shown(all)
        );
    }

    fn describe_trouble(&self, text: &mut String) {
        if !self.errors.is_empty() {
            let each: Vec<String> =
                self.errors.iter().map(|(code, count)| format!("{code} {count}")).collect();
            let _ = writeln!(text, "  errors: {}", each.join(", "));
        }
        let counts = [
            (self.lost, "connections lost"),
            (self.unknown, "messages of unknown outcome"),
            (self.repeated, "repeated"),
            (self.unsent, "due and never sent"),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !counts.is_empty() {
            let _ = writeln!(text, "  {}", counts.join(", "));
        }
        for Change { at, after_ms, primary } in &self.takeovers {
            let _ = writeln!(
                text,
                "  after {at:.2} s: {primary} is primary, {after_ms:.1} ms after the loss of the \
                 one before"
            );
        }
        for Comeback { at, connections, took_ms } in &self.storms {
            let took = took_ms.map_or("did not all come back".to_owned(), |took| {
                format!("were all back in {took:.0} ms")
            });
            let _ = writeln!(text, "  after {at:.2} s: {connections} connections closed, {took}");
        }
    }
}

fn latency(ledger: &Ledger) -> Option<Latency> {
    let all = &ledger.latencies;
    let of = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
    (!all.is_empty()).then(|| Latency {
        p50: of(0.5),
        p90: of(0.9),
        p99: of(0.99),
        p999: of(0.999),
        max: all.max() as f64 / 1e3,
    })
}

fn ms(time: Nanos) -> f64 {
    time as f64 / 1e6
}
