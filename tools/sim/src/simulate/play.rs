//! `postern-sim play`: scenarios from files.

use super::play;
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};

/// Options of `postern-sim play`.
#[derive(Debug, Args)]
pub struct PlayOptions {
    /// Files with a scenario each.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Plays scenarios.
///
/// # Errors
/// The story of each scenario that does not come out as it says.
pub fn play_files(options: &PlayOptions) -> Result<(), String> {
    let failed: Vec<String> =
        options.files.iter().filter_map(|path| play_file(path).err()).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n\n")) }
}

/// Plays the scenario in a file.
///
/// # Errors
/// Its story, if it does not come out as it says.
pub fn play_file(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    play(&text).map_err(|why| format!("{shown}:\n{why}"))
}
