//! A load in a thread of its own, beside something else that happens to the group.

use super::drive_clients;
use super::parts::Observer;
use super::plan::Clients;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A connection without an answer for so long counts as lost, as with `postern::client`.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last answers and the reading of all mailboxes may take.
const END_TIME: Duration = Duration::from_secs(240);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What a load sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Acknowledged messages.
    pub acked: u64,
    /// Messages that may be stored or not.
    pub unknown: u64,
    /// Mailboxes that were read to the end and compared.
    pub mailboxes: usize,
}

/// A load that runs. Dropping it stops the load without a verdict.
pub struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Totals, String>>>,
    /// The result, once the load has ended.
    totals: Totals,
}

impl Background {
    /// Starts to send to a group, for at most `time`. Returns when all accounts exist.
    ///
    /// # Errors
    /// The accounts can't be created.
    pub fn start(
        servers: Vec<SocketAddr>,
        clients: Vec<Clients>,
        time: Duration,
    ) -> Result<Background, String> {
        let spans = [Duration::ZERO, time, PATIENCE];
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicBool::new(false));
        let (until, mut observer) = (Arc::clone(&stop), Begun(Arc::clone(&begun)));
        let thread = thread::spawn(move || {
            let (outcome, _) = drive_clients(&servers, &clients, spans, &until, &mut observer)?;
            match outcome.finding {
                Some(finding) => Err(format!("load: {finding}")),
                None => Ok(Totals {
                    acked: outcome.ledger.acked_ever,
                    unknown: outcome.ledger.unknown,
                    mailboxes: outcome.mailboxes_read,
                }),
            }
        });
        while !begun.load(Ordering::Relaxed) && !thread.is_finished() {
            thread::sleep(POLL_INTERVAL);
        }
        let mut load = Background { stop, thread: Some(thread), totals: Totals::default() };
        if !begun.load(Ordering::Relaxed) {
            load.join()?;
        }
        Ok(load)
    }

    /// Returns what the load found to be wrong before anybody asked it to end.
    pub fn finding(&mut self) -> Option<String> {
        let ended = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        if ended { self.join().err() } else { None }
    }

    /// Stops sending, waits for the last answers, and reads all mailboxes. The group is whole.
    ///
    /// # Errors
    /// What is wrong, or that the load does not end.
    pub fn finish(&mut self) -> Result<Totals, String> {
        self.stop.store(true, Ordering::Relaxed);
        let end = Instant::now() + END_TIME;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() > end {
                return Err(format!("load: not ended after {} s", END_TIME.as_secs()));
            }
            thread::sleep(POLL_INTERVAL);
        }
        self.join()
    }

    fn join(&mut self) -> Result<Totals, String> {
        if let Some(thread) = self.thread.take() {
            self.totals = thread.join().map_err(|_| "load: panicked".to_owned())??;
        }
        Ok(self.totals)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Notes that all accounts exist.
struct Begun(Arc<AtomicBool>);

impl Observer for Begun {
    fn begin(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
