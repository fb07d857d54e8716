//! Tests a client without sockets, line by line: what it sends, and how it handles the answers.

use super::client_state::{ClientState, Stop};
use super::{Account, After, Attributes, Client, Error, Event, Message, Ticket};
use crate::limits::KEYS_KEPT;
use crate::time::Moment;
use std::time::Duration;

/// The state of a client, and its clock.
struct World {
    now: Moment,
    client: ClientState,
}

impl World {
    fn new(account: Account) -> World {
        World { now: Moment(0), client: ClientState::new(account, "key".to_owned()) }
    }

    /// Logs in at a server whose log has `index` entries.
    fn logged_in(index: u64) -> World {
        let mut world = World::new(Account::new("ann", "correct-horse"));
        world.begin(index);
        assert_eq!(world.sent(), "LOGIN ann correct-horse end\n");
        world.hear("OK ann 0");
        assert_eq!(world.events(), [connected(0)]);
        world
    }

    fn begin(&mut self, index: u64) {
        self.client.begin(self.now, "lab1:5001");
        assert_eq!(self.sent(), "ATTR on\nSTATUS\n");
        self.hear(&format!("OK\nSTAT role primary\nSTAT last_index {index}\nOK"));
    }

    fn lose(&mut self) {
        self.client.on_lost("gone");
        assert_eq!(self.events(), [lost()]);
    }

    fn hear(&mut self, lines: &str) {
        for line in lines.lines() {
            self.client.on_line(self.now, line).expect(line);
        }
    }

    fn stop(&mut self, line: &str) -> Stop {
        self.client.on_line(self.now, line).expect_err(line)
    }

    fn submit(&mut self, text: &str) -> Ticket {
        self.submit_with(text, &Attributes::default())
    }

    fn submit_with(&mut self, text: &str, attributes: &Attributes) -> Ticket {
        self.client.submit(self.now, "bob", text, attributes).unwrap()
    }

    fn sent(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.client.out)).unwrap()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.client.take_event()).collect()
    }
}

fn connected(last: u64) -> Event {
    Event::Connected { server: "lab1:5001".to_owned(), last }
}

fn lost() -> Event {
    Event::Lost { server: "lab1:5001".to_owned(), why: "gone".to_owned() }
}

fn line(n: u64) -> String {
    format!("MSG {n} 2026-11-23T11:58:03.120Z bob text {n}")
}

fn message(number: u64) -> Event {
    let time = "2026-11-23T11:58:03.120Z".to_owned();
    let (from, text) = ("bob".to_owned(), format!("text {number}"));
    let attributes = Attributes::default();
    Event::Message(Message { number, time, from, text, attributes })
}

#[test]
fn the_answer_to_a_question_that_was_given_up_answers_no_other() {
    let mut world = World::logged_in(100);
    world.client.ask("LIST", &["a*"], true).unwrap();
    assert_eq!(world.sent(), "LIST a*\n");
    world.hear("USER ann online");
    assert!(world.client.give_up_question());
    world.client.ask("PASSWD", &["correct-horse", "battery-staple"], false).unwrap();
    assert_eq!(world.sent(), "PASSWD correct-horse battery-staple\n");
    world.hear("USER amy online\nOK 2");
    assert!(world.client.take_answer().is_none());
    world.hear("OK");
    assert!(world.client.take_answer().unwrap().unwrap().lines.is_empty());
}

#[test]
fn endless_data_is_refused_and_not_kept() {
    let mut world = World::logged_in(100);
    world.client.ask("LIST", &["*"], true).unwrap();
    let line = format!("USER {}", "a".repeat(4000));
    let ended = |world: &mut World| {
        // More than 20 MB of names.
        (0..5000).find_map(|_| world.client.on_line(world.now, &line).err()).expect("an end")
    };
    let stop = ended(&mut world);
    assert!(matches!(stop, Stop::Here { .. }), "{stop:?}");
    world.lose();
    let Some(Err(Error::Refused(why))) = world.client.take_answer() else { panic!("refused") };
    assert_eq!(why.code, "too-long");
    // The limit also holds for a question that was given up.
    world.begin(100);
    world.hear("OK ann 0");
    world.sent();
    world.client.ask("LIST", &["*"], true).unwrap();
    assert!(world.client.give_up_question());
    let stop = ended(&mut world);
    assert!(matches!(stop, Stop::Here { .. }), "{stop:?}");
}

