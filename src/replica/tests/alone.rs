//! Rules that long runs seldom reach, each in the situation in which it decides.

use super::*;

/// Returns server 1, the primary of a healthy group, and its world.
fn primary_alone() -> (World, Replica) {
    let world = formed(8);
    let replica = world.running[&1].replica.clone();
    (world, replica)
}

fn begin_term_at(replica: &mut Replica, start: Index) {
    let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
    primary.term_start = start;
}

#[test]
fn entries_of_earlier_terms_are_not_committed_by_counting() {
    // Raft, figure 8: even entries stored by all may be overwritten, until one of the primary's
    // own term is committed.
    let (_, mut replica) = primary_alone();
    let last = replica.last();
    let mut committed_when_own_begin_at = |start: Index| {
        (replica.committed, replica.acknowledged) = (Index::ZERO, Index::ZERO);
        begin_term_at(&mut replica, start);
        replica.advance();
        (replica.committed, replica.acknowledged)
    };
    assert_eq!(committed_when_own_begin_at(last.next()), (Index::ZERO, Index::ZERO));
    assert_eq!(committed_when_own_begin_at(last), (last, last));
}

#[test]
fn members_change_only_when_an_entry_of_the_own_term_is_committed() {
    // The correction of single-server changes (Ongaro §4.1).
    let (world, mut replica) = primary_alone();
    let heard = replica.peer(id(2)).unwrap().heard;
    let gone = replica.peers.iter_mut().find(|peer| peer.id == id(3)).unwrap();
    (gone.link, gone.refused, gone.lost_at) = (None, true, heard);
    let mut members_after = |start: Index| {
        begin_term_at(&mut replica, start);
        replica.change_members(world.now, WallTime(0), &mut Out::default());
        replica.config().unwrap().count()
    };
    let last = world.running[&1].replica.last();
    assert_eq!(members_after(last.next()), 3);
    assert_eq!(members_after(last), 2);
}

#[test]
fn learners_are_sent_committed_entries_only() {
    // A learner that rejoins must not bring back an entry that the members have overwritten.
    let (world, mut replica) = primary_alone();
    let three = replica.config().unwrap().member(id(3)).unwrap();
    let sent = |replica: &mut Replica| {
        let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
        primary.progress_mut(three).unwrap().stored = Index::ZERO;
        // The learner rejects every append: its log is empty.
        replica.on_append_rejected(three, replica.vote.term, Index::ZERO);
        let mut out = Out::default();
        replica.send_all(world.now, &world.running[&1].disk.log, &mut out);
        let link = replica.link_to(three).unwrap();
        let sent = out.effects.iter().filter_map(|effect| match effect {
            Effect::SendEntries { link: to, last, .. } if *to == link => Some(*last),
            _ => None,
        });
        sent.max()
    };
    assert_eq!(sent(&mut replica), Some(replica.flushed), "a member gets what is written");
    let without = replica.config().unwrap().without(id(3));
    replica.append_config(replica.vote.term, WallTime(0), without, &mut Out::default());
    replica.committed = Index(2);
    replica.acknowledged = Index(2);
    assert_eq!(sent(&mut replica), Some(Index(2)), "a learner does not");
}

#[test]
fn who_links_again_and_again_and_stores_nothing_is_sick() {
    let (world, mut replica) = primary_alone();
    let three = replica.config().unwrap().member(id(3)).unwrap();
    let peer_timeout = replica.peer_timeout();
    let mut now = world.now;
    let mut waits_on_a_new_link = |replica: &mut Replica, after: Duration| {
        now += after;
        replica.on_linked(now, three, ProcessId(1));
        replica.send_all(now, &world.running[&1].disk.log, &mut Out::default());
        let Role::Primary(primary) = &mut replica.role else { panic!("1 is primary") };
        now - primary.progress(three).unwrap().waits_since().unwrap()
    };
    assert_eq!(waits_on_a_new_link(&mut replica, Duration::ZERO), Duration::ZERO);
    let step = peer_timeout / 4;
    assert_eq!(waits_on_a_new_link(&mut replica, step), step);
    assert_eq!(waits_on_a_new_link(&mut replica, step), step * 2);
    let rest = peer_timeout - step * 2;
    assert_eq!(waits_on_a_new_link(&mut replica, rest), Duration::ZERO, "it was given up");
    let (term, last) = (replica.vote.term, replica.last());
    replica.on_acknowledged(three, term, last, 0, &mut Out::default());
    assert_eq!(waits_on_a_new_link(&mut replica, step), Duration::ZERO, "it has stored all");
}
