//! Deadlines and their reasons: a table and its minimum, without callbacks.

use crate::time::Moment;

/// The reason for a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Campaign.
    Campaign,
    /// Give up a round of votes that is not decided.
    Round,
    /// Begin a batch although the previous one is not acknowledged.
    Batch,
    /// Give up a handover.
    Handover,
    /// End the process, dropped or not.
    Stop,
    /// Change the members; a promise forbids it before this time.
    Promise,
}

const COUNT: usize = Timer::Promise as usize + 1;

#[derive(Clone, Debug, Default)]
pub(super) struct Timers([Option<Moment>; COUNT]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Moment) {
        self.0[timer as usize] = Some(at);
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// Returns whether the deadline has passed, and clears it if so.
    pub(super) fn expired(&mut self, timer: Timer, now: Moment) -> bool {
        let due = self.0[timer as usize].is_some_and(|at| at <= now);
        if due {
            self.clear(timer);
        }
        due
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.0.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_next_and_expires_once() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::Round, Moment(20));
        timers.set(Timer::Batch, Moment(10));
        assert_eq!(timers.next(), Some(Moment(10)));
        assert!(!timers.expired(Timer::Batch, Moment(9)));
        assert!(timers.expired(Timer::Batch, Moment(10)));
        assert!(!timers.expired(Timer::Batch, Moment(11)));
        assert_eq!(timers.next(), Some(Moment(20)));
    }
}