#[test]
fn no_number_of_a_server_overflows() {
    for (after, answer) in [
        (After::End, "OK ann 18446744073709551615"),
        (After::End, "OK ann 9223372036854775808"),
        (After::Number(u64::MAX), "OK ann 9223372036854775807"),
    ] {
        let mut world = World::new(Account::new("ann", "correct-horse").after(after));
        world.begin(u64::MAX);
        let heard = world.client.on_line(world.now, answer);
        assert_eq!(heard.is_err(), after == After::End, "{answer}");
        let _ = world.client.on_line(world.now, &line(u64::MAX / 2));
        let _ = world.client.on_line(world.now, &line(u64::MAX));
    }
}

#[test]
fn what_was_not_answered_is_sent_again_with_its_key() {
    let mut world = World::logged_in(100);
    let tickets: Vec<Ticket> = ["one", "two", "three"].map(|text| world.submit(text)).to_vec();
    assert_eq!(world.sent(), "ONCE key-1 bob one\nONCE key-2 bob two\nONCE key-3 bob three\n");
    world.hear("OK 1");
    assert_eq!(world.events(), [Event::Stored { ticket: tickets[0], number: 1 }]);
    // The server has lost the primary role: its logged changes may or may not take effect.
    let stop = world.stop("ERR unknown-outcome this change may or may not take effect");
    assert!(matches!(stop, Stop::Here { named: None, .. }), "{stop:?}");
    world.lose();
    world.begin(101);
    let again = "LOGIN ann correct-horse 0\nONCE key-2 bob two\nONCE key-3 bob three\n";
    assert_eq!(world.sent(), again);
    world.hear("OK ann 0\nOK 2\nERR no-such-user there is no account bob");
    let events = world.events();
    assert_eq!(events[..2], [connected(0), Event::Stored { ticket: tickets[1], number: 2 }]);
    let Event::Refused { ticket, why } = &events[2] else { panic!("{events:?}") };
    assert_eq!((*ticket, &why.code[..]), (tickets[2], "no-such-user"));
    assert_eq!((world.client.unanswered(), events.len()), (0, 3));
}

#[test]
fn a_key_that_may_be_forgotten_is_not_used_again() {
    for (passed, known) in [(KEYS_KEPT / 2, true), (KEYS_KEPT / 2 + 1, false)] {
        let mut world = World::logged_in(100);
        world.now += Duration::from_secs(60);
        let old = world.submit("one");
        assert!(world.sent().starts_with("STATUS\nONCE key-1 "), "how long is the log by now?");
        // The message was sent after this request, so this index is valid for it.
        world.hear("STAT last_index 5000\nOK");
        let young = world.submit("two");
        world.lose();
        world.begin(5000 + passed);
        let unknown = [Event::Unknown { ticket: old }, Event::Unknown { ticket: young }];
        assert_eq!(world.events(), if known { &[][..] } else { &unknown[..] }, "{passed}");
        assert_eq!(world.sent().contains("ONCE key-1 bob one\nONCE key-2 bob two\n"), known);
    }
}

#[test]
fn messages_come_once_and_without_a_gap() {
    let mut world = World::new(Account::new("ann", "correct-horse").after(After::Number(3)));
    world.begin(1);
    assert_eq!(world.sent(), "LOGIN ann correct-horse 3\n");
    world.hear(&[line(4), line(5)].join("\n"));
    assert_eq!(world.events(), [message(4), message(5)]);
    world.client.on_lost("gone");
    assert_eq!(world.events(), [], "it never was logged in");
    world.begin(1);
    assert_eq!(world.sent(), "LOGIN ann correct-horse 5\n");
    world.hear(&[&line(5), &line(6), "OK ann 6", &line(7)].join("\n"));
    assert_eq!(world.events(), [message(6), connected(6), message(7)]);
    let stop = world.stop(&line(9));
    assert!(matches!(stop, Stop::Ever(Error::Gap { missing: 8, came: 9 })), "{stop:?}");
}

/// What a mailbox has forgotten is no gap, and is told once.
#[test]
fn forgotten_messages_are_told() {
    let note = |first: u64| format!("NOTE kept-from {first} older messages are no longer kept");
    let kept_from = |first| Event::KeptFrom { first };
    let mut world = World::new(Account::new("ann", "correct-horse").after(After::Number(2)));
    world.begin(1);
    world.hear(&[&note(5), &line(5), "OK ann 5", &line(6)].join("\n"));
    assert_eq!(world.events(), [kept_from(5), message(5), connected(5), message(6)]);
    // A session that lags.
    world.hear(&[note(9), line(9)].join("\n"));
    assert_eq!(world.events(), [kept_from(9), message(9)]);
    world.hear(&note(9));
    assert_eq!(world.events(), []);
    let stop = world.stop(&line(11));
    assert!(matches!(stop, Stop::Ever(Error::Gap { missing: 10, came: 11 })), "{stop:?}");
    // The last ones are asked for, and fewer are kept.
    let mut world = World::new(Account::new("ann", "correct-horse").after(After::Last(9)));
    world.begin(1);
    world.hear(&[&note(19), &line(19), "OK ann 19"].join("\n"));
    assert_eq!(world.events(), [kept_from(19), message(19), connected(19)]);
}

