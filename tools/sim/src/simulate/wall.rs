//! Wall clocks that jump and drift, and the check of the times that records get.
//!
//! The check knows true time, and what every clock showed at every moment. It holds a primary to
//! the median when the primary has lately measured both other clocks: pings that were sent within
//! the last 2 `T` have arrived from both, and have done so for long enough that nothing older is
//! still counted. The record's time may then be no lower than the median of what the clocks
//! showed at least in the last 2 `T`, and no higher than the median of what they showed at most,
//! or the time of the record before; with a tolerance of 3 `T` for delays, and for monotonic
//! clocks that run at different rates.

use super::kernel::Wire;
use super::network::Place;
use super::world::World;
use postern::ids::LinkId;
use postern::replica::RoleView;
use postern::time::{Moment, WallTime};
use std::collections::VecDeque;

/// The wall time at which every world begins, in ms.
const BEGAN_MS: u64 = 1_700_000_000_000;

/// The time that a right wall clock shows.
pub(super) fn true_wall(now: u64) -> WallTime {
    WallTime(BEGAN_MS + now / 1000)
}

/// A machine's wall clock. All numbers are in µs.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    /// Since when it has neither jumped nor changed its rate.
    since: u64,
    /// How far it was ahead of true time then.
    ahead: i64,
    /// How many µs it gains in a second.
    drift: i64,
    /// The pieces before: their ends, and how far ahead it was at the beginning and the end.
    past: Vec<(u64, i64, i64)>,
}

impl WallClock {
    pub(super) fn read(&self, now: u64) -> WallTime {
        let shown = (BEGAN_MS * 1000 + now).saturating_add_signed(self.ahead(now));
        WallTime(shown / 1000)
    }

    pub(super) fn ahead(&self, now: u64) -> i64 {
        self.ahead + self.drift * (now - self.since) as i64 / 1_000_000
    }

    pub(super) fn set(&mut self, now: u64, ahead: i64, drift: i64) {
        self.past.push((now, self.ahead, self.ahead(now)));
        (self.since, self.ahead, self.drift) = (now, ahead, drift);
    }

    /// How far ahead it was at least and at most between `from` and `now`; at most a piece more.
    fn span(&self, from: u64, now: u64) -> (i64, i64) {
        let recent = self.past.iter().rev().take_while(|(end, _, _)| *end >= from);
        let recent = recent.flat_map(|(_, first, last)| [*first, *last]);
        let all = recent.chain([self.ahead, self.ahead(now)]);
        all.fold((i64::MAX, i64::MIN), |(low, high), at| (low.min(at), high.max(at)))
    }
}

/// Pings of one server that reach another, without a gap of more than 2 `T`.
#[derive(Clone, Copy, Debug)]
struct Run {
    began: u64,
    /// When the last one was sent, and when it arrived.
    sent: u64,
    arrived: u64,
}

/// What the check of times remembers.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// Pings that were sent: by which id, at which end of which link, its clock, true time.
    sent: VecDeque<(usize, Place, Moment, u64)>,
    /// By receiver and the sender's id.
    runs: [[Option<Run>; 3]; 4],
    /// Pings show their receiver's own clock: nobody knows another one.
    pub(super) echoed: bool,
    /// How many records were held to the median.
    pub(super) checked: u64,
}

impl Times {
    /// A process is started, and knows nothing of other clocks.
    pub(super) fn started(&mut self, server: usize) {
        self.runs[server] = [None; 3];
    }

    /// The process has handled a ping on a link that counts.
    fn measured(&mut self, server: usize, wire: Wire, sent: Moment, now: u64, gap: u64) {
        let from = Place::of(wire).other();
        let found = self.sent.iter().rev().find(|(_, place, at, _)| (*place, *at) == (from, sent));
        let Some((other, _, _, sent)) = found.copied() else { return };
        let run = &mut self.runs[server][other];
        let began = run.filter(|run| now <= run.arrived + gap).map_or(now, |run| run.began);
        *run = Some(Run { began, sent, arrived: now });
    }
}

fn median(mut three: [i64; 3]) -> i64 {
    three.sort_unstable();
    three[1]
}

impl World {
    /// A ping leaves a server.
    pub(super) fn note_ping(&mut self, n: usize, place: Place, sent: Moment) {
        let oldest = self.now.saturating_sub(16 * self.settings.peer_timeout_us());
        while self.times.sent.front().is_some_and(|(.., at)| *at < oldest) {
            self.times.sent.pop_front();
        }
        self.times.sent.push_back((self.place_of(n), place, sent, self.now));
    }

    /// Checks the times of what a process has just written, and notes the pings that it handled.
    pub(super) fn check_times(&mut self, n: usize) {
        let gap = 2 * self.settings.peer_timeout_us();
        let Some(process) = &mut self.servers[n].process else { return };
        let kernel = process.kernel();
        let written = std::mem::take(&mut kernel.mirror.written);
        let pinged = std::mem::take(&mut kernel.pinged);
        let replica = process.node().replica();
        let (leads, term) = (replica.role() == RoleView::Primary, replica.term());
        let links: Vec<LinkId> = replica.links().collect();
        if let Some((low, high)) = self.bounds(n, gap) {
            for (_, before, time) in written.iter().filter(|(of, ..)| leads && *of == term) {
                self.times.checked += 1;
                let ahead = time.0 as i64 * 1000 - (BEGAN_MS * 1000 + self.now) as i64;
                if ahead < low || (ahead > high && time != before) {
                    let (ahead, low, high) = (ahead / 1000, low / 1000, high / 1000);
                    return self.fail(format!(
                        "server {} writes a record {ahead} ms ahead of true time, not {low} to \
                         {high}: not the median of the clocks",
                        n + 1
                    ));
                }
            }
        }
        for ping in pinged.iter().filter(|ping| links.contains(&ping.link)) {
            self.times.measured(n, ping.wire, ping.sent, self.now, gap);
        }
    }

    /// How far a record that server `n` writes now may be ahead of true time, where that is known.
    fn bounds(&self, n: usize, gap: u64) -> Option<(i64, i64)> {
        let known = |other: usize| {
            self.times.runs[n][other]
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
    fn a_clock_jumps_and_drifts_and_its_span_is_known() {
        let mut clock = WallClock::default();
        clock.set(1_000_000, 5_000_000, 10_000);
        clock.set(3_000_000, -7_000, 0);
        assert_eq!(clock.read(3_500_000), WallTime(BEGAN_MS + 3_493));
        for (from, span) in [
            (3_000_001, (-7_000, -7_000)),
            (2_000_000, (-7_000, 5_020_000)),
            (0, (-7_000, 5_020_000)),
        ] {
            assert_eq!(clock.span(from, 4_000_000), span, "{from}");
        }
    }
}
