//! When a member counts as lost, when the primary drops it, and when it adds a server.

use super::lockstep::*;
use crate::limits::{PENALTY_TIME, PENALTY_WINDOW};

const STOPPING: PeerHealth = PeerHealth {
    leads: false,
    stopping: true,
    slow: false,
    full: false,
    damaged: false,
    lacks_entries: false,
};
const FULL: PeerHealth = PeerHealth { stopping: false, full: true, ..STOPPING };
const OTHER_DISK: DiskId = DiskId(77);

/// Returns server 1, for a long time the primary of a formed group. Both others just answered.
fn primary() -> Server {
    let mut server = formed().take(1);
    server.wait(T * 2, &[2, 3]);
    pong(&mut server, &[2, 3]);
    server
}

/// Returns server 1, just elected with its vote and those of `voters`. Its first entry is a
/// config of `members`, all of them have stored every entry, and it is linked with `voters`. The
/// dials to other servers have found no answer.
fn elected(members: &[u8], voters: &[u8]) -> Server {
    let log = vec![config_entry(at(0, 1), &config(members))];
    let mut server = Server::start(START, setup(1, vote(1, None), &log), log);
    for n in [2, 3] {
        match voters.contains(&n) {
            true => drop(server.connect(n)),
            false => drop(server.fail_dial(n, DialFailure::NoAnswer)),
        }
    }
    server.elect(voters);
    commit(&mut server);
    server
}

fn pong(server: &mut Server, active: &[u8]) {
    active.iter().for_each(|n| drop(server.pong(*n)));
}

/// Makes every entry durable on this server and on the linked members, and ticks.
fn commit(server: &mut Server) {
    server.tick();
    server.durable();
    let last = server.replica.last();
    for n in [2, 3] {
        let is_member = server.replica.config().unwrap().has(member(n));
        if server.is_linked(n) && is_member {
            server.accept(n, last);
        }
    }
    server.tick();
}

/// Connects a server, which accepts what the primary sends. The primary adds it if it may.
fn catch_up(server: &mut Server, n: u8) {
    server.connect(n);
    server.tick();
    server.accept(n, server.replica.committed());
    server.tick();
}

/// Ticks, and returns the members after that.
fn members(server: &mut Server) -> Vec<u8> {
    server.tick();
    server.members()
}

/// Each kind of loss is found after its own time. A member that is down, that has another disk or
/// that stops is lost at once; an unreachable member and one that stores nothing are lost after
/// the peer timeout.
#[test]
fn each_kind_of_loss_has_its_time() {
    type Change = fn(&mut Server);
    let table: [(&str, Change, Duration); 5] = [
        ("down", |server| server.kill(3), Duration::ZERO),
        (
            "another disk",
            |server| {
                server.end_link(3);
                server.connect_as(3, OTHER_DISK);
            },
            Duration::ZERO,
        ),
        ("stopping", |server| drop(server.report(3, STOPPING)), Duration::ZERO),
        ("unreachable", |_| (), T),
        (
            "stalled",
            |server| {
                server.propose(Kind::MESSAGE).unwrap();
                server.tick();
                server.durable();
                server.accept(2, server.replica.last());
            },
            T,
        ),
    ];
    for (name, change, after) in table {
        let mut server = primary();
        change(&mut server);
        let members_after = |time: Duration| {
            let mut server = server.clone();
            server.advance(time).pong(2);
            if name != "unreachable" && server.is_linked(3) {
                server.pong(3);
            }
            members(&mut server)
        };
        if after > Duration::ZERO {
            assert_eq!(members_after(after - US), [1, 2, 3], "{name}: too early");
        }
        assert_eq!(members_after(after), [1, 2], "{name}");
    }
}

/// The peer timeout of an unreachable member begins with the election at the earliest.
#[test]
fn silence_counts_from_the_election_at_the_earliest() {
    let mut server = elected(&[1, 2, 3], &[2]);
    server.advance(T - US).pong(2);
    assert_eq!(members(&mut server), [1, 2, 3]);
    server.advance(US).pong(2);
    assert_eq!(members(&mut server), [1, 2]);
}

