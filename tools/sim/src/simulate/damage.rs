//! Faults that destroy what is on a disk, and what they may never do: nothing that was answered may
//! be lost by them for good.

use super::clock::What;
use super::faults::Kind;
use super::network::{CLIENTS, TWIN};
use super::story;
use super::trial::is_well;
use super::truth;
use super::world::World;
use postern::ids::Member;
use postern::replica::{Config, RoleView};
use postern::rng::Rng;
use postern::store::check::check;
use postern::store::memory::{Failures, MemoryDisk};

/// What a backup program took of a directory.
pub(super) struct Copied {
    /// The start that had just been counted.
    pub(super) start: u64,
    /// It may lead without anybody's vote.
    pub(super) leads_alone: bool,
    pub(super) disk: MemoryDisk,
}

/// Where a bit flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In any file, mostly in one of the log.
    Any,
    /// In a segment of the log that another follows.
    OlderSegment,
    /// In the last byte of the log.
    End,
}

impl World {
    /// Damages a disk, unless what was answered could be lost for good: everything must be on
    /// the disks of a majority of the members besides, and only one disk is lost at a time.
    pub(super) fn destroy(&mut self, n: usize, kind: Kind, rng: &mut Rng) -> bool {
        if (self.destroyed && !self.is_whole()) || self.is_copy(TWIN) {
            return false;
        }
        let flips = matches!(kind, Kind::Flip | Kind::FlipOld);
        if !self.may_lose(&[n]) || (flips && !self.is_sealed(n)) {
            return false;
        }
        if kind == Kind::FlipOld && truth::segments(&self.servers[n].disk).len() < 2 {
            return false;
        }
        let old = match kind {
            Kind::RollBack => self.old_copies(n, 2).first().map(|copy| copy.copied()),
            _ => None,
        };
        if kind == Kind::RollBack && old.is_none() {
            return false;
        }
        self.ends_life(n, true);
        match (kind, old) {
            (Kind::Flip, _) => self.damage(n, Place::Any, rng),
            (Kind::FlipOld, _) => self.damage(n, Place::OlderSegment, rng),
            (_, Some(old)) => self.replace(n, old),
            (_, None) => self.lose(n),
        }
        self.destroyed = true;
        true
    }

    /// Damages the disks of two servers, if the third has all that was answered. When it is over,
    /// a person may have to go on with the third.
    pub(super) fn destroy_two(&mut self, n: usize, other: usize, rng: &mut Rng) -> bool {
        let both = [n, other];
        let whole = (!self.destroyed || self.is_whole()) && self.twin.is_none();
        let sealed = both.iter().all(|n| self.is_sealed(*n));
        if !whole || !sealed || self.intact_without(&both) == 0 {
            return false;
        }
        for n in both {
            let old = rng.below(2) == 0 && truth::segments(&self.servers[n].disk).len() > 1;
            self.ends_life(n, true);
            self.damage(n, if old { Place::OlderSegment } else { Place::Any }, rng);
        }
        self.left_alone = Some(3 - n - other);
        true
    }

    /// A quiet hour, in which a person goes on with one server alone although the group lives: it
    /// must have the time to refuse that one, or nothing could tell the two apart.
    pub(super) fn quieten(&mut self, n: usize) -> bool {
        for at in self.active.clone() {
            self.fault_ends(at);
        }
        for n in 0..3 {
            self.power_on(n);
            self.resume(n, self.servers[n].pauses);
        }
        let silence = u64::from(self.settings.peer_timeout_ms) * 1_000;
        self.quiet_until = self.now + 12 * silence;
        self.schedule.add(self.now + 6 * silence, What::Part { server: n as u8 });
        true
    }

    /// A person goes on with one server alone, if the group can do without it. No client reaches
    /// it.
    pub(super) fn part_with(&mut self, n: usize) {
        let well = is_well(self, 3) && self.is_whole();
        // Without its primary the group is not healthy, and follows who has all that it has.
        let leads = self.servers[n]
            .process
            .as_ref()
            .is_some_and(|process| process.node().replica().role() == RoleView::Primary);
        let busy = self.calm || self.straggler.is_some() || self.twin.is_some();
        if busy || !well || leads || !self.may_lose(&[n]) {
            return;
        }
        let span = u64::from(self.settings.peer_timeout_ms) * (4_000 + self.rng.below(60_000));
        self.schedule.add(self.now + span, What::MoveAway { server: n as u8 });
        self.ends_life(n, true);
        self.isolate_from_clients(n, 1);
        (self.destroyed, self.straggler) = (true, Some(n));
        self.go_on_with(n);
    }

