//! The processor time, memory and system calls of servers that run on this machine.

use super::calls::Counter;
use postern_testkit::process;
use serde::Serialize;
use std::time::Duration;

/// The use of one process.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Cost {
    /// The server's address, or its name.
    pub(crate) server: String,
    /// Processor time within the measured time.
    pub(crate) cpu_seconds: f64,
    /// Resident memory at its end.
    pub(crate) resident_kib: i64,
    /// System calls within the measured time, if they were counted.
    pub(crate) system_calls: Option<u64>,
    /// Which system calls were counted.
    pub(crate) system_calls_counted: Option<&'static str>,
}

/// Reads the processes when the measured time begins and when it ends.
pub(crate) struct Meter {
    counts_calls: bool,
    readings: Vec<Reading>,
}

struct Reading {
    server: String,
    pid: u32,
    cpu: Option<Duration>,
    resident_kib: Option<i64>,
    calls: Option<Counter>,
}

impl Meter {
    /// Creates a meter for processes with these names and ids.
    pub(crate) fn new(processes: &[(String, u32)], counts_calls: bool) -> Meter {
        let reading = |(server, pid): &(String, u32)| Reading {
            server: server.clone(),
            pid: *pid,
            cpu: None,
            resident_kib: None,
            calls: None,
        };
        Meter { counts_calls, readings: processes.iter().map(reading).collect() }
    }

    /// The measured time begins.
    pub(crate) fn begin(&mut self) {
        for Reading { pid, cpu, calls, .. } in &mut self.readings {
            *cpu = process::cpu(*pid).ok();
            *calls = self.counts_calls.then(|| Counter::start(*pid));
        }
    }

    /// The measured time ends.
    pub(crate) fn end(&mut self) {
        for Reading { pid, cpu, calls, resident_kib, .. } in &mut self.readings {
            if let Some(calls) = calls {
                calls.stop();
            }
            let now = process::cpu(*pid).ok();
            *cpu = now.zip(*cpu).and_then(|(now, before)| now.checked_sub(before));
            *resident_kib = process::memory(*pid).ok().map(|memory| memory.resident);
        }
    }

    /// Returns the use of each process that ran all the time.
    pub(crate) fn costs(self) -> Vec<Cost> {
        let cost = |Reading { server, cpu, resident_kib, calls, .. }| {
            let (system_calls, what) = calls.map(Counter::count).unzip();
            Some(Cost {
                server,
                cpu_seconds: Duration::as_secs_f64(&cpu?),
                resident_kib: resident_kib?,
                system_calls: system_calls.flatten(),
                system_calls_counted: what,
            })
        };
        self.readings.into_iter().filter_map(cost).collect()
    }
}
