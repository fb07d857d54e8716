//! Checks whether a history is linearizable: the requests and answers of all clients, with their
//! times, and the final contents of the mailboxes.
//!
//! Message numbers are dense and part of the answers. The order of a mailbox is therefore known,
//! and the checker need not search for one. The *floor* of a request is the highest number that
//! any answer had returned before the request was sent. A message that the request stores must
//! have a higher number, and a read must reach at least the floor.

mod sent;

pub use sent::{Sent, check_sent};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// Names a request in its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(usize);

/// A request. Names are in lower case, as the server writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// SEND, or ONCE if it has a key. The checker assumes that servers never forget a key.
    Send {
        /// The receiver.
        to: String,
        /// The sender.
        from: String,
        /// The text of the message.
        text: String,
        /// The key, which is unique to the sender.
        key: Option<String>,
    },
    /// LOG or LOGIN without a limit: a read to the end of the mailbox.
    Read {
        /// The owner of the mailbox.
        mailbox: String,
        /// The read starts after this number.
        after: u64,
    },
    /// CREATE.
    Create {
        /// The account.
        user: String,
    },
    /// DELETE. The mailbox may start from number 1 again, so most checks skip it.
    Delete {
        /// The account.
        user: String,
    },
    /// PASSWD.
    Passwd {
        /// The account.
        user: String,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The message has this number.
    Stored(u64),
    /// The number, sender and text of each message.
    Read(Vec<(u64, String, String)>),
    /// The account was changed.
    Done,
    /// The request has no effect and never will have one. Holds the code of the refusal.
    Refused(String),
    /// The request may take effect once, at any later time, or never.
    Unknown,
}

/// The property that a finding violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Numbers have no gap, and all reads agree.
    Dense,
    /// Acknowledged messages are stored; refused messages, and messages never sent, are not.
    Kept,
    /// All requests with one key have one effect and one number.
    Once,
    /// A message that was acknowledged or read has a lower number than every message that is sent
    /// later, and every later read includes it.
    RealTime,
}

/// Why no correct group can have a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The violated property.
    pub check: Check,
    /// The violation, with the requests involved.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.message)
    }
}

impl std::error::Error for Finding {}

/// The requests of all clients. A client has one connection at a time, and its requests must be
/// recorded in the order in which it sends them. Those of different clients may interleave.
#[derive(Clone, Debug, Default)]
pub struct History {
    ops: Vec<Op>,
}

#[derive(Clone, Debug)]
struct Op {
    client: u32,
    asked_at: u64,
    request: Request,
    answered_at: u64,
    /// `Unknown` until the answer arrives.
    outcome: Outcome,
}

/// The highest number that an answer had returned before a request was sent, and that answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Floor {
    number: u64,
    known_by: usize,
}

/// The message that a SEND, or all ONCEs with one key together, may have stored.
struct Effect {
    /// One of the requests that may have stored it.
    op: usize,
    /// The lowest floor of these requests.
    floor: Floor,
    stored: Option<u64>,
}

impl History {
    /// Returns the history without requests, in which every mailbox is empty.
    pub fn new() -> History {
        History::default()
    }

    /// Records a request. `at` is a time before its first byte is sent.
    pub fn asked(&mut self, client: u32, at: u64, request: Request) -> OpId {
        let outcome = Outcome::Unknown;
        self.ops.push(Op { client, asked_at: at, request, answered_at: u64::MAX, outcome });
        OpId(self.ops.len() - 1)
    }

    /// Records an answer. `at` is a time after its last byte was read.
    ///
    /// # Panics
    /// Panics if the request has an answer already, or cannot have this one.
    pub fn answered(&mut self, op: OpId, at: u64, outcome: Outcome) {
        let op = &mut self.ops[op.0];
        let fits = match (&op.request, &outcome) {
            (_, Outcome::Refused(_) | Outcome::Unknown) => true,
            (Request::Send { .. }, outcome) => matches!(outcome, Outcome::Stored(_)),
            (Request::Read { .. }, outcome) => matches!(outcome, Outcome::Read(_)),
            (_, outcome) => matches!(outcome, Outcome::Done),
        };
        assert!(fits, "{:?} is not answered by {outcome:?}", op.request);
        assert!(op.outcome == Outcome::Unknown, "{:?} is answered twice", op.request);
        assert!(at >= op.asked_at, "{:?} is answered before it was asked", op.request);
        (op.answered_at, op.outcome) = (at, outcome);
    }

    /// Records that the answer to a read begins with message `first`, since the mailbox no longer
    /// keeps those before it.
    ///
    /// # Panics
    /// Panics if the request is no read.
    pub fn kept_from(&mut self, op: OpId, first: u64) {
        let Request::Read { after, .. } = &mut self.ops[op.0].request else {
            panic!("only a read begins somewhere");
        };
        *after = (*after).max(first - 1);
    }

