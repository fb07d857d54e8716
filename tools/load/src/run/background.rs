//! A load in its own thread, while something else happens to the group.

use super::create_parts;
use super::driver::drive;
use super::load::{Outcome, Progress};
use super::plan::Clients;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A connection without an answer for this time counts as lost, as in `postern::client`.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most time that the last answers and the reading of all mailboxes take.
const END_TIME: Duration = Duration::from_secs(240);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running load. Dropping it stops the load without a verdict.
pub struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Outcome, String>>>,
    /// The result, once the load has ended.
    outcome: Option<Outcome>,
}

impl Background {
    /// Starts to send to a group, for at most `time`. Returns when all clients are logged in.
    ///
    /// # Errors
    /// The accounts can't be created, or clients can't log in.
    pub fn start(
        servers: Vec<SocketAddr>,
        clients: Vec<Clients>,
        time: Duration,
    ) -> Result<Background, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let (begun, has_begun) = channel();
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let parts = create_parts(&servers, &clients)?;
            let spans = [Duration::ZERO, time, TIMEOUT];
            drive(spans, parts, &servers, &until, &mut |progress| {
                if let Progress::Begin = progress {
                    // `start` receives it.
                    let _ = begun.send(());
                }
            })
        });
        let mut load = Background { stop, thread: Some(thread), outcome: None };
        // The channel is closed if the load ends before it has begun.
        if has_begun.recv().is_err() {
            load.join()?;
        }
        Ok(load)
    }

    /// Returns a violation that the load found before anybody stopped it.
    pub fn finding(&mut self) -> Option<String> {
        let ended = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        if ended { self.join().err() } else { None }
    }

    /// Stops sending, waits for the last answers, and reads all mailboxes. All servers must run.
    ///
    /// # Errors
    /// A violation, or the load does not end.
    pub fn finish(&mut self) -> Result<Outcome, String> {
        self.stop.store(true, Ordering::Relaxed);
        let end = Instant::now() + END_TIME;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() > end {
                return Err(format!("load: not ended after {} s", END_TIME.as_secs()));
            }
            thread::sleep(POLL_INTERVAL);
        }
        self.join()?;
        self.outcome.take().ok_or_else(|| "load: failed before".to_owned())
    }

    fn join(&mut self) -> Result<(), String> {
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join().map_err(|_| "load: panicked".to_owned())??;
            if let Some(finding) = &outcome.finding {
                return Err(format!("load: {finding}"));
            }
            self.outcome = Some(outcome);
        }
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
