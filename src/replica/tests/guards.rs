//! Guards the group against input that must do no harm: copies of directories, servers with one
//! id, servers that lost their logs, and packets that no correct server sends.

use super::hellos::*;
use crate::limits::{RANK_TIME, RUNS_KEPT};
use crate::replica::{Quarantine, Seen};

/// Returns server `n` without a primary. Server 1, which was the primary, is still linked.
fn without_primary(n: u8) -> Server {
    let mut server = formed().take(n);
    server.report(1, PeerHealth::default());
    server
}

fn is_let_in(out: &Effects, link: LinkId) -> bool {
    greeting(out, link).is_some() && refusal(out).is_none()
}

/// A second server with the id of a linked one waits until the linked one answers a ping, and is
/// refused then. If no answer comes, it is the same server after a restart, and is linked.
#[test]
fn a_server_with_the_id_of_one_that_answers_is_refused() {
    let one = formed().take(1);
    let patience = T / 8;
    let came = next_start(&one, 2);
    let (old, began) = (one.link(2), one.now);
    let mut waiting = one.clone();
    let link = waiting.new_link(2);
    let out = greet(&mut waiting, link, &came);
    assert!(matches!(out.sent(2)[..], [Packet::Ping { .. }]), "{out:?}");
    assert!(matches!(out.0.effects[..], [Effect::Send(to, _)] if to == old), "{out:?}");

    let pong = |server: &Server, sent: Moment| {
        let mut server = server.clone();
        server.advance(patience / 2);
        let out = server.receive(2, Packet::Pong { sent, promised: None });
        (server, out)
    };
    let (_, out) = pong(&waiting, Moment(began.0 - 1));
    assert_eq!(refusal(&out), None, "the linked server may have died since");
    let (_, out) = pong(&waiting, began + patience);
    assert_eq!(refusal(&out), None, "that ping was not sent yet");
    let (mut refused, out) = pong(&waiting, began);
    assert_eq!(refusal(&out), Some(Refusal::Occupied));
    let closed = Closing::Occupied { stays: old, holder: member(2), newcomer: came.0.from };
    assert!(out.has(&Effect::Close(link, closed)));
    refused.now = began + patience;
    refused.tick();
    assert_eq!(refused.link(2), old, "no server waits any more");

    // The server is linked when no answer has come.
    let mut silent = waiting.clone();
    let out = silent.advance(patience - US).tick();
    assert!(!is_let_in(&out, link) && silent.link(2) == old);
    let out = silent.advance(US).tick();
    assert!(is_let_in(&out, link) && silent.link(2) == link);

    // It is also linked when the old link ends earlier.
    let mut ended = waiting.clone();
    ended.end_link(2);
    ended.tick();
    assert_eq!(ended.link(2), link);

    // A server that disconnects while it waits is forgotten.
    let mut left = waiting.clone();
    left.handle(Event::Ended { link }, &mut Effects::default());
    assert_eq!(left.advance(patience).tick().closed(2), []);
    assert_eq!(left.link(2), old);
}

/// At most four links of one id wait, and those of one server are decided together. Further ones
/// must reconnect.
#[test]
fn few_links_with_the_id_of_a_linked_server_wait() {
    let mut one = formed().take(1);
    let (old, came) = (one.link(2), next_start(&one, 2));
    let links: Vec<LinkId> = (0..5).map(|_| one.new_link(2)).collect();
    for (at, link) in links.iter().enumerate() {
        let out = greet(&mut one, *link, &came);
        let spare = out.has(&Effect::Close(*link, Closing::Spare));
        assert_eq!((spare, out.closed(2).len()), (at == 4, usize::from(at == 4)));
    }
    let mut together = one.clone();
    let out = together.advance(T / 8).tick();
    let stays = together.link(2);
    assert!(links[..4].contains(&stays));
    let closed = |link: &LinkId| {
        out.0.effects.iter().any(|e| matches!(e, Effect::Close(to, _) if to == link))
    };
    assert!([&[old], &links[..4]].concat().iter().all(|link| closed(link) == (*link != stays)));
    assert_eq!(together.wait(T / 8, &[2, 3]).closed(2), [], "no link waits any more");

    let out = one.pong(2);
    let refused = out.sent(2).into_iter().filter(|p| *p == Packet::Refused(Refusal::Occupied));
    assert_eq!((refused.count(), out.closed(2).len()), (4, 4));
    assert_eq!(one.advance(T / 8).tick().closed(2), []);
    assert_eq!(one.link(2), old);
}

