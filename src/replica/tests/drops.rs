//! When a member counts as lost, when the primary drops it, and what it must know before.

use super::*;
use crate::limits::{PENALTY_TIME, PENALTY_WINDOW};
use crate::replica::past::Past;

/// Returns server 1, for a long time the primary of a healthy group; both others just answered.
fn primary() -> (Moment, Replica, FakeLog) {
    let world = formed(8);
    let mut replica = world.running[&1].replica.clone();
    let now = world.now + Duration::from_secs(60);
    hear_all(&mut replica, now);
    (now, replica, world.running[&1].disk.log.clone())
}

fn lose(replica: &mut Replica, n: u8, at: Moment) {
    let peer = peer(replica, n);
    (peer.link, peer.refused, peer.lost_at) = (None, true, Some(at));
}

fn members(replica: &Replica) -> Vec<u8> {
    replica.config().unwrap().members().map(|member| member.id.number()).collect()
}

/// Returns the members after `change_members` at `now`.
fn changed(replica: &mut Replica, now: Moment) -> Vec<u8> {
    replica.change_members(now, WallTime(0), &mut Out::default());
    members(replica)
}

fn just_before(now: Moment) -> Moment {
    Moment(now.0 - 1)
}

#[test]
fn each_kind_of_loss_has_its_time() {
    let (now, replica, log) = primary();
    let peer_timeout = replica.peer_timeout();
    type Change = fn(&mut Replica, Moment, &FakeLog);
    let table: [(&str, Change, Duration); 5] = [
        ("gone", |r, now, _| lose(r, 3, now), Duration::ZERO),
        (
            "another disk",
            |r, _, _| peer(r, 3).link.as_mut().unwrap().member.disk.0 ^= 1,
            Duration::ZERO,
        ),
        ("stopping", |r, _, _| peer(r, 3).health.stopping = true, Duration::ZERO),
        ("unheard", |_, _, _| (), peer_timeout),
        (
            "sick",
            |r, now, log| {
                r.propose(Moment(0), WallTime(0), Kind::MESSAGE, |_| (), &mut Out::default())
                    .unwrap();
                r.send_all(now, log, &mut Out::default());
            },
            peer_timeout,
        ),
    ];
    for (name, change, after) in table {
        let mut replica = replica.clone();
        change(&mut replica, now, &log);
        let at = |now: Moment| {
            let mut replica = replica.clone();
            hear(&mut replica, 2, now);
            if name != "unheard" {
                hear(&mut replica, 3, now);
            }
            if name == "sick" {
                let (term, last) = (replica.vote.term, replica.last());
                let two = replica.config().unwrap().member(id(2)).unwrap();
                replica.on_acknowledged(two, term, last, 0, &mut Out::default());
            }
            changed(&mut replica, now)
        };
        if after > Duration::ZERO {
            assert_eq!(at(just_before(now + after)), [1, 2, 3], "{name}: too early");
        }
        assert_eq!(at(now + after), [1, 2], "{name}");
    }
}

#[test]
fn silence_counts_from_the_election_at_the_earliest() {
    let (now, mut replica, _) = primary();
    let peer_timeout = replica.peer_timeout();
    peer(&mut replica, 3).heard = None;
    let after = |since: Moment| {
        let mut replica = replica.clone();
        let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
        primary.since = since;
        changed(&mut replica, now)
    };
    let elected = Moment(now.0 - peer_timeout.as_micros() as u64);
    assert_eq!(after(Moment(elected.0 + 1)), [1, 2, 3]);
    assert_eq!(after(elected), [1, 2]);
}

#[test]
fn from_three_to_two_the_other_one_must_have_answered_after_the_loss() {
    let (now, mut replica, _) = primary();
    lose(&mut replica, 3, now);
    let later = now + Duration::from_millis(5);
    hear(&mut replica, 2, just_before(now));
    let mut out = Out::default();
    replica.change_members(now, WallTime(0), &mut out);
    assert_eq!(members(&replica), [1, 2, 3], "it may be lost as well");
    let pings = |out: &Out| {
        let pings = |effect: &&Effect| matches!(effect, Effect::Send(_, Packet::Ping { .. }));
        out.effects.iter().filter(pings).count()
    };
    assert_eq!(pings(&out), 1, "who is left is asked at once");
    out.clear();
    replica.change_members(later, WallTime(0), &mut out);
    assert_eq!((members(&replica), pings(&out)), (vec![1, 2, 3], 0), "and only once");
    hear(&mut replica, 2, now);
    assert_eq!(changed(&mut replica, later), [1, 2]);
}

