//! Guards the dials, the loss of links, and the choice between two links to one server. They decide
//! how soon servers reach each other, and when a server counts as down.

use super::hellos::*;
use crate::limits::{
    DIAL_UNDECIDED_TIME, QUICK_DIALS_MAX, RANK_TIME, REDIAL_TIME, UNKNOWN_LINKS_MAX,
};

/// Returns uninitialized server 2, which has just started.
fn started() -> Server {
    Server::start(START, setup(2, Vote::default(), &[]), Vec::new())
}

/// Returns how often server 1 is dialled in a tick at this time after the start.
fn tick(two: &mut Server, after: Duration) -> usize {
    two.now = START + after;
    dials(&two.tick(), 1)
}

/// Returns how often the server dials server 1 again at once, when each dial succeeds and ends
/// before the hello.
fn quick_dials(two: &mut Server) -> u32 {
    let mut count = 0;
    loop {
        let link = two.new_link(1);
        open(two, link, true);
        let mut out = Effects::default();
        two.handle(Event::Ended { link }, &mut out);
        if dials(&out, 1) == 0 || count > QUICK_DIALS_MAX {
            return count;
        }
        count += 1;
    }
}

#[test]
fn an_undecided_dial_gets_a_second_one_beside_it_and_no_more() {
    let mut two = started();
    assert_eq!(tick(&mut two, ms(0)), 1, "at once");
    assert_eq!(tick(&mut two, DIAL_UNDECIDED_TIME - US), 0);
    assert_eq!(tick(&mut two, DIAL_UNDECIDED_TIME), 1);
    assert_eq!(tick(&mut two, ms(10_000)), 0, "two are under way");
    two.refuse_dial(1);
    assert_eq!(tick(&mut two, ms(20_000)), 0, "one is under way");
    two.refuse_dial(1);
    assert_eq!(tick(&mut two, ms(21_000)), 1);
}

/// A dying process accepts connections that it never answers.
#[test]
fn a_dial_without_a_hello_counts_as_under_way_for_a_quarter_of_t() {
    let mut two = started();
    let (first, second) = (two.new_link(1), two.new_link(1));
    assert_eq!(tick(&mut two, ms(0)), 1);
    two.now = START + ms(1);
    open(&mut two, first, true);
    assert_eq!(tick(&mut two, ms(5)), 1);
    two.now = START + ms(6);
    open(&mut two, second, true);
    assert_eq!(tick(&mut two, ms(400)), 0);
    two.now = START + (ms(501) - US);
    assert_eq!(two.tick().closed(1), []);
    two.now = START + ms(506);
    let out = two.tick();
    assert!([first, second].iter().all(|link| out.has(&Effect::Close(*link, Closing::Silent))));
}

#[test]
fn each_redial_comes_later_than_the_one_before_up_to_half_of_t() {
    let mut two = started();
    two.tick();
    let (mut expected, longest) = (REDIAL_TIME, T / 2);
    for _ in 0..10 {
        let failed = two.now;
        two.refuse_dial(1);
        while dials(&two.advance(ms(1)).tick(), 1) == 0 {
            assert!(two.now < failed + T, "it dials again");
        }
        let delay = two.now - failed;
        let most = expected * 12 / 10 + ms(1);
        assert!(delay >= expected * 8 / 10 && delay <= most, "{delay:?} for {expected:?}");
        expected = (expected * 2).min(longest);
    }
    assert_eq!(expected, longest);
}

/// The first dials after a restart may meet a process that is still ending. So a server dials again
/// at once, but not without end. A new link permits as many of these dials again.
#[test]
fn a_dial_that_ends_before_the_hello_is_repeated_at_once_but_not_without_end() {
    let mut two = started();
    two.tick();
    assert_eq!(quick_dials(&mut two), QUICK_DIALS_MAX);
    assert_eq!(dials(&two.wait(REDIAL_TIME * 8 / 10 - US, &[]), 1), 0, "later");
    assert!(dials(&two.wait(REDIAL_TIME * 4 / 10 + US, &[]), 1) > 0);
    two.connect(1);
    assert_eq!(dials(&two.end_link(1), 1), 1);
    assert_eq!(quick_dials(&mut two), QUICK_DIALS_MAX);
}

