//! Changes that are logged but not acknowledged, since a member is paused for a while.

use crate::common::{Client, Group};
use crate::servers::{others, running};
use rustix::process::Signal;
use socket2::SockRef;
use std::io::{ErrorKind, Read};
use std::time::Duration;

/// A group with a long peer timeout, whose backup is paused.
struct Paused {
    group: Group,
    primary: usize,
}

impl Paused {
    /// Starts a group with these accounts; its backup is not paused yet.
    fn with<const N: usize>(users: [&str; N]) -> Option<Paused> {
        let (group, primary) = running(3, "peer_timeout_ms = 10000")?;
        users.into_iter().for_each(|user| drop(group.client(primary, user)));
        Some(Paused { group, primary })
    }

    fn client(&self, user: &str) -> Client {
        self.group.client(self.primary, user)
    }

    fn pause(&self) {
        self.group.signal(others(self.primary)[0], Signal::STOP);
    }

    fn go_on(&self) {
        self.group.signal(others(self.primary)[0], Signal::CONT);
    }

    /// Waits until `count` changes are logged and not acknowledged.
    fn wait_unanswered(&self, count: u64) {
        self.group.wait(self.primary, "all of that is logged", |status| {
            let index = |key: &str| status[key].parse::<u64>().expect("a number");
            index("last_index") - index("acknowledged_index") == count
        });
    }
}

#[test]
fn ok_comes_only_when_every_member_has_the_change() {
    let Some(scene) = Paused::with([]) else { return };
    let mut ann = scene.client("ann");
    scene.pause();
    ann.send("SEND ann hi");
    scene.wait_unanswered(1);
    ann.stream.set_nonblocking(true).expect("a socket");
    let early = ann.stream.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(early, Err(ErrorKind::WouldBlock));
    ann.stream.set_nonblocking(false).expect("a socket");
    scene.go_on();
    assert_eq!(ann.line(), "OK 1");
}

#[test]
fn of_one_connection_64_requests_are_taken_before_they_are_answered() {
    let Some(scene) = Paused::with(["bob"]) else { return };
    let (mut ann, mut cyd) = (scene.client("ann"), scene.client("cyd"));
    scene.pause();
    ann.send_bytes("SEND bob hi\n".repeat(200).as_bytes());
    scene.wait_unanswered(64);
    cyd.send("SEND bob ho");
    scene.wait_unanswered(65);
    scene.go_on();
    assert_eq!(cyd.line(), "OK 65");
    (1..=64).chain(66..=201).for_each(|n| assert_eq!(ann.line(), format!("OK {n}")));
}

#[test]
fn when_too_much_is_unanswered_the_next_change_is_told_busy() {
    let Some(scene) = Paused::with(["bob"]) else { return };
    let mut clients: Vec<Client> = (0..266).map(|_| scene.client("ann")).collect();
    let (bursts, probes) = clients.split_at_mut(66);
    let line = format!("SEND bob {}\n", "x".repeat(3800));
    scene.pause();
    bursts.iter_mut().for_each(|client| client.send_bytes(line.repeat(64).as_bytes()));
    scene.wait_unanswered(66 * 64);
    // The unacknowledged changes now hold nearly 16 MiB.
    probes.iter_mut().for_each(|client| client.send_bytes(line.as_bytes()));
    let answer = probes[199].line();
    assert!(answer.starts_with("ERR busy "), "{answer}");
    scene.go_on();
    for client in bursts {
        (0..64).for_each(|_| assert!(client.line().starts_with("OK ")));
    }
}

#[test]
fn a_request_that_was_taken_is_carried_out_though_its_client_is_gone() {
    let Some(scene) = Paused::with(["bob"]) else { return };
    let mut ann = scene.client("ann");
    scene.pause();
    ann.send("SEND bob my last words");
    scene.wait_unanswered(1);
    SockRef::from(&ann.stream).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(ann);
    scene.go_on();
    scene.wait_unanswered(0);
    assert_eq!(scene.group.mailbox(scene.primary, "bob"), ["my last words"]);
}

#[test]
fn nothing_is_pushed_after_a_half_close() {
    let Some(scene) = Paused::with([]) else { return };
    let (mut ann, mut bob) = (scene.client("ann"), scene.client("bob"));
    scene.pause();
    bob.send("SEND ann hi");
    scene.wait_unanswered(1);
    ann.send("SEND bob ho");
    ann.end_input();
    scene.wait_unanswered(2);
    scene.go_on();
    assert_eq!(ann.rest(), ["OK 1"]);
    assert_eq!(scene.group.mailbox(scene.primary, "ann"), ["hi"]);
}

#[test]
fn an_outcome_is_unknown_when_the_role_is_lost_before_the_answer() {
    let Some((group, primary)) = running(3, "peer_timeout_ms = 400") else { return };
    let mut ann = group.client(primary, "ann");
    others(primary).into_iter().for_each(|n| group.signal(n, Signal::STOP));
    ann.send("SEND ann maybe\nPING x\nSEND ann maybe\nLOG");
    let lines = ann.rest();
    others(primary).into_iter().for_each(|n| group.signal(n, Signal::CONT));
    let starts = ["ERR unknown-outcome ", "OK x", "ERR unknown-outcome ", "ERR not-primary "];
    let all = starts.into_iter().chain(["NOTE not-primary "]);
    assert!(lines.len() == 5 && all.zip(&lines).all(|(a, b)| b.starts_with(a)), "{lines:?}");
}

#[test]
fn an_outcome_that_is_unknown_closes_the_connection() {
    let Some((group, primary)) = running(3, "peer_timeout_ms = 400\nmin_copies = 3") else {
        return;
    };
    let mut ann = group.client(primary, "ann");
    group.signal(others(primary)[0], Signal::STOP);
    ann.send("SEND ann maybe");
    let answer = ann.line();
    assert!(answer.starts_with("ERR unknown-outcome "), "{answer}");
    ann.send("PING x");
    let next = ann.try_line();
    assert!(next.as_ref().is_none_or(|line| line.starts_with("NOTE ")), "{next:?}");
}
