//! Tests whether postern is correct. Runs the shipped nodes and logs in virtual time with injected
//! faults, in every order of events up to a bound, and with hostile input.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

pub mod cluster;
pub mod count;
pub mod fuzz;
pub mod search;
pub mod simulate;

/// A panic that was caught.
#[derive(Clone, Debug, Default)]
struct Panic {
    /// File and line.
    place: String,
    message: String,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panic at {}: {}", self.place, self.message)
    }
}

thread_local! {
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Returns the result of `work`, or its panic, which is not printed.
fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHES.get() {
                return before(info);
            }
            let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
            let payload = info.payload();
            let text = payload.downcast_ref::<&str>().map(ToString::to_string);
            let message = text.or_else(|| payload.downcast_ref::<String>().cloned());
            let (place, message) = (place.unwrap_or_default(), message.unwrap_or_default());
            CAUGHT.set(Some(Panic { place, message }));
        }));
    });
    CATCHES.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHES.set(false);
    done.map_err(|_| CAUGHT.take().unwrap_or_default())
}

/// Removes halves, quarters, and so on to single items, while `fails` holds.
fn remove_items<T: Clone>(mut items: Vec<T>, fails: &mut dyn FnMut(&[T]) -> bool) -> Vec<T> {
    let mut width = items.len().div_ceil(2);
    while width > 0 {
        let mut at = 0;
        while at < items.len() {
            let mut fewer = items.clone();
            fewer.drain(at..(at + width).min(items.len()));
            if fails(&fewer) {
                items = fewer;
            } else {
                at += width;
            }
        }
        width = if width == 1 { 0 } else { width.div_ceil(2) };
    }
    items
}

/// Returns the error `why` unless `holds`.
fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}
