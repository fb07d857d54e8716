//! Counts what clients and other servers make a node hold in memory, for programs that try to make
//! it grow.

use super::Node;

/// How many items of each kind clients and other servers made a node hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Verified passwords.
    pub proofs: usize,
    /// Changes that are logged and not yet acknowledged.
    pub pending: usize,
    /// Sessions that wait for a round of reads to be confirmed.
    pub reads: usize,
    /// Sessions that came over links.
    pub operators: usize,
    /// Links on which no hello was received.
    pub links: usize,
    /// Disks whose incarnations are recorded.
    pub disks: usize,
}

impl Node {
    /// Counts what this node holds.
    pub fn held(&self) -> Held {
        let (links, disks) = self.replica.held();
        Held {
            proofs: self.logins.passwords.count(),
            pending: self.unanswered.len(),
            reads: self.reads.len(),
            operators: self.operators.len(),
            links,
            disks,
        }
    }
}
