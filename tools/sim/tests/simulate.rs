//! A seed gives the same trace to the byte. Some fixed seeds (`POSTERN_SEEDS` is their number) have
//! no findings. Planted defects are found: a disk that lies about its syncs, a lost message, and
//! clocks that no other server knows.

use postern_sim::simulate::{Outcome, Sabotage, Trial, try_seed};

fn finding_of(sabotage: Sabotage, seeds: u64) -> String {
    let found = (1..=seeds)
        .find_map(|seed| try_seed(&Trial { sabotage: Some(sabotage), ..Trial::new(seed) }).finding);
    found.unwrap_or_else(|| panic!("{sabotage:?} is not found in {seeds} seeds"))
}

#[test]
fn the_same_seed_gives_the_same_trace_to_the_byte() {
    let run = |seed| try_seed(&Trial { trace: true, ..Trial::new(seed) });
    let (first, again): (Outcome, Outcome) = (run(20), run(20));
    assert_eq!(first.trace.join("\n"), again.trace.join("\n"));
    assert_eq!((first.hash, first.counts), (again.hash, again.counts));
    assert!(first.trace.len() > 50, "a trace is recorded");
    assert_ne!(first.hash, run(21).hash);
}

#[test]
fn fixed_seeds_have_no_findings() {
    let seeds = std::env::var("POSTERN_SEEDS").map_or(24, |n| n.parse().expect("a number"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for first in 1..=cores as u64 {
            scope.spawn(move || {
                for seed in (first..=seeds).step_by(cores) {
                    let finding = try_seed(&Trial::new(seed)).finding;
                    assert_eq!(finding, None, "seed {seed}");
                }
            });
        }
    });
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_found() {
    let found = finding_of(Sabotage::LyingSyncs, 20);
    assert!(found.contains("does not have on its disk"), "{found}");
}

#[test]
fn a_lost_message_is_found() {
    let found = finding_of(Sabotage::LostMessage, 3);
    // Where a mailbox has forgotten messages, one of those that it must keep is missing.
    assert!(found.starts_with("Kept") || found.contains("too early"), "{found}");
}

#[test]
fn times_of_one_wrong_clock_are_found() {
    let found = finding_of(Sabotage::EchoedClocks, 20);
    assert!(found.contains("not the median of the clocks"), "{found}");
}
