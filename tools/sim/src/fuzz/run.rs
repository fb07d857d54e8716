//! The `fuzz` command: runs the corpus, then cases from the seed, and reports findings.

use super::case::{Case, pick};
use super::catch::{self, Finding};
use super::shrink::shrink;
use super::target::{Target, Which};
use clap::Args;
use postern::rng::Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// A case that runs longer is a finding.
const CASE_TIME_MAX: Duration = Duration::from_secs(20);
/// The number of distinct findings after which a target is stopped.
const FINDINGS_MAX: usize = 32;
/// The folder of the corpus.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/inputs");

/// Options of the command.
#[derive(Debug, Args)]
pub struct Options {
    /// The target to run.
    #[arg(long, value_enum, default_value_t = Which::All)]
    target: Which,
    /// How long to run, in seconds. With `all` the targets share the time.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How many cases to run for each target, however long that takes.
    #[arg(long, conflicts_with = "seconds")]
    cases: Option<u64>,
    /// The seed of the cases. By default it comes from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads. By default one for each processor.
    #[arg(long)]
    threads: Option<usize>,
    /// Run only the case in this file, for a single target.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where to save inputs with findings.
    #[arg(long, value_name = "FOLDER", default_value = "target/inputs")]
    save: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A case has a finding, or a file can't be read or written.
pub fn run(options: &Options) -> Result<(), String> {
    let targets = options.target.targets();
    if let Some(path) = &options.input {
        let [target] = targets else { return Err("name one --target for --input".to_owned()) };
        return run_file(target, path);
    }
    let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros() as u64;
    let seed = options.seed.unwrap_or(clock);
    println!("seed {seed}");
    let time = options.cases.map_or(Duration::from_secs(options.seconds), |_| Duration::MAX);
    let mut found = 0;
    for target in targets {
        let run = Run {
            target,
            corpus: corpus(target)?,
            seed,
            threads: options
                .threads
                .unwrap_or(thread::available_parallelism().map_or(1, usize::from)),
            time: time / targets.len() as u32,
            cases: options.cases.unwrap_or(u64::MAX),
            save: &options.save,
        };
        found += run.all()?;
    }
    match found {
        0 => Ok(()),
        count => Err(format!("{count} findings with seed {seed}")),
    }
}

/// A run of one target.
struct Run<'a> {
    target: &'static Target,
    corpus: Vec<(PathBuf, Case)>,
    seed: u64,
    threads: usize,
    time: Duration,
    cases: u64,
    save: &'a Path,
}

/// The cases with findings of one target, by the name of the finding. Of two cases with the same
/// finding, the one with the lower number is kept. Cases of the corpus have number 0.
type Found = BTreeMap<String, (u64, Finding, Case)>;

fn run_file(target: &Target, path: &Path) -> Result<(), String> {
    match catch::check(target, &read_case(path)?) {
        None => {
            println!("{}: nothing found", path.display());
            Ok(())
        }
        Some(Finding { name, message }) => Err(format!("{}: {name}: {message}", path.display())),
    }
}

fn read_case(path: &Path) -> Result<Case, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    Case::from_text(&text).map_err(|why| format!("{shown}: {why}"))
}

/// Reads the corpus of a target, ordered by file name. A target may have none.
pub(super) fn corpus(target: &Target) -> Result<Vec<(PathBuf, Case)>, String> {
    let folder = Path::new(CORPUS).join(target.name);
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().map(|path| Ok((path.clone(), read_case(&path)?))).collect()
}

/// Returns case `number` of a seed. It depends only on these and the corpus.
pub(super) fn case(target: &Target, seed: u64, number: u64, corpus: &[(PathBuf, Case)]) -> Case {
    let mut rng = Rng::new(Rng::new(seed).next_u64() ^ number.wrapping_mul(0xa076_1d64_78bd_642f));
    let mut case = match corpus.get(pick(&mut rng, corpus.len() * 4)) {
        Some((_, case)) => case.clone(),
        None => (target.generate)(&mut rng),
    };
    if rng.below(2) == 0 {
        let other = (target.generate)(&mut rng);
        for _ in 0..=rng.below(8) {
            case.mutate(&mut rng, &other);
        }
    }
    case
}

