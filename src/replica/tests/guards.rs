//! Input that must do no harm: copies, servers with the same id, stragglers, servers that lost
//! their logs, and packets that no correct server sends.

use super::*;
use crate::limits::RUNS_KEPT;
use crate::replica::epoch::REFUSED_MAX;
use crate::replica::past::{Epoch, Past};

const LINK: LinkId = LinkId(99);

/// Returns server `n` of a healthy group whose primary is 1.
fn server(n: u8) -> (World, Replica) {
    let world = formed(8);
    let mut replica = world.running[&n].replica.clone();
    hear_all(&mut replica, world.now);
    (world, replica)
}

/// Returns the hello of server `n` at its next start, and the past that follows it.
fn next_start(world: &World, to: &Replica, n: u8) -> (Hello, Past) {
    let from = &world.running[&n].replica;
    let old = Run { incarnation: from.incarnation, process: from.process };
    let new = Run { incarnation: Incarnation(old.incarnation.0 + 1), process: ProcessId(77) };
    let hello = Hello {
        shared: from.shared,
        from: from.me,
        to: to.me.id,
        incarnation: new.incarnation,
        process: new.process,
        serial: 1_000,
        has_other: false,
        term: from.vote.term,
        founder: from.vote.founder,
        last: from.summary.last(),
    };
    (hello, Past { runs: vec![old, new], ..Past::default() })
}

fn greet(replica: &mut Replica, now: Moment, (hello, past): &(Hello, Past)) -> Vec<Effect> {
    let mut out = Out::default();
    replica.greet(now, LINK, None, (hello, past), &mut out);
    out.effects
}

fn refusal(effects: &[Effect]) -> Option<Refusal> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send(LINK, Packet::Refused(why)) => Some(*why),
        _ => None,
    })
}

fn is_let_in(effects: &[Effect]) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Greet(LINK, _)))
}

/// A second server with the same id waits for an answer of the first one, and is refused when
/// that arrives.
#[test]
fn who_comes_with_the_id_of_one_that_answers_is_turned_away() {
    let (world, replica) = server(1);
    let patience = replica.peer_timeout() / 8;
    let came = next_start(&world, &replica, 2);
    let mut waiting = replica.clone();
    let effects = greet(&mut waiting, world.now, &came);
    let old = peer(&mut waiting, 2).link.as_ref().unwrap().id;
    let asked = |e: &Effect| matches!(e, Effect::Send(to, Packet::Ping { .. }) if *to == old);
    assert!(effects.len() == 1 && effects.iter().any(asked), "{effects:?}");
    let pong = |sent: Moment| {
        let (mut replica, mut out) = (waiting.clone(), Out::default());
        let at = replica.peers.iter().position(|peer| peer.id == id(2)).unwrap();
        replica.on_pong(at, sent, world.now + patience / 2, &mut out);
        (replica, out.effects)
    };
    let (_, effects) = pong(Moment(world.now.0 - 1));
    assert_eq!(refusal(&effects), None, "it may have died since");
    let (_, effects) = pong(world.now + patience);
    assert_eq!(refusal(&effects), None, "it was not asked that yet");
    let (mut acknowledged, effects) = pong(world.now);
    assert_eq!(refusal(&effects), Some(Refusal::Occupied));
    let (holder, newcomer) = (world.running[&2].replica.me, came.0.from);
    let closed = Closing::Occupied { stays: old, holder, newcomer };
    assert!(effects.contains(&Effect::Close(LINK, closed)));
    assert!(peer(&mut acknowledged, 2).has_link(old) && acknowledged.newcomers.is_empty());

    // Only a few links of one id wait, and those of one server are decided together. Further ones
    // must reconnect.
    let mut more = waiting.clone();
    let mut out = Out::default();
    (100..104).for_each(|n| more.greet(world.now, LinkId(n), None, (&came.0, &came.1), &mut out));
    assert_eq!(more.newcomers.len(), 4);
    assert!(out.effects.contains(&Effect::Close(LinkId(103), Closing::Spare)));
    let mut together = more.clone();
    together.tick_newcomers(world.now + patience, &mut Out::default());
    assert!(together.newcomers.is_empty());
    assert!(peer(&mut together, 2).is_linked(came.0.from));
    out.clear();
    more.turn_away(id(2), world.now, &mut out);
    let refused = |e: &&Effect| matches!(e, Effect::Send(_, Packet::Refused(Refusal::Occupied)));
    assert_eq!((out.effects.iter().filter(refused).count(), more.newcomers.len()), (4, 0));

    // Nobody answers, so the newcomer is the same server after a restart.
    let tick = |at: Moment| {
        let (mut replica, mut out) = (waiting.clone(), Out::default());
        replica.tick_newcomers(at, &mut out);
        (peer(&mut replica, 2).has_link(LINK), is_let_in(&out.effects))
    };
    assert_eq!(tick(Moment((world.now + patience).0 - 1)), (false, false));
    assert_eq!(tick(world.now + patience), (true, true));
    // The newcomer is also accepted when the old link ends earlier.
    let mut ended = waiting.clone();
    ended.on_ended(world.now, old, &mut Out::default());
    ended.tick_newcomers(world.now, &mut Out::default());
    assert!(peer(&mut ended, 2).has_link(LINK));
    // A newcomer that disconnects meanwhile is forgotten.
    let mut left = waiting.clone();
    left.on_ended(world.now, LINK, &mut Out::default());
    assert!(left.newcomers.is_empty());
}

