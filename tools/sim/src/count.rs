//! The `count` benchmark: what one SEND costs in instructions and allocations. Unlike times, these
//! counts do not depend on the load of the machine, so every run of the tests can check a budget.
//!
//! The program runs a [`crate::cluster`] under callgrind, once with some batches of SENDs and once
//! with twice as many. The difference is the cost of the batches, without that of the start and of
//! the first use of memory.

use crate::cluster::Cluster;
use crate::require;
use clap::Parser;
use postern_testkit::print;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

/// The budget of one SEND on all three servers: the measured value (in the comment) and 5 % for
/// another compiler, library or processor. `cargo bench -p postern-sim --bench count` prints new
/// values after SEND has become cheaper, or deliberately more expensive.
const INSTRUCTIONS_MAX: f64 = 13_600.0; // 13,343
const ALLOCATIONS_MAX: f64 = 0.05; // 0.04

/// Clients that send in the same turn.
const CLIENTS: usize = 64;
const TEXT_BYTES: usize = 100;
/// The batches of the shorter run. They fill the tail of the log in memory.
const BATCHES: usize = 100;
/// The timeout of a run, which takes a second or two.
const TIMEOUT_SECONDS: &str = "120";
const ALLOCATORS: [&str; 5] = ["malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign"];

/// Options of `cargo bench --bench count`.
#[derive(Debug, Parser)]
pub struct Options {
    /// Number of functions to list, the most expensive first.
    #[arg(long, default_value_t = 12, value_name = "N")]
    functions: usize,
    /// Send this number of batches and print nothing: the program that valgrind runs.
    #[arg(long, value_name = "BATCHES", hide = true)]
    bare: Option<usize>,
    /// Cargo passes this to each benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Prints both counts and the most expensive functions.
///
/// # Errors
/// A count exceeds its budget, or could not be measured.
pub fn run(options: &Options) -> Result<(), String> {
    if let Some(batches) = options.bare {
        return send(batches);
    }
    if cfg!(debug_assertions) {
        return Err("the budget is for release builds; use cargo bench".to_owned());
    }
    let (first, second) = (count(BATCHES)?, count(2 * BATCHES)?);
    let each = |more: u64, less: u64| (more as f64 - less as f64) / (BATCHES * CLIENTS) as f64;
    let instructions = each(second.instructions, first.instructions);
    let allocations = each(second.allocations, first.allocations);
    let mut functions: Vec<(f64, &str)> = Vec::new();
    for (name, more) in &second.functions {
        let less = first.functions.get(name).copied().unwrap_or_default();
        functions.push((each(*more, less), name));
    }
    functions.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut text = format!(
        "SEND of {TEXT_BYTES} bytes, three servers, batches of {CLIENTS}\n  {instructions:.0} \
         instructions ({}); budget: {INSTRUCTIONS_MAX:.0}\n  {allocations:.2} allocations ({}); \
         budget: {ALLOCATIONS_MAX:.2}\n",
        met(instructions <= INSTRUCTIONS_MAX),
        met(allocations <= ALLOCATIONS_MAX),
    );
    for (cost, name) in functions.iter().take(options.functions) {
        let share = cost / instructions * 100.0;
        let _ = writeln!(text, "  {cost:>6.0}  {share:>4.1} %  {name}");
    }
    print(&text)?;
    require(instructions <= INSTRUCTIONS_MAX && allocations <= ALLOCATIONS_MAX, || {
        "SEND costs more than its budget in tools/sim/src/count.rs".to_owned()
    })?;
    if instructions < INSTRUCTIONS_MAX * 0.9 || allocations < ALLOCATIONS_MAX * 0.9 - 0.01 {
        let (instructions, allocations) = (instructions * 1.05, allocations * 1.05);
        print(&format!(
            "SEND has become cheaper; new budget for tools/sim/src/count.rs: \
             {instructions:.0} and {allocations:.2}\n"
        ))?;
    }
    Ok(())
}

/// Describes whether a budget is met.
fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

fn send(batches: usize) -> Result<(), String> {
    let mut cluster = Cluster::new(CLIENTS)?;
    let request = Cluster::request(TEXT_BYTES);
    (0..batches).try_for_each(|_| cluster.batch(&request))
}

/// The counts of a run.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    instructions: u64,
    allocations: u64,
    /// The instructions of each function, without its callees.
    functions: BTreeMap<String, u64>,
}

/// Runs this program under callgrind.
fn count(batches: usize) -> Result<Counts, String> {
    let failed = |error: std::io::Error| format!("count: {error}");
    let folder = tempfile::tempdir().map_err(failed)?;
    let profile = folder.path().join("profile");
    let mut out_file = std::ffi::OsString::from("--callgrind-out-file=");
    out_file.push(&profile);
    postern_testkit::run(
        Command::new("timeout")
            .args([TIMEOUT_SECONDS, "valgrind", "--quiet", "--tool=callgrind"])
            .args(["--compress-strings=no", "--compress-pos=no"])
            .arg(out_file)
            .arg(std::env::current_exe().map_err(failed)?)
            .args(["--bare", &batches.to_string()]),
    )?;
    let text = fs::read_to_string(profile).map_err(failed)?;
    parse(&text).ok_or_else(|| "valgrind: not a profile of callgrind".to_owned())
}

/// Parses the format of callgrind with uncompressed names. A line of two numbers is a cost of the
/// function above it. The first line after `calls=` is the cost of the callee, which is counted
/// there.
fn parse(text: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    let (mut function, mut called, mut is_of_calls) = ("", "", false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if let Some(name) = line.strip_prefix("cfn=") {
            called = name;
        } else if let Some(calls) = line.strip_prefix("calls=") {
            if ALLOCATORS.contains(&called) {
                counts.allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
            }
            is_of_calls = true;
        } else if let Some(total) = line.strip_prefix("totals: ") {
            counts.instructions = total.trim().parse().ok()?;
        } else if line.starts_with(|c: char| c.is_ascii_digit())
            && !std::mem::take(&mut is_of_calls)
        {
            let cost: u64 = line.split(' ').nth(1)?.parse().ok()?;
            *counts.functions.entry(function.to_owned()).or_default() += cost;
        }
    }
    (counts.instructions > 0).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_counted_once_in_its_own_function() {
        let text = "# callgrind format\nevents: Ir\n\nfn=main\n0 7\ncob=libc.so.6\ncfn=malloc\n\
                    calls=3 0\n0 90\n0 2\ncfn=other\ncalls=5 0\n0 10\n\nfn=malloc\n0 90\n\n\
                    fn=other\n0 10\n\ntotals: 109\n";
        let counts = parse(text).unwrap();
        assert_eq!((counts.instructions, counts.allocations), (109, 3));
        let functions = counts.functions.iter().map(|(name, cost)| (name.as_str(), *cost));
        assert_eq!(functions.collect::<Vec<_>>(), [("main", 9), ("malloc", 90), ("other", 10)]);
        assert_eq!(parse("no profile\n"), None);
    }
}
