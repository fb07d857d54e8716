//! `figures`: the parts in their order, each with a group of its own.

mod changes;
mod crowd;
mod flood;
mod footprint;
mod latency;
mod link;
mod size;
mod stream;
pub(crate) mod takeover;

use clap::{Args, ValueEnum};
use postern_testkit::group::{Group, binary_beside_this};
use postern_testkit::{print, process};
use std::path::{Path, PathBuf};

/// Options of `postern-load report`.
#[derive(Debug, Args)]
pub struct Options {
    /// The `postern` binary; by default the one beside this program.
    #[arg(long)]
    postern: Option<PathBuf>,
    /// Measures only this.
    #[arg(long, value_name = "NAME")]
    only: Option<Part>,
    /// How many primaries `takeover` kills.
    #[arg(long, default_value_t = 10, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From the death of the primary to the next acknowledged message.
    Takeover,
    /// The second death in a row, a planned handover, and what a backup that goes and comes costs.
    Changes,
    /// One client, one request at a time.
    Latency,
    /// Many clients at once.
    Batching,
    /// Many clients with many requests each.
    Flood,
    /// One sender, many receivers.
    Fanout,
    /// Lines from a file, one connection.
    Stream,
    /// Thousands of clients that come back when the primary dies.
    Crowd,
    /// Resident memory, idle and with idle clients.
    Memory,
    /// What servers do when nobody asks for anything.
    Idle,
    /// What the encryption of a link costs, without sockets.
    Link,
    /// Of the binary.
    Size,
}

impl Part {
    /// Measures with a fresh group, so that no part finds what another left in logs and meters.
    fn measure(self, postern: &Path, times: u32) -> Result<String, String> {
        let mut group = Group::start(postern, self == Part::Changes)?;
        let text = self.measure_group(&mut group, times);
        let mut text = text.map_err(|why| format!("{why}\n{}", group.last_words()))?;
        // Who kills servers is told that they are gone.
        let kills = matches!(self, Part::Takeover | Part::Changes | Part::Crowd);
        let expected = |line: &String| kills && !line.contains("panicked");
        for line in group.warnings().iter().filter(|line| !expected(line)) {
            text += &format!("  a server said: {line}\n");
        }
        Ok(text)
    }

    fn measure_group(self, group: &mut Group, times: u32) -> Result<String, String> {
        match self {
            Part::Takeover => takeover::measure(group, times),
            Part::Changes => changes::measure(group),
            Part::Latency => latency::latency(group),
            Part::Batching => latency::batching(group),
            Part::Flood => flood::flood(group),
            Part::Fanout => flood::fanout(group),
            Part::Stream => stream::measure(group),
            Part::Crowd => crowd::measure(group),
            Part::Memory => footprint::memory(group),
            Part::Idle => footprint::idle(group),
            Part::Link => link::measure(),
            Part::Size => size::measure(group.binary()),
        }
    }
}

/// Prints the figures of all parts, or of the one that was asked for.
///
/// # Errors
/// Why a part could not be measured, with the last words of its servers.
pub fn run(options: &Options) -> Result<(), String> {
    if cfg!(debug_assertions) {
        print("Built without --release: these figures say little.\n")?;
    }
    process::raise_file_limit();
    let postern = match &options.postern {
        Some(path) => path.clone(),
        None => binary_beside_this()?,
    };
    for part in Part::value_variants() {
        if options.only.is_some_and(|only| only != *part) {
            continue;
        }
        let name = format!("{part:?}").to_lowercase();
        let text = part.measure(&postern, options.times).map_err(|why| format!("{name}: {why}"))?;
        print(&format!("{name}\n{text}"))?;
    }
    Ok(())
}
