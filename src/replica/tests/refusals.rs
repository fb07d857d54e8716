//! Guards the refusal of later epochs: a healthy group logs each epoch that it refuses, so that no
//! member follows it later when it is alone.

use super::hellos::*;
use crate::replica::Epoch;

/// The most refusals that a log holds.
const REFUSALS_MAX: usize = 64;

/// Returns an epoch of a server that is no member.
fn epoch(number: u16) -> Epoch {
    Epoch { number, founder: DiskId(77) }
}

/// Returns the hello of server 3 after an operator let it continue alone, although the others
/// live.
fn straggler(to: &Server) -> (Hello, Past) {
    let (mut hello, mut past) = next_start(to, 3);
    (hello.term, hello.founder) = (hello.term.next_epoch(id(3)), Some(DiskId(33)));
    past.epochs = vec![Epoch { number: hello.term.epoch(), founder: DiskId(33) }];
    (hello, past)
}

/// Returns the refusal that a server answers a hello of server 3 with, if it does.
fn answer(server: &mut Server, came: &(Hello, Past)) -> Option<Refusal> {
    let link = server.new_link(3);
    refusal(&greet(server, link, came))
}

/// Returns the refused epochs in the log.
fn logged(server: &Server) -> Vec<Epoch> {
    let records = server.log.0.iter().map(|record| Record::trust(record));
    let refusals = records.filter(|record| record.kind == Kind::REFUSAL);
    refusals.map(|record| Epoch::decode(record.body).unwrap()).collect()
}

/// Returns server 1, an elected only member whose log begins with these entries.
fn only_member(log: &[Vec<u8>], vote: Vote) -> Server {
    let mut one = Server::start(START, setup(1, vote, log), log.to_vec());
    one.connect(2);
    one.connect(3);
    one.elect(&[]);
    one.durable();
    one.tick();
    assert!(one.replica.committed() == one.replica.last());
    one
}

#[test]
fn a_primary_logs_a_refused_epoch_once() {
    let mut one = formed().take(1);
    let came = straggler(&one);
    for _ in 0..3 {
        assert_eq!(answer(&mut one, &came), Some(Refusal::Straggler));
        one.tick();
        assert_eq!(logged(&one), came.1.epochs);
    }
}

/// The primary of a backup may have died a moment before the backup refuses an epoch. So the
/// backup asks its primary to log the refusal, and records nothing itself.
#[test]
fn a_backup_asks_its_primary_to_log_a_refusal() {
    let group = formed();
    let mut two = group.take(2);
    let came = straggler(&two);
    let refused = Packet::Refuses(came.1.epochs[0]);
    let link = two.new_link(3);
    let out = greet(&mut two, link, &came);
    assert_eq!(refusal(&out), Some(Refusal::Straggler));
    assert!(out.sent(1).contains(&refused), "{out:?}");
    two.end_link(1);
    two.end_link(3);
    assert_eq!(answer(&mut two, &came), None);
    two.advance(T);
    assert_eq!(answer(&mut two, &came), None);
    assert_eq!(two.replica.term(), came.0.term, "it follows the epoch");

    let mut one = group.take(1);
    one.receive(2, refused);
    one.tick();
    assert_eq!(logged(&one), came.1.epochs);
}

/// A server with the entry of a refusal refuses that epoch and its descendants, also when it is
/// alone later. An entry that is cut refuses nothing.
#[test]
fn a_logged_refusal_is_kept_by_each_server_that_has_the_entry() {
    let group = formed();
    let (mut one, mut two) = (group.take(1), group.take(2));
    let came = straggler(&two);
    one.receive(2, Packet::Refuses(came.1.epochs[0]));
    one.tick();
    let before = two.last();
    let entry = one.log.0.last().unwrap().clone();
    two.receive_entries(append(two.replica.term(), before), 1, &[entry]);
    assert_eq!(logged(&two), came.1.epochs);

    let alone = |two: &Server, came: &(Hello, Past)| {
        let mut two = two.clone();
        two.end_link(1);
        two.end_link(3);
        let answer = answer(&mut two, came);
        two.advance(T);
        assert_eq!(self::answer(&mut two, came), answer);
        let follows = two.replica.term() == came.0.term;
        assert_eq!(follows, answer.is_none());
        answer
    };
    assert_eq!(alone(&two, &came), Some(Refusal::Parted));
    let mut child = came.clone();
    (child.0.term, child.0.founder) = (child.0.term.next_epoch(id(1)), Some(DiskId(44)));
    assert_eq!(alone(&two, &child), Some(Refusal::Parted), "its ancestor was refused");
    child.1.epochs.clear();
    assert_eq!(alone(&two, &child), None, "an epoch that does not descend from a refused one");

    let term = two.replica.term().next();
    let other = message(Position { term, index: before.index.next() });
    let out = two.receive_entries(append(term, before), 1, &[other]);
    assert!(out.has(&Effect::Cut(before.index)));
    assert_eq!(alone(&two, &came), None);
}