/// Nor does a primary step down earlier because no majority answers. It may have heard nothing from
/// its voters since long before the election.
#[test]
fn a_primary_without_a_majority_stays_for_the_peer_timeout_after_its_election() {
    let log = vec![config_entry(at(0, 1), &config(&[1, 2, 3]))];
    let mut server = Server::start(START, setup(1, vote(1, None), &log), log);
    server.connect(2);
    server.fail_dial(3, DialFailure::NoAnswer);
    server.wait(ms(20), &[]);
    server.pre_vote(2, true);
    server.tick();
    server.advance(ms(400));
    server.receive(2, Packet::Vote { term: server.replica.term(), granted: true });
    server.durable();
    let elected = server.now;
    for (after, role) in [(T - US, RoleView::Primary), (T, RoleView::Backup)] {
        server.now = elected + after;
        server.tick();
        assert_eq!(server.replica.role(), role, "{after:?}");
    }
}

/// The drop from three members to two needs the other backup. So that one must have answered a
/// ping that was sent after the loss; the primary pings it at once, and once.
#[test]
fn the_other_backup_must_have_answered_after_the_loss() {
    let mut server = primary();
    let is_ping = |packet: &&Packet| matches!(packet, Packet::Ping { .. });
    let pings = |out: &Effects| out.sent(2).iter().filter(is_ping).count();
    server.wait_for(T, &[2, 3], |effect| matches!(effect, Effect::Send(..))).unwrap();
    pong(&mut server, &[2, 3]);
    server.tick();
    // A stop is a loss as well, and its report is no reason for a ping of its own.
    server.advance(US).report(3, STOPPING);
    let out = server.tick();
    assert_eq!((server.members(), pings(&out)), (vec![1, 2, 3], 1), "2 may be lost as well");
    let later = server.now + ms(5);
    let lost_at = std::mem::replace(&mut server.now, later);
    let out = server.tick();
    assert_eq!((server.members(), pings(&out)), (vec![1, 2, 3], 0), "it pings once");
    server.receive(2, Packet::Pong { sent: Moment(lost_at.0 - 1), promised: None });
    assert_eq!(members(&mut server), [1, 2, 3]);
    server.receive(2, Packet::Pong { sent: lost_at, promised: None });
    assert_eq!(members(&mut server), [1, 2]);
}

/// A member that is down was lost when its link was lost. An answer to a ping sent since then is
/// enough, even if the dial was refused later.
#[test]
fn a_member_that_is_down_was_lost_with_its_link() {
    let mut server = primary();
    server.advance(US).end_link(3);
    let lost_at = server.now;
    server.advance(ms(5)).refuse_dial(3);
    assert_eq!(members(&mut server), [1, 2, 3]);
    server.receive(2, Packet::Pong { sent: lost_at, promised: None });
    assert_eq!(members(&mut server), [1, 2]);
}

/// A hello may have been in flight for a long time. It does not prove that its sender is active
/// after a loss, and a drop that needs the sender could never be committed.
#[test]
fn a_hello_does_not_prove_that_its_sender_is_active() {
    let mut server = primary();
    server.kill(3);
    server.kill(2);
    server.advance(ms(5)).connect(2);
    assert_eq!(members(&mut server), [1, 2, 3]);
    server.pong(2);
    assert_eq!(members(&mut server), [1, 2]);
}

/// A member whose id is linked with another disk is lost from the moment of that link, not from
/// the end of its own link.
#[test]
fn another_disk_is_a_loss_of_this_moment() {
    let mut server = primary();
    server.end_link(3);
    server.advance(ms(1)).pong(2);
    server.advance(ms(1)).connect_as(3, OTHER_DISK);
    assert_eq!(members(&mut server), [1, 2, 3], "2 has not answered since");
    server.pong(2);
    assert_eq!(members(&mut server), [1, 2]);
}

/// If both backups are lost, the primary drops neither. It steps down when no majority was
/// recently active for the peer timeout.
#[test]
fn of_two_lost_members_neither_is_dropped() {
    let mut server = primary();
    server.kill(2);
    server.kill(3);
    for (after, role) in
        [(Duration::ZERO, RoleView::Primary), (T - US, RoleView::Primary), (US, RoleView::Backup)]
    {
        server.advance(after);
        assert_eq!(members(&mut server), [1, 2, 3]);
        assert_eq!(server.replica.role(), role);
    }
}

