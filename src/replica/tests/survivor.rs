//! `last_survivor = "auto"`: every part of the evidence is necessary, and a primary promises only
//! what it can keep.

use super::*;

const RUN: Run = Run { incarnation: Incarnation(1), process: ProcessId(1) };

/// Returns a group of two with a promise: its world, primary and backup.
fn two() -> (World, Replica, Replica) {
    let mut world = formed_with(8, true);
    world.crash(3);
    world.wait_members(3_000, 2);
    world.run(1_000);
    let (one, two) = (world.running[&1].replica.clone(), world.running[&2].replica.clone());
    assert!(matches!(one.role, Role::Primary(_)));
    (world, one, two)
}

fn evidence(backup: &mut Replica) -> &mut Evidence {
    backup.evidence[0].as_mut().unwrap()
}

/// Simulates the primary's death: its link is lost, and a dial started after that is refused.
fn sees_it_die(backup: &mut Replica, now: Moment) {
    let at = backup.peers.iter().position(|peer| peer.id == id(1)).unwrap();
    backup.lose_link(now, at, None, &mut Out::default());
    backup.on_dial_failed(now, id(1), DialFailure::Refused);
}

fn goes_on(backup: &mut Replica, now: Moment) -> bool {
    let mut out = Out::default();
    backup.tick_survivor(now, WallTime(0), &mut out);
    let alone = backup.config().unwrap().count() == 1;
    assert_eq!(alone, backup.vote.founder == Some(backup.me.disk));
    alone
}

#[test]
fn who_has_all_the_evidence_goes_on_alone() {
    let (world, _, backup) = two();
    let now = world.now;
    let after = |change: &dyn Fn(&mut Replica)| {
        let mut backup = backup.clone();
        sees_it_die(&mut backup, now);
        change(&mut backup);
        goes_on(&mut backup, now)
    };
    assert!(after(&|_| ()));
    assert!(!after(&|b| b.shared.survivor_auto = false), "ask");
    assert!(!after(&|b| b.stopping = Some(now)), "it ends itself");
    assert!(!after(&|b| evidence(b).promised = None), "nothing was promised");
    assert!(!after(&|b| evidence(b).answered_there = false), "it never acknowledged there");
    assert!(!after(&|b| evidence(b).refused = 0), "no dial was refused");
    assert!(!after(&|b| evidence(b).older_dials = Some(1)), "the one refused was begun before");
    assert!(!after(&|b| evidence(b).older_dials = None), "the link is not lost");
    assert!(!after(&|b| evidence(b).member.disk.0 ^= 1), "of another disk");
    assert!(!after(&|b| b.vote.term = b.vote.term.next_epoch(id(1))), "heard of a later history");
    let (at, until) = evidence(&mut backup.clone()).promised.unwrap();
    let other = Position { index: at.index.before(), ..at };
    assert!(!after(&|b| evidence(b).promised = Some((other, until))), "of another config");
    assert!(!after(&|b| evidence(b).promised = Some((at, now))), "it has run out");
    assert!(after(&|b| evidence(b).promised = Some((at, Moment(now.0 + 1)))));
    // The primary is still linked.
    let mut linked = backup.clone();
    let known = evidence(&mut linked);
    (known.older_dials, known.refused) = (Some(0), 1);
    assert!(!goes_on(&mut linked, now));
    // This server is not a member, or one of three.
    let config = |change: &dyn Fn(&Config) -> Config| {
        after(&|b: &mut Replica| {
            let changed = change(b.config().unwrap());
            b.append_config(b.vote.term, WallTime(0), changed, &mut Out::default());
            let at = b.summary.position(b.last());
            evidence(b).promised = Some((at, until));
        })
    };
    assert!(config(&|two| two.restated()));
    assert!(!config(&|two| two.with(Member { id: id(3), disk: DiskId(3) }, RUN)));
    assert!(!config(&|two| two.without(id(2)).with(Member { id: id(3), disk: DiskId(3) }, RUN)));
}

#[test]
fn a_new_life_of_the_primary_makes_the_evidence_worthless() {
    let (world, _, backup) = two();
    let link = backup.peers.iter().find_map(|peer| peer.link.clone()).unwrap();
    let reached = |change: &dyn Fn(&mut peer::Link)| {
        let mut backup = backup.clone();
        let mut link = link.clone();
        change(&mut link);
        backup.note_evidence(&link);
        sees_it_die(&mut backup, world.now);
        goes_on(&mut backup, world.now)
    };
    assert!(reached(&|_| ()), "the same life");
    assert!(!reached(&|link| link.process.0 ^= 1));
    assert!(!reached(&|link| link.incarnation.0 += 1));
    assert!(!reached(&|link| link.member.disk.0 ^= 1));
}

#[test]
fn a_refusal_counts_only_after_the_loss() {
    let (world, _, mut backup) = two();
    backup.on_dial_failed(world.now, id(1), DialFailure::Refused);
    backup.note_refused(0);
    assert_eq!(evidence(&mut backup).refused, 0, "it is linked");
    sees_it_die(&mut backup, world.now);
    assert_eq!(evidence(&mut backup).refused, 1);
    backup.on_dial_failed(world.now, id(1), DialFailure::NoAnswer);
    assert_eq!(evidence(&mut backup).refused, 1, "a timeout is no refusal");
}

