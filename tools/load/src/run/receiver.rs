//! The receiving end of one connection: reads a mailbox, live or once to its end.

use super::postern::{moves_on, named_primary, parse_number};
use super::sender::Shared;

/// How a receiver reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Everything, as soon as it comes.
    Live,
    /// So many bytes a second; 0 is nothing at all.
    Slow(u64),
    /// What is there now, for the last look.
    Once,
}

/// One reader of one mailbox; it outlives its connections.
pub(crate) struct Receiver {
    /// The mailbox, of all mailboxes of the run.
    pub(crate) mailbox: usize,
    /// How it reads.
    pub(crate) pace: Pace,
    /// The number of the last message that it was shown.
    pub(crate) read_to: u64,
    /// Whether a server has answered to LOGIN.
    pub(crate) is_ready: bool,
    account: String,
    password: String,
    /// Who all messages are from.
    sender: String,
}

impl Receiver {
    /// One that has no connection yet, and has read nothing.
    pub(crate) fn new(
        mailbox: usize,
        pace: Pace,
        [account, password, sender]: [&str; 3],
    ) -> Receiver {
        Receiver {
            mailbox,
            pace,
            read_to: 0,
            is_ready: false,
            account: account.to_owned(),
            password: password.to_owned(),
            sender: sender.to_owned(),
        }
    }

    /// Opens the conversation on a new connection.
    pub(crate) fn greet(&mut self, out: &mut Vec<u8>) {
        let Receiver { account, password, read_to, .. } = &*self;
        out.extend_from_slice(format!("LOGIN {account} {password} {read_to}\n").as_bytes());
    }

    /// Takes lines: how many bytes they were.
    pub(crate) fn take(&mut self, input: &[u8], shared: &mut Shared) -> Result<usize, String> {
        let mut taken = 0;
        let before = self.read_to;
        for end in memchr::memchr_iter(b'\n', input) {
            let line = &input[taken..end];
            taken = end + 1;
            if let Some(message) = line.strip_prefix(b"MSG ") {
                let result = self.take_message(message, shared);
                shared.judge(result);
            } else {
                self.take_answer(line, shared)?;
            }
        }
        if self.pace != Pace::Once {
            shared.ledger.note_delivered(self.read_to - before);
        }
        Ok(taken)
    }

    fn take_message(&mut self, message: &[u8], shared: &mut Shared) -> Result<(), String> {
        let strange = || format!("strange message `{}`", String::from_utf8_lossy(message));
        let mut words = message.splitn(4, |byte| *byte == b' ');
        let (Some(number), Some(_time), Some(from), Some(text)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(strange());
        };
        if from != self.sender.as_bytes() {
            return Err(strange());
        }
        let number = parse_number(number).ok_or_else(strange)?;
        shared.checker.read(self.mailbox, self.read_to, number, text)?;
        self.read_to = number;
        Ok(())
    }

    fn take_answer(&mut self, line: &[u8], shared: &mut Shared) -> Result<(), String> {
        let line = String::from_utf8_lossy(line);
        if line.starts_with("OK ") && !self.is_ready {
            self.is_ready = true;
            shared.news.is_ready = true;
        } else if let Some(error) = line.strip_prefix("ERR ") {
            let (code, words) = error.split_once(' ').unwrap_or((error, ""));
            if !moves_on(code) {
                return Err(error.to_owned());
            }
            shared.news.elsewhere = Some(named_primary(words));
        } else if !line.starts_with("NOTE ") {
            return Err(format!("strange-answer `{line}`"));
        }
        Ok(())
    }

    /// The connection is gone.
    pub(crate) fn lose(&mut self) {
        self.is_ready = false;
    }
}