/// A member is down only if its address refuses a dial after its link was lost. When a link is
/// lost, the server dials at once, and asks the others whether they are still active.
#[test]
fn only_a_refusal_after_the_loss_of_the_link_shows_that_a_server_is_down() {
    let mut one = formed().take(1);
    let members = |one: &mut Server| {
        one.advance(ms(1));
        one.pong(2);
        one.tick();
        one.members()
    };
    one.refuse_dial(3);
    assert_eq!(members(&mut one), [1, 2, 3], "it is linked");
    let out = one.end_link(3);
    let pings = out.sent(2).into_iter().filter(|packet| matches!(packet, Packet::Ping { .. }));
    assert_eq!((pings.count(), dials(&out, 3)), (1, 1));
    assert_eq!(members(&mut one), [1, 2, 3], "its process may run");
    one.fail_dial(3, DialFailure::NoAnswer);
    assert_eq!(members(&mut one), [1, 2, 3], "a timeout proves nothing");
    one.refuse_dial(3);
    assert_eq!(members(&mut one), [1, 2]);
    assert_eq!(one.decided(Rule::DroppedGone), 1);
}

/// Another server may know of a later epoch, or that this directory is an old copy. So a restarted
/// server campaigns only when each dial has had an outcome, or after the peer timeout.
#[test]
fn a_restarted_server_campaigns_when_each_dial_has_an_outcome_or_after_t() {
    let stored = formed().take(2);
    let (vote, log) = (stored.written.vote, stored.log.0);
    // Server 1 is linked, so this server has a majority.
    let restarted = || {
        let mut two = Server::start(START, setup(2, vote, &log), log.clone());
        two.tick();
        two.connect(1);
        two
    };
    let mut two = restarted();
    assert!(!campaigns(&two.wait(T - US, &[1])), "server 3 may know more");
    assert!(campaigns(&two.wait(RANK_TIME + US, &[1])));

    type Outcome = fn(&mut Server);
    let outcomes: [(&str, Outcome); 5] = [
        ("refused", |two| drop(two.refuse_dial(3))),
        ("no answer", |two| drop(two.fail_dial(3, DialFailure::NoAnswer))),
        ("ended before the hello", |two| {
            let link = two.new_link(3);
            open(two, link, true);
            two.handle(Event::Ended { link }, &mut Effects::default());
        }),
        ("linked", |two| drop(two.connect(3))),
        ("reached itself", |two| {
            let own = Hello { from: member(2), to: id(3), run: run(2), ..two.hello_of(3) };
            let link = two.new_link(3);
            assert_eq!(first(two, link, true, Packet::Hello(own)).closed(3), [Closing::Nonsense]);
        }),
    ];
    for (what, outcome) in outcomes {
        let mut two = restarted();
        outcome(&mut two);
        assert!(campaigns(&two.wait(RANK_TIME, &[1])), "{what}");
    }
}

/// A pong counts from when its ping was sent. An older pong, or one for a ping that was never sent,
/// changes nothing.
#[test]
fn an_answer_counts_from_when_its_ping_was_sent_and_never_less_than_before() {
    let mut two = formed().take(2);
    let began = two.now;
    two.advance(ms(1_000));
    for (sent, counts_from) in [(500, 500), (200, 500), (1_001, 500), (1_000, 1_000)] {
        two.receive(1, Packet::Pong { sent: began + ms(sent), promised: None });
        let silent = began + ms(counts_from) + T;
        assert_eq!(two.replica.primary(Moment(silent.0 - 1)), Some(member(1)), "{sent} ms");
        assert_eq!(two.replica.primary(silent), None, "{sent} ms");
    }
}

/// A primary drops a lost member when the other backup has answered since the loss. So it processes
/// such an answer in the same turn.
#[test]
fn a_primary_that_has_lost_a_member_processes_a_new_answer_at_once() {
    let mut one = formed().take(1);
    one.advance(ms(1));
    let is_due = |one: &Server| one.replica.next_deadline() <= Some(one.now);
    one.tick();
    one.pong(2);
    assert!(!is_due(&one), "no member is lost");
    one.advance(ms(1));
    one.kill(3);
    one.tick();
    let sent = Moment(one.now.0 - 2_000);
    one.receive(2, Packet::Pong { sent, promised: None });
    assert!(!is_due(&one), "the answer is older than one before");
    one.advance(ms(1));
    one.pong(2);
    assert!(is_due(&one));
    one.tick();
    assert_eq!(one.members(), [1, 2]);
}

#[test]
fn a_new_link_begins_without_the_reports_and_refusals_of_the_last_one() {
    let mut one = formed().take(1);
    one.report(3, PeerHealth { stopping: true, ..PeerHealth::default() });
    assert_eq!(one.replica.peer_state(id(3), one.now), "stopping");
    one.end_link(3);
    one.connect(3);
    assert_eq!(one.replica.peer_state(id(3), one.now), "member");

    // A refusal before the last link does not show that the server is down now.
    one.kill(3);
    one.connect(3);
    one.end_link(3);
    one.advance(ms(1));
    one.pong(2);
    one.tick();
    assert_eq!(one.members(), [1, 2, 3]);
}

