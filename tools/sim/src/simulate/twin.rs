//! The twin: a second process with the id of a server, at [`TWIN`], on a new disk or on a copy of
//! the server's directory. It dials the other servers. They can't dial it, since no list of servers
//! has its address.
//!
//! A twin on a new disk may become a member in place of the server. When it ends, the group loses
//! that disk. It therefore ends only while the group does not need the disk.
//!
//! A copy and its original are one disk to the group. If the copy replaced the original, entries
//! that only the original has acknowledged would count as stored, and the disk could vote twice in
//! a term. Faults therefore start only copies that all other servers know to be old, and destroy no
//! other disk while one runs: every server must refuse such a copy. A scenario may start a copy of
//! the newest start, which must be refused, too.

use super::faults::Fault;
use super::network::TWIN;
use super::trace;
use super::world::{World, id};
use postern::ids::{DiskId, ServerId};
use postern::replica::RoleView;
use postern::rng::Rng;
use postern::store::memory::MemoryDisk;

/// The state of the twin.
pub(super) struct Twin {
    /// The server whose id it has.
    of: usize,
    /// The disk of which it has a copy, until it has quarantined the copy.
    copied: Option<DiskId>,
    /// A config has named its disk: the group may need the disk.
    named: bool,
    /// The seed of the fault that has started it.
    fault_seed: u64,
    /// The server that it does not reach.
    cut: Option<usize>,
}

impl World {
    /// The server whose id and wall clock a process has.
    pub(super) fn place_of(&self, n: usize) -> usize {
        self.twin.as_ref().filter(|_| n == TWIN).map_or(n, |twin| twin.of)
    }

    pub(super) fn id_of(&self, n: usize) -> ServerId {
        id(self.place_of(n))
    }

    /// Whether this is the twin, on a copy of a server's directory.
    pub(super) fn is_copy(&self, n: usize) -> bool {
        n == TWIN && self.twin.as_ref().is_some_and(|twin| twin.copied.is_some())
    }

    /// The twin has started on this disk.
    pub(super) fn note_twin_disk(&mut self, disk: DiskId) {
        if let Some(twin) = &mut self.twin {
            twin.copied = twin.copied.filter(|copied| *copied == disk);
        }
    }

    /// Starts a twin of server `n`, unless there is one.
    pub(super) fn begin_twin(&mut self, n: usize, copy: Option<MemoryDisk>, seed: u64) -> bool {
        // A recovered server would fill a new disk with entries of its own epoch.
        if self.twin.is_some()
            || self.faults.intact_third.is_some()
            || self.faults.straggler.is_some()
        {
            return false;
        }
        let copied = copy.as_ref().and(self.servers[n].disk_id);
        let what = if copied.is_some() { "a copy of its directory" } else { "a new disk" };
        trace::line(|| format!("a second process with its id starts as server 4 on {what}"));
        let mut rng = Rng::new(seed);
        let cut = (rng.below(3) == 0).then(|| (n + 1 + rng.below(2) as usize) % 3);
        let cut = cut.filter(|_| !self.faults.plan.is_empty());
        if let Some(other) = cut {
            self.net.route(TWIN, other).cuts += 1;
            self.net.route(other, TWIN).cuts += 1;
        }
        self.twin = Some(Twin { of: n, copied, named: false, fault_seed: seed, cut });
        self.servers[TWIN].disk = copy.unwrap_or_default();
        self.start(TWIN);
        true
    }

    /// Starts a twin on a copy of the directory of server `n` that all others know to be old.
    pub(super) fn begin_old_copy(&mut self, n: usize, seed: u64) -> bool {
        if self.faults.disk_damaged && !self.is_whole() {
            return false;
        }
        let backups = self.old_backups(n, 1);
        if backups.is_empty() {
            return false;
        }
        let copy = backups[seed as usize % backups.len()].copied();
        self.begin_twin(n, Some(copy), seed)
    }

    /// Records that a config names the disk of the twin.
    pub(super) fn note_named(&mut self, n: usize) {
        let Some(twin) = self.twin.as_mut().filter(|twin| !twin.named) else { return };
        let disk = self.servers[TWIN].disk_id;
        let process = self.servers[n].process.as_ref();
        let config = process.and_then(|process| process.log_copy().newest_config());
        twin.named = config
            .is_some_and(|(_, config)| config.members().any(|member| Some(member.disk) == disk));
    }

    /// Checks that no server accepts a copy.
    pub(super) fn observe_copy(&mut self) {
        let (of, server) = (self.place_of(TWIN), &self.servers[TWIN]);
        let Some(replica) = server.process.as_ref().map(|process| process.node().replica()) else {
            return;
        };
        if replica.role() == RoleView::Primary || replica.links().next().is_some() {
            self.fail(format!("a copy of the directory of server {} replaces it", of + 1));
        }
        self.check_times(TWIN);
    }

