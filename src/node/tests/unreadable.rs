//! Tests entries that can't be read. If only this server's disk has lost one, only the read of it
//! fails. If no server can decode one, it changes nothing.

use super::*;
use crate::ids::Position;
use crate::record::Kind;

/// Only an entry of an unknown kind, from a newer version, ends the server.
#[test]
fn an_entry_that_nobody_can_read_is_passed_over_by_all() {
    let restarted = |kind: Kind| {
        let mut before = World::new();
        before.line(ANN, "SEND bob one");
        let last = Record::trust(before.log.0.last().unwrap()).position();
        let mut record = Vec::new();
        let at = Position { index: last.index.next(), ..last };
        record::write(&mut record, at, WallTime(0), kind, |out| out.extend(b"nonsense"));
        before.log.0.push(record);
        before.restarted()
    };
    let known = [Kind::CREATE, Kind::DELETE, Kind::PASSWORD, Kind::MESSAGE];
    for kind in known.into_iter().chain([Kind::LIMITS, Kind::FORGET, Kind::EMPTIED]) {
        let mut world = restarted(kind);
        (0..20).for_each(|_| world.turn());
        assert_eq!(world.visit(HERE, &["LOGIN bob correct-horse end"]), "OK bob 1\n", "{kind:?}");
    }
    let ended = std::panic::catch_unwind(|| {
        let mut world = restarted(Kind(10));
        (0..20).for_each(|_| world.turn());
    });
    assert!(ended.is_err(), "it is not known what it means");
}

/// A read shows the messages before the unreadable one, and its connection stays open. A session
/// that receives pushes gets a note and is closed.
#[test]
fn only_the_reading_of_an_entry_that_this_disk_lost_fails() {
    let mut world = World::new();
    for n in 1..=3 {
        world.line(ANN, &format!("SEND bob message-{n}"));
    }
    world.said(BOB);
    let is_second = |record: &Vec<u8>| record.windows(9).any(|bytes| bytes == b"message-2");
    let at = world.log.0.iter().position(is_second).unwrap();
    let lost = std::mem::take(&mut world.log.0[at]);
    let said =
        world.visit(HERE, &["LOGIN bob correct-horse 0", "PING", "LOGIN bob correct-horse 2"]);
    let lines: Vec<&str> = said.lines().collect();
    let error = "ERR unreadable message 2 ";
    assert!(lines[0].ends_with(" message-1") && lines[1].starts_with(error), "{said}");
    assert!(lines[2] == "OK" && lines[3].ends_with(" message-3"), "{said}");
    assert_eq!(lines[4..], ["OK bob 3"], "{said}");
    world.log.0[at] = lost;
    let said = world.visit(HERE, &["LOGIN bob correct-horse 0"]);
    assert_eq!(said.lines().count(), 4, "nothing of it is kept: {said}");
}
