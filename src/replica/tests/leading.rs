//! What a primary counts, sends and confirms.

use super::lockstep::*;
use crate::limits::{APPENDS_IN_FLIGHT_MAX, BATCH_TIME};

/// The number of servers whose progress a primary remembers.
const REMEMBERED_MAX: u128 = 16;

/// Returns server 1, the primary of a formed group. Every server has stored every entry.
fn primary() -> Server {
    let server = formed().take(1);
    assert_eq!(server.replica.acknowledged(), server.replica.last());
    server
}

/// Returns server 1 as it is just after its election. Its log has 30 entries of earlier terms and
/// the first one of its own, and it does not know what the others have stored.
fn elected() -> Server {
    let mut log = vec![config_entry(at(0, 1), &config(&[1, 2, 3]))];
    log.extend((2..=30).map(|index| message(at(1, index))));
    let mut server = Server::start(START, setup(1, vote(1, None), &log), log);
    [2, 3].iter().for_each(|n| drop(server.connect(*n)));
    server.elect(&[2, 3]);
    assert_eq!(server.replica.last(), Index(31));
    server
}

fn propose(server: &mut Server, count: usize) {
    for _ in 0..count {
        server.propose(Kind::MESSAGE).unwrap();
    }
}

fn reject(server: &mut Server, term: Term, hint: u64) {
    server.receive(2, Packet::AppendRejected { term, hint: Index(hint) });
}

/// An entry is committed when a majority has stored it, and acknowledged when every member has.
/// Both indexes never decrease.
#[test]
fn committed_means_a_majority_and_acknowledged_every_member() {
    let mut server = primary();
    let before = server.replica.last().0;
    propose(&mut server, 3);
    server.tick();
    let mut expect = |change: &dyn Fn(&mut Server), committed: u64, acknowledged: u64| {
        change(&mut server);
        server.tick();
        let (replica, at) = (&server.replica, |count: u64| Index(before + count));
        assert_eq!(
            (replica.committed(), replica.acknowledged()),
            (at(committed), at(acknowledged))
        );
    };
    let accepts =
        |n: u8, count: u64| move |s: &mut Server| drop(s.accept(n, Index(before + count)));
    expect(&accepts(2, 2), 0, 0);
    expect(&|server| drop(server.durable_to(Index(before + 1))), 1, 0);
    expect(&accepts(3, 3), 2, 1);
    expect(&|server| drop(server.durable()), 3, 2);
    expect(&accepts(2, 1), 3, 2);
    expect(&|server| assert_eq!(server.replica.peer_lag(id(2)), Some(1)), 3, 2);
    expect(&accepts(2, 3), 3, 3);
}

/// A primary counts an acknowledgement only from a member under its disk, in the primary's own
/// term, and up to its own last entry. A higher term ends its role.
#[test]
fn only_acknowledgements_of_the_own_term_for_known_entries_count() {
    let mut server = elected();
    server.durable();
    let (term, last) = (server.replica.term(), server.replica.last());
    let accepted = |server: &mut Server, term: Term, stored: Index| {
        server.receive(2, Packet::AppendAccepted { term, stored, round: 0 });
        server.tick();
        (server.replica.peer_lag(id(2)), server.replica.committed())
    };
    let nothing = (Some(last.0), Index::ZERO);
    assert_eq!(accepted(&mut server, Term(term.0 - 1), last), nothing, "an earlier term");
    assert_eq!(accepted(&mut server, term, last.next()), nothing, "an entry that does not exist");
    let mut other = server.clone();
    other.end_link(2);
    other.connect_as(2, DiskId(77));
    assert_eq!(accepted(&mut other, term, last), (Some(0), Index::ZERO), "another disk");
    assert_eq!(accepted(&mut server, term, last), (Some(0), last));
    server.receive(2, Packet::AppendAccepted { term: term.next(), stored: last, round: 0 });
    let replica = &server.replica;
    assert_eq!((replica.role(), replica.term()), (RoleView::Backup, term.next()));
}

