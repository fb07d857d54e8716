//! The targets: what each of them generates and checks.

use super::case::Case;
use super::{channel, client, directory, lines, packets, settings};
use clap::ValueEnum;
use postern::rng::Rng;

/// A part of postern that takes bytes from outside.
#[derive(Debug)]
pub(super) struct Target {
    /// Its name in options and folders.
    pub(super) name: &'static str,
    /// Makes a mostly valid input.
    pub(super) generate: fn(&mut Rng) -> Case,
    /// Feeds an input to the real code.
    ///
    /// Errors name a bound that was broken, then `: ` and the details.
    pub(super) check: fn(&Case) -> Result<(), String>,
}

/// Which targets to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Lines of text clients, sent to a server that is primary.
    Lines,
    /// Packets of a hostile server that knows the secret.
    Packets,
    /// The bytes of an encrypted link, with somebody in the middle.
    Channel,
    /// A data directory with damaged files.
    Directory,
    /// Texts of `postern.toml`.
    Settings,
    /// What a hostile server says to a client.
    Client,
    /// All of them, one after the other.
    All,
}

const LINES: Target = Target { name: "lines", generate: lines::generate, check: lines::check };
const PACKETS: Target =
    Target { name: "packets", generate: packets::generate, check: packets::check };
const CHANNEL: Target =
    Target { name: "channel", generate: channel::generate, check: channel::check };
const DIRECTORY: Target =
    Target { name: "directory", generate: directory::generate, check: directory::check };
const SETTINGS: Target =
    Target { name: "settings", generate: settings::generate, check: settings::check };
const CLIENT: Target = Target { name: "client", generate: client::generate, check: client::check };

impl Which {
    /// Returns the targets that are meant.
    pub(super) fn targets(self) -> Vec<&'static Target> {
        match self {
            Which::Lines => vec![&LINES],
            Which::Packets => vec![&PACKETS],
            Which::Channel => vec![&CHANNEL],
            Which::Directory => vec![&DIRECTORY],
            Which::Settings => vec![&SETTINGS],
            Which::Client => vec![&CLIENT],
            Which::All => vec![&LINES, &PACKETS, &CHANNEL, &DIRECTORY, &SETTINGS, &CLIENT],
        }
    }
}
