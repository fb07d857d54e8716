//! `postern-load baseline`: what this machine can do without postern.
//!
//! Reports print postern's figures as shares of a baseline of the same run: absolute figures change
//! from hour to hour, shares hardly do.

mod disk;
mod loopback;

use crate::run::counts::{histogram, nanos};
use crate::stats::us;
use clap::Args;
use disk::Writes;
use hdrhistogram::Histogram;
use loopback::time_echo;
use postern_testkit::group::{self, Group};
use postern_testkit::print;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Of each probe, before a load and after it.
const LOAD_TIME: Duration = Duration::from_millis(300);

/// Options of `postern-load baseline`.
#[derive(Debug, Args)]
pub struct Options {
    /// Write and sync files in this folder [default: `target`].
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Duration of all measurements together, in seconds.
    #[arg(long, default_value_t = 8, value_name = "S")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Measures and prints the baseline.
///
/// # Errors
/// A measurement fails.
pub fn run(options: &Options) -> Result<(), String> {
    let temporary;
    let folder = match &options.folder {
        Some(folder) => folder,
        None => {
            temporary = group::folder("baseline")?;
            temporary.path()
        }
    };
    let time = Duration::from_secs(options.seconds) / Probe::ALL.len() as u32;
    let mut baseline = Baseline::default();
    baseline.measure(Probe::ALL, folder, time)?;
    print(&if options.json { format!("{}\n", baseline.json()) } else { baseline.table() })
}

/// What is measured of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Appends and syncs by one writer.
    SyncOne,
    /// Appends and syncs by three writers at once, each with its own file, as three servers have.
    SyncThree,
    /// The slowest of three that begin together: an acknowledgement of all servers waits for it.
    SyncSlowest,
    /// What one thread with a mio loop echoes to the load generator.
    Echo,
}

impl Probe {
    /// All probes, each at its index in [`Baseline`].
    pub(crate) const ALL: [Probe; 4] =
        [Probe::SyncOne, Probe::SyncThree, Probe::SyncSlowest, Probe::Echo];

    /// Returns the key in JSON.
    fn key(self) -> &'static str {
        match self {
            Probe::SyncOne => "sync_200_b",
            Probe::SyncThree => "sync_200_b_3_writers",
            Probe::SyncSlowest => "sync_200_b_slowest_of_3",
            Probe::Echo => "echo_100_b_64_16",
        }
    }

    /// Returns the name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Probe::SyncOne => "fdatasync of 200 B",
            Probe::SyncThree => "fdatasync of 200 B, 3 writers",
            Probe::SyncSlowest => "fdatasync of 200 B, slowest of 3 at once",
            Probe::Echo => "mio echo of 100 B, C=64 D=16",
        }
    }

    fn measure(self, folder: &Path, time: Duration) -> Result<Measured, String> {
        let (writers, together) = match self {
            Probe::SyncOne => (1, false),
            Probe::SyncThree => (3, false),
            Probe::SyncSlowest => (3, true),
            Probe::Echo => return time_echo(time),
        };
        Writes { writers, together }.measure(folder, time)
    }
}

/// How often something was done, and how long it took.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    latencies: Histogram<u64>,
    /// May exceed the number of latencies, when one latency is that of many texts.
    count: u64,
    time: Duration,
}

impl Default for Measured {
    fn default() -> Measured {
        Measured { latencies: histogram(), count: 0, time: Duration::ZERO }
    }
}

impl Measured {
    fn new(samples: &[Duration], time: Duration) -> Measured {
        let mut measured = Measured { count: samples.len() as u64, time, ..Measured::default() };
        samples.iter().for_each(|sample| measured.latencies.saturating_record(nanos(*sample)));
        measured
    }

    /// Returns a quantile of the latencies.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(quantile))
    }

    /// Returns how often it was done per second, by all threads together.
    pub(crate) fn per_second(&self) -> f64 {
        self.count as f64 / self.time.as_secs_f64()
    }
}

/// A figure of postern, to be compared with a probe.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Figure {
    Latency(Duration),
    /// Per second.
    Rate(f64),
}

/// How much of a probe a figure reaches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Share {
    what: String,
    probe: &'static str,
    /// 1 is all that the machine can do.
    share: f64,
    /// For a person.
    #[serde(skip)]
    pub(crate) line: String,
}

/// The probes that were measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Baseline([Measured; Probe::ALL.len()]);

