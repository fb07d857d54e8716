//! What a person was told in the last minute, so that each reason is logged once in it.

use crate::limits::LOGGED_WARNINGS_MAX;
use crate::time::Moment;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// The reasons of the last minute; bounded, since strangers can make as many as they have
/// addresses.
#[derive(Debug, Default)]
pub(super) struct LogLimiter(Vec<(String, Moment)>);

impl LogLimiter {
    /// Logs a reason that was not logged within the last minute.
    pub(super) fn warn(&mut self, now: Moment, words: &str) {
        if self.note(now, words) {
            log::warn!("{words}");
            if self.0.len() == LOGGED_WARNINGS_MAX {
                log::warn!("that are many reasons: no other ones are logged for a minute");
            }
        }
    }

    /// Remembers a reason, and says whether it is a new one.
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
    fn each_reason_is_said_once_a_minute_and_few_are_remembered() {
        let mut reasons = LogLimiter::default();
        let begin = Moment(1);
        assert!(reasons.note(begin, "a"));
        assert!(!reasons.note(begin + MINUTE / 2, "a"));
        assert!(reasons.note(begin + MINUTE / 2, "b"));
        assert!(reasons.note(begin + MINUTE, "a"));
        let said = (0..1000).filter(|n| reasons.note(begin + MINUTE, &n.to_string())).count();
        assert_eq!(said, LOGGED_WARNINGS_MAX - 2);
        assert_eq!(reasons.0.len(), LOGGED_WARNINGS_MAX);
        assert!(reasons.note(begin + MINUTE * 2, "new"));
    }
}
