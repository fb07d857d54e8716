//! The plan of faults, drawn from the seed before a run starts. It is a list, so that a failing
//! run can be repeated with fewer of its faults.

use super::clock::{Event, Schedule};
use postern::rng::Rng;
use std::fmt;

/// Declares the kinds of faults: their longest durations in ms and their properties. Of a kind
/// that ends a process the duration is how long the process stays down.
macro_rules! kinds {
    ($($(#[$doc:meta])+ $kind:ident($ms:literal $(, $property:ident)*),)+) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind { $($(#[$doc])+ $kind,)+ }

        impl Kind {
            /// All kinds. The place of a kind names its random stream: append new ones.
            pub(super) const ALL: [Kind; [$(Kind::$kind),+].len()] = [$(Kind::$kind),+];

            fn duration_max_us(self) -> u64 {
                match self { $(Kind::$kind => $ms * 1_000,)+ }
            }

            fn has(self, property: Property) -> bool {
                let properties: &[Property] = match self {
                    $(Kind::$kind => &[$(Property::$property),*],)+
                };
                properties.contains(&property)
            }
        }
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Property {
    /// A fault of a disk. A twentieth of the seeds has no other ones.
    Disk,
    /// Breaks what `last_survivor = "auto"` relies on: for example, a running server refuses
    /// connections, or an operator recovers a server that continues by itself with this setting.
    UnsafeWithAuto,
}

kinds! {
    /// All connections between two servers are reset.
    Reset(30_000),
    /// Two servers do not reach each other.
    Cut(30_000),
    /// A server does not reach another one, which reaches it.
    OneWay(30_000),
    /// A server reaches neither servers nor clients.
    Isolate(30_000),
    /// One-way cuts that heal in another order than they began.
    Clog(30_000),
    /// Higher latency between two servers.
    Slow(30_000),
    /// A short cut: what was sent meanwhile arrives at once.
    Burst(300),
    /// A running server refuses connections.
    Refuse(30_000, UnsafeWithAuto),
    /// Dials are lost; open connections work.
    DialsLost(30_000),
    /// kill -9.
    Kill(5_000),
    /// SIGTERM.
    Stop(5_000),
    /// SIGTERM to all three at once.
    StopAll(5_000),
    /// An operator orders a handover.
    HandOver(30_000),
    /// A machine loses power, and some of its unsynced bytes.
    PowerLoss(30_000),
    /// All three at once are killed or lose power.
    AllDown(5_000),
    /// A process crashes soon after each of several starts.
    Storm(5_000),
    /// SIGSTOP, then SIGCONT.
    Pause(30_000, UnsafeWithAuto),
    /// A monotonic clock runs at another rate.
    Rate(60_000, UnsafeWithAuto),
    /// A wall clock jumps by up to a day, drifts, and may jump back.
    WallJump(30_000),
    /// Slow syncs.
    SlowSync(30_000, Disk),
    /// A sync fails; its pages are marked clean.
    SyncFails(5_000, Disk),
    /// Writes fail.
    WritesFail(30_000, Disk),
    /// The disk is full or nearly full.
    Full(30_000, Disk),
    /// A bit flips in a file.
    Flip(30_000, Disk),
    /// A disk is lost.
    Wipe(30_000, Disk),
    /// A directory is replaced by an old copy of itself.
    RollBack(30_000, Disk),
    /// A server is started with a config file that differs from that of the others.
    Misconfigure(30_000),
    /// A name resolves to the address of another server.
    Misdial(30_000, UnsafeWithAuto),
    /// A bit flips in a segment that is not the newest.
    FlipOld(30_000, Disk),
    /// Bits flip on the disks of two servers at once; an operator may recover the third.
    FlipTwo(30_000, Disk, UnsafeWithAuto),
    /// An operator recovers one server alone although the others run. The group refuses it, and
    /// at the end its directory is removed.
    Straggler(30_000, UnsafeWithAuto),
    /// A server is stopped right after another one has lost power.
    StopBesidePowerLoss(30_000),
    /// A second process with the id of a server starts on a new disk.
    Twin(30_000, UnsafeWithAuto),
    /// An old copy of a server's directory is started beside it.
    TwinCopy(30_000, UnsafeWithAuto),
}

/// What a server does right before a fault begins. Such moments find more defects than random ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    VoteSent,
    ConfigAppended,
    FirstOfTermSent,
    Acknowledged,
}

/// A planned fault. Times are in µs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) at: u64,
    /// Delays the fault until its server does this, at most by `TRIGGER_TIMEOUT`.
    pub(super) trigger: Option<Trigger>,
    pub(super) kind: Kind,
    /// The servers, 0 to 2. Most kinds concern only the first.
    pub(super) server: usize,
    pub(super) other: usize,
    pub(super) duration: u64,
    /// The seed of everything else that is random about the fault.
    pub(super) seed: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, server, other) = (self.kind, self.server + 1, self.other + 1);
        write!(f, "{:.6} s {kind:?} server {server} (other {other})", self.at as f64 / 1e6)?;
        write!(f, " for {:.3} s", self.duration as f64 / 1e6)?;
        match self.trigger {
            Some(trigger) => write!(f, ", right after {trigger:?}"),
            None => Ok(()),
        }
    }
}

