//! Polls the STATUS of all servers, each in a thread of its own.

use postern::commands::{Answer, ask_status};
use postern_testkit::group::{SERVERS, leads};
use std::array;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(15);
const STATUS_TIMEOUT: Duration = Duration::from_millis(300);

/// The polling threads. Dropping it ends them.
pub(super) struct Monitor {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    states: Mutex<States>,
    done: AtomicBool,
}

#[derive(Default)]
struct States {
    /// The time of the last request to each server, and its answer, if it arrived in time.
    last: [Option<(Instant, Option<Answer>)>; SERVERS],
    /// All primaries in the order in which they were observed.
    primaries: Vec<Primary>,
}

/// A server that was observed as a primary that accepts changes.
#[derive(Clone, Debug)]
pub(super) struct Primary {
    pub(super) server: usize,
    term: String,
    /// When it was first observed in this term.
    pub(super) since: Instant,
}

impl Shared {
    fn states(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, at: usize, address: &str) {
        while !self.done.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let answer = ask_status(address, STATUS_TIMEOUT).ok();
            let since = Instant::now();
            let mut states = self.states();
            if let Some(state) = answer.as_ref().filter(|state| leads(state)) {
                let term = state.get("term").cloned().unwrap_or_default();
                let is_known = |known: &Primary| known.server == at && known.term == term;
                if !states.primaries.iter().any(is_known) {
                    states.primaries.push(Primary { server: at, term, since });
                }
            }
            states.last[at] = Some((asked, answer));
            drop(states);
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Monitor {
    /// Starts to poll these servers.
    pub(super) fn start(servers: [SocketAddr; SERVERS]) -> Monitor {
        let shared = Arc::new(Shared::default());
        let poll = |(at, address): (usize, SocketAddr)| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.poll(at, &address.to_string()))
        };
        let threads = servers.into_iter().enumerate().map(poll).collect();
        Monitor { shared, threads }
    }

    /// Returns the last STATUS of each server; `None` if it was requested before `since`.
    pub(super) fn states(&self, since: Instant) -> [Option<Answer>; SERVERS] {
        let states = self.shared.states();
        array::from_fn(|at| {
            let (asked, answer) = states.last[at].as_ref()?;
            answer.clone().filter(|_| *asked >= since)
        })
    }

    /// Returns the server that was the last to become primary.
    pub(super) fn primary(&self) -> Option<usize> {
        self.shared.states().primaries.last().map(|primary| primary.server)
    }

    /// Returns the first new primary after `since`.
    pub(super) fn primary_after(&self, since: Instant) -> Option<Primary> {
        self.shared.states().primaries.iter().find(|primary| primary.since > since).cloned()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has printed why. The run sees its server as unreachable.
            let _ = thread.join();
        }
    }
}
