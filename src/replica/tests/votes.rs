//! Which candidates receive votes and pre-votes, and when the votes suffice.

use super::lockstep::*;

/// The term and the last entry of every server before a test changes them.
const OWN: Term = Term(3);
const LAST: Position = Position { term: Term(2), index: Index(4) };

/// Returns server `n` with a log up to [`LAST`] and a changed setup. It has no link.
fn unlinked(n: u8, members: &[u8], change: impl FnOnce(&mut Setup)) -> Server {
    let first = config_entry(at(0, 1), &config(members));
    let log = vec![first, message(at(1, 2)), message(at(2, 3)), message(at(2, 4))];
    let mut setup = setup(n, vote(OWN.0, None), &log);
    change(&mut setup);
    Server::start(START, setup, log)
}

/// Returns server `n`, linked with both others. It knows no primary.
fn started(n: u8, change: impl FnOnce(&mut Setup)) -> Server {
    let mut server = unlinked(n, &[1, 2, 3], change);
    [1, 2, 3].into_iter().filter(|other| *other != n).for_each(|n| drop(server.connect(n)));
    server
}

/// Returns server `n`, which follows server 1.
fn backup(n: u8, change: impl FnOnce(&mut Setup)) -> Server {
    let mut server = started(n, change);
    server.follow(1);
    server
}

/// Returns server 2 as a candidate, in a round of votes if `real`, else of pre-votes.
fn candidate(real: bool, change: impl FnOnce(&mut Setup)) -> Server {
    let mut server = started(2, change);
    campaigns_after(&mut server, T, &[]).unwrap();
    if real {
        server.pre_vote(3, true);
        server.tick();
    }
    server
}

fn ask(term: Term, last: Position) -> Ask {
    Ask { term, last, config: config(&[1, 2, 3]) }
}

fn is_pre_vote_asked(effect: &Effect) -> bool {
    matches!(effect, Effect::Send(_, Packet::AskPreVote(_)))
}

/// Returns the time until the server's next round of pre-votes, if it comes in time.
fn campaigns_after(server: &mut Server, time: Duration, active: &[u8]) -> Option<Duration> {
    server.wait_for(time, active, is_pre_vote_asked).ok()
}

/// A second link to the same process replaces the first one, and what was on its way there is
/// lost. It must not cost the round, which lasts a quarter of the peer timeout.
#[test]
fn a_candidate_asks_again_on_a_new_link() {
    for real in [false, true] {
        let mut two = candidate(real, |_| {});
        let asked = |out: &Effects, link: LinkId| {
            let is_ask = |effect: &Effect| match effect {
                Effect::Send(to, Packet::AskVote(_)) => *to == link && real,
                Effect::Send(to, Packet::AskPreVote(_)) => *to == link && !real,
                _ => false,
            };
            out.0.effects.iter().any(is_ask)
        };
        let first = two.link(3);
        let out = two.connect(3);
        let link = two.link(3);
        assert_ne!(link, first);
        assert!(asked(&out, link), "{real}: {out:?}");
    }
    let mut backup = backup(2, |_| {});
    let out = backup.connect(3);
    assert!(!out.0.effects.iter().any(is_pre_vote_asked), "it follows a primary");
}

/// Loses a round of pre-votes: both others refuse.
fn lose_round(server: &mut Server) {
    [1, 3].iter().for_each(|n| drop(server.pre_vote(*n, false)));
    server.tick();
    assert_eq!(server.replica.role(), RoleView::Backup);
}

/// Returns log ends near [`LAST`], and whether each is at least as new.
fn logs() -> [(Position, bool); 6] {
    [
        (LAST, true),
        (at(2, 5), true),
        (at(3, 1), true),
        (at(2, 3), false),
        (at(1, 4), false),
        (at(1, 13), false),
    ]
}

