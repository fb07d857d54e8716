//! What others may know of a replica.

use super::event::{DialFailure, Obstacle};
use super::members::Config;
use super::rules::Decisions;
use super::{Replica, Role, RoleView};
use crate::ids::{DiskId, Index, LinkId, Member, Position, ServerId, Term};
use crate::time::Moment;
use std::time::Duration;

/// What is known of the connection to another server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// Who is at the other end, if there is a link.
    pub linked: Option<Member>,
    /// Why the server is not linked.
    pub obstacle: Option<Obstacle>,
    /// When the last link was lost.
    pub lost_at: Option<Moment>,
    /// It says that it is about to end.
    pub is_stopping: bool,
    /// It was dropped too often to be added again now.
    pub is_penalized: bool,
    /// How many entries it has not acknowledged, as a primary knows.
    pub lag: Option<u64>,
}

impl Replica {
    /// This server.
    pub fn me(&self) -> Member {
        self.me
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.vote.term
    }

    /// The disk of the server that began the present epoch; of the first one, none.
    pub fn founder(&self) -> Option<DiskId> {
        self.vote.founder
    }

    /// What this server is to the group.
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

    /// The primary that this server is, or hears, if any.
    pub fn primary(&self, now: Moment) -> Option<Member> {
        match &self.role {
            Role::Primary(_) => Some(self.me),
            Role::Candidate(_) => None,
            Role::Follower(following) => {
                following.primary.filter(|member| self.hears(*member, now))
            }
        }
    }

    /// The newest config.
    pub fn config(&self) -> Option<&Config> {
        self.summary.config().map(|(_, config)| config)
    }

    /// Whether clients are let in, as far as this server can know.
    pub fn gate_open(&self) -> bool {
        // A later config follows only when the one before is committed.
        self.summary.config_up_to(self.acknowledged).is_some_and(|config| config.gate_open)
            || self.summary.gate_was_open()
    }

    /// The last index, stored or not.
    pub fn last(&self) -> Index {
        self.summary.last().index
    }

    /// Raft's commit index, as far as this server knows it.
    pub fn committed(&self) -> Index {
        self.committed
    }

    /// How far entries may be applied.
    pub fn acknowledged(&self) -> Index {
        self.acknowledged
    }

    /// Whether there are fewer members than `min_copies` asks for.
    pub fn has_too_few_copies(&self) -> bool {
        self.config().map_or(0, Config::count) < usize::from(self.shared.copies_min)
    }

    /// A member whose disk is nearly full, if there is one.
    pub fn full_member(&self) -> Option<ServerId> {
        let is_full = |member: &Member| {
            if *member == self.me {
                return self.full;
            }
            self.peer(member.id).is_some_and(|peer| peer.is_linked(*member) && peer.health.full)
        };
        self.config()?.members().find(is_full).map(|member| member.id)
    }

    /// Whether this server, a member, can't go on without one that it has lost: only a person can
    /// know that the others are gone for good.
    pub fn may_be_last(&self) -> bool {
        let able = self.may_campaign().is_some() || matches!(self.role, Role::Primary(_));
        !able && self.config().is_some_and(|config| config.has(self.me))
    }

    /// `T`.
    pub fn peer_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.shared.peer_timeout_ms))
    }

    /// How often each rule has decided here.
    pub fn decisions(&self) -> Decisions {
        self.decisions
    }

    /// Whom this server has an open link to.
    pub fn linked(&self) -> impl Iterator<Item = Member> + '_ {
        self.peers.iter().filter_map(|peer| peer.link.as_ref().map(|link| link.member))
    }

    /// The open links to other servers.
    pub fn links(&self) -> impl Iterator<Item = LinkId> + Clone + '_ {
        self.peers.iter().filter_map(|peer| peer.link.as_ref().map(|link| link.id))
    }

    /// Who is at the other end of an open link.
    pub fn member_on(&self, link: LinkId) -> Option<Member> {
        let peer = self.peers.iter().find(|peer| peer.has_link(link))?;
        peer.link.as_ref().map(|link| link.member)
    }

    /// Whether this server follows the one at the other end of this link.
    pub fn follows_on(&self, link: LinkId) -> bool {
        let Role::Follower(following) = &self.role else { return false };
        let primary = following.primary.and_then(|primary| self.peer(primary.id));
        primary.is_some_and(|peer| peer.has_link(link))
    }

    /// Linked servers that have quarantined directories which clients may have used, and the best
    /// of their last entries.
    pub fn former_of_peers(&self) -> impl Iterator<Item = (ServerId, Position)> + '_ {
        let linked = self.peers.iter().filter(|peer| peer.link.is_some());
        linked.filter_map(|peer| peer.former.map(|last| (peer.id, last)))
    }

    /// Why a linked server that has dialled us can't be reached at its own address.
    pub fn unreachable(&self, id: ServerId) -> Option<DialFailure> {
        self.peer(id).filter(|peer| peer.link.is_some())?.unreachable
    }

    /// What is known of the connection to another server, for a person.
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

    /// How this server knows the other one, for `STATUS`.
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

    /// On a primary: how many entries the other server has not acknowledged.
    pub fn peer_lag(&self, id: ServerId) -> Option<u64> {
        let Role::Primary(primary) = &self.role else { return None };
        let link = self.peer(id)?.link.as_ref()?;
        let stored = primary.progress(link.member).map_or(Index::ZERO, |p| p.stored);
        Some(self.last().0 - stored.0)
    }

    /// How many links wait for a hello, and how many disks are known by their incarnations.
    #[cfg(feature = "simulate")]
    pub fn held(&self) -> (usize, usize) {
        (self.pending.len(), self.seen.all().len())
    }
}
