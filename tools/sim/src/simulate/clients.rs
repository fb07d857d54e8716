//! Text clients. They connect to any server, follow the primary, send requests, repeat some with
//! the same key, and misbehave.

use super::clock::{Event, Schedule};
use super::network::{CLIENTS, EndId, Message, Network, Owner};
use postern::rng::Rng;
use postern_testkit::checker::{History, OpId, Outcome, Request};
use std::collections::VecDeque;

const ACCOUNTS: [&str; 4] = ["ann", "bob", "cid", "dot"];
const PASSWORDS: [&str; 2] = ["password-one", "password-two"];
/// How long a client waits for an answer, in µs.
const ANSWER_TIMEOUT: u64 = 15_000_000;
const DIAL_TIMEOUT: u64 = 3_000_000;

/// The parts of the world that clients use.
pub(super) struct ClientIo<'a> {
    pub(super) now: u64,
    pub(super) net: &'a mut Network,
    pub(super) schedule: &'a mut Schedule,
}

/// The account that is deleted and created again from time to time.
const DELETED_ACCOUNT: usize = 3;

/// A request without an answer.
#[derive(Debug)]
struct Pending {
    /// The operation in the history, if it is checked.
    op: Option<OpId>,
    at: u64,
    kind: RequestKind,
}

/// The kind of a request, which determines the meaning of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestKind {
    Send,
    /// All messages after this one.
    Read(u64),
    LogIn,
    /// The new password of the account.
    Passwd(usize),
    Account,
    Other,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Connection {
    #[default]
    Down,
    Dialling {
        until: u64,
    },
    Open(EndId),
}

#[derive(Debug, Default)]
struct Client {
    number: u32,
    connection: Connection,
    /// The address of the primary, if a server has named it.
    hint: Option<usize>,
    account: usize,
    logged_in: bool,
    half_closed: bool,
    pending: VecDeque<Pending>,
    input: Vec<u8>,
    /// Number, sender and text of the messages since the previous answer.
    shown: Vec<(u64, String, String)>,
    /// The first message that the mailbox keeps, as far as it was told since the previous answer.
    kept_from: u64,
    /// The highest message number on this connection.
    last: u64,
    /// The number of its latest timer. Earlier ones are void.
    timer: u32,
    sent: u32,
    /// How long its texts are, at least.
    text_bytes: usize,
    /// Receiver, key and text of the latest message with a key. It may be sent again to any server.
    keyed: Option<(String, String, String)>,
}

impl Client {
    /// Returns the text of its next message, which no other message has. Some have two lines.
    fn text(&self) -> String {
        let end = if self.sent.is_multiple_of(8) { "␤" } else { "" };
        format!("c{}-{}{end}{}", self.number, self.sent, ".".repeat(self.text_bytes))
    }
}

/// Numbers of requests and of their answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) asked: u64,
    pub(super) sends: u64,
    pub(super) done: u64,
    pub(super) refused: u64,
}

impl Counts {
    /// Returns the numbers of successful, refused and unanswered requests.
    pub(super) fn all(self) -> [u64; 3] {
        [self.done, self.refused, self.asked - self.done - self.refused]
    }
}

/// All clients of a run.
pub(super) struct Clients {
    clients: Vec<Client>,
    rng: Rng,
    /// The mean time between two requests of a client, in µs.
    pace: u64,
    answer_timeout: u64,
    /// The password of each account, as far as known.
    passwords: [usize; 4],
    pub(super) history: History,
    pub(super) counts: Counts,
    /// They send no new requests.
    pub(super) quiet: bool,
}

impl Clients {
    pub(super) fn new(mut rng: Rng, schedule: &mut Schedule) -> Clients {
        let count = 2 + rng.below(5) as u32;
        // Between one and thirty seconds.
        let pace = (1e6 * 30f64.powf(rng.below(1001) as f64 / 1000.0)) as u64;
        let client = |number| Client {
            number,
            account: number as usize % ACCOUNTS.len(),
            ..Client::default()
        };
        for number in 0..count {
            schedule.add(rng.below(2_000_000), Event::Client(number, 0));
        }
        Clients { clients: (0..count).map(client).collect(), pace, ..Clients::none(rng) }
    }

    /// From now on all texts have at least so many bytes.
    pub(super) fn lengthen(&mut self, text_bytes: usize) {
        self.clients.iter_mut().for_each(|client| client.text_bytes = text_bytes);
    }

    /// No clients.
    pub(super) fn none(rng: Rng) -> Clients {
        Clients {
            clients: Vec::new(),
            rng,
            pace: 1_000_000,
            answer_timeout: ANSWER_TIMEOUT,
            passwords: [0; 4],
            history: History::new(),
            counts: Counts::default(),
            quiet: false,
        }
    }

