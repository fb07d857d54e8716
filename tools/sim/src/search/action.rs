//! The actions of a search, and their bounds.

use clap::Args;
use std::fmt;

/// How often each kind of action may happen.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Elections.
    #[arg(long, default_value_t = 2)]
    pub terms: u8,
    /// Changes of clients.
    #[arg(long, default_value_t = 1)]
    pub entries: u8,
    /// Drops, adds and withdrawals.
    #[arg(long, default_value_t = 2)]
    pub changes: u8,
    /// Crashes. Each server may be restarted.
    #[arg(long, default_value_t = 1)]
    pub crashes: u8,
    /// Disks that are lost in a crash.
    #[arg(long, default_value_t = 1)]
    pub wipes: u8,
    /// Links that are lost between running servers. With none, a server is linked when it starts.
    #[arg(long, default_value_t = 0)]
    pub cuts: u8,
    /// Let syncs complete at any time after their turn, and be lost in a crash. By default a sync
    /// completes in its turn.
    #[arg(long)]
    pub late_syncs: bool,
}

/// A step of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The oldest packet from one server to another arrives.
    Deliver {
        /// The sender.
        from: u8,
        /// The receiver.
        to: u8,
    },
    /// Everything that a server has written becomes durable.
    Sync(u8),
    /// A client sends a change to a primary.
    Propose(u8),
    /// A server campaigns.
    Campaign(u8),
    /// A primary drops a member.
    Drop(u8, u8),
    /// A primary adds a learner.
    Add(u8, u8),
    /// A primary withdraws its newest config.
    Withdraw(u8),
    /// A server crashes. What is not durable is kept or lost.
    Crash(u8, bool),
    /// A server restarts.
    Restart(u8),
    /// A server restarts with an empty disk.
    Wipe(u8),
    /// A link between two servers opens.
    Link(u8, u8),
    /// A link between two servers is lost, with all its packets.
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
