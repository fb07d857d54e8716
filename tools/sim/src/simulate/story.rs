//! What a person reads of a run: one line for each thing that happened, kept only when asked for.
//! The servers' own log lines are part of it.

use std::cell::{Cell, RefCell};

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    static NOW: Cell<u64> = const { Cell::new(0) };
    static WHO: Cell<u8> = const { Cell::new(0) };
}

/// From here on this thread's world tells its story.
pub(super) fn begin() {
    LINES.with(|lines| *lines.borrow_mut() = Some(Vec::new()));
    if log::set_logger(&Listener).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Ends the story and gives its lines.
pub(super) fn end() -> Vec<String> {
    LINES.with(|lines| lines.borrow_mut().take()).unwrap_or_default()
}

/// Sets the time of the lines to come, and which server acts, 1 to 3.
pub(super) fn at(now: u64, who: u8) {
    NOW.set(now);
    WHO.set(who);
}

/// Adds a line when there is a story.
pub(super) fn tell(line: impl FnOnce() -> String) {
    LINES.with(|lines| {
        if let Some(lines) = lines.borrow_mut().as_mut() {
            let who = match WHO.get() {
                0 => " ".to_owned(),
                who => who.to_string(),
            };
            let line = format!("{:>13.6} {who} {}", NOW.get() as f64 / 1e6, line());
            // A process that was stopped finds many equal things at once.
            if !lines.iter().rev().take(8).any(|before| *before == line) {
                lines.push(line);
            }
        }
    });
}

struct Listener;

impl log::Log for Listener {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        LINES.with(|lines| lines.borrow().is_some())
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            tell(|| record.args().to_string());
        }
    }
    fn flush(&self) {}
}