/// A voter grants one vote a term, to a candidate whose log is at least as up to date. It sends
/// the vote when the vote is durable. Votes ignore a recently active primary.
#[test]
fn a_voter_grants_one_durable_vote_a_term_to_an_up_to_date_log() {
    for given in [None, Some(1), Some(2), Some(3)] {
        for term in [Term(OWN.0 - 1), OWN, OWN.next()] {
            for (last, is_new) in logs() {
                let mut voter = backup(2, |setup| setup.vote = vote(OWN.0, given));
                let early = voter.receive(3, Packet::AskVote(ask(term, last))).sent(3);
                let free = term > OWN || given.is_none_or(|given| given == 3);
                let granted = is_new && free && term >= OWN;
                let has_voted = given == Some(3) && term <= OWN;
                let wanted = Packet::Vote { term: OWN.max(term), granted };
                let waits = granted && !has_voted;
                let what = format!("given {given:?}, asked {term}, {last}");
                assert_eq!(early, if waits { vec![] } else { vec![wanted] }, "{what}");
                assert_eq!(voter.durable().sent(3), if waits { vec![wanted] } else { vec![] });
                let is_given = voter.written.vote.given == Some(member(3));
                assert_eq!(is_given, granted || has_voted, "{what}");
            }
        }
    }
}

/// A vote never crosses epochs: a voter ignores the candidate of another epoch, and votes for
/// nobody while its log does not hold the entry that begins its own epoch.
#[test]
fn a_voter_grants_no_vote_outside_the_epoch_of_its_log() {
    let later = OWN.next_epoch(id(3));
    let mut voter = started(2, |_| ());
    assert_eq!(voter.receive(3, Packet::AskVote(ask(later, LAST))).sent(3), []);
    assert_eq!(voter.durable().sent(3), []);
    let founder = Some(member(3).disk);
    let mut voter = started(2, |setup| setup.vote = Vote { term: later, given: None, founder });
    let answer = voter.receive(3, Packet::AskVote(ask(later.next(), LAST))).sent(3);
    assert_eq!(answer, [Packet::Vote { term: later.next(), granted: false }]);
}

/// A voter grants a pre-vote to a candidate for which it could vote, if it follows no recently
/// active primary. A pre-vote changes no durable state.
#[test]
fn a_voter_without_a_primary_grants_pre_votes_and_stores_nothing() {
    let grants = |voter: &mut Server, term: Term, last: Position| {
        let own = voter.replica.term();
        let out = voter.receive(3, Packet::AskPreVote(ask(term, last)));
        assert!(!out.0.effects.iter().any(|effect| matches!(effect, Effect::Persist(_))));
        let granted = out.sent(3).contains(&Packet::PreVote { term, granted: true, own });
        assert_eq!(out.sent(3), [Packet::PreVote { term, granted, own }]);
        granted
    };
    for given in [None, Some(1), Some(3)] {
        for term in [Term(OWN.0 - 1), OWN, OWN.next()] {
            for (last, is_new) in logs() {
                let mut voter = backup(2, |setup| setup.vote = vote(OWN.0, given));
                assert!(!grants(&mut voter, term, last), "1 is primary");
                voter.receive(1, Packet::SteppedDown { term: OWN });
                let free = term > OWN || (term == OWN && given.is_none_or(|given| given == 3));
                let what = format!("{given:?} {term} {last}");
                assert_eq!(grants(&mut voter, term, last), is_new && free, "{what}");
            }
        }
    }
    // For twice the peer timeout after it met a later epoch, a server grants no pre-vote.
    let mut voter = unlinked(2, &[1, 2, 3], |_| ());
    voter.connect(3);
    let (hello, link) = (voter.hello_of(1), voter.new_link(1));
    let (term, founder) = (OWN.next_epoch(id(1)), Some(member(1).disk));
    voter.connect_with(link, Hello { term, founder, ..hello }, false);
    assert!(!grants(&mut voter, OWN.next(), LAST));
    assert!(!grants(voter.advance(T * 2 - US), OWN.next(), LAST));
    assert!(grants(voter.advance(US), OWN.next(), LAST));
}

