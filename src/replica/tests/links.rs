//! Dials, their time limits, and the choice between two links.

use super::*;
use crate::limits::{DIAL_UNDECIDED_TIME, QUICK_DIALS_MAX, REDIAL_TIME, UNKNOWN_LINKS_MAX};
use crate::replica::past::Past;

/// Returns server 2, just started, that dials 1 and 3.
fn started() -> Replica {
    let mut world = World::new(5, 3);
    world.start(2);
    world.running.remove(&2).unwrap().replica
}

fn at(ms: u64) -> Moment {
    Moment(ms * MS)
}

fn dials(out: &mut Out, n: u8) -> usize {
    let count =
        out.effects.iter().filter(|e| matches!(e, Effect::Dial(to) if *to == id(n))).count();
    out.clear();
    count
}

/// Returns how often server 1 is dialled in a tick at this time.
fn tick(replica: &mut Replica, now: Moment) -> usize {
    let mut out = Out::default();
    replica.tick_links(now, &mut out);
    dials(&mut out, 1)
}

#[test]
fn an_undecided_dial_gets_a_second_one_beside_it_and_no_more() {
    let mut replica = started();
    assert_eq!(tick(&mut replica, at(0)), 1, "at once");
    assert_eq!(tick(&mut replica, Moment(DIAL_UNDECIDED_TIME.as_micros() as u64 - 1)), 0);
    assert_eq!(tick(&mut replica, Moment(DIAL_UNDECIDED_TIME.as_micros() as u64)), 1);
    assert_eq!(tick(&mut replica, at(10_000)), 0, "two are under way");
    replica.on_dial_failed(at(10_000), id(1), DialFailure::Refused);
    assert_eq!(tick(&mut replica, at(20_000)), 0, "one is");
    replica.on_dial_failed(at(20_000), id(1), DialFailure::Refused);
    assert_eq!(tick(&mut replica, at(21_000)), 1);
}

#[test]
fn a_dial_that_was_taken_and_not_greeted_counts_as_under_way() {
    let mut replica = started();
    assert_eq!(tick(&mut replica, at(0)), 1);
    replica.on_dialled(at(1), LinkId(1), id(1), &mut Out::default());
    assert_eq!(tick(&mut replica, at(5)), 1, "a dying process takes what it never answers");
    replica.on_dialled(at(6), LinkId(2), id(1), &mut Out::default());
    assert_eq!(tick(&mut replica, at(400)), 0);
    // Each link had a quarter of the peer timeout for its hello.
    let mut out = Out::default();
    replica.tick_links(Moment(at(501).0 - 1), &mut out);
    assert!(out.effects.iter().all(|effect| !matches!(effect, Effect::Close(..))));
    replica.tick_links(at(506), &mut out);
    let closed = |link: u64| Effect::Close(LinkId(link), Closing::Silent);
    assert!(out.effects.contains(&closed(1)) && out.effects.contains(&closed(2)));
}

#[test]
fn redials_come_later_each_time_up_to_half_of_t() {
    let mut replica = started();
    tick(&mut replica, at(0));
    let mut now = at(0);
    let (mut wanted, longest) = (REDIAL_TIME, replica.peer_timeout() / 2);
    for _ in 0..10 {
        peer(&mut replica, 1).dialling.under_way = 1;
        replica.on_dial_failed(now, id(1), DialFailure::Refused);
        let delay = peer(&mut replica, 1).dialling.next.unwrap() - now;
        assert!(delay >= wanted * 8 / 10 && delay <= wanted * 12 / 10, "{delay:?} for {wanted:?}");
        now = peer(&mut replica, 1).dialling.next.unwrap();
        assert_eq!(tick(&mut replica, now), 1);
        wanted = (wanted * 2).min(longest);
    }
    assert_eq!(wanted, longest);
}

#[test]
fn a_dial_that_ends_before_the_hello_is_begun_again_at_once_but_not_for_ever() {
    let mut replica = started();
    tick(&mut replica, at(0));
    let mut at_once = 0;
    for n in 1..200 {
        let mut out = Out::default();
        replica.on_dialled(at(1), LinkId(n), id(1), &mut out);
        replica.on_ended(at(1), LinkId(n), &mut out);
        if dials(&mut out, 1) == 0 {
            break;
        }
        at_once += 1;
    }
    assert_eq!(at_once, QUICK_DIALS_MAX);
    assert!(peer(&mut replica, 1).dialling.next.is_some_and(|next| next > at(30)), "later");
}

