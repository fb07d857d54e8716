//! What the tests and tools of postern share: groups of real servers, a text client, network
//! namespaces, small file systems, and the checker of histories.
//!
//! A function that can fail returns one line for a person: which operation failed, and why.

pub mod checker;
pub mod client;
pub mod group;
pub mod network;
pub mod process;
pub mod recorder;
pub mod volume;

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

/// Prints to standard output.
pub fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    done.map_err(|error| format!("stdout: {error}"))
}

/// Returns the exit code of a program with this name and result, after printing the error.
pub fn exit_code(program: &str, result: Result<(), String>) -> ExitCode {
    let Err(why) = result else { return ExitCode::SUCCESS };
    eprintln!("{program}: {why}");
    ExitCode::FAILURE
}

/// Runs a command without input, and returns its standard output. If it fails, the error holds
/// the first line of its standard error.
pub fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let arguments: Vec<_> = command.get_args().map(|part| part.to_string_lossy()).collect();
    let why = why.lines().next().unwrap_or("no error message");
    Err(format!("{program} {}: {why}", arguments.join(" ")))
}
