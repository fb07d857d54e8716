//! The command: one seed or very many, and of a seed that fails the shortest story.

use super::trial::{Outcome, Trial, try_seed};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use postern::replica::Rule;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Trials at most to find which faults a finding needs.
const RERUNS_MAX: usize = 200;

/// What is demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Faults all along; nothing wrong may ever happen.
    Safety,
    /// Then peace, and everything must go on.
    Liveness,
    /// One after the other.
    Both,
}

/// Options of the command.
#[derive(Debug, Args)]
pub struct Options {
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds N..M.
    #[arg(long, value_name = "N..M")]
    seeds: Option<String>,
    /// Fresh seeds until so many virtual hours have passed.
    #[arg(long)]
    hours: Option<f64>,
    /// Stop after so many real minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Virtual seconds of faults in each seed.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Tell the story of a seed.
    #[arg(long)]
    trace: bool,
    /// Threads.
    #[arg(long)]
    threads: Option<usize>,
    /// What is demanded.
    #[arg(long, value_enum, default_value_t = Mode::Both)]
    mode: Mode,
}

/// What many trials add up to.
#[derive(Default)]
struct Total {
    seeds: u64,
    virtual_us: u64,
    events: u64,
    requests: (u64, u64, u64),
    changes: (u64, u64),
    times: u64,
    took: BTreeMap<String, u64>,
    decisions: Vec<u64>,
    findings: Vec<(u64, String)>,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.virtual_us += outcome.virtual_us;
        self.events += outcome.events;
        self.requests.0 += outcome.requests.0;
        self.requests.1 += outcome.requests.1;
        self.requests.2 += outcome.requests.2;
        self.changes.0 += outcome.changes.0;
        self.changes.1 += outcome.changes.1;
        self.times += outcome.times;
        for (kind, count) in outcome.took {
            *self.took.entry(kind).or_default() += count;
        }
        self.decisions.resize(Rule::ALL.len(), 0);
        for (sum, count) in self.decisions.iter_mut().zip(outcome.decisions) {
            *sum += count;
        }
        if let Some(finding) = outcome.finding {
            self.findings.push((seed, finding));
        }
    }

    fn print(&self, real: Duration, threads: usize) {
        let real = real.as_secs_f64();
        let hours = self.virtual_us as f64 / 3.6e9;
        let ratio = self.virtual_us as f64 / 1e6 / real / threads as f64;
        println!("{} seeds, {hours:.2} virtual hours in {real:.1} s", self.seeds);
        println!("{:.1} seeds/s, {ratio:.0} x real time per core", self.seeds as f64 / real);
        let each = real * 1e9 * threads as f64 / self.events.max(1) as f64;
        println!("{} events, {each:.0} ns each", self.events);
        let (answered, refused, open) = self.requests;
        println!("requests: {answered} answered, {refused} refused, {open} open");
        println!("{} elections, {} configs", self.changes.0, self.changes.1);
        println!("{} records held to the median of the clocks", self.times);
        let took: Vec<String> = self.took.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        println!("faults that took effect: {}", took.join(", "));
        let decided = Rule::ALL.iter().zip(&self.decisions);
        let decided: Vec<String> = decided.map(|(rule, n)| format!("{rule:?} {n}")).collect();
        println!("rules that decided: {}", decided.join(", "));
    }
}

/// Runs the command.
///
/// # Errors
/// When something was found, or an option makes no sense.
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
    if options.seeds.is_none() && options.hours.is_none() && options.minutes.is_none() {
        return Err("give --seed, --seeds, --hours or --minutes".to_owned());
    }
    run_many(options, range)
}

fn trial(options: &Options, seed: u64) -> Trial {
    let liveness = options.mode != Mode::Safety;
    // Without safety's long part, the faults before the peace are short.
    let short = options.mode == Mode::Liveness;
    let seconds = if short { options.seconds.min(60) } else { options.seconds };
    Trial { liveness, seconds, ..Trial::new(seed) }
}

