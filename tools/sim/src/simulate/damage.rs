//! Faults that destroy data on disks. They keep the group recoverable: an acknowledged entry is
//! never lost for good.

use super::clock::Event;
use super::durable;
use super::faults::Kind;
use super::network::{CLIENTS, TWIN};
use super::process::{GROUP, open_store};
use super::trace;
use super::trial::is_healthy;
use super::world::World;
use postern::ids::{DiskId, Member};
use postern::replica::{Config, RoleView};
use postern::rng::Rng;
use postern::store::Identity;
use postern::store::check::check;
use postern::store::memory::{Failures, MemoryDisk};

/// A backup of a data directory.
pub(super) struct Backup {
    /// The number of the start right before it.
    pub(super) start: u64,
    /// The copy can become primary without votes.
    pub(super) leads_alone: bool,
    pub(super) disk: MemoryDisk,
}

/// Which bit flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlipTarget {
    /// One of any file, mostly of the log.
    Any,
    /// One of a segment that is not the newest.
    OlderSegment,
    /// One of the last byte of the log.
    End,
}

impl World {
    /// Damages a disk, unless an acknowledged entry could be lost for good. A majority of the
    /// members must have all entries without this disk, and only one disk is lost at a time.
    pub(super) fn destroy(&mut self, n: usize, kind: Kind, rng: &mut Rng) -> bool {
        if (self.faults.disk_damaged && !self.is_whole()) || self.is_copy(TWIN) {
            return false;
        }
        let flips = matches!(kind, Kind::Flip | Kind::FlipOld);
        if !self.may_lose(&[n]) || (flips && !self.is_sealed(n)) {
            return false;
        }
        if kind == Kind::FlipOld && durable::segments(&self.servers[n].disk).len() < 2 {
            return false;
        }
        let old = self.old_backups(n, 2).first().map(|backup| backup.copied());
        if kind == Kind::RollBack && old.is_none() {
            return false;
        }
        self.end_process(n, true);
        match (kind, old) {
            (Kind::Flip, _) => self.damage(n, FlipTarget::Any, rng),
            (Kind::FlipOld, _) => self.damage(n, FlipTarget::OlderSegment, rng),
            (Kind::RollBack, Some(old)) => self.replace(n, old),
            _ => self.lose_disk(n),
        }
        self.faults.disk_damaged = true;
        true
    }

    /// Damages the disks of two servers, if the third has all acknowledged entries. At the end of
    /// the fault an operator may have to recover the third.
    pub(super) fn destroy_two(&mut self, n: usize, other: usize, rng: &mut Rng) -> bool {
        let both = [n, other];
        let whole = (!self.faults.disk_damaged || self.is_whole()) && self.twin.is_none();
        let sealed = both.iter().all(|n| self.is_sealed(*n));
        if !whole || !sealed || self.intact_without(&both) == 0 {
            return false;
        }
        for n in both {
            let old = rng.below(2) == 0 && durable::segments(&self.servers[n].disk).len() > 1;
            self.end_process(n, true);
            self.damage(n, if old { FlipTarget::OlderSegment } else { FlipTarget::Any }, rng);
        }
        self.faults.intact_third = Some(3 - n - other);
        true
    }

    /// Ends all faults for a while, in which an operator recovers a server alone although the group
    /// runs. The group needs this time to refuse that server.
    pub(super) fn prepare_straggler(&mut self, n: usize) {
        for at in self.faults.active.clone() {
            self.end_fault(at);
        }
        for n in 0..3 {
            self.power_on(n);
            self.resume(n, self.servers[n].state.pauses);
        }
        let timeout = self.settings.peer_timeout_us();
        self.faults.quiet_until = self.now + 12 * timeout;
        self.schedule.add(self.now + 6 * timeout, Event::BeginStraggler(n));
    }

