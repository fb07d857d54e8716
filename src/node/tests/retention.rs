//! Mailboxes keep what the settings say: they forget old messages, whose numbers stay, and take no
//! more than their limits allow.

use super::*;
use crate::mailbox::Limits;

const HOUR_MS: u64 = 3600 * 1000;

fn bounded(retention: Retention) -> World {
    let mut world = World::new();
    world.node.setup.retention = retention;
    world.turn();
    world
}

fn limited(messages: u64, bytes: u64) -> World {
    let limits = Limits { messages, bytes };
    bounded(Retention { limits, ..Retention::default() })
}

/// Numbers and texts of the `MSG` and `SENT` lines, and the other lines.
fn brief(said: &str) -> Vec<String> {
    let each = said.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "MSG" => format!("{} {}", words[1], words[4]),
            "SENT" => format!("{} {} {}", words[1], words[2], words[5]),
            "NOTE" | "ERR" => words[..words.len().min(3)].join(" "),
            _ => line.to_owned(),
        }
    });
    each.collect()
}

/// Waits until nothing is left to forget.
fn settle(world: &mut World) {
    (0..50).for_each(|_| world.turn());
}

#[test]
fn a_mailbox_forgets_all_but_its_newest_messages() {
    let mut world = bounded(Retention { keep_messages: Some(3), ..Retention::default() });
    for n in 1..=8 {
        world.line(ANN, &format!("SEND bob m{n}"));
    }
    settle(&mut world);
    assert_eq!(world.node.mailboxes.messages(), 3);
    let pushed = brief(&world.said(BOB));
    assert_eq!(pushed.len(), 8, "what is pushed at once is seen: {pushed:?}");
    for (request, answer) in [
        ("LOG", &["NOTE kept-from 6", "6 m6", "7 m7", "8 m8", "OK 8"][..]),
        ("LOG 4 2", &["NOTE kept-from 6", "6 m6", "OK 6"]),
        ("LOG 2 2", &["NOTE kept-from 6", "OK 4"]),
        ("LOG 5", &["6 m6", "7 m7", "8 m8", "OK 8"]),
        ("LOG -1", &["8 m8", "OK 8"]),
        ("LOG end", &["OK 8"]),
    ] {
        world.line(BOB, request);
        assert_eq!(brief(&world.said(BOB)), answer, "{request}");
    }
    let said = world.visit(HERE, &["LOGIN bob correct-horse 0"]);
    assert_eq!(brief(&said), ["NOTE kept-from 6", "6 m6", "7 m7", "8 m8", "OK bob 8"]);
    world.line(ANN, "SEND bob m9");
    world.said(ANN);
    world.line(ANN, "SENT 4");
    let said = brief(&world.said(ANN));
    assert_eq!(said, ["GONE 5 6", "7 7 m7", "8 8 m8", "9 9 m9", "OK 9"], "numbers stay");
}

/// A mailbox that is as full as it may be forgets, also if that is less than a tenth too much.
#[test]
fn a_full_mailbox_forgets_what_is_too_much() {
    for most in [101, 105, 110, 111, 200] {
        let limits = Limits { messages: most, bytes: u64::MAX };
        let keep_messages = Some(100);
        let mut world = bounded(Retention { keep_messages, limits, ..Retention::default() });
        for n in 1..=500 {
            world.line(ANN, &format!("SEND bob m{n}"));
            settle(&mut world);
            assert_eq!(world.said(ANN), format!("OK {n}\n"), "{most}");
        }
    }
}

/// A tenth more is kept for a while, so that not every message needs an entry that forgets one.
#[test]
fn one_entry_forgets_many_messages() {
    let mut world = bounded(Retention { keep_messages: Some(20), ..Retention::default() });
    let before = world.log.0.len();
    for n in 1..=100 {
        world.line(ANN, &format!("SEND bob m{n}"));
        world.said(ANN);
        let kept = world.node.mailboxes.messages();
        assert!((n.min(20)..=23).contains(&kept), "{kept} of {n}");
    }
    let others = world.log.0.len() - before - 100;
    assert!((20..=28).contains(&others), "{others}");
}

#[test]
fn a_mailbox_forgets_messages_of_a_certain_age() {
    let mut world = World::new();
    let keep_time = Some(Duration::from_millis(24 * HOUR_MS));
    world.node.setup.retention = Retention { keep_time, ..Retention::default() };
    // Records are stamped by the monotonic clock.
    let hour = Duration::from_millis(HOUR_MS);
    world.wall = WallTime(1_000_000 * HOUR_MS);
    for n in 1..=48 {
        world.line(ANN, &format!("SEND bob m{n}"));
        world.line(ANN, &format!("SEND ann n{n}"));
        world.said(ANN);
        (world.now, world.wall) = (world.now + hour, WallTime(world.wall.0 + HOUR_MS));
        settle(&mut world);
        for user in ["ann", "bob"].map(|name| UserName::parse(name).unwrap()) {
            let kept = world.node.mailboxes.account(user).unwrap().kept();
            assert!((n.min(24)..=n.min(26)).contains(&kept), "{kept} of {n}");
        }
    }
    // Without a new message, too.
    (world.now, world.wall) = (world.now + hour * 30, WallTime(world.wall.0 + 30 * HOUR_MS));
    settle(&mut world);
    assert_eq!(world.node.mailboxes.messages(), 0);
    world.said(BOB);
    world.line(BOB, "LOG");
    assert_eq!(brief(&world.said(BOB)), ["NOTE kept-from 49", "OK 48"]);
    let entries = world.log.0.len();
    (world.now, world.wall) = (world.now + hour * 30, WallTime(world.wall.0 + 30 * HOUR_MS));
    settle(&mut world);
    assert_eq!(world.log.0.len(), entries, "there is nothing to say");
}