impl Baseline {
    /// Measures some probes, in addition to what was measured of them before.
    pub(crate) fn measure(
        &mut self,
        probes: impl IntoIterator<Item = Probe>,
        folder: &Path,
        time: Duration,
    ) -> Result<(), String> {
        for probe in probes {
            let measured = probe.measure(folder, time);
            let measured = measured.map_err(|why| format!("{}: {why}", probe.name()))?;
            let all = &mut self.0[probe as usize];
            // Adding fails only for different bounds.
            let _ = all.latencies.add(&measured.latencies);
            all.count += measured.count;
            all.time += measured.time;
        }
        Ok(())
    }

    /// Measures what loads are compared with. The disks of other machines are unknown.
    pub(crate) fn measure_for_load(&mut self, group: Option<&Group>) -> Result<(), String> {
        if let Some(group) = group {
            self.measure([Probe::SyncThree, Probe::SyncSlowest], group.folder(), LOAD_TIME)?;
        }
        self.measure([Probe::Echo], &std::env::temp_dir(), LOAD_TIME)
    }

    /// Returns what was measured.
    pub(crate) fn of(&self, probe: Probe) -> &Measured {
        &self.0[probe as usize]
    }

    /// Returns how much of a probe a figure reaches; `None` if the probe was not measured.
    pub(crate) fn share(&self, what: &str, figure: Figure, probe: Probe) -> Option<Share> {
        let measured = self.of(probe);
        let (share, shown, bound) = match figure {
            Figure::Latency(time) => {
                let median = measured.quantile(0.5);
                (median.as_secs_f64() / time.as_secs_f64(), us(time), us(median))
            }
            Figure::Rate(rate) => {
                let per_second = measured.per_second();
                (rate / per_second, format!("{rate:.0}/s"), format!("{per_second:.0}/s"))
            }
        };
        let name = probe.name();
        let percent = share * 100.0;
        let digits = usize::from(percent < 10.0);
        let line = format!("{what}, {shown}: {percent:.digits$} % of {name}, {bound}");
        let share = Share { what: what.to_owned(), probe: probe.key(), share, line };
        (measured.count > 0 && share.share.is_finite()).then_some(share)
    }

    /// Returns the probes that were measured.
    pub(crate) fn measured(&self) -> impl Iterator<Item = (Probe, &Measured)> {
        Probe::ALL.into_iter().zip(&self.0).filter(|(_, measured)| measured.count > 0)
    }

    fn table(&self) -> String {
        let mut text = format!("{:<44} {:>10} {:>10} {:>11}\n", "", "median", "p99", "per second");
        for (probe, measured) in self.measured() {
            let [median, p99] = [0.5, 0.99].map(|quantile| us(measured.quantile(quantile)));
            let (name, rate) = (probe.name(), measured.per_second());
            let _ = writeln!(text, "{name:<44} {median:>10} {p99:>10} {rate:>11.0}");
        }
        text
    }

    fn json(&self) -> Value {
        let one = |(probe, measured): (Probe, &Measured)| {
            let of = |quantile| measured.quantile(quantile).as_nanos() as f64 / 1e3;
            let rate = measured.per_second().round();
            let value = json!({ "p50_us": of(0.5), "p99_us": of(0.99), "per_second": rate });
            (probe.key().to_owned(), value)
        };
        Value::Object(self.measured().map(one).collect::<Map<_, _>>())
    }
}

impl Serialize for Baseline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    //! A share of 1 is all that the machine can do, for latencies as for rates.

    use super::*;

    fn baseline() -> Baseline {
        let mut baseline = Baseline::default();
        let samples = [Duration::from_micros(200); 5];
        baseline.0[Probe::SyncThree as usize] = Measured::new(&samples, Duration::from_millis(1));
        baseline
    }

    #[test]
    fn slower_is_less() {
        let baseline = baseline();
        let share = |figure| Some(baseline.share("SEND", figure, Probe::SyncThree)?.share);
        let half = share(Figure::Latency(Duration::from_micros(400))).unwrap();
        assert!((half - 0.5).abs() < 0.001, "{half}");
        assert_eq!(share(Figure::Rate(2500.0)), Some(0.5));
        assert_eq!(share(Figure::Latency(Duration::ZERO)), None);
    }

    #[test]
    fn what_was_not_measured_has_no_share() {
        let baseline = baseline();
        let of = |probe| baseline.share("SEND", Figure::Rate(2500.0), probe);
        assert_eq!(of(Probe::Echo), None);
        assert_eq!(baseline.json().as_object().map(Map::len), Some(1));
        let line = "SEND, 2500/s: 50 % of fdatasync of 200 B, 3 writers, 5000/s".to_owned();
        let (what, probe) = ("SEND".to_owned(), "sync_200_b_3_writers");
        assert_eq!(of(Probe::SyncThree), Some(Share { what, probe, share: 0.5, line }));
    }
}
