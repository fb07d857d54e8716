//! A second process with the id of a server, at [`TWIN`]: on a new disk, or on a copy of the
//! server's directory. It dials the others; nobody dials it, since no list has its address.
//!
//! A second process on a new disk may become a member in the server's place. Its end is then the
//! loss of a disk, so it ends only while the group can do without that disk.
//!
//! A copy and its original are one disk to the group. If a copy took the place of its original,
//! entries that only the original has acknowledged would count as stored, and the disk could vote
//! twice in a term. A fault of the plan therefore starts only copies that all others know to be
//! old, and no other disk is destroyed while one runs: every server must refuse such a copy. A
//! scenario may start a copy of the newest start; it must not take the place either.

use super::faults::Fault;
use super::network::TWIN;
use super::story;
use super::world::{World, id};
use postern::ids::{DiskId, ServerId};
use postern::replica::RoleView;
use postern::rng::Rng;
use postern::store::memory::MemoryDisk;

/// What the world knows of the second process.
pub(super) struct Twin {
    /// Whose id it has.
    of: usize,
    /// The disk that it has a copy of, until it has quarantined that copy.
    copied: Option<DiskId>,
    /// A server's newest config has named its disk: it may hold what the group counts on.
    named: bool,
    /// The fault that began it, by what was drawn for that.
    draw: u64,
    /// Which server it does not reach.
    cut: Option<usize>,
}

impl World {
    /// The place of the server whose id and whose wall clock a process has.
    pub(super) fn place_of(&self, n: usize) -> usize {
        self.twin.as_ref().filter(|_| n == TWIN).map_or(n, |twin| twin.of)
    }

    pub(super) fn id_of(&self, n: usize) -> ServerId {
        id(self.place_of(n))
    }

    /// Whether this is the second process, on a copy of a server's directory.
    pub(super) fn is_copy(&self, n: usize) -> bool {
        n == TWIN && self.twin.as_ref().is_some_and(|twin| twin.copied.is_some())
    }

    /// The second process runs on this disk now.
    pub(super) fn note_twin_disk(&mut self, disk: DiskId) {
        if let Some(twin) = &mut self.twin {
            twin.copied = twin.copied.filter(|copied| *copied == disk);
        }
    }

    /// Starts a second process with the id of server `n`, unless there is one already.
    pub(super) fn begin_twin(&mut self, n: usize, copy: Option<MemoryDisk>, draw: u64) -> bool {
        // A straggler would fill a new disk with its own history.
        if self.twin.is_some() || self.left_alone.is_some() || self.straggler.is_some() {
            return false;
        }
        let copied = copy.as_ref().and(self.servers[n].disk_id);
        let what = if copied.is_some() { "a copy of its directory" } else { "a new disk" };
        story::tell(|| format!("a second process, told as 4, starts with its id on {what}"));
        let (named, mut rng) = (false, Rng::new(draw));
        let cut = (rng.below(3) == 0).then(|| (n + 1 + rng.below(2) as usize) % 3);
        let cut = cut.filter(|_| !self.plan.is_empty());
        if let Some(other) = cut {
            self.net.way(TWIN, other).cuts += 1;
            self.net.way(other, TWIN).cuts += 1;
        }
        self.twin = Some(Twin { of: n, copied, named, draw, cut });
        self.servers[TWIN].disk = copy.unwrap_or_default();
        self.start(TWIN);
        true
    }

    /// Starts a copy of the directory of server `n` that all others know to be old.
    pub(super) fn begin_old_copy(&mut self, n: usize, draw: u64) -> bool {
        if self.destroyed && !self.is_whole() {
            return false;
        }
        let copies = self.old_copies(n, 1);
        if copies.is_empty() {
            return false;
        }
        let copy = copies[draw as usize % copies.len()].copied();
        self.begin_twin(n, Some(copy), draw)
    }

    /// Remembers when a process counts the second one's disk as that of a member.
    pub(super) fn note_named(&mut self, n: usize) {
        let Some(twin) = self.twin.as_mut().filter(|twin| !twin.named) else { return };
        let disk = self.servers[TWIN].disk_id;
        let process = self.servers[n].process.as_ref();
        let config = process.and_then(|process| process.mirror().newest_config());
        twin.named = config
            .is_some_and(|(_, config)| config.members().any(|member| Some(member.disk) == disk));
    }

    /// Nobody may take an old copy for the server.
    pub(super) fn observe_copy(&mut self) {
        let (of, server) = (self.place_of(TWIN), &self.servers[TWIN]);
        let Some(replica) = server.process.as_ref().map(|process| process.node().replica()) else {
            return;
        };
        if replica.role() == RoleView::Primary || replica.links().next().is_some() {
            self.fail(format!("a copy of the directory of server {} takes its place", of + 1));
        }
        self.check_times(TWIN);
    }

