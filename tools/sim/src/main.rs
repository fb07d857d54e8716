//! `postern-sim`: tests postern without sockets and processes.

use clap::{Parser, Subcommand};
use postern_sim::{fuzz, search, simulate};
use std::process::ExitCode;

/// Test postern without sockets and processes.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    /// The command.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run groups of three servers in virtual time and inject faults.
    Simulate(simulate::Options),
    /// Play scenarios and print the trace of each that fails.
    Play(simulate::PlayOptions),
    /// Drive three replicas through every order of events, to small bounds.
    Search(search::command::Options),
    /// Feed hostile input to everything that reads bytes from outside.
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Simulate(options) => simulate::run(&options),
        Command::Play(options) => simulate::play_files(&options),
        Command::Search(options) => search::command::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
    };
    postern_testkit::exit_code("postern-sim", done)
}
