//! The checker of the load accepts what a correct group can do, and finds every planted violation.
//! The checker of histories agrees.

use super::*;
use postern::rng::Rng;
use postern_testkit::checker::{History, Outcome, Request};
use std::collections::BTreeMap;

/// One input of the checker.
#[derive(Clone, Debug)]
enum Step {
    /// Sender, serial, number.
    Acked(u32, u64, u64),
    /// Sender, serial.
    Unknown(u32, u64),
    /// A reader of the first mailbox, which has read all numbers before this one.
    Read(u64, String),
}
use Step::{Acked, Read, Unknown};

const SIZES: Sizes = Sizes::fixed(20);

fn text(sender: u32, serial: u64) -> String {
    let mut text = Vec::new();
    Message { sender, serial }.write(SIZES, &mut text);
    String::from_utf8(text).unwrap()
}

fn delivered(number: u64, sender: u32, serial: u64) -> Step {
    Read(number, text(sender, serial))
}

/// Checks steps of some senders and one mailbox.
fn judge(senders: usize, steps: &[Step]) -> Result<(), String> {
    let mut checker = Checker::default();
    checker.add(Routes { senders, mailboxes: 1 }, SIZES);
    let mut end = 0;
    for step in steps {
        match step {
            Acked(sender, serial, number) => {
                checker.acked(Message { sender: *sender, serial: *serial }, *number, 0)?;
            }
            Unknown(sender, serial) => {
                checker.unknown(Message { sender: *sender, serial: *serial });
            }
            Read(number, text) => {
                checker.read(0, number - 1, *number, text.as_bytes())?;
                end = *number;
            }
        }
    }
    checker.finish(0, end)
}

#[test]
fn what_a_correct_group_does_is_right() {
    let table: [(usize, &[Step]); 5] = [
        (1, &[]),
        (1, &[Acked(0, 0, 1), Acked(0, 1, 2), delivered(1, 0, 0), delivered(2, 0, 1)]),
        // It is delivered before it is acknowledged, and to two readers.
        (
            2,
            &[
                delivered(1, 1, 0),
                delivered(1, 1, 0),
                Acked(1, 0, 1),
                Acked(0, 0, 2),
                delivered(2, 0, 0),
            ],
        ),
        // One message of unknown outcome is stored, and one is not.
        (
            1,
            &[
                Acked(0, 0, 1),
                Unknown(0, 1),
                Unknown(0, 2),
                Acked(0, 3, 3),
                delivered(1, 0, 0),
                delivered(2, 0, 2),
                delivered(3, 0, 3),
            ],
        ),
        // A rejected message is not stored, and its serial is skipped.
        (1, &[Acked(0, 0, 1), Acked(0, 2, 2), delivered(1, 0, 0), delivered(2, 0, 2)]),
    ];
    for (senders, steps) in table {
        assert_eq!(judge(senders, steps), Ok(()), "{steps:?}");
    }
}

#[test]
fn each_planted_mistake_is_found() {
    let table: [(usize, &[Step], &str); 14] = [
        (2, &[Acked(0, 0, 1), Acked(1, 0, 1)], "1 belongs to"),
        (2, &[Acked(0, 0, 2), Acked(0, 1, 1)], "after 2 was assigned"),
        (2, &[Acked(0, 0, 1), Acked(0, 0, 1)], "after 1 was assigned"),
        (1, &[Acked(0, 0, 2)], "only sender"),
        (1, &[Acked(0, 0, 1), Unknown(0, 1), Acked(0, 2, 4)], "only sender"),
        (1, &[Acked(0, 0, 0)], "the number 0"),
        (2, &[Acked(0, 0, u64::MAX)], "is not valid"),
        (1, &[Acked(0, 0, 1)], "ends at 0, but 1 was known"),
        (2, &[Acked(0, 0, 1), delivered(1, 1, 0)], "1 belongs to"),
        (1, &[Acked(0, 0, 1), Read(1, "0.0 something else...".to_owned())], "was changed"),
        (1, &[Acked(0, 0, 1), Read(1, "hello".to_owned())], "is `hello`"),
        (1, &[Acked(0, 0, 1), delivered(1, 7, 0)], "was not sent there"),
        (1, &[delivered(1, 0, 0)], "was never sent"),
        // A message of unknown outcome is stored twice.
        (1, &[Unknown(0, 0), delivered(1, 0, 0), delivered(2, 0, 0)], "has another number"),
    ];
    for (senders, steps, words) in table {
        let found = judge(senders, steps).expect_err("a mistake");
        assert!(found.contains(words), "{steps:?}: {found}");
    }
}

#[test]
fn readers_see_every_number_in_its_order() {
    let mut checker = Checker::default();
    checker.add(Routes { senders: 1, mailboxes: 2 }, SIZES);
    assert_eq!(checker.read(1, 0, 1, text(0, 1).as_bytes()), Ok(()));
    for (mailbox, after, number, serial) in [(1, 1, 3, 5), (1, 1, 1, 1), (0, 0, 1, 1)] {
        let read = checker.read(mailbox, after, number, text(0, serial).as_bytes());
        assert!(read.is_err(), "{mailbox} {after} {number} {serial}");
    }
}

