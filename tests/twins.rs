//! Two servers that run under one id do not take turns: the one that is linked and answers stays,
//! the other one is refused, and one line names both. The group goes on as if it was not there.

mod common;

use common::{Group, Twin};
use std::fs;
use std::net::TcpListener;
use std::path::Path;

/// A second server 2, which listens elsewhere.
fn twin(group: &Group, data: &Path) -> Twin {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Twin::start(group, 2, data, &free.to_string(), ("", ""))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_second_server_with_an_id_is_refused_while_the_first_answers() {
    for copied in [false, true] {
        let mut group = Group::open();
        let primary = group.wait_members(3);
        let mut ann = group.client(primary, "ann");
        assert_eq!(ann.ask("SEND ann one"), "OK 1");
        let data = group.dir.path().join("twin");
        if copied {
            copy(&group.data(2), &data);
        }
        let before = group.status(primary).unwrap();
        let twin = twin(&group, &data);
        let line = group.wait_line(primary_or_other(primary), "two servers run as id 2");
        let disk = &before["members"].split(',').nth(1).unwrap()[2..];
        assert!(line.contains(disk) && line.matches("127.").count() == 2, "{line}");
        for n in 2..=20 {
            assert_eq!(ann.ask(&format!("SEND ann {n}")), format!("OK {n}"));
        }
        let after =
            group.wait(primary, "all is stored", |s| s["acknowledged_index"] == s["last_index"]);
        assert_eq!(after["members"], before["members"], "the first one stays");
        let grown = after["last_index"].parse::<u64>().unwrap()
            - before["last_index"].parse::<u64>().unwrap();
        assert_eq!(grown, 19, "messages alone");
        // When the first one ends, the other takes its place, as any server that comes back.
        drop(ann);
        if primary != 2 && !copied {
            group.kill(2);
            group.wait(primary, "another disk is a member", |status| {
                status["members"].split(',').count() == 3 && status["members"] != before["members"]
            });
        }
        drop(twin);
    }
}

/// Servers 1 and 3 are asked by the second server 2; the one that is not server 2.
fn primary_or_other(primary: usize) -> usize {
    if primary == 2 { 1 } else { primary }
}