/// A directory is quarantined only on the word of a primary that a majority answers. A copy is
/// recognized by a start that it should list.
#[test]
fn a_copy_is_known_by_a_start_that_it_lacks() {
    let (world, replica) = server(1);
    let (hello, past) = next_start(&world, &replica, 2);
    let old = past.runs[0];
    let other = Run { process: ProcessId(5), ..old };
    for (runs, why) in [
        (vec![old, past.runs[1]], None),
        (vec![past.runs[1]], None),
        (vec![other, past.runs[1]], Some(Refusal::OldCopy)),
    ] {
        let copy = (hello, Past { runs, ..Past::default() });
        let effects = greet(&mut replica.clone(), world.now, &copy);
        assert_eq!(refusal(&effects), why, "{copy:?}");
        let doubt = why.map(|_| Refusal::Doubtful);
        let mut deaf = replica.clone();
        deaf.peers.iter_mut().for_each(|peer| peer.heard = None);
        assert_eq!(refusal(&greet(&mut deaf, world.now, &copy)), doubt, "it hears nobody");
        let mut backup = world.running[&3].replica.clone();
        let mut copy = copy;
        copy.0.to = id(3);
        assert_eq!(refusal(&greet(&mut backup, world.now, &copy)), doubt, "a backup");
    }
}

/// A copy that the group has dropped and added again is the disk from then on. A server that had
/// accepted the original, and has that entry, links with the copy; the original is the copy now.
#[test]
fn a_copy_that_the_group_has_added_is_let_in() {
    let (world, replica) = server(3);
    let (hello, past) = next_start(&world, &replica, 2);
    let old = past.runs[0];
    let life = |starts: &[u64]| {
        let begins = |(at, n): (usize, &u64)| Run {
            incarnation: Incarnation(old.incarnation.0 + 1 + at as u64),
            process: ProcessId(*n),
        };
        let runs = [old].into_iter().chain(starts.iter().enumerate().map(begins)).collect();
        let past = Past { runs, ..Past::default() };
        let Run { incarnation, process } = *past.runs.last().unwrap();
        (Hello { incarnation, process, ..hello }, past)
    };
    let (original, copy) = (life(&[71, 72]), life(&[81]));
    let alone = |replica: &Replica| {
        let mut replica = replica.clone();
        peer(&mut replica, 2).link = None;
        replica
    };
    let mut replica = alone(&replica);
    assert!(is_let_in(&greet(&mut replica, world.now, &original)));
    let told = |replica: &Replica, life| refusal(&greet(&mut alone(replica), world.now, life));
    assert_eq!(told(&replica, &copy), Some(Refusal::Doubtful));

    let added = |replica: &Replica, run: Run| {
        let mut replica = replica.clone();
        let config = replica.config().unwrap().without(id(2)).with(hello.from, run);
        let mut bytes = Vec::new();
        let at = Position { index: replica.last().next(), term: hello.term };
        record::write(&mut bytes, at, WallTime(0), Kind::CONFIG, |out| config.encode(out));
        replica.summary.push(&Record::trust(&bytes)).unwrap();
        replica
    };
    // The group added the original again: nothing changes.
    for run in &original.1.runs {
        let replica = added(&replica, *run);
        assert_eq!(told(&replica, &copy), Some(Refusal::Doubtful), "{run:?}");
        assert_eq!(told(&replica, &original), None, "{run:?}");
    }
    let mut replica = alone(&added(&replica, copy.1.runs[1]));
    assert_eq!(told(&replica, &original), Some(Refusal::Doubtful));
    let effects = greet(&mut replica, world.now, &copy);
    assert!(is_let_in(&effects) && refusal(&effects).is_none());
    let seen = |effect: &Effect| match effect {
        Effect::RecordIncarnation(seen) => seen.disk == hello.from.disk && seen.runs == copy.1.runs,
        _ => false,
    };
    assert!(effects.iter().any(seen));
    let (later, other) = (life(&[81, 82]), life(&[83]));
    assert_eq!(told(&replica, &later), None, "it goes on");
    assert_eq!(told(&replica, &other), Some(Refusal::Doubtful), "a copy of the copy");
}

