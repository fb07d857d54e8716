//! Clients that send and read all the time, each through `postern::client`, and record all
//! requests and answers.

use postern::client::{Account, After, Client, Event, Ticket};
use postern::rng::Rng;
use postern_testkit::checker::{OpId, Outcome, Request};
use postern_testkit::recorder::Recorder;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const USERS: [&str; 3] = ["ann", "bob", "cyd"];
const CLIENTS: usize = 6;
const PASSWORD: &str = "correct-horse";
/// The mean pause between two messages of one client.
const PAUSE: Duration = Duration::from_millis(10);
/// Maximum number of outstanding messages of one client.
const OUTSTANDING_MAX: usize = 8;
/// Maximum time for the last answers, and for the last messages, in a healthy group.
const PATIENCE: Duration = Duration::from_secs(30);
/// Refusals that faults can cause. Any other refusal is an error of a client or of a server.
const REFUSALS: [&str; 5] = ["no-space", "busy", "too-few-copies", "not-ready", "not-primary"];
/// The length of the longer texts.
const LONG_BYTES: usize = 3000;

/// The clients, each in a thread of its own. Dropping it ends them.
pub(super) struct Clients {
    shared: Arc<Shared>,
    servers: Vec<String>,
    threads: Vec<JoinHandle<()>>,
}

/// Numbers of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) stored: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    /// Delivered to readers.
    pub(super) delivered: u64,
}

struct Shared {
    recorder: Recorder,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    /// When each acknowledged message was sent and acknowledged, in the order of the latter.
    acks: Vec<(Instant, Instant)>,
    /// The first violation.
    finding: Option<String>,
    /// Messages without an outcome.
    outstanding: usize,
    /// Tells the clients to send nothing more.
    draining: bool,
    /// The final number of messages in each mailbox. Tells a client to end when it has all.
    lengths: Option<BTreeMap<String, u64>>,
    /// Tells the clients to end at once.
    aborted: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    /// Creates the accounts, and starts to send to these servers.
    pub(super) fn start(servers: Vec<String>, seed: u64) -> Result<Clients, String> {
        for user in USERS {
            read_all(&servers, Account::new(user, PASSWORD).created())?;
        }
        let shared = Arc::new(Shared { recorder: Recorder::new(), state: Mutex::default() });
        let mut rng = Rng::new(seed ^ 0xc11e);
        let start = |n: usize| {
            let rng = Rng::new(rng.next_u64());
            let (shared, servers) = (Arc::clone(&shared), servers.clone());
            thread::spawn(move || {
                if let Err(why) = RecordingClient::new(n, rng, &shared).run(servers) {
                    shared.state().finding.get_or_insert(why);
                }
            })
        };
        let threads = (0..CLIENTS).map(start).collect();
        Ok(Clients { shared, servers, threads })
    }

    /// Returns the first violation that a client has found.
    pub(super) fn finding(&self) -> Option<String> {
        self.shared.state().finding.clone()
    }

    /// Returns the time of the first acknowledgement of a message that was sent after `since`.
    pub(super) fn acked_after(&self, since: Instant) -> Option<Instant> {
        let acks = &self.shared.state().acks;
        let from = acks.partition_point(|(_, acked)| *acked < since);
        acks[from..].iter().find(|(sent, _)| *sent >= since).map(|(_, acked)| *acked)
    }

    /// Returns the longest time between two acknowledgements, and when it began.
    pub(super) fn longest_gap(&self) -> Option<(Duration, Instant)> {
        let acks = &self.shared.state().acks;
        acks.windows(2).map(|pair| (pair[1].1 - pair[0].1, pair[0].1)).max()
    }

    /// Stops sending, waits for the last answers, reads all mailboxes and checks the history. The
    /// group must be healthy.
    pub(super) fn finish(&mut self) -> Result<Counts, String> {
        let shared = Arc::clone(&self.shared);
        shared.state().draining = true;
        wait_until(|| {
            let state = shared.state();
            state.outstanding == 0 || state.finding.is_some()
        });
        self.finding().map_or(Ok(()), Err)?;
        let outstanding = shared.state().outstanding;
        if outstanding > 0 {
            return Err(format!(
                "{outstanding} messages have no answer {PATIENCE:?} after recovery"
            ));
        }
        let mut last = BTreeMap::new();
        for user in USERS {
            let messages = read_all(&self.servers, Account::new(user, PASSWORD))?;
            last.insert(user.to_owned(), messages);
        }
        let lengths = last.iter().map(|(user, all)| (user.clone(), all.len() as u64)).collect();
        shared.state().lengths = Some(lengths);
        wait_until(|| self.threads.iter().all(JoinHandle::is_finished));
        self.finding().map_or(Ok(()), Err)?;
        if !self.threads.iter().all(JoinHandle::is_finished) {
            return Err(format!("a reader lacks messages {PATIENCE:?} after recovery"));
        }
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "a client panicked".to_owned())?;
        }
        shared.recorder.check(&last).map_err(|finding| finding.to_string())?;
        let counts = shared.state().counts;
        Ok(counts)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.state().aborted = true;
        for thread in self.threads.drain(..) {
            // A panic is an error only in `finish`.
            let _ = thread.join();
        }
    }
}

