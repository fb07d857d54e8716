//! The state of a replica that other modules may read.

use super::event::{DialFailure, Obstacle};
use super::members::Config;
use super::rules::Decisions;
use super::{Replica, Role, RoleView};
use crate::ids::{DiskId, Index, LinkId, Member, Position, ServerId, Term};
use crate::time::Moment;
use std::time::Duration;

/// The state of the connection to another server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// The member at the other end, if there is a link.
    pub linked: Option<Member>,
    /// Why the server is not linked.
    pub obstacle: Option<Obstacle>,
    /// When the last link was lost.
    pub lost_at: Option<Moment>,
    /// It reports that it is stopping.
    pub is_stopping: bool,
    /// It was dropped too often, so the primary does not add it for now.
    pub is_penalized: bool,
    /// On a primary: the number of entries that it has not acknowledged.
    pub lag: Option<u64>,
}

impl Replica {
    /// Returns this server.
    pub fn me(&self) -> Member {
        self.me
    }

    /// Returns the current term.
    pub fn term(&self) -> Term {
        self.vote.term
    }

    /// Returns the disk of the server that began the current epoch; `None` for the first one.
    pub fn founder(&self) -> Option<DiskId> {
        self.vote.founder
    }

    /// Returns this server's role.
    pub fn role(&self) -> RoleView {
        match &self.role {
            Role::Primary(_) => RoleView::Primary,
            Role::Candidate(_) => RoleView::Candidate,
            Role::Follower(_) => match self.summary.config() {
                None => RoleView::Blank,
                Some((_, config)) if config.has(self.me) => RoleView::Backup,
                Some(_) => RoleView::Learner,
            },
        }
    }

    /// Returns this server if it is primary, or the recently active primary that it follows.
    pub fn primary(&self, now: Moment) -> Option<Member> {
        match &self.role {
            Role::Primary(_) => Some(self.me),
            Role::Candidate(_) => None,
            Role::Follower(following) => {
                following.primary.filter(|member| self.hears(*member, now))
            }
        }
    }

    /// Returns the newest config.
    pub fn config(&self) -> Option<&Config> {
        self.summary.config().map(|(_, config)| config)
    }

    /// Returns whether clients may connect, as far as this server knows.
    pub fn gate_open(&self) -> bool {
        // A config is written only when the previous one is committed.
        self.summary.config_up_to(self.acknowledged).is_some_and(|config| config.gate_open)
            || self.summary.gate_was_open()
    }

    /// Returns the last index, durable or not.
    pub fn last(&self) -> Index {
        self.summary.last().index
    }

    /// Returns Raft's commit index, as far as this server knows it.
    pub fn committed(&self) -> Index {
        self.committed
    }

    /// Returns the acknowledged index: entries up to it may be applied.
    pub fn acknowledged(&self) -> Index {
        self.acknowledged
    }

    /// Returns whether the group has fewer members than `min_copies`.
    pub fn has_too_few_copies(&self) -> bool {
        self.config().map_or(0, Config::count) < usize::from(self.shared.copies_min)
    }

    /// Returns a member whose disk is nearly full, if there is one.
    pub fn full_member(&self) -> Option<ServerId> {
        let is_full = |member: &Member| {
            if *member == self.me {
                return self.full;
            }
            self.peer(member.id).is_some_and(|peer| peer.is_linked(*member) && peer.health.full)
        };
        self.config()?.members().find(is_full).map(|member| member.id)
    }

    /// Returns whether this server is a member that can neither lead nor campaign without a lost
    /// one. Only an operator can know that the others are lost for good.
    pub fn may_be_last(&self) -> bool {
        let able = self.may_campaign().is_some() || matches!(self.role, Role::Primary(_));
        !able && self.config().is_some_and(|config| config.has(self.me))
    }

    /// Returns the peer timeout.
    pub fn peer_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.shared.peer_timeout_ms))
    }

    /// Returns how often each rule has decided on this server.
    pub fn decisions(&self) -> Decisions {
        self.decisions
    }

    /// Returns the servers that this server is linked with.
    pub fn linked(&self) -> impl Iterator<Item = Member> + '_ {
        self.peers.iter().filter_map(|peer| peer.link.as_ref().map(|link| link.member))
    }

    /// Returns the open links to other servers.
    pub fn links(&self) -> impl Iterator<Item = LinkId> + Clone + '_ {
        self.peers.iter().filter_map(|peer| peer.link.as_ref().map(|link| link.id))
    }

    /// Returns the member at the other end of an open link.
    pub fn member_on(&self, link: LinkId) -> Option<Member> {
        let peer = self.peers.iter().find(|peer| peer.has_link(link))?;
        peer.link.as_ref().map(|link| link.member)
    }

    /// Returns whether this server follows the one at the other end of this link.
    pub fn follows_on(&self, link: LinkId) -> bool {
        let Role::Follower(following) = &self.role else { return false };
        let primary = following.primary.and_then(|primary| self.peer(primary.id));
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
        self.peer(id).filter(|peer| peer.link.is_some())?.unreachable
    }

    /// Returns the state of the connection to another server, for users.
    pub fn peer_view(&self, id: ServerId, now: Moment) -> PeerView {
        let Some(peer) = self.peer(id) else { return PeerView::default() };
        PeerView {
            linked: peer.link.as_ref().map(|link| link.member),
            obstacle: peer.obstacle,
            lost_at: peer.lost_at,
            is_stopping: peer.health.stopping,
            is_penalized: self.is_penalized(id, now),
            lag: self.peer_lag(id),
        }
    }

    /// Returns the other server's state as `STATUS` names it.
    pub fn peer_state(&self, id: ServerId, now: Moment) -> &'static str {
        let Some(peer) = self.peers.iter().find(|peer| peer.id == id) else {
            return if id == self.me.id { "self" } else { "-" };
        };
        match &peer.link {
            None => "lost",
            Some(_) if peer.health.stopping => "stopping",
            Some(_) if self.is_penalized(id, now) => "penalty",
            Some(link) if self.config().is_some_and(|config| config.has(link.member)) => "member",
            Some(_) => "learner",
        }
    }

    /// On a primary: returns how many entries the other server has not acknowledged.
    pub fn peer_lag(&self, id: ServerId) -> Option<u64> {
        let Role::Primary(primary) = &self.role else { return None };
        let link = self.peer(id)?.link.as_ref()?;
        let stored = primary.progress(link.member).map_or(Index::ZERO, |p| p.stored);
        Some(self.last().0 - stored.0)
    }

    /// Returns how many links wait for a hello, and how many disks are recorded.
    #[cfg(feature = "simulate")]
    pub fn held(&self) -> (usize, usize) {
        (self.pending.len(), self.seen.all().len())
    }
}
