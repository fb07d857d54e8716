//! Guards the begin of a link: what its first packet may be, how hellos are numbered, and what a
//! server does when another one refuses its hello.

use super::hellos::*;
use crate::limits::DIAL_UNDECIDED_TIME;
use crate::replica::Quarantine;

/// Returns server `n` of a healthy group whose primary is server 1, and a hello of server 3.
fn server(n: u8) -> (Server, Hello) {
    let mut group = formed();
    group.run(ms(3_000));
    let server = group.take(n);
    let hello = Hello { serial: 1_000, has_other: true, last: server.last(), ..server.hello_of(3) };
    (server, hello)
}

/// Like [`server`], but the link to server 3 is lost, and one dial to it is under way.
fn unlinked(n: u8) -> (Server, Hello) {
    let (mut server, hello) = server(n);
    server.end_link(3);
    server.wait(DIAL_UNDECIDED_TIME, &[]);
    server.fail_dial(3, DialFailure::NoAnswer);
    assert!(!server.is_linked(3));
    (server, hello)
}

/// The receiver of two hellos can tell which one is later, and whether the sender knew of another
/// link when it sent them.
#[test]
fn hellos_are_numbered_and_report_another_link() {
    let (mut two, hello) = server(2);
    let greeted = |two: &mut Server, dialled: bool| {
        let link = two.new_link(3);
        let mut out = open(two, link, dialled);
        if !dialled {
            out = receive_on(two, link, Packet::Hello(hello), &past(&[run(3)]));
        }
        greeting(&out, link).expect("it sends a hello").0
    };
    let (one, next) = (greeted(&mut two, false), greeted(&mut two, false));
    assert_eq!(next.serial, one.serial + 1);
    assert!(one.has_other && next.has_other, "it is linked");
    two.end_link(3);
    assert!(!greeted(&mut two, true).has_other);
    assert!(greeted(&mut two, true).has_other, "the first dial has succeeded");
}

/// Any other first packet closes the link, and the server forgets the link. After a dial that
/// ended in this way the server dials again.
#[test]
fn a_link_begins_with_a_hello_and_an_accepted_one_also_with_an_order() {
    let (two, hello) = unlinked(2);
    let order = Packet::Order { group: hello.shared.group, to: None };
    let link = two.clone().new_link(3);
    let begin = |dialled: bool, packet: Packet| {
        let mut two = two.clone();
        assert_eq!(two.new_link(3), link);
        let out = first(&mut two, link, dialled, packet);
        let later = two.wait(T / 4, &[1]);
        assert_eq!(later.closed(3), [], "it waits for no hello");
        assert_eq!(dials(&later, 3) > 0, dialled);
        out
    };
    let accepted = begin(false, order);
    assert_eq!(accepted.sent(3), [Packet::Verdict(Verdict::NotPrimary)]);
    assert_eq!(accepted.closed(3), [Closing::Spare]);
    assert_eq!(begin(true, order).closed(3), [Closing::Nonsense]);
    for packet in [
        Packet::HigherTerm { term: Term(1) },
        Packet::Verdict(Verdict::Taken),
        Packet::Proofs,
        Packet::Blank { met: [DiskId(0); 3] },
    ] {
        for dialled in [false, true] {
            let out = begin(dialled, packet);
            assert_eq!(out.0.effects, [Effect::Close(link, Closing::Nonsense)], "{packet:?}");
        }
    }
}

/// A server that accepted a link later dials the sender, to check its address.
#[test]
fn a_hello_is_answered_on_an_accepted_link_and_is_the_answer_on_a_dialled_one() {
    let (two, _) = unlinked(2);
    let (hello, _) = next_start(&two, 3);
    for dialled in [false, true] {
        let mut two = two.clone();
        let link = two.new_link(3);
        let out = first(&mut two, link, dialled, Packet::Hello(hello));
        let is_answer = |packet: &&Packet| matches!(packet, Packet::Hello(own) if own.to == id(3));
        assert_eq!(out.sent(3).iter().filter(is_answer).count(), usize::from(!dialled));
        assert_eq!(two.link(3), link);
        assert_eq!(dials(&two.wait(T / 8, &[1, 3]), 3) > 0, !dialled);
    }
}

/// No other server listens at an address where a server reaches itself: the primary drops the
/// member that should be there. Another process with the same id proves nothing about that member.
#[test]
fn a_dial_that_reaches_its_own_server_counts_as_refused() {
    let reached = |linked: bool, process: ProcessId| {
        let (mut one, hello) = unlinked(1);
        if linked {
            let (hello, _) = next_start(&one, 3);
            let link = one.new_link(3);
            one.connect_with(link, hello, false);
            assert_eq!(dials(&one.wait(T / 8, &[2, 3]), 3), 1, "it checks the address");
        }
        let run = Run { process, ..hello.run };
        let own = Hello { from: member(1), to: id(3), run, ..hello };
        let link = one.new_link(3);
        assert!(greeting(&open(&mut one, link, true), link).is_some());
        let closed = receive_on(&mut one, link, Packet::Hello(own), &past(&[run])).closed(3);
        one.pong(2);
        one.tick();
        (closed, one.decided(Rule::DroppedGone))
    };
    let own = run(1).process;
    assert_eq!(reached(false, own), (vec![Closing::Nonsense], 1));
    assert_eq!(reached(true, own), (vec![Closing::Nonsense], 0), "it is linked elsewhere");
    let same_id = Closing::Refused(id(1), Refusal::SameId);
    assert_eq!(reached(false, ProcessId(77)), (vec![same_id], 0));
}

