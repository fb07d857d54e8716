//! Each way to break a history is found.

use super::*;

/// A way to break a history: whether there was something to break.
type Mutation = fn(&mut Rng, &mut [Op], &mut Last) -> bool;

/// A random one of those that fit.
fn pick(rng: &mut Rng, ops: &[Op], fits: impl Fn(&Op) -> bool) -> Option<usize> {
    let fitting: Vec<usize> = (0..ops.len()).filter(|at| fits(&ops[*at])).collect();
    let at = rng.below(fitting.len().max(1) as u64) as usize;
    fitting.get(at).copied()
}

fn stored(op: &Op) -> Option<(String, u64)> {
    match (&op.request, &op.outcome) {
        (Request::Send { to, .. }, Outcome::Stored(n)) => Some((to.clone(), *n)),
        _ => None,
    }
}

fn pair(op: &Op) -> (String, (String, String)) {
    let (to, from, text) = op.message().expect("it sends");
    (to.to_owned(), (from.to_owned(), text.to_owned()))
}

fn shown(op: &mut Op) -> &mut Vec<(u64, String, String)> {
    match &mut op.outcome {
        Outcome::Read(messages) => messages,
        _ => panic!("no reading"),
    }
}

fn shows_some(op: &Op) -> bool {
    matches!(&op.outcome, Outcome::Read(messages) if !messages.is_empty())
}

/// Puts a text that fits at the end once more.
fn append(rng: &mut Rng, ops: &[Op], last: &mut Last, fits: impl Fn(&Op) -> bool) -> bool {
    let Some(at) = pick(rng, ops, |op| op.message().is_some() && fits(op)) else { return false };
    let (to, message) = pair(&ops[at]);
    last.get_mut(&to).unwrap().push(message);
    true
}

fn lose_an_answered_one(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let Some((to, n)) = pick(rng, ops, |op| stored(op).is_some()).and_then(|at| stored(&ops[at]))
    else {
        return false;
    };
    last.get_mut(&to).unwrap().remove(n as usize - 1);
    true
}

fn lose_all_after_an_answered_one(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let Some((to, n)) = pick(rng, ops, |op| stored(op).is_some()).and_then(|at| stored(&ops[at]))
    else {
        return false;
    };
    last.get_mut(&to).unwrap().truncate(n as usize - 1);
    true
}

fn swap_an_answered_one(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let second = |op: &Op| stored(op).is_some_and(|(_, n)| n > 1);
    let Some((to, n)) = pick(rng, ops, second).and_then(|at| stored(&ops[at])) else {
        return false;
    };
    last.get_mut(&to).unwrap().swap(n as usize - 2, n as usize - 1);
    true
}

fn double_an_answered_one(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    append(rng, ops, last, |op| stored(op).is_some())
}

fn double_an_unknown_one(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let before = last.clone();
    append(rng, ops, last, |op| {
        let (to, message) = pair(op);
        op.outcome == Outcome::Unknown && before[&to].contains(&message)
    })
}

fn store_a_refused_one(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let all = ops.to_vec();
    append(rng, ops, last, |op| {
        // Not one that was tried again.
        all.iter().filter(|other| other.request == op.request).all(Op::is_refused)
    })
}

fn invent_one(rng: &mut Rng, _: &mut [Op], last: &mut Last) -> bool {
    let mailbox = last.get_mut(MAILBOXES[rng.below(2) as usize]).unwrap();
    let at = rng.below(mailbox.len() as u64 + 1) as usize;
    mailbox.insert(at, ("ann".to_owned(), "invented".to_owned()));
    true
}

fn change_a_sender(rng: &mut Rng, _: &mut [Op], last: &mut Last) -> bool {
    let mailbox = last.get_mut(MAILBOXES[rng.below(2) as usize]).unwrap();
    let at = rng.below(mailbox.len().max(1) as u64) as usize;
    mailbox.get_mut(at).map(|message| message.0 = "eve".to_owned()).is_some()
}

fn answer_a_wrong_number(rng: &mut Rng, ops: &mut [Op], _: &mut Last) -> bool {
    let Some(at) = pick(rng, ops, |op| stored(op).is_some()) else { return false };
    let (_, n) = stored(&ops[at]).unwrap();
    ops[at].outcome = Outcome::Stored(if rng.below(2) == 0 { n - 1 } else { n + 1 });
    true
}

/// As if the key had been forgotten: it is stored again, at the end, and all else is in order.
fn tell_a_retry_another_number(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let all = ops.to_vec();
    let told_twice = |op: &Op| {
        let told = all.iter().filter(|one| one.request == op.request && stored(one).is_some());
        op.has_key() && stored(op).is_some() && told.count() > 1
    };
    let Some(at) = pick(rng, ops, told_twice) else { return false };
    let (to, message) = pair(&ops[at]);
    let mailbox = last.get_mut(&to).unwrap();
    mailbox.push(message);
    ops[at].outcome = Outcome::Stored(mailbox.len() as u64);
    true
}

fn leave_one_out_of_a_reading(rng: &mut Rng, ops: &mut [Op], _: &mut Last) -> bool {
    let long = |op: &Op| matches!(&op.outcome, Outcome::Read(messages) if messages.len() > 1);
    let Some(at) = pick(rng, ops, long) else { return false };
    let messages = shown(&mut ops[at]);
    messages.remove(rng.below(messages.len() as u64 - 1) as usize);
    true
}