#[test]
fn only_a_refusal_without_a_link_tells_that_a_server_is_gone() {
    let world = formed(8);
    let mut replica = world.running[&2].replica.clone();
    let one = replica.config().unwrap().member(id(1)).unwrap();
    replica.on_dial_failed(world.now, id(1), DialFailure::Refused);
    assert!(!replica.is_gone(one), "it is linked");
    let lost = replica.peers.iter().position(|peer| peer.id == id(1)).unwrap();
    let mut out = Out::default();
    replica.lose_link(world.now, lost, None, &mut out);
    let asked = out.effects.iter().filter(|e| matches!(e, Effect::Send(_, Packet::Ping { .. })));
    assert_eq!(asked.count(), 1, "who is left is asked whether it is there");
    assert_eq!(dials(&mut out, 1), 1, "and this one at once");
    replica.on_dial_failed(world.now, id(1), DialFailure::NoAnswer);
    assert!(!replica.is_gone(one), "a timeout tells nothing");
    peer(&mut replica, 1).dialling.under_way = 1;
    replica.on_dial_failed(world.now, id(1), DialFailure::Refused);
    assert!(replica.is_gone(one));
}

#[test]
fn after_a_start_nobody_stands_before_every_dial_has_an_outcome_or_t() {
    let world = formed(8);
    let stored = &world.running[&2].replica;
    let restarted = |outcomes: &dyn Fn(&mut Replica)| {
        let mut replica = stored.clone();
        replica.leave_primary(replica.config().unwrap().member(id(1)).unwrap());
        replica.started = world.now;
        replica.peers.iter_mut().for_each(|peer| peer.met = false);
        outcomes(&mut replica);
        replica
    };
    let stands = |replica: &Replica, now: Moment| {
        let mut replica = replica.clone();
        replica.consider_campaign(now);
        replica.timers.is_set(Timer::Campaign)
    };
    let replica = restarted(&|_| ());
    let end = world.now + replica.peer_timeout();
    assert!(!stands(&replica, world.now) && !stands(&replica, Moment(end.0 - 1)));
    assert!(stands(&replica, end));
    assert!(!stands(&restarted(&|r| peer(r, 1).met = true), world.now), "3 may know more");
    type Ways<'a> = [(&'a str, &'a dyn Fn(&mut Replica)); 3];
    let ways: Ways<'_> = [
        ("refused", &|r| {
            for n in [1, 3] {
                peer(r, n).dialling.under_way = 1;
                r.on_dial_failed(r.started, id(n), DialFailure::Refused);
            }
        }),
        ("timed out", &|r| {
            (1..=3).for_each(|n| r.on_dial_failed(r.started, id(n), DialFailure::NoAnswer));
        }),
        ("linked", &|r| {
            let log = &world.running[&2].disk.log;
            for (n, from) in [1, 3].into_iter().enumerate() {
                let link = LinkId(900 + n as u64);
                let mut out = Out::default();
                let accepted = Event::Accepted { link };
                r.handle(world.now, WallTime(0), accepted, log, &mut out);
                let hello = hello_of(&world, from, r);
                let packet = Packet::Hello(hello);
                let received = Event::Received { link, packet, records: &rest_of(&packet) };
                r.handle(world.now, WallTime(0), received, log, &mut out);
            }
            r.leave_primary(r.config().unwrap().member(id(1)).unwrap());
        }),
    ];
    for (name, outcomes) in ways {
        let mut replica = restarted(outcomes);
        assert!(replica.peers.iter().all(|peer| peer.met), "{name}");
        // Another rule covers whether they are linked.
        replica.peers.clone_from(&stored.peers);
        replica.peers.iter_mut().for_each(|peer| peer.met = true);
        assert!(stands(&replica, world.now), "{name}");
    }
}

fn hello_of(world: &World, n: u8, to: &Replica) -> Hello {
    let from = &world.running[&n].replica;
    Hello {
        shared: from.shared,
        from: from.me,
        to: to.me.id,
        incarnation: from.incarnation,
        process: from.process,
        serial: 1_000,
        has_other: false,
        term: from.vote.term,
        founder: from.vote.founder,
        last: from.summary.last(),
    }
}

#[test]
fn what_is_heard_counts_from_when_it_was_asked_and_never_falls() {
    let world = formed(8);
    let mut replica = world.running[&2].replica.clone();
    let heard = |replica: &mut Replica| peer(replica, 1).heard.unwrap();
    peer(&mut replica, 1).heard = Some(at(5_000));
    let slot = replica.peers.iter().position(|peer| peer.id == id(1)).unwrap();
    replica.on_pong(slot, at(6_000), at(6_500), &mut Out::default());
    assert_eq!(heard(&mut replica), at(6_000));
    replica.on_pong(slot, at(5_500), at(6_600), &mut Out::default());
    assert_eq!(heard(&mut replica), at(6_000), "an older answer");
    replica.on_pong(slot, at(7_000), at(6_700), &mut Out::default());
    assert_eq!(heard(&mut replica), at(6_000), "from the future");
    replica.on_pong(slot, at(6_700), at(6_700), &mut Out::default());
    assert_eq!(heard(&mut replica), at(6_700));
}