/// A refused server waits for half of the peer timeout before it dials again, since the next hello
/// will be refused as well. Only `OldCopy` quarantines its directory, and ends it.
#[test]
fn a_refused_server_dials_again_later_and_only_an_old_copy_leaves() {
    let everything = Effect::Quarantine(Quarantine::Everything);
    for (why, leaves) in [
        (Refusal::Settings, false),
        (Refusal::Epoch, false),
        (Refusal::Straggler, false),
        (Refusal::OldCopy, true),
    ] {
        // The refusal arrives instead of the hello, or later, on the link in use.
        let (mut two, _) = unlinked(2);
        let link = two.new_link(3);
        let out = first(&mut two, link, true, Packet::Refused(why));
        assert_eq!(out.closed(3), [Closing::RefusedBy(Some(id(3)), why)]);
        assert_eq!(out.has(&everything), leaves, "{why:?}");

        let (mut two, _) = server(2);
        let out = two.receive(3, Packet::Refused(why));
        assert!(!two.is_linked(3));
        assert_eq!(out.has(&everything), leaves, "{why:?}");
        if leaves {
            assert_eq!(two.tick().0.effects, [], "it ignores all further events");
            assert_eq!(two.end_link(1).0.effects, []);
            continue;
        }
        two.wait(DIAL_UNDECIDED_TIME, &[1]);
        two.fail_dial(3, DialFailure::NoAnswer);
        two.fail_dial(3, DialFailure::NoAnswer);
        assert_eq!(dials(&two.wait(T / 2 * 8 / 10 - US, &[1]), 3), 0, "{why:?}");
        assert!(dials(&two.wait(T / 2 * 4 / 10 + US, &[1]), 3) > 0, "{why:?}");
    }
}

/// A directory that a majority follows is no old copy, whatever one other server has recorded.
#[test]
fn a_primary_that_a_majority_answers_ignores_the_refusal_of_an_old_copy() {
    let everything = Effect::Quarantine(Quarantine::Everything);
    let (one, _) = server(1);
    let leaves = |after: Duration| {
        let mut one = one.clone();
        one.advance(after);
        one.receive(3, Packet::Refused(Refusal::OldCopy)).has(&everything)
    };
    assert!(!leaves(Duration::ZERO));
    assert!(leaves(T * 9), "no server has answered it for long");
}

/// A server refuses a later epoch while it has a primary. Without one it follows the epoch when it
/// has known it for the peer timeout, and until then it grants no pre-votes. A refused hello does
/// not count as a report of the later epoch: it may come from a copy.
#[test]
fn a_later_epoch_is_met_before_it_is_followed() {
    let (mut two, hello) = unlinked(2);
    let term = hello.term.next_epoch(id(3));
    let founder = Some(member(3).disk);
    let later = |two: &mut Server, n: u8| {
        let hello = Hello { term, founder, ..two.hello_of(n) };
        let link = two.new_link(n);
        first(two, link, n == 3, Packet::Hello(hello)).closed(n)
    };
    let follows = |two: &Server| two.replica.term() == term;

    let mut healthy = two.clone();
    let straggler = Closing::Refused(id(3), Refusal::Straggler);
    assert_eq!(later(&mut healthy, 3), [straggler], "its primary is recently active");
    healthy.report(1, PeerHealth::default());
    assert!(!follows(&healthy) && grants_pre_vote(&healthy, 1));

    two.report(1, PeerHealth::default());
    assert_eq!(later(&mut two, 3), [Closing::Spare]);
    assert!(!follows(&two) && !grants_pre_vote(&two, 1), "it waits");

    let mut long_met = two.clone();
    long_met.advance(T);
    assert_eq!(later(&mut long_met, 3), []);
    assert!(follows(&long_met));

    // Server 1 reports the later epoch, too, so no server can be in the earlier one.
    assert_eq!(later(&mut healthy, 1), [Closing::Spare]);
    assert!(!follows(&healthy), "the refused hello of server 3 does not count");
    later(&mut two, 1);
    assert!(follows(&two));
}

/// A server that has just started waits for the first outcome of each dial. So it processes that
/// outcome in the same turn.
#[test]
fn the_first_outcome_of_a_dial_is_processed_at_once() {
    for accepted in [false, true] {
        let mut two = Server::start(START, setup(2, Vote::default(), &[]), Vec::new());
        let is_due = |two: &Server| two.replica.next_deadline() <= Some(two.now);
        for outcome in 0..2 {
            two.tick();
            assert!(!is_due(&two));
            if accepted {
                let link = two.new_link(3);
                open(&mut two, link, true);
                two.handle(Event::Ended { link }, &mut Effects::default());
            } else {
                two.fail_dial(3, DialFailure::NoAnswer);
            }
            assert_eq!(is_due(&two), outcome == 0, "accepted: {accepted}");
        }
    }
}
