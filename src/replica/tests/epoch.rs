//! Epochs that begin where an operator overruled elections: which servers follow them, when, and
//! what is quarantined.

use super::*;
use crate::ids::GroupId;
use crate::limits::ANCESTRY_MAX;

/// Returns server `n` of a healthy group whose primary is 1, and its world.
fn server(n: u8) -> (World, Replica) {
    let world = formed(8);
    let replica = world.running[&n].replica.clone();
    (world, replica)
}

fn before(at: Moment) -> Moment {
    Moment(at.0 - 1)
}

#[test]
fn a_later_history_is_followed_after_t_without_a_primary_and_nobody_votes_until_2_t() {
    let (world, mut replica) = server(2);
    let (now, peer_timeout) = (world.now, replica.peer_timeout());
    assert!(!replica.awaits_epoch(now), "none was met");
    assert!(!replica.may_follow_epoch(now));
    assert!(!replica.may_follow_epoch(before(now + peer_timeout)));
    assert!(replica.awaits_epoch(before(now + peer_timeout)));
    let mut heard = replica.clone();
    assert!(replica.may_follow_epoch(now + peer_timeout), "counted from the first meeting");
    assert!(replica.awaits_epoch(before(now + peer_timeout * 2)));
    assert!(!replica.awaits_epoch(now + peer_timeout * 2));

    // A primary of the own epoch ends the wait, and a later meeting starts a new one.
    let log = &world.running[&2].disk.log;
    heard.handle(now, WallTime(0), Event::Tick, log, &mut Out::default());
    assert!(heard.is_healthy(now) && !heard.awaits_epoch(now));
    assert!(!heard.may_follow_epoch(now + peer_timeout));

    replica.later_epoch = None;
    replica.summary = LogSummary::default();
    assert!(replica.may_follow_epoch(now), "a blank server has nothing to lose");
}

#[test]
fn a_group_is_healthy_with_a_primary_that_hears_a_majority_or_is_heard() {
    let later = Duration::from_secs(60);
    for n in [1, 2] {
        let (world, mut replica) = server(n);
        assert!(replica.is_healthy(world.now), "{n}");
        assert!(!replica.is_healthy(world.now + later), "{n}: nobody was heard for long");
        replica.leave_primary(replica.config().unwrap().member(id(1)).unwrap());
        assert_eq!(replica.is_healthy(world.now), n == 1);
    }
}

#[test]
fn who_follows_a_later_history_takes_its_term_and_tells_the_others_anew() {
    let (world, mut replica) = server(2);
    let three = replica.config().unwrap().member(id(3)).unwrap();
    let (one, link) = (
        replica.link_to(replica.config().unwrap().member(id(1)).unwrap()),
        replica.link_to(three).unwrap(),
    );
    let term = replica.vote.term.next_epoch(id(3));
    let hello = Hello {
        shared: replica.shared,
        from: three,
        to: replica.me.id,
        incarnation: Incarnation(2),
        process: ProcessId(2),
        serial: 1_000,
        has_other: false,
        term,
        founder: Some(three.disk),
        last: replica.summary.last(),
    };
    let mut out = Out::default();
    replica.adopt_hello(world.now, &hello, link, &mut out);
    assert_eq!(replica.vote, Vote { term, given: None, founder: Some(three.disk) });
    let closed = out.effects.iter().filter_map(|effect| match effect {
        Effect::Close(link, why) => Some((Some(*link), *why)),
        _ => None,
    });
    assert_eq!(closed.collect::<Vec<_>>(), [(one, Closing::Restated)], "all links but this one");
    assert!(!replica.holds_epoch() && replica.may_campaign().is_none());

    // A higher term of the own epoch is only adopted.
    let (_, mut replica) = server(2);
    let term = replica.vote.term.next();
    out.clear();
    replica.adopt_hello(world.now, &Hello { term, founder: None, ..hello }, link, &mut out);
    assert_eq!(replica.vote, Vote { term, given: None, founder: None });
    assert!(!out.effects.iter().any(|effect| matches!(effect, Effect::Close(..))));
}

/// Returns what is quarantined when this entry of a later epoch conflicts with this log.
fn quarantined(replica: &Replica, index: Index, term: Term, config: Option<Config>) -> Quarantine {
    let mut replica = replica.clone();
    let mut bytes = Vec::new();
    let kind = if config.is_some() { Kind::CONFIG } else { Kind::MESSAGE };
    record::write(&mut bytes, Position { index, term }, WallTime(0), kind, |out| {
        if let Some(config) = config {
            config.encode(out);
        }
    });
    let mut out = Out::default();
    replica.leave_for_epoch(&Record::parse(&bytes).unwrap(), &mut out);
    match out.effects[..] {
        [Effect::Quarantine(quarantine)] if replica.left => quarantine,
        _ => panic!("{out:?}"),
    }
}

#[test]
fn only_a_tail_behind_the_branch_is_quarantined_alone() {
    let (_, replica) = server(2);
    let last = replica.summary.last();
    let branch = replica.summary.position(last.index.before());
    let begin =
        Beginning::new(replica.config().unwrap().member(id(1)).unwrap(), last.term, branch, true);
    let tail = Quarantine::Tail(branch.index);
    assert_eq!(quarantined(&replica, last.index, begin.term, Some(begin.config)), tail);
    let mut other = begin.config;
    other.origin = Origin::Branch(Position { term: Term(0), ..branch });
    for (term, config, what) in [
        (begin.term, None, "no config"),
        (begin.term.next(), Some(begin.config), "not the first of the history"),
        (begin.term, Some(other), "it branched from another entry"),
        (begin.term, Some(begin.config.restated()), "no branch"),
    ] {
        assert_eq!(
            quarantined(&replica, last.index, term, config),
            Quarantine::Everything,
            "{what}"
        );
    }
}

