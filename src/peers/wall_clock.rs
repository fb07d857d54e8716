//! The wall clocks of the servers, and the time of each record: the median of three clocks.
//!
//! A record carries a time, never earlier than that of the record before it. If records used the
//! primary's own clock, one server could do lasting harm. A clock a day ahead, for one message
//! only, would give that time to all messages of the next day. So each ping carries its sender's
//! wall clock, and each server keeps an *offset* for every server: its wall clock minus the
//! monotonic clock of this server. The time of the next record is the median offset plus the
//! monotonic clock: one addition.
//!
//! How an offset is measured. A ping carries `sent`, the sender's monotonic clock, and `wall`,
//! its wall clock at the same moment. The offset is the sum of two parts, which are kept apart
//! since they fail in different ways:
//!
//! * `wall - sent`, of the newest ping alone. The network does not change it, so a jump of the
//!   sender's wall clock counts at once.
//! * `sent - arrival`, the *lead*. It is too low by the delay of the ping, and never too high.
//!   This module keeps the greatest lead of the last one to two peer timeouts. So a ping that
//!   waited, in the network or while this server was paused, changes nothing. The remaining error
//!   is the least delay of the pings in that time.
//!
//! The rule tolerates:
//!
//! * A jump of this server's own wall clock. Records are stamped from the monotonic clock. The
//!   own wall clock is read again when a ping arrives, and is only one of three.
//! * A lost server. Its offset is kept until this process ends. The offset refers to a clock that
//!   does not jump, so of two remaining servers, one with a wrong clock does not decide. A
//!   restarted server is measured afresh with its first ping.
//! * A pause of this server. The median holds for [`CLOCK_TIME`] after the last ping.
//! * Any number in a ping. It is clamped, and counts as the reading of a wrong clock.
//!
//! The limits. Two wrong clocks outvote the third. A server uses its own clock until it has
//! received pings from both others since its start; that is short, since each new link begins
//! with a ping. It also uses its own clock when no other server has sent a ping for
//! [`CLOCK_TIME`]. So a wrong clock counts where a server restarts while another one is down, or
//! runs alone. After a time that was too late, records repeat that time until the clock reaches
//! it.

use crate::ids::{ProcessId, ServerId};
use crate::limits::{CLOCK_TIME, SKEW_MAX, SKEW_WARNING_TIME};
use crate::time::{Moment, WallTime};
use std::time::Duration;

/// The bound of every clock and difference, in µs: sums of a few of them do not overflow.
const MICROS_MAX: i64 = 1 << 58;

fn micros(moment: Moment) -> i64 {
    i64::try_from(moment.0).unwrap_or(MICROS_MAX).min(MICROS_MAX)
}

fn wall_micros(wall: WallTime) -> i64 {
    i64::try_from(wall.min(WallTime::LAST).0).map_or(MICROS_MAX, |ms| ms * 1000)
}

/// Converts any number of µs since the Unix epoch to a wall time.
fn wall_time(micros: i64) -> WallTime {
    WallTime(u64::try_from(micros).unwrap_or(0) / 1000).min(WallTime::LAST)
}

fn median(a: i64, b: i64, c: i64) -> i64 {
    a.min(b).max(a.max(b).min(c))
}

/// The measurements of another server's wall clock, all in µs.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// The measured process; another process has another monotonic clock.
    process: ProcessId,
    /// Its wall clock minus its own monotonic clock, in its newest ping.
    wall: i64,
    /// Its monotonic clock minus that of this server: the greatest value of this window, and of
    /// the previous one.
    leads: [i64; 2],
    window_began: Moment,
    /// When its newest ping arrived.
    arrived: Moment,
}

impl Reading {
    /// Returns its wall clock minus the monotonic clock of this server.
    fn offset(&self) -> i64 {
        self.wall + self.leads[0].max(self.leads[1])
    }
}

