//! The sending end of one connection: what is outstanding, and what is asked next.

use super::check::{Checker, Routes};
use super::dialect::{Dialect, Heard};
use super::ledger::{Ledger, Nanos};
use super::postern::moves_on;
use super::schedule::Schedule;
use super::text::{Message, Sizes};
use postern::limits::KEYS_KEPT;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Messages after which a key is taken to be forgotten: half of what the server remembers, for
/// what others store meanwhile.
const REPEATABLE: u64 = KEYS_KEPT / 2;

/// What all connections write to while they are visited.
pub(crate) struct Shared {
    /// When this turn of the loop began.
    pub(crate) now: Nanos,
    /// Counts and times.
    pub(crate) ledger: Ledger,
    /// Judges what is heard.
    pub(crate) checker: Checker,
    /// The first wrong thing that was seen; it ends the run.
    pub(crate) finding: Option<String>,
    /// What the visited connection has come to.
    pub(crate) news: News,
    /// Whether nothing new is asked any more.
    pub(crate) is_over: bool,
    heard: Vec<Heard>,
    text: Vec<u8>,
}

/// What the loop must know of a visit.
#[derive(Default)]
pub(crate) struct News {
    /// The server has let the connection in.
    pub(crate) is_ready: bool,
    /// The server sends the connection away, perhaps to this address.
    pub(crate) elsewhere: Option<Option<SocketAddr>>,
}

impl Shared {
    /// Nothing has happened yet.
    pub(crate) fn new(ledger: Ledger) -> Shared {
        Shared {
            now: 0,
            ledger,
            checker: Checker::default(),
            finding: None,
            news: News::default(),
            is_over: false,
            heard: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Notes a wrong thing; the first one counts.
    pub(crate) fn judge(&mut self, result: Result<(), String>) {
        if let Err(why) = result {
            self.finding.get_or_insert(why);
        }
    }
}

/// How a sender sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Requests that may be outstanding.
    pub(crate) depth: usize,
    /// The lengths of texts.
    pub(crate) sizes: Sizes,
    /// Which mailboxes they go to.
    pub(crate) routes: Routes,
    /// The first of those, of all mailboxes of the run.
    pub(crate) first_mailbox: usize,
    /// The open loop; none is the closed one.
    pub(crate) schedule: Option<Schedule>,
    /// Whether what was not answered is sent again.
    pub(crate) repeats: bool,
}

/// A request without an answer. Latencies begin at `at`, also those of repeats.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Nanos,
    serial: u64,
    /// The greatest number of its mailbox that was known when it was first asked.
    floor: u64,
    /// How many messages had been acknowledged by then: the server forgets keys by that count.
    acked_before: u64,
}

/// One sender; it outlives its connections.
pub(crate) struct Sender {
    /// Its number in the run, and in its part.
    number: u32,
    place: usize,
    habits: Habits,
    dialect: Option<Box<dyn Dialect>>,
    may_ask: bool,
    outstanding: VecDeque<Sent>,
    /// What is to be sent again, all of it older than what is outstanding.
    again: VecDeque<Sent>,
    next: u64,
}

impl Sender {
    /// One that has no connection yet.
    pub(crate) fn new(number: u32, place: usize, habits: Habits) -> Sender {
        Sender {
            number,
            place,
            habits,
            dialect: None,
            may_ask: false,
            outstanding: VecDeque::with_capacity(habits.depth),
            again: VecDeque::with_capacity(habits.depth),
            next: 0,
        }
    }

    /// Opens the conversation on a new connection.
    pub(crate) fn greet(&mut self, mut dialect: Box<dyn Dialect>, out: &mut Vec<u8>) {
        dialect.greet(out);
        self.dialect = Some(dialect);
    }

    /// Whether an answer, or the end of the greeting, is awaited.
    pub(crate) fn waits(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Whether something that was asked has no answer yet, and can still get one.
    pub(crate) fn is_behind(&self) -> bool {
        !self.outstanding.is_empty() || !self.again.is_empty()
    }

    /// Takes answers: how many bytes they were.
    pub(crate) fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        shared: &mut Shared,
    ) -> Result<usize, String> {
        let Some(dialect) = &mut self.dialect else { return Ok(input.len()) };
        let mut heard = std::mem::take(&mut shared.heard);
        let taken = dialect.take(input, out, &mut heard);
        // What was heard before something strange was heard all the same.
        for heard in heard.drain(..) {
            self.hear(heard, shared);
        }
        shared.heard = heard;
        taken
    }

