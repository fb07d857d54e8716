//! Shows the progress of a long command: one line on a terminal, overwritten again and again.
//! Shows nothing for work that takes less than a second.

use super::stderr;
use crate::time::in_words;
use rustix::fs::{FileType, fstat};
use rustix::termios::tcgetwinsize;
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Seek};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How often the line is written.
pub(super) const SHOW_TIME: Duration = Duration::from_millis(500);
/// How long nothing is shown at first.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// The number of samples over which the rate is computed.
const LOOKS: usize = 10;
/// After this time without a stored message, the line reports that instead of a rate.
const SILENCE: Duration = Duration::from_secs(2);
/// Assumed number of columns of a terminal that does not report it.
const COLUMNS: u16 = 80;

/// A sample of the progress at one time.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    messages: u64,
    /// Bytes of the input.
    bytes: u64,
}

/// The progress of messages from a file to the group.
#[derive(Debug)]
pub(super) struct Progress {
    /// Number of bytes to send.
    total: u64,
    began: Instant,
    /// The latest samples, at least [`SHOW_TIME`] apart, the newest last.
    looks: VecDeque<Look>,
    /// The sample at which the number of stored messages last increased.
    stored: Look,
    shown: bool,
}

impl Progress {
    /// Returns the progress of standard input if that is a file, and standard error a terminal on
    /// which information is shown.
    pub(super) fn of_stdin() -> Option<Progress> {
        let stdin = io::stdin();
        let stat = fstat(&stdin).ok()?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let is_wanted = log::log_enabled!(log::Level::Info) && io::stderr().is_terminal();
        if !is_file || !is_wanted {
            return None;
        }
        // Bytes that were read before, such as a password, are not sent.
        let mut input = std::fs::File::from(stdin.as_fd().try_clone_to_owned().ok()?);
        let begin = input.stream_position().ok()?;
        let size = u64::try_from(stat.st_size).ok()?;
        Some(Progress::new(size.saturating_sub(begin), Instant::now()))
    }

    fn new(total: u64, began: Instant) -> Progress {
        let stored = Look { at: began, messages: 0, bytes: 0 };
        Progress { total, began, looks: VecDeque::from([stored]), stored, shown: false }
    }

    /// Writes the line, if it is due.
    pub(super) fn show(&mut self, messages: u64, bytes: u64) {
        if let Some(words) = self.look(Look { at: Instant::now(), messages, bytes }) {
            let columns = tcgetwinsize(io::stderr()).map_or(COLUMNS, |size| size.ws_col);
            // Some terminals begin a new line when the last column is written.
            stderr::show_progress(words.chars().take(usize::from(columns).max(2) - 1).collect());
            self.shown = true;
        }
    }

    /// Prints a summary, if the line was shown.
    pub(super) fn end(self) {
        if self.shown {
            let Look { messages, .. } = self.stored;
            let span = self.began.elapsed();
            let rate = per_second(messages, span);
            stderr::tell(&format!("{messages} messages are stored, in {}: {rate}", in_words(span)));
        }
    }

    /// Records a sample. Returns the text of the line, if it is due.
    fn look(&mut self, now: Look) -> Option<String> {
        if now.messages > self.stored.messages {
            self.stored = now;
        }
        let last = self.looks.back()?;
        if now.at - last.at < SHOW_TIME {
            return None;
        }
        self.looks.push_back(now);
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        let is_told = now.at - self.began >= QUIET_TIME && now.messages > 0;
        is_told.then(|| self.words(now))
    }

    fn words(&self, now: Look) -> String {
        let Look { messages, bytes, .. } = now;
        let share = (bytes.min(self.total) * 100).checked_div(self.total).unwrap_or(100);
        let done = format!("{messages} messages are stored ({share} %)");
        let silence = now.at - self.stored.at;
        if silence >= SILENCE {
            return format!("{done}; no answer for {}", in_words(silence));
        }
        let first = self.looks.front().unwrap_or(&now);
        let span = now.at - first.at;
        let rate = per_second(messages - first.messages, span);
        // A file that grows is longer than `total`.
        let left = self.total.saturating_sub(bytes) as f64;
        let sent = (bytes - first.bytes).max(1) as f64;
        let left = span.mul_f64((left / sent).min(1e6));
        format!("{done}; {rate}; {} left", in_words(left))
    }
}

fn per_second(messages: u64, span: Duration) -> String {
    format!("{:.0} a second", messages as f64 / span.as_secs_f64().max(0.001))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_many_how_fast_and_how_long() {
        let began = Instant::now();
        let mut progress = Progress::new(10_000, began);
        let mut look = |ms, messages, bytes| {
            let at = began + Duration::from_millis(ms);
            progress.look(Look { at, messages, bytes })
        };
        assert_eq!(look(400, 40, 400), None, "too early");
        assert_eq!(look(500, 50, 500), None, "short work needs no words");
        let said = look(1000, 100, 1000);
        assert_eq!(said.unwrap(), "100 messages are stored (10 %); 100 a second; 9 s left");
        assert_eq!(look(1100, 110, 1100), None, "not more often than every half second");
        // The rate covers only the last seconds.
        for half in 3..=12 {
            look(500 * half, 100 + 2 * half, 1000 + 20 * half);
        }
        let said = look(6500, 126, 1260);
        assert_eq!(said.unwrap(), "126 messages are stored (12 %); 4 a second; 3 min left");
    }

    #[test]
    fn silence_is_no_rate() {
        let began = Instant::now();
        let mut progress = Progress::new(0, began);
        let mut look = |ms, messages| {
            let at = began + Duration::from_millis(ms);
            progress.look(Look { at, messages, bytes: 10 * messages })
        };
        assert_eq!(look(1000, 0), None, "nothing is stored yet");
        let said = look(1500, 7);
        assert_eq!(said.unwrap(), "7 messages are stored (100 %); 5 a second; 0 s left");
        assert!(look(3000, 7).unwrap().contains("a second"));
        let said = look(3500, 7);
        assert_eq!(said.unwrap(), "7 messages are stored (100 %); no answer for 2 s");
    }
}
