//! `postern-chaos`: injects faults into real servers while clients send, and checks that no
//! acknowledged message is lost.
//!
//! In reading order: `plan` (the sequence of faults, drawn from a seed), `environment` (servers,
//! network and disks), `fault` (injects faults and ends them), `run` (executes the plan),
//! `clients` and `load` (the requests), `monitor` (the STATUS of the servers), `timeline` (the
//! output), `verdict` (the final check of the data).

mod clients;
mod environment;
mod fault;
mod load;
mod monitor;
mod plan;
mod run;
mod timeline;
mod verdict;

use clap::{Parser, ValueEnum};
use clients::Counts;
use environment::Environment;
use plan::{Kind, Plan};
use postern::rng::Rng;
use postern_load::run::text::Sizes;
use postern_testkit::group::binary_beside_this;
use postern_testkit::print;
use postern_testkit::process;
use run::{Error, Run, Summary};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const OUTPUT_HELP: &str = "\
Each line of the output is an event: when a fault begins or ends, a server exits, or the group is
healthy again, which means that all three servers are members and one of them is primary.
  server       the servers that the event affects
  new primary  the first server that became primary after the event
  next OK      time until a message that was sent after the event was acknowledged; `none yet` if
               that did not happen before the next event
The exit status is 0 if every check succeeds, else 1.";

/// Inject faults into a group of three real servers, and check that no message is lost.
#[derive(Debug, Parser)]
#[command(after_help = OUTPUT_HELP)]
struct Options {
    /// Seed of the faults and the settings; random by default.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Time during which faults are injected, in seconds.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Maximum number of faults; unlimited by default.
    #[arg(long, value_name = "N")]
    faults: Option<usize>,
    /// Kinds of faults, separated by commas; by default, about half of all, drawn from the seed.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    only: Vec<Kind>,
    /// Setting `last_survivor` of the group; drawn from the seed by default.
    #[arg(long, value_name = "ask|auto")]
    survivor: Option<Survivor>,
    /// Messages per second of the background load.
    #[arg(long, value_name = "N", default_value_t = 400)]
    rate: u64,
    /// Text lengths of the background load, in bytes. Long texts fill more segments of the log.
    #[arg(long, value_name = "N|N..M", default_value = "30..500")]
    bytes: Sizes,
    /// Keep the data and logs of the servers even if every check succeeds.
    #[arg(long)]
    keep: bool,
    /// Path of the `postern` binary; by default, beside this program. Disk faults need a debug
    /// build.
    #[arg(long, value_name = "PATH")]
    postern: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Survivor {
    Ask,
    Auto,
}

fn main() -> ExitCode {
    postern_testkit::exit_code("postern-chaos", run(&Options::parse()))
}

/// Executes a run. Returns a finding, or why the run could not be executed, as an error.
fn run(options: &Options) -> Result<(), String> {
    let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one("chaos"));
    let settings = Settings::draw(seed, options.survivor);
    let wanted = options.kinds(seed, settings.survivor)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let registered = signal_hook::flag::register(signal, Arc::clone(&interrupted));
        registered.map_err(|error| format!("cannot handle signals: {error}"))?;
    }
    process::raise_file_limit();
    let postern = options.postern.clone().map_or_else(binary_beside_this, Ok)?;
    let lines = settings.lines();
    let mut notes = vec![format!("seed: {seed}"), format!("settings: {}", lines.join(", "))];
    let mut environment =
        Environment::build(&postern, &wanted, &(lines.join("\n") + "\n"), &mut notes)?;
    let (kinds, unsupported): (Vec<Kind>, Vec<Kind>) =
        wanted.into_iter().partition(|kind| environment.supports(*kind));
    notes.push(format!("kinds of faults: {}", names(&kinds)));
    if !unsupported.is_empty() {
        notes.push(format!("skipped, since unavailable here: {}", names(&unsupported)));
    }
    print(&(notes.join("\n") + "\n\n"))?;
    if kinds.is_empty() {
        return Err("this machine supports none of these kinds of faults".to_owned());
    }
    let peer_timeout = Duration::from_millis(settings.peer_timeout_ms);
    let result = Run::start(&mut environment, options, seed, peer_timeout, interrupted)
        .and_then(|run| run.execute(Plan::new(seed, kinds)));
    if matches!(result, Err(Error::Finding(_) | Error::Tool(_))) {
        print(&format!("\nlast lines of the logs:\n{}\n", environment.group.last_words()))?;
    }
    match result {
        Ok(summary) => {
            print(&describe(&summary))?;
            if options.keep {
                print(&format!("data and logs: {}\n", environment.keep()?.display()))?;
            }
            Ok(())
        }
        Err(Error::Interrupted) => Err("interrupted".to_owned()),
        Err(Error::Tool(why)) => Err(why),
        Err(Error::Finding(why)) => {
            let kept = environment.keep();
            let kept = kept.map_or_else(|error| error, |folder| folder.display().to_string());
            Err(format!(
                "FAILED: {why}\ndata and logs: {kept}\n\
                 to repeat the faults, use --seed {seed} and the same other options"
            ))
        }
    }
}

