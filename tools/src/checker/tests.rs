//! Histories that a correct group can have pass, whatever was lost on the way; each way to break
//! one is found.

use super::*;
use postern::rng::Rng;

type Last = BTreeMap<String, Vec<(String, String)>>;

/// Reads a history: a line each, `client asked-answered who: request = outcome`, or
/// `end mailbox: from text, from text`.
fn parse(lines: &str) -> (History, Last) {
    let (mut history, mut last) = (History::new(), Last::new());
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, rest) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        if let Some(mailbox) = head.strip_prefix("end ") {
            let pairs = list(rest).map(|words| (words[0].into(), words[1].into()));
            last.insert(mailbox.to_owned(), pairs.collect());
            continue;
        }
        let head: Vec<&str> = head.split(' ').collect();
        let (asked, answered) = head[1].split_once('-').unwrap();
        let (request, outcome) = rest.split_once(" =").unwrap();
        let client = head[0].parse().unwrap();
        let op = history.asked(client, asked.parse().unwrap(), parse_request(head[2], request));
        let outcome = parse_outcome(request, outcome.trim());
        history.answered(op, answered.parse().unwrap(), outcome);
    }
    (history, last)
}

fn list(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let items = text.split(", ").filter(|item| !item.is_empty());
    items.map(|item| item.split(' ').collect())
}

fn parse_request(who: &str, request: &str) -> Request {
    let send = |to: &str, text: &str, key: Option<&str>| Request::Send {
        to: to.to_owned(),
        from: who.to_owned(),
        text: text.to_owned(),
        key: key.map(str::to_owned),
    };
    match request.split(' ').collect::<Vec<_>>()[..] {
        ["SEND", to, text] => send(to, text, None),
        ["ONCE", key, to, text] => send(to, text, Some(key)),
        ["LOG", after] => Request::Read { mailbox: who.into(), after: after.parse().unwrap() },
        ["DELETE"] => Request::Delete { user: who.to_owned() },
        ["CREATE"] => Request::Create { user: who.to_owned() },
        _ => panic!("{request}"),
    }
}

fn parse_outcome(request: &str, outcome: &str) -> Outcome {
    match outcome {
        "done" => Outcome::Done,
        "refused" => Outcome::Refused("busy".to_owned()),
        "unknown" => Outcome::Unknown,
        shown if request.starts_with("LOG") => {
            let message =
                |words: Vec<&str>| (words[0].parse().unwrap(), words[1].into(), words[2].into());
            Outcome::Read(list(shown).map(message).collect())
        }
        number => Outcome::Stored(number.parse().unwrap()),
    }
}

#[track_caller]
fn passes(lines: &str) {
    let (history, last) = parse(lines);
    history.check(&last).unwrap_or_else(|finding| panic!("{finding}\n{lines}"));
}

#[track_caller]
fn fails(check: Check, words: &str, lines: &str) {
    let (history, last) = parse(lines);
    let finding = history.check(&last).expect_err(lines);
    assert_eq!(finding.check, check, "{finding}\n{lines}");
    assert!(finding.words.contains(words), "{finding}");
}

#[test]
fn dense() {
    passes(
        "1 1-2 ann: SEND bob a = 1
         1 3-4 ann: SEND bob b = 2
         2 1-4 bob: LOG 0 = 1 ann a
         2 5-6 bob: LOG 1 = 2 ann b
         2 7-8 bob: LOG 2 =
         end bob: ann a, ann b",
    );
    let sent = "1 1-2 ann: SEND bob a = 1
                1 3-4 ann: SEND bob b = 2
                end bob: ann a, ann b\n";
    let with = |reading: &str| format!("{sent} 2 5-6 bob: {reading}");
    fails(Check::Dense, "2 was shown in place of 1", &with("LOG 0 = 2 ann b"));
    fails(Check::Dense, "1 was shown in place of 2", &with("LOG 1 = 1 ann a, 2 ann b"));
    fails(Check::Dense, "shown as `ann: b`", &with("LOG 0 = 1 ann b, 2 ann a"));
    fails(Check::Dense, "at the end it is nothing", &with("LOG 2 = 3 ann c"));
    fails(Check::Dense, "beyond the end", &with("LOG 5 ="));
}