/// A hello may have been in flight for a long time. It does not prove that its sender is active
/// after a loss, and a drop that needs the sender could never be committed.
#[test]
fn a_hello_proves_nothing_about_now() {
    let (now, mut replica, _) = primary();
    let link = peer(&mut replica, 2).link.clone().unwrap();
    lose(&mut replica, 3, now);
    lose(&mut replica, 2, now);
    let later = now + Duration::from_millis(5);
    let new = crate::replica::peer::Link { id: LinkId(99), ..link };
    replica.establish(later, new, &Past::default(), &mut Out::default());
    let two = replica.config().unwrap().member(id(2)).unwrap();
    assert!(replica.hears(two, later));
    assert_eq!(changed(&mut replica, later), [1, 2, 3]);
    let at = replica.peers.iter().position(|peer| peer.id == id(2)).unwrap();
    replica.on_pong(at, later, later, &mut Out::default());
    assert_eq!(changed(&mut replica, later), [1, 2]);
}

#[test]
fn another_disk_is_a_loss_of_this_moment() {
    let (now, mut replica, _) = primary();
    let three = peer(&mut replica, 3);
    three.link.as_mut().unwrap().member.disk.0 ^= 1;
    three.lost_at = Some(Moment(1));
    hear(&mut replica, 2, just_before(now));
    assert_eq!(changed(&mut replica, now), [1, 2, 3], "the other one has not answered since");
    hear(&mut replica, 2, now);
    assert_eq!(changed(&mut replica, now), [1, 2]);
}

#[test]
fn drops_are_remembered_for_as_long_as_they_may_count() {
    let (now, mut replica, _) = primary();
    let now = now + Duration::from_secs(60);
    hear(&mut replica, 2, now);
    let span = PENALTY_WINDOW + PENALTY_TIME;
    let old = Moment(now.0 - span.as_micros() as u64);
    let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
    primary.drops = vec![(id(2), old), (id(2), Moment(old.0 + 1))];
    peer(&mut replica, 3).heard = None;
    assert_eq!(changed(&mut replica, now), [1, 2]);
    let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
    assert_eq!(primary.drops, [(id(2), Moment(old.0 + 1)), (id(3), now)]);
}

#[test]
fn of_two_that_are_lost_neither_is_dropped() {
    let (now, mut replica, _) = primary();
    lose(&mut replica, 2, now);
    lose(&mut replica, 3, now);
    assert_eq!(changed(&mut replica, now), [1, 2, 3]);
    let later = now + replica.peer_timeout();
    assert!(matches!(replica.role, Role::Primary(_)), "it has its T");
    changed(&mut replica, just_before(later));
    assert!(matches!(replica.role, Role::Primary(_)));
    changed(&mut replica, later);
    assert!(matches!(replica.role, Role::Follower(_)), "no majority was heard for T");
}

#[test]
fn a_loss_that_is_over_is_forgotten() {
    let (now, mut replica, _) = primary();
    let link = peer(&mut replica, 3).link.clone();
    lose(&mut replica, 3, now);
    hear(&mut replica, 2, just_before(now));
    changed(&mut replica, now);
    let back = now + Duration::from_millis(5);
    peer(&mut replica, 3).link = link;
    hear(&mut replica, 3, back);
    assert_eq!(changed(&mut replica, back), [1, 2, 3]);
    let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
    assert!(!primary.has_loss && primary.lost_at == [None; 3]);
    let again = now + Duration::from_millis(10);
    lose(&mut replica, 3, again);
    hear(&mut replica, 2, back);
    assert_eq!(changed(&mut replica, again), [1, 2, 3], "asked anew after the new loss");
}

