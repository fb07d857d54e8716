//! Counts the system calls of a process: all of them with `perf`, if that is permitted, or else
//! those that the kernel counts anyway.

use procfs::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};

const EVENT: &str = "raw_syscalls:sys_enter";

/// Counts the system calls of one process.
pub(crate) struct Counter {
    pid: i32,
    perf: Option<Child>,
    /// The kernel's count of reads and writes at the beginning.
    kernel: Option<u64>,
}

impl Counter {
    /// Starts to count.
    pub(crate) fn start(pid: u32) -> Counter {
        let perf = Command::new("perf")
            .args(["stat", "-x,", "-e", EVENT, "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let pid = i32::try_from(pid).unwrap_or(0);
        Counter { pid, perf: perf.ok(), kernel: kernel_count(pid) }
    }

    /// Stops to count. Returns the count, and describes what was counted.
    pub(crate) fn stop(self) -> (Option<u64>, &'static str) {
        let kernel = kernel_count(self.pid).zip(self.kernel).map(|(now, before)| now - before);
        let output = self.perf.and_then(|perf| {
            // If `perf` was not permitted, it has ended already.
            let _ = kill_process(Pid::from_child(&perf), Signal::INT);
            perf.wait_with_output().ok()
        });
        let output = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        let line = output.as_ref().and_then(|text| text.lines().find(|line| line.contains(EVENT)));
        match line.and_then(|line| line.split(',').next()?.parse().ok()) {
            Some(count) => (Some(count), "all, counted by perf"),
            None => (kernel, "of reads and writes, but not of sockets, from /proc/PID/io"),
        }
    }
}

fn kernel_count(pid: i32) -> Option<u64> {
    let io = Process::new(pid).ok()?.io().ok()?;
    Some(io.syscr + io.syscw)
}
