//! The fuzz targets.

use super::case::Case;
use super::{channel, client, directory, lines, packets, settings};
use clap::ValueEnum;
use postern::rng::Rng;

/// A part of postern that reads bytes from outside.
#[derive(Debug)]
pub(super) struct Target {
    /// Its name in options and folders.
    pub(super) name: &'static str,
    /// Makes a mostly valid input.
    pub(super) generate: fn(&mut Rng) -> Case,
    /// Feeds an input to the real code.
    ///
    /// An error names the violated bound, followed by `: ` and details.
    pub(super) check: fn(&Case) -> Result<(), String>,
}

/// The targets to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Lines of text clients, sent to a server that is primary.
    Lines,
    /// Packets of a hostile server that knows the secret of the group.
    Packets,
    /// The bytes of an encrypted link, with a man in the middle.
    Channel,
    /// A data directory with damaged files.
    Directory,
    /// Texts of `postern.toml`.
    Settings,
    /// Lines of a hostile server, sent to a client.
    Client,
    /// All targets, one after the other.
    All,
}

/// Declares a target of the module with its name.
macro_rules! target {
    ($module:ident) => {
        Target { name: stringify!($module), generate: $module::generate, check: $module::check }
    };
}

/// All targets, in the order of [`Which`].
static TARGETS: [Target; 6] = [
    target!(lines),
    target!(packets),
    target!(channel),
    target!(directory),
    target!(settings),
    target!(client),
];

impl Which {
    /// Returns the selected targets.
    pub(super) fn targets(self) -> &'static [Target] {
        match self {
            Which::All => &TARGETS,
            one => std::slice::from_ref(&TARGETS[one as usize]),
        }
    }
}

/// Checks that no count exceeds its maximum. Each has a name.
pub(super) fn check_memory(bounds: &[(&str, usize, usize)]) -> Result<(), String> {
    match bounds.iter().find(|(_, count, most)| count > most) {
        None => Ok(()),
        Some((what, count, _)) => Err(format!("memory grows with {what}: {count}")),
    }
}
