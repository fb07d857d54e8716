//! Counts the system calls of a server: all of them with `perf`, where that may look, and else
//! those that the kernel counts anyway.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// `perf` answers at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(5);
const EVENT: &str = "raw_syscalls:sys_enter";

/// Counts those of one process.
pub(crate) enum Counter {
    /// `perf stat`, told by us when to count.
    Perf(Perf),
    /// The kernel's own counts of reads and writes, and what they were at the beginning.
    Kernel(u32, u64),
}

/// A `perf` that waits.
pub(crate) struct Perf {
    child: Child,
    orders: ChildStdin,
    says: Receiver<String>,
}

impl Counter {
    /// One that does not count yet.
    pub(crate) fn new(pid: u32) -> Counter {
        Perf::start(pid).map_or(Counter::Kernel(pid, 0), Counter::Perf)
    }

    /// What is counted, in words.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Counter::Perf(_) => "all, counted by perf",
            Counter::Kernel(..) => "of reads and writes, but not of sockets, from /proc/PID/io",
        }
    }

    /// Counts from now on.
    pub(crate) fn begin(&mut self) {
        match self {
            Counter::Perf(perf) => perf.order("enable"),
            Counter::Kernel(pid, before) => *before = kernel_count(*pid).unwrap_or(0),
        }
    }

    /// Counts no more.
    pub(crate) fn end(&mut self) {
        match self {
            Counter::Perf(perf) => perf.order("disable"),
            Counter::Kernel(pid, count) => {
                *count = kernel_count(*pid).unwrap_or(0).saturating_sub(*count);
            }
        }
    }

    /// How many there were, once it counts no more.
    pub(crate) fn count(self) -> Option<u64> {
        match self {
            Counter::Perf(mut perf) => perf.count(),
            Counter::Kernel(_, count) => Some(count),
        }
    }
}

impl Perf {
    fn start(pid: u32) -> Option<Perf> {
        let mut child = Command::new("perf")
            .args(["stat", "-D", "-1", "--control", "fd:0", "-x,", "-e", EVENT])
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let (orders, errors) = (child.stdin.take()?, child.stderr.take()?);
        let (say, says) = channel();
        // It ends with the pipe, which ends with `perf`.
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        let perf = Perf { child, orders, says };
        let first = perf.says.recv_timeout(PATIENCE).ok()?;
        first.contains("Events disabled").then_some(perf)
    }

    fn order(&mut self, order: &str) {
        // One that has ended has no count, which is said.
        let _ = writeln!(self.orders, "{order}");
    }

    fn count(&mut self) -> Option<u64> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).ok()?)?;
        kill_process(pid, Signal::INT).ok()?;
        while let Ok(line) = self.says.recv_timeout(PATIENCE) {
            if line.contains(EVENT) {
                return line.split(',').next()?.parse().ok();
            }
        }
        None
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn kernel_count(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let of = |key: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
    };
    Some(of("syscr:")? + of("syscw:")?)
}
