//! What goes wrong, in an order that the seed draws: without a look at what the group does, so that
//! the same seed and the same kinds give the same order.

use clap::ValueEnum;
use postern::rng::Rng;
use std::time::Duration;

/// The longest pause before a fault.
const PAUSE_MS: u64 = 2000;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// kill -9 of one server.
    Kill,
    /// kill -9 of two servers at once.
    KillTwo,
    /// kill -9 of all servers at once.
    KillAll,
    /// SIGSTOP, and SIGCONT later.
    Stop,
    /// SIGTERM.
    Term,
    /// An operator asks for a handover.
    Handover,
    /// Free space falls below the reserve.
    NearlyFull,
    /// There is no free space at all.
    Full,
    /// Everything that a disk syncs is late.
    SlowDisk,
    /// Writes, syncs or renames fail.
    FailingDisk,
    /// A restarted server reads what it did not write, or less.
    Rot,
    /// The cable of a server is pulled.
    Isolate,
    /// Two servers do not reach each other.
    Cut,
    /// One server does not reach another, which reaches it.
    OneWay,
    /// What a server sends is late and partly lost.
    SlowLink,
}

/// What a kind needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing but processes.
    Nothing,
    /// A small file system, or a disk that can be told to be full.
    SmallDisk,
    /// Free space that can be taken.
    Volume,
    /// A disk that can be told to fail.
    DiskFaults,
    /// Network namespaces.
    Network,
    /// Links that can be made slow.
    SlowLinks,
}

/// What of a server a fault has for itself while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Process,
    Disk,
    Cable,
}

/// Whom a fault strikes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// Who is primary at that moment.
    Primary,
    /// The first or second one of the others.
    Backup(usize),
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) whom: Whom,
    /// Whether it is the next one behind that server, or the one after, that is struck beside it.
    pub(super) other: usize,
    /// How long it lasts; of what ends by itself, how long the server stays away.
    pub(super) span: Duration,
    /// It strikes a group that is whole; else right into what the one before has left.
    pub(super) calm: bool,
    /// How long it waits then.
    pub(super) pause: Duration,
    /// For whatever else must be drawn.
    pub(super) draw: u64,
}

impl Kind {
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    pub(super) fn need(self) -> Need {
        match self {
            Kind::Kill | Kind::KillTwo | Kind::KillAll => Need::Nothing,
            Kind::Stop | Kind::Term | Kind::Handover => Need::Nothing,
            Kind::NearlyFull => Need::Volume,
            Kind::Full => Need::SmallDisk,
            Kind::SlowDisk | Kind::FailingDisk | Kind::Rot => Need::DiskFaults,
            Kind::Isolate | Kind::Cut | Kind::OneWay => Need::Network,
            Kind::SlowLink => Need::SlowLinks,
        }
    }

    /// What it has for itself, of each server that it strikes.
    pub(super) fn parts(self) -> &'static [Part] {
        match self {
            Kind::Kill | Kind::KillTwo | Kind::KillAll | Kind::Stop | Kind::Term => {
                &[Part::Process]
            }
            Kind::NearlyFull | Kind::SlowDisk => &[Part::Disk],
            // The process may end of it.
            Kind::Full | Kind::FailingDisk | Kind::Rot => &[Part::Process, Part::Disk],
            Kind::Isolate | Kind::SlowLink => &[Part::Cable],
            Kind::Handover | Kind::Cut | Kind::OneWay => &[],
        }
    }

    /// It breaks what `last_survivor = "auto"` trusts: that processes are not paused, and that the
    /// dead come back where the survivor is reached.
    pub(super) fn breaks_trust(self) -> bool {
        matches!(self.need(), Need::Network | Need::SlowLinks) || self == Kind::Stop
    }

    /// It takes what was acknowledged from one disk, so that the others must have theirs.
    pub(super) fn takes_a_copy(self) -> bool {
        self == Kind::Rot
    }

    /// The shortest and the longest time, in milliseconds.
    fn span(self) -> (u64, u64) {
        match self {
            Kind::Kill | Kind::KillTwo | Kind::KillAll | Kind::Term => (10, 3000),
            Kind::Stop => (200, 6000),
            Kind::Handover => (500, 1500),
            Kind::NearlyFull => (2000, 4000),
            Kind::Full | Kind::FailingDisk => (500, 3000),
            Kind::Rot => (1000, 2000),
            Kind::SlowDisk | Kind::SlowLink => (1000, 6000),
            Kind::Isolate | Kind::Cut | Kind::OneWay => (200, 8000),
        }
    }
}

/// About half of all kinds, kill -9 always among them: what each does alone, and with some others,
/// is not seen while all are at work.
pub(super) fn draw_kinds(seed: u64) -> Vec<Kind> {
    let mut rng = Rng::new(seed ^ 0x50a7);
    let all = Kind::value_variants().iter().copied();
    all.filter(|kind| rng.below(2) == 0 || *kind == Kind::Kill).collect()
}

/// The order of a seed; it never ends.
pub(super) struct Plan {
    rng: Rng,
    kinds: Vec<Kind>,
    /// The one before takes a copy.
    fragile: bool,
}

impl Plan {
    /// The order of `seed` among these kinds, of which there is at least one.
    pub(super) fn new(seed: u64, kinds: Vec<Kind>) -> Plan {
        Plan { rng: Rng::new(seed), kinds, fragile: false }
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let rng = &mut self.rng;
        let kind = self.kinds[rng.below(self.kinds.len() as u64) as usize];
        let whom = match rng.below(4) {
            at @ (0 | 1) => Whom::Backup(at as usize),
            _ => Whom::Primary,
        };
        let (shortest, longest) = kind.span();
        let calm = rng.below(2) == 0 || kind.takes_a_copy() || self.fragile;
        self.fragile = kind.takes_a_copy();
        Some(Step {
            kind,
            whom,
            other: 1 + rng.below(2) as usize,
            span: draw_time(rng, shortest, longest),
            calm,
            pause: draw_time(rng, 1, PAUSE_MS),
            draw: rng.next_u64(),
        })
    }
}

/// Evenly in the logarithm: most are short.
fn draw_time(rng: &mut Rng, shortest: u64, longest: u64) -> Duration {
    let ratio = longest as f64 / shortest as f64;
    let ms = shortest as f64 * ratio.powf(rng.below(1001) as f64 / 1000.0);
    Duration::from_millis(ms as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Vec<Step> {
        Plan::new(seed, Kind::value_variants().to_vec()).take(500).collect()
    }

    #[test]
    fn a_seed_draws_one_order() {
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_kind_is_drawn_and_lasts_no_longer_than_it_may() {
        for kind in Kind::value_variants() {
            let steps: Vec<Step> = plan(7).into_iter().filter(|step| step.kind == *kind).collect();
            assert!(!steps.is_empty(), "{kind:?}");
            let (shortest, longest) = kind.span();
            let span = |step: &Step| step.span.as_millis() as u64;
            assert!(steps.iter().all(|step| (shortest..=longest).contains(&span(step))));
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
    fn what_takes_a_copy_stands_alone() {
        for pair in plan(7).windows(2) {
            let alone = pair[0].calm && pair[1].calm;
            assert!(!pair[0].kind.takes_a_copy() || alone, "{pair:?}");
        }
    }
}
