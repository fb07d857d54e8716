//! What a client says to servers, and what it makes of their lines: pure, so that it can be tested
//! without sockets.
//!
//! A conversation outlives its connections. On each it asks for the `STATUS`, logs in behind the
//! last message that it has, and repeats what was not answered, with the keys that it had.

use super::answer::{self, Line, Refusal};
use super::keepalive::Awaited;
use super::{Account, Error, Event, Message, Ticket};
use crate::limits::KEYS_KEPT;
use crate::protocol::{After, Code};
use crate::time::Moment;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Messages that are taken and not answered, at most: more than a server takes at a time, so that
/// it never waits for us.
pub(super) const UNANSWERED_MAX: usize = 256;
/// Events that are kept for the caller; messages beyond them are asked for again.
const EVENTS_MAX: usize = 4096;
/// The most memory for the data of one answer, in bytes: some 300,000 names.
const DATA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a server says of itself in lines of one `STATUS`.
const STATUS_MAX: usize = 256;
/// Messages asked for at a time when some were not kept.
const REFILL: usize = 1024;
/// A key is not trusted longer than this: half of what servers remember, since more entries come
/// while we look.
const KEYS_TRUSTED: u64 = KEYS_KEPT / 2;
/// The index is asked for again before a message when it was heard so long ago.
const INDEX_TIME: Duration = Duration::from_secs(1);

/// What a server says of itself, by key.
pub(super) type Status = BTreeMap<String, String>;

/// Why a conversation can't go on here.
#[derive(Debug)]
pub(super) enum Stop {
    /// On this connection; who was named as the primary.
    Here { why: String, named: Option<String> },
    /// Nowhere.
    Ever(Error),
}

/// A request on this connection whose answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Status,
    Create,
    Login,
    Message,
    Log,
    Question,
    /// A question whose caller waits no longer.
    GivenUp,
}

/// A message on its way.
#[derive(Debug)]
struct Sending {
    ticket: Ticket,
    request: Vec<u8>,
    /// The connection on which it was first sent, and an index of the log from before that.
    first: Option<(u64, u64)>,
}

/// A request of the caller that is no message.
#[derive(Debug)]
struct Question {
    request: String,
    /// It may be asked again when its answer was lost.
    repeatable: bool,
    data: Vec<String>,
    /// The memory that `data` takes.
    bytes: usize,
    answer: Option<Answer>,
}

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The lines of data.
    Ok(Vec<String>),
    Refused(Refusal),
    /// The connection was lost before the answer came.
    Unknown,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ClientState {
    account: Account,
    /// Its password was right.
    was_good: bool,
    /// What all keys begin with: the sender's own, and never the same again.
    prefix: String,
    tickets: u64,
    /// The connections so far, and to whom the last one was made.
    connection: u64,
    server: String,
    logged_in: bool,
    /// A message was answered on this connection.
    answered: bool,
    asked: VecDeque<Asked>,
    unanswered: VecDeque<Sending>,
    /// How many of them were sent on this connection.
    sent: usize,
    question: Option<Question>,
    /// Data of questions that were given up on this connection, in bytes.
    passed_over: usize,
    /// The number of the last message that was handed on; not known before the first answer when
    /// the account does not say it.
    seen: Option<u64>,
    /// The number of the last message that came.
    came: u64,
    /// An index of the log that was reached, and when it was asked for last.
    index: u64,
    index_asked: Option<Moment>,
    status: Status,
    said: Status,
    events: VecDeque<Event>,
    /// What is to be sent on this connection.
    pub(super) out: Vec<u8>,
}

impl ClientState {
    /// Of an account, with keys that begin so.
    pub(super) fn new(account: Account, prefix: String) -> ClientState {
        let seen = match account.after {
            After::Number(n) => Some(n),
            After::End | After::Last(_) => None,
        };
        ClientState {
            account,
            was_good: false,
            prefix,
            tickets: 0,
            connection: 0,
            server: String::new(),
            logged_in: false,
            answered: false,
            asked: VecDeque::new(),
            unanswered: VecDeque::new(),
            sent: 0,
            question: None,
            passed_over: 0,
            seen,
            came: seen.unwrap_or(0),
            index: 0,
            index_asked: None,
            status: Status::new(),
            said: Status::new(),
            events: VecDeque::new(),
            out: Vec::new(),
        }
    }

