//! `postern send`: one message, or each line of standard input.

use super::{person, terminal};
use crate::client::{Client, Error, Event, Refusal, Ticket, Waker};
use crate::limits::LINE_BYTES_MAX;
use crate::options;
use serde::Serialize;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;
use std::{fmt, thread};

/// What is read from standard input at a time, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Such pieces that wait to be sent; the writer at the other end of the pipe waits then, too.
const PIECES_MAX: usize = 2;

/// Sends, and says what became of it; fails when something was not acknowledged.
///
/// # Errors
/// One line that says what was not stored, and why.
#[cold]
pub fn run(options: &options::Send) -> Result<ExitCode, String> {
    let patience = Duration::from_secs(options.wait);
    let mut client = person::client(&options.login, false, |account| account, patience)?;
    let mut sending = Sending { to: &options.to, json: options.json, ..Sending::default() };
    let counts = Arc::clone(&sending.counts);
    terminal::set_last_words(move || {
        let began = counts.taken.load(Ordering::Relaxed) > 0;
        began.then(|| format!("interrupted: {counts} are known to be stored"))
    });
    let ended = if options.text.is_empty() {
        let pieces = read_pieces(io::stdin(), client.waker())?;
        sending.send_all(&mut client, &pieces)
    } else {
        sending.send_one(&mut client, &options.text.join(" "))
    };
    sending.report(ended, client.in_doubt())
}

/// What is known of the lines.
#[derive(Default)]
struct Sending<'a> {
    to: &'a str,
    json: bool,
    /// The line that was read last, from 1.
    line: u64,
    /// Those under way, in the order of their tickets.
    under_way: VecDeque<(Ticket, u64)>,
    counts: Arc<Counts>,
    /// The first line that was not stored, and why.
    failed: Option<(u64, String)>,
}

/// How many lines were messages, and how many of them are stored: told also when a signal ends the
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

/// What `--json` says of a line.
#[derive(Serialize)]
struct Outcome<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<&'a str>,
}

impl Sending<'_> {
    fn send_one(&mut self, client: &mut Client, text: &str) -> Result<(), Error> {
        if text.is_empty() {
            self.line = 1;
            self.counts.taken.store(1, Ordering::Relaxed);
            self.fail(1, "bad-argument", "is empty");
            return Ok(());
        }
        self.submit(client, text.as_bytes())?;
        self.finish(client)
    }

    /// Sends lines as they come; after the first that fails no more are taken.
    fn send_all(
        &mut self,
        client: &mut Client,
        pieces: &Receiver<io::Result<Vec<Vec<u8>>>>,
    ) -> Result<(), Error> {
        let mut lines = VecDeque::new();
        while self.failed.is_none() {
            let Some(mut line) = lines.pop_front() else {
                match pieces.try_recv() {
                    Ok(piece) => lines.extend(piece.map_err(Error::Io)?),
                    Err(TryRecvError::Empty) => self.wait(client)?,
                    Err(TryRecvError::Disconnected) => break,
                }
                continue;
            };
            while !client.has_room() {
                self.wait(client)?;
            }
            if self.line == 0 && line.starts_with(person::BYTE_ORDER_MARK) {
                line.drain(..person::BYTE_ORDER_MARK.len());
            }
            self.submit(client, &line)?;
        }
        self.finish(client)
    }

    fn submit(&mut self, client: &mut Client, line_bytes: &[u8]) -> Result<(), Error> {
        self.line += 1;
        if line_bytes.is_empty() {
            return Ok(());
        }
        self.counts.taken.fetch_add(1, Ordering::Relaxed);
        let line = self.line;
        let refused = match std::str::from_utf8(line_bytes).map(|text| client.submit(self.to, text))
        {
            Ok(Ok(ticket)) => {
                self.under_way.push_back((ticket, line));
                return Ok(());
            }
            Ok(Err(Error::Refused(why))) => why,
            Ok(Err(error)) => return Err(error),
            Err(_) => Refusal { code: "bad-text".to_owned(), words: "is not UTF-8".to_owned() },
        };
        // Those before it are told first.
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

    /// Waits for one event, or until it is woken.
    fn wait(&mut self, client: &mut Client) -> Result<(), Error> {
        let Some(event) = client.next(None)? else { return Ok(()) };
        let of = event.ticket();
        let under_way = self.under_way.front().filter(|(ticket, _)| Some(*ticket) == of);
        let Some((_, line)) = under_way.copied() else { return Ok(()) };
        self.under_way.pop_front();
        match event {
            Event::Stored { number, .. } => {
                self.counts.stored.fetch_add(1, Ordering::Relaxed);
                self.print(&Outcome { line, n: Some(number), error: None, words: None });
            }
            Event::Refused { why: Refusal { code, words }, .. } => self.fail(line, &code, &words),
            _ => self.fail(line, "unknown-outcome", "may or may not be stored"),
        }
        Ok(())
    }

    fn fail(&mut self, line: u64, code: &str, why: &str) {
        self.print(&Outcome { line, n: None, error: Some(code), words: Some(why) });
        self.failed.get_or_insert_with(|| (line, format!("{why} ({code})")));
    }

    fn print(&mut self, outcome: &Outcome<'_>) {
        if !self.json {
            return;
        }
        let mut text = serde_json::to_string(outcome).expect("numbers and words are JSON");
        text.push('\n');
        // Who does not listen any more gets nothing, and the lines are sent all the same.
        self.json = io::stdout().write_all(text.as_bytes()).is_ok();
    }

    fn report(self, ended: Result<(), Error>, in_doubt: usize) -> Result<ExitCode, String> {
        let mut stored = format!("{} were stored", self.counts);
        if let Some((_, line)) = self.under_way.front().filter(|_| in_doubt > 0) {
            stored += &format!("; of line {line} and those behind it nobody knows");
        }
        match (ended, self.failed) {
            (Err(error), _) => Err(format!("{}; {stored}", person::said(error))),
            (Ok(()), Some((line, why))) => Err(format!("line {line}: {why}; {stored}")),
            (Ok(()), None) => Ok(ExitCode::SUCCESS),
        }
    }
}