/// Of two candidates that ask each other for pre-votes, the one with the older log stops, or with
/// equal logs the one with the higher id. It starts another round 10 to 20 ms later. A candidate
/// that asks for votes does not stop.
#[test]
fn of_two_candidates_the_older_log_or_else_the_higher_id_stops() {
    for (asks, theirs, real, granted) in [
        (3, LAST, false, false),
        (1, LAST, false, true),
        (3, at(2, 5), false, true),
        (1, at(2, 3), false, false),
        (1, LAST, true, false),
    ] {
        let mut server = candidate(real, |_| ());
        let own = server.replica.term();
        let out = server.receive(asks, Packet::AskPreVote(ask(own.next(), theirs)));
        let answer = Packet::PreVote { term: own.next(), granted, own };
        assert_eq!(out.sent(asks), [answer], "{asks} {theirs} {real}");
        let role = if granted { RoleView::Backup } else { RoleView::Candidate };
        assert_eq!(server.replica.role(), role);
        if granted {
            let delay = campaigns_after(&mut server, T, &[1, 3]).unwrap();
            assert!(delay >= ms(10) && delay <= ms(20), "{delay:?}");
        }
    }
}

/// A primary grants a pre-vote only without a recently active majority. It stays primary: only
/// its own timeout or a higher term ends its role.
#[test]
fn a_primary_without_a_majority_grants_pre_votes_and_stays_primary() {
    let mut primary = formed().take(1);
    let (term, own) = (primary.replica.term().next(), primary.replica.term());
    let ask = ask(term, primary.last());
    for (after, granted) in [(Duration::ZERO, false), (ms(10_000), true)] {
        primary.advance(after);
        let out = primary.receive(3, Packet::AskPreVote(ask));
        assert_eq!(out.sent(3), [Packet::PreVote { term, granted, own }]);
        assert_eq!(primary.replica.role(), RoleView::Primary);
    }
    // The pre-vote delays no campaign of its own after that.
    [2, 3].iter().for_each(|n| drop(primary.pong(*n)));
    primary.receive(3, Packet::HigherTerm { term });
    assert_eq!(campaigns_after(&mut primary, T, &[2, 3]), Some(Duration::ZERO));
}

/// A round is won with the votes of a majority of the config. Votes of other disks, of the other
/// kind of round and of earlier terms do not count. The candidate's own vote counts when it is
/// durable, and is necessary.
#[test]
fn a_majority_of_members_with_the_own_durable_vote_wins() {
    let other_disk = 33;
    let after = |real: bool, stored: bool, ballots: &[(u8, bool)]| {
        let mut server = candidate(real, |_| ());
        let own = server.replica.term();
        if stored {
            server.durable();
        }
        for (from, granted) in ballots.iter().copied() {
            let n = from % 10;
            if from == other_disk {
                server.end_link(n);
                server.connect_as(n, DiskId(77));
            }
            if real {
                let pre_vote = |term| Packet::PreVote { term, granted: true, own };
                server.receive(n, pre_vote(own));
                server.receive(n, Packet::Vote { term: Term(own.0 - 1), granted: true });
                server.receive(n, Packet::Vote { term: own, granted });
            } else {
                let pre_vote = |term, granted| Packet::PreVote { term, granted, own };
                server.receive(n, pre_vote(own, true));
                server.receive(n, Packet::Vote { term: own, granted: true });
                server.receive(n, pre_vote(own.next(), granted));
            }
        }
        let out = server.tick();
        let asks = out.0.effects.iter().any(|e| matches!(e, Effect::Send(_, Packet::AskVote(_))));
        let outcome = match server.replica.role() {
            RoleView::Primary => "leads",
            RoleView::Candidate if asks => "asks for votes",
            RoleView::Candidate => "waits",
            _ => "lost",
        };
        server.durable();
        (outcome, server.replica.role() == RoleView::Primary)
    };
    for (real, stored, ballots, outcome) in [
        (true, true, &[] as &[(u8, bool)], ("waits", false)),
        (true, true, &[(3, true)], ("leads", true)),
        (true, false, &[(3, true)], ("waits", true)),
        (true, false, &[(3, true), (1, true)], ("waits", true)),
        (true, true, &[(other_disk, true)], ("waits", false)),
        (true, true, &[(3, false)], ("waits", false)),
        (true, true, &[(3, false), (1, false)], ("lost", false)),
        (true, true, &[(3, false), (3, false)], ("waits", false)),
        (true, true, &[(3, false), (1, true)], ("leads", true)),
        (false, true, &[], ("waits", false)),
        (false, true, &[(3, true)], ("asks for votes", false)),
        (false, true, &[(1, false), (3, false)], ("lost", false)),
    ] {
        assert_eq!(after(real, stored, ballots), outcome, "{real} {stored} {ballots:?}");
    }
}

