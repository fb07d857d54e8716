//! Tests that configure, start and stop servers. Each test has its own servers.

use crate::common::{Client, DEADLINE, Group, postern, run};
use crate::scene::foreign;
use crate::status;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Creates a group with these settings besides the usual ones; none of its servers runs.
fn own(count: usize, settings: &str) -> Option<Group> {
    if foreign().is_some() {
        eprintln!("skipped: POSTERN_ADDR names a server that this suite does not control");
        return None;
    }
    let group = Group::new(count);
    let text = std::fs::read_to_string(group.config()).expect("a config");
    std::fs::write(group.config(), format!("{text}{settings}\n")).expect("a config");
    Some(group)
}

/// Starts a group with these settings. Returns it and its primary.
pub(crate) fn running(count: usize, settings: &str) -> Option<(Group, usize)> {
    let mut group = own(count, settings)?;
    (1..=count).for_each(|n| group.start(n));
    let primary = group.wait_members(count);
    Some((group, primary))
}

pub(crate) fn others(primary: usize) -> [usize; 2] {
    [[2, 3], [1, 3], [1, 2]][primary - 1]
}

/// Requests that only a primary executes.
const OF_A_PRIMARY: [&str; 9] = [
    "CREATE ann correct-horse",
    "LOGIN ann correct-horse",
    "SEND ann hi",
    "ONCE k ann hi",
    "LOG",
    "LIST",
    "PASSWD correct-horse new-password",
    "DELETE ann correct-horse",
    "LOGOUT",
];

/// Sends the requests that only a primary executes, and those that every server executes.
fn only_four_work(client: &mut Client, refusal: &str) {
    for line in OF_A_PRIMARY {
        let answer = client.ask(line);
        assert!(answer.starts_with(refusal), "{line}: {answer}");
    }
    assert_eq!(client.ask("HELP"), "OK");
    assert_eq!(client.ask("PING x"), "OK x");
    assert_eq!(client.ask("STATUS"), "OK");
    assert_eq!(client.ask("QUIT"), "OK bye");
    assert_eq!(client.rest(), Vec::<String>::new());
}

#[test]
fn a_backup_names_the_primary_and_answers_four_requests() {
    let Some((group, primary)) = running(3, "") else { return };
    let refusal = format!("ERR not-primary {} ", group.servers[primary - 1]);
    for backup in others(primary) {
        group.wait(backup, "past the gate", |status| status["gate"] == "open");
        only_four_work(&mut group.connect(backup), &refusal);
    }
}

#[test]
fn before_the_gate_is_open_a_server_says_who_is_missing() {
    let Some(mut group) = own(3, "") else { return };
    group.start(2);
    let mut client = group.connect(2);
    let answer = client.ask("CREATE ann correct-horse");
    assert!(["server 1", "server 3"].iter().all(|who| answer.contains(who)), "{answer}");
    only_four_work(&mut client, "ERR not-ready ");
    let status = status::ask(&mut group.connect(2));
    status::check(&status);
    assert_eq!(status["gate"], "closed");
}

#[test]
fn without_a_primary_the_way_on_is_told() {
    let Some((mut group, primary)) = running(3, "") else { return };
    let [left, other] = others(primary);
    group.kill(other);
    assert_eq!(group.wait_members(2), primary);
    group.kill(primary);
    group.wait(left, "without a primary", |status| status["primary"] == "-");
    let answer = group.connect(left).ask("LOGIN ann correct-horse");
    for words in ["ERR not-primary - ", &format!("server {primary}"), "postern recover"] {
        assert!(answer.contains(words), "{words} is not in: {answer}");
    }
    status::check(&status::ask(&mut group.connect(left)));
}

#[test]
fn every_server_has_a_status() {
    let Some((group, primary)) = running(3, "") else { return };
    for n in 1..=3 {
        group.wait(n, "past the gate", |status| status["gate"] == "open");
        let status = status::ask(&mut group.connect(n));
        status::check(&status);
        assert_eq!(status["role"], if n == primary { "primary" } else { "backup" });
        assert_eq!(status["primary"], format!("{primary} {}", group.servers[primary - 1]));
        assert_eq!(status["members"].split(',').count(), 3);
        let states = others(n).map(|other| status[&format!("peer_{other}_state")].clone());
        assert!(n != primary || states == ["member", "member"], "{states:?}");
    }
}