    /// Whether the group can do without the disk of the second process.
    fn may_part(&mut self) -> bool {
        let named = self.twin.as_ref().is_some_and(|twin| twin.named);
        !named || self.may_lose(&[TWIN])
    }

    /// Whether a fault that is over may end what it began. The second process stays until its disk
    /// may be lost, but it reaches everyone from now on.
    pub(super) fn may_part_with_twin_of(&mut self, fault: &Fault) -> bool {
        let began = self.twin.as_ref().is_some_and(|twin| twin.draw == fault.draw);
        if began {
            self.join_twin();
        }
        !began || self.may_part()
    }

    pub(super) fn forget_twin_of(&mut self, fault: &Fault) {
        if self.twin.as_ref().is_some_and(|twin| twin.draw == fault.draw) {
            self.forget_twin();
        }
    }

    /// Ends the second process and throws its disk away.
    pub(super) fn forget_twin(&mut self) {
        self.join_twin();
        let Some(twin) = self.twin.take() else { return };
        story::tell(|| "the second process ends, and its disk is gone".to_owned());
        self.ends_life(TWIN, twin.draw % 2 == 0);
        if !twin.named {
            // Nothing was committed by it, and nothing more need be forgiven.
            self.servers[TWIN].disk_id = None;
        }
        self.lose(TWIN);
    }

    /// The second process reaches everyone.
    fn join_twin(&mut self) {
        let cut = self.twin.as_mut().and_then(|twin| twin.cut.take());
        let Some(other) = cut else { return };
        for (a, b) in [(TWIN, other), (other, TWIN)] {
            let way = self.net.way(a, b);
            way.cuts = way.cuts.saturating_sub(1);
        }
        self.net.release(self.now, &mut self.schedule);
    }

    /// When the faults are over a person ends the second process. If the group counts on its disk,
    /// the server itself is stopped until the others have everything.
    pub(super) fn part_with_twin(&mut self) -> Result<(), String> {
        let Some(of) = self.twin.as_ref().map(|twin| twin.of) else { return Ok(()) };
        if !self.may_part() {
            story::tell(|| format!("server {} is stopped while its second process runs", of + 1));
            self.servers[of].for_good = true;
            self.ends_life(of, true);
            let silence = self.settings.peer_timeout_us();
            let end = self.now + 20 * silence + 40_000_000;
            while self.twin.is_some() && self.finding.is_none() && !self.may_lose(&[of, TWIN]) {
                if self.now > end {
                    let picture = super::trial::picture(self);
                    return Err(format!("not within 20 T: no other disk is needed: {picture}"));
                }
                self.run_to(self.now + silence / 4);
            }
            self.servers[of].for_good = false;
        }
        self.forget_twin();
        self.power_on(of);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::Settings;
    use super::*;

    fn whole() -> World {
        let settings = Settings::default();
        let mut world = World::empty(1, settings);
        (0..3).for_each(|n| world.start(n));
        world.run_to(10_000_000);
        assert!(world.is_whole());
        world
    }

    #[test]
    fn a_copy_that_takes_the_place_of_its_original_is_found() {
        let mut world = whole();
        let copy = world.servers[1].disk.copied();
        assert!(world.begin_twin(1, Some(copy), 0));
        world.run_to(15_000_000);
        assert_eq!(world.finding, None);
        world.ends_life(1, true);
        world.run_to(20_000_000);
        let found = world.finding.unwrap_or_default();
        assert!(found.contains("takes its place"), "{found}");
    }

    #[test]
    fn copies_are_started_only_when_they_are_known_to_be_old() {
        let mut world = whole();
        for end in [20_000_000, 30_000_000] {
            assert!(!world.begin_old_copy(1, 0), "no copy of a member is old");
            world.ends_life(1, true);
            world.start(1);
            world.run_to(end);
        }
        assert!(world.begin_old_copy(1, 0));
        assert!(world.is_copy(TWIN) && !world.begin_twin(1, None, 0), "one at a time");
        world.run_to(40_000_000);
        assert!(!world.is_copy(TWIN) && world.finding.is_none(), "it sets the copy quarantine");
    }

    #[test]
    fn a_second_process_that_is_needed_stays() {
        let mut world = whole();
        assert!(world.begin_twin(1, None, 0));
        world.run_to(15_000_000);
        assert!(world.may_part(), "it was turned away");
        world.ends_life(1, true);
        world.run_to(25_000_000);
        assert!(!world.may_part(), "it is a member, and server 2 is down");
        assert_eq!(world.part_with_twin(), Ok(()));
        world.run_to(40_000_000);
        assert!(world.is_whole() && world.twin.is_none() && world.finding.is_none());
    }
}
