//! The session of a text client: checks that each request gets exactly one answer, in order.

use crate::require;
use crate::simulate::ConnId;
use postern::frontend;
use postern::limits::LINE_BYTES_MAX;
use postern::protocol::{self, Answer, Command, Reply};
use std::collections::VecDeque;

/// The expected final line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// Exactly this line.
    Line(Vec<u8>),
    /// An error with this code.
    Error(String),
    /// `OK` or `ERR`.
    Any,
}

/// A client and its session.
#[derive(Debug, Default)]
pub(super) struct ClientSession {
    /// The connection, if there is one.
    pub(super) session: Option<ConnId>,
    /// The sent part of an unfinished line.
    part: Vec<u8>,
    /// The connection is half-closed: the client sends no more.
    pub(super) sent_all: bool,
    expected: VecDeque<Expected>,
    /// The received part of an unfinished line.
    received: Vec<u8>,
    /// The server has announced the end of the session.
    closing: bool,
    ended: bool,
}

impl ClientSession {
    /// Begins a session on a new connection. Returns the previous connection.
    pub(super) fn open(&mut self, session: ConnId) -> Option<ConnId> {
        let old = std::mem::replace(
            self,
            ClientSession { session: Some(session), ..ClientSession::default() },
        );
        old.session
    }

    /// Forgets a lost connection.
    pub(super) fn forget(&mut self) {
        *self = ClientSession::default();
    }

    /// Records the expected answers to the lines in sent bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                self.part.push(*byte);
                // The server answers such a line before its end.
                if self.part.len() == LINE_BYTES_MAX {
                    self.expected.push_back(Expected::Error("too-long".to_owned()));
                }
                continue;
            }
            let line = std::mem::take(&mut self.part);
            if line.len() < LINE_BYTES_MAX {
                self.expected.extend(expected(line.strip_suffix(b"\r").unwrap_or(&line)));
            }
        }
    }

    /// Half-closes the connection.
    pub(super) fn send_no_more(&mut self) {
        if std::mem::replace(&mut self.sent_all, true) {
            return;
        }
        if (1..LINE_BYTES_MAX).contains(&self.part.len()) {
            self.expected.push_back(Expected::Error("bad-argument".to_owned()));
        }
    }

    /// Checks bytes of the server.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        for byte in bytes {
            if *byte != b'\n' {
                self.received.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.received);
            self.receive_line(&line)?;
        }
        Ok(())
    }

    fn receive_line(&mut self, line: &[u8]) -> Result<(), String> {
        let shown = || String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
        require(!self.closing, || format!("a line follows the end of a session: {}", shown()))?;
        require(line.len() < LINE_BYTES_MAX, || {
            format!("an answer is too long: {} bytes, {}", line.len(), shown())
        })?;
        require(std::str::from_utf8(line).is_ok(), || {
            format!("an answer is not UTF-8: {}", shown())
        })?;
        match line.split(|byte| *byte == b' ').next().unwrap_or(&[]) {
            b"MSG" | b"SENT" | b"GONE" | b"ATTR" | b"USER" | b"STAT" | b"HELP" => Ok(()),
            b"NOTE" if line.starts_with(b"NOTE kept-from ") => Ok(()),
            b"NOTE" => {
                self.closing = true;
                Ok(())
            }
            b"OK" | b"ERR" => {
                let Some(expected) = self.expected.pop_front() else {
                    return Err(format!("an answer without a request: {}", shown()));
                };
                let right = match &expected {
                    Expected::Line(right) => line == right,
                    Expected::Error(code) => line.starts_with(format!("ERR {code} ").as_bytes()),
                    Expected::Any => true,
                };
                // A request may be refused while the server stops.
                let refused = line.starts_with(b"ERR ") && expected == Expected::Any;
                if right || refused {
                    return Ok(());
                }
                Err(format!("a wrong answer: {} instead of {expected:?}", shown()))
            }
            _ => Err(format!("an unknown line: {}", shown())),
        }
    }

    /// Handles a close by the server.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.ended = true;
        require(self.received.is_empty(), || {
            format!("a session ends within a line: of {} bytes", self.received.len())
        })
    }

    /// Whether no more answers are expected.
    pub(super) fn is_answered(&self) -> bool {
        self.session.is_none() || self.ended || (self.expected.is_empty() && !self.sent_all)
    }

    /// Checks for missing answers at the end of a case.
    pub(super) fn check_end(&self) -> Result<(), String> {
        if self.session.is_none() || self.ended {
            return Ok(());
        }
        require(!self.sent_all, || "a half-closed session does not end: it is open".to_owned())?;
        match self.expected.len() {
            0 => Ok(()),
            left => Err(format!("requests are not answered: {left}, {:?}", self.expected[0])),
        }
    }
}

/// Returns the expected answer to a line. An empty line has none.
fn expected(line: &[u8]) -> Option<Expected> {
    match protocol::parse(line) {
        Ok(None) => None,
        Ok(Some((_, Command::Ping(text)))) => {
            let mut out = Vec::new();
            frontend::encode(Reply::Ok(Answer::Echo(text)), &mut out);
            out.pop();
            Some(Expected::Line(out))
        }
        Ok(Some(_)) => Some(Expected::Any),
        Err(refusal) => Some(Expected::Error(refusal.code.to_string())),
    }
}
