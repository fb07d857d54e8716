//! `postern-tools`: measures postern beside what the machine can do.

mod baseline;
mod client;
mod figures;
mod footprint;
mod group;
mod link;
mod load;
mod process;
mod stats;
mod takeover;

use clap::{Parser, Subcommand};
use postern_tools::search;
use std::process::ExitCode;

/// Measures postern beside what the machine can do.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts groups of three servers and prints their figures, with baselines of the same run.
    Figures(figures::Options),
    /// Drives the replicas through every order of events, to small bounds.
    Search(search::command::Options),
}

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Figures(options) => figures::run(&options),
        Command::Search(options) => search::command::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("postern-tools: {why}");
            ExitCode::FAILURE
        }
    }
}
