//! The checker finds each kind of damage to a correct history.

use super::*;

/// Damages a history. Returns whether the history has something to damage.
type Mutation = fn(&mut Rng, &mut [Op], &mut Last) -> bool;

/// Returns a random one of the requests that fit.
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

fn messages_of(op: &mut Op) -> &mut Vec<(u64, String, String)> {
    match &mut op.outcome {
        Outcome::Read(messages) => messages,
        _ => panic!("not a read"),
    }
}

fn read_some(op: &Op) -> bool {
    matches!(&op.outcome, Outcome::Read(messages) if !messages.is_empty())
}

/// Appends a copy of a message that fits.
fn append(rng: &mut Rng, ops: &[Op], last: &mut Last, fits: impl Fn(&Op) -> bool) -> bool {
    let Some(at) = pick(rng, ops, |op| op.message().is_some() && fits(op)) else { return false };
    let (to, message) = pair(&ops[at]);
    last.get_mut(&to).unwrap().push(message);
    true
}

/// Changes a final mailbox at the index of an acknowledged message that is not below `first`.
fn change(
    rng: &mut Rng,
    ops: &[Op],
    last: &mut Last,
    first: usize,
    change: impl FnOnce(&mut Vec<(String, String)>, usize),
) -> bool {
    let fits = |op: &Op| stored(op).is_some_and(|(_, n)| n as usize > first);
    let Some((to, n)) = pick(rng, ops, fits).and_then(|at| stored(&ops[at])) else { return false };
    change(last.get_mut(&to).unwrap(), n as usize - 1);
    true
}

fn lose_an_acknowledged_message(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    change(rng, ops, last, 0, |mailbox, at| drop(mailbox.remove(at)))
}

fn lose_a_suffix(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    change(rng, ops, last, 0, Vec::truncate)
}

fn swap_neighbours(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    change(rng, ops, last, 1, |mailbox, at| mailbox.swap(at - 1, at))
}

fn duplicate_an_acknowledged_message(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    append(rng, ops, last, |op| stored(op).is_some())
}

fn duplicate_an_unknown_message(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let before = last.clone();
    append(rng, ops, last, |op| {
        let (to, message) = pair(op);
        op.outcome == Outcome::Unknown && before[&to].contains(&message)
    })
}

fn store_a_refused_message(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let all = ops.to_vec();
    append(rng, ops, last, |op| {
        // Not one that a later attempt stored.
        all.iter().filter(|other| other.request == op.request).all(Op::is_refused)
    })
}

fn invent_a_message(rng: &mut Rng, _: &mut [Op], last: &mut Last) -> bool {
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

/// The history of a server that forgot a key and stored the message again.
fn store_a_retry_again(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let all = ops.to_vec();
    let answered_twice = |op: &Op| {
        let same = all.iter().filter(|one| one.request == op.request && stored(one).is_some());
        op.has_key() && stored(op).is_some() && same.count() > 1
    };
    let Some(at) = pick(rng, ops, answered_twice) else { return false };
    let (to, message) = pair(&ops[at]);
    let mailbox = last.get_mut(&to).unwrap();
    mailbox.push(message);
    ops[at].outcome = Outcome::Stored(mailbox.len() as u64);
    true
}

fn skip_a_message_in_a_read(rng: &mut Rng, ops: &mut [Op], _: &mut Last) -> bool {
    let long = |op: &Op| matches!(&op.outcome, Outcome::Read(messages) if messages.len() > 1);
    let Some(at) = pick(rng, ops, long) else { return false };
    let messages = messages_of(&mut ops[at]);
    messages.remove(rng.below(messages.len() as u64 - 1) as usize);
    true
}

fn swap_two_in_a_read(rng: &mut Rng, ops: &mut [Op], _: &mut Last) -> bool {
    let long = |op: &Op| matches!(&op.outcome, Outcome::Read(messages) if messages.len() > 1);
    let Some(at) = pick(rng, ops, long) else { return false };
    let messages = messages_of(&mut ops[at]);
    let (first, second) = (messages[0].clone(), messages[1].clone());
    messages[0] = (first.0, second.1, second.2);
    messages[1] = (second.0, first.1, first.2);
    true
}

fn read_another_text(rng: &mut Rng, ops: &mut [Op], _: &mut Last) -> bool {
    let Some(at) = pick(rng, ops, read_some) else { return false };
    "invented".clone_into(&mut messages_of(&mut ops[at])[0].2);
    true
}

fn truncate_a_read(rng: &mut Rng, ops: &mut [Op], _: &mut Last) -> bool {
    let all = ops.to_vec();
    let known = |op: &Op| {
        let Request::Read { mailbox, after } = &op.request else { return None };
        let earlier = all.iter().filter(|one| one.answered_at < op.asked_at).filter_map(stored);
        let highest = earlier.filter(|(to, _)| to == mailbox).map(|(_, n)| n).max()?;
        (read_some(op) && highest > *after).then(|| (highest - after - 1) as usize)
    };
    let Some(at) = pick(rng, ops, |op| known(op).is_some()) else { return false };
    let keep = known(&ops[at]).unwrap();
    messages_of(&mut ops[at]).truncate(keep);
    true
}

/// Swaps two messages everywhere, so that only the times reveal it.
fn swap_two_everywhere(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
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

fn read_an_unsent_message(rng: &mut Rng, ops: &mut [Op], last: &mut Last) -> bool {
    let all = ops.to_vec();
    let next = |op: &Op| {
        let Request::Read { mailbox, .. } = &op.request else { return None };
        let number = op.proven_length()? + 1;
        let message = last[mailbox].get(number as usize - 1)?.clone();
        let sent = (mailbox.clone(), message.clone());
        let mut senders = all.iter().filter(|one| one.message().is_some() && pair(one) == sent);
        senders.all(|one| one.asked_at > op.answered_at).then_some((number, message))
    };
    let Some(at) = pick(rng, ops, |op| next(op).is_some()) else { return false };
    let (number, (from, text)) = next(&ops[at]).unwrap();
    messages_of(&mut ops[at]).push((number, from, text));
    true
}

#[test]
fn every_kind_of_damage_is_found() {
    let mutations: [(&str, Mutation); 16] = [
        ("lose an acknowledged message", lose_an_acknowledged_message),
        ("lose a suffix", lose_a_suffix),
        ("swap neighbours", swap_neighbours),
        ("duplicate an acknowledged message", duplicate_an_acknowledged_message),
        ("duplicate an unknown message", duplicate_an_unknown_message),
        ("store a refused message", store_a_refused_message),
        ("invent a message", invent_a_message),
        ("change a sender", change_a_sender),
        ("answer a wrong number", answer_a_wrong_number),
        ("store a retry again", store_a_retry_again),
        ("skip a message in a read", skip_a_message_in_a_read),
        ("swap two in a read", swap_two_in_a_read),
        ("read another text", read_another_text),
        ("truncate a read", truncate_a_read),
        ("swap two everywhere", swap_two_everywhere),
        ("read an unsent message", read_an_unsent_message),
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
        assert!(broken >= 100, "{name}: only {broken} histories could be damaged");
    }
}