#[test]
fn a_primary_that_waits_for_an_answer_after_a_loss_looks_at_it_at_once() {
    let world = formed(8);
    let looks = |loss: bool, sent: Moment| {
        let mut primary = world.running[&1].replica.clone();
        let Role::Primary(leads) = &mut primary.role else { panic!("1 is primary") };
        leads.has_loss = loss;
        primary.peers[0].heard = Some(Moment(1));
        primary.needs_tick = false;
        primary.on_pong(0, sent, world.now, &mut Out::default());
        primary.needs_tick
    };
    assert!(looks(true, world.now) && !looks(false, world.now));
    assert!(!looks(true, Moment(1)), "nothing new");
}

#[test]
fn a_new_link_forgets_what_the_old_one_said_but_not_which_dials_are_under_way() {
    let mut known = Peer::new(id(1), at(0));
    known.refused = true;
    known.health.stopping = true;
    (known.said_blank, known.told_blank) = (Some([DiskId(1); 3]), Some([DiskId(1); 3]));
    (known.dialling.under_way, known.dialling.quick) = (2, 9);
    known.begin_anew();
    assert!(!known.refused && !known.health.stopping);
    assert!(known.said_blank.is_none() && known.told_blank.is_none());
    assert_eq!((known.dialling.under_way, known.dialling.quick), (2, 0));
}

#[test]
fn a_silent_link_is_closed_after_t() {
    let world = formed(8);
    let mut replica = world.running[&2].replica.clone();
    let link = peer(&mut replica, 3).link.as_ref().unwrap().id;
    let peer_timeout = replica.peer_timeout();
    let closes = |now: Moment| {
        let mut replica = replica.clone();
        replica.peers.iter_mut().for_each(|peer| peer.heard = Some(now));
        peer(&mut replica, 3).heard = Some(world.now);
        replica.timers.set(Timer::Ping, now);
        let mut out = Out::default();
        replica.tick_links(now, &mut out);
        let closed: Vec<&Effect> =
            out.effects.iter().filter(|effect| matches!(effect, Effect::Close(..))).collect();
        assert!(closed.is_empty() || closed == [&Effect::Close(link, Closing::Silent)]);
        !closed.is_empty()
    };
    assert!(!closes(Moment((world.now + peer_timeout).0 - 1)));
    assert!(closes(world.now + peer_timeout));
}

#[test]
fn strangers_that_say_nothing_are_bounded() {
    let mut replica = started();
    let mut out = Out::default();
    for n in 0..UNKNOWN_LINKS_MAX as u64 {
        replica.on_accepted(at(0), LinkId(n), &mut out);
    }
    assert!(out.effects.is_empty());
    replica.on_accepted(at(0), LinkId(99), &mut out);
    assert_eq!(out.effects, [Effect::Close(LinkId(99), Closing::Silent)]);
    // This server's own dials do not count.
    replica.on_dialled(at(0), LinkId(100), id(1), &mut out);
    assert_eq!(replica.pending.len(), UNKNOWN_LINKS_MAX + 1);
}

#[test]
fn of_two_links_between_the_same_lives_one_stays_and_both_sides_choose_it() {
    // Server 2 chooses between links with 1, whose dials win, and with 3, over which it wins
    // itself.
    let first = |other: u8, dialled: bool, has_other: bool, serial: u64| peer::Link {
        id: LinkId(serial),
        dialled,
        member: Member { id: id(other), disk: DiskId(7) },
        incarnation: Incarnation(1),
        process: ProcessId(1),
        serial,
        has_other,
    };
    let stays = |old: peer::Link, new: peer::Link| {
        let mut replica = started();
        let mut out = Out::default();
        let (first, second) = (old.id, new.id);
        replica.establish(at(1), old, &Past::default(), &mut out);
        replica.establish(at(2), new, &Past::default(), &mut out);
        let at = replica.peers.iter().position(|peer| peer.link.is_some()).unwrap();
        let stays = replica.peers[at].link.as_ref().unwrap().id;
        let spare = if stays == second { first } else { second };
        assert!(out.effects.contains(&Effect::Close(spare, Closing::Spare)));
        stays == second
    };
    for other in [1, 3] {
        for (dialled, again) in [(true, true), (true, false), (false, true), (false, false)] {
            // Neither side knew of another link: the sender of the later hello knows that the
            // first is lost.
            assert!(stays(first(other, dialled, true, 5), first(other, again, false, 6)));
            // The hellos crossed: the earlier one named no other link, and arrived later.
            assert!(!stays(first(other, dialled, false, 6), first(other, again, true, 5)));
            let wins = |dialled: bool| dialled == (other == 3);
            let (old, new) = (first(other, dialled, true, 5), first(other, again, true, 6));
            let wanted = if dialled == again { true } else { wins(again) };
            assert_eq!(stays(old.clone(), new.clone()), wanted, "{other} {dialled} {again}");
            let wanted = if dialled == again { false } else { wins(dialled) };
            assert_eq!(stays(new, old), wanted, "{other} {dialled} {again}, crossed");
        }
        let old = first(other, true, true, 9);
        for change in [
            (|link| link.incarnation.0 += 1) as fn(&mut peer::Link),
            |link| link.process.0 += 1,
            |link| link.member.disk.0 += 1,
        ] {
            let mut new = first(other, false, true, 1);
            change(&mut new);
            assert!(stays(old.clone(), new), "another life has no use for the old link");
        }
    }
}

