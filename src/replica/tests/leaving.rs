//! When a primary hands over because of an unreadable entry, and when it sends such an entry
//! again. Also which lost member it drops first while servers stop.

use super::*;

/// Server `n` of a healthy group whose primary is 1.
fn server(n: u8) -> (World, Replica) {
    let world = formed(8);
    let mut replica = world.running[&n].replica.clone();
    hear_all(&mut replica, world.now);
    (world, replica)
}

/// A primary that can't read an entry hands over to a server that may be able to, once a minute.
#[test]
fn a_damaged_primary_hands_over_to_a_sound_one() {
    let (world, replica) = server(1);
    let minute = crate::limits::DAMAGED_TIME;
    let leaves = |damaged: [bool; 2]| {
        let mut replica = replica.clone();
        for (peer, damaged) in replica.peers.iter_mut().zip(damaged) {
            peer.health.damaged = damaged;
        }
        let leaves = replica.leave_damaged(world.now);
        let mut out = Out::default();
        replica.tick_handover(world.now, &mut out);
        let told = out.effects.iter().find_map(|effect| match effect {
            Effect::Send(link, Packet::TimeoutNow { .. }) => Some(*link),
            _ => None,
        });
        let heir = told.and_then(|link| replica.peers.iter().find(|peer| peer.has_link(link)));
        (leaves, heir.map(|peer| peer.id.number()))
    };
    assert_eq!(leaves([false, false]), (true, Some(2)));
    assert_eq!(leaves([true, false]), (true, Some(3)));
    assert_eq!(leaves([true, true]), (false, None));
    let mut given_up = replica.clone();
    assert!(given_up.leave_damaged(world.now) && given_up.health(world.now).damaged);
    given_up.handover = None;
    hear_all(&mut given_up, world.now + minute);
    assert!(!given_up.leave_damaged(Moment((world.now + minute).0 - 1)));
    assert!(given_up.leave_damaged(world.now + minute));
    let (_, mut backup) = server(2);
    assert!(!backup.leave_damaged(world.now), "it has no role to give");
}

/// The primary does not retry an unreadable entry at once.
#[test]
fn who_lacks_what_can_not_be_read_is_sent_nothing_for_t() {
    let (world, mut replica) = server(1);
    let log = &world.running[&1].disk.log;
    let link = peer(&mut replica, 3).link.as_ref().unwrap().id;
    replica.note_unsent(world.now, link);
    let peer_timeout = replica.peer_timeout();
    let mut sent = |at: Moment| {
        let mut out = Out::default();
        replica.propose(at, WallTime(0), Kind::MESSAGE, |_| (), &mut out).ok();
        replica.handover = None;
        replica.tell_again(replica.config().unwrap().member(id(3)).unwrap());
        replica.send_all(at, log, &mut out);
        out.effects.iter().any(|e| match e {
            Effect::Send(to, _) | Effect::SendEntries { link: to, .. } => *to == link,
            _ => false,
        })
    };
    assert!(!sent(world.now) && !sent(Moment((world.now + peer_timeout).0 - 1)));
    assert!(sent(world.now + peer_timeout));
}

/// A round of reads counts only acknowledgements from its own term: an answer to an earlier
/// primary confirms nothing about this one.
#[test]
fn a_round_acknowledged_in_an_older_term_does_not_count() {
    let (world, mut replica) = server(1);
    let log = &world.running[&1].disk.log;
    let round = replica.read_index().unwrap();
    replica.send_all(world.now, log, &mut Out::default());
    let (two, stored) = (replica.config().unwrap().member(id(2)).unwrap(), replica.last());
    let confirmed = |term: Term| {
        let mut replica = replica.clone();
        replica.on_acknowledged(two, term, stored, round, &mut Out::default());
        replica.advance();
        replica.confirmed_read() >= Some(round)
    };
    assert!(!confirmed(Term(replica.vote.term.0 - 1)));
    assert!(confirmed(replica.vote.term));
}

/// Of several lost members, the primary first drops one whose drop can be committed.
#[test]
fn a_stopping_member_stores_as_long_as_it_is_heard() {
    let (world, mut replica) = server(1);
    let now = world.now + Duration::from_secs(60);
    let peer_timeout = replica.peer_timeout();
    let config = *replica.config().unwrap();
    let ago = Moment(now.0 - peer_timeout.as_micros() as u64);
    type Change = fn(&mut Replica, Moment);
    let table: [(&str, Change, Option<u8>); 9] = [
        (
            "2 stops, 3 is unheard",
            |r, ago| {
                peer(r, 2).health.stopping = true;
                peer(r, 3).heard = Some(ago);
            },
            Some(3),
        ),
        (
            "3 stops, 2 is unheard",
            |r, ago| {
                peer(r, 3).health.stopping = true;
                peer(r, 2).heard = Some(ago);
            },
            Some(2),
        ),
        (
            "both stop",
            |r, _| {
                peer(r, 2).health.stopping = true;
                peer(r, 3).health.stopping = true;
            },
            None,
        ),
        ("one stops", |r, _| peer(r, 2).health.stopping = true, Some(2)),
        (
            "all stop, and one is unheard",
            |r, ago| {
                r.stopping = Some(ago);
                peer(r, 2).health.stopping = true;
                peer(r, 3).heard = Some(ago);
            },
            None,
        ),
        (
            "the primary stops, and one is unheard",
            |r, ago| {
                r.stopping = Some(ago);
                peer(r, 3).heard = Some(ago);
            },
            Some(3),
        ),
        (
            "the primary stops, and has told nobody yet",
            |r, ago| {
                r.stopping = Some(ago);
                let now = peer(r, 2).heard.unwrap();
                r.begin_handover(now, Rule::HandedOverStop);
                peer(r, 3).heard = Some(ago);
            },
            Some(3),
        ),
        (
            "the primary stops, and has told its heir",
            |r, ago| {
                r.stopping = Some(ago);
                let now = peer(r, 2).heard.unwrap();
                r.begin_handover(now, Rule::HandedOverStop);
                r.tick_handover(now, &mut Out::default());
                peer(r, 3).heard = Some(ago);
            },
            None,
        ),
        (
            "the primary and another one stop",
            |r, ago| {
                r.stopping = Some(ago);
                peer(r, 3).health.stopping = true;
            },
            None,
        ),
    ];
    for (what, change, dropped) in table {
        let mut replica = replica.clone();
        hear_all(&mut replica, now);
        change(&mut replica, ago);
        assert_eq!(dropped_by(&mut replica, now), dropped, "{what}");
    }
    // A drop from two to one needs no other member, but a stopping primary never leaves a config
    // of itself alone.
    let pair = config.without(id(3));
    replica.append_config(replica.vote.term, WallTime(0), pair, &mut Out::default());
    (replica.committed, replica.stored) = (replica.last(), replica.last());
    replica.flushed = replica.last();
    hear_all(&mut replica, ago);
    assert_eq!(dropped_by(&mut replica.clone(), now), Some(2));
    replica.stopping = Some(now);
    assert_eq!(dropped_by(&mut replica, now), None);
}

/// Returns the server that the primary drops when it next changes the members.
fn dropped_by(replica: &mut Replica, now: Moment) -> Option<u8> {
    let before = *replica.config().unwrap();
    replica.change_members(now, WallTime(0), &mut Out::default());
    let after = *replica.config().unwrap();
    let dropped: Vec<Member> = before.members().filter(|member| !after.has(*member)).collect();
    dropped.first().map(|member| member.id.number())
}