#[test]
fn who_was_dropped_three_times_in_a_minute_waits_half_a_minute() {
    let (now, mut replica, _) = primary();
    let ago = |seconds: u64| Moment(now.0 - seconds * 1_000_000);
    let mut penalized = |drops: &[(u8, u64)], after: Duration| {
        let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
        primary.drops = drops.iter().map(|(n, seconds)| (id(*n), ago(*seconds))).collect();
        replica.is_penalized(id(3), now + after)
    };
    let within = PENALTY_WINDOW.as_secs() - 1;
    let all = [(3, within), (3, 10), (3, 0)];
    assert!(penalized(&all, Duration::ZERO));
    assert!(penalized(&all, PENALTY_TIME - Duration::from_micros(1)));
    assert!(!penalized(&all, PENALTY_TIME));
    assert!(!penalized(&[(3, 10), (3, 0)], Duration::ZERO), "twice");
    assert!(!penalized(&[(3, within + 1), (3, 10), (3, 0)], Duration::ZERO), "over a minute");
    assert!(!penalized(&[(3, 20), (2, 10), (3, 0)], Duration::ZERO), "another one");
    assert!(penalized(&[(3, within), (2, 12), (3, 10), (3, 0)], Duration::ZERO));
}

#[test]
fn every_drop_but_an_announced_one_counts_towards_the_penalty() {
    let (now, replica, _) = primary();
    let drops = |change: &dyn Fn(&mut Replica)| {
        let mut replica = replica.clone();
        change(&mut replica);
        assert_eq!(changed(&mut replica, now), [1, 2]);
        let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
        primary.drops.clone()
    };
    assert_eq!(drops(&|r| lose(r, 3, now)), [(id(3), now)]);
    assert_eq!(drops(&|r| peer(r, 3).health.stopping = true), []);
    assert_eq!(drops(&|r| peer(r, 3).heard = None), [(id(3), now)]);
}

#[test]
fn one_change_at_a_time() {
    let (now, mut replica, _) = primary();
    lose(&mut replica, 3, now);
    assert_eq!(changed(&mut replica, now), [1, 2]);
    // The drop is not committed, so the primary waits for server 2.
    lose(&mut replica, 2, now);
    let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
    primary.since = now;
    assert_eq!(changed(&mut replica, now), [1, 2, 3], "withdrawn: any of two may come");
    let last = replica.last();
    assert_eq!(changed(&mut replica, now), [1, 2, 3]);
    assert_eq!(replica.last(), last, "nothing more before that is committed");
}

/// Returns a primary whose newest config, uncommitted, is `newest`, after a committed one of
/// `before`.
fn uncommitted(before: &[u8], newest: &[u8]) -> (Moment, Replica) {
    let (now, mut replica, _) = primary();
    let all = *replica.config().unwrap();
    for ids in [before, newest] {
        let members = ids.iter().map(|n| all.member(id(*n)).unwrap());
        let config = Config::new(members, true);
        replica.append_config(replica.vote.term, WallTime(0), config, &mut Out::default());
        if ids == before {
            replica.committed = replica.last();
        }
    }
    replica.flushed = replica.last();
    (now, replica)
}

#[test]
fn what_can_not_be_committed_is_withdrawn_if_that_helps() {
    for (before, newest, lost, members) in [
        (&[1u8, 2, 3] as &[u8], &[1u8, 2] as &[u8], &[2u8] as &[u8], &[1u8, 2, 3] as &[u8]),
        (&[1, 2, 3], &[1, 2], &[], &[1, 2]), // 2 may still store it
        (&[1, 2, 3], &[1, 2], &[2, 3], &[1, 2, 3]), // either one may return
        (&[1], &[1, 2], &[2], &[1]),
        (&[1], &[1, 2], &[], &[1, 2]),
        (&[1, 2], &[1, 2, 3], &[3], &[1, 2, 3]), // 1 and 2 are a majority
        (&[1, 2], &[1, 2, 3], &[2, 3], &[1, 2, 3]), // [1, 2] would need 2 as well
        (&[2, 3], &[1, 2, 3], &[2, 3], &[1, 2, 3]), // never to a config without 1
    ] {
        let (now, mut replica) = uncommitted(before, newest);
        lost.iter().for_each(|n| lose(&mut replica, *n, now));
        let what = format!("{before:?} {newest:?} without {lost:?}");
        let written = replica.last();
        assert_eq!(changed(&mut replica, now), members, "{what}");
        assert_eq!(replica.last() > written, members != newest, "{what}");
    }
}

