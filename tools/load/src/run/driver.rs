//! The loop of the load: one thread, one readiness set, all connections.
//!
//! It shares the machine with the servers that it measures, so a message costs it little: nothing
//! is allocated, the clock is read once a turn, and all requests of a connection leave in one
//! write.

use super::check::Routes;
use super::connection::{Connection, Role};
use super::ledger::{Ledger, Nanos, nanos};
use super::parts::{Live, Load, MakeReader, Observer, Outcome, Part};
use super::receiver::{Pace, Receiver};
use super::schedule::Schedule;
use super::sender::{Habits, Sender, Shared};
use super::timer::Timer;
use mio::{Events, Poll, Token};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const EVENTS: usize = 1024;
/// Read from one connection at a time.
const SCRATCH_BYTES: usize = 256 * 1024;
pub(super) const TIMER: Token = Token(usize::MAX);
/// How often a stretch ends, at least, and connections are looked at.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Stretches of one run, so that its picture can be read.
const INTERVALS: u32 = 240;
/// Slow readers read so often.
pub(super) const SLOW_TIME: Duration = Duration::from_millis(50);
/// Until all clients are let in, before anything is asked.
const GATHER_TIME: Duration = Duration::from_secs(60);
/// Until all answers are there, when nothing is asked any more.
const DRAIN_TIME: Duration = Duration::from_secs(30);
/// While mailboxes are read back, until the next message of any of them.
const READ_BACK_TIME: Duration = Duration::from_secs(30);

/// What is to be done at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A client tries to connect.
    Dial(usize),
    /// A slow reader reads its share.
    ReadSlowly(usize),
    /// All connections of a part close.
    Storm(usize),
}

/// Where the clients of a part are, and what is due for them.
pub(super) struct Place {
    pub(super) senders: std::ops::Range<usize>,
    pub(super) all: std::ops::Range<usize>,
    pub(super) mailboxes: std::ops::Range<usize>,
    pub(super) schedule: Option<Schedule>,
    /// Turns of the schedule whose senders were told.
    pub(super) told: u64,
    pub(super) storm: Option<Duration>,
    /// The storm that is under way: its place in the ledger, and who is not yet back.
    pub(super) away: Option<(usize, usize)>,
}

/// All that runs.
pub(super) struct Driver<'a> {
    pub(super) servers: &'a [SocketAddr],
    pub(super) patience: Nanos,
    pub(super) poll: Poll,
    pub(super) events: Events,
    pub(super) timer: Timer,
    pub(super) connections: Vec<Connection>,
    pub(super) places: Vec<Place>,
    pub(super) read_back: Vec<Option<MakeReader>>,
    pub(super) alarms: BinaryHeap<Reverse<(Nanos, Alarm)>>,
    pub(super) scratch: Vec<u8>,
    pub(super) shared: Shared,
    pub(super) began: Instant,
    pub(super) interval: Nanos,
    pub(super) interval_end: Nanos,
    /// The server that let somebody in last, and when it was lost since.
    pub(super) leader: Option<usize>,
    pub(super) leader_lost: Option<Nanos>,
    /// A server that was silent too long, and the one client that waits whether it goes on: the
    /// others try elsewhere, even where it is still taken for the primary.
    pub(super) silent: Option<(usize, Option<usize>)>,
}

