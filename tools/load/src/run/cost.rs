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

/// Measures the use of one process.
pub(crate) struct Meter {
    server: String,
    pid: u32,
    /// The processor time at the beginning.
    cpu: Duration,
    calls: Option<Counter>,
}

impl Meter {
    /// Begins to measure a process with this name and id; `None` if it does not run.
    pub(crate) fn begin((server, pid): &(String, u32), counts_calls: bool) -> Option<Meter> {
        let cpu = process::cpu(*pid).ok()?;
        let calls = counts_calls.then(|| Counter::start(*pid));
        Some(Meter { server: server.clone(), pid: *pid, cpu, calls })
    }

    /// Returns the use since then; `None` if the process has ended.
    pub(crate) fn end(self) -> Option<Cost> {
        let cpu = process::cpu(self.pid).ok()?.checked_sub(self.cpu)?;
        let resident_kib = process::memory(self.pid).ok()?.resident;
        let (system_calls, system_calls_counted) = self.calls.map(Counter::stop).unzip();
        Some(Cost {
            server: self.server,
            cpu_seconds: cpu.as_secs_f64(),
            resident_kib,
            system_calls: system_calls.flatten(),
            system_calls_counted,
        })
    }
}
