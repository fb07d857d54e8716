//! The lines of a text client: cut, bounded, handed to the node one by one as it wants them.

use super::connection::{Kind, Reading};
use super::{Fail, Server, telnet};
use crate::limits::LINE_BYTES_MAX;
use crate::names::SessionId;
use crate::node::Input;
use std::net::IpAddr;

/// Bytes read at a time from a client: small, for each may leave a part of them unconsumed.
const READ_BYTES: usize = 16 * 1024;

/// What lies at the front of a client's input.
#[derive(Debug, PartialEq, Eq)]
enum Front {
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
            let old = connection.input.len();
            match connection.read(&mut self.buffer[..READ_BYTES]) {
                Reading::More => self.strip_telnet(key, session, old),
                Reading::Closed => {
                    if let Kind::Client { telnet, .. } = &mut connection.kind {
                        telnet.finish(&mut connection.input);
                    }
                }
                Reading::Drained => return Ok(()),
                Reading::Broken => {
                    self.close(key);
                    return Ok(());
                }
            }
        }
    }

    /// Takes telnet's commands out of what a client sent after the first `old` bytes of its input.
    pub(super) fn strip_telnet(&mut self, key: usize, session: SessionId, old: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Kind::Client { telnet, .. } = &mut connection.kind else { return };
        // After an interrupt, a telnet client shows nothing before this is answered: it must come
        // before what is said next, and need not come alone.
        if telnet.strip(&mut connection.input, old)
            && let Some(output) = self.node.output(session)
            && !output.ends_with(&telnet::NO_TIMING_MARK)
        {
            output.extend_from_slice(&telnet::NO_TIMING_MARK);
        }
    }

    /// Hands in the lines that are here, while the node wants them.
    fn feed(&mut self, key: usize, session: SessionId) -> Result<(), Fail> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        let Kind::Client { mut skipping, mut ended, telnet, .. } = connection.kind else {
            return Ok(());
        };
        let input = std::mem::take(&mut connection.input);
        let input_closed = connection.input_closed;
        let mut used = 0;
        while !ended {
            match front(&input[used..], skipping) {
                // Its answer has its place among the others.
                Front::TooLong(..) if !skipping && !self.node.wants_line(session) => break,
                Front::TooLong(bytes, complete) => {
                    used += bytes;
                    if !skipping {
                        self.tell(Input::LongLine(session))?;
                    }
                    skipping = !complete;
                }
                Front::Line(..) if !self.node.wants_line(session) => break,
                Front::Line(line, end) => {
                    let bytes = &input[used..used + line];
                    used += line + end;
                    self.tell(Input::Line(session, bytes))?;
                }
                Front::Part if input_closed && self.node.wants_line(session) => {
                    ended = true;
                    let unfinished = used < input.len();
                    self.tell(Input::InputEnded { session, unfinished })?;
                }
                Front::Part => break,
            }
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.kind = Kind::Client { session, skipping, ended, telnet };
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
            let full = output.len() >= crate::limits::OUTPUT_BYTES_MAX;
            let was_blocked = connection.blocked;
            let before = output.len();
            if connection.send(output).is_err() {
                self.close(key);
                return Ok(());
            }
            let (sent, left) = (output.len() < before, !output.is_empty());
            let last_words = self.node.is_closing(session) || connection.input_closed;
            // Who takes nothing of our last words for so long does not hold its place.
            if last_words && left && (sent || connection.deadline.is_none()) {
                self.set_deadline(key, Some(self.now + crate::limits::SLOW_TIME));
            } else if !left {
                self.set_deadline(key, None);
            }
            if full || was_blocked {
                self.tell(Input::Drained(session))?;
            }
        }
        if self.node.is_finished(session) {
            self.linger(key);
        }
        Ok(())
    }
}

fn front(input: &[u8], skipping: bool) -> Front {
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
        ];
        for (input, skipping, expected) in table {
            assert_eq!(front(input, *skipping), *expected, "{} bytes", input.len());
        }
    }
}
