//! A client for programs: it finds the primary, follows it through failovers, sends each message
//! once, and hands over each message of the own mailbox once and in order.
//!
//! Blocking, in the caller's thread. One that sends needs no more than this:
//!
//! ```
//! use postern::client::{Account, Client};
//!
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/example.rs"));
//! # fn main() -> Result<(), postern::client::Error> {
//! # let servers = vec![example_server()];
//! // let servers = ["lab1:5001", "lab2:5001", "lab3:5001"].map(str::to_owned).to_vec();
//! let mut ann = Client::new(servers, Account::new("ann", "correct-horse").created())?;
//! let number = ann.send("ann", "a note to myself")?;
//! assert_eq!(number, 1); // on the disks of all attached servers
//! # Ok(())
//! # }
//! ```
//!
//! One that reads asks for the next event, again and again, and remembers the number of the last
//! message: with [`Account::after`] it goes on behind it another day.
//!
//! ```
//! use postern::client::{Account, Client, Event};
//! use std::time::Duration;
//!
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/example.rs"));
//! # fn main() -> Result<(), postern::client::Error> {
//! # let servers = vec![example_server()];
//! let mut ann = Client::new(servers, Account::new("ann", "correct-horse").created())?;
//! // Two messages at a time: neither waits for the other's answer.
//! ann.submit("ann", "one")?;
//! ann.submit("ann", "two")?;
//! let mut texts = Vec::new();
//! while texts.len() < 2 {
//!     match ann.next(Some(Duration::from_secs(10)))? {
//!         Some(Event::Message(message)) => texts.push(message.text),
//!         Some(Event::Refused { why, .. }) => panic!("not stored: {}", why.words),
//!         Some(_) => {} // connected, lost, stored
//!         None => panic!("nothing came in ten seconds"),
//!     }
//! }
//! assert_eq!(texts, ["one", "two"]);
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! A message for which [`Client::send`] gives a number, or [`Event::Stored`] comes, is stored
//! exactly once, and messages to one receiver in the order in which they were taken, as long as no
//! server refuses one of them. After a lost connection what was not answered is sent again, with
//! the key that it had, so that servers know it. They forget keys after a while
//! ([`limits::KEYS_KEPT`](crate::limits::KEYS_KEPT)): who was cut off longer learns
//! [`Event::Unknown`]. Messages of the own mailbox come without a gap and without repetition, also
//! when connections break in the middle of one.
//!
//! `state` says what is said, without sockets; `servers` whose turn it is to be asked,
//! `dial` makes a connection, `wire` is one, `answer` reads lines, `event` is what a caller learns.

mod answer;
mod client_state;
mod dial;
mod event;
mod keepalive;
#[cfg(feature = "simulate")]
pub mod probe;
mod servers;
#[cfg(test)]
mod tests;
mod wire;

pub use crate::protocol::After;
pub use answer::Refusal;
pub use dial::{Unreached, dial};
pub use event::{Error, Event, Message, Ticket};

use crate::time::Moment;
use client_state::{Answer, ClientState, Stop, UNANSWERED_MAX};
use dial::Lookups;
use keepalive::Keepalive;
use mio::{Events, Poll, Token};
use servers::Servers;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};
use wire::Wire;

/// How long a server may take to be reached.
const DIAL_TIME: Duration = Duration::from_secs(1);
/// How long a name may take to be looked up before the next server has its turn. The resolver goes
/// on meanwhile.
const LOOKUP_TIME: Duration = Duration::from_millis(50);
/// Servers whose last words are remembered while there is no connection.
const EXCUSES_MAX: usize = 16;
const WAKER: Token = Token(0);
/// Tokens of connections begin here: each has its own, so that an old one's events harm nobody.
const WIRES: usize = 1;

/// Who logs in, and from where on it reads.
#[derive(Clone)]
pub struct Account {
    user: String,
    password: String,
    after: After,
    create: bool,
}

impl Account {
    /// An account whose messages are read from now on.
    pub fn new(user: &str, password: &str) -> Account {
        let (user, password) = (user.to_owned(), password.to_owned());
        Account { user, password, after: After::End, create: false }
    }

    /// Reads from elsewhere.
    pub fn after(mut self, after: After) -> Account {
        self.after = after;
        self
    }

    /// Makes the account if it is not there.
    pub fn created(mut self) -> Account {
        self.create = true;
        self
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account of {}", self.user)
    }
}

