//! What may happen in a search, and how often.

use std::fmt;

/// How much of each thing may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Elections.
    pub terms: u8,
    /// Clients' changes.
    pub entries: u8,
    /// Drops, adds and withdrawals.
    pub changes: u8,
    /// Crashes; each server may be started again.
    pub crashes: u8,
    /// Disks lost in a crash.
    pub wipes: u8,
    /// Links lost between two that live; without any, who starts is linked at once.
    pub cuts: u8,
    /// Whether a sync may come any time after its turn, and be lost in a crash; else it ends it.
    pub late_syncs: bool,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The oldest packet on the way from one server to another arrives.
    Deliver {
        /// Who sent it.
        from: u8,
        /// Who gets it.
        to: u8,
    },
    /// What a server has written becomes durable.
    Sync(u8),
    /// A client sends something to a primary.
    Propose(u8),
    /// A server asks for votes.
    Campaign(u8),
    /// A primary drops a member.
    Drop(u8, u8),
    /// A primary adds a learner.
    Add(u8, u8),
    /// A primary withdraws its newest config.
    Withdraw(u8),
    /// A server dies; what was not durable is kept or lost.
    Crash(u8, bool),
    /// It comes back.
    Restart(u8),
    /// It comes back with an empty disk.
    Wipe(u8),
    /// Two servers find each other.
    Link(u8, u8),
    /// The link between two servers is lost, with all that is under way.
    Cut(u8, u8),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Action::Deliver { from, to } => write!(f, "deliver {from} {to}"),
            Action::Sync(n) => write!(f, "sync {n}"),
            Action::Propose(n) => write!(f, "send {n}"),
            Action::Campaign(n) => write!(f, "campaign {n}"),
            Action::Drop(n, other) => write!(f, "drop {n} {other}"),
            Action::Add(n, other) => write!(f, "add {n} {other}"),
            Action::Withdraw(n) => write!(f, "withdraw {n}"),
            Action::Crash(n, true) => write!(f, "crash {n} (unsynced kept)"),
            Action::Crash(n, false) => write!(f, "crash {n}"),
            Action::Restart(n) => write!(f, "start {n}"),
            Action::Wipe(n) => write!(f, "wipe and start {n}"),
            Action::Link(a, b) => write!(f, "link {a} {b}"),
            Action::Cut(a, b) => write!(f, "cut {a} {b}"),
        }
    }
}
