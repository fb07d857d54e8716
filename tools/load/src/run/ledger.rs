//! What is counted and timed while the load runs.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Nanoseconds since the load began.
pub(crate) type Nanos = u64;

/// Latencies of answers, in nanoseconds: to a thousandth, from a microsecond to ten minutes.
pub(crate) fn histogram() -> Histogram<u64> {
    // Constants that the library takes; the test below makes one.
    Histogram::new_with_bounds(1000, 600_000_000_000, 3).expect("bounds in order")
}

/// A stretch of the run, for the live line and the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    /// When it began.
    pub(crate) began: Nanos,
    /// How long it was.
    pub(crate) length: Nanos,
    /// Messages acknowledged.
    pub(crate) acked: u64,
    /// Messages delivered to receivers.
    pub(crate) delivered: u64,
    /// The latency that half of them did not exceed; none when nothing was acknowledged.
    pub(crate) p50: Option<Nanos>,
    /// The same for 99 of 100.
    pub(crate) p99: Option<Nanos>,
    /// The longest.
    pub(crate) longest: Option<Nanos>,
}

/// Another primary was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Takeover {
    /// When the first connection was let in by it.
    pub(crate) at: Nanos,
    /// From the loss of the old one to that moment.
    pub(crate) after: Nanos,
    /// Where it is.
    pub(crate) primary: SocketAddr,
}

/// All connections of some clients were closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Storm {
    /// When they were closed.
    pub(crate) at: Nanos,
    /// How many they were.
    pub(crate) connections: usize,
    /// From then until all were let in again; none when that was not seen.
    pub(crate) took: Option<Nanos>,
}

/// The whole account.
pub(crate) struct Ledger {
    /// Where the measured time begins and ends.
    pub(crate) window: (Nanos, Nanos),
    /// How much of it is over.
    pub(crate) measured: Nanos,
    /// Latencies within the window.
    pub(crate) latencies: Histogram<u64>,
    /// Messages acknowledged within the window.
    pub(crate) acked: u64,
    /// Messages acknowledged at any time.
    pub(crate) acked_ever: u64,
    /// Deliveries to receivers within the window.
    pub(crate) delivered: u64,
    /// Deliveries at any time.
    pub(crate) delivered_ever: u64,
    /// Refusals by their codes, and what ended connections.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Messages whose outcome nobody knows.
    pub(crate) unknown: u64,
    /// Messages that were sent again with their keys.
    pub(crate) repeated: u64,
    /// Connections that were lost.
    pub(crate) lost: u64,
    /// Changes of the primary.
    pub(crate) takeovers: Vec<Takeover>,
    /// Reconnect storms.
    pub(crate) storms: Vec<Storm>,
    /// All intervals that are over.
    pub(crate) intervals: Vec<Interval>,
    /// Latencies since the live line was last written.
    pub(crate) lately: Histogram<u64>,
    current: Histogram<u64>,
    interval: Interval,
}

impl Ledger {
    /// An empty one.
    pub(crate) fn new(warm_up: Duration, measured: Duration) -> Ledger {
        let begin = nanos(warm_up);
        Ledger {
            window: (begin, begin + nanos(measured)),
            measured: 0,
            latencies: histogram(),
            acked: 0,
            acked_ever: 0,
            delivered: 0,
            delivered_ever: 0,
            errors: BTreeMap::new(),
            unknown: 0,
            repeated: 0,
            lost: 0,
            takeovers: Vec::new(),
            storms: Vec::new(),
            intervals: Vec::new(),
            lately: histogram(),
            current: histogram(),
            interval: Interval::beginning(0),
        }
    }

    /// A message was acknowledged so long after it was, or should have been, sent.
    pub(crate) fn note_acked(&mut self, latency: Nanos) {
        self.interval.acked += 1;
        self.acked_ever += 1;
        self.current.saturating_record(latency);
    }

    /// So many messages were delivered.
    pub(crate) fn note_delivered(&mut self, count: u64) {
        self.interval.delivered += count;
        self.delivered_ever += count;
    }

    /// Something went wrong; the first word says what.
    pub(crate) fn note_error(&mut self, why: &str) {
        let code = why.split(' ').next().unwrap_or(why);
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(code.to_owned(), 1)),
        }
    }

    /// All errors together.
    pub(crate) fn errors_ever(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Ends the interval and begins the next one. It counts for the whole when it began within
    /// the window: intervals begin with it.
    pub(crate) fn end_interval(&mut self, now: Nanos) -> Interval {
        let mut interval = self.interval;
        interval.length = now.saturating_sub(interval.began);
        if interval.acked > 0 {
            let of = |quantile| Some(self.current.value_at_quantile(quantile));
            interval.p50 = of(0.5);
            interval.p99 = of(0.99);
            interval.longest = Some(self.current.max());
        }
        if (self.window.0..self.window.1).contains(&interval.began) {
            self.measured += interval.length;
            self.acked += interval.acked;
            self.delivered += interval.delivered;
            // All have the same bounds.
            let _ = self.latencies.add(&self.current);
        }
        let _ = self.lately.add(&self.current);
        self.current.reset();
        self.intervals.push(interval);
        self.interval = Interval::beginning(now);
        interval
    }
}

impl Interval {
    fn beginning(began: Nanos) -> Interval {
        Interval { began, length: 0, acked: 0, delivered: 0, p50: None, p99: None, longest: None }
    }
}

/// A span as nanoseconds; the longest that fits when it is longer.
pub(crate) fn nanos(span: Duration) -> Nanos {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_falls_into_the_window_counts() {
        let second = Duration::from_secs(1);
        let mut ledger = Ledger::new(second, second * 2);
        for (at, latency) in [(0, 7_000_000), (1, 2_000_000), (2, 3_000_000), (3, 9_000_000)] {
            ledger.note_acked(latency);
            let ended = ledger.end_interval(nanos(second * (at + 1)));
            assert_eq!(ended.began, nanos(second * at));
            assert!(ended.longest.unwrap().abs_diff(latency) <= latency / 500);
        }
        assert_eq!((ledger.acked, ledger.acked_ever, ledger.latencies.len()), (2, 4, 2));
        assert!(ledger.latencies.max() < 4_000_000, "the rest is outside");
        assert_eq!(ledger.end_interval(nanos(second * 5)).p50, None);
    }
}
