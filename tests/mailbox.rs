//! LOGIN shows the whole log of the user, then new messages. Numbers have no gap, and an
//! account's changes reach its other sessions.

mod common;

use common::Group;

#[test]
fn login_replays_and_then_pushes() {
    let group = Group::alone();
    let mut ann = group.client(1, "ann");
    group.client(1, "bob");
    for n in 1..=5 {
        assert_eq!(ann.ask(&format!("SEND bob m{n}")), format!("OK {n}"));
    }
    let mut bob = group.connect(1);
    bob.send("LOGIN bob correct-horse 2");
    for n in 3..=5 {
        let line = bob.line();
        assert!(line.starts_with(&format!("MSG {n} ")) && line.ends_with(&format!("ann m{n}")));
    }
    assert_eq!(bob.line(), "OK bob 5");
    assert_eq!(ann.ask("SEND bob live"), "OK 6");
    assert!(bob.line().ends_with(" ann live"));
    bob.send("LOG 4 1");
    assert!(bob.line().starts_with("MSG 5 "));
    assert_eq!(bob.line(), "OK 5");
    assert_eq!(bob.ask("LOG end"), "OK 6");
    assert!(bob.ask("LOG 7").starts_with("ERR bad-argument"));
    assert_eq!(bob.ask("LOGOUT"), "OK");
    bob.send("LOGIN bob correct-horse -1");
    assert!(bob.line().starts_with("MSG 6 "));
    assert_eq!(bob.line(), "OK bob 6");
}

#[test]
fn an_ok_comes_before_the_message_that_it_caused() {
    let group = Group::alone();
    let mut ann = group.client(1, "ann");
    for n in 1..=20 {
        ann.send(&format!("SEND ann x{n}"));
    }
    let mut answered = 0;
    let mut pushed = 0;
    while pushed < 20 {
        match ann.line().split(' ').collect::<Vec<_>>()[..] {
            ["OK", n] => {
                answered += 1;
                assert_eq!(n, answered.to_string());
            }
            ["MSG", n, ..] => {
                pushed += 1;
                assert_eq!(n, pushed.to_string());
                assert!(answered >= pushed, "message {pushed} came before its OK");
            }
            _ => panic!("neither OK nor MSG"),
        }
    }
}

#[test]
fn passwords_and_deletion_close_the_other_sessions() {
    let group = Group::alone();
    let mut desk = group.client(1, "ann");
    let mut phone = group.client(1, "ann");
    assert!(desk.ask("PASSWD wrong-horse new-password").starts_with("ERR wrong-password"));
    assert_eq!(desk.ask("PASSWD correct-horse new-password"), "OK");
    assert!(phone.rest().last().unwrap().starts_with("NOTE password-changed"));
    let mut phone = group.connect(1);
    assert!(phone.ask("LOGIN ann correct-horse").starts_with("ERR wrong-password"));
    assert!(phone.ask("LOGIN nobody correct-horse").starts_with("ERR wrong-password"));
    assert_eq!(phone.ask("LOGIN ann new-password"), "OK ann 0");
    assert_eq!(desk.ask("SEND ann gone soon"), "OK 1");
    assert_eq!(desk.ask("DELETE ann new-password"), "OK");
    assert_eq!(desk.rest(), Vec::<String>::new());
    assert!(phone.rest().last().unwrap().starts_with("NOTE deleted"));
    let mut again = group.client(1, "ann");
    assert_eq!(again.ask("LOG"), "OK 0", "a new account of that name starts empty");
}

#[test]
fn users_are_listed_by_name() {
    let group = Group::alone();
    let mut ann = group.client(1, "ann");
    drop(group.client(1, "bob"));
    group.wait(1, "bob is gone", |status| status["sessions"] == "1");
    ann.send("LIST");
    assert_eq!(ann.line(), "USER ann online");
    assert_eq!(ann.line(), "USER bob offline");
    assert_eq!(ann.line(), "OK 2");
    assert_eq!(ann.ask("LIST *x*"), "OK 0");
}
