//! `limits`: what this machine can do without postern, in the same run as postern's figures, which
//! are printed as shares of it. Absolute figures change from hour to hour; shares hardly do.

mod disk;
mod loopback;

use crate::stats::{median, p99, us};
use clap::Args;
use postern_testkit::{group, print};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options of `postern-load baseline`.
#[derive(Debug, Args)]
pub struct Options {
    /// Where files are written and synced; by default where `figures` has its data.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// How long all measurements take together.
    #[arg(long, default_value_t = 8, value_name = "S")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// Prints all limits.
///
/// # Errors
/// Why something could not be measured.
pub fn run(options: &Options) -> Result<(), String> {
    let made;
    let folder = match &options.folder {
        Some(folder) => folder,
        None => {
            made = group::folder("limits")?;
            made.path()
        }
    };
    let limits = measure(folder, Duration::from_secs(options.seconds))?;
    if options.json {
        return print(&format!("{}\n", limits.json()));
    }
    print(&limits.table())
}

/// Something that a machine can do so often and no oftener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// An append of one record and its fdatasync, by one writer.
    SyncOne,
    /// The same on a file that is not made longer: it was filled with zeros before.
    SyncOneFilled,
    /// By as many writers at once as there are servers, each with a file of its own.
    SyncThree,
    /// The same on files that were filled before.
    SyncThreeFilled,
    /// Of as many appends as there are servers, begun together, the slowest: who waits for all
    /// servers waits for this.
    SyncSlowest,
    /// An append of a small batch and its fdatasync, by one writer.
    Sync16KiB,
    /// The same with a large batch.
    Sync64KiB,
    /// A round trip of a short text on the loopback device, by blocking reads and writes.
    RoundTrip,
    /// What one thread with a mio loop can echo to 64 connections with 16 texts under way on each.
    Echo,
}

impl Limit {
    /// All of them, in the order of their places in a table.
    pub(crate) const ALL: [Limit; 9] = [
        Limit::SyncOne,
        Limit::SyncOneFilled,
        Limit::SyncThree,
        Limit::SyncThreeFilled,
        Limit::SyncSlowest,
        Limit::Sync16KiB,
        Limit::Sync64KiB,
        Limit::RoundTrip,
        Limit::Echo,
    ];

    /// What a person reads.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Limit::SyncOne => "fdatasync of 200 B",
            Limit::SyncOneFilled => "fdatasync of 200 B, preallocated",
            Limit::SyncThree => "fdatasync of 200 B, 3 writers",
            Limit::SyncThreeFilled => "fdatasync of 200 B, 3 writers, preallocated",
            Limit::SyncSlowest => "fdatasync of 200 B, slowest of 3 at once",
            Limit::Sync16KiB => "fdatasync of 16 KiB",
            Limit::Sync64KiB => "fdatasync of 64 KiB",
            Limit::RoundTrip => "loopback round trip of 100 B",
            Limit::Echo => "mio echo of 100 B, C=64 D=16",
        }
    }

    /// What a program reads.
    fn key(self) -> &'static str {
        match self {
            Limit::SyncOne => "sync_200_b",
            Limit::SyncOneFilled => "sync_200_b_filled",
            Limit::SyncThree => "sync_200_b_3_writers",
            Limit::SyncThreeFilled => "sync_200_b_3_writers_filled",
            Limit::SyncSlowest => "sync_200_b_slowest_of_3",
            Limit::Sync16KiB => "sync_16_kib",
            Limit::Sync64KiB => "sync_64_kib",
            Limit::RoundTrip => "round_trip_100_b",
            Limit::Echo => "echo_100_b_64_16",
        }
    }

    fn measure(self, folder: &Path, time: Duration) -> Result<Measured, String> {
        match self {
            Limit::SyncOne => disk::time_syncs(folder, time, 1, disk::Way::Append(200)),
            Limit::SyncOneFilled => disk::time_syncs(folder, time, 1, disk::Way::Filled(200)),
            Limit::SyncThree => disk::time_syncs(folder, time, 3, disk::Way::Append(200)),
            Limit::SyncThreeFilled => disk::time_syncs(folder, time, 3, disk::Way::Filled(200)),
            Limit::SyncSlowest => disk::time_slowest(folder, time, 3, 200),
            Limit::Sync16KiB => disk::time_syncs(folder, time, 1, disk::Way::Append(16 << 10)),
            Limit::Sync64KiB => disk::time_syncs(folder, time, 1, disk::Way::Append(64 << 10)),
            Limit::RoundTrip => loopback::time_round_trips(time),
            Limit::Echo => loopback::time_echo(time),
        }
    }
}

