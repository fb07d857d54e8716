//! The table, for people and for programs.

use super::measure::{Figures, SETTINGS, TEXT_BYTES};
use crate::baseline::{Figure, Limit, Limits};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// What stands above the times of takeovers.
const TAKEOVERS: &str = "\nEach time of a fresh group, whose other servers are asked until one of \
                         them acknowledges (redis: `WAIT 1`, only one replica is left):\n\n\
                         | system | kill -9 of the leader → next acknowledgement, ms |\n\
                         | --- | ---: |\n";

/// What stands above the machine's limits.
const LIMITS: &str = "\n| the machine in the same run | p50 µs | p99 µs | per second |\n\
                      | --- | ---: | ---: | ---: |\n";

/// All that is known of one system.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// For programs.
    pub(crate) key: String,
    /// For people: its name, its version, how it is used.
    pub(crate) title: String,
    /// Its version, as its program says it.
    pub(crate) version: String,
    /// What an acknowledgement means there, and where that is less.
    pub(crate) meaning: &'static str,
    /// For each of the settings.
    pub(crate) figures: Vec<Figures>,
    /// Resident memory of its processes afterwards, in KiB.
    pub(crate) resident: Vec<i64>,
    /// From the death of the leader to the next acknowledgement, each time.
    pub(crate) takeovers: Vec<Duration>,
}

/// What the whole run was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// RFC 3339.
    pub(crate) date: String,
    /// What was typed.
    pub(crate) command: String,
    /// Processors and kernel.
    pub(crate) machine: String,
    /// How long each measurement was.
    pub(crate) seconds: u64,
    /// What the machine could do in the same run.
    pub(crate) limits: Limits,
    /// postern comes first.
    pub(crate) rows: Vec<Row>,
    /// What is not installed.
    pub(crate) missing: Vec<String>,
    /// Why systems have no row.
    pub(crate) failures: Vec<String>,
}

/// A column: its head, how a system's figure is found, how it is written.
struct Column {
    head: String,
    value: fn(&Row) -> Option<f64>,
    digits: usize,
}

fn columns() -> Vec<Column> {
    let head = |at: usize, what: &str| {
        let (connections, depth) = SETTINGS[at];
        format!("{connections}×{depth}: {what}")
    };
    let column = |head, digits, value| Column { head, value, digits };
    vec![
        column(head(0, "acks/s"), 0, |row| acks(row, 0)),
        column(head(0, "p50 ms"), 2, |row| Some(ms(row.figures.first()?.p50))),
        column(head(1, "acks/s"), 0, |row| acks(row, 1)),
        column(head(1, "p99 ms"), 1, |row| Some(ms(row.figures.get(1)?.p99))),
        column(head(2, "acks/s"), 0, |row| acks(row, 2)),
        column(head(2, "p99 ms"), 1, |row| Some(ms(row.figures.get(2)?.p99))),
        column(head(2, "CPU s per 100k"), 2, |row| {
            Some(row.figures.get(2)?.cpu_per_100k.as_secs_f64())
        }),
        column("MiB after".to_owned(), 0, |row| {
            (!row.resident.is_empty()).then(|| row.resident.iter().sum::<i64>() as f64 / 1024.0)
        }),
    ]
}

