//! `postern man`: manual pages, made from the definition of the command line.

use crate::options::{self, Options};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use std::fs;
use std::io;
use std::process::ExitCode;

/// Prints all pages, or writes each into a file of its own.
///
/// # Errors
/// One line that says where they can't be written.
#[cold]
pub fn run(options: &options::Man) -> Result<ExitCode, String> {
    let pages = pages().map_err(|error| error.to_string())?;
    let Some(dir) = &options.dir else {
        super::print(pages.into_iter().flat_map(|(_, page)| page).collect::<Vec<u8>>())?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for (name, page) in pages {
        let path = dir.join(format!("{name}.1"));
        fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The page of the whole, and one of each command.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Options::command();
    // Each command is given its full name, and the options that all have.
    all.build();
    let shown = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    let commands = all.get_subcommands().filter(shown);
    let render = |command: &Command| {
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        let mut page = Vec::new();
        Man::new(command.clone()).render(&mut page).map(|()| (name, page))
    };
    std::iter::once(&all).chain(commands).map(render).collect()
}
