//! While primaries are killed and restarted, every answer to a client is true. An `OK n` means
//! that the message has number `n`, a refused message is stored nowhere, and a message that was
//! shown once is shown to every later reader.

mod common;

use common::{Client, Group};
use postern::rng::Rng;
use postern_testkit::checker::{Outcome, Request, Sent, check_sent};
use postern_testkit::recorder::Recorder;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const USERS: [&str; 3] = ["ann", "bob", "cyd"];
const SESSIONS_EACH: usize = 2;
const KILLS: usize = 3;
/// The pause between two attempts to find the primary.
const RETRY_TIME: Duration = Duration::from_millis(2);
/// A refusal for another reason is an error of the test or of the server.
const REFUSALS: [&str; 4] = ["not-primary", "not-ready", "busy", "too-few-copies"];

#[test]
fn what_was_told_while_primaries_were_killed_is_true() {
    let seed = RandomState::new().hash_one("history");
    eprintln!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut group = Group::open();
    let primary = group.wait_members(3);
    USERS.iter().for_each(|user| drop(group.client(primary, user)));
    let record = Record::new();
    let servers = group.servers.clone();
    thread::scope(|scope| {
        for client in 0..USERS.len() * SESSIONS_EACH {
            let rng = Rng::new(rng.next_u64());
            let (record, servers) = (&record, &servers);
            scope.spawn(move || Sender::new(client, rng, record).run(servers));
        }
        // Ends the clients even if a server fails the test.
        let _done = Done(&record.done);
        for _ in 0..KILLS {
            let primary = group.wait_members(3);
            record.wait_answers(20 + rng.below(50));
            group.kill(primary);
            group.wait_members(2);
            record.wait_answers(rng.below(50));
            group.start(primary);
        }
        group.wait_members(3);
        record.wait_answers(20);
    });
    let primary = group.wait_members(3);
    let mailbox = |user: &&str| ((*user).to_owned(), group.messages(primary, user));
    let last: BTreeMap<_, _> = USERS.iter().map(mailbox).collect();
    record.history.check(&last).unwrap_or_else(|finding| panic!("{finding}"));
    for user in USERS {
        let sent = sent(&group, primary, user);
        check_sent(user, &sent, &last).unwrap_or_else(|finding| panic!("{finding}"));
    }
}

/// Returns all that an account has sent.
fn sent(group: &Group, primary: usize, user: &str) -> Vec<Sent> {
    let mut client = group.connect(primary);
    assert!(client.ask(&format!("LOGIN {user} correct-horse end")).starts_with("OK "));
    client.send("SENT");
    let lines = std::iter::repeat_with(|| client.line()).take_while(|line| !line.starts_with("OK"));
    let parse = |line: String| {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        let number = |at: usize| words[at].parse().expect("a number");
        let (to, text) = (words[4].to_owned(), words[5].to_owned());
        Sent { i: number(1), n: number(2), to, text }
    };
    lines.map(parse).collect()
}

/// The record that all clients share.
struct Record {
    history: Recorder,
    answers: Mutex<u64>,
    done: AtomicBool,
}

impl Record {
    fn new() -> Record {
        let (history, answers) = (Recorder::new(), Mutex::new(0));
        Record { history, answers, done: AtomicBool::new(false) }
    }

    fn answers(&self) -> MutexGuard<'_, u64> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `count` more messages are stored, or mailboxes read.
    fn wait_answers(&self, count: u64) {
        let wanted = *self.answers() + count;
        let end = Instant::now() + common::DEADLINE;
        while *self.answers() < wanted {
            assert!(Instant::now() < end, "no {count} answers");
            thread::sleep(RETRY_TIME);
        }
    }
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client that sends to all users, reads its own mailbox, and follows the primary.
struct Sender<'a> {
    client: u32,
    user: &'static str,
    rng: Rng,
    record: &'a Record,
    sent: u64,
    /// The highest message number that it has received.
    shown: u64,
}

impl<'a> Sender<'a> {
    fn new(client: usize, rng: Rng, record: &'a Record) -> Sender<'a> {
        let user = USERS[client % USERS.len()];
        Sender { client: client as u32, user, rng, record, sent: 0, shown: 0 }
    }

    fn run(mut self, servers: &[String]) {
        let mut at = 0;
        while !self.record.done.load(Ordering::Relaxed) {
            if let Some(session) = self.log_in(&servers[at % servers.len()]) {
                self.talk(session);
            }
            at += 1;
            thread::sleep(RETRY_TIME);
        }
    }

    fn log_in(&self, server: &str) -> Option<Client> {
        let mut session = Client::try_connect(server)?;
        session.send(&format!("LOGIN {} correct-horse end", self.user));
        let line = std::iter::from_fn(|| session.try_line()).find(|line| !is_push(line))?;
        line.starts_with("OK ").then_some(session)
    }

    /// Sends requests until the session is lost, or its server is no longer the primary.
    fn talk(&mut self, mut session: Client) {
        while !self.record.done.load(Ordering::Relaxed) {
            let (line, request) = self.request();
            let op = self.record.history.asked(self.client, request.clone());
            session.send(&line);
            let Some(outcome) = outcome(&mut session, &request) else { return };
            let lost = matches!(outcome, Outcome::Refused(_) | Outcome::Unknown);
            if let (Request::Read { after, .. }, Outcome::Read(messages)) = (&request, &outcome) {
                self.shown = after + messages.len() as u64;
            }
            self.record.history.answered(op, outcome);
            if lost {
                return;
            }
            *self.record.answers() += 1;
        }
    }

    fn request(&mut self) -> (String, Request) {
        if self.rng.below(3) == 0 {
            let after = self.shown.saturating_sub(self.rng.below(20));
            return (format!("LOG {after}"), Request::Read { mailbox: self.user.into(), after });
        }
        let to = USERS[self.rng.below(USERS.len() as u64) as usize];
        self.sent += 1;
        let text = format!("message {} of client {}", self.sent, self.client);
        let line = format!("SEND {to} {text}");
        (line, Request::Send { to: to.into(), from: self.user.into(), text, key: None })
    }
}

fn is_push(line: &str) -> bool {
    line.starts_with("MSG ") || line.starts_with("NOTE ")
}

/// Returns the answer; `None` if the connection ends before it.
fn outcome(session: &mut Client, request: &Request) -> Option<Outcome> {
    let mut messages = Vec::new();
    loop {
        let line = session.try_line()?;
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        match (&words[..], request) {
            (["MSG", n, _, from, text], _) => {
                messages.push((n.parse().ok()?, (*from).to_owned(), (*text).to_owned()));
            }
            (["NOTE", ..], _) => {}
            (["ERR", "unknown-outcome", ..], _) => return Some(Outcome::Unknown),
            (["ERR", code, ..], _) => {
                assert!(REFUSALS.contains(code), "{line}");
                return Some(Outcome::Refused((*code).to_owned()));
            }
            (["OK", n], Request::Send { .. }) => {
                return Some(Outcome::Stored(n.parse().expect("a number")));
            }
            (["OK", last], Request::Read { after, .. }) => {
                // Messages that were pushed while the request was on its way arrived first.
                let last: u64 = last.parse().expect("a number");
                let shown = usize::try_from(last - after).expect("memory holds them");
                let pushed = messages.len().checked_sub(shown).expect("all are shown");
                return Some(Outcome::Read(messages.split_off(pushed)));
            }
            _ => panic!("neither an answer nor a push: {line}"),
        }
    }
}
