//! The checker accepts every history of a correct group, even one that loses connections, and
//! finds every violation.

mod mutations;

use super::*;
use postern::rng::Rng;

type Last = BTreeMap<String, Vec<(String, String)>>;

/// Parses a history. A line is `client asked-answered user: request = outcome`, or, for the final
/// contents of a mailbox, `end mailbox: from text, from text`.
fn parse(lines: &str) -> (History, Last) {
    let (mut history, mut last) = (History::new(), Last::new());
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, rest) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        if let Some(mailbox) = head.strip_prefix("end ") {
            let pairs = list(rest).map(|part| (part[0].into(), part[1].into()));
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

fn parse_request(user: &str, request: &str) -> Request {
    let send = |to: &str, text: &str, key: Option<&str>| Request::Send {
        to: to.to_owned(),
        from: user.to_owned(),
        text: text.to_owned(),
        key: key.map(str::to_owned),
    };
    match request.split(' ').collect::<Vec<_>>()[..] {
        ["SEND", to, text] => send(to, text, None),
        ["ONCE", key, to, text] => send(to, text, Some(key)),
        ["LOG", after] => Request::Read { mailbox: user.into(), after: after.parse().unwrap() },
        ["DELETE"] => Request::Delete { user: user.to_owned() },
        ["CREATE"] => Request::Create { user: user.to_owned() },
        _ => panic!("{request}"),
    }
}

fn parse_outcome(request: &str, outcome: &str) -> Outcome {
    match outcome {
        "done" => Outcome::Done,
        "refused" => Outcome::Refused("busy".to_owned()),
        "unknown" => Outcome::Unknown,
        messages if request.starts_with("LOG") => {
            let message =
                |part: Vec<&str>| (part[0].parse().unwrap(), part[1].into(), part[2].into());
            Outcome::Read(list(messages).map(message).collect())
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
fn fails(check: Check, message: &str, lines: &str) {
    let (history, last) = parse(lines);
    let finding = history.check(&last).expect_err(lines);
    assert_eq!(finding.check, check, "{finding}\n{lines}");
    assert!(finding.message.contains(message), "{finding}");
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
    let with = |read: &str| format!("{sent} 2 5-6 bob: {read}");
    fails(Check::Dense, "2 was read in place of 1", &with("LOG 0 = 2 ann b"));
    fails(Check::Dense, "1 was read in place of 2", &with("LOG 1 = 1 ann a, 2 ann b"));
    fails(Check::Dense, "read as `ann: b`", &with("LOG 0 = 1 ann b, 2 ann a"));
    fails(Check::Dense, "finally it is missing", &with("LOG 2 = 3 ann c"));
    fails(Check::Dense, "beyond the last number 2", &with("LOG 5 ="));
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
    fails(Check::Kept, "number 1 is missing", "1 1-2 ann: SEND bob a = 1");
    fails(Check::Kept, "number 1 is `ann: b`", "1 1-2 ann: SEND bob a = 1\n end bob: ann b");
    fails(Check::Kept, "number 1 is `cyd: a`", "1 1-2 ann: SEND bob a = 1\n end bob: cyd a");
    fails(Check::Kept, "number 0 is missing", "1 1-2 ann: SEND bob a = 0\n end bob: ann a");
    fails(Check::Kept, "refused (busy)", "1 1-2 ann: SEND bob a = refused\n end bob: ann a");
    fails(Check::Kept, "no client sent it", "end bob: ann a");
    fails(
        Check::Kept,
        "more often than it was sent",
        "1 1-2 ann: SEND bob a = unknown\n end bob: ann a, ann a",
    );
    fails(
        Check::Kept,
        "two messages have one number",
        "1 1-2 ann: SEND bob a = 1
         2 1-2 ann: SEND bob a = 1
         end bob: ann a",
    );
    // Sent twice, acknowledged once: the mailbox may hold both, but not a third one.
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
    // Another message may follow the first attempt, which stored it, before the attempt that is
    // answered.
    passes(&format!(
        "{tries} 3 3-4 dan: SEND bob c = 2
         1 5-6 ann: ONCE k bob a = 1
         end bob: ann a, dan c"
    ));
    fails(Check::Once, "more often", &format!("{tries} end bob: ann a, ann a"));
    let answered = "1 1-2 ann: ONCE k bob a = 1\n end bob: ann a, ann a\n";
    fails(Check::Once, "two effects", &format!("{answered} 1 3-4 ann: ONCE k bob a = 2"));
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
    // Concurrent messages may have any order.
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
        "2 was known before number 1 was sent",
        "1 1-2 ann: SEND bob a = 2
         2 3-4 cyd: SEND bob b = 1
         end bob: cyd b, ann a",
    );
    fails(
        Check::RealTime,
        "ends before number 1",
        "1 1-2 ann: SEND bob a = 1
         3 3-4 bob: LOG 0 =
         end bob: ann a",
    );
    fails(
        Check::RealTime,
        "ends before number 2",
        "1 1-9 ann: SEND bob a = 1
         2 1-9 ann: SEND bob b = 2
         3 3-4 bob: LOG 0 = 1 ann a, 2 ann b
         4 5-6 bob: LOG 0 = 1 ann a
         end bob: ann a, ann b",
    );
    // No read returns a message before it is sent, whether its outcome is known or not.
    for outcome in ["1", "unknown"] {
        fails(
            Check::RealTime,
            "1 was known before number 1 was sent",
            &format!(
                "3 1-2 bob: LOG 0 = 1 ann a
                 1 3-4 ann: SEND bob a = {outcome}
                 end bob: ann a"
            ),
        );
    }
    // Of two equal messages with unknown outcomes, the one sent earlier may be the one that was
    // read.
    passes(
        "3 5-6 bob: LOG 0 = 1 ann a
         1 8-9 ann: SEND bob a = unknown
         2 1-9 ann: SEND bob a = unknown
         end bob: ann a, ann a",
    );
}

#[test]
fn pipelined_requests_of_one_client_keep_their_order() {
    let two = "1 1-9 ann: SEND bob a = 2\n 1 1-9 ann: SEND bob b = 1\n end bob: ann b, ann a";
    fails(Check::RealTime, "2 was known before number 1", two);
    passes(&two.replace("1 1-9 ann: SEND bob b", "2 1-9 ann: SEND bob b"));
    fails(
        Check::RealTime,
        "ends before number 1",
        "1 1-9 ann: SEND bob a = 1
         2 2-9 bob: LOG 0 = 1 ann a
         2 2-9 bob: LOG 0 =
         end bob: ann a",
    );
}

#[test]
fn a_deleted_mailbox_may_start_again_with_messages_that_were_sent() {
    let sent = "1 1-2 ann: SEND bob a = 1
                2 3-4 bob: DELETE = done
                2 5-6 bob: CREATE = done
                1 7-8 ann: SEND bob b = 1
                2 9-9 bob: LOG 0 = 1 ann b\n";
    passes(&format!("{sent} end bob: ann b"));
    passes(sent);
    fails(Check::Kept, "no client sent it", &format!("{sent} end bob: ann c"));
    fails(Check::Kept, "more often", &format!("{sent} end bob: ann b, ann b"));
    fails(Check::Dense, "in place of", &format!("{sent} 2 11-12 bob: LOG 0 = 2 ann b"));
    // A refused DELETE has no effect.
    let refused = sent.replace("DELETE = done", "DELETE = refused");
    fails(Check::Kept, "number 1 is `ann: b`, but", &format!("{refused} end bob: ann b"));
    // The servers forget a key with its sender, so its attempts may have two effects, or one.
    let tries = "1 1-2 ann: ONCE k bob a = 1
                 1 3-4 ann: ONCE k bob a = 1
                 1 5-6 ann: DELETE = unknown\n";
    passes(&format!("{tries} end bob: ann a"));
    passes(&format!("{tries} 1 7-8 ann: ONCE k bob a = 2\n end bob: ann a, ann a"));
}

/// A correct group: each request takes effect at one moment between request and answer.
struct Model {
    rng: Rng,
    at: u64,
    history: History,
    last: Last,
    /// The number of each key that was used.
    keys: BTreeMap<String, u64>,
    clients: Vec<Option<(OpId, Stage)>>,
    /// Requests with an unknown outcome that may still take effect.
    strays: Vec<OpId>,
    texts: u64,
}

enum Stage {
    Asked,
    Ready(Outcome),
}

const MAILBOXES: [&str; 2] = ["bob", "cyd"];

impl Model {
    /// Runs `steps` steps, which send `texts` different texts.
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
        // Any client may repeat a request that has a key and an unknown outcome, and some that were
        // answered.
        let open = self.history.ops.iter().rev().find(|op| {
            op.has_key() && (op.outcome == Outcome::Unknown || op.proven_length() == Some(7))
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
                let messages = self.last[mailbox].iter().zip(1..).skip(*after as usize);
                let messages = messages.map(|((from, text), n)| (n, from.clone(), text.clone()));
                Outcome::Read(messages.collect())
            }
            _ => unreachable!("the model only sends and reads"),
        }
    }
}

#[test]
fn histories_of_a_correct_group_pass() {
    for seed in 0..2_000 {
        for texts in [1, 3, u64::MAX] {
            let (history, last) = Model::run(seed, 300, texts);
            history.check(&last).unwrap_or_else(|finding| panic!("seed {seed}: {finding}"));
        }
    }
}
