//! Which server receives the primary role, when, and how a stopping server leaves.

use super::lockstep::*;
use crate::limits::{SLOW_SYNCS, SLOW_WINDOW};

const SLOW: PeerHealth = PeerHealth {
    leads: false,
    stopping: false,
    slow: true,
    full: false,
    damaged: false,
    lacks_entries: false,
};
const STOPPING: PeerHealth = PeerHealth { slow: false, stopping: true, ..SLOW };
const FULL: PeerHealth = PeerHealth { slow: false, full: true, ..SLOW };

/// Returns server 1, an elected primary. Every server has stored every entry. The others dialled
/// it, and it has not reached them at their own addresses.
fn primary() -> Server {
    let log = vec![config_entry(at(0, 1), &config(&[1, 2, 3]))];
    let mut server = Server::start(START, setup(1, vote(1, None), &log), log);
    [2, 3].iter().for_each(|n| drop(server.connect(*n)));
    server.elect(&[2, 3]);
    store(&mut server);
    server
}

/// Writes every entry, and makes it durable on every linked server.
fn store(server: &mut Server) {
    server.tick();
    finish_sync(server);
}

/// Makes the flushed entries durable on every linked server, which answers a ping as well. The
/// primary does not act on that yet.
fn finish_sync(server: &mut Server) {
    server.durable();
    let last = server.replica.last();
    for n in [2, 3] {
        if server.is_linked(n) {
            server.pong(n);
            server.accept(n, last);
        }
    }
}

/// Writes an entry with a sync that takes this long, on every server.
fn sync(server: &mut Server, time: Duration) {
    server.propose(Kind::MESSAGE).unwrap();
    assert!(server.tick().has(&Effect::Flush));
    server.advance(time);
    finish_sync(server);
}

/// Makes the disk of this server slow.
fn slow_down(server: &mut Server) {
    (0..SLOW_SYNCS).for_each(|_| sync(server, T / 2 + US));
}

/// Returns the server to which the primary sends `TimeoutNow` in a tick.
fn heir(server: &mut Server) -> Option<u8> {
    let (out, term) = (server.tick(), server.replica.term());
    [2, 3].into_iter().find(|n| out.sent(*n).contains(&Packet::TimeoutNow { term }))
}

/// Gives the primary this reason to hand over.
fn begin(server: &mut Server, why: Rule) {
    match why {
        Rule::HandedOverStop => server.replica.stop(server.now),
        Rule::HandedOverOrder => assert_ne!(server.order(GROUP, None), Verdict::NotPrimary),
        Rule::HandedOverDamaged => {
            server.replica.leave_damaged(server.now);
        }
        Rule::HandedOverSlow => slow_down(server),
        _ => panic!("no reason: {why:?}"),
    }
}

/// A primary prefers an heir whose disk is not slow. If its own slow disk is the reason, it hands
/// over to no slow backup.
#[test]
fn a_slow_backup_is_the_heir_only_without_another_one() {
    for (slow, why, wanted) in [
        (&[] as &[u8], Rule::HandedOverStop, Some(2)),
        (&[2], Rule::HandedOverStop, Some(3)),
        (&[2, 3], Rule::HandedOverStop, Some(2)),
        (&[2, 3], Rule::HandedOverOrder, Some(2)),
        (&[2, 3], Rule::HandedOverSlow, None),
        (&[2], Rule::HandedOverSlow, Some(3)),
    ] {
        let mut server = primary();
        slow.iter().for_each(|n| drop(server.report(*n, SLOW)));
        begin(&mut server, why);
        assert_eq!(heir(&mut server), wanted, "{slow:?} {why:?}");
    }
}

/// A backup that becomes slow during a handover for a slow disk is no heir.
#[test]
fn a_backup_that_becomes_slow_is_no_heir_of_a_slow_primary() {
    let mut server = primary();
    server.report(2, SLOW);
    slow_down(&mut server);
    server.propose(Kind::MESSAGE).unwrap();
    assert_eq!(heir(&mut server), None, "a change is not acknowledged");
    assert_eq!(server.decided(Rule::HandedOverSlow), 1);
    server.report(3, SLOW);
    finish_sync(&mut server);
    assert_eq!(heir(&mut server), None);
    server.report(3, PeerHealth::default());
    assert_eq!(heir(&mut server), Some(3));
}