    /// A person goes on with a server that is down. Copies of its directory are of the history
    /// before.
    fn go_on_with(&mut self, n: usize) {
        self.servers[n].copies.clear();
        let recovered = self.recover(n);
        self.note(recovered.map_err(|why| format!("can't go on with {}: {why}", n + 1)));
        self.power_on(n);
    }

    /// The directories of a server that went on alone, and of those that followed it since they
    /// had none, are moved away.
    pub(super) fn move_strays_away(&mut self, n: usize) {
        if self.straggler.take_if(|straggler| *straggler == n).is_none() {
            return;
        }
        self.isolate_from_clients(n, -1);
        for n in 0..3 {
            let found = check(&self.servers[n].disk).ok().and_then(|findings| findings.vote);
            let founder = found.and_then(|vote| vote.founder);
            if founder.is_some_and(|founder| self.checks.strays.contains(&founder)) {
                self.ends_life(n, true);
                self.lose(n);
                self.power_on(n);
            }
        }
    }

    fn isolate_from_clients(&mut self, n: usize, cuts: i32) {
        for (from, to) in [(n, CLIENTS), (CLIENTS, n)] {
            let way = self.net.way(from, to);
            way.cuts = way.cuts.saturating_add_signed(cuts);
        }
        self.net.release(self.now, &mut self.schedule);
    }

    /// A person who finds two disks damaged stops all servers and goes on with the third, unless
    /// a majority of the members has no damage: of those of the group, which may have been filled
    /// again meanwhile, or of those that the third knows. They go on by themselves.
    pub(super) fn go_on_with_the_third(&mut self) {
        let Some(third) = self.left_alone.take() else { return };
        let found = check(&self.servers[third].disk).ok().and_then(|findings| findings.config);
        let Some((_, known)) = found else { return };
        let goes_on = |config: Config| {
            let left = config.members().filter(|member| self.is_undamaged(*member)).count();
            left >= config.majority()
        };
        if [self.checks.config, Some(known)].into_iter().flatten().any(goes_on) {
            return;
        }
        story::tell(|| format!("a person goes on with server {} alone", third + 1));
        (0..3).for_each(|n| self.ends_life(n, true));
        self.servers[third].disk.fail(|failures| *failures = Failures::default());
        self.go_on_with(third);
    }

    /// Whether a member's disk is the one it was, without damage.
    fn is_undamaged(&self, member: Member) -> bool {
        let server = &self.servers[member.id.slot()];
        let old = server.rolled_back == Some(member.disk);
        !old && check(&server.disk).is_ok_and(|findings| {
            let is_it = findings.identity.is_some_and(|identity| identity.disk == member.disk);
            is_it && findings.damage.is_empty()
        })
    }

    /// Whether rot can be told from a torn tail: the last batch has a header after it, and the
    /// newest segment is named.
    fn is_sealed(&self, n: usize) -> bool {
        let server = &self.servers[n];
        server.process.as_ref().is_some_and(|process| {
            let named = truth::path(process.store().identity().segment);
            let newest = truth::segments(&server.disk).pop();
            !process.store().has_unsealed() && newest.as_ref() == Some(&named)
        })
    }

    /// A bit of a server's disk flips.
    pub(super) fn damage(&mut self, n: usize, place: Place, rng: &mut Rng) {
        self.note_damage(n);
        flip(&self.servers[n].disk, place, rng);
    }

    fn note_damage(&mut self, n: usize) {
        self.destroyed = true;
        let server = &self.servers[n];
        if let Some(id) = server.disk_id {
            self.checks.damages(id, &server.disk, false);
        }
    }

    /// Another state of the same directory is put in its place.
    pub(super) fn replace(&mut self, n: usize, old: MemoryDisk) {
        self.note_damage(n);
        let server = &mut self.servers[n];
        server.rolled_back = server.disk_id;
        server.disk = old;
    }

    /// The copies of a server's directory, oldest first, that were taken at least so many starts
    /// ago; none while the others are not sure to know the newest start.
    pub(super) fn old_copies(&self, n: usize, starts: u64) -> Vec<&MemoryDisk> {
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
        // One that was alone when it was copied leads before it hears that it is old.
        let may = |copy: &&Copied| copy.start + starts <= incarnation.0 && !copy.leads_alone;
        let old = self.servers[n].copies.iter().filter(|copy| known && may(copy));
        old.map(|copy| &copy.disk).collect()
    }

    /// Whether the group can do without the disks of these servers.
    pub(super) fn may_lose(&mut self, lost: &[usize]) -> bool {
        let majority = self.checks.config.map_or(usize::MAX, |config| config.majority());
        self.intact_without(lost) >= majority
    }