/// Settings of the group that matter under faults.
struct Settings {
    peer_timeout_ms: u64,
    survivor: Survivor,
    takeover: &'static str,
    min_copies: u8,
}

impl Settings {
    fn draw(seed: u64, survivor: Option<Survivor>) -> Settings {
        let mut rng = Rng::new(seed ^ 0x5e77);
        // On a disk that other programs use, a sync may take half a second, and the server sends
        // nothing meanwhile. A shorter peer timeout would test the machine.
        let peer_timeout_ms = [1000, 2000][rng.below(2) as usize];
        let auto = if rng.below(3) == 0 { Survivor::Auto } else { Survivor::Ask };
        let takeover = if rng.below(4) == 0 { "rank" } else { "coin" };
        let min_copies = if rng.below(6) == 0 { 2 } else { 1 };
        Settings { peer_timeout_ms, survivor: survivor.unwrap_or(auto), takeover, min_copies }
    }

    /// Returns the lines of `postern.toml`.
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
    /// Returns the kinds of `--only`, or those that the seed draws, without those that the
    /// setting `last_survivor` does not allow.
    fn kinds(&self, seed: u64, survivor: Survivor) -> Result<Vec<Kind>, String> {
        let drawn = plan::draw_kinds(seed);
        let chosen = if self.only.is_empty() { &drawn } else { &self.only };
        let is_allowed = |kind: &&Kind| survivor == Survivor::Ask || !kind.violates_auto();
        let kinds: Vec<Kind> = chosen.iter().filter(is_allowed).copied().collect();
        if kinds.is_empty() {
            let chosen = names(chosen);
            return Err(format!("last_survivor = \"auto\" allows none of these faults: {chosen}"));
        }
        Ok(kinds)
    }
}

fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(",")
}

fn describe(summary: &Summary) -> String {
    let Summary { faults, counts, load, entries, longest_gap } = summary;
    let Counts { stored, refused, unknown, delivered } = counts;
    let (acked, mailboxes) = (load.counts.acked_total, load.mailboxes_read);
    let (gap, since) = (longest_gap.0.as_secs_f64(), longest_gap.1.as_secs_f64());
    format!(
        "\n{faults} faults injected\n\
         clients: {stored} messages acknowledged, {refused} refused, {unknown} with unknown \
         outcome; {delivered} delivered\n\
         load: {acked} messages acknowledged, {} with unknown outcome; {mailboxes} mailboxes \
         checked\n\
         longest time without an acknowledgement to a client: {gap:.1} s, from second {since:.1} \
         on\n\
         ok: the three logs are identical ({entries} entries), and each acknowledged message is \
         stored once, under its number\n",
        load.counts.unknown,
    )
}
