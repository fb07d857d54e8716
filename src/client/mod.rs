//! A client library. It finds the primary, follows it through failovers, stores each submitted
//! message once, and returns each message of the own mailbox once and in order.
//!
//! Calls block the caller's thread. A program that only sends needs no more than this:
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
//! A program that reads calls [`Client::next`] repeatedly and stores the number of the last
//! message. With [`Account::after`] it continues after that message in a later run.
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
//! # Guarantees
//!
//! A message for which [`Client::send`] returns a number, or [`Event::Stored`] comes, is stored
//! exactly once. Messages to one receiver are stored in the order in which they were submitted, as
//! long as no server refuses one of them. After a lost connection the client sends unanswered
//! messages again with their original keys, by which servers recognize them. Servers forget keys
//! after a while ([`limits::KEYS_KEPT`](crate::limits::KEYS_KEPT)): a client that was disconnected
//! for longer gets [`Event::Unknown`]. Messages of the own mailbox come without gaps and without
//! repetition, also when a connection breaks in the middle of one. [`Event::KeptFrom`] stands for
//! those that the mailbox no longer keeps.
//!
//! `client_state` holds the state without sockets, `received` how far the mailbox was received,
//! `servers` chooses the next server to try, `dial` connects, `wire` is a connection, `answer`
//! parses lines, `event` holds the results for callers, `request` checks what callers ask for, and
//! `keepalive` detects silent servers.

mod answer;
mod client_state;
mod dial;
mod event;
mod keepalive;
#[cfg(feature = "simulate")]
pub mod probe;
mod received;
mod request;
mod servers;
#[cfg(test)]
mod tests;
mod wire;

pub use crate::protocol::After;
pub use answer::Refusal;
pub use dial::{Unreached, dial};
pub use event::{Attributes, Error, Event, Message, SentMessage, Ticket};

use crate::protocol;
use crate::time::Moment;
use client_state::{ClientState, Data, Stop, UNANSWERED_MAX};
use dial::Lookups;
use keepalive::Keepalive;
use mio::{Events, Poll, Token};
use servers::Servers;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};
use wire::Wire;

/// The time limit for a connection attempt to a server.
const DIAL_TIME: Duration = Duration::from_secs(1);
/// How long to wait for the lookup of a name before trying the next server. The lookup continues
/// meanwhile.
const LOOKUP_TIME: Duration = Duration::from_millis(50);
/// The number of servers whose last error is kept while there is no connection.
const EXCUSES_MAX: usize = 16;
const WAKER: Token = Token(0);
/// The account that logs in, and where in its mailbox it starts to read.
#[derive(Clone, Default)]
pub struct Account {
    user: String,
    password: String,
    after: After,
    create: bool,
}

impl Account {
    /// Creates an account whose new messages are read from now on.
    pub fn new(user: &str, password: &str) -> Account {
        let (user, password) = (user.to_owned(), password.to_owned());
        Account { user, password, after: After::End, create: false }
    }

    /// Sets the position to start reading from.
    pub fn after(mut self, after: After) -> Account {
        self.after = after;
        self
    }