    fn hear(&mut self, heard: Heard, shared: &mut Shared) {
        match heard {
            Heard::Ready => {
                self.may_ask = true;
                shared.news.is_ready = true;
            }
            Heard::Acked(number) => {
                let Some((sent, message)) = self.answered(shared) else { return };
                shared.ledger.note_acked(shared.now.saturating_sub(sent.at));
                if let Some(number) = number {
                    let result = shared.checker.acked(message, number, sent.floor);
                    shared.judge(result);
                }
            }
            Heard::Refused(code) => {
                let Some((sent, message)) = self.answered(shared) else { return };
                shared.ledger.note_error(&code);
                if self.habits.repeats && moves_on(&code) {
                    self.again.push_back(sent);
                } else if code == "unknown-outcome" {
                    shared.ledger.unknown += 1;
                    shared.checker.unknown(message);
                }
            }
            Heard::Elsewhere(hint) => {
                self.may_ask = false;
                shared.news.elsewhere = Some(hint);
            }
        }
    }

    fn answered(&mut self, shared: &mut Shared) -> Option<(Sent, Message)> {
        let sent = self.outstanding.pop_front();
        if sent.is_none() {
            shared.judge(Err(format!("sender {} got an answer to nothing", self.number)));
        }
        sent.map(|sent| (sent, Message { sender: self.number, serial: sent.serial }))
    }

    /// Asks as much as may be outstanding.
    pub(crate) fn ask(&mut self, out: &mut Vec<u8>, shared: &mut Shared) {
        let Some(dialect) = &mut self.dialect else { return };
        if !self.may_ask {
            return;
        }
        let mut is_burst = false;
        while self.outstanding.len() < self.habits.depth {
            let sent = if let Some(sent) = self.again.pop_front() {
                if shared.ledger.acked_ever - sent.acked_before > REPEATABLE {
                    give_up(self.number, sent, shared);
                    continue;
                }
                shared.ledger.repeated += 1;
                sent
            } else {
                let due = |schedule: Schedule| schedule.due(self.place, self.next);
                let at = self.habits.schedule.map_or(shared.now, due);
                if shared.is_over || at > shared.now {
                    break;
                }
                let serial = self.next;
                self.next += 1;
                let mailbox = self.habits.routes.mailbox(self.place, serial);
                let floor = shared.checker.floor(self.habits.first_mailbox + mailbox);
                Sent { at, serial, floor, acked_before: shared.ledger.acked_ever }
            };
            let message = Message { sender: self.number, serial: sent.serial };
            shared.text.clear();
            message.write(self.habits.sizes, &mut shared.text);
            dialect.aim(self.habits.routes.mailbox(self.place, sent.serial));
            dialect.request(&shared.text, out);
            self.outstanding.push_back(sent);
            is_burst = true;
        }
        if is_burst {
            dialect.end_burst(out);
        }
    }

    /// The connection is gone.
    pub(crate) fn lose(&mut self, shared: &mut Shared) {
        (self.dialect, self.may_ask) = (None, false);
        if self.habits.repeats {
            self.again.append(&mut self.outstanding);
        } else {
            self.give_up(shared);
        }
    }

    /// What has no answer will get none.
    pub(crate) fn give_up(&mut self, shared: &mut Shared) {
        for sent in self.again.drain(..).chain(self.outstanding.drain(..)) {
            give_up(self.number, sent, shared);
        }
    }

    /// How many messages were due and never asked for.
    pub(crate) fn unsent(&self, end: Nanos) -> u64 {
        let Some(schedule) = self.habits.schedule else { return 0 };
        let turns = schedule.turns(end.saturating_sub(1)).saturating_sub(self.place as u64);
        turns.div_ceil(schedule.senders as u64).saturating_sub(self.next)
    }
}

