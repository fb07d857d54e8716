//! The requests that a client sends and its handling of the answers, without sockets, so that it
//! can be tested.
//!
//! The state outlives connections. On each connection the client asks for the `STATUS`, logs in to
//! read after the last message that it has, and repeats the unanswered messages with their
//! original keys.

use super::answer::{self, Line, Refusal};
use super::keepalive::{ANSWER_TIME, GREETING_TIME, PASSWORD_TIME};
use super::received::Received;
use super::request::{check, with_lines};
use super::wire::Input;
use super::{Account, Attributes, Error, Event, Message, SentMessage, Ticket};
use crate::limits::KEYS_KEPT;
use crate::protocol::{self, After, Code};
use crate::time::Moment;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The most unanswered messages. More than a server accepts at a time, so that the server never
/// waits for the client.
pub(super) const UNANSWERED_MAX: usize = 256;
/// The most events kept for the caller. The client requests messages beyond them again later.
const EVENTS_MAX: usize = 4096;
/// The most memory for the data of one answer, in bytes: some 300,000 names.
const DATA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most lines of one `STATUS` that are kept.
const STATUS_MAX: usize = 256;
/// How many messages to request at a time when some were not kept.
const REFILL: usize = 1024;
/// The number of log entries for which a key is trusted: half of what servers remember, since the
/// log grows while the client waits for its index.
const KEYS_TRUSTED: u64 = KEYS_KEPT / 2;
/// The age of the known log index from which the client asks for it again before it sends a
/// message.
const INDEX_TIME: Duration = Duration::from_secs(1);

/// The lines of a `STATUS`, by key.
pub(super) type Status = BTreeMap<String, String>;

/// Why the client can't continue.
#[derive(Debug)]
pub(super) enum Stop {
    /// The connection must be closed. `named` is the server that was named as the primary.
    Here { why: String, named: Option<String> },
    /// No connection can help.
    Ever(Error),
}

/// A request on this connection whose answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    ShowAttributes,
    Status,
    Create,
    Login,
    /// An attribute of the message that follows.
    Attribute,
    Message,
    Log,
    Question,
    /// A question whose caller no longer waits.
    GivenUp,
}

/// A message without a known outcome.
#[derive(Debug)]
struct Sending {
    ticket: Ticket,
    /// One line for each attribute, and one for the message.
    request: String,
    /// The connection on which the message was first sent, and an index that the log had reached
    /// before.
    first: Option<(u64, u64)>,
}

/// A request of the caller that is not a message.
#[derive(Debug)]
struct Question {
    request: String,
    /// Whether the request may be repeated after its answer was lost.
    repeatable: bool,
    data: Data,
    answer: Option<Answer>,
}

/// What precedes the last line of an answer.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// Lines without their first word.
    pub(super) lines: Vec<String>,
    /// The messages of a `SENT`.
    pub(super) sent: Vec<SentMessage>,
    /// The memory of all, in bytes.
    bytes: usize,
}

/// A part of an answer.
enum Datum<'a> {
    Line(&'a str),
    Sent(SentMessage),
}

/// The data; [`Error::Unknown`] when the connection was lost before the answer came.
type Answer = Result<Data, Error>;

/// The state of a client. See the module.
#[derive(Debug, Default)]
pub(super) struct ClientState {
    pub(super) account: Account,
    /// Whether a login with the password has succeeded.
    was_good: bool,
    /// The prefix of all keys: random, so that no other client of the account uses the same keys.
    prefix: String,
    tickets: u64,
    /// The number of connections so far, and the server of the last one.
    connection: u64,
    server: String,
    pub(super) logged_in: bool,
    /// Whether a message was answered on this connection.
    pub(super) answered: bool,
    asked: VecDeque<Asked>,
    unanswered: VecDeque<Sending>,
    /// How many of `unanswered` were sent on this connection.
    sent: usize,
    question: Option<Question>,
    /// Data received on this connection for questions that were given up, in bytes.
    passed_over: usize,
    pub(super) received: Received,
    /// An index that the log has reached, and when the client last asked for it.
    index: u64,
    index_asked: Option<Moment>,
    /// The lines of a `STATUS` so far.
    status: Status,
    /// The last complete `STATUS`.
    pub(super) said: Status,
    events: VecDeque<Event>,
    /// Bytes to send on this connection.
    pub(super) out: Vec<u8>,
}

