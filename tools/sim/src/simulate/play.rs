//! The `play` command: plays scenarios from files.

use super::play;
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};

/// Options of `postern-sim play`.
#[derive(Debug, Args)]
pub struct PlayOptions {
    /// Files with one scenario each.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Plays scenarios from files.
///
/// # Errors
/// The trace of each scenario that fails.
pub fn play_files(options: &PlayOptions) -> Result<(), String> {
    let failed: Vec<String> =
        options.files.iter().filter_map(|path| play_file(path).err()).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n\n")) }
}

/// Plays a scenario from a file.
///
/// # Errors
/// The trace, if the scenario fails.
pub fn play_file(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    play(&text).map_err(|why| format!("{shown}:\n{why}"))
}
