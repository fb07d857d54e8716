//! Each target runs some cases from a fixed seed. Planted defects are found.

use super::case::{Case, mutate_bytes};
use super::catch;
use super::run::{case, corpus};
use super::shrink::shrink;
use super::target::{Target, Which};
use super::victim::{Start, Victim};
use postern::replica::RoleView;
use postern::rng::Rng;

const SEED: u64 = 1;
const CASES: u64 = 200;

/// Runs the corpus and some cases. A finding fails the test.
fn run(which: Which) {
    let [target] = which.targets() else { panic!("one target") };
    let corpus = corpus(target).unwrap();
    let known = corpus.iter().map(|(path, case)| (path.display().to_string(), case.clone()));
    let fresh = (0..CASES).map(|n| (format!("case {n}"), case(target, SEED, n, &corpus)));
    for (name, case) in known.chain(fresh) {
        let found = catch::check(target, &case);
        assert_eq!(found, None, "{name} of {}:\n{}", target.name, case.to_text());
    }
}

/// Declares a test for each target.
macro_rules! find_nothing {
    ($($test:ident: $target:ident),+) => { $(#[test] fn $test() { run(Which::$target); })+ };
}

find_nothing!(lines: Lines, packets: Packets, channel: Channel, directory: Directory);
find_nothing!(settings: Settings, client: Client);

#[test]
fn cases_are_the_same_for_the_same_seed() {
    for target in Which::All.targets() {
        for n in 0..20 {
            assert_eq!(case(target, 7, n, &[]), case(target, 7, n, &[]), "{}", target.name);
        }
        let differ = (0..20).filter(|n| case(target, 7, *n, &[]) != case(target, 8, *n, &[]));
        assert!(differ.count() > 15, "{}", target.name);
    }
}

#[test]
fn cases_survive_their_text() {
    let mut rng = Rng::new(3);
    for target in Which::All.targets() {
        for n in 0..50 {
            let mut case = case(target, 7, n, &[]);
            for piece in &mut case.0 {
                mutate_bytes(piece, &mut rng, b" #\\\n");
            }
            assert_eq!(Case::from_text(&case.to_text()), Ok(case), "{}", target.name);
        }
    }
    assert!(Case::from_text("a\n\\xg0").unwrap_err().starts_with("line 2"));
}

#[test]
fn victims_start_in_their_roles() {
    let starts = [
        (Start::Blank, RoleView::Blank),
        (Start::Learner, RoleView::Learner),
        (Start::Backup, RoleView::Backup),
        (Start::Candidate, RoleView::Candidate),
        (Start::Primary, RoleView::Primary),
    ];
    for (me, (start, expected)) in (1..=3).flat_map(|me| starts.map(|start| (me, start))) {
        let victim = Victim::start(me, start, 1, false).unwrap();
        let replica = victim.process.node().replica();
        assert_eq!(replica.role(), expected, "server {me}");
        assert_eq!(replica.gate_open(), start != Start::Blank, "server {me}, {start:?}");
    }
}

/// Makes eight pieces of a few bytes.
fn planted(rng: &mut Rng) -> Case {
    let piece = |rng: &mut Rng| (0..rng.below(6)).map(|_| rng.below(256) as u8).collect();
    Case((0..8).map(|_| piece(rng)).collect())
}

#[test]
fn a_planted_panic_is_found_and_shrunk() {
    let target = Target {
        name: "planted",
        generate: planted,
        check: |case| {
            let sevens = case.0.iter().filter(|piece| piece.contains(&7)).count();
            assert!(sevens < 2, "two sevens");
            Ok(())
        },
    };
    let mut found = (0..20_000).filter_map(|n| {
        let case = case(&target, SEED, n, &[]);
        catch::check(&target, &case).map(|finding| (finding, case))
    });
    let (finding, case) = found.next().expect("some case has two sevens");
    assert!(finding.name.starts_with("panic at tools/sim/src/fuzz/tests.rs:"), "{finding:?}");
    assert_eq!(finding.message, "two sevens");
    assert_eq!(shrink(&target, case, &finding).0, [[7], [7]]);
}

#[test]
fn a_planted_wrong_answer_is_found() {
    let mut session = super::session::ClientSession::default();
    session.send(b"PING one\nFOO\nSEND ann hi\n");
    session.receive(b"OK one\nERR bad-command unknown\nMSG 1 t ann hi\nOK 1\n").unwrap();
    for wrong in ["OK two\n", "ERR bad-command x\n", "OK one\nOK\n", "WHAT\n", "NOTE x\nOK one\n"] {
        let mut session = super::session::ClientSession::default();
        session.send(b"PING one\nFOO\n");
        session.receive(wrong.as_bytes()).expect_err(wrong);
    }
    let mut session = super::session::ClientSession::default();
    session.open(crate::simulate::ConnId(1));
    session.send(b"PING one\n");
    assert!(session.check_end().unwrap_err().starts_with("requests are not answered"));
}