/// Whether any server would take this message.
///
/// # Errors
/// Why none would.
pub fn check_message(to: &str, text: &str) -> Result<(), Refusal> {
    client_state::check(&[to], &format!("SEND {to} {text}"))
}

/// Wakes a client out of [`Client::next`], from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<mio::Waker>);

impl Waker {
    /// Lets the call that waits, or else the next one, return without an event.
    pub fn wake(&self) {
        // It fails when the client is gone, which then needs no waking.
        let _ = self.0.wake();
    }
}

/// A client of a group. It connects when something is asked of it.
#[derive(Debug)]
pub struct Client {
    state: ClientState,
    servers: Servers,
    lookups: Lookups,
    /// The connection, and to whom.
    wire: Option<(Wire, String)>,
    wires: usize,
    poll: Poll,
    events: Events,
    waker: Arc<mio::Waker>,
    began: Instant,
    keepalive: Keepalive,
    /// Who is dialled next, and when.
    dial: Option<(Moment, String)>,
    /// A [`Waker`] was used since the last call of [`Client::next`] that told so.
    woken: bool,
    patience: Option<Duration>,
    answer_patience: Option<Duration>,
    /// Since when a primary is looked for.
    searching: Option<Moment>,
    /// What servers said since the last login, the newest of each.
    excuses: Vec<(String, String)>,
}

impl Client {
    /// A client that asks these servers, `host:port` each; one is enough to find the others.
    ///
    /// # Errors
    /// A name or a password that no server would take, no server, or no resources.
    pub fn new(servers: Vec<String>, account: Account) -> Result<Client, Error> {
        let Account { user, password, .. } = &account;
        let command = if account.create { "CREATE" } else { "LOGIN" };
        let request = format!("{command} {user} {password}");
        client_state::check(&[user, password], &request).map_err(Error::Refused)?;
        if servers.is_empty() {
            return Err(Error::NoPrimary("there is no server to ask".to_owned()));
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Error::Io(io::Error::other(error)))?;
        let prefix = format!("{:016x}", u64::from_le_bytes(random));
        let poll = Poll::new().map_err(Error::Io)?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(Error::Io)?;
        Ok(Client {
            state: ClientState::new(account, prefix),
            servers: Servers::new(servers),
            lookups: Lookups::default(),
            wire: None,
            wires: WIRES,
            poll,
            events: Events::with_capacity(4),
            waker: Arc::new(waker),
            began: Instant::now(),
            keepalive: Keepalive::new(),
            dial: None,
            woken: false,
            patience: Some(Duration::from_secs(30)),
            answer_patience: None,
            searching: None,
            excuses: Vec::new(),
        })
    }

    /// How long it may take to find a primary; `None`: as long as it takes. Otherwise 30 s.
    pub fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// Sends a message, and waits until it is stored; its number in the receiver's mailbox.
    ///
    /// # Errors
    /// [`Error::Refused`]: it was not stored, and never will be. [`Error::Unknown`]: the connection
    /// was lost for too long to know. After another one it is still on its way.
    pub fn send(&mut self, to: &str, text: &str) -> Result<u64, Error> {
        let ticket = self.submit(to, text)?;
        loop {
            match self.state.take_outcome(ticket) {
                None => self.turn(None)?,
                Some(Event::Stored { number, .. }) => return Ok(number),
                Some(Event::Refused { why, .. }) => return Err(Error::Refused(why)),
                Some(_) => return Err(Error::Unknown),
            }
        }
    }

    /// Takes a message to send; what becomes of it is told by [`Client::next`], and kept until that
    /// is called. Waits only when [`Client::has_room`] says no.
    ///
    /// # Errors
    /// [`Error::Refused`]: no server would take this name or text; others as in [`Client::next`].
    pub fn submit(&mut self, to: &str, text: &str) -> Result<Ticket, Error> {
        while !self.has_room() {
            self.turn(None)?;
        }
        let now = self.now();
        self.state.submit(now, to, text).map_err(Error::Refused)
    }

    /// Whether a message is taken at once. 256 may be under way.
    pub fn has_room(&self) -> bool {
        self.state.unanswered() < UNANSWERED_MAX
    }

    /// How long [`Client::list`] and [`Client::change_password`] may take; `None`, as at first: as
    /// long as it takes.
    pub fn set_answer_patience(&mut self, patience: Option<Duration>) {
        self.answer_patience = patience;
    }

    /// How many messages were taken of which nothing is known yet.
    pub fn unanswered(&self) -> usize {
        self.state.unanswered()
    }

