//! The lines of a text client: cut, bounded, handed to the node one by one as it wants them.

use super::connection::{Kind, Reading};
use super::telnet::{self, Command, Start};
use super::{Fail, Server};
use crate::limits::{LINE_BYTES_MAX, OUTPUT_BYTES_MAX, SLOW_TIME};
use crate::names::SessionId;
use crate::node::Input;
use std::net::IpAddr;

/// Bytes read at a time from a client: small, for each may leave a part of them unconsumed.
const READ_BYTES: usize = 16 * 1024;

/// How far a client's input is cut into lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// The rest of a line that is too long is thrown away.
    skipping: bool,
    /// A telnet client has sent an interrupt since the last line.
    interrupted: bool,
    /// The node knows that there are no more lines.
    ended: bool,
}

/// What lies at the front of a client's input.
#[derive(Debug, PartialEq, Eq)]
enum Front {
    /// A telnet command of this many bytes, which is no part of a line.
    Telnet(Command, usize),
    /// A line of so many bytes, and its end of so many.
    Line(usize, usize),
    /// A line that is too long, or the rest of one; so many bytes of it are here, and its end is
    /// among them or not.
    TooLong(usize, bool),
    /// The begin of a line, or nothing.
    Part,
}

impl Server {
    pub(super) fn client_opened(&mut self, key: usize, session: SessionId, from: IpAddr) {
        self.tell_or_fail(Input::Opened(session, from.into()));
        self.list(key);
    }

    /// Reads from a client and hands its lines to the node, as far as both go in this turn.
    pub(super) fn read_client(&mut self, key: usize, session: SessionId) -> Result<(), Fail> {
        self.keep_warm(key);
        let mut budget = crate::limits::READ_BYTES_PER_TURN / READ_BYTES;
        loop {
            self.feed(key, session)?;
            let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
            if !connection.readable || !self.node.wants_line(session) {
                return Ok(());
            }
            if budget == 0 {
                self.list(key);
                return Ok(());
            }
            budget -= 1;
            match connection.read(&mut self.buffer[..READ_BYTES]) {
                Reading::More | Reading::Closed => {}
                Reading::Drained => return Ok(()),
                Reading::Broken => {
                    self.close(key);
                    return Ok(());
                }
            }
        }
    }

    /// Refuses a timing mark. A telnet client shows nothing after an interrupt until that is
    /// answered: the answer precedes all that is said next, and need not come alone.
    fn refuse_timing_mark(&mut self, session: SessionId) {
        if let Some(output) = self.node.output(session)
            && !output.ends_with(&telnet::NO_TIMING_MARK)
        {
            output.extend_from_slice(&telnet::NO_TIMING_MARK);
        }
    }