    /// An operator recovers a server alone, if the group does not need it. Clients can't connect
    /// to it.
    pub(super) fn begin_straggler(&mut self, n: usize) {
        let healthy = is_healthy(self, 3) && self.is_whole();
        // A group without its primary is not healthy: it would follow the recovered server.
        let leads = self.servers[n]
            .process
            .as_ref()
            .is_some_and(|process| process.node().replica().role() == RoleView::Primary);
        let busy = self.faults.over || self.faults.straggler.is_some() || self.twin.is_some();
        // A server in a sync that began before the faults ended has lost its primary role without
        // knowing it.
        let timeout = self.settings.peer_timeout_us();
        let hangs = (0..3).any(|n| self.servers[n].state.turns.0 + timeout < self.now);
        if busy || hangs || !healthy || leads || !self.may_lose(&[n]) {
            return;
        }
        let duration = u64::from(self.settings.peer_timeout_ms) * (4_000 + self.rng.below(60_000));
        self.schedule.add(self.now + duration, Event::EndStraggler(n));
        self.end_process(n, true);
        self.isolate_from_clients(n, 1);
        (self.faults.disk_damaged, self.faults.straggler) = (true, Some(n));
        self.recover_alone(n);
    }

    /// An operator recovers a server that is down. Backups of its directory are of the old epoch.
    fn recover_alone(&mut self, n: usize) {
        self.servers[n].backups.clear();
        let recovered = self.recover(n);
        self.note(recovered.map_err(|why| format!("can't recover server {}: {why}", n + 1)));
        self.power_on(n);
    }

    /// Removes the directories of a server that was recovered alone, and of those that follow it
    /// since they were empty.
    pub(super) fn end_straggler(&mut self, n: usize) {
        if self.faults.straggler.take_if(|straggler| *straggler == n).is_none() {
            return;
        }
        self.isolate_from_clients(n, -1);
        for n in 0..3 {
            let found = check(&self.servers[n].disk).ok().and_then(|findings| findings.vote);
            let founder = found.and_then(|vote| vote.founder);
            if founder.is_some_and(|founder| self.checks.strays.contains(&founder)) {
                self.end_process(n, true);
                self.lose_disk(n);
                self.power_on(n);
            }
        }
    }

    fn isolate_from_clients(&mut self, n: usize, cuts: i32) {
        for (from, to) in [(n, CLIENTS), (CLIENTS, n)] {
            let route = self.net.route(from, to);
            route.cuts = route.cuts.saturating_add_signed(cuts);
        }
        self.net.release(self.now, &mut self.schedule);
    }

    /// An operator who finds two disks damaged stops all servers and recovers the third. The group
    /// continues without an operator if a majority of the members is undamaged: of the members of
    /// the group, which may have been filled again, or of those that the third knows.
    pub(super) fn recover_intact_third(&mut self) {
        let Some(third) = self.faults.intact_third.take() else { return };
        let found = check(&self.servers[third].disk).ok().and_then(|findings| findings.config);
        let Some((_, known)) = found else { return };
        let continues = |config: Config| {
            let left = config.members().filter(|member| self.is_undamaged(*member)).count();
            left >= config.majority()
        };
        if [self.checks.config, Some(known)].into_iter().flatten().any(continues) {
            return;
        }
        trace::line(|| format!("an operator recovers server {} alone", third + 1));
        (0..3).for_each(|n| self.end_process(n, true));
        self.servers[third].disk.fail(|failures| *failures = Failures::default());
        self.recover_alone(third);
    }

    /// Whether a member still has its disk, and can start with it: what is damaged there, others
    /// repair.
    fn is_undamaged(&self, member: Member) -> bool {
        let server = &self.servers[member.id.slot()];
        if server.rolled_back == Some(member.disk) {
            return false;
        }
        // The disk that a new directory would get: a start goes on with a quarantine that a failing
        // disk has interrupted.
        let identity = Identity::new(GROUP, 3, member.id, DiskId(!member.disk.0));
        open_store(server.disk.copied(), &identity, "look").is_ok_and(|opened| {
            opened.quarantined.is_none() && opened.store.identity().disk == member.disk
        })
    }

