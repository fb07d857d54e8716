//! `postern-load storage`: what many stored messages cost. It fills a group, and measures memory,
//! the start, and the replay of a mailbox, each beside what the machine does with the same bytes.

mod beside;
mod fill;

use crate::stats::verdict;
use clap::Args;
use fill::{Amount, LARGE, fill};
use postern_testkit::client::PASSWORD;
use postern_testkit::group::{self, Group, SERVERS, binary_beside_this, loopback_placements};
use postern_testkit::{print, process};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Resident memory of each server with 10 million messages, in KiB.
const RESIDENT_TARGET: i64 = 48 * 1024;
/// The replay of the large mailbox, in messages a second of processor time.
const REPLAY_TARGET: f64 = 500_000.0;
/// The speed of a start that reads the log, relative to `cat`.
const START_TARGET: f64 = 1.0 / 3.0;
/// The speed of a start with a checkpoint, relative to `cat` of what it must read, and its time.
const CHECKPOINT_TARGET: (f64, Duration) = (0.5, Duration::from_millis(500));
/// After this time without requests, freed memory has left the process.
const QUIET_TIME: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum time for the group to apply its log, and to make its index files.
const APPLY_TIME: Duration = Duration::from_secs(600);

/// Options of `postern-load storage`.
#[derive(Debug, Args)]
pub struct Options {
    /// The `postern` binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    postern: Option<PathBuf>,
    /// Messages to store.
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    messages: u64,
    /// Mailboxes that hold them.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=900_000))]
    mailboxes: u64,
    /// Messages among them in one more mailbox, which is replayed.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    large: u64,
    /// Length of the texts.
    #[arg(long, default_value_t = 100, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3840))]
    bytes: u64,
}

/// Prints the figures.
///
/// # Errors
/// A figure can't be measured.
pub fn run(options: &Options) -> Result<(), String> {
    let Options { messages, mailboxes, large, .. } = *options;
    let amount = Amount { messages, mailboxes, large, bytes: options.bytes as usize };
    if large > messages {
        return Err("--large is at most --messages".to_owned());
    }
    let postern = options.postern.clone().map_or_else(binary_beside_this, Ok)?;
    let folder = Arc::new(group::folder("storage")?);
    let placements = loopback_placements(folder.path())?;
    let mut group = Group::create(&postern, folder, placements, "")?;
    let began = Instant::now();
    fill(&group, amount)?;
    let log = log_bytes(group.data(0))?;
    print(&format!(
        "fill\n  {messages} messages of {} bytes in {mailboxes} mailboxes, {large} of them in one \
         more: {} MiB a server, in {:.1} s\n",
        options.bytes,
        log >> 20,
        began.elapsed().as_secs_f64()
    ))?;
    print(&format!("start\n{}", start(&mut group, From::Log, Cache::Warm)?))?;
    print(&format!("memory\n{}", memory(&group)?))?;
    print(&format!("index files\n{}", index_files(&group, log)?))?;
    print(&format!("replay\n{}", replay(&mut group, amount)?))?;
    for from in [From::Checkpoint, From::Indexes, From::Log] {
        for cache in [Cache::Warm, Cache::Cold] {
            if (from, cache) == (From::Log, Cache::Warm) {
                continue;
            }
            for at in 0..SERVERS {
                group.kill(at)?;
                group.reap(at)?;
            }
            print(&format!("start\n{}", start(&mut group, from, cache)?))?;
        }
    }
    print(&format!("memory\n{}", memory(&group)?))?;
    print(&format!("refill\n{}", beside::refill(&mut group)?))?;
    print(&format!("written\n{}", beside::written(&postern)?))?;
    print(&format!("beside clients\n{}", beside::measure(&mut group, amount)?))
}

/// Whether the kernel has the files of a server in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    Warm,
    Cold,
}