#[test]
fn a_conflict_with_a_later_history_is_none_with_a_later_term() {
    let (world, replica) = server(2);
    let last = replica.summary.last();
    let prev = replica.summary.position(last.index.before());
    let one = replica.config().unwrap().member(id(1)).unwrap();
    let link = replica.link_to(one).unwrap();
    let took = |term: Term| {
        let mut replica = replica.clone();
        replica.vote.term = term;
        replica.role = Role::Follower(Following::default());
        (replica.committed, replica.acknowledged) = (Index(1), Index(1));
        let mut records = Vec::new();
        let at = Position { index: last.index, term };
        record::write(&mut records, at, WallTime(0), Kind::MESSAGE, |_| ());
        let append = Append { term, prev, committed: Index(1), acknowledged: Index(1), round: 0 };
        let mut out = Out::default();
        replica.on_append(world.now, one, link, append, &records, &mut out);
        let cut = out.effects.iter().any(|effect| matches!(effect, Effect::Cut(_)));
        let left = out.effects.iter().any(|effect| matches!(effect, Effect::Quarantine(_)));
        (cut, left)
    };
    assert_eq!(took(last.term.next()), (true, false));
    assert_eq!(took(last.term.next_epoch(id(1))), (false, true));
}

#[test]
fn only_who_stored_the_vote_of_a_history_of_its_own_and_not_its_entry_goes_on_with_it() {
    let (world, replica) = server(2);
    let log = &world.running[&2].disk.log;
    let (me, last) = (replica.me, replica.summary.last());
    let term = last.term.next_epoch(me.id);
    let begins = |vote: Vote| {
        let setup = Setup {
            me,
            incarnation: Incarnation(9),
            process: ProcessId(9),
            shared: Shared { group: GroupId(7), ..replica.shared },
            takeover: Takeover::Coin,
            vote,
            summary: replica.summary.clone(),
            seen: Default::default(),
            runs: vec![Run { incarnation: Incarnation(9), process: ProcessId(9) }],
            former: None,
            seed: 1,
        };
        let mut started = Replica::new(Moment(0), setup);
        for _ in 0..2 {
            started.handle(Moment(1), WallTime(0), Event::Tick, log, &mut Out::default());
        }
        let config = *started.config().unwrap();
        config.count() == 1 && config.has(me) && config.origin == Origin::Branch(last)
    };
    let vote = Vote { term, given: Some(me), founder: Some(me.disk) };
    assert!(begins(vote));
    assert!(!begins(Vote { term: last.term.next(), founder: None, ..vote }), "no other history");
    assert!(!begins(Vote { founder: Some(DiskId(1)), ..vote }), "another one's");
    assert!(!begins(Vote { given: None, ..vote }), "heard of only");
    assert!(!begins(Vote { term: last.term, ..vote }), "its entry is there");
}

#[test]
fn a_history_begins_with_an_entry_behind_the_last_one_that_names_it() {
    let (_, replica) = server(2);
    let last = replica.summary.last();
    let heard = last.term.next_epoch(id(1)).next();
    for (newest, least) in [(last.term, last.term), (heard, heard), (Term::ZERO, last.term)] {
        let begin = Beginning::new(replica.me, newest, last, true);
        let entry = begin.entry(WallTime(7));
        let record = Record::parse(&entry).unwrap();
        let at = Position { index: last.index.next(), term: begin.term };
        assert_eq!((record.position(), record.time, record.kind), (at, WallTime(7), Kind::CONFIG));
        let config = Config::decode(record.body).unwrap();
        assert_eq!(config, begin.config);
        assert!(config.has(replica.me) && config.count() == 1 && config.gate_open);
        assert_eq!(config.origin, Origin::Branch(last));
        assert!(begin.term.begins_epoch() && begin.term.epoch() > least.epoch());
        assert_eq!(begin.term.epoch() % 4, 2, "no two servers draw the same");
        let vote =
            Vote { term: begin.vote.term, given: Some(replica.me), founder: Some(replica.me.disk) };
        assert_eq!(begin.vote, vote);
    }
}

/// The list includes the epoch of the server's term even without its first entry: that server may
/// die before the entry arrives.
#[test]
fn a_hello_lists_the_newest_epochs_and_the_one_of_its_term() {
    let (_, mut replica) = server(2);
    assert_eq!(replica.past().epochs, []);
    let mut all = Vec::new();
    for _ in 0..ANCESTRY_MAX {
        let begin = Beginning::new(replica.me, Term(0), replica.summary.last(), true);
        let founder = Some(replica.me.disk);
        replica.vote = Vote { term: begin.term, given: None, founder };
        all.push(Epoch { number: begin.term.epoch(), founder: replica.me.disk });
        assert_eq!(replica.past().epochs, all, "it is heard of");
        replica.summary.push(&Record::trust(&begin.entry(WallTime(0)))).unwrap();
        assert_eq!(replica.past().epochs, all, "it is in the log");
    }
    let mut summary = replica.summary.clone();
    summary.cut(summary.last().index.before());
    assert!(summary.epochs().eq(all[..ANCESTRY_MAX - 1].iter().copied()), "one was cut");
    replica.vote.term = replica.vote.term.next_epoch(id(3));
    replica.vote.founder = Some(DiskId(33));
    all.push(Epoch { number: replica.vote.term.epoch(), founder: DiskId(33) });
    assert_eq!(replica.past().epochs, all[1..]);
}
