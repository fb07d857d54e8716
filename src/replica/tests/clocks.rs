//! The times of records that whole replicas write.

use super::*;

const DAY: u64 = 86_400_000;

#[test]
fn records_of_a_primary_with_a_wrong_clock_have_the_median_time() {
    let mut world = formed(5);
    let primary = world.primary().unwrap();
    world.ahead_ms.insert(primary, DAY);
    let index = world.propose(primary, "hi").unwrap();
    world.wait_answered(1_000, primary, index);
    // The members change, too, and the primary reads its own clock many times.
    let other = if primary == 3 { 2 } else { 3 };
    world.crash(other);
    world.wait_members(5_000, 2);
    world.run(2 * CLOCK_TIME.as_millis() as u64);
    assert_eq!(world.primary(), Some(primary));
    world.propose(primary, "of two").unwrap();
    let records = &world.running[&primary].disk.log.records;
    let times: Vec<u64> = records.iter().map(|r| Record::trust(r).time.0).collect();
    assert!(times.iter().all(|time| *time < DAY), "{times:?}");
    let late = (world.now.0 / MS).abs_diff(*times.last().unwrap());
    assert!(late < 50, "{late} ms");
}

#[test]
fn a_ping_has_the_wall_clock_of_its_sender() {
    let mut world = formed(6);
    let replica = &mut world.running.get_mut(&1).unwrap().replica;
    let (now, wall) = (world.now + Duration::from_secs(1), WallTime(77));
    let mut out = Out::default();
    replica.handle(now, wall, Event::Tick, &FakeLog::default(), &mut out);
    let pings = out.effects.iter().filter_map(|effect| match effect {
        Effect::Send(_, Packet::Ping { sent, wall, .. }) => Some((*sent, *wall)),
        _ => None,
    });
    assert_eq!(pings.collect::<Vec<_>>(), [(now, wall); 2]);
}

#[test]
fn a_server_whose_clock_is_wrong_is_told_by_the_skew() {
    let mut world = formed(7);
    world.ahead_ms.insert(2, 5_000);
    world.run(2_000);
    for (id, replica) in world.running.iter().map(|(id, server)| (id, &server.replica)) {
        let skew = replica.clock_skew(world.now).unwrap().as_millis();
        assert!((4_900..5_100).contains(&skew), "{id}: {skew} ms");
    }
}