/// A copy is recognized by a start that it should list. Only a primary that a majority answers
/// reports `OldCopy`, which quarantines the directory.
#[test]
fn a_copy_is_recognized_by_a_start_that_it_lacks() {
    let group = formed();
    let one = group.take(1);
    let (hello, past) = next_start(&one, 2);
    let (old, new) = (past.runs[0], past.runs[1]);
    let other = Run { process: ProcessId(5), ..old };
    for (runs, why) in
        [(vec![old, new], None), (vec![new], None), (vec![other, new], Some(Refusal::OldCopy))]
    {
        let copy = (hello, Past { runs, ..Past::default() });
        let answer = |mut server: Server, copy: &(Hello, Past)| {
            let link = server.new_link(2);
            refusal(&greet(&mut server, link, copy))
        };
        assert_eq!(answer(one.clone(), &copy), why, "{copy:?}");
        let doubt = why.map(|_| Refusal::Doubtful);
        let mut deaf = one.clone();
        deaf.advance(T);
        assert_eq!(answer(deaf, &copy), doubt, "no majority answers it");
        let to_three = (Hello { to: id(3), ..copy.0 }, copy.1);
        assert_eq!(answer(group.take(3), &to_three), doubt, "a backup");
    }
}

/// A copy that the group has dropped and added again is the disk from then on. A server that
/// accepted the original earlier links with the copy, and the original is the copy now.
#[test]
fn a_copy_that_the_group_has_added_is_accepted() {
    let mut three = formed().take(3);
    let (hello, past) = next_start(&three, 2);
    let old = past.runs[0];
    // Returns the hello of a directory that had these starts after the first one.
    let life = |starts: &[u64]| {
        let incarnations = (old.incarnation.0 + 1..).map(Incarnation);
        let starts = incarnations
            .zip(starts)
            .map(|(incarnation, n)| Run { incarnation, process: ProcessId(*n) });
        let runs: Vec<Run> = [old].into_iter().chain(starts).collect();
        (Hello { run: runs[runs.len() - 1], ..hello }, Past { runs, ..Past::default() })
    };
    let (original, copy) = (life(&[71, 72]), life(&[81]));
    three.end_link(2);
    let link = three.new_link(2);
    assert!(is_let_in(&greet(&mut three, link, &original), link));
    three.end_link(2);
    let answer = |three: &Server, life: &(Hello, Past)| {
        let mut three = three.clone();
        if three.is_linked(2) {
            three.end_link(2);
        }
        let link = three.new_link(2);
        refusal(&greet(&mut three, link, life))
    };
    assert_eq!(answer(&three, &copy), Some(Refusal::Doubtful));

    // Returns the server with an entry that adds server 2 as this run.
    let added = |three: &Server, run: Run| {
        let mut three = three.clone();
        let mut config = *three.replica.config().unwrap();
        config.origin = Origin::Added(id(2), run);
        let (term, prev) = (three.replica.term(), three.last());
        let entry = config_entry(Position { term, index: prev.index.next() }, &config);
        assert_eq!(three.receive_entries(append(term, prev), 1, &[entry]).appended(), 1);
        three
    };
    // The group added the original again: nothing changes.
    for run in &original.1.runs {
        let three = added(&three, *run);
        assert_eq!(answer(&three, &copy), Some(Refusal::Doubtful), "{run:?}");
        assert_eq!(answer(&three, &original), None, "{run:?}");
    }
    // A server that was away has not seen the addition. The copy's hello names it; that counts if
    // the copy's log is at least as new, and only for the run that was added.
    let told = |run: Run, last: Position| {
        (Hello { last, ..copy.0 }, Past { added: Some(run), ..copy.1.clone() })
    };
    let Position { term, index } = three.last();
    let (older, newer) = (at(term.0, index.0 - 1), at(term.0, index.0 + 1));
    let accepted = |life: &(Hello, Past)| answer(&three, life).is_none();
    assert!(accepted(&told(copy.1.runs[1], three.last())));
    assert!(accepted(&told(copy.1.runs[1], newer)));
    assert!(!accepted(&told(copy.1.runs[1], older)), "an older log");
    assert!(!accepted(&told(old, newer)), "the original was added with this run, too");
    let mut three = added(&three, copy.1.runs[1]);
    assert_eq!(answer(&three, &original), Some(Refusal::Doubtful));
    let link = three.new_link(2);
    let out = greet(&mut three, link, &copy);
    assert!(is_let_in(&out, link));
    let is_recorded = |effect: &Effect| match effect {
        Effect::RecordIncarnation(seen) => seen.disk == hello.from.disk && seen.runs == copy.1.runs,
        _ => false,
    };
    assert!(out.0.effects.iter().any(is_recorded));
    let (later, other) = (life(&[81, 82]), life(&[83]));
    assert_eq!(answer(&three, &later), None, "the next start of the added copy");
    assert_eq!(answer(&three, &other), Some(Refusal::Doubtful), "a copy of the copy");
}

