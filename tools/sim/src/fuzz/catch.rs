//! Runs a case and catches its panic, with the location of the panic.

use super::case::Case;
use super::target::Target;
use crate::{Panic, catch_panic};

/// A defect that a case has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The location of the panic, or the violated bound. Findings with equal names count as one
    /// defect.
    pub(super) name: String,
    /// The message of the panic, or the values that violate the bound.
    pub(super) message: String,
}

/// Runs a case. A panic or a violated bound is a finding.
pub(super) fn check(target: &Target, case: &Case) -> Option<Finding> {
    match catch_panic(|| (target.check)(case)) {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => {
            let (name, message) = broken.split_once(": ").unwrap_or((&broken, ""));
            Some(Finding { name: name.to_owned(), message: message.to_owned() })
        }
        Err(Panic { place, message }) => {
            Some(Finding { name: format!("panic at {place}"), message })
        }
    }
}