/// A round of reads is confirmed when a majority has accepted an append of it in the primary's
/// own term. All reads of one turn share a round.
#[test]
fn a_majority_confirms_a_round_of_reads() {
    let mut server = primary();
    let (before, term) = (server.replica.confirmed_read().unwrap(), server.replica.term());
    let round = server.replica.read_index().unwrap();
    assert_eq!(server.replica.read_index(), Some(round));
    assert_eq!(server.replica.confirmed_read(), Some(before));
    let sent = server.tick().sent(2);
    let is_round = |packet: &&Packet| matches!(packet, Packet::Append(a) if a.round == round);
    assert_eq!(sent.iter().filter(is_round).count(), 1, "it asks for the round");
    assert_eq!(server.tick().appends(2), [], "it asks once");
    let stored = server.replica.last();
    for (term, accepted, confirmed) in
        [(term, round - 1, before), (Term(term.0 - 1), round, before), (term, round, round)]
    {
        server.receive(2, Packet::AppendAccepted { term, stored, round: accepted });
        server.tick();
        assert_eq!(server.replica.confirmed_read(), Some(confirmed), "{term} {accepted}");
    }
}

/// A primary confirms no round before an entry of its own term is acknowledged. Until then it may
/// not know all earlier commits.
#[test]
fn no_round_is_confirmed_before_an_own_entry_is_acknowledged() {
    let mut server = elected();
    server.durable();
    let round = server.replica.read_index().unwrap();
    server.tick();
    let (term, stored) = (server.replica.term(), server.replica.last());
    for (n, confirmed) in [(2, None), (3, Some(round))] {
        server.receive(n, Packet::AppendAccepted { term, stored, round });
        server.tick();
        assert_eq!(server.replica.confirmed_read(), confirmed);
    }
    assert_eq!(formed().take(2).replica.read_index(), None, "a backup confirms nothing");
}

/// A primary starts the next sync when the previous batch is acknowledged, when that is 5 ms old,
/// or at once for a config.
#[test]
fn a_batch_begins_after_the_previous_one_or_5_ms_or_with_a_config() {
    let mut server = primary();
    let begins = |server: &mut Server| server.tick().has(&Effect::Flush);
    assert!(!begins(&mut server), "there is nothing to write");
    propose(&mut server, 1);
    assert!(begins(&mut server), "every earlier entry is acknowledged");
    propose(&mut server, 1);
    assert!(!begins(&mut server));
    let due = server.now + BATCH_TIME;
    assert!(server.replica.next_deadline() <= Some(due));
    assert!(!begins(server.clone().advance(BATCH_TIME - US)));
    assert!(begins(server.clone().advance(BATCH_TIME)));
    let mut acknowledged = server.clone();
    acknowledged.durable();
    let written = acknowledged.written.last;
    [2, 3].iter().for_each(|n| drop(acknowledged.accept(*n, written)));
    assert!(begins(&mut acknowledged));
    server.kill(3);
    server.pong(2);
    assert!(begins(&mut server));
    assert_eq!(server.members(), [1, 2], "it has written a config");
    propose(&mut server, 1);
    assert!(!begins(&mut server), "the config is being written");
}

/// A primary first compares the log of an unknown disk with the first entry of its own term.
#[test]
fn a_primary_asks_an_unknown_disk_from_the_start_of_its_term() {
    let mut server = primary();
    let start = (1..).map(Index).find(|at| {
        Record::trust(&server.log.0[at.before().0 as usize]).term == server.replica.term()
    });
    server.end_link(2);
    server.connect_as(2, DiskId(77));
    assert_eq!(server.tick().appends(2)[0].0, start.unwrap());
}

