//! Guards the epochs, which begin where an operator overrules elections: which servers follow an
//! epoch, when they do, and which entries they quarantine.

use super::hellos::*;
use crate::limits::{ANCESTRY_MAX, RANK_TIME};
use crate::replica::{Beginning, Epoch, Quarantine};

/// Returns server `n` of a healthy group whose primary is server 1.
fn server(n: u8) -> Server {
    formed().take(n)
}

/// Receives the hello of server `n`, which has followed the next epoch of server 3. Returns the
/// effects of it.
fn meet(server: &mut Server, n: u8) -> Effects {
    let term = Term::ZERO.next_epoch(id(3));
    let hello = Hello { term, founder: Some(member(3).disk), ..server.hello_of(n) };
    let link = server.new_link(n);
    first(server, link, false, Packet::Hello(hello))
}

fn follows(server: &Server) -> bool {
    server.replica.term() == Term::ZERO.next_epoch(id(3))
}

/// Returns server 2 after a restart with this log and vote, linked with server 1.
fn restarted(vote: Vote, log: &[Vec<u8>]) -> Server {
    let mut two = Server::start(START, setup(2, vote, log), log.to_vec());
    two.connect(1);
    two
}

/// Returns the log of a server whose last two entries are messages of term 1.
fn short_log() -> Vec<Vec<u8>> {
    let members = config(&[1, 2, 3]);
    let configs = [config_entry(at(0, 1), &members), config_entry(at(1, 2), &members)];
    configs.into_iter().chain([message(at(1, 3)), message(at(1, 4))]).collect()
}

#[test]
fn a_later_epoch_is_followed_after_t_without_a_primary() {
    let mut two = server(2);
    two.report(1, PeerHealth::default());
    assert_eq!(meet(&mut two, 3).closed(3), [Closing::Spare]);
    two.advance(T - US);
    assert_eq!(meet(&mut two, 3).closed(3), [Closing::Spare]);
    assert!(!follows(&two));
    two.advance(US);
    meet(&mut two, 3);
    assert!(follows(&two), "counted from the first meeting");

    let mut blank = Server::start(START, setup(2, Vote::default(), &[]), Vec::new());
    meet(&mut blank, 3);
    assert!(follows(&blank), "an uninitialized server has nothing to lose");
}

/// The founder of the later epoch has one more peer timeout to connect again and to be followed.
#[test]
fn a_server_that_met_a_later_epoch_grants_no_pre_vote_until_2_t() {
    let mut two = server(2);
    two.report(1, PeerHealth::default());
    assert!(grants_pre_vote(&two, 1), "it has met none");
    meet(&mut two, 3);
    assert!(!grants_pre_vote(&two, 1));
    two.advance(T * 2 - US);
    assert!(!grants_pre_vote(&two, 1));
    two.advance(US);
    assert!(grants_pre_vote(&two, 1));
}

#[test]
fn a_server_that_met_a_later_epoch_does_not_campaign_until_2_t() {
    let mut two = server(2);
    two.report(1, PeerHealth::default());
    assert!(campaigns(&two.clone().wait(RANK_TIME, &[1])), "it has met none");
    meet(&mut two, 3);
    assert!(!campaigns(&two.wait(T * 2 - US, &[1])));
    assert!(!campaigns(&two.advance(US).tick()), "it has a delay");
    assert!(campaigns(&two.wait(RANK_TIME, &[1])));
}

#[test]
fn a_primary_of_the_own_epoch_ends_the_wait_and_a_later_meeting_begins_another() {
    let mut two = server(2);
    let (term, last) = (two.replica.term(), two.last());
    two.report(1, PeerHealth::default());
    meet(&mut two, 3);
    two.receive(1, Packet::Append(append(term, last)));
    two.tick();
    two.report(1, PeerHealth::default());
    assert!(grants_pre_vote(&two, 1));
    two.advance(T);
    meet(&mut two, 3);
    assert!(!follows(&two));
    two.advance(T);
    meet(&mut two, 3);
    assert!(follows(&two));
}

/// A server that an operator let continue alone must not take over a group that works without it.
#[test]
fn a_group_with_an_active_primary_refuses_a_later_epoch() {
    for n in [1, 2] {
        let refuses = |server: &Server| {
            let mut server = server.clone();
            refusal(&meet(&mut server, 3)) == Some(Refusal::Straggler)
        };
        let mut server = server(n);
        assert!(refuses(&server), "{n}");
        let mut silent = server.clone();
        silent.advance(Duration::from_secs(60));
        assert!(!refuses(&silent), "{n}: no server has answered for long");
        if n == 2 {
            server.report(1, PeerHealth::default());
            assert!(!refuses(&server), "its primary has stepped down");
        }
    }
}

