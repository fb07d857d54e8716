//! Virtual time: the schedule of events, and the monotonic clocks of machines, which run at their
//! own rates.

use super::network::{Due, Owner};
use postern::time::Moment;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A scheduled event. Servers are named by their places, faults by theirs in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Network(Due),
    /// A dial reaches the machine `to`.
    Dial {
        from: Owner,
        ticket: u32,
        to: usize,
    },
    /// The dialler is informed that nothing listens there.
    DialRefused {
        from: Owner,
        ticket: u32,
    },
    /// The sync of a process completes.
    Synced(Owner),
    /// The first password job of a process completes.
    Hashed(Owner),
    /// The job with files of a process is complete.
    Made(Owner),
    /// A server is started, if it is down.
    Start(usize),
    /// A paused process resumes, if this is the number of its latest pause.
    Resume(usize, u32),
    /// The timer of a client expires, if this is the number of its latest timer.
    Client(u32, u32),
    Fault(usize),
    Heal(usize),
    /// An operator recovers a server alone, if the group is healthy.
    BeginStraggler(usize),
    /// The directory of that server is removed.
    EndStraggler(usize),
}

/// Scheduled events, ordered by time, then by insertion.
#[derive(Default)]
pub(super) struct Schedule {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    inserted: u64,
}

impl Schedule {
    pub(super) fn add(&mut self, at: u64, event: Event) {
        self.inserted += 1;
        self.heap.push(Reverse((at, self.inserted, event)));
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.heap.pop().map(|Reverse((.., event))| event)
    }
}

/// The monotonic clock of a process. Its rate is in thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: u64,
    shown: u64,
    rate: u64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { base: 0, shown: 0, rate: 1000 }
    }
}

impl Clock {
    /// Starts at zero again, for a new process.
    pub(super) fn restart(&mut self, now: u64) {
        (self.base, self.shown) = (now, 0);
    }

    pub(super) fn read(&self, now: u64) -> Moment {
        Moment(self.shown + (now - self.base) * self.rate / 1000)
    }

    /// The virtual time at which the clock shows `moment`.
    pub(super) fn when(&self, moment: Moment) -> u64 {
        self.base + (moment.0.saturating_sub(self.shown) * 1000).div_ceil(self.rate)
    }

    pub(super) fn set_rate(&mut self, now: u64, rate: u64) {
        *self = Clock { base: now, shown: self.read(now).0, rate };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_passed_at_the_predicted_time() {
        for rate in [900, 1000, 1037, 1100] {
            let mut clock = Clock { base: 12_345, shown: 0, rate };
            clock.set_rate(99_999, 1100);
            clock.set_rate(123_456, rate);
            for moment in [0, 5, 150_000, 987_654_321] {
                let at = clock.when(Moment(moment)).max(123_456);
                assert!(clock.read(at) >= Moment(moment));
            }
        }
    }
}