/// A session that lags behind is told what it will not get.
#[test]
fn a_slow_reader_is_told_what_it_has_missed() {
    let mut world = bounded(Retention { keep_messages: Some(5), ..Retention::default() });
    let text = "x".repeat(3000);
    for _ in 0..60 {
        world.line(ANN, &format!("SEND bob {text}"));
        world.said(ANN);
    }
    settle(&mut world);
    let (mut numbers, mut note) = (Vec::new(), None);
    while numbers.last() != Some(&60) {
        for line in brief(&world.said(BOB)) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["NOTE", "kept-from", n] => note = n.parse::<u64>().ok(),
                [number, _] => numbers.push(number.parse::<u64>().unwrap()),
                _ => panic!("{line}"),
            }
        }
        world.turn();
    }
    let first = numbers.iter().position(|n| Some(*n) == note).expect("the note names one");
    assert!(numbers[..first].iter().copied().eq(1..=first as u64), "{numbers:?}");
    assert!(numbers[first..].iter().copied().eq(note.unwrap()..=60), "{numbers:?}");
    assert!(first < 55, "{numbers:?}");
}

#[test]
fn a_full_mailbox_refuses_messages() {
    let mut world = limited(2, u64::MAX);
    let entries = |world: &World| world.log.0.len();
    for line in ["ONCE k1 bob a", "SEND bob b", "SEND ann own"] {
        world.line(ANN, line);
    }
    assert_eq!(brief(&world.said(ANN))[..2], ["OK 1", "OK 2"]);
    let before = entries(&world);
    for line in ["SEND bob c", "ONCE k2 bob c", "ONCE k1 bob a", "ONCE k1 bob x", "SEND nobody c"] {
        world.line(ANN, line);
    }
    let full = "ERR mailbox-full the";
    let said = brief(&world.said(ANN));
    let known = ["OK 1", "ERR key-reused this", "ERR no-such-user there"];
    assert_eq!(
        (&said[..2], &said[2..]),
        (&[full, full].map(String::from)[..], &known.map(String::from)[..])
    );
    assert_eq!(entries(&world), before, "a refusal needs no entry");
    world.line(BOB, "LOG");
    world.node.setup.retention.limits.messages = 3;
    world.turn();
    world.line(ANN, "SEND bob c");
    world.line(ANN, "SEND bob d");
    assert_eq!(brief(&world.said(ANN)), ["OK 3", full]);
}

/// The state at the place of the message in the log decides. So a message whose outcome is not
/// known yet is not refused when it is repeated.
#[test]
fn a_limit_holds_for_messages_that_are_under_way() {
    let mut world = limited(1, u64::MAX);
    for line in ["ONCE k1 bob a", "ONCE k1 bob a", "SEND bob b", "ONCE k2 bob c"] {
        world.tell(Input::Request(ANN, Request::Line(line.as_bytes())));
    }
    world.turn();
    let full = "ERR mailbox-full the";
    assert_eq!(brief(&world.said(ANN)), ["OK 1", "OK 1", full, full]);
}

/// A mailbox that looks full may have room for a message that is under way: its repetition must
/// not be refused.
#[test]
fn a_message_with_a_key_is_refused_only_when_nothing_is_under_way() {
    let mut world = limited(1, u64::MAX);
    world.line(ANN, "SEND bob a");
    assert_eq!(world.said(ANN), "OK 1\n");
    world.node.setup.retention.limits.messages = 2;
    // The entry that raises the limit is not stored yet.
    world.tick();
    for line in ["ONCE k1 bob b", "SEND bob b"] {
        world.tell(Input::Request(ANN, Request::Line(line.as_bytes())));
        (0..3).for_each(|_| world.tick());
    }
    world.stored = Index(world.log.0.len() as u64);
    world.turn();
    assert_eq!(brief(&world.said(ANN)), ["OK 2", "ERR mailbox-full the"]);
}

#[test]
fn bytes_count_as_texts_and_attributes() {
    let mut world = limited(u64::MAX, 10);
    for (line, answer) in [
        ("SEND bob 12345", "OK 1"),
        ("SEND bob 123456", "ERR mailbox-full the"),
        ("WITH title abc", "OK"),
        ("SEND bob 1", "ERR mailbox-full the"),
        ("SEND bob ␤2345", "OK 2"),
        ("SEND bob x", "ERR mailbox-full the"),
    ] {
        world.line(ANN, line);
        assert_eq!(brief(&world.said(ANN)), [answer], "{line}");
    }
}