/// Clients connect to the primary's address. So a server that does not answer at its address
/// becomes primary only if the primary stops and no other server can succeed it.
#[test]
fn a_server_that_does_not_answer_at_its_address_is_no_heir() {
    for (unreachable, why, wanted) in [
        (&[2][..], Rule::HandedOverOrder, Some(3)),
        (&[2], Rule::HandedOverSlow, Some(3)),
        (&[2], Rule::HandedOverStop, Some(3)),
        (&[2, 3], Rule::HandedOverOrder, None),
        (&[2, 3], Rule::HandedOverDamaged, None),
        (&[2, 3], Rule::HandedOverStop, Some(2)),
    ] {
        let mut server = primary();
        unreachable.iter().for_each(|n| drop(server.fail_dial(*n, DialFailure::NoAnswer)));
        begin(&mut server, why);
        assert_eq!(heir(&mut server), wanted, "{unreachable:?} {why:?}");
    }
    let mut server = primary();
    server.fail_dial(2, DialFailure::Refused);
    assert_eq!(server.replica.unreachable(id(2)), Some(DialFailure::Refused));
    // The next dial reaches the process at its address, and a later one fails.
    server.wait_for(T, &[2, 3], |effect| *effect == Effect::Dial(id(2))).unwrap();
    let (hello, link) = (server.hello_of(2), server.new_link(2));
    server.connect_with(link, hello, true);
    assert_eq!(server.replica.unreachable(id(2)), None);
    server.fail_dial(2, DialFailure::NoAnswer);
    assert_eq!(server.replica.unreachable(id(2)), None);
}

/// The heir is a recently active member that is not stopping. It receives `TimeoutNow` once.
#[test]
fn the_heir_is_an_active_member_that_does_not_stop() {
    type Change = fn(&mut Server);
    let changes: [(&str, Change); 4] = [
        ("stopping", |server| drop(server.report(2, STOPPING))),
        ("unreachable", |server| {
            // A ping shortly before keeps the silent link open until the next one.
            server.advance(T - ms(10)).tick();
            server.advance(ms(10)).pong(3);
            assert!(server.is_linked(2));
        }),
        ("not linked", |server| drop(server.end_link(2))),
        ("no member", |server| {
            server.kill(2);
            store(server);
            store(server);
            assert_eq!(server.members(), [1, 3]);
            // It would be added again if its disk were not full.
            server.connect(2);
            server.report(2, FULL);
            store(server);
        }),
    ];
    for (name, change) in changes {
        let mut server = primary();
        change(&mut server);
        assert_eq!(server.order(GROUP, None), Verdict::Taken);
        assert_eq!(heir(&mut server), Some(3), "{name}");
        assert_eq!(heir(&mut server), None, "{name}: once");
    }
}

/// A primary that hands over accepts no changes, and sends `TimeoutNow` only when every entry is
/// acknowledged. After the peer timeout it gives up and accepts changes again.
#[test]
fn a_handover_waits_for_acknowledgements_and_ends_after_the_peer_timeout() {
    let mut server = primary();
    server.propose(Kind::MESSAGE).unwrap();
    assert_eq!(server.order(GROUP, None), Verdict::Taken);
    let refused = |server: &Server| server.clone().propose(Kind::MESSAGE).err();
    assert_eq!(refused(&server), Some(NotTaken::HandingOver));
    assert_eq!(heir(&mut server), None, "a change is not acknowledged");
    let mut late = server.clone();
    server.durable();
    server.accept(2, server.replica.last());
    assert_eq!(heir(&mut server), None, "one member has not stored it");
    server.accept(3, server.replica.last());
    assert_eq!(heir(&mut server), Some(2));
    assert_eq!(refused(&server), Some(NotTaken::HandingOver), "until another one is primary");

    for (time, reason) in [(T - US, Some(NotTaken::HandingOver)), (US, None)] {
        late.advance(time);
        [2, 3].iter().for_each(|n| drop(late.pong(*n)));
        assert_eq!(heir(&mut late), None);
        assert_eq!(refused(&late), reason);
    }
    assert_eq!(late.decided(Rule::HandoverGivenUp), 1);
}

