//! Writes the log to standard error on a thread of its own, so that the event loop never waits
//! for a reader. Standard error may be a full pipe, or a terminal stopped by Ctrl+S, and anyone
//! who can connect can cause log lines.
//!
//! Lines wait in a bounded queue. When it is full, lines are dropped and counted, and the count
//! is logged as soon as there is room again. The file descriptor keeps its inherited flags: with
//! `O_NONBLOCK`, other programs that share it would fail.

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::mem;
use std::os::fd::AsFd;
use std::panic;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Maximum size of the queue, in bytes: the capacity of a pipe on Linux.
const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// How long a process that ends waits for its last log lines to be written.
const FLUSH_TIME: Duration = Duration::from_secs(1);
/// The pause before a write is repeated when another program has made the descriptor
/// non-blocking.
const RETRY_TIME: Duration = Duration::from_millis(20);

/// Moves to the beginning of the line and erases it (ECMA-48, EL).
const CLEAR_LINE: &str = "\r\x1b[K";

static LINES: LazyLock<Lines> = LazyLock::new(Lines::default);

/// Sends the log to stderr, at the level of `-v`, `-q` or `POSTERN_LOG`.
///
/// # Errors
/// Returns a one-line message that states what this machine lacks.
pub fn log_to_stderr(verbose: u8, quiet: bool) -> Result<(), String> {
    let asked = std::env::var("POSTERN_LOG").ok().and_then(|level| level.parse().ok());
    let level = match (verbose, quiet) {
        (_, true) => LevelFilter::Warn,
        (0, _) => asked.unwrap_or(LevelFilter::Info),
        (1, _) => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let colors = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let levels = SimpleLogger::new().with_level(level);
    // Writes bypass `io::stderr()`: its lock would be held while a write waits.
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(stderr) => {
            let write = move || LINES.write_all_to(&mut File::from(stderr));
            let thread = thread::Builder::new().name("log".to_owned()).spawn(write);
            thread.map_err(|error| format!("cannot start a thread for the log: {error}"))?;
        }
        Err(_) => LINES.queue().closed = true,
    }
    log::set_max_level(level);
    // A second logger is never set: this is called once, before anything else.
    let _ = log::set_boxed_logger(Box::new(Logger { levels, colors }));
    Ok(())
}

/// Writes an error message to stderr after all earlier log lines, and waits until it is written.
pub fn complain(why: &str) {
    LINES.push(format!("postern: {why}\n"));
    LINES.flush(None);
}

/// Writes the reason why a server ends, and waits at most one second until it is written.
pub fn complain_briefly(why: &str) {
    LINES.push(format!("postern: {why}\n"));
    log::logger().flush();
}

/// Writes a line that is not an error message.
pub(super) fn tell(words: &str) {
    LINES.push(format!("{words}\n"));
}

/// Shows a progress line on a terminal. The next line, whatever it is, overwrites it.
pub(super) fn show_progress(words: String) {
    LINES.show(words);
}

/// Writes the message of a panic like a log line, so that a server whose invariant is broken ends
/// even if nobody reads stderr.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(|info| complain_briefly(&info.to_string())));
}

/// Lines that wait to be written.
#[derive(Debug, Default)]
struct Lines {
    queue: Mutex<Queue>,
    /// Notified when a line was added, or all lines are written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<String>,
    /// The progress line, written after `lines`. Only the newest one is kept.
    progress: Option<String>,
    /// The size of `lines`, in bytes.
    bytes: usize,
    /// Number of lines dropped since the last one that found room.
    dropped: u64,
    /// The thread is writing what it removed from `lines`.
    writing: bool,
    /// Nobody can read stderr, so lines are discarded.
    closed: bool,
}

impl Lines {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, or drops it. Never waits.
    fn push(&self, line: String) {
        self.queue().push(line);
        self.changed.notify_all();
    }

    /// Replaces the progress line. Never waits.
    fn show(&self, words: String) {
        let mut queue = self.queue();
        if !queue.closed {
            queue.progress = Some(words);
        }
        self.changed.notify_all();
    }

    /// Waits until every line is written, or until `until`.
    fn flush(&self, until: Option<Instant>) {
        let waits = |queue: &mut Queue| !queue.is_written();
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) => drop(self.changed.wait_timeout_while(self.queue(), left, waits)),
            None => drop(self.changed.wait_while(self.queue(), waits)),
        }
    }

    /// Writes lines forever, or until a write fails.
    fn write_all_to(&self, out: &mut impl Write) {
        // Whether the last line is a progress line, which the next one overwrites.
        let mut over = false;
        loop {
            let mut queue = self.queue();
            queue.writing = false;
            self.changed.notify_all();
            let waits = |queue: &mut Queue| queue.lines.is_empty() && queue.progress.is_none();
            let queue = self.changed.wait_while(queue, waits);
            let (lines, progress) = queue.unwrap_or_else(PoisonError::into_inner).take();
            // Each line is one write, so that lines of processes that share a stderr stay whole.
            let lines = lines.iter().map(|line| (line, false));
            let mut lines = lines.chain(progress.iter().map(|line| (line, true)));
            let written = lines.try_for_each(|(line, is_progress)| {
                let clear = if mem::replace(&mut over, is_progress) { CLEAR_LINE } else { "" };
                write_line(out, format!("{clear}{line}").as_bytes())
            });
            if written.is_err() {
                let mut queue = self.queue();
                queue.take();
                (queue.writing, queue.closed) = (false, true);
                self.changed.notify_all();
                return;
            }
            self.queue().note_dropped();
        }
    }
}

