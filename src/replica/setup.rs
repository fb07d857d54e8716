//! What a replica starts with.

use super::{LogSummary, Seen, Shared, Takeover};
use crate::ids::{Index, Member, Position, Run, Vote};

/// The identity, settings and stored state with which a replica starts.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This server.
    pub me: Member,
    /// The settings that must be equal on all servers.
    pub shared: Shared,
    /// Which backup campaigns first.
    pub takeover: Takeover,
    /// The stored vote.
    pub vote: Vote,
    /// The summary of the stored log.
    pub summary: LogSummary,
    /// An entry up to which the log is known to be acknowledged; 0 if nothing is known.
    pub acknowledged: Index,
    /// The stored knowledge of other disks.
    pub seen: Seen,
    /// The newest starts of this disk, oldest first. Never empty: the last one is this start.
    pub runs: Vec<Run>,
    /// The best last entry among quarantined directories that may hold acknowledged messages;
    /// `None` if there are no such directories.
    pub former: Option<Position>,
    /// Seeds the generator for delays and random choices.
    pub seed: u64,
}
