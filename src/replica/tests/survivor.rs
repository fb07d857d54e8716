//! `last_survivor = "auto"`: every part of the evidence is necessary, and a primary promises only
//! what it can keep.

use super::lockstep::*;

/// The config of the group of two in the logs of these tests.
const PAIR: Position = Position { term: Term(1), index: Index(2) };

/// Returns server 2 with these configs after the first entry, and `last_survivor = "auto"` unless
/// `change` says otherwise. It has no link.
fn unlinked(configs: &[Config], change: &dyn Fn(&mut Setup)) -> Server {
    let mut log = vec![config_entry(at(0, 1), &config(&[1, 2, 3]))];
    log.extend((2..).zip(configs).map(|(index, config)| config_entry(at(1, index), config)));
    let mut setup = setup(2, vote(3, None), &log);
    setup.shared.survivor_auto = true;
    change(&mut setup);
    Server::start(START, setup, log)
}

/// Server 1 answers a hello, on a link that it accepted or that it dialled itself.
fn link(server: &mut Server, dialled: bool) {
    let (hello, link) = (server.hello_of(1), server.new_link(1));
    server.connect_with(link, hello, dialled);
}

fn pair() -> Server {
    let mut server = unlinked(&[config(&[1, 2])], &|_| ());
    link(&mut server, true);
    server
}

/// Receives a promise, in the answer to a ping that was sent at this moment.
fn promise(server: &mut Server, config: Option<Position>) {
    server.receive(1, Packet::Pong { sent: server.now, promised: config });
}

/// Ends the process of server 1, ticks, and returns whether server 2 continues alone.
fn continues(server: &Server) -> bool {
    let mut server = server.clone();
    server.kill(1);
    is_alone(&mut server)
}

/// Ticks, and returns whether the server continues alone, in its own epoch.
fn is_alone(server: &mut Server) -> bool {
    server.tick();
    let is_alone = server.members() == [2];
    assert_eq!(is_alone, server.replica.founder() == Some(member(2).disk));
    assert_eq!(is_alone, server.decided(Rule::WentOnAlone) == 1);
    is_alone
}

/// A backup of two continues alone only with all of the evidence: the promise for its newest
/// config, an answer at the primary's own address, the loss of the link, and a refused dial.
#[test]
fn a_backup_with_all_the_evidence_continues_alone() {
    let mut ready = pair();
    promise(&mut ready, Some(PAIR));
    assert!(continues(&ready));

    let with = |configs: &[Config], promised: Position, change: &dyn Fn(&mut Setup)| {
        let mut server = unlinked(configs, change);
        link(&mut server, true);
        promise(&mut server, Some(promised));
        continues(&server)
    };
    let (two, second) = (config(&[1, 2]), at(1, 3));
    assert!(with(&[two], PAIR, &|_| ()));
    assert!(!with(&[two], PAIR, &|setup| setup.shared.survivor_auto = false), "ask");
    let (term, founder) = (Term(3).next_epoch(id(1)), Some(member(1).disk));
    let later = |setup: &mut Setup| setup.vote = Vote { term, given: None, founder };
    assert!(!with(&[two], PAIR, &later), "its log lacks a later epoch");
    assert!(!with(&[two, two], PAIR, &|_| ()), "the promise names another config");
    assert!(with(&[two, two], second, &|_| ()));
    assert!(!with(&[two, config(&[1, 2, 3])], second, &|_| ()), "of three");
    assert!(!with(&[two, config(&[1, 3])], second, &|_| ()), "it is no member");

    let mut stopping = ready.clone();
    stopping.replica.stop(stopping.now);
    assert!(!continues(&stopping));
    assert!(!continues(&pair()), "nothing was promised");
    let mut dialled_by_1 = unlinked(&[two], &|_| ());
    link(&mut dialled_by_1, false);
    dialled_by_1.fail_dial(1, DialFailure::NoAnswer);
    promise(&mut dialled_by_1, Some(PAIR));
    assert!(!continues(&dialled_by_1), "1 has not answered at its own address");
    let mut not_refused = ready.clone();
    not_refused.end_link(1);
    assert!(!is_alone(&mut not_refused));
}

