//! Rules that long runs seldom reach, each in the situation in which it decides.

use super::lockstep::*;

/// Returns server 1, the primary of a formed group, and its last entry. Every server has stored
/// and acknowledged that entry.
fn primary() -> (Server, Index) {
    let server = formed().take(1);
    let last = server.replica.last();
    assert_eq!(server.replica.acknowledged(), last);
    (server, last)
}

/// Returns server 1 as it is just after its election in term 3. Its log ends with an entry of
/// term 2 that every server has stored; the next entry is the first of its own term.
fn just_elected() -> (Server, Index) {
    let log = vec![config_entry(at(0, 1), &config(&[1, 2, 3])), message(at(2, 2))];
    let mut server = Server::start(START, setup(1, vote(2, None), &log), log);
    server.connect(2);
    server.connect(3);
    server.elect(&[2]);
    (server, Index(2))
}

/// Raft, figure 8: an entry of an earlier term is not committed because a majority, or even every
/// server, has stored it. It is committed together with an entry of the primary's own term.
#[test]
fn entries_of_earlier_terms_are_not_committed_by_counting() {
    let (mut server, old) = just_elected();
    for n in [2, 3] {
        server.accept(n, old);
    }
    server.tick();
    let state = |server: &Server| (server.replica.committed(), server.replica.acknowledged());
    assert_eq!(state(&server), (Index::ZERO, Index::ZERO));
    server.durable();
    for n in [2, 3] {
        server.accept(n, old.next());
    }
    server.tick();
    assert_eq!(state(&server), (old.next(), old.next()));
}

/// The correction of single-server changes (Ongaro §4.1): the primary changes the members only
/// when an entry of its own term is committed.
#[test]
fn members_change_only_after_a_commit_in_the_own_term() {
    let (mut server, old) = just_elected();
    server.durable();
    server.kill(3);
    server.pong(2);
    server.tick();
    assert_eq!(server.members(), [1, 2, 3]);
    server.accept(2, old.next());
    server.tick();
    assert_eq!(server.members(), [1, 2]);
}

/// A learner receives committed entries only. Otherwise a learner that rejoins could bring back
/// an entry that the members have overwritten. A member receives all flushed entries.
#[test]
fn learners_receive_committed_entries_only() {
    let (mut server, last) = primary();
    // The log of server 3 is empty, so the primary sends entries from the first one on.
    let sent = |server: &Server| {
        let mut server = server.clone();
        let (term, hint) = (server.replica.term(), Index::ZERO);
        server.receive(3, Packet::AppendRejected { term, hint });
        let probe = server.tick().appends(3);
        server.accept(3, probe[0].1);
        let rest = server.tick().appends(3);
        probe.iter().chain(&rest).map(|(_, last)| *last).max().unwrap()
    };
    server.propose(Kind::MESSAGE).unwrap();
    server.tick();
    server.end_link(3);
    server.connect_as(3, DiskId(77));
    assert_eq!(server.replica.committed(), last);
    assert_eq!(sent(&server), last, "a learner receives no uncommitted entry");
    server.durable();
    server.accept(2, last.next());
    server.tick();
    assert_eq!(sent(&server), last.next());

    let (mut server, last) = primary();
    server.propose(Kind::MESSAGE).unwrap();
    server.tick();
    assert_eq!(server.replica.committed(), last);
    server.end_link(3);
    server.connect(3);
    assert_eq!(server.tick().appends(3), [(last.next(), last.next())]);
}

/// A new link alone does not prove that a server is healthy. If a server reconnects again and
/// again and stores nothing, the primary counts the time from the first unacknowledged append.
/// After the peer timeout, a new link starts the time again.
#[test]
fn a_member_that_reconnects_and_stores_nothing_is_dropped() {
    let (mut server, last) = primary();
    server.wait(T, &[2, 3]);
    server.propose(Kind::MESSAGE).unwrap();
    server.tick();
    server.durable();
    server.accept(2, last.next());
    let start = server.now;
    let reconnect = |server: &mut Server| {
        server.end_link(3);
        server.connect(3);
        server.tick();
    };
    for _ in 0..3 {
        server.wait(T / 4, &[2, 3]);
        reconnect(&mut server);
    }
    let members_after = |time: Duration, change: &dyn Fn(&mut Server)| {
        let mut server = server.clone();
        server.now = start + time;
        change(&mut server);
        server.pong(2);
        server.pong(3);
        server.tick();
        server.members()
    };
    assert_eq!(members_after(T - US, &|_| ()), [1, 2, 3]);
    assert_eq!(members_after(T, &|_| ()), [1, 2]);
    assert_eq!(members_after(T, &|server| drop(server.accept(3, last.next()))), [1, 2, 3]);
    assert_eq!(members_after(T, &reconnect), [1, 2, 3]);
}
