//! The sending end of one connection: outstanding requests, and what is sent next.

use super::check::{Checker, Routes};
use super::counts::{Counts, Nanos};
use super::postern::moves_on;
use super::protocol::{Event, Protocol};
use super::schedule::Schedule;
use super::text::{Message, Sizes};
use postern::limits::KEYS_KEPT;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Messages after which the server may have forgotten a key: half of the keys that it keeps, since
/// others store messages meanwhile.
const REPEATABLE: u64 = KEYS_KEPT / 2;

/// The state that all connections share.
pub(crate) struct Shared {
    /// When this turn of the event loop began.
    pub(crate) now: Nanos,
    pub(crate) counts: Counts,
    pub(crate) checker: Checker,
    /// The first violation; it ends the run.
    pub(crate) finding: Option<String>,
    /// What the last read of a connection has changed.
    pub(crate) news: News,
    /// Whether no new request is sent any more.
    pub(crate) is_over: bool,
    /// Buffers that are reused.
    events: Vec<Event>,
    text: Vec<u8>,
}

/// What the event loop must know of a read.
#[derive(Default)]
pub(crate) struct News {
    /// The server has accepted the login.
    pub(crate) is_ready: bool,
    /// The server accepts no requests; the named one may.
    pub(crate) redirected: Option<Option<SocketAddr>>,
}

impl Shared {
    pub(crate) fn new(counts: Counts) -> Shared {
        Shared {
            now: 0,
            counts,
            checker: Checker::default(),
            finding: None,
            news: News::default(),
            is_over: false,
            events: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Keeps the first violation.
    pub(crate) fn judge(&mut self, result: Result<(), String>) {
        if let Err(why) = result {
            self.finding.get_or_insert(why);
        }
    }
}

/// How a sender sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderConfig {
    /// The most outstanding requests.
    pub(crate) depth: usize,
    pub(crate) sizes: Sizes,
    pub(crate) routes: Routes,
    /// The index of its part's first mailbox in the run.
    pub(crate) first_mailbox: usize,
    /// The open loop; `None` is the closed loop.
    pub(crate) schedule: Option<Schedule>,
    /// Whether unanswered requests are sent again.
    pub(crate) repeats: bool,
}

/// A request without an answer. The latency of a repetition also counts from `at`.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Nanos,
    serial: u64,
    /// The highest known number of its mailbox when it was first sent.
    floor: u64,
    /// Messages that had been acknowledged then: the server forgets keys by that count.
    acked_before: u64,
}

/// One sender; it outlives its connections.
pub(crate) struct Sender {
    /// Its index in the run, and in its part.
    number: u32,
    index: usize,
    config: SenderConfig,
    protocol: Option<Box<dyn Protocol>>,
    may_send: bool,
    outstanding: VecDeque<Sent>,
    /// Requests to send again, all older than the outstanding ones.
    again: VecDeque<Sent>,
    next: u64,
}

impl Sender {
    /// Creates a sender without a connection.
    pub(crate) fn new(number: u32, index: usize, config: SenderConfig) -> Sender {
        Sender {
            number,
            index,
            config,
            protocol: None,
            may_send: false,
            outstanding: VecDeque::with_capacity(config.depth),
            again: VecDeque::with_capacity(config.depth),
            next: 0,
        }
    }

    /// Writes what opens a new connection.
    pub(crate) fn open(&mut self, mut protocol: Box<dyn Protocol>, out: &mut Vec<u8>) {
        protocol.open(out);
        self.protocol = Some(protocol);
    }

