//! Times as numbers that callers pass in: pure modules never read a clock.

use std::ops::{Add, AddAssign, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point on this process's monotonic clock, in microseconds since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, earlier: Moment) -> Duration {
        self.since(earlier)
    }
}

/// A wall-clock time in milliseconds since 1970-01-01T00:00:00Z, as stored in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

impl WallTime {
    /// The latest time that RFC 3339 can express: the end of the year 9999.
    pub const LAST: WallTime = WallTime(253_402_300_799_999);

    /// The wall time of `time`; the Unix epoch for earlier times.
    pub fn from_system(time: SystemTime) -> WallTime {
        let ms = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        u64::try_from(ms).map_or(WallTime::LAST, WallTime).min(WallTime::LAST)
    }

    /// Formats the time as RFC 3339 in UTC with milliseconds: `2026-11-23T11:58:03.120Z`.
    pub fn rfc3339(self) -> impl std::fmt::Display {
        // A record may hold any number; humantime refuses years beyond 9999.
        let writable = self.min(WallTime::LAST);
        humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(writable.0))
    }

    /// The time for use in file names: as RFC 3339, but without colons.
    pub fn label(self) -> String {
        self.rfc3339().to_string().replace(':', "-")
    }
}

/// Formats a span for people: in seconds, minutes or hours, rounded down.
pub(crate) fn in_words(span: Duration) -> String {
    match span.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_any_wall_time() {
        let text = |ms| WallTime(ms).rfc3339().to_string();
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(1_763_899_083_120), "2025-11-23T11:58:03.120Z");
        assert_eq!(text(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn takes_any_system_time() {
        let (before, after) = (Duration::from_secs(1), Duration::from_millis(1_763_899_083_120));
        assert_eq!(WallTime::from_system(UNIX_EPOCH - before), WallTime(0));
        assert_eq!(WallTime::from_system(UNIX_EPOCH + after), WallTime(1_763_899_083_120));
        let last = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(WallTime::from_system(last), WallTime::LAST);
    }

    #[test]
    fn a_label_has_no_colons() {
        assert_eq!(WallTime(1_763_899_083_120).label(), "2025-11-23T11-58-03.120Z");
    }

    #[test]
    fn spans_never_go_below_zero() {
        assert_eq!(Moment(3) - Moment(5), Duration::ZERO);
        assert_eq!(Moment(u64::MAX) + Duration::from_secs(1), Moment(u64::MAX));
    }

    #[test]
    fn a_span_is_said_in_whole_units() {
        for (seconds, shown) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h")] {
            assert_eq!(in_words(Duration::from_secs(seconds)), shown);
        }
    }
}