/// The primary forgets a loss that is over. After another loss, the other backup must answer
/// again.
#[test]
fn a_loss_that_is_over_is_forgotten() {
    let mut server = primary();
    server.advance(US).kill(3);
    assert_eq!(members(&mut server), [1, 2, 3]);
    server.advance(ms(5)).connect(3);
    pong(&mut server, &[2, 3]);
    assert_eq!(members(&mut server), [1, 2, 3]);
    server.advance(ms(5)).kill(3);
    assert_eq!(members(&mut server), [1, 2, 3]);
    server.pong(2);
    assert_eq!(members(&mut server), [1, 2]);
}

/// Drops server `n`, which is lost in this way, and adds it again.
fn drop_and_add(server: &mut Server, n: u8, lose: fn(&mut Server, u8)) {
    let other = 5 - n;
    lose(server, n);
    server.pong(other);
    assert_eq!(members(server), [1, other]);
    commit(server);
    if server.is_linked(n) {
        server.end_link(n);
    }
    catch_up(server, n);
    pong(server, &[2, 3]);
    commit(server);
}

fn kill(server: &mut Server, n: u8) {
    server.kill(n);
}

fn is_penalized(server: &Server, n: u8) -> bool {
    server.replica.is_penalized(id(n), server.now)
}

/// A server that was dropped three times within a minute is not added for half a minute.
#[test]
fn a_server_that_is_dropped_three_times_in_a_minute_waits_half_a_minute() {
    // Each server, and how many seconds before the end it was dropped.
    let dropped = |drops: &[(u8, u64)]| {
        let mut server = primary();
        let end = server.now + PENALTY_WINDOW * 2;
        for (n, ago) in drops {
            let at = Moment(end.0 - ago * 1_000_000);
            server.wait(at - server.now, &[2, 3]);
            pong(&mut server, &[2, 3]);
            drop_and_add(&mut server, *n, kill);
        }
        server
    };
    let within = PENALTY_WINDOW.as_secs() - 1;
    for (drops, penalized) in [
        (&[(3u8, within), (3, 10), (3, 0)] as &[(u8, u64)], true),
        (&[(3, within), (2, 12), (3, 10), (3, 0)], true),
        (&[(3, 10), (3, 0)], false),
        (&[(3, within + 1), (3, 10), (3, 0)], false),
        (&[(3, 20), (2, 10), (3, 0)], false),
    ] {
        let server = dropped(drops);
        assert_eq!(is_penalized(&server, 3), penalized, "{drops:?}");
        assert_eq!(server.members().len(), if penalized { 2 } else { 3 }, "{drops:?}");
        assert!(!is_penalized(&server, 2));
    }
    let mut server = dropped(&[(3, within), (3, 10), (3, 0)]);
    server.wait(PENALTY_TIME - US, &[2, 3]);
    assert!(is_penalized(&server, 3));
    assert_eq!(server.members(), [1, 2]);
    server.advance(US);
    pong(&mut server, &[2, 3]);
    assert!(!is_penalized(&server, 3));
    assert_eq!(members(&mut server), [1, 2, 3]);
}

/// Every drop counts towards the penalty, except that of a server that announced its stop.
#[test]
fn every_drop_but_an_announced_one_counts_towards_the_penalty() {
    type Lose = fn(&mut Server, u8);
    let unreachable: Lose = |server, n| drop(server.advance(T).pong(5 - n));
    let stopping: Lose = |server, n| drop(server.report(n, STOPPING));
    for (lose, counts) in [(kill as Lose, true), (unreachable, true), (stopping, false)] {
        let mut server = primary();
        (0..3).for_each(|_| drop_and_add(&mut server, 3, lose));
        assert_eq!(is_penalized(&server, 3), counts);
    }
}

/// The primary changes one member at a time: it writes no other config before the newest one is
/// committed, except to withdraw that one.
#[test]
fn one_change_at_a_time() {
    let mut server = primary();
    server.kill(3);
    server.pong(2);
    assert_eq!(members(&mut server), [1, 2]);
    // The drop is not committed, and needs server 2.
    server.kill(2);
    assert_eq!(members(&mut server), [1, 2, 3], "withdrawn: either of two may reconnect");
    let last = server.replica.last();
    assert_eq!(members(&mut server), [1, 2, 3]);
    assert_eq!(server.replica.last(), last, "no other change before that is committed");
}

