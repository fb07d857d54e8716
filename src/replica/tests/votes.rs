//! Which candidates receive votes and pre-votes, and when the votes suffice.

use super::*;

/// Returns server 2, a backup of a healthy group, and its world.
fn backup() -> (World, Replica) {
    let world = formed(8);
    let replica = world.running[&2].replica.clone();
    assert!(matches!(replica.role, Role::Follower(_)));
    (world, replica)
}

fn of(replica: &Replica, n: u8) -> Member {
    replica.config().unwrap().member(id(n)).unwrap()
}

/// Returns log ends near that of `replica`, and whether each is at least as new.
fn logs(replica: &Replica) -> [(Position, bool); 6] {
    let Position { term, index } = replica.summary.last();
    let at = |term: u64, index: u64| Position { term: Term(term), index: Index(index) };
    [
        (at(term.0, index.0), true),
        (at(term.0, index.0 + 1), true),
        (at(term.0 + 1, 1), true),
        (at(term.0, index.0 - 1), false),
        (at(term.0 - 1, index.0), false),
        (at(term.0 - 1, index.0 + 9), false),
    ]
}

fn said(out: &Out, link: LinkId) -> Option<Packet> {
    out.effects.iter().find_map(|effect| match effect {
        Effect::Send(to, packet) if *to == link => Some(*packet),
        _ => None,
    })
}

#[test]
fn one_vote_a_term_for_a_log_that_is_as_new() {
    let (world, replica) = backup();
    let (one, three) = (of(&replica, 1), of(&replica, 3));
    let link = replica.link_to(three).unwrap();
    let own = replica.vote.term;
    for given in [None, Some(one), Some(replica.me), Some(three)] {
        for term in [Term(own.0 - 1), own, own.next()] {
            for (last, is_new) in logs(&replica) {
                let mut voter = replica.clone();
                voter.vote.given = given;
                let config = *voter.config().unwrap();
                let mut out = Out::default();
                voter.on_ask_vote(world.now, three, link, Ask { term, last, config }, &mut out);
                let free = term > own || given.is_none_or(|given| given == three);
                let granted = is_new && free && term >= own;
                let early = matches!(said(&out, link), Some(Packet::Vote { granted: true, .. }));
                assert!(!early || given == Some(three), "a new vote waits for the disk");
                voter.vote_stored = true;
                voter.send_owed_vote(&mut out);
                let told = said(&out, link);
                let wanted = Packet::Vote { term: own.max(term), granted };
                assert_eq!(told, Some(wanted), "given {given:?}, asked {term}, {last}");
                let had = given == Some(three) && term <= own;
                assert_eq!(voter.vote.given == Some(three), granted || had);
            }
        }
    }
}

#[test]
fn a_vote_is_not_given_in_another_epoch_or_without_its_first_entry() {
    let (world, replica) = backup();
    let three = of(&replica, 3);
    let link = replica.link_to(three).unwrap();
    let (config, last) = (*replica.config().unwrap(), replica.summary.last());
    let asked = |term: Term, change: &dyn Fn(&mut Replica)| {
        let mut voter = replica.clone();
        change(&mut voter);
        let mut out = Out::default();
        voter.on_ask_vote(world.now, three, link, Ask { term, last, config }, &mut out);
        voter.vote_stored = true;
        voter.send_owed_vote(&mut out);
        said(&out, link)
    };
    let own = replica.vote.term;
    assert_eq!(asked(own.next_epoch(id(3)), &|_| {}), None);
    let heard_of = own.next_epoch(id(3));
    let not_held = asked(heard_of.next(), &|voter| voter.vote.term = heard_of);
    assert_eq!(not_held, Some(Packet::Vote { term: heard_of.next(), granted: false }));
}

