//! Which appends a follower accepts and how it acknowledges them; which changes a primary
//! accepts.

use super::lockstep::*;

/// Returns server 2, a backup of a formed group.
fn backup() -> Server {
    formed().take(2)
}

/// Returns positions of the entries after the last one, in its term.
fn next(server: &Server, count: u64) -> Position {
    let Position { term, index } = server.last();
    Position { term, index: Index(index.0 + count) }
}

/// Receives these entries from server 1, after the last one.
fn append(server: &mut Server, entries: &[Vec<u8>]) -> Effects {
    server.receive_entries(server.append(), 1, entries)
}

/// A follower accepts an append only as a whole. If any of its records is invalid, it appends
/// nothing and closes the link.
#[test]
fn an_append_is_accepted_whole_or_not_at_all() {
    let server = backup();
    let last = server.replica.last();
    let good = |count: u64| message(next(&server, count));
    let mut accepted = server.clone();
    assert_eq!(append(&mut accepted, &[good(1), good(2)]).appended(), 2);
    assert_eq!(
        (accepted.replica.last().0, accepted.log.0.len()),
        (last.0 + 2, last.0 as usize + 2)
    );

    let second = next(&server, 2);
    let in_term = |term: u64| message(Position { term: Term(term), ..second });
    let mut torn = good(2);
    torn.pop();
    let mut flipped = good(2);
    *flipped.last_mut().unwrap() ^= 1;
    let after_good = |second: Vec<u8>| vec![good(1), second];
    for (name, entries) in [
        ("an index too high", after_good(good(3))),
        ("the same index", after_good(good(1))),
        ("a lower term", after_good(in_term(second.term.0 - 1))),
        ("a term above the append's", after_good(in_term(second.term.0 + 1))),
        ("half of a record", after_good(torn)),
        ("a flipped bit", after_good(flipped)),
        ("an unreadable config", after_good(entry(second, Kind::CONFIG, b"nonsense"))),
        ("a config without members", after_good(entry(second, Kind::CONFIG, &[0, 0]))),
        ("an unreadable refusal", after_good(entry(second, Kind::REFUSAL, b"nonsense"))),
        ("a gap after the append's `prev`", vec![good(2)]),
        ("an unknown kind", vec![entry(next(&server, 1), Kind(77), b"nonsense")]),
        ("the first kind that is not known", vec![entry(next(&server, 1), Kind(10), b"nonsense")]),
    ] {
        let mut server = server.clone();
        let out = append(&mut server, &entries);
        assert_eq!((out.appended(), server.replica.last()), (0, last), "{name}");
        assert_eq!(out.closed(1), [Closing::Nonsense], "{name}");
    }
    // A follower does not check the body of a change.
    for kind in [Kind::CREATE, Kind::MESSAGE] {
        let mut server = server.clone();
        let entry = entry(next(&server, 1), kind, b"nonsense");
        append(&mut server, &[entry]);
        assert_eq!(server.replica.last(), last.next(), "{kind:?}");
    }
}

/// A server whose log holds the refusal of an epoch refuses servers of that epoch.
#[test]
fn a_follower_refuses_an_epoch_after_an_entry_that_refuses_it() {
    let epoch = Epoch { number: 1, founder: DiskId(9) };
    let refuses = |entries: &[Vec<u8>]| {
        let mut server = backup();
        append(&mut server, entries);
        server.receive(1, Packet::SteppedDown { term: server.replica.term() });
        let (hello, link) = (server.hello_of(3), server.new_link(3));
        let (term, founder) = (Term(1 << 48), Some(epoch.founder));
        let out = server.connect_with(link, Hello { term, founder, ..hello }, false);
        out.sent(3).contains(&Packet::Refused(Refusal::Parted))
    };
    let mut body = Vec::new();
    epoch.encode(&mut body);
    assert!(refuses(&[entry(next(&backup(), 1), Kind::REFUSAL, &body)]));
    assert!(!refuses(&[]));
}