/// A server that refuses a copy records the copy's newest start, and so refuses all later starts of
/// it. This holds when the copy starts more often than a hello lists, and after each restart of the
/// server.
#[test]
fn a_copy_that_was_refused_stays_refused() {
    let stored = formed().take(3);
    let (vote, log) = (stored.written.vote, &stored.log.0);
    let (hello, past) = next_start(&stored, 2);
    let mut seen = Seen::default();
    let mut greeted = |hello: Hello, runs: Vec<Run>| {
        let setup = Setup { seen: seen.clone(), ..setup(3, vote, log) };
        let mut three = Server::start(START, setup, log.clone());
        let link = three.new_link(2);
        let out = greet(&mut three, link, &(hello, Past { runs, ..Past::default() }));
        for effect in &out.0.effects {
            if let Effect::RecordIncarnation(disk) = effect {
                seen.put((**disk).clone());
            }
        }
        refusal(&out)
    };
    assert_eq!(greeted(hello, past.runs.clone()), None);
    // The copy was made before the start that was accepted.
    let mut runs = vec![past.runs[0]];
    for n in 1..50 {
        let incarnation = Incarnation(past.runs[0].incarnation.0 + n);
        let process = ProcessId(1000 + n);
        let run = Run { incarnation, process };
        runs.push(run);
        let newest = runs[runs.len().saturating_sub(RUNS_KEPT)..].to_vec();
        let copy = Hello { run, ..hello };
        assert_eq!(greeted(copy, newest), Some(Refusal::Doubtful), "{n}");
    }
}

/// A server in doubt does not campaign for twice the peer timeout: an old copy must not lead a term
/// that had a primary.
#[test]
fn a_doubted_server_waits_before_it_campaigns() {
    let two = without_primary(2);
    assert!(campaigns(&two.clone().wait(RANK_TIME, &[1, 3])));
    let refused = |why: Refusal| {
        let mut two = two.clone();
        let out = two.receive(1, Packet::Refused(why));
        (two, out.has(&Effect::Quarantine(Quarantine::Everything)))
    };
    assert!(refused(Refusal::OldCopy).1);
    let (mut two, leaves) = refused(Refusal::Doubtful);
    assert!(!leaves && !campaigns(&two.wait(T * 2 - US, &[3])));
    assert!(!campaigns(&two.advance(US).tick()), "it has a delay");
    assert!(campaigns(&two.wait(RANK_TIME, &[3])));
}

/// Nor does it vote: it may lack entries that its original has acknowledged, and its vote could
/// elect a primary that lacks them, too.
#[test]
fn a_doubted_server_does_not_vote() {
    for is_doubted in [false, true] {
        let mut two = without_primary(2);
        if is_doubted {
            two.receive(1, Packet::Refused(Refusal::Doubtful));
        }
        assert_eq!(grants_pre_vote(&two, 3), !is_doubted);
        let asked = ask(&two);
        let out = two.receive(3, Packet::AskVote(asked));
        let given = Vote { term: asked.term, given: Some(member(3)), founder: None };
        assert_eq!(out.has(&Effect::Persist(given)), !is_doubted);
        let sent = [out, two.durable()].map(|out| out.sent(3)).concat();
        let vote = Packet::Vote { term: asked.term, granted: true };
        assert_eq!(sent.contains(&vote), !is_doubted);
    }
    // Doubt ends a campaign that is under way.
    let mut two = without_primary(2);
    assert!(campaigns(&two.wait(RANK_TIME, &[1, 3])));
    two.pre_vote(3, true);
    two.tick();
    assert_eq!(two.replica.role(), RoleView::Candidate);
    two.receive(1, Packet::Refused(Refusal::Doubtful));
    assert_eq!(two.replica.role(), RoleView::Backup);
}

