//! Profiles: a load, its times and its targets in a file.

use crate::baseline::{Baseline, Probe};
use crate::run::{self, plan::Clients, report::Report};
use crate::stats::verdict;
use postern_testkit::group::{self, Group, SERVERS, leads};
use serde::Deserialize;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// A connection without an answer for this time counts as lost.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Warm-up and measured time of the run that counts system calls.
const COUNTED: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), TIMEOUT];

/// The profiles of `report`, in its order.
pub(super) const BUILT_IN: [&str; 5] = [
    include_str!("../../profiles/latency.toml"),
    include_str!("../../profiles/batching.toml"),
    include_str!("../../profiles/throughput.toml"),
    include_str!("../../profiles/fan-out.toml"),
    include_str!("../../profiles/reconnect.toml"),
];

/// A profile.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Profile {
    pub(super) name: String,
    /// One line that describes the load.
    pub(super) about: String,
    /// Seconds.
    warm_up: f64,
    seconds: f64,
    /// Whether a second, shorter run counts system calls.
    #[serde(default)]
    syscalls: bool,
    /// Whether a second run measures servers whose data is in memory.
    #[serde(default)]
    in_memory: bool,
    /// As in a mix file of `postern-load run`.
    clients: Vec<Clients>,
    #[serde(default)]
    targets: Targets,
}

/// What a profile's figures should be.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Targets {
    min_acked_per_second: Option<f64>,
    min_delivered_per_second: Option<f64>,
    max_p99_ms: Option<f64>,
    /// Processor time of all servers for 100,000 messages, in seconds.
    max_cpu_per_100k: Option<f64>,
    /// From the begin of a reconnect storm until all clients are logged in again.
    max_reconnect_ms: Option<f64>,
    /// p50, relative to the sync of three writers and the p50 in memory together.
    max_overhead: Option<f64>,
}

impl Profile {
    /// Parses a profile.
    pub(super) fn parse(text: &str) -> Result<Profile, String> {
        let mut profile: Profile = toml::from_str(text).map_err(|error| error.to_string())?;
        let times = [(profile.warm_up, 0.0), (profile.seconds, 0.1)];
        if times.iter().any(|(seconds, min)| !(*min..=1e6).contains(seconds)) {
            return Err("warm-up and seconds: 0 and 0.1 to 1000000 seconds".to_owned());
        }
        let clients = profile.clients.into_iter().map(Clients::complete);
        profile.clients = clients.collect::<Result<_, _>>()?;
        Ok(profile)
    }

    /// Runs the profile on a group and returns its figures.
    pub(super) fn measure(&self, group: &Group) -> Result<String, String> {
        let mut baseline = Baseline::default();
        baseline.measure_for_load(Some(group))?;
        let mut report = self.run(group)?;
        let status = (0..SERVERS).find_map(|at| group.status(at).filter(leads)).unwrap_or_default();
        let memory = if self.in_memory { Some(self.run_in_memory(group.binary())?) } else { None };
        baseline.measure_for_load(Some(group))?;
        let sync = baseline.of(Probe::SyncThree).quantile(0.5);
        report.compare(baseline);
        let mut text = String::new();
        report.write_figures(&mut text);
        let keys = ["commits_per_sync", "commit_p50_us", "commit_p99_us", "sync_p50_us"];
        let keys = keys.into_iter().chain(["sync_p99_us", "sync_worst_us"]);
        let values = keys.filter_map(|key| Some(format!("{key} {}", status.get(key)?)));
        let _ = writeln!(text, "  the primary: {}", values.collect::<Vec<_>>().join(", "));
        if let Some(memory) = &memory {
            let _ = writeln!(text, "  p50 with data in memory: {:.0} us", p50(memory)?);
        }
        if self.syscalls {
            run::drive_group(group, &self.clients, COUNTED, true)?.write_calls(&mut text);
        }
        let overhead = match &memory {
            Some(memory) => Some(p50(&report)? / (sync.as_secs_f64() * 1e6 + p50(memory)?)),
            None => None,
        };
        self.targets.write(&report, overhead, &mut text);
        Ok(text)
    }

    fn run(&self, group: &Group) -> Result<Report, String> {
        let [warm_up, seconds] = [self.warm_up, self.seconds].map(Duration::from_secs_f64);
        run::drive_group(group, &self.clients, [warm_up, seconds, TIMEOUT], false)
    }

    fn run_in_memory(&self, postern: &Path) -> Result<Report, String> {
        self.run(&Group::start_in(group::memory_folder("report")?, postern, false)?)
    }
}

fn p50(report: &Report) -> Result<f64, String> {
    report.latency_us.map(|latency| latency.p50).ok_or_else(|| "no acknowledgement".to_owned())
}

impl Targets {
    fn write(&self, report: &Report, overhead: Option<f64>, text: &mut String) {
        let p99 = report.latency_us.map(|latency| latency.p99 / 1e3);
        let storms =
            report.outcome.counts.storms.iter().map(|storm| storm.took_ms.unwrap_or(f64::INFINITY));
        let (acked, delivered) = (report.acked_per_second, report.delivered_per_second);
        let (cpu, reconnected) = (report.cpu_per_100k(), storms.reduce(f64::max));
        let rows = [
            ("least", "acknowledged per second", self.min_acked_per_second, Some(acked)),
            ("least", "delivered per second", self.min_delivered_per_second, Some(delivered)),
            ("most", "p99, ms", self.max_p99_ms, p99),
            ("most", "processor time per 100,000 messages, s", self.max_cpu_per_100k, cpu),
            ("most", "all clients logged in again, ms", self.max_reconnect_ms, reconnected),
            ("most", "p50 / (sync of 3 writers + p50 in memory)", self.max_overhead, overhead),
        ];
        for (bound, what, target, value) in rows {
            let Some(target) = target else { continue };
            let is_met =
                |value: f64| if bound == "least" { value >= target } else { value <= target };
            let met = verdict(value.is_some_and(is_met));
            let shown = match value {
                Some(value) if value >= 100.0 => format!("{value:.0}"),
                Some(value) => format!("{value:.2}"),
                None => "not measured".to_owned(),
            };
            let _ = writeln!(text, "  target, {what}: at {bound} {target}: {shown} ({met})");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_profiles_are_valid_and_have_targets() {
        for text in BUILT_IN {
            let profile = Profile::parse(text).unwrap_or_else(|why| panic!("{why}\n{text}"));
            assert!(!profile.clients.is_empty() && !profile.about.is_empty(), "{profile:?}");
            assert!(text.contains("[targets]"), "{profile:?}");
        }
    }

    #[test]
    fn invalid_profiles_are_rejected() {
        let valid = "name = 'a'\nabout = 'b'\nwarm-up = 0.0\nseconds = 1.0\n";
        assert!(Profile::parse(&format!("{valid}[[clients]]")).is_ok());
        for wrong in ["[[clients]]\nspeed = 1", "[[clients]]\nconnections = 0", "speed = 1", ""] {
            assert!(Profile::parse(&format!("{valid}{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn targets_are_met_or_missed() {
        let targets = Targets { max_overhead: Some(1.1), ..Targets::default() };
        let report = Report::default();
        for (overhead, word) in [(Some(1.1), "met"), (Some(1.2), "MISSED"), (None, "MISSED")] {
            let mut text = String::new();
            targets.write(&report, overhead, &mut text);
            assert!(text.ends_with(&format!("({word})\n")), "{text}");
        }
    }
}
