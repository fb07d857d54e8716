//! The result of a run, for a person and for programs.

use super::accounts::Accounts;
use super::cost::Cost;
use super::counts::{Storm, Takeover, seconds};
use super::load::Outcome;
use super::plan::Clients;
use crate::baseline::{Baseline, Figure, Probe, Share};
use serde::Serialize;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// The whole result; `--json` prints it as it is.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) clients: Vec<Clients>,
    #[serde(skip)]
    pub(crate) accounts: Vec<Arc<Accounts>>,
    /// Measured time, after the warm-up; rates and latencies are of this time.
    pub(crate) seconds: f64,
    pub(crate) acked_per_second: f64,
    pub(crate) delivered_per_second: f64,
    /// Latencies of acknowledgements; `None` if there were none.
    pub(crate) latency_us: Option<Latency>,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// What the servers on this machine used of it.
    pub(crate) servers: Vec<Cost>,
    /// What the machine can do without them, and the figures as shares of it; empty if it was not
    /// measured.
    pub(crate) baseline: Baseline,
    pub(crate) shares: Vec<Share>,
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Report {
    /// Creates the report of an outcome, without clients.
    pub(crate) fn new(outcome: Outcome, servers: Vec<Cost>) -> Report {
        let counts = &outcome.counts;
        let seconds = seconds(counts.measured);
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let of = |quantile| counts.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(of);
        Report {
            seconds,
            acked_per_second: per_second(counts.acked),
            delivered_per_second: per_second(counts.delivered),
            latency_us: (counts.acked > 0).then_some(Latency { p50, p90, p99, p999, max }),
            outcome,
            servers,
            ..Report::default()
        }
    }

    /// Returns the report, or the violation that the load has found.
    pub(crate) fn verified(self) -> Result<Report, String> {
        match &self.outcome.finding {
            Some(finding) => Err(finding.clone()),
            None => Ok(self),
        }
    }

    /// Computes the figures' shares of a baseline.
    pub(crate) fn compare(&mut self, baseline: Baseline) {
        let mut figures = Vec::new();
        if self.outcome.counts.acked > 0 {
            let rate = Figure::Rate(self.acked_per_second);
            figures.extend([
                ("acknowledged", rate, Probe::SyncThree),
                ("acknowledged", rate, Probe::Echo),
            ]);
        }
        if self.outcome.counts.delivered > 0 {
            figures.push(("delivered", Figure::Rate(self.delivered_per_second), Probe::Echo));
        }
        if let Some(Latency { p50, .. }) = self.latency_us {
            let p50 = Figure::Latency(Duration::from_secs_f64(p50 / 1e6));
            figures.extend([("p50", p50, Probe::SyncThree), ("p50", p50, Probe::SyncSlowest)]);
        }
        let share = |(what, figure, probe)| baseline.share(what, figure, probe);
        self.shares = figures.into_iter().filter_map(share).collect();
        self.baseline = baseline;
    }

    /// Returns the processor time of all servers for 100,000 acknowledged messages, in seconds;
    /// `None` if there are none, or if the servers do not run on this machine.
    pub(crate) fn cpu_per_100k(&self) -> Option<f64> {
        let all: f64 = self.servers.iter().map(|one| one.cpu_seconds).sum();
        (!self.servers.is_empty() && self.outcome.counts.acked > 0)
            .then(|| all / (self.outcome.counts.acked as f64 / 1e5))
    }

    /// Formats the report for a person.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for clients in &self.clients {
            let _ = writeln!(text, "{clients}");
        }
        self.write_figures(&mut text);
        let (total, read) = (self.outcome.counts.acked_total, self.outcome.mailboxes_read);
        let verdict = self.outcome.finding.as_deref().unwrap_or("ok");
        let _ = writeln!(
            text,
            "  {total} acknowledged in total, {read} mailboxes read back: {verdict}"
        );
        text
    }

    /// Writes all figures, an indented line each.
    pub(crate) fn write_figures(&self, text: &mut String) {
        let (seconds, acked) = (self.seconds, self.acked_per_second);
        if self.clients.iter().any(|clients| clients.connections > 0) {
            let _ = writeln!(text, "  {seconds:.1} s: {acked:.0} acknowledged per second");
        }
        if self.outcome.counts.delivered > 0 {
            let _ = writeln!(text, "  {:.0} delivered per second", self.delivered_per_second);
        }
        if let Some(Latency { p50, p90, p99, p999, max }) = self.latency_us {
            let [p50, p90, p99, p999, max] =
                [p50, p90, p99, p999, max].map(|us| format!("{:.2}", us / 1e3));
            let _ = writeln!(
                text,
                "  latency, ms: p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}"
            );
        }
        for share in &self.shares {
            let _ = writeln!(text, "  {}", share.line);
        }
        self.write_servers(text);
        self.write_errors(text);
    }

    fn write_servers(&self, text: &mut String) {
        if let Some(all) = self.cpu_per_100k() {
            let _ =
                writeln!(text, "  processor time of all servers per 100,000 messages: {all:.3} s");
        }
        for one in &self.servers {
            let (cpu, resident) = (one.cpu_seconds, one.resident_kib as f64 / 1024.0);
            let share = 100.0 * cpu / self.seconds.max(1e-9);
            let primary = self.outcome.primary.map(|primary| primary.to_string());
            let is_primary = primary.as_ref() == Some(&one.server);
            let role = if is_primary { " (primary)" } else { "" };
            let _ = writeln!(
                text,
                "    {}{role}: {share:.0} % of a processor, resident {resident:.1} MiB",
                one.server
            );
        }
        self.write_calls(text);
    }

    /// Writes the system calls per acknowledged message, if they were counted.
    pub(crate) fn write_calls(&self, text: &mut String) {
        let counted = self.servers.iter().find_map(|one| one.system_calls_counted);
        let Some(what) = counted else { return };
        let all: Option<u64> = self.servers.iter().map(|one| one.system_calls).sum();
        let all = all.map_or("not counted".to_owned(), |calls| {
            format!("{:.3}", calls as f64 / self.outcome.counts.acked.max(1) as f64)
        });
        let _ = writeln!(text, "  system calls of all servers per message ({what}): {all}");
    }

    fn write_errors(&self, text: &mut String) {
        let all = &self.outcome.counts;
        let errors = all.errors.iter().map(|(code, count)| format!("{code} {count}"));
        let errors = errors.collect::<Vec<_>>().join(", ");
        let counts = [
            (all.lost, "connections lost"),
            (all.unknown, "messages of unknown outcome"),
            (all.repeated, "repeated"),
            (self.outcome.unsent, "due and never sent"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts = counts.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>();
        for (name, line) in [("errors: ", errors), ("", counts.join(", "))] {
            if !line.is_empty() {
                let _ = writeln!(text, "  {name}{line}");
            }
        }
        for Takeover { at, after_ms, primary, .. } in &all.takeovers {
            let _ = writeln!(
                text,
                "  at {at:.2} s: takeover by {primary}, {after_ms:.1} ms after the loss of the \
                 primary"
            );
        }
        for Storm { at, connections, took_ms } in &all.storms {
            let took = took_ms.map_or("not all logged in again".to_owned(), |took| {
                format!("all logged in again after {took:.0} ms")
            });
            let _ = writeln!(text, "  at {at:.2} s: {connections} connections closed, {took}");
        }
    }
}
