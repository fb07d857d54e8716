//! The crowd: text clients that connect anywhere, follow the primary, ask, ask again with the same
//! key, and misbehave.

use super::clock::{Schedule, What};
use super::network::{CLIENTS, Message, Network, Place};
use postern::rng::Rng;
use postern_testkit::checker::{History, OpId, Outcome, Request};
use std::collections::VecDeque;

const ACCOUNTS: [&str; 4] = ["ann", "bob", "cid", "dot"];
const PASSWORDS: [&str; 2] = ["password-one", "password-two"];
/// Who waits for an answer for so long gives up, in µs.
const PATIENCE: u64 = 15_000_000;
const DIAL_PATIENCE: u64 = 3_000_000;

/// What a client needs of the world.
pub(super) struct Hands<'a> {
    pub(super) now: u64,
    pub(super) net: &'a mut Network,
    pub(super) schedule: &'a mut Schedule,
}

/// Of these accounts one is deleted and made anew now and then.
const MORTAL: usize = 3;

/// A request under way.
#[derive(Debug)]
struct Asked {
    /// Its place in the history, if it has one.
    op: Option<OpId>,
    at: u64,
    ask: Ask,
}

/// What a client must know of a request to understand its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Send,
    /// All messages behind this one.
    Read(u64),
    LogIn,
    /// This will be the account's password.
    Passwd(usize),
    Account,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Down,
    Dialling { until: u64 },
    Open(Place),
}

#[derive(Debug)]
struct Client {
    number: u32,
    line: Line,
    /// Where it dials next, if it was told.
    hint: Option<u8>,
    account: usize,
    logged_in: bool,
    half_closed: bool,
    asked: VecDeque<Asked>,
    input: Vec<u8>,
    /// Number, sender and text of what was shown since the answer before.
    shown: Vec<(u64, String, String)>,
    /// The greatest number that it was shown on this connection.
    last: u64,
    /// Tells its newest timer from older ones.
    serial: u32,
    sent: u32,
    /// What it sent last with a key: receiver, key, text. It may send that again, anywhere.
    keyed: Option<(String, String, String)>,
}

/// How many requests ended how; those without an answer are the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) asked: u64,
    pub(super) sends: u64,
    pub(super) done: u64,
    pub(super) refused: u64,
}

impl Counts {
    /// Answered, refused, and neither.
    pub(super) fn all(self) -> (u64, u64, u64) {
        (self.done, self.refused, self.asked - self.done - self.refused)
    }
}

/// All clients of a world.
pub(super) struct Crowd {
    clients: Vec<Client>,
    rng: Rng,
    /// Mean time between two things that a client does, in µs.
    pace: u64,
    patience: u64,
    /// Which password each account has, as far as is known.
    passwords: [usize; 4],
    pub(super) history: History,
    pub(super) counts: Counts,
    /// They ask nothing new.
    pub(super) quiet: bool,
}

impl Crowd {
    pub(super) fn new(mut rng: Rng, schedule: &mut Schedule) -> Crowd {
        let count = 2 + rng.below(5) as u32;
        // Between one and thirty seconds.
        let pace = (1e6 * 30f64.powf(rng.below(1001) as f64 / 1000.0)) as u64;
        let client = |number| Client {
            number,
            line: Line::Down,
            hint: None,
            account: number as usize % ACCOUNTS.len(),
            logged_in: false,
            half_closed: false,
            asked: VecDeque::new(),
            input: Vec::new(),
            shown: Vec::new(),
            last: 0,
            serial: 0,
            sent: 0,
            keyed: None,
        };
        for number in 0..count {
            schedule.add(rng.below(2_000_000), What::Client { client: number, serial: 0 });
        }
        Crowd { clients: (0..count).map(client).collect(), pace, ..Crowd::nobody(rng) }
    }

    /// A crowd of none.
    pub(super) fn nobody(rng: Rng) -> Crowd {
        Crowd {
            clients: Vec::new(),
            rng,
            pace: 1_000_000,
            patience: PATIENCE,
            passwords: [0; 4],
            history: History::new(),
            counts: Counts::default(),
            quiet: false,
        }
    }

