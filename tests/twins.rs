//! Two servers that run under one id do not alternate. The one that is linked and answers stays,
//! the other one is refused, and one line names both. The group continues undisturbed.

mod common;

use common::{Group, Twin, copy_folder};
use std::net::TcpListener;
use std::path::Path;

/// Starts a second server 2, which listens elsewhere.
fn twin(group: &Group, data: &Path) -> Twin {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Twin::start(group, 2, data, &free.to_string(), ("", ""))
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
            copy_folder(&group.data(2), &data);
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
        // When the first one ends, the other replaces it, as any server that restarts.
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

/// Returns a server other than 2 to read the state from, since both servers 2 claim that id.
fn primary_or_other(primary: usize) -> usize {
    if primary == 2 { 1 } else { primary }
}
