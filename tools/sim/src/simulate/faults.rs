//! The plan of what goes wrong, drawn from the seed before anything runs: a list, so that a
//! failing run can be tried again with fewer of its faults.

use postern::rng::Rng;
use std::fmt;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All connections of two servers are reset.
    Reset,
    /// Two servers do not reach each other.
    Cut,
    /// One does not reach the other.
    OneWay,
    /// A server reaches nobody, clients included.
    Isolate,
    /// Stopped links that are freed in another order.
    Clog,
    /// Everything between two servers takes longer.
    Slow,
    /// What is sent is held for a moment and comes all at once.
    Burst,
    /// A server's address refuses although it lives.
    Refuse,
    /// Dials vanish, open connections go on.
    DialsLost,
    /// kill -9.
    Kill,
    /// SIGTERM: it hands over, is dropped, and ends.
    Stop,
    /// SIGTERM to all three at once.
    StopAll,
    /// An operator asks for a handover.
    HandOver,
    /// The machine is off, unsynced bytes are lost in part.
    PowerLoss,
    /// All three at once: killed, or without power.
    AllDown,
    /// A process that dies soon after each start.
    Storm,
    /// SIGSTOP, SIGCONT.
    Pause,
    /// A clock that runs at another rate.
    Rate,
    /// A wall clock that jumps by up to a day, drifts, and may jump back.
    WallJump,
    /// Syncs take long.
    SlowSync,
    /// One sync fails; its pages look clean afterwards.
    SyncFails,
    /// Writes fail for a while.
    WritesFail,
    /// No room for more.
    Full,
    /// A bit flips in one file.
    Flip,
    /// A disk is lost.
    Wipe,
    /// An old copy is put back.
    RollBack,
    /// A server is started with a config file that is not that of the others.
    Misconfigure,
    /// What a name resolves to is another server's address.
    Misdial,
    /// A bit flips in a segment of a log that another follows.
    FlipOld,
    /// Bits flip on the disks of two servers at once; a person goes on with the third.
    FlipTwo,
    /// A person goes on with one server alone although the others live; the group refuses it, and
    /// in the end its directory is moved away.
    Straggler,
    /// A server is stopped while another one is without power, before that is noticed.
    StopBesidePowerLoss,
    /// A second process with the id of a server, on a new disk.
    Twin,
    /// An old copy of a server's directory is started beside it.
    TwinCopy,
}

impl Kind {
    pub(super) const ALL: [Kind; 34] = [
        Kind::Reset,
        Kind::Cut,
        Kind::OneWay,
        Kind::Isolate,
        Kind::Clog,
        Kind::Slow,
        Kind::Burst,
        Kind::Refuse,
        Kind::DialsLost,
        Kind::Kill,
        Kind::Stop,
        Kind::StopAll,
        Kind::HandOver,
        Kind::PowerLoss,
        Kind::AllDown,
        Kind::Storm,
        Kind::Pause,
        Kind::Rate,
        Kind::WallJump,
        Kind::SlowSync,
        Kind::SyncFails,
        Kind::WritesFail,
        Kind::Full,
        Kind::Flip,
        Kind::Wipe,
        Kind::RollBack,
        Kind::Misconfigure,
        Kind::Misdial,
        Kind::FlipOld,
        Kind::FlipTwo,
        Kind::Straggler,
        Kind::StopBesidePowerLoss,
        Kind::Twin,
        Kind::TwinCopy,
    ];

    /// It makes a server refuse that lives, or breaks what else `last_survivor = "auto"` trusts;
    /// or a person goes on with the third, which does so by itself there.
    fn breaks_trust(self) -> bool {
        matches!(
            self,
            Kind::Refuse
                | Kind::Pause
                | Kind::Rate
                | Kind::Misdial
                | Kind::FlipTwo
                | Kind::Straggler
                | Kind::Twin
                | Kind::TwinCopy
        )
    }

    fn is_of_disks(self) -> bool {
        matches!(
            self,
            Kind::SlowSync
                | Kind::SyncFails
                | Kind::WritesFail
                | Kind::Full
                | Kind::Flip
                | Kind::FlipOld
                | Kind::FlipTwo
                | Kind::Wipe
                | Kind::RollBack
        )
    }

    /// How long it lasts at most, in µs; of a few that end by themselves, how long a server stays
    /// down.
    fn span(self) -> u64 {
        match self {
            Kind::Burst => 300_000,
            Kind::Kill
            | Kind::Stop
            | Kind::StopAll
            | Kind::AllDown
            | Kind::Storm
            | Kind::SyncFails => 5_000_000,
            Kind::Rate => 60_000_000,
            _ => 30_000_000,
        }
    }
}

/// What makes a good moment for a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moments {
    VoteSent,
    ConfigAppended,
    FirstOfTermSent,
    Acknowledged,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// When, in µs.
    pub(super) at: u64,
    /// Or at the first of these after that, by the server that it strikes.
    pub(super) waits_for: Option<Moments>,
    pub(super) kind: Kind,
    /// Whom it strikes, 0 to 2, and another one.
    pub(super) server: u8,
    pub(super) other: u8,
    /// How long, in µs.
    pub(super) span: u64,
    /// For whatever else must be drawn.
    pub(super) draw: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, server, other) = (self.kind, self.server + 1, self.other + 1);
        write!(f, "{:.6} s {kind:?} server {server} (other {other})", self.at as f64 / 1e6)?;
        write!(f, " for {:.3} s", self.span as f64 / 1e6)?;
        match self.waits_for {
            Some(moment) => write!(f, ", right after {moment:?}"),
            None => Ok(()),
        }
    }
}

/// Draws the faults of a run of `end` µs, in the order of time; `trusting` when a last survivor
/// goes on by itself.
pub(super) fn plan(seed: u64, end: u64, trusting: bool) -> Vec<Fault> {
    let mut rng = Rng::new(seed ^ 0xfa17);
    let (calm, disks_only) = match rng.below(20) {
        0 => (true, false),
        1 => (false, true),
        _ => (false, false),
    };
    let mut faults = Vec::new();
    for (place, kind) in Kind::ALL.into_iter().enumerate() {
        // Of its own stream: what another kind draws does not shift it.
        let mut rng = Rng::new(seed.wrapping_mul(0x1_0001).wrapping_add(place as u64));
        let on = rng.below(2) == 0 && !calm && (!disks_only || kind.is_of_disks());
        let on = on && !(trusting && kind.breaks_trust());
        // Once in 8 to 800 seconds: two decades, evenly in the logarithm.
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
    let server = rng.below(3) as u8;
    let other = (server + 1 + rng.below(2) as u8) % 3;
    // Evenly in the logarithm, from a thousandth of the longest.
    let span = (kind.span() as f64 * 10f64.powf(rng.below(1001) as f64 / 333.0 - 3.0)) as u64;
    let waits_for = match rng.below(16) {
        0 => Some(Moments::VoteSent),
        1 => Some(Moments::ConfigAppended),
        2 => Some(Moments::FirstOfTermSent),
        3 => Some(Moments::Acknowledged),
        _ => None,
    };
    let draw = rng.next_u64();
    let fault = Fault { at, waits_for, kind, server, other, span, draw };
    if kind != Kind::Clog {
        return faults.push(fault);
    }
    let mut ways = vec![(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
    for step in 0..2 + rng.below(4) {
        let (server, other) = ways.remove(rng.below(ways.len() as u64) as usize);
        let (at, span) = (at + step * 50_000, span + rng.below(span + 1));
        faults.push(Fault { at, waits_for: None, server, other, span, ..fault });
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