    /// How many requests there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether nothing was asked.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Checks the history. `last` holds the sender and text of every message in each mailbox, in
    /// order, as read after the last answer. A mailbox that is missing there is empty.
    ///
    /// # Errors
    /// Returns the first violation. There are no false alarms.
    pub fn check(&self, last: &BTreeMap<String, Vec<(String, String)>>) -> Result<(), Finding> {
        let deleted = self.may_be_deleted();
        let mut mailboxes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for mailbox in last.keys() {
            mailboxes.insert(mailbox, Vec::new());
        }
        for (at, op) in self.ops.iter().enumerate() {
            if let Request::Send { to: mailbox, .. } | Request::Read { mailbox, .. } = &op.request {
                mailboxes.entry(mailbox).or_default().push(at);
            }
        }
        self.check_keys(&deleted)?;
        for (name, ops) in mailboxes {
            let contents = last.get(name).map_or(&[][..], Vec::as_slice);
            let mailbox = Mailbox { history: self, name, contents, deleted: &deleted };
            mailbox.check(&ops)?;
        }
        Ok(())
    }

    fn may_be_deleted(&self) -> BTreeSet<&str> {
        let deleted = self.ops.iter().filter_map(|op| match &op.request {
            Request::Delete { user } if !op.is_refused() => Some(user.as_str()),
            _ => None,
        });
        deleted.collect()
    }

    /// Checks that all answers to requests with one key are the same.
    fn check_keys(&self, deleted: &BTreeSet<&str>) -> Result<(), Finding> {
        let mut first: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (at, op) in self.ops.iter().enumerate() {
            let Some(key) = op.live_key(deleted) else { continue };
            if !matches!(op.outcome, Outcome::Stored(_)) {
                continue;
            }
            let earlier = &self.ops[*first.entry(key).or_insert(at)];
            let same = earlier.message() == op.message() && earlier.outcome == op.outcome;
            if !same {
                let message = format!("one key had two effects: {earlier}; {op}");
                return Err(Finding { check: Check::Once, message });
            }
        }
        Ok(())
    }
}

impl Op {
    fn is_refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused(_))
    }

    /// The receiver, sender and text of a message.
    fn message(&self) -> Option<(&str, &str, &str)> {
        match &self.request {
            Request::Send { to, from, text, .. } => Some((to, from, text)),
            _ => None,
        }
    }

    /// The sender and key, unless one of the two accounts may have been deleted: the servers forget
    /// a key together with either.
    fn live_key(&self, deleted: &BTreeSet<&str>) -> Option<(&str, &str)> {
        match &self.request {
            Request::Send { to, from, key: Some(key), .. } => {
                let live = !deleted.contains(&to[..]) && !deleted.contains(&from[..]);
                live.then_some((from, key))
            }
            _ => None,
        }
    }

    fn has_key(&self) -> bool {
        matches!(self.request, Request::Send { key: Some(_), .. })
    }

    /// Returns whether both are attempts to send one message under one key.
    fn may_repeat(&self, other: &Op) -> bool {
        self.has_key() && self.request == other.request
    }

    /// The length of the mailbox that the answer proves.
    fn proven_length(&self) -> Option<u64> {
        match (&self.request, &self.outcome) {
            (_, Outcome::Stored(n)) => Some(*n),
            (Request::Read { after, .. }, Outcome::Read(messages)) => {
                Some(after + messages.len() as u64)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} sent `", self.client)?;
        match &self.request {
            Request::Send { to, from, text, key: None } => write!(f, "{from}: SEND {to} {text}"),
            Request::Send { to, from, text, key: Some(key) } => {
                write!(f, "{from}: ONCE {key} {to} {text}")
            }
            Request::Read { mailbox, after } => write!(f, "{mailbox}: LOG {after}"),
            Request::Create { user } => write!(f, "CREATE {user}"),
            Request::Delete { user } => write!(f, "{user}: DELETE"),
            Request::Passwd { user } => write!(f, "{user}: PASSWD"),
        }?;
        write!(f, "` at {}, ", self.asked_at)?;
        let at = self.answered_at;
        match &self.outcome {
            Outcome::Stored(n) => write!(f, "answer at {at}: number {n}"),
            Outcome::Read(list) => write!(f, "answer at {at}: {} messages", list.len()),
            Outcome::Done => write!(f, "answer at {at}: done"),
            Outcome::Refused(code) => write!(f, "answer at {at}: refused ({code})"),
            Outcome::Unknown => write!(f, "outcome unknown"),
        }
    }
}