/// A server accepts an operator's order only as primary of the named group, and with a backup
/// that can take over.
#[test]
fn an_order_needs_a_primary_and_a_possible_heir() {
    let verdict = |change: &dyn Fn(&mut Server, u8)| {
        let mut server = primary();
        [2, 3].iter().for_each(|n| change(&mut server, *n));
        server.order(GROUP, None)
    };
    assert_eq!(verdict(&|_, _| ()), Verdict::Taken);
    assert_eq!(verdict(&|server, n| drop(server.report(n, STOPPING))), Verdict::NoBackup);
    assert_eq!(verdict(&|server, n| drop(server.end_link(n))), Verdict::NoBackup);
    assert_eq!(primary().order(GroupId(6), None), Verdict::OtherGroup);
    assert_eq!(formed().take(2).order(GROUP, None), Verdict::NotPrimary);
}

/// An operator may choose the heir, if it can take over.
#[test]
fn an_operator_may_choose_the_heir() {
    for n in [2, 3] {
        let mut server = primary();
        assert_eq!(server.order(GROUP, Some(n)), Verdict::Taken);
        assert_eq!(heir(&mut server), Some(n));
    }
    let mut server = primary();
    server.end_link(3);
    for to in [1, 3] {
        assert_eq!(server.order(GROUP, Some(to)), Verdict::NoBackup, "{to}");
        assert!(server.clone().propose(Kind::MESSAGE).is_ok(), "it does not hand over");
    }
}

/// A backup campaigns at `TimeoutNow` only if its own primary sent it in the current term, and if
/// the backup is not stopping.
#[test]
fn a_backup_campaigns_only_for_its_own_primary_and_term() {
    let backup = formed().take(2);
    let term = backup.replica.term();
    for (from, term, stops, campaigns) in [
        (1, term, false, true),
        (3, term, false, false),
        (1, term.next(), false, false),
        (1, Term(term.0 - 1), false, false),
        (1, term, true, false),
    ] {
        let mut backup = backup.clone();
        if stops {
            backup.replica.stop(backup.now);
        }
        let out = backup.receive(from, Packet::TimeoutNow { term });
        let asks = out.sent(3).iter().any(|packet| matches!(packet, Packet::AskVote(_)));
        assert_eq!(asks, campaigns, "{from} {term} {stops}");
        assert_eq!(backup.replica.role() == RoleView::Candidate, campaigns);
    }
}

/// A stopping server ends when it is dropped, when no linked member is left that could drop it,
/// or after twice the peer timeout. Its timer is set for that time.
#[test]
fn a_stopping_server_ends_when_dropped_or_alone_or_in_time() {
    let backup = formed().take(2);
    assert!(!backup.replica.is_released(backup.now + T * 9), "it does not stop");
    let mut stopping = backup.clone();
    stopping.replica.stop(stopping.now);
    let end = stopping.now + T * 2;
    assert!(!stopping.replica.is_released(Moment(end.0 - 1)));
    assert!(stopping.replica.is_released(end));
    let mut waiting = stopping.clone();
    waiting.wait(T * 2 - US, &[1, 3]);
    assert!(waiting.replica.next_deadline() <= Some(end));
    let released = |change: &dyn Fn(&mut Server)| {
        let mut stopping = stopping.clone();
        change(&mut stopping);
        stopping.replica.is_released(stopping.now)
    };
    let leads = PeerHealth { leads: true, ..STOPPING };
    assert!(!released(&|_| ()));
    assert!(!released(&|server| drop(server.report(1, leads))), "3 does not stop");
    assert!(released(&|server| {
        server.report(1, leads);
        server.report(3, STOPPING);
    }));
    assert!(!released(&|server| drop(server.end_link(1))));
    assert!(released(&|server| [1, 3].iter().for_each(|n| drop(server.end_link(*n)))));
    assert!(released(&|server| {
        let (append, next) = (server.append(), server.last().index.next());
        let dropped = Position { index: next, ..server.last() };
        server.receive_entries(append, 1, &[config_entry(dropped, &config(&[1, 3]))]);
    }));
}

/// A stopping primary reports the stop to both others at once. It tries to hand over until it
/// ends, after twice the peer timeout.
#[test]
fn a_stopping_primary_tries_to_hand_over_until_it_ends() {
    let mut server = primary();
    server.replica.stop(server.now);
    for (after, wanted) in [(Duration::ZERO, Some(2)), (T * 2 - US, Some(2)), (T * 2, None)] {
        let mut server = server.clone();
        server.advance(after);
        [2, 3].iter().for_each(|n| drop(server.pong(*n)));
        let reported = server.clone().tick();
        for n in [2, 3] {
            let stops = |packet: &Packet| match packet {
                Packet::Ping { health, .. } => health.stopping,
                _ => false,
            };
            assert!(reported.sent(n).iter().any(stops), "{after:?}");
        }
        assert_eq!(heir(&mut server), wanted, "{after:?}");
    }
}

