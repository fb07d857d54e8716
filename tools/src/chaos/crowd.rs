//! The clients of `postern-tools load`: more of them, with a checker of their own, beside those
//! that write everything down.

use crate::load;
use crate::load::parts::Observer;
use crate::load::plan::Clients;
use crate::load::text::Sizes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// As long as the clients of `postern::client` bear a silent server.
const PATIENCE: Duration = Duration::from_secs(5);
/// What slow readers take a second.
const SLOW_BYTES: u64 = 5000;
/// How often those without keys go and come back, all at once.
const STORM_SECONDS: f64 = 7.0;
/// What a run takes beyond its time at most; the load is over then, and lets the faults end.
const EXTRA_TIME: Duration = Duration::from_secs(600);
/// Until the last answers are there and all mailboxes are read.
const END_TIME: Duration = Duration::from_secs(240);
const LOOK_TIME: Duration = Duration::from_millis(20);

/// How much it sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pressure {
    /// Messages a second, whatever the group does: what was not taken comes at once when it is
    /// well.
    pub(super) rate: u64,
    /// The lengths of texts.
    pub(super) bytes: Sizes,
    /// How long faults strike.
    pub(super) time: Duration,
}

/// How many messages were acknowledged, or may be stored or not; in how many mailboxes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) acked: u64,
    pub(super) unknown: u64,
    pub(super) mailboxes: usize,
}

/// The load; it ends with this.
pub(super) struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Counts, String>>>,
    /// What came of it, once it has ended.
    counts: Counts,
}

impl Crowd {
    /// Begins to send to a group that is whole.
    pub(super) fn start(servers: Vec<SocketAddr>, pressure: Pressure) -> Result<Crowd, String> {
        let Pressure { rate, bytes, time } = pressure;
        let repeating = Clients {
            connections: 16,
            outstanding: 8,
            bytes,
            rate: rate.div_ceil(2),
            mailboxes: 4,
            receivers: 4,
            once: true,
            ..Clients::default()
        };
        // Without keys, so that outcomes are unknown; and what else clients are.
        let forgetting = Clients {
            mailboxes: 2,
            receivers: 2,
            slow: 2,
            slow_bytes: SLOW_BYTES,
            idle: 8,
            storm: STORM_SECONDS,
            once: false,
            ..repeating.clone()
        };
        let clients = [repeating.complete()?, forgetting.complete()?];
        let spans = [Duration::ZERO, time + EXTRA_TIME, PATIENCE];
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicBool::new(false));
        let (until, mut observer) = (Arc::clone(&stop), Begun(Arc::clone(&begun)));
        let thread = thread::spawn(move || {
            let (outcome, _) =
                load::drive_clients(&servers, &clients, spans, &until, &mut observer)?;
            match outcome.finding {
                Some(finding) => Err(format!("load: {finding}")),
                None => {
                    let (ledger, mailboxes) = (outcome.ledger, outcome.mailboxes_read);
                    Ok(Counts { acked: ledger.acked_ever, unknown: ledger.unknown, mailboxes })
                }
            }
        });
        // Its accounts are made by one who does not come back.
        while !begun.load(Ordering::Relaxed) && !thread.is_finished() {
            thread::sleep(LOOK_TIME);
        }
        let mut crowd = Crowd { stop, thread: Some(thread), counts: Counts::default() };
        if !begun.load(Ordering::Relaxed) {
            crowd.join()?;
        }
        Ok(crowd)
    }

    /// What it has found to be wrong before it was asked to end.
    pub(super) fn finding(&mut self) -> Option<String> {
        let is_over = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        if is_over { self.join().err() } else { None }
    }

    /// Stops sending, waits for the last answers, and reads all mailboxes. The group is whole.
    pub(super) fn judge(&mut self) -> Result<Counts, String> {
        self.stop.store(true, Ordering::Relaxed);
        let end = Instant::now() + END_TIME;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() > end {
                return Err("the load does not come to its end in peace".to_owned());
            }
            thread::sleep(LOOK_TIME);
        }
        self.join()
    }

    fn join(&mut self) -> Result<Counts, String> {
        if let Some(thread) = self.thread.take() {
            self.counts = thread.join().map_err(|_| "the load panicked".to_owned())??;
        }
        Ok(self.counts)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // The process ends, or its servers do: nobody waits for a verdict.
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Notes that all accounts are there.
struct Begun(Arc<AtomicBool>);

impl Observer for Begun {
    fn begin(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
