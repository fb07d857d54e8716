//! kill -9 of a backup delays clients only briefly. A backup that restarts, with its disk or
//! without, receives the missing entries and becomes a member again.

mod common;

use common::Group;

fn other_than(n: usize) -> usize {
    (1..=3).find(|other| *other != n).unwrap()
}

#[test]
fn kill_9_of_a_backup_delays_nobody_for_long() {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    let backup = other_than(primary);
    group.kill(backup);
    for n in 1..=10 {
        assert_eq!(ann.ask("SEND ann on"), format!("OK {n}"));
    }
    group.start(backup);
    assert_eq!(group.wait_members(3), primary);
    group.wait(backup, "it has everything", |status| status["messages"] == "10");
    assert_eq!(ann.ask("SEND ann on"), "OK 11");
}

#[test]
fn a_lost_disk_is_filled_by_the_others() {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    let mut ann = group.client(primary, "ann");
    for n in 1..=100 {
        assert_eq!(ann.ask("SEND ann hello"), format!("OK {n}"));
    }
    let victim = other_than(primary);
    let before = group.status(victim).unwrap()["server"].clone();
    group.kill(victim);
    std::fs::remove_dir_all(group.data(victim)).unwrap();
    group.start(victim);
    group.wait_members(3);
    let status = group.wait(victim, "it is filled", |status| status["messages"] == "100");
    assert_ne!(status["server"], before, "after a lost disk it is somebody else");
}