/// Among the messages that the caller was too slow for, some may be forgotten meanwhile.
#[test]
fn a_slow_caller_is_told_what_is_forgotten() {
    let mut world = World::logged_in(1);
    for n in 1..=10_000 {
        world.hear(&line(n));
    }
    let kept = world.events();
    let last = kept.len() as u64;
    assert_eq!(kept.last(), Some(&message(last)));
    world.client.refill();
    assert!(world.sent().starts_with(&format!("LOG {last} ")));
    world.hear(&[format!("NOTE kept-from {} x", last + 7), line(last + 7)].join("\n"));
    assert_eq!(world.events(), [Event::KeptFrom { first: last + 7 }, message(last + 7)]);
}

/// The same when a caller without room for more gets later messages.
#[test]
fn what_is_forgotten_is_no_gap_for_a_slow_caller() {
    let mut world = World::logged_in(1);
    for n in 1..=10_000 {
        world.hear(&line(n));
    }
    world.hear(&["NOTE kept-from 20001 x", &line(20_001)].join("\n"));
    let last = world.events().len() as u64;
    world.client.refill();
    assert!(world.sent().starts_with(&format!("LOG {last} ")));
    world.hear(&["NOTE kept-from 20001 x", &line(20_001)].join("\n"));
    assert_eq!(world.events(), [Event::KeptFrom { first: 20_001 }, message(20_001)]);
}

#[test]
fn where_to_begin_is_known_from_the_first_answer() {
    let table = [(After::Last(2), "-2", vec![line(8), line(9)], 9), (After::End, "end", vec![], 7)];
    for (after, asked, shown, last) in table {
        let mut world = World::new(Account::new("ann", "correct-horse").after(after));
        world.begin(1);
        assert_eq!(world.sent(), format!("LOGIN ann correct-horse {asked}\n"));
        shown.iter().for_each(|line| world.hear(line));
        world.hear(&format!("OK ann {last}"));
        assert_eq!(world.events().pop(), Some(connected(last)));
        world.lose();
        world.begin(1);
        assert_eq!(world.sent(), format!("LOGIN ann correct-horse {last}\n"));
    }
}

#[test]
fn what_the_caller_does_not_take_is_asked_for_again() {
    let mut world = World::logged_in(1);
    for n in 1..=10_000 {
        world.hear(&line(n));
    }
    let kept = world.events();
    assert!(
        kept.len() < 5000
            && kept.iter().eq(&(1..).map(message).take(kept.len()).collect::<Vec<_>>())
    );
    let mut next = kept.len() as u64 + 1;
    world.hear(&line(10_001));
    while next <= 10_001 {
        world.client.refill();
        let asked = world.sent();
        assert_eq!(asked, format!("LOG {} 1024\n", next - 1));
        let last = (next + 1023).min(10_001);
        (next..=last).for_each(|n| world.hear(&line(n)));
        world.hear(&format!("OK {last}"));
        assert!(world.events().into_iter().eq((next..=last).map(message)));
        next = last + 1;
    }
    world.client.refill();
    assert_eq!(world.sent(), "");
    world.hear(&line(10_002));
    assert_eq!(world.events(), [message(10_002)]);
}

#[test]
fn an_account_is_made_once_when_it_is_not_there() {
    let mut world = World::new(Account::new("ann", "correct-horse").created());
    world.submit("hi");
    world.begin(1);
    assert_eq!(world.sent(), "LOGIN ann correct-horse end\n", "the message waits for the login");
    world.hear("ERR wrong-password the name or the password is wrong");
    assert_eq!(world.sent(), "CREATE ann correct-horse\n");
    world.hear("OK ann");
    assert_eq!(world.sent(), "LOGIN ann correct-horse end\n");
    world.hear("OK ann 0");
    assert_eq!(world.sent(), "ONCE key-1 bob hi\n");

    let mut world = World::new(Account::new("ann", "wrong-horse").created());
    world.begin(1);
    world.hear("ERR wrong-password the name or the password is wrong");
    let stop = world.stop("ERR exists there is an account ann");
    assert!(matches!(&stop, Stop::Ever(Error::NotLetIn(why)) if why.code == "exists"), "{stop:?}");
}

