//! Which appends a follower accepts and how it acknowledges them; which acknowledgements a
//! primary accepts.

use super::*;

/// Returns server 2, a backup of a healthy group, its primary and the link to it.
fn backup() -> (World, Replica, Member, LinkId) {
    let world = formed(8);
    let replica = world.running[&2].replica.clone();
    let one = replica.config().unwrap().member(id(1)).unwrap();
    let link = replica.link_to(one).unwrap();
    (world, replica, one, link)
}

fn record(index: u64, term: u64, kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let at = Position { index: Index(index), term: Term(term) };
    record::write(&mut bytes, at, WallTime(0), kind, |out| out.extend_from_slice(body));
    bytes
}

fn append(replica: &Replica, records: &[Vec<u8>], change: impl Fn(&mut Append)) -> (Replica, Out) {
    let (mut replica, mut out) = (replica.clone(), Out::default());
    let one = replica.config().unwrap().member(id(1)).unwrap();
    let link = replica.link_to(one).unwrap();
    let prev = replica.summary.last();
    let (committed, acknowledged) = (replica.committed, replica.acknowledged);
    let mut append = Append { term: replica.vote.term, prev, committed, acknowledged, round: 0 };
    change(&mut append);
    replica.on_append(Moment(u64::MAX / 4), one, link, append, &records.concat(), &mut out);
    (replica, out)
}

fn appended(out: &Out) -> Option<usize> {
    out.effects.iter().find_map(|effect| match effect {
        Effect::Append(range) => Some(record::each(&out.bytes[range.clone()]).count()),
        _ => None,
    })
}

#[test]
fn an_append_is_taken_whole_or_not_at_all() {
    let (_, replica, _, link) = backup();
    let (last, term) = (replica.last().0, replica.vote.term.0);
    let good = |n: u64| record(last + n, term, Kind::MESSAGE, b"hi");
    let (took, out) = append(&replica, &[good(1), good(2)], |_| ());
    assert_eq!((appended(&out), took.last()), (Some(2), Index(last + 2)));

    let config = |body: &[u8]| record(last + 2, term, Kind::CONFIG, body);
    let mut torn = good(2);
    torn.pop();
    let mut flipped = good(2);
    *flipped.last_mut().unwrap() ^= 1;
    for (name, second) in [
        ("an index too high", good(3)),
        ("the same index", good(1)),
        ("a lower term", record(last + 2, term - 1, Kind::MESSAGE, b"hi")),
        ("a term above the append's", record(last + 2, term + 1, Kind::MESSAGE, b"hi")),
        ("half of it", torn),
        ("a flipped bit", flipped),
        ("no config", config(b"nonsense")),
        ("a config without members", config(&[0, 0])),
        ("no epoch", record(last + 2, term, Kind::REFUSAL, b"nonsense")),
    ] {
        let (took, out) = append(&replica, &[good(1), second], |_| ());
        assert_eq!((appended(&out), took.last()), (None, Index(last)), "{name}");
        assert!(out.effects.contains(&Effect::Close(link, Closing::Nonsense)), "{name}");
    }
    let mut refusal = Vec::new();
    past::Epoch { number: 1, founder: DiskId(9) }.encode(&mut refusal);
    let (took, _) = append(&replica, &[record(last + 1, term, Kind::REFUSAL, &refusal)], |_| ());
    assert_eq!((took.last(), took.summary.refusals()), (Index(last + 1), 1));
    // The body of a record of any other known kind is not checked here.
    for (kind, taken) in [(Kind::CREATE, 1), (Kind::MESSAGE, 1), (Kind(7), 0), (Kind(77), 0)] {
        let (took, _) = append(&replica, &[record(last + 1, term, kind, b"nonsense")], |_| ());
        assert_eq!(took.last(), Index(last + taken), "{kind:?}");
    }
    // The first record must follow the append's `prev`.
    let (took, out) = append(&replica, &[good(2)], |_| ());
    assert_eq!((appended(&out), took.last()), (None, Index(last)));
}

/// A copy of a disk is added while the original is linked. From that entry on the original is
/// another server: its vote could elect a primary that lacks entries which the copy acknowledges.
#[test]
fn who_is_linked_in_another_life_than_was_added_is_refused() {
    let (_, replica, ..) = backup();
    let (last, term) = (replica.last().0, replica.vote.term.0);
    let config = *replica.config().unwrap();
    let three = config.member(id(3)).unwrap();
    let link = replica.link_to(three).unwrap();
    let run = replica.run_of(three).unwrap();
    let other = Run { process: ProcessId(run.process.0 + 1), ..run };
    for (added, closed) in [(run, false), (other, true)] {
        let entries = [config.without(id(3)), config.without(id(3)).with(three, added)];
        let entries = (last + 1..).zip(entries).map(|(index, config)| {
            let mut body = Vec::new();
            config.encode(&mut body);
            record(index, term, Kind::CONFIG, &body)
        });
        let (took, out) = append(&replica, &entries.collect::<Vec<_>>(), |_| ());
        assert_eq!((appended(&out), took.config().unwrap().has(three)), (Some(2), true));
        let why = Refusal::Doubtful;
        let told = [
            Effect::Send(link, Packet::Refused(why)),
            Effect::Close(link, Closing::Refused(id(3), why)),
        ];
        assert_eq!(told.map(|effect| out.effects.contains(&effect)), [closed; 2], "{added:?}");
        assert_eq!(took.link_to(three).is_none(), closed);
    }
}