/// While a primary compares the logs, it has one append in flight, and four afterwards. After a
/// rejection it goes back to the hint, by one entry at least, but never below what the follower
/// has stored.
#[test]
fn four_appends_are_in_flight_and_one_during_the_search() {
    let mut server = primary();
    let (before, term) = (server.replica.last(), server.replica.term());
    propose(&mut server, 40);
    let first = server.tick().appends(2);
    assert_eq!(first.len(), APPENDS_IN_FLIGHT_MAX);
    assert_eq!(first[0].0, before.next());
    assert!(first.windows(2).all(|pair| pair[1].0 == pair[0].1.next()), "{first:?}");
    assert_eq!(server.tick().appends(2), []);
    server.accept(2, first[1].1);
    let second = server.tick().appends(2);
    assert_eq!((second.len(), second[0].0), (2, first[APPENDS_IN_FLIGHT_MAX - 1].1.next()));
    reject(&mut server, term, 2);
    let probe = server.tick().appends(2);
    assert_eq!((probe.len(), probe[0].0), (1, first[1].1.next()), "it has stored all before");

    let (mut server, term) = (elected(), elected().replica.term());
    reject(&mut server, Term(term.0 - 1), 2);
    assert_eq!(server.tick().appends(2), [], "a rejection of an earlier term");
    reject(&mut server, term, 2);
    assert_eq!(server.tick().appends(2), [(Index(3), Index(5))]);
    reject(&mut server, term, 1_000);
    assert_eq!(server.tick().appends(2)[0].0, Index(5));
    server.accept(2, Index(7));
    let appends = server.tick().appends(2);
    assert_eq!((appends.len(), appends[0].0), (APPENDS_IN_FLIGHT_MAX, Index(8)));
}

/// An append that was not accepted for twice the peer timeout is sent again, since it may never
/// have arrived.
#[test]
fn a_primary_sends_an_unaccepted_append_again_after_twice_the_peer_timeout() {
    let mut server = primary();
    propose(&mut server, 1);
    let last = server.replica.last();
    assert_eq!(server.tick().appends(2), [(last, last)]);
    for (time, sent) in [(T * 2 - US, vec![]), (US, vec![(last, last)])] {
        server.advance(time);
        [2, 3].iter().for_each(|n| drop(server.pong(*n)));
        assert_eq!(server.tick().appends(2), sent);
    }
}

/// The primary reports its indexes with the next heartbeat to a follower that lacks them, and at
/// once to one that asks for a pre-vote, since that has not noticed the primary.
#[test]
fn a_follower_receives_both_indexes_with_the_next_heartbeat() {
    let mut server = primary();
    let heartbeat = T / 8;
    server.wait(heartbeat, &[2, 3]);
    assert_eq!(server.wait(heartbeat, &[2, 3]).appends(2), [], "it knows them");
    propose(&mut server, 1);
    server.tick();
    server.durable();
    let last = server.replica.last();
    [2, 3].iter().for_each(|n| drop(server.accept(*n, last)));
    assert_eq!(server.tick().appends(2), [], "not at once");
    let sent = server.wait(heartbeat, &[2, 3]);
    assert_eq!(sent.appends(2), [(last, last)]);
    let known = |packet: &Packet| match packet {
        Packet::Append(append) => append.committed == last && append.acknowledged == last,
        _ => false,
    };
    assert!(sent.sent(2).iter().any(known));
    assert_eq!(server.wait(heartbeat, &[2, 3]).appends(2), []);
    let (term, end) = (server.replica.term().next(), server.last());
    server.receive(2, Packet::AskPreVote(Ask { term, last: end, config: config(&[1, 2, 3]) }));
    assert_eq!(server.tick().appends(2), [(last, last)]);
}

