//! The `search` command.

use super::{Bounds, search};
use clap::Args;
use std::time::{Duration, Instant};

/// Options of the search. The bounds are how often each kind of action may happen.
#[derive(Debug, Args)]
pub struct Options {
    /// How long to search at most, in seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    #[command(flatten)]
    bounds: Bounds,
}

/// Searches, and prints how many states it visited.
///
/// # Errors
/// The shortest sequence of actions that violates an invariant.
pub fn run(options: &Options) -> Result<(), String> {
    let begin = Instant::now();
    let report = search(&options.bounds, Duration::from_secs(options.seconds));
    let took = begin.elapsed().as_secs_f64();
    println!("{:?}", options.bounds);
    println!(
        "{} states, {} steps, {} deep, {:.0} states/s, {}",
        report.states,
        report.steps,
        report.depth,
        report.states as f64 / took,
        if report.complete { "complete" } else { "stopped by --seconds" }
    );
    let Some((actions, why)) = report.found else { return Ok(()) };
    let actions: Vec<String> = actions.iter().map(|action| format!("{action:?}")).collect();
    Err(format!("an invariant is violated: {why}\n{}", actions.join("\n")))
}
