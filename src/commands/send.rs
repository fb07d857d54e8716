//! `postern send`: sends one message, or each line of standard input.

use super::progress::{Progress, SHOW_TIME};
use super::{Named, person, terminal};
use crate::client::{After, Attributes, Client, Error, Event, Refusal, Ticket, Waker};
use crate::limits::{LINE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::options;
use crate::protocol::{self, Code};
use serde::Serialize;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;
use std::{fmt, thread};

/// Size of the read buffer for standard input, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Maximum number of such pieces that wait to be sent. When they do, the writer at the other end
/// of the pipe waits, too.
const PIECES_MAX: usize = 2;

/// Sends the messages and reports their outcome. Fails if a message was not acknowledged.
///
/// # Errors
/// Returns a one-line message that states what was not stored, and why.
#[cold]
pub fn run(options: &options::Send) -> Result<ExitCode, String> {
    let patience = Duration::from_secs(options.wait);
    let mut client = person::client(&options.login, After::End, false, patience)?;
    let (json, lossy, skip) = (options.json, options.lossy, options.skip);
    let options::Attributes { title, priority, tags, click } = options.attributes.clone();
    let attributes = Attributes { title, priority, tags, click };
    let to = &options.to;
    let mut sending = Sending { to, json, lossy, skip, attributes, ..Sending::default() };
    let counts = Arc::clone(&sending.counts);
    terminal::set_last_words(move || {
        let began = counts.taken.load(Ordering::Relaxed) > 0;
        began.then(|| format!("interrupted: {counts} are known to be stored"))
    });
    let ended = if options.whole {
        sending.send_one(&mut client, &read_whole(io::stdin())?)
    } else if options.text.is_empty() {
        // A progress line would make the outcomes of lines unreadable on a terminal.
        sending.progress = if json { None } else { Progress::of_stdin() };
        let pieces = read_pieces(io::stdin(), client.waker())?;
        sending.send_all(&mut client, &pieces)
    } else {
        sending.send_one(&mut client, &options.text.join(" "))
    };
    sending.report(ended, client.in_doubt())
}

/// The state of the lines read so far.
#[derive(Default)]
struct Sending<'a> {
    to: &'a str,
    /// What goes with each message.
    attributes: Attributes,
    json: bool,
    /// Whether to convert invalid lines into valid messages.
    lossy: bool,
    /// Whether to continue after a refused line.
    skip: bool,
    /// Whether the last piece was not the end of its line.
    within: bool,
    /// Number of the line that was read last, counted from 1.
    line: u64,
    /// Bytes of the input up to the end of that line.
    bytes: u64,
    /// Bytes of the input up to the end of the last line with a known outcome.
    bytes_answered: u64,
    /// Messages under way, in the order of their tickets.
    under_way: VecDeque<UnderWay>,
    counts: Arc<Counts>,
    progress: Option<Progress>,
    /// The first line that was not stored, and why.
    failed: Option<(u64, String)>,
}

/// A message whose answer is awaited.
#[derive(Clone, Copy)]
struct UnderWay {
    ticket: Ticket,
    line: u64,
    /// Bytes of the input up to the end of the line.
    bytes: u64,
}

/// The numbers of messages submitted and of messages stored. Also reported when a signal ends the
/// command.
#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    stored: AtomicU64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [taken, stored] = [&self.taken, &self.stored].map(|n| n.load(Ordering::Relaxed));
        write!(f, "{stored} of {taken} messages")
    }
}

/// The outcome of a line, as `--json` prints it.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Stored { line: u64, n: u64 },
    Failed { line: u64, error: &'a str, words: &'a str },
}

