//! Texts of `postern.toml`, read from a file as `serve` does. Each piece is a line.

use super::case::{Case, pick};
use crate::require;
use postern::rng::Rng;
use postern::settings::{Settings, servers};
use std::cell::OnceCell;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

// Each list is separated by bars.
const VALUES: &str = concat!(
    r#"0|-1|1|2000|18446744073709551616|1e9|"coin"|"rank"|"auto"|"operator"|[]|{}|true|"#,
    "\"\\n\\u001b\"|\"\"\"\nx\"\"\"|2026-01-01"
);
const KEYS: &str = "listen|data|peer_timeout_ms|takeover|min_copies|last_survivor|max_clients|\
                    login_timeout_s|accounts|servers|group|unknown";
const ENTRIES: &str = "127.0.0.1:5001|127.0.0.1:5002|[::1]:5003|127.0.0.1:0|127.0.0.1:65536|\
                       127.0.0.1|:5001|a\\nb:x|";

fn choose(rng: &mut Rng, list: &'static str) -> &'static str {
    let count = list.split('|').count();
    list.split('|').nth(pick(rng, count)).unwrap_or_default()
}

/// Makes the text of a file, mostly a valid one.
pub(super) fn generate(rng: &mut Rng) -> Case {
    let list: Vec<&str> = match rng.below(3) {
        0 => (0..rng.below(5)).map(|_| choose(rng, ENTRIES)).collect(),
        1 => ENTRIES.split('|').take(1).collect(),
        _ => ENTRIES.split('|').take(3).collect(),
    };
    let list: Vec<String> = list.iter().map(|entry| format!("\"{entry}\"")).collect();
    let mut lines = vec![
        format!("servers = [{}]", list.join(", ")),
        format!("group = \"{}\"", "07".repeat(16)),
        format!("secret = \"{}Bwc=\"", "BwcH".repeat(10)),
    ];
    for _ in 0..rng.below(6) {
        let key = choose(rng, KEYS);
        let valid = match key {
            "peer_timeout_ms" => "2000",
            "takeover" => "\"rank\"",
            "min_copies" | "login_timeout_s" => "1",
            "last_survivor" => "\"auto\"",
            "max_clients" => "0",
            "accounts" => "\"operator\"",
            "listen" => "\"127.0.0.1:5001\"",
            _ => "\"x\"",
        };
        let value = if rng.below(2) == 0 { valid } else { choose(rng, VALUES) };
        lines.push(format!("{key} = {value}"));
    }
    Case(lines.into_iter().map(String::into_bytes).collect())
}

thread_local! {
    static FOLDER: OnceCell<Option<tempfile::TempDir>> = const { OnceCell::new() };
}

/// Reads the text as the settings of a server and as those of a client.
pub(super) fn check(case: &Case) -> Result<(), String> {
    let text = case.0.join(&b'\n');
    if asks_a_name_server(&text) {
        return Ok(());
    }
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().ok());
        let Some(folder) = folder else { return Err("no temporary folder: none".to_owned()) };
        let path = folder.path().join("postern.toml");
        let mode = fs::Permissions::from_mode(0o600);
        let written = fs::write(&path, &text).and_then(|()| fs::set_permissions(&path, mode));
        written.map_err(|error| format!("a file can't be written: {error}"))?;
        let shown = path.display().to_string();
        for refusal in [Settings::read(&path).err(), servers(&path).err()].into_iter().flatten() {
            require(!refusal.contains(['\n', '\r']), || {
                format!("a refusal has more than one line: {refusal:?}")
            })?;
            require(refusal.starts_with(&shown), || {
                format!("a refusal does not name its file: {refusal:?}")
            })?;
        }
        Ok(())
    })
}

/// Whether a host name of this text needs a name server. Such texts are skipped.
fn asks_a_name_server(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let Ok(table) = toml::from_str::<toml::Table>(text) else { return false };
    let mut hosts: Vec<&str> = Vec::new();
    let list = table.get("servers").and_then(toml::Value::as_array);
    hosts.extend(list.into_iter().flatten().filter_map(toml::Value::as_str));
    hosts.extend(table.get("listen").and_then(toml::Value::as_str));
    hosts.iter().any(|entry| {
        let Some((host, port)) = entry.rsplit_once(':') else { return false };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        port.trim().parse::<u16>().is_ok() && host.parse::<IpAddr>().is_err()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_generated_texts_are_valid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postern.toml");
        let mut rng = Rng::new(1);
        let valid = (0..100).filter(|_| {
            fs::write(&path, generate(&mut rng).0.join(&b'\n')).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            Settings::read(&path).is_ok()
        });
        assert!(valid.count() > 10);
    }
}
