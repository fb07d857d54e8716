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
}

fn main() -> ExitCode {
    let Command::Figures(options) = Options::parse().command;
    match figures::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("postern-tools: {why}");
            ExitCode::FAILURE
        }
    }
}
