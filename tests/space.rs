//! A disk that is nearly full is seen before it is: what needs room is refused, reads and DELETE
//! go on, and room ends it. Needs root for a small file system; says so where it is not.

mod common;

use common::Group;
use postern_tools::volume::Volume;

#[test]
fn what_needs_room_is_refused_before_there_is_none() {
    let mut group = Group::new(3);
    let small = match Volume::in_memory(&group.data(2), 80) {
        Ok(small) => small,
        Err(why) => return eprintln!("skipped: no small file system here: {why}"),
    };
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
