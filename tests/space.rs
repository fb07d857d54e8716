//! A server notices that its disk is nearly full before it is full. It refuses changes that need
//! room, but reads and DELETE continue, and free space ends that state. Needs root for a small
//! file system; otherwise the test prints a note and passes.

mod common;

use common::Group;

#[test]
fn what_needs_room_is_refused_before_there_is_none() {
    let mut group = Group::new(3);
    let Some(small) = group.small_disk(2) else { return };
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    assert_eq!(ann.ask("SEND ann one"), "OK 1");
    assert_eq!(ann.ask("CREATE bob correct-horse"), "OK bob");

    small.fill(60 << 20).unwrap();
    let status = group.wait(primary, "it waits for space", |s| s["waiting"].contains("space"));
    assert_eq!(status["waiting"], "for space on the disk of server 2");
    let refused = "ERR no-space the disk of server 2 is nearly full";
    assert_eq!(ann.ask("SEND ann two"), refused);
    assert_eq!(group.connect(primary).ask("CREATE cid correct-horse"), refused);
    assert_eq!(group.mailbox(primary, "ann"), ["one"]);
    let mut bob = group.connect(primary);
    assert_eq!(bob.ask("LOGIN bob correct-horse"), "OK bob 0");
    assert_eq!(bob.ask("DELETE bob correct-horse"), "OK");

    small.clear().unwrap();
    group.wait(primary, "there is room", |status| status["waiting"] == "-");
    assert_eq!(ann.ask("SEND ann two"), "OK 2");
}

/// A server that stopped on a disk without a single free byte starts again, for reads and DELETE.
#[test]
fn a_full_disk_keeps_no_server_from_starting() {
    let mut group = Group::new(1);
    let Some(small) = group.small_disk(1) else { return };
    group.start(1);
    group.wait_members(1);
    let mut ann = group.client(1, "ann");
    assert_eq!(ann.ask("SEND ann one"), "OK 1");
    drop(group.client(1, "bob"));
    group.kill(1);
    small.fill(0).unwrap();
    for _ in 0..3 {
        group.start(1);
        group.wait(1, "it leads", |status| status["role"] == "primary");
        let full = |status: &common::Status| status["waiting"].contains("space");
        group.wait(1, "it knows that there is no room", full);
        assert_eq!(group.mailbox(1, "ann"), ["one"]);
        let mut ann = group.connect(1);
        assert_eq!(ann.ask("LOGIN ann correct-horse end"), "OK ann 1");
        assert!(ann.ask("SEND ann two").starts_with("ERR no-space "));
        group.kill(1);
    }
    group.start(1);
    group.wait(1, "it leads", |status| status["role"] == "primary");
    let mut bob = group.connect(1);
    assert_eq!(bob.ask("LOGIN bob correct-horse end"), "OK bob 0");
    assert_eq!(bob.ask("DELETE bob correct-horse"), "OK");
    small.clear().unwrap();
    group.wait(1, "there is room", |status| status["waiting"] == "-");
}