/// Returns whether a server reports a slow disk at this time.
fn is_slow(server: &Server, now: Moment) -> bool {
    let mut server = server.clone();
    server.now = now;
    server.pong(3);
    // A change of its free space makes it report at once.
    server.replica.note_space(now, true);
    let sent = server.tick().sent(3);
    let health = sent.iter().find_map(|packet| match packet {
        Packet::Ping { health, .. } => Some(*health),
        _ => None,
    });
    health.expect("it reports its health").slow
}

/// Three own syncs of over half the peer timeout within a minute make a disk slow.
#[test]
fn three_slow_syncs_within_a_minute_are_a_slow_disk() {
    let mut server = formed().take(2);
    let sync = |server: &mut Server, time: Duration| {
        let next = Position { index: server.last().index.next(), ..server.last() };
        server.receive_entries(server.append(), 1, &[message(next)]);
        assert!(server.tick().has(&Effect::Flush));
        server.advance(time).durable();
        [1, 3].iter().for_each(|n| drop(server.pong(*n)));
    };
    (0..10).for_each(|_| sync(&mut server, T / 2));
    assert!(!is_slow(&server, server.now), "half the peer timeout is not over it");
    let mut ends = Vec::new();
    for count in 1..=SLOW_SYNCS {
        sync(&mut server, T / 2 + US);
        ends.push(server.now);
        assert_eq!(is_slow(&server, server.now), count == SLOW_SYNCS);
    }
    let end = ends[0] + SLOW_WINDOW;
    assert!(is_slow(&server, Moment(end.0 - 1)));
    assert!(!is_slow(&server, end), "the first of three is a minute old");
}

/// A primary with a slow disk hands over to a member that is neither slow nor stopping, unless it
/// stops itself.
#[test]
fn a_slow_primary_hands_over_to_a_member_that_is_not_slow() {
    let hands_over = |change: &dyn Fn(&mut Server)| {
        let mut server = primary();
        slow_down(&mut server);
        change(&mut server);
        server.tick();
        server.decided(Rule::HandedOverSlow) == 1
    };
    assert!(hands_over(&|_| ()));
    assert!(hands_over(&|server| drop(server.report(2, SLOW))));
    assert!(!hands_over(&|server| [2, 3].iter().for_each(|n| drop(server.report(*n, SLOW)))));
    assert!(!hands_over(&|server| {
        server.report(2, SLOW);
        server.report(3, STOPPING);
    }));
    assert!(!hands_over(&|server| server.replica.stop(server.now)));

    let mut learner = primary();
    learner.report(2, SLOW);
    learner.kill(3);
    store(&mut learner);
    store(&mut learner);
    assert_eq!(learner.members(), [1, 2]);
    learner.connect(3);
    learner.report(3, FULL);
    store(&mut learner);
    slow_down(&mut learner);
    learner.tick();
    assert_eq!(learner.decided(Rule::HandedOverSlow), 0, "server 3 is no member");
    learner.report(2, PeerHealth::default());
    learner.tick();
    assert_eq!(learner.decided(Rule::HandedOverSlow), 1);
}

/// A primary hands over because of its slow disk at most once per peer timeout, even if it is
/// elected again in the meantime.
#[test]
fn a_slow_primary_hands_over_once_per_peer_timeout() {
    let mut server = primary();
    slow_down(&mut server);
    server.tick();
    assert_eq!(server.decided(Rule::HandedOverSlow), 1);
    let again = server.now + T;
    server.receive(3, Packet::HigherTerm { term: server.replica.term().next() });
    server.elect(&[2, 3]);
    store(&mut server);
    for (now, count) in [(server.now, 1), (Moment(again.0 - 1), 1), (again, 2)] {
        server.now = now;
        [2, 3].iter().for_each(|n| drop(server.pong(*n)));
        server.tick();
        assert_eq!(server.decided(Rule::HandedOverSlow), count, "{now:?}");
    }
}
