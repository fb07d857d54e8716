//! What the servers say of themselves all the time: a thread asks each one.

use postern::commands::{Answer, ask_status};
use postern_testkit::group::{SERVERS, leads};
use std::array;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(15);
/// One that says nothing for so long says nothing.
const PATIENCE: Duration = Duration::from_millis(300);

/// The threads; they end with it.
pub(super) struct Watch {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    states: Mutex<States>,
    done: AtomicBool,
}

#[derive(Default)]
struct States {
    /// What each said, and when it was asked.
    last: [Option<(Instant, Option<Answer>)>; SERVERS],
    /// Who led, from when it was first heard of, and in which term.
    leaders: Vec<Leader>,
}

/// A primary that took changes.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) since: Instant,
    pub(super) server: usize,
    term: String,
}

impl Seen {
    fn states(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, at: usize, server: &str) {
        while !self.done.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let answer = ask_status(server, PATIENCE).ok();
            let now = Instant::now();
            let mut states = self.states();
            if let Some(state) = answer.as_ref().filter(|state| leads(state)) {
                let term = state.get("term").cloned().unwrap_or_default();
                if !states.leaders.iter().any(|known| known.server == at && known.term == term) {
                    states.leaders.push(Leader { since: now, server: at, term });
                }
            }
            states.last[at] = Some((asked, answer));
            drop(states);
            thread::sleep(PAUSE);
        }
    }
}

impl Watch {
    /// Begins to ask these servers.
    pub(super) fn start(servers: [SocketAddr; SERVERS]) -> Watch {
        let seen = Arc::new(Seen::default());
        let ask = |(at, server): (usize, SocketAddr)| {
            let seen = Arc::clone(&seen);
            thread::spawn(move || seen.ask(at, &server.to_string()))
        };
        let threads = servers.into_iter().enumerate().map(ask).collect();
        Watch { seen, threads }
    }

    /// What each server last said, of those that were asked after `since`.
    pub(super) fn states(&self, since: Instant) -> [Option<Answer>; SERVERS] {
        let states = self.seen.states();
        array::from_fn(|at| {
            let (asked, answer) = states.last[at].as_ref()?;
            answer.clone().filter(|_| *asked >= since)
        })
    }

    /// The one that was last heard to have become primary.
    pub(super) fn primary(&self) -> Option<usize> {
        self.seen.states().leaders.last().map(|leader| leader.server)
    }

    /// The first primary that was heard of after `since` for the first time.
    pub(super) fn leader_after(&self, since: Instant) -> Option<Leader> {
        self.seen.states().leaders.iter().find(|leader| leader.since > since).cloned()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.seen.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there has been printed, and means no more than silence.
            let _ = thread.join();
        }
    }
}
