//! The comparison as a Markdown table, or as JSON.

use super::SETTINGS;
use crate::baseline::{Baseline, Figure, Probe};
use crate::run::report::{Latency, Report};
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

const KILLS: &str = "\nEach time in a new group, whose other servers are asked until one of them \
                     acknowledges a message (redis: `WAIT 1`, since only one replica is left):\n\n\
                     | system | kill -9 of the leader → next ack, ms |\n\
                     | --- | ---: |\n";
const BASELINE: &str = "\n| the machine in the same run | p50 µs | p99 µs | per second |\n\
                        | --- | ---: | ---: | ---: |\n";

/// The figures of one system.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    system: String,
    /// Name, version and configuration.
    pub(crate) title: String,
    version: String,
    meaning: &'static str,
    /// The result of each setting.
    pub(crate) runs: Vec<Report>,
    /// From each kill of the leader to the next acknowledgement.
    takeovers_ms: Vec<f64>,
}

/// The whole comparison; `--json` prints it as it is.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Comparison {
    /// RFC 3339.
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) machine: String,
    /// Measured time of each setting.
    pub(crate) seconds: u64,
    pub(crate) baseline: Baseline,
    /// postern is the first.
    #[serde(rename = "systems")]
    pub(crate) rows: Vec<Row>,
    pub(crate) not_installed: Vec<String>,
    /// Systems that could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// A column: its head, its digits after the point, its value.
type Column = (String, usize, fn(&Row) -> Option<f64>);

fn columns() -> [Column; 8] {
    let of = |at: usize, what: &str| {
        let (connections, depth) = SETTINGS[at];
        format!("{connections}×{depth}: {what}")
    };
    [
        (of(0, "acks/s"), 0, |row| acks(row, 0)),
        (of(0, "p50 ms"), 2, |row| Some(row.latency(0)?.p50 / 1e3)),
        (of(1, "acks/s"), 0, |row| acks(row, 1)),
        (of(1, "p99 ms"), 1, |row| Some(row.latency(1)?.p99 / 1e3)),
        (of(2, "acks/s"), 0, |row| acks(row, 2)),
        (of(2, "p99 ms"), 1, |row| Some(row.latency(2)?.p99 / 1e3)),
        (of(2, "CPU s per 100k"), 2, |row| row.runs.get(2)?.cpu_per_100k()),
        ("MiB after".to_owned(), 0, |row| {
            let servers = &row.runs.get(2)?.servers;
            Some(servers.iter().map(|one| one.resident_kib).sum::<i64>() as f64 / 1024.0)
        }),
    ]
}

fn acks(row: &Row, at: usize) -> Option<f64> {
    Some(row.runs.get(at)?.acked_per_second)
}

impl Row {
    /// Creates a row without figures.
    pub(crate) fn new(system: &str, title: String, version: String, meaning: &'static str) -> Row {
        let (runs, takeovers_ms) = (Vec::new(), Vec::new());
        Row { system: system.to_owned(), title, version, meaning, runs, takeovers_ms }
    }

    /// Adds the time of a takeover.
    pub(crate) fn add_kill(&mut self, took: Duration) {
        self.takeovers_ms.push(took.as_secs_f64() * 1e3);
    }

    fn latency(&self, at: usize) -> Option<Latency> {
        self.runs.get(at)?.latency_us
    }
}

