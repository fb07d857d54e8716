//! Runs a case and catches its panic, with the place in the code where it began.

use super::case::Case;
use super::target::Target;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// What is wrong with a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Names the defect: the place of the panic, or the bound that was broken. Two cases with the
    /// same name are taken for the same defect.
    pub(super) name: String,
    /// The message of the panic, or the numbers that broke the bound.
    pub(super) words: String,
}

thread_local! {
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<Finding>> = const { RefCell::new(None) };
}

/// Runs a case. A panic, or a bound that the target reports as broken, is a finding.
pub(super) fn check(target: &Target, case: &Case) -> Option<Finding> {
    install();
    CATCHES.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(|| (target.check)(case)));
    CATCHES.set(false);
    match done {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => {
            let (name, words) = broken.split_once(": ").unwrap_or((&broken, ""));
            Some(Finding { name: name.to_owned(), words: words.to_owned() })
        }
        Err(_) => CAUGHT.take(),
    }
}

/// Panics of cases are noted instead of printed; others are printed as ever.
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
            let text = info.payload().downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| info.payload().downcast_ref::<String>().cloned());
            let words = text.unwrap_or_else(|| "no message".to_owned());
            CAUGHT.set(Some(Finding { name: place, words }));
        }));
    });
}
