//! The `simulate` command: runs one seed or many. Of a seed that fails, it finds the fewest faults
//! with which it still fails.

use super::faults::Kind;
use super::trial::{Counts, Outcome, Trial, try_seed};
use crate::remove_items;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use postern::replica::Rule;
use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The most trials to find the faults that a finding needs.
const RERUNS_MAX: usize = 200;

/// Options of the command.
#[derive(Debug, Args)]
pub struct Options {
    /// Run one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Run the seeds from N to M, without M.
    #[arg(long, value_name = "N..M")]
    seeds: Option<String>,
    /// Run new seeds for this number of virtual hours.
    #[arg(long)]
    hours: Option<f64>,
    /// Inject faults for this number of virtual seconds in each seed.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Print the trace of the seed.
    #[arg(long)]
    trace: bool,
    /// Number of threads. By default one for each processor.
    #[arg(long)]
    threads: Option<usize>,
}

/// The sum of many trials.
#[derive(Default)]
struct Total {
    seeds: u64,
    counts: Counts,
    findings: Vec<(u64, String)>,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.counts.add(&outcome.counts);
        self.findings.extend(outcome.finding.map(|finding| (seed, finding)));
    }

    fn print(&self, real: Duration, threads: usize) {
        let (real, counts) = (real.as_secs_f64(), &self.counts);
        let hours = counts.virtual_us as f64 / 3.6e9;
        let ratio = counts.virtual_us as f64 / 1e6 / real / threads as f64;
        println!("{} seeds, {hours:.2} virtual hours in {real:.1} s", self.seeds);
        println!("{:.1} seeds/s, {ratio:.0} x real time per core", self.seeds as f64 / real);
        let each = real * 1e9 * threads as f64 / counts.events.max(1) as f64;
        println!("{} events, {each:.0} ns each", counts.events);
        let [answered, refused, open] = counts.requests;
        println!("requests: {answered} answered, {refused} refused, {open} open");
        println!("{} elections, {} configs", counts.elections, counts.configs);
        println!("{} messages forgotten, {} emptied", counts.forgotten, counts.emptied);
        println!("{} record times compared with the median of the clocks", counts.times);
        println!("faults that took effect: {}", list(&Kind::ALL, &counts.effects));
        println!("decisions by rule: {}", list(&Rule::ALL, &counts.decisions));
    }
}

/// Lists names with their counts.
fn list(names: &[impl Debug], counts: &[u64]) -> String {
    let pairs = names.iter().zip(counts).map(|(name, count)| format!("{name:?} {count}"));
    pairs.collect::<Vec<_>>().join(", ")
}

/// Runs the command.
///
/// # Errors
/// A seed fails, or the options are wrong.
pub fn run(options: &Options) -> Result<(), String> {
    if let Some(seed) = options.seed {
        return run_one(&trial(options, seed), options.trace);
    }
    let range = match &options.seeds {
        Some(text) => parse_range(text)?,
        None => {
            let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            let start = since.as_secs() * 1_000_000;
            start..u64::MAX
        }
    };
    if options.seeds.is_none() && options.hours.is_none() {
        return Err("give --seed, --seeds or --hours".to_owned());
    }
    run_many(options, range)
}

fn trial(options: &Options, seed: u64) -> Trial {
    Trial { seconds: options.seconds, ..Trial::new(seed) }
}

fn parse_range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let wrong = || format!("{text}: not two numbers with .. between them");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    Ok(number(from)?..number(to)?)
}

fn run_one(trial: &Trial, trace: bool) -> Result<(), String> {
    let began = Instant::now();
    let outcome = try_seed(&Trial { trace, ..trial.clone() });
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("hash {:016x}", outcome.hash);
    let mut total = Total::default();
    let finding = outcome.finding.clone();
    total.add(trial.seed, outcome);
    total.print(began.elapsed(), 1);
    match finding {
        None => Ok(()),
        Some(finding) => Err(explain(trial, &finding)),
    }
}

fn run_many(options: &Options, range: std::ops::Range<u64>) -> Result<(), String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores);
    let began = Instant::now();
    let virtual_end = options.hours.map_or(u64::MAX, |hours| (hours * 3.6e9) as u64);
    let next = AtomicU64::new(range.start);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    let bar = bar(options, &range);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = try_seed(&trial(options, seed));
                    if let Some(finding) = &outcome.finding {
                        eprintln!("seed {seed}: {finding}");
                    }
                    let mut total = total.lock().expect("no thread panics here");
                    total.add(seed, outcome);
                    show(&bar, options, &total, began);
                    if total.counts.virtual_us >= virtual_end || total.findings.len() >= 20 {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let total = total.into_inner().expect("no thread panics here");
    total.print(began.elapsed(), threads);
    match total.findings.first() {
        None => Ok(()),
        Some((seed, finding)) => {
            let seeds: Vec<String> = total.findings.iter().map(|(s, _)| s.to_string()).collect();
            let all = seeds.join(", ");
            Err(format!("seeds {all} fail\n{}", explain(&trial(options, *seed), finding)))
        }
    }
}

fn bar(options: &Options, range: &std::ops::Range<u64>) -> ProgressBar {
    let length = options.hours.map_or(range.end - range.start, |hours| (hours * 3600.0) as u64);
    let style = ProgressStyle::with_template("{wide_bar} {percent}% {msg}");
    ProgressBar::new(length.max(1))
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, options: &Options, total: &Total, began: Instant) {
    let real = began.elapsed().as_secs_f64();
    bar.set_position(options.hours.map_or(total.seeds, |_| total.counts.virtual_us / 1_000_000));
    let ratio = total.counts.virtual_us as f64 / 1e6 / real;
    bar.set_message(format!("{:.1} seeds/s, {ratio:.0} x real time", total.seeds as f64 / real));
}

/// Describes a failure: the faults that it needs and the end of the trace.
fn explain(trial: &Trial, finding: &str) -> String {
    let shortest = shorten(trial);
    let outcome = try_seed(&Trial { trace: true, ..shortest.clone() });
    let mut text = format!("{finding}\n\nfaults that it needs:\n");
    for fault in shortest.faults() {
        text += &format!("  {fault}\n");
    }
    let tail = outcome.trace.len().saturating_sub(120);
    text += "\nend of the trace:\n";
    for line in &outcome.trace[tail..] {
        text += &format!("  {line}\n");
    }
    text += &format!(
        "\nfound: {}\nrepeat: cargo run --profile sim -p postern-sim -- simulate --seed {} \
         --seconds {} --trace\n",
        outcome.finding.unwrap_or_default(),
        trial.seed,
        trial.seconds,
    );
    text
}

/// Skips faults while the trial still fails.
fn shorten(trial: &Trial) -> Trial {
    let planned: Vec<usize> = (0..trial.faults().len()).collect();
    let with = |faults: &[usize]| {
        let without = planned.iter().copied().filter(|at| !faults.contains(at)).collect();
        Trial { without, ..trial.clone() }
    };
    let mut reruns = 0;
    let needed = remove_items(planned.clone(), &mut |fewer| {
        reruns += 1;
        reruns <= RERUNS_MAX && try_seed(&with(fewer)).finding.is_some()
    });
    with(&needed)
}