#[test]
fn a_pre_vote_is_promised_to_who_could_win_and_only_when_nobody_leads() {
    let (world, replica) = backup();
    let (one, three) = (of(&replica, 1), of(&replica, 3));
    let link = replica.link_to(three).unwrap();
    let own = replica.vote.term;
    let asked = |voter: &mut Replica, term: Term, last: Position| {
        let config = *voter.config().unwrap();
        let mut out = Out::default();
        voter.on_ask_pre_vote(world.now, three, link, Ask { term, last, config }, &mut out);
        let Some(Packet::PreVote { granted, own, .. }) = said(&out, link) else {
            panic!("{out:?}")
        };
        assert_eq!(own, voter.vote.term);
        let changes = |effect: &Effect| matches!(effect, Effect::Persist(_));
        assert!(!out.effects.iter().any(changes), "a promise changes nothing");
        granted
    };
    for given in [None, Some(one), Some(three)] {
        for term in [Term(own.0 - 1), own, own.next()] {
            for (last, is_new) in logs(&replica) {
                let mut voter = replica.clone();
                voter.vote.given = given;
                assert!(!asked(&mut voter, term, last), "1 leads");
                voter.leave_primary(one);
                let free = term > own || (term == own && given.is_none_or(|given| given == three));
                assert_eq!(
                    asked(&mut voter, term, last),
                    is_new && free,
                    "{given:?} {term} {last}"
                );
            }
        }
    }
    // A server that has met a later epoch grants no pre-vote.
    let mut voter = replica.clone();
    voter.leave_primary(one);
    voter.later_epoch = Some(world.now);
    assert!(!asked(&mut voter, own.next(), replica.summary.last()));
}

#[test]
fn of_two_that_stand_the_older_log_or_else_the_higher_id_stands_back() {
    let (world, replica) = backup();
    let own = replica.vote.term;
    let last = replica.summary.last();
    let shorter = Position { index: last.index.before(), ..last };
    for (asks, theirs, real, granted) in [
        (3, last, false, false),
        (1, last, false, true),
        (3, Position { index: last.index.next(), ..last }, false, true),
        (1, shorter, false, false),
        (1, last, true, false),
    ] {
        let mut candidate = replica.clone();
        let from = of(&replica, asks);
        let link = candidate.link_to(from).unwrap();
        candidate.leave_primary(of(&replica, 1));
        let mut out = Out::default();
        candidate.begin_round(world.now, real, own.next(), &mut out);
        let config = *candidate.config().unwrap();
        let ask = Ask { term: own.next(), last: theirs, config };
        out.clear();
        candidate.on_ask_pre_vote(world.now, from, link, ask, &mut out);
        let wanted = Packet::PreVote { term: own.next(), granted, own };
        assert_eq!(said(&out, link), Some(wanted), "{asks} {theirs} {real}");
        assert_eq!(matches!(candidate.role, Role::Candidate(_)), !granted);
        assert_eq!(candidate.timers.is_set(Timer::Campaign), granted, "and lets it try");
    }
}

#[test]
fn a_primary_that_hears_no_majority_promises_but_does_not_stand_back() {
    let world = formed(8);
    let mut primary = world.running[&1].replica.clone();
    let three = of(&primary, 3);
    let link = primary.link_to(three).unwrap();
    let config = *primary.config().unwrap();
    let ask = Ask { term: primary.vote.term.next(), last: primary.summary.last(), config };
    let mut granted_at = |now: Moment| {
        let mut out = Out::default();
        primary.on_ask_pre_vote(now, three, link, ask, &mut out);
        assert!(
            matches!(primary.role, Role::Primary(_)) && !primary.timers.is_set(Timer::Campaign)
        );
        matches!(said(&out, link), Some(Packet::PreVote { granted: true, .. }))
    };
    assert!(!granted_at(world.now));
    assert!(granted_at(world.now + Duration::from_secs(10)));
}

