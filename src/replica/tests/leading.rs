//! What a primary counts, sends and confirms.

use super::primary::REMEMBERED_MAX;
use super::*;
use crate::limits::{BATCH_TIME, PIECES_IN_FLIGHT_MAX};

/// Returns the time, server 1 and its log: it is the primary of a healthy group without open
/// entries.
fn primary() -> (Moment, Replica, FakeLog) {
    let world = formed(8);
    let mut replica = world.running[&1].replica.clone();
    hear_all(&mut replica, world.now);
    (world.now, replica, world.running[&1].disk.log.clone())
}

fn member(replica: &Replica, n: u8) -> Member {
    replica.peers.iter().find(|peer| peer.id == id(n)).unwrap().link.as_ref().unwrap().member
}

fn propose(replica: &mut Replica, log: &mut FakeLog, count: usize) {
    for _ in 0..count {
        let mut out = Out::default();
        replica.propose(Moment(0), WallTime(0), Kind::MESSAGE, |_| (), &mut out).unwrap();
        log.records.push(out.bytes);
    }
}

fn acknowledge(replica: &mut Replica, n: u8, stored: Index, round: u64) {
    let (from, term) = (member(replica, n), replica.vote.term);
    replica.on_acknowledged(from, term, stored, round, &mut Out::default());
    replica.advance();
}

/// Returns the first and last entry of each append sent to a server; for an empty one, `prev`
/// twice.
fn sent(replica: &mut Replica, now: Moment, log: &FakeLog, n: u8) -> Vec<(Index, Index)> {
    let link = replica.link_to(member(replica, n)).unwrap();
    let mut out = Out::default();
    replica.send_all(now, log, &mut out);
    let of = out.effects.iter().filter_map(|effect| match effect {
        Effect::SendEntries { link: to, first, last, .. } if *to == link => Some((*first, *last)),
        Effect::Send(to, Packet::Append(append)) if *to == link => {
            Some((append.prev.index, append.prev.index))
        }
        _ => None,
    });
    of.collect()
}

#[test]
fn committed_is_by_a_majority_and_answered_by_all() {
    let (now, mut replica, mut log) = primary();
    let before = replica.last();
    propose(&mut replica, &mut log, 3);
    let at = |n: u64| Index(before.0 + n);
    sent(&mut replica, now, &log, 2);
    let state = |replica: &Replica| (replica.committed, replica.acknowledged);
    acknowledge(&mut replica, 2, at(2), 0);
    assert_eq!(state(&replica), (at(0), at(0)), "one of three");
    replica.stored = at(1);
    acknowledge(&mut replica, 2, at(2), 0);
    assert_eq!(state(&replica), (at(1), at(0)), "two of three");
    acknowledge(&mut replica, 3, at(3), 0);
    assert_eq!(state(&replica), (at(2), at(1)));
    replica.stored = at(3);
    replica.advance();
    assert_eq!(state(&replica), (at(3), at(2)));
    acknowledge(&mut replica, 2, at(1), 0);
    assert_eq!(state(&replica), (at(3), at(2)), "what was acknowledged stays so");
    acknowledge(&mut replica, 2, at(3), 0);
    assert_eq!(state(&replica), (at(3), at(3)));
}

#[test]
fn only_acknowledgements_of_its_own_term_for_what_it_has_count() {
    let (_, mut replica, _) = primary();
    let (two, term, last) = (member(&replica, 2), replica.vote.term, replica.last());
    let stored = |replica: &Replica| {
        let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
        primary.progress(two).unwrap().stored
    };
    let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
    primary.progress_mut(two).unwrap().stored = Index(1);
    let mut out = Out::default();
    replica.on_acknowledged(two, Term(term.0 - 1), last, 0, &mut out);
    assert_eq!(stored(&replica), Index(1), "of an earlier term");
    replica.on_acknowledged(two, term, last.next(), 0, &mut out);
    assert_eq!(stored(&replica), Index(1), "more than there is");
    replica.on_acknowledged(Member { disk: DiskId(9), ..two }, term, last, 0, &mut out);
    assert_eq!(stored(&replica), Index(1), "of another disk");
    replica.on_acknowledged(two, term, last, 0, &mut out);
    assert_eq!(stored(&replica), last);
    replica.on_acknowledged(two, term.next(), last, 0, &mut out);
    assert!(matches!(replica.role, Role::Follower(_)) && replica.vote.term == term.next());
}