/// Server 1 forms the group only if both others have sent `Blank` on links that are open now.
#[test]
fn a_new_link_needs_a_new_report_of_an_uninitialized_server() {
    let mut one = Server::start(START, setup(1, Vote::default(), &[]), Vec::new());
    let met = [1, 2, 3].map(|n| member(n).disk);
    one.connect(2);
    one.connect(3);
    one.receive(2, Packet::Blank { met });
    one.end_link(2);
    one.connect(2);
    one.receive(3, Packet::Blank { met });
    assert_eq!(one.tick().appended(), 0);
    one.receive(2, Packet::Blank { met });
    assert_eq!(one.tick().appended(), 1);
}

#[test]
fn dials_that_began_before_a_link_still_count_as_under_way_after_it() {
    let mut two = formed().take(2);
    two.end_link(3);
    assert_eq!(dials(&two.wait(DIAL_UNDECIDED_TIME, &[1]), 3), 1, "a second one beside the first");
    two.connect(3);
    assert_eq!(dials(&two.end_link(3), 3), 1);
    assert_eq!(dials(&two.wait(DIAL_UNDECIDED_TIME, &[1]), 3), 0, "three are under way");
}

#[test]
fn a_link_without_answers_is_closed_after_t() {
    let mut two = formed().take(2);
    two.pong(3);
    let closed = |after: Duration| {
        let mut two = two.clone();
        two.advance(after);
        two.pong(1);
        // This makes the server ping at once, and check its links.
        two.replica.note_space(two.now, true);
        let out = two.tick();
        assert_eq!(out.closed(1), []);
        out.closed(3)
    };
    assert_eq!(closed(T - US), []);
    assert_eq!(closed(T), [Closing::Silent]);
}

/// The limit bounds the memory for connections whose sender is unknown. A server's own dials do not
/// count.
#[test]
fn accepted_links_without_a_hello_are_bounded() {
    let mut two = started();
    for _ in 0..UNKNOWN_LINKS_MAX {
        let link = two.new_link(1);
        assert_eq!(open(&mut two, link, false).0.effects, []);
    }
    let link = two.new_link(1);
    let out = open(&mut two, link, false);
    assert_eq!(out.0.effects, [Effect::Close(link, Closing::Silent)]);
    let link = two.new_link(1);
    let out = open(&mut two, link, true);
    assert!(greeting(&out, link).is_some() && out.closed(1).is_empty());
}

/// Both ends of two links must choose the same one, or no link stays. Server 2 chooses between
/// links with server 1, whose dials stay, and with server 3, whose dials do not.
#[test]
fn of_two_links_to_one_process_both_ends_choose_the_same() {
    // Each link: whether server 2 dialled it, and the `has_other` and `serial` of the other side's
    // hello. Returns whether the link whose hello arrives second stays.
    let second_stays = |n: u8, hellos: [(bool, bool, u64); 2]| {
        let mut two = started();
        let links = [two.new_link(n), two.new_link(n)];
        for (link, (dialled, ..)) in links.into_iter().zip(hellos) {
            open(&mut two, link, dialled);
        }
        let mut closed = Effects::default();
        for (link, (_, has_other, serial)) in links.into_iter().zip(hellos) {
            let hello = Hello { has_other, serial, ..two.hello_of(n) };
            closed = receive_on(&mut two, link, Packet::Hello(hello), &past(&[run(n)]));
        }
        let stays = two.link(n) == links[1];
        let spare = if stays { links[0] } else { links[1] };
        assert!(closed.has(&Effect::Close(spare, Closing::Spare)));
        stays
    };
    for n in [1, 3] {
        for (dialled, again) in [(true, true), (true, false), (false, true), (false, false)] {
            // The sender of the later hello knew of no other link: the first one is lost.
            assert!(second_stays(n, [(dialled, true, 5), (again, false, 6)]));
            // The hellos crossed: the earlier one, which knew of no other link, arrived later.
            assert!(!second_stays(n, [(dialled, false, 6), (again, true, 5)]));
            let wins = |dialled: bool| dialled == (n == 3);
            let (old, new) = ((dialled, true, 5), (again, true, 6));
            let expected = dialled == again || wins(again);
            assert_eq!(second_stays(n, [old, new]), expected, "{n} {dialled} {again}");
            let expected = dialled != again && wins(dialled);
            assert_eq!(second_stays(n, [new, old]), expected, "{n} {dialled} {again}, crossed");
        }
    }
}

