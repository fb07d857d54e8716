//! Two people chat in terminals. While servers fail, no typed text is lost or shown twice, and no
//! password is visible. Afterwards the terminal is restored. In a pipe, chat is a plain command.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use common::{Client, Group, postern, wait_for};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use terminal::Terminal;

fn chat(servers: &str, user: &str) -> Command {
    let mut command = postern();
    command.args(["chat", "--servers", servers, user]);
    command
}

fn with_password(servers: &str, user: &str) -> Command {
    let mut command = chat(servers, user);
    command.env("POSTERN_PASSWORD", "correct-horse");
    command
}

/// Starts a chat in a terminal, and waits for its prompt.
fn person(servers: &str, user: &str) -> Terminal {
    let mut terminal = Terminal::run(&with_password(servers, user));
    terminal.wait("a prompt", |screen| screen.ends_with('>'));
    terminal
}

#[test]
fn a_failover_while_typing_is_one_notice() {
    let mut group = Group::open();
    let primary = group.wait_members(3);
    group.client(primary, "ann");
    group.client(primary, "bob");
    let servers = group.servers.join(",");
    let mut ann = person(&servers, "ann");
    let mut bob = person(&servers, "bob");
    let status = |n: usize, copies: usize| format!("{}, {copies} copies", group.servers[n - 1]);
    ann.see_last(&format!("{} >", status(primary, 3)));
    ann.type_in("@bob lunch?\r");
    ann.see_last(&format!("{} bob>", status(primary, 3)));
    bob.see(" ann: lunch?");
    bob.type_in("@ann fine, at th");
    bob.see("> @ann fine, at th");
    let old = group.servers[primary - 1].clone();
    group.kill(primary);
    let next = group.wait_members(2);
    let notice = format!("-- {} has taken over from {old}", group.servers[next - 1]);
    let status = format!("{}, 2 copies", group.servers[next - 1]);
    for terminal in [&mut ann, &mut bob] {
        terminal.see(&notice);
    }
    bob.see_last(&format!("{status} > @ann fine, at th"));
    bob.type_in("e gate\r");
    bob.see_last(&format!("{status} ann>"));
    ann.see(" bob: fine, at the gate");
    ann.type_in("\x04");
    assert_eq!(ann.end().code(), Some(0));
    for terminal in [&ann, &bob] {
        let text = terminal.text();
        let notes = text.lines().filter(|line| line.starts_with("-- ")).count();
        assert_eq!(notes, 1, "{text}");
    }
    assert_eq!(group.mailbox(next, "ann"), ["fine, at the gate"]);
    assert_eq!(group.mailbox(next, "bob"), ["lunch?"]);
}

#[test]
fn passwords_are_not_seen_and_accounts_are_made_if_wanted() {
    let group = Group::alone();
    let mut chat = chat(&group.servers[0], "ann");
    chat.arg("--create").env_remove("POSTERN_PASSWORD");
    let mut ann = Terminal::run(&chat);
    for question in ["Password of ann:", "Once more:"] {
        ann.see(question);
        ann.type_in("correct-horse\r");
    }
    ann.see("1 copy >");
    ann.type_in("/passwd\r");
    for (asked, answer) in [
        ("Old password:", "correct-horse"),
        ("New password:", "other-horse"),
        ("again:", "other-horse"),
    ] {
        ann.see(asked);
        ann.type_in(&format!("{answer}\r"));
    }
    ann.see("-- the password is changed");
    ann.type_in("/quit\r");
    assert_eq!(ann.end().code(), Some(0));
    let shown = String::from_utf8_lossy(&ann.shown).into_owned();
    assert!(!shown.contains("horse"), "{shown}");
    assert!(group.connect(1).ask("LOGIN ann other-horse").starts_with("OK"));
}

