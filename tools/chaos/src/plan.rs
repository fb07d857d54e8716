//! The sequence of faults. It depends only on the seed and the kinds, not on what the group does,
//! so the same seed repeats it.

use clap::ValueEnum;
use postern::rng::Rng;
use std::time::Duration;

/// Maximum pause before a fault.
const PAUSE_MS: u64 = 2000;

/// A kind of fault. The comments are the help text of `--only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Send SIGKILL to one server, and restart it later.
    Kill,
    /// Send SIGKILL to two servers at once, and restart them later.
    KillTwo,
    /// Send SIGKILL to all servers at once, and restart them later.
    KillAll,
    /// Send SIGSTOP to one server, and SIGCONT later.
    Stop,
    /// Send SIGTERM to one server, and restart it later.
    Term,
    /// Run `postern handover`.
    Handover,
    /// Leave less free disk space than a server reserves.
    NearlyFull,
    /// Leave no free disk space.
    Full,
    /// Delay every sync of one disk.
    SlowDisk,
    /// Let writes, syncs or renames on one disk fail.
    FailingDisk,
    /// Restart a server on a disk that returns a flipped bit or too few bytes.
    Rot,
    /// Disconnect one server from the network.
    Isolate,
    /// Block all packets between two servers.
    Cut,
    /// Block all packets from one server to another, in this direction only.
    OneWay,
    /// Delay packets that one server sends, and lose some of them.
    SlowLink,
}

/// What a kind of fault requires of the machine and the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requirement {
    Nothing,
    /// A small file system for each server.
    Volume,
    /// A small file system for each server, or a server that can inject disk faults.
    VolumeOrDiskFaults,
    /// A server that can inject disk faults.
    DiskFaults,
    /// Network namespaces.
    Network,
    /// Network namespaces whose links can be slowed down.
    SlowLinks,
}

/// A part of a server that only one fault at a time may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Process,
    Disk,
    Interface,
}

/// The preferred target of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The server that is primary at the time of injection.
    Primary,
    /// The first (0) or second (1) server after the primary, by id.
    Backup(usize),
}

/// One fault of the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlannedFault {
    pub(super) kind: Kind,
    pub(super) target: Target,
    /// The distance in ids from the first target to the second, of a fault that has two.
    pub(super) offset: usize,
    /// Time until the fault ends, or until a killed server is restarted.
    pub(super) duration: Duration,
    /// Whether to wait until the group has recovered from all earlier faults.
    pub(super) after_recovery: bool,
    /// The pause before the injection.
    pub(super) pause: Duration,
    /// Seed for the details of the fault.
    pub(super) seed: u64,
}

/// The properties of a kind.
pub(super) struct Properties {
    pub(super) requirement: Requirement,
    /// What the fault occupies at each server that it affects.
    pub(super) resources: &'static [Resource],
    /// The shortest and the longest duration, in milliseconds.
    duration: (u64, u64),
}

impl Kind {
    pub(super) fn properties(self) -> Properties {
        use Requirement::{DiskFaults, Network, Nothing, SlowLinks, Volume, VolumeOrDiskFaults};
        use Resource::{Disk, Interface, Process};
        let (requirement, resources, duration): (_, &[Resource], _) = match self {
            Kind::Kill | Kind::KillTwo | Kind::KillAll => (Nothing, &[Process], (10, 3000)),
            Kind::Term => (Nothing, &[Process], (10, 3000)),
            Kind::Stop => (Nothing, &[Process], (200, 6000)),
            Kind::Handover => (Nothing, &[], (500, 1500)),
            Kind::NearlyFull => (Volume, &[Disk], (2000, 4000)),
            // The server may exit because of these three.
            Kind::Full => (VolumeOrDiskFaults, &[Process, Disk], (500, 3000)),
            Kind::FailingDisk => (DiskFaults, &[Process, Disk], (500, 3000)),
            Kind::Rot => (DiskFaults, &[Process, Disk], (1000, 2000)),
            Kind::SlowDisk => (DiskFaults, &[Disk], (1000, 6000)),
            Kind::SlowLink => (SlowLinks, &[Interface], (1000, 6000)),
            Kind::Isolate => (Network, &[Interface], (200, 8000)),
            Kind::Cut | Kind::OneWay => (Network, &[], (200, 8000)),
        };
        Properties { requirement, resources, duration }
    }

