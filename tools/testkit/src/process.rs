//! Memory and processor time of processes.

use procfs::process::Process;
use procfs::{ProcResult, ticks_per_second};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::time::Duration;

/// Resident memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All of it.
    pub resident: i64,
    /// The anonymous part, which is not backed by a file: heap and stacks.
    pub anonymous: i64,
}

/// What the threads of a process have done since they began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Voluntary context switches.
    pub waits: u64,
    /// Processor time.
    pub cpu: Duration,
}

/// Returns the memory of a process.
///
/// # Errors
/// The process does not exist.
pub fn memory(pid: u32) -> Result<Memory, String> {
    let status = read(pid, Process::status)?;
    let kib = |value: Option<u64>| value.unwrap_or_default() as i64;
    Ok(Memory { resident: kib(status.vmrss), anonymous: kib(status.rssanon) })
}

/// Returns the work of all threads of a process until now.
///
/// # Errors
/// The process does not exist.
pub fn work(pid: u32) -> Result<Work, String> {
    read(pid, |process| {
        let mut all = Work::default();
        for thread in process.tasks()? {
            let thread = thread?;
            all.waits += thread.status()?.voluntary_ctxt_switches.unwrap_or_default();
            // In nanoseconds. `stat` counts ticks, and an idle server needs less than one.
            all.cpu += Duration::from_nanos(thread.schedstat()?.sum_exec_runtime);
        }
        Ok(all)
    })
}

/// Returns the processor time of a process until now, with that of its children that have ended.
///
/// # Errors
/// The process does not exist.
pub fn cpu(pid: u32) -> Result<Duration, String> {
    let stat = read(pid, Process::stat)?;
    let seconds = (stat.cutime + stat.cstime) as f64 / ticks_per_second() as f64;
    Ok(work(pid)?.cpu + Duration::from_secs_f64(seconds))
}

fn read<T>(pid: u32, get: impl FnOnce(&Process) -> ProcResult<T>) -> Result<T, String> {
    let failed = |error: &dyn std::fmt::Display| format!("process {pid}: {error}");
    let id = i32::try_from(pid).map_err(|error| failed(&error))?;
    Process::new(id).and_then(|process| get(&process)).map_err(|error| failed(&error))
}

/// Raises the limit of open files to its maximum, for this process and the servers that it starts.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If this is refused, the limit may still be sufficient; if not, a connection reports it.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_work() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0, "{memory:?}");
        let before = work(pid).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        let after = work(pid).unwrap();
        assert!(after.waits > before.waits && after.cpu > before.cpu, "{before:?} {after:?}");
        assert!(cpu(pid).unwrap() >= after.cpu);
        assert!(memory_of_none().is_err());
    }

    fn memory_of_none() -> Result<Memory, String> {
        memory(u32::MAX)
    }
}
