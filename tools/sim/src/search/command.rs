//! `postern-sim search`: the search from the command line.

use super::{Bounds, search};
use clap::Args;
use std::time::{Duration, Instant};

/// Options of the search: how much of each thing may happen.
#[derive(Debug, Args)]
pub struct Options {
    /// How long to search at most, in seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Elections.
    #[arg(long, default_value_t = 2)]
    terms: u8,
    /// Clients' changes.
    #[arg(long, default_value_t = 1)]
    entries: u8,
    /// Drops, adds and withdrawals.
    #[arg(long, default_value_t = 2)]
    changes: u8,
    /// Crashes.
    #[arg(long, default_value_t = 1)]
    crashes: u8,
    /// Disks lost in a crash.
    #[arg(long, default_value_t = 1)]
    wipes: u8,
    /// Links lost between servers that live.
    #[arg(long, default_value_t = 0)]
    cuts: u8,
    /// Syncs come any time after their turn, and can be lost in a crash.
    #[arg(long)]
    late_syncs: bool,
}

/// Searches, and prints how far it came.
///
/// # Errors
/// The shortest way to a broken promise.
pub fn run(options: &Options) -> Result<(), String> {
    let Options { terms, entries, changes, crashes, wipes, cuts, late_syncs, .. } = *options;
    let bounds = Bounds { terms, entries, changes, crashes, wipes, cuts, late_syncs };
    std::panic::set_hook(Box::new(|_| {})); // a broken promise is reported with its story
    let begin = Instant::now();
    let report = search(&bounds, Duration::from_secs(options.seconds));
    let _ = std::panic::take_hook();
    let took = begin.elapsed().as_secs_f64();
    println!("{bounds:?}");
    println!(
        "{} states, {} steps, {} deep, {:.0} states/s, {}",
        report.states,
        report.steps,
        report.depth,
        report.states as f64 / took,
        if report.complete { "searched to the end" } else { "the time is over" }
    );
    let Some((actions, why)) = report.found else { return Ok(()) };
    let story: Vec<String> = actions.iter().map(ToString::to_string).collect();
    Err(format!("a broken promise: {why}\n{}", story.join("\n")))
}