/// Hellos carry epochs. So a server that follows a later epoch closes its other links, and opens
/// them again. It neither votes nor campaigns before it has the first entry of that epoch.
#[test]
fn a_server_that_follows_a_later_epoch_adopts_its_term_and_greets_the_others_again() {
    let mut two = server(2);
    let own = two.replica.term();
    two.report(1, PeerHealth::default());
    meet(&mut two, 3);
    two.advance(T - US);
    two.end_link(3);
    two.advance(US);
    let out = meet(&mut two, 3);
    let vote = Vote { term: own.next_epoch(id(3)), given: None, founder: Some(member(3).disk) };
    assert!(out.has(&Effect::Persist(vote)));
    assert_eq!((two.replica.term(), two.replica.founder()), (vote.term, vote.founder));
    assert_eq!(out.closed(1), [Closing::Restated]);
    assert_eq!(out.closed(3), [], "the link of the hello stays");
    two.durable();
    assert!(!grants_pre_vote(&two, 3));
    assert!(!campaigns(&two.wait(T * 3, &[3])));
    assert!(two.replica.may_be_last());

    // A higher term of the own epoch is only adopted.
    let mut two = server(2);
    let link = two.new_link(3);
    let vote = Vote { term: own.next(), given: None, founder: None };
    let hello = Hello { term: vote.term, ..two.hello_of(3) };
    let out = first(&mut two, link, false, Packet::Hello(hello));
    assert!(out.has(&Effect::Persist(vote)));
    let restated = |e: &Effect| matches!(e, Effect::Close(_, Closing::Restated));
    assert!(!out.0.effects.iter().any(restated) && two.is_linked(1));
}

/// If the log of a follower differs from the followed epoch first at the branch, only the entries
/// after the branch are quarantined. Otherwise the directory belongs to another history.
#[test]
fn only_a_tail_after_the_branch_is_quarantined_alone() {
    let log = short_log();
    let (branch, last) = (at(1, 3), at(1, 4));
    let begin = Beginning::new(member(1), last.term, branch, true);
    let quarantined = |term: Term, config: Option<Config>| {
        let vote = Vote { given: None, ..begin.vote };
        let mut two = restarted(vote, &log);
        let position = Position { term, index: last.index };
        let entry = config.map_or_else(|| message(position), |c| config_entry(position, &c));
        let out = two.receive_entries(append(begin.term.next(), branch), 1, &[entry]);
        assert_eq!(two.log.0, log, "nothing is cut or appended");
        assert_eq!(two.tick().0.effects, [], "the process is ending");
        out.0.effects.iter().find_map(|effect| match effect {
            Effect::Quarantine(quarantine) => Some(*quarantine),
            _ => None,
        })
    };
    let tail = Some(Quarantine::Tail(branch.index));
    assert_eq!(quarantined(begin.term, Some(begin.config)), tail);
    let mut other = begin.config;
    other.origin = Origin::Branch(at(0, 3));
    let mut restated = begin.config;
    restated.origin = Origin::Other;
    for (term, config, what) in [
        (begin.term, None, "no config"),
        (begin.term.next(), Some(begin.config), "not the first entry of the epoch"),
        (begin.term, Some(other), "it branched from another entry"),
        (begin.term, Some(restated), "no branch"),
    ] {
        assert_eq!(quarantined(term, config), Some(Quarantine::Everything), "{what}");
    }
}

#[test]
fn a_conflict_is_cut_within_an_epoch_and_quarantined_between_two() {
    let log = short_log();
    let (prev, last) = (at(1, 3), at(1, 4));
    let conflict = |term: Term, founder: Option<DiskId>| {
        let own = if founder.is_some() { term } else { last.term };
        let mut two = restarted(Vote { term: own, given: None, founder }, &log);
        let entry = message(Position { term, index: last.index });
        let out = two.receive_entries(append(term, prev), 1, &[entry]);
        let has = |wanted: fn(&Effect) -> bool| out.0.effects.iter().any(wanted);
        (has(|e| matches!(e, Effect::Cut(_))), has(|e| matches!(e, Effect::Quarantine(_))))
    };
    assert_eq!(conflict(last.term.next(), None), (true, false));
    let founder = Some(member(1).disk);
    assert_eq!(conflict(last.term.next_epoch(id(1)), founder), (false, true));
}

