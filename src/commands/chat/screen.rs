//! The output of the chat: messages with local time, notes, and the connection status.

use crate::client::{Message, SentMessage};
use crate::commands::person;
use rustyline::ExternalPrinter;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tz::{DateTime, TimeZone};

/// The default port, which server names omit if all servers use it.
const PORT: &str = ":5001";
/// Maximum number of names that are remembered for completion.
const NAMES_MAX: usize = 1000;
/// Number of lines waiting for the next prompt at which the client stops receiving from servers.
const LINES_MAX: usize = 256;
/// Number of characters by which the author of a message recognizes its text.
const BRIEF_CHARS: usize = 60;
/// Maximum number of messages under way that are listed when they are given up.
const GIVEN_UP_MAX: usize = 10;

/// The state shared by the thread that edits, the one that talks, and the one that shows lines.
pub(super) struct Screen {
    zone: TimeZone,
    shown: Mutex<Shown>,
    with_port: bool,
    /// Notified of the first login, and of changes of the prompt and the waiting lines.
    changed: Condvar,
}

#[derive(Default)]
struct Shown {
    /// A prompt was shown and another one will follow: lines are shown above it. Before the first
    /// prompt and after the last one, lines are printed directly.
    above: bool,
    /// The prompt is shown now.
    prompted: bool,
    /// No further prompt will be shown.
    ended: bool,
    /// Lines to show above the prompt, oldest first.
    lines: VecDeque<String>,
    /// The current receiver of messages.
    peer: Option<String>,
    /// The connected server, and its number of copies. `None` while the connection is lost.
    server: Option<(String, usize)>,
    /// Messages whose outcome is not known yet, oldest first.
    under_way: VecDeque<String>,
    /// The oldest of them has waited too long for its outcome.
    waits: bool,
    began: bool,
    names: BTreeSet<String>,
    /// The day of the last message shown.
    day: Option<String>,
}

