//! The trace of a run: one line for each event, kept only when requested. It includes the log
//! lines of the servers.

use std::cell::{Cell, RefCell};

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    /// Virtual time in µs, and the acting server (1 to 3, 0 for none), of the next lines.
    static STAMP: Cell<(u64, u8)> = const { Cell::new((0, 0)) };
}

/// Starts to record a trace on this thread.
pub(super) fn start() {
    LINES.set(Some(Vec::new()));
    if log::set_logger(&Recorder).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Stops recording and returns the lines.
pub(super) fn finish() -> Vec<String> {
    LINES.take().unwrap_or_default()
}

/// Sets the time and the acting server of the next lines.
pub(super) fn stamp(now: u64, server: u8) {
    STAMP.set((now, server));
}

/// Adds a line if a trace is being recorded.
pub(super) fn line(line: impl FnOnce() -> String) {
    LINES.with_borrow_mut(|lines| {
        let Some(lines) = lines else { return };
        let (now, server) = STAMP.get();
        let server = if server == 0 { " ".to_owned() } else { server.to_string() };
        let line = format!("{:>13.6} {server} {}", now as f64 / 1e6, line());
        // A process that was paused logs many equal lines at once.
        if !lines.iter().rev().take(8).any(|before| *before == line) {
            lines.push(line);
        }
    });
}

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        LINES.with_borrow(Option::is_some)
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            line(|| record.args().to_string());
        }
    }
    fn flush(&self) {}
}
