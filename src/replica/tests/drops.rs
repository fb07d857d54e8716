//! When a member counts as lost, when it is dropped, and what must be known before.

use super::*;
use crate::limits::{PENALTY_TIME, PENALTY_WINDOW};

/// Server 1, primary of a healthy group for long, who has just heard both.
fn primary() -> (Moment, Replica, FakeLog) {
    let world = formed(8);
    let mut replica = world.running[&1].replica.clone();
    let now = world.now + Duration::from_secs(60);
    replica.peers.iter_mut().for_each(|peer| peer.heard = Some(now));
    (now, replica, world.running[&1].disk.log.clone())
}

fn peer(replica: &mut Replica, n: u8) -> &mut Peer {
    replica.peers.iter_mut().find(|peer| peer.id == id(n)).unwrap()
}

fn lose(replica: &mut Replica, n: u8, at: Moment) {
    let peer = peer(replica, n);
    (peer.link, peer.refused, peer.lost_at) = (None, true, Some(at));
}

fn members(replica: &Replica) -> Vec<u8> {
    replica.config().unwrap().members().map(|member| member.id.number()).collect()
}

/// What the members are after a look at `now`.
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
    let silence = replica.silence();
    type Change = fn(&mut Replica, Moment, &FakeLog);
    let table: [(&str, Change, Duration); 5] = [
        ("gone", |r, now, _| lose(r, 3, now), Duration::ZERO),
        (
            "another disk",
            |r, _, _| peer(r, 3).link.as_mut().unwrap().member.disk.0 ^= 1,
            Duration::ZERO,
        ),
        ("stopping", |r, _, _| peer(r, 3).bearing.stopping = true, Duration::ZERO),
        ("unheard", |_, _, _| (), silence),
        (
            "sick",
            |r, now, log| {
                r.propose(WallTime(0), Kind::MESSAGE, |_| (), &mut Out::default()).unwrap();
                r.send_all(now, log, &mut Out::default());
            },
            silence,
        ),
    ];
    for (name, change, after) in table {
        let mut replica = replica.clone();
        change(&mut replica, now, &log);
        let at = |now: Moment| {
            let mut replica = replica.clone();
            peer(&mut replica, 2).heard = Some(now);
            if name != "unheard" {
                peer(&mut replica, 3).heard = Some(now);
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
    let silence = replica.silence();
    peer(&mut replica, 3).heard = None;
    let after = |since: Moment| {
        let mut replica = replica.clone();
        let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
        primary.since = since;
        changed(&mut replica, now)
    };
    let elected = Moment(now.0 - silence.as_micros() as u64);
    assert_eq!(after(Moment(elected.0 + 1)), [1, 2, 3]);
    assert_eq!(after(elected), [1, 2]);
}

#[test]
fn from_three_to_two_the_other_one_must_have_answered_after_the_loss() {
    let (now, mut replica, _) = primary();
    lose(&mut replica, 3, now);
    let later = now + Duration::from_millis(5);
    peer(&mut replica, 2).heard = Some(just_before(now));
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
    peer(&mut replica, 2).heard = Some(now);
    assert_eq!(changed(&mut replica, later), [1, 2]);
}

#[test]
fn of_two_that_are_lost_neither_is_dropped() {
    let (now, mut replica, _) = primary();
    lose(&mut replica, 2, now);
    lose(&mut replica, 3, now);
    assert_eq!(changed(&mut replica, now), [1, 2, 3]);
    let later = now + replica.silence();
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
    peer(&mut replica, 2).heard = Some(just_before(now));
    changed(&mut replica, now);
    let back = now + Duration::from_millis(5);
    (peer(&mut replica, 3).link, peer(&mut replica, 3).heard) = (link, Some(back));
    assert_eq!(changed(&mut replica, back), [1, 2, 3]);
    let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
    assert!(!primary.has_loss && primary.lost_at == [None; 3]);
    let again = now + Duration::from_millis(10);
    lose(&mut replica, 3, again);
    peer(&mut replica, 2).heard = Some(back);
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
fn only_silence_and_sickness_count_towards_the_penalty() {
    let (now, replica, _) = primary();
    let drops = |change: &dyn Fn(&mut Replica)| {
        let mut replica = replica.clone();
        change(&mut replica);
        assert_eq!(changed(&mut replica, now), [1, 2]);
        let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
        primary.drops.clone()
    };
    assert_eq!(drops(&|r| lose(r, 3, now)), []);
    assert_eq!(drops(&|r| peer(r, 3).bearing.stopping = true), []);
    assert_eq!(drops(&|r| peer(r, 3).heard = None), [(id(3), now)]);
}

#[test]
fn one_change_at_a_time() {
    let (now, mut replica, _) = primary();
    lose(&mut replica, 3, now);
    assert_eq!(changed(&mut replica, now), [1, 2]);
    // The drop is not committed: the other one is waited for.
    lose(&mut replica, 2, now);
    let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
    primary.since = now;
    assert_eq!(changed(&mut replica, now), [1, 2, 3], "withdrawn: any of two may come");
    let last = replica.last();
    assert_eq!(changed(&mut replica, now), [1, 2, 3]);
    assert_eq!(replica.last(), last, "nothing more before that is committed");
}