    /// Hands in the lines that are here, while the node wants them.
    fn feed(&mut self, key: usize, session: SessionId) -> Result<(), Fail> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        let Kind::Client { mut cut, .. } = connection.kind else { return Ok(()) };
        let input = std::mem::take(&mut connection.input);
        let input_closed = connection.input_closed;
        let mut used = 0;
        while !cut.ended {
            match front(&input[used..], cut) {
                Front::Telnet(command, bytes) => {
                    used += bytes;
                    match command {
                        Command::TimingMark => self.refuse_timing_mark(session),
                        Command::Interrupt => cut.interrupted = true,
                        Command::Negotiation => {}
                    }
                }
                // Its answer has its place among the others.
                Front::TooLong(..) if !cut.skipping && !self.node.wants_line(session) => break,
                Front::TooLong(bytes, complete) => {
                    used += bytes;
                    if !cut.skipping {
                        self.tell(Input::LongLine(session))?;
                    }
                    cut = Cut { skipping: !complete, ..Cut::default() };
                }
                Front::Line(..) if !self.node.wants_line(session) => break,
                Front::Line(line, end) => {
                    let bytes = &input[used..used + line];
                    used += line + end;
                    cut.interrupted = false;
                    self.tell(Input::Line(session, bytes))?;
                }
                Front::Part if input_closed && self.node.wants_line(session) => {
                    cut.ended = true;
                    let unfinished = used < input.len();
                    self.tell(Input::InputEnded { session, unfinished })?;
                }
                Front::Part => break,
            }
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.kind = Kind::Client { session, cut };
            connection.input = input;
            connection.consume(used);
        }
        Ok(())
    }

    /// Sends a client what its session has for it, and closes it when all is said.
    pub(super) fn flush_client(&mut self, key: usize, session: SessionId) -> Result<(), Fail> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        let Some(output) = self.node.output(session) else { return Ok(()) };
        if !output.is_empty() {
            let full = output.len() >= OUTPUT_BYTES_MAX;
            let was_blocked = connection.blocked;
            let before = output.len();
            if connection.send(output).is_err() {
                self.close(key);
                return Ok(());
            }
            let (sent, left) = (output.len() < before, !output.is_empty());
            // A client that may still send requests and is logged in reads when it wants to. Others
            // do not hold their places.
            let limited = connection.hung_up
                || connection.input_closed
                || self.node.is_closing(session)
                || !self.node.is_logged_in(session);
            if !left || !limited {
                self.set_deadline(key, None);
            } else if sent || connection.deadline.is_none() {
                let patience = self.node.login_timeout().min(SLOW_TIME);
                self.set_deadline(key, Some(self.now + patience));
            }
            // Only what was sent makes room: without that, the node would be asked again and again.
            if sent && (full || was_blocked) {
                self.tell(Input::Drained(session))?;
            }
        }
        if self.node.is_finished(session) {
            self.linger(key);
        }
        Ok(())
    }
}

fn front(input: &[u8], cut: Cut) -> Front {
    let skipping = cut.skipping;
    if !skipping {
        match telnet::start(input, cut.interrupted) {
            Start::Text => {}
            Start::Partial => return Front::Part,
            Start::Command(command, bytes) => return Front::Telnet(command, bytes),
        }
    }
    match memchr::memchr(b'\n', input) {
        Some(end) if skipping || end + 1 > LINE_BYTES_MAX => Front::TooLong(end + 1, true),
        Some(end) => {
            let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]).len();
            Front::Line(line, end + 1 - line)
        }
        None if input.is_empty() => Front::Part,
        None if skipping || input.len() >= LINE_BYTES_MAX => Front::TooLong(input.len(), false),
        None => Front::Part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_bounded() {
        let longest = [vec![b'x'; LINE_BYTES_MAX - 1], b"\n".to_vec()].concat();
        let too_long = [b"x".to_vec(), longest.clone()].concat();
        let table: &[(&[u8], bool, Front)] = &[
            (b"", false, Front::Part),
            (b"PING", false, Front::Part),
            (b"PING\nPING", false, Front::Line(4, 1)),
            (b"PING\r\n", false, Front::Line(4, 2)),
            (b"\n", false, Front::Line(0, 1)),
            (b"\r\r\n", false, Front::Line(1, 2)),
            (&longest, false, Front::Line(LINE_BYTES_MAX - 1, 1)),
            (&too_long, false, Front::TooLong(LINE_BYTES_MAX + 1, true)),
            (&longest[..LINE_BYTES_MAX - 1], false, Front::Part),
            (&too_long[..LINE_BYTES_MAX], false, Front::TooLong(LINE_BYTES_MAX, false)),
            (b"rest\nPING\n", true, Front::TooLong(5, true)),
            (b"rest", true, Front::TooLong(4, false)),
            (b"", true, Front::Part),
            (b"\xff\xfb\x18PING\n", false, Front::Telnet(Command::Negotiation, 3)),
            (b"\xff\xfb\x18PING\n", true, Front::TooLong(8, true)),
            (b"\xff\xfb", false, Front::Part),
            (b"\xff\xfb\n", false, Front::Line(2, 1)),
            (b"PING \xff\xfe\nPING\n", false, Front::Line(7, 1)),
        ];
        for (input, skipping, expected) in table {
            let cut = Cut { skipping: *skipping, ..Cut::default() };
            assert_eq!(front(input, cut), *expected, "{} bytes", input.len());
        }
    }
}