/// A server that refuses a copy records the copy's newest start, and so refuses all later starts
/// of it. This holds when the copy starts more often than a hello lists, and after the server
/// restarts.
#[test]
fn a_copy_that_was_refused_stays_refused() {
    let (world, mut replica) = server(3);
    let (hello, past) = next_start(&world, &replica, 2);
    peer(&mut replica, 2).link = None;
    assert!(is_let_in(&greet(&mut replica, world.now, &(hello, past.clone()))));
    peer(&mut replica, 2).link = None;
    let mut stored = replica.seen.clone();
    // The copy was made before the start that was accepted.
    let mut runs = vec![past.runs[0]];
    for n in 1..50 {
        let incarnation = Incarnation(past.runs[0].incarnation.0 + n);
        let process = ProcessId(1000 + n);
        runs.push(Run { incarnation, process });
        let newest = runs[runs.len().saturating_sub(RUNS_KEPT)..].to_vec();
        let copy = (Hello { incarnation, process, ..hello }, Past { runs: newest, ..past.clone() });
        replica.seen = stored.clone();
        let effects = greet(&mut replica, world.now, &copy);
        assert_eq!(refusal(&effects), Some(Refusal::Doubtful), "{n}");
        for effect in effects {
            if let Effect::RecordIncarnation(disk) = effect {
                stored.put(*disk);
            }
        }
    }
}

/// A server in doubt does not campaign: an old copy must not lead a term that had a primary.
#[test]
fn who_is_doubted_waits_before_it_stands() {
    let (world, mut replica) = server(2);
    let peer_timeout = replica.peer_timeout();
    let one = replica.config().unwrap().member(id(1)).unwrap();
    replica.leave_primary(one);
    let stands = |replica: &Replica, now: Moment| {
        let mut replica = replica.clone();
        replica.consider_campaign(now);
        replica.timers.is_set(Timer::Campaign)
    };
    assert!(stands(&replica, world.now));
    let link = peer(&mut replica, 1).link.as_ref().unwrap().id;
    let mut left = replica.clone();
    left.on_refused(world.now, link, Refusal::OldCopy, &mut Out::default());
    assert!(left.left);
    replica.on_refused(world.now, link, Refusal::Doubtful, &mut Out::default());
    assert!(!replica.left && !stands(&replica, world.now));
    assert!(!stands(&replica, Moment((world.now + peer_timeout * 2).0 - 1)));
    assert!(stands(&replica, world.now + peer_timeout * 2));
}

/// Nor does it vote: it may lack entries that its original has acknowledged, and its vote could
/// elect a primary that lacks them, too.
#[test]
fn who_is_doubted_does_not_vote() {
    let (world, replica) = server(2);
    let (one, three) = (id(1), replica.config().unwrap().member(id(3)).unwrap());
    let link = replica.link_to(three).unwrap();
    let term = replica.vote.term.next();
    let ask = Ask { term, last: replica.summary.last(), config: *replica.config().unwrap() };
    for doubted in [None, Some(world.now)] {
        let mut replica = replica.clone();
        replica.leave_primary(replica.config().unwrap().member(one).unwrap());
        replica.doubted = doubted;
        let mut out = Out::default();
        replica.on_ask_pre_vote(world.now, three, link, ask, &mut out);
        let promised = out
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Send(_, Packet::PreVote { granted: true, .. })));
        replica.on_ask_vote(world.now, three, link, ask, &mut out);
        let voted = replica.vote.given == Some(three);
        assert_eq!((promised, voted), (doubted.is_none(), doubted.is_none()));
    }
    // Doubt ends a candidacy that is under way.
    let mut candidate = replica.clone();
    candidate.begin_round(world.now, false, term, &mut Out::default());
    let to_one = peer(&mut candidate, 1).link.as_ref().unwrap().id;
    candidate.on_refused(world.now, to_one, Refusal::Doubtful, &mut Out::default());
    assert!(matches!(candidate.role, Role::Follower(_)));
}