/// Returns server 2 without a primary, after it won an election that took this long and lost its
/// role to a higher term.
fn elected_once(seed: u64, took: Duration) -> Server {
    let coin = |setup: &mut Setup| (setup.seed, setup.takeover) = (seed, Takeover::Coin);
    let mut server = candidate(true, coin);
    let term = server.replica.term();
    server.advance(took);
    for n in [1, 3] {
        server.pong(n);
        server.receive(n, Packet::Vote { term, granted: true });
    }
    server.durable();
    assert_eq!(server.replica.role(), RoleView::Primary);
    server.receive(3, Packet::HigherTerm { term: term.next() });
    server
}

/// The first campaign after the loss of a primary comes within 10 ms. Each lost round doubles the
/// delay, from twice the last election or 10 ms on, up to the peer timeout. If the primary is
/// unreachable, but not down, the delay is up to the peer timeout.
#[test]
fn each_lost_round_doubles_the_delay_up_to_the_peer_timeout() {
    let longest = |sample: &dyn Fn(u64) -> Duration| (0..100).map(sample).max().unwrap();
    let is_near =
        |longest: Duration, bound: Duration| longest <= bound && longest >= bound * 9 / 10;
    for (lost, took, bound) in [
        (0, ms(100), ms(10)),
        (1, ms(0), ms(20)),
        (1, ms(100), ms(400)),
        (2, ms(100), ms(800)),
        (9, ms(100), ms(2000)),
        (1, ms(3000), ms(6000)),
    ] {
        let longest = longest(&|seed| {
            let mut server = elected_once(seed, took);
            let mut delay = campaigns_after(&mut server, T * 4, &[1, 3]).unwrap();
            for _ in 0..lost {
                lose_round(&mut server);
                delay = campaigns_after(&mut server, T * 4, &[1, 3]).unwrap();
            }
            delay
        });
        assert!(is_near(longest, bound), "{lost} {took:?}: {longest:?}");
    }
    let longest = longest(&|seed| {
        let mut server = backup(2, |setup| setup.seed = seed);
        campaigns_after(&mut server, T * 2, &[3]).unwrap() - T
    });
    assert!(is_near(longest, T), "{longest:?}");
}

/// With `takeover = "rank"`, the backup with the lowest id campaigns at once, and the other one
/// waits 20 ms. If the primary is unknown, server 1 may be a backup.
#[test]
fn with_rank_the_backup_with_the_lowest_id_campaigns_at_once() {
    for (n, delay) in [(2, Duration::ZERO), (3, ms(20))] {
        let mut server = backup(n, |_| ());
        server.kill(1);
        assert_eq!(campaigns_after(&mut server, T, &[2, 3]), Some(delay), "{n}");
    }
    assert_eq!(campaigns_after(&mut started(2, |_| ()), T, &[]), Some(ms(20)));
}

