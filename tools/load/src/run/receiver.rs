//! The receiving end of one connection: reads a mailbox, live or once to its end.

use super::postern::{invalid_answer, moves_on, named_primary, parse_number};
use super::sender::Shared;
use postern_testkit::client::PASSWORD;

/// How a receiver reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Everything, as soon as it arrives.
    Live,
    /// This many bytes per second; 0 reads nothing.
    Slow(u64),
    /// What is stored now, to check it at the end.
    Once,
}

/// A reader of one mailbox; it outlives its connections.
pub(crate) struct Receiver {
    /// The index of the mailbox in the run.
    pub(crate) mailbox: usize,
    pub(crate) pace: Pace,
    /// The number of the last message that it received.
    pub(crate) read_to: u64,
    /// Whether a server has answered its LOGIN.
    pub(crate) is_ready: bool,
    account: String,
    /// The account that sends all messages.
    sender: String,
}

impl Receiver {
    /// Creates a receiver without a connection.
    pub(crate) fn new(mailbox: usize, pace: Pace, account: &str, sender: &str) -> Receiver {
        let (account, sender) = (account.to_owned(), sender.to_owned());
        Receiver { mailbox, pace, read_to: 0, is_ready: false, account, sender }
    }

    /// Writes the login on a new connection.
    pub(crate) fn open(&mut self, out: &mut Vec<u8>) {
        let Receiver { account, read_to, .. } = &*self;
        out.extend_from_slice(format!("LOGIN {account} {PASSWORD} {read_to}\n").as_bytes());
    }

    /// Parses all complete lines and returns their length.
    pub(crate) fn parse(&mut self, input: &[u8], shared: &mut Shared) -> Result<usize, String> {
        let mut parsed = 0;
        let before = self.read_to;
        for end in memchr::memchr_iter(b'\n', input) {
            let line = &input[parsed..end];
            parsed = end + 1;
            if line.starts_with(b"MSG ") {
                let result = self.parse_message(line, shared);
                shared.judge(result);
            } else {
                self.parse_answer(line, shared)?;
            }
        }
        if self.pace != Pace::Once {
            shared.counts.record_delivered(self.read_to - before);
        }
        Ok(parsed)
    }

    fn parse_message(&mut self, line: &[u8], shared: &mut Shared) -> Result<(), String> {
        let mut words = line.splitn(5, |byte| *byte == b' ').skip(1);
        let number = words.next().and_then(parse_number);
        let (from, text) = (words.nth(1), words.next());
        match (number, from, text) {
            (Some(number), Some(from), Some(text)) if from == self.sender.as_bytes() => {
                shared.checker.read(self.mailbox, self.read_to, number, text)?;
                self.read_to = number;
                Ok(())
            }
            _ => Err(invalid_answer(line)),
        }
    }

    fn parse_answer(&mut self, line: &[u8], shared: &mut Shared) -> Result<(), String> {
        if line.starts_with(b"OK ") && !self.is_ready {
            self.is_ready = true;
            shared.news.is_ready = true;
        } else if let Some(error) = line.strip_prefix(b"ERR ") {
            let error = String::from_utf8_lossy(error);
            let (code, detail) = error.split_once(' ').unwrap_or((&error, ""));
            if !moves_on(code) {
                return Err(error.into_owned());
            }
            shared.news.redirected = Some(named_primary(detail));
        } else if !line.starts_with(b"NOTE ") {
            return Err(invalid_answer(line));
        }
        Ok(())
    }
}
