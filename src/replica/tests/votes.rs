//! Who gets a vote and who does not, who is promised one, and when votes are enough.

use super::*;

/// Server 2, backup of a healthy group, and the world that it is of.
fn backup() -> (World, Replica) {
    let world = formed(8);
    let replica = world.running[&2].replica.clone();
    assert!(matches!(replica.role, Role::Follower(_)));
    (world, replica)
}

fn of(replica: &Replica, n: u8) -> Member {
    replica.config().unwrap().member(id(n)).unwrap()
}

/// Logs like that of `replica`, and whether each is at least as new.
fn logs(replica: &Replica) -> [(Position, bool); 6] {
    let Position { term, index } = replica.shape.last();
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
fn a_vote_is_not_given_in_another_lineage_or_without_its_first_entry() {
    let (world, replica) = backup();
    let three = of(&replica, 3);
    let link = replica.link_to(three).unwrap();
    let (config, last) = (*replica.config().unwrap(), replica.shape.last());
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
    assert_eq!(asked(own.next_lineage(id(3)), &|_| {}), None);
    let heard_of = own.next_lineage(id(3));
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
    // Who has met a later lineage promises nothing.
    let mut voter = replica.clone();
    voter.leave_primary(one);
    voter.later_lineage = Some(world.now);
    assert!(!asked(&mut voter, own.next(), replica.shape.last()));
}

#[test]
fn of_two_that_stand_the_older_log_or_else_the_higher_id_stands_back() {
    let (world, replica) = backup();
    let own = replica.vote.term;
    let last = replica.shape.last();
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
        assert_eq!(candidate.timers.is_set(Timer::Stand), granted, "and lets it try");
    }
}

#[test]
fn a_primary_that_hears_no_majority_promises_but_does_not_stand_back() {
    let world = formed(8);
    let mut primary = world.running[&1].replica.clone();
    let three = of(&primary, 3);
    let link = primary.link_to(three).unwrap();
    let config = *primary.config().unwrap();
    let ask = Ask { term: primary.vote.term.next(), last: primary.shape.last(), config };
    let mut granted_at = |now: Moment| {
        let mut out = Out::default();
        primary.on_ask_pre_vote(now, three, link, ask, &mut out);
        assert!(matches!(primary.role, Role::Primary(_)) && !primary.timers.is_set(Timer::Stand));
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
            candidate.stand_for_votes(world.now, term, &mut out);
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
            Role::Candidate(now) if now.is_real() == real => "waits",
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
        (replica.standing.lost, replica.standing.took) = (lost, took);
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
    // Unheard, not gone: after up to `T`.
    replica.standing.lost = 0;
    let longest = (0..2_000).map(|_| replica.stand_delay(None, false)).max().unwrap();
    assert!(longest <= ms(2000) && longest >= ms(1800), "{longest:?}");
}
