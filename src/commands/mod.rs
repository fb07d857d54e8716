#![doc = include_str!("README.md")]
//!
//! # In the code
//!
//! All but `serve` are cold: the compiler optimizes them for size, and places them apart from the
//! code that a server keeps in memory.

pub mod backup;
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
mod directory;
mod listen;
mod operator;
mod person;
mod progress;
mod stderr;
mod terminal;

pub use ask::{Answer, Unreached, ask_status, is};
pub use stderr::{complain, complain_briefly, log_to_stderr};
pub use terminal::end_on_signals;

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Prints to stdout, and returns success. A closed pipe is no error: its reader, such as
/// `head -1`, has read enough.
///
/// # Errors
/// Returns a one-line message that states why the text cannot be printed.
fn print(text: impl AsRef<[u8]>) -> Result<ExitCode, String> {
    let mut out = io::stdout();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Returns the exit code of a command that may end with a failure.
fn exit_code(is_success: bool) -> ExitCode {
    if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes an error a message that begins with what has failed.
trait Named<T> {
    fn named(self, what: impl Display) -> Result<T, String>;
}

impl<T, E: Display> Named<T> for Result<T, E> {
    fn named(self, what: impl Display) -> Result<T, String> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// Formats a number of servers: "1 server", "3 servers".
fn servers(count: usize) -> String {
    format!("{count} server{}", if count == 1 { "" } else { "s" })
}