fn parse_range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let wrong = || format!("{text}: not two numbers with .. between them");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    Ok(number(from)?..number(to)?)
}

fn run_one(trial: &Trial, trace: bool) -> Result<(), String> {
    let began = Instant::now();
    let outcome = try_seed(&Trial { story: trace, ..trial.clone() });
    for line in &outcome.story {
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
    let end = options.minutes.map(|minutes| began + Duration::from_secs_f64(minutes * 60.0));
    let virtual_end = options.hours.map_or(u64::MAX, |hours| (hours * 3.6e9) as u64);
    let next = AtomicU64::new(range.start);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    let bar = bar(options, &range);
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let late = end.is_some_and(|end| Instant::now() >= end);
                    if seed >= range.end || late || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = try_seed(&trial(options, seed));
                    if let Some(finding) = &outcome.finding {
                        eprintln!("seed {seed}: {finding}");
                    }
                    let mut total = total.lock().expect("no thread panics here");
                    total.add(seed, outcome);
                    show(&bar, options, &total, began);
                    if total.virtual_us >= virtual_end || total.findings.len() >= 20 {
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
    let length = match (options.hours, options.minutes) {
        (Some(hours), _) => (hours * 3600.0) as u64,
        (None, Some(minutes)) => (minutes * 60.0) as u64,
        (None, None) => range.end - range.start,
    };
    let style = ProgressStyle::with_template("{wide_bar} {percent}% {msg}");
    ProgressBar::new(length.max(1))
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, options: &Options, total: &Total, began: Instant) {
    let real = began.elapsed().as_secs_f64();
    let at = match (options.hours, options.minutes) {
        (Some(_), _) => total.virtual_us / 1_000_000,
        (None, Some(_)) => real as u64,
        (None, None) => total.seeds,
    };
    bar.set_position(at);
    let ratio = total.virtual_us as f64 / 1e6 / real;
    bar.set_message(format!("{:.1} seeds/s, {ratio:.0} x real time", total.seeds as f64 / real));
}

/// The shortest story of a failing seed that a bounded search finds.
fn explain(trial: &Trial, finding: &str) -> String {
    std::panic::set_hook(Box::new(|_| {}));
    let shortest = shorten(trial);
    let told = try_seed(&Trial { story: true, ..shortest.clone() });
    let mut text = format!("{finding}\n\nfaults that are needed:\n");
    for fault in shortest.faults() {
        text += &format!("  {fault}\n");
    }
    let tail = told.story.len().saturating_sub(120);
    text += "\nhow it ends:\n";
    for line in &told.story[tail..] {
        text += &format!("  {line}\n");
    }
    text += &format!(
        "\nfound: {}\nagain: cargo run --profile sim -p postern-sim -- simulate --seed {} \
         --seconds {}{} --trace\n",
        told.finding.unwrap_or_default(),
        trial.seed,
        trial.seconds,
        if trial.liveness { "" } else { " --mode safety" }
    );
    text
}

/// Leaves out faults while the trial still fails: halves, quarters, and so on to single ones.
fn shorten(trial: &Trial) -> Trial {
    let planned = trial.faults().len();
    let mut best = trial.clone();
    let mut reruns = 0;
    let mut piece = planned.div_ceil(2).max(1);
    loop {
        let left: Vec<usize> = (0..planned).filter(|at| !best.without.contains(at)).collect();
        let mut shorter = false;
        for gone in left.chunks(piece) {
            if reruns >= RERUNS_MAX {
                return best;
            }
            reruns += 1;
            let mut fewer = best.clone();
            fewer.without.extend(gone);
            if try_seed(&fewer).finding.is_some() {
                best = fewer;
                shorter = true;
            }
        }
        if piece == 1 && !shorter {
            return best;
        }
        piece = (piece / 2).max(1);
    }
}
