//! The actions of a search, and their bounds.

use clap::Args;
use postern::replica::Decision;

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
    /// A server campaigns, or a primary changes the members.
    Decide(u8, Decision),
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