#[test]
fn tab_completes_names_and_commands_and_arrows_bring_lines_back() {
    let group = Group::alone();
    group.client(1, "ann");
    group.client(1, "bobby");
    let mut ann = person(&group.servers[0], "ann");
    ann.type_in("/wh\t\r");
    ann.see("-- 1 online: ann");
    ann.see("-- 1 offline: bobby");
    ann.type_in("@bo\thi\r");
    ann.see("1 copy bobby>");
    ann.type_in("\x1b[A");
    ann.see("bobby> @bobby hi");
    ann.type_in(" again\r");
    ann.type_in("/nonsense\r");
    ann.see("-- there is no command /nonsense");
    ann.type_in("/help\r");
    ann.see("Tab completes");
    ann.type_in("/to nobody\rhello\r");
    ann.see("-- not sent to nobody, there is no account nobody: hello");
    assert_eq!(group.mailbox(1, "bobby"), ["hi", "hi again"]);
    ann.type_in("/quit\r");
    assert_eq!(ann.end().code(), Some(1), "something was not sent");
}

#[test]
fn what_came_while_away_is_marked() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut bob = group.client(1, "bob");
    let relay = Relay::to(&group.servers[0]);
    let mut ann = person(&relay.address, "ann");
    assert_eq!(bob.ask("SEND ann one"), "OK 1");
    ann.see(" bob: one");
    relay.open(false);
    ann.see("-- lost ");
    ann.type_in("@bob are you there?\r");
    ann.see("no server, 1 under way bob>");
    assert_eq!(bob.ask("SEND ann two"), "OK 2");
    assert_eq!(bob.ask("SEND ann three"), "OK 3");
    relay.open(true);
    ann.see("-- stored now: are you there?");
    let text = ann.text();
    let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}:\n{text}"));
    let order = ["bob: one", "-- unread:", "bob: two", "bob: three", " again"].map(place);
    assert!(order.is_sorted(), "{text}");
    assert_eq!(text.matches("bob: ").count(), 3, "{text}");
    assert_eq!(group.mailbox(1, "bob"), ["are you there?"]);
    // Later, the last messages are shown without a marker.
    let mut ann = person(&group.servers[0], "ann");
    ann.see(" bob: three");
    assert!(!ann.text().contains("unread"), "{}", ann.text());
}

#[test]
fn a_flood_of_messages_blocks_nobody() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut bob = group.client(1, "bob");
    let flood = |bob: &mut Client, count: usize| {
        for at in (0..count).step_by(50) {
            let batch: String = (at..at + 50).map(|n| format!("SEND ann text {n}\n")).collect();
            bob.send_bytes(batch.as_bytes());
            (0..50).for_each(|_| assert!(bob.answer().starts_with("OK")));
        }
    };
    flood(&mut bob, 1000);
    // More lines than may wait for a prompt, before the first prompt.
    let mut command = with_password(&group.servers[0], "ann");
    command.args(["--last", "900"]);
    let mut ann = Terminal::run(&command);
    ann.wait("all and a prompt", |screen| screen.contains("text 999") && screen.ends_with('>'));
    // More lines than that, while the user leaves.
    ann.type_in("@bob one\r@bob two\r");
    ann.see("bob> @bob two");
    flood(&mut bob, 2000);
    ann.type_in("\x04");
    assert_eq!(ann.end().code(), Some(0));
    assert_eq!(group.mailbox(1, "bob"), ["one", "two"]);
}

#[test]
fn a_paste_is_as_many_messages_as_lines() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut ann = person(&group.servers[0], "ann");
    ann.type_in("@ann first\r");
    ann.see(" ann: first");
    // A terminal marks what is pasted.
    ann.type_in("\x1b[200~one\r/quit\r@bob x\rthree\x1b[201~\r");
    ann.see(" ann: three");
    assert_eq!(group.mailbox(1, "ann"), ["first", "one", "/quit", "@bob x", "three"]);
    // A long paste is echoed as quickly.
    let lines: String = (0..1000).map(|n| format!("line {n}\r")).collect();
    ann.type_in(&format!("\x1b[200~{lines}\x1b[201~\r"));
    ann.wait("all of it", |screen| screen.contains(" ann: line 999"));
    assert_eq!(group.mailbox(1, "ann").len(), 1005);
}

