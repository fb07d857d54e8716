//! How much a node holds in memory because of others, for programs that try to make it grow.

use super::Node;

/// Counts of what clients and other servers can make a node remember.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Verified passwords.
    pub proofs: usize,
    /// Changes that are logged and not answered.
    pub pending: usize,
    /// Sessions that wait for a round of reads.
    pub reads: usize,
    /// Sessions that came over links.
    pub operators: usize,
    /// Links whose other side has not said hello.
    pub links: usize,
    /// Disks whose incarnations are known.
    pub disks: usize,
}

impl Node {
    /// Counts what this node holds.
    pub fn held(&self) -> Held {
        let (links, disks) = self.replica.held();
        Held {
            proofs: self.passwords.count(),
            pending: self.pending.len(),
            reads: self.reads.len(),
            operators: self.operators.len(),
            links,
            disks,
        }
    }
}
