//! `postern-load`: generates load and measures.

use clap::{Parser, Subcommand};
use postern_load::{baseline, compare, failover, report, run, storage};
use std::process::ExitCode;

/// Generate load for postern, and measure it.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate load for a group, and check every answer.
    Run(run::Options),
    /// Print the figures of postern with their targets, beside the baseline of the same run.
    Report(report::Options),
    /// Measure how long the loss of a server interrupts clients.
    Failover(failover::Options),
    /// Measure what many stored messages cost: memory, the start, reading.
    Storage(storage::Options),
    /// Run the same load on other systems.
    Compare(compare::Options),
    /// Measure what this machine can do without postern.
    Baseline(baseline::Options),
}

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Report(options) => report::run(&options),
        Command::Failover(options) => failover::run(&options),
        Command::Storage(options) => storage::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Baseline(options) => baseline::run(&options),
    };
    postern_testkit::exit_code("postern-load", done)
}