/// Reads lines on a thread of its own, a bounded piece ahead; the client is woken for each.
fn read_pieces(
    input: impl Read + Send + 'static,
    waker: Waker,
) -> Result<Receiver<io::Result<Vec<Vec<u8>>>>, String> {
    let (sender, pieces) = sync_channel(PIECES_MAX);
    let read = move || {
        if let Err(error) = read_lines(input, &sender, &waker) {
            let _ = sender.send(Err(error));
        }
        drop(sender);
        waker.wake();
    };
    let thread = thread::Builder::new().name("input".to_owned()).spawn(read);
    thread.map_err(|error| format!("no thread: {error}"))?;
    Ok(pieces)
}

fn read_lines(
    mut input: impl Read,
    sender: &SyncSender<io::Result<Vec<Vec<u8>>>>,
    waker: &Waker,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut rest = Vec::new();
    loop {
        let count = match input.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        let lines = cut(&mut rest, &buffer[..count]);
        let ended = count == 0 || rest.len() > LINE_BYTES_MAX;
        // The last line may have no end; one that is too long is refused, and the last one.
        let last = (ended && !rest.is_empty()).then(|| {
            rest.pop_if(|byte| *byte == b'\r');
            std::mem::take(&mut rest)
        });
        let lines: Vec<Vec<u8>> = lines.into_iter().chain(last).collect();
        if !lines.is_empty() && sender.send(Ok(lines)).is_err() {
            return Ok(());
        }
        waker.wake();
        if ended {
            return Ok(());
        }
    }
}

/// Takes the complete lines from what was left and what came, without their ends.
fn cut(rest: &mut Vec<u8>, came: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut pieces = came.split(|byte| *byte == b'\n');
    let last = pieces.next_back().unwrap_or(&[]);
    for piece in pieces {
        let mut line = std::mem::take(rest);
        line.extend_from_slice(piece);
        line.pop_if(|byte| *byte == b'\r');
        lines.push(line);
    }
    rest.extend_from_slice(last);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_input_is() {
        let text = b"one\r\n\ntwo\nlast";
        for size in 1..=text.len() {
            let mut rest = Vec::new();
            let lines: Vec<Vec<u8>> =
                text.chunks(size).flat_map(|came| cut(&mut rest, came)).collect();
            let lines: Vec<&[u8]> = lines.iter().map(|line| &line[..]).collect();
            assert_eq!(lines, [&b"one"[..], b"", b"two"], "{size}");
            assert_eq!(rest, b"last");
        }
    }
}