/// A server that keeps sending nonsense is refused for longer each time, up to a minute.
#[test]
fn who_repeats_nonsense_is_refused_for_longer() {
    let (world, mut replica) = server(2);
    let least = replica.peer_timeout() / 2;
    let one = peer(&mut replica, 1);
    let mut now = world.now;
    let mut times = Vec::new();
    for _ in 0..8 {
        one.shun(now, least);
        times.push(one.shunned_for.as_secs());
        now = one.shunned.unwrap() + Duration::from_secs(1);
    }
    assert_eq!(times, [1, 2, 4, 8, 16, 32, 60, 60]);
    one.shun(now + Duration::from_secs(300), least);
    assert_eq!(one.shunned_for, least, "it has been good for long");
}

/// Returns the hello of server 3 after an operator let it continue alone, although the others
/// live.
fn straggler(world: &World, to: &Replica) -> (Hello, Past) {
    let (mut hello, mut past) = next_start(world, to, 3);
    (hello.term, hello.founder) = (hello.term.next_epoch(id(3)), Some(DiskId(33)));
    past.epochs = vec![Epoch { number: hello.term.epoch(), founder: DiskId(33) }];
    (hello, past)
}

/// A primary that a majority answers logs the epochs that it refuses; a backup asks it to do so.
#[test]
fn a_refused_epoch_is_logged_once_and_refused_by_all_who_know_it() {
    let (world, mut primary) = server(1);
    let came = straggler(&world, &primary);
    let epoch = came.1.epochs[0];
    assert_eq!(refusal(&greet(&mut primary, world.now, &came)), Some(Refusal::Straggler));
    let mut out = Out::default();
    let before = primary.last();
    for _ in 0..3 {
        primary.log_refusals(WallTime(0), &mut out);
        greet(&mut primary, world.now, &came);
    }
    assert_eq!(primary.last(), before.next(), "once");
    assert!(primary.summary.has_refused(epoch));

    let (_, mut backup) = server(2);
    let mut to_backup = came.clone();
    to_backup.0.to = id(2);
    let effects = greet(&mut backup, world.now, &to_backup);
    assert_eq!(refusal(&effects), Some(Refusal::Straggler));
    let asks = |e: &Effect| matches!(e, Effect::Send(_, Packet::Refuses(l)) if *l == epoch);
    assert!(effects.iter().any(asks), "{effects:?}");
    assert!(backup.refused.is_empty(), "its primary may have died a moment before");
    let (_, mut asked) = server(1);
    let link = peer(&mut asked, 2).link.as_ref().unwrap().id;
    asked.on_received(world.now, link, Packet::Refuses(epoch), &[], &mut Out::default());
    asked.log_refusals(WallTime(0), &mut Out::default());
    assert!(asked.summary.has_refused(epoch));

    // When it is alone later, the backup that has the entry refuses the epoch and its
    // descendants.
    let entry = Record::trust(&out.bytes).position();
    backup.summary.push(&Record::trust(&out.bytes)).unwrap();
    let alone = |backup: &Replica, came: &(Hello, Past)| {
        let mut backup = backup.clone();
        backup.later_epoch = Some(Moment(0));
        backup.step_down("a test", &mut Out::default());
        backup.peers.iter_mut().for_each(|peer| peer.link = None);
        refusal(&greet(&mut backup, world.now, came))
    };
    assert_eq!(alone(&backup, &to_backup), Some(Refusal::Parted));
    let mut child = to_backup.clone();
    (child.0.term, child.0.founder) = (child.0.term.next_epoch(id(1)), Some(DiskId(44)));
    assert_eq!(alone(&backup, &child), Some(Refusal::Parted), "its ancestor was refused");
    child.1.epochs.clear();
    assert_eq!(alone(&backup, &child), None, "another one");
    // An entry that is cut refuses nothing.
    backup.summary.cut(entry.index.before());
    assert_eq!(alone(&backup, &to_backup), None);
}

