//! The phases of a load: all clients log in, send, wait for the last answers, and read everything
//! back. One thread, one readiness set, all connections.
//!
//! The load shares the machine with the servers that it measures, so a message is cheap: no
//! allocation, one clock read per turn, and one write for all requests of a connection.

use super::check::Routes;
use super::connection::{Connection, Role};
use super::counts::{Counts, Interval, Nanos, nanos};
use super::load::{Outcome, Part, Progress};
use super::receiver::{Pace, Receiver};
use super::schedule::Schedule;
use super::sender::{Sender, SenderConfig, Shared};
use super::timer::Timer;
use mio::{Events, Poll, Token};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const EVENTS: usize = 1024;
/// The most bytes of one read.
const SCRATCH_BYTES: usize = 256 * 1024;
pub(super) const TIMER: Token = Token(usize::MAX);
/// The shortest interval; overdue connections are found at its end.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The most intervals of a run, so that its result stays short.
const INTERVALS: u32 = 240;
/// How often slow readers read.
pub(super) const SLOW_INTERVAL: Duration = Duration::from_millis(50);
/// Until all clients are logged in.
const LOGIN_TIME: Duration = Duration::from_secs(60);
/// Until all requests are answered at the end.
const DRAIN_TIME: Duration = Duration::from_secs(30);
/// Until the next message while mailboxes are read back.
const READ_BACK_TIME: Duration = Duration::from_secs(30);

/// What a timer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// A client connects.
    Dial(usize),
    /// A slow reader reads its share.
    ReadSlowly(usize),
    /// All connections of a part close.
    Storm(usize),
}

/// The connections of a part, and the state of its schedule and its storm.
pub(super) struct PartState {
    part: Part,
    /// Its connections; the senders come first.
    pub(super) all: Range<usize>,
    mailboxes: Range<usize>,
    pub(super) schedule: Option<Schedule>,
    /// Turns of the schedule whose messages were sent.
    pub(super) turns_sent: u64,
    pub(super) storm: Option<Duration>,
    /// The current storm: its index, when it began, and how many clients are not logged in again.
    pub(super) away: Option<(usize, Nanos, usize)>,
}

/// The event loop. `turn.rs` has its one iteration.
pub(super) struct Driver<'a> {
    pub(super) servers: &'a [SocketAddr],
    pub(super) timeout: Nanos,
    pub(super) poll: Poll,
    pub(super) events: Events,
    pub(super) timer: Timer,
    pub(super) connections: Vec<Connection>,
    /// How many of them are logged in.
    pub(super) online: usize,
    pub(super) parts: Vec<PartState>,
    pub(super) tasks: BinaryHeap<Reverse<(Nanos, Task)>>,
    pub(super) scratch: Vec<u8>,
    pub(super) shared: Shared,
    pub(super) began: Instant,
    interval: Nanos,
    interval_end: Nanos,
    pub(super) primary: Primary,
}

/// The server that accepts requests, as far as clients know.
#[derive(Default)]
pub(super) struct Primary {
    /// The server of the last login.
    pub(super) server: Option<usize>,
    /// When a connection to it was lost since then.
    pub(super) lost: Option<Nanos>,
    /// A server that answered nothing for too long, and the one client that still tries it. The
    /// others try another server, even if this one still claims to be the primary.
    pub(super) silent: Option<(usize, Option<usize>)>,
}

/// Drives clients until their time is over or `stop` is set, and reports the progress. `spans` are
/// the warm-up, the measured time, and the time without an answer after which a connection counts
/// as lost.
pub(crate) fn drive(
    spans: [Duration; 3],
    parts: Vec<Part>,
    servers: &[SocketAddr],
    stop: &AtomicBool,
    report: &mut dyn FnMut(Progress),
) -> Result<Outcome, String> {
    let mut driver = Driver::new(spans, parts, servers)?;
    driver.log_in_all()?;
    driver.measure(stop, report)?;
    driver.drain()?;
    let mailboxes_read = driver.read_back()?;
    let end = driver.shared.counts.window.1;
    let unsent = driver.connections.iter().map(|connection| match &connection.role {
        Role::Sender(sender, _) => sender.unsent(end),
        Role::Receiver(_) => 0,
    });
    let unsent = unsent.sum();
    let primary = driver.primary.server.map(|at| servers[at]);
    let Shared { counts, finding, .. } = driver.shared;
    Ok(Outcome { counts, finding, mailboxes_read, unsent, primary })
}

