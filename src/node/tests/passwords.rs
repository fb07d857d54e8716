//! Verified passwords are remembered, and guesses are slowed down.

use super::*;

#[test]
fn a_password_that_was_right_is_not_hashed_again() {
    let mut world = World::new();
    let before = world.hashed;
    for (line, answer) in [
        ("LOGIN ann correct-horse", "OK ann 0\n"),
        ("LOGIN ann wrong-horse", "ERR wrong-password "),
        ("LOGIN bob correct-horse", "OK bob 0\n"),
    ] {
        let said = world.visit(HERE, &[line]);
        assert!(said.starts_with(answer), "{line}: {said}");
    }
    assert_eq!(world.hashed, before, "both were logged in once");

    let ann = UserName::parse("ann").unwrap();
    let old = world.node.mailboxes.account(ann).unwrap().password_set;
    world.line(ANN, "PASSWD correct-horse other-horse");
    assert_eq!(world.said(ANN), "OK\n");
    assert_eq!(world.hashed, before + 1, "the new one");
    // The old password arrives late at a server that has applied the new one.
    world.node.logins.passwords.add(ann, old, "correct-horse");
    let said = world.visit(HERE, &["LOGIN ann correct-horse", "LOGIN ann other-horse"]);
    let codes: Vec<&str> = said.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(codes, ["wrong-password", "ann"], "{said}");
    assert_eq!(world.hashed, before + 3);

    // A new account of the same name is a different account.
    world.line(ANN, "DELETE ann other-horse");
    let said = world.visit(HERE, &["CREATE ann third-horse", "LOGIN ann other-horse"]);
    assert!(said.ends_with("ERR wrong-password the name or the password is wrong\n"), "{said}");
}

#[test]
fn who_guesses_waits_and_so_does_the_right_password() {
    let mut world = World::new();
    let there = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let code = |said: &str| said.split(' ').nth(1).unwrap().to_owned();
    for _ in 0..5 {
        let said = world.visit(there, &["LOGIN ann wrong-horse"]);
        assert_eq!(code(&said), "wrong-password");
    }
    let before = world.hashed;
    for line in ["LOGIN ann wrong-horse", "LOGIN ann correct-horse"] {
        let said = world.visit(there, &[line]);
        assert_eq!(code(&said), "too-many-attempts", "{said}");
    }
    assert_eq!(world.hashed, before, "nothing is looked at");
    assert_eq!(code(&world.visit(HERE, &["LOGIN ann correct-horse"])), "ann", "from elsewhere");
    assert_eq!(code(&world.visit(there, &["LOGIN bob correct-horse"])), "bob", "another name");
    // Guesses at accounts that do not exist count against the address as well.
    for n in 0..15 {
        let said = world.visit(there, &[&format!("LOGIN nobody{n} wrong-horse")]);
        assert_eq!(code(&said), "wrong-password");
    }
    assert_eq!(code(&world.visit(there, &["LOGIN bob correct-horse"])), "too-many-attempts");
    world.now += Duration::from_secs(60);
    assert_eq!(code(&world.visit(there, &["LOGIN ann correct-horse"])), "ann");
}
