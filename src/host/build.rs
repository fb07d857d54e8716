//! How a host is put together from an open directory.

use super::{Host, ScrubSettings};
use crate::ids::{Member, Position};
use crate::node::{self, Node};
use crate::replica::{self, Replica, Shared, Takeover};
use crate::store::disk::Disk;
use crate::store::{Former, Opened};
use crate::time::Moment;

/// What a host is built from, beside its directory.
#[derive(Debug)]
pub struct Setup {
    /// What all servers of the group must agree on. `servers` is that of the directory.
    pub shared: Shared,
    /// Which backup takes over first.
    pub takeover: Takeover,
    /// Of all that is random.
    pub seed: u64,
    /// How fast and how often sealed segments are read.
    pub scrub: ScrubSettings,
    /// What the node is told. `former` is that of the directory.
    pub node: node::Setup,
}

impl<D: Disk> Host<D> {
    /// Puts a host together from a directory that was opened.
    pub fn build(opened: Opened<D>, setup: Setup) -> Host<D> {
        let Setup { shared, takeover, seed, scrub, node } = setup;
        let identity = opened.store.identity();
        let former = in_use(&opened.former);
        let replica = replica::Setup {
            me: Member { id: identity.id, disk: identity.disk },
            shared: Shared { servers: identity.servers, ..shared },
            takeover,
            vote: opened.vote,
            summary: opened.summary,
            acknowledged: opened.acknowledged,
            seen: identity.seen().clone(),
            runs: identity.runs().to_vec(),
            former: former.iter().map(|(_, last)| *last).max(),
            seed,
        };
        let replica = Replica::new(Moment(0), replica);
        let state = (opened.mailboxes, opened.acknowledged);
        let node = Node::new(Moment(0), node::Setup { former, ..node }, replica, state);
        Host::new(node, opened.store, opened.vote, scrub)
    }
}

/// What was quarantined and may have been used by clients: the folder, and its last readable entry.
pub fn in_use(former: &[Former]) -> Vec<(String, Position)> {
    let used = former.iter().filter(|former| former.opened);
    used.map(|former| (former.folder.clone(), former.last)).collect()
}