/// The wall clocks of all servers, measured against the monotonic clock of this one.
#[derive(Clone, Debug, Default)]
pub(super) struct WallClocks {
    own: i64,
    others: [Option<Reading>; 3],
    /// The median offset, and until when it is valid. It is computed when a ping arrives, so that
    /// stamping a record stays cheap.
    median: Option<(i64, Moment)>,
    warned_at: Option<Moment>,
}

impl WallClocks {
    /// Reads this server's own wall clock.
    pub(super) fn read_own(&mut self, now: Moment, wall: WallTime) {
        self.own = wall_micros(wall) - micros(now);
    }

    /// Returns this server's own wall clock, extrapolated from the last reading.
    pub(super) fn own(&self, now: Moment) -> WallTime {
        wall_time(self.own + micros(now))
    }

    /// Measures the clock of another server's process by its ping, which carries the readings
    /// `sent` and `wall` of its clocks, and recomputes the median.
    pub(super) fn measure(
        &mut self,
        (from, process): (ServerId, ProcessId),
        (sent, wall): (Moment, WallTime),
        now: Moment,
        window: Duration,
    ) {
        let wall = wall_micros(wall) - micros(sent);
        let lead = micros(sent) - micros(now);
        let place = &mut self.others[from.slot()];
        match place {
            Some(reading) if reading.process == process => {
                if now >= reading.window_began + window {
                    reading.leads = [lead, reading.leads[0]];
                    reading.window_began = now;
                }
                reading.leads[0] = reading.leads[0].max(lead);
                (reading.wall, reading.arrived) = (wall, now);
            }
            _ => {
                let leads = [lead; 2];
                *place = Some(Reading { process, wall, leads, window_began: now, arrived: now });
            }
        }
        let mut others = self.others.iter().flatten().map(Reading::offset);
        if let (Some(a), Some(b)) = (others.next(), others.next()) {
            self.median = Some((median(self.own, a, b), now + CLOCK_TIME));
        }
    }

    /// Returns the time of a record that is written now: the median, or `wall`, this server's own
    /// clock.
    pub(super) fn stamp(&self, now: Moment, wall: WallTime) -> WallTime {
        match self.median {
            Some((offset, until)) if now < until => wall_time(offset + micros(now)),
            _ => wall,
        }
    }

