//! A history that several threads record while their clients talk to real servers.

use crate::checker::{Finding, History, OpId, Outcome, Request};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Records requests and answers with the time since its creation, in microseconds.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    history: Mutex<History>,
}

impl Recorder {
    /// Returns an empty recorder.
    #[expect(clippy::new_without_default, reason = "it starts a clock")]
    pub fn new() -> Recorder {
        Recorder { began: Instant::now(), history: Mutex::new(History::new()) }
    }

    /// Records a request. Call it before the first byte is sent.
    pub fn asked(&self, client: u32, request: Request) -> OpId {
        self.history().asked(client, self.now(), request)
    }

    /// Records an answer. Call it after the last byte is read.
    pub fn answered(&self, op: OpId, outcome: Outcome) {
        self.history().answered(op, self.now(), outcome);
    }

    /// Checks the history; see [`History::check`].
    pub fn check(&self, last: &BTreeMap<String, Vec<(String, String)>>) -> Result<(), Finding> {
        self.history().check(last)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
