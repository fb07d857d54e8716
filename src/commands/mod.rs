//! The commands of the binary, one file each. Results on stdout, logs and progress on stderr.
//!
//! All but `serve` are cold: the compiler makes them small, and puts them apart from what lies in
//! a server's memory.

pub mod chat;
pub mod check;
pub mod completions;
pub mod demo;
pub mod handover;
pub mod init;
pub mod man;
pub mod recover;
pub mod send;
pub mod serve;
pub mod status;
pub mod tail;
pub mod user;

mod ask;
mod operator;
mod person;
mod terminal;

pub use ask::{Answer, ask_status, is};
pub use terminal::end_on_signals;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;
use std::fs::{File, TryLockError};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::SystemTime;

/// Sends the log to stderr, at the level of `-v`, `-q` or `POSTERN_LOG`.
pub fn log_to_stderr(verbose: u8, quiet: bool) {
    let asked = std::env::var("POSTERN_LOG").ok().and_then(|level| level.parse().ok());
    let level = match (verbose, quiet) {
        (_, true) => LevelFilter::Warn,
        (0, _) => asked.unwrap_or(LevelFilter::Info),
        (1, _) => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let levels = SimpleLogger::new().with_level(level);
    log::set_max_level(level);
    // A second logger is never set: this is called once, before anything else.
    let _ = log::set_boxed_logger(Box::new(Stderr { levels, colors }));
}

/// Says one line on stderr, if somebody listens.
pub fn complain(why: &str) {
    let _ = writeln!(std::io::stderr(), "postern: {why}");
}

/// Holds a data directory for this process, as long as its file `lock`, which is `opened`, is
/// open.
fn hold(data: &Path, opened: io::Result<File>) -> Result<File, String> {
    let shown = data.display();
    let file = opened.map_err(|error| format!("{shown}/lock: {error}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!("{shown}: a server runs on it")),
        Err(TryLockError::Error(error)) => Err(format!("{shown}/lock: {error}")),
    }
}

/// The same for a directory that is only read: where it has no such file no server runs, and none
/// is made.
fn hold_unchanged(data: &Path) -> Result<Option<File>, String> {
    let lock = data.join("lock");
    lock.exists().then(|| hold(data, File::open(&lock))).transpose()
}

/// Writes what `levels` lets through; `SimpleLogger` itself panics when stderr is closed.
struct Stderr {
    levels: SimpleLogger,
    colors: bool,
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // It tells every key, also those of passwords.
        !metadata.target().starts_with("rustyline") && self.levels.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let (level, target) = (record.level(), record.target());
        let (on, off) = if self.colors { (color(level), "\x1b[0m") } else { ("", "") };
        // In one write, so that lines of processes that share a stderr stay whole.
        let line = format!("{now} {on}{level:<5}{off} [{target}] {}\n", record.args());
        // Nobody listens: there is no one to tell.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// The color of a level on a terminal (ECMA-48, SGR).
fn color(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[36m",
        Level::Debug => "\x1b[35m",
        Level::Trace => "",
    }
}