/// Other servers may follow an epoch whose founder stored its vote and then crashed. So the founder
/// completes the epoch, and no other server does.
#[test]
fn only_the_founder_that_stored_the_vote_of_an_epoch_and_not_its_entry_completes_it() {
    let log = short_log();
    let last = at(1, 4);
    let begins = |vote: Vote| {
        let mut two = Server::start(START, setup(2, vote, &log), log.clone());
        two.tick();
        two.tick();
        let config = *two.replica.config().unwrap();
        config.count() == 1 && config.has(member(2)) && config.origin == Origin::Branch(last)
    };
    let (me, term) = (member(2), last.term.next_epoch(id(2)));
    let vote = Vote { term, given: Some(me), founder: Some(me.disk) };
    assert!(begins(vote));
    for (other, what) in [
        (Vote { term: last.term.next(), founder: None, ..vote }, "no later epoch"),
        (Vote { founder: Some(DiskId(1)), ..vote }, "the epoch of another server"),
        (Vote { given: None, ..vote }, "it only follows the epoch"),
        (Vote { term: last.term, ..vote }, "its log holds the entry"),
    ] {
        assert!(!begins(other), "{what}");
    }
}

/// The entry names the founder as the only member, and the entry from which the epoch branched. No
/// two servers choose the same epoch.
#[test]
fn an_epoch_begins_with_an_entry_after_the_last_one_that_names_it() {
    let last = at(1, 4);
    let met = last.term.next_epoch(id(1)).next();
    for (newest, least) in [(last.term, last.term), (met, met), (Term::ZERO, last.term)] {
        let begin = Beginning::new(member(2), newest, last, true);
        let entry = begin.entry(WallTime(7));
        let record = Record::parse(&entry).unwrap();
        let position = Position { index: last.index.next(), term: begin.term };
        assert_eq!(
            (record.position(), record.time, record.kind),
            (position, WallTime(7), Kind::CONFIG)
        );
        let config = Config::decode(record.body).unwrap();
        assert_eq!(config, begin.config);
        assert!(config.has(member(2)) && config.count() == 1 && config.gate_open);
        assert_eq!(config.origin, Origin::Branch(last));
        assert!(begin.term.begins_epoch() && begin.term.epoch() > least.epoch());
        assert_eq!(begin.term.epoch() % 4, 2, "the id of the founder");
        let (given, founder) = (Some(member(2)), Some(member(2).disk));
        assert_eq!(begin.vote, Vote { term: begin.vote.term, given, founder });
    }
}

/// The list includes the epoch of the server's term even without its first entry: that server may
/// die before the entry arrives.
#[test]
fn a_hello_lists_the_newest_epochs_and_that_of_its_term() {
    let listed = |two: &mut Server, epochs: &[Epoch]| {
        let link = two.new_link(3);
        let (_, past) = greeting(&open(two, link, true), link).expect("it sends a hello");
        let mut expected = Vec::new();
        let (runs, epochs) = (vec![run(2)], epochs.to_vec());
        Past { runs, epochs, ..Past::default() }.encode(&mut expected);
        past == expected
    };
    let start =
        |vote: Vote, log: &[Vec<u8>]| Server::start(START, setup(2, vote, log), log.to_vec());
    let mut log = vec![config_entry(at(0, 1), &config(&[1, 2, 3]))];
    assert!(listed(&mut start(Vote::default(), &log), &[]));
    let founder = Some(member(3).disk);
    let (mut vote, mut all) = (Vote { founder, ..Vote::default() }, Vec::new());
    for _ in 0..ANCESTRY_MAX {
        let last = start(vote, &log).last();
        let begin = Beginning::new(member(3), Term::ZERO, last, true);
        vote.term = begin.term;
        all.push(Epoch { number: begin.term.epoch(), founder: member(3).disk });
        assert!(listed(&mut start(vote, &log), &all), "it follows the epoch");
        log.push(begin.entry(WallTime(0)));
        assert!(listed(&mut start(vote, &log), &all), "the epoch is in the log");
    }
    // The entry that begins the last epoch is cut.
    let mut two = restarted(vote, &log);
    let (prev, last) = (before_end(&two), two.last());
    let other = message(Position { term: last.term.next(), index: last.index });
    let out = two.receive_entries(append(last.term.next(), prev), 1, &[other]);
    assert!(out.has(&Effect::Cut(prev.index)));
    assert!(listed(&mut two, &all[..ANCESTRY_MAX - 1]));
    // The server follows one more epoch.
    vote = Vote { term: vote.term.next_epoch(id(3)), given: None, founder: Some(DiskId(33)) };
    all.push(Epoch { number: vote.term.epoch(), founder: DiskId(33) });
    assert!(listed(&mut start(vote, &log), &all[1..]));
}