    /// How many members besides these servers have all that was answered; none when one of those
    /// servers has no disk, or a change of the members is under way.
    fn intact_without(&mut self, lost: &[usize]) -> usize {
        let Some(config) = self.checks.config else { return 0 };
        if lost.iter().any(|n| self.servers[*n].disk_id.is_none()) {
            return 0;
        }
        let acknowledged = self.checks.acknowledged.len() as u64;
        let settled = self.servers.iter().enumerate().all(|(at, server)| match &server.process {
            Some(process) => {
                let newest = process.mirror().newest_config();
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
                intact += usize::from(self.checks.keeps_all(member.disk, &server.disk));
            }
        }
        intact
    }

    /// All three run, and are members with the disks that they have, and everyone knows.
    pub(super) fn is_whole(&self) -> bool {
        let Some(config) = self.checks.config else { return false };
        self.servers[..3].iter().enumerate().all(|(n, server)| {
            let member = config.member(super::world::id(n));
            server.process.is_some() && member.is_some_and(|member| server.has_disk(member.disk))
        })
    }
}

fn flip(disk: &MemoryDisk, place: Place, rng: &mut Rng) {
    let mut paths = truth::segments(disk);
    // Mostly the log: it is the largest target.
    match place {
        Place::OlderSegment => drop(paths.pop()),
        Place::Any if rng.below(4) == 0 => paths = disk.paths(),
        Place::Any => {}
        Place::End => {
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
    use super::super::process::Settings;
    use super::super::truth::tests::filled;
    use super::*;

    /// Which segments of a log are hit, by flips of many draws.
    fn hit(place: Place) -> Vec<bool> {
        let disk = filled(10).0.disk().clone();
        let paths = truth::segments(&disk);
        let content = |disk: &MemoryDisk| {
            let mut all = Vec::new();
            disk.look("log", |_, bytes, _| all.push(bytes.to_vec()));
            all
        };
        let before = content(&disk);
        let mut hit = vec![false; paths.len()];
        for seed in 0..50 {
            let copy = disk.copied();
            flip(&copy, place, &mut Rng::new(seed));
            for (at, bytes) in content(&copy).iter().enumerate() {
                hit[at] |= *bytes != before[at];
            }
        }
        hit
    }

    #[test]
    fn bits_flip_in_any_segment_or_in_older_ones() {
        assert_eq!(hit(Place::Any), [true, true, true]);
        assert_eq!(hit(Place::OlderSegment), [true, true, false]);
    }

    /// Three machines on which nothing runs.
    fn world() -> World {
        let settings = Settings { segment_bytes: 100, ..Settings::default() };
        World::empty(1, settings)
    }

    #[test]
    fn two_disks_are_damaged_only_while_the_third_has_everything() {
        let mut world = world();
        let strike = |world: &mut World| world.destroy_two(0, 1, &mut Rng::new(7));
        (0..3).for_each(|n| world.start(n));
        world.run_to(10_000_000);
        assert!(world.is_whole() && truth::segments(&world.servers[0].disk).len() > 1);
        world.ends_life(2, true);
        assert!(!strike(&mut world), "the third is down");
        world.start(2);
        world.run_to(20_000_000);
        assert!(strike(&mut world));
        assert!(!strike(&mut world), "the group is not whole");
        world.run_to(21_000_000);
        world.go_on_with_the_third();
        (0..2).for_each(|n| world.start(n));
        world.run_to(31_000_000);
        assert!(world.is_whole() && world.finding.is_none(), "{:?}", world.finding);
        assert!(world.checks.config.is_some_and(|config| config.count() == 3));
        let term = world.servers[2].process.as_ref().map(|process| process.vote().term);
        assert!(term.is_some_and(|term| term.epoch() > 0), "no person went on with it");
    }

    /// The group has filled the two again by itself: then the third is lost, and is not needed.
    #[test]
    fn nobody_goes_on_with_a_third_that_the_group_can_do_without() {
        let mut world = world();
        (0..3).for_each(|n| world.start(n));
        world.run_to(10_000_000);
        let old = world.servers[2].disk.copied();
        for n in 0..2 {
            world.ends_life(n, true);
            world.lose(n);
            world.start(n);
            world.run_to(world.now + 5_000_000);
        }
        assert!(world.is_whole());
        world.ends_life(2, true);
        world.replace(2, old);
        world.left_alone = Some(2);
        world.go_on_with_the_third();
        world.start(2);
        world.run_to(world.now + 5_000_000);
        let epochs: Vec<u16> = world.replicas().map(|replica| replica.term().epoch()).collect();
        assert_eq!((epochs, &world.finding), (vec![0, 0, 0], &None));
    }
}