    /// How many messages may be stored, or may not: they were sent, and not answered. The others
    /// of [`Client::unanswered`] never left.
    pub fn in_doubt(&self) -> usize {
        self.state.in_doubt()
    }

    /// The next event; `None` when there was none in that time, or a [`Waker`] was used. Without a
    /// time it waits as long as it takes.
    ///
    /// Nothing is read from the server between calls: a caller that takes its time holds up
    /// nobody, and costs no memory.
    ///
    /// # Errors
    /// After any, the client is of no more use but for one after [`Error::NoPrimary`].
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Option<Event>, Error> {
        let until = patience.map(|patience| self.now() + patience);
        loop {
            if let Some(event) = self.state.take_event() {
                return Ok(Some(event));
            }
            self.state.refill();
            self.turn(until)?;
            let woken = std::mem::take(&mut self.woken);
            if woken || until.is_some_and(|until| until <= self.now()) {
                return Ok(self.state.take_event());
            }
        }
    }

    /// The names of the accounts that match a pattern with `*` and `?`, and whether they are
    /// online.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn list(&mut self, pattern: &str) -> Result<Vec<(String, bool)>, Error> {
        let lines = self.ask("LIST", &[pattern], true)?;
        let user = |line: String| {
            let (name, state) = line.split_once(' ')?;
            Some((name.to_owned(), state == "online"))
        };
        Ok(lines.into_iter().filter_map(user).collect())
    }

    /// Changes the password, and logs in with the new one from now on.
    ///
    /// # Errors
    /// As [`Client::send`]; after [`Error::Unknown`] either of them may be the right one.
    pub fn change_password(&mut self, old: &str, new: &str) -> Result<(), Error> {
        self.ask("PASSWD", &[old, new], false)?;
        self.state.on_password_changed(new);
        Ok(())
    }

    fn ask(
        &mut self,
        command: &str,
        words: &[&str],
        repeatable: bool,
    ) -> Result<Vec<String>, Error> {
        self.state.ask(command, words, repeatable).map_err(Error::Refused)?;
        let until = self.answer_patience.map(|patience| self.now() + patience);
        loop {
            match self.state.take_answer() {
                None if until.is_some_and(|until| until <= self.now()) => {
                    let asked = self.state.give_up_question();
                    let why = || Error::NoPrimary(self.excuses());
                    return Err(if asked && !repeatable { Error::Unknown } else { why() });
                }
                None => self.turn(until)?,
                Some(Answer::Ok(lines)) => return Ok(lines),
                Some(Answer::Refused(why)) => return Err(Error::Refused(why)),
                Some(Answer::Unknown) => return Err(Error::Unknown),
            }
        }
    }

    /// How many servers hold what is stored now, as the primary last said.
    pub fn copies(&self) -> usize {
        let members = self.state.said().get("members").map_or("-", String::as_str);
        if members == "-" { 0 } else { members.split(',').count() }
    }

    /// `host:port` of the server to which there is a connection.
    pub fn server(&self) -> Option<&str> {
        self.wire.as_ref().map(|(_, server)| &server[..])
    }

    /// Why there is no connection: what each server last said.
    pub fn excuses(&self) -> String {
        let said = self.excuses.iter().map(|(server, why)| format!("{server}: {why}"));
        said.collect::<Vec<_>>().join("; ")
    }

    /// What wakes it.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.waker))
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Connects, or sends and reads once. Waits at most until then for the occasion.
    fn turn(&mut self, until: Option<Moment>) -> Result<(), Error> {
        let Some((wire, _)) = &mut self.wire else {
            return self.connect(until);
        };
        if let Err(error) = wire.send(&mut self.state.out) {
            // What the server said before it closed may say why.
            while self.read()? {}
            self.lose(&error.to_string(), None);
            return Ok(());
        }
        if !wire.is_readable() {
            let deadline = self.keepalive.deadline(self.now(), self.state.awaited());
            self.wait(until.into_iter().chain([deadline]).chain(self.given_up()).min())?;
        }
        self.read()?;
        if self.given_up().is_some_and(|at| at <= self.now()) {
            self.lose("it takes too long", None);
        }
        Ok(())
    }

    /// When the search for a primary is over.
    fn given_up(&self) -> Option<Moment> {
        Some(self.searching? + self.patience?)
    }

    /// Waits for the connection or the waker.
    fn wait(&mut self, until: Option<Moment>) -> Result<(), Error> {
        let timeout = until.map(|until| until - self.now());
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Error::Io(error));
            }
            _ => {}
        }
        for event in &self.events {
            match (event.token(), &mut self.wire) {
                (WAKER, _) => self.woken = true,
                (Token(at), Some((wire, _))) if at == self.wires => wire.on_readable(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads once, and takes in the lines that came, if any did.
    fn read(&mut self) -> Result<bool, Error> {
        let now = self.now();
        let Some((wire, _)) = &mut self.wire else { return Ok(false) };
        let came = match wire.read() {
            Ok(came) => came,
            Err(error) => {
                self.lose(&error.to_string(), None);
                return Ok(false);
            }
        };
        if came {
            self.keepalive.on_heard();
        } else if self.keepalive.is_late(now, self.state.awaited()) {
            self.lose("it does not answer", None);
            return Ok(false);
        }
        let seen = self.state.seen();
        while let Some((wire, _)) = &mut self.wire {
            let said = match wire.line() {
                Ok(None) => break,
                Ok(Some(line)) => self.state.on_line(now, line),
                Err(error) => Err(Stop::Here { why: error.to_string(), named: None }),
            };
            match said {
                Ok(()) => {}
                Err(Stop::Ever(error)) => {
                    self.lose(&error.to_string(), None);
                    return Err(error);
                }
                Err(Stop::Here { why, named }) => self.lose(&why, named.as_deref()),
            }
        }
        if self.state.seen() > seen && self.searching.is_some() {
            // A long mailbox comes before the login is answered.
            self.searching = Some(now);
        }
        if self.state.is_logged_in() {
            self.look(now);
        }
        Ok(came)
    }

    /// Looks after the server where it is logged in.
    fn look(&mut self, now: Moment) {
        if self.searching.take().is_some() {
            self.excuses.clear();
            self.keepalive.on_login(now);
            self.learn();
        } else if self.keepalive.looks(now) {
            self.servers.on_found();
            self.learn();
            self.state.ask_status(now);
        }
        // Another connection that ends at once, and did nothing, is not begun without a pause.
        if self.state.has_answered() {
            self.servers.on_found();
        }
    }

    /// Takes in the servers that the primary last named.
    fn learn(&mut self) {
        if let Some(servers) = self.state.said().get("servers") {
            self.servers.learn(servers.split(','));
        }
    }

    /// Connects to the server whose turn it is, when it is time.
    fn connect(&mut self, until: Option<Moment>) -> Result<(), Error> {
        let now = self.now();
        self.searching.get_or_insert(now);
        if self.given_up().is_some_and(|at| at <= now) {
            self.searching = None;
            return Err(Error::NoPrimary(self.excuses()));
        }
        let (at, server) = self.dial.take().unwrap_or_else(|| {
            let (server, pause) = self.servers.next();
            (now + pause, server)
        });
        if now < at {
            self.dial = Some((at, server));
            return self.wait(until.into_iter().chain([at]).chain(self.given_up()).min());
        }
        self.wires += 1;
        match self.open(&server) {
            Ok(wire) => {
                self.keepalive.on_heard();
                let now = self.now();
                self.state.begin(now, &server);
                self.wire = Some((wire, server));
            }
            Err(why) => self.excuse(server, why.to_string()),
        }
        Ok(())
    }

    /// Connects to a server, or says why that can't be done now.
    fn open(&mut self, server: &str) -> Result<Wire, Unreached> {
        // All at once: a resolver that is silent for one name may know the next.
        self.servers.known().for_each(|server| self.lookups.begin(server));
        let addresses = self.lookups.addresses(server, LOOKUP_TIME)?;
        let stream = dial::connect(&addresses, DIAL_TIME)?;
        Ok(Wire::new(stream, self.poll.registry(), Token(self.wires))?)
    }

    /// Gives the connection up.
    fn lose(&mut self, why: &str, named: Option<&str>) {
        let Some((_, server)) = self.wire.take() else { return };
        self.state.on_lost(why);
        if let Some(named) = named {
            self.servers.on_named(named);
        }
        self.excuse(server, why.to_owned());
    }

    fn excuse(&mut self, server: String, why: String) {
        log::debug!("{server}: {why}");
        self.excuses.retain(|(of, _)| *of != server);
        if self.excuses.len() == EXCUSES_MAX {
            self.excuses.remove(0);
        }
        self.excuses.push((server, why));
    }
}