#[test]
fn a_primary_that_is_back_in_a_later_life_leads_no_more() {
    let world = formed(8);
    let replica = &world.running[&2].replica;
    let one = replica.config().unwrap().member(id(1)).unwrap();
    let old = replica.peers.iter().find(|peer| peer.id == id(1)).unwrap().link.clone().unwrap();
    let led_after = |change: &dyn Fn(&mut peer::Link)| {
        let mut replica = replica.clone();
        let mut link = peer::Link { id: LinkId(99), serial: old.serial + 1, ..old.clone() };
        change(&mut link);
        let (runs, mut out) = (vec![link.run()], Out::default());
        replica.establish(world.now, link, &Past { runs, ..Past::default() }, &mut out);
        let seen = out.effects.iter().any(|effect| matches!(effect, Effect::RecordIncarnation(..)));
        let Role::Follower(following) = &replica.role else { panic!("2 follows") };
        (following.primary == Some(one), seen)
    };
    assert_eq!(led_after(&|_| ()), (true, false), "the same life");
    assert_eq!(led_after(&|link| link.incarnation.0 += 1), (false, true));
    assert_eq!(led_after(&|link| link.process.0 += 1), (false, true));
    assert_eq!(led_after(&|link| link.member.disk.0 += 1), (false, true));
}

#[test]
fn a_dial_that_is_not_needed_any_more_is_closed_unless_it_seeks_evidence() {
    let world = formed(8);
    let replica = &world.running[&2].replica;
    let greets = |change: &dyn Fn(&mut Replica)| {
        let mut replica = replica.clone();
        change(&mut replica);
        let mut out = Out::default();
        replica.on_dialled(world.now, LinkId(99), id(1), &mut out);
        match &out.effects[..] {
            [Effect::Greet(LinkId(99), greeting)] => {
                assert_eq!((greeting.0.to, replica.pending.len()), (id(1), 1));
                true
            }
            [Effect::Close(LinkId(99), Closing::Spare)] => false,
            _ => panic!("{out:?}"),
        }
    };
    assert!(!greets(&|_| ()), "there is a link");
    assert!(greets(&|r| peer(r, 1).link = None));
    assert!(greets(&|r| peer(r, 1).dialling.seeking = true));
}

#[test]
fn what_a_blank_server_said_of_the_disks_is_said_anew_on_a_new_link_only() {
    let mut replica = started();
    let own = replica.me.disk;
    let mut out = Out::default();
    let link = |other: u8, disk: u128| peer::Link {
        id: LinkId(u64::from(other)),
        dialled: true,
        member: Member { id: id(other), disk: DiskId(disk) },
        incarnation: Incarnation(1),
        process: ProcessId(1),
        serial: 1,
        has_other: false,
    };
    let mut told = |replica: &mut Replica| {
        out.clear();
        replica.tick_formation(at(1), &mut out);
        out.effects.iter().find_map(|effect| match effect {
            Effect::Send(LinkId(1), Packet::Blank { met }) => Some(Ok(*met)),
            Effect::Close(LinkId(1), why) => Some(Err(*why)),
            _ => None,
        })
    };
    replica.establish(at(1), link(1, 11), &Past::default(), &mut Out::default());
    assert_eq!(told(&mut replica), None, "3 was not met");
    replica.establish(at(1), link(3, 33), &Past::default(), &mut Out::default());
    assert_eq!(told(&mut replica), Some(Ok([DiskId(11), own, DiskId(33)])));
    assert_eq!(told(&mut replica), None, "once");
    peer(&mut replica, 3).link.as_mut().unwrap().member.disk = DiskId(34);
    assert_eq!(told(&mut replica), Some(Err(Closing::Restated)), "it can't be taken back");
    assert!(peer(&mut replica, 1).link.is_none());
    replica.establish(at(1), link(1, 11), &Past::default(), &mut Out::default());
    assert_eq!(told(&mut replica), Some(Ok([DiskId(11), own, DiskId(34)])));
}