impl Run<'_> {
    /// Runs the corpus, then cases, and reports what they find. Returns the number of findings.
    fn all(&self) -> Result<usize, String> {
        let began = Instant::now();
        let mut found = Found::new();
        for (path, case) in &self.corpus {
            if let Some(finding) = catch::check(self.target, case) {
                println!("{}: {}: {}", path.display(), finding.name, finding.message);
                found.entry(finding.name.clone()).or_insert((0, finding, case.clone()));
            }
        }
        let count = self.run_cases(&mut found)?;
        let seconds = began.elapsed().as_secs_f64();
        let (name, known) = (self.target.name, self.corpus.len());
        let rate = count as f64 / seconds;
        println!("{name}: {known} inputs of the corpus, {count} cases, {rate:.0} cases/s");
        for (_, finding, case) in found.values() {
            self.report(finding, &shrink(self.target, case.clone(), finding))?;
        }
        Ok(found.len())
    }

    /// Runs cases until the time is over. Returns the number of cases.
    fn run_cases(&self, found: &mut Found) -> Result<u64, String> {
        let end = Instant::now().checked_add(self.time);
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let shared = Mutex::new(std::mem::take(found));
        let running = Mutex::new(BTreeMap::new());
        let name = self.target.name;
        let work = |thread: usize| {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let late = end.is_some_and(|end| Instant::now() >= end);
                if number >= self.cases || late || stop.load(Ordering::Relaxed) {
                    running.lock().expect("no thread panics here").remove(&thread);
                    return;
                }
                let started = (Instant::now(), number);
                running.lock().expect("no thread panics here").insert(thread, started);
                let case = self.case(number);
                let Some(finding) = catch::check(self.target, &case) else { continue };
                let mut found = shared.lock().expect("no thread panics here");
                match found.get(&finding.name) {
                    Some((first, ..)) if *first <= number => continue,
                    Some(_) => {}
                    None => println!("{name} case {number}: {}: {}", finding.name, finding.message),
                }
                found.insert(finding.name.clone(), (number, finding, case));
                stop.fetch_or(found.len() >= FINDINGS_MAX, Ordering::Relaxed);
            }
        };
        thread::scope(|scope| {
            (0..self.threads.max(1)).for_each(|thread| {
                scope.spawn(move || work(thread));
            });
            self.watch(&running)
        })?;
        *found = shared.into_inner().expect("no thread panics here");
        Ok(next.into_inner().saturating_sub(self.threads.max(1) as u64).min(self.cases))
    }

    fn case(&self, number: u64) -> Case {
        case(self.target, self.seed, number, &self.corpus)
    }

    /// Waits until all threads have ended. A case that does not end is saved, and ends the process,
    /// since a thread can't be stopped.
    fn watch(&self, running: &Mutex<BTreeMap<usize, (Instant, u64)>>) -> Result<(), String> {
        thread::sleep(Duration::from_millis(20));
        loop {
            let cases: Vec<(Instant, u64)> =
                running.lock().expect("no thread panics here").values().copied().collect();
            if cases.is_empty() {
                return Ok(());
            }
            let stuck = cases.iter().find(|(since, _)| since.elapsed() > CASE_TIME_MAX);
            if let Some((_, number)) = stuck {
                let message = format!("case {number} of seed {}", self.seed);
                let finding = Finding { name: "a case does not end".to_owned(), message };
                self.report(&finding, &self.case(*number))?;
                std::process::exit(1);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Saves and prints a case with a finding.
    fn report(&self, finding: &Finding, case: &Case) -> Result<(), String> {
        let (name, folder) = (self.target.name, self.save.join(self.target.name));
        let sum = Rng::new(
            finding.name.bytes().fold(0, |sum, byte| sum * 31 % (1 << 40) + u64::from(byte)),
        );
        let path = folder.join(format!("{:08x}.txt", sum.clone().next_u64() as u32));
        let text = format!("# {}\n{}", finding.name, case.to_text());
        let saved = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, text));
        saved.map_err(|error| format!("{}: {error}", path.display()))?;
        let (pieces, bytes) = (case.0.len(), case.bytes());
        println!("\n{name}: {}\n{}", finding.name, finding.message);
        println!("input of {pieces} pieces, {bytes} bytes:");
        for (hex, text) in case.to_hex().iter().zip(case.to_text().lines()) {
            println!("  {hex}   {text}");
        }
        println!("repeat: postern-sim fuzz --target {name} --input {}", path.display());
        Ok(())
    }
}