#[test]
fn a_round_is_confirmed_by_a_majority_once_an_own_entry_is_answered() {
    let (now, mut replica, log) = primary();
    let before = replica.confirmed_read().unwrap();
    let round = replica.read_index().unwrap();
    assert_eq!(replica.read_index(), Some(round), "all of a turn share one");
    assert_eq!(replica.confirmed_read(), Some(before));
    assert_eq!(sent(&mut replica, now, &log, 2).len(), 1, "it is asked");
    assert_eq!(sent(&mut replica, now, &log, 2).len(), 0, "and once");
    let last = replica.last();
    acknowledge(&mut replica, 2, last, round - 1);
    assert_eq!(replica.confirmed_read(), Some(before), "an answer to an earlier one");
    acknowledge(&mut replica, 2, last, round);
    assert_eq!(replica.confirmed_read(), Some(round));
    let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
    primary.term_start = replica.acknowledged.next();
    assert_eq!(replica.confirmed_read(), None, "no entry of its own term is acknowledged");
}

#[test]
fn a_batch_begins_when_the_one_before_is_answered_or_5_ms_old_or_holds_a_config() {
    let (now, mut replica, mut log) = primary();
    let begins = |replica: &mut Replica, now: Moment, log: &FakeLog| {
        let before = replica.flushed;
        sent(replica, now, log, 2);
        assert_eq!(replica.flushed > before, replica.flushed == replica.last());
        replica.flushed > before
    };
    let mut out = Out::default();
    replica.send_all(now, &log, &mut out);
    assert!(!out.effects.contains(&Effect::Flush), "there is nothing to write");
    propose(&mut replica, &mut log, 1);
    assert!(begins(&mut replica, now, &log), "everything before is acknowledged");
    propose(&mut replica, &mut log, 1);
    assert!(!begins(&mut replica, now, &log));
    let due = now + BATCH_TIME;
    assert!(replica.timers.is_set(Timer::Batch) && replica.timers.next() <= Some(due));
    assert!(!begins(&mut replica.clone(), Moment(due.0 - 1), &log));
    assert!(begins(&mut replica.clone(), due, &log));
    let mut acknowledged = replica.clone();
    acknowledged.committed = acknowledged.flushed;
    acknowledged.acknowledged = acknowledged.flushed;
    assert!(begins(&mut acknowledged, now, &log));
    let restated = replica.config().unwrap().restated();
    let mut out = Out::default();
    replica.append_config(replica.vote.term, WallTime(0), restated, &mut out);
    log.records.push(out.bytes);
    assert!(begins(&mut replica, now, &log));
    propose(&mut replica, &mut log, 1);
    assert!(!begins(&mut replica, now, &log), "the config is on its way");
}

#[test]
fn a_disk_that_nothing_is_known_of_is_asked_where_the_term_began() {
    let (now, mut replica, log) = primary();
    let two = member(&replica, 2);
    let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
    let start = primary.term_start;
    primary.progress_mut(two).unwrap().stored = Index::ZERO;
    replica.on_linked(now, two, ProcessId(1));
    assert_eq!(sent(&mut replica, now, &log, 2)[0].0, start);
}

