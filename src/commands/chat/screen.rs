//! What a person sees: messages with local time, notes, and how things are.

use crate::client::Message;
use rustyline::ExternalPrinter;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tz::{DateTime, TimeZone};

/// The port that goes without saying where all servers have it.
const PORT: &str = ":5001";
/// Names that are remembered for completion.
const NAMES_MAX: usize = 1000;
/// Lines that wait until the prompt is there again, after which no more are taken from servers.
const LINES_MAX: usize = 256;
/// Characters of a text by which its writer knows it.
const BRIEF_CHARS: usize = 60;
/// Messages under way that are shown when they are given up.
const GIVEN_UP_MAX: usize = 10;

/// Shared by the thread that edits, the one that talks, and the one that shows lines.
pub(super) struct Screen {
    zone: TimeZone,
    shown: Mutex<Shown>,
    with_port: bool,
    /// Told of the first login, and of the prompt.
    changed: Condvar,
}

#[derive(Default)]
struct Shown {
    /// A prompt was there, and another one will be: lines are shown above it. Before and after
    /// that they are just printed.
    above: bool,
    /// It is there now.
    prompted: bool,
    /// No prompt will come any more.
    ended: bool,
    /// What is to be shown above the prompt.
    lines: VecDeque<String>,
    /// To whom messages go.
    peer: Option<String>,
    /// The server, and how many copies there are; none while it is lost.
    server: Option<(String, usize)>,
    /// Messages of which nothing is known yet.
    under_way: VecDeque<String>,
    /// The oldest of them has not been answered for long.
    waits: bool,
    began: bool,
    names: BTreeSet<String>,
    /// The day of the last message, once one was shown.
    day: Option<String>,
}

