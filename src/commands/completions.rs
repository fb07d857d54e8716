//! `postern completions`: what a shell needs to complete options and commands.

use crate::options::{self, Options};
use clap::CommandFactory;
use std::process::ExitCode;

/// Prints the script for one shell.
///
/// # Errors
/// One line that says why it can't be printed.
#[cold]
pub fn run(options: &options::Completions) -> Result<ExitCode, String> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Options::command(), "postern", &mut script);
    super::print(&script)?;
    Ok(ExitCode::SUCCESS)
}
