//! `postern-load`: makes load, and measures.

use clap::{Parser, Subcommand};
use postern_load::{baseline, compare, report, run};
use std::process::ExitCode;

/// Makes load for postern, and measures it.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes load for a group, and checks everything that it answers.
    Run(run::Options),
    /// Starts groups of three servers and prints their figures, with limits of the same run.
    Report(report::Options),
    /// The same load on what people would use instead.
    Compare(compare::Options),
    /// Measures what this machine can do without postern.
    Baseline(baseline::Options),
}

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Report(options) => report::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Baseline(options) => baseline::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("postern-load: {why}");
            ExitCode::FAILURE
        }
    }
}
