//! One text client's view of a session: what it asked, and whether each request got exactly one
//! answer, in order.

use crate::simulate::ConnId;
use postern::frontend;
use postern::limits::LINE_BYTES_MAX;
use postern::protocol::{self, Answer, Command, Reply};
use std::collections::VecDeque;

/// What the final line of an answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// Exactly this line.
    Line(Vec<u8>),
    /// An error with this code.
    Error(String),
    /// `OK` or `ERR`.
    Any,
}

/// A client and its connection.
#[derive(Debug, Default)]
pub(super) struct ClientSession {
    /// Its connection, if it has one.
    pub(super) session: Option<ConnId>,
    /// The begin of a line that was sent.
    part: Vec<u8>,
    /// The connection is half-closed: nothing more can be sent.
    pub(super) sent_all: bool,
    expected: VecDeque<Expected>,
    /// The begin of a line that came.
    heard: Vec<u8>,
    /// The server has said that it closes.
    closing: bool,
    ended: bool,
}

impl ClientSession {
    /// Begins on a new connection; returns the one before.
    pub(super) fn open(&mut self, session: ConnId) -> Option<ConnId> {
        let old = std::mem::replace(
            self,
            ClientSession { session: Some(session), ..ClientSession::default() },
        );
        old.session
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self) {
        *self = ClientSession::default();
    }

    /// Notes what answers the lines in these bytes must get.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                self.part.push(*byte);
                // Such a line is answered before its end has come.
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

    /// Takes what the server says.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        for byte in bytes {
            if *byte != b'\n' {
                self.heard.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.heard);
            self.hear_line(&line)?;
        }
        Ok(())
    }

    fn hear_line(&mut self, line: &[u8]) -> Result<(), String> {
        let shown = || String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
        if self.closing {
            return Err(format!("a line follows the end of a session: {}", shown()));
        }
        if line.len() + 1 > LINE_BYTES_MAX {
            return Err(format!("an answer is too long: {} bytes, {}", line.len(), shown()));
        }
        if std::str::from_utf8(line).is_err() {
            return Err(format!("an answer is not UTF-8: {}", shown()));
        }
        match line.split(|byte| *byte == b' ').next().unwrap_or(&[]) {
            b"MSG" | b"USER" | b"STAT" | b"HELP" => Ok(()),
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
                // What is asked while the server closes gets another answer.
                let refused = line.starts_with(b"ERR ") && expected == Expected::Any;
                if right || refused {
                    return Ok(());
                }
                Err(format!("a wrong answer: {} instead of {expected:?}", shown()))
            }
            _ => Err(format!("a line that no server says: {}", shown())),
        }
    }

    /// The server has closed the connection.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.ended = true;
        match self.heard.is_empty() {
            true => Ok(()),
            false => Err(format!("a session ends in a line: of {} bytes", self.heard.len())),
        }
    }

    /// Whether nothing more is to come.
    pub(super) fn is_answered(&self) -> bool {
        self.session.is_none() || self.ended || (self.expected.is_empty() && !self.sent_all)
    }

    /// Checks what was left unanswered.
    pub(super) fn judge(&self) -> Result<(), String> {
        if self.session.is_none() || self.ended {
            return Ok(());
        }
        if self.sent_all {
            return Err("a half-closed session does not end: it is open".to_owned());
        }
        match self.expected.len() {
            0 => Ok(()),
            left => Err(format!("requests are not answered: {left}, {:?}", self.expected[0])),
        }
    }
}

/// The answer that a line must get; `None` when it asks for nothing.
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