/// Waits until `done` returns true, at most [`PATIENCE`].
fn wait_until(done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() && Instant::now() < end {
        thread::sleep(PAUSE);
    }
}

/// Returns the sender and text of all messages in a mailbox.
fn read_all(servers: &[String], account: Account) -> Result<Vec<(String, String)>, String> {
    let failed = |why: &dyn Display| format!("cannot read a mailbox: {why}");
    let account = account.after(After::Number(0));
    let mut client = Client::new(servers.to_vec(), account).map_err(|error| failed(&error))?;
    let end = Instant::now() + PATIENCE;
    let (mut messages, mut length) = (Vec::new(), None);
    while length != Some(messages.len() as u64) {
        if Instant::now() > end {
            return Err(failed(&format!("not at its end after {PATIENCE:?}")));
        }
        match client.next(Some(PAUSE)).map_err(|error| failed(&error))? {
            Some(Event::Message(message)) => messages.push((message.from, message.text)),
            Some(Event::Connected { last, .. }) => length = Some(last),
            _ => {}
        }
    }
    Ok(messages)
}

/// A client that sends to random users and reads its own mailbox.
struct RecordingClient<'a> {
    n: usize,
    user: &'static str,
    rng: Rng,
    shared: &'a Shared,
    sent: u64,
    outstanding: BTreeMap<Ticket, (OpId, Instant)>,
    received: Vec<(u64, String, String)>,
}

impl<'a> RecordingClient<'a> {
    fn new(n: usize, rng: Rng, shared: &'a Shared) -> RecordingClient<'a> {
        let (user, outstanding, received) = (USERS[n % USERS.len()], BTreeMap::new(), Vec::new());
        RecordingClient { n, user, rng, shared, sent: 0, outstanding, received }
    }

    fn run(mut self, servers: Vec<String>) -> Result<(), String> {
        let (n, user) = (self.n, self.user);
        let failed = |error| format!("client {n}, user {user}: {error}");
        let account = Account::new(user, PASSWORD).after(After::Number(0));
        let mut client = Client::new(servers, account).map_err(failed)?;
        client.set_patience(None);
        // The history has this read, which lasts as long as the run, as that of another client:
        // the requests of one client must not overlap it.
        let read = Request::Read { mailbox: user.to_owned(), after: 0 };
        let read = self.shared.recorder.asked((CLIENTS + n) as u32, read);
        let mut next_at = Instant::now();
        loop {
            let state = self.shared.state();
            let length = state.lengths.as_ref().map(|lengths| lengths[user]);
            let (draining, aborted) = (state.draining, state.aborted);
            drop(state);
            if aborted {
                return Ok(());
            }
            if length.is_some_and(|length| self.received.len() as u64 >= length) {
                self.shared.recorder.answered(read, Outcome::Read(self.received));
                return Ok(());
            }
            let now = Instant::now();
            if !draining && now >= next_at && self.outstanding.len() < OUTSTANDING_MAX {
                self.submit(&mut client).map_err(failed)?;
                next_at = now + self.rng.about(PAUSE);
            }
            let patience = next_at.saturating_duration_since(now).max(PAUSE / 10);
            if let Some(event) = client.next(Some(patience)).map_err(failed)? {
                self.handle(event)?;
            }
        }
    }

    fn submit(&mut self, client: &mut Client) -> Result<(), postern::client::Error> {
        let to = USERS[self.rng.below(USERS.len() as u64) as usize];
        self.sent += 1;
        let mut text = format!("message {} of client {}", self.sent, self.n);
        if self.rng.below(20) == 0 {
            text += format!(", {}", "long ".repeat(LONG_BYTES / 5)).trim_end();
        }
        let request = Request::Send {
            to: to.to_owned(),
            from: self.user.to_owned(),
            text: text.clone(),
            // The real key is known only to `client`. The text is as unique.
            key: Some(text.clone()),
        };
        let sent_at = Instant::now();
        let op = self.shared.recorder.asked(self.n as u32, request);
        let ticket = client.submit(to, &text)?;
        self.shared.state().outstanding += 1;
        self.outstanding.insert(ticket, (op, sent_at));
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        if let Event::Message(message) = event {
            self.shared.state().counts.delivered += 1;
            self.received.push((message.number, message.from, message.text));
            return Ok(());
        }
        let Some(ticket) = event.ticket() else { return Ok(()) };
        let (op, sent_at) =
            self.outstanding.remove(&ticket).ok_or("a message was answered twice")?;
        let mut state = self.shared.state();
        let outcome = match event {
            Event::Stored { number, .. } => {
                state.counts.stored += 1;
                state.acks.push((sent_at, Instant::now()));
                Outcome::Stored(number)
            }
            Event::Refused { why, .. } => {
                state.counts.refused += 1;
                if !REFUSALS.contains(&&why.code[..]) {
                    return Err(format!("unexpected refusal: {} {}", why.code, why.words));
                }
                Outcome::Refused(why.code)
            }
            _ => {
                state.counts.unknown += 1;
                Outcome::Unknown
            }
        };
        // The answer must be in the history before `finish` finds nothing outstanding.
        self.shared.recorder.answered(op, outcome);
        state.outstanding -= 1;
        Ok(())
    }
}