/// How often something was done, and how long it took each time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    samples: Vec<Duration>,
    /// More than there are samples where one sample is of many.
    count: u64,
    time: Duration,
}

impl Measured {
    pub(crate) fn median(&self) -> Duration {
        median(&self.samples)
    }

    pub(crate) fn p99(&self) -> Duration {
        p99(&self.samples)
    }

    /// How often in a second, by all who did it together.
    pub(crate) fn per_second(&self) -> f64 {
        self.count as f64 / self.time.as_secs_f64()
    }

    fn extend(&mut self, more: &Measured) {
        self.samples.extend(&more.samples);
        self.count += more.count;
        self.time += more.time;
    }
}

/// A figure of postern, to be compared with a limit of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// What it is, in few words.
    pub(crate) what: String,
    /// How much.
    pub(crate) value: Quantity,
    /// What the machine could do instead.
    pub(crate) limit: Limit,
}

/// How much, so that more is better or worse.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Quantity {
    /// How long it takes.
    Latency(Duration),
    /// How often in a second.
    Rate(f64),
}

impl Figure {
    /// A median, or another latency.
    pub(crate) fn latency(what: &str, time: Duration, limit: Limit) -> Figure {
        Figure { what: what.to_owned(), value: Quantity::Latency(time), limit }
    }

    /// How often in a second.
    pub(crate) fn rate(what: &str, per_second: f64, limit: Limit) -> Figure {
        Figure { what: what.to_owned(), value: Quantity::Rate(per_second), limit }
    }
}

/// How much of a limit a figure reaches, for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Share {
    what: String,
    limit: &'static str,
    /// 1 is all that the machine can do.
    share: f64,
}

/// The limits that were measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits([Measured; Limit::ALL.len()]);

/// Measures all limits in so much time together, the disk's in `folder`.
///
/// # Errors
/// What could not be measured, and why.
pub(crate) fn measure(folder: &Path, time: Duration) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for limit in Limit::ALL {
        limits.add(limit, folder, time / Limit::ALL.len() as u32)?;
    }
    Ok(limits)
}

impl Limits {
    /// Measures one limit, in addition to what was measured of it before.
    pub(crate) fn add(
        &mut self,
        limit: Limit,
        folder: &Path,
        time: Duration,
    ) -> Result<(), String> {
        let measured = limit.measure(folder, time);
        let measured = measured.map_err(|why| format!("{}: {why}", limit.words()))?;
        self.0[limit as usize].extend(&measured);
        Ok(())
    }

    /// What was measured.
    pub(crate) fn of(&self, limit: Limit) -> &Measured {
        &self.0[limit as usize]
    }

    /// How much of a limit a value reaches: 1 is all that the machine can do. `None` when the
    /// limit was not measured.
    pub(crate) fn share(&self, limit: Limit, value: Quantity) -> Option<f64> {
        let measured = self.of(limit);
        let share = match value {
            Quantity::Latency(time) => measured.median().as_secs_f64() / time.as_secs_f64(),
            Quantity::Rate(rate) => rate / measured.per_second(),
        };
        (measured.count > 0 && share.is_finite()).then_some(share)
    }