/// Another process or disk of the primary makes the evidence about the earlier one worthless.
#[test]
fn a_new_run_of_the_primary_makes_the_evidence_worthless() {
    let next = Run { incarnation: Incarnation(2), process: ProcessId(21) };
    let other = Member { disk: DiskId(77), ..member(1) };
    for (from, run, continues_alone) in
        [(member(1), run(1), true), (member(1), next, false), (other, run(1), false)]
    {
        let mut server = pair();
        promise(&mut server, Some(PAIR));
        server.end_link(1);
        let (hello, link) = (server.hello_of(1), server.new_link(1));
        let packet = Packet::Hello(Hello { from, run, ..hello });
        let runs = if run == next { vec![super::server::run(1), run] } else { vec![run] };
        let mut out = Effects::default();
        server.handle(Event::Dialled { link, to: id(1) }, &mut out);
        server.handle(Event::Received { link, packet, records: &past(&runs) }, &mut out);
        assert!(server.is_linked(1));
        assert_eq!(continues(&server), continues_alone, "{from} {run:?}");
    }
}

/// Only a refused dial counts, and only one that began after the link was lost.
#[test]
fn only_a_dial_that_began_after_the_loss_and_was_refused_counts() {
    let mut server = pair();
    promise(&mut server, Some(PAIR));
    server.refuse_dial(1);
    assert!(!is_alone(&mut server), "it is linked");
    server.end_link(1);
    assert!(!is_alone(&mut server), "the refusal came before the loss");
    server.fail_dial(1, DialFailure::NoAnswer);
    assert!(!is_alone(&mut server), "no answer is no refusal");
    server.refuse_dial(1);
    assert!(is_alone(&mut server));

    // Two dials are under way when the first of them is answered.
    let mut server = unlinked(&[config(&[1, 2])], &|_| ());
    assert!(server.tick().has(&Effect::Dial(id(1))));
    assert!(server.wait(ms(5), &[]).has(&Effect::Dial(id(1))));
    link(&mut server, true);
    promise(&mut server, Some(PAIR));
    server.kill(1);
    assert!(!is_alone(&mut server), "the refused dial may be the one that began before the loss");
    server.refuse_dial(1);
    assert!(is_alone(&mut server));
}

/// A promise lasts for half a peer timeout after the ping was sent. A pong without a promise does
/// not end it, and a pong for a ping of the future is invalid.
#[test]
fn a_promise_lasts_for_half_the_peer_timeout_after_the_ping() {
    let mut server = pair();
    let sent = server.now;
    server.receive(1, Packet::Pong { sent: sent + US, promised: Some(PAIR) });
    assert!(!continues(&server), "a pong from the future");
    server.advance(ms(100));
    server.receive(1, Packet::Pong { sent, promised: Some(PAIR) });
    promise(&mut server, None);
    server.advance(T / 2 - ms(100) - US);
    assert!(continues(&server));
    server.advance(US);
    assert!(!continues(&server), "it has expired");
}

/// A backup that was asked to release a promise answers, discards the promise, and accepts none
/// for pings that it sent before.
#[test]
fn a_backup_that_releases_a_promise_discards_it() {
    let mut server = pair();
    promise(&mut server, Some(PAIR));
    let asked = Moment(5);
    let out = server.receive(1, Packet::AskRelease { asked });
    assert_eq!(out.sent(1), [Packet::Released { asked }]);
    assert!(!continues(&server));
    promise(&mut server, Some(PAIR));
    assert!(!continues(&server), "for a ping from before");
    server.advance(US);
    promise(&mut server, Some(PAIR));
    assert!(continues(&server));
}

/// A server dials a server that has dialled it, to check that server's address: once, and not if
/// it has answered there.
#[test]
fn only_a_server_that_dialled_this_one_is_dialled() {
    for (dialled, dials) in [(true, 0), (false, 1)] {
        let mut server = unlinked(&[config(&[1, 2])], &|_| ());
        let (hello, link) = (server.hello_of(1), server.new_link(1));
        let mut out = server.connect_with(link, hello, dialled);
        out.0.effects.extend(server.wait(T / 2, &[1]).0.effects);
        let to_1 = out.0.effects.iter().filter(|effect| **effect == Effect::Dial(id(1)));
        assert_eq!(to_1.count(), dials, "{dialled}");
    }
}