/// Returns a primary whose newest config, with these members, is not committed, after a committed
/// one. It is linked with both others.
fn uncommitted(before: &[u8], newest: &[u8]) -> Server {
    let mut server = match before {
        [1, 2, 3] => {
            // Server 3 announces a stop. It still stores entries.
            let mut server = primary();
            server.report(3, STOPPING);
            server.pong(2);
            server.tick();
            server
        }
        [2, 3] => {
            // The previous primary added server 1, and has not committed that.
            let log = vec![
                config_entry(at(0, 1), &config(before)),
                config_entry(at(1, 2), &config(newest)),
            ];
            let mut server = Server::start(START, setup(1, vote(1, None), &log), log);
            [2, 3].iter().for_each(|n| drop(server.connect(*n)));
            let committed = Index(1);
            let append = Append { committed, ..server.append() };
            server.receive(2, Packet::Append(append));
            server.receive(2, Packet::SteppedDown { term: Term(1) });
            server.elect(&[2, 3]);
            assert_eq!(server.replica.committed(), committed);
            server
        }
        _ => {
            let voters: Vec<u8> = before.iter().copied().filter(|n| *n != 1).collect();
            let mut server = elected(before, &voters);
            let added = newest.iter().find(|n| !before.contains(n)).unwrap();
            catch_up(&mut server, *added);
            server
        }
    };
    assert_eq!(server.members(), newest);
    assert!(server.replica.committed() < server.replica.last());
    for n in [2, 3].into_iter().filter(|n| !server.is_linked(*n)).collect::<Vec<_>>() {
        server.connect(n);
    }
    pong(&mut server, &[2, 3]);
    server
}

/// A config that cannot be committed is withdrawn if the previous one can be committed, or has
/// more members, and holds the primary.
#[test]
fn a_config_that_cannot_be_committed_is_withdrawn_if_that_helps() {
    for (before, newest, lost, left) in [
        (&[1u8, 2, 3] as &[u8], &[1u8, 2] as &[u8], &[2u8] as &[u8], &[1u8, 2, 3] as &[u8]),
        (&[1, 2, 3], &[1, 2], &[], &[1, 2]), // 2 may still store it
        (&[1, 2, 3], &[1, 2], &[2, 3], &[1, 2, 3]), // either one may reconnect
        (&[1], &[1, 2], &[2], &[1]),
        (&[1], &[1, 2], &[], &[1, 2]),
        (&[1, 2], &[1, 2, 3], &[3], &[1, 2, 3]), // 1 and 2 are a majority
        (&[1, 2], &[1, 2, 3], &[2, 3], &[1, 2, 3]), // [1, 2] would need 2 as well
        (&[2, 3], &[1, 2, 3], &[2, 3], &[1, 2, 3]), // never to a config without 1
    ] {
        let mut server = uncommitted(before, newest);
        lost.iter().for_each(|n| server.kill(*n));
        let what = format!("{before:?} {newest:?} without {lost:?}");
        let written = server.replica.last();
        assert_eq!(members(&mut server), left, "{what}");
        assert_eq!(server.replica.last() > written, left != newest, "{what}");
    }
}

/// A withdrawn addition counts as a drop, and the server must catch up again. The withdrawal of a
/// drop counts against no server.
#[test]
fn a_withdrawn_addition_counts_as_a_drop() {
    let mut server = uncommitted(&[1], &[1, 2]);
    for count in 1..=3 {
        server.kill(2);
        assert_eq!(members(&mut server), [1]);
        commit(&mut server);
        assert_eq!(is_penalized(&server, 2), count == 3);
        server.connect(2);
        assert_eq!(members(&mut server), [1], "it has accepted nothing yet");
        catch_up_linked(&mut server, 2);
        assert_eq!(server.members().len(), if count == 3 { 1 } else { 2 });
    }
    let mut server = uncommitted(&[1, 2, 3], &[1, 2]);
    for _ in 0..3 {
        server.kill(2);
        assert_eq!(members(&mut server), [1, 2, 3]);
        server.connect(2);
        server.report(3, PeerHealth::default());
        pong(&mut server, &[2, 3]);
        commit(&mut server);
        server.report(3, STOPPING);
        assert_eq!(members(&mut server), [1, 2]);
    }
    assert!(!is_penalized(&server, 2) && !is_penalized(&server, 3));
}