#[test]
fn where_the_logs_part_is_looked_for_behind_this_log_or_before_its_term() {
    let (_, mut replica, _, link) = backup();
    let last = replica.last();
    let term = replica.vote.term;
    let hint = |replica: &Replica, prev: Position| {
        let (_, out) = append(replica, &[], |append| append.prev = prev);
        out.effects.iter().find_map(|effect| match effect {
            Effect::Send(to, Packet::AppendRejected { hint, term: said }) => {
                assert_eq!((*to, *said), (link, term));
                Some(*hint)
            }
            _ => None,
        })
    };
    assert_eq!(hint(&replica, replica.summary.last()), None, "it is equal");
    assert_eq!(hint(&replica, Position { index: last.next(), term }), Some(last), "too far");
    assert_eq!(hint(&replica, Position { index: Index(last.0 + 9), term }), Some(last));
    // A conflict within one term makes the hint skip that whole term.
    let first = (1..=last.0).find(|at| replica.summary.term(Index(*at)) == Some(term)).unwrap();
    let other = Position { index: last, term: term.next() };
    assert_eq!(hint(&replica, other), Some(Index(first - 1)));
    replica.committed = Index(1);
    let short = Position { index: Index(first), term: term.next() };
    assert_eq!(hint(&replica, short), Some(Index(first - 1)));
}

#[test]
fn an_append_of_an_earlier_term_is_answered_with_ones_own() {
    let (_, mut replica, _, link) = backup();
    replica.vote.term = replica.vote.term.next();
    let term = replica.vote.term;
    let (took, out) = append(&replica, &[], |append| append.term = Term(term.0 - 1));
    assert_eq!(out.effects, [Effect::Send(link, Packet::HigherTerm { term })]);
    assert_eq!(took.vote.term, term);
}

#[test]
fn what_is_acknowledged_is_equal_and_stored_and_the_vote_of_its_term_is_too() {
    let (_, replica, _, link) = backup();
    let (last, term) = (replica.last(), replica.vote.term);
    let next = record(last.0 + 1, term.0, Kind::MESSAGE, b"hi");
    let (mut replica, _) = append(&replica, &[next], |append| append.round = 7);
    let said = |replica: &mut Replica| {
        let mut out = Out::default();
        replica.acknowledge(&mut out);
        out.effects
    };
    let acknowledged =
        |stored| vec![Effect::Send(link, Packet::AppendAccepted { term, stored, round: 7 })];
    let mut unvoted = replica.clone();
    unvoted.vote_stored = false;
    assert_eq!(said(&mut unvoted), []);
    assert_eq!(said(&mut replica.clone()), acknowledged(last), "it is not on disk");
    replica.stored = last.next();
    assert_eq!(said(&mut replica), acknowledged(last.next()));
    assert_eq!(said(&mut replica), [], "once");
}

#[test]
fn a_batch_of_a_backup_begins_when_there_is_something_to_store() {
    let (world, replica, _, _) = backup();
    let flushes = |replica: &mut Replica| {
        let mut out = Out::default();
        replica.tick_backup(world.now, &mut out);
        out.effects.contains(&Effect::Flush)
    };
    assert!(!flushes(&mut replica.clone()));
    let (last, term) = (replica.last(), replica.vote.term);
    let (mut replica, _) =
        append(&replica, &[record(last.0 + 1, term.0, Kind::MESSAGE, b"hi")], |_| ());
    assert!(flushes(&mut replica) && replica.flushed == last.next());
    assert!(!flushes(&mut replica), "it is on its way");
}

#[test]
fn a_follower_knows_no_more_answered_than_it_was_told_has_and_has_stored() {
    let (_, replica, _, _) = backup();
    let (last, term) = (replica.last(), replica.vote.term);
    let records: Vec<Vec<u8>> =
        (1..=3).map(|n| record(last.0 + n, term.0, Kind::MESSAGE, b"hi")).collect();
    let knows = |told: (u64, u64), stored: u64| {
        let (mut replica, mut out) = append(&replica, &records, |append| {
            append.committed = Index(last.0 + told.0);
            append.acknowledged = Index(last.0 + told.1);
        });
        replica.stored = Index(last.0 + stored);
        replica.acknowledge(&mut out);
        (replica.committed.0 - last.0, replica.acknowledged.0 - last.0)
    };
    assert_eq!(knows((0, 0), 3), (0, 0));
    assert_eq!(knows((2, 1), 3), (2, 1));
    assert_eq!(knows((3, 3), 1), (3, 1), "not stored");
    assert_eq!(knows((9, 9), 3), (3, 3), "not proved equal");
    assert_eq!(knows((1, 3), 3), (1, 1), "acknowledged is committed");
}

