//! Decides when a silent server counts as failed, and when to ask for its `STATUS`.

use crate::time::Moment;
use std::time::Duration;

/// How long a server may be silent while an answer is awaited. A primary drops a silent member
/// after two seconds by default, and then answers.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(5);
/// The limit for an answer that may wait for the password hashes of other clients.
pub(super) const PASSWORD_TIME: Duration = Duration::from_secs(30);
/// The limit for the first answer of a server, which waits for nothing.
pub(super) const GREETING_TIME: Duration = Duration::from_secs(2);
/// The first interval between two requests for the `STATUS`. It is short after a login, since
/// members may be dropped or rejoin then, and doubles each time.
const LOOK_TIME_MIN: Duration = Duration::from_millis(100);
/// The longest interval between two requests for the `STATUS`, which also show that the server is
/// alive.
const LOOK_TIME_MAX: Duration = Duration::from_secs(10);

/// Monitors a connection.
#[derive(Debug)]
pub(super) struct Keepalive {
    /// When the server became silent while an answer was awaited.
    silent: Option<Moment>,
    look_at: Moment,
    look_time: Duration,
}

impl Keepalive {
    pub(super) fn new() -> Keepalive {
        Keepalive { silent: None, look_at: Moment(0), look_time: LOOK_TIME_MIN }
    }

    /// Restarts the interval after a login.
    pub(super) fn on_login(&mut self, now: Moment) {
        self.look_time = LOOK_TIME_MIN;
        self.look_at = now + LOOK_TIME_MIN;
    }

    /// Ends the silence: bytes came from the server, or a connection was made.
    pub(super) fn on_heard(&mut self) {
        self.silent = None;
    }

    /// Returns when the server is late, or when to ask for its `STATUS` if no answer is awaited.
    /// `patience` is how long the server may be silent; `None` if no answer is awaited.
    pub(super) fn deadline(&mut self, now: Moment, patience: Option<Duration>) -> Moment {
        let Some(patience) = patience else {
            self.silent = None;
            return self.look_at;
        };
        *self.silent.get_or_insert(now) + patience
    }

    /// Returns whether the server was silent for too long.
    pub(super) fn is_late(&mut self, now: Moment, patience: Option<Duration>) -> bool {
        patience.is_some() && now >= self.deadline(now, patience)
    }

    /// Returns whether to ask for the `STATUS` now, and sets the next time.
    pub(super) fn looks(&mut self, now: Moment) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_time = (2 * self.look_time).min(LOOK_TIME_MAX);
        self.look_at = now + self.look_time;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_server_that_answers_is_never_late() {
        let mut keepalive = Keepalive::new();
        let mut now = Moment(0);
        keepalive.on_login(now);
        let mut looks = 0;
        while now < Moment(600_000_000) {
            now = keepalive.deadline(now, None);
            assert!(keepalive.looks(now), "it wakes for that only");
            looks += 1;
            // The client asks, and the server answers a second later.
            let deadline = keepalive.deadline(now, Some(ANSWER_TIME));
            assert_eq!(deadline, now + ANSWER_TIME);
            now += Duration::from_secs(1);
            assert!(!keepalive.is_late(now, Some(ANSWER_TIME)));
            keepalive.on_heard();
        }
        assert!((50..80).contains(&looks), "{looks} times in ten minutes");
    }

    #[test]
    fn silence_counts_from_the_question() {
        let mut keepalive = Keepalive::new();
        keepalive.on_login(Moment(0));
        let asked = Moment(20_000_000);
        assert!(!keepalive.is_late(asked, Some(ANSWER_TIME)));
        let before = Moment(asked.0 + 4_999_999);
        assert!(!keepalive.is_late(before, Some(ANSWER_TIME)));
        assert!(keepalive.is_late(asked + ANSWER_TIME, Some(ANSWER_TIME)));
        assert!(!keepalive.is_late(asked + ANSWER_TIME, Some(PASSWORD_TIME)));
        keepalive.on_heard();
        assert!(!keepalive.is_late(asked + ANSWER_TIME, Some(ANSWER_TIME)), "it counts anew");
    }
}
