//! `postern-tools`: measures postern beside what the machine can do, and tries to break it.

mod changes;
mod chaos;
mod client;
mod compare;
mod count;
mod crowd;
mod figures;
mod flood;
mod footprint;
mod group;
mod latency;
mod limits;
mod link;
mod load;
mod process;
mod size;
mod stats;
mod stream;
mod takeover;

use clap::{Parser, Subcommand};
use postern_tools::{fuzz, search, sim};
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
    /// Runs three servers among faults of processes, disks and networks.
    Chaos(chaos::Options),
    /// The same load on what people would use instead.
    Compare(compare::Options),
    /// Counts the instructions and allocations of one SEND, and fails over their budget.
    Count(count::Options),
    /// Starts groups of three servers and prints their figures, with limits of the same run.
    Figures(figures::Options),
    /// Feeds hostile inputs to everything that reads bytes from outside.
    Fuzz(fuzz::Options),
    /// Measures what this machine can do without postern.
    Limits(limits::Options),
    /// Makes load for a group, and checks everything that it answers.
    Load(load::Options),
    /// Drives the replicas through every order of events, to small bounds.
    Search(search::command::Options),
    /// Runs groups of three in virtual time, with everything that can go wrong.
    Simulate(sim::Options),
}

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Chaos(options) => chaos::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Count(options) => count::run(&options),
        Command::Figures(options) => figures::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Limits(options) => limits::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Search(options) => search::command::run(&options),
        Command::Simulate(options) => sim::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("postern-tools: {why}");
            ExitCode::FAILURE
        }
    }
}
