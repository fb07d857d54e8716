//! Which server receives the role, when, and how a server that was told to stop leaves.

use super::*;
use crate::ids::GroupId;
use crate::limits::{SLOW_SYNCS, SLOW_WINDOW};

/// Returns server 1, the primary of a healthy group, and its world.
fn primary() -> (World, Replica) {
    let world = formed(8);
    let replica = world.running[&1].replica.clone();
    (world, replica)
}

/// Returns the server to which the primary sends `TimeoutNow`.
fn told(replica: &mut Replica, now: Moment) -> Option<u8> {
    let mut out = Out::default();
    replica.tick_handover(now, &mut out);
    let told = out.effects.iter().find_map(|effect| match effect {
        Effect::Send(link, Packet::TimeoutNow { term }) if *term == replica.vote.term => {
            Some(*link)
        }
        _ => None,
    });
    let heir = told.map(|link| replica.peers.iter().find(|peer| peer.has_link(link)).unwrap().id);
    heir.map(ServerId::number)
}

#[test]
fn a_slow_backup_is_the_heir_only_when_there_is_no_other_and_speed_is_not_the_reason() {
    let (world, replica) = primary();
    let heir_of = |slow: [bool; 2], why: Rule| {
        let mut replica = replica.clone();
        for (peer, slow) in replica.peers.iter_mut().zip(slow) {
            peer.health.slow = slow;
        }
        replica.begin_handover(world.now, why);
        told(&mut replica, world.now)
    };
    for (slow, why, heir) in [
        ([false, false], Rule::HandedOverStop, Some(2)),
        ([true, false], Rule::HandedOverStop, Some(3)),
        ([true, true], Rule::HandedOverStop, Some(2)),
        ([true, true], Rule::HandedOverOrder, Some(2)),
        ([true, true], Rule::HandedOverSlow, None),
        ([true, false], Rule::HandedOverSlow, Some(3)),
    ] {
        assert_eq!(heir_of(slow, why), heir, "{slow:?} {why:?}");
    }
}

/// Clients connect to the primary's address, so a server that does not answer there leads only if
/// no other server can.
#[test]
fn a_server_that_does_not_answer_at_its_address_is_no_heir() {
    let (world, replica) = primary();
    let heir_of = |unreachable: &[u8], why: Rule| {
        let mut replica = replica.clone();
        for n in unreachable {
            peer(&mut replica, *n).reached = false;
            replica.on_dial_failed(world.now, id(*n), DialFailure::NoAnswer);
        }
        replica.begin_handover(world.now, why);
        told(&mut replica, world.now)
    };
    for (unreachable, why, heir) in [
        (&[2][..], Rule::HandedOverOrder, Some(3)),
        (&[2], Rule::HandedOverSlow, Some(3)),
        (&[2], Rule::HandedOverStop, Some(3)),
        (&[2, 3], Rule::HandedOverOrder, None),
        (&[2, 3], Rule::HandedOverDamaged, None),
        (&[2, 3], Rule::HandedOverStop, Some(2)),
    ] {
        assert_eq!(heir_of(unreachable, why), heir, "{unreachable:?} {why:?}");
    }
    let mut replica = replica;
    replica.on_dial_failed(world.now, id(2), DialFailure::NoAnswer);
    assert_eq!(replica.unreachable(id(2)), None, "it has answered there before");
    peer(&mut replica, 2).reached = false;
    replica.on_dial_failed(world.now, id(2), DialFailure::Refused);
    assert_eq!(replica.unreachable(id(2)), Some(DialFailure::Refused));
}

#[test]
fn the_heir_is_a_member_that_is_heard_has_everything_and_stays() {
    let (world, replica) = primary();
    type Change = fn(&mut Replica);
    let changes: [(&str, Change); 5] = [
        ("stopping", |r| peer(r, 2).health.stopping = true),
        ("unheard", |r| peer(r, 2).heard = None),
        ("lost", |r| peer(r, 2).link = None),
        ("no member", |r| {
            let without = r.config().unwrap().without(id(2));
            r.append_config(r.vote.term, WallTime(0), without, &mut Out::default());
            store_all(r);
        }),
        ("behind", |r| {
            r.propose(Moment(0), WallTime(0), Kind::MESSAGE, |_| (), &mut Out::default()).unwrap();
            store_all(r);
            let two = r.config().unwrap().member(id(2)).unwrap();
            let Role::Primary(primary) = &mut r.role else { panic!("1 is primary") };
            primary.progress_mut(two).unwrap().stored = Index(1);
        }),
    ];
    for (name, change) in changes {
        let mut replica = replica.clone();
        change(&mut replica);
        assert_eq!(replica.begin_handover(world.now, Rule::HandedOverOrder), Verdict::Taken);
        assert_eq!(told(&mut replica, world.now), Some(3), "{name}");
        assert_eq!(told(&mut replica, world.now), None, "{name}: once");
    }
}