/// The old link of another process is of no use. The new one replaces it when the linked process
/// has not answered for an eighth of the peer timeout, whichever end dialled and however old the
/// hello is.
#[test]
fn the_link_of_another_process_replaces_one_that_does_not_answer() {
    type Change = fn(&mut Hello);
    let changes: [Change; 2] = [
        |hello| hello.run = Run { incarnation: Incarnation(2), process: ProcessId(77) },
        |hello| hello.from.disk.0 += 1,
    ];
    for n in [1, 3] {
        for change in changes {
            let mut two = started();
            let old = two.new_link(n);
            let hello = Hello { serial: 9, has_other: true, ..two.hello_of(n) };
            two.connect_with(old, hello, true);
            let link = two.new_link(n);
            let mut hello = Hello { serial: 1, ..hello };
            change(&mut hello);
            two.connect_with(link, hello, false);
            assert_eq!(two.advance(T / 8 - US).tick().closed(n), []);
            assert!(two.advance(US).tick().has(&Effect::Close(old, Closing::Silent)));
            assert_eq!(two.link(n), link);
        }
    }
}

/// A backup does not follow a primary that has restarted or has another disk, and records the new
/// run. A second link of the same process changes nothing.
#[test]
fn a_primary_that_has_restarted_is_not_followed() {
    let group = formed();
    let after = |change: fn(&mut Hello)| {
        let mut two = group.take(2);
        let mut hello = Hello { serial: 1_000_000, last: two.last(), ..two.hello_of(1) };
        change(&mut hello);
        let link = two.new_link(1);
        let out = two.connect_with(link, hello, false);
        let later = two.advance(T / 8).tick();
        let effects = out.0.effects.iter().chain(&later.0.effects);
        let recorded = effects.filter(|e| matches!(e, Effect::RecordIncarnation(..))).count();
        assert_eq!(two.link(1), link);
        let primary = two.replica.primary(two.now);
        (primary, two.replica.follows_on(link), recorded)
    };
    assert_eq!(after(|_| ()), (Some(member(1)), true, 0), "the same process");
    let restarted = after(|h| h.run = Run { incarnation: Incarnation(2), process: ProcessId(77) });
    assert_eq!(restarted, (None, false, 1));
    assert_eq!(after(|h| h.from.disk.0 += 1), (None, false, 1), "another disk");
}

/// With a link a second one is of no use, except to check the address of a server that dialled this
/// one.
#[test]
fn a_dial_beside_a_link_is_closed_unless_it_checks_an_address() {
    let mut two = formed().take(2);
    let is_greeted = |two: &Server| {
        let mut two = two.clone();
        let link = two.new_link(1);
        let out = open(&mut two, link, true);
        match greeting(&out, link) {
            Some((hello, _)) => {
                assert_eq!(hello.to, id(1));
                true
            }
            None => {
                assert_eq!(out.0.effects, [Effect::Close(link, Closing::Spare)]);
                false
            }
        }
    };
    assert!(!is_greeted(&two), "there is a link");
    two.end_link(1);
    assert!(is_greeted(&two));
    let (hello, _) = next_start(&two, 1);
    let link = two.new_link(1);
    two.connect_with(link, hello, false);
    assert!(!is_greeted(&two));
    assert_eq!(dials(&two.wait(T / 8, &[1, 3]), 1), 1);
    assert!(is_greeted(&two), "server 1 dialled this one");
}

/// Server 1 forms the group with the disks that the others report. A report can't be changed on the
/// same link, so a server that meets another disk opens a new link.
#[test]
fn an_uninitialized_server_reports_other_disks_on_a_new_link_only() {
    let mut two = started();
    let reported = |out: &Effects| {
        let blank = |packet| match packet {
            Packet::Blank { met } => Some(met),
            _ => None,
        };
        out.sent(1).into_iter().filter_map(blank).collect::<Vec<[DiskId; 3]>>()
    };
    let nothing: [[DiskId; 3]; 0] = [];
    two.connect(1);
    assert_eq!(reported(&two.tick()), nothing, "server 3 is not linked");
    two.connect(3);
    let mut met = [1, 2, 3].map(|n| member(n).disk);
    assert_eq!(reported(&two.tick()), [met]);
    assert_eq!(reported(&two.tick()), nothing, "once");
    met[2] = DiskId(34);
    two.end_link(3);
    two.connect_as(3, met[2]);
    let out = two.tick();
    assert_eq!((reported(&out), out.closed(1)), (vec![], vec![Closing::Restated]));
    assert!(!two.is_linked(1));
    two.connect(1);
    assert_eq!(reported(&two.tick()), [met]);
}