    /// Returns whether a request has no answer on this connection.
    pub(crate) fn has_outstanding(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Returns whether a request has no answer, or is to be sent again.
    pub(crate) fn has_pending(&self) -> bool {
        !self.outstanding.is_empty() || !self.again.is_empty()
    }

    /// Parses answers and returns their length.
    pub(crate) fn parse(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        shared: &mut Shared,
    ) -> Result<usize, String> {
        let Some(protocol) = &mut self.protocol else { return Ok(input.len()) };
        let mut events = std::mem::take(&mut shared.events);
        let parsed = protocol.parse(input, out, &mut events);
        // Answers before an invalid one are valid.
        for event in events.drain(..) {
            self.on_event(event, shared);
        }
        shared.events = events;
        parsed
    }

    fn on_event(&mut self, event: Event, shared: &mut Shared) {
        match event {
            Event::Ready => {
                self.may_send = true;
                shared.news.is_ready = true;
            }
            Event::Acked(number) => {
                let Some((sent, message)) = self.answered(shared) else { return };
                shared.counts.record_ack(shared.now.saturating_sub(sent.at));
                if let Some(number) = number {
                    let result = shared.checker.acked(message, number, sent.floor);
                    shared.judge(result);
                }
            }
            Event::Rejected(code) => {
                let Some((sent, message)) = self.answered(shared) else { return };
                shared.counts.record_error(&code);
                if self.config.repeats && moves_on(&code) {
                    self.again.push_back(sent);
                } else if code == "unknown-outcome" {
                    shared.counts.unknown += 1;
                    shared.checker.unknown(message);
                }
            }
            Event::Redirected(hint) => {
                self.may_send = false;
                shared.news.redirected = Some(hint);
            }
            Event::Closing => {
                self.may_send = false;
                if self.config.repeats {
                    self.again.append(&mut self.outstanding);
                }
                self.outstanding.clear();
            }
        }
    }

    fn answered(&mut self, shared: &mut Shared) -> Option<(Sent, Message)> {
        let sent = self.outstanding.pop_front();
        if sent.is_none() {
            shared.judge(Err(format!("sender {} got an answer without a request", self.number)));
        }
        sent.map(|sent| (sent, Message { sender: self.number, serial: sent.serial }))
    }

    /// Sends as many requests as may be outstanding.
    pub(crate) fn send(&mut self, out: &mut Vec<u8>, shared: &mut Shared) {
        let Some(protocol) = &mut self.protocol else { return };
        if !self.may_send {
            return;
        }
        let mut is_batch = false;
        while self.outstanding.len() < self.config.depth {
            let sent = if let Some(sent) = self.again.pop_front() {
                if shared.counts.acked_total - sent.acked_before > REPEATABLE {
                    give_up(self.number, sent, shared);
                    continue;
                }
                shared.counts.repeated += 1;
                sent
            } else {
                let due = |schedule: Schedule| schedule.due(self.index, self.next);
                let at = self.config.schedule.map_or(shared.now, due);
                if shared.is_over || at > shared.now {
                    break;
                }
                let serial = self.next;
                self.next += 1;
                let mailbox = self.config.routes.mailbox(self.index, serial);
                let floor = shared.checker.floor(self.config.first_mailbox + mailbox);
                Sent { at, serial, floor, acked_before: shared.counts.acked_total }
            };
            let message = Message { sender: self.number, serial: sent.serial };
            shared.text.clear();
            message.write(self.config.sizes, &mut shared.text);
            protocol.select_mailbox(self.config.routes.mailbox(self.index, sent.serial));
            protocol.request(&shared.text, out);
            self.outstanding.push_back(sent);
            is_batch = true;
        }
        if is_batch {
            protocol.end_batch(out);
        }
    }

    /// Handles the loss of the connection.
    pub(crate) fn lose(&mut self, shared: &mut Shared) {
        (self.protocol, self.may_send) = (None, false);
        if self.config.repeats {
            self.again.append(&mut self.outstanding);
        } else {
            self.give_up(shared);
        }
    }

    /// Counts all requests without an answer as unknown.
    pub(crate) fn give_up(&mut self, shared: &mut Shared) {
        for sent in self.again.drain(..).chain(self.outstanding.drain(..)) {
            give_up(self.number, sent, shared);
        }
    }

    /// Returns how many messages were due before `end` and never sent.
    pub(crate) fn unsent(&self, end: Nanos) -> u64 {
        let Some(schedule) = self.config.schedule else { return 0 };
        let turns = schedule.turns(end.saturating_sub(1)).saturating_sub(self.index as u64);
        turns.div_ceil(schedule.senders as u64).saturating_sub(self.next)
    }
}

fn give_up(number: u32, sent: Sent, shared: &mut Shared) {
    shared.counts.unknown += 1;
    shared.checker.unknown(Message { sender: number, serial: sent.serial });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::accounts::Accounts;
    use crate::run::postern::Postern;
    use std::sync::Arc;
    use std::time::Duration;

    const MS: Nanos = 1_000_000;

    struct Scene {
        sender: Sender,
        shared: Shared,
    }

    impl Scene {
        fn new(depth: usize, schedule: Option<Schedule>, repeats: bool) -> Scene {
            let second = Duration::from_secs(1);
            let mut shared = Shared::new(Counts::new(Duration::ZERO, second));
            let (routes, sizes) = (Routes { senders: 1, mailboxes: 1 }, Sizes::fixed(1));
            shared.checker.add(routes, sizes);
            let config = SenderConfig { depth, sizes, routes, first_mailbox: 0, schedule, repeats };
            Scene { sender: Sender::new(0, 0, config), shared }
        }

        fn connect(&mut self) {
            let (sender, mailboxes) = ("ann".to_owned(), vec!["box".to_owned()]);
            let accounts = Arc::new(Accounts { sender, mailboxes, once: false });
            self.sender.open(Box::new(Postern::new(accounts)), &mut Vec::new());
            self.receive("OK ann 0\n");
        }

        fn receive(&mut self, lines: &str) {
            let parsed = self.sender.parse(lines.as_bytes(), &mut Vec::new(), &mut self.shared);
            assert_eq!(parsed, Ok(lines.len()));
        }

        /// Sends what is due, and returns the serials.
        fn send(&mut self, now: Nanos) -> Vec<u64> {
            let mut out = Vec::new();
            self.shared.now = now;
            self.sender.send(&mut out, &mut self.shared);
            let lines = String::from_utf8(out).unwrap();
            let serial = |line: &str| line.strip_prefix("SEND box 0.")?.parse().ok();
            lines.lines().map(|line| serial(line).expect("a request")).collect()
        }
    }

    #[test]
    fn a_closed_loop_keeps_its_depth_outstanding() {
        let mut scene = Scene::new(3, None, false);
        assert_eq!(scene.send(0), [0; 0], "there is no connection");
        scene.connect();
        assert_eq!(scene.send(0), [0, 1, 2]);
        scene.receive("OK 1\nERR busy x\n");
        assert_eq!((scene.send(MS), scene.send(MS)), (vec![3, 4], vec![]));
        assert_eq!(scene.shared.counts.errors.get("busy"), Some(&1));
        scene.receive("OK 4\n");
        assert!(scene.shared.finding.is_some(), "2 was free");
    }

    #[test]
    fn an_open_loop_counts_from_when_a_message_was_due() {
        let schedule = Schedule { rate: 100, senders: 1 };
        let mut scene = Scene::new(2, Some(schedule), false);
        scene.connect();
        assert_eq!(scene.send(0), [0]);
        // Two more were due at 10 and 20 ms, and only one may be outstanding beside the first.
        assert_eq!(scene.send(25 * MS), [1]);
        scene.shared.now = 60 * MS;
        scene.receive("OK 1\nOK 2\n");
        let ended = scene.shared.counts.end_interval(60 * MS);
        assert!(ended.latency.unwrap()[2].abs_diff(60 * MS) < MS, "{ended:?}");
        assert!(ended.latency.unwrap()[0].abs_diff(50 * MS) < MS, "{ended:?}");
        assert_eq!(scene.send(60 * MS), [2, 3]);
        assert_eq!(scene.sender.unsent(61 * MS), 3, "of those at 40, 50 and 60 ms");
    }

    #[test]
    fn what_was_not_answered_is_repeated_in_its_order_or_unknown() {
        for repeats in [true, false] {
            let mut scene = Scene::new(3, None, repeats);
            scene.connect();
            assert_eq!(scene.send(0), [0, 1, 2]);
            scene.receive("ERR not-primary - x\n");
            assert_eq!(scene.send(0), [0; 0], "nothing is sent here any more");
            scene.sender.lose(&mut scene.shared);
            scene.connect();
            let (asked, unknown) = if repeats { ([0, 1, 2], 0) } else { ([3, 4, 5], 2) };
            assert_eq!(scene.send(0), asked);
            assert_eq!(scene.shared.counts.unknown, unknown);
        }
    }

    #[test]
    fn what_a_closing_server_has_not_answered_is_not_stored() {
        for repeats in [true, false] {
            let mut scene = Scene::new(2, None, repeats);
            scene.connect();
            assert_eq!(scene.send(0), [0, 1]);
            scene.receive("OK 1\nNOTE stopping x\n");
            scene.sender.lose(&mut scene.shared);
            scene.connect();
            assert_eq!(scene.send(0), if repeats { [1, 2] } else { [2, 3] });
            assert_eq!(scene.shared.counts.unknown, 0);
        }
    }

    #[test]
    fn what_is_too_old_is_not_repeated() {
        let mut scene = Scene::new(1, None, true);
        scene.connect();
        assert_eq!(scene.send(0), [0]);
        scene.sender.lose(&mut scene.shared);
        scene.shared.counts.acked_total += REPEATABLE + 1;
        scene.connect();
        assert_eq!((scene.send(0), scene.shared.counts.unknown), (vec![1], 1));
    }
}