#[test]
fn votes_are_enough_when_members_under_their_disks_are_a_majority_and_ones_own_is_stored() {
    let (world, replica) = backup();
    let (one, three) = (of(&replica, 1), of(&replica, 3));
    let stranger = Member { disk: DiskId(77), ..three };
    let term = replica.vote.term.next();
    let after = |real: bool, stored: bool, ballots: &[(Member, bool)]| {
        let mut candidate = replica.clone();
        let mut out = Out::default();
        candidate.leave_primary(one);
        if real {
            candidate.ask_for_votes(world.now, term, &mut out);
        } else {
            candidate.begin_round(world.now, false, term, &mut out);
        }
        candidate.vote_stored = stored;
        for (from, granted) in ballots {
            candidate.on_ballot(real, *from, term, *granted);
            candidate.on_ballot(!real, *from, term, true);
            candidate.on_ballot(real, *from, Term(term.0 - 1), true);
        }
        out.clear();
        candidate.count_votes(world.now, WallTime(0), &mut out);
        match &candidate.role {
            Role::Primary(_) => "leads",
            Role::Candidate(now) if now.real == real => "waits",
            Role::Candidate(_) => "asks for votes",
            Role::Follower(_) => "lost",
        }
    };
    for (real, stored, ballots, outcome) in [
        (true, true, &[] as &[_], "waits"),
        (true, true, &[(three, true)], "leads"),
        (true, false, &[(three, true)], "waits"),
        (true, false, &[(three, true), (one, true)], "waits"),
        (true, true, &[(stranger, true)], "waits"),
        (true, true, &[(three, false)], "waits"),
        (true, true, &[(three, false), (one, false)], "lost"),
        (true, true, &[(three, false), (three, false)], "waits"),
        (true, true, &[(three, false), (one, true)], "leads"),
        (false, true, &[], "waits"),
        (false, true, &[(three, true)], "asks for votes"),
        (false, true, &[(one, false), (three, false)], "lost"),
    ] {
        assert_eq!(after(real, stored, ballots), outcome, "{real} {stored} {ballots:?}");
    }
}

#[test]
fn each_lost_round_doubles_the_delay_up_to_t() {
    let (_, mut replica) = backup();
    let ms = Duration::from_millis;
    let longest = |lost: u32, took: Duration, replica: &mut Replica| {
        (replica.election.lost, replica.election.took) = (lost, took);
        (0..2_000).map(|_| replica.stand_delay(None, true)).max().unwrap()
    };
    for (lost, took, bound) in [
        (0, ms(100), ms(10)),
        (1, ms(0), ms(20)),
        (1, ms(100), ms(400)),
        (2, ms(100), ms(800)),
        (9, ms(100), ms(2000)),
        (1, ms(3000), ms(6000)),
    ] {
        let longest = longest(lost, took, &mut replica);
        assert!(longest <= bound && longest >= bound * 9 / 10, "{lost} {took:?}: {longest:?}");
    }
    // If the primary is unreachable, but not down, the delay is up to the peer timeout.
    replica.election.lost = 0;
    let longest = (0..2_000).map(|_| replica.stand_delay(None, false)).max().unwrap();
    assert!(longest <= ms(2000) && longest >= ms(1800), "{longest:?}");
}

#[test]
fn with_rank_the_lower_id_of_the_backups_stands_at_once() {
    let (_, mut replica) = backup();
    let one = of(&replica, 1);
    replica.takeover = Takeover::Rank;
    assert_eq!(replica.stand_delay(Some(one), true), Duration::ZERO);
    replica.me = of(&replica, 3);
    assert_eq!(replica.stand_delay(Some(one), true), Duration::from_millis(20));
    replica.me = of(&replica, 2);
    assert_eq!(replica.stand_delay(None, true), Duration::from_millis(20), "1 may be a backup");
}

