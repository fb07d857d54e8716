//! `postern-tools`: measures postern beside what the machine can do, and tries to break it.

mod baseline;
mod client;
mod figures;
mod footprint;
mod group;
mod load;
mod process;
mod stats;
mod takeover;

use clap::{Parser, Subcommand};
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
    /// Runs groups of three in virtual time, with everything that can go wrong.
    Simulate(postern_tools::sim::Options),
}

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Figures(options) => figures::run(&options),
        Command::Simulate(options) => postern_tools::sim::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("postern-tools: {why}");
            ExitCode::FAILURE
        }
    }
}
