//! Guards the refusals of the README's table *Hello*: a server refuses a hello that does not fit,
//! for the first reason that holds, and links with every other server.

use super::hellos::*;

/// Returns server 1, the primary of a healthy group, and a correct hello of server 2.
fn primary() -> (Server, Hello) {
    let mut one = formed().take(1);
    one.advance(ms(1));
    let hello = Hello { last: one.last(), ..one.hello_of(2) };
    (one, hello)
}

/// Returns the answers to a changed hello of server 2, and the server that gave them.
fn answers(change: impl Fn(&mut Hello)) -> (Vec<Packet>, Server) {
    let (mut one, mut hello) = primary();
    change(&mut hello);
    let link = one.new_link(2);
    let out = first(&mut one, link, false, Packet::Hello(hello));
    (out.sent(2), one)
}

#[test]
fn a_correct_hello_is_answered() {
    let (sent, _) = answers(|_| ());
    assert!(matches!(sent[..], [Packet::Hello(_), ..]), "{sent:?}");
}

#[test]
fn each_wrong_hello_is_refused_for_its_own_reason() {
    type Change = fn(&mut Hello);
    let table: [(Change, Refusal, Rule); 12] = [
        (|h| h.shared.group.0 ^= 1, Refusal::Group, Rule::RefusedGroup),
        (|h| h.shared.peer_timeout_ms += 1, Refusal::Settings, Rule::RefusedSettings),
        (|h| h.shared.servers = 1, Refusal::Settings, Rule::RefusedSettings),
        (|h| h.shared.copies_min = 3, Refusal::Settings, Rule::RefusedSettings),
        (|h| h.shared.survivor_auto ^= true, Refusal::Settings, Rule::RefusedSettings),
        (|h| h.from.id = id(1), Refusal::SameId, Rule::RefusedSameId),
        (|h| h.to = id(3), Refusal::WrongId, Rule::RefusedWrongId),
        (|h| h.run.incarnation.0 -= 1, Refusal::OldCopy, Rule::RefusedOldIncarnation),
        (|h| h.run.process.0 ^= 1, Refusal::OldCopy, Rule::RefusedCopy),
        (
            |h| {
                // Its next incarnation lacks what this one acknowledged.
                (h.run.incarnation.0, h.run.process.0) = (h.run.incarnation.0 + 1, 77);
                h.last = Position::default();
            },
            Refusal::OldCopy,
            Rule::RefusedForgot,
        ),
        (|h| h.founder = Some(DiskId(1)), Refusal::Epoch, Rule::RefusedEpoch),
        (
            |h| (h.term, h.founder) = (h.term.next_epoch(id(2)), Some(h.from.disk)),
            Refusal::Straggler,
            Rule::RefusedStraggler,
        ),
    ];
    for (change, why, rule) in table {
        let before = primary().0.decided(rule);
        let (sent, one) = answers(change);
        assert_eq!(sent, [Packet::Refused(why)], "{rule:?}");
        assert_eq!(one.decided(rule), before + 1, "{rule:?}");
    }
}

#[test]
fn another_version_is_refused() {
    let (mut one, _) = primary();
    let link = one.new_link(2);
    let out = first(&mut one, link, false, Packet::Foreign { version: 7 });
    assert_eq!(out.sent(2), [Packet::Refused(Refusal::Version)]);
}

/// A primary counts what each process has stored. So a process of the same disk that lacks such an
/// entry runs on an older state of the disk, unless a later primary has cut the entry.
#[test]
fn a_shorter_log_is_an_old_copy_only_in_another_process_and_a_term_not_higher() {
    let later_process =
        |h: &mut Hello| (h.run.incarnation.0, h.run.process.0) = (h.run.incarnation.0 + 1, 77);
    let is_refused =
        |change: &dyn Fn(&mut Hello)| answers(change).0 == [Packet::Refused(Refusal::OldCopy)];
    let shorter = |h: &mut Hello| h.last.index = h.last.index.before();
    assert!(!is_refused(&later_process), "it has every entry");
    assert!(is_refused(&|h| {
        later_process(h);
        shorter(h);
    }));
    assert!(!is_refused(&shorter), "the hello of the same process may be older than its log");
    assert!(
        !is_refused(&|h| {
            later_process(h);
            shorter(h);
            h.term = h.term.next();
        }),
        "another primary may have cut the entry"
    );
    assert!(is_refused(&|h| {
        later_process(h);
        shorter(h);
        h.term = Term(h.term.0 - 1);
    }));
}