/// Doubt ends after twice the peer timeout. Shortly before, the server still refuses votes and
/// pre-votes.
#[test]
fn doubt_ends_after_twice_the_peer_timeout() {
    let mut doubted = without_primary(2);
    doubted.receive(1, Packet::Refused(Refusal::Doubtful));
    for (after, votes) in [(T * 2 - US, false), (T * 2, true)] {
        let mut two = doubted.clone();
        two.advance(after);
        assert_eq!(grants_pre_vote(&two, 3), votes, "{after:?}");
        two.receive(3, Packet::AskVote(ask(&two)));
        assert_eq!(two.written.vote.given == Some(member(3)), votes, "{after:?}");
    }
}

/// The first invalid packet closes a link for half of the peer timeout, and each further one for
/// twice as long as the last, up to a minute. After a long good time the first delay applies again.
#[test]
fn a_server_that_repeats_nonsense_is_refused_for_longer() {
    let mut two = formed().take(2);
    let second = Duration::from_secs(1);
    assert_eq!(T / 2, second);
    let mut next = || {
        two.receive(3, Packet::Foreign { version: 9 });
        assert!(!two.is_linked(3));
        let refuses = |after: Duration| {
            let mut two = two.clone();
            two.advance(after);
            refusal(&two.connect(3)) == Some(Refusal::Nonsense)
        };
        let seconds = (1..100).find(|seconds| !refuses(second * *seconds)).unwrap();
        assert!(refuses(second * seconds - US));
        let pause = if seconds == 60 { 300 } else { 1 };
        two.advance(second * (seconds + pause));
        two.connect(3);
        seconds
    };
    let times: Vec<u32> = (0..9).map(|_| next()).collect();
    assert_eq!(times, [1, 2, 4, 8, 16, 32, 60, 1, 2]);
}

/// A server that has quarantined a directory which clients may have used takes no part in a
/// formation, and its hello says so.
#[test]
fn a_server_that_has_lost_its_log_forms_no_group() {
    let former = Position { term: Term(3), index: Index(4) };
    let met = [1, 2, 3].map(|n| member(n).disk);
    for n in 1..=3 {
        for lost in [None, Some(former)] {
            let setup = Setup { former: lost, ..setup(n, Vote::default(), &[]) };
            let mut server = Server::start(START, setup, Vec::new());
            let link = server.new_link(n % 3 + 1);
            let mut expected = Vec::new();
            Past { runs: vec![run(n)], former: lost, ..Past::default() }.encode(&mut expected);
            assert_eq!(greeting(&open(&mut server, link, true), link).unwrap().1, expected);
            for other in (1..=3).filter(|other| *other != n) {
                server.connect(other);
                if n == 1 {
                    server.receive(other, Packet::Blank { met });
                }
            }
            let out = server.tick();
            let forms = out.appended() == 1 || out.sent(1).contains(&Packet::Blank { met });
            assert_eq!(forms, lost.is_none(), "server {n}");

            // The others know it from the hello.
            let to = n % 3 + 1;
            let mut other = Server::start(START, self::setup(to, Vote::default(), &[]), vec![]);
            let link = other.new_link(n);
            let past = Past { runs: vec![run(n)], former: lost, ..Past::default() };
            let hello = other.hello_of(n);
            greet(&mut other, link, &(hello, past));
            let known: Vec<_> = other.replica.former_of_peers().collect();
            assert_eq!(known, lost.map(|last| (id(n), last)).into_iter().collect::<Vec<_>>());
        }
    }
}

/// If a server is the only member of its newest config, it alone can commit. So after a restart
/// every entry that it has stored is committed. With another member it can't know that.
#[test]
fn after_a_restart_an_only_member_counts_all_its_entries_as_committed() {
    for (members, committed) in
        [(&[1u8] as &[u8], Index(3)), (&[1, 2], Index::ZERO), (&[1, 2, 3], Index::ZERO)]
    {
        let all = config_entry(at(0, 1), &config(&[1, 2, 3]));
        let log = [all, config_entry(at(1, 2), &config(members)), message(at(1, 3))];
        let one = Server::start(START, setup(1, vote(1, Some(1)), &log), log.to_vec());
        assert_eq!(one.replica.committed(), committed, "{members:?}");
    }
}