#[test]
fn who_is_no_primary_names_it() {
    for (said, expected) in [
        ("ERR not-primary lab2:5001 server 2 is the primary", Some("lab2:5001")),
        ("ERR not-primary - no primary is known", None),
        ("ERR not-ready not all servers were attached yet", None),
        ("ERR busy too many logins wait", None),
        ("NOTE stopping this server stops", None),
        ("220 mail.example.com ESMTP", None),
        ("USER bob online", None),
    ] {
        let mut world = World::new(Account::new("ann", "correct-horse"));
        world.begin(1);
        let stop = world.stop(said);
        let Stop::Here { named, .. } = stop else { panic!("{said}: {stop:?}") };
        assert_eq!(named.as_deref(), expected, "{said}");
    }
}

#[test]
fn a_question_whose_answer_is_lost_is_repeated_only_if_that_is_harmless() {
    let table: [(&str, &[&str], bool); 2] =
        [("LIST", &["a*"], true), ("PASSWD", &["correct-horse", "other-horse"], false)];
    for (command, words, repeatable) in table {
        let mut world = World::logged_in(1);
        world.client.ask(command, words, repeatable).unwrap();
        let request = &format!("{command} {}", words.join(" "));
        assert_eq!(world.sent(), format!("{request}\n"));
        if repeatable {
            world.hear("USER ann online");
        }
        world.lose();
        match world.client.take_answer() {
            None => assert!(repeatable, "{request}"),
            Some(Err(Error::Unknown)) => assert!(!repeatable, "{request}"),
            other => panic!("{request}: {other:?}"),
        }
        world.begin(1);
        world.hear("OK ann 0");
        let sent = world.sent();
        assert_eq!(sent.contains(request), repeatable, "{sent}");
        if repeatable {
            world.hear("USER ann online\nUSER axel offline\nOK 2");
            let lines = ["ann online", "axel offline"].map(str::to_owned).to_vec();
            assert_eq!(world.client.take_answer().unwrap().unwrap().lines, lines);
        }
    }
}

#[test]
fn what_no_server_would_take_is_never_sent() {
    let mut world = World::logged_in(1);
    let long = "x".repeat(3841);
    for (to, text, code) in [
        ("bob", "two\r\nlines", "bad-text"),
        ("bob", "\u{1b}[2J", "bad-text"),
        ("bob", "", "bad-argument"),
        ("bob", &long, "too-long"),
        ("bob not", "x", "bad-argument"),
        ("", "bob x", "bad-argument"),
        (".", "x", "bad-argument"),
    ] {
        let refused = world.client.submit(world.now, to, text, &Attributes::default());
        assert_eq!(refused.unwrap_err().code, code, "{to}: {text}");
    }
    let question = world.client.ask("LIST", &["a b"], true);
    assert_eq!(question.unwrap_err().code, "bad-argument");
    let servers = vec!["lab1:5001".to_owned()];
    assert!(Client::new(servers, Account::new("ann", "correct-horse 7")).is_err());
    assert!(Client::new(Vec::new(), Account::new("ann", "correct-horse")).is_err());
    assert_eq!(world.sent(), "");
}

#[test]
fn a_message_with_attributes_and_lines_is_sent_whole_and_read_whole() {
    let mut world = World::logged_in(1);
    let attributes = Attributes {
        title: Some("Disk full".to_owned()),
        priority: Some(5),
        ..Attributes::default()
    };
    let ticket = world.submit_with("one\ntwo", &attributes);
    let sent = "WITH title Disk full\nWITH priority 5\nONCE key-1 bob one␤two\n";
    assert_eq!(world.sent(), sent);
    world.hear("OK\nOK");
    world.lose();
    world.begin(2);
    assert_eq!(world.sent(), format!("LOGIN ann correct-horse 0\n{sent}"));
    world.hear("OK ann 0\nOK\nOK\nOK 1");
    assert_eq!(world.events(), [connected(0), Event::Stored { ticket, number: 1 }]);
    let message = |number, text: &str, attributes: Attributes| {
        let (time, from) = ("2026-11-23T11:58:03.120Z".to_owned(), "bob".to_owned());
        Event::Message(Message { number, time, from, text: text.to_owned(), attributes })
    };
    world.hear("ATTR 1 title Disk full\nATTR 1 icon x\nATTR 1 priority 5");
    world.hear("MSG 1 2026-11-23T11:58:03.120Z bob one␤two");
    world.hear("MSG 2 2026-11-23T11:58:03.120Z bob plain");
    let plain = message(2, "plain", Attributes::default());
    assert_eq!(world.events(), [message(1, "one\ntwo", attributes.clone()), plain]);
    for (text, attributes, code) in [
        ("x", Attributes { priority: Some(6), ..Attributes::default() }, "bad-argument"),
        ("x", Attributes { tags: Some(String::new()), ..Attributes::default() }, "bad-argument"),
        ("x", Attributes { click: Some("a\nb".to_owned()), ..Attributes::default() }, "bad-text"),
        (&"␤".repeat(1278), attributes, "too-long"),
    ] {
        let refused = world.client.submit(world.now, "bob", text, &attributes);
        assert_eq!(refused.unwrap_err().code, code, "{attributes:?}");
    }
    assert_eq!(world.sent(), "");
}

