//! Wall clocks that jump and drift, and the check of the times in records.
//!
//! The check knows the true time and the history of every clock. A primary must use the median of
//! the three clocks once it has measured both other ones recently: pings that were sent within the
//! last 2 `T` have arrived from both, for long enough that no older measurement counts. The time of
//! a record must then be between two medians: that of the lowest and that of the highest values
//! that each clock had in the last 2 `T`. It may also equal the time of the previous record. The
//! tolerance is 3 `T`, for delays and for monotonic clocks of different rates.

use super::kernel::ConnId;
use super::network::EndId;
use super::world::World;
use postern::ids::LinkId;
use postern::replica::RoleView;
use postern::time::{Moment, WallTime};
use std::collections::VecDeque;

/// The wall time at the start of every run, in ms.
const START_MS: u64 = 1_700_000_000_000;

/// The time of a correct wall clock.
pub(super) fn true_wall(now: u64) -> WallTime {
    WallTime(START_MS + now / 1000)
}

/// The wall clock of a machine. All numbers are in µs.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    /// The start of the current segment: the latest jump or change of rate.
    since: u64,
    /// How far the clock was ahead of the true time then.
    ahead: i64,
    /// How much the clock gains in a second.
    drift: i64,
    /// Earlier segments: the end of each, and how far ahead the clock was at its start and end.
    past: Vec<(u64, i64, i64)>,
}

impl WallClock {
    pub(super) fn read(&self, now: u64) -> WallTime {
        let shown = (START_MS * 1000 + now).saturating_add_signed(self.ahead(now));
        WallTime(shown / 1000)
    }

    fn ahead(&self, now: u64) -> i64 {
        self.ahead + self.drift * (now - self.since) as i64 / 1_000_000
    }

    pub(super) fn set(&mut self, now: u64, ahead: i64, drift: i64) {
        self.past.push((now, self.ahead, self.ahead(now)));
        (self.since, self.ahead, self.drift) = (now, ahead, drift);
    }

    pub(super) fn jump(&mut self, now: u64, by: i64, drift: i64) {
        self.set(now, self.ahead(now) + by, drift);
    }

    /// The least and the most that the clock was ahead in the segments between `from` and `now`.
    fn span(&self, from: u64, now: u64) -> (i64, i64) {
        let recent = self.past.iter().rev().take_while(|(end, _, _)| *end >= from);
        let recent = recent.flat_map(|(_, first, last)| [*first, *last]);
        let all = recent.chain([self.ahead, self.ahead(now)]);
        all.fold((i64::MAX, i64::MIN), |(low, high), at| (low.min(at), high.max(at)))
    }
}

/// Pings from one server to another, without a gap of more than 2 `T`.
#[derive(Clone, Copy, Debug)]
struct PingRun {
    began: u64,
    /// The times of the latest ping.
    sent: u64,
    arrived: u64,
}

/// The state of the check.
#[derive(Debug, Default)]
pub(super) struct TimeChecks {
    /// Sent pings: the sender, its end of the link, its clock and the true time.
    sent: VecDeque<(usize, EndId, Moment, u64)>,
    /// By receiver and sender.
    runs: [[Option<PingRun>; 3]; 4],
    /// Pings contain the clock of their receiver ([`Sabotage::EchoedClocks`]).
    pub(super) echoed: bool,
    /// How many records were checked.
    pub(super) checked: u64,
}

impl TimeChecks {
    /// A process has started. It knows no other clock.
    pub(super) fn started(&mut self, server: usize) {
        self.runs[server] = [None; 3];
    }

    /// A process has handled a ping.
    fn measured(&mut self, server: usize, conn: ConnId, sent: Moment, now: u64, gap: u64) {
        let from = EndId::of(conn).other();
        let found =
            self.sent.iter().rev().find(|(_, end_id, at, _)| (*end_id, *at) == (from, sent));
        let Some((other, _, _, sent)) = found.copied() else { return };
        let run = &mut self.runs[server][other];
        let began = run.filter(|run| now <= run.arrived + gap).map_or(now, |run| run.began);
        *run = Some(PingRun { began, sent, arrived: now });
    }
}

fn median(mut three: [i64; 3]) -> i64 {
    three.sort_unstable();
    three[1]
}

impl World {
    /// Records a ping that a server sends.
    pub(super) fn note_ping(&mut self, n: usize, end_id: EndId, sent: Moment) {
        let oldest = self.now.saturating_sub(16 * self.settings.peer_timeout_us());
        while self.checks.times.sent.front().is_some_and(|(.., at)| *at < oldest) {
            self.checks.times.sent.pop_front();
        }
        self.checks.times.sent.push_back((self.place_of(n), end_id, sent, self.now));
    }

    /// Checks the times of new records of a process, and records the pings that it has handled.
    pub(super) fn check_times(&mut self, n: usize) {
        let gap = 2 * self.settings.peer_timeout_us();
        let Some(process) = &mut self.servers[n].process else { return };
        let kernel = process.kernel();
        let written = std::mem::take(&mut kernel.log_copy.written);
        let pinged = std::mem::take(&mut kernel.pinged);
        let replica = process.node().replica();
        let (leads, term) = (replica.role() == RoleView::Primary, replica.term());
        let links: Vec<LinkId> = replica.links().collect();
        if let Some((low, high)) = self.bounds(n, gap) {
            for (_, before, time) in written.iter().filter(|(of, ..)| leads && *of == term) {
                self.checks.times.checked += 1;
                let ahead = time.0 as i64 * 1000 - (START_MS * 1000 + self.now) as i64;
                if ahead < low || (ahead > high && time != before) {
                    let (ahead, low, high) = (ahead / 1000, low / 1000, high / 1000);
                    return self.fail(format!(
                        "server {} writes a record {ahead} ms ahead of the true time, not {low} to \
                         {high}: not the median of the clocks",
                        n + 1
                    ));
                }
            }
        }
        for ping in pinged.iter().filter(|ping| links.contains(&ping.link)) {
            self.checks.times.measured(n, ping.conn, ping.sent, self.now, gap);
        }
    }

    /// How far a record that server `n` writes now may be ahead of the true time. `None` if server
    /// `n` need not know all clocks.
    fn bounds(&self, n: usize, gap: u64) -> Option<(i64, i64)> {
        let known = |other: usize| {
            self.checks.times.runs[n][other]
                .is_some_and(|run| run.sent + gap >= self.now && run.began + 4 * gap <= self.now)
        };
        if !(0..3).all(|other| other == self.place_of(n) || known(other)) {
            return None;
        }
        let from = self.now.saturating_sub(gap);
        let spans = [0, 1, 2].map(|n: usize| self.servers[n].wall.span(from, self.now));
        let tolerance = 3 * gap as i64 / 2 + 2_000;
        let low = median(spans.map(|(low, _)| low)) - tolerance;
        Some((low, median(spans.map(|(_, high)| high)) + tolerance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_of_a_clock_covers_jumps_and_drift() {
        let mut clock = WallClock::default();
        clock.set(1_000_000, 5_000_000, 10_000);
        clock.set(3_000_000, -7_000, 0);
        assert_eq!(clock.read(3_500_000), WallTime(START_MS + 3_493));
        for (from, span) in [
            (3_000_001, (-7_000, -7_000)),
            (2_000_000, (-7_000, 5_020_000)),
            (0, (-7_000, 5_020_000)),
        ] {
            assert_eq!(clock.span(from, 4_000_000), span, "{from}");
        }
    }
}