impl Cache {
    /// Makes it so, as far as the kernel and the machine below it allow.
    fn prepare(self, paths: &[PathBuf]) -> Result<(), String> {
        if self == Cache::Warm {
            return cat(paths).map(drop);
        }
        for path in paths {
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            let file = File::open(path).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            let forgotten = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            forgotten.map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    fn word(self) -> &'static str {
        match self {
            Cache::Warm => "warm",
            Cache::Cold => "cold",
        }
    }
}

/// What a start begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// The log alone.
    Log,
    /// The checkpoint, index files after it, and the last segment.
    Checkpoint,
    /// Index files, and the last segment.
    Indexes,
}

impl From {
    /// Prepares the directory of a server. Returns the files that such a start must read at least.
    fn files(self, data: &Path) -> Result<Vec<PathBuf>, String> {
        let checkpoint = data.join("checkpoint");
        let mut segments = segments(data)?;
        segments.sort();
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| format!("{}: {error}", path.display())),
        };
        match self {
            From::Log => {
                remove(&checkpoint)?;
                segments.iter().try_for_each(|path| remove(&path.with_extension("idx")))?;
                Ok(segments)
            }
            From::Checkpoint => Ok(vec![checkpoint, segments.pop().ok_or("there is no log")?]),
            From::Indexes => {
                remove(&checkpoint)?;
                let last = segments.pop().ok_or("there is no log")?;
                Ok(segments.iter().map(|path| path.with_extension("idx")).chain([last]).collect())
            }
        }
    }

    fn words(self) -> &'static str {
        match self {
            From::Log => "from the log alone",
            From::Checkpoint => "from the checkpoint",
            From::Indexes => "from index files alone",
        }
    }

    fn is_met(self, ratio: f64, time: Duration) -> bool {
        match self {
            From::Log | From::Indexes => ratio >= START_TARGET,
            From::Checkpoint => ratio >= CHECKPOINT_TARGET.0 && time < CHECKPOINT_TARGET.1,
        }
    }
}

/// Returns the paths of a server's segments.
fn segments(data: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("{}: {error}", data.display());
    let entries = fs::read_dir(data.join("log")).map_err(failed)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    Ok(paths)
}

fn size(path: &Path) -> Result<u64, String> {
    fs::metadata(path).map(|file| file.len()).map_err(|e| format!("{}: {e}", path.display()))
}

fn log_bytes(data: &Path) -> Result<u64, String> {
    segments(data)?.iter().map(|path| size(path)).sum()
}

/// Reads files as `cat` does. Returns how long that takes.
fn cat(paths: &[PathBuf]) -> Result<Duration, String> {
    let mut buffer = vec![0; 128 * 1024];
    let began = Instant::now();
    for path in paths {
        let failed = |error| format!("{}: {error}", path.display());
        let mut file = File::open(path).map_err(failed)?;
        while file.read(&mut buffer).map_err(failed)? > 0 {}
    }
    Ok(began.elapsed())
}

/// Starts the servers. Measures server 1 alone first, until it has read its log.
fn start(group: &mut Group, from: From, cache: Cache) -> Result<String, String> {
    let paths = from.files(group.data(0))?;
    let bytes = paths.iter().map(|path| size(path)).sum::<Result<u64, _>>()?;
    cache.prepare(&paths)?;
    let read = cat(&paths)?;
    cache.prepare(&paths)?;
    let began = Instant::now();
    group.start_server(0)?;
    while group.status(0).is_none() {
        thread::sleep(POLL_INTERVAL / 20);
        if began.elapsed() > APPLY_TIME {
            return Err(format!("server 1 does not start\n{}", group.last_words()));
        }
    }
    let time = began.elapsed();
    (1..SERVERS).try_for_each(|at| group.start_server(at))?;
    group.settle().map_err(|why| format!("{why}\n{}", group.last_words()))?;
    let applied = wait_applied(group, began)?;
    let ratio = read.as_secs_f64() / time.as_secs_f64();
    let (met, what, cache) = (verdict(from.is_met(ratio, time)), from.words(), cache.word());
    Ok(format!(
        "  {what}, {cache}: server 1 answers after {:.3} s, cat of these {} MiB takes {:.3} s: \
         {ratio:.2} of its speed ({met})\n  all three have applied everything after {:.1} s\n",
        time.as_secs_f64(),
        bytes >> 20,
        read.as_secs_f64(),
        applied.as_secs_f64()
    ))
}

