//! What is known of a system that postern is compared with.

use super::servers::Servers;
use crate::run::dialect::Dialect;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Makes the dialect of a connection, by its number.
pub(crate) type NewDialect = fn(usize) -> Box<dyn Dialect>;

/// One system in one way of using it.
pub(crate) struct Peer {
    /// What it is called.
    pub(crate) name: &'static str,
    /// How it is used, where there is a choice.
    pub(crate) way: &'static str,
    /// The program that must be installed.
    pub(crate) program: &'static str,
    /// What makes the program say its version.
    pub(crate) version: &'static str,
    /// What an acknowledgement means there, and where that is less.
    pub(crate) meaning: &'static str,
    /// Starts it in a folder and waits until it serves.
    pub(crate) start: fn(&Path, TempDir) -> Result<Servers, String>,
    /// How a connection asks it.
    pub(crate) dialect: NewDialect,
    /// The same while one of three servers is lost; none where nothing takes over.
    pub(crate) survivor: Option<NewDialect>,
}

impl Peer {
    /// The name of this use in a table: with the version, and how it is used.
    pub(crate) fn title(&self, version: &str) -> String {
        let comma = if self.way.is_empty() { "" } else { ", " };
        format!("{} {version}{comma}{}", self.name, self.way)
    }
}

/// The version that a program says it has: the first word that begins with a digit.
pub(crate) fn version(program: &Path, argument: &str) -> Result<String, String> {
    let failed = |error| format!("{}: {error}", program.display());
    let said = Command::new(program).arg(argument).stdin(Stdio::null()).output().map_err(failed)?;
    let text = String::from_utf8_lossy(&said.stdout);
    find_version(&text).ok_or_else(|| format!("{}: says no version: {text}", program.display()))
}

fn find_version(text: &str) -> Option<String> {
    let numbers =
        text.split([' ', '\n']).map(|word| word.trim_start_matches("v=").trim_start_matches('v'));
    let version = numbers.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    version.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_where_programs_say_them() {
        let cases = [
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n", "7.0.15"),
            ("nats-server: v2.9.10\n", "2.9.10"),
            ("beanstalkd 1.12\n", "1.12"),
            ("postern 0.1.0\n", "0.1.0"),
        ];
        for (text, version) in cases {
            assert_eq!(find_version(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(find_version("usage: it -v\n"), None);
    }
}
