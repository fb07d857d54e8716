//! Judges a history: what clients asked and were told, and when, beside what the mailboxes hold
//! at the end.
//!
//! Numbers are dense and returned, so the order of a mailbox is known, and nothing is searched
//! for. For each request, its *floor* is the greatest number that somebody had been shown before
//! it was asked: what it stores must stand above, and what it reads must reach up to there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// A request of one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(usize);

/// What was asked. Names are written as the server writes them: in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// SEND, or ONCE where there is a key. Keys are taken to be remembered all along.
    Send {
        /// Whose mailbox it goes to.
        to: String,
        /// Who sends it.
        from: String,
        /// What it says.
        text: String,
        /// The sender's own key.
        key: Option<String>,
    },
    /// LOG or LOGIN of a whole mailbox; one with a limit is no reading.
    Read {
        /// Whose mailbox.
        mailbox: String,
        /// The number before the first one that is wanted.
        after: u64,
    },
    /// CREATE.
    Create {
        /// The account.
        user: String,
    },
    /// DELETE. Its mailbox may begin anew from then on, so most checks leave it out.
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

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The message has this number.
    Stored(u64),
    /// Number, sender and text of each message.
    Read(Vec<(u64, String, String)>),
    /// A change to an account was made.
    Done,
    /// The request did nothing and never will; the code of the refusal.
    Refused(String),
    /// It may or may not have an effect, at any time, at most once.
    Unknown,
}

/// What a finding is against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Numbers have no gap, and all readings agree.
    Dense,
    /// What was answered stands; what was refused or never sent does not.
    Kept,
    /// One effect and one number per key.
    Once,
    /// What was shown earlier stands earlier, and is shown to all who ask later.
    RealTime,
}

/// Why a history can't be that of a correct group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The promise that was broken.
    pub check: Check,
    /// How, with the requests concerned.
    pub words: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.words)
    }
}

impl std::error::Error for Finding {}

/// The requests of all clients. A client has one connection at a time, and its requests are noted
/// in the order in which it asks; those of different clients may be noted in any order.
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
    /// `Unknown` until there is an answer.
    outcome: Outcome,
}

/// The greatest number that had been shown before a request, and by which answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Floor {
    number: u64,
    shown_by: usize,
}

/// What SENDs, or all ONCEs of one key, do to a mailbox at most once.
struct Effect {
    /// Any of those that may have caused it.
    op: usize,
    /// The lowest one of those that may have caused it.
    floor: Floor,
    stored: Option<u64>,
}

impl History {
    /// One without requests, in which every mailbox is empty.
    pub fn new() -> History {
        History::default()
    }

    /// Notes that a request is asked from now on: before its first byte is sent.
    pub fn asked(&mut self, client: u32, at: u64, request: Request) -> OpId {
        let outcome = Outcome::Unknown;
        self.ops.push(Op { client, asked_at: at, request, answered_at: u64::MAX, outcome });
        OpId(self.ops.len() - 1)
    }

    /// Notes an answer: after its last byte was read.
    ///
    /// # Panics
    /// The request has an answer already, or the answer is none to such a request.
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

    /// How many requests there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether nothing was asked.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Judges the history. `last` holds sender and text of all messages of every mailbox, in
    /// order, as read after the last answer; one that is missing there is empty.
    ///
    /// # Errors
    /// What is wrong; a history that a correct group can have is never found fault with.
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

    /// All answers to one key are the same.
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
                let words = format!("one key had two effects: {earlier}; {op}");
                return Err(Finding { check: Check::Once, words });
            }
        }
        Ok(())
    }
}