    /// The number of requests that wait for an answer on open connections.
    pub(super) fn waiting(&self) -> usize {
        self.clients.iter().map(|client| client.pending.len()).sum()
    }

    /// From now on they send often, and have a short timeout.
    pub(super) fn speed_up(&mut self, io: &mut ClientIo<'_>) {
        (self.pace, self.answer_timeout) = (200_000, 2_000_000);
        self.wake_all(io);
    }

    pub(super) fn wake_all(&mut self, io: &mut ClientIo<'_>) {
        for at in 0..self.clients.len() {
            self.set_timer(at, 0, io);
        }
    }

    /// Handles the timer of a client.
    pub(super) fn on_timer(&mut self, number: u32, timer: u32, io: &mut ClientIo<'_>) {
        let at = number as usize;
        if self.clients[at].timer != timer {
            return;
        }
        let now = io.now;
        match self.clients[at].connection {
            Connection::Dialling { until } if now < until => {
                return self.set_timer(at, until - now, io);
            }
            Connection::Down | Connection::Dialling { .. } => self.dial(at, io),
            Connection::Open(end_id) => {
                let late = self.clients[at]
                    .pending
                    .front()
                    .is_some_and(|a| now >= a.at + self.answer_timeout);
                if late {
                    self.disconnect(at, end_id, Message::Reset, io);
                } else if !self.quiet {
                    self.send_requests(at, end_id, io);
                }
            }
        }
        let pause = if self.quiet { 1_000_000 } else { 1 + self.rng.below(2 * self.pace) };
        let pause = match self.clients[at].connection {
            Connection::Open(_) => pause,
            Connection::Down => pause.min(1_000_000),
            Connection::Dialling { .. } => DIAL_TIMEOUT,
        };
        self.set_timer(at, pause, io);
    }

    fn set_timer(&mut self, at: usize, pause: u64, io: &mut ClientIo<'_>) {
        let client = &mut self.clients[at];
        client.timer += 1;
        io.schedule.add(io.now + pause, Event::Client(client.number, client.timer));
    }

    fn dial(&mut self, at: usize, io: &mut ClientIo<'_>) {
        let anywhere = self.rng.below(3) as usize;
        let client = &mut self.clients[at];
        let to = client.hint.take().unwrap_or(anywhere);
        client.connection = Connection::Dialling { until: io.now + DIAL_TIMEOUT };
        let from = Owner { host: CLIENTS, generation: client.number };
        let delay = io.net.delay(CLIENTS, to);
        io.schedule.add(io.now + delay, Event::Dial { from, ticket: 0, to });
    }

    /// Handles a refused dial.
    pub(super) fn on_refused_dial(&mut self, number: u32, io: &mut ClientIo<'_>) {
        let at = number as usize;
        if let Connection::Dialling { .. } = self.clients[at].connection {
            self.clients[at].connection = Connection::Down;
            let pause = 50_000 + self.rng.below(1_000_000);
            self.set_timer(at, pause, io);
        }
    }

    fn disconnect(&mut self, at: usize, end_id: EndId, last: Message, io: &mut ClientIo<'_>) {
        io.net.send(end_id, last, io.now, io.schedule);
        io.net.close(end_id);
        io.net.free_if_unused(end_id);
        let client = &mut self.clients[at];
        client.connection = Connection::Down;
        (client.logged_in, client.half_closed) = (false, false);
        // Requests without an answer remain so in the history.
        client.pending.clear();
        client.input.clear();
        client.shown.clear();
        (client.kept_from, client.last) = (0, 0);
    }

    /// Handles a message that arrives at a client.
    pub(super) fn receive(
        &mut self,
        number: u32,
        end_id: EndId,
        message: Message,
        io: &mut ClientIo<'_>,
    ) {
        let at = number as usize;
        match message {
            Message::Accepted => {
                if let Connection::Dialling { .. } = self.clients[at].connection {
                    self.clients[at].connection = Connection::Open(end_id);
                    self.set_timer(at, 0, io);
                } else {
                    io.net.send(end_id, Message::Reset, io.now, io.schedule);
                    io.net.close(end_id);
                }
            }
            Message::Bytes(bytes) if self.clients[at].connection == Connection::Open(end_id) => {
                self.clients[at].input.extend_from_slice(&bytes);
                self.read_lines(at, io);
            }
            Message::Fin | Message::Reset
                if self.clients[at].connection == Connection::Open(end_id) =>
            {
                self.disconnect(at, end_id, Message::Fin, io);
                let pause = 1_000 + self.rng.below(500_000);
                self.set_timer(at, pause, io);
            }
            _ => {}
        }
    }