#[test]
fn kept() {
    passes(
        "1 1-2 ann: SEND bob a = 1
         2 1-3 cyd: SEND bob a = unknown
         1 3-4 ann: SEND bob b = refused
         3 1-2 ann: SEND bob c = unknown
         1 5-6 ann: SEND bob b = 2
         4 1-9 dan: SEND bob d = unknown
         end bob: ann a, ann b, dan d",
    );
    fails(Check::Kept, "nothing stands at 1", "1 1-2 ann: SEND bob a = 1");
    fails(Check::Kept, "`ann: b` stands at 1", "1 1-2 ann: SEND bob a = 1\n end bob: ann b");
    fails(Check::Kept, "`cyd: a` stands at 1", "1 1-2 ann: SEND bob a = 1\n end bob: cyd a");
    fails(Check::Kept, "nothing stands at 0", "1 1-2 ann: SEND bob a = 0\n end bob: ann a");
    fails(Check::Kept, "refused (busy)", "1 1-2 ann: SEND bob a = refused\n end bob: ann a");
    fails(Check::Kept, "nobody sent it", "end bob: ann a");
    fails(
        Check::Kept,
        "more often than it was sent",
        "1 1-2 ann: SEND bob a = unknown\n end bob: ann a, ann a",
    );
    fails(
        Check::Kept,
        "two have one number",
        "1 1-2 ann: SEND bob a = 1
         2 1-2 ann: SEND bob a = 1
         end bob: ann a",
    );
    // Sent twice, answered once: the other may stand there too, a third may not.
    let twice = "1 1-2 ann: SEND bob a = 1\n 1 3-4 ann: SEND bob a = unknown\n";
    passes(&format!("{twice} end bob: ann a"));
    passes(&format!("{twice} end bob: ann a, ann a"));
    fails(Check::Kept, "more often", &format!("{twice} end bob: ann a, ann a, ann a"));
}

#[test]
fn once_per_key() {
    let tries = "1 1-2 ann: ONCE k bob a = unknown
                 1 3-4 ann: ONCE k bob a = unknown
                 2 1-9 cyd: ONCE k bob a = unknown\n";
    passes(tries);
    passes(&format!("{tries} end bob: ann a, cyd a"));
    passes(&format!("{tries} 1 5-6 ann: ONCE k bob a = 1\n end bob: ann a"));
    passes(&format!("{tries} 1 5-6 ann: ONCE k bob b = refused\n end bob: ann a"));
    passes(&format!("{tries} 1 5-6 ann: ONCE k bob b = 1\n end bob: ann b"));
    // Others came between the first try, which did it, and the one that was told.
    passes(&format!(
        "{tries} 3 3-4 dan: SEND bob c = 2
         1 5-6 ann: ONCE k bob a = 1
         end bob: ann a, dan c"
    ));
    fails(Check::Once, "more often", &format!("{tries} end bob: ann a, ann a"));
    let told = "1 1-2 ann: ONCE k bob a = 1\n end bob: ann a, ann a\n";
    fails(Check::Once, "two effects", &format!("{told} 1 3-4 ann: ONCE k bob a = 2"));
    fails(
        Check::Once,
        "two effects",
        "1 1-2 ann: ONCE k bob a = 1
         1 3-4 ann: ONCE k cyd a = 1
         end bob: ann a
         end cyd: ann a",
    );
}