#[test]
fn what_was_sent_is_read_with_its_attributes() {
    let mut world = World::logged_in(1);
    world.client.ask("SENT", &["-2", "2"], true).unwrap();
    assert_eq!(world.sent(), "SENT -2 2\n");
    // A message with attributes of its own arrives before the answer.
    world.hear("ATTR 1 title other\nMSG 1 2026-11-23T11:58:03.120Z bob text 1");
    world.hear("SENT 1 7 2026-11-23T11:58:03.120Z bob one␤two\nGONE 2 2");
    world.hear("ATTR 3 title Menu\nSENT 3 1 2026-11-23T11:58:03.120Z cyd soup\nOK 3");
    let sent = world.client.take_answer().unwrap().unwrap().sent;
    let titles: Vec<_> = sent.iter().map(|sent| sent.attributes.title.as_deref()).collect();
    assert_eq!(titles, [None, Some("Menu")]);
    assert_eq!((sent[0].place, sent[0].number, &sent[0].text[..]), (1, 7, "one\ntwo"));
    assert_eq!((sent[1].place, &sent[1].to[..]), (3, "cyd"));
}

#[test]
fn an_account_that_was_there_is_not_made_anew() {
    let mut world = World::new(Account::new("ann", "correct-horse").created());
    world.begin(1);
    world.hear("OK ann 0");
    world.client.on_lost("gone");
    world.begin(1);
    let stop = world.stop("ERR wrong-password the name or the password is wrong");
    assert!(matches!(stop, Stop::Ever(Error::NotLetIn(_))), "{stop:?}");
    // If a server refuses to create the account for now, the next server creates it.
    let mut world = World::new(Account::new("ann", "correct-horse").created());
    for _ in 0..2 {
        world.begin(1);
        world.hear("ERR wrong-password the name or the password is wrong");
        assert!(world.sent().ends_with("CREATE ann correct-horse\n"));
        assert!(matches!(world.stop("ERR busy too many logins wait"), Stop::Here { .. }));
        world.client.on_lost("busy");
    }
}

#[test]
fn a_question_that_was_refused_for_now_is_asked_elsewhere() {
    for refusal in ["ERR not-primary lab2:5001 there", "ERR not-ready in a moment"] {
        let mut world = World::logged_in(1);
        world.client.ask("PASSWD", &["correct-horse", "other-horse"], false).unwrap();
        assert!(matches!(world.stop(refusal), Stop::Here { .. }));
        world.lose();
        assert!(world.client.take_answer().is_none(), "{refusal}");
        world.begin(1);
        world.hear("OK ann 0");
        assert!(world.sent().ends_with("PASSWD correct-horse other-horse\n"));
    }
}

#[test]
fn a_server_that_says_too_much_is_left() {
    let mut world = World::new(Account::new("ann", "correct-horse"));
    world.client.begin(world.now, "lab1:5001");
    let stop = (0..1000)
        .find_map(|n| world.client.on_line(world.now, &format!("STAT key{n} value")).err());
    assert!(matches!(stop, Some(Stop::Here { .. })), "{stop:?}");
}

#[test]
fn a_server_has_the_name_that_the_group_gives_it() {
    let mut world = World::new(Account::new("ann", "correct-horse"));
    world.client.begin(world.now, "127.0.0.1:5002");
    world.hear("OK\nSTAT server 2/91c0ffee\nSTAT servers lab1:5001,lab2:5001,lab3:5001\nOK");
    world.hear("OK ann 0");
    world.client.on_lost("gone");
    let server = "lab2:5001".to_owned();
    let lost = Event::Lost { server: server.clone(), why: "gone".to_owned() };
    assert_eq!(world.events(), [Event::Connected { server, last: 0 }, lost]);
}