    /// Begins on a new connection to a server.
    pub(super) fn begin(&mut self, now: Moment, server: &str) {
        self.connection += 1;
        self.answered = false;
        server.clone_into(&mut self.server);
        self.ask_status(now);
    }

    /// The connection is lost.
    pub(super) fn on_lost(&mut self, why: &str) {
        let asked = self.asked.contains(&Asked::Question);
        if let Some(question) = self.question.as_mut().filter(|_| asked) {
            (question.data, question.bytes) = (Vec::new(), 0);
            if !question.repeatable {
                question.answer = Some(Answer::Unknown);
            }
        }
        if std::mem::take(&mut self.logged_in) {
            let lost = Event::Lost { server: self.server.clone(), why: why.to_owned() };
            self.tell_of_connection(lost);
        }
        self.asked.clear();
        self.passed_over = 0;
        self.sent = 0;
        self.out.clear();
        self.status.clear();
    }

    /// Takes a message to send.
    pub(super) fn submit(&mut self, now: Moment, to: &str, text: &str) -> Result<Ticket, Refusal> {
        let ticket = Ticket(self.tickets + 1);
        let request = format!("ONCE {}-{} {to} {text}", self.prefix, ticket.0);
        check(&[to], &request)?;
        self.tickets += 1;
        let request = format!("{request}\n").into_bytes();
        self.unanswered.push_back(Sending { ticket, request, first: None });
        self.send_messages(now);
        Ok(ticket)
    }

    /// Takes a question; there is one at a time.
    pub(super) fn ask(
        &mut self,
        command: &str,
        words: &[&str],
        repeatable: bool,
    ) -> Result<(), Refusal> {
        let request = format!("{command} {}", words.join(" "));
        check(words, &request)?;
        let data = Vec::new();
        self.question = Some(Question { request, repeatable, data, bytes: 0, answer: None });
        self.send_question();
        Ok(())
    }

    /// Gives the question up; whether it was asked, and may be answered. That answer is then the
    /// answer to no other question.
    pub(super) fn give_up_question(&mut self) -> bool {
        self.question = None;
        let asked = self.asked.iter_mut().find(|asked| **asked == Asked::Question);
        asked.map(|asked| *asked = Asked::GivenUp).is_some()
    }

    /// How far the mailbox was read.
    pub(super) fn seen(&self) -> Option<u64> {
        self.seen
    }

    /// The answer to the question, once.
    pub(super) fn take_answer(&mut self) -> Option<Answer> {
        let answer = self.question.as_mut()?.answer.take()?;
        self.question = None;
        Some(answer)
    }

    /// The next event for the caller.
    pub(super) fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What became of a message, out of its turn.
    pub(super) fn take_outcome(&mut self, of: Ticket) -> Option<Event> {
        let at = self.events.iter().position(|event| event.ticket() == Some(of))?;
        self.events.remove(at)
    }

    /// How many messages are sent and not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// How many of them were sent at all.
    pub(super) fn in_doubt(&self) -> usize {
        self.unanswered.iter().filter(|sending| sending.first.is_some()).count()
    }

    /// What is awaited on this connection.
    pub(super) fn awaited(&self) -> Awaited {
        match self.asked.front() {
            None => Awaited::Nothing,
            Some(Asked::Login | Asked::Create | Asked::GivenUp) => Awaited::Password,
            Some(Asked::Question) if self.question.as_ref().is_some_and(|q| !q.repeatable) => {
                Awaited::Password
            }
            Some(_) if !self.logged_in => Awaited::Greeting,
            Some(_) => Awaited::Answer,
        }
    }

    /// Whether this connection was good for something.
    pub(super) fn has_answered(&self) -> bool {
        self.answered
    }

    pub(super) fn is_logged_in(&self) -> bool {
        self.logged_in
    }

    /// What the server last said of itself.
    pub(super) fn said(&self) -> &Status {
        &self.said
    }

    /// How many requests await answers, how many events, bytes of data and lines of the status are
    /// kept, and how many bytes are to be sent.
    #[cfg(feature = "simulate")]
    pub(super) fn held(&self) -> [usize; 5] {
        let data = self.question.as_ref().map_or(0, |question| question.bytes);
        let status = self.status.len().max(self.said.len());
        [self.asked.len(), self.events.len(), data, status, self.out.len()]
    }

    /// Asks how the server is.
    pub(super) fn ask_status(&mut self, now: Moment) {
        if !self.asked.contains(&Asked::Status) {
            self.index_asked = Some(now);
            self.write(Asked::Status, b"STATUS\n");
        }
    }

