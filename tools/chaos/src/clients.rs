//! Clients that send and read all the time, each through `postern::client`, and write down what
//! they ask and are told.

use postern::client::{Account, After, Client, Event, Ticket};
use postern::rng::Rng;
use postern_testkit::checker::{History, OpId, Outcome, Request};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const USERS: [&str; 3] = ["ann", "bob", "cyd"];
const CLIENTS: usize = 6;
const PASSWORD: &str = "correct-horse";
/// Between two messages of one client.
const PAUSE: Duration = Duration::from_millis(10);
/// Messages of one client that may be under way.
const DEPTH: usize = 8;
/// How long, in a group that is whole, an answer or a message may take in the end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Refusals that a sick group may give; another one means that somebody errs.
const REFUSALS: [&str; 5] = ["no-space", "busy", "too-few-copies", "not-ready", "not-primary"];
/// The same key is sent again only where it is known, so a text says all.
const LONG_BYTES: usize = 3000;

/// The crowd; it ends with this.
pub(super) struct Clients {
    record: Arc<Record>,
    servers: Vec<String>,
    threads: Vec<JoinHandle<()>>,
}

/// How much was asked, and what of it was answered how.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) stored: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) read: u64,
}

/// What all clients write down.
struct Record {
    began: Instant,
    history: Mutex<History>,
    /// When each acknowledged message was asked for and acknowledged, by the latter.
    acks: Mutex<Vec<(Instant, Instant)>>,
    counts: Mutex<Counts>,
    finding: Mutex<Option<String>>,
    /// Nothing more is sent.
    quiet: AtomicBool,
    /// Messages without an answer.
    open: AtomicU64,
    /// How many messages each mailbox holds in the end.
    lengths: Mutex<Option<BTreeMap<String, u64>>>,
    done: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn find(&self, finding: String) {
        locked(&self.finding).get_or_insert(finding);
    }
}

impl Clients {
    /// Begins to send, through these servers.
    pub(super) fn start(servers: Vec<String>, seed: u64) -> Result<Clients, String> {
        for user in USERS {
            read_all(&servers, Account::new(user, PASSWORD).created())?;
        }
        let record = Arc::new(Record {
            began: Instant::now(),
            history: Mutex::new(History::new()),
            acks: Mutex::new(Vec::new()),
            counts: Mutex::new(Counts::default()),
            finding: Mutex::new(None),
            quiet: AtomicBool::new(false),
            open: AtomicU64::new(0),
            lengths: Mutex::new(None),
            done: AtomicBool::new(false),
        });
        let mut rng = Rng::new(seed ^ 0xc11e);
        let start = |at: usize| {
            let rng = Rng::new(rng.next_u64());
            let (record, servers) = (Arc::clone(&record), servers.clone());
            thread::spawn(move || {
                let ended = Sender::new(at, rng, &record).run(servers);
                if let Err(why) = ended {
                    record.find(why);
                }
            })
        };
        let threads = (0..CLIENTS).map(start).collect();
        Ok(Clients { record, servers, threads })
    }

    /// What a client has found to be wrong.
    pub(super) fn finding(&self) -> Option<String> {
        locked(&self.record.finding).clone()
    }

    /// When the first message was acknowledged that was asked for after `since`.
    pub(super) fn acked_after(&self, since: Instant) -> Option<Instant> {
        let acks = locked(&self.record.acks);
        let from = acks.partition_point(|(_, acked)| *acked < since);
        acks[from..].iter().find(|(asked, _)| *asked >= since).map(|(_, acked)| *acked)
    }

    /// The longest time between two acknowledgements, and how long after the first it began.
    pub(super) fn longest_silence(&self) -> (Duration, Duration) {
        let acks = locked(&self.record.acks);
        let between = |pair: &[(Instant, Instant)]| {
            let ((_, before), (_, after)) = (pair[0], pair[1]);
            (after - before, before - acks[0].1)
        };
        acks.windows(2).map(between).max().unwrap_or_default()
    }

    /// See [`Counts`].
    pub(super) fn counts(&self) -> Counts {
        *locked(&self.record.counts)
    }

    /// Stops sending, waits for what is under way, reads all mailboxes and judges everything. The
    /// group is whole.
    pub(super) fn judge(&mut self) -> Result<Counts, String> {
        let record = &self.record;
        record.quiet.store(true, Ordering::Relaxed);
        wait(|| record.open.load(Ordering::Relaxed) == 0 || self.finding().is_some());
        if let Some(finding) = self.finding() {
            return Err(finding);
        }
        let open = record.open.load(Ordering::Relaxed);
        if open > 0 {
            return Err(format!("{open} messages have no answer after {PATIENCE:?} in peace"));
        }
        let mut last = BTreeMap::new();
        for user in USERS {
            let all = read_all(&self.servers, Account::new(user, PASSWORD))?;
            last.insert(user.to_owned(), all);
        }
        let lengths = last.iter().map(|(user, all)| (user.clone(), all.len() as u64)).collect();
        *locked(&record.lengths) = Some(lengths);
        wait(|| self.threads.iter().all(JoinHandle::is_finished));
        if !self.threads.iter().all(JoinHandle::is_finished) {
            let short = format!("a reader misses messages after {PATIENCE:?} in peace");
            return Err(self.finding().unwrap_or(short));
        }
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "a client panicked".to_owned())?;
        }
        if let Some(finding) = self.finding() {
            return Err(finding);
        }
        locked(&record.history).check(&last).map_err(|finding| finding.to_string())?;
        Ok(self.counts())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.record.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic matters only while a verdict is waited for.
            let _ = thread.join();
        }
    }
}