#[test]
fn so_many_pieces_are_in_flight_and_one_while_the_logs_are_compared() {
    let (now, mut replica, mut log) = primary();
    let before = replica.last();
    propose(&mut replica, &mut log, 40);
    replica.flushed = replica.last();
    // `FakeLog` limits each append to three entries.
    let first = sent(&mut replica, now, &log, 2);
    assert_eq!(first.len(), PIECES_IN_FLIGHT_MAX);
    assert_eq!(first[0].0, before.next());
    assert!(first.windows(2).all(|pair| pair[1].0 == pair[0].1.next()), "{first:?}");
    assert_eq!(sent(&mut replica, now, &log, 2), []);
    acknowledge(&mut replica, 2, first[1].1, 0);
    let second = sent(&mut replica, now, &log, 2);
    assert_eq!((second.len(), second[0].0), (2, first[PIECES_IN_FLIGHT_MAX - 1].1.next()));

    let (two, term) = (member(&replica, 2), replica.vote.term);
    replica.on_append_rejected(two, term, Index(2));
    let probe = sent(&mut replica, now, &log, 2);
    assert_eq!(probe.len(), 1);
    assert_eq!(probe[0].0, first[1].1.next(), "never below what it has acknowledged");
    let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
    primary.progress_mut(two).unwrap().stored = Index::ZERO;
    replica.on_append_rejected(two, Term(term.0 - 1), Index(2));
    assert_eq!(sent(&mut replica, now, &log, 2), [], "of an earlier term");
    replica.on_append_rejected(two, term, Index(2));
    assert_eq!(sent(&mut replica, now, &log, 2)[0].0, Index(3));
    replica.on_append_rejected(two, term, Index(1_000));
    assert_eq!(sent(&mut replica, now, &log, 2)[0].0, Index(5), "one further back at least");
    acknowledge(&mut replica, 2, Index(7), 0);
    assert_eq!(sent(&mut replica, now, &log, 2).len(), PIECES_IN_FLIGHT_MAX, "they are equal");
}

#[test]
fn what_is_not_acknowledged_for_2_t_is_sent_again() {
    let (now, mut replica, mut log) = primary();
    let before = replica.last();
    propose(&mut replica, &mut log, 1);
    assert_eq!(sent(&mut replica, now, &log, 2), [(before.next(), before.next())]);
    let again = now + replica.peer_timeout() * 2;
    assert_eq!(sent(&mut replica.clone(), Moment(again.0 - 1), &log, 2), []);
    assert_eq!(sent(&mut replica, again, &log, 2), [(before.next(), before.next())]);
}

#[test]
fn who_follows_is_told_what_is_answered_at_the_next_heartbeat() {
    let (now, mut replica, mut log) = primary();
    replica.refresh_told();
    sent(&mut replica, now, &log, 2);
    replica.refresh_told();
    assert_eq!(sent(&mut replica, now, &log, 2), [], "it knows");
    propose(&mut replica, &mut log, 1);
    sent(&mut replica, now, &log, 2);
    let last = replica.last();
    replica.stored = last;
    acknowledge(&mut replica, 2, last, 0);
    acknowledge(&mut replica, 3, last, 0);
    assert_eq!(sent(&mut replica, now, &log, 2), [], "not before");
    replica.refresh_told();
    assert_eq!(sent(&mut replica, now, &log, 2), [(last, last)]);
    assert_eq!(sent(&mut replica, now, &log, 2), []);
    let two = member(&replica, 2);
    replica.tell_again(two);
    assert_eq!(sent(&mut replica, now, &log, 2), [(last, last)], "it has not noticed who leads");
}