#[test]
fn real_time() {
    // At the same time, any order will do.
    passes(
        "1 1-9 ann: SEND bob a = 2
         2 2-3 cyd: SEND bob b = 1
         3 1-4 bob: LOG 0 =
         4 1-2 bob: LOG 0 = 1 cyd b, 2 ann a
         5 2-4 bob: LOG 0 = 1 cyd b
         end bob: cyd b, ann a",
    );
    fails(
        Check::RealTime,
        "2 was shown before 1 was asked for",
        "1 1-2 ann: SEND bob a = 2
         2 3-4 cyd: SEND bob b = 1
         end bob: cyd b, ann a",
    );
    fails(
        Check::RealTime,
        "ends before 1",
        "1 1-2 ann: SEND bob a = 1
         3 3-4 bob: LOG 0 =
         end bob: ann a",
    );
    fails(
        Check::RealTime,
        "ends before 2",
        "1 1-9 ann: SEND bob a = 1
         2 1-9 ann: SEND bob b = 2
         3 3-4 bob: LOG 0 = 1 ann a, 2 ann b
         4 5-6 bob: LOG 0 = 1 ann a
         end bob: ann a, ann b",
    );
    // Nobody reads what is not sent yet, known or not.
    for outcome in ["1", "unknown"] {
        fails(
            Check::RealTime,
            "1 was shown before 1 was asked for",
            &format!(
                "3 1-2 bob: LOG 0 = 1 ann a
                 1 3-4 ann: SEND bob a = {outcome}
                 end bob: ann a"
            ),
        );
    }
    // Of two equal ones that nobody was told of, the earlier may be the one that stands there.
    passes(
        "3 5-6 bob: LOG 0 = 1 ann a
         1 8-9 ann: SEND bob a = unknown
         2 1-9 ann: SEND bob a = unknown
         end bob: ann a, ann a",
    );
}

#[test]
fn a_session_goes_on_in_its_order_even_when_it_does_not_wait() {
    let two = "1 1-9 ann: SEND bob a = 2\n 1 1-9 ann: SEND bob b = 1\n end bob: ann b, ann a";
    fails(Check::RealTime, "2 was shown before 1", two);
    passes(&two.replace("1 1-9 ann: SEND bob b", "2 1-9 ann: SEND bob b"));
    fails(
        Check::RealTime,
        "ends before 1",
        "1 1-9 ann: SEND bob a = 1
         2 2-9 bob: LOG 0 = 1 ann a
         2 2-9 bob: LOG 0 =
         end bob: ann a",
    );
}

#[test]
fn a_deleted_mailbox_may_begin_anew_with_what_was_sent() {
    let sent = "1 1-2 ann: SEND bob a = 1
                2 3-4 bob: DELETE = done
                2 5-6 bob: CREATE = done
                1 7-8 ann: SEND bob b = 1
                2 9-9 bob: LOG 0 = 1 ann b\n";
    passes(&format!("{sent} end bob: ann b"));
    passes(sent);
    fails(Check::Kept, "nobody sent it", &format!("{sent} end bob: ann c"));
    fails(Check::Kept, "more often", &format!("{sent} end bob: ann b, ann b"));
    fails(Check::Dense, "in place of", &format!("{sent} 2 11-12 bob: LOG 0 = 2 ann b"));
    // A DELETE that was refused has deleted nothing.
    let refused = sent.replace("DELETE = done", "DELETE = refused");
    fails(Check::Kept, "stands at 1", &format!("{refused} end bob: ann b"));
    // A key dies with its sender, so its tries may have had two effects, or one.
    let tries = "1 1-2 ann: ONCE k bob a = 1
                 1 3-4 ann: ONCE k bob a = 1
                 1 5-6 ann: DELETE = unknown\n";
    passes(&format!("{tries} end bob: ann a"));
    passes(&format!("{tries} 1 7-8 ann: ONCE k bob a = 2\n end bob: ann a, ann a"));
}

/// What a correct group does, with every request in a moment between question and answer.
struct Model {
    rng: Rng,
    at: u64,
    history: History,
    last: Last,
    /// Number of each key, where it was used.
    keys: BTreeMap<String, u64>,
    clients: Vec<Option<(OpId, Stage)>>,
    /// Of which nobody knows, and which may still take effect.
    strays: Vec<OpId>,
    texts: u64,
}

enum Stage {
    Asked,
    Ready(Outcome),
}

const MAILBOXES: [&str; 2] = ["bob", "cyd"];

