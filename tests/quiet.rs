//! An idle server does nothing: whatever a client, another server or the machine leaves undone,
//! the event loop turns only when a timer is due. The test counts the loop's turns.

mod common;

use common::{Client, DEADLINE, Group, Status, Twin, connect_small, wait_full};
use rustix::process::{Resource, Rlimit, Signal};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Maximum number of turns in a quiet second. Links are pinged a few times a second in each
/// direction, a lost server is dialled up to ten times a second, and each event costs a turn. The
/// busiest state here needs about 50.
const TURNS_MAX: u64 = 100;
const SECOND: Duration = Duration::from_secs(1);

fn turns(status: &Status) -> u64 {
    status["turns"].parse().unwrap()
}

/// Waits for a quiet second. A loop that spins never has one.
fn assert_quiet(n: usize, state: &str, mut status: impl FnMut() -> Status) {
    let end = Instant::now() + DEADLINE;
    loop {
        let before = turns(&status());
        std::thread::sleep(SECOND); // what is measured, not a wait
        let count = turns(&status()) - before;
        println!("server {n}, {state}: {count} turns");
        if count <= TURNS_MAX {
            return;
        }
        assert!(Instant::now() < end, "server {n}, {state}: {count} turns in a second");
    }
}

fn assert_quiet_group(group: &Group, state: &str) {
    for n in (1..=group.servers.len()).filter(|n| group.is_running(*n)) {
        assert_quiet(n, state, || group.status(n).expect("it answers"));
    }
}

#[test]
fn a_sleeping_reader_costs_nothing() {
    let group = Group::alone();
    drop(group.client(1, "bob"));
    group.fill(1, "bob", 3000);
    let status = || group.status(1).unwrap();

    let mut before = connect_small(&group.servers[0]);
    before.write_all(&b"HELP\n".repeat(200)).unwrap();
    let mut within = connect_small(&group.servers[0]);
    within.write_all(b"LOGIN bob correct-horse\n").unwrap();
    let mut half_closed = connect_small(&group.servers[0]);
    half_closed.write_all(b"LOGIN bob correct-horse\n").unwrap();
    half_closed.shutdown(std::net::Shutdown::Write).unwrap();
    let mut after = connect_small(&group.servers[0]);
    after.write_all(b"LOGIN bob correct-horse end\n").unwrap();
    let mut answer = [0; 12];
    after.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"OK bob 3000\n");
    let mut sender = group.client(1, "sender");
    for n in 3001..=4500 {
        assert_eq!(sender.ask(&format!("SEND bob {}", "y".repeat(3800))), format!("OK {n}"));
    }
    for stream in [&within, &half_closed, &after] {
        wait_full(stream);
    }
    assert_quiet(1, "four sleeping readers", status);
}

#[test]
fn a_lost_server_costs_little() {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    assert_quiet_group(&group, "three servers");
    let backup = 1 + primary % 3;
    group.fill(primary, "sender", 200);

    group.signal(backup, Signal::STOP);
    let mut ann = group.connect(primary);
    ann.send("CREATE ann correct-horse");
    let others: Vec<usize> = (1..=3).filter(|n| *n != backup).collect();
    for n in &others {
        assert_quiet(*n, "a paused backup, linked", || group.status(*n).unwrap());
    }
    group.wait(primary, "it is dropped", |s| s["members"].split(',').count() == 2);
    for n in &others {
        assert_quiet(*n, "a paused backup, dropped", || group.status(*n).unwrap());
    }
    group.signal(backup, Signal::CONT);
    group.wait_members(3);

    group.kill(backup);
    group.wait(primary, "it is dropped", |s| s["members"].split(',').count() == 2);
    assert_quiet_group(&group, "a refused dial");
    group.kill(primary);
    assert_quiet_group(&group, "two refused dials");
}

#[test]
fn exhausted_descriptors_cost_little() {
    let group = Group::alone();
    let mut client = group.connect(1);
    assert_eq!(client.ask("PING"), "OK");
    let pid = group.pid(1);
    let open = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().count() as u64;
    let limit = Rlimit { current: Some(open), maximum: Some(open) };
    rustix::process::prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    let waiting: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(&group.servers[0]).unwrap()).collect();
    let status = || client.try_status().unwrap();
    assert_quiet(1, "descriptors at the limit", status);
    let warnings = group.log(1).matches("cannot accept connections").count();
    assert_eq!(warnings, 1, "{}", group.log(1));
    drop(waiting);
}

#[test]
fn a_full_disk_costs_nothing() {
    let mut group = Group::new(3);
    let Some(small) = group.small_disk(2) else { return };
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    small.fill(30 << 20).unwrap();
    group.wait(primary, "it waits for space", |s| s["waiting"].contains("space"));
    let mut ann = group.connect(primary);
    assert!(ann.ask("CREATE ann correct-horse").starts_with("ERR no-space"));
    assert_quiet_group(&group, "a full disk");
}

fn wait_status(server: &str) -> Status {
    let ask = || Client::try_connect(server)?.try_status();
    common::wait_for(ask, || format!("{server} does not answer"))
}

#[test]
fn two_servers_of_one_id_cost_little() {
    let group = Group::open();
    let address = group.servers[0].rsplit_once(':').unwrap().0;
    let elsewhere = format!("{address}:5004");
    let _twin = Twin::start(&group, 2, &group.dir.path().join("twin"), &elsewhere, ("", ""));
    wait_status(&elsewhere);
    group.wait_members(3);
    assert_quiet_group(&group, "two servers of one id");
    assert_quiet(2, "the second one of its id", || wait_status(&elsewhere));
}

#[test]
fn a_server_of_other_settings_costs_little() {
    let mut group = Group::open();
    group.terminate(3);
    let other = ("# min_copies = 1 ", "min_copies = 2 #");
    let own = group.servers[2].clone();
    let _other = Twin::start(&group, 3, &group.data(3), &own, other);
    wait_status(&own);
    group.wait_members(2);
    assert_quiet_group(&group, "a server that is refused");
    assert_quiet(3, "the server that is refused", || wait_status(&own));
}

#[cfg(debug_assertions)]
#[test]
fn a_learner_that_cannot_be_filled_costs_little() {
    let mut group = Group::new(3);
    group.is_faulty = true;
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    // More than is kept in memory: the learner needs entries that are only on disk.
    group.fill(primary, "sender", 500);
    let learner = 1 + primary % 3;
    group.kill(learner);
    group.wait(primary, "it is dropped", |s| s["members"].split(',').count() == 2);
    fs::remove_dir_all(group.data(learner)).unwrap();
    for n in (1..=3).filter(|n| *n != learner) {
        fs::write(group.faults(n), "read log/ fail EIO\n").unwrap();
    }
    group.start(learner);
    group.wait(learner, "it knows a primary", |s| s["primary"] != "-");
    assert_quiet_group(&group, "a learner that cannot be filled");
}
