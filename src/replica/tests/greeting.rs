//! The first packet on a link, and how the refused server reacts to a refusal.

use super::*;

const LINK: LinkId = LinkId(99);

/// Returns server `n` of a healthy group whose primary is 1, its world, and a hello of server 3.
fn server(n: u8) -> (World, Replica, Hello) {
    let mut world = formed(8);
    world.run(3_000);
    let replica = world.running[&n].replica.clone();
    let three = &world.running[&3].replica;
    let hello = Hello {
        shared: three.shared,
        from: three.me,
        to: replica.me.id,
        incarnation: three.incarnation,
        process: three.process,
        serial: 1_000,
        has_other: true,
        term: three.vote.term,
        founder: three.vote.founder,
        last: three.summary.last(),
    };
    (world, replica, hello)
}

/// Returns the effects of the first packet on a link, which the server dialled to `dialled` or
/// accepted.
fn first(world: &World, replica: &mut Replica, dialled: Option<u8>, packet: Packet) -> Vec<Effect> {
    let log = &world.running[&2].disk.log;
    let mut out = Out::default();
    let begun = match dialled {
        Some(n) => Event::Dialled { link: LINK, to: id(n) },
        None => Event::Accepted { link: LINK },
    };
    replica.handle(world.now, WallTime(0), begun, log, &mut out);
    out.clear();
    let received = Event::Received { link: LINK, packet, records: &rest_of(&packet) };
    replica.handle(world.now, WallTime(0), received, log, &mut out);
    out.effects
}

fn closes(effects: &[Effect]) -> Option<Closing> {
    effects.iter().find_map(|effect| match effect {
        Effect::Close(LINK, why) => Some(*why),
        _ => None,
    })
}

#[test]
fn hellos_are_counted_and_speak_of_another_link() {
    let (world, mut replica, _) = server(2);
    let (one, two) = (replica.hello(id(3)), replica.hello(id(3)));
    assert_eq!(two.serial, one.serial + 1);
    assert!(one.has_other, "it is linked");
    peer(&mut replica, 3).link = None;
    assert!(!replica.hello(id(3)).has_other);
    replica.on_dialled(world.now, LINK, id(3), &mut Out::default());
    assert!(replica.hello(id(3)).has_other, "a dial that was taken is one");
}

#[test]
fn only_a_hello_may_come_first_and_on_accepted_links_an_order() {
    let (world, replica, _) = server(2);
    let group = replica.shared.group;
    let order = Packet::Order { group, order: Order::HandOver(None) };
    let unlinked = |dialled: Option<u8>, packet: Packet| {
        let mut replica = replica.clone();
        peer(&mut replica, 3).link = None;
        let effects = first(&world, &mut replica, dialled, packet);
        assert!(replica.pending.is_empty());
        // A dial that ended schedules the next one.
        let later = peer(&mut replica, 3).dialling.next.is_some();
        assert_eq!(later, dialled.is_some());
        effects
    };
    let told = unlinked(None, order);
    assert_eq!(told[0], Effect::Send(LINK, Packet::Verdict(Verdict::NotPrimary)));
    assert_eq!(closes(&told), Some(Closing::Spare));
    assert_eq!(closes(&unlinked(Some(3), order)), Some(Closing::Nonsense));
    for packet in [
        Packet::HigherTerm { term: Term(1) },
        Packet::Verdict(Verdict::Taken),
        Packet::Proofs,
        Packet::Blank { met: [DiskId(0); 3] },
    ] {
        for dialled in [None, Some(3)] {
            let effects = unlinked(dialled, packet);
            assert_eq!(closes(&effects), Some(Closing::Nonsense), "{packet:?}");
            assert_eq!(effects.len(), 1, "{packet:?}");
        }
    }
}

#[test]
fn a_hello_on_an_accepted_link_is_answered_and_on_a_dialled_one_it_is_the_answer() {
    let (world, replica, hello) = server(2);
    for dialled in [None, Some(3)] {
        let mut replica = replica.clone();
        peer(&mut replica, 3).link = None;
        let effects = first(&world, &mut replica, dialled, Packet::Hello(hello));
        let answers = effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Greet(LINK, own) if own.0.to == id(3)));
        assert_eq!(answers.count(), usize::from(dialled.is_none()));
        let link = peer(&mut replica, 3).link.clone().unwrap();
        assert_eq!((link.id, link.dialled), (LINK, dialled.is_some()));
    }
}

