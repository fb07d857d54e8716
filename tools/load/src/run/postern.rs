//! The protocol of postern.

use super::accounts::Accounts;
use super::protocol::{Event, Parsed, Protocol};
use postern_testkit::client::PASSWORD;
use std::net::SocketAddr;
use std::sync::Arc;

/// One connection of a sender.
pub(crate) struct Postern {
    accounts: Arc<Accounts>,
    mailbox: usize,
    is_logged_in: bool,
}

impl Postern {
    /// Creates the state of a new connection.
    pub(crate) fn new(accounts: Arc<Accounts>) -> Postern {
        Postern { accounts, mailbox: 0, is_logged_in: false }
    }

    fn parse_line(&mut self, line: &[u8], events: &mut Vec<Event>) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix(b"OK") {
            if !self.is_logged_in {
                self.is_logged_in = true;
                events.push(Event::Ready);
                return Ok(());
            }
            let number = rest.strip_prefix(b" ").and_then(parse_number);
            events.push(Event::Acked(Some(number.ok_or_else(|| invalid_answer(line))?)));
        } else if let Some(rest) = line.strip_prefix(b"ERR ") {
            let error = String::from_utf8_lossy(rest);
            let (code, detail) = error.split_once(' ').unwrap_or((&error, ""));
            if self.is_logged_in {
                events.push(Event::Rejected(code.to_owned()));
            }
            if moves_on(code) {
                events.push(Event::Redirected(named_primary(detail)));
            } else if !self.is_logged_in {
                return Err(error.into_owned());
            }
        } else if line.starts_with(b"NOTE ") {
            events.push(Event::Closing);
        } else {
            return Err(invalid_answer(line));
        }
        Ok(())
    }
}

impl Protocol for Postern {
    fn open(&mut self, out: &mut Vec<u8>) {
        let login = format!("LOGIN {} {PASSWORD} end\n", self.accounts.sender);
        out.extend_from_slice(login.as_bytes());
    }

    fn select_mailbox(&mut self, mailbox: usize) {
        self.mailbox = mailbox;
    }

    fn request(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if self.accounts.once {
            let key = text.split(|byte| *byte == b' ').next().unwrap_or(text);
            out.extend_from_slice(b"ONCE ");
            out.extend_from_slice(key);
        } else {
            out.extend_from_slice(b"SEND");
        }
        let name = self.accounts.mailboxes.get(self.mailbox).map_or("", String::as_str);
        for part in [b" ", name.as_bytes(), b" ", text] {
            out.extend_from_slice(part);
        }
        out.push(b'\n');
    }

    fn parse(&mut self, input: &[u8], _out: &mut Vec<u8>, events: &mut Vec<Event>) -> Parsed {
        let mut parsed = 0;
        for end in memchr::memchr_iter(b'\n', input) {
            self.parse_line(&input[parsed..end], events)?;
            parsed = end + 1;
        }
        Ok(parsed)
    }
}

/// Returns whether a client should try another server after this code.
pub(crate) fn moves_on(code: &str) -> bool {
    matches!(code, "not-primary" | "not-ready" | "unknown-outcome")
}

/// Returns the address at the beginning of the detail of `not-primary`.
pub(crate) fn named_primary(detail: &str) -> Option<SocketAddr> {
    detail.split(' ').next()?.parse().ok()
}

/// Parses a decimal number without a sign.
pub(crate) fn parse_number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    digits.parse().ok()
}

/// Describes an answer that ends a connection.
pub(crate) fn invalid_answer(line: &[u8]) -> String {
    format!("invalid-answer `{}`", line.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postern(once: bool) -> Postern {
        let mailboxes = vec!["box-0".to_owned(), "box-1".to_owned()];
        Postern::new(Arc::new(Accounts { sender: "ann".to_owned(), mailboxes, once }))
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
            let mut protocol = postern(once);
            let mut out = Vec::new();
            protocol.open(&mut out);
            assert_eq!(out, b"LOGIN ann correct-horse end\n");
            out.clear();
            protocol.select_mailbox(mailbox);
            protocol.request(b"0.7 xyz", &mut out);
            assert_eq!(String::from_utf8_lossy(&out), line);
        }
    }

    #[test]
    fn answers_become_events_line_by_line() {
        use Event::{Acked, Closing, Ready, Redirected, Rejected};
        let there = "127.0.0.1:5001".parse().ok();
        let no = |code: &str| Rejected(code.to_owned());
        let table = [
            ("OK ann 0\n", vec![Ready], 9),
            ("OK ann 0\nOK 1\nOK 2\nOK ", vec![Ready, Acked(Some(1)), Acked(Some(2))], 19),
            ("OK ann 0\nERR busy x\nOK 3\n", vec![Ready, no("busy"), Acked(Some(3))], 25),
            ("ERR not-primary 127.0.0.1:5001 go\n", vec![Redirected(there)], 34),
            ("ERR not-primary - wait\n", vec![Redirected(None)], 23),
            ("ERR not-ready 2 is missing\n", vec![Redirected(None)], 27),
            (
                "OK ann 0\nERR unknown-outcome x\nNOTE not-primary x\n",
                vec![Ready, no("unknown-outcome"), Redirected(None), Closing],
                50,
            ),
        ];
        for (input, expected, bytes) in table {
            let mut events = Vec::new();
            let parsed = postern(false).parse(input.as_bytes(), &mut Vec::new(), &mut events);
            assert_eq!((events, parsed), (expected, Ok(bytes)), "{input}");
        }
    }

    #[test]
    fn invalid_answers_end_the_connection() {
        for input in ["ERR busy no room\n", "OK ann 0\nOK x\n", "OK ann 0\nOK\n", "hello\n"] {
            let parsed = postern(false).parse(input.as_bytes(), &mut Vec::new(), &mut Vec::new());
            assert!(parsed.is_err(), "{input}: {parsed:?}");
        }
    }
}
