//! What the kernel knows of a process.

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::fs;
use std::time::Duration;

/// Resident memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All of it, in KiB.
    pub resident: i64,
    /// The part that is no file: heap and stacks.
    pub anonymous: i64,
}

/// What the threads of a process did since they began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// How often one waited for something.
    pub waits: u64,
    /// Time on a processor.
    pub cpu: Duration,
}

/// The memory of a process now.
pub fn memory(pid: u32) -> Result<Memory, String> {
    let path = format!("/proc/{pid}/status");
    let text = read(&path)?;
    let of = |key| field(&text, key).ok_or_else(|| format!("{path}: has no {key}"));
    Ok(Memory { resident: of("VmRSS:")? as i64, anonymous: of("RssAnon:")? as i64 })
}

/// The work of all threads of a process until now.
pub fn work(pid: u32) -> Result<Work, String> {
    let folder = format!("/proc/{pid}/task");
    let failed = |error| format!("{folder}: {error}");
    let mut all = Work::default();
    for thread in fs::read_dir(&folder).map_err(failed)? {
        let thread = thread.map_err(failed)?.path();
        let of = |file| thread.join(file).display().to_string();
        let switches = field(&read(&of("status"))?, "voluntary_ctxt_switches:");
        all.waits += switches.ok_or_else(|| format!("{folder}: no context switches"))?;
        // In nanoseconds, where `stat` counts ticks, of which an idle server uses none.
        let times = read(&of("schedstat"))?;
        let ran = times.split(' ').next().and_then(|time| time.parse().ok());
        all.cpu += Duration::from_nanos(ran.ok_or_else(|| format!("{folder}: no run time"))?);
    }
    Ok(all)
}

/// Time on a processor of a process until now, with that of its children that have ended.
pub fn cpu(pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let children = children_ticks(&read(&path)?).ok_or_else(|| format!("{path}: no times"))?;
    let seconds = children as f64 / clock_ticks_per_second() as f64;
    Ok(work(pid)?.cpu + Duration::from_secs_f64(seconds))
}

/// Ticks of children that were waited for, in user and in system mode.
fn children_ticks(stat: &str) -> Option<u64> {
    // The name of the program, in brackets, may have spaces and brackets in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(13);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Lets this process, and the servers that it starts, have as many connections as allowed.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, there may still be enough; if not, a connection fails and says why.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

fn field(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "VmRSS:\t    1234 kB\nnonvoluntary_ctxt_switches:\t9\n\
                    voluntary_ctxt_switches:\t5\n";
        assert_eq!(field(text, "VmRSS:"), Some(1234));
        assert_eq!(field(text, "voluntary_ctxt_switches:"), Some(5));
        assert_eq!(field(text, "RssAnon:"), None);
    }

    #[test]
    fn children_are_found_behind_any_name() {
        let stat = "12 (a b) 1) S 1 2 3 0 -1 4194560 8 9 10 11 70 71 30 4 20 0 7 0 99";
        assert_eq!(children_ticks(stat), Some(34));
        assert_eq!(children_ticks("12 (a) S 1"), None);
    }
}