    /// Whether a flipped bit can be distinguished from a torn tail: a header follows the last
    /// batch, and the identity names the newest segment.
    fn is_sealed(&self, n: usize) -> bool {
        let server = &self.servers[n];
        server.process.as_ref().is_some_and(|process| {
            let named = durable::path(process.store().identity().segment);
            let newest = durable::segments(&server.disk).pop();
            !process.store().has_unsealed() && newest.as_ref() == Some(&named)
        })
    }

    /// Flips a bit on a server's disk.
    pub(super) fn damage(&mut self, n: usize, target: FlipTarget, rng: &mut Rng) {
        self.note_damage(n);
        flip(&self.servers[n].disk, target, rng);
    }

    fn note_damage(&mut self, n: usize) {
        self.faults.disk_damaged = true;
        let server = &self.servers[n];
        if let Some(id) = server.disk_id {
            self.checks.damages(id, &server.disk, false);
        }
    }

    /// Replaces a directory by an old copy of itself.
    pub(super) fn replace(&mut self, n: usize, old: MemoryDisk) {
        self.note_damage(n);
        let server = &mut self.servers[n];
        server.rolled_back = server.disk_id;
        server.disk = old;
    }

    /// The backups of a server's directory, oldest first, that are at least `starts` starts old.
    /// Empty unless all other servers know the newest start.
    pub(super) fn old_backups(&self, n: usize, starts: u64) -> Vec<&MemoryDisk> {
        let Some(process) = &self.servers[n].process else { return Vec::new() };
        let identity = process.store().identity();
        let (disk, incarnation) = (identity.disk, identity.incarnation);
        let known = (0..3).filter(|other| *other != n).all(|other| {
            self.servers[other].process.as_ref().is_some_and(|process| {
                let seen = process.store().identity().seen().newest(disk);
                seen.is_some_and(|run| run.incarnation >= incarnation)
                    && !process.store().has_unsealed()
            })
        });
        // A copy that can lead alone does so before another server can refuse it.
        let may = |backup: &&Backup| backup.start + starts <= incarnation.0 && !backup.leads_alone;
        let old = self.servers[n].backups.iter().filter(|copy| known && may(copy));
        old.map(|backup| &backup.disk).collect()
    }

    /// Whether the group does not need the disks of these servers.
    pub(super) fn may_lose(&mut self, lost: &[usize]) -> bool {
        let majority = self.checks.config.map_or(usize::MAX, |config| config.majority());
        self.intact_without(lost) >= majority
    }

    /// How many members besides these servers have all acknowledged entries. Zero if one of these
    /// servers has no disk, or while the members change.
    fn intact_without(&mut self, lost: &[usize]) -> usize {
        let Some(config) = self.checks.config else { return 0 };
        if lost.iter().any(|n| self.servers[*n].disk_id.is_none()) {
            return 0;
        }
        let acknowledged = self.checks.acknowledged.len() as u64;
        let settled = self.servers.iter().enumerate().all(|(at, server)| match &server.process {
            Some(process) => {
                let newest = process.log_copy().newest_config();
                self.is_copy(at) || newest.is_none_or(|(at, _)| at.0 <= acknowledged)
            }
            None => lost.contains(&at) || at == TWIN,
        });
        if !settled {
            return 0;
        }
        let mut intact = 0;
        for member in config.members().filter(|member| !lost.contains(&member.id.slot())) {
            let server = &self.servers[member.id.slot()];
            if server.has_disk(member.disk) {
                intact += usize::from(self.checks.has_all_acknowledged(member.disk, &server.disk));
            }
        }
        intact
    }

    /// Whether all three servers run and are members with their disks.
    pub(super) fn is_whole(&self) -> bool {
        let Some(config) = self.checks.config else { return false };
        self.servers[..3].iter().enumerate().all(|(n, server)| {
            let member = config.member(super::world::id(n));
            server.process.is_some() && member.is_some_and(|member| server.has_disk(member.disk))
        })
    }
}