#[test]
fn who_has_stored_what_was_committed_when_it_was_asked_has_caught_up() {
    let (now, mut replica, mut log) = primary();
    let two = member(&replica, 2);
    let caught_up = |replica: &Replica| {
        let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
        primary.progress(two).unwrap().caught_up
    };
    replica.on_linked(now, two, ProcessId(2));
    assert!(!caught_up(&replica), "it has said nothing on this link");
    let asked = replica.committed;
    sent(&mut replica, now, &log, 2);
    propose(&mut replica, &mut log, 2);
    (replica.flushed, replica.stored) = (replica.last(), replica.last());
    let last = replica.last();
    acknowledge(&mut replica, 3, last, 0);
    assert!(replica.committed > asked);
    acknowledge(&mut replica, 2, asked, 0);
    assert!(caught_up(&replica), "more was committed since it was asked");
    acknowledge(&mut replica, 2, Index(1), 0);
    assert!(!caught_up(&replica), "an answer to nothing");

    // The same rule for entries that were sent.
    acknowledge(&mut replica, 2, last, 0);
    propose(&mut replica, &mut log, 1);
    replica.flushed = replica.last();
    let (sent_last, _) = (replica.last(), sent(&mut replica, now, &log, 2));
    propose(&mut replica, &mut log, 1);
    (replica.flushed, replica.stored) = (replica.last(), replica.last());
    let last = replica.last();
    acknowledge(&mut replica, 3, last, 0);
    assert_eq!(replica.committed, last);
    acknowledge(&mut replica, 2, sent_last, 0);
    assert!(caught_up(&replica));
}

#[test]
fn so_many_disks_are_remembered_and_those_that_are_there_stay() {
    let (now, mut replica, _) = primary();
    let (two, three) = (member(&replica, 2), member(&replica, 3));
    for n in 0..3 * REMEMBERED_MAX as u128 {
        replica.on_linked(now, Member { id: id(3), disk: DiskId(n) }, ProcessId(1));
    }
    let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
    assert!(primary.progress(two).is_some() && primary.progress(three).is_some());
    // A member without a link stays as well, and so does a linked server that is not a member.
    for change in
        [(|r| r.peers.iter_mut().for_each(|peer| peer.link = None)) as fn(&mut Replica), |r| {
            let alone = Config::new([r.me], true);
            r.append_config(r.vote.term, WallTime(0), alone, &mut Out::default());
        }]
    {
        let mut replica = replica.clone();
        change(&mut replica);
        for n in 100..140 {
            replica.on_linked(now, Member { id: id(3), disk: DiskId(n) }, ProcessId(1));
        }
        let Role::Primary(primary) = &replica.role else { panic!("1 is primary") };
        assert!(primary.progress(two).is_some() && primary.progress(three).is_some());
    }
    let newest = Member { id: id(3), disk: DiskId(3 * REMEMBERED_MAX as u128 - 1) };
    assert!(primary.progress(newest).is_some());
    let known = (0..3 * REMEMBERED_MAX as u128)
        .filter(|n| primary.progress(Member { id: id(3), disk: DiskId(*n) }).is_some());
    assert_eq!(known.count(), REMEMBERED_MAX - 2);
}

#[test]
fn the_gate_opens_when_a_config_of_all_is_answered() {
    let (now, healthy, _) = primary();
    let opens = |members: &[u8], acknowledged: bool| {
        let mut replica = healthy.clone();
        replica.summary = LogSummary::default();
        let all: Vec<Member> =
            std::iter::once(healthy.me).chain([2, 3].map(|n| member(&healthy, n))).collect();
        let them = all.into_iter().filter(|member| members.contains(&member.id.number()));
        let config = Config::new(them, false);
        replica.vote.term = Term(1);
        replica.append_config(Term(1), WallTime(0), config, &mut Out::default());
        let last = replica.last();
        (replica.flushed, replica.stored, replica.committed) = (last, last, last);
        replica.acknowledged = if acknowledged { last } else { Index::ZERO };
        let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
        primary.term_start = last;
        replica.change_members(now, WallTime(0), &mut Out::default());
        replica.config().unwrap().gate_open
    };
    assert!(opens(&[1, 2, 3], true));
    assert!(!opens(&[1, 2, 3], false), "it is not acknowledged");
    assert!(!opens(&[1, 2], true), "one is missing");
    let mut open = healthy.clone();
    let last = open.last();
    open.change_members(now, WallTime(0), &mut Out::default());
    assert_eq!(open.last(), last, "it is opened once");
}