/// Makes every entry stored by all and acknowledged.
fn store_all(replica: &mut Replica) {
    let last = replica.last();
    (replica.flushed, replica.stored) = (last, last);
    (replica.committed, replica.acknowledged) = (last, last);
    let all = replica.linked().collect::<Vec<_>>();
    let Role::Primary(primary) = &mut replica.role else { panic!("it leads") };
    for member in all {
        if let Some(progress) = primary.progress_mut(member) {
            progress.stored = last;
        }
    }
}

#[test]
fn nobody_is_told_before_all_is_answered_nor_after_t() {
    let (world, mut replica) = primary();
    let mut out = Out::default();
    replica.propose(Moment(0), WallTime(0), Kind::MESSAGE, |_| (), &mut out).unwrap();
    replica.begin_handover(world.now, Rule::HandedOverOrder);
    let refused = replica.propose(Moment(0), WallTime(0), Kind::MESSAGE, |_| (), &mut out);
    assert_eq!(refused, Err(NotTaken::HandingOver));
    assert_eq!(told(&mut replica, world.now), None, "a change is not answered");
    let mut late = replica.clone();
    store_all(&mut replica);
    assert_eq!(told(&mut replica, world.now), Some(2));
    assert!(replica.is_handing_over(), "until there is another primary");

    let end = world.now + late.peer_timeout();
    assert_eq!(told(&mut late, Moment(end.0 - 1)), None);
    assert!(late.is_handing_over());
    told(&mut late, end);
    assert!(!late.is_handing_over(), "given up");
    late.propose(Moment(0), WallTime(0), Kind::MESSAGE, |_| (), &mut out).unwrap();
}

#[test]
fn no_order_is_taken_without_a_backup_that_stays() {
    let (world, replica) = primary();
    let verdict = |change: &dyn Fn(&mut Replica)| {
        let mut replica = replica.clone();
        change(&mut replica);
        replica.on_order(world.now, replica.shared.group, Order::HandOver(None))
    };
    assert_eq!(verdict(&|_| ()), Verdict::Taken);
    assert_eq!(
        verdict(&|r| r.peers.iter_mut().for_each(|p| p.health.stopping = true)),
        Verdict::NoBackup
    );
    assert_eq!(verdict(&|r| r.peers.iter_mut().for_each(|p| p.link = None)), Verdict::NoBackup);
    let mut other = replica.clone();
    let group = GroupId(replica.shared.group.0 ^ 1);
    assert_eq!(other.on_order(world.now, group, Order::HandOver(None)), Verdict::OtherGroup);
    let mut backup = world.running[&2].replica.clone();
    let group = backup.shared.group;
    assert_eq!(backup.on_order(world.now, group, Order::HandOver(None)), Verdict::NotPrimary);
}

#[test]
fn who_is_told_stands_only_for_its_own_primary_and_term() {
    let (world, _) = primary();
    let backup = &world.running[&2].replica;
    let term = backup.vote.term;
    let member = |n: u8| backup.config().unwrap().member(id(n)).unwrap();
    let stands = |from: Member, term: Term, change: &dyn Fn(&mut Replica)| {
        let mut replica = backup.clone();
        change(&mut replica);
        replica.on_stand_now(world.now, from, term, &mut Out::default());
        matches!(replica.role, Role::Candidate(_))
    };
    assert!(stands(member(1), term, &|_| ()));
    assert!(!stands(member(3), term, &|_| ()), "not its primary");
    assert!(!stands(member(1), term.next(), &|_| ()), "another term");
    assert!(!stands(member(1), Term(term.0 - 1), &|_| ()), "an earlier term");
    assert!(!stands(member(1), term, &|r| r.stopping = Some(world.now)), "it ends itself");
}

#[test]
fn a_stopping_server_leaves_when_dropped_or_alone_or_after_2_t() {
    let (world, replica) = primary();
    let peer_timeout = replica.peer_timeout();
    let mut stopping = replica.clone();
    assert!(!stopping.is_released(world.now), "it was not asked to");
    stopping.stop(world.now);
    let end = world.now + peer_timeout * 2;
    assert!(!stopping.is_released(Moment(end.0 - 1)));
    assert!(stopping.is_released(end));
    let mut timers = stopping.timers.clone();
    timers.clear(Timer::Ping);
    assert_eq!(timers.next(), Some(end));
    let released = |change: &dyn Fn(&mut Replica)| {
        let mut stopping = stopping.clone();
        change(&mut stopping);
        stopping.is_released(world.now)
    };
    assert!(!released(&|_| ()));
    assert!(!released(&|r| peer(r, 2).health.stopping = true), "3 is there");
    assert!(released(&|r| r.peers.iter_mut().for_each(|p| p.health.stopping = true)));
    assert!(released(&|r| r.peers.iter_mut().for_each(|p| p.link = None)));
    assert!(released(&|r| {
        let without = r.config().unwrap().without(id(1));
        r.append_config(r.vote.term, WallTime(0), without, &mut Out::default());
    }));
}

