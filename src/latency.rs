//! Latencies of the last seconds, in a table of fixed size.

use crate::time::Moment;
use std::time::Duration;

/// A window lasts between one and two of these halves.
const HALF_WINDOW: Duration = Duration::from_secs(5);
/// Four buckets for each power of two of microseconds.
const BUCKETS: usize = 4 * 40;

/// Counts latencies in buckets that grow by a fifth. Forgets latencies older than ten seconds.
#[derive(Clone, Debug)]
pub struct Meter {
    halves: [Vec<u32>; 2],
    began: Moment,
    worst: Duration,
}

impl Default for Meter {
    fn default() -> Meter {
        let halves = [vec![0; BUCKETS], vec![0; BUCKETS]];
        Meter { halves, began: Moment::default(), worst: Duration::ZERO }
    }
}

impl Meter {
    /// Records one latency.
    pub fn note(&mut self, now: Moment, took: Duration) {
        self.turn(now);
        let bucket = &mut self.halves[0][bucket(took)];
        *bucket = bucket.saturating_add(1);
        self.worst = self.worst.max(took);
    }

    fn turn(&mut self, now: Moment) {
        if now < self.began + HALF_WINDOW {
            return;
        }
        self.halves.swap(0, 1);
        self.halves[0].fill(0);
        if now >= self.began + HALF_WINDOW * 2 {
            self.halves[1].fill(0);
        }
        self.began = now;
    }

    /// The number of latencies in the window, and the length of the window.
    pub fn count(&mut self, now: Moment) -> (u64, Duration) {
        self.turn(now);
        let sum = |half: &Vec<u32>| half.iter().map(|count| u64::from(*count)).sum::<u64>();
        let older = if sum(&self.halves[1]) > 0 { HALF_WINDOW } else { Duration::ZERO };
        (self.halves.iter().map(sum).sum(), older + (now - self.began))
    }

    /// The latency that the share `of` (0 to 1) of the window did not exceed, in microseconds.
    /// `None` when the window is empty.
    pub fn quantile_us(&mut self, now: Moment, of: f64) -> Option<u64> {
        let (count, _) = self.count(now);
        if count == 0 {
            return None;
        }
        let wanted = (count as f64 * of).ceil() as u64;
        let mut seen = 0;
        let bucket = (0..BUCKETS).find(|bucket| {
            seen += self.halves.iter().map(|half| u64::from(half[*bucket])).sum::<u64>();
            seen >= wanted
        });
        bucket.map(upper_us)
    }

    /// The highest latency since the start.
    pub fn worst(&self) -> Duration {
        self.worst
    }
}

fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let power = us.ilog2() as usize;
    let quarter = if power >= 2 { (us >> (power - 2)) as usize & 3 } else { 0 };
    (power * 4 + quarter).min(BUCKETS - 1)
}

fn upper_us(bucket: usize) -> u64 {
    let (power, quarter) = (bucket / 4, bucket % 4);
    if power < 2 { 2 << power } else { (5 + quarter as u64) << (power - 2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_and_forgotten() {
        let mut meter = Meter::default();
        let now = Moment(1_000_000);
        for us in 1..=1000 {
            meter.note(now, Duration::from_micros(us));
        }
        let median = meter.quantile_us(now, 0.5).unwrap();
        assert!((500..=640).contains(&median), "{median}");
        let high = meter.quantile_us(now, 0.99).unwrap();
        assert!((990..=1280).contains(&high), "{high}");
        assert_eq!(meter.worst(), Duration::from_micros(1000));
        let later = now + HALF_WINDOW * 3;
        assert_eq!(meter.quantile_us(later, 0.5), None);
        meter.note(later, Duration::MAX);
    }
}