impl ClientState {
    /// Creates the state of a client of `account`, whose keys begin with `prefix`.
    pub(super) fn new(account: Account, prefix: String) -> ClientState {
        let received = Received::new(account.after);
        ClientState { account, prefix, received, ..ClientState::default() }
    }

    /// Starts on a new connection to a server.
    pub(super) fn begin(&mut self, now: Moment, server: &str) {
        self.connection += 1;
        self.answered = false;
        server.clone_into(&mut self.server);
        self.write(Asked::ShowAttributes, "ATTR on");
        self.ask_status(now);
    }

    /// Handles the loss of the connection.
    pub(super) fn on_lost(&mut self, why: &str) {
        if let Some(question) = &mut self.question
            && self.asked.contains(&Asked::Question)
        {
            question.data = Data::default();
            if !question.repeatable {
                question.answer = Some(Err(Error::Unknown));
            }
        }
        if std::mem::take(&mut self.logged_in) {
            let lost = Event::Lost { server: self.server.clone(), why: why.to_owned() };
            self.tell_of_connection(lost);
        }
        self.asked.clear();
        // The attributes of a message whose line was lost.
        self.received.take_attributes(0);
        self.passed_over = 0;
        self.sent = 0;
        self.out.clear();
        self.status.clear();
    }

    /// Queues a message for sending.
    pub(super) fn submit(
        &mut self,
        now: Moment,
        to: &str,
        text: &str,
        attributes: &Attributes,
    ) -> Result<Ticket, Refusal> {
        let ticket = Ticket(self.tickets + 1);
        let line = protocol::as_line(text);
        let message = format!("ONCE {}-{} {to} {line}", self.prefix, ticket.0);
        check(&[to], &message)?;
        let mut request = with_lines(text, attributes)?;
        request += &message;
        self.tickets += 1;
        self.unanswered.push_back(Sending { ticket, request, first: None });
        self.send_messages(now);
        Ok(ticket)
    }

    /// Queues a question. At most one is open at a time.
    pub(super) fn ask(
        &mut self,
        command: &str,
        words: &[&str],
        repeatable: bool,
    ) -> Result<(), Refusal> {
        let request = format!("{command} {}", words.join(" "));
        check(words, &request)?;
        let data = Data::default();
        self.question = Some(Question { request, repeatable, data, answer: None });
        self.send_question();
        Ok(())
    }

    /// Gives the question up, and returns whether it was sent and may still be answered. That
    /// answer is then ignored.
    pub(super) fn give_up_question(&mut self) -> bool {
        self.question = None;
        let asked = self.asked.iter_mut().find(|asked| **asked == Asked::Question);
        asked.map(|asked| *asked = Asked::GivenUp).is_some()
    }

    /// Returns the answer to the question, once.
    pub(super) fn take_answer(&mut self) -> Option<Answer> {
        let answer = self.question.as_mut()?.answer.take()?;
        self.question = None;
        Some(answer)
    }

    /// Returns the next event for the caller.
    pub(super) fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the outcome of a message before earlier events.
    pub(super) fn take_outcome(&mut self, of: Ticket) -> Option<Event> {
        let at = self.events.iter().position(|event| event.ticket() == Some(of))?;
        self.events.remove(at)
    }

    /// Returns how many messages have no known outcome.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Returns how many of the unanswered messages were sent.
    pub(super) fn in_doubt(&self) -> usize {
        self.unanswered.iter().filter(|sending| sending.first.is_some()).count()
    }

