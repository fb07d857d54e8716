//! Guards the times of records and the view of the clock skew: a record has the median time of the
//! three wall clocks, so one wrong clock does not count.

use super::lockstep::*;
use crate::limits::CLOCK_TIME;

const DAY: u64 = 86_400_000;

/// Returns the time that a correct wall clock shows.
fn true_wall(now: Moment) -> WallTime {
    WallTime(now.0 / 1_000)
}

/// Passes an event to a server whose wall clock is wrong by this many milliseconds.
fn handle(server: &mut Server, ahead_ms: u64, event: Event<'_>) {
    let mut out = Out::default();
    let wall = WallTime(true_wall(server.now).0 + ahead_ms);
    server.replica.handle(server.now, wall, event, &server.log, &mut out);
    write(server, &out);
}

/// Does the appends.
fn write(server: &mut Server, out: &Out) {
    for effect in &out.effects {
        if let Effect::Append(range) = effect {
            let records = record::each(&out.bytes[range.clone()]);
            server.log.0.extend(records.map(|record| record.unwrap().bytes.to_vec()));
        }
    }
}

/// Server `from`, whose clock is right, answers a ping and sends one.
fn hear(server: &mut Server, ahead_ms: u64, from: u8) {
    let (link, sent, health) = (server.link(from), server.now, PeerHealth::default());
    for packet in [
        Packet::Pong { sent, promised: None },
        Packet::Ping { sent, wall: true_wall(sent), health },
    ] {
        handle(server, ahead_ms, Event::Received { link, packet, records: &[] });
    }
}

/// Makes all entries durable, on this server and on server `from`.
fn store(server: &mut Server, ahead_ms: u64, from: u8) {
    let (term, last, vote) = (server.replica.term(), server.replica.last(), server.written.vote);
    handle(server, ahead_ms, Event::Durable(Durable { last, vote }));
    let packet = Packet::AppendAccepted { term, stored: last, round: 0 };
    let link = server.link(from);
    handle(server, ahead_ms, Event::Received { link, packet, records: &[] });
    handle(server, ahead_ms, Event::Tick);
}

fn propose(server: &mut Server, ahead_ms: u64) {
    let mut out = Out::default();
    let wall = WallTime(true_wall(server.now).0 + ahead_ms);
    server.replica.propose(server.now, wall, Kind::MESSAGE, |_| (), &mut out).unwrap();
    write(server, &out);
}

/// The wall clock of the primary jumps a day ahead. Neither its messages nor its configs have that
/// time, and this stays so when it has dropped a member and only one other clock is left.
#[test]
fn records_of_a_primary_with_a_wrong_clock_have_the_median_time() {
    let mut one = formed().take(1);
    one.advance(ms(1));
    for n in [2, 3] {
        hear(&mut one, DAY, n);
    }
    propose(&mut one, DAY);
    handle(&mut one, DAY, Event::Tick);
    store(&mut one, DAY, 2);
    let link = one.link(3);
    handle(&mut one, DAY, Event::Ended { link });
    handle(&mut one, DAY, Event::DialFailed { to: id(3), why: DialFailure::Refused });
    one.advance(ms(1));
    hear(&mut one, DAY, 2);
    handle(&mut one, DAY, Event::Tick);
    store(&mut one, DAY, 2);
    assert_eq!(one.members(), [1, 2]);
    let end = one.now + CLOCK_TIME * 2;
    while one.now < end {
        one.advance(T / 8);
        hear(&mut one, DAY, 2);
        handle(&mut one, DAY, Event::Tick);
    }
    propose(&mut one, DAY);
    let times = one.log.0.iter().map(|record| Record::trust(record).time);
    assert!(times.clone().all(|time| time <= true_wall(one.now)), "{:?}", times.max());
    let late = true_wall(one.now).0 - Record::trust(one.log.0.last().unwrap()).time.0;
    assert!(late < 50, "{late} ms");
}

#[test]
fn a_ping_carries_the_wall_clock_of_its_sender() {
    let mut one = formed().take(1);
    one.advance(Duration::from_secs(1));
    let mut out = Effects::default();
    one.replica.handle(one.now, WallTime(77), Event::Tick, &one.log, &mut out.0);
    for n in [2, 3] {
        let pings = out.sent(n).into_iter().filter_map(|packet| match packet {
            Packet::Ping { sent, wall, .. } => Some((sent, wall)),
            _ => None,
        });
        assert_eq!(pings.collect::<Vec<_>>(), [(one.now, WallTime(77))]);
    }
}

/// The clock of server 2 is 5 s ahead: every server reports that skew, server 2 included.
#[test]
fn each_server_reports_the_skew_of_a_wrong_clock() {
    let group = formed();
    let ahead = |n: u8| if n == 2 { 5_000 } else { 0 };
    for n in 1..=3 {
        let mut server = group.take(n);
        server.advance(ms(250));
        for from in (1..=3).filter(|from| *from != n) {
            let wall = WallTime(true_wall(server.now).0 + ahead(from));
            let (link, sent) = (server.link(from), server.now);
            let packet = Packet::Ping { sent, wall, health: PeerHealth::default() };
            handle(&mut server, ahead(n), Event::Received { link, packet, records: &[] });
        }
        let skew = server.replica.clock_skew(server.now).unwrap().as_millis();
        assert!((4_900..5_100).contains(&skew), "server {n}: {skew} ms");
    }
}
