//! What tests of real servers need: a group of three processes, a text client, networks of their
//! own, small disks, and the checker of what clients were told.

pub mod checker;
pub mod client;
pub mod group;
pub mod network;
pub mod process;
pub mod volume;

use std::io::Write;

/// Prints to standard output.
///
/// # Errors
/// Standard output is closed.
pub fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    done.map_err(|error| format!("stdout: {error}"))
}