/// A copy of a disk is added while the original is linked. From that entry on the original is
/// another server: its vote could elect a primary that lacks entries which the copy acknowledges.
/// So the follower closes the link to the original.
#[test]
fn a_follower_closes_the_link_to_a_disk_that_was_added_with_another_run() {
    let other = Run { process: ProcessId(99), ..run(3) };
    for (added, is_closed) in [(run(3), false), (other, true)] {
        let mut server = backup();
        let mut with = config(&[1, 2, 3]);
        with.origin = Origin::Added(id(3), added);
        let entries = [
            config_entry(next(&server, 1), &config(&[1, 2])),
            config_entry(next(&server, 2), &with),
        ];
        let out = append(&mut server, &entries);
        assert_eq!((out.appended(), server.members()), (2, vec![1, 2, 3]));
        let refused = Packet::Refused(Refusal::Doubtful);
        assert_eq!(out.sent(3).contains(&refused), is_closed, "{added:?}");
        let closed = Closing::Refused(id(3), Refusal::Doubtful);
        assert_eq!(out.closed(3), if is_closed { vec![closed] } else { vec![] });
        assert_eq!(server.is_linked(3), !is_closed);
    }
}

/// The hint of a rejection is the follower's last index, or the entry before the term of the
/// conflicting entry. So a primary skips whole terms in its search.
#[test]
fn a_rejection_hints_at_the_last_entry_or_before_the_conflicting_term() {
    let (first, term) = (config_entry(at(0, 1), &config(&[1, 2, 3])), Term(4));
    let log = [at(1, 2), at(1, 3), at(3, 4), at(3, 5), at(3, 6)].map(message);
    let log = [vec![first], log.to_vec()].concat();
    for (prev, hint) in [
        (at(3, 6), None),
        (at(3, 7), Some(6)),
        (at(3, 15), Some(6)),
        (at(4, 6), Some(3)),
        (at(4, 4), Some(3)),
        (at(2, 3), Some(1)),
    ] {
        let mut server = Server::start(START, setup(2, vote(term.0, None), &log), log.clone());
        server.connect(1);
        let out = server.receive(1, Packet::Append(Append { prev, ..server.append() }));
        let rejection = hint.map(|hint| Packet::AppendRejected { term, hint: Index(hint) });
        assert_eq!(out.sent(1), rejection.into_iter().collect::<Vec<_>>(), "{prev}");
    }
}

/// A server answers an append of an earlier term with its own term, and does not follow.
#[test]
fn a_server_answers_an_append_of_an_earlier_term_with_its_own() {
    let log = vec![config_entry(at(0, 1), &config(&[1, 2, 3]))];
    let mut server = Server::start(START, setup(2, vote(4, None), &log), log);
    server.connect(1);
    let out = server.receive(1, Packet::Append(Append { term: Term(3), ..server.append() }));
    assert_eq!(out.sent(1), [Packet::HigherTerm { term: Term(4) }]);
    assert_eq!((server.replica.term(), server.replica.primary(server.now)), (Term(4), None));
    assert_eq!(server.durable().sent(1), []);
}

/// A follower acknowledges the entries that are equal to the primary's and durable, once, and
/// only when its vote in the primary's term is durable.
#[test]
fn a_follower_acknowledges_equal_and_durable_entries_with_a_durable_vote() {
    let (mut server, before) = (backup(), backup().written.vote);
    let (last, term) = (server.replica.last(), server.replica.term());
    let entry = message(next(&server, 1));
    let mut later = server.clone();
    let round = Append { round: 7, ..server.append() };
    server.receive_entries(round, 1, std::slice::from_ref(&entry));
    assert_eq!(server.tick().sent(1), [], "nothing is durable");
    let accepted = |term, stored| [Packet::AppendAccepted { term, stored, round: 7 }];
    assert_eq!(server.clone().durable_to(last).sent(1), accepted(term, last));
    assert_eq!(server.durable().sent(1), accepted(term, last.next()));
    assert_eq!(server.tick().sent(1), [], "it acknowledges once");
    assert_eq!(server.durable().sent(1), []);

    let term = term.next();
    later.receive_entries(Append { term, ..round }, 1, &[entry]);
    later.tick();
    let mut out = Effects::default();
    later.handle(Event::Durable(Durable { last: last.next(), vote: before }), &mut out);
    assert_eq!(out.sent(1), [], "its vote of this term is not durable");
    assert_eq!(later.durable().sent(1), accepted(term, last.next()));
}