impl Op {
    fn is_refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused(_))
    }

    /// Mailbox, sender and text of a message.
    fn message(&self) -> Option<(&str, &str, &str)> {
        match &self.request {
            Request::Send { to, from, text, .. } => Some((to, from, text)),
            _ => None,
        }
    }

    /// Sender and key, where both accounts have lived all along: a key dies with either.
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

    /// Whether both are tries of one key.
    fn may_repeat(&self, other: &Op) -> bool {
        self.has_key() && self.request == other.request
    }

    /// The number up to which the mailbox was filled, as far as the answer tells.
    fn shows(&self) -> Option<u64> {
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
        write!(f, "client {} asked at {} `", self.client, self.asked_at)?;
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
        let at = self.answered_at;
        match &self.outcome {
            Outcome::Stored(n) => write!(f, "` and was told {n} at {at}"),
            Outcome::Read(messages) => write!(f, "` and was shown {} at {at}", messages.len()),
            Outcome::Done => write!(f, "`, done at {at}"),
            Outcome::Refused(code) => write!(f, "` and was refused ({code}) at {at}"),
            Outcome::Unknown => write!(f, "` and never knew"),
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
    /// `ops` are the SENDs to it and the readings of it.
    fn check(&self, ops: &[usize]) -> Result<(), Finding> {
        let lived = !self.deleted.contains(self.name);
        for op in ops.iter().map(|at| self.op(*at)) {
            self.check_reading(op, lived)?;
        }
        // Of one that may have begun anew nothing is known but that its texts were sent.
        let floors = if lived { self.floors(ops) } else { vec![Floor::default(); ops.len()] };
        let mut effects = self.effects(ops, &floors);
        let unclaimed = if lived {
            self.claim(&mut effects)?
        } else {
            effects.iter_mut().for_each(|effect| effect.stored = None);
            (1..=self.contents.len() as u64).collect()
        };
        self.explain(&unclaimed, &mut effects, ops)?;
        self.check_floors(&effects)?;
        for (at, floor) in ops.iter().zip(&floors) {
            let op = self.op(*at);
            if matches!(op.outcome, Outcome::Read(_)) && op.shows() < Some(floor.number) {
                let earlier = self.op(floor.shown_by);
                return self.found(
                    Check::RealTime,
                    &format!("a reading ends before {}: {op}; before, {earlier}", floor.number),
                );
            }
        }
        Ok(())
    }

    fn op(&self, at: usize) -> &'a Op {
        &self.history.ops[at]
    }

    fn found<T>(&self, check: Check, words: &str) -> Result<T, Finding> {
        Err(Finding { check, words: format!("mailbox {}: {words}", self.name) })
    }

    fn at(&self, number: u64) -> Option<(&'a str, &'a str)> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.contents.get(at).map(|(from, text)| (from.as_str(), text.as_str()))
    }

    /// What stands at a number at the end, for a person.
    fn describe(&self, number: u64) -> String {
        self.at(number).map_or("nothing".to_owned(), |(from, text)| format!("`{from}: {text}`"))
    }

    /// Numbers follow each other, and what they name is what they name at the end: so all
    /// readings agree with each other.
    fn check_reading(&self, op: &Op, lived: bool) -> Result<(), Finding> {
        let (Request::Read { after, .. }, Outcome::Read(messages)) = (&op.request, &op.outcome)
        else {
            return Ok(());
        };
        for ((number, from, text), expected) in messages.iter().zip(after + 1..) {
            if *number != expected {
                let words = format!("number {number} was shown in place of {expected}: {op}");
                return self.found(Check::Dense, &words);
            }
            if lived && self.at(expected) != Some((from, text)) {
                let words = format!(
                    "number {number} was shown as `{from}: {text}`, at the end it is {}: {op}",
                    self.describe(expected)
                );
                return self.found(Check::Dense, &words);
            }
        }
        if lived && op.shows() > Some(self.contents.len() as u64) {
            let end = self.contents.len();
            let words = format!("a reading beyond the end, which is {end}, was answered: {op}");
            return self.found(Check::Dense, &words);
        }
        Ok(())
    }

    /// The floor of each request.
    fn floors(&self, ops: &[usize]) -> Vec<Floor> {
        let mut shown: Vec<(u64, Floor)> = Vec::new();
        for at in ops {
            let op = self.op(*at);
            if let Some(number) = op.shows() {
                shown.push((op.answered_at, Floor { number, shown_by: *at }));
            }
        }
        shown.sort_unstable();
        let mut greatest = Floor::default();
        for (_, floor) in &mut shown {
            greatest = greatest.max(*floor);
            *floor = greatest;
        }
        // Within a client, even where times are equal or requests are pipelined.
        let mut clients: BTreeMap<u32, Floor> = BTreeMap::new();
        let floor = |at: &usize| {
            let op = self.op(*at);
            let before = shown.partition_point(|(answered, _)| *answered < op.asked_at);
            let all = before.checked_sub(1).map_or(Floor::default(), |at| shown[at].1);
            let own = clients.entry(op.client).or_default();
            let floor = all.max(*own);
            if let Some(number) = op.shows() {
                *own = (*own).max(Floor { number, shown_by: *at });
            }
            floor
        };
        ops.iter().map(floor).collect()
    }

    /// What the SENDs and ONCEs may have done, each at most once.
    fn effects(&self, ops: &[usize], floors: &[Floor]) -> Vec<Effect> {
        let mut effects: Vec<Effect> = Vec::new();
        let mut keyed: BTreeMap<_, usize> = BTreeMap::new();
        for (at, floor) in ops.iter().zip(floors) {
            let op = self.op(*at);
            let Some(message) = op.message().filter(|_| !op.is_refused()) else { continue };
            let new = effects.len();
            let live_key = op.live_key(self.deleted);
            let slot = live_key.map_or(new, |key| *keyed.entry((key, message)).or_insert(new));
            // One whose key may have died may be an effect of its own, or that of an earlier try.
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

    /// Everything that was answered stands at its number, alone. The numbers that are left.
    fn claim(&self, effects: &mut [Effect]) -> Result<Vec<u64>, Finding> {
        let mut claimed: BTreeMap<u64, usize> = BTreeMap::new();
        for effect in effects.iter() {
            let Some(number) = effect.stored else { continue };
            let op = self.op(effect.op);
            if op.message().map(|(_, from, text)| (from, text)) != self.at(number) {
                let stands = self.describe(number);
                let words = format!("at the end {stands} stands at {number}, but {op}");
                return self.found(Check::Kept, &words);
            }
            // The tries of one key are one effect; those of an account that may have been deleted
            // are not known to be, and may have one number all the same.
            let other = claimed.insert(number, effect.op).map(|other| self.op(other));
            if let Some(other) = other.filter(|other| !op.may_repeat(other)) {
                let words = format!("two have one number: {other}; {op}");
                return self.found(Check::Kept, &words);
            }
        }
        let all = 1..=self.contents.len() as u64;
        Ok(all.filter(|number| !claimed.contains_key(number)).collect())
    }

    /// Everything else that stands there is what somebody sent and never knew of; gives those
    /// their numbers.
    fn explain(
        &self,
        unclaimed: &[u64],
        effects: &mut [Effect],
        ops: &[usize],
    ) -> Result<(), Finding> {
        // The one with the lowest floor gets the lowest number: if any way to give out the
        // numbers keeps all of them above their floors, this one does.
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
        let stands = format!("`{from}: {text}` stands at {number}, but");
        let Some(sender) = senders.first() else {
            return self.found(Check::Kept, &format!("{stands} nobody sent it"));
        };
        if senders.iter().all(|op| op.is_refused()) {
            return self.found(Check::Kept, &format!("{stands} {sender}"));
        }
        let keyed = senders.iter().any(|op| op.live_key(self.deleted).is_some());
        let check = if keyed { Check::Once } else { Check::Kept };
        let words: Vec<String> = senders.iter().take(3).map(ToString::to_string).collect();
        self.found(check, &format!("{stands} more often than it was sent: {}", words.join("; ")))
    }

    fn check_floors(&self, effects: &[Effect]) -> Result<(), Finding> {
        for effect in effects {
            let Floor { number: floor, shown_by } = effect.floor;
            if let Some(number) = effect.stored
                && number <= floor
            {
                let (op, earlier) = (self.op(effect.op), self.op(shown_by));
                let words =
                    format!("{floor} was shown before {number} was asked for: {op}; {earlier}");
                return self.found(Check::RealTime, &words);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
