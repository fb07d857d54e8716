//! Counts the cost of a SEND. Fails if it exceeds the budget.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = postern_sim::count::Options::parse();
    postern_testkit::exit_code("count", postern_sim::count::run(&options))
}