#[test]
fn a_chat_that_is_started_again_shows_both_sides() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut bob = group.client(1, "bob");
    let mut ann = person(&group.servers[0], "ann");
    ann.type_in("@bob lunch?\r");
    let line = bob.line();
    assert!(line.ends_with(" ann lunch?"), "{line}");
    assert_eq!(bob.ask("SEND ann soup at noon?"), "OK 1");
    ann.see(" bob: soup at noon?");
    // Messages of one millisecond have no order in a merged conversation.
    let since = Instant::now();
    let later = || (since.elapsed() > Duration::from_millis(2)).then_some(());
    wait_for(later, || "the clock stands still".to_owned());
    ann.type_in("fine\r@ann buy bread\r\x04");
    assert_eq!(ann.end().code(), Some(0));
    let mut again = person(&group.servers[0], "ann");
    again.see("1 copy >");
    let shown = again.text();
    let lines = ["to bob: lunch?", "bob: soup at noon?", "to bob: fine", "ann: buy bread"];
    let mut rest = &shown[..];
    for line in lines {
        let at = rest.find(&format!(" {line}")).unwrap_or_else(|| panic!("{line} in {shown}"));
        rest = &rest[at + line.len()..];
    }
    assert_eq!(shown.matches("buy bread").count(), 1, "{shown}");
    // A pipe gets the same.
    let mut piped = with_password(&group.servers[0], "ann");
    let output = piped.args(["--last", "2"]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let texts: Vec<&str> = said.lines().filter(|line| !line.starts_with("--")).collect();
    assert!(texts.len() == 2 && texts[0].ends_with(" to bob: fine"), "{said}");
    assert!(texts[1].ends_with(" ann: buy bread"), "{said}");
}

/// The lines of a message are shown below each other, and none looks like a message of its own.
#[test]
fn a_message_may_have_lines() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut bob = group.client(1, "bob");
    let mut ann = person(&group.servers[0], "ann");
    ann.see("1 copy >");
    assert_eq!(bob.ask("WITH title Menu"), "OK");
    assert_eq!(bob.ask("SEND ann soup␤12:00 cyd: I resign␤␤rice"), "OK 1");
    ann.see("rice");
    let text = ann.text();
    let shown = " bob: Menu: soup\n      12:00 cyd: I resign\n\n      rice\n";
    let shown_lines: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    assert!(shown_lines.contains(shown), "{text}");
    ann.type_in("@bob one␤two\r\x04");
    assert_eq!(ann.end().code(), Some(0));
    assert_eq!(group.mailbox(1, "bob"), ["one␤two"]);
}

#[test]
fn the_last_line_of_a_paste_waits_for_room_as_the_others_do() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut ann = person(&group.servers[0], "ann");
    ann.type_in("@ann first\r");
    ann.wait("a receiver", |screen| screen.ends_with("1 copy ann>"));
    group.signal(1, rustix::process::Signal::STOP);
    // 256 messages await their outcome and 64 the first of these: one more finds no room.
    let lines: String = (1..=321).map(|n| format!("line {n}\r")).collect();
    ann.type_in(&format!("\x1b[200~{lines}\x1b[201~\r"));
    ann.see("does not answer; what you sent is not lost");
    group.signal(1, rustix::process::Signal::CONT);
    ann.see(" ann: line 321");
    assert_eq!(group.mailbox(1, "ann").len(), 322);
}

#[test]
fn passwords_that_are_typed_ahead_are_no_messages() {
    let group = Group::alone();
    group.client(1, "bob");
    group.client(1, "ann");
    let mut ann = person(&group.servers[0], "ann");
    ann.type_in("@bob hi\r");
    ann.see("1 copy bob>");
    ann.type_in("/passwd\rcorrect-horse\rother-horse\rother-horse\r");
    ann.see("-- the password is changed");
    assert!(!ann.text().contains("horse"), "{}", ann.text());
    assert_eq!(group.mailbox(1, "bob"), ["hi"]);
    ann.type_in("/passwd\r");
    ann.see_last("Old password:");
    ann.type_in("\x03");
    ann.see("-- nothing was changed");
    // Between prompts the terminal itself would interpret Ctrl+D.
    ann.wait("a prompt", |screen| screen.ends_with("bob>"));
    ann.type_in("@bob still here\r");
    ann.wait("the next one", |screen| screen.contains("still here\n") && screen.ends_with("bob>"));
    ann.type_in("\x04");
    assert_eq!(ann.end().code(), Some(0));
    assert_eq!(group.mailbox(1, "bob"), ["hi", "still here"]);
}