impl Sending<'_> {
    fn send_one(&mut self, client: &mut Client, text: &str) -> Result<(), Error> {
        if text.is_empty() {
            self.line = 1;
            self.counts.taken.store(1, Ordering::Relaxed);
            self.fail(1, "bad-argument", "is empty");
            return Ok(());
        }
        self.submit(client, &Line { bytes: text.into(), size: text.len(), is_whole: true })?;
        self.finish(client)
    }

    /// Sends lines as they arrive. Stops after the first failure, unless `skip` is set.
    fn send_all(
        &mut self,
        client: &mut Client,
        pieces: &Receiver<io::Result<Vec<Line>>>,
    ) -> Result<(), Error> {
        let mut lines = VecDeque::new();
        while self.failed.is_none() || self.skip {
            let Some(mut line) = lines.pop_front() else {
                match pieces.try_recv() {
                    Ok(piece) => lines.extend(piece.map_err(Error::Io)?),
                    Err(TryRecvError::Empty) => self.wait(client)?,
                    Err(TryRecvError::Disconnected) => break,
                }
                continue;
            };
            if self.line == 0 && line.bytes.starts_with(person::BYTE_ORDER_MARK) {
                line.bytes.drain(..person::BYTE_ORDER_MARK.len());
            }
            self.submit(client, &line)?;
        }
        self.finish(client)
    }

    fn submit(&mut self, client: &mut Client, line: &Line) -> Result<(), Error> {
        let goes_on = std::mem::replace(&mut self.within, !line.is_whole);
        self.line += u64::from(!goes_on);
        self.bytes += line.size as u64;
        if line.bytes.is_empty() {
            return Ok(());
        }
        if self.lossy {
            let title = self.attributes.title.as_ref().map_or(0, String::len);
            for text in messages(&line.bytes, TEXT_BYTES_MAX.saturating_sub(title)) {
                self.submit_message(client, text.as_bytes())?;
            }
            return Ok(());
        }
        // The first piece of a line that is too long is refused and counted; the others are
        // ignored.
        if goes_on { Ok(()) } else { self.submit_message(client, &line.bytes) }
    }

    fn submit_message(&mut self, client: &mut Client, line_bytes: &[u8]) -> Result<(), Error> {
        while !client.has_room() {
            self.wait(client)?;
        }
        self.counts.taken.fetch_add(1, Ordering::Relaxed);
        let line = self.line;
        let text = std::str::from_utf8(line_bytes);
        let refused = match text.map(|text| client.submit_with(self.to, text, &self.attributes)) {
            Ok(Ok(ticket)) => {
                self.under_way.push_back(UnderWay { ticket, line, bytes: self.bytes });
                return Ok(());
            }
            Ok(Err(Error::Refused(why))) => why,
            Ok(Err(error)) => return Err(error),
            Err(_) => Refusal::new(Code::BadText, "is not UTF-8"),
        };
        // Outcomes are reported in the order of the lines.
        self.finish(client)?;
        self.fail(line, &refused.code, &refused.words);
        Ok(())
    }

    /// Waits until nothing is under way.
    fn finish(&mut self, client: &mut Client) -> Result<(), Error> {
        while !self.under_way.is_empty() {
            self.wait(client)?;
        }
        Ok(())
    }

    /// Waits for one event, for a wake-up, or until progress is due.
    fn wait(&mut self, client: &mut Client) -> Result<(), Error> {
        if let Some(event) = client.next(self.progress.as_ref().map(|_| SHOW_TIME))? {
            self.take(event);
        }
        if let Some(progress) = &mut self.progress {
            progress.show(self.counts.stored.load(Ordering::Relaxed), self.bytes_answered);
        }
        Ok(())
    }

    fn take(&mut self, event: Event) {
        let of = event.ticket();
        let under_way = self.under_way.front().filter(|first| Some(first.ticket) == of);
        let Some(UnderWay { line, bytes, .. }) = under_way.copied() else { return };
        self.under_way.pop_front();
        self.bytes_answered = bytes;
        match event {
            Event::Stored { number, .. } => {
                self.counts.stored.fetch_add(1, Ordering::Relaxed);
                self.print(&Outcome::Stored { line, n: number });
            }
            Event::Refused { why: Refusal { code, words }, .. } => self.fail(line, &code, &words),
            _ => self.fail(line, "unknown-outcome", "may or may not be stored"),
        }
    }

    fn fail(&mut self, line: u64, code: &str, why: &str) {
        self.print(&Outcome::Failed { line, error: code, words: why });
        if self.skip {
            log::warn!("line {line}: {why} ({code}); skipped");
        }
        self.failed.get_or_insert_with(|| (line, format!("{why} ({code})")));
    }

    fn print(&mut self, outcome: &Outcome<'_>) {
        if !self.json {
            return;
        }
        let text = serde_json::to_string(outcome).expect("numbers and words are JSON");
        // If nobody reads the outcomes, the lines are still sent.
        self.json = io::stdout().write_all(format!("{text}\n").as_bytes()).is_ok();
    }

    fn report(self, ended: Result<(), Error>, in_doubt: usize) -> Result<ExitCode, String> {
        let mut stored = format!("{} were stored", self.counts);
        if let Some(UnderWay { line, .. }) = self.under_way.front().filter(|_| in_doubt > 0) {
            stored +=
                &format!("; outcome unknown from line {line} on: they may or may not be stored");
        }
        ended.map_err(|error| format!("{}; {stored}", person::said(&error)))?;
        if let Some((line, why)) = self.failed {
            return Err(format!("line {line}: {why}; {stored}"));
        }
        self.progress.into_iter().for_each(Progress::end);
        Ok(ExitCode::SUCCESS)
    }
}