/// A round lasts a quarter of the peer timeout. After lost rounds it lasts longer, up to the peer
/// timeout, because the disks may be slow.
#[test]
fn a_round_lasts_a_quarter_of_the_peer_timeout_and_longer_after_lost_rounds() {
    for (lost, patience) in [(0, T / 4), (1, T / 2), (2, T), (7, T)] {
        let mut server = candidate(false, |_| ());
        for _ in 0..lost {
            lose_round(&mut server);
            campaigns_after(&mut server, T, &[1, 3]).unwrap();
        }
        server.pre_vote(3, true);
        server.tick();
        assert_eq!(campaigns_after(&mut server, patience - US, &[1, 3]), None);
        assert_eq!(server.replica.role(), RoleView::Candidate, "{lost}");
        server.wait(US, &[1, 3]);
        assert_eq!(server.replica.role(), RoleView::Backup, "{lost}");
        assert_eq!(server.decided(Rule::RoundLost), lost + 1);
    }
}

/// With two members, one refusal leaves no majority, so the round is lost.
#[test]
fn of_two_members_one_refusal_loses_the_round() {
    let mut server = unlinked(2, &[1, 2], |_| ());
    server.connect(1);
    server.refuse_dial(3);
    campaigns_after(&mut server, T, &[1]).unwrap();
    server.tick();
    assert_eq!(server.replica.role(), RoleView::Candidate);
    server.pre_vote(1, false);
    server.tick();
    assert_eq!(server.replica.role(), RoleView::Backup);
}

/// Only a member that is linked with a majority, is not stopping, can read its log, and has the
/// first entry of its epoch campaigns.
#[test]
fn a_server_that_cannot_win_does_not_campaign() {
    let linked_with = |members: &[u8], linked: &[u8], change: &dyn Fn(&mut Setup)| {
        let mut server = unlinked(2, members, change);
        for n in [1, 3] {
            match linked.contains(&n) {
                true => drop(server.connect(n)),
                false => drop(server.refuse_dial(n)),
            }
        }
        server
    };
    let campaigns = |mut server: Server| {
        server.wait(ms(100), &[1, 3]);
        server.decided(Rule::CampaignNoPrimary) > 0
    };
    let all = [1, 2, 3];
    assert!(campaigns(linked_with(&all, &[1, 3], &|_| ())));
    assert!(campaigns(linked_with(&all, &[3], &|_| ())), "two of three");
    assert!(!campaigns(linked_with(&all, &[], &|_| ())));
    assert!(!campaigns(linked_with(&[1, 3], &[1, 3], &|_| ())), "it is no member");
    let (term, founder) = (OWN.next_epoch(id(1)), Some(member(1).disk));
    let later = |setup: &mut Setup| setup.vote = Vote { term, given: None, founder };
    assert!(!campaigns(linked_with(&all, &[1, 3], &later)));
    let mut stopping = linked_with(&all, &[1, 3], &|_| ());
    stopping.replica.stop(stopping.now);
    assert!(!campaigns(stopping));
    let mut damaged = linked_with(&all, &[1, 3], &|_| ());
    damaged.replica.note_damaged(damaged.now, true);
    assert!(!campaigns(damaged.clone()), "an entry waits for repair");
    damaged.replica.note_damaged(damaged.now, false);
    assert!(campaigns(damaged));
}

/// A backup campaigns soon if its primary is down or unknown, and after the peer timeout if the
/// primary is unreachable. While the primary is recently active, the backup does not campaign.
#[test]
fn a_backup_campaigns_when_its_primary_is_lost() {
    type Change = fn(&mut Server);
    type Delay = Option<(Duration, Duration)>;
    let table: [(&str, Change, &[u8], Delay); 5] = [
        ("active", |_| (), &[1, 3], None),
        ("unreachable", |_| (), &[3], Some((T, T * 2))),
        ("down", |server| server.kill(1), &[3], Some((Duration::ZERO, ms(10)))),
        ("not linked", |server| drop(server.end_link(1)), &[3], Some((T, T * 2))),
        (
            "unknown",
            |server| drop(server.receive(1, Packet::SteppedDown { term: OWN })),
            &[1, 3],
            Some((Duration::ZERO, ms(10))),
        ),
    ];
    for (name, change, active, wanted) in table {
        for seed in 0..10 {
            let coin = |setup: &mut Setup| (setup.seed, setup.takeover) = (seed, Takeover::Coin);
            let mut server = backup(2, coin);
            change(&mut server);
            let delay = campaigns_after(&mut server, T * 3, active);
            let fits = |(least, most): (Duration, Duration)| {
                delay.is_some_and(|delay| delay >= least && delay <= most)
            };
            assert!(wanted.map_or(delay.is_none(), fits), "{name}: {delay:?}");
        }
    }
}