    /// The name, as `--only` expects it.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// Returns whether the kind violates what `last_survivor = "auto"` assumes: no process pauses,
    /// and a restarted server can reach the survivor.
    pub(super) fn violates_auto(self) -> bool {
        let requirement = self.properties().requirement;
        matches!(requirement, Requirement::Network | Requirement::SlowLinks) || self == Kind::Stop
    }

    /// Returns whether the kind destroys acknowledged data on one disk. The other servers must
    /// have all of it before.
    pub(super) fn destroys_data(self) -> bool {
        self == Kind::Rot
    }
}

/// Draws about half of all kinds, always with `kill`. With fewer kinds, a run shows what each of
/// them does alone, and not only what they do all together.
pub(super) fn draw_kinds(seed: u64) -> Vec<Kind> {
    let mut rng = Rng::new(seed ^ 0x50a7);
    let all = Kind::value_variants().iter().copied();
    all.filter(|kind| rng.below(2) == 0 || *kind == Kind::Kill).collect()
}

/// The infinite sequence of faults of one seed.
pub(super) struct Plan {
    rng: Rng,
    kinds: Vec<Kind>,
    /// Whether the previous fault destroys data.
    data_destroyed: bool,
}

impl Plan {
    /// Returns the sequence of `seed` with these kinds, of which there must be at least one.
    pub(super) fn new(seed: u64, kinds: Vec<Kind>) -> Plan {
        Plan { rng: Rng::new(seed), kinds, data_destroyed: false }
    }
}

impl Iterator for Plan {
    type Item = PlannedFault;

    fn next(&mut self) -> Option<PlannedFault> {
        let rng = &mut self.rng;
        let kind = self.kinds[rng.below(self.kinds.len() as u64) as usize];
        let target = match rng.below(4) {
            at @ (0 | 1) => Target::Backup(at as usize),
            _ => Target::Primary,
        };
        let after_recovery = rng.below(2) == 0 || kind.destroys_data() || self.data_destroyed;
        self.data_destroyed = kind.destroys_data();
        Some(PlannedFault {
            kind,
            target,
            offset: 1 + rng.below(2) as usize,
            duration: draw_time(rng, kind.properties().duration),
            after_recovery,
            pause: draw_time(rng, (1, PAUSE_MS)),
            seed: rng.next_u64(),
        })
    }
}

/// Draws a time in milliseconds, uniformly in its logarithm: most are short.
fn draw_time(rng: &mut Rng, (shortest, longest): (u64, u64)) -> Duration {
    let ratio = longest as f64 / shortest as f64;
    let ms = shortest as f64 * ratio.powf(rng.below(1001) as f64 / 1000.0);
    Duration::from_millis(ms as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Vec<PlannedFault> {
        Plan::new(seed, Kind::value_variants().to_vec()).take(500).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_kind_is_drawn_with_a_duration_in_its_bounds() {
        for kind in Kind::value_variants() {
            let faults = plan(7).into_iter().filter(|fault| fault.kind == *kind);
            let durations: Vec<u64> =
                faults.map(|fault| fault.duration.as_millis() as u64).collect();
            assert!(!durations.is_empty(), "{kind:?}");
            let (shortest, longest) = kind.properties().duration;
            assert!(durations.iter().all(|ms| (shortest..=longest).contains(ms)), "{kind:?}");
        }
    }

    #[test]
    fn a_seed_draws_kinds_and_each_kind_is_drawn() {
        assert_eq!(draw_kinds(7), draw_kinds(7));
        for kind in Kind::value_variants() {
            assert!((0..20).any(|seed| draw_kinds(seed).contains(kind)), "{kind:?}");
        }
    }

    #[test]
    fn the_group_recovers_before_and_after_a_fault_that_destroys_data() {
        for pair in plan(7).windows(2) {
            let alone = pair[0].after_recovery && pair[1].after_recovery;
            assert!(!pair[0].kind.destroys_data() || alone, "{pair:?}");
        }
    }
}
