//! What the servers of a run take of this machine, where they run on it.

use super::calls::Counter;
use postern_testkit::process::{self, Work};
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;

/// A server's process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) pid: u32,
}

/// What one server took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    /// Where it listens.
    pub(crate) server: String,
    /// Whether it was the primary at the end.
    pub(crate) is_primary: bool,
    /// Processor time within the measured time.
    pub(crate) cpu_seconds: f64,
    /// Resident memory at its end.
    pub(crate) resident_kib: i64,
    /// System calls in it, where they were counted.
    pub(crate) system_calls: Option<u64>,
    /// Which ones.
    pub(crate) system_calls_are: Option<&'static str>,
}

/// Looks at the processes when the measured time begins, and when it ends.
pub(crate) struct Meter {
    readings: Vec<Reading>,
}

struct Reading {
    server: Server,
    cpu: Option<Duration>,
    resident_kib: Option<i64>,
    calls: Option<Counter>,
}

impl Meter {
    /// One for these servers.
    pub(crate) fn new(servers: &[Server], counts_calls: bool) -> Meter {
        let of = |server: &Server| Reading {
            server: *server,
            cpu: None,
            resident_kib: None,
            calls: counts_calls.then(|| Counter::new(server.pid)),
        };
        Meter { readings: servers.iter().map(of).collect() }
    }

    /// The measured time begins.
    pub(crate) fn begin(&mut self) {
        for reading in &mut self.readings {
            reading.cpu = cpu(reading.server);
            if let Some(calls) = &mut reading.calls {
                calls.begin();
            }
        }
    }

    /// It has ended.
    pub(crate) fn end(&mut self) {
        for reading in &mut self.readings {
            if let Some(calls) = &mut reading.calls {
                calls.end();
            }
            let now = cpu(reading.server);
            reading.cpu = now.zip(reading.cpu).and_then(|(now, before)| now.checked_sub(before));
            let memory = process::memory(reading.server.pid);
            reading.resident_kib = memory.ok().map(|memory| memory.resident);
        }
    }

    /// What each took that ran all along.
    pub(crate) fn costs(self, primary: Option<SocketAddr>) -> Vec<Cost> {
        let of = |Reading { server, cpu, resident_kib, calls }| {
            let Server { address, .. } = server;
            let system_calls_are = calls.as_ref().map(Counter::what);
            Some(Cost {
                server: address.to_string(),
                is_primary: primary == Some(address),
                cpu_seconds: Duration::as_secs_f64(&cpu?),
                resident_kib: resident_kib?,
                system_calls: calls.and_then(Counter::count),
                system_calls_are,
            })
        };
        self.readings.into_iter().filter_map(of).collect()
    }
}

fn cpu(server: Server) -> Option<Duration> {
    process::work(server.pid).ok().map(|Work { cpu, .. }| cpu)
}