#[test]
fn a_stopping_primary_tries_to_hand_over_as_long_as_it_stays() {
    let (world, mut replica) = primary();
    replica.stop(world.now);
    let peer_timeout = replica.peer_timeout();
    let tries = |now: Moment| {
        let mut replica = replica.clone();
        hear_all(&mut replica, now);
        let mut out = Out::default();
        replica.tick_stop(now, &mut out);
        let said = |effect: &&Effect| match effect {
            Effect::Send(_, Packet::Ping { health, .. }) => health.stopping,
            _ => false,
        };
        assert_eq!(out.effects.iter().filter(said).count(), 2, "both are told at once");
        replica.is_handing_over()
    };
    assert!(tries(world.now));
    assert!(tries(Moment((world.now + peer_timeout * 2).0 - 1)));
    assert!(!tries(world.now + peer_timeout * 2));
}

#[test]
fn three_slow_syncs_in_a_minute_are_a_slow_disk_and_handed_over_once_per_t() {
    let (world, mut replica) = primary();
    let half = replica.peer_timeout() / 2;
    let mut now = world.now;
    let sync = |replica: &mut Replica, now: &mut Moment, takes: Duration| {
        replica.syncs.begin(*now);
        *now += takes;
        replica.note_synced(*now);
    };
    for _ in 0..10 {
        sync(&mut replica, &mut now, half);
    }
    assert!(!replica.is_slow(now), "T/2 is not over T/2");
    let slow = half + Duration::from_micros(1);
    for count in 1..=SLOW_SYNCS {
        assert!(!replica.is_slow(now));
        sync(&mut replica, &mut now, slow);
        assert_eq!(replica.is_slow(now), count == SLOW_SYNCS);
    }
    let since_first = slow * (SLOW_SYNCS as u32 - 1);
    let first = Moment(now.0 - since_first.as_micros() as u64);
    assert!(replica.is_slow(Moment((first + SLOW_WINDOW).0 - 1)));
    assert!(!replica.is_slow(first + SLOW_WINDOW), "the first of three is a minute old");

    // Only to a member whose disk is not slow and that is not stopping, and once per peer
    // timeout.
    let hands_over = |change: &dyn Fn(&mut Replica)| {
        let mut replica = replica.clone();
        hear_all(&mut replica, now);
        change(&mut replica);
        replica.tick_handover(now, &mut Out::default());
        replica.is_handing_over()
    };
    assert!(hands_over(&|_| ()));
    assert!(hands_over(&|r| peer(r, 2).health.slow = true));
    assert!(!hands_over(&|r| r.peers.iter_mut().for_each(|p| p.health.slow = true)));
    assert!(!hands_over(&|r| {
        peer(r, 2).health.slow = true;
        peer(r, 3).health.stopping = true;
    }));
    assert!(!hands_over(&|r| {
        peer(r, 2).health.slow = true;
        let without = r.config().unwrap().without(id(3));
        r.append_config(r.vote.term, WallTime(0), without, &mut Out::default());
    }));
    assert!(!hands_over(&|r| r.stopping = Some(now)));
    assert!(!hands_over(&|r| r.syncs = Default::default()));
    hear_all(&mut replica, now);
    replica.tick_handover(now, &mut Out::default());
    assert!(replica.is_handing_over());
    replica.handover = None;
    let again = now + replica.peer_timeout();
    hear_all(&mut replica, again);
    replica.tick_handover(Moment(again.0 - 1), &mut Out::default());
    assert!(!replica.is_handing_over());
    replica.tick_handover(again, &mut Out::default());
    assert!(replica.is_handing_over());
}

#[test]
fn a_person_may_choose_the_heir() {
    let (world, replica) = primary();
    let group = replica.shared.group;
    for n in [2, 3] {
        let mut replica = replica.clone();
        let order = Order::HandOver(Some(id(n)));
        assert_eq!(replica.on_order(world.now, group, order), Verdict::Taken);
        assert_eq!(told(&mut replica, world.now), Some(n));
    }
    let mut without = replica.clone();
    peer(&mut without, 3).link = None;
    for to in [1, 3] {
        let order = Order::HandOver(Some(id(to)));
        assert_eq!(without.on_order(world.now, group, order), Verdict::NoBackup, "{to}");
        assert!(!without.is_handing_over());
    }
}
