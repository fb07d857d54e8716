//! The dialect of postern.

use super::dialect::{Dialect, Heard};
use std::net::SocketAddr;
use std::rc::Rc;

/// The accounts of one kind of clients, and how they send.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    /// Who sends.
    pub(crate) sender: String,
    /// Who is sent to.
    pub(crate) mailboxes: Vec<String>,
    /// The password of all.
    pub(crate) password: String,
    /// Whether requests are sent as ONCE, with the first word of their text as the key.
    pub(crate) once: bool,
}

/// One connection of a sender.
pub(crate) struct Postern {
    accounts: Rc<Accounts>,
    /// What stands between the command, or the key, and the text.
    receiver: Vec<u8>,
    mailbox: usize,
    is_logged_in: bool,
}

impl Postern {
    /// A connection that begins.
    pub(crate) fn new(accounts: Rc<Accounts>) -> Postern {
        let mut new = Postern { accounts, receiver: Vec::new(), mailbox: 0, is_logged_in: false };
        new.point_at(0);
        new
    }

    fn point_at(&mut self, mailbox: usize) {
        self.mailbox = mailbox;
        let name = self.accounts.mailboxes.get(mailbox).map_or("", String::as_str);
        self.receiver.clear();
        self.receiver.push(b' ');
        self.receiver.extend_from_slice(name.as_bytes());
        self.receiver.push(b' ');
    }

    fn take_line(&mut self, line: &[u8], heard: &mut Vec<Heard>) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix(b"OK") {
            if !self.is_logged_in {
                self.is_logged_in = true;
                heard.push(Heard::Ready);
                return Ok(());
            }
            let number = rest.strip_prefix(b" ").and_then(parse_number);
            let number = number.ok_or_else(|| strange(line))?;
            heard.push(Heard::Acked(Some(number)));
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix(b"ERR ") {
            return self.take_error(&String::from_utf8_lossy(rest), heard);
        }
        // A sender's own mailbox is empty; a NOTE before the end says why, and the end follows.
        if line.starts_with(b"NOTE ") { Ok(()) } else { Err(strange(line)) }
    }

    fn take_error(&mut self, error: &str, heard: &mut Vec<Heard>) -> Result<(), String> {
        let (code, words) = error.split_once(' ').unwrap_or((error, ""));
        if self.is_logged_in {
            heard.push(Heard::Refused(code.to_owned()));
        }
        if moves_on(code) {
            heard.push(Heard::Elsewhere(named_primary(words)));
        } else if !self.is_logged_in {
            return Err(error.to_owned());
        }
        Ok(())
    }
}

impl Dialect for Postern {
    fn greet(&mut self, out: &mut Vec<u8>) {
        let Accounts { sender, password, .. } = &*self.accounts;
        out.extend_from_slice(format!("LOGIN {sender} {password} end\n").as_bytes());
    }

    fn aim(&mut self, mailbox: usize) {
        if mailbox != self.mailbox {
            self.point_at(mailbox);
        }
    }

    fn request(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if self.accounts.once {
            let key = text.split(|byte| *byte == b' ').next().unwrap_or(text);
            out.extend_from_slice(b"ONCE ");
            out.extend_from_slice(key);
        } else {
            out.extend_from_slice(b"SEND");
        }
        out.extend_from_slice(&self.receiver);
        out.extend_from_slice(text);
        out.push(b'\n');
    }

    fn take(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, String> {
        let mut taken = 0;
        for end in memchr::memchr_iter(b'\n', input) {
            self.take_line(&input[taken..end], heard)?;
            taken = end + 1;
        }
        Ok(taken)
    }
}

/// Whether a refusal with this code means that another server should be asked.
pub(crate) fn moves_on(code: &str) -> bool {
    matches!(code, "not-primary" | "not-ready" | "unknown-outcome")
}

/// The address at the beginning of the words of `not-primary`.
pub(crate) fn named_primary(words: &str) -> Option<SocketAddr> {
    words.split(' ').next()?.parse().ok()
}

/// A number that is written as the server writes it.
pub(crate) fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, digit| match digit {
        b'0'..=b'9' => Some(number * 10 + u64::from(digit - b'0')),
        _ => None,
    })
}

fn strange(line: &[u8]) -> String {
    format!("strange-answer `{}`", String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postern(once: bool) -> Postern {
        let mailboxes = vec!["box-0".to_owned(), "box-1".to_owned()];
        let (sender, password) = ("ann".to_owned(), "correct-horse".to_owned());
        Postern::new(Rc::new(Accounts { sender, mailboxes, password, once }))
    }

    #[test]
    fn requests_are_lines_of_the_protocol() {
        let table = [
            (false, 0, "SEND box-0 0.7 xyz\n"),
            (false, 1, "SEND box-1 0.7 xyz\n"),
            (true, 0, "ONCE 0.7 box-0 0.7 xyz\n"),
            (true, 1, "ONCE 0.7 box-1 0.7 xyz\n"),
        ];
        for (once, mailbox, line) in table {
            let mut dialect = postern(once);
            let mut out = Vec::new();
            dialect.greet(&mut out);
            assert_eq!(out, b"LOGIN ann correct-horse end\n");
            out.clear();
            dialect.aim(mailbox);
            dialect.request(b"0.7 xyz", &mut out);
            assert_eq!(String::from_utf8_lossy(&out), line);
        }
    }

    #[test]
    fn answers_are_heard_line_by_line() {
        use Heard::{Acked, Elsewhere, Ready, Refused};
        let there = "127.0.0.1:5001".parse().ok();
        let no = |code: &str| Refused(code.to_owned());
        let table: [(&str, Vec<Heard>, usize); 7] = [
            ("OK ann 0\n", vec![Ready], 9),
            ("OK ann 0\nOK 1\nOK 2\nOK ", vec![Ready, Acked(Some(1)), Acked(Some(2))], 19),
            ("OK ann 0\nERR busy x\nOK 3\n", vec![Ready, no("busy"), Acked(Some(3))], 25),
            ("ERR not-primary 127.0.0.1:5001 go\n", vec![Elsewhere(there)], 34),
            ("ERR not-primary - wait\n", vec![Elsewhere(None)], 23),
            ("ERR not-ready 2 is missing\n", vec![Elsewhere(None)], 27),
            (
                "OK ann 0\nERR unknown-outcome x\nNOTE not-primary x\n",
                vec![Ready, no("unknown-outcome"), Elsewhere(None)],
                50,
            ),
        ];
        for (input, expected, bytes) in table {
            let mut heard = Vec::new();
            let taken = postern(false).take(input.as_bytes(), &mut Vec::new(), &mut heard);
            assert_eq!((heard, taken), (expected, Ok(bytes)), "{input}");
        }
    }

    #[test]
    fn what_is_no_answer_ends_the_connection() {
        for input in ["ERR busy no room\n", "OK ann 0\nOK x\n", "OK ann 0\nOK\n", "hello\n"] {
            let taken = postern(false).take(input.as_bytes(), &mut Vec::new(), &mut Vec::new());
            assert!(taken.is_err(), "{input}: {taken:?}");
        }
    }
}
