//! The commands of the binary, one file each. Results on stdout, logs and progress on stderr.

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

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;
use std::fs::{File, TryLockError};
use std::io::{self, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

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
    let inner = SimpleLogger::new().with_level(level).with_utc_timestamps().with_colors(colors);
    log::set_max_level(level);
    let lasting = Lasting { inner, broken: AtomicBool::new(false) };
    // A second logger is never set: this is called once, before anything else.
    let _ = log::set_boxed_logger(Box::new(lasting));
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

/// A logger that outlives its stderr: `SimpleLogger` panics when that is closed.
struct Lasting {
    inner: SimpleLogger,
    broken: AtomicBool,
}

impl Log for Lasting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        // It tells every key, also those of passwords.
        let tells_keys = record.target().starts_with("rustyline");
        if tells_keys || self.broken.load(Ordering::Relaxed) {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| self.inner.log(record))).is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}