    /// Returns the offsets of the servers whose pings arrived within the peer timeout.
    fn heard(&self, now: Moment, timeout: Duration) -> impl Iterator<Item = (ServerId, i64)> + '_ {
        ServerId::all(3).filter_map(move |id| {
            let reading = self.others[id.slot()].filter(|reading| now < reading.arrived + timeout);
            reading.map(|reading| (id, reading.offset()))
        })
    }

    /// Returns the largest difference between this server's clock and that of a recently active
    /// server.
    pub(super) fn skew(&self, now: Moment, timeout: Duration) -> Option<Duration> {
        let differences = self.heard(now, timeout).map(|(_, offset)| offset.abs_diff(self.own));
        differences.max().map(Duration::from_micros)
    }

    /// Returns the largest difference between any two of this server's clock and those of others;
    /// `None` unless all of these were recently active.
    pub(super) fn spread(
        &self,
        now: Moment,
        timeout: Duration,
        others: impl Iterator<Item = ServerId>,
    ) -> Option<Duration> {
        let (mut least, mut greatest) = (self.own, self.own);
        for other in others {
            let (_, offset) = self.heard(now, timeout).find(|(id, _)| *id == other)?;
            (least, greatest) = (least.min(offset), greatest.max(offset));
        }
        Some(Duration::from_micros(greatest.abs_diff(least)))
    }

    /// Returns the text of a warning when clocks differ by more than [`SKEW_MAX`], once in
    /// [`SKEW_WARNING_TIME`].
    pub(super) fn warning(
        &mut self,
        now: Moment,
        me: ServerId,
        timeout: Duration,
    ) -> Option<String> {
        let skewed = self.skew(now, timeout).is_some_and(|skew| skew > SKEW_MAX);
        let warned = self.warned_at.is_some_and(|at| now < at + SKEW_WARNING_TIME);
        if !skewed || warned {
            return None;
        }
        self.warned_at = Some(now);
        let from = self.median.map_or(self.own, |(offset, _)| offset);
        let all = self.heard(now, timeout).chain([(me, self.own)]);
        let (id, ahead) = all.map(|(id, at)| (id, at - from)).max_by_key(|(_, at)| at.abs())?;
        let seconds = ahead.unsigned_abs() as f64 / 1e6;
        let side = if ahead < 0 { "behind" } else { "ahead of" };
        let (reference, used) = match self.median {
            Some(_) => ("the median".to_owned(), "the median"),
            None => (format!("server {me}"), "the primary's clock"),
        };
        Some(format!(
            "clock skew: server {id} is {seconds:.1} s {side} {reference}; message times use {used}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;
    const DAY: i64 = 86_400_000;
    const TIMEOUT: Duration = Duration::from_millis(2_000);
    /// The wall time at which the monotonic clock of server 1 shows zero, in ms.
    const BEGAN: u64 = 1_700_000_000_000;

    fn id(n: u8) -> ServerId {
        ServerId::new(n).unwrap()
    }

    /// Returns the clock of a server that is `ahead` ms ahead of true time.
    fn clock(ms: u64, ahead: i64) -> WallTime {
        WallTime((BEGAN + ms).saturating_add_signed(ahead))
    }

    /// Delivers a ping of `from` to server 1 at `ms`, sent `delay` ms before. The monotonic clock
    /// of `from` began a million ms before that of server 1.
    fn ping(clocks: &mut WallClocks, from: u8, ms: u64, ahead: i64, delay: u64) {
        let sent = Moment((1_000_000 + ms - delay) * MS);
        let (process, wall) = (ProcessId(u64::from(from)), clock(ms - delay, ahead));
        clocks.measure((id(from), process), (sent, wall), Moment(ms * MS), TIMEOUT);
    }

    /// Returns how far a record written at `ms` is ahead of true time, with this own clock.
    fn stamped(clocks: &WallClocks, ms: u64, own: i64) -> i64 {
        let time = clocks.clone().stamp(Moment(ms * MS), clock(ms, own)).0;
        time as i64 - (BEGAN + ms) as i64
    }

    fn own(clocks: &mut WallClocks, ms: u64, ahead: i64) {
        clocks.read_own(Moment(ms * MS), clock(ms, ahead));
    }

    /// Returns the clocks of server 1 after a ping from both others at `ms`.
    fn heard(ms: u64, ahead: [i64; 3]) -> WallClocks {
        let mut clocks = WallClocks::default();
        own(&mut clocks, ms, ahead[0]);
        ping(&mut clocks, 2, ms, ahead[1], 0);
        ping(&mut clocks, 3, ms, ahead[2], 0);
        clocks
    }

    #[test]
    fn one_wrong_clock_of_three_is_outvoted() {
        for (ahead, expected) in [
            ([0, 0, 0], 0),
            ([DAY, 0, 3], 3),
            ([-DAY, 0, 3], 0),
            ([0, DAY, 3], 3),
            ([0, 3, -DAY], 0),
            ([DAY, -DAY, 7], 7),
            ([DAY, DAY, 0], DAY),
            ([5, -(BEGAN as i64), 0], 0),
        ] {
            assert_eq!(stamped(&heard(10, ahead), 20, ahead[0]), expected, "{ahead:?}");
        }
    }

    #[test]
    fn the_own_clock_counts_until_both_others_are_known() {
        let mut clocks = WallClocks::default();
        own(&mut clocks, 10, DAY);
        assert_eq!(stamped(&clocks, 10, DAY), DAY);
        ping(&mut clocks, 2, 10, 0, 0);
        assert_eq!(stamped(&clocks, 10, DAY), DAY);
        ping(&mut clocks, 3, 10, 1, 0);
        assert_eq!(stamped(&clocks, 10, DAY), 1);
        let last = 10 + CLOCK_TIME.as_millis() as u64;
        assert_eq!(stamped(&clocks, last - 1, DAY), 1);
        assert_eq!(stamped(&clocks, last, DAY), DAY, "nobody was heard for long");
    }

    #[test]
    fn a_jump_of_the_own_clock_counts_for_no_record() {
        let mut clocks = heard(10, [0, 2, 4]);
        assert_eq!(stamped(&clocks, 20, DAY), 2, "before the next ping");
        own(&mut clocks, 30, DAY);
        ping(&mut clocks, 2, 30, 2, 0);
        assert_eq!(stamped(&clocks, 30, DAY), 4, "and after it");
    }

    #[test]
    fn a_jump_of_another_clock_counts_with_its_next_ping() {
        let mut clocks = heard(10, [DAY, 0, -DAY]);
        for (at, ahead) in [(20, 40), (30, 5), (40, 3_000), (50, -20)] {
            ping(&mut clocks, 2, at, ahead, 0);
            assert_eq!(stamped(&clocks, at, DAY), ahead, "at {at}");
        }
    }

    #[test]
    fn the_ping_with_the_least_delay_counts() {
        let mut clocks = WallClocks::default();
        own(&mut clocks, 5_000, DAY);
        ping(&mut clocks, 3, 5_000, -DAY, 0);
        for (at, delay, expected) in [
            (5_000, 300, -300),
            (5_250, 20, -20),
            (5_500, 400, -20),
            (6_900, 90, -20),
            // The third window begins, and the first one is discarded.
            (7_000, 50, -20),
            (9_100, 60, -50),
            // After a pause of this server, the pings that waited for it arrive together.
            (19_100, 9_900, -60),
            (19_100, 9_000, -60),
            (19_101, 5_000, -60),
            (19_102, 2, -2),
        ] {
            ping(&mut clocks, 2, at, 0, delay);
            assert_eq!(stamped(&clocks, at, DAY), expected, "{at}");
        }
    }

    #[test]
    fn a_peer_whose_monotonic_clock_stood_still_is_right_after_two_windows() {
        let mut clocks = heard(10, [DAY, 0, -DAY]);
        let stood = |clocks: &mut WallClocks, at: u64| {
            let sent = Moment((1_000_000 + at - 700) * MS);
            let clock = (sent, clock(at, 0));
            clocks.measure((id(2), ProcessId(2)), clock, Moment(at * MS), TIMEOUT);
            stamped(clocks, at, DAY)
        };
        let seen = [1_000, 2_010, 3_000, 4_010].map(|at| stood(&mut clocks, at));
        assert_eq!(seen, [700, 700, 700, 0]);
    }

    #[test]
    fn a_restarted_peer_is_measured_from_nothing() {
        let mut clocks = heard(10, [DAY, 0, -DAY]);
        let clock = (Moment(5 * MS), clock(500, 8));
        clocks.measure((id(2), ProcessId(77)), clock, Moment(500 * MS), TIMEOUT);
        assert_eq!(stamped(&clocks, 600, DAY), 8);
    }

    #[test]
    fn a_lost_servers_clock_is_kept() {
        let mut clocks = heard(10, [0, 0, 0]);
        for minute in 1..=600 {
            let at = minute * 60_000 - 500;
            own(&mut clocks, at, DAY);
            ping(&mut clocks, 2, at, 3, 0);
            assert_eq!(stamped(&clocks, at + 100, DAY), 3);
        }
        own(&mut clocks, 40_000_000, 2);
        ping(&mut clocks, 2, 40_000_000, -DAY, 0);
        assert_eq!(stamped(&clocks, 40_000_000, 2), 0);
    }

    #[test]
    fn any_number_is_borne() {
        let numbers = [0, 1, BEGAN, WallTime::LAST.0, 1 << 58, 1 << 62, u64::MAX - 1, u64::MAX];
        let mut clocks = WallClocks::default();
        for at in 0..8 * 8 * 8 {
            let [a, b, c] = [at % 8, at / 8 % 8, at / 64].map(|at| numbers[at]);
            clocks.read_own(Moment(a), WallTime(b));
            for (from, process) in [(2, 1), (3, 2), (3, a)] {
                let (process, clock) = (ProcessId(process), (Moment(b), WallTime(c)));
                clocks.measure((id(from), process), clock, Moment(a), TIMEOUT);
            }
            assert!(clocks.stamp(Moment(a), WallTime(0)) <= WallTime::LAST);
            assert!(clocks.own(Moment(a)) <= WallTime::LAST);
            let _ = clocks.skew(Moment(c), TIMEOUT);
            clocks.warned_at = None;
            let _ = clocks.warning(Moment(c), id(1), TIMEOUT);
        }
    }

    #[test]
    fn skew_is_the_largest_difference_to_a_server_that_is_heard() {
        let skew = |clocks: &WallClocks, ms: u64| {
            clocks.skew(Moment(ms * MS), TIMEOUT).map(|skew| skew.as_millis() as i64)
        };
        assert_eq!(skew(&WallClocks::default(), 0), None);
        for (ahead, expected) in
            [([0, 0, 0], 0), ([0, 40, -30], 40), ([0, 40, -50], 50), ([DAY, 0, 7], DAY)]
        {
            assert_eq!(skew(&heard(10, ahead), 20), Some(expected), "{ahead:?}");
        }
        let spread = |clocks: &WallClocks| {
            let others = [2, 3].into_iter().map(id);
            clocks.spread(Moment(20 * MS), TIMEOUT, others).map(|spread| spread.as_millis() as i64)
        };
        assert_eq!(spread(&WallClocks::default()), None);
        let alone = WallClocks::default().spread(Moment(0), TIMEOUT, std::iter::empty());
        assert_eq!(alone, Some(Duration::ZERO));
        for (ahead, expected) in
            [([0, 0, 0], 0), ([0, 40, 30], 40), ([0, 40, -50], 90), ([9, -1, 7], 10)]
        {
            assert_eq!(spread(&heard(10, ahead)), Some(expected), "{ahead:?}");
        }
        let mut clocks = heard(10, [0, 40, 50]);
        ping(&mut clocks, 2, 1_500, 40, 0);
        assert_eq!(skew(&clocks, 2_500), Some(40));
        let spread = |clocks: &WallClocks, others: &[u8]| {
            let others = others.iter().map(|other| id(*other));
            clocks.spread(Moment(2_500 * MS), TIMEOUT, others).map(|spread| spread.as_millis())
        };
        assert_eq!((spread(&clocks, &[2]), spread(&clocks, &[2, 3])), (Some(40), None));
        assert_eq!(skew(&clocks, 3_499), Some(40));
        assert_eq!(skew(&clocks, 3_500), None);
    }

    #[test]
    fn skew_is_warned_of_once_a_minute() {
        let warn =
            |clocks: &mut WallClocks, ms: u64| clocks.warning(Moment(ms * MS), id(1), TIMEOUT);
        for (ahead, expected) in [
            ([0, 900, -900], None),
            ([0, 1_000, 0], None),
            ([0, 10, 3_240], Some("server 3 is 3.2 s ahead of the median")),
            ([0, 10, -3_240], Some("server 3 is 3.2 s behind the median")),
            ([DAY, 0, 0], Some("server 1 is 86400.0 s ahead of the median")),
        ] {
            let words = expected.map(|e| format!("clock skew: {e}; message times use the median"));
            let mut clocks = heard(10, ahead);
            assert_eq!(warn(&mut clocks, 20), words, "{ahead:?}");
            assert_eq!(warn(&mut clocks, 30), None);
            ping(&mut clocks, 3, 60_020, ahead[2], 0);
            ping(&mut clocks, 2, 60_020, ahead[1], 0);
            assert_eq!(warn(&mut clocks, 60_020), words);
        }
        let mut clocks = WallClocks::default();
        own(&mut clocks, 10, 0);
        ping(&mut clocks, 2, 10, 2_000, 0);
        let words = "clock skew: server 2 is 2.0 s ahead of server 1; \
                     message times use the primary's clock";
        assert_eq!(warn(&mut clocks, 20).as_deref(), Some(words));
    }
}