#[test]
fn each_of_few_other_epochs_is_refused_once_and_the_own_one_never() {
    let (world, mut primary) = server(1);
    let begin = Beginning::new(primary.me, Term(0), primary.summary.last(), true);
    primary.summary.push(&Record::trust(&begin.entry(WallTime(0)))).unwrap();
    let own = primary.summary.epochs().next().unwrap();
    primary.remember_refused(world.now, own);
    assert_eq!(primary.refused, []);
    for number in 1..100 {
        let epoch = Epoch { number, founder: DiskId(77) };
        (0..2).for_each(|_| primary.remember_refused(world.now, epoch));
        let known = usize::from(number).min(REFUSED_MAX);
        assert_eq!((primary.refused.len(), primary.refused.contains(&own)), (known, false));
    }
}

/// A primary that is leaving, or has committed nothing in its term, logs no refusals. The number
/// of logged refusals is bounded.
#[test]
fn a_refusal_is_logged_by_a_primary_that_stays() {
    let (world, mut primary) = server(1);
    let epoch = |number: u16| Epoch { number, founder: DiskId(77) };
    primary.remember_refused(world.now, epoch(1));
    type Change = fn(&mut Replica, Moment);
    let changes: [(&str, Change, usize); 4] = [
        ("it stays", |_, _| (), 1),
        ("it stops", |r, now| r.stop(now), 0),
        ("it hands over", |r, now| _ = r.begin_handover(now, Rule::HandedOverOrder), 0),
        ("it has just been elected", |r, _| r.committed = Index::ZERO, 0),
    ];
    for (what, change, logged) in changes {
        let mut primary = primary.clone();
        change(&mut primary, world.now);
        primary.log_refusals(WallTime(0), &mut Out::default());
        assert_eq!(primary.summary.refusals(), logged, "{what}");
    }
    for number in 1..100 {
        primary.refused = vec![epoch(number)];
        primary.log_refusals(WallTime(0), &mut Out::default());
        assert_eq!(primary.summary.refusals(), usize::from(number).min(REFUSED_MAX));
    }
}

/// A server that has quarantined its log takes no part in a formation.
#[test]
fn who_has_lost_its_log_forms_nothing() {
    for lost in [None, Some(1), Some(2), Some(3)] {
        let mut world = World::new(4, 3);
        world.start_all();
        if let Some(n) = lost {
            let server = world.running.get_mut(&n).unwrap();
            server.replica.former = Some(Position::default());
        }
        world.run(3_000);
        assert_eq!(world.primary().is_some(), lost.is_none(), "{lost:?}");
        if let Some(n) = lost {
            let other = &world.running[&(n % 3 + 1)].replica;
            let told: Vec<_> = other.former_of_peers().collect();
            assert_eq!(told, [(id(n), Position::default())]);
        }
    }
}

/// If a server is the only member of its newest config, every entry that it has stored is
/// committed.
#[test]
fn an_only_member_gives_nothing_up() {
    let mut world = formed(6);
    let primary = world.primary().unwrap();
    for n in (1..=3).filter(|n| *n != primary) {
        world.crash(n);
        world.run(500);
    }
    let primary = world.wait_members(500, 1);
    let index = world.propose(primary, "alone").unwrap();
    world.wait_answered(100, primary, index);
    world.crash(primary);
    world.start(primary);
    let replica = &world.running[&primary].replica;
    assert_eq!(replica.committed, replica.last());
    // With another member the server can't know that after a start.
    let (_, two) = server(2);
    assert!(two.committed > Index::ZERO);
    let mut world = formed(6);
    world.crash(2);
    world.start(2);
    assert_eq!(world.running[&2].replica.committed, Index::ZERO);
}

fn entry(index: Index, term: Term, kind: Kind) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::write(&mut bytes, Position { index, term }, WallTime(0), kind, |_| ());
    bytes
}