    fn read_lines(&mut self, at: usize, io: &mut ClientIo<'_>) {
        let mut input = std::mem::take(&mut self.clients[at].input);
        let complete = input.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = input.split_off(complete);
        for line in String::from_utf8_lossy(&input).lines() {
            self.read_line(at, line, io);
        }
        self.clients[at].input = rest;
    }

    fn read_line(&mut self, at: usize, line: &str, io: &mut ClientIo<'_>) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "MSG" => {
                let mut parts = rest.splitn(4, ' ');
                let number = parts.next().and_then(|n| n.parse().ok());
                let (Some(number), Some(from)) = (number, parts.nth(1)) else { return };
                let text = parts.next().unwrap_or("").to_owned();
                self.clients[at].shown.push((number, from.to_owned(), text));
                self.clients[at].last = number;
            }
            "NOTE" => {
                let first = rest.strip_prefix("kept-from ").and_then(|rest| rest.split(' ').next());
                if let Some(first) = first.and_then(|first| first.parse().ok()) {
                    self.clients[at].kept_from = first;
                    self.clients[at].shown.clear();
                }
            }
            "OK" => self.on_done(at, rest, io.now),
            "ERR" => self.on_refused(at, rest, io),
            _ => {}
        }
    }

    fn on_done(&mut self, at: usize, rest: &str, now: u64) {
        let client = &mut self.clients[at];
        let shown = std::mem::take(&mut client.shown);
        let kept_from = std::mem::take(&mut client.kept_from);
        let Some(asked) = client.pending.pop_front() else { return };
        let number = rest.parse().unwrap_or(0);
        self.counts.done += 1;
        self.counts.sends += u64::from(asked.kind == RequestKind::Send);
        match asked.kind {
            RequestKind::LogIn => (client.logged_in, client.last) = (true, number),
            RequestKind::Passwd(password) => self.passwords[client.account] = password,
            _ => {}
        }
        let outcome = match asked.kind {
            RequestKind::Send => Outcome::Stored(number),
            RequestKind::Read(after) => {
                let after = after.max(kept_from.saturating_sub(1));
                // Messages that were pushed before the server had the request come first.
                let read = usize::try_from(number.saturating_sub(after)).unwrap_or(usize::MAX);
                Outcome::Read(shown[shown.len().saturating_sub(read)..].to_vec())
            }
            _ => Outcome::Done,
        };
        if let Some(op) = asked.op {
            if let RequestKind::Read(_) = asked.kind
                && kept_from > 0
            {
                self.history.kept_from(op, kept_from);
            }
            self.history.answered(op, now, outcome);
        }
    }

    fn on_refused(&mut self, at: usize, rest: &str, io: &mut ClientIo<'_>) {
        let mut words = rest.split(' ');
        let code = words.next().unwrap_or("");
        let client = &mut self.clients[at];
        if code == "not-primary" {
            let server = words.next().and_then(|address| address.as_bytes().get(1));
            let server = server.and_then(|digit| digit.checked_sub(b'1')).map(usize::from);
            client.hint = server.filter(|server| *server < 3);
            self.set_timer(at, 1_000, io);
        }
        let client = &mut self.clients[at];
        if let Some(asked) = client.pending.pop_front() {
            if asked.kind == RequestKind::LogIn && code == "wrong-password" {
                // Another client changed it, or a change had an unknown outcome.
                self.passwords[client.account] = 1 - self.passwords[client.account];
            }
            self.counts.refused += 1;
            // A group that can say so works.
            self.counts.sends += u64::from(code == "mailbox-full");
            if let Some(op) = asked.op {
                let unknown = code == "unknown-outcome";
                let refused = Outcome::Refused(code.to_owned());
                let outcome = if unknown { Outcome::Unknown } else { refused };
                self.history.answered(op, io.now, outcome);
            }
        }
        let client = &mut self.clients[at];
        client.shown.clear();
        client.kept_from = 0;
        if let Connection::Open(end_id) = client.connection
            && code == "not-primary"
            && client.pending.is_empty()
        {
            self.disconnect(at, end_id, Message::Fin, io);
        }
    }

    /// Sends one or several requests, and sometimes misbehaves.
    fn send_requests(&mut self, at: usize, end_id: EndId, io: &mut ClientIo<'_>) {
        if self.clients[at].half_closed {
            return;
        }
        let mut bytes = Vec::new();
        let requests = if self.rng.below(10) == 0 { 1 + self.rng.below(12) } else { 1 };
        for _ in 0..requests {
            self.add_request(at, &mut bytes, io.now);
        }
        let misbehavior = self.rng.below(200);
        if misbehavior == 0 {
            bytes.extend_from_slice(b"SEND ann half a li");
        }
        io.net.send(end_id, Message::Bytes(bytes), io.now, io.schedule);
        match misbehavior {
            0 | 1 => self.disconnect(at, end_id, Message::Reset, io),
            2 => {
                self.clients[at].half_closed = true;
                io.net.send(end_id, Message::Fin, io.now, io.schedule);
            }
            3 => {
                // The machine of the client loses power.
                io.net.close_without_sending(end_id);
                self.clients[at].pending.clear();
                self.clients[at].connection = Connection::Down;
                self.clients[at].logged_in = false;
            }
            _ => {}
        }
    }

    /// Returns a message with a key: the previous one again, which may have been stored or not, or
    /// a new one, or rarely the previous key with another text.
    fn keyed(&mut self, at: usize, to: &str) -> (String, String, String) {
        let client = &mut self.clients[at];
        let text = client.text();
        let key = format!("kc{}-{}", client.number, client.sent);
        let new = (to.to_owned(), key, text.clone());
        match (&client.keyed, self.rng.below(20)) {
            (Some(before), 0..12) => before.clone(),
            (Some((to, key, _)), 12) => (to.clone(), key.clone(), text),
            _ => client.keyed.insert(new).clone(),
        }
    }

    fn add_request(&mut self, at: usize, bytes: &mut Vec<u8>, now: u64) {
        let other = ACCOUNTS[self.rng.below(4) as usize];
        let choice = self.rng.below(100);
        let (line, kind, request) = if self.clients[at].logged_in {
            self.session_request(at, choice, other)
        } else {
            self.login_request(at, choice)
        };
        let client = &mut self.clients[at];
        if line == "LOGOUT" || line.starts_with("DELETE") {
            client.logged_in = false;
        }
        client.sent += 1;
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        let op = request.map(|request| self.history.asked(client.number, now, request));
        self.counts.asked += 1;
        client.pending.push_back(Pending { op, at: now, kind });
    }

    /// Returns a request of a client that is not logged in.
    fn login_request(&mut self, at: usize, choice: u64) -> (String, RequestKind, Option<Request>) {
        let account = self.clients[at].account;
        let (name, password) = (ACCOUNTS[account], PASSWORDS[self.passwords[account]]);
        match choice {
            0..40 => {
                let request = Request::Create { user: name.to_owned() };
                (format!("CREATE {name} {password}"), RequestKind::Account, Some(request))
            }
            40..90 => {
                let after = ["", " end", " -3", " 0"][self.rng.below(4) as usize];
                (format!("LOGIN {name} {password}{after}"), RequestKind::LogIn, None)
            }
            90..95 => ("STATUS".to_owned(), RequestKind::Other, None),
            _ => ("PING x".to_owned(), RequestKind::Other, None),
        }
    }

    /// Returns a request of a client that is logged in.
    fn session_request(
        &mut self,
        at: usize,
        choice: u64,
        other: &str,
    ) -> (String, RequestKind, Option<Request>) {
        let client = &self.clients[at];
        let account = client.account;
        let (user, password) = (ACCOUNTS[account].to_owned(), PASSWORDS[self.passwords[account]]);
        let other_line = match choice {
            0..45 => {
                let text = client.text();
                let line = format!("SEND {other} {text}");
                let request = Request::Send { to: other.to_owned(), from: user, text, key: None };
                return (line, RequestKind::Send, Some(request));
            }
            45..70 => {
                let (to, key, text) = self.keyed(at, other);
                let line = format!("ONCE {key} {to} {text}");
                let request = Request::Send { to, from: user, text, key: Some(key) };
                return (line, RequestKind::Send, Some(request));
            }
            70..83 => {
                let after = client.last.saturating_sub(self.rng.below(30));
                let request = Request::Read { mailbox: user, after };
                return (format!("LOG {after}"), RequestKind::Read(after), Some(request));
            }
            93..96 => {
                let new = 1 - self.passwords[account];
                let line = format!("PASSWD {password} {}", PASSWORDS[new]);
                return (line, RequestKind::Passwd(new), Some(Request::Passwd { user }));
            }
            96 if account == DELETED_ACCOUNT => {
                let line = format!("DELETE {user} {password}");
                return (line, RequestKind::Account, Some(Request::Delete { user }));
            }
            83..86 => "LOG 0 10",
            86 => "LOG -5",
            87..90 => "LIST",
            90..93 => "STATUS",
            96 | 97 => "LOGOUT",
            98 => "NONSENSE",
            _ => "QUIT",
        };
        (other_line.to_owned(), RequestKind::Other, None)
    }
}
