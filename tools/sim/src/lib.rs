//! Tests whether postern is correct. Runs the shipped nodes and logs in virtual time with injected
//! faults, in every order of events up to a bound, and with hostile input.

use std::any::Any;

pub mod cluster;
pub mod count;
pub mod fuzz;
pub mod search;
pub mod simulate;

/// Returns the message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

/// Returns the error `why` unless `holds`.
fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}
