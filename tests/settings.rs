//! Settings that differ between servers, though they may, are reported on both sides with both
//! values. Addresses are changed one server at a time, and a forgotten one would send clients to
//! the wrong place.

mod common;

use common::Group;
use std::fs;

#[test]
fn a_difference_is_logged_once_on_both_sides_and_shown() {
    let mut group = Group::open();
    group.wait_members(3);
    group.terminate(3);
    let own = fs::read_to_string(group.config()).unwrap();
    let other = own
        .replace("# accounts = \"open\" ", "accounts = \"operator\" #")
        .replace(&group.servers[0], "gone.invalid:5001");
    fs::write(group.config(), &other).unwrap();
    group.start(3);
    fs::write(group.config(), &own).unwrap();
    group.wait_members(3);
    let here = format!("servers = {}, here gone.invalid:5001,", group.servers.join(","));
    for (n, of, expected) in [
        (1, 3, "accounts = operator, here open"),
        (2, 3, "accounts = operator, here open"),
        (3, 1, "accounts = open, here operator"),
        (3, 2, &here[..]),
    ] {
        let shown = format!("server {of}: ");
        let status = group.wait(n, "it shows the difference", |status| {
            status["settings_differ"].contains(&shown)
        });
        assert!(status["settings_differ"].contains(expected), "{status:?}");
        let line = format!("server {of} at ");
        let find = || {
            let log = group.log(n);
            let lines = log.lines().filter(|l| l.contains(&line) && l.contains("other settings"));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            (!lines.is_empty()).then_some(lines)
        };
        let logged = common::wait_for(find, || group.log(n));
        assert!(logged.len() == 1 && logged[0].contains(expected), "{logged:?}");
    }
    // Once the file is corrected, nothing differs any more.
    group.terminate(3);
    group.start(3);
    group.wait_members(3);
    group.wait(1, "nothing differs", |status| status["settings_differ"] == "-");
}
