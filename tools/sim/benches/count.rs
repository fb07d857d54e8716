//! Counts the cost of a SEND. Fails if it exceeds the budget.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match postern_sim::count::run(&postern_sim::count::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("count: {why}");
            ExitCode::FAILURE
        }
    }
}