/// A learner has caught up when it has stored every entry that was committed when the append that
/// it accepts was sent, even if more was committed since.
#[test]
fn a_learner_catches_up_with_the_commits_of_its_append() {
    let commit = |server: &mut Server| {
        propose(server, 2);
        server.tick();
        server.durable();
        server.accept(2, server.replica.last());
        server.tick();
    };
    let mut server = primary();
    server.kill(3);
    server.pong(2);
    server.tick();
    server.durable();
    server.accept(2, server.replica.last());
    server.tick();
    server.connect(3);
    let asked = server.tick().appends(3)[0].1;
    assert_eq!(asked, server.replica.committed());
    commit(&mut server);
    assert!(server.replica.committed() > asked);
    let members_after = |server: &Server, stored: Index| {
        let mut server = server.clone();
        server.accept(3, stored);
        server.tick();
        server.members()
    };
    assert_eq!(server.members(), [1, 2], "it has accepted nothing on this link");
    assert_eq!(members_after(&server, asked), [1, 2, 3]);
    assert_eq!(members_after(&server, Index(1)), [1, 2]);

    // The same holds for an append that carries entries.
    server.end_link(3);
    server.connect(3);
    let (term, hint) = (server.replica.term(), asked);
    server.tick();
    server.receive(3, Packet::AppendRejected { term, hint });
    let sent = server.tick().appends(3);
    assert_eq!(sent, [(asked.next(), server.replica.committed())]);
    commit(&mut server);
    assert!(server.replica.committed() > sent[0].1);
    assert_eq!(members_after(&server, sent[0].1), [1, 2, 3]);
    assert_eq!(members_after(&server, asked), [1, 2]);
}

/// A primary remembers the progress of 16 servers. It never forgets a member or a linked server
/// for another one.
#[test]
fn a_primary_remembers_16_servers_and_all_that_are_linked_or_members() {
    // Servers with id 3 and these disks connect one after another, and accept every entry.
    let connect = |server: &mut Server, disks: std::ops::Range<u128>| {
        for disk in disks {
            server.end_link(3);
            server.connect_as(3, DiskId(1_000 + disk));
            server.accept(3, server.replica.last());
        }
    };
    let lag_of = |server: &Server, n: u8, disk: DiskId| {
        let mut server = server.clone();
        if server.is_linked(n) {
            server.end_link(n);
        }
        server.connect_as(n, disk);
        server.replica.peer_lag(id(n)).unwrap()
    };
    let mut server = primary();
    connect(&mut server, 0..3 * REMEMBERED_MAX);
    let is_known = |disk: &u128| lag_of(&server, 3, DiskId(1_000 + disk)) == 0;
    let known: Vec<u128> = (0..3 * REMEMBERED_MAX).filter(is_known).collect();
    // Members 2 and 3 are remembered as well.
    let newest = 2 * REMEMBERED_MAX + 2..3 * REMEMBERED_MAX;
    assert_eq!(known, newest.collect::<Vec<_>>());
    assert_eq!(lag_of(&server, 2, member(2).disk), 0);
    assert_eq!(lag_of(&server, 3, member(3).disk), 0);

    let mut unlinked = server.clone();
    unlinked.end_link(2);
    connect(&mut unlinked, 100..140);
    assert_eq!(lag_of(&unlinked, 2, member(2).disk), 0, "a member without a link");

    // Server 2 has another disk, which is no member.
    let disk = DiskId(77);
    server.end_link(2);
    server.connect_as(2, disk);
    server.accept(2, server.replica.last());
    connect(&mut server, 100..140);
    assert_eq!(server.replica.peer_lag(id(2)), Some(0), "a linked learner");
    assert_eq!(lag_of(&server, 2, disk), 0);
}

/// The primary opens the gate once, when a config of all servers is acknowledged.
#[test]
fn the_gate_opens_when_a_config_of_all_servers_is_acknowledged() {
    let opens = |members: &[u8], accepting: &[u8]| {
        let mut closed = config(members);
        closed.gate_open = false;
        let log = vec![config_entry(at(0, 1), &closed)];
        let mut server = Server::start(START, setup(1, vote(1, None), &log), log);
        [2, 3].iter().for_each(|n| drop(server.connect(*n)));
        server.elect(&[2]);
        server.durable();
        let last = server.replica.last();
        accepting.iter().for_each(|n| drop(server.accept(*n, last)));
        server.tick();
        assert!(server.replica.committed() > Index::ZERO);
        server.replica.config().unwrap().gate_open
    };
    assert!(opens(&[1, 2, 3], &[2, 3]));
    assert!(!opens(&[1, 2, 3], &[2]), "it is not acknowledged");
    assert!(!opens(&[1, 2], &[2]), "one server is no member");
    let mut open = primary();
    let last = open.replica.last();
    open.tick();
    assert_eq!(open.replica.last(), last, "it opens once");
}