    /// Whether the group does not need the disk of the twin.
    fn may_end_twin(&mut self) -> bool {
        let named = self.twin.as_ref().is_some_and(|twin| twin.named);
        !named || self.may_lose(&[TWIN])
    }

    /// Whether a fault may end. A twin that it has started runs until the group does not need its
    /// disk, and reaches all servers from now on.
    pub(super) fn may_end_twin_of(&mut self, fault: &Fault) -> bool {
        let began = self.twin.as_ref().is_some_and(|twin| twin.fault_seed == fault.seed);
        if began {
            self.heal_twin();
        }
        !began || self.may_end_twin()
    }

    pub(super) fn end_twin_of(&mut self, fault: &Fault) {
        if self.twin.as_ref().is_some_and(|twin| twin.fault_seed == fault.seed) {
            self.end_twin();
        }
    }

    /// Ends the twin and discards its disk.
    pub(super) fn end_twin(&mut self) {
        self.heal_twin();
        let Some(twin) = self.twin.take() else { return };
        trace::line(|| "the second process ends, and its disk is lost".to_owned());
        self.end_process(TWIN, twin.fault_seed % 2 == 0);
        if !twin.named {
            // No entry was committed with its help: all checks still apply.
            self.servers[TWIN].disk_id = None;
        }
        self.lose_disk(TWIN);
    }

    /// Ends the cut of the twin.
    fn heal_twin(&mut self) {
        let cut = self.twin.as_mut().and_then(|twin| twin.cut.take());
        let Some(other) = cut else { return };
        for (a, b) in [(TWIN, other), (other, TWIN)] {
            let route = self.net.route(a, b);
            route.cuts = route.cuts.saturating_sub(1);
        }
        self.net.release(self.now, &mut self.schedule);
    }

    /// Ends the twin when all faults are over. If the group needs its disk, the server itself is
    /// down until the others have all entries.
    pub(super) fn end_twin_safely(&mut self) -> Result<(), String> {
        let Some(of) = self.twin.as_ref().map(|twin| twin.of) else { return Ok(()) };
        if !self.may_end_twin() {
            trace::line(|| format!("server {} is stopped while its second process runs", of + 1));
            self.servers[of].faults.stays_down = true;
            self.end_process(of, true);
            let timeout = self.settings.peer_timeout_us();
            let end = self.now + 20 * timeout + 40_000_000;
            while self.twin.is_some()
                && self.results.finding.is_none()
                && !self.may_lose(&[of, TWIN])
            {
                if self.now > end {
                    let state = super::trial::describe(self);
                    let what = "the group does not need the disk of the second process";
                    return Err(format!("not within 20 T: {what}: {state}"));
                }
                self.run_to(self.now + timeout / 4);
            }
            self.servers[of].faults.stays_down = false;
        }
        self.end_twin();
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
    fn a_copy_that_replaces_its_original_is_found() {
        let mut world = whole();
        let copy = world.servers[1].disk.copied();
        assert!(world.begin_twin(1, Some(copy), 0));
        world.run_to(15_000_000);
        assert_eq!(world.results.finding, None);
        world.end_process(1, true);
        world.run_to(20_000_000);
        let found = world.results.finding.unwrap_or_default();
        assert!(found.contains("replaces it"), "{found}");
    }

    #[test]
    fn copies_are_started_only_when_they_are_known_to_be_old() {
        let mut world = whole();
        for end in [20_000_000, 30_000_000] {
            assert!(!world.begin_old_copy(1, 0), "no copy of a member is old");
            world.end_process(1, true);
            world.start(1);
            world.run_to(end);
        }
        assert!(world.begin_old_copy(1, 0));
        assert!(world.is_copy(TWIN) && !world.begin_twin(1, None, 0), "one at a time");
        world.run_to(40_000_000);
        assert!(!world.is_copy(TWIN) && world.results.finding.is_none(), "it quarantines the copy");
    }

    #[test]
    fn a_second_process_that_is_needed_stays() {
        let mut world = whole();
        assert!(world.begin_twin(1, None, 0));
        world.run_to(15_000_000);
        assert!(world.may_end_twin(), "it was turned away");
        world.end_process(1, true);
        world.run_to(25_000_000);
        assert!(!world.may_end_twin(), "it is a member, and server 2 is down");
        assert_eq!(world.end_twin_safely(), Ok(()));
        world.run_to(40_000_000);
        assert!(world.is_whole() && world.twin.is_none() && world.results.finding.is_none());
    }
}