    /// Returns how long the server may take for the awaited answer; `None` if none is awaited.
    pub(super) fn patience(&self) -> Option<Duration> {
        Some(match self.asked.front()? {
            Asked::Login | Asked::Create | Asked::GivenUp => PASSWORD_TIME,
            Asked::Question if self.question.as_ref().is_some_and(|q| !q.repeatable) => {
                PASSWORD_TIME
            }
            _ if !self.logged_in => GREETING_TIME,
            _ => ANSWER_TIME,
        })
    }

    /// Returns the number of requests that await answers, of kept events, of bytes of data, of
    /// status lines, and of bytes to send.
    #[cfg(feature = "simulate")]
    pub(super) fn held(&self) -> [usize; 5] {
        let data = self.question.as_ref().map_or(0, |question| question.data.bytes);
        let status = self.status.len().max(self.said.len());
        [self.asked.len(), self.events.len(), data, status, self.out.len()]
    }

    /// Asks for the `STATUS` unless a request for it is already open.
    pub(super) fn ask_status(&mut self, now: Moment) {
        if !self.asked.contains(&Asked::Status) {
            self.index_asked = Some(now);
            self.write(Asked::Status, "STATUS");
        }
    }

    /// Requests messages again that were received and not kept, once there is room for them.
    pub(super) fn refill(&mut self) {
        if let Some(seen) = self.received.behind()
            && self.logged_in
            && self.events.is_empty()
            && !self.asked.contains(&Asked::Log)
        {
            self.write(Asked::Log, &format!("LOG {seen} {REFILL}"));
        }
    }

    /// Handles the complete lines from the server.
    pub(super) fn on_input(&mut self, now: Moment, input: &mut Input) -> Result<(), Stop> {
        while let Some(line) = input.line().map_err(|error| here(&error.to_string()))? {
            self.on_line(now, line)?;
        }
        Ok(())
    }

    /// Handles a line from the server.
    pub(super) fn on_line(&mut self, now: Moment, line: &str) -> Result<(), Stop> {
        match answer::read(line) {
            Some(Line::Attribute(number, known)) => {
                self.received.on_attribute(number, known);
                Ok(())
            }
            Some(Line::Message(message)) => self.on_message(message),
            Some(Line::Sent(mut sent)) => {
                sent.attributes = self.received.take_attributes(sent.place);
                self.on_data(line.len() + size_of::<SentMessage>(), Datum::Sent(sent))
            }
            Some(Line::Data(data)) => self.on_data(data.len(), Datum::Line(data)),
            Some(Line::Ok(words)) => self.on_ok(now, words),
            Some(Line::Err(why)) => self.on_err(why),
            Some(Line::KeptFrom(first)) => {
                if self.received.on_kept_from(first, self.events.len() < EVENTS_MAX) {
                    self.events.push_back(Event::KeptFrom { first });
                }
                Ok(())
            }
            // The server closes the connection after a note.
            Some(Line::Note(why)) => Err(here(why)),
            None => Err(here("it does not speak as a postern server does")),
        }
    }

    fn on_message(&mut self, mut message: Message) -> Result<(), Stop> {
        message.attributes = self.received.take_attributes(message.number);
        let is_room = self.events.len() < EVENTS_MAX;
        if self.received.on_message(message.number, is_room).map_err(Stop::Ever)? {
            self.events.push_back(Event::Message(message));
        }
        Ok(())
    }

    /// Handles a part of an answer, which takes `bytes` bytes.
    fn on_data(&mut self, bytes: usize, datum: Datum<'_>) -> Result<(), Stop> {
        match (self.asked.front(), &mut self.question, datum) {
            (Some(Asked::Status), _, Datum::Line(line)) if self.status.len() < STATUS_MAX => {
                let (key, value) = line.split_once(' ').unwrap_or((line, ""));
                self.status.insert(key.to_owned(), value.to_owned());
            }
            (Some(Asked::Question), Some(question), datum) => {
                question.data.bytes += bytes + size_of::<String>();
                if question.data.bytes > DATA_BYTES_MAX {
                    let words = "the answer is too long; ask for less, by a pattern";
                    let why = Refusal::new(Code::TooLong, words);
                    question.answer = Some(Err(Error::Refused(why)));
                    return Err(here("its answer has no end"));
                }
                match datum {
                    Datum::Line(line) => question.data.lines.push(line.to_owned()),
                    Datum::Sent(sent) => question.data.sent.push(sent),
                }
            }
            (Some(Asked::GivenUp), ..) => {
                self.passed_over += bytes;
                if self.passed_over > DATA_BYTES_MAX {
                    return Err(here("its answer has no end"));
                }
            }
            _ => return Err(here("it sent what nobody asked for")),
        }
        Ok(())
    }

