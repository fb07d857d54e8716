//! `STATUS`: its keys, and the form of their values.

use crate::common::{Client, Status};
use crate::scene::Scene;

const KEYS: [&str; 43] = [
    "version",
    "server",
    "role",
    "primary",
    "servers",
    "term",
    "members",
    "missing",
    "gate",
    "waiting",
    "waiting_for",
    "set_aside",
    "settings_differ",
    "last_index",
    "committed_index",
    "acknowledged_index",
    "applied_index",
    "accounts",
    "sessions",
    "connections",
    "messages",
    "log_bytes",
    "log_repaired",
    "log_damaged",
    "log_checked",
    "disk_free_bytes",
    "memory_bytes",
    "uptime_seconds",
    "turns",
    "commits_per_second",
    "commits_per_sync",
    "commit_p50_us",
    "commit_p99_us",
    "sync_p50_us",
    "sync_p99_us",
    "sync_worst_us",
    "clock_skew_ms",
    "peer_1_lag",
    "peer_2_lag",
    "peer_3_lag",
    "peer_1_state",
    "peer_2_state",
    "peer_3_state",
];

const ROLES: [&str; 5] = ["blank", "learner", "backup", "candidate", "primary"];
const PEER_STATES: [&str; 7] = ["member", "learner", "penalty", "stopping", "lost", "self", "-"];

/// Requests the status, and checks that each key occurs once.
pub(crate) fn ask(client: &mut Client) -> Status {
    client.send("STATUS");
    let mut status = Status::new();
    loop {
        let line = client.line();
        if line == "OK" {
            return status;
        }
        let stat = line.strip_prefix("STAT ").and_then(|stat| stat.split_once(' '));
        let (key, value) = stat.unwrap_or_else(|| panic!("no STAT key value: {line}"));
        let twice = status.insert(key.to_owned(), value.to_owned());
        assert_eq!(twice, None, "{key} comes twice");
    }
}

/// Returns whether this names a server in the form `2/91c0ffee`.
fn is_server(text: &str) -> bool {
    let digits = |disk: &str| disk.len() >= 4 && disk.bytes().all(|b| b.is_ascii_hexdigit());
    text.split_once('/').is_some_and(|(id, disk)| is_id(id) && digits(disk))
}

fn is_id(text: &str) -> bool {
    ["1", "2", "3"].contains(&text)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Checks the form of each value.
pub(crate) fn check(status: &Status) {
    for key in KEYS {
        assert!(status.contains_key(key), "{key} is missing: {status:?}");
    }
    for (key, value) in status {
        let unknown = value == "-";
        let fits = match &key[..] {
            "version" | "servers" | "waiting" | "set_aside" | "settings_differ" => {
                !value.is_empty()
            }
            "commits_per_sync" => value.parse::<f64>().is_ok(),
            "server" => is_server(value),
            "role" => ROLES.contains(&&value[..]),
            "primary" => {
                let parts = value.split_once(' ');
                unknown || parts.is_some_and(|(id, at)| is_id(id) && at.contains(':'))
            }
            "members" => unknown || value.split(',').all(is_server),
            "missing" | "waiting_for" => unknown || value.split(',').all(is_id),
            "gate" => ["open", "closed"].contains(&&value[..]),
            "term" => unknown || value.split('.').all(is_number),
            "peer_1_state" | "peer_2_state" | "peer_3_state" => PEER_STATES.contains(&&value[..]),
            key if KEYS.contains(&key) => unknown || is_number(value),
            _ => true,
        };
        assert!(fits, "{key} is {value:?}");
    }
}

fn number(status: &Status, key: &str) -> u64 {
    status[key].parse().unwrap_or_else(|_| panic!("{key} is {}", status[key]))
}

#[test]
fn status_has_every_key_before_a_login_and_after() {
    let mut scene = Scene::of(&["ann"]);
    check(&ask(scene.client("eve")));
    check(&ask(scene.client("ann")));
}

#[test]
fn status_of_a_primary_says_that_it_is_one() {
    let mut scene = Scene::of(&[]);
    let status = ask(scene.client("ann"));
    assert_eq!((&status["role"][..], &status["gate"][..]), ("primary", "open"));
    let (id, _) = status["server"].split_once('/').expect("id and disk");
    assert!(status["primary"].starts_with(&format!("{id} ")), "{status:?}");
    assert_eq!(status[&format!("peer_{id}_state")], "self");
    assert!(status["members"].split(',').any(|member| member == status["server"]));
}

#[test]
fn status_counts_what_was_answered() {
    let mut scene = Scene::of(&["ann"]);
    let before = ask(scene.client("ann"));
    scene.play(
        "ann > SEND @ann hi
         ann < OK 1
         ann < MSG 1 TIME @ann hi",
    );
    let after = ask(scene.client("ann"));
    for key in ["last_index", "committed_index", "acknowledged_index", "applied_index", "log_bytes"]
    {
        assert!(number(&after, key) > number(&before, key), "{key} does not grow");
    }
    // Other users may connect and leave meanwhile.
    for key in ["accounts", "sessions", "connections", "messages"] {
        assert!(number(&after, key) >= 1, "{key} is {}", after[key]);
    }
    let order = ["applied_index", "acknowledged_index", "committed_index", "last_index"];
    assert!(order.map(|key| number(&after, key)).is_sorted(), "{after:?}");
}
