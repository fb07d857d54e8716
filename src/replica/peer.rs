//! What this server knows of each other server: its link, its last answer, whether it is down.
//! This state decides when the replica acts; safety never depends on it.

use super::event::{DialFailure, Obstacle};
use super::hello::Hello;
use super::packet::PeerHealth;
use crate::ids::{DiskId, Incarnation, LinkId, Member, Position, ProcessId, Run, ServerId};
use crate::limits::SHUN_TIME_MAX;
use crate::time::Moment;
use std::time::Duration;

/// The one link to a server that is in use.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// This server dialled it.
    pub(super) dialled: bool,
    pub(super) member: Member,
    pub(super) incarnation: Incarnation,
    pub(super) process: ProcessId,
    /// The serial of the other side's hello on this link, and that hello's `has_other`.
    pub(super) serial: u64,
    pub(super) has_other: bool,
}

impl Link {
    pub(super) fn new(id: LinkId, dialled: bool, hello: &Hello) -> Link {
        Link {
            id,
            dialled,
            member: hello.from,
            incarnation: hello.incarnation,
            process: hello.process,
            serial: hello.serial,
            has_other: hello.has_other,
        }
    }

    pub(super) fn run(&self) -> Run {
        Run { incarnation: self.incarnation, process: self.process }
    }

    /// Identifies the server and the process at the other end.
    pub(super) fn life(&self) -> (Member, Incarnation, ProcessId) {
        (self.member, self.incarnation, self.process)
    }

    pub(super) fn same_life(&self, other: &Link) -> bool {
        self.life() == other.life()
    }
}

/// The dials to one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Dialling {
    /// The number of dials without a result yet.
    pub(super) under_way: u32,
    /// When to dial again.
    pub(super) next: Option<Moment>,
    /// The delay before the next dial; doubles with each failure.
    pub(super) delay: Duration,
    /// The number of immediate redials after dials that ended before the hello.
    pub(super) quick: u32,
    /// A dial is under way although there is a link, to check that the address answers.
    pub(super) seeking: bool,
}

/// Another server of the configured list.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) id: ServerId,
    pub(super) link: Option<Link>,
    /// The send time of the newest message that it has answered; a hello counts as answered when
    /// it arrives.
    pub(super) heard: Option<Moment>,
    /// Like `heard`, but only for pings on this link: a hello may have been in flight for a long
    /// time.
    pub(super) answered: Option<Moment>,
    /// When its last link was lost.
    pub(super) lost_at: Option<Moment>,
    /// Since this server started, a dial to it has had a result, or it has dialled this server.
    pub(super) met: bool,
    /// A dial was refused since its link was lost.
    pub(super) refused: bool,
    /// Why it is not linked now.
    pub(super) obstacle: Option<Obstacle>,
    /// It is linked because it dialled this server, but the last dial to its own address failed.
    /// Clients can't reach that address either.
    pub(super) unreachable: Option<DialFailure>,
    /// The process whose link was logged; cleared when the loss of that link is logged.
    pub(super) announced: Option<(Member, Incarnation, ProcessId)>,
    /// The process that was linked last.
    pub(super) life: Option<(Member, Incarnation, ProcessId)>,
    /// That process has answered at its own address.
    pub(super) reached: bool,
    pub(super) dialling: Dialling,
    /// The epoch in its last hello since this server started.
    pub(super) epoch: Option<u16>,
    /// The best last entry of the directories that it has quarantined: see
    /// [`super::past::Past::former`].
    pub(super) former: Option<Position>,
    /// It sent packets that no correct server sends: this server refuses it until then.
    pub(super) shunned: Option<Moment>,
    /// The length of the last such refusal.
    pub(super) shunned_for: Duration,
    /// It is pinged at the end of this event, if it is linked then.
    pub(super) ping_due: bool,
    /// The state that it last reported on this link.
    pub(super) health: PeerHealth,
    /// The disks that its last `Blank` on this link named.
    pub(super) said_blank: Option<[DiskId; 3]>,
    /// The disks that this server's `Blank` on this link named.
    pub(super) told_blank: Option<[DiskId; 3]>,
}

impl Peer {
    pub(super) fn new(id: ServerId, now: Moment) -> Peer {
        Peer {
            id,
            link: None,
            heard: None,
            answered: None,
            lost_at: None,
            met: false,
            refused: false,
            obstacle: None,
            unreachable: None,
            announced: None,
            life: None,
            reached: false,
            dialling: Dialling { next: Some(now), ..Dialling::default() },
            epoch: None,
            former: None,
            shunned: None,
            shunned_for: Duration::ZERO,
            ping_due: false,
            health: PeerHealth::default(),
            said_blank: None,
            told_blank: None,
        }
    }

    /// Resets the state of the previous link: that link is lost, or another one replaces it.
    pub(super) fn begin_anew(&mut self) {
        self.refused = false;
        self.obstacle = None;
        self.answered = None;
        self.health = PeerHealth::default();
        self.said_blank = None;
        self.told_blank = None;
        let under_way = self.dialling.under_way;
        self.dialling = Dialling { under_way, ..Dialling::default() };
    }

    /// Refuses the server for `least`, because it sent packets that no correct server sends. Each
    /// repetition within a minute after a refusal doubles the time, up to a minute.
    pub(super) fn shun(&mut self, now: Moment, least: Duration) {
        let soon = self.shunned.is_some_and(|until| now < until + SHUN_TIME_MAX);
        let next = if soon { self.shunned_for * 2 } else { least };
        self.shunned_for = next.clamp(least, SHUN_TIME_MAX.max(least));
        self.shunned = Some(now + self.shunned_for);
    }

    /// Logs the loss of the link. Two servers that dial each other close one of their links: the
    /// log omits a loss when another link replaces it at once.
    pub(super) fn log_loss(&mut self) {
        if self.link.is_none()
            && let Some((member, ..)) = self.announced.take()
        {
            match self.obstacle {
                Some(Obstacle::Dial(why)) => log::info!("lost server {member}: its address {why}"),
                _ => log::info!("lost server {member}: its link was closed"),
            }
        }
    }

    pub(super) fn has_link(&self, link: LinkId) -> bool {
        self.link.as_ref().is_some_and(|own| own.id == link)
    }

    pub(super) fn is_linked(&self, member: Member) -> bool {
        self.link.as_ref().is_some_and(|link| link.member == member)
    }

    pub(super) fn hears(&self, member: Member, now: Moment, peer_timeout: Duration) -> bool {
        self.is_linked(member) && self.heard.is_some_and(|at| now < at + peer_timeout)
    }

    pub(super) fn is_gone(&self, member: Member) -> bool {
        match &self.link {
            None => self.refused,
            Some(link) => link.member != member,
        }
    }
}