    /// Asks for messages that came and were not kept, when there is room for them.
    pub(super) fn refill(&mut self) {
        let behind = self.seen.filter(|seen| *seen < self.came);
        if let Some(seen) = behind
            && self.logged_in
            && self.events.is_empty()
            && !self.asked.contains(&Asked::Log)
        {
            self.write(Asked::Log, format!("LOG {seen} {REFILL}\n").as_bytes());
        }
    }

    /// Logs in with another password from now on.
    pub(super) fn on_password_changed(&mut self, new: &str) {
        new.clone_into(&mut self.account.password);
    }

    /// Takes in a line.
    pub(super) fn on_line(&mut self, now: Moment, line: &str) -> Result<(), Stop> {
        match answer::read(line) {
            Some(Line::Message(message)) => self.on_message(message),
            Some(Line::Data(data)) => self.on_data(data),
            Some(Line::Ok(words)) => self.on_ok(now, words),
            Some(Line::Err(why)) => self.on_err(why),
            // Said behind an answer; nothing is closed.
            Some(Line::Note(note)) if note.starts_with("kept-from ") => Ok(()),
            // The server closes behind it.
            Some(Line::Note(why)) => Err(here(why)),
            None => Err(here("it does not speak as a postern server does")),
        }
    }

    fn on_message(&mut self, message: Message) -> Result<(), Stop> {
        let number = message.number;
        let next = self.seen.map(|seen| seen.saturating_add(1));
        let came = self.came;
        self.came = came.max(number);
        if next.is_some_and(|next| number < next) {
            return Ok(());
        }
        if next.is_none_or(|next| number == next) {
            if self.events.len() < EVENTS_MAX {
                self.seen = Some(number);
                self.events.push_back(Event::Message(message));
            } else if next.is_none() {
                self.seen = Some(number - 1);
            }
            return Ok(());
        }
        if number <= came.saturating_add(1) {
            return Ok(());
        }
        Err(Stop::Ever(Error::Gap { missing: came.saturating_add(1), came: number }))
    }