    /// How many requests wait for an answer on open connections.
    pub(super) fn waiting(&self) -> usize {
        self.clients.iter().map(|client| client.asked.len()).sum()
    }

    /// From now on they ask often, and wait for nobody for long.
    pub(super) fn hurry(&mut self, hands: &mut Hands<'_>) {
        (self.pace, self.patience) = (200_000, 2_000_000);
        self.wake_all(hands);
    }

    pub(super) fn wake_all(&mut self, hands: &mut Hands<'_>) {
        for at in 0..self.clients.len() {
            self.set_timer(at, 0, hands);
        }
    }

    /// A client's timer rings.
    pub(super) fn ring(&mut self, number: u32, serial: u32, hands: &mut Hands<'_>) {
        let at = number as usize;
        if self.clients[at].serial != serial {
            return;
        }
        let now = hands.now;
        match self.clients[at].line {
            Line::Dialling { until } if now < until => {
                return self.set_timer(at, until - now, hands);
            }
            Line::Down | Line::Dialling { .. } => self.dial(at, hands),
            Line::Open(place) => {
                let late =
                    self.clients[at].asked.front().is_some_and(|a| now >= a.at + self.patience);
                if late {
                    self.drop_line(at, place, Message::Reset, hands);
                } else if !self.quiet {
                    self.act(at, place, hands);
                }
            }
        }
        let pause = if self.quiet { 1_000_000 } else { 1 + self.rng.below(2 * self.pace) };
        let pause = match self.clients[at].line {
            Line::Open(_) => pause,
            Line::Down => pause.min(1_000_000),
            Line::Dialling { .. } => DIAL_PATIENCE,
        };
        self.set_timer(at, pause, hands);
    }

    fn set_timer(&mut self, at: usize, pause: u64, hands: &mut Hands<'_>) {
        let client = &mut self.clients[at];
        client.serial += 1;
        let what = What::Client { client: client.number, serial: client.serial };
        hands.schedule.add(hands.now + pause, what);
    }

    fn dial(&mut self, at: usize, hands: &mut Hands<'_>) {
        let anywhere = self.rng.below(3) as u8;
        let client = &mut self.clients[at];
        let to = client.hint.take().unwrap_or(anywhere);
        client.line = Line::Dialling { until: hands.now + DIAL_PATIENCE };
        let (from, life) = (CLIENTS as u8, client.number);
        let delay = hands.net.delay(from, to);
        hands.schedule.add(hands.now + delay, What::Dial { from, life, ticket: 0, to });
    }

    /// A dial was refused.
    pub(super) fn refused(&mut self, number: u32, hands: &mut Hands<'_>) {
        let at = number as usize;
        if let Line::Dialling { .. } = self.clients[at].line {
            self.clients[at].line = Line::Down;
            let pause = 50_000 + self.rng.below(1_000_000);
            self.set_timer(at, pause, hands);
        }
    }

    fn drop_line(&mut self, at: usize, place: Place, last: Message, hands: &mut Hands<'_>) {
        hands.net.send(place, last, hands.now, hands.schedule);
        hands.net.let_go(place);
        hands.net.sweep(place);
        let client = &mut self.clients[at];
        client.line = Line::Down;
        (client.logged_in, client.half_closed) = (false, false);
        // What was not answered stays open for ever.
        client.asked.clear();
        client.input.clear();
        client.shown.clear();
        client.last = 0;
    }

