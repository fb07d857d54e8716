//! `postern-load report`: all figures of postern, each of a new group.

mod footprint;
mod profile;
mod size;
mod stream;

use clap::Args;
use postern_testkit::group::{Group, binary_beside_this};
use postern_testkit::{print, process};
use profile::{BUILT_IN, Profile};
use std::path::{Path, PathBuf};

/// Options of `postern-load report`.
#[derive(Debug, Args)]
pub struct Options {
    /// The `postern` binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    postern: Option<PathBuf>,
    /// Measure only this profile or part, or the profile in this file.
    #[arg(long, value_name = "NAME|FILE.toml")]
    only: Option<String>,
}

/// A measurement that is no load.
struct Part {
    name: &'static str,
    about: &'static str,
    measure: fn(&mut Group) -> Result<String, String>,
}

const PARTS: [Part; 4] = [
    Part { name: "stream", about: "a file through `postern send`", measure: stream::measure },
    Part { name: "memory", about: "resident memory of servers", measure: footprint::memory },
    Part { name: "idle", about: "servers without requests", measure: footprint::idle },
    Part {
        name: "size",
        about: "the size of the binary",
        measure: |group| size::measure(group.binary()),
    },
];

/// Prints the figures of all profiles and parts, or of the selected one.
///
/// # Errors
/// A figure can't be measured.
pub fn run(options: &Options) -> Result<(), String> {
    if cfg!(debug_assertions) {
        print("Built without --release: these figures mean little.\n")?;
    }
    process::raise_file_limit();
    let postern = options.postern.clone().map_or_else(binary_beside_this, Ok)?;
    let (profiles, parts) = select(options.only.as_deref())?;
    for profile in &profiles {
        measure(&postern, &profile.name, &profile.about, |group| profile.measure(group))?;
    }
    parts.iter().try_for_each(|part| measure(&postern, part.name, part.about, part.measure))
}

/// Returns the selected profiles and parts; all if `only` is `None`.
fn select(only: Option<&str>) -> Result<(Vec<Profile>, Vec<Part>), String> {
    if let Some(path) = only.filter(|only| only.ends_with(".toml")) {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let profile = text.and_then(|text| Profile::parse(&text));
        return Ok((vec![profile.map_err(|why| format!("{path}: {why}"))?], Vec::new()));
    }
    let profiles =
        BUILT_IN.iter().map(|text| Profile::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let names = profiles.iter().map(|one| one.name.clone());
    let names: Vec<String> = names.chain(PARTS.iter().map(|one| one.name.to_owned())).collect();
    let is_selected = |name: &str| only.is_none_or(|only| only == name);
    if !names.iter().any(|name| is_selected(name)) {
        return Err(format!("no such profile or part; there are {}", names.join(", ")));
    }
    let profiles = profiles.into_iter().filter(|one| is_selected(&one.name)).collect();
    Ok((profiles, PARTS.into_iter().filter(|one| is_selected(one.name)).collect()))
}

/// Prints a measurement of a new group, and what its servers warned of.
fn measure(
    postern: &Path,
    name: &str,
    about: &str,
    measure: impl FnOnce(&mut Group) -> Result<String, String>,
) -> Result<(), String> {
    let mut group = Group::start(postern, false)?;
    let text = measure(&mut group);
    let mut text = text.map_err(|why| format!("{name}: {why}\n{}", group.last_words()))?;
    for line in group.warnings() {
        text += &format!("  a server logged: {line}\n");
    }
    print(&format!("{name}: {about}\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_select_profiles_and_parts() {
        let count = |only| select(only).map(|(profiles, parts)| (profiles.len(), parts.len()));
        assert_eq!(count(None), Ok((BUILT_IN.len(), PARTS.len())));
        assert_eq!(count(Some("latency")), Ok((1, 0)));
        assert_eq!(count(Some("idle")), Ok((0, 1)));
        assert!(count(Some("speed")).unwrap_err().contains("latency"));
        assert!(count(Some("missing.toml")).unwrap_err().starts_with("missing.toml: "));
    }
}