impl Screen {
    /// Of a person who may write to himself, in a group of these servers.
    pub(super) fn new(user: &str, servers: &[String]) -> Screen {
        let names = BTreeSet::from([user.to_ascii_lowercase()]);
        Screen {
            // Without one, the time is that of the servers, and says so by its date.
            zone: TimeZone::local().unwrap_or_else(|_| TimeZone::utc()),
            shown: Mutex::new(Shown { names, ..Shown::default() }),
            changed: Condvar::new(),
            with_port: !servers.iter().all(|server| server.ends_with(PORT)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the first prompt on, the lines of the servers are shown above the one that is edited:
    /// by a thread of its own, which waits for the prompt, so that no two ways to the terminal mix
    /// their order.
    pub(super) fn show_above(
        self: &Arc<Screen>,
        mut printer: impl ExternalPrinter + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let screen = Arc::clone(self);
        thread::Builder::new().name("screen".to_owned()).spawn(move || {
            while let Some(line) = screen.next_line() {
                // A terminal that is gone ends the thread that edits.
                let _ = printer.print(line);
            }
        })
    }

    /// Waits for a line that is to be shown above a prompt that is there; `None` at the end.
    fn next_line(&self) -> Option<String> {
        let waits = |shown: &mut Shown| !shown.ended && (!shown.prompted || shown.lines.is_empty());
        let shown = self.changed.wait_while(self.lock(), waits);
        let mut shown = shown.unwrap_or_else(PoisonError::into_inner);
        let line = if shown.ended { None } else { shown.lines.pop_front() };
        self.changed.notify_all();
        line
    }

    /// The prompt is there, or is not.
    pub(super) fn set_prompted(&self, prompted: bool) {
        let mut shown = self.lock();
        (shown.prompted, shown.above) = (prompted, !shown.ended);
        self.changed.notify_all();
    }

    /// No prompt will come any more: what is left is printed, and what comes.
    pub(super) fn end(&self) {
        let mut shown = self.lock();
        (shown.ended, shown.above) = (true, false);
        self.print_waiting(&mut shown);
    }

    /// Prints what waits for a prompt, while none is there.
    pub(super) fn flush(&self) {
        self.print_waiting(&mut self.lock());
    }

    fn print_waiting(&self, shown: &mut Shown) {
        shown.lines.drain(..).for_each(|line| write(&line));
        self.changed.notify_all();
    }

    /// Waits a moment for room, if there is none for more lines; whether there is.
    pub(super) fn has_room(&self, patience: Duration) -> bool {
        let full = |shown: &mut Shown| shown.lines.len() >= LINES_MAX;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, full);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// To whom messages go from now on.
    pub(super) fn set_peer(&self, name: &str) {
        self.lock().peer = Some(name.to_owned());
        self.learn(name);
    }

    /// A message to this receiver was refused: unless somebody else was chosen since, messages go
    /// to the one before again.
    pub(super) fn take_peer_back(&self, name: &str, before: Option<String>) {
        let mut shown = self.lock();
        if shown.peer.as_deref() == Some(name) {
            shown.peer = before;
        }
    }

    /// To whom messages go.
    pub(super) fn peer(&self) -> Option<String> {
        self.lock().peer.clone()
    }

    /// There is somebody of this name.
    pub(super) fn learn(&self, name: &str) {
        let names = &mut self.lock().names;
        if names.len() < NAMES_MAX {
            names.insert(name.to_owned());
        }
    }

    /// The names that begin so.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        let names = &self.lock().names;
        names.iter().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// The connection there is, and how many copies are made.
    pub(super) fn set_server(&self, server: Option<(&str, usize)>) {
        let mut shown = self.lock();
        shown.server = server.map(|(server, copies)| (self.name(server), copies));
        if server.is_some() {
            shown.began = true;
            self.changed.notify_all();
        }
    }

    /// A server, as briefly as it can be said.
    pub(super) fn name(&self, server: &str) -> String {
        let host = server.strip_suffix(PORT).filter(|_| !self.with_port);
        host.unwrap_or(server).to_owned()
    }

    /// A message is under way.
    pub(super) fn begin_message(&self, to: &str, text: &str) {
        self.lock().under_way.push_back(format!("{to}: {text}"));
    }

    /// The oldest one is so no more.
    pub(super) fn end_message(&self) {
        let mut shown = self.lock();
        shown.under_way.pop_front();
        shown.waits = false;
    }

    /// The server does not answer: the prompt says so, and no number of copies.
    pub(super) fn set_waiting(&self) {
        self.lock().waits = true;
    }

    /// The newest one was never taken.
    pub(super) fn take_message_back(&self) {
        self.lock().under_way.pop_back();
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.lock().under_way.len()
    }

    /// Which messages are given up, if any. Asked when the process ends, whatever another thread is
    /// doing.
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

    /// Waits for the first login: what was there is shown before the person types.
    pub(super) fn await_login(&self) {
        let shown = self.lock();
        drop(self.changed.wait_while(shown, |shown| !shown.began));
    }

    /// How things are, in a few words.
    pub(super) fn status(&self) -> String {
        let shown = self.lock();
        let mut text = match &shown.server {
            Some((host, _)) if shown.waits => format!("{host}, waiting"),
            Some((host, 1)) => format!("{host}, 1 copy"),
            Some((host, copies)) => format!("{host}, {copies} copies"),
            None => "no server".to_owned(),
        };
        if !shown.under_way.is_empty() {
            text += &format!(", {} under way", shown.under_way.len());
        }
        text
    }

    /// Shows a message, and its day when that is another one.
    pub(super) fn message(&self, message: &Message) {
        self.learn(&message.from);
        let at = humantime::parse_rfc3339(&message.time).unwrap_or(UNIX_EPOCH);
        let (day, time) = self.local(at);
        let is_new = self.lock().day.replace(day.clone()).is_none_or(|before| before != day);
        let today = self.local(SystemTime::now()).0 == day;
        let mut text = String::new();
        if is_new && !(today && message.number == 1) {
            text += &format!("-- {day}\n");
        }
        text += &format!("{time} {}: {}", message.from, message.text);
        self.print(&text);
    }

    /// Says something about the chat itself.
    pub(super) fn note(&self, text: &str) {
        self.print(&format!("-- {text}"));
    }

    /// Day and time of this place.
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

    /// Answers the person, while no line is edited.
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

/// The begin of a text that need not be shown again.
pub(super) fn brief(text: &str) -> String {
    let mut begin: String = text.chars().take(BRIEF_CHARS).collect();
    if begin.len() < text.len() {
        begin.push('…');
    }
    begin
}

fn write(text: &str) {
    // Who does not listen any more gets nothing.
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
    fn names_are_remembered_within_a_bound() {
        let screen = screen(&[]);
        (0..2 * NAMES_MAX).for_each(|n| screen.learn(&format!("bob{n}")));
        assert_eq!(screen.names("ann"), ["ann"]);
        assert_eq!(screen.names("bob").len(), NAMES_MAX - 1);
    }
}
