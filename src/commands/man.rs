//! `postern man`: generates manual pages from the definition of the command line.

use super::Named;
use crate::options::{self, Options};
use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;
use std::fs;
use std::io;
use std::process::ExitCode;

/// The date when the pages were last changed.
const DATE: &str = "2026-11-29";

/// Prints all pages, or writes each into a file of its own.
///
/// # Errors
/// Returns a one-line message that states where the pages cannot be written.
#[cold]
pub fn run(options: &options::Man) -> Result<ExitCode, String> {
    let pages = pages().map_err(|error| error.to_string())?;
    let Some(dir) = &options.dir else {
        return super::print(pages.into_iter().flat_map(|(_, page)| page).collect::<Vec<u8>>());
    };
    fs::create_dir_all(dir).named(dir.display())?;
    for (name, page) in pages {
        let path = dir.join(format!("{name}.1"));
        fs::write(&path, page).named(path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the page of the whole program, and one page for each command.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    // `help` has no page, and no page refers to one.
    let mut all = Options::command().disable_help_subcommand(true);
    // Gives each command its full name, and the options that all commands have.
    all.build();
    let mut pages = Vec::new();
    add_pages(&all, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    if command.is_hide_set() || command.get_name() == "help" {
        return Ok(());
    }
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    pages.push((name, page(command)?));
    command.get_subcommands().try_for_each(|below| add_pages(below, pages))
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone().disable_help_subcommand(true)).date(DATE);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    page.extend_from_slice(format!(".SH SYNOPSIS\n{}\n", synopsis(command)).as_bytes());
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|below| below.get_name() != "help") {
        man.render_subcommands_section(&mut page)?;
    }
    if command.get_after_help().is_some() || command.get_after_long_help().is_some() {
        man.render_extra_section(&mut page)?;
    }
    if command.get_version().is_some() {
        man.render_version_section(&mut page)?;
    }
    Ok(page)
}

/// Returns the synopsis of a command, with the values that its options accept.
fn synopsis(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut words = vec![format!("\\fB{}\\fR", escape(name))];
    let shown = |arg: &&Arg| !arg.is_hide_set();
    for option in command.get_opts().filter(shown) {
        let long = option.get_long().unwrap_or_default();
        let word = format!("\\fB\\-\\-{}\\fR {}", escape(long), value(option));
        words.push(if option.is_required_set() { word } else { format!("[{word}]") });
    }
    let flags = command.get_arguments().filter(|flag| !flag.get_action().takes_values());
    for long in flags.filter(shown).filter_map(Arg::get_long) {
        words.push(format!("[\\fB\\-\\-{}\\fR]", escape(long)));
    }
    for argument in command.get_positionals().filter(shown) {
        let word = value(argument);
        words.push(if argument.is_required_set() { word } else { format!("[{word}...]") });
    }
    if command.get_subcommands().any(|below| below.get_name() != "help") {
        words.push("\\fICOMMAND\\fR".to_owned());
    }
    words.join(" ")
}

fn value(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let name = names.first().map_or(argument.get_id().as_str(), |name| name.as_str());
    format!("\\fI{}\\fR", escape(&name.to_ascii_uppercase()))
}

/// Escapes hyphens: groff prints them as minus signs, which can be copied.
fn escape(text: &str) -> String {
    text.replace('-', "\\-")
}