    /// A line for each figure: the share of its limit that it reaches.
    pub(crate) fn shares(&self, figures: &[Figure]) -> String {
        let mut text = String::new();
        for Figure { what, value, limit } in figures {
            let Some(share) = self.share(*limit, *value) else { continue };
            let measured = self.of(*limit);
            let (shown, bound) = match value {
                Quantity::Latency(time) => (us(*time), us(measured.median())),
                Quantity::Rate(rate) => {
                    (format!("{rate:.0}/s"), format!("{:.0}/s", measured.per_second()))
                }
            };
            let (percent, words) = (share * 100.0, limit.words());
            let digits = usize::from(percent < 10.0);
            let _ = writeln!(text, "  {what}, {shown}: {percent:.digits$} % of {words}, {bound}");
        }
        text
    }

    /// The same for programs.
    pub(crate) fn share_list(&self, figures: &[Figure]) -> Vec<Share> {
        let one = |Figure { what, value, limit }: &Figure| {
            let share = self.share(*limit, *value)?;
            Some(Share { what: what.clone(), limit: limit.key(), share })
        };
        figures.iter().filter_map(one).collect()
    }

    fn table(&self) -> String {
        let mut text = format!("{:<44} {:>10} {:>10} {:>11}\n", "", "median", "p99", "per second");
        for (limit, measured) in Limit::ALL.iter().zip(&self.0) {
            let (median, p99) = (us(measured.median()), us(measured.p99()));
            let (words, rate) = (limit.words(), measured.per_second());
            let _ = writeln!(text, "{words:<44} {median:>10} {p99:>10} {rate:>11.0}");
        }
        text
    }

    /// The limits that were measured, as one object: `p50_us`, `p99_us` and `per_second` of each.
    pub(crate) fn json(&self) -> Value {
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        let measured = Limit::ALL.iter().zip(&self.0).filter(|(_, measured)| measured.count > 0);
        let one = |(limit, measured): (&Limit, &Measured)| {
            let value = json!({
                "p50_us": micros(measured.median()),
                "p99_us": micros(measured.p99()),
                "per_second": measured.per_second().round(),
            });
            (limit.key().to_owned(), value)
        };
        Value::Object(measured.map(one).collect::<Map<_, _>>())
    }
}

impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    //! A share of 1 is the machine's limit, for latencies as for rates.

    use super::*;

    fn limits() -> Limits {
        let mut limits = Limits::default();
        let samples = vec![Duration::from_micros(200); 3];
        let time = Duration::from_millis(1);
        limits.0[Limit::SyncThree as usize] = Measured { samples, count: 5, time };
        limits
    }

    #[test]
    fn slower_is_less() {
        let limits = limits();
        let share = |value| limits.share(Limit::SyncThree, value);
        assert_eq!(share(Quantity::Latency(Duration::from_micros(400))), Some(0.5));
        assert_eq!(share(Quantity::Rate(2500.0)), Some(0.5));
        assert_eq!(share(Quantity::Latency(Duration::ZERO)), None);
    }

    #[test]
    fn what_was_not_measured_has_no_share() {
        let limits = limits();
        let of = |limit| Figure::rate("SEND", 2500.0, limit);
        let text = limits.shares(&[of(Limit::SyncThree), of(Limit::Echo)]);
        assert_eq!(text, "  SEND, 2500/s: 50 % of fdatasync of 200 B, 3 writers, 5000/s\n");
        assert_eq!(limits.json().as_object().map(Map::len), Some(1));
        let list = limits.share_list(&[of(Limit::SyncThree), of(Limit::Echo)]);
        let what = "SEND".to_owned();
        assert_eq!(list, [Share { what, limit: "sync_200_b_3_writers", share: 0.5 }]);
    }

    #[test]
    fn every_limit_has_its_place() {
        assert!(Limit::ALL.iter().enumerate().all(|(at, limit)| *limit as usize == at));
    }
}