struct Mailbox<'a> {
    history: &'a History,
    name: &'a str,
    contents: &'a [(String, String)],
    deleted: &'a BTreeSet<&'a str>,
}

impl<'a> Mailbox<'a> {
    /// `ops` are the SENDs to this mailbox and the reads of it.
    fn check(&self, ops: &[usize]) -> Result<(), Finding> {
        let intact = !self.deleted.contains(self.name);
        for op in ops.iter().map(|at| self.op(*at)) {
            self.check_read(op, intact)?;
        }
        // Of a mailbox that may have been deleted, only one fact is known: its texts were sent.
        let floors = if intact { self.floors(ops) } else { vec![Floor::default(); ops.len()] };
        let mut effects = self.effects(ops, &floors);
        let unclaimed = if intact {
            self.claim(&mut effects)?
        } else {
            effects.iter_mut().for_each(|effect| effect.stored = None);
            (1..=self.contents.len() as u64).collect()
        };
        self.explain(&unclaimed, &mut effects, ops)?;
        self.check_floors(&effects)?;
        for (at, Floor { number, known_by }) in ops.iter().zip(floors) {
            let op = self.op(*at);
            if matches!(op.outcome, Outcome::Read(_)) && op.proven_length() < Some(number) {
                let earlier = self.op(known_by);
                let why = format!("a read ends before number {number}: {op}; earlier, {earlier}");
                return self.found(Check::RealTime, &why);
            }
        }
        Ok(())
    }