impl Model {
    /// A run of so many steps; `texts` is how many different ones are sent.
    fn run(seed: u64, steps: usize, texts: u64) -> (History, Last) {
        let mut rng = Rng::new(seed);
        let clients = (0..1 + rng.below(5)).map(|_| None).collect();
        let (keys, last) = (BTreeMap::new(), MAILBOXES.map(|name| (name.to_owned(), vec![])));
        let (history, strays) = (History::new(), Vec::new());
        let last = last.into();
        let mut model = Model { rng, at: 0, history, last, keys, clients, strays, texts };
        (0..steps).for_each(|_| model.step());
        (model.history, model.last)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    fn step(&mut self) {
        self.at += self.rng.below(3);
        if !self.strays.is_empty() && self.one_in(8) {
            let stray = self.rng.below(self.strays.len() as u64) as usize;
            let op = self.strays.swap_remove(stray);
            self.carry_out(op);
        }
        let client = self.rng.below(self.clients.len() as u64) as usize;
        self.clients[client] = match self.clients[client].take() {
            None => {
                let request = self.request();
                Some((self.history.asked(client as u32, self.at, request), Stage::Asked))
            }
            Some((op, Stage::Asked)) if self.one_in(8) => {
                let refusal = Outcome::Refused("not-primary".to_owned());
                Some((op, Stage::Ready(refusal)))
            }
            Some((op, Stage::Asked)) if self.one_in(6) => {
                self.strays.push(op);
                Some((op, Stage::Ready(Outcome::Unknown)))
            }
            Some((op, Stage::Asked)) => {
                let outcome = self.carry_out(op);
                let lost = self.one_in(8);
                Some((op, Stage::Ready(if lost { Outcome::Unknown } else { outcome })))
            }
            Some((op, Stage::Ready(outcome))) => {
                if outcome != Outcome::Unknown || self.one_in(2) {
                    self.history.answered(op, self.at, outcome);
                }
                None
            }
        };
    }

    fn request(&mut self) -> Request {
        let mailbox = MAILBOXES[self.rng.below(2) as usize].to_owned();
        if self.one_in(3) {
            let after = self.rng.below(self.last[&mailbox].len() as u64 + 1);
            return Request::Read { mailbox, after };
        }
        // What nobody was told of under a key is tried again, by whoever comes along; so is, now
        // and then, what somebody was told.
        let open =
            self.history.ops.iter().rev().find(|op| {
                op.has_key() && (op.outcome == Outcome::Unknown || op.shows() == Some(7))
            });
        let open = open.map(|op| op.request.clone());
        if let Some(request) = open.filter(|_| self.one_in(2)) {
            return request;
        }
        let count = self.history.len() as u64;
        let key = self.one_in(2).then(|| format!("k{count}"));
        Request::Send { to: mailbox, from: "ann".into(), text: self.text(count), key }
    }

    fn text(&self, count: u64) -> String {
        format!("t{}", count % self.texts)
    }

    fn carry_out(&mut self, op: OpId) -> Outcome {
        match &self.history.ops[op.0].request {
            Request::Send { to, from, text, key } => {
                let used = key.as_ref().and_then(|key| self.keys.get(key));
                if let Some(number) = used {
                    return Outcome::Stored(*number);
                }
                let mailbox = self.last.get_mut(to).unwrap();
                mailbox.push((from.clone(), text.clone()));
                let number = mailbox.len() as u64;
                key.iter().for_each(|key| {
                    self.keys.insert(key.clone(), number);
                });
                Outcome::Stored(number)
            }
            Request::Read { mailbox, after } => {
                let shown = self.last[mailbox].iter().zip(1..).skip(*after as usize);
                let shown = shown.map(|((from, text), n)| (n, from.clone(), text.clone()));
                Outcome::Read(shown.collect())
            }
            _ => unreachable!("the model asks for messages only"),
        }
    }
}

#[test]
fn what_a_correct_group_can_do_passes() {
    for seed in 0..2_000 {
        for texts in [1, 3, u64::MAX] {
            let (history, last) = Model::run(seed, 300, texts);
            history.check(&last).unwrap_or_else(|finding| panic!("seed {seed}: {finding}"));
        }
    }
}

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