/// Waits until all clients are let in, drives the load until its time is over or `stop` is set,
/// waits for the last answers, and reads all mailboxes back.
///
/// # Errors
/// It can't be driven at all, or its clients are not let in. What servers do wrong is in the
/// outcome.
pub(crate) fn drive(
    load: Load,
    servers: &[SocketAddr],
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome, String> {
    let mut driver = Driver::new(load, servers)?;
    driver.gather()?;
    driver.measure(stop, observer)?;
    driver.drain()?;
    let mailboxes_read = driver.read_back()?;
    let end = driver.shared.ledger.window.1;
    let unsent = driver.connections.iter().map(|connection| match &connection.role {
        Role::Sender(sender, _) => sender.unsent(end),
        Role::Receiver(_) => 0,
    });
    let unsent = unsent.sum();
    let primary = driver.leader.map(|at| servers[at]);
    let Shared { ledger, finding, .. } = driver.shared;
    Ok(Outcome { ledger, finding, mailboxes_read, unsent, primary })
}

impl<'a> Driver<'a> {
    fn new(load: Load, servers: &'a [SocketAddr]) -> Result<Driver<'a>, String> {
        let failed = |error: std::io::Error| format!("poll: {error}");
        let poll = Poll::new().map_err(failed)?;
        let timer = Timer::new(poll.registry(), TIMER).map_err(failed)?;
        let interval = INTERVAL_MIN.max((load.warm_up + load.measured) / INTERVALS);
        let mut driver = Driver {
            servers,
            patience: nanos(load.patience),
            poll,
            events: Events::with_capacity(EVENTS),
            timer,
            connections: Vec::new(),
            places: Vec::new(),
            read_back: Vec::new(),
            alarms: BinaryHeap::new(),
            scratch: vec![0; SCRATCH_BYTES],
            shared: Shared::new(Ledger::new(load.warm_up, load.measured)),
            began: Instant::now(),
            interval: nanos(interval),
            interval_end: nanos(interval),
            leader: None,
            leader_lost: None,
            silent: None,
        };
        for part in load.parts {
            driver.add(part);
        }
        Ok(driver)
    }

    fn add(&mut self, part: Part) {
        let (number, first) = (self.places.len(), self.connections.len());
        let routes = Routes { senders: part.senders, mailboxes: part.mailboxes };
        let first_mailbox = self.places.last().map_or(0, |place| place.mailboxes.end);
        let first_sender = self.shared.checker.add(routes, part.sizes);
        let schedule = (part.rate > 0 && part.senders > 0).then_some(Schedule {
            begin: 0,
            rate: part.rate,
            senders: part.senders,
        });
        let habits = Habits {
            depth: part.depth,
            sizes: part.sizes,
            routes,
            first_mailbox,
            schedule,
            repeats: part.repeats,
        };
        let add = |connections: &mut Vec<Connection>, role| {
            connections.push(Connection::new(number, role, 0));
        };
        for at in 0..part.senders + part.idle {
            // Who may have nothing outstanding says nothing.
            let silent = Habits { depth: 0, schedule: None, ..habits };
            let habits = if at < part.senders { habits } else { silent };
            let sender = Sender::new((first_sender + at) as u32, at, habits);
            add(&mut self.connections, Role::Sender(sender, part.dialect.clone()));
        }
        for mut receiver in part.receivers {
            receiver.mailbox += first_mailbox;
            add(&mut self.connections, Role::Receiver(receiver));
        }
        self.read_back.push(part.read_back);
        self.places.push(Place {
            senders: first..first + part.senders,
            all: first..self.connections.len(),
            mailboxes: first_mailbox..first_mailbox + part.mailboxes,
            schedule,
            told: 0,
            storm: part.storm,
            away: None,
        });
    }

    pub(super) fn wake_at(&mut self, at: Nanos, alarm: Alarm) {
        self.alarms.push(Reverse((at, alarm)));
    }

    /// Lets all clients in, and sets the clock to zero.
    fn gather(&mut self) -> Result<(), String> {
        for at in 0..self.connections.len() {
            self.wake_at(0, Alarm::Dial(at));
        }
        self.shared.is_over = true;
        let end = nanos(GATHER_TIME);
        loop {
            let away = self.connections.iter().filter(|one| !one.is_ready).count();
            if away == 0 {
                break;
            }
            if self.shared.now > end {
                let errors = &self.shared.ledger.errors;
                return Err(format!("{away} clients were not let in: {errors:?}"));
            }
            self.turn(self.shared.now + self.interval)?;
        }
        self.shared.is_over = false;
        self.began = Instant::now();
        self.shared.now = 0;
        self.alarms.clear();
        for at in 0..self.connections.len() {
            self.connections[at].rest(0);
            if let Role::Receiver(Receiver { pace: Pace::Slow(1..), .. }) =
                self.connections[at].role
            {
                self.wake_at(nanos(SLOW_TIME), Alarm::ReadSlowly(at));
            }
        }
        for part in 0..self.places.len() {
            if let Some(storm) = self.places[part].storm {
                self.wake_at(self.shared.ledger.window.0 + nanos(storm), Alarm::Storm(part));
            }
        }
        for at in 0..self.connections.len() {
            self.ask(at);
        }
        Ok(())
    }

    fn measure(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<(), String> {
        let (begin, end) = self.shared.ledger.window;
        let (mut has_begun, mut told) = (false, 0);
        while self.shared.now < end && !stop.load(Ordering::Relaxed) {
            let boundary = if has_begun { end } else { begin };
            self.turn(self.interval_end.min(boundary))?;
            if self.shared.finding.is_some() {
                break;
            }
            let now = self.shared.now;
            if now >= self.interval_end || now >= boundary {
                self.end_interval();
            }
            if !has_begun && now >= begin {
                has_begun = true;
                observer.begin();
            }
            if now / nanos(Duration::from_secs(1)) > told / nanos(Duration::from_secs(1)) {
                observer.second(&self.live(now - told));
                told = now;
            }
        }
        self.shared.ledger.end_interval(self.shared.now);
        observer.end();
        Ok(())
    }

    fn end_interval(&mut self) {
        let now = self.shared.now;
        self.shared.ledger.end_interval(now);
        self.interval_end = now + self.interval;
        self.drop_overdue();
    }

    fn live(&mut self, length: Nanos) -> Live {
        let ledger = &mut self.shared.ledger;
        let of = |count: u64| count as f64 / (length.max(1) as f64 / 1e9);
        let began = self.shared.now.saturating_sub(length);
        let lately = ledger.intervals.iter().rev().take_while(|one| one.began >= began);
        let sum = lately.fold((0, 0), |(a, d), one| (a + one.acked, d + one.delivered));
        let live = Live {
            elapsed: Duration::from_nanos(self.shared.now),
            acked: of(sum.0),
            delivered: of(sum.1),
            p99: Duration::from_nanos(ledger.lately.value_at_quantile(0.99)),
            errors: ledger.errors_ever(),
            primary: self.leader.map(|at| self.servers[at]),
        };
        ledger.lately.reset();
        live
    }

    /// Asks nothing new, and waits for the answers that are still to come.
    fn drain(&mut self) -> Result<(), String> {
        self.shared.is_over = true;
        for place in &mut self.places {
            place.storm = None;
        }
        let end = self.shared.now + nanos(DRAIN_TIME);
        while self.shared.finding.is_none()
            && self.shared.now < end
            && self.connections.iter().any(Connection::is_behind)
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

    /// Waits until who reads live was shown everything, and reads all mailboxes from their
    /// beginning. How many they are.
    fn read_back(&mut self) -> Result<usize, String> {
        let mut readers: Vec<(usize, usize)> = Vec::new();
        for (number, read_back) in std::mem::take(&mut self.read_back).into_iter().enumerate() {
            let Some(make) = read_back else { continue };
            let mailboxes = self.places[number].mailboxes.clone();
            for mailbox in mailboxes.clone() {
                let mut reader = make(mailbox - mailboxes.start);
                reader.mailbox = mailbox;
                let server = self.leader.unwrap_or(0);
                let connection = Connection::new(number, Role::Receiver(reader), server);
                readers.push((mailbox, self.join(connection)));
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
                self.shared.judge(Err(format!("{} readers were not shown all", progress.0)));
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

    /// How many readers were not yet shown everything that was acknowledged, and what all were
    /// shown.
    fn unread(&self) -> (usize, u64) {
        let readers = self.connections.iter().filter_map(|connection| match &connection.role {
            Role::Receiver(Receiver { pace: Pace::Slow(_), .. }) | Role::Sender(..) => None,
            Role::Receiver(receiver) => Some(receiver),
        });
        readers.fold((0, 0), |(count, shown), Receiver { mailbox, pace, is_ready, read_to, .. }| {
            let lacks = match pace {
                Pace::Once => !is_ready,
                _ => *read_to < self.shared.checker.acked_to(*mailbox),
            };
            (count + usize::from(lacks), shown + read_to)
        })
    }
}
