//! Runs a case and catches its panic, with the location of the panic.

use super::case::Case;
use super::target::Target;
use crate::panic_message;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// A defect that a case has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The location of the panic, or the violated bound. Findings with equal names count as one
    /// defect.
    pub(super) name: String,
    /// The message of the panic, or the values that violate the bound.
    pub(super) message: String,
}

thread_local! {
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<Finding>> = const { RefCell::new(None) };
}

/// Runs a case. A panic or a violated bound is a finding.
pub(super) fn check(target: &Target, case: &Case) -> Option<Finding> {
    install();
    CATCHES.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(|| (target.check)(case)));
    CATCHES.set(false);
    match done {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => {
            let (name, message) = broken.split_once(": ").unwrap_or((&broken, ""));
            Some(Finding { name: name.to_owned(), message: message.to_owned() })
        }
        Err(_) => CAUGHT.take(),
    }
}

/// Installs a panic hook that records panics of cases, and prints other ones.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHES.get() {
                return before(info);
            }
            let place = info
                .location()
                .map_or_else(String::new, |at| format!("panic at {}:{}", at.file(), at.line()));
            let message = panic_message(info.payload());
            CAUGHT.set(Some(Finding { name: place, message }));
        }));
    });
}