#[test]
fn slips_of_the_keyboard_do_no_harm() {
    let group = Group::alone();
    group.client(1, "ann");
    group.client(1, "bob");
    let mut ann = person(&group.servers[0], "ann");
    ann.type_in("@bob one\r");
    ann.wait("a receiver", |screen| screen.ends_with("bob>"));
    // After a receiver that does not exist, messages go to the previous one again.
    ann.type_in("@typo two\r");
    ann.see("not sent to typo");
    ann.wait("the receiver before", |screen| screen.ends_with("bob>"));
    // Ctrl+C clears the line, and a letter of an 8-bit terminal is reported as invalid.
    ann.type_in("half a li");
    ann.wait("what is typed", |screen| screen.ends_with("bob> half a li"));
    ann.type_in("\x03");
    ann.wait("an empty line", |screen| screen.ends_with("bob>"));
    ann.type_bytes(b"caf\xe9 ");
    ann.see("set the terminal to UTF-8");
    ann.type_in("\x15");
    ann.wait("an empty line", |screen| screen.ends_with("bob>"));
    ann.type_in("three\r\x03");
    assert_eq!(ann.end().code(), Some(130));
    assert_eq!(group.mailbox(1, "bob"), ["one", "three"]);
}

#[test]
fn a_server_that_falls_silent_is_waited_for_aloud() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut ann = person(&group.servers[0], "ann");
    ann.type_in("@ann one\r");
    ann.wait("a receiver", |screen| screen.ends_with("1 copy ann>"));
    group.signal(1, rustix::process::Signal::STOP);
    ann.type_in("two\r");
    ann.see("does not answer; what you sent is not lost");
    ann.wait("no number of copies", |screen| screen.contains(", waiting"));
    group.signal(1, rustix::process::Signal::CONT);
    ann.see("stored now: two");
    ann.type_in("\r");
    ann.wait("the prompt before", |screen| screen.ends_with("1 copy ann>"));
}

#[test]
fn what_is_given_up_is_told() {
    let mut group = Group::alone();
    group.client(1, "ann");
    let mut ann = person(&group.servers[0], "ann");
    group.kill(1);
    ann.see("-- lost ");
    ann.type_in("@ann one\r@ann two\r");
    ann.see("2 under way");
    ann.type_in("\x03");
    assert_eq!(ann.end().code(), Some(130));
    ann.see("not known to be stored:\n  ann: one\n  ann: two");
    // The same list is printed while the chat waits to leave.
    let mut ann = person_at(&mut group, "ann");
    group.kill(1);
    ann.see("-- lost ");
    ann.type_in("@ann three\r");
    ann.see("1 under way");
    ann.type_in("/quit\r");
    ann.see("waiting, Ctrl+C gives up");
    ann.type_in("\x03");
    assert_eq!(ann.end().code(), Some(130));
    ann.see("not known to be stored:\n  ann: three");
}

/// Starts the only server of a group, and a chat with it in a terminal.
fn person_at(group: &mut Group, user: &str) -> Terminal {
    group.start(1);
    group.wait_members(1);
    person(&group.servers[0], user)
}

#[test]
fn a_hidden_password_leaves_no_trace() {
    let group = Group::alone();
    group.client(1, "ann");
    let mut command = with_password(&group.servers[0], "ann");
    command.arg("-vv");
    let mut ann = Terminal::run(&command);
    // A line of the log may follow.
    ann.see("1 copy >");
    ann.type_in("/passwd\r");
    ann.see("Old password:");
    // Kills the line and searches the history; later yanks the killed text at the next prompt.
    ann.type_in("geheim-1\x15\x12geheim");
    ann.see("Old password: *");
    ann.type_in("\x03");
    ann.wait("a prompt after the note", |screen| {
        let after = screen.split_once("-- nothing was changed");
        after.is_some_and(|(_, rest)| rest.contains("1 copy >"))
    });
    ann.type_in("\x19@ann hi\r");
    ann.see(" ann: hi");
    let shown = String::from_utf8_lossy(&ann.shown).into_owned();
    assert!(!shown.contains("geheim"), "{shown}");
    assert_eq!(group.mailbox(1, "ann"), ["hi"]);
}