/// A follower starts a sync when there is a new entry, and one sync for each.
#[test]
fn a_follower_flushes_new_entries_once() {
    let mut server = backup();
    assert!(!server.tick().has(&Effect::Flush));
    let entry = message(next(&server, 1));
    append(&mut server, &[entry]);
    assert!(server.tick().has(&Effect::Flush));
    assert!(!server.tick().has(&Effect::Flush), "it is being written");
}

/// A follower limits the primary's committed index to the entries that are proved equal, and the
/// acknowledged index also to those that are durable.
#[test]
fn a_follower_limits_both_indexes_to_its_own_log() {
    let knows = |committed: u64, acknowledged: u64, stored: u64| {
        let mut server = backup();
        let last = server.replica.last().0;
        let entries = [1, 2, 3].map(|count| message(next(&server, count)));
        let (committed, acknowledged) = (Index(last + committed), Index(last + acknowledged));
        let append = Append { committed, acknowledged, ..server.append() };
        server.receive_entries(append, 1, &entries);
        server.tick();
        server.durable_to(Index(last + stored));
        (server.replica.committed().0 - last, server.replica.acknowledged().0 - last)
    };
    assert_eq!(knows(0, 0, 3), (0, 0));
    assert_eq!(knows(2, 1, 3), (2, 1));
    assert_eq!(knows(3, 3, 1), (3, 1), "not durable");
    assert_eq!(knows(9, 9, 3), (3, 3), "not proved equal");
    assert_eq!(knows(1, 3, 3), (1, 1), "not committed");
    // The log of the follower may be longer than the part that is proved equal.
    let mut server = backup();
    let (prev, end) = (server.last(), next(&server, 1));
    append(&mut server, &[message(end)]);
    server.tick();
    server.durable();
    let term = Term(end.term.0 + 1);
    let committed = end.index;
    server.receive(1, Packet::Append(Append { term, prev, committed, ..server.append() }));
    assert_eq!(server.replica.committed(), prev.index);
}

/// A server that is no primary, that stops or hands over, or whose group lacks the gate or copies
/// refuses a change, and names the reason.
#[test]
fn a_change_is_refused_for_its_reason() {
    let refused = |server: &Server| server.clone().propose(Kind::MESSAGE).err();
    let primary = formed().take(1);
    assert_eq!(refused(&primary), None);
    assert_eq!(refused(&backup()), Some(NotTaken::NotPrimary));
    let mut stopping = primary.clone();
    stopping.replica.stop(stopping.now);
    assert_eq!(refused(&stopping), Some(NotTaken::NotPrimary));
    let mut handing_over = primary.clone();
    assert_eq!(handing_over.order(GROUP, None), Verdict::Taken);
    assert_eq!(refused(&handing_over), Some(NotTaken::HandingOver));

    // A primary that no majority answers quarantines its directory if it is called an old copy.
    let mut leaving = primary.clone();
    let out = leaving.advance(T).receive(3, Packet::Refused(Refusal::OldCopy));
    assert!(out.has(&Effect::Quarantine(Quarantine::Everything)));
    assert_eq!(refused(&leaving), Some(NotTaken::NotPrimary));

    let mut three_copies = form(|setup| setup.shared.copies_min = 3).take(1);
    assert_eq!(refused(&three_copies), None);
    three_copies.kill(3);
    three_copies.pong(2);
    three_copies.tick();
    assert_eq!(three_copies.members(), [1, 2]);
    assert_eq!(refused(&three_copies), Some(NotTaken::TooFewCopies));

    let mut closed = config(&[1]);
    closed.gate_open = false;
    let log = vec![config_entry(at(0, 1), &closed)];
    let mut closed = Server::start(START, setup(1, vote(1, None), &log), log);
    [2, 3].iter().for_each(|n| drop(closed.refuse_dial(*n)));
    closed.elect(&[]);
    closed.durable();
    assert_eq!(refused(&closed), Some(NotTaken::GateClosed));
}