#[test]
fn who_was_withdrawn_counts_as_dropped_and_is_asked_anew() {
    let (now, mut replica) = uncommitted(&[1], &[1, 2]);
    let two = replica.config().unwrap().member(id(2)).unwrap();
    let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
    primary.drops.clear();
    primary.progress_mut(two).unwrap().caught_up = true;
    lose(&mut replica, 2, now);
    assert_eq!(changed(&mut replica, now), [1]);
    let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
    assert_eq!(primary.drops, [(id(2), now)]);
    assert!(!primary.progress(two).unwrap().caught_up);
    // The withdrawal of a drop counts against no server.
    let (now, mut replica) = uncommitted(&[1, 2, 3], &[1, 2]);
    lose(&mut replica, 2, now);
    assert_eq!(changed(&mut replica, now), [1, 2, 3]);
    let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
    assert_eq!(primary.drops, []);
}

#[test]
fn a_promise_holds_back_every_change_but_the_drop_of_one_that_is_gone() {
    let promise = |replica: &mut Replica, now: Moment| {
        replica.promised_until = now + Duration::from_millis(5);
    };
    let (now, healthy, _) = primary();
    let after = |change: &dyn Fn(&mut Replica)| {
        let mut replica = healthy.clone();
        promise(&mut replica, now);
        change(&mut replica);
        let at_once = changed(&mut replica, now);
        let later = Some(now + Duration::from_millis(5));
        for peer in replica.peers.iter_mut().filter(|peer| peer.heard.is_some()) {
            (peer.heard, peer.answered) = (later, later);
        }
        (at_once, changed(&mut replica, now + Duration::from_millis(5)))
    };
    let (three, two) = (vec![1, 2, 3], vec![1, 2]);
    assert_eq!(after(&|r| lose(r, 3, now)), (two.clone(), two.clone()));
    assert_eq!(after(&|r| peer(r, 3).health.stopping = true), (three.clone(), two.clone()));
    assert_eq!(after(&|r| peer(r, 3).heard = None), (three, two));
    let (now, mut replica) = uncommitted(&[1], &[1, 2]);
    promise(&mut replica, now);
    lose(&mut replica, 2, now);
    assert_eq!(changed(&mut replica, now), [1, 2]);
    assert_eq!(changed(&mut replica, now + Duration::from_millis(5)), [1]);
}

#[test]
fn a_learner_is_added_when_it_has_caught_up_is_heard_and_not_lost() {
    let (now, _, _) = primary();
    let ready = || {
        let (_, mut replica) = uncommitted(&[1, 2], &[1, 2]);
        (replica.committed, replica.acknowledged, replica.stored) =
            (replica.last(), replica.last(), replica.last());
        let three = replica.peers.iter().find(|p| p.id == id(3)).unwrap().link.as_ref().unwrap();
        let three = three.member;
        let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
        primary.progress_mut(three).unwrap().caught_up = true;
        replica
    };
    let added = |change: &dyn Fn(&mut Replica)| {
        let mut replica = ready();
        change(&mut replica);
        changed(&mut replica, now) == [1, 2, 3]
    };
    let caught_up = |r: &mut Replica, caught_up: bool| {
        let three = r.peers.iter().find(|p| p.id == id(3)).unwrap().link.as_ref().unwrap().member;
        let Role::Primary(primary) = &mut r.role else { panic!("1 is primary") };
        primary.progress_mut(three).unwrap().caught_up = caught_up;
    };
    let drops = |r: &mut Replica, of: u8| {
        let Role::Primary(primary) = &mut r.role else { panic!("1 is primary") };
        primary.drops = vec![(id(of), now); 3];
    };
    assert!(added(&|_| ()));
    assert!(!added(&|r| caught_up(r, false)));
    assert!(!added(&|r| peer(r, 3).heard = None));
    assert!(!added(&|r| peer(r, 3).health.stopping = true));
    assert!(!added(&|r| peer(r, 3).health.full = true));
    assert!(!added(&|r| drops(r, 3)), "it is penalized");
    assert!(added(&|r| drops(r, 2)));
    assert!(!added(&|r| r.stopping = Some(now)));
    assert!(!added(&|r| {
        r.begin_handover(now, Rule::HandedOverOrder);
    }));
    assert!(!added(&|r| r.promised_until = now + Duration::from_millis(1)));
    // If the config holds the learner's id with another disk, that disk is dropped first.
    let mut replica = ready();
    peer(&mut replica, 2).link.as_mut().unwrap().member.disk.0 ^= 1;
    let strange = peer(&mut replica, 2).link.as_ref().unwrap().member;
    replica.on_linked(now, strange, ProcessId(9));
    let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
    primary.progress_mut(strange).unwrap().caught_up = true;
    caught_up(&mut replica, false);
    assert_eq!(changed(&mut replica, now), [1]);
}
