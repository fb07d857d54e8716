//! Counts and latencies of a run.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Nanoseconds since the load began.
pub(crate) type Nanos = u64;

/// Creates a histogram of nanoseconds: from a microsecond to ten minutes, to a thousandth.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, 600_000_000_000, 3).expect("valid bounds")
}

/// A short part of the run, for the live line and for plots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Interval {
    /// When it began.
    #[serde(rename = "began_ns")]
    pub(crate) began: Nanos,
    /// How long it was.
    #[serde(rename = "length_ns")]
    pub(crate) length: Nanos,
    /// Acknowledged messages.
    pub(crate) acked: u64,
    /// Messages delivered to receivers.
    pub(crate) delivered: u64,
    /// Median, 99th percentile and maximum of latencies; `None` if nothing was acknowledged.
    #[serde(rename = "latency_ns")]
    pub(crate) latency: Option<[Nanos; 3]>,
}

/// A change of the primary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Takeover {
    /// When the new primary accepted the first login, in seconds since the load began.
    pub(crate) at: f64,
    /// From the loss of the previous primary until then.
    pub(crate) after_ms: f64,
    /// From that loss until all clients were logged in; `None` if the run ended before.
    pub(crate) reconnected_ms: Option<f64>,
    /// The address of the new primary.
    pub(crate) primary: String,
}

/// A reconnect storm: all connections of some clients closed at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Storm {
    /// When they closed, in seconds since the load began.
    pub(crate) at: f64,
    /// How many closed.
    pub(crate) connections: usize,
    /// Until all were logged in again; `None` if the run ended before.
    pub(crate) took_ms: Option<f64>,
}

/// All counts and latencies of a run.
#[derive(Debug, Serialize)]
pub struct Counts {
    /// Begin and end of the measured time.
    #[serde(skip)]
    pub(crate) window: (Nanos, Nanos),
    /// How much of the measured time has passed.
    #[serde(skip)]
    pub(crate) measured: Nanos,
    /// Latencies within the window.
    #[serde(skip)]
    pub(crate) latencies: Histogram<u64>,
    /// Messages acknowledged within the window, and at any time.
    pub(crate) acked: u64,
    pub acked_total: u64,
    /// Messages delivered to receivers within the window.
    pub(crate) delivered: u64,
    /// Error codes and causes of lost connections, at any time, as all that follows.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Messages of unknown outcome.
    pub unknown: u64,
    /// Messages that were sent again with their keys.
    pub(crate) repeated: u64,
    /// Lost connections.
    pub(crate) lost: u64,
    pub(crate) takeovers: Vec<Takeover>,
    pub(crate) storms: Vec<Storm>,
    /// Completed intervals.
    pub(crate) intervals: Vec<Interval>,
    #[serde(skip)]
    current: Histogram<u64>,
    #[serde(skip)]
    interval: Interval,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts::new(Duration::ZERO, Duration::ZERO)
    }
}

impl Counts {
    /// Creates empty counts.
    pub(crate) fn new(warm_up: Duration, measured: Duration) -> Counts {
        let begin = nanos(warm_up);
        Counts {
            window: (begin, begin + nanos(measured)),
            measured: 0,
            latencies: histogram(),
            acked: 0,
            acked_total: 0,
            delivered: 0,
            errors: BTreeMap::new(),
            unknown: 0,
            repeated: 0,
            lost: 0,
            takeovers: Vec::new(),
            storms: Vec::new(),
            intervals: Vec::new(),
            current: histogram(),
            interval: Interval::default(),
        }
    }

    /// Records an acknowledged message; its latency counts from when it was, or should have been,
    /// sent.
    pub(crate) fn record_ack(&mut self, latency: Nanos) {
        self.interval.acked += 1;
        self.acked_total += 1;
        self.current.saturating_record(latency);
    }

    /// Records delivered messages.
    pub(crate) fn record_delivered(&mut self, count: u64) {
        self.interval.delivered += count;
    }

    /// Records an error; its first word is the code.
    pub(crate) fn record_error(&mut self, why: &str) {
        let code = why.split(' ').next().unwrap_or(why);
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(code.to_owned(), 1)),
        }
    }

    /// Ends the interval and begins the next one. An interval that began within the window counts
    /// as a whole.
    pub(crate) fn end_interval(&mut self, now: Nanos) -> Interval {
        let next = Interval { began: now, ..Interval::default() };
        let mut interval = std::mem::replace(&mut self.interval, next);
        interval.length = now.saturating_sub(interval.began);
        if interval.acked > 0 {
            let of = |quantile| self.current.value_at_quantile(quantile);
            interval.latency = Some([of(0.5), of(0.99), self.current.max()]);
        }
        if (self.window.0..self.window.1).contains(&interval.began) {
            self.measured += interval.length;
            self.acked += interval.acked;
            self.delivered += interval.delivered;
            // Adding fails only for different bounds.
            let _ = self.latencies.add(&self.current);
        }
        self.current.reset();
        self.intervals.push(interval);
        interval
    }
}

/// Returns a duration in nanoseconds; the maximum if it is longer.
pub(crate) fn nanos(span: Duration) -> Nanos {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns nanoseconds as seconds.
pub(crate) fn seconds(time: Nanos) -> f64 {
    time as f64 / 1e9
}

/// Returns nanoseconds as milliseconds.
pub(crate) fn ms(time: Nanos) -> f64 {
    time as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_falls_into_the_window_counts() {
        let second = Duration::from_secs(1);
        let mut counts = Counts::new(second, second * 2);
        for (at, latency) in [(0, 7_000_000), (1, 2_000_000), (2, 3_000_000), (3, 9_000_000)] {
            counts.record_ack(latency);
            let ended = counts.end_interval(nanos(second * (at + 1)));
            assert_eq!(ended.began, nanos(second * at));
            assert!(ended.latency.unwrap()[2].abs_diff(latency) <= latency / 500);
        }
        assert_eq!((counts.acked, counts.acked_total, counts.latencies.len()), (2, 4, 2));
        assert!(counts.latencies.max() < 4_000_000, "the rest is outside");
        assert_eq!(counts.end_interval(nanos(second * 5)).latency, None);
    }
}