/// While the disk of a member is nearly full, the primary accepts only deletions.
#[test]
fn a_member_with_a_full_disk_blocks_every_change_but_deletions() {
    let full = PeerHealth { full: true, ..PeerHealth::default() };
    let refused = |kind: Kind, change: &dyn Fn(&mut Server)| {
        let mut primary = formed().take(1);
        change(&mut primary);
        primary.propose(kind).err()
    };
    let own = |server: &mut Server| server.replica.note_space(server.now, true);
    let other = |server: &mut Server| drop(server.report(3, full));
    let no_space = |n: u8| Some(NotTaken::NoSpace(id(n)));
    for kind in [Kind::MESSAGE, Kind::CREATE, Kind::PASSWORD] {
        assert_eq!(refused(kind, &|_| ()), None);
        assert_eq!(refused(kind, &own), no_space(1));
        assert_eq!(refused(kind, &other), no_space(3));
    }
    assert_eq!(refused(Kind::DELETE, &own), None);
    assert_eq!(refused(Kind::DELETE, &other), None);
    let learner = |server: &mut Server| {
        server.kill(3);
        server.pong(2);
        server.tick();
        assert_eq!(server.members(), [1, 2]);
        server.connect(3);
        server.report(3, full);
    };
    assert_eq!(refused(Kind::MESSAGE, &learner), None, "it is no member");
    let free_again = |server: &mut Server| {
        own(server);
        server.replica.note_space(server.now, false);
    };
    assert_eq!(refused(Kind::MESSAGE, &free_again), None);
}

/// A server reports at once to both others that its disk is nearly full, or has space again.
#[test]
fn a_server_reports_a_full_disk_at_once() {
    let mut server = backup();
    server.wait_for(T, &[1, 3], is_ping).unwrap();
    let reports = |server: &mut Server, full: bool| {
        server.replica.note_space(server.now, full);
        let out = server.tick();
        [1, 3].map(|n| match out.sent(n)[..] {
            [Packet::Ping { health, .. }] => Some(health.full),
            _ => None,
        })
    };
    assert_eq!(reports(&mut server, true), [Some(true); 2]);
    assert_eq!(reports(&mut server, true), [None; 2], "it did not change");
    assert_eq!(reports(&mut server, false), [Some(false); 2]);
}

fn is_ping(effect: &Effect) -> bool {
    matches!(effect, Effect::Send(_, Packet::Ping { .. }))
}

/// A server acts at once on a ping that reports another health than the previous one.
#[test]
fn a_change_of_health_needs_a_tick() {
    let mut primary = formed().take(1);
    primary.wait_for(T, &[2, 3], is_ping).unwrap();
    [2, 3].iter().for_each(|n| drop(primary.pong(*n)));
    primary.wait(Duration::ZERO, &[2, 3]);
    let mut acts = |health: PeerHealth| {
        primary.report(3, health);
        let acts = primary.replica.next_deadline() <= Some(primary.now);
        primary.wait(Duration::ZERO, &[2, 3]);
        acts
    };
    let stopping = PeerHealth { stopping: true, ..PeerHealth::default() };
    assert!(!acts(PeerHealth::default()));
    assert!(acts(stopping));
    assert!(!acts(stopping));
}