    /// Creates the account on the server if it does not exist.
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

/// Checks whether servers accept this message.
///
/// # Errors
/// Why servers refuse it.
pub fn check_message(to: &str, text: &str) -> Result<(), Refusal> {
    request::check(&[to], &format!("SEND {to} {}", protocol::as_line(text)))
}

/// Interrupts [`Client::next`] of a client from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<mio::Waker>);

impl Waker {
    /// Makes the waiting call, or otherwise the next one, return without an event.
    pub fn wake(&self) {
        // It fails only after the client was dropped, which needs no waking.
        let _ = self.0.wake();
    }
}

/// A client of a group. It connects when a call first needs a connection.
#[derive(Debug)]
pub struct Client {
    state: ClientState,
    servers: Servers,
    lookups: Lookups,
    /// The connection, and the server that it leads to.
    wire: Option<(Wire, String)>,
    /// The number of connections so far, and the token of the last one: late events of an earlier
    /// one have no effect.
    wires: usize,
    poll: Poll,
    events: Events,
    waker: Arc<mio::Waker>,
    began: Instant,
    keepalive: Keepalive,
    /// When to dial next, and which server.
    dial: Option<(Moment, String)>,
    /// Whether a [`Waker`] was used since the last call of [`Client::next`] that returned for it.
    woken: bool,
    patience: Option<Duration>,
    answer_patience: Option<Duration>,
    /// When the search for a primary began.
    searching: Option<Moment>,
    /// The newest error of each server since the last login.
    excuses: Vec<(String, String)>,
}

impl Client {
    /// Creates a client of these servers, each `host:port`. One of them is enough to find the
    /// others.
    ///
    /// # Errors
    /// A name or a password that no server accepts, an empty list of servers, or no resources.
    pub fn new(servers: Vec<String>, account: Account) -> Result<Client, Error> {
        let Account { user, password, .. } = &account;
        let command = if account.create { "CREATE" } else { "LOGIN" };
        let request = format!("{command} {user} {password}");
        request::check(&[user, password], &request).map_err(Error::Refused)?;
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
            wires: 0,
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

    /// Sets how long the search for a primary may take; `None`: without a limit. By default it is
    /// 30 s.
    pub fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// Sends a message, waits until it is stored, and returns its number in the receiver's
    /// mailbox.
    ///
    /// # Errors
    /// [`Error::Refused`]: the message was not stored, and never will be. [`Error::Unknown`]: the
    /// connection was lost for too long to know. After any other error the message is still being
    /// sent.
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

    /// Queues a message for sending. [`Client::next`] returns its outcome, which is kept until
    /// then. Waits only if [`Client::has_room`] returns false.
    ///
    /// # Errors
    /// [`Error::Refused`]: no server accepts this name or text; other errors as in
    /// [`Client::next`].
    pub fn submit(&mut self, to: &str, text: &str) -> Result<Ticket, Error> {
        self.submit_with(to, text, &Attributes::default())
    }

    /// As [`Client::submit`], of a message with attributes.
    ///
    /// # Errors
    /// As [`Client::submit`]; also when no server accepts one of the attributes.
    pub fn submit_with(
        &mut self,
        to: &str,
        text: &str,
        attributes: &Attributes,
    ) -> Result<Ticket, Error> {
        while !self.has_room() {
            self.turn(None)?;
        }
        let now = self.now();
        self.state.submit(now, to, text, attributes).map_err(Error::Refused)
    }

    /// Returns whether `submit` accepts a message without waiting. At most 256 messages may be
    /// unanswered.
    pub fn has_room(&self) -> bool {
        self.state.unanswered() < UNANSWERED_MAX
    }

    /// Sets how long [`Client::list`], [`Client::sent`] and [`Client::change_password`] may take;
    /// `None`, the default: without a limit.
    pub fn set_answer_patience(&mut self, patience: Option<Duration>) {
        self.answer_patience = patience;
    }

    /// Returns how many submitted messages have no known outcome yet.
    pub fn unanswered(&self) -> usize {
        self.state.unanswered()
    }

    /// Returns how many messages may or may not be stored: they were sent, and not answered. The
    /// others of [`Client::unanswered`] were never sent.
    pub fn in_doubt(&self) -> usize {
        self.state.in_doubt()
    }

    /// Returns the next event; `None` if none came in time, or a [`Waker`] was used. Waits without
    /// a limit if `patience` is `None`.
    ///
    /// Nothing is read from the server between calls, so a slow caller delays no other client and
    /// needs no memory for unread messages.
    ///
    /// # Errors
    /// After an error the client can't be used any more, except after [`Error::NoPrimary`].
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

    /// Returns the names of the accounts that match a pattern with `*` and `?`, and whether they
    /// are online.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn list(&mut self, pattern: &str) -> Result<Vec<(String, bool)>, Error> {
        let lines = self.ask("LIST", &[pattern], true)?;
        let user = |line: String| {
            let (name, state) = line.split_once(' ')?;
            Some((name.to_owned(), state == "online"))
        };
        Ok(lines.lines.into_iter().filter_map(user).collect())
    }

    /// Returns messages that the account has sent: those after `after`, `limit` at most.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn sent(&mut self, after: After, limit: u64) -> Result<Vec<SentMessage>, Error> {
        let data = self.ask("SENT", &[&after.to_string(), &limit.to_string()], true)?;
        Ok(data.sent)
    }

    /// Changes the password. Later logins use the new one.
    ///
    /// # Errors
    /// As [`Client::send`]; after [`Error::Unknown`] either password may be the valid one.
    pub fn change_password(&mut self, old: &str, new: &str) -> Result<(), Error> {
        self.ask("PASSWD", &[old, new], false)?;
        new.clone_into(&mut self.state.account.password);
        Ok(())
    }