#[test]
fn a_later_request_gets_a_higher_number() {
    let mut checker = Checker::default();
    checker.add(Routes { senders: 2, mailboxes: 1 }, SIZES);
    let of = |sender| Message { sender, serial: 0 };
    assert_eq!((checker.floor(0), checker.acked(of(0), 2, 0)), (0, Ok(())));
    let floor = checker.floor(0);
    let found = checker.acked(of(1), 1, floor).expect_err("2 was acknowledged");
    assert!(found.contains("2 was known before"), "{found}");
    assert_eq!(checker.acked(of(1), 1, 0), Ok(()), "both were sent at once");
}

#[test]
fn every_mailbox_has_its_senders() {
    for (senders, mailboxes) in [(1, 1), (3, 1), (5, 2), (4, 4), (2, 5), (3, 7), (1, 9)] {
        let routes = Routes { senders, mailboxes };
        let mut writers = vec![std::collections::BTreeSet::new(); mailboxes];
        for sender in 0..senders {
            for serial in 0..20 {
                writers[routes.mailbox(sender, serial)].insert(sender);
            }
        }
        for sender in 0..senders {
            let shares = |writers: &std::collections::BTreeSet<usize>| {
                writers.contains(&sender) && writers.len() > 1
            };
            assert_eq!(routes.is_sole(sender), !writers.iter().any(shares), "{routes:?} {sender}");
        }
        assert!(writers.iter().all(|writers| !writers.is_empty()), "{routes:?}");
    }
}

const SENDERS: u32 = 3;
const MISTAKES: u64 = 6;

/// Generates the contents of a mailbox of three senders, and their answers: each message is stored
/// or not, and acknowledged or of unknown outcome.
fn right_history(rng: &mut Rng) -> (Vec<Step>, Vec<(u32, u64)>) {
    let (mut answers, mut stored) = (Vec::new(), Vec::new());
    let mut serials = [0; SENDERS as usize];
    for _ in 0..40 {
        let sender = rng.below(u64::from(SENDERS)) as u32;
        let serial = serials[sender as usize];
        serials[sender as usize] += 1;
        match rng.below(6) {
            0 => answers.push(Unknown(sender, serial)),
            1 => {
                stored.push((sender, serial));
                answers.push(Unknown(sender, serial));
            }
            _ => {
                stored.push((sender, serial));
                answers.push(Acked(sender, serial, stored.len() as u64));
            }
        }
    }
    (answers, stored)
}

/// Plants a violation.
fn spoil(mistake: u64, answers: &mut [Step], stored: &mut Vec<(u32, u64)>, rng: &mut Rng) {
    let acked: Vec<(usize, u64)> = answers
        .iter()
        .enumerate()
        .filter_map(|(at, step)| match step {
            Acked(_, _, number) => Some((at, *number)),
            _ => None,
        })
        .collect();
    let (at, number) = acked[rng.below(acked.len() as u64) as usize];
    let place = number as usize - 1;
    let Acked(sender, serial, answer) = &mut answers[at] else { unreachable!("it is one") };
    match mistake {
        0 => *answer += 1,
        1 => drop(stored.remove(place)),
        2 => stored.insert(place, (*sender, *serial)),
        3 => stored[place] = (*sender, *serial + 1000),
        4 => stored.push((*sender, *serial)),
        _ => *answer = stored.len() as u64 + 1,
    }
}

/// Checks the same with the checker of histories.
fn judge_history(answers: &[Step], stored: &[(u32, u64)]) -> bool {
    let mut history = History::new();
    for (step, at) in answers.iter().zip(0..) {
        let (sender, serial, outcome) = match step {
            Acked(sender, serial, number) => (*sender, *serial, Outcome::Stored(*number)),
            Unknown(sender, serial) => (*sender, *serial, Outcome::Unknown),
            Read(..) => continue,
        };
        let (to, from) = ("box".to_owned(), sender.to_string());
        let request = Request::Send { to, from, text: text(sender, serial), key: None };
        let op = history.asked(sender, at, request);
        if outcome != Outcome::Unknown {
            history.answered(op, at, outcome);
        }
    }
    let contents =
        stored.iter().map(|(sender, serial)| (sender.to_string(), text(*sender, *serial)));
    history.check(&BTreeMap::from([("box".to_owned(), contents.collect())])).is_ok()
}

#[test]
fn both_checkers_agree_on_right_and_wrong_histories() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let (mut answers, mut stored) = right_history(&mut rng);
        for mistake in [None, Some(seed % MISTAKES)] {
            if let Some(mistake) = mistake {
                spoil(mistake, &mut answers, &mut stored, &mut rng);
            }
            let reading = stored.iter().zip(1..);
            let reading =
                reading.map(|((sender, serial), number)| delivered(number, *sender, *serial));
            let steps: Vec<Step> = answers.iter().cloned().chain(reading).collect();
            let found = judge(SENDERS as usize, &steps);
            assert_eq!(found.is_ok(), mistake.is_none(), "seed {seed}, {mistake:?}: {found:?}");
            let agrees = judge_history(&answers, &stored) == mistake.is_none();
            assert!(agrees, "seed {seed}, {mistake:?}: the checker of histories");
        }
    }
}
