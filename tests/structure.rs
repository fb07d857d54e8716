//! The code keeps its structure: pure modules use only the common modules, and files and lines
//! are short.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    found
}

/// Returns the code of a file before its tests; nothing of a file of tests.
fn shipped(path: &Path, text: &str) -> String {
    let tests = path.ends_with("tests.rs");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
    if tests { String::new() } else { code.to_owned() }
}

#[test]
fn modules_depend_only_on_what_they_may() {
    let words = [
        "address",
        "ids",
        "limits",
        "time",
        "rng",
        "record",
        "content",
        "latency",
        "keyed_hash",
        // What the modules of the replication share.
        "config",
        "incarnation",
        "rules",
        "effect",
        "fields",
    ];
    let table: [(&str, &[&str]); 12] = [
        ("src/protocol", &[]),
        ("src/frontend", &["protocol"]),
        ("src/mailbox", &[]),
        ("src/packet", &[]),
        ("src/peers", &["packet"]),
        ("src/raft", &["peers", "packet"]),
        ("src/replica", &["raft", "peers", "packet"]),
        // Only for entries, the reader of the log, the members in a config, which decide whether
        // damaged data may be the only copy, and what index files list.
        ("src/store", &["replica", "mailbox"]),
        ("src/node", &["frontend", "protocol", "mailbox", "replica"]),
        ("src/host", &["node", "frontend", "replica", "store"]),
        ("src/server", &["host", "node", "frontend", "replica", "protocol", "store"]),
        ("src/client", &["protocol"]),
    ];
    for (room, may_know) in table {
        for (path, text) in sources(room) {
            for part in shipped(&path, &text).split("crate::").skip(1) {
                let known: String =
                    part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let own = room.ends_with(&known);
                let allowed = own || words.contains(&&known[..]) || may_know.contains(&&known[..]);
                assert!(allowed, "{} knows {known}", path.display());
            }
        }
    }
}

#[test]
fn pure_modules_have_no_clock_no_files_no_sockets_and_no_chance() {
    let banned = ["std::fs", "std::net", "Instant", "SystemTime", "HashMap", "HashSet", "thread"];
    let pure =
        ["protocol", "frontend", "mailbox", "packet", "peers", "raft", "replica", "node", "host"];
    for room in pure.map(|room| format!("src/{room}")) {
        for (path, text) in sources(&room) {
            for word in banned {
                let code = shipped(&path, &text);
                // Hash tables are allowed if their hash is the same in every run.
                let fixed = |line: &str| line.contains("BuildHasherDefault<");
                let named = |line: &str| line.starts_with("use ") && word == "HashMap";
                let mut lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                let found = lines.find(|l| l.contains(word) && !fixed(l) && !named(l));
                assert_eq!(found, None, "{}: {word}", path.display());
            }
        }
    }
}

/// Words that hid what was meant, and that the field has a term for.
#[test]
fn words_of_our_own_stay_away() {
    let avoided = [
        "lineage",
        "says to be",
        "set aside",
        "put aside",
        "set-aside",
        "Standpoint",
        "StandNow",
        "answered_index",
        "its answer is none",
    ];
    let own = Path::new("tests/structure.rs");
    for (path, text) in ["src", "tests", "tools"].into_iter().flat_map(sources) {
        for word in avoided.into_iter().filter(|_| path != own) {
            let mut lines = text.lines().enumerate();
            let found = lines.find(|(_, line)| line.contains(word));
            assert_eq!(found, None, "{}: {word}", path.display());
        }
    }
}

#[test]
fn files_are_short_and_lines_are_narrow() {
    for (path, text) in ["src", "tests", "tools"].into_iter().flat_map(sources) {
        let lines = shipped(&path, &text).lines().count();
        assert!(lines <= 600, "{}: {lines} lines", path.display());
        for (at, line) in text.lines().enumerate() {
            assert!(line.chars().count() <= 100, "{}:{}: a wide line", path.display(), at + 1);
        }
    }
}
