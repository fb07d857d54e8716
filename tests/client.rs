//! Programs that use `postern::client` send each message once and receive each message once, in
//! order, whatever happens to servers. They find the primary from any server, and wait no longer
//! than they want to.

mod common;

use common::Group;
use postern::client::{Account, After, Client, Error, Event};
use postern::rng::Rng;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

fn ann() -> Account {
    Account::new("ann", "correct-horse").created()
}

/// Returns the next event, which must arrive in time.
fn next(client: &mut Client) -> Event {
    let event = client.next(Some(common::DEADLINE)).expect("it goes on");
    event.expect("something happens")
}

#[test]
fn one_that_sends_to_itself_misses_nothing_through_failovers() {
    let seed = RandomState::new().hash_one("client");
    eprintln!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut group = Group::open();
    let mut client = Client::new(group.servers.clone(), ann().after(After::Number(0))).unwrap();
    let (mut sent, mut stored, mut shown, mut losses) = (0, 0, 0, 0);
    for _ in 0..5 {
        let primary = group.wait_members(3);
        let until = stored + 1 + rng.below(300);
        let kill_at = stored + rng.below(until - stored);
        let mut killed = false;
        while stored < until || shown < until {
            if !killed && stored >= kill_at {
                group.kill(primary);
                killed = true;
            }
            if sent < until && client.has_room() {
                sent += 1;
                client.submit("ann", &format!("text {sent}")).unwrap();
                continue;
            }
            match next(&mut client) {
                Event::Stored { number, .. } => {
                    stored += 1;
                    assert_eq!(number, stored);
                }
                Event::Message(message) => {
                    shown += 1;
                    assert_eq!((message.number, message.text), (shown, format!("text {shown}")));
                }
                Event::Lost { .. } => losses += 1,
                Event::Connected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        group.start(primary);
    }
    assert_eq!(client.unanswered(), 0);
    assert!(losses >= 1, "the primary was killed under it");
    let primary = group.wait_members(3);
    assert_eq!(group.mailbox(primary, "ann").len() as u64, sent);
}

#[test]
fn any_server_leads_to_the_primary() {
    let group = Group::open();
    let primary = group.wait_members(3);
    for (at, server) in group.servers.iter().enumerate() {
        let mut client = Client::new(vec![server.clone()], ann()).unwrap();
        assert_eq!(client.send("ann", "hi").unwrap(), at as u64 + 1);
        assert_eq!(client.server(), Some(&group.servers[primary - 1][..]));
        assert_eq!(client.copies(), 3);
    }
}

#[test]
fn questions_are_answered_and_passwords_changed() {
    let group = Group::alone();
    group.client(1, "bob");
    let mut client = Client::new(group.servers.clone(), ann()).unwrap();
    let users = client.list("*").unwrap();
    assert_eq!(users, [("ann".to_owned(), true), ("bob".to_owned(), false)]);
    assert_eq!(client.list("x*").unwrap(), []);
    let refused = client.change_password("wrong-horse", "other-horse").unwrap_err();
    assert!(matches!(&refused, Error::Refused(why) if why.code == "wrong-password"), "{refused}");
    client.change_password("correct-horse", "other-horse").unwrap();
    let refused = Client::new(group.servers.clone(), Account::new("ann", "correct-horse"))
        .unwrap()
        .send("ann", "hi");
    assert!(refused.unwrap_err().to_string().ends_with(" (wrong-password)"));
}

#[test]
fn after_a_restart_the_new_password_is_used() {
    let mut group = Group::alone();
    let mut client = Client::new(group.servers.clone(), ann()).unwrap();
    assert_eq!(client.send("ann", "one").unwrap(), 1);
    client.change_password("correct-horse", "other-horse").unwrap();
    group.kill(1);
    group.start(1);
    assert_eq!(client.send("ann", "two").unwrap(), 2);
}

#[test]
fn nobody_waits_longer_than_wanted() {
    // One refuses connections, one accepts them and sends nothing, and one is no postern server.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let servers = [&free, &other, &silent].map(|l| l.local_addr().unwrap().to_string());
    drop(free);
    thread::spawn(move || {
        for mut stream in other.incoming().map_while(Result::ok) {
            let _ = std::io::Write::write_all(&mut stream, b"220 mail.example.com ESMTP\r\n");
            let _ = stream.read(&mut [0; 100]);
        }
    });
    let mut client = Client::new(servers[..2].to_vec(), ann()).unwrap();
    client.set_patience(Some(Duration::from_millis(300)));
    let refused = client.send("ann", "hi").unwrap_err();
    let Error::NoPrimary(said) = &refused else { panic!("{refused}") };
    assert!(said.contains(&format!("{}: refused", servers[0])), "{said}");
    assert!(said.contains(&format!("{}: it does not speak as", servers[1])), "{said}");
    assert_eq!((client.unanswered(), client.in_doubt()), (1, 0), "it was never sent");

    let mut client = Client::new(servers[2..].to_vec(), ann()).unwrap();
    let waker = client.waker();
    assert!(client.next(Some(Duration::from_millis(10))).unwrap().is_none(), "time is up");
    thread::spawn(move || waker.wake());
    assert!(client.next(None).unwrap().is_none(), "it was woken");
}