    fn on_ok(&mut self, now: Moment, words: &str) -> Result<(), Stop> {
        let nonsense = || here("it gave a wrong answer");
        let number = |words: &str| answer::number(words).ok_or_else(nonsense);
        match self.asked.pop_front().ok_or_else(nonsense)? {
            Asked::Status => self.on_status(now),
            Asked::Create => {
                self.account.create = false;
                self.log_in();
            }
            Asked::Login => {
                let last = number(words.split(' ').nth(1).unwrap_or(""))?;
                self.on_logged_in(now, last);
            }
            Asked::ShowAttributes | Asked::Attribute | Asked::Log | Asked::GivenUp => {}
            Asked::Message => {
                let number = number(words)?;
                let ticket = self.settle().ok_or_else(nonsense)?;
                self.events.push_back(Event::Stored { ticket, number });
            }
            Asked::Question => {
                if let Some(question) = &mut self.question {
                    question.answer = Some(Ok(std::mem::take(&mut question.data)));
                }
            }
        }
        Ok(())
    }

    fn on_err(&mut self, why: Refusal) -> Result<(), Stop> {
        let nonsense = || here("it gave a wrong answer");
        let code = Code::named(&why.code);
        match code {
            Some(Code::NotPrimary | Code::NotReady) => {
                // The question stays, for another server.
                if self.asked.front() == Some(&Asked::Question) {
                    self.asked.pop_front();
                }
                if code == Some(Code::NotReady) {
                    return Err(here(&why.words));
                }
                let (named, words) = why.words.split_once(' ').unwrap_or((&why.words, ""));
                let named = (!["-", ""].contains(&named)).then(|| named.to_owned());
                return Err(Stop::Here { why: words.to_owned(), named });
            }
            // The client sends the message again with its key.
            Some(Code::UnknownOutcome) => return Err(here(&why.words)),
            _ => {}
        }
        // A server that rejects a connection sends an error without a request.
        let was_asked = self.asked.pop_front();
        match (was_asked, code) {
            (
                None | Some(Asked::ShowAttributes | Asked::Status | Asked::Attribute | Asked::Log),
                _,
            )
            | (Some(Asked::Login | Asked::Create), Some(Code::Busy)) => Err(here(&why.words)),
            (Some(Asked::Login), Some(Code::WrongPassword)) if self.account.create => {
                let Account { user, password, .. } = &self.account;
                let request = format!("CREATE {user} {password}");
                self.write(Asked::Create, &request);
                Ok(())
            }
            // Someone at this address guesses the password: the throttle ends by itself.
            (Some(Asked::Login), Some(Code::TooManyAttempts)) if self.was_good => {
                Err(here(&why.words))
            }
            (Some(Asked::Login | Asked::Create), _) => Err(Stop::Ever(Error::NotLetIn(why))),
            (Some(Asked::Message), _) => {
                let ticket = self.settle().ok_or_else(nonsense)?;
                self.events.push_back(Event::Refused { ticket, why });
                Ok(())
            }
            (Some(Asked::GivenUp), _) => Ok(()),
            (Some(Asked::Question), _) => {
                if let Some(question) = &mut self.question {
                    question.answer = Some(Err(Error::Refused(why)));
                }
                Ok(())
            }
        }
    }

