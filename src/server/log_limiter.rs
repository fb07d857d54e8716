//! Limits warnings: each distinct one is logged once a minute.

use crate::limits::LOGGED_WARNINGS_MAX;
use crate::time::Moment;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// The warnings of the last minute. Their number is bounded, since unauthenticated connections can
/// cause a new one from each address.
#[derive(Debug, Default)]
pub(super) struct LogLimiter(Vec<(String, Moment)>);

impl LogLimiter {
    /// Logs a warning, unless it was logged within the last minute.
    pub(super) fn warn(&mut self, now: Moment, words: &str) {
        if self.note(now, words) {
            log::warn!("{words}");
            if self.0.len() == LOGGED_WARNINGS_MAX {
                log::warn!("too many distinct warnings; suppressing new ones for one minute");
            }
        }
    }

    /// Records a warning, and returns whether it is to be logged.
    fn note(&mut self, now: Moment, words: &str) -> bool {
        self.0.retain(|(_, at)| now < *at + MINUTE);
        let is_new =
            !self.0.iter().any(|(said, _)| said == words) && self.0.len() < LOGGED_WARNINGS_MAX;
        if is_new {
            self.0.push((words.to_owned(), now));
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_warning_is_logged_once_a_minute_and_few_are_kept() {
        let mut limiter = LogLimiter::default();
        let begin = Moment(1);
        assert!(limiter.note(begin, "a"));
        assert!(!limiter.note(begin + MINUTE / 2, "a"));
        assert!(limiter.note(begin + MINUTE / 2, "b"));
        assert!(limiter.note(begin + MINUTE, "a"));
        let said = (0..1000).filter(|n| limiter.note(begin + MINUTE, &n.to_string())).count();
        assert_eq!(said, LOGGED_WARNINGS_MAX - 2);
        assert_eq!(limiter.0.len(), LOGGED_WARNINGS_MAX);
        assert!(limiter.note(begin + MINUTE * 2, "new"));
    }
}