/// A linked server accepts what the primary sent.
fn catch_up_linked(server: &mut Server, n: u8) {
    server.accept(n, server.replica.committed());
    server.tick();
}

/// A promise delays every change of the members until it ends, except the drop of a member that
/// is down.
#[test]
fn a_promise_delays_every_change_but_the_drop_of_a_member_that_is_down() {
    /// Returns the members now, just before the promise ends, and then.
    fn after(change: fn(&mut Server)) -> [Vec<u8>; 3] {
        let mut server = form(|setup| setup.shared.survivor_auto = true).take(1);
        server.kill(3);
        server.pong(2);
        assert_eq!(members(&mut server), [1, 2]);
        commit(&mut server);
        server.wait(T * 2, &[2]);
        server.pong(2);
        server.advance(T - ms(1)).report(2, PeerHealth::default());
        let promised = server.now;
        change(&mut server);
        [server.now, Moment((promised + T / 2).0 - 1), promised + T / 2].map(|now| {
            server.now = now;
            members(&mut server)
        })
    }
    let (three, two, one) = (vec![1, 2, 3], vec![1, 2], vec![1]);
    assert_eq!(after(|server| server.kill(2)), [one.clone(), one.clone(), one.clone()]);
    // Server 2 answered its last ping one peer timeout ago.
    let unreachable = after(|server| server.now += ms(1));
    assert_eq!(unreachable, [two.clone(), two.clone(), one.clone()]);
    // A ping that reports a stop renews the promise, so the report comes with the first one.
    let stopping = after(|server| {
        server.pong(2);
        server.report(2, STOPPING);
    });
    assert_eq!(stopping, [two.clone(), two.clone(), one]);
    let added = after(|server| {
        server.pong(2);
        server.connect(3);
        server.tick();
        server.accept(3, server.replica.committed());
    });
    assert_eq!(added, [two.clone(), two, three]);
}

/// A primary adds a linked server that has caught up, is recently active, has free space and is
/// not lost or penalized. It adds none while it stops or hands over.
#[test]
fn a_learner_is_added_when_it_has_caught_up_and_is_not_lost() {
    let added = |change: &dyn Fn(&mut Server)| {
        let mut server = elected(&[1, 2], &[2]);
        server.connect(3);
        server.tick();
        server.accept(3, server.replica.committed());
        change(&mut server);
        members(&mut server) == [1, 2, 3]
    };
    assert!(added(&|_| ()));
    assert!(
        !added(&|server| {
            server.end_link(3);
            server.connect(3);
        }),
        "it has accepted nothing on this link"
    );
    assert!(!added(&|server| drop(server.advance(T).pong(2))), "it is unreachable");
    assert!(!added(&|server| drop(server.report(3, STOPPING))));
    assert!(!added(&|server| drop(server.report(3, FULL))));
    assert!(!added(&|server| server.replica.stop(server.now)));
    assert!(!added(&|server| assert_eq!(server.order(GROUP, None), Verdict::Taken)));

    // Server 3 has not answered since it connected, 100 ms before the election.
    let log = vec![config_entry(at(0, 1), &config(&[1, 2]))];
    let mut server = Server::start(START, setup(1, vote(1, None), &log), log);
    [2, 3].iter().for_each(|n| drop(server.connect(*n)));
    server.advance(ms(100)).elect(&[2]);
    commit(&mut server);
    // A ping shortly before keeps the silent link open until the next one.
    server.now = START + (T - ms(10));
    server.pong(2);
    server.tick();
    server.accept(3, server.replica.committed());
    for (time, left) in [(T - US, &[1, 2, 3][..]), (T, &[1, 2])] {
        let mut server = server.clone();
        server.now = START + time;
        server.pong(2);
        assert_eq!(members(&mut server), left);
        assert!(server.is_linked(3));
    }

    // If the config holds the learner's id with another disk, that disk is dropped first.
    let mut server = elected(&[1, 2], &[2]);
    server.end_link(2);
    server.connect_as(2, OTHER_DISK);
    server.accept(2, server.replica.committed());
    assert_eq!(members(&mut server), [1]);
    commit(&mut server);
    assert_eq!(server.members(), [1, 2]);
    assert_eq!(server.replica.config().unwrap().member(id(2)).unwrap().disk, OTHER_DISK);
}
