//! What this server knows of each other server: its link, its last answer, whether it is down.
//! This state decides when the replica acts; safety never depends on it.

use super::evidence::Evidence;
use crate::effect::{DialFailure, Obstacle};
use crate::ids::{DiskId, LinkId, Member, Position, Run, ServerId};
use crate::limits::SHUN_TIME_MAX;
use crate::packet::{Hello, PeerHealth};
use crate::time::Moment;
use std::time::Duration;

/// A process of a server: its disk, and the start of that disk.
type Process = (Member, Run);

/// The one link to a server that is in use.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    /// This server dialled it.
    pub(super) dialled: bool,
    pub(crate) member: Member,
    pub(crate) run: Run,
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
            run: hello.run,
            serial: hello.serial,
            has_other: hello.has_other,
        }
    }

    /// Returns the process at the other end.
    pub(super) fn process(&self) -> Process {
        (self.member, self.run)
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
    /// A dial was refused since the link was lost.
    pub(super) refused: bool,
}

/// For how long a server is refused because it sent packets that no correct server sends.
#[derive(Clone, Copy, Debug, Default)]
struct Shun {
    /// It is refused until then.
    until: Option<Moment>,
    /// The length of the last such refusal.
    length: Duration,
}

/// What the servers without a config told each other on the link in use (`Packet::Blank`).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Blank {
    /// The disks that the other server named last.
    pub(super) received: Option<[DiskId; 3]>,
    /// The disks that this server named.
    pub(super) sent: Option<[DiskId; 3]>,
}

/// Another server of the configured list.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: ServerId,
    pub(crate) link: Option<Link>,
    /// The send time of the newest message that it has answered; a hello counts as answered when
    /// it arrives.
    pub(crate) heard: Option<Moment>,
    /// Like `heard`, but only for pings on this link: a hello may have been in flight for a long
    /// time.
    pub(crate) answered: Option<Moment>,
    /// When its last link was lost.
    pub(crate) lost_at: Option<Moment>,
    /// Since this server started, a dial to it has had a result, or it has dialled this server.
    pub(crate) met: bool,
    /// Why it is not linked now.
    pub(crate) obstacle: Option<Obstacle>,
    /// It is linked because it dialled this server, but the last dial to its own address failed.
    /// Clients can't reach that address either.
    pub(crate) unreachable: Option<DialFailure>,
    /// The process that was linked last.
    pub(super) process: Option<Process>,
    /// That process has answered at its own address.
    pub(super) reached: bool,
    pub(super) evidence: Evidence,
    /// The process whose link was logged; cleared when the loss of that link is logged.
    announced: Option<Process>,
    pub(super) dialling: Dialling,
    /// The epoch in its last hello since this server started.
    pub(crate) epoch: Option<u16>,
    /// The best last entry of the directories that it has quarantined: see
    /// [`crate::packet::Past::former`].
    pub(crate) former: Option<Position>,
    shun: Shun,
    /// It is pinged at the end of this event, if it is linked then.
    pub(super) ping_due: bool,
    /// The state that it last reported on this link.
    pub(crate) health: PeerHealth,
    pub(super) blank: Blank,
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
            obstacle: None,
            unreachable: None,
            process: None,
            reached: false,
            evidence: Evidence::default(),
            announced: None,
            dialling: Dialling { next: Some(now), ..Dialling::default() },
            epoch: None,
            former: None,
            shun: Shun::default(),
            ping_due: false,
            health: PeerHealth::default(),
            blank: Blank::default(),
        }
    }

    /// Resets the state of the previous link: that link is lost, or another one replaces it.
    pub(super) fn reset_link_state(&mut self) {
        self.obstacle = None;
        self.answered = None;
        self.health = PeerHealth::default();
        self.blank = Blank::default();
        let under_way = self.dialling.under_way;
        self.dialling = Dialling { under_way, ..Dialling::default() };
    }

    /// Refuses the server for `least`, because it sent packets that no correct server sends. Each
    /// repetition within a minute after a refusal doubles the time, up to a minute.
    pub(super) fn shun(&mut self, now: Moment, least: Duration) {
        let soon = self.shun.until.is_some_and(|until| now < until + SHUN_TIME_MAX);
        let next = if soon { self.shun.length * 2 } else { least };
        let length = next.clamp(least, SHUN_TIME_MAX.max(least));
        self.shun = Shun { until: Some(now + length), length };
    }

    pub(super) fn is_shunned(&self, now: Moment) -> bool {
        self.shun.until > Some(now)
    }

    /// Logs a new link, unless the log already reports a link to this process.
    pub(super) fn log_link(&mut self, new: &Link) {
        if self.announced.replace(new.process()) != Some(new.process()) {
            log::info!("linked with server {}", new.member);
        }
    }

    /// Logs the loss of the link. Two servers that dial each other close one of their links: the
    /// log omits a loss when another link replaces it at once.
    pub(super) fn log_loss(&mut self) {
        if self.link.is_none()
            && let Some((member, _)) = self.announced.take()
        {
            match self.obstacle {
                Some(Obstacle::Dial(why)) => log::info!("lost server {member}: its address {why}"),
                _ => log::info!("lost server {member}: its link was closed"),
            }
        }
    }

    pub(crate) fn has_link(&self, link: LinkId) -> bool {
        self.link.as_ref().is_some_and(|own| own.id == link)
    }

    pub(crate) fn is_linked(&self, member: Member) -> bool {
        self.link.as_ref().is_some_and(|link| link.member == member)
    }

    /// Returns whether it is not linked, and its address refuses connections.
    pub(crate) fn is_refused_unlinked(&self) -> bool {
        self.link.is_none() && self.dialling.refused
    }

    /// Returns whether it answered a message that was sent to it within the last `peer_timeout`,
    /// on whatever link.
    pub(crate) fn has_answered_since(&self, now: Moment, peer_timeout: Duration) -> bool {
        self.heard.is_some_and(|at| now < at + peer_timeout)
    }
}