impl<'a> Driver<'a> {
    fn new(
        [warm_up, measured, timeout]: [Duration; 3],
        parts: Vec<Part>,
        servers: &'a [SocketAddr],
    ) -> Result<Driver<'a>, String> {
        let failed = |error: std::io::Error| format!("poll: {error}");
        let poll = Poll::new().map_err(failed)?;
        let timer = Timer::new(poll.registry(), TIMER).map_err(failed)?;
        let interval = nanos(INTERVAL_MIN.max((warm_up + measured) / INTERVALS));
        let mut driver = Driver {
            servers,
            timeout: nanos(timeout),
            poll,
            events: Events::with_capacity(EVENTS),
            timer,
            connections: Vec::new(),
            online: 0,
            parts: Vec::new(),
            tasks: BinaryHeap::new(),
            scratch: vec![0; SCRATCH_BYTES],
            shared: Shared::new(Counts::new(warm_up, measured)),
            began: Instant::now(),
            interval,
            interval_end: interval,
            primary: Primary::default(),
        };
        parts.into_iter().for_each(|part| driver.add(part));
        Ok(driver)
    }

    fn add(&mut self, part: Part) {
        let (number, first) = (self.parts.len(), self.connections.len());
        let clients = &part.clients;
        let routes = Routes { senders: clients.connections, mailboxes: clients.mailboxes };
        let first_mailbox = self.parts.last().map_or(0, |part| part.mailboxes.end);
        let first_sender = self.shared.checker.add(routes, clients.bytes);
        let (rate, senders) = (clients.rate, clients.connections);
        let schedule = (rate > 0 && senders > 0).then_some(Schedule { rate, senders });
        let config = SenderConfig {
            depth: clients.outstanding,
            sizes: clients.bytes,
            routes,
            first_mailbox,
            schedule,
            repeats: clients.once,
        };
        // A client that may have no outstanding requests is idle.
        let idle = SenderConfig { depth: 0, schedule: None, ..config };
        for at in 0..senders + clients.idle {
            let config = if at < senders { config } else { idle };
            let sender = Sender::new((first_sender + at) as u32, at, config);
            let role = Role::Sender(sender, part.protocol.clone());
            self.connections.push(Connection::new(number, role, 0));
        }
        let slow = std::iter::repeat_n(Pace::Slow(clients.slow_bytes), clients.slow);
        let paces = std::iter::repeat_n(Pace::Live, clients.receivers).chain(slow);
        for (at, pace) in paces.enumerate() {
            let Some(accounts) = &part.accounts else { continue };
            let mut receiver = accounts.receiver(at % clients.mailboxes.max(1), pace);
            receiver.mailbox += first_mailbox;
            self.connections.push(Connection::new(number, Role::Receiver(receiver), 0));
        }
        self.parts.push(PartState {
            all: first..self.connections.len(),
            mailboxes: first_mailbox..first_mailbox + clients.mailboxes,
            schedule,
            turns_sent: 0,
            storm: clients.storm_interval(),
            away: None,
            part,
        });
    }

    pub(super) fn schedule(&mut self, at: Nanos, task: Task) {
        self.tasks.push(Reverse((at, task)));
    }

    /// Logs all clients in, and sets the clock to zero.
    fn log_in_all(&mut self) -> Result<(), String> {
        for at in 0..self.connections.len() {
            self.schedule(0, Task::Dial(at));
        }
        self.shared.is_over = true;
        while self.online < self.connections.len() {
            if self.shared.now > nanos(LOGIN_TIME) {
                let (away, errors) =
                    (self.connections.len() - self.online, &self.shared.counts.errors);
                return Err(format!("{away} clients can't log in: {errors:?}"));
            }
            self.turn(self.shared.now + self.interval)?;
        }
        self.shared.is_over = false;
        self.began = Instant::now();
        self.shared.now = 0;
        self.tasks.clear();
        for at in 0..self.connections.len() {
            self.connections[at].last_activity = 0;
            if let Role::Receiver(Receiver { pace: Pace::Slow(1..), .. }) =
                self.connections[at].role
            {
                self.schedule(nanos(SLOW_INTERVAL), Task::ReadSlowly(at));
            }
        }
        for part in 0..self.parts.len() {
            if let Some(storm) = self.parts[part].storm {
                self.schedule(self.shared.counts.window.0 + nanos(storm), Task::Storm(part));
            }
        }
        for at in 0..self.connections.len() {
            self.send(at);
        }
        Ok(())
    }

    fn measure(
        &mut self,
        stop: &AtomicBool,
        report: &mut dyn FnMut(Progress),
    ) -> Result<(), String> {
        let (begin, end) = self.shared.counts.window;
        let mut has_begun = false;
        while self.shared.now < end && !stop.load(Ordering::Relaxed) {
            let boundary = if has_begun { end } else { begin };
            self.turn(self.interval_end.min(boundary))?;
            if self.shared.finding.is_some() {
                break;
            }
            let now = self.shared.now;
            if now >= self.interval_end || now >= boundary {
                report(Progress::Interval(self.end_interval()));
            }
            if !has_begun && now >= begin {
                has_begun = true;
                report(Progress::Begin);
            }
        }
        self.shared.counts.end_interval(self.shared.now);
        report(Progress::End);
        Ok(())
    }

    fn end_interval(&mut self) -> Interval {
        let now = self.shared.now;
        self.interval_end = now + self.interval;
        self.drop_overdue();
        self.shared.counts.end_interval(now)
    }

    /// Sends no new requests, and waits for the answers to the outstanding ones.
    fn drain(&mut self) -> Result<(), String> {
        self.shared.is_over = true;
        self.parts.iter_mut().for_each(|part| part.storm = None);
        let end = self.shared.now + nanos(DRAIN_TIME);
        let has_pending = |connection: &Connection| match &connection.role {
            Role::Sender(sender, _) => sender.has_pending(),
            Role::Receiver(_) => false,
        };
        while self.shared.finding.is_none()
            && self.shared.now < end
            && self.connections.iter().any(has_pending)
        {
            self.turn(self.interval_end)?;
            if self.shared.now >= self.interval_end {
                self.end_interval();
            }
        }
        for connection in &mut self.connections {
            if let Role::Sender(sender, _) = &mut connection.role {
                sender.give_up(&mut self.shared);
            }
        }
        Ok(())
    }

    /// Reads all mailboxes from their beginning, and waits until live receivers have received
    /// everything. Returns the number of mailboxes.
    fn read_back(&mut self) -> Result<usize, String> {
        let mut readers: Vec<(usize, usize)> = Vec::new();
        for number in 0..self.parts.len() {
            let Some(accounts) = self.parts[number].part.accounts.clone() else { continue };
            for (at, mailbox) in self.parts[number].mailboxes.clone().enumerate() {
                let mut reader = accounts.receiver(at, Pace::Once);
                reader.mailbox = mailbox;
                let server = self.primary.server.unwrap_or(0);
                readers.push((mailbox, self.connections.len()));
                self.schedule(0, Task::Dial(self.connections.len()));
                self.connections.push(Connection::new(number, Role::Receiver(reader), server));
            }
        }
        let (mut progress, mut since) = (self.unread(), self.shared.now);
        while progress.0 > 0 && self.shared.finding.is_none() {
            self.turn(self.interval_end)?;
            if self.shared.now < self.interval_end {
                continue;
            }
            self.end_interval();
            let last = std::mem::replace(&mut progress, self.unread());
            if progress != last {
                since = self.shared.now;
            } else if self.shared.now - since > nanos(READ_BACK_TIME) {
                self.shared.judge(Err(format!("{} readers did not receive all", progress.0)));
            }
        }
        for (mailbox, at) in &readers {
            if let Role::Receiver(Receiver { read_to, .. }) = &self.connections[*at].role {
                let result = self.shared.checker.finish(*mailbox, *read_to);
                self.shared.judge(result);
            }
        }
        Ok(readers.len())
    }

    /// Returns how many readers have not received everything that was acknowledged, and how much
    /// all of them have received.
    fn unread(&self) -> (usize, u64) {
        let readers = self.connections.iter().filter_map(|connection| match &connection.role {
            Role::Receiver(Receiver { pace: Pace::Slow(_), .. }) | Role::Sender(..) => None,
            Role::Receiver(receiver) => Some(receiver),
        });
        readers.fold((0, 0), |(count, sum), Receiver { mailbox, pace, is_ready, read_to, .. }| {
            let lacks = match pace {
                Pace::Once => !is_ready,
                _ => *read_to < self.shared.checker.acked_to(*mailbox),
            };
            (count + usize::from(lacks), sum + read_to)
        })
    }
}