impl Queue {
    fn push(&mut self, line: String) {
        if self.closed {
            return;
        }
        self.note_dropped();
        if self.dropped > 0 || self.bytes + line.len() > QUEUE_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    /// Adds a line that reports how many were dropped here, once the queue is at most half full.
    fn note_dropped(&mut self) {
        if self.dropped > 0 && self.bytes <= QUEUE_BYTES_MAX / 2 {
            let count = mem::take(&mut self.dropped);
            let lines = if count == 1 { "line was" } else { "lines were" };
            let words = format!("{count} log {lines} dropped: nobody read standard error");
            self.push(line(false, Level::Warn, module_path!(), &words));
        }
    }

    fn take(&mut self) -> (VecDeque<String>, Option<String>) {
        (self.bytes, self.writing) = (0, true);
        (mem::take(&mut self.lines), self.progress.take())
    }

    fn is_written(&self) -> bool {
        let is_empty = self.lines.is_empty() && self.progress.is_none();
        self.closed || (is_empty && !self.writing && self.dropped == 0)
    }
}

fn write_line(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => line = &line[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_TIME),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Queues the records that `levels` lets through. `SimpleLogger` itself would write, and wait.
struct Logger {
    levels: SimpleLogger,
    colors: bool,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // rustyline logs every key, also those of passwords.
        !metadata.target().starts_with("rustyline") && self.levels.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let words = record.args().to_string();
            LINES.push(line(self.colors, record.level(), record.target(), &words));
        }
    }

    /// Waits until all that was logged is written, for a second at most.
    fn flush(&self) {
        LINES.flush(Some(Instant::now() + FLUSH_TIME));
    }
}

fn line(colors: bool, level: Level, target: &str, words: &str) -> String {
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    let (on, off) = if colors { (color(level), "\x1b[0m") } else { ("", "") };
    format!("{now} {on}{level:<5}{off} [{target}] {words}\n")
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Accepts bytes only when it is allowed to.
    struct Stuck {
        allowed: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.allowed.recv().map_err(|_| ErrorKind::BrokenPipe)?;
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.written.send(text).map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_written_over_progress_and_only_the_newest_is_shown() {
        let (allow, allowed) = channel();
        let (written, lines) = channel();
        let queue = Arc::new(Lines::default());
        let writer = Arc::clone(&queue);
        thread::spawn(move || writer.write_all_to(&mut Stuck { allowed, written }));
        queue.show("1 %".to_owned());
        while !queue.queue().writing {
            thread::yield_now();
        }
        queue.show("2 %".to_owned());
        queue.show("3 %".to_owned());
        queue.push("told\n".to_owned());
        (0..3).for_each(|_| allow.send(()).unwrap());
        queue.flush(None);
        queue.push("more\n".to_owned());
        allow.send(()).unwrap();
        queue.flush(None);
        let all: Vec<String> = lines.try_iter().collect();
        assert_eq!(all, ["1 %", "\r\x1b[Ktold\n", "3 %", "\r\x1b[Kmore\n"]);
    }

    #[test]
    fn lines_are_dropped_and_counted_while_nobody_reads() {
        let (allow, allowed) = channel();
        let (written, lines) = channel();
        let queue = Arc::new(Lines::default());
        let writer = Arc::clone(&queue);
        thread::spawn(move || writer.write_all_to(&mut Stuck { allowed, written }));
        queue.push("first\n".to_owned());
        // Waits until the thread has removed the line from the queue, and is stuck in its write.
        while !queue.queue().writing {
            thread::yield_now();
        }
        let long = format!("{}\n", "x".repeat(1023));
        (0..100).for_each(|_| queue.push(long.clone()));
        assert_eq!(queue.queue().dropped, 36);
        queue.flush(Some(Instant::now())); // does not wait
        (0..65).for_each(|_| allow.send(()).unwrap());
        assert_eq!(lines.recv().unwrap(), "first\n");
        (0..64).for_each(|_| assert_eq!(lines.recv().unwrap(), long));
        allow.send(()).unwrap();
        let counted = lines.recv().unwrap();
        assert!(counted.ends_with(" 36 log lines were dropped: nobody read standard error\n"));
        queue.push("last\n".to_owned());
        allow.send(()).unwrap();
        assert_eq!(lines.recv().unwrap(), "last\n");
        queue.flush(None);
        // The reader is gone: nothing waits, and nothing is kept.
        drop(allow);
        queue.push("lost\n".to_owned());
        queue.flush(None);
        queue.push("lost\n".to_owned());
        assert!(queue.queue().lines.is_empty());
    }
}
