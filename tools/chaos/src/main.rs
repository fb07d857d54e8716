//! `postern-chaos`: real servers among real faults, with clients that send all the time.
//!
//! In the order to read them: `plan` (what goes wrong, drawn from a seed), `arena` (servers,
//! network and disks), `strike` (carrying faults out), `run` (one after the other), `clients`,
//! `load` and `watch` (what is seen meanwhile), `story` (what is told of it), `verdict` (what must
//! hold in the end).

mod arena;
mod clients;
mod load;
mod plan;
mod run;
mod story;
mod strike;
mod verdict;
mod watch;

use arena::Arena;
use clap::{Parser, ValueEnum};
use plan::{Kind, Plan};
use postern::rng::Rng;
use postern_load::run::text::Sizes;
use postern_testkit::group::binary_beside_this;
use postern_testkit::print;
use postern_testkit::process;
use run::{Fail, Outcome, Run};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Runs three servers among faults of processes, disks and networks.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    /// Names the order of faults; drawn where it is missing.
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults strike.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The most faults that strike.
    #[arg(long, value_name = "N")]
    faults: Option<usize>,
    /// Only these kinds of faults.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    only: Vec<Kind>,
    /// Whether a last survivor goes on by itself; drawn from the seed where it is missing.
    #[arg(long, value_name = "ask|auto")]
    survivor: Option<Survivor>,
    /// Messages a second of the load, beside the clients that write everything down.
    #[arg(long, value_name = "N", default_value_t = 400)]
    rate: u64,
    /// Lengths of its texts; long ones fill segments of the log.
    #[arg(long, value_name = "N|N..M", default_value = "30..500")]
    bytes: Sizes,
    /// Keeps data and logs of the servers, as after a failure.
    #[arg(long)]
    keep: bool,
    /// The `postern` binary; by default the one beside this program. Disk faults need a debug
    /// build.
    #[arg(long)]
    postern: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Survivor {
    Ask,
    Auto,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("postern-chaos: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a group among faults.
///
/// # Errors
/// What the group did that it must not do, or why it could not be tried.
fn run(options: &Options) -> Result<(), String> {
    let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one("chaos"));
    let settings = Settings::draw(seed, options.survivor);
    let wanted = options.kinds(seed, settings.survivor)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let heard = signal_hook::flag::register(signal, Arc::clone(&interrupted));
        heard.map_err(|error| format!("signals: {error}"))?;
    }
    process::raise_file_limit();
    let postern = options.postern.clone().map_or_else(binary_beside_this, Ok)?;
    let lines = settings.lines();
    let mut words = vec![format!("seed {seed}"), format!("settings: {}", lines.join(", "))];
    let mut arena = Arena::build(&postern, &wanted, &(lines.join("\n") + "\n"), &mut words)?;
    let (kinds, missing): (Vec<Kind>, Vec<Kind>) =
        wanted.into_iter().partition(|kind| arena.allows(*kind));
    let names = |kinds: &[Kind]| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(",");
    words.push(format!("faults: {}", names(&kinds)));
    if !missing.is_empty() {
        words.push(format!("left out, for want of the means: {}", names(&missing)));
    }
    print(&(words.join("\n") + "\n\n"))?;
    if kinds.is_empty() {
        return Err("none of these faults can be had here".to_owned());
    }
    let time = Duration::from_secs(options.seconds);
    let faults = options.faults.unwrap_or(usize::MAX);
    let silence = Duration::from_millis(settings.peer_timeout_ms);
    let rate = load::Rate { rate: options.rate, bytes: options.bytes, time };
    let played = Run::begin(&mut arena, seed, silence, rate, interrupted)
        .and_then(|run| run.play(Plan::new(seed, kinds), faults, time));
    match played {
        Ok(outcome) => {
            print(&report(&outcome))?;
            let kept = options.keep.then(|| arena.keep()).transpose()?;
            kept.map_or(Ok(()), |folder| {
                print(&format!("everything is kept in {}\n", folder.display()))
            })
        }
        Err(Fail::Interrupted) => Err("interrupted".to_owned()),
        Err(Fail::Trouble(why)) => Err(format!("{why}\n{}", arena.group.last_words())),
        Err(Fail::Found(why)) => {
            let last = arena.group.last_words();
            let folder = arena.keep()?;
            let shown = folder.display();
            Err(format!("seed {seed}: FAILED: {why}\n{last}\neverything is kept in {shown}"))
        }
    }
}

/// Settings of the group that change what it does among faults.
struct Settings {
    peer_timeout_ms: u64,
    survivor: Survivor,
    takeover: &'static str,
    min_copies: u8,
}

impl Settings {
    fn draw(seed: u64, survivor: Option<Survivor>) -> Settings {
        let mut rng = Rng::new(seed ^ 0x5e77);
        // A disk that others use, too, may take half a second for a sync, in which a server says
        // nothing: with less than that, what is seen is the machine.
        let peer_timeout_ms = [1000, 2000][rng.below(2) as usize];
        let auto = if rng.below(3) == 0 { Survivor::Auto } else { Survivor::Ask };
        let takeover = if rng.below(4) == 0 { "rank" } else { "coin" };
        let min_copies = if rng.below(6) == 0 { 2 } else { 1 };
        Settings { peer_timeout_ms, survivor: survivor.unwrap_or(auto), takeover, min_copies }
    }

    /// As they stand in the file.
    fn lines(&self) -> Vec<String> {
        let Settings { peer_timeout_ms, survivor, takeover, min_copies } = self;
        let survivor = if *survivor == Survivor::Auto { "auto" } else { "ask" };
        vec![
            format!("peer_timeout_ms = {peer_timeout_ms}"),
            format!("last_survivor = \"{survivor}\""),
            format!("takeover = \"{takeover}\""),
            format!("min_copies = {min_copies}"),
        ]
    }
}

impl Options {
    /// The kinds that are wanted, or about half of all, and that this setting bears.
    fn kinds(&self, seed: u64, survivor: Survivor) -> Result<Vec<Kind>, String> {
        let drawn = plan::draw_kinds(seed);
        let chosen = if self.only.is_empty() { &drawn } else { &self.only };
        let borne = |kind: &&Kind| survivor == Survivor::Ask || !kind.breaks_trust();
        let kinds: Vec<Kind> = chosen.iter().filter(borne).copied().collect();
        if kinds.is_empty() {
            return Err("last_survivor = \"auto\" bears none of these faults".to_owned());
        }
        Ok(kinds)
    }
}

fn report(outcome: &Outcome) -> String {
    let Outcome { faults, counts, load, entries, silence: (longest, since) } = outcome;
    format!(
        "\n{faults} faults; {} messages acknowledged, {} refused, {} never known of; {} shown\n\
         of the load, {} acknowledged, {} never known of; {} mailboxes read back\n\
         the longest time without an acknowledgement: {:.1} s, after {:.1} s\n\
         three logs are the same, {entries} entries; every acknowledged message stands at its \
         number, once\n",
        counts.stored,
        counts.refused,
        counts.unknown,
        counts.read,
        load.acked,
        load.unknown,
        load.mailboxes,
        longest.as_secs_f64(),
        since.as_secs_f64(),
    )
}