/// Waits until something is so, or patience is over.
fn wait(is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() && Instant::now() < end {
        thread::sleep(PAUSE);
    }
}

/// Sender and text of all messages of a mailbox.
fn read_all(servers: &[String], account: Account) -> Result<Vec<(String, String)>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("a mailbox: {why}");
    let account = account.after(After::Number(0));
    let mut client = Client::new(servers.to_vec(), account).map_err(|error| failed(&error))?;
    let end = Instant::now() + PATIENCE;
    let (mut messages, mut length) = (Vec::new(), None);
    while length != Some(messages.len() as u64) {
        if Instant::now() > end {
            return Err(failed(&"can't be read to its end in peace"));
        }
        match client.next(Some(PAUSE)).map_err(|error| failed(&error))? {
            Some(Event::Message(message)) => messages.push((message.from, message.text)),
            Some(Event::Connected { last, .. }) => length = Some(last),
            _ => {}
        }
    }
    Ok(messages)
}

/// One client.
struct Sender<'a> {
    place: usize,
    user: &'static str,
    rng: Rng,
    record: &'a Record,
    sent: u64,
    open: BTreeMap<Ticket, (OpId, Instant)>,
    shown: Vec<(u64, String, String)>,
}

impl<'a> Sender<'a> {
    fn new(place: usize, rng: Rng, record: &'a Record) -> Sender<'a> {
        let user = USERS[place % USERS.len()];
        Sender { place, user, rng, record, sent: 0, open: BTreeMap::new(), shown: Vec::new() }
    }

    fn run(mut self, servers: Vec<String>) -> Result<(), String> {
        let (place, user) = (self.place, self.user);
        let failed = |error| format!("client {place} of {user}: {error}");
        let account = Account::new(self.user, PASSWORD).after(After::Number(0));
        let mut client = Client::new(servers, account).map_err(failed)?;
        client.set_patience(None);
        // A reading that lasts as long as the run, beside what the client sends: that of another.
        let reading = Request::Read { mailbox: self.user.to_owned(), after: 0 };
        let reader = (CLIENTS + self.place) as u32;
        let reading = locked(&self.record.history).asked(reader, self.record.now(), reading);
        let mut next_at = Instant::now();
        while !self.record.done.load(Ordering::Relaxed) {
            if self.has_read_all() {
                let all = Outcome::Read(std::mem::take(&mut self.shown));
                locked(&self.record.history).answered(reading, self.record.now(), all);
                return Ok(());
            }
            let now = Instant::now();
            let quiet = self.record.quiet.load(Ordering::Relaxed);
            if !quiet && now >= next_at && self.open.len() < DEPTH {
                self.submit(&mut client).map_err(failed)?;
                next_at = now + self.rng.about(PAUSE);
            }
            let patience = next_at.saturating_duration_since(now).max(PAUSE / 10);
            if let Some(event) = client.next(Some(patience)).map_err(failed)? {
                self.note(event)?;
            }
        }
        Ok(())
    }

    fn has_read_all(&self) -> bool {
        let lengths = locked(&self.record.lengths);
        let length = lengths.as_ref().map(|lengths| lengths[self.user]);
        length.is_some_and(|length| self.shown.len() as u64 >= length)
    }

    fn submit(&mut self, client: &mut Client) -> Result<(), postern::client::Error> {
        let to = USERS[self.rng.below(USERS.len() as u64) as usize];
        self.sent += 1;
        let mut text = format!("message {} of client {}", self.sent, self.place);
        if self.rng.below(20) == 0 {
            text += format!(", {}", "long ".repeat(LONG_BYTES / 5)).trim_end();
        }
        let request = Request::Send {
            to: to.to_owned(),
            from: self.user.to_owned(),
            text: text.clone(),
            // The client has keys of its own; nobody else sends this text.
            key: Some(text.clone()),
        };
        let asked = Instant::now();
        let op = locked(&self.record.history).asked(self.place as u32, self.record.now(), request);
        let ticket = client.submit(to, &text)?;
        self.record.open.fetch_add(1, Ordering::Relaxed);
        self.open.insert(ticket, (op, asked));
        Ok(())
    }

    fn note(&mut self, event: Event) -> Result<(), String> {
        if let Event::Message(message) = event {
            locked(&self.record.counts).read += 1;
            self.shown.push((message.number, message.from, message.text));
            return Ok(());
        }
        let Some(ticket) = event.ticket() else { return Ok(()) };
        let (op, asked) = self.open.remove(&ticket).ok_or("a message was answered twice")?;
        let mut counts = locked(&self.record.counts);
        let outcome = match event {
            Event::Stored { number, .. } => {
                counts.stored += 1;
                locked(&self.record.acks).push((asked, Instant::now()));
                Outcome::Stored(number)
            }
            Event::Refused { why, .. } => {
                counts.refused += 1;
                if !REFUSALS.contains(&&why.code[..]) {
                    return Err(format!("a message was refused: {} {}", why.code, why.words));
                }
                Outcome::Refused(why.code)
            }
            _ => {
                counts.unknown += 1;
                Outcome::Unknown
            }
        };
        drop(counts);
        locked(&self.record.history).answered(op, self.record.now(), outcome);
        self.record.open.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}