/// Returns server 1, the primary of two in a group of three with `last_survivor = "auto"` or
/// `"ask"`. Server 2 has stored every entry.
fn primary(auto: bool) -> Server {
    let mut group = form(|setup| setup.shared.survivor_auto = auto);
    group.kill(3);
    group.run(ms(200));
    let mut server = group.take(1);
    assert_eq!(server.members(), [1, 2]);
    server.advance(ms(9_000)).pong(2);
    server.tick();
    server
}

/// Returns the promise that server `from` receives when it pings.
fn promised(server: &mut Server, from: u8) -> Option<Position> {
    let out = server.report(from, PeerHealth::default());
    let [Packet::Pong { promised, .. }] = out.sent(from)[..] else { panic!("{out:?}") };
    promised
}

/// Server 3 connects and has stored every committed entry.
fn catch_up(server: &mut Server) {
    server.connect(3);
    server.tick();
    server.accept(3, server.replica.committed());
}

/// The primary of two promises the other member not to change the members, while its newest
/// config is acknowledged. It promises nothing to other servers.
#[test]
fn a_primary_promises_to_the_other_of_two_while_its_config_is_acknowledged() {
    let mut server = primary(true);
    let newest =
        (1..).zip(&server.log.0).filter(|(_, entry)| Record::trust(entry).kind == Kind::CONFIG);
    let newest = newest.last().map(|(_, entry)| Record::trust(entry).position());
    assert_eq!(promised(&mut server.clone(), 2), newest);
    assert_eq!(promised(&mut primary(false), 2), None, "ask");
    let mut other = server.clone();
    other.end_link(2);
    other.connect_as(2, DiskId(77));
    assert_eq!(promised(&mut other, 2), None, "another disk");
    let mut three = form(|setup| setup.shared.survivor_auto = true).take(1);
    assert_eq!(promised(&mut three, 2), None, "of three");
    three.kill(3);
    three.pong(2);
    three.tick();
    assert_eq!(three.members(), [1, 2]);
    assert_eq!(promised(&mut three, 2), None, "the config is not acknowledged");
    assert_eq!(promised(&mut pair(), 1), None, "a backup promises nothing");

    // A change waits for the last promise, and the primary gives no other one meanwhile.
    assert_eq!(promised(&mut server, 2), newest);
    let end = server.now + T / 2;
    catch_up(&mut server);
    for (now, members) in [(server.now, &[1, 2][..]), (Moment(end.0 - 1), &[1, 2])] {
        server.now = now;
        server.tick();
        assert_eq!(server.members(), members);
        assert_eq!(promised(&mut server, 2), None);
    }
    server.now = end;
    server.tick();
    assert_eq!(server.members(), [1, 2, 3]);
}

/// A change does not wait for a promise that its receiver gives up. The primary asks for that
/// once. Only the other member's answer to this request counts, and only if the primary has not
/// promised again since.
#[test]
fn a_promise_that_is_given_up_delays_no_change() {
    let mut server = primary(true);
    assert!(promised(&mut server, 2).is_some());
    catch_up(&mut server);
    let asked = server.now;
    let request = |packet: &&Packet| **packet == Packet::AskRelease { asked };
    assert_eq!(server.tick().sent(2).iter().filter(request).count(), 1);
    assert_eq!(server.tick().sent(2).iter().filter(request).count(), 0, "once");
    let released = |server: &Server, from: u8, asked: Moment| {
        let mut server = server.clone();
        server.receive(from, Packet::Released { asked });
        server.tick();
        server.members() == [1, 2, 3]
    };
    assert!(released(&server, 2, asked));
    assert!(!released(&server, 2, asked + US), "another request");
    assert!(!released(&server, 3, asked), "another server");

    // Server 3 is lost for a moment, so the primary promises again.
    server.end_link(3);
    server.tick();
    assert!(promised(&mut server, 2).is_some());
    catch_up(&mut server);
    assert!(!released(&server, 2, asked));
}
