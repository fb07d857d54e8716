//! Tests promises whose violation no test of whole servers has noticed: what an error says about a
//! logged change, what a read shows while a backlog is applied, and whose mail a LOGIN under way
//! shows.

use super::*;
use crate::ids::Position;
use crate::limits::APPLIED_PER_TURN;

/// Every ERR except `unknown-outcome` promises that nothing was stored. A logged change may take
/// effect, whatever closes its session before its outcome is known.
#[test]
fn a_logged_change_whose_session_closes_has_an_unknown_outcome() {
    for line in [
        "CREATE carl correct-horse",
        "PASSWD correct-horse other-horse",
        "DELETE ann correct-horse",
        "SEND bob hi",
    ] {
        let mut world = World::new();
        let session = if line.starts_with("CREATE") { SessionId(50) } else { ANN };
        if session != ANN {
            world.tell(Input::Opened(session, HERE.into()));
        }
        let before = world.log.0.len();
        world.tell(Input::Request(session, Request::Line(line.as_bytes())));
        for _ in 0..4 {
            world.tick();
            world.hash_all();
        }
        assert_eq!(world.log.0.len(), before + 1, "{line}: it is logged");
        assert_eq!(world.said(session), "", "{line}: and not stored");
        world.tell(Input::Stop);
        world.now += Duration::from_secs(60);
        world.tell(Input::Replica(Event::Tick));
        let said = world.said(session);
        assert!(said.starts_with("ERR unknown-outcome "), "{line}: {said}");
        assert!(!said.contains("OK"), "{line}: {said}");
    }
}

/// A refusal is an answer like any other: a stopping server does not wait for a client whose last
/// request it refused, and closes it. Here a SEND waits for a read while its receiver is created.
#[test]
fn who_is_refused_after_a_read_is_not_waited_for() {
    let mut world = World::new();
    let other = SessionId(50);
    world.tell(Input::Opened(other, HERE.into()));
    world.tell(Input::Request(other, Request::Line(b"CREATE carl correct-horse")));
    world.tick();
    world.tell(Input::Request(ANN, Request::Line(b"SEND carl hi")));
    world.hash_all();
    world.stored = Index(world.log.0.len() as u64);
    world.tell(Input::Stop);
    world.report();
    world.tick();
    assert!(world.said(other).starts_with("OK carl"));
    let said = world.said(ANN);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("ERR not-primary "), "{said}");
    assert!(lines.len() == 2 && lines[1].starts_with("NOTE stopping "), "{said}");
    assert!(world.node.is_finished(ANN));
}

/// The outcome is also unknown when another session of the account closes this one.
#[test]
fn a_logged_change_of_a_deleted_account_has_an_unknown_outcome() {
    for line in ["PASSWD correct-horse other-horse", "DELETE ann correct-horse"] {
        let mut world = World::new();
        let phone = SessionId(7);
        world.tell(Input::Opened(phone, HERE.into()));
        world.line(phone, "LOGIN ann correct-horse");
        world.said(phone);
        for (session, line) in [(ANN, "DELETE ann correct-horse"), (phone, line)] {
            world.tell(Input::Request(session, Request::Line(line.as_bytes())));
            for _ in 0..4 {
                world.tick();
                world.hash_all();
            }
        }
        world.turn();
        let said = world.said(phone);
        assert!(said.starts_with("ERR unknown-outcome "), "{line}: {said}");
    }
}

/// A read shows everything that was acknowledged before the request, also while a new primary
/// still applies the entries of its log.
#[test]
fn a_read_waits_for_a_backlog() {
    let mut before = World::new();
    before.line(ANN, "SEND bob the first");
    let messages = APPLIED_PER_TURN as u64 * 2;
    for _ in 1..messages {
        let last = Record::trust(before.log.0.last().unwrap());
        let at = Position { index: last.index.next(), term: last.term };
        let (kind, body) = (last.kind, last.body.to_vec());
        let mut record = Vec::new();
        record::write(&mut record, at, WallTime(0), kind, |out| out.extend_from_slice(&body));
        before.log.0.push(record);
    }
    let mut world = before.restarted();
    let visitor = SessionId(60);
    let mut asked = false;
    for _ in 0..60 {
        world.tell(Input::Replica(Event::Tick));
        if std::mem::take(&mut world.flush) {
            world.stored = Index(world.log.0.len() as u64);
        }
        world.report();
        world.hash_all();
        let acknowledged = world.node.replica.acknowledged();
        if !asked && world.node.applied < acknowledged && world.node.applied > Index(100) {
            asked = true;
            world.tell(Input::Opened(visitor, HERE.into()));
            world.tell(Input::Request(visitor, Request::Line(b"LOGIN bob correct-horse end")));
        }
        world.now += Duration::from_millis(1);
    }
    assert!(asked, "it was asked while entries waited to be applied");
    assert_eq!(world.said(visitor), format!("OK bob {messages}\n"));
}

/// A LOGIN under way fails once its password or its account changes: it never shows the mail of a
/// new owner of the name.
#[test]
fn a_login_under_way_ends_when_its_account_changes() {
    let changes: [&[&str]; 2] = [
        &["PASSWD correct-horse other-horse"],
        &["DELETE bob correct-horse", "CREATE bob other-horse"],
    ];
    for lines in changes {
        let mut world = World::new();
        let text = "x".repeat(3000);
        for _ in 0..100 {
            world.line(ANN, &format!("SEND bob {text}"));
            world.said(ANN);
            world.said(BOB);
        }
        let slow = SessionId(70);
        world.tell(Input::Opened(slow, HERE.into()));
        world.line(slow, "LOGIN bob correct-horse");
        let changer = SessionId(71);
        for line in lines {
            if line.starts_with("CREATE") {
                world.tell(Input::Opened(changer, HERE.into()));
                world.line(changer, line);
            } else {
                world.line(BOB, line);
            }
        }
        for n in 0..101 {
            world.line(ANN, &format!("SEND bob for the new owner {n}"));
            world.said(ANN);
        }
        let mut shown = String::new();
        for _ in 0..50 {
            shown += &world.said(slow);
            world.turn();
        }
        assert!(!shown.contains("new owner"), "{lines:?}");
        let last = shown.lines().last().unwrap();
        assert!(last.starts_with("ERR wrong-password "), "{lines:?}: {last}");
    }
}