    fn on_data(&mut self, data: &str) -> Result<(), Stop> {
        match (self.asked.front(), &mut self.question) {
            (Some(Asked::Status), _) if self.status.len() < STATUS_MAX => {
                let (key, value) = data.split_once(' ').unwrap_or((data, ""));
                self.status.insert(key.to_owned(), value.to_owned());
            }
            (Some(Asked::Question), Some(question)) => {
                question.bytes += data.len() + size_of::<String>();
                if question.bytes > DATA_BYTES_MAX {
                    let words = "the answer is too long; ask for less, by a pattern".to_owned();
                    let why = Refusal { code: Code::TooLong.to_string(), words };
                    question.answer = Some(Answer::Refused(why));
                    return Err(here("its answer has no end"));
                }
                question.data.push(data.to_owned());
            }
            (Some(Asked::GivenUp), _) => {
                self.passed_over += data.len();
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
            Asked::Log | Asked::GivenUp => {}
            Asked::Message => {
                let number = number(words)?;
                let ticket = self.settle().ok_or_else(nonsense)?;
                self.events.push_back(Event::Stored { ticket, number });
            }
            Asked::Question => {
                if let Some(question) = &mut self.question {
                    question.answer = Some(Answer::Ok(std::mem::take(&mut question.data)));
                }
            }
        }
        Ok(())
    }

    fn on_err(&mut self, why: Refusal) -> Result<(), Stop> {
        let nonsense = || here("it gave a wrong answer");
        let code = Code::named(&why.code);
        match code {
            Some(Code::NotPrimary) => {
                self.ask_again();
                let (named, words) = why.words.split_once(' ').unwrap_or((&why.words, ""));
                let named = (!["-", ""].contains(&named)).then(|| named.to_owned());
                return Err(Stop::Here { why: words.to_owned(), named });
            }
            Some(Code::NotReady) => {
                self.ask_again();
                return Err(here(&why.words));
            }
            // Of a message: it is sent again with its key.
            Some(Code::UnknownOutcome) => return Err(here(&why.words)),
            _ => {}
        }
        // A connection that is not let in is told so unasked.
        let was_asked = self.asked.pop_front();
        match (was_asked, code) {
            (None | Some(Asked::Status | Asked::Log), _)
            | (Some(Asked::Login | Asked::Create), Some(Code::Busy)) => Err(here(&why.words)),
            (Some(Asked::Login), Some(Code::WrongPassword)) if self.account.create => {
                let Account { user, password, .. } = &self.account;
                let request = format!("CREATE {user} {password}\n");
                self.write(Asked::Create, request.as_bytes());
                Ok(())
            }
            // Somebody guesses at this account from here: that passes.
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
                    question.answer = Some(Answer::Refused(why));
                }
                Ok(())
            }
        }
    }

    /// The question has been refused here, and may be asked elsewhere.
    fn ask_again(&mut self) {
        if self.asked.front() == Some(&Asked::Question) {
            self.asked.pop_front();
        }
    }

    /// Takes the message that was answered from those that are not.
    fn settle(&mut self) -> Option<Ticket> {
        self.sent = self.sent.checked_sub(1)?;
        self.answered = true;
        self.unanswered.pop_front().map(|sending| sending.ticket)
    }

    fn on_status(&mut self, now: Moment) {
        self.said = std::mem::take(&mut self.status);
        let index = self.said.get("last_index").and_then(|index| index.parse().ok());
        // Of a server that lags behind it may be less.
        self.index = self.index.max(index.unwrap_or(0));
        // What is unanswered on this connection was sent behind this request.
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

    /// Messages whose keys may be forgotten can't be repeated: nobody can say what became of them.
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
        let after = match (self.seen, self.account.after) {
            (Some(seen), _) => seen.to_string(),
            (None, After::Last(k)) => format!("-{k}"),
            (None, _) => "end".to_owned(),
        };
        let Account { user, password, .. } = &self.account;
        let request = format!("LOGIN {user} {password} {after}\n");
        self.write(Asked::Login, request.as_bytes());
    }

    /// A program that takes no events keeps few of those that only tell of connections.
    fn tell_of_connection(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    fn on_logged_in(&mut self, now: Moment, last: u64) {
        // One server may be reached by several names; the group has one for it.
        if let Some(name) = self.own_name() {
            self.server = name;
        }
        self.logged_in = true;
        (self.was_good, self.account.create) = (true, false);
        self.seen = self.seen.or(Some(last));
        self.came = self.came.max(last);
        self.tell_of_connection(Event::Connected { server: self.server.clone(), last });
        self.send_messages(now);
        self.send_question();
    }

    /// What the group calls the server that was asked.
    fn own_name(&self) -> Option<String> {
        let id = self.said.get("server")?.split('/').next()?.parse::<usize>().ok()?;
        let name = self.said.get("servers")?.split(',').nth(id.checked_sub(1)?)?;
        Some(name.to_owned())
    }

    /// Sends the messages that were not sent on this connection yet.
    fn send_messages(&mut self, now: Moment) {
        // Behind a login that may fail they would be refused.
        let good = self.was_good && self.asked.contains(&Asked::Login);
        if !(self.logged_in || good) || self.sent == self.unanswered.len() {
            return;
        }
        if self.logged_in && self.index_asked.is_none_or(|at| now >= at + INDEX_TIME) {
            self.ask_status(now);
        }
        for sending in self.unanswered.iter_mut().skip(self.sent) {
            sending.first.get_or_insert((self.connection, self.index));
            self.out.extend_from_slice(&sending.request);
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
            let request = format!("{}\n", question.request);
            self.write(Asked::Question, request.as_bytes());
        }
    }

    fn write(&mut self, asked: Asked, request: &[u8]) {
        self.asked.push_back(asked);
        self.out.extend_from_slice(request);
    }
}

/// Requests are checked by the rules of servers: what is refused here is never sent. An argument
/// that is more or less than one word would make another request of it.
pub(super) fn check(words: &[&str], request: &str) -> Result<(), Refusal> {
    if words.iter().any(|word| word.is_empty() || word.contains(' ')) {
        // It may be a password: it is not shown.
        let words = "a name or a password is one word, without spaces".to_owned();
        return Err(Refusal { code: Code::BadArgument.to_string(), words });
    }
    match crate::protocol::parse(request.as_bytes()) {
        Ok(_) => Ok(()),
        Err(refused) => {
            Err(Refusal { code: refused.code.to_string(), words: refused.words.to_owned() })
        }
    }
}

fn here(why: &str) -> Stop {
    Stop::Here { why: why.to_owned(), named: None }
}