impl Screen {
    /// Creates the screen of `user` in a group of these servers. Completion knows the own name,
    /// since users may write to themselves.
    pub(super) fn new(user: &str, servers: &[String]) -> Screen {
        let names = BTreeSet::from([user.to_ascii_lowercase()]);
        Screen {
            // Without a local time zone, times are in UTC, as servers send them.
            zone: TimeZone::local().unwrap_or_else(|_| TimeZone::utc()),
            shown: Mutex::new(Shown { names, ..Shown::default() }),
            changed: Condvar::new(),
            with_port: !servers.iter().all(|server| server.ends_with(PORT)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread that shows the lines of the servers above the edited line, from the
    /// first prompt on. Only this thread writes while a prompt is shown, so that lines keep their
    /// order.
    pub(super) fn show_above(
        self: &Arc<Screen>,
        mut printer: impl ExternalPrinter + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let screen = Arc::clone(self);
        thread::Builder::new().name("screen".to_owned()).spawn(move || {
            while let Some(line) = screen.next_line() {
                // If the terminal is gone, the thread that edits ends, too.
                let _ = printer.print(line);
            }
        })
    }

    /// Waits until a line can be shown above the prompt. Returns `None` at the end.
    fn next_line(&self) -> Option<String> {
        let waits = |shown: &mut Shown| !shown.ended && (!shown.prompted || shown.lines.is_empty());
        let shown = self.changed.wait_while(self.lock(), waits);
        let mut shown = shown.unwrap_or_else(PoisonError::into_inner);
        let line = if shown.ended { None } else { shown.lines.pop_front() };
        self.changed.notify_all();
        line
    }

    /// Records whether the prompt is shown.
    pub(super) fn set_prompted(&self, prompted: bool) {
        let mut shown = self.lock();
        (shown.prompted, shown.above) = (prompted, !shown.ended);
        self.changed.notify_all();
    }

    /// Records that no further prompt will be shown. Prints the waiting lines; later ones are
    /// printed directly.
    pub(super) fn end(&self) {
        let mut shown = self.lock();
        (shown.ended, shown.above) = (true, false);
        self.print_waiting(&mut shown);
    }

    /// Prints the lines that wait for a prompt, while none is shown.
    pub(super) fn flush(&self) {
        self.print_waiting(&mut self.lock());
    }

    fn print_waiting(&self, shown: &mut Shown) {
        shown.lines.drain(..).for_each(|line| write(&line));
        self.changed.notify_all();
    }

    /// Waits at most `patience` for room for more lines. Returns whether there is room.
    pub(super) fn has_room(&self, patience: Duration) -> bool {
        let full = |shown: &mut Shown| shown.lines.len() >= LINES_MAX;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, full);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Sets the receiver of messages.
    pub(super) fn set_peer(&self, name: &str) {
        self.lock().peer = Some(name.to_owned());
        self.learn(name);
    }

    /// Restores the previous receiver after a message to `name` was refused, unless the user has
    /// chosen another one since.
    pub(super) fn take_peer_back(&self, name: &str, before: Option<String>) {
        let mut shown = self.lock();
        if shown.peer.as_deref() == Some(name) {
            shown.peer = before;
        }
    }

    /// Returns the current receiver of messages.
    pub(super) fn peer(&self) -> Option<String> {
        self.lock().peer.clone()
    }

    /// Remembers a name for completion, up to `NAMES_MAX` names.
    pub(super) fn learn(&self, name: &str) {
        let names = &mut self.lock().names;
        if names.len() < NAMES_MAX {
            names.insert(name.to_owned());
        }
    }

    /// Returns the remembered names that begin with `prefix`.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        let names = &self.lock().names;
        names.iter().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// Records the connected server and its number of copies; `None` if the connection is lost.
    pub(super) fn set_server(&self, server: Option<(&str, usize)>) {
        let mut shown = self.lock();
        shown.server = server.map(|(server, copies)| (self.name(server), copies));
        shown.began |= server.is_some();
        self.changed.notify_all();
    }

    /// Returns the name of a server, without its port if all servers use the default one.
    pub(super) fn name(&self, server: &str) -> String {
        let host = server.strip_suffix(PORT).filter(|_| !self.with_port);
        host.unwrap_or(server).to_owned()
    }

    /// Records that a message is under way.
    pub(super) fn begin_message(&self, to: &str, text: &str) {
        self.lock().under_way.push_back(format!("{to}: {text}"));
    }

    /// Removes the oldest message under way, whose outcome is known.
    pub(super) fn end_message(&self) {
        let mut shown = self.lock();
        shown.under_way.pop_front();
        shown.waits = false;
    }

    /// Records that the server does not answer. The prompt then says so instead of the number of
    /// copies.
    pub(super) fn set_waiting(&self) {
        self.lock().waits = true;
    }

    /// Removes the newest message under way, which was never submitted.
    pub(super) fn take_message_back(&self) {
        self.lock().under_way.pop_back();
    }

    /// Returns the number of messages under way.
    pub(super) fn under_way(&self) -> usize {
        self.lock().under_way.len()
    }

    /// Returns a list of the messages given up, if any. Never waits for the lock, since the
    /// process ends, whatever another thread is doing.
    pub(super) fn given_up(&self) -> Option<String> {
        let shown = self.shown.try_lock().ok()?;
        let texts = shown.under_way.iter().take(GIVEN_UP_MAX).map(|text| brief(text));
        let mut texts: Vec<String> = texts.collect();
        let more = shown.under_way.len() - texts.len();
        if more > 0 {
            texts.push(format!("and {more} more"));
        }
        let texts = texts.join("\n  ");
        (!texts.is_empty()).then(|| format!("not known to be stored:\n  {texts}"))
    }

    /// Waits for the first login, so that earlier messages are shown before the user types.
    pub(super) fn await_login(&self) {
        let shown = self.lock();
        drop(self.changed.wait_while(shown, |shown| !shown.began));
    }

    /// Returns the connection status in a few words.
    pub(super) fn status(&self) -> String {
        let shown = self.lock();
        let text = match &shown.server {
            Some((host, _)) if shown.waits => format!("{host}, waiting"),
            Some((host, 1)) => format!("{host}, 1 copy"),
            Some((host, copies)) => format!("{host}, {copies} copies"),
            None => "no server".to_owned(),
        };
        match shown.under_way.len() {
            0 => text,
            count => format!("{text}, {count} under way"),
        }
    }

    /// Shows a message, after its day if that has changed.
    pub(super) fn message(&self, message: &Message) {
        let Message { number, time, from, text, attributes } = message;
        self.learn(from);
        let text = indented(&person::with_title(text, attributes));
        self.print_at(time, *number == 1, &format!("{from}: {text}"));
    }

    /// Shows a message that the user has sent before.
    pub(super) fn sent(&self, sent: &SentMessage) {
        let SentMessage { place, time, to, text, attributes, .. } = sent;
        self.learn(to);
        let text = indented(&person::with_title(text, attributes));
        // No name of a sender holds a space.
        self.print_at(time, *place == 1, &format!("to {to}: {text}"));
    }

    /// Prints a message with its time. `is_first`: nothing was said before it.
    fn print_at(&self, time: &str, is_first: bool, text: &str) {
        let at = humantime::parse_rfc3339(time).unwrap_or(UNIX_EPOCH);
        let (day, time) = self.local(at);
        let is_new = self.lock().day.replace(day.clone()).is_none_or(|before| before != day);
        let today = self.local(SystemTime::now()).0 == day;
        let has_day = is_new && !(today && is_first);
        let day = if has_day { format!("-- {day}\n") } else { String::new() };
        self.print(&format!("{day}{time} {text}"));
    }

    /// Shows a note about the chat itself.
    pub(super) fn note(&self, text: &str) {
        self.print(&format!("-- {text}"));
    }

    /// Returns the day and the time of `at` in the local time zone.
    fn local(&self, at: SystemTime) -> (String, String) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        match DateTime::from_timespec(seconds, 0, self.zone.as_ref()) {
            Ok(at) => (
                format!("{:04}-{:02}-{:02}", at.year(), at.month(), at.month_day()),
                format!("{:02}:{:02}", at.hour(), at.minute()),
            ),
            Err(_) => ("-".to_owned(), "--:--".to_owned()),
        }
    }

    /// Answers the user, while no line is edited.
    pub(super) fn reply(&self, text: &str) {
        write(&format!("-- {text}\n"));
    }

    fn print(&self, text: &str) {
        let line = format!("{text}\n");
        let mut shown = self.lock();
        if shown.above {
            shown.lines.push_back(line);
            self.changed.notify_all();
        } else {
            write(&line);
        }
    }
}

/// Returns the beginning of a text, by which its author recognizes it.
pub(super) fn brief(text: &str) -> String {
    let mut begin: String = text.chars().take(BRIEF_CHARS).collect();
    if begin.len() < text.len() {
        begin.push('…');
    }
    begin
}

/// Returns a text whose further lines begin with spaces, so that none of them looks like a message
/// of its own.
fn indented(text: &str) -> String {
    text.replace('\n', "\n      ")
}

fn write(text: &str) {
    // A reader that has closed stdout needs no output.
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(servers: &[&str]) -> Screen {
        let servers: Vec<String> = servers.iter().map(|server| (*server).to_owned()).collect();
        Screen::new("Ann", &servers)
    }

    #[test]
    fn the_status_is_short() {
        let lab = screen(&["lab1:5001", "lab2:5001"]);
        assert_eq!(lab.status(), "no server");
        lab.set_server(Some(("lab2:5001", 3)));
        assert_eq!(lab.status(), "lab2, 3 copies");
        let here = screen(&["[::1]:5001", "[::1]:5002"]);
        here.set_server(Some(("[::1]:5001", 1)));
        here.begin_message("bob", "one");
        here.begin_message("bob", "two");
        assert_eq!(here.status(), "[::1]:5001, 1 copy, 2 under way");
    }

    #[test]
    fn lines_wait_for_the_prompt_and_nobody_waits_for_ever() {
        let lab = screen(&[]);
        lab.set_prompted(true);
        lab.set_prompted(false);
        (0..LINES_MAX).for_each(|_| lab.note("x"));
        assert!(!lab.has_room(Duration::from_millis(1)));
        lab.set_prompted(true);
        assert_eq!(lab.next_line().as_deref(), Some("-- x\n"));
        assert!(lab.has_room(Duration::from_millis(1)));
        lab.end();
        assert_eq!(lab.next_line(), None);
        lab.note("printed at once");
        assert!(lab.lock().lines.is_empty());
    }

    #[test]
    fn times_are_local() {
        let mut screen = screen(&[]);
        let at = humantime::parse_rfc3339("2026-11-23T23:58:03.120Z").unwrap();
        for (zone, day, time) in
            [("UTC0", "2026-11-23", "23:58"), ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-11-24", "00:58")]
        {
            screen.zone = TimeZone::from_posix_tz(zone).unwrap();
            assert_eq!(screen.local(at), (day.to_owned(), time.to_owned()));
        }
    }

    #[test]
    fn no_line_of_a_message_looks_like_another_message() {
        assert_eq!(indented("one\n12:00 ann: two"), "one\n      12:00 ann: two");
        assert_eq!(indented("\n\n"), "\n      \n      ");
    }

    #[test]
    fn names_are_remembered_within_a_bound() {
        let screen = screen(&[]);
        (0..2 * NAMES_MAX).for_each(|n| screen.learn(&format!("bob{n}")));
        assert_eq!(screen.names("ann"), ["ann"]);
        assert_eq!(screen.names("bob").len(), NAMES_MAX - 1);
    }
}