#[test]
fn a_key_is_remembered_on_all_servers() {
    let Some((mut group, first)) = running(3, "") else { return };
    assert_eq!(group.client(first, "ann").ask("ONCE k ann hello"), "OK 1");
    group.kill(first);
    let second = group.wait_members(2);
    let mut ann = group.client(second, "ann");
    assert_eq!(ann.ask("ONCE k ann hello"), "OK 1");
    assert!(ann.ask("ONCE k ann other").starts_with("ERR key-reused "));
    assert_eq!(ann.ask("LOG"), "OK 1");
}

#[test]
fn a_key_is_remembered_for_the_next_262144_entries() {
    let Some((group, _)) = running(1, "") else { return };
    drop(group.client(1, "bob"));
    let mut ann = group.client(1, "ann");
    assert_eq!(ann.ask("ONCE k bob hello"), "OK 1");
    let mut writer = ann.stream.try_clone().expect("a socket");
    let sender = thread::spawn(move || writer.write_all("SEND bob x\n".repeat(262_144).as_bytes()));
    (2..=262_145).for_each(|n| assert_eq!(ann.line(), format!("OK {n}")));
    sender.join().expect("a thread").expect("the server reads");
    assert_eq!(ann.ask("ONCE k bob hello"), "OK 1", "it is remembered up to here");
    assert_eq!(ann.ask("SEND bob x"), "OK 262146");
    assert_eq!(ann.ask("ONCE k bob hello"), "OK 262147", "and no further");
}

#[test]
fn with_too_few_copies_changes_are_refused_and_reads_go_on() {
    let Some((mut group, primary)) = running(3, "min_copies = 3") else { return };
    let mut ann = group.client(primary, "ann");
    assert_eq!(ann.ask("ONCE k ann hello"), "OK 1");
    group.kill(others(primary)[0]);
    group.wait(primary, "one is gone", |status| status["members"].split(',').count() == 2);
    let changes = [
        "SEND ann hi",
        "ONCE new ann hi",
        "CREATE bob correct-horse",
        "PASSWD correct-horse new-password",
        "DELETE ann correct-horse",
    ];
    for change in changes {
        let answer = ann.ask(change);
        assert!(answer.starts_with("ERR too-few-copies "), "{change}: {answer}");
    }
    for (line, expected) in [("LOG", "OK 1"), ("LIST", "OK 1"), ("LOGOUT", "OK")] {
        assert_eq!(ann.ask(line), expected);
    }
    assert_eq!(ann.ask("LOGIN ann correct-horse"), "OK ann 1");
    assert_eq!(ann.ask("ONCE k ann hello"), "OK 1", "a remembered key is answered first");
    assert!(ann.ask("ONCE k ann other").starts_with("ERR key-reused "));
}

#[test]
fn a_server_that_stops_says_so_to_all_and_closes() {
    let Some((mut group, _)) = running(1, "") else { return };
    let (mut ann, mut eve) = (group.client(1, "ann"), group.connect(1));
    assert_eq!(eve.ask("PING x"), "OK x");
    assert_eq!(group.terminate(1), Some(0));
    for lines in [ann.rest(), eve.rest()] {
        assert!(lines.len() == 1 && lines[0].starts_with("NOTE stopping "), "{lines:?}");
    }
}

#[test]
fn a_server_that_stops_being_primary_says_so_and_closes() {
    let Some((group, primary)) = running(3, "") else { return };
    let (mut ann, mut eve) = (group.client(primary, "ann"), group.connect(primary));
    assert_eq!(eve.ask("PING x"), "OK x");
    let mut handover = postern();
    handover.arg("handover").arg("--config").arg(group.config());
    assert!(run(handover).status.success());
    for lines in [ann.rest(), eve.rest()] {
        assert!(lines.len() == 1 && lines[0].starts_with("NOTE not-primary "), "{lines:?}");
    }
}

