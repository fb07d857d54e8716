//! What is known of each other server: linked, heard, gone. It decides when something is tried,
//! never whether it is safe.

use super::event::{DialFailure, Obstacle};
use super::hello::Hello;
use super::packet::PeerHealth;
use crate::ids::{DiskId, Incarnation, LinkId, Member, Position, ProcessId, Run, ServerId};
use crate::limits::SHUN_TIME_MAX;
use crate::time::Moment;
use std::time::Duration;

/// The link that counts.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// We dialled it.
    pub(super) dialled: bool,
    pub(super) member: Member,
    pub(super) incarnation: Incarnation,
    pub(super) process: ProcessId,
    /// Which of the other side's hellos came on it, and whether that spoke of another link.
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

    /// Which process of which server is at the other end.
    pub(super) fn life(&self) -> (Member, Incarnation, ProcessId) {
        (self.member, self.incarnation, self.process)
    }

    pub(super) fn same_life(&self, other: &Link) -> bool {
        self.life() == other.life()
    }
}

/// Dials towards a server without a link.
#[derive(Clone, Debug, Default)]
pub(super) struct Dialling {
    /// Dials whose outcome is not known.
    pub(super) under_way: u32,
    /// When to dial again.
    pub(super) next: Option<Moment>,
    /// The delay before that, doubled each time.
    pub(super) delay: Duration,
    /// Dials begun at once because the one before ended without a hello.
    pub(super) quick: u32,
    /// A dial is under way although there is a link, to see that the address answers.
    pub(super) seeking: bool,
}

/// Another server of the list.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) id: ServerId,
    pub(super) link: Option<Link>,
    /// When the newest thing was sent that it has answered.
    pub(super) heard: Option<Moment>,
    /// The same, of what it answered on this link alone: its hello may have been under way for
    /// long.
    pub(super) answered: Option<Moment>,
    /// When its link was lost.
    pub(super) lost_at: Option<Moment>,
    /// Since the start, a dial to it has had an outcome, or it has dialled.
    pub(super) met: bool,
    /// Since its link was lost, a dial was refused.
    pub(super) refused: bool,
    /// Why there is no link now.
    pub(super) obstacle: Option<Obstacle>,
    /// There is a link, which it has dialled, and the last dial to its own address came to nothing:
    /// clients do not reach it either.
    pub(super) unreachable: Option<DialFailure>,
    /// The process whose link was logged, until its loss is.
    pub(super) announced: Option<(Member, Incarnation, ProcessId)>,
    /// The process that was linked last.
    pub(super) life: Option<(Member, Incarnation, ProcessId)>,
    /// This process has answered at its own address.
    pub(super) reached: bool,
    pub(super) dialling: Dialling,
    /// The epoch that its last hello spoke of, since this server started.
    pub(super) epoch: Option<u16>,
    /// It has quarantined directories: see [`super::past::Past::former`].
    pub(super) former: Option<Position>,
    /// It sent what no sound server sends: it is refused until then.
    pub(super) shunned: Option<Moment>,
    /// For how long, the last time.
    pub(super) shunned_for: Duration,
    /// What it last said of itself on this link.
    pub(super) health: PeerHealth,
    /// The three disks that it, blank, has said on this link that it met.
    pub(super) said_blank: Option<[DiskId; 3]>,
    /// The same, said to it on this link.
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
            health: PeerHealth::default(),
            said_blank: None,
            told_blank: None,
        }
    }

    /// Forgets what was true of the link before: it is lost, or another one counts.
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

    /// It sent what no sound server sends, and would do so again: it is refused for `least`, and
    /// for twice as long each time that it does so soon after, up to a minute.
    pub(super) fn shun(&mut self, now: Moment, least: Duration) {
        let soon = self.shunned.is_some_and(|until| now < until + SHUN_TIME_MAX);
        let next = if soon { self.shunned_for * 2 } else { least };
        self.shunned_for = next.clamp(least, SHUN_TIME_MAX.max(least));
        self.shunned = Some(now + self.shunned_for);
    }

    /// Logs that there is no link any more. Two servers that dial each other close one of their
    /// links again: what another link follows at once is not worth a line.
    pub(super) fn log_loss(&mut self) {
        if self.link.is_none()
            && let Some((member, ..)) = self.announced.take()
        {
            match self.obstacle {
                Some(Obstacle::Dial(why)) => log::info!("lost server {member}: its address {why}"),
                _ => log::info!("lost server {member}: its link has ended"),
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
