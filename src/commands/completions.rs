//! `postern completions`: prints what a shell needs to complete options and commands.

use crate::options::{self, Options};
use clap::CommandFactory;
use std::process::ExitCode;

/// Prints the script for one shell.
///
/// # Errors
/// Returns a one-line message that states why the script cannot be printed.
#[cold]
pub fn run(options: &options::Completions) -> Result<ExitCode, String> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Options::command(), "postern", &mut script);
    super::print(&script)
}