/// A planned campaign keeps its time, unless the primary is found down in the meantime. It is
/// cancelled when the primary is recently active again.
#[test]
fn a_planned_campaign_keeps_its_time() {
    // The primary has been unreachable for the peer timeout, so a campaign is planned.
    let mut planned = backup(2, |_| ());
    planned.wait(T, &[3]);
    let time = campaigns_after(&mut planned.clone(), T, &[3]).unwrap();
    assert!(time > ms(100), "another seed is needed: {time:?}");
    let mut ticked = planned.clone();
    for _ in 0..50 {
        ticked.advance(ms(1)).tick();
    }
    assert_eq!(campaigns_after(&mut ticked, T, &[3]), Some(time - ms(50)));
    let mut down = planned.clone();
    down.refuse_dial(1);
    assert_eq!(campaigns_after(&mut down, T, &[3]), Some(Duration::ZERO));
    let mut active = planned.clone();
    active.connect(1);
    assert_eq!(campaigns_after(&mut active, T * 3, &[1, 3]), None);
    // The same holds for a campaign that is planned because the primary is down.
    let mut down = backup(3, |_| ());
    down.kill(1);
    for _ in 0..19 {
        down.tick();
        down.advance(ms(1));
    }
    assert_eq!(campaigns_after(&mut down, T, &[2]), Some(ms(1)));
}

/// Lost rounds no longer delay a campaign after a primary was recently active.
#[test]
fn an_active_primary_ends_the_delay_after_lost_rounds() {
    let mut server = candidate(false, |_| ());
    for _ in 0..3 {
        lose_round(&mut server);
        campaigns_after(&mut server, T, &[1, 3]).unwrap();
    }
    server.follow(1);
    server.kill(1);
    assert_eq!(campaigns_after(&mut server, T, &[3]), Some(Duration::ZERO));
}

/// An answer that carries a higher term than the candidate's own ends the candidacy.
#[test]
fn an_answer_with_a_higher_term_ends_the_candidacy() {
    let own = candidate(true, |_| ()).replica.term();
    let (earlier, higher) = (Term(own.0 - 1), own.next());
    for term in [own, earlier, higher] {
        for answer in [
            Packet::Vote { term, granted: false },
            Packet::PreVote { term: own.next(), granted: false, own: term },
        ] {
            let mut server = candidate(true, |_| ());
            server.receive(3, answer);
            let stays = server.replica.role() == RoleView::Candidate;
            assert_eq!((stays, server.replica.term()), (term <= own, own.max(term)));
        }
    }
}

/// A server that grants a vote or a pre-vote waits with its own campaign for twice the time of the
/// last election, at least 10 ms, and for up to 10 ms more. So the candidate has time to win.
#[test]
fn a_voter_gives_its_candidate_the_time_of_two_elections() {
    for (took, least) in [(ms(0), ms(10)), (ms(3), ms(10)), (ms(100), ms(200))] {
        for packet in [Packet::AskVote as fn(Ask) -> Packet, Packet::AskPreVote] {
            let mut voter = elected_once(1, took);
            let ask = ask(voter.replica.term().next(), voter.last());
            voter.receive(3, packet(ask));
            let delay = campaigns_after(&mut voter, T, &[1, 3]).unwrap();
            assert!(delay >= least && delay <= least + ms(10), "{took:?}: {delay:?}");
        }
    }
}