#[test]
fn who_does_not_log_in_is_told_and_let_go() {
    let Some((group, _)) = running(1, "login_timeout_s = 1") else { return };
    let mut ann = group.client(1, "ann");
    let mut eve = group.connect(1);
    assert_eq!(eve.ask("PING x"), "OK x");
    let mut half = group.connect(1);
    half.send_bytes(b"LOGIN ann corr");
    for client in [&mut eve, &mut half] {
        let lines = client.rest();
        assert!(lines.len() == 1 && lines[0].starts_with("NOTE login-timeout "), "{lines:?}");
    }
    assert_eq!(ann.ask("PING who is logged in may be idle"), "OK who is logged in may be idle");
}

#[test]
fn a_login_that_waits_for_its_turn_is_not_let_go() {
    let Some((group, _)) = running(1, "login_timeout_s = 1") else { return };
    let mut clients: Vec<Client> = (0..100).map(|_| group.connect(1)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&format!("CREATE user{n} correct-horse"));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.line(), format!("OK user{n}"));
    }
}

#[test]
fn who_logs_out_has_to_log_in_again_in_time() {
    let Some((group, _)) = running(1, "login_timeout_s = 1") else { return };
    let mut ann = group.client(1, "ann");
    assert_eq!(ann.ask("LOGOUT"), "OK");
    assert!(ann.line().starts_with("NOTE login-timeout "));
    assert_eq!(ann.rest(), Vec::<String>::new());
}

#[test]
fn who_sends_nothing_at_all_is_let_go() {
    let Some((group, _)) = running(1, "login_timeout_s = 1") else { return };
    let lines = group.connect(1).rest();
    assert!(lines.iter().all(|line| line.starts_with("NOTE login-timeout ")), "{lines:?}");
}

#[test]
fn who_sends_nothing_at_all_gets_a_note() {
    let Some((group, _)) = running(1, "login_timeout_s = 1") else { return };
    let lines = group.connect(1).rest();
    assert!(lines.len() == 1 && lines[0].starts_with("NOTE login-timeout "), "{lines:?}");
}

#[test]
fn an_empty_line_is_no_request_that_keeps_a_connection() {
    let Some((group, _)) = running(1, "login_timeout_s = 1") else { return };
    let mut eve = group.connect(1);
    eve.stream.set_nonblocking(true).expect("a socket");
    let end = Instant::now() + Duration::from_secs(3);
    let mut first = [0];
    while eve.stream.read(&mut first).is_err() {
        assert!(Instant::now() < end, "empty lines keep it");
        eve.send("");
    }
}

#[test]
fn over_max_clients_a_client_is_told_busy_and_closed() {
    let Some((group, _)) = running(1, "max_clients = 2") else { return };
    // Connections that checked whether the server is ready may still be counted for a moment.
    let enter = || {
        let end = Instant::now() + DEADLINE;
        loop {
            let mut client = group.connect(1);
            client.send("PING x");
            if client.try_line().is_some_and(|line| line == "OK x") {
                return client;
            }
            assert!(Instant::now() < end, "there is room, and nobody is let in");
        }
    };
    let mut inside = [enter(), enter()];
    for _ in 0..20 {
        let mut client = group.connect(1);
        client.send("PING x");
        let lines = client.rest();
        assert!(lines.len() == 1 && lines[0].starts_with("ERR busy "), "{lines:?}");
    }
    assert!(inside.iter_mut().all(|client| client.ask("PING y") == "OK y"));
    drop(inside);
    enter();
}

#[test]
fn who_has_sent_nothing_yet_counts_among_the_clients() {
    let Some((group, _)) = running(1, "max_clients = 1") else { return };
    let end = Instant::now() + DEADLINE;
    let (mut silent, mut refused) = (group.connect(1), group.connect(1));
    loop {
        refused.send("PING x");
        if refused.try_line().is_some_and(|line| line.starts_with("ERR busy ")) {
            break;
        }
        assert!(Instant::now() < end, "a silent one takes no place");
        refused = group.connect(1);
        silent = group.connect(1);
    }
    drop(silent);
}