#[test]
fn without_a_server_nothing_hangs() {
    let mut group = Group::alone();
    group.client(1, "ann");
    let mut ann = person(&group.servers[0], "ann");
    group.kill(1);
    ann.see("-- lost ");
    ann.type_in("/who\r");
    ann.see("-- there is no server to ask");
    ann.type_in("/passwd\rcorrect-horse\rother-horse\rother-horse\r");
    ann.wait("two refusals", |screen| screen.matches("-- there is no server to ask").count() == 2);
    ann.type_in("@ann important\r");
    ann.see("1 under way ann>");
    group.start(1);
    ann.see(" ann: important");
    ann.type_in("\x04");
    assert_eq!(ann.end().code(), Some(0));
}

#[test]
fn a_pipe_of_which_something_was_not_sent_ends_with_1() {
    let group = Group::alone();
    group.client(1, "ann");
    let long = format!("@ann {}\n", "x".repeat(10_000));
    let inputs: [&[u8]; 5] =
        [b"hello\n", b"@.x hi\n", b"/nonsense\n", b"@ann caf\xe9\n", long.as_bytes()];
    for input in inputs {
        let mut piped = with_password(&group.servers[0], "ann");
        piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut piped = piped.spawn().unwrap();
        piped.stdin.take().unwrap().write_all(&[input, b"@ann behind it\n"].concat()).unwrap();
        let output = piped.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    assert_eq!(group.mailbox(1, "ann"), ["behind it"; 5]);
}

#[test]
fn without_a_terminal_it_is_a_command() {
    let group = Group::alone();
    group.client(1, "ann");
    group.client(1, "bob");
    let mut piped = with_password(&group.servers[0], "ann");
    piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut piped = piped.spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"@bob one\ntwo\n@ann to myself\n").unwrap();
    let output = piped.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(group.mailbox(1, "bob"), ["one", "two"]);
    // A terminal that cannot move its cursor.
    let mut dumb = with_password(&group.servers[0], "bob");
    dumb.env("TERM", "dumb");
    let mut bob = Terminal::run(&dumb);
    bob.see(" ann: two");
    bob.type_in("@ann hi\n/who\n");
    bob.see("-- 1 online: bob");
    bob.type_in("\x04");
    assert_eq!(bob.end().code(), Some(0));
    assert!(!bob.shown.contains(&0x1b), "{:?}", String::from_utf8_lossy(&bob.shown));
    assert_eq!(group.mailbox(1, "ann"), ["to myself", "hi"]);
}

/// Relays bytes between a client and a server, and can be closed.
struct Relay {
    address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    open: bool,
    sockets: Vec<TcpStream>,
}

impl Relay {
    fn to(server: &str) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { open: true, sockets: Vec::new() }));
        let (shared, server, own) = (Arc::clone(&state), server.to_owned(), address.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut state = shared.lock().unwrap();
                if state.open {
                    let stream = TcpStream::connect(&server).expect("the server runs");
                    copy(&client, &stream, <[u8]>::to_vec);
                    let (name, own) = (server.clone(), own.clone());
                    let renamed = move |bytes: &[u8]| {
                        String::from_utf8_lossy(bytes).replace(&name, &own).into()
                    };
                    copy(&stream, &client, renamed);
                    state.sockets.extend([client, stream]);
                }
            }
        });
        Relay { address, state }
    }

    fn open(&self, open: bool) {
        let mut state = self.state.lock().unwrap();
        state.open = open;
        for socket in state.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn copy(from: &TcpStream, to: &TcpStream, change: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&change(&buffer[..count])).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