#[test]
fn a_dial_that_reaches_itself_counts_as_refused() {
    let (world, replica, hello) = server(2);
    let reached = |linked: bool, process: ProcessId| {
        let mut replica = replica.clone();
        if !linked {
            peer(&mut replica, 3).link = None;
        }
        peer(&mut replica, 3).met = false;
        let own = Hello { from: replica.me, to: id(3), process, ..hello };
        let effects = first(&world, &mut replica, Some(3), Packet::Hello(own));
        let three = peer(&mut replica, 3);
        (closes(&effects), three.refused, three.met)
    };
    assert_eq!(reached(false, replica.process), (Some(Closing::Nonsense), true, true));
    assert!(!reached(true, replica.process).1, "it is linked elsewhere");
    let twin = reached(false, ProcessId(77));
    assert!(!twin.1, "somebody else has the same id");
    assert!(matches!(twin.0, Some(Closing::Refused(_, Refusal::SameId))), "{twin:?}");
}

#[test]
fn who_is_refused_asks_again_later_and_only_an_old_copy_leaves() {
    let (world, replica, _) = server(2);
    let peer_timeout = replica.peer_timeout();
    for (why, leaves) in [
        (Refusal::Settings, false),
        (Refusal::Epoch, false),
        (Refusal::Straggler, false),
        (Refusal::OldCopy, true),
    ] {
        // The refusal arrives instead of the hello, and later, on the link in use.
        let mut greeted = replica.clone();
        peer(&mut greeted, 3).link = None;
        let effects = first(&world, &mut greeted, Some(3), Packet::Refused(why));
        assert_eq!(closes(&effects), Some(Closing::RefusedBy(Some(id(3)), why)));
        assert_eq!(
            effects.contains(&Effect::Quarantine(Quarantine::Everything)),
            leaves,
            "{why:?}"
        );

        let mut linked = replica.clone();
        let link = peer(&mut linked, 3).link.as_ref().unwrap().id;
        let mut out = Out::default();
        let event = Event::Received { link, packet: Packet::Refused(why), records: &[] };
        linked.handle(world.now, WallTime(0), event, &world.running[&2].disk.log, &mut out);
        assert!(peer(&mut linked, 3).link.is_none());
        assert_eq!(
            out.effects.contains(&Effect::Quarantine(Quarantine::Everything)),
            leaves,
            "{why:?}"
        );
        assert_eq!(linked.left, leaves);
        assert_eq!(
            peer(&mut linked, 3).dialling.delay,
            peer_timeout / 2,
            "it is not asked in a hurry"
        );
    }
    // A server that a majority follows is not an old copy, whatever one other server remembers.
    let (world, primary, _) = server(1);
    let refused = |now: Moment| {
        let mut primary = primary.clone();
        let link = peer(&mut primary, 3).link.as_ref().unwrap().id;
        primary.on_refused(now, link, Refusal::OldCopy, &mut Out::default());
        primary.left
    };
    assert!(!refused(world.now));
    assert!(refused(world.now + peer_timeout * 9), "nobody follows it any more");
}

#[test]
fn a_later_history_that_may_not_be_followed_yet_is_met_and_closed() {
    let (world, replica, hello) = server(2);
    let one = replica.config().unwrap().member(id(1)).unwrap();
    let later =
        Hello { term: hello.term.next_epoch(id(3)), founder: Some(hello.from.disk), ..hello };
    let greets = |change: &dyn Fn(&mut Replica)| {
        let mut replica = replica.clone();
        peer(&mut replica, 3).link = None;
        change(&mut replica);
        let effects = first(&world, &mut replica, Some(3), Packet::Hello(later));
        // Only a server that is not refused tells where it is: a copy with its id may be elsewhere.
        let is_known = peer(&mut replica, 3).epoch == Some(later.term.epoch());
        assert_eq!(is_known, !matches!(closes(&effects), Some(Closing::Refused(..))));
        (closes(&effects), replica.later_epoch.is_some(), replica.vote.term == later.term)
    };
    let refused = Closing::Refused(id(3), Refusal::Straggler);
    assert_eq!(greets(&|_| ()), (Some(refused), false, false), "1 is heard");
    assert_eq!(greets(&|r| r.leave_primary(one)), (Some(Closing::Spare), true, false));
    let long_met = |r: &mut Replica| {
        r.leave_primary(one);
        r.later_epoch = Some(Moment(0));
    };
    assert_eq!(greets(&long_met), (None, false, true));
}

#[test]
fn the_first_outcome_of_a_dial_is_looked_at_at_once() {
    let (world, replica, _) = server(2);
    for taken in [false, true] {
        for met in [false, true] {
            let mut replica = replica.clone();
            let three = peer(&mut replica, 3);
            (three.link, three.met, three.dialling.under_way) = (None, met, 1);
            if taken {
                replica.on_dialled(world.now, LINK, id(3), &mut Out::default());
            }
            replica.needs_tick = false;
            if taken {
                replica.on_ended(world.now, LINK, &mut Out::default());
            } else {
                replica.on_dial_failed(world.now, id(3), DialFailure::NoAnswer);
            }
            assert_eq!(replica.needs_tick, !met, "taken {taken}");
            assert!(peer(&mut replica, 3).met);
        }
    }
}
