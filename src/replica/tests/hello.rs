//! A server that must not count as a member is refused after its hello, with the reason.

use super::*;

const LINK: LinkId = LinkId(99);

/// Returns the answer of server 1, the primary of a healthy group, to a changed hello of server
/// 2.
fn answer_to(change: impl Fn(&mut Hello)) -> (Vec<Packet>, Replica) {
    let world = formed(3);
    let mut replica = world.running[&1].replica.clone();
    let two = &world.running[&2].replica;
    let mut hello = Hello {
        shared: two.shared,
        from: two.me,
        to: replica.me.id,
        incarnation: two.incarnation,
        process: two.process,
        serial: 1_000,
        has_other: false,
        term: two.vote.term,
        founder: two.vote.founder,
        last: two.summary.last(),
    };
    change(&mut hello);
    (say(&world, &mut replica, Packet::Hello(hello)), replica)
}

fn say(world: &World, replica: &mut Replica, packet: Packet) -> Vec<Packet> {
    let mut out = Out::default();
    let log = &world.running[&1].disk.log;
    let now = world.now + Duration::from_millis(1);
    let received = Event::Received { link: LINK, packet, records: &rest_of(&packet) };
    for event in [Event::Accepted { link: LINK }, received] {
        replica.handle(now, WallTime(0), event, log, &mut out);
    }
    let said = out.effects.iter().filter_map(|effect| match effect {
        Effect::Send(LINK, packet) => Some(*packet),
        Effect::Greet(LINK, greeting) => Some(Packet::Hello(greeting.0)),
        _ => None,
    });
    said.collect()
}

#[test]
fn a_hello_that_is_right_is_answered() {
    let (said, _) = answer_to(|_| ());
    assert!(matches!(said[..], [Packet::Hello(_), ..]), "{said:?}");
}

#[test]
fn every_wrong_hello_is_refused_for_its_own_reason() {
    type Change = fn(&mut Hello);
    let table: [(Change, Refusal, Rule); 12] = [
        (|h| h.shared.group.0 ^= 1, Refusal::Group, Rule::RefusedGroup),
        (|h| h.shared.peer_timeout_ms += 1, Refusal::Settings, Rule::RefusedSettings),
        (|h| h.shared.servers = 1, Refusal::Settings, Rule::RefusedSettings),
        (|h| h.shared.copies_min = 3, Refusal::Settings, Rule::RefusedSettings),
        (|h| h.shared.survivor_auto ^= true, Refusal::Settings, Rule::RefusedSettings),
        (|h| h.from.id = id(1), Refusal::SameId, Rule::RefusedSameId),
        (|h| h.to = id(3), Refusal::WrongId, Rule::RefusedWrongId),
        (|h| h.incarnation.0 -= 1, Refusal::OldCopy, Rule::RefusedOldIncarnation),
        (|h| h.process.0 ^= 1, Refusal::OldCopy, Rule::RefusedCopy),
        (
            |h| {
                // Its next incarnation lacks what this one acknowledged.
                (h.incarnation.0, h.process.0) = (h.incarnation.0 + 1, 77);
                h.last = Position::default();
            },
            Refusal::OldCopy,
            Rule::RefusedForgot,
        ),
        (|h| h.founder = Some(DiskId(1)), Refusal::Epoch, Rule::RefusedEpoch),
        (
            |h| (h.term, h.founder) = (h.term.next_epoch(id(2)), Some(h.from.disk)),
            Refusal::Straggler,
            Rule::RefusedStraggler,
        ),
    ];
    for (change, why, rule) in table {
        let (said, replica) = answer_to(change);
        assert!(matches!(said[..], [Packet::Refused(said)] if said == why), "{why:?}: {said:?}");
        let at = Rule::ALL.iter().position(|known| *known == rule).unwrap();
        assert_eq!(replica.decisions().0[at], 1, "{rule:?}");
    }
}

#[test]
fn another_version_is_refused() {
    let world = formed(3);
    let mut replica = world.running[&1].replica.clone();
    let said = say(&world, &mut replica, Packet::Foreign { version: 7 });
    assert!(matches!(said[..], [Packet::Refused(Refusal::Version)]), "{said:?}");
}

#[test]
fn a_shorter_log_is_an_old_copy_only_for_a_later_life_in_a_term_not_higher() {
    let later_life = |h: &mut Hello| (h.incarnation.0, h.process.0) = (h.incarnation.0 + 1, 77);
    let is_refused = |change: &dyn Fn(&mut Hello)| {
        let (said, _) = answer_to(change);
        matches!(said[..], [Packet::Refused(Refusal::OldCopy)])
    };
    let shorter = |h: &mut Hello| h.last.index = h.last.index.before();
    assert!(!is_refused(&later_life), "it has everything");
    assert!(is_refused(&|h| {
        later_life(h);
        shorter(h);
    }));
    assert!(!is_refused(&shorter), "a hello of the same life was long under way");
    assert!(
        !is_refused(&|h| {
            later_life(h);
            shorter(h);
            h.term = h.term.next();
        }),
        "another primary may have cut it"
    );
    assert!(is_refused(&|h| {
        later_life(h);
        shorter(h);
        h.term = Term(h.term.0 - 1);
    }));
}