fn give_up(number: u32, sent: Sent, shared: &mut Shared) {
    shared.ledger.unknown += 1;
    shared.checker.unknown(Message { sender: number, serial: sent.serial });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::postern::{Accounts, Postern};
    use std::rc::Rc;
    use std::time::Duration;

    const MS: Nanos = 1_000_000;

    struct Scene {
        sender: Sender,
        shared: Shared,
    }

    impl Scene {
        fn new(depth: usize, schedule: Option<Schedule>, repeats: bool) -> Scene {
            let second = Duration::from_secs(1);
            let mut shared = Shared::new(Ledger::new(Duration::ZERO, second));
            let (routes, sizes) = (Routes { senders: 1, mailboxes: 1 }, Sizes::fixed(1));
            shared.checker.add(routes, sizes);
            let habits = Habits { depth, sizes, routes, first_mailbox: 0, schedule, repeats };
            Scene { sender: Sender::new(0, 0, habits), shared }
        }

        fn connect(&mut self) {
            let (sender, password) = ("ann".to_owned(), "correct-horse".to_owned());
            let mailboxes = vec!["box".to_owned()];
            let accounts = Rc::new(Accounts { sender, mailboxes, password, once: false });
            self.sender.greet(Box::new(Postern::new(accounts)), &mut Vec::new());
            self.hear("OK ann 0\n");
        }

        fn hear(&mut self, lines: &str) {
            let taken = self.sender.take(lines.as_bytes(), &mut Vec::new(), &mut self.shared);
            assert_eq!(taken, Ok(lines.len()));
        }

        /// The serials that are asked at this time.
        fn ask(&mut self, now: Nanos) -> Vec<u64> {
            let mut out = Vec::new();
            self.shared.now = now;
            self.sender.ask(&mut out, &mut self.shared);
            let lines = String::from_utf8(out).unwrap();
            let serial = |line: &str| line.strip_prefix("SEND box 0.")?.parse().ok();
            lines.lines().map(|line| serial(line).expect("a request")).collect()
        }
    }

    #[test]
    fn a_closed_loop_keeps_so_many_outstanding() {
        let mut scene = Scene::new(3, None, false);
        assert_eq!(scene.ask(0), [0; 0], "there is no connection");
        scene.connect();
        assert_eq!(scene.ask(0), [0, 1, 2]);
        scene.hear("OK 1\nERR busy x\n");
        assert_eq!((scene.ask(MS), scene.ask(MS)), (vec![3, 4], vec![]));
        assert_eq!(scene.shared.ledger.errors.get("busy"), Some(&1));
        scene.hear("OK 4\n");
        assert!(scene.shared.finding.is_some(), "2 was free");
    }

    #[test]
    fn an_open_loop_counts_from_when_a_message_was_due() {
        let schedule = Schedule { begin: 0, rate: 100, senders: 1 };
        let mut scene = Scene::new(2, Some(schedule), false);
        scene.connect();
        assert_eq!(scene.ask(0), [0]);
        // Two more were due at 10 and 20 ms, and only one may be outstanding beside the first.
        assert_eq!(scene.ask(25 * MS), [1]);
        scene.shared.now = 60 * MS;
        scene.hear("OK 1\nOK 2\n");
        let ended = scene.shared.ledger.end_interval(60 * MS);
        assert!(ended.longest.unwrap().abs_diff(60 * MS) < MS, "{ended:?}");
        assert!(ended.p50.unwrap().abs_diff(50 * MS) < MS, "{ended:?}");
        assert_eq!(scene.ask(60 * MS), [2, 3]);
        assert_eq!(scene.sender.unsent(61 * MS), 3, "of those at 40, 50 and 60 ms");
    }

    #[test]
    fn what_was_not_answered_is_repeated_in_its_order_or_unknown() {
        for repeats in [true, false] {
            let mut scene = Scene::new(3, None, repeats);
            scene.connect();
            assert_eq!(scene.ask(0), [0, 1, 2]);
            scene.hear("ERR not-primary - x\n");
            assert_eq!(scene.ask(0), [0; 0], "nothing is asked here any more");
            scene.sender.lose(&mut scene.shared);
            scene.connect();
            let (asked, unknown) = if repeats { ([0, 1, 2], 0) } else { ([3, 4, 5], 2) };
            assert_eq!(scene.ask(0), asked);
            assert_eq!(scene.shared.ledger.unknown, unknown);
        }
    }

    #[test]
    fn what_is_too_old_is_not_repeated() {
        let mut scene = Scene::new(1, None, true);
        scene.connect();
        assert_eq!(scene.ask(0), [0]);
        scene.sender.lose(&mut scene.shared);
        scene.shared.ledger.acked_ever += REPEATABLE + 1;
        scene.connect();
        assert_eq!((scene.ask(0), scene.shared.ledger.unknown), (vec![1], 1));
    }
}
