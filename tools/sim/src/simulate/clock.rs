//! Virtual time: what happens when, and the clocks of machines that run at their own rates.

use super::network::Due;
use postern::time::Moment;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens at its time.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Network(Due),
    /// A dial reaches its goal.
    Dial {
        from: u8,
        life: u32,
        ticket: u32,
        to: u8,
    },
    /// The dialler learns that nobody listens there.
    DialRefused {
        from: u8,
        life: u32,
        ticket: u32,
    },
    /// A process's sync is over.
    Synced {
        server: u8,
        life: u32,
    },
    /// A process's first password job is done.
    Hashed {
        server: u8,
        life: u32,
    },
    /// A server is started, if it is down.
    Start {
        server: u8,
    },
    /// A paused process goes on.
    Resume {
        server: u8,
        serial: u32,
    },
    /// A client does its next thing.
    Client {
        client: u32,
        serial: u32,
    },
    /// A fault of the plan begins.
    Fault {
        at: u32,
    },
    /// It is over.
    Heal {
        at: u32,
    },
    /// A person goes on with a server alone, if the group is well.
    Part {
        server: u8,
    },
    /// The directory of such a server is moved away.
    MoveAway {
        server: u8,
    },
}

struct Item {
    at: u64,
    serial: u64,
    what: What,
}

impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Item) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Item) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

/// What is still to happen, in the order of time, then of asking.
#[derive(Default)]
pub(super) struct Schedule {
    heap: BinaryHeap<Reverse<Item>>,
    serial: u64,
}

impl Schedule {
    pub(super) fn add(&mut self, at: u64, what: What) {
        self.serial += 1;
        self.heap.push(Reverse(Item { at, serial: self.serial, what }));
    }

    pub(super) fn network(&mut self, at: u64, due: Due) {
        self.add(at, What::Network(due));
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|item| item.0.at)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, What)> {
        self.heap.pop().map(|item| (item.0.at, item.0.what))
    }
}

/// A process's monotonic clock: began at some virtual time, runs at a rate in thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: u64,
    shown: u64,
    rate: u64,
}

impl Clock {
    pub(super) fn new(now: u64, rate: u64) -> Clock {
        Clock { base: now, shown: 0, rate }
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
    fn a_deadline_has_come_when_it_is_said_to() {
        for rate in [900, 1000, 1037, 1100] {
            let mut clock = Clock::new(12_345, rate);
            clock.set_rate(99_999, 1100);
            clock.set_rate(123_456, rate);
            for moment in [0, 5, 150_000, 987_654_321] {
                let at = clock.when(Moment(moment)).max(123_456);
                assert!(clock.read(at) >= Moment(moment));
            }
        }
    }
}