#[test]
fn a_promise_is_kept_for_half_of_t_after_the_ping_and_no_promise_does_not_take_it_back() {
    let (world, _, mut backup) = two();
    let one = backup.config().unwrap().member(id(1)).unwrap();
    let at = backup.summary.position(backup.last());
    let half = backup.peer_timeout() / 2;
    let later = world.now + half;
    let before = evidence(&mut backup).promised;
    backup.note_promise(later, one, later + half, Some(at));
    assert_eq!(evidence(&mut backup).promised, before, "a pong from the future");
    backup.note_promise(later, one, world.now, Some(at));
    assert_eq!(evidence(&mut backup).promised, Some((at, world.now + half)));
    backup.note_promise(later, one, world.now + half, None);
    assert_eq!(evidence(&mut backup).promised, Some((at, world.now + half)));
    let stranger = Member { disk: DiskId(1), ..one };
    backup.note_promise(later, stranger, world.now + half, Some(at));
    assert_eq!(evidence(&mut backup).promised, Some((at, world.now + half)), "another disk");
}

#[test]
fn a_primary_promises_to_the_other_of_two_while_its_config_is_answered() {
    let (world, primary, backup) = two();
    let (now, half) = (world.now + Duration::from_secs(9), primary.peer_timeout() / 2);
    let newest = primary.summary.config().map(|(index, _)| primary.summary.position(index));
    let promised = |to: Member, change: &dyn Fn(&mut Replica)| {
        let mut primary = primary.clone();
        change(&mut primary);
        let promised = primary.promise(to, now);
        assert_eq!(promised.is_some(), primary.promised_until == now + half);
        // A change waits for the last promise, and the primary gives no new one meanwhile.
        assert_eq!(primary.is_free_of_promises(now, &mut Out::default()), promised.is_none());
        assert_eq!(primary.withholds, promised.is_some() || primary.withholds);
        if promised.is_some() {
            assert_eq!(primary.promise(to, now), None);
            let out = &mut Out::default();
            assert!(!primary.is_free_of_promises(Moment((now + half).0 - 1), out));
            assert!(primary.is_free_of_promises(now + half, out));
        }
        promised
    };
    assert_eq!(promised(backup.me, &|_| ()), newest);
    assert_eq!(promised(backup.me, &|p| p.shared.survivor_auto = false), None);
    assert_eq!(promised(backup.me, &|p| p.withholds = true), None);
    assert_eq!(promised(Member { disk: DiskId(1), ..backup.me }, &|_| ()), None, "no member");
    let unanswered = |p: &mut Replica| p.acknowledged = p.summary.config().unwrap().0.before();
    assert_eq!(promised(backup.me, &unanswered), None);
    let three = |p: &mut Replica| {
        let with = p.config().unwrap().with(Member { id: id(3), disk: DiskId(3) }, RUN);
        p.append_config(p.vote.term, WallTime(0), with, &mut Out::default());
        p.acknowledged = p.last();
    };
    assert_eq!(promised(backup.me, &three), None, "of three");
    let mut follower = backup.clone();
    assert_eq!(follower.promise(primary.me, now), None, "a backup promises nothing");
}

#[test]
fn only_who_dialled_us_is_dialled_to_be_found_and_once() {
    let (_, _, backup) = two();
    let dials = |change: &dyn Fn(&mut Replica)| {
        let mut backup = backup.clone();
        change(&mut backup);
        let mut out = Out::default();
        let under_way = |backup: &Replica| backup.peer(id(1)).unwrap().dialling.under_way;
        let before = under_way(&backup);
        backup.seek_links(&mut out);
        backup.seek_links(&mut out);
        assert_eq!(under_way(&backup) - before, out.effects.len() as u32);
        out.effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Dial(to) if *to == id(1)))
            .count()
    };
    assert_eq!(dials(&|_| ()), 0, "it has acknowledged there");
    assert_eq!(dials(&|b| peer(b, 1).reached = false), 1);
}

/// A change does not wait for a promise that its receiver gives up.
#[test]
fn a_promise_that_is_given_up_holds_nothing_back() {
    let (world, primary, mut backup) = two();
    let now = world.now + Duration::from_secs(9);
    let link = backup.link_to(primary.me).unwrap();
    let asks = |primary: &mut Replica, now: Moment| {
        let mut out = Out::default();
        assert!(!primary.is_free_of_promises(now, &mut out));
        out.effects.iter().find_map(|effect| match effect {
            Effect::Send(_, Packet::AskRelease { asked }) => Some(*asked),
            _ => None,
        })
    };
    let mut wants = primary.clone();
    assert!(wants.promise(backup.me, now).is_some());
    let asked = asks(&mut wants, now).unwrap();
    assert_eq!(asks(&mut wants, now), None, "once");

    // The member that was asked has no promise left on which it could continue alone.
    let at = backup.summary.position(backup.last());
    backup.note_promise(now, primary.me, now, Some(at));
    let mut out = Out::default();
    backup.on_ask_release(now, primary.me, link, asked, &mut out);
    assert_eq!(out.effects, [Effect::Send(link, Packet::Released { asked })]);
    assert_eq!(evidence(&mut backup).promised, None);
    backup.note_promise(now, primary.me, now, Some(at));
    assert_eq!(evidence(&mut backup).promised, None, "for a ping from before");
    let later = now + Duration::from_millis(1);
    backup.note_promise(later, primary.me, later, Some(at));
    assert!(evidence(&mut backup).promised.is_some());

    // Only the other member's answer to this request counts, and only if no promise was given
    // since.
    let other = Member { disk: DiskId(1), ..backup.me };
    for (from, answer) in [(other, asked), (backup.me, asked + Duration::from_micros(1))] {
        let mut wants = wants.clone();
        wants.on_released(now, from, answer);
        assert!(!wants.is_free_of_promises(now, &mut Out::default()));
    }
    let mut again = wants.clone();
    again.withholds = false;
    assert!(again.promise(backup.me, now).is_some());
    again.on_released(now, backup.me, asked);
    assert!(!again.is_free_of_promises(now, &mut Out::default()));
    wants.on_released(now, backup.me, asked);
    assert!(wants.is_free_of_promises(now, &mut Out::default()));
}