impl Comparison {
    /// Formats the comparison as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let day = self.date.split('T').next().unwrap_or_default();
        let mut text = format!(
            "`{}`, {day}, {}. 100-byte messages, {} s each, servers and load on the same machine \
             over loopback. C×D: C connections with D outstanding requests each. In brackets: \
             ratios, postern = 1. CPU and memory: all servers of a system together.\n\n",
            self.command, self.machine, self.seconds,
        );
        self.write_table(&mut text);
        for (at, row) in self.rows.iter().filter(|row| !row.takeovers_ms.is_empty()).enumerate() {
            text.push_str(if at == 0 { KILLS } else { "" });
            let times = row.takeovers_ms.iter().map(|time| format!("{time:.0}"));
            let _ = writeln!(text, "| {} | {} |", row.title, times.collect::<Vec<_>>().join(" "));
        }
        self.write_baseline(&mut text);
        text.push_str("\nWhat an acknowledgement means:\n\n");
        for row in &self.rows {
            let _ = writeln!(text, "* {}: {}.", row.title, row.meaning);
        }
        for row in &self.rows {
            for (run, (connections, depth)) in row.runs.iter().zip(SETTINGS) {
                if !run.outcome.counts.errors.is_empty() {
                    let (title, errors) = (&row.title, &run.outcome.counts.errors);
                    let _ = writeln!(text, "\n{title}, {connections}×{depth}: errors {errors:?}.");
                }
            }
        }
        for program in &self.not_installed {
            let _ = writeln!(text, "\nNot measured: {program} is not installed.");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "\nNot measured: {failure}");
        }
        text
    }

    fn write_table(&self, text: &mut String) {
        let columns = columns();
        let heads: Vec<&str> = columns.iter().map(|column| column.0.as_str()).collect();
        let _ = writeln!(text, "| system | {} |", heads.join(" | "));
        let _ = writeln!(text, "| --- |{}", " ---: |".repeat(columns.len()));
        for row in &self.rows {
            let _ = write!(text, "| {} |", row.title);
            for (_, digits, value) in &columns {
                let cell = match (value(row), self.rows.first().and_then(value)) {
                    (Some(value), Some(ours)) => {
                        format!("{} ({})", grouped(value, *digits), ratio(value / ours))
                    }
                    _ => "–".to_owned(),
                };
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
    }

    /// Writes the baseline, and postern's shares of it.
    fn write_baseline(&self, text: &mut String) {
        for (at, (probe, measured)) in self.baseline.measured().enumerate() {
            text.push_str(if at == 0 { BASELINE } else { "" });
            let us = |of| grouped(measured.quantile(of).as_secs_f64() * 1e6, 0);
            let (p50, p99, rate) = (us(0.5), us(0.99), grouped(measured.per_second(), 0));
            let _ = writeln!(text, "| {} | {p50} | {p99} | {rate} |", probe.name());
        }
        let Some(own) = self.rows.first() else { return };
        let p50 = own.latency(0).map(|latency| latency.p50 / 1e6);
        let figures = [
            (
                "postern's p50 at 1×1",
                p50.map(Duration::from_secs_f64).map(Figure::Latency),
                Probe::SyncThree,
            ),
            ("postern's acks/s at 64×16", acks(own, 2).map(Figure::Rate), Probe::Echo),
        ];
        for (what, figure, probe) in figures {
            let share = figure.and_then(|figure| self.baseline.share(what, figure, probe));
            if let Some(share) = share {
                let _ = writeln!(text, "\n{}.", share.line);
            }
        }
    }
}

/// Formats a number with its thousands apart.
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// Formats a ratio with two significant digits.
fn ratio(value: f64) -> String {
    match value {
        _ if !value.is_finite() => "–".to_owned(),
        1.0 => "1".to_owned(),
        value if value < 0.0995 => format!("{value:.3}"),
        value if value < 0.995 => format!("{value:.2}"),
        value if value < 9.95 => format!("{value:.1}"),
        value => grouped(value, 0),
    }
}

#[cfg(test)]
mod tests {
    //! Every system has a row beside postern, with all of its figures and nothing else.

    use super::*;
    use crate::run::cost::Cost;
    use crate::run::load::Outcome;
    use serde_json::json;

    #[test]
    fn numbers_are_short() {
        let table = [(0.5, 2, "0.50"), (999.6, 0, "1,000"), (1_234_567.0, 0, "1,234,567")];
        for (value, digits, text) in table {
            assert_eq!(grouped(value, digits), text);
        }
        let table = [
            (1.0, "1"),
            (0.03, "0.030"),
            (0.099_6, "0.10"),
            (0.994, "0.99"),
            (0.996, "1.0"),
            (9.96, "10"),
            (1234.5, "1,234"),
            (f64::INFINITY, "–"),
            (f64::NAN, "–"),
        ];
        for (value, text) in table {
            assert_eq!(ratio(value), text);
        }
    }

    fn row(name: &str, factor: f64) -> Row {
        let mut row = Row::new(name, format!("{name} 1.0"), "1.0".to_owned(), "on disks");
        let latency = Latency { p50: 500.0, p90: 0.0, p99: 2000.0, p999: 0.0, max: 0.0 };
        let cost =
            |resident_kib, cpu_seconds| Cost { resident_kib, cpu_seconds, ..Cost::default() };
        let run = || {
            let mut report =
                Report::new(Outcome::default(), vec![cost(1024, 0.1), cost(2048, 0.2)]);
            report.outcome.counts.acked = 100_000;
            Report { acked_per_second: 2000.0 * factor, latency_us: Some(latency), ..report }
        };
        row.runs = SETTINGS.iter().map(|_| run()).collect();
        row
    }

    fn comparison(rows: Vec<Row>) -> Comparison {
        Comparison {
            date: "2026-11-26T00:09:28.567Z".to_owned(),
            command: "postern-load compare".to_owned(),
            machine: "2 processors".to_owned(),
            seconds: 5,
            rows,
            not_installed: vec!["redis".to_owned()],
            ..Comparison::default()
        }
    }

    #[test]
    fn rows_have_figures_and_ratios() {
        let text = comparison(vec![row("postern", 1.0), row("other", 0.25)]).markdown();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        let postern = "| postern 1.0 | 2,000 (1) | 0.50 (1) | 2,000 (1) | 2.0 (1) | 2,000 (1) | \
                       2.0 (1) | 0.30 (1) | 3 (1) |";
        let other = "| other 1.0 | 500 (0.25) | 0.50 (1) | 500 (0.25) | 2.0 (1) | 500 (0.25) | \
                     2.0 (1) | 0.30 (1) | 3 (1) |";
        assert_eq!(lines[2..], [postern, other]);
        assert!(text.starts_with("`postern-load compare`, 2026-11-26, 2 processors. 100-byte"));
        assert!(text.contains("\n* other 1.0: on disks.\n"));
        assert!(text.ends_with("\nNot measured: redis is not installed.\n"));
    }

    #[test]
    fn takeovers_and_errors_are_printed_if_there_are_any() {
        let mut other = row("other", 1.0);
        let plain = comparison(vec![row("postern", 1.0), row("other", 1.0)]).markdown();
        assert!(!plain.contains("kill"));
        [2, 3].into_iter().for_each(|seconds| other.add_kill(Duration::from_secs(seconds)));
        other.runs[1].outcome.counts.errors.insert("copies-1".to_owned(), 7);
        let all = comparison(vec![row("postern", 1.0), other]);
        let text = all.markdown();
        assert!(text.contains("\n| other 1.0 | 2000 3000 |\n"), "{text}");
        assert!(text.contains("\nother 1.0, 64×1: errors {\"copies-1\": 7}.\n"), "{text}");
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(json["systems"][1]["runs"][1]["errors"]["copies-1"], 7);
        assert_eq!(json["systems"][1]["takeovers_ms"], json!([2000.0, 3000.0]));
        assert_eq!(json["not_installed"], json!(["redis"]));
    }

    #[test]
    fn what_was_not_measured_has_no_figures() {
        let mut other = row("other", 1.0);
        other.runs.truncate(1);
        let text = comparison(vec![row("postern", 1.0), other]).markdown();
        assert!(text.contains("\n| other 1.0 | 2,000 (1) | 0.50 (1) | – | – | – | – | – | – |\n"));
    }
}
