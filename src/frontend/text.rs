//! The front end of the text protocol: lines of at most [`LINE_BYTES_MAX`] bytes that end with LF
//! or CR LF, and telnet commands between them.

use super::telnet::{self, Command, NO_TIMING_MARK, Start};
use crate::limits::LINE_BYTES_MAX;
use std::mem;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// A line over the bound. Its bytes are dropped.
    LongLine,
    /// The client sends no more.
    End {
        /// Its last line has no end.
        unfinished: bool,
    },
}

/// The state of one text client's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// The rest of a line that is too long is dropped.
    skipping: bool,
    /// Since the last line the client has sent a telnet interrupt.
    interrupted: bool,
    /// [`Request::End`] was returned.
    ended: bool,
    /// How many bytes of the answer to a timing mark are not sent yet.
    owed: u8,
}

/// What the first bytes of the input are.
#[derive(Debug, PartialEq, Eq)]
enum Front {
    /// A telnet command of this many bytes, which is not part of a line.
    Telnet(Command, usize),
    /// A line of this many bytes, and an end of this many.
    Line(usize, usize),
    /// This many bytes of a line that is too long; whether its end is among them.
    TooLong(usize, bool),
    /// The beginning of a line, or nothing.
    Part,
}

impl Text {
    /// Reads the next request from `input`, which begins with the first byte that no earlier call
    /// has consumed, and returns how many bytes are consumed now. `input_closed`: no more bytes
    /// will come. `wanted`: the session accepts a request. Telnet commands, and the rest of a line
    /// that is too long, are consumed even if not.
    pub fn next<'a>(
        &mut self,
        input: &'a [u8],
        input_closed: bool,
        wanted: bool,
    ) -> (usize, Option<Request<'a>>) {
        let mut used = 0;
        while !self.ended {
            let rest = &input[used..];
            match self.front(rest) {
                Front::Telnet(command, bytes) => {
                    used += bytes;
                    self.obey(command);
                }
                // The answer to it has its place among the others.
                Front::TooLong(..) if !self.skipping && !wanted => break,
                Front::TooLong(bytes, complete) => {
                    used += bytes;
                    self.interrupted = false;
                    if !mem::replace(&mut self.skipping, !complete) {
                        return (used, Some(Request::LongLine));
                    }
                }
                Front::Line(line, end) if wanted => {
                    self.interrupted = false;
                    return (used + line + end, Some(Request::Line(&rest[..line])));
                }
                Front::Part if input_closed && wanted => {
                    self.ended = true;
                    return (used, Some(Request::End { unfinished: !rest.is_empty() }));
                }
                Front::Line(..) | Front::Part => break,
            }
        }
        (used, None)
    }

    /// Bytes that must reach the client before any further answer does. A telnet client shows
    /// nothing after an interrupt until its timing mark is refused; a refusal may stand anywhere in
    /// the output, since the client takes it out.
    pub fn owed(&self) -> &'static [u8] {
        &NO_TIMING_MARK[NO_TIMING_MARK.len() - usize::from(self.owed)..]
    }

    /// Notes that the first `count` bytes of [`Text::owed`] are sent.
    pub fn note_sent(&mut self, count: usize) {
        self.owed = (usize::from(self.owed).saturating_sub(count)) as u8;
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Negotiation => {}
            Command::Interrupt => self.interrupted = true,
            Command::TimingMark if self.owed == 0 => self.owed = NO_TIMING_MARK.len() as u8,
            // One answer is enough.
            Command::TimingMark => {}
        }
    }

    fn front(&self, input: &[u8]) -> Front {
        let skipping = self.skipping;
        if !skipping {
            match telnet::start(input, self.interrupted) {
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
            let text = Text { skipping: *skipping, ..Text::default() };
            assert_eq!(text.front(input), *expected, "{} bytes", input.len());
        }
    }

    /// Every request of `input`, as words; the session accepts all of them.
    fn requests(input: &[u8], size: usize) -> Vec<String> {
        let mut text = Text::default();
        let (mut here, mut all) = (Vec::new(), Vec::new());
        let mut pieces = input.chunks(size);
        loop {
            let piece = pieces.next();
            here.extend_from_slice(piece.unwrap_or_default());
            loop {
                let (used, request) = text.next(&here, piece.is_none(), true);
                let words = request.map(|request| match request {
                    Request::Line(line) if line.len() > 10 => format!("{} bytes", line.len()),
                    Request::Line(line) => String::from_utf8_lossy(line).into_owned(),
                    other => format!("{other:?}"),
                });
                here.drain(..used);
                match words {
                    Some(words) => all.push(words),
                    None => break,
                }
            }
            if piece.is_none() {
                return all;
            }
        }
    }

    #[test]
    fn requests_are_the_same_wherever_the_input_is_cut() {
        let long = [vec![b'x'; LINE_BYTES_MAX], b"\n".to_vec()].concat();
        let input = [b"PING\r\n\xff\xfd\x06\n", &long[..], b"\xff\xf4\xff\xf2LOG\nla"].concat();
        let expected = ["PING", "", "LongLine", "LOG", "End { unfinished: true }"];
        for size in (1..20).chain([LINE_BYTES_MAX - 1, LINE_BYTES_MAX, input.len()]) {
            assert_eq!(requests(&input, size), expected, "pieces of {size} bytes");
        }
        let whole = [vec![b'x'; LINE_BYTES_MAX - 1], b"\n".to_vec()].concat();
        assert_eq!(requests(&whole, 7), ["4095 bytes", "End { unfinished: false }"]);
    }

    #[test]
    fn nothing_is_lost_while_no_request_is_wanted() {
        let mut text = Text::default();
        assert_eq!(text.next(b"PING\n", true, false), (0, None));
        let long = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(text.next(&long, false, false), (0, None));
        assert_eq!(text.next(&long, false, true), (LINE_BYTES_MAX, Some(Request::LongLine)));
        assert_eq!(text.next(b"xx", false, false), (2, None), "its rest is dropped");
        assert_eq!(text.next(b"\nPING\n", false, false), (1, None));
        assert_eq!(text.next(b"PING\n", false, true), (5, Some(Request::Line(b"PING"))));
        assert_eq!(text.next(b"", true, false), (0, None));
        assert_eq!(text.next(b"", true, true), (0, Some(Request::End { unfinished: false })));
        assert_eq!(text.next(b"", true, true), (0, None), "it ends once");
    }

    #[test]
    fn a_timing_mark_is_refused_once() {
        let mut text = Text::default();
        assert_eq!(text.owed(), b"");
        assert_eq!(text.next(b"\xff\xf4\xff\xfd\x06\xff\xfd\x06", false, true), (8, None));
        assert_eq!(text.owed(), b"\xff\xfc\x06");
        text.note_sent(1);
        assert_eq!(text.owed(), b"\xfc\x06");
        text.note_sent(2);
        assert_eq!(text.owed(), b"");
    }
}
