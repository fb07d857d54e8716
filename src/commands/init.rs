//! `postern init`: writes the config file of a new group.

use crate::options;
use crate::settings::Settings;
use std::process::ExitCode;

/// Writes the file and prints the next steps.
///
/// # Errors
/// Returns a one-line message that states why the file was not written. Never overwrites a file.
#[cold]
pub fn run(options: &options::Init) -> Result<ExitCode, String> {
    Settings::init(&options.out, &options.servers, false)?;
    let file = options.out.display();
    let mut next = format!("{file} is for all servers of the group; copy it to each, then run\n");
    for id in 1..=options.servers.len() {
        next += &format!("  postern serve --config {file} --id {id} --data DIRECTORY\n");
    }
    super::print(next)
}
