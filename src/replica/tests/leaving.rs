//! When a primary hands over because of an unreadable entry, and when it sends such an entry
//! again. Also which lost member it drops first while servers stop.

use super::lockstep::*;
use crate::limits::DAMAGED_TIME;

const DAMAGED: PeerHealth = PeerHealth {
    leads: false,
    stopping: false,
    slow: false,
    full: false,
    damaged: true,
    lacks_entries: false,
};
const STOPPING: PeerHealth = PeerHealth { damaged: false, stopping: true, ..DAMAGED };

fn pong_all(server: &mut Server) {
    [2, 3].iter().for_each(|n| drop(server.pong(*n)));
}

/// A primary that cannot read an entry hands over to a server that may be able to read it, at
/// most once a minute, and reports the damage.
#[test]
fn a_damaged_primary_hands_over_to_an_undamaged_server() {
    let leaves = |damaged: &[u8]| {
        let mut server = formed().take(1);
        damaged.iter().for_each(|n| drop(server.report(*n, DAMAGED)));
        let leaves = server.replica.leave_damaged(server.now);
        let (out, term) = (server.tick(), server.replica.term());
        let is_heir = |n: &u8| out.sent(*n).contains(&Packet::TimeoutNow { term });
        (leaves, [2, 3].into_iter().find(is_heir))
    };
    assert_eq!(leaves(&[]), (true, Some(2)));
    assert_eq!(leaves(&[2]), (true, Some(3)));
    assert_eq!(leaves(&[2, 3]), (false, None));

    let mut server = formed().take(1);
    let minute = server.now + DAMAGED_TIME;
    assert!(server.replica.leave_damaged(server.now));
    let reported = server.tick().sent(2);
    let is_damage = |packet: &Packet| match packet {
        Packet::Ping { health, .. } => health.damaged,
        _ => false,
    };
    assert!(reported.iter().any(is_damage));
    // No server campaigns, so the primary gives up.
    server.wait(T, &[2, 3]);
    assert_eq!(server.decided(Rule::HandoverGivenUp), 1);
    server.now = Moment(minute.0 - 1);
    pong_all(&mut server);
    assert!(!server.replica.leave_damaged(server.now));
    server.now = minute;
    assert!(server.replica.leave_damaged(server.now));
    let mut backup = formed().take(2);
    assert!(!backup.replica.leave_damaged(backup.now), "it is not primary");
}

/// A primary that could not read an entry for a follower sends that follower nothing for the peer
/// timeout.
#[test]
fn a_primary_retries_an_unreadable_entry_after_the_peer_timeout() {
    let mut server = formed().take(1);
    // No other server can read it either, so the primary does not hand over.
    [2, 3].iter().for_each(|n| drop(server.report(*n, DAMAGED)));
    server.replica.note_unsent(server.now, server.link(3));
    let start = server.now;
    for (after, is_sent) in [(Duration::ZERO, false), (T - US, false), (T, true)] {
        server.now = start + after;
        pong_all(&mut server);
        server.propose(Kind::MESSAGE).unwrap();
        // The request shows that server 3 does not know its primary.
        let ask = Ask { term: server.replica.term(), last: at(0, 1), config: config(&[1, 2, 3]) };
        server.receive(3, Packet::AskPreVote(ask));
        assert_eq!(!server.tick().appends(3).is_empty(), is_sent, "{after:?}");
        server.durable();
        server.accept(2, server.replica.last());
    }
}

/// Of several lost members, the primary first drops one whose drop the others can commit. A
/// stopping member still stores entries while it is recently active, unless the drop is that of
/// another stopping member. A stopping primary drops only a member that keeps it from handing
/// over, and nobody after `TimeoutNow`.
#[test]
fn a_primary_drops_the_member_whose_drop_can_be_committed() {
    /// What happens: the servers that report a stop, the one that became unreachable, whether the
    /// primary stops, and whether it has sent `TimeoutNow` before.
    type Case = (&'static [u8], Option<u8>, bool, bool);
    let table: [(&str, Case, Option<u8>); 8] = [
        ("2 stops, 3 is unreachable", (&[2], Some(3), false, false), Some(3)),
        ("3 stops, 2 is unreachable", (&[3], Some(2), false, false), Some(2)),
        ("both stop", (&[2, 3], None, false, false), None),
        ("one stops", (&[2], None, false, false), Some(2)),
        ("all stop, one is unreachable", (&[2], Some(3), true, false), None),
        ("the primary stops, one is unreachable", (&[], Some(3), true, false), Some(3)),
        ("the same after `TimeoutNow`", (&[], Some(3), true, true), None),
        ("the primary and another one stop", (&[3], None, true, false), None),
    ];
    for (what, (stopping, unreachable, stops, has_heir), dropped) in table {
        let mut server = formed().take(1);
        server.wait(T * 2, &[2, 3]);
        pong_all(&mut server);
        server.advance(T - ms(10));
        if stops && !has_heir {
            // An entry that is not acknowledged keeps the primary from sending `TimeoutNow`.
            server.propose(Kind::MESSAGE).unwrap();
            server.tick();
            server.durable();
            server.accept(2, server.replica.last());
        }
        if has_heir {
            server.replica.stop(server.now);
            let term = server.replica.term();
            assert!(server.tick().sent(2).contains(&Packet::TimeoutNow { term }));
        }
        server.advance(ms(10));
        for n in [2, 3].into_iter().filter(|n| unreachable != Some(*n)) {
            server.pong(n);
        }
        stopping.iter().for_each(|n| drop(server.report(*n, STOPPING)));
        if stops {
            server.replica.stop(server.now);
        }
        server.tick();
        let left = [2, 3].into_iter().find(|n| !server.members().contains(n));
        assert_eq!(left, dropped, "{what}");
    }
}

/// The drop from two members to one needs no other server, but a stopping primary never leaves a
/// config of itself alone.
#[test]
fn a_stopping_primary_of_two_drops_nobody() {
    let mut pair = formed().take(1);
    pair.wait(T * 2, &[2, 3]);
    pair.kill(3);
    pair.pong(2);
    pair.tick();
    pair.durable();
    pair.accept(2, pair.replica.last());
    pair.tick();
    pair.advance(T);
    let mut stopping = pair.clone();
    stopping.replica.stop(stopping.now);
    for (server, members) in [(&mut pair, &[1][..]), (&mut stopping, &[1, 2])] {
        server.tick();
        assert_eq!(server.members(), members);
    }
}