/// A packet that no correct server sends closes its link and does no harm. The sender is refused
/// for half of the peer timeout.
#[test]
fn nonsense_of_a_server_that_knows_the_secret_stops_no_server() {
    let group = formed();
    let (primary, backup) = (group.take(1), group.take(2));
    assert!(backup.replica.committed() >= Index(2));
    let good = |server: &Server| Append {
        committed: server.replica.committed(),
        acknowledged: server.replica.acknowledged(),
        ..append(server.replica.term(), server.last())
    };
    let term = backup.replica.term();
    let first = Record::trust(&backup.log.0[0]).position();
    let early = Append { prev: first, term: term.next(), ..good(&backup) };
    let next = Position { term, index: backup.last().index.next() };
    let over = entry(Position { term: term.next(), index: Index(2) }, Kind::MESSAGE, b"");
    let table = [
        ("it leads, too", &primary, 2, Packet::Append(good(&primary)), vec![]),
        ("it overwrites a committed entry", &backup, 1, Packet::Append(early), over),
        ("an unknown kind", &backup, 1, Packet::Append(good(&backup)), entry(next, Kind(77), b"")),
        ("the last term", &backup, 1, Packet::HigherTerm { term: Term((1 << 48) - 1) }, vec![]),
        (
            "an epoch that no operator began",
            &backup,
            1,
            Packet::Vote { term: Term(u64::MAX), granted: true },
            vec![],
        ),
        ("the begin of a link", &backup, 1, Packet::Foreign { version: 9 }, vec![]),
    ];
    for (what, server, from, packet, records) in table {
        let mut server = server.clone();
        let (before, term) = (server.replica.last(), server.replica.term());
        let link = server.link(from);
        let out = receive_on(&mut server, link, packet, &records);
        assert!(out.has(&Effect::Close(link, Closing::Nonsense)), "{what}: {out:?}");
        let changes = |e: &Effect| matches!(e, Effect::Cut(_) | Effect::Append(_));
        assert!(!out.0.effects.iter().any(changes), "{what}: {out:?}");
        assert_eq!(server.replica.last(), before, "{what}");
        let votes = out.0.effects.iter().any(|e| matches!(e, Effect::Persist(_)));
        let is_adopted = matches!(packet, Packet::Append(sent) if sent.term > term);
        assert_eq!((votes, server.replica.term() > term), (is_adopted, is_adopted), "{what}");
        let came = next_start(&server, from);
        let again = |after: Duration| {
            let mut server = server.clone();
            server.advance(after);
            let link = server.new_link(from);
            refusal(&greet(&mut server, link, &came))
        };
        assert_eq!(again(Duration::ZERO), Some(Refusal::Nonsense), "{what}");
        assert_ne!(again(T / 2), Some(Refusal::Nonsense), "{what}");
    }
}

/// A follower rejects entries by which a primary contradicts what it sent in the same term.
#[test]
fn an_entry_that_was_proved_equal_is_not_overwritten_in_the_same_term() {
    let mut two = formed().take(2);
    let (last, term) = (two.last(), two.replica.term().next());
    let mut send = |of: Term| {
        let entry = message(Position { term: of, index: last.index.next() });
        let out = two.receive_entries(append(term, last), 1, &[entry]);
        (out.closed(1), two.last().term)
    };
    assert_eq!(send(last.term), (vec![], last.term));
    assert_eq!(send(term), (vec![Closing::Nonsense], last.term));
}

/// The first entry of every log is the config of the formation.
#[test]
fn an_uninitialized_server_accepts_no_log_that_begins_with_another_entry() {
    for kind in [Kind::MESSAGE, Kind::REFUSAL] {
        let mut two = Server::start(START, setup(2, Vote::default(), &[]), Vec::new());
        two.connect(1);
        let append =
            Append { committed: Index(1), acknowledged: Index(1), ..append(Term(1), at(0, 0)) };
        let out = two.receive_entries(append, 1, &[entry(at(1, 1), kind, b"")]);
        assert_eq!((out.closed(1), two.replica.last()), (vec![Closing::Nonsense], Index::ZERO));
        two.tick();
    }
}
