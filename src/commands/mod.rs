//! The commands of the binary, one file each. Results on stdout, logs and progress on stderr.
//!
//! All but `serve` are cold: the compiler makes them small, and puts them apart from what lies in
//! a server's memory.

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

use std::io::{self, ErrorKind, Write};

/// Prints to stdout. A reader that has gone, as after `| head -1`, has read enough.
///
/// # Errors
/// One line that says why it can't be printed.
fn print(text: impl AsRef<[u8]>) -> Result<(), String> {
    let mut out = io::stdout();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
        _ => Ok(()),
    }
}

/// "1 server", "3 servers".
fn servers(count: usize) -> String {
    format!("{count} server{}", if count == 1 { "" } else { "s" })
}
