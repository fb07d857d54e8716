//! What the servers of a run take of this machine, where they run on it.

use crate::process::{self, Work};
use serde::Serialize;
use std::time::Duration;

/// A server's process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    /// Which of the configured servers it is; from 1.
    pub(crate) id: usize,
    /// Its process.
    pub(crate) pid: u32,
}

/// What one server took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    /// Which of the configured servers it is.
    pub(crate) server: usize,
    /// Processor time within the measured time.
    pub(crate) cpu_seconds: f64,
    /// Resident memory at its end.
    pub(crate) resident_kib: i64,
    /// System calls in it, where they were counted.
    pub(crate) system_calls: Option<u64>,
}

/// Looks at the processes when the measured time begins, and when it ends.
pub(crate) struct Meter {
    servers: Vec<Server>,
    before: Vec<Option<Duration>>,
}

impl Meter {
    /// One for these servers.
    pub(crate) fn new(servers: Vec<Server>) -> Meter {
        Meter { servers, before: Vec::new() }
    }

    /// The measured time begins.
    pub(crate) fn begin(&mut self) {
        self.before = self.servers.iter().map(|server| cpu(*server)).collect();
    }

    /// It has ended: what each took, if it ran all along.
    pub(crate) fn end(&mut self) -> Vec<Cost> {
        let of = |(server, before): (&Server, &Option<Duration>)| {
            let cpu = cpu(*server)?.checked_sub((*before)?)?;
            Some(Cost {
                server: server.id,
                cpu_seconds: cpu.as_secs_f64(),
                resident_kib: process::memory(server.pid).ok()?.resident,
                system_calls: None,
            })
        };
        self.servers.iter().zip(&self.before).filter_map(of).collect()
    }
}

fn cpu(server: Server) -> Option<Duration> {
    process::work(server.pid).ok().map(|Work { cpu, .. }| cpu)
}
