//! `postern tail`: prints the messages of a mailbox, one per line.

use super::{Named, person};
use crate::client::{After, Event, Message, Waker};
use crate::options;
use crate::protocol;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Prints messages, up to the end of the mailbox or forever.
///
/// # Errors
/// Returns a one-line message that states why the command cannot continue.
#[cold]
pub fn run(options: &options::Tail) -> Result<ExitCode, String> {
    let patience = Duration::from_secs(options.wait);
    let after = options.last.map_or(options.after, After::Last);
    let mut client = person::client(&options.login, after, false, patience)?;
    let left = watch_reader(client.waker())?;
    let mut out = BufWriter::new(io::stdout().lock());
    loop {
        if left.load(Ordering::Relaxed) {
            return Ok(ExitCode::SUCCESS);
        }
        // Available messages are buffered together, and flushed before it waits.
        let event = match client.next(Some(Duration::ZERO)).map_err(|error| person::said(&error))? {
            Some(event) => Some(event),
            None => match out.flush() {
                Ok(()) => client.next(None).map_err(|error| person::said(&error))?,
                Err(error) => return ended(&error),
            },
        };
        let printed = match event {
            Some(Event::Message(message)) => print(&mut out, &message, options.json),
            Some(Event::Connected { .. }) if !options.follow => {
                return out.flush().map_or_else(|error| ended(&error), |()| Ok(ExitCode::SUCCESS));
            }
            Some(Event::Connected { server, .. }) => {
                log::debug!("reads from {server}");
                // After the first login, the client waits for servers without a time limit.
                client.set_patience(None);
                Ok(())
            }
            Some(Event::KeptFrom { first }) => {
                log::info!("messages before {first} are no longer kept");
                Ok(())
            }
            Some(Event::Lost { server, why }) => {
                log::info!("lost {server}: {why}");
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = printed {
            return ended(&error);
        }
    }
}

/// Wakes the client when nobody can read stdout any more, as after `| head -2`: without a message
/// to print, no write would fail. The returned flag is then set.
fn watch_reader(waker: Waker) -> Result<Arc<AtomicBool>, String> {
    let left = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&left);
    let watch = move || {
        let stdout = io::stdout();
        // Without requested events, `poll` reports only errors and hang-ups.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        while poll(&mut watched, None) == Err(Errno::INTR) {}
        noted.store(true, Ordering::Relaxed);
        waker.wake();
    };
    let thread = thread::Builder::new().name("stdout".to_owned()).spawn(watch);
    thread.named("cannot start a thread").map(|_| left)
}

fn print(out: &mut impl Write, message: &Message, json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, message)?;
        return writeln!(out);
    }
    let Message { number, time, from, text, attributes } = message;
    let text = person::with_title(text, attributes);
    writeln!(out, "{number} {time} {from} {}", protocol::as_line(&text))
}

/// Returns success if the reader has closed stdout: it has read enough.
fn ended(error: &io::Error) -> Result<ExitCode, String> {
    match error.kind() {
        ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        _ => Err(format!("stdout: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Attributes;

    #[test]
    fn a_message_is_a_line() {
        let (time, from) = ("2026-11-23T11:58:03.120Z".to_owned(), "bob".to_owned());
        let (text, attributes) = ("a \"b\"\t\\ ä".to_owned(), Attributes::default());
        let mut message = Message { number: 7, time, from, text, attributes };
        let line = |message: &Message, json| {
            let mut out = Vec::new();
            print(&mut out, message, json).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(line(&message, false), "7 2026-11-23T11:58:03.120Z bob a \"b\"\t\\ ä\n");
        let json = "{\"n\":7,\"time\":\"2026-11-23T11:58:03.120Z\",\"from\":\"bob\",\
                    \"text\":\"a \\\"b\\\"\\t\\\\ ä\"}\n";
        assert_eq!(line(&message, true), json);
        message.text = "one\ntwo".to_owned();
        message.attributes.title = Some("hi".to_owned());
        message.attributes.priority = Some(5);
        assert_eq!(line(&message, false), "7 2026-11-23T11:58:03.120Z bob hi: one␤two\n");
        let json = "{\"n\":7,\"time\":\"2026-11-23T11:58:03.120Z\",\"from\":\"bob\",\
                    \"text\":\"one\\ntwo\",\"title\":\"hi\",\"priority\":5}\n";
        assert_eq!(line(&message, true), json);
    }
}