#[test]
fn a_change_is_refused_for_its_reason() {
    let (world, backup, _, _) = backup();
    let primary = &world.running[&1].replica;
    let refused = |replica: &Replica, change: &dyn Fn(&mut Replica)| {
        let mut replica = replica.clone();
        change(&mut replica);
        replica.propose(Moment(0), WallTime(0), Kind::MESSAGE, |_| (), &mut Out::default()).err()
    };
    assert_eq!(refused(primary, &|_| ()), None);
    assert_eq!(refused(&backup, &|_| ()), Some(NotTaken::NotPrimary));
    assert_eq!(refused(primary, &|r| r.stopping = Some(world.now)), Some(NotTaken::NotPrimary));
    assert_eq!(refused(primary, &|r| r.left = true), Some(NotTaken::NotPrimary));
    assert_eq!(
        refused(primary, &|r| {
            r.begin_handover(world.now, Rule::HandedOverOrder);
        }),
        Some(NotTaken::HandingOver)
    );
    assert_eq!(refused(primary, &|r| r.shared.copies_min = 3), None);
    assert_eq!(
        refused(primary, &|r| {
            r.shared.copies_min = 3;
            let without = r.config().unwrap().without(id(3));
            r.append_config(r.vote.term, WallTime(0), without, &mut Out::default());
        }),
        Some(NotTaken::TooFewCopies)
    );
}

#[test]
fn a_nearly_full_disk_of_a_member_takes_no_change_but_a_delete() {
    let (world, _, _, _) = backup();
    let refused = |kind: Kind, change: &dyn Fn(&mut Replica)| {
        let mut primary = world.running[&1].replica.clone();
        change(&mut primary);
        primary.propose(Moment(0), WallTime(0), kind, |_| (), &mut Out::default()).err()
    };
    let own = |r: &mut Replica| r.note_space(world.now, true);
    let other = |r: &mut Replica| peer(r, 3).health.full = true;
    let no_space = |n: u8| Some(NotTaken::NoSpace(id(n)));
    for kind in [Kind::MESSAGE, Kind::CREATE, Kind::PASSWORD] {
        assert_eq!(refused(kind, &|_| ()), None);
        assert_eq!(refused(kind, &own), no_space(1));
        assert_eq!(refused(kind, &other), no_space(3));
    }
    assert_eq!(refused(Kind::DELETE, &own), None);
    assert_eq!(refused(Kind::DELETE, &other), None);
    let learner = |r: &mut Replica| {
        other(r);
        let without = r.config().unwrap().without(id(3));
        r.append_config(r.vote.term, WallTime(0), without, &mut Out::default());
    };
    assert_eq!(refused(Kind::MESSAGE, &learner), None, "it is no member");
    let room = |r: &mut Replica| {
        own(r);
        r.note_space(world.now, false);
    };
    assert_eq!(refused(Kind::MESSAGE, &room), None);
}

#[test]
fn the_others_are_told_at_once_that_a_disk_is_full() {
    let (world, mut replica, _, _) = backup();
    let told = |replica: &mut Replica| {
        let mut out = Out::default();
        replica.tick_links(world.now, &mut out);
        let pings = out.effects.iter().filter_map(|effect| match effect {
            Effect::Send(_, Packet::Ping { health, .. }) => Some(health.full),
            _ => None,
        });
        pings.collect::<Vec<_>>()
    };
    told(&mut replica);
    replica.note_space(world.now, true);
    assert_eq!(told(&mut replica), [true, true]);
    replica.note_space(world.now, true);
    assert!(told(&mut replica).is_empty(), "it is no news");
    replica.note_space(world.now, false);
    assert_eq!(told(&mut replica), [false, false]);
}

#[test]
fn news_in_a_ping_are_looked_at_at_once() {
    let world = formed(8);
    let mut primary = world.running[&1].replica.clone();
    let log = &world.running[&1].disk.log;
    let three = primary.config().unwrap().member(id(3)).unwrap();
    let link = primary.link_to(three).unwrap();
    let health = primary.peers.iter().find(|peer| peer.has_link(link)).unwrap().health;
    let mut hears = |health: PeerHealth| {
        primary.needs_tick = false;
        let packet = Packet::Ping { sent: world.now, wall: WallTime(0), health };
        let event = Event::Received { link, packet, records: &rest_of(&packet) };
        primary.handle(world.now, WallTime(0), event, log, &mut Out::default());
        primary.needs_tick
    };
    assert!(!hears(health), "nothing new");
    assert!(hears(PeerHealth { stopping: true, ..health }), "it wants to be dropped");
    assert!(!hears(PeerHealth { stopping: true, ..health }));
}