#[test]
fn a_round_has_a_quarter_of_t_and_more_after_lost_rounds() {
    let (world, replica) = backup();
    let quarter = replica.peer_timeout() / 4;
    for (lost, patience) in [(0, quarter), (1, quarter * 2), (2, quarter * 4), (7, quarter * 4)] {
        let mut candidate = replica.clone();
        candidate.leave_primary(of(&replica, 1));
        candidate.election.lost = lost;
        candidate.begin_round(world.now, true, replica.vote.term.next(), &mut Out::default());
        let end = world.now + patience;
        assert!(!candidate.timers.clone().expired(Timer::Round, Moment(end.0 - 1)), "{lost}");
        let tick = |candidate: &mut Replica, now: Moment| {
            candidate.tick_election(now, WallTime(0), &mut Out::default());
            (matches!(candidate.role, Role::Candidate(_)), candidate.election.lost)
        };
        assert_eq!(tick(&mut candidate, Moment(end.0 - 1)), (true, lost));
        assert_eq!(tick(&mut candidate, end), (false, lost + 1), "the round is lost");
    }
}

#[test]
fn of_two_members_one_refusal_loses_the_round() {
    let (world, mut candidate) = backup();
    let without = candidate.config().unwrap().without(id(3));
    let one = of(&candidate, 1);
    candidate.append_config(candidate.vote.term, WallTime(0), without, &mut Out::default());
    candidate.leave_primary(one);
    let term = candidate.vote.term.next();
    candidate.begin_round(world.now, false, term, &mut Out::default());
    candidate.count_votes(world.now, WallTime(0), &mut Out::default());
    assert!(matches!(candidate.role, Role::Candidate(_)));
    candidate.on_ballot(false, one, term, false);
    candidate.count_votes(world.now, WallTime(0), &mut Out::default());
    assert!(matches!(candidate.role, Role::Follower(_)));
}

#[test]
fn only_a_follower_that_could_win_stands() {
    let (world, replica) = backup();
    let stands = |change: &dyn Fn(&mut Replica)| {
        let mut replica = replica.clone();
        replica.leave_primary(of(&replica, 1));
        change(&mut replica);
        replica.timers.set(Timer::Campaign, world.now);
        let before = replica.decisions;
        replica.campaign(world.now, &mut Out::default());
        assert!(before == replica.decisions || matches!(replica.role, Role::Candidate(_)));
        matches!(&replica.role, Role::Candidate(candidacy) if !candidacy.real)
    };
    assert!(stands(&|_| ()));
    assert!(!stands(&|r| r.stopping = Some(world.now)));
    assert!(!stands(&|r| r.vote.term = r.vote.term.next_epoch(id(1))));
    assert!(!stands(&|r| r.peers.iter_mut().for_each(|peer| peer.link = None)));
    assert!(stands(&|r| r.peers[0].link = None), "two of three");
    assert!(!stands(&|r| {
        let without = r.config().unwrap().without(id(2));
        r.append_config(r.vote.term, WallTime(0), without, &mut Out::default());
    }));
    assert!(!stands(&|r| {
        let term = r.vote.term.next();
        r.ask_for_votes(world.now, term, &mut Out::default());
    }));
}