/// Waits until all servers have applied their log, and have made all index files and a checkpoint.
fn wait_applied(group: &Group, began: Instant) -> Result<Duration, String> {
    loop {
        let is_done = |at: usize| -> Result<bool, String> {
            let Some(answer) = group.status(at) else { return Ok(false) };
            let of = |key: &str| answer.get(key).cloned();
            let applied = of("applied_index").is_some_and(|index| Some(index) == of("last_index"));
            let indexes = segments(group.data(at))?;
            let lacks = indexes.iter().filter(|path| !path.with_extension("idx").exists()).count();
            Ok(applied && lacks <= 1 && group.data(at).join("checkpoint").exists())
        };
        if (0..SERVERS).map(is_done).collect::<Result<Vec<_>, _>>()?.into_iter().all(|done| done) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > APPLY_TIME {
            return Err(format!("the log is not applied in time\n{}", group.last_words()));
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn memory(group: &Group) -> Result<String, String> {
    thread::sleep(QUIET_TIME);
    let mut text = String::new();
    for at in 0..SERVERS {
        let memory = process::memory(group.pid(at)?)?;
        let met = verdict(memory.resident <= RESIDENT_TARGET);
        let _ = writeln!(
            text,
            "  server {}: {:.1} MiB resident ({met}), {:.1} of it anonymous; target: {} MiB",
            at + 1,
            memory.resident as f64 / 1024.0,
            memory.anonymous as f64 / 1024.0,
            RESIDENT_TARGET / 1024,
        );
    }
    Ok(text)
}

fn index_files(group: &Group, log: u64) -> Result<String, String> {
    let sizes = segments(group.data(0))?.into_iter().map(|path| path.with_extension("idx"));
    let sizes: Vec<u64> = sizes.filter_map(|path| size(&path).ok()).collect();
    let all: u64 = sizes.iter().sum();
    let (mib, share) = (all >> 20, all as f64 * 100.0 / log as f64);
    Ok(format!("  {} files of {mib} MiB: {share:.1} % of the log\n", sizes.len()))
}

/// Replays the large mailbox to one client.
fn replay(group: &mut Group, amount: Amount) -> Result<String, String> {
    let primary = group.settle()?;
    let failed = |error| format!("replay: {error}");
    let mut stream = TcpStream::connect(group.address(primary)).map_err(failed)?;
    stream.write_all(format!("LOGIN {LARGE} {PASSWORD} end\nLOG\n").as_bytes()).map_err(failed)?;
    let pid = group.pid(primary)?;
    let (mut buffer, mut lines) = (vec![0; 256 * 1024], 0);
    let (mut began, mut cpu) = (Instant::now(), Duration::ZERO);
    while lines < amount.large + 2 {
        let read = stream.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            return Err(format!("the server closed after {lines} lines"));
        }
        if lines == 0 {
            // Now the password is checked.
            (began, cpu) = (Instant::now(), process::cpu(pid)?);
        }
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    let (time, cpu) = (began.elapsed(), process::cpu(pid)? - cpu);
    let rate = amount.large as f64 / cpu.as_secs_f64();
    let met = verdict(rate >= REPLAY_TARGET);
    Ok(format!(
        "  {} messages in {:.2} s, with {:.2} s of the primary's processor time: {rate:.0} a \
         second ({met}); target: {REPLAY_TARGET:.0}\n",
        amount.large,
        time.as_secs_f64(),
        cpu.as_secs_f64()
    ))
}