#[test]
fn peers_get_in_however_many_clients_there_are() {
    let Some((mut group, primary)) = running(3, "max_clients = 1") else { return };
    let backup = others(primary)[0];
    group.kill(backup);
    let mut crowd: Vec<Client> = (0..50).map(|_| group.connect(primary)).collect();
    group.start(backup);
    group.wait(backup, "attached again", |status| {
        status["role"] == "backup" && status["members"].split(',').count() == 3
    });
    crowd.iter_mut().for_each(|client| client.send("PING x"));
    let served = crowd.iter_mut().filter_map(Client::try_line).filter(|line| line == "OK x");
    assert!(served.count() <= 1);
}

#[test]
fn when_too_many_logins_wait_the_next_one_is_told_busy() {
    let Some((group, _)) = running(1, "") else { return };
    let mut clients: Vec<Client> = (0..400).map(|_| group.connect(1)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&format!("PING it is here\nCREATE user{n} correct-horse"));
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.line(), "OK it is here"));
    let mut late = group.connect(1);
    let answer = late.ask("CREATE late correct-horse");
    assert!(answer.starts_with("ERR busy "), "{answer}");
    assert_eq!(late.ask("PING it goes on"), "OK it goes on");
}

/// Opens a connection from an address that other clients do not use.
fn connect_from(group: &Group, address: &str) -> Client {
    let server: SocketAddr = group.servers[0].parse().expect("an address");
    let from: SocketAddr = format!("{address}:0").parse().expect("an address");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::from(from)).expect("all of 127 is this machine");
    socket.connect(&server.into()).expect("the server listens");
    Client::over(socket.into()).expect("a connection")
}

#[test]
fn after_five_wrong_passwords_for_a_name_the_right_one_waits_too() {
    let Some((group, _)) = running(1, "") else { return };
    ["ann", "bob"].into_iter().for_each(|user| drop(group.client(1, user)));
    let mut eve = connect_from(&group, "127.7.7.7");
    for n in 1..=5 {
        let answer = eve.ask("LOGIN ann wrong-horse");
        assert!(answer.starts_with("ERR wrong-password "), "{n}: {answer}");
    }
    assert!(eve.ask("LOGIN ann wrong-horse").starts_with("ERR too-many-attempts "));
    assert!(eve.ask("LOGIN ann correct-horse").starts_with("ERR too-many-attempts "));
    assert_eq!(eve.ask("LOGIN bob correct-horse"), "OK bob 0", "another name");
    assert_eq!(connect_from(&group, "127.7.7.8").ask("LOGIN ann correct-horse"), "OK ann 0");
}

#[test]
fn passwords_of_passwd_and_delete_are_counted_too() {
    let Some((group, _)) = running(1, "") else { return };
    let mut ann = group.client(1, "ann");
    let wrong = ["PASSWD wrong-horse new-password", "DELETE ann wrong-horse"];
    for n in 1..=5 {
        let answer = ann.ask(wrong[n % 2]);
        assert!(answer.starts_with("ERR wrong-password "), "{n}: {answer}");
    }
    for right in ["PASSWD correct-horse new-password", "DELETE ann correct-horse"] {
        assert!(ann.ask(right).starts_with("ERR too-many-attempts "), "{right}");
    }
}

#[test]
fn after_twenty_wrong_passwords_an_address_waits_with_every_name() {
    let Some((group, _)) = running(1, "") else { return };
    let users = ["ann", "bob", "cyd", "dot", "eve"];
    users.into_iter().for_each(|user| drop(group.client(1, user)));
    let mut client = connect_from(&group, "127.7.7.7");
    for n in 0..20 {
        let answer = client.ask(&format!("LOGIN {} wrong-horse", users[n % 5]));
        assert!(answer.starts_with("ERR wrong-password "), "{n}: {answer}");
    }
    assert!(client.ask("LOGIN eve correct-horse").starts_with("ERR too-many-attempts "));
    assert_eq!(connect_from(&group, "127.7.7.8").ask("LOGIN eve correct-horse"), "OK eve 0");
}

#[test]
fn where_the_operator_makes_accounts_clients_do_not() {
    let Some((group, _)) = running(1, "accounts = \"operator\"") else { return };
    let mut ann = group.connect(1);
    let answer = ann.ask("CREATE ann correct-horse");
    assert!(answer.starts_with("ERR not-allowed "), "{answer}");
    assert!(ann.ask("LOGIN ann correct-horse").starts_with("ERR wrong-password "));
}