fn acks(row: &Row, at: usize) -> Option<f64> {
    Some(row.figures.get(at)?.acks_per_second)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Report {
    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "`{}`, {}, {}. {TEXT_BYTES}-byte messages, {} s each, servers and load on the same \
             machine over loopback. C×D: connections, each with D requests outstanding. In \
             brackets: ratios, postern = 1. CPU and memory: all servers of a system together.\n\n",
            self.command,
            day(&self.date),
            self.machine,
            self.seconds,
        );
        self.write_table(&mut text, &columns());
        if self.rows.iter().any(|row| !row.takeovers.is_empty()) {
            text.push_str(TAKEOVERS);
            for row in self.rows.iter().filter(|row| !row.takeovers.is_empty()) {
                let times: Vec<String> =
                    row.takeovers.iter().map(|time| format!("{:.0}", ms(*time))).collect();
                let _ = writeln!(text, "| {} | {} |", row.title, times.join(" "));
            }
        }
        self.write_limits(&mut text);
        text.push_str("\nWhat an acknowledgement means:\n\n");
        for row in &self.rows {
            let _ = writeln!(text, "* {}: {}.", row.title, row.meaning);
        }
        for row in &self.rows {
            for (figures, (connections, depth)) in row.figures.iter().zip(SETTINGS) {
                if !figures.errors.is_empty() {
                    let (title, errors) = (&row.title, &figures.errors);
                    let _ = writeln!(text, "\n{title}, {connections}×{depth}: refused {errors:?}.");
                }
            }
        }
        for missing in &self.missing {
            let _ = writeln!(text, "\nNot measured: {missing} is not installed.");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "\nNot measured: {failure}");
        }
        text
    }

    fn write_table(&self, text: &mut String, columns: &[Column]) {
        let heads: Vec<&str> = columns.iter().map(|column| column.head.as_str()).collect();
        let _ = writeln!(text, "| system | {} |", heads.join(" | "));
        let _ = writeln!(text, "| --- |{}", " ---: |".repeat(columns.len()));
        let first = self.rows.first();
        for row in &self.rows {
            let _ = write!(text, "| {} |", row.title);
            for column in columns {
                let cell = match ((column.value)(row), first.and_then(column.value)) {
                    (Some(value), Some(ours)) => {
                        format!("{} ({})", grouped(value, column.digits), ratio(value / ours))
                    }
                    _ => "–".to_owned(),
                };
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
    }

    /// The machine itself, and what postern makes of it.
    fn write_limits(&self, text: &mut String) {
        let measured = Limit::ALL.map(|limit| (limit, self.limits.of(limit)));
        // A rate that is no number is one of nothing.
        let measured = measured.iter().filter(|(_, measured)| measured.per_second().is_finite());
        for (at, (limit, measured)) in measured.enumerate() {
            if at == 0 {
                text.push_str(LIMITS);
            }
            let us = |time: Duration| grouped(time.as_secs_f64() * 1e6, 0);
            let (p50, p99) = (us(measured.median()), us(measured.p99()));
            let rate = grouped(measured.per_second(), 0);
            let _ = writeln!(text, "| {} | {p50} | {p99} | {rate} |", limit.words());
        }
        let Some(own) = self.rows.first() else { return };
        let (Some(one), Some(many)) = (own.figures.first(), own.figures.last()) else { return };
        let title = |at: usize, what: &str| {
            let (connections, depth) = SETTINGS[at];
            format!("postern's {what} at {connections}×{depth}")
        };
        let figures = [
            Figure::latency(&title(0, "p50"), one.p50, Limit::SyncThree),
            Figure::rate(&title(2, "acks/s"), many.acks_per_second, Limit::Echo),
        ];
        for line in self.limits.shares(&figures).lines() {
            let _ = writeln!(text, "\n{}.", line.trim_start());
        }
    }

    /// As one object.
    pub(crate) fn json(&self) -> Value {
        let figures = |(figures, (connections, depth)): (&Figures, (usize, usize))| {
            json!({
                "connections": connections,
                "depth": depth,
                "acks_per_second": figures.acks_per_second,
                "p50_ms": ms(figures.p50),
                "p99_ms": ms(figures.p99),
                "cpu_seconds_per_100k": figures.cpu_per_100k.as_secs_f64(),
                "errors": figures.errors,
            })
        };
        let row = |row: &Row| {
            json!({
                "system": row.key,
                "title": row.title,
                "version": row.version,
                "meaning": row.meaning,
                "runs": row.figures.iter().zip(SETTINGS).map(figures).collect::<Vec<_>>(),
                "resident_kib": row.resident,
                "takeovers_ms": row.takeovers.iter().map(|time| ms(*time)).collect::<Vec<_>>(),
            })
        };
        json!({
            "date": self.date,
            "command": self.command,
            "machine": self.machine,
            "seconds": self.seconds,
            "text_bytes": TEXT_BYTES,
            "limits": self.limits.json(),
            "systems": self.rows.iter().map(row).collect::<Vec<_>>(),
            "not_installed": self.missing,
            "failures": self.failures,
        })
    }
}

/// The date in a time as RFC 3339 writes it.
fn day(date: &str) -> &str {
    date.split('T').next().unwrap_or(date)
}

/// A number with so many digits behind the point, and its thousands apart.
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

/// A ratio with two digits that say something.
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
    //! Every system stands beside postern, with all that is known of it and nothing else.

    use super::*;

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
        let figures = Figures {
            acks_per_second: 2000.0 * factor,
            p50: Duration::from_micros(500),
            p99: Duration::from_millis(2),
            cpu_per_100k: Duration::from_millis(300),
            ..Figures::default()
        };
        Row {
            key: name.to_owned(),
            title: format!("{name} 1.0"),
            version: "1.0".to_owned(),
            meaning: "on disks",
            figures: vec![figures; SETTINGS.len()],
            resident: vec![1024, 2048],
            takeovers: Vec::new(),
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        Report {
            date: "2026-11-26T00:09:28.567Z".to_owned(),
            command: "postern-load compare".to_owned(),
            machine: "2 processors".to_owned(),
            seconds: 5,
            rows,
            missing: vec!["redis".to_owned()],
            ..Report::default()
        }
    }

    #[test]
    fn rows_have_figures_and_ratios() {
        let text = report(vec![row("postern", 1.0), row("other", 0.25)]).markdown();
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
    fn takeovers_and_refusals_are_told_when_there_were_some() {
        let mut other = row("other", 1.0);
        assert!(!report(vec![row("postern", 1.0), other.clone()]).markdown().contains("kill"));
        other.takeovers = [2, 3].map(Duration::from_secs).to_vec();
        other.figures[1].errors.insert("copies-1".to_owned(), 7);
        let report = report(vec![row("postern", 1.0), other]);
        let text = report.markdown();
        assert!(text.contains("\n| other 1.0 | 2000 3000 |\n"), "{text}");
        assert!(text.contains("\nother 1.0, 64×1: refused {\"copies-1\": 7}.\n"), "{text}");
        let json = report.json();
        assert_eq!(json["systems"][1]["runs"][1]["errors"]["copies-1"], 7);
        assert_eq!(json["systems"][1]["takeovers_ms"], json!([2000.0, 3000.0]));
        assert_eq!(json["not_installed"], json!(["redis"]));
    }

    #[test]
    fn what_was_not_measured_has_no_figures() {
        let mut other = row("other", 1.0);
        other.figures.truncate(1);
        other.resident.clear();
        let text = report(vec![row("postern", 1.0), other]).markdown();
        assert!(text.contains("\n| other 1.0 | 2,000 (1) | 0.50 (1) | – | – | – | – | – | – |\n"));
    }
}