#[test]
fn who_hears_its_primary_does_not_stand_and_who_lost_it_does() {
    let (world, replica) = backup();
    let peer_timeout = replica.peer_timeout();
    let one = of(&replica, 1);
    let when = |change: &dyn Fn(&mut Replica), now: Moment| {
        let mut replica = replica.clone();
        for peer in &mut replica.peers {
            (peer.heard, peer.met) = (Some(world.now), true);
        }
        change(&mut replica);
        replica.consider_campaign(now);
        replica.timers.clear(Timer::Ping);
        replica.timers.next().map(|at| at - now)
    };
    let now = world.now;
    let coin = Duration::from_millis(10);
    let lose = |r: &mut Replica, refused: bool| {
        let peer = r.peers.iter_mut().find(|peer| peer.id == id(1)).unwrap();
        (peer.link, peer.refused) = (None, refused);
    };
    assert_eq!(when(&|_| (), now), None);
    assert_eq!(when(&|_| (), Moment((now + peer_timeout).0 - 1)), None);
    assert!(
        when(&|_| (), now + peer_timeout).is_some_and(|delay| delay <= peer_timeout),
        "unheard"
    );
    assert!(when(&|r| lose(r, true), now).is_some_and(|delay| delay <= coin), "gone");
    assert_eq!(when(&|r| lose(r, false), now), None, "its link is lost: it has its T");
    assert!(when(&|r| lose(r, false), now + peer_timeout).is_some());
    assert!(
        when(&|r| r.leave_primary(one), now).is_some_and(|delay| delay <= coin),
        "none is known"
    );
    // A planned campaign stays, unless a better reason arises or the primary is recently active
    // again.
    let set = |urgent: bool| {
        move |r: &mut Replica| {
            r.timers.set(Timer::Campaign, now + peer_timeout * 9);
            r.election.urgent = urgent;
        }
    };
    assert_eq!(when(&set(true), now), None, "heard again");
    let both = |urgent: bool, refused: bool| {
        let set = set(urgent);
        when(
            &|r| {
                lose(r, refused);
                set(r);
            },
            now + peer_timeout,
        )
        .unwrap()
    };
    assert_eq!(both(true, true), peer_timeout * 8);
    assert_eq!(both(false, false), peer_timeout * 8);
    assert!(both(false, true) <= coin, "now it is gone");
}

#[test]
fn a_lost_round_counts_until_a_primary_is_heard() {
    let (world, mut replica) = backup();
    replica.election.lost = 3;
    replica.consider_campaign(world.now);
    assert_eq!(replica.election.lost, 0);
}

#[test]
fn an_answer_that_tells_of_a_higher_term_ends_the_candidacy() {
    let (world, replica) = backup();
    let three = of(&replica, 3);
    let own = replica.vote.term;
    let after = |answer: &dyn Fn(&mut Replica, &mut Out)| {
        let mut candidate = replica.clone();
        candidate.leave_primary(of(&replica, 1));
        candidate.begin_round(world.now, true, own, &mut Out::default());
        answer(&mut candidate, &mut Out::default());
        (matches!(candidate.role, Role::Candidate(_)), candidate.vote.term)
    };
    let higher = own.next();
    assert_eq!(after(&|c, out| c.on_vote(three, own, false, out)), (true, own));
    assert_eq!(after(&|c, out| c.on_vote(three, Term(own.0 - 1), false, out)), (true, own));
    assert_eq!(after(&|c, out| c.on_vote(three, higher, false, out)), (false, higher));
    let pre = |c: &mut Replica, theirs: Term, out: &mut Out| {
        c.on_pre_vote(three, own.next(), false, theirs, out);
    };
    assert_eq!(after(&|c, out| pre(c, own, out)), (true, own));
    assert_eq!(after(&|c, out| pre(c, Term(own.0 - 1), out)), (true, own));
    assert_eq!(after(&|c, out| pre(c, higher, out)), (false, higher));
}

#[test]
fn a_candidate_that_may_win_gets_the_time_of_two_votes() {
    let (world, mut replica) = backup();
    let three = of(&replica, 3);
    let link = replica.link_to(three).unwrap();
    replica.leave_primary(of(&replica, 1));
    let ask = Ask {
        term: replica.vote.term.next(),
        last: replica.summary.last(),
        config: *replica.config().unwrap(),
    };
    let ms = Duration::from_millis;
    for (took, least) in [(ms(0), ms(10)), (ms(3), ms(10)), (ms(100), ms(200))] {
        for real in [false, true] {
            let mut voter = replica.clone();
            voter.election.took = took;
            if real {
                voter.on_ask_vote(world.now, three, link, ask, &mut Out::default());
            } else {
                voter.on_ask_pre_vote(world.now, three, link, ask, &mut Out::default());
            }
            voter.timers.clear(Timer::Ping);
            let delay = voter.timers.next().unwrap() - world.now;
            assert!(delay >= least && delay <= least + ms(10), "{took:?}: {delay:?}");
        }
    }
}