    /// Something arrives at a client's end.
    pub(super) fn receive(
        &mut self,
        number: u32,
        place: Place,
        what: Message,
        hands: &mut Hands<'_>,
    ) {
        let at = number as usize;
        match what {
            Message::Taken => {
                if let Line::Dialling { .. } = self.clients[at].line {
                    self.clients[at].line = Line::Open(place);
                    self.set_timer(at, 0, hands);
                } else {
                    hands.net.send(place, Message::Reset, hands.now, hands.schedule);
                    hands.net.let_go(place);
                }
            }
            Message::Bytes(bytes) if self.clients[at].line == Line::Open(place) => {
                self.clients[at].input.extend_from_slice(&bytes);
                self.read_lines(at, hands);
            }
            Message::Fin | Message::Reset if self.clients[at].line == Line::Open(place) => {
                self.drop_line(at, place, Message::Fin, hands);
                let pause = 1_000 + self.rng.below(500_000);
                self.set_timer(at, pause, hands);
            }
            _ => {}
        }
    }

    fn read_lines(&mut self, at: usize, hands: &mut Hands<'_>) {
        let input = std::mem::take(&mut self.clients[at].input);
        let mut rest = &input[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&rest[..end]);
            self.read_line(at, &line, hands);
            rest = &rest[end + 1..];
        }
        self.clients[at].input = rest.to_vec();
    }

    fn read_line(&mut self, at: usize, line: &str, hands: &mut Hands<'_>) {
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
            "OK" => self.on_done(at, rest, hands.now),
            "ERR" => self.on_refused(at, rest, hands),
            _ => {}
        }
    }

    fn on_done(&mut self, at: usize, rest: &str, now: u64) {
        let client = &mut self.clients[at];
        let shown = std::mem::take(&mut client.shown);
        let Some(asked) = client.asked.pop_front() else { return };
        let number = rest.parse().unwrap_or(0);
        self.counts.done += 1;
        self.counts.sends += u64::from(asked.ask == Ask::Send);
        match asked.ask {
            Ask::LogIn => (client.logged_in, client.last) = (true, number),
            Ask::Passwd(password) => self.passwords[client.account] = password,
            _ => {}
        }
        let outcome = match asked.ask {
            Ask::Send => Outcome::Stored(number),
            Ask::Read(after) => {
                // What was pushed while the request was on its way came first.
                let read = usize::try_from(number.saturating_sub(after)).unwrap_or(usize::MAX);
                Outcome::Read(shown[shown.len().saturating_sub(read)..].to_vec())
            }
            _ => Outcome::Done,
        };
        if let Some(op) = asked.op {
            self.history.answered(op, now, outcome);
        }
    }

    fn on_refused(&mut self, at: usize, rest: &str, hands: &mut Hands<'_>) {
        let mut words = rest.split(' ');
        let code = words.next().unwrap_or("");
        let client = &mut self.clients[at];
        if code == "not-primary" {
            let server = words.next().and_then(|address| address.as_bytes().get(1));
            let server = server.and_then(|digit| digit.checked_sub(b'1'));
            client.hint = server.filter(|server| *server < 3);
            self.set_timer(at, 1_000, hands);
        }
        let client = &mut self.clients[at];
        if let Some(asked) = client.asked.pop_front() {
            if asked.ask == Ask::LogIn && code == "wrong-password" {
                // Someone else changed it, or nobody knows whether it was changed.
                self.passwords[client.account] = 1 - self.passwords[client.account];
            }
            self.counts.refused += 1;
            if let Some(op) = asked.op {
                let unknown = code == "unknown-outcome";
                let refused = Outcome::Refused(code.to_owned());
                let outcome = if unknown { Outcome::Unknown } else { refused };
                self.history.answered(op, hands.now, outcome);
            }
        }
        let client = &mut self.clients[at];
        client.shown.clear();
        if let Line::Open(place) = client.line
            && code == "not-primary"
            && client.asked.is_empty()
        {
            self.drop_line(at, place, Message::Fin, hands);
        }
    }

    fn say(&mut self, place: Place, bytes: Vec<u8>, hands: &mut Hands<'_>) {
        hands.net.send(place, Message::Bytes(bytes), hands.now, hands.schedule);
    }

    /// One request, or a few at once, or something rude.
    fn act(&mut self, at: usize, place: Place, hands: &mut Hands<'_>) {
        if self.clients[at].half_closed {
            return;
        }
        let mut bytes = Vec::new();
        let requests = if self.rng.below(10) == 0 { 1 + self.rng.below(12) } else { 1 };
        for _ in 0..requests {
            self.ask_something(at, &mut bytes, hands.now);
        }
        let rude = self.rng.below(200);
        if rude == 0 {
            bytes.extend_from_slice(b"SEND ann half a li");
        }
        self.say(place, bytes, hands);
        match rude {
            0 | 1 => self.drop_line(at, place, Message::Reset, hands),
            2 => {
                self.clients[at].half_closed = true;
                hands.net.send(place, Message::Fin, hands.now, hands.schedule);
            }
            3 => {
                // Gone without a word: its machine is off.
                hands.net.forget(place);
                self.clients[at].asked.clear();
                self.clients[at].line = Line::Down;
                self.clients[at].logged_in = false;
            }
            _ => {}
        }
    }

    /// A message with a key: mostly a new one, else the one before again, which may have been
    /// stored, here or elsewhere, or not; now and then the same key with another text.
    fn keyed(&mut self, at: usize, to: &str) -> (String, String, String) {
        let client = &mut self.clients[at];
        let text = format!("c{}-{}", client.number, client.sent);
        let new = (to.to_owned(), format!("k{text}"), text.clone());
        match (&client.keyed, self.rng.below(20)) {
            (Some(before), 0..12) => before.clone(),
            (Some((to, key, _)), 12) => (to.clone(), key.clone(), text),
            _ => client.keyed.insert(new).clone(),
        }
    }

    fn ask_something(&mut self, at: usize, bytes: &mut Vec<u8>, now: u64) {
        let client = &self.clients[at];
        let account = client.account;
        let (name, password) = (ACCOUNTS[account], PASSWORDS[self.passwords[account]]);
        let other = ACCOUNTS[self.rng.below(4) as usize];
        let choice = self.rng.below(100);
        let (mut ask, mut request) = (Ask::Other, None);
        let user = || name.to_owned();
        let line = if !client.logged_in {
            match choice {
                0..40 => {
                    (ask, request) = (Ask::Account, Some(Request::Create { user: user() }));
                    format!("CREATE {name} {password}")
                }
                40..90 => {
                    ask = Ask::LogIn;
                    let after = ["", " end", " -3", " 0"][self.rng.below(4) as usize];
                    format!("LOGIN {name} {password}{after}")
                }
                90..95 => "STATUS".to_owned(),
                _ => "PING x".to_owned(),
            }
        } else {
            match choice {
                0..45 => {
                    let text = format!("c{}-{}", client.number, client.sent);
                    let (to, from) = (other.to_owned(), user());
                    ask = Ask::Send;
                    request = Some(Request::Send { to, from, text: text.clone(), key: None });
                    format!("SEND {other} {text}")
                }
                45..70 => {
                    let (to, key, text) = self.keyed(at, other);
                    ask = Ask::Send;
                    let line = format!("ONCE {key} {to} {text}");
                    request = Some(Request::Send { to, from: user(), text, key: Some(key) });
                    line
                }
                70..83 => {
                    let after = client.last.saturating_sub(self.rng.below(30));
                    ask = Ask::Read(after);
                    request = Some(Request::Read { mailbox: user(), after });
                    format!("LOG {after}")
                }
                83..86 => "LOG 0 10".to_owned(),
                86 => "LOG -5".to_owned(),
                87..90 => "LIST".to_owned(),
                90..93 => "STATUS".to_owned(),
                93..96 => {
                    let new = 1 - self.passwords[account];
                    (ask, request) = (Ask::Passwd(new), Some(Request::Passwd { user: user() }));
                    format!("PASSWD {password} {}", PASSWORDS[new])
                }
                96 if account == MORTAL => {
                    (ask, request) = (Ask::Account, Some(Request::Delete { user: user() }));
                    format!("DELETE {name} {password}")
                }
                96 | 97 => "LOGOUT".to_owned(),
                98 => "NONSENSE".to_owned(),
                _ => "QUIT".to_owned(),
            }
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
        client.asked.push_back(Asked { op, at: now, ask });
    }
}