/// The primary remembers at most 64 refusals, also when it can't log them. It answers `Parted` to a
/// later epoch that it remembers, when no majority answers it any more.
#[test]
fn a_primary_remembers_at_most_64_refusals() {
    let mut one = formed().take(1);
    for number in 1..100 {
        one.receive(2, Packet::Refuses(epoch(number)));
    }
    one.advance(T);
    assert_eq!(logged(&one), []);
    for number in 1..100 {
        let (mut hello, mut past) = straggler(&one);
        let epoch = epoch(number);
        (hello.term, hello.founder) = (Term(u64::from(number) << 48), Some(epoch.founder));
        past.epochs = vec![epoch];
        let is_remembered = answer(&mut one.clone(), &(hello, past)) == Some(Refusal::Parted);
        assert_eq!(is_remembered, usize::from(number) <= REFUSALS_MAX, "{number}");
    }
}

/// A log holds at most 64 refusals, one of each epoch, and never one of an epoch of its own.
#[test]
fn few_epochs_are_refused_each_once_and_an_own_one_never() {
    let begun = Term::ZERO.next_epoch(id(1));
    let founder = member(1).disk;
    let mut alone = config(&[1]);
    alone.origin = Origin::Branch(at(0, 1));
    let log = [
        config_entry(at(0, 1), &config(&[1, 2, 3])),
        config_entry(Position { term: begun, index: Index(2) }, &alone),
    ];
    let vote = Vote { term: begun, given: None, founder: Some(founder) };
    let mut one = only_member(&log, vote);
    one.receive(2, Packet::Refuses(Epoch { number: begun.epoch(), founder }));
    one.tick();
    assert_eq!(logged(&one), []);
    for number in 1..100 {
        (0..2).for_each(|_| drop(one.receive(2, Packet::Refuses(epoch(number)))));
        one.tick();
        one.tick();
        assert_eq!(logged(&one).len(), usize::from(number).min(REFUSALS_MAX));
    }
}

/// The bound holds for the log, and not only for one primary.
#[test]
fn a_later_primary_logs_no_more_refusals_than_the_log_may_hold() {
    for held in [REFUSALS_MAX - 1, REFUSALS_MAX] {
        let mut log = vec![config_entry(at(0, 1), &config(&[1]))];
        for number in 1..=held as u64 {
            let mut body = Vec::new();
            epoch(number as u16).encode(&mut body);
            log.push(entry(at(0, number + 1), Kind::REFUSAL, &body));
        }
        let mut one = only_member(&log, Vote::default());
        one.receive(2, Packet::Refuses(epoch(1_000)));
        one.tick();
        assert_eq!(logged(&one).len(), REFUSALS_MAX);
        assert_eq!(logged(&one).contains(&epoch(1_000)), held < REFUSALS_MAX);
    }
}

/// A stopping primary logs no refusals even if it finds no backup to hand over to. It still refuses
/// later epochs.
#[test]
fn a_stopping_primary_without_an_heir_logs_no_refusals() {
    let stopping = PeerHealth { stopping: true, ..PeerHealth::default() };
    for (stops, count) in [(false, 1), (true, 0)] {
        let mut one = formed().take(1);
        [2, 3].iter().for_each(|n| drop(one.report(*n, stopping)));
        if stops {
            one.replica.stop(one.now);
        }
        let came = straggler(&one);
        for _ in 0..2 {
            assert_eq!(answer(&mut one, &came), Some(Refusal::Straggler));
            one.tick();
            assert!(!one.replica.is_handing_over());
            assert_eq!(logged(&one).len(), count, "it stops: {stops}");
        }
    }
}

/// A primary that is leaving logs no refusals, nor does one that has committed nothing in its term.
#[test]
fn a_refusal_is_logged_only_by_a_primary_that_stays() {
    let group = formed();
    type Change = fn(&mut Server);
    let changes: [(&str, Change, usize); 3] = [
        ("it stays", |_| (), 1),
        ("it stops", |one| one.replica.stop(one.now), 0),
        (
            "it hands over",
            |one| {
                let group = one.hello_of(2).shared.group;
                let link = one.new_link(2);
                let out = first(one, link, false, Packet::Order { group, to: None });
                assert!(out.has(&Effect::Send(link, Packet::Verdict(Verdict::Taken))));
            },
            0,
        ),
    ];
    for (what, change, count) in changes {
        let mut one = group.take(1);
        one.receive(2, Packet::Refuses(epoch(1)));
        change(&mut one);
        one.tick();
        assert_eq!(logged(&one).len(), count, "{what}");
    }

    let mut two = group.take(2);
    two.kill(1);
    two.elect(&[3]);
    two.receive(3, Packet::Refuses(epoch(1)));
    two.tick();
    assert_eq!(logged(&two).len(), 0, "no entry of its term is committed");
    two.durable();
    two.accept(3, two.replica.last());
    two.tick();
    assert_eq!(logged(&two).len(), 1);
}
