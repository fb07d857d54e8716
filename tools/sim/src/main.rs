//! `postern-sim`: looks for faults of postern without sockets and processes.

use clap::{Parser, Subcommand};
use postern_sim::{fuzz, search, simulate};
use std::process::ExitCode;

/// Looks for faults of postern without sockets and processes.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs groups of three in virtual time, with everything that can go wrong.
    Simulate(simulate::Options),
    /// Plays scenarios, and prints the story of each that does not come out as it says.
    Play(simulate::PlayOptions),
    /// Drives the replicas through every order of events, to small bounds.
    Search(search::command::Options),
    /// Feeds hostile inputs to everything that reads bytes from outside.
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Simulate(options) => simulate::run(&options),
        Command::Play(options) => simulate::play_files(&options),
        Command::Search(options) => search::command::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("postern-sim: {why}");
            ExitCode::FAILURE
        }
    }
}