    fn op(&self, at: usize) -> &'a Op {
        &self.history.ops[at]
    }

    fn found<T>(&self, check: Check, why: &str) -> Result<T, Finding> {
        Err(Finding { check, message: format!("mailbox {}: {why}", self.name) })
    }

    fn at(&self, number: u64) -> Option<(&'a str, &'a str)> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.contents.get(at).map(|(from, text)| (from.as_str(), text.as_str()))
    }

    /// The final message with a number, for a report.
    fn describe(&self, number: u64) -> String {
        self.at(number).map_or("missing".to_owned(), |(from, text)| format!("`{from}: {text}`"))
    }

    /// Checks that numbers have no gap, and that each message read equals the final message with
    /// its number. It follows that all reads agree.
    fn check_read(&self, op: &Op, intact: bool) -> Result<(), Finding> {
        let (Request::Read { after, .. }, Outcome::Read(messages)) = (&op.request, &op.outcome)
        else {
            return Ok(());
        };
        for ((number, from, text), expected) in messages.iter().zip(after + 1..) {
            if *number != expected {
                let why = format!("number {number} was read in place of {expected}: {op}");
                return self.found(Check::Dense, &why);
            }
            if intact && self.at(expected) != Some((from, text)) {
                let last = self.describe(expected);
                let why = format!(
                    "number {number} was read as `{from}: {text}`, but finally it is {last}: {op}"
                );
                return self.found(Check::Dense, &why);
            }
        }
        if intact && op.proven_length() > Some(self.contents.len() as u64) {
            let end = self.contents.len();
            let why = format!("a read beyond the last number {end} was answered: {op}");
            return self.found(Check::Dense, &why);
        }
        Ok(())
    }

    /// Returns the floor of each request.
    fn floors(&self, ops: &[usize]) -> Vec<Floor> {
        let mut known: Vec<(u64, Floor)> = Vec::new();
        for at in ops {
            let op = self.op(*at);
            if let Some(number) = op.proven_length() {
                known.push((op.answered_at, Floor { number, known_by: *at }));
            }
        }
        known.sort_unstable();
        let mut highest = Floor::default();
        for (_, floor) in &mut known {
            highest = highest.max(*floor);
            *floor = highest;
        }
        // The requests of one client are ordered even if times are equal or requests are pipelined.
        let mut clients: BTreeMap<u32, Floor> = BTreeMap::new();
        let floor = |at: &usize| {
            let op = self.op(*at);
            let before = known.partition_point(|(answered, _)| *answered < op.asked_at);
            let all = before.checked_sub(1).map_or(Floor::default(), |at| known[at].1);
            let own = clients.entry(op.client).or_default();
            let floor = all.max(*own);
            if let Some(number) = op.proven_length() {
                *own = (*own).max(Floor { number, known_by: *at });
            }
            floor
        };
        ops.iter().map(floor).collect()
    }

    /// Returns the messages that the SENDs and ONCEs may have stored.
    fn effects(&self, ops: &[usize], floors: &[Floor]) -> Vec<Effect> {
        let mut effects: Vec<Effect> = Vec::new();
        let mut keyed: BTreeMap<_, usize> = BTreeMap::new();
        for (at, floor) in ops.iter().zip(floors) {
            let op = self.op(*at);
            let Some(message) = op.message().filter(|_| !op.is_refused()) else { continue };
            let new = effects.len();
            let live_key = op.live_key(self.deleted);
            let slot = live_key.map_or(new, |key| *keyed.entry((key, message)).or_insert(new));
            // If the servers may have forgotten the key, this request may have stored a message of
            // its own, or its answer may be the number of an earlier attempt.
            let floor = if op.has_key() && live_key.is_none() { Floor::default() } else { *floor };
            if slot == new {
                effects.push(Effect { op: *at, floor, stored: None });
            }
            let effect = &mut effects[slot];
            effect.floor = effect.floor.min(floor);
            if let Outcome::Stored(n) = op.outcome {
                (effect.op, effect.stored) = (*at, Some(n));
            }
        }
        effects
    }

    /// Checks that each acknowledged message is stored under its number, which no other message
    /// has. Returns the remaining numbers.
    fn claim(&self, effects: &mut [Effect]) -> Result<Vec<u64>, Finding> {
        let mut claimed: BTreeMap<u64, usize> = BTreeMap::new();
        for effect in effects.iter() {
            let Some(number) = effect.stored else { continue };
            let op = self.op(effect.op);
            if op.message().map(|(_, from, text)| (from, text)) != self.at(number) {
                let last = self.describe(number);
                let why = format!("number {number} is {last}, but {op}");
                return self.found(Check::Kept, &why);
            }
            // Attempts with one key are one effect, unless an account may have been deleted. Even
            // then they may have one number.
            let other = claimed.insert(number, effect.op).map(|other| self.op(other));
            if let Some(other) = other.filter(|other| !op.may_repeat(other)) {
                let why = format!("two messages have one number: {other}; {op}");
                return self.found(Check::Kept, &why);
            }
        }
        let all = 1..=self.contents.len() as u64;
        Ok(all.filter(|number| !claimed.contains_key(number)).collect())
    }

    /// Assigns each remaining number to a request with an unknown outcome and the same message. A
    /// number without such a request is a finding.
    fn explain(
        &self,
        unclaimed: &[u64],
        effects: &mut [Effect],
        ops: &[usize],
    ) -> Result<(), Finding> {
        // The request with the lowest floor gets the lowest number: if any assignment keeps all
        // numbers above their floors, this one does.
        let mut order: Vec<usize> = (0..effects.len()).collect();
        order.sort_by_key(|at| effects[*at].floor);
        let mut candidates: BTreeMap<_, VecDeque<usize>> = BTreeMap::new();
        for at in order {
            let open = effects[at].stored.is_none();
            if let Some((_, from, text)) = self.op(effects[at].op).message().filter(|_| open) {
                candidates.entry((from, text)).or_default().push_back(at);
            }
        }
        for number in unclaimed {
            let Some(message) = self.at(*number) else { continue };
            match candidates.get_mut(&message).and_then(VecDeque::pop_front) {
                Some(at) => effects[at].stored = Some(*number),
                None => return self.unexplained(*number, message, ops),
            }
        }
        Ok(())
    }

    fn unexplained(
        &self,
        number: u64,
        (from, text): (&str, &str),
        ops: &[usize],
    ) -> Result<(), Finding> {
        let message = Some((self.name, from, text));
        let senders: Vec<&Op> =
            ops.iter().map(|at| self.op(*at)).filter(|op| op.message() == message).collect();
        let stored = format!("number {number} is `{from}: {text}`, but");
        let Some(sender) = senders.first() else {
            let why = format!("{stored} no client sent it");
            return self.found(Check::Kept, &why);
        };
        if senders.iter().all(|op| op.is_refused()) {
            let why = format!("{stored} {sender}");
            return self.found(Check::Kept, &why);
        }
        let keyed = senders.iter().any(|op| op.live_key(self.deleted).is_some());
        let check = if keyed { Check::Once } else { Check::Kept };
        let sent: Vec<String> = senders.iter().take(3).map(ToString::to_string).collect();
        let sent = sent.join("; ");
        self.found(check, &format!("{stored} it is stored more often than it was sent: {sent}"))
    }

    fn check_floors(&self, effects: &[Effect]) -> Result<(), Finding> {
        for effect in effects {
            let Floor { number: floor, known_by } = effect.floor;
            if let Some(number) = effect.stored
                && number <= floor
            {
                let (op, earlier) = (self.op(effect.op), self.op(known_by));
                let why = format!(
                    "number {floor} was known before number {number} was sent: {op}; {earlier}"
                );
                return self.found(Check::RealTime, &why);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