fn flip(disk: &MemoryDisk, target: FlipTarget, rng: &mut Rng) {
    let mut paths = durable::segments(disk);
    // Mostly the log, which has most of the bytes.
    match target {
        FlipTarget::OlderSegment => drop(paths.pop()),
        FlipTarget::Any if rng.below(4) == 0 => paths = disk.paths(),
        FlipTarget::Any => {}
        FlipTarget::End => {
            let newest = paths.pop().expect("a log has a segment");
            return disk.edit(&newest, |bytes| *bytes.last_mut().expect("it holds entries") ^= 1);
        }
    }
    if paths.is_empty() {
        return;
    }
    let at = if paths.len() > 1 { rng.below(paths.len() as u64) as usize } else { 0 };
    disk.edit(&paths[at], |bytes| {
        if !bytes.is_empty() {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::durable::tests::filled;
    use super::super::process::Settings;
    use super::*;

    /// Which segments of a log change, in 50 random flips.
    fn hit(target: FlipTarget) -> Vec<bool> {
        let disk = filled(10).0.disk().clone();
        let paths = durable::segments(&disk);
        let content = |disk: &MemoryDisk| {
            let mut all = Vec::new();
            disk.look("log", |_, bytes, _| all.push(bytes.to_vec()));
            all
        };
        let before = content(&disk);
        let mut hit = vec![false; paths.len()];
        for seed in 0..50 {
            let copy = disk.copied();
            flip(&copy, target, &mut Rng::new(seed));
            for (at, bytes) in content(&copy).iter().enumerate() {
                hit[at] |= *bytes != before[at];
            }
        }
        hit
    }

    #[test]
    fn bits_flip_in_any_segment_or_in_older_ones() {
        assert_eq!(hit(FlipTarget::Any), [true, true, true]);
        assert_eq!(hit(FlipTarget::OlderSegment), [true, true, false]);
    }

    /// Three machines on which nothing runs.
    fn world() -> World {
        let settings = Settings { segment_bytes: 100, ..Settings::default() };
        World::empty(1, settings)
    }

    /// An operator recovers the third, unless the damage is such that the two repair each other.
    #[test]
    fn two_disks_are_damaged_only_while_the_third_has_everything() {
        let recovered = (0..8).filter(|seed| is_recovered_after_damage_of_two(*seed)).count();
        assert!((1..8).contains(&recovered), "{recovered}");
    }

    fn is_recovered_after_damage_of_two(seed: u64) -> bool {
        let mut world = world();
        let inject = |world: &mut World| world.destroy_two(0, 1, &mut Rng::new(seed));
        (0..3).for_each(|n| world.start(n));
        world.run_to(10_000_000);
        assert!(world.is_whole() && durable::segments(&world.servers[0].disk).len() > 1);
        world.end_process(2, true);
        assert!(!inject(&mut world), "the third is down");
        world.start(2);
        world.run_to(20_000_000);
        assert!(inject(&mut world));
        assert!(!inject(&mut world), "the group is not whole");
        world.run_to(21_000_000);
        world.recover_intact_third();
        (0..2).for_each(|n| world.start(n));
        world.run_to(31_000_000);
        assert!(world.is_whole() && world.results.finding.is_none(), "{:?}", world.results.finding);
        assert!(world.checks.config.is_some_and(|config| config.count() == 3));
        let term = world.servers[2].process.as_ref().map(|process| process.vote().term);
        term.is_some_and(|term| term.epoch() > 0)
    }

    /// The group has filled the two others again. Then the third is lost, and the group does not
    /// need it.
    #[test]
    fn a_third_that_the_group_does_not_need_is_not_recovered() {
        let mut world = world();
        (0..3).for_each(|n| world.start(n));
        world.run_to(10_000_000);
        let old = world.servers[2].disk.copied();
        for n in 0..2 {
            world.end_process(n, true);
            world.lose_disk(n);
            world.start(n);
            world.run_to(world.now + 5_000_000);
        }
        assert!(world.is_whole());
        world.end_process(2, true);
        world.replace(2, old);
        world.faults.intact_third = Some(2);
        world.recover_intact_third();
        world.start(2);
        world.run_to(world.now + 5_000_000);
        let epochs: Vec<u16> = world.replicas().map(|replica| replica.term().epoch()).collect();
        assert_eq!((epochs, &world.results.finding), (vec![0, 0, 0], &None));
    }
}