    fn ask(&mut self, command: &str, words: &[&str], repeatable: bool) -> Result<Data, Error> {
        self.state.ask(command, words, repeatable).map_err(Error::Refused)?;
        let until = self.answer_patience.map(|patience| self.now() + patience);
        loop {
            match self.state.take_answer() {
                None if until.is_some_and(|until| until <= self.now()) => {
                    let in_doubt = self.state.give_up_question() && !repeatable;
                    let why = || Error::NoPrimary(self.excuses());
                    return Err(if in_doubt { Error::Unknown } else { why() });
                }
                None => self.turn(until)?,
                Some(answer) => return answer,
            }
        }
    }

    /// Returns how many servers store new messages, as the primary last reported.
    pub fn copies(&self) -> usize {
        let members = self.state.said.get("members").map_or("-", String::as_str);
        if members == "-" { 0 } else { members.split(',').count() }
    }

    /// Returns `host:port` of the connected server.
    pub fn server(&self) -> Option<&str> {
        self.wire.as_ref().map(|(_, server)| &server[..])
    }

    /// Explains why there is no connection: the last error of each server.
    pub fn excuses(&self) -> String {
        let said = self.excuses.iter().map(|(server, why)| format!("{server}: {why}"));
        said.collect::<Vec<_>>().join("; ")
    }

    /// Returns a [`Waker`] of this client.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.waker))
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Connects, or sends and reads once. Waits until `until` at most.
    fn turn(&mut self, until: Option<Moment>) -> Result<(), Error> {
        let Some((wire, _)) = &mut self.wire else {
            return self.connect(until);
        };
        if let Err(error) = wire.send(&mut self.state.out) {
            // The last lines of the server before it closed the connection may explain the error.
            while self.read()? {}
            self.lose(&error.to_string(), None);
            return Ok(());
        }
        if !wire.readable {
            let deadline = self.keepalive.deadline(self.now(), self.state.patience());
            self.wait(until.into_iter().chain([deadline]).chain(self.given_up()).min())?;
        }
        self.read()?;
        if self.given_up().is_some_and(|at| at <= self.now()) {
            self.lose("it takes too long", None);
        }
        Ok(())
    }

    /// Returns when to give up the search for a primary.
    fn given_up(&self) -> Option<Moment> {
        Some(self.searching? + self.patience?)
    }

    /// Waits for the connection or the waker, until `until` at most.
    fn wait(&mut self, until: Option<Moment>) -> Result<(), Error> {
        let timeout = until.map(|until| until - self.now());
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(Error::Io(error));
        }
        for event in &self.events {
            match (event.token(), &mut self.wire) {
                (WAKER, _) => self.woken = true,
                (Token(at), Some((wire, _))) if at == self.wires => wire.readable = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads once and handles the lines that came. Returns whether any bytes came.
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
        } else if self.keepalive.is_late(now, self.state.patience()) {
            self.lose("it does not answer", None);
            return Ok(false);
        }
        let seen = self.state.received.seen;
        match self.state.on_input(now, &mut wire.input) {
            Ok(()) => {}
            Err(Stop::Ever(error)) => {
                self.lose(&error.to_string(), None);
                return Err(error);
            }
            Err(Stop::Here { why, named }) => self.lose(&why, named.as_deref()),
        }
        if self.state.received.seen > seen && self.searching.is_some() {
            // A long mailbox precedes the answer to the login: each new message restarts the time
            // limit.
            self.searching = Some(now);
        }
        if self.state.logged_in {
            self.look(now);
        }
        Ok(came)
    }

    /// Updates the known servers after a login, and asks for the `STATUS` from time to time.
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
        // A connection that ends before it has answered a message must not reset the pauses.
        if self.state.answered {
            self.servers.on_found();
        }
    }

    /// Adds the servers that the primary last listed.
    fn learn(&mut self) {
        if let Some(servers) = self.state.said.get("servers") {
            self.servers.learn(servers.split(','));
        }
    }

    /// Connects to the server whose turn it is, once its pause is over.
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

    /// Connects to a server.
    fn open(&mut self, server: &str) -> Result<Wire, Unreached> {
        // All lookups start together: a resolver that is silent for one name may know the next.
        self.servers.known().for_each(|server| self.lookups.begin(server));
        let addresses = self.lookups.addresses(server, LOOKUP_TIME)?;
        let stream = dial::connect(&addresses, DIAL_TIME)?;
        Ok(Wire::new(stream, self.poll.registry(), Token(self.wires))?)
    }

    /// Closes the connection and records why. `named` is the server that was named as the primary.
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