    /// Removes the oldest sent message, which was answered, and returns its ticket.
    fn settle(&mut self) -> Option<Ticket> {
        self.sent = self.sent.checked_sub(1)?;
        self.answered = true;
        self.unanswered.pop_front().map(|sending| sending.ticket)
    }

    fn on_status(&mut self, now: Moment) {
        self.said = std::mem::take(&mut self.status);
        let index = self.said.get("last_index").and_then(|index| index.parse().ok());
        // A lagging server may report a lower index.
        self.index = self.index.max(index.unwrap_or(0));
        // The unanswered messages of this connection were sent after this request, so the newer
        // index is valid for them.
        for sending in self.unanswered.iter_mut().take(self.sent) {
            if let Some((connection, index)) = &mut sending.first
                && *connection == self.connection
            {
                *index = self.index;
            }
        }
        if !self.logged_in && !self.asked.contains(&Asked::Login) {
            self.give_up_old_keys();
            self.log_in();
            self.send_messages(now);
        }
    }

    /// Gives up messages whose keys the servers may have forgotten: repeating one could store it
    /// twice.
    fn give_up_old_keys(&mut self) {
        let index = self.index;
        self.unanswered.retain(|sending| {
            let old = sending.first.is_some_and(|(_, at)| index.saturating_sub(at) > KEYS_TRUSTED);
            if old {
                self.events.push_back(Event::Unknown { ticket: sending.ticket });
            }
            !old
        });
    }

    fn log_in(&mut self) {
        // Of an account that names a number, `seen` is known from the beginning.
        let after = self.received.seen.map_or(self.account.after, After::Number);
        let Account { user, password, .. } = &self.account;
        let request = format!("LOGIN {user} {password} {after}");
        self.write(Asked::Login, &request);
    }

    /// Adds an event about a connection, unless the caller's queue is full.
    fn tell_of_connection(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    fn on_logged_in(&mut self, now: Moment, last: u64) {
        // A server may be reachable by several names; events contain the name that the group uses.
        if let Some(name) = self.own_name() {
            self.server = name;
        }
        self.logged_in = true;
        (self.was_good, self.account.create) = (true, false);
        self.received.on_logged_in(last);
        self.tell_of_connection(Event::Connected { server: self.server.clone(), last });
        self.send_messages(now);
        self.send_question();
    }

    /// Returns the address of the connected server in the group's list.
    fn own_name(&self) -> Option<String> {
        let id = self.said.get("server")?.split('/').next()?.parse::<usize>().ok()?;
        let name = self.said.get("servers")?.split(',').nth(id.checked_sub(1)?)?;
        Some(name.to_owned())
    }

    /// Sends the messages that were not yet sent on this connection.
    fn send_messages(&mut self, now: Moment) {
        // After a login that may fail, the server might refuse them.
        let good = self.was_good && self.asked.contains(&Asked::Login);
        if !(self.logged_in || good) || self.sent == self.unanswered.len() {
            return;
        }
        if self.logged_in && self.index_asked.is_none_or(|at| now >= at + INDEX_TIME) {
            self.ask_status(now);
        }
        for sending in self.unanswered.iter_mut().skip(self.sent) {
            sending.first.get_or_insert((self.connection, self.index));
            self.out.extend_from_slice(sending.request.as_bytes());
            self.out.push(b'\n');
            let attributes = sending.request.matches('\n').count();
            self.asked.extend(std::iter::repeat_n(Asked::Attribute, attributes));
            self.asked.push_back(Asked::Message);
        }
        self.sent = self.unanswered.len();
    }

    fn send_question(&mut self) {
        if let Some(question) = &self.question
            && self.logged_in
            && question.answer.is_none()
            && !self.asked.contains(&Asked::Question)
        {
            let request = question.request.clone();
            self.write(Asked::Question, &request);
        }
    }

    fn write(&mut self, asked: Asked, request: &str) {
        self.asked.push_back(asked);
        self.out.extend_from_slice(request.as_bytes());
        self.out.push(b'\n');
    }
}

fn here(why: &str) -> Stop {
    Stop::Here { why: why.to_owned(), named: None }
}