fn swap_two_in_a_reading(rng: &mut Rng, ops: &mut [Op], _: &mut Last) -> bool {
    let long = |op: &Op| matches!(&op.outcome, Outcome::Read(messages) if messages.len() > 1);
    let Some(at) = pick(rng, ops, long) else { return false };
    let messages = shown(&mut ops[at]);
    let (first, second) = (messages[0].clone(), messages[1].clone());
    messages[0] = (first.0, second.1, second.2);
    messages[1] = (second.0, first.1, first.2);
    true
}

fn show_another_text(rng: &mut Rng, ops: &mut [Op], _: &mut Last) -> bool {
    let Some(at) = pick(rng, ops, shows_some) else { return false };
    "invented".clone_into(&mut shown(&mut ops[at])[0].2);
    true
}

fn let_a_reading_go_back(rng: &mut Rng, ops: &mut [Op], _: &mut Last) -> bool {
    let all = ops.to_vec();
    let known = |op: &Op| {
        let Request::Read { mailbox, after } = &op.request else { return None };
        let earlier = all.iter().filter(|one| one.answered_at < op.asked_at).filter_map(stored);
        let greatest = earlier.filter(|(to, _)| to == mailbox).map(|(_, n)| n).max()?;
        (shows_some(op) && greatest > *after).then(|| (greatest - after - 1) as usize)
    };
    let Some(at) = pick(rng, ops, |op| known(op).is_some()) else { return false };
    let keep = known(&ops[at]).unwrap();
    shown(&mut ops[at]).truncate(keep);
    true
}

/// In all places alike: only the times tell.
fn exchange_two_in_all_places(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let all = ops.to_vec();
    let tries = |op: &Op| all.iter().filter(|one| one.message() == op.message()).count();
    let follower = |first: &Op| {
        let (to, n) = stored(first).filter(|_| tries(first) == 1)?;
        let next = Some((to, n + 1));
        let later = all.iter().find(|op| stored(op) == next && tries(op) == 1)?;
        (first.answered_at < later.asked_at).then(|| later.clone())
    };
    let Some(at) = pick(rng, ops, |op| follower(op).is_some()) else { return false };
    let (first, later) = (ops[at].clone(), follower(&ops[at]).unwrap());
    let (to, n) = stored(&first).unwrap();
    for op in ops.iter_mut() {
        if op.message() == first.message() {
            op.outcome = Outcome::Stored(n + 1);
        } else if op.message() == later.message() {
            op.outcome = Outcome::Stored(n);
        }
    }
    let mailbox = last.get_mut(&to).unwrap();
    mailbox.swap(n as usize - 1, n as usize);
    for op in ops.iter_mut() {
        let Request::Read { mailbox: read, .. } = &op.request else { continue };
        if *read != to {
            continue;
        }
        if let Outcome::Read(messages) = &mut op.outcome {
            for (number, from, text) in messages {
                (*from, *text) = mailbox[*number as usize - 1].clone();
            }
        }
    }
    true
}

fn show_what_is_not_sent_yet(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let all = ops.to_vec();
    let next = |op: &Op| {
        let Request::Read { mailbox, .. } = &op.request else { return None };
        let number = op.shows()? + 1;
        let message = last[mailbox].get(number as usize - 1)?.clone();
        let sent = (mailbox.clone(), message.clone());
        let mut senders = all.iter().filter(|one| one.message().is_some() && pair(one) == sent);
        senders.all(|one| one.asked_at > op.answered_at).then_some((number, message))
    };
    let Some(at) = pick(rng, ops, |op| next(op).is_some()) else { return false };
    let (number, (from, text)) = next(&ops[at]).unwrap();
    shown(&mut ops[at]).push((number, from, text));
    true
}

#[test]
fn every_way_to_break_a_history_is_found() {
    let mutations: [(&str, Mutation); 16] = [
        ("lose an answered one", lose_an_answered_one),
        ("lose all after an answered one", lose_all_after_an_answered_one),
        ("swap an answered one", swap_an_answered_one),
        ("double an answered one", double_an_answered_one),
        ("double an unknown one", double_an_unknown_one),
        ("store a refused one", store_a_refused_one),
        ("invent one", invent_one),
        ("change a sender", change_a_sender),
        ("answer a wrong number", answer_a_wrong_number),
        ("tell a retry another number", tell_a_retry_another_number),
        ("leave one out of a reading", leave_one_out_of_a_reading),
        ("swap two in a reading", swap_two_in_a_reading),
        ("show another text", show_another_text),
        ("let a reading go back", let_a_reading_go_back),
        ("exchange two in all places", exchange_two_in_all_places),
        ("show what is not sent yet", show_what_is_not_sent_yet),
    ];
    for (name, mutate) in mutations {
        let mut broken = 0;
        for seed in 0..400 {
            let (mut history, mut last) = Model::run(seed, 300, u64::MAX);
            if mutate(&mut Rng::new(seed), &mut history.ops, &mut last) {
                broken += 1;
                let found = history.check(&last);
                assert!(found.is_err(), "{name}, seed {seed}: not found");
            }
        }
        assert!(broken >= 100, "{name}: only {broken} histories had what it takes");
    }
}