/// A line, or a piece of a line that is too long.
#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    /// Number of bytes in the input, including the line end.
    size: usize,
    /// Whether it contains the end of its line.
    is_whole: bool,
}

/// Converts a line into valid messages. Replaces invalid UTF-8, and characters that a message
/// cannot hold (escape sequences of a terminal become visible). Splits a line of over `most` bytes
/// between characters.
fn messages(line: &[u8], most: usize) -> Vec<String> {
    let mut messages = vec![String::new()];
    for c in String::from_utf8_lossy(line).chars() {
        let is_valid = protocol::is_text(c.encode_utf8(&mut [0; 4]));
        let c = if is_valid { c } else { char::REPLACEMENT_CHARACTER };
        if messages.last().is_some_and(|last| last.len() + c.len_utf8() > most) {
            messages.push(String::new());
        }
        messages.last_mut().expect("there is one").push(c);
    }
    messages
}

/// Reads a message that may have several lines. The end of the last line is not part of it.
fn read_whole(input: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = input.take(LINE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.named("standard input")?;
    if bytes.len() > LINE_BYTES_MAX {
        return Err(format!("standard input: a text has at most {TEXT_BYTES_MAX} bytes"));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| "standard input: it is not UTF-8".to_owned())?;
    let text = text.replace("\r\n", "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.strip_suffix('\n').unwrap_or(text).to_owned())
}

/// Reads lines on a separate thread, a bounded number of pieces ahead. Wakes the client for each
/// piece.
fn read_pieces(
    input: impl Read + Send + 'static,
    waker: Waker,
) -> Result<Receiver<io::Result<Vec<Line>>>, String> {
    let (sender, pieces) = sync_channel(PIECES_MAX);
    let read = move || {
        let mut input = BufReader::with_capacity(READ_BYTES, input);
        let mut rest = Vec::new();
        loop {
            let read = read_lines(&mut input, &mut rest);
            let ended = read.as_ref().map_or(true, |(_, ended)| *ended);
            if sender.send(read.map(|(lines, _)| lines)).is_err() || ended {
                break;
            }
            waker.wake();
        }
        drop(sender);
        waker.wake();
    };
    let thread = thread::Builder::new().name("input".to_owned()).spawn(read);
    thread.named("no thread").map(|_| pieces)
}

/// Reads the next line, and those after it that have arrived already; returns whether the input has
/// ended, too. A line that is longer than any message comes in pieces. `rest` is what has arrived
/// of the next one.
fn read_lines(
    input: &mut BufReader<impl Read>,
    rest: &mut Vec<u8>,
) -> io::Result<(Vec<Line>, bool)> {
    let mut lines = Vec::new();
    loop {
        let arrived = match input.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            buffer => buffer?.len(),
        };
        let ended = arrived == 0;
        input.take(arrived as u64).read_until(b'\n', rest)?;
        // The last line may have no line end.
        let is_whole = ended || rest.ends_with(b"\n");
        if (is_whole && !rest.is_empty()) || rest.len() > LINE_BYTES_MAX {
            let tail = if is_whole { 0 } else { unfinished(rest) };
            let tail = rest.split_off(rest.len() - tail);
            let mut bytes = std::mem::replace(rest, tail);
            let size = bytes.len();
            if is_whole {
                bytes.pop_if(|byte| *byte == b'\n');
                bytes.pop_if(|byte| *byte == b'\r');
            }
            lines.push(Line { bytes, size, is_whole });
        }
        if ended || (input.buffer().is_empty() && !lines.is_empty()) {
            return Ok((lines, ended));
        }
    }
}

/// Returns how many bytes at the end are the beginning of an incomplete character.
fn unfinished(bytes: &[u8]) -> usize {
    let is_start = |byte: &u8| byte & 0xc0 != 0x80;
    let last = &bytes[bytes.iter().rposition(is_start).unwrap_or(0)..];
    match std::str::from_utf8(last) {
        Err(error) if error.error_len().is_none() => last.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_input_is() {
        let text = b"one\r\n\ntwo\nlast\r";
        for size in 1..=text.len() {
            let mut input = BufReader::with_capacity(size, &text[..]);
            let lines = read_all(&mut input);
            let lines: Vec<_> = lines.iter().map(|line| (&line.bytes[..], line.size)).collect();
            assert_eq!(lines, [(&b"one"[..], 5), (b"", 1), (b"two", 4), (b"last", 5)], "{size}");
        }
    }

    /// Reads until the input has ended, and no further.
    fn read_all(input: &mut BufReader<impl Read>) -> Vec<Line> {
        let (mut rest, mut all) = (Vec::new(), Vec::new());
        loop {
            let (lines, ended) = read_lines(input, &mut rest).unwrap();
            all.extend(lines);
            if ended {
                return all;
            }
        }
    }

    /// A terminal reports the end of its input once, and then reads on.
    #[test]
    fn nothing_is_read_after_the_end() {
        struct Terminal(VecDeque<&'static [u8]>);
        impl Read for Terminal {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let mut next = self.0.pop_front().expect("nothing reads after the end");
                next.read(buffer)
            }
        }
        let typed: [&[u8]; 4] = [b"one\ntw", b"o\nthr", b"ee", b""];
        let lines = read_all(&mut BufReader::new(Terminal(typed.into())));
        let lines: Vec<&[u8]> = lines.iter().map(|line| &line.bytes[..]).collect();
        assert_eq!(lines, [&b"one"[..], b"two", b"three"]);
    }

    /// A line that is too long is reported although its end has not come yet.
    #[test]
    fn a_long_line_does_not_wait_for_its_end() {
        let bytes = vec![b'x'; LINE_BYTES_MAX + 1];
        let mut input = BufReader::with_capacity(READ_BYTES, &bytes[..]);
        let (lines, ended) = read_lines(&mut input, &mut Vec::new()).unwrap();
        assert_eq!((lines.len(), lines[0].is_whole, ended), (1, false, false));
    }

    #[test]
    fn an_endless_line_comes_in_pieces_of_whole_characters() {
        for shift in 0..3 {
            let text = format!("{}{}\r\nlast", "x".repeat(shift), "€".repeat(READ_BYTES));
            let lines = read_all(&mut BufReader::with_capacity(READ_BYTES, text.as_bytes()));
            let (last, pieces) = lines.split_last().unwrap();
            assert_eq!((&last.bytes[..], last.is_whole), (&b"last"[..], true));
            let (whole, begun) = pieces.split_last().unwrap();
            assert!(whole.is_whole && begun.len() >= 3);
            assert!(begun.iter().all(|piece| !piece.is_whole));
            assert!(pieces.iter().all(|piece| std::str::from_utf8(&piece.bytes).is_ok()));
            assert!(pieces.iter().all(|piece| piece.size <= READ_BYTES + 3));
            assert_eq!(lines.iter().map(|line| line.size).sum::<usize>(), text.len());
        }
    }

    #[test]
    fn lossy_lines_become_messages() {
        assert_eq!(messages(b"plain \xe4\tx", TEXT_BYTES_MAX), ["plain \u{fffd}\tx"]);
        assert_eq!(messages(b"\x1b[31mred\x1b[0m", TEXT_BYTES_MAX), ["\u{fffd}[31mred\u{fffd}[0m"]);
        let long = "ä".repeat(TEXT_BYTES_MAX);
        let split = messages(long.as_bytes(), TEXT_BYTES_MAX);
        assert_eq!(split.iter().map(String::len).collect::<Vec<_>>(), [3840, 3840]);
        assert_eq!(split.concat(), long);
        for (bytes, expected) in [
            (&b"abc"[..], 0),
            (b"ab\xe2", 1),
            (b"a\xe2\x82", 2),
            (b"\xe2\x82\xac", 0),
            (b"\xe2\x82\xac\xe2", 1),
            (b"\xe2\x82\xac\xe2\x82", 2),
            (b"\xff", 0),
        ] {
            assert_eq!(unfinished(bytes), expected, "{bytes:x?}");
        }
    }
}
