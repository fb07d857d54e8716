//! The state of a replica that other modules may read.

use super::{Config, Decisions, DialFailure, Replica};
use crate::ids::{DiskId, Index, LinkId, Member, Position, ServerId, Term};
use crate::peers::Peer;
use crate::raft::Role;
use crate::time::Moment;
use std::time::Duration;

/// A server's role as users see it: `STATUS` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleView {
    /// It has no config.
    Blank,
    /// It receives entries but is not a member.
    Learner,
    /// It follows a primary, or waits for one.
    Backup,
    /// It campaigns.
    Candidate,
    /// It is the primary.
    Primary,
}

impl Replica {
    /// Returns this server.
    pub fn me(&self) -> Member {
        self.raft.me
    }

    /// Returns the current term.
    pub fn term(&self) -> Term {
        self.raft.ballot.term()
    }

    /// Returns the disk of the server that began the current epoch; `None` for the first one.
    pub fn founder(&self) -> Option<DiskId> {
        self.raft.ballot.vote().founder
    }

    /// Returns this server's role.
    pub fn role(&self) -> RoleView {
        match self.raft.role {
            Role::Primary(_) => RoleView::Primary,
            Role::Candidate(_) => RoleView::Candidate,
            Role::Follower(_) => match self.config() {
                None => RoleView::Blank,
                Some(config) if config.has(self.raft.me) => RoleView::Backup,
                Some(_) => RoleView::Learner,
            },
        }
    }

    /// Returns this server if it is primary, or the recently active primary that it follows.
    pub fn primary(&self, now: Moment) -> Option<Member> {
        self.raft.primary(now, &self.peers)
    }

    /// Returns the newest config.
    pub fn config(&self) -> Option<&Config> {
        self.raft.log.config()
    }

    /// Returns whether clients may connect, as far as this server knows.
    pub fn gate_open(&self) -> bool {
        self.raft.gate_open()
    }

    /// Returns the last index, durable or not.
    pub fn last(&self) -> Index {
        self.raft.log.last()
    }

    /// Returns the term of an entry; `None` if the log has no such entry.
    pub fn term_of(&self, index: Index) -> Option<Term> {
        self.raft.log.summary().term(index)
    }

    /// Returns Raft's commit index, as far as this server knows it.
    pub fn committed(&self) -> Index {
        self.raft.log.committed()
    }

    /// Returns the acknowledged index: entries up to it may be applied.
    pub fn acknowledged(&self) -> Index {
        self.raft.log.acknowledged()
    }

    /// Returns whether the group has fewer members than `min_copies`.
    pub fn has_too_few_copies(&self) -> bool {
        self.raft.has_too_few_copies()
    }

    /// Returns whether this primary accepts no changes because it is handing its role over.
    pub fn is_handing_over(&self) -> bool {
        self.raft.is_handing_over()
    }

    /// Returns a member whose disk is nearly full, if there is one.
    pub fn full_member(&self) -> Option<ServerId> {
        self.raft.full_member(&self.peers)
    }

    /// Returns whether this server is a member that can neither lead nor campaign without a lost
    /// one. Only an operator can know that the others are lost for good.
    pub fn may_be_last(&self) -> bool {
        let able = self.raft.is_primary() || self.raft.may_campaign(&self.peers);
        !able && self.config().is_some_and(|config| config.has(self.raft.me))
    }

    /// Returns the peer timeout.
    pub fn peer_timeout(&self) -> Duration {
        self.peers.peer_timeout()
    }

    /// Returns the largest difference between this server's wall clock and that of a recently
    /// active server.
    pub fn clock_skew(&self, now: Moment) -> Option<Duration> {
        self.peers.clock_skew(now)
    }

    /// Returns the largest difference between the clocks of any two members; `None` unless all
    /// others are heard.
    pub fn clock_spread(&self, now: Moment) -> Option<Duration> {
        let (me, config) = (self.me(), self.config()?);
        let others = config.members().filter(|member| *member != me);
        self.peers.clock_spread(now, others.map(|member| member.id))
    }

    /// Returns how often each rule has decided on this server.
    pub fn decisions(&self) -> Decisions {
        self.raft.decisions + self.peers.decisions
    }

    /// Returns the servers that this server is linked with.
    pub fn linked(&self) -> impl Iterator<Item = Member> + '_ {
        self.peers.linked().map(|(member, _)| member)
    }

    /// Returns the open links to other servers.
    pub fn links(&self) -> impl Iterator<Item = LinkId> + Clone + '_ {
        self.peers.linked().map(|(_, link)| link)
    }

    /// Returns the member at the other end of an open link.
    pub fn member_on(&self, link: LinkId) -> Option<Member> {
        self.peers.member_on(link)
    }

    /// Returns whether this server follows the one at the other end of this link.
    pub fn follows_on(&self, link: LinkId) -> bool {
        let Role::Follower(following) = &self.raft.role else { return false };
        let primary = following.primary.and_then(|primary| self.peers.peer(primary.id));
        primary.is_some_and(|peer| peer.has_link(link))
    }

    /// Returns the linked servers that have quarantined directories which clients may have used,
    /// each with the best last entry of these directories.
    pub fn former_of_peers(&self) -> impl Iterator<Item = (ServerId, Position)> + '_ {
        let linked = self.peers.iter().filter(|peer| peer.link.is_some());
        linked.filter_map(|peer| peer.former.map(|last| (peer.id, last)))
    }

    /// Returns why a linked server that dialled this one can't be reached at its own address.
    pub fn unreachable(&self, id: ServerId) -> Option<DialFailure> {
        self.peers.peer(id).filter(|peer| peer.link.is_some())?.unreachable
    }

    /// Returns what this server knows of another one.
    pub(crate) fn peer(&self, id: ServerId) -> Option<&Peer> {
        self.peers.peer(id)
    }

    /// Returns whether a server was dropped too often, so that this primary does not add it now.
    pub(crate) fn is_penalized(&self, id: ServerId, now: Moment) -> bool {
        self.raft.is_penalized(id, now)
    }

    /// Returns the other server's state as `STATUS` names it.
    pub fn peer_state(&self, id: ServerId, now: Moment) -> &'static str {
        let Some(peer) = self.peers.peer(id) else {
            return if id == self.raft.me.id { "self" } else { "-" };
        };
        match &peer.link {
            None => "lost",
            Some(_) if peer.health.stopping => "stopping",
            Some(_) if self.raft.is_penalized(id, now) => "penalty",
            Some(link) if self.config().is_some_and(|config| config.has(link.member)) => "member",
            Some(_) => "learner",
        }
    }

    /// On a primary: returns how many entries the other server has not acknowledged.
    pub fn peer_lag(&self, id: ServerId) -> Option<u64> {
        let Role::Primary(primary) = &self.raft.role else { return None };
        let link = self.peers.peer(id)?.link.as_ref()?;
        Some(self.last().0 - primary.match_index(link.member).0)
    }

    /// Returns how many links wait for a hello, and how many disks are recorded.
    #[cfg(feature = "simulate")]
    pub fn held(&self) -> (usize, usize) {
        self.peers.held()
    }
}