/// A packet that no correct server sends closes its link and does no harm; the sender is refused
/// for a while.
#[test]
fn nonsense_of_a_server_that_knows_the_secret_ends_nobody() {
    let (world, backup) = server(2);
    let (_, primary) = server(1);
    let log = &world.running[&2].disk.log;
    let committed = backup.committed;
    assert!(committed >= Index(2));
    let good = |replica: &Replica| Append {
        term: replica.vote.term,
        prev: replica.summary.last(),
        committed: replica.committed,
        acknowledged: replica.acknowledged,
        round: 0,
    };
    let at = |replica: &Replica, index: Index| replica.summary.position(index);
    let over = |index: Index, term: Term| entry(index, term, Kind::MESSAGE);
    let term = backup.vote.term;
    let early = Append { prev: at(&backup, Index(1)), term: term.next(), ..good(&backup) };
    let next = backup.last().next();
    let table: [(&str, Replica, u8, Packet, Vec<u8>); 6] = [
        ("leads too", primary.clone(), 2, Packet::Append(good(&primary)), Vec::new()),
        (
            "overwrites what is committed",
            backup.clone(),
            1,
            Packet::Append(early),
            over(Index(2), term.next()),
        ),
        (
            "a payload that can't be applied",
            backup.clone(),
            1,
            Packet::Append(good(&backup)),
            entry(next, term, Kind(77)),
        ),
        (
            "the last term",
            backup.clone(),
            1,
            Packet::HigherTerm { term: Term((1 << 48) - 1) },
            vec![],
        ),
        (
            "an epoch that nobody began",
            backup.clone(),
            1,
            Packet::Vote { term: Term(u64::MAX), granted: true },
            vec![],
        ),
        ("what begins a link", backup.clone(), 1, Packet::Foreign { version: 9 }, vec![]),
    ];
    for (what, mut replica, from, packet, records) in table {
        let link = peer(&mut replica, from).link.as_ref().unwrap().id;
        let (before, vote) = (replica.summary.last(), replica.vote);
        let mut out = Out::default();
        let event = Event::Received { link, packet, records: &records };
        replica.handle(world.now, WallTime(0), event, log, &mut out);
        assert!(out.effects.contains(&Effect::Close(link, Closing::Nonsense)), "{what}: {out:?}");
        let changed = |e: &Effect| matches!(e, Effect::Cut(_) | Effect::Append(_));
        assert!(!out.effects.iter().any(changed), "{what}: {out:?}");
        assert_eq!(replica.summary.last(), before, "{what}");
        assert!(replica.vote == vote || what.starts_with("overwrites"), "{what}");
        let (hello, past) = next_start(&world, &replica, from);
        let again = |at: Moment| refusal(&greet(&mut replica.clone(), at, &(hello, past.clone())));
        assert_eq!(again(world.now), Some(Refusal::Nonsense), "{what}");
        assert_ne!(
            again(world.now + replica.peer_timeout() / 2),
            Some(Refusal::Nonsense),
            "{what}"
        );
    }
}

/// A follower rejects entries by which a primary contradicts what it sent in the same term.
#[test]
fn what_was_proved_equal_is_not_overwritten_in_the_same_term() {
    let (world, mut replica) = server(2);
    let one = replica.config().unwrap().member(id(1)).unwrap();
    let link = replica.link_to(one).unwrap();
    let (last, term) = (replica.summary.last(), replica.vote.term.next());
    let mut send = |term_of_entry: Term, prev: Position| {
        let append =
            Append { term, prev, committed: Index::ZERO, acknowledged: Index::ZERO, round: 0 };
        let records = entry(prev.index.next(), term_of_entry, Kind::MESSAGE);
        let mut out = Out::default();
        replica.on_append(world.now, one, link, append, &records, &mut out);
        (out.effects.contains(&Effect::Close(link, Closing::Nonsense)), replica.summary.last().term)
    };
    assert_eq!(send(last.term, last), (false, last.term));
    assert_eq!(send(term, last), (true, last.term));
}

/// The first entry of every log is the config of the formation.
#[test]
fn a_blank_server_takes_no_log_that_begins_otherwise() {
    for kind in [Kind::MESSAGE, Kind::REFUSAL] {
        let mut world = World::new(5, 3);
        world.start_all();
        world.running.get_mut(&3).unwrap().replica.former = Some(Position::default());
        world.run(500);
        let mut replica = world.running[&2].replica.clone();
        let peer = peer(&mut replica, 1).link.clone().unwrap();
        let append = Append {
            term: Term(1),
            prev: Position::default(),
            committed: Index(1),
            acknowledged: Index(1),
            round: 0,
        };
        let mut out = Out::default();
        replica.on_append(
            world.now,
            peer.member,
            peer.id,
            append,
            &entry(Index(1), Term(1), kind),
            &mut out,
        );
        assert_eq!(replica.last(), Index::ZERO);
        let log = &world.running[&2].disk.log;
        replica.handle(world.now, WallTime(0), Event::Tick, log, &mut Out::default());
    }
}