/// The plan of a run and the state of its faults. Faults are named by their places in the plan.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) plan: Vec<Fault>,
    /// Faults of the plan that are skipped.
    pub(super) excluded: Vec<usize>,
    pub(super) awaiting_trigger: Vec<usize>,
    pub(super) injected: Vec<usize>,
    /// Faults that have begun and not ended.
    pub(super) active: Vec<usize>,
    /// All faults have ended, and no other one may begin.
    pub(super) over: bool,
    /// No fault may begin before this time.
    pub(super) quiet_until: u64,
    /// A disk was damaged or lost.
    pub(super) disk_damaged: bool,
    /// The server in whose memory an account was changed.
    pub(super) corrupted: Option<usize>,
    /// The server without damage while the disks of the two others are damaged: an operator may
    /// have to recover it.
    pub(super) intact_third: Option<usize>,
    /// The server that an operator has recovered alone although the group runs.
    pub(super) straggler: Option<usize>,
    /// The server whose disk reports syncs that it has not done.
    pub(super) liar: Option<usize>,
}

impl Faults {
    /// Schedules the faults of a plan.
    pub(super) fn schedule(&mut self, plan: Vec<Fault>, schedule: &mut Schedule) {
        for (at, fault) in plan.iter().enumerate() {
            schedule.add(fault.at, Event::Fault(at));
        }
        self.plan = plan;
    }
}

/// Draws the faults of a run of `end` µs, ordered by time. `survivor_auto` is the setting
/// `last_survivor = "auto"`.
pub(super) fn plan(seed: u64, end: u64, survivor_auto: bool) -> Vec<Fault> {
    let mut rng = Rng::new(seed ^ 0xfa17);
    let (none, disks_only) = match rng.below(20) {
        0 => (true, false),
        1 => (false, true),
        _ => (false, false),
    };
    let mut faults = Vec::new();
    for (place, kind) in Kind::ALL.into_iter().enumerate() {
        // Each kind has its own random stream, so that kinds do not change each other.
        let mut rng = Rng::new(seed.wrapping_mul(0x1_0001).wrapping_add(place as u64));
        let on = rng.below(2) == 0 && !none && (!disks_only || kind.has(Property::Disk));
        let on = on && !(survivor_auto && kind.has(Property::UnsafeWithAuto));
        // Once in 8 to 800 seconds, log-uniform.
        let mean = 8e6 * 10f64.powf(rng.below(1001) as f64 / 500.0);
        let mut at = rng.below(2 * mean as u64 + 1);
        while on && at < end {
            draw(&mut rng, kind, at, &mut faults);
            at += rng.below(2 * mean as u64 + 1);
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn draw(rng: &mut Rng, kind: Kind, at: u64, faults: &mut Vec<Fault>) {
    let server = rng.below(3) as usize;
    let other = (server + 1 + rng.below(2) as usize) % 3;
    // Log-uniform, from a thousandth of the longest.
    let duration =
        (kind.duration_max_us() as f64 * 10f64.powf(rng.below(1001) as f64 / 333.0 - 3.0)) as u64;
    let trigger = match rng.below(16) {
        0 => Some(Trigger::VoteSent),
        1 => Some(Trigger::ConfigAppended),
        2 => Some(Trigger::FirstOfTermSent),
        3 => Some(Trigger::Acknowledged),
        _ => None,
    };
    let seed = rng.next_u64();
    let fault = Fault { at, trigger, kind, server, other, duration, seed };
    if kind != Kind::Clog {
        return faults.push(fault);
    }
    let mut routes = vec![(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
    for step in 0..2 + rng.below(4) {
        let (server, other) = routes.remove(rng.below(routes.len() as u64) as usize);
        let (at, duration) = (at + step * 50_000, duration + rng.below(duration + 1));
        faults.push(Fault { at, trigger: None, server, other, duration, ..fault });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_one_plan() {
        let text = |seed| -> Vec<String> {
            plan(seed, 600_000_000, false).iter().map(ToString::to_string).collect()
        };
        assert_eq!(text(5), text(5));
        assert_ne!(text(5), text(6));
    }

    #[test]
    fn every_kind_is_drawn_by_some_seed() {
        let all: Vec<Fault> = (0..50).flat_map(|seed| plan(seed, 600_000_000, false)).collect();
        for kind in Kind::ALL {
            assert!(all.iter().any(|fault| fault.kind == kind), "{kind:?}");
        }
    }
}
