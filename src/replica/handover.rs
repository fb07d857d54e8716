//! Planned handover (Ongaro §3.10), and how a server leaves that was told to stop.

use super::event::Out;
use super::packet::{Order, Packet, Verdict};
use super::peer::{Link, Peer};
use super::rules::Rule;
use super::{Replica, Role, Timer};
use crate::ids::{GroupId, LinkId, Member, ServerId, Term};
use crate::limits::{DAMAGED_TIME, SLOW_SYNCS, SLOW_WINDOW};
use crate::time::Moment;

/// A primary on its way out: it takes no changes until this is decided.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    /// Why: for a slow disk no other slow one is told, for a damaged log no other damaged one.
    why: Rule,
    /// The one that a person has chosen.
    to: Option<ServerId>,
    /// The member that was told to campaign.
    told: Option<Member>,
}

impl Handover {
    /// Whether a backup was told to campaign.
    pub(super) fn is_told(&self) -> bool {
        self.told.is_some()
    }
}

/// How a server's own disk does.
#[derive(Clone, Debug, Default)]
pub(super) struct Syncs {
    began: Option<Moment>,
    /// The last ones that took over `T`/2.
    slow: Vec<Moment>,
    /// When the role was last handed over for them.
    handed_over: Option<Moment>,
}

impl Syncs {
    pub(super) fn begin(&mut self, now: Moment) {
        self.began = Some(now);
    }
}

impl Replica {
    /// From now on this server stands for nothing; a primary hands over, and changes the members
    /// only where that keeps it from doing so.
    pub fn stop(&mut self, now: Moment) {
        if self.stopping.is_none() {
            self.stopping = Some(now);
            self.timers.set(Timer::Stop, now + self.peer_timeout() * 2);
            self.needs_tick = true;
        }
    }

    /// Whether a stopping server may end: it was dropped, or nobody is there who could drop it,
    /// or the time for that is over: `T` for the handover, `T` for the drop.
    pub fn is_released(&self, now: Moment) -> bool {
        let Some(began) = self.stopping else { return false };
        let dropped = self.config().is_none_or(|config| !config.has(self.me));
        let alone = !self.members_linked().any(|(_, stopping)| !stopping);
        dropped || alone || now >= began + self.peer_timeout() * 2
    }

    /// Members that are linked, and whether they are stopping.
    fn members_linked(&self) -> impl Iterator<Item = (Member, bool)> + '_ {
        let config = self.config();
        self.peers.iter().filter_map(move |peer| {
            let member = peer.link.as_ref()?.member;
            config
                .is_some_and(|config| config.has(member))
                .then_some((member, peer.health.stopping))
        })
    }

    /// Whether this primary takes no changes because its role is being handed over.
    pub fn is_handing_over(&self) -> bool {
        self.handover.is_some()
    }

    /// Begins to hand the role over to a backup.
    pub(super) fn begin_handover(&mut self, now: Moment, why: Rule) -> Verdict {
        if !matches!(self.role, Role::Primary(_)) {
            return Verdict::NotPrimary;
        }
        if self.possible_heirs(now, why).next().is_none() {
            return Verdict::NoBackup;
        }
        if self.handover.is_none() {
            log::info!("handing over to a backup");
            self.note(why);
            self.handover = Some(Handover { why, to: None, told: None });
            self.timers.set(Timer::Handover, now + self.peer_timeout());
        }
        self.needs_tick = true;
        Verdict::Taken
    }

    /// An operator's order on a link that has said nothing else.
    pub(super) fn on_order(&mut self, now: Moment, group: GroupId, order: Order) -> Verdict {
        if group != self.shared.group {
            return Verdict::OtherGroup;
        }
        match order {
            Order::HandOver(to) => self.hand_over_to(now, to),
        }
    }

    /// A person wants this server, or any, to be primary.
    fn hand_over_to(&mut self, now: Moment, to: Option<ServerId>) -> Verdict {
        let why = Rule::HandedOverOrder;
        let is_leading = matches!(self.role, Role::Primary(_));
        let chosen = |link: &Link| to.is_none_or(|to| link.member.id == to);
        if is_leading && !self.possible_heirs(now, why).any(|(_, link)| chosen(link)) {
            return Verdict::NoBackup;
        }
        let verdict = self.begin_handover(now, why);
        if let Some(handover) = self.handover.as_mut().filter(|handover| handover.told.is_none()) {
            handover.to = to;
        }
        verdict
    }

    /// The stop is said at once, and again with each ping.
    pub(super) fn tick_stop(&mut self, now: Moment, out: &mut Out) {
        let Some(began) = self.stopping else { return };
        if !std::mem::replace(&mut self.stop_said, true) {
            self.ping(now, out);
        }
        // A member that was lost just before may have to be dropped first.
        if self.handover.is_none() && now < began + self.peer_timeout() * 2 {
            self.begin_handover(now, Rule::HandedOverStop);
        }
        self.timers.expired(Timer::Stop, now);
    }

    pub(super) fn tick_handover(&mut self, now: Moment, out: &mut Out) {
        self.hand_over_when_slow(now);
        let Some(handover) = &self.handover else { return };
        if self.timers.expired(Timer::Handover, now) {
            log::warn!("the handover did not come about");
            self.note(Rule::HandoverGivenUp);
            self.handover = None;
            self.needs_tick = true;
        } else if handover.told.is_none() && self.acknowledged == self.last() {
            let Some((heir, link)) = self.heir(now, handover.why, handover.to) else { return };
            log::info!("server {heir} is told to take over");
            out.send(link, Packet::TimeoutNow { term: self.vote.term });
            if let Some(handover) = &mut self.handover {
                handover.told = Some(heir);
            }
        }
    }

    /// A backup that has everything and is not stopping, if possible one whose disk is not slow.
    fn heir(&self, now: Moment, why: Rule, to: Option<ServerId>) -> Option<(Member, LinkId)> {
        let Role::Primary(primary) = &self.role else { return None };
        let last = self.last();
        let heirs = self.possible_heirs(now, why).filter_map(|(peer, link)| {
            let chosen = to.is_none_or(|to| link.member.id == to);
            let has_all = primary.progress(link.member).map(|p| p.stored) == Some(last) && chosen;
            let faults = (peer.unreachable.is_some(), peer.health.damaged, peer.health.slow);
            has_all.then_some((faults, (link.member, link.id)))
        });
        heirs.min_by_key(|(faults, _)| *faults).map(|(_, heir)| heir)
    }

    /// The members that are heard, not stopping and reachable for clients, without the fault
    /// for which this one leaves.
    fn possible_heirs(&self, now: Moment, why: Rule) -> impl Iterator<Item = (&Peer, &Link)> {
        self.peers.iter().filter_map(move |peer| {
            let link = peer.link.as_ref()?;
            let member = self.config()?.has(link.member);
            // When this server ends anyway, one of them takes over, reachable or not.
            let unable = peer.health.stopping
                || (why != Rule::HandedOverStop && peer.unreachable.is_some())
                || (why == Rule::HandedOverSlow && peer.health.slow)
                || (why == Rule::HandedOverDamaged && peer.health.damaged);
            (member && !unable && self.hears(link.member, now)).then_some((peer, link))
        })
    }

    /// The primary of this term hands over.
    pub(super) fn on_stand_now(&mut self, now: Moment, from: Member, term: Term, out: &mut Out) {
        let follows = matches!(&self.role, Role::Follower(f) if f.primary == Some(from));
        if term == self.vote.term && follows && self.may_campaign().is_some() {
            self.note(Rule::CampaignHandedOver);
            self.ask_for_votes(now, self.vote.term.next(), out);
        }
    }

    pub(super) fn note_synced(&mut self, now: Moment) {
        let half = self.peer_timeout() / 2;
        if let Some(began) = self.syncs.began.take()
            && now - began > half
        {
            self.syncs.slow.retain(|at| now < *at + SLOW_WINDOW);
            self.syncs.slow.push(now);
        }
    }

    pub(super) fn is_slow(&self, now: Moment) -> bool {
        self.syncs.slow.iter().filter(|at| now < **at + SLOW_WINDOW).count() >= SLOW_SYNCS
    }

    /// Entries that are to be sent on this link can't be read: it is not tried again for `T`, and a
    /// server that can read them may take over.
    pub fn note_unsent(&mut self, now: Moment, link: LinkId) {
        let peer_timeout = self.peer_timeout();
        let peer = self.peers.iter().find(|peer| peer.has_link(link));
        let member = peer.and_then(|peer| peer.link.as_ref()).map(|link| link.member);
        if let (Role::Primary(primary), Some(member)) = (&mut self.role, member)
            && let Some(progress) = primary.progress_mut(member)
        {
            progress.blocked = Some(now + peer_timeout);
        }
        self.leave_damaged(now);
    }

    /// An entry of the log can't be read. A primary hands over to one that may be able to, at most
    /// once a minute; whether it is on its way to that.
    pub fn leave_damaged(&mut self, now: Moment) -> bool {
        let due = self.damaged.is_none_or(|since| now >= since + DAMAGED_TIME);
        let able = self.possible_heirs(now, Rule::HandedOverDamaged).next().is_some();
        if due {
            self.damaged = Some(now);
            // The others are told at once.
            self.timers.set(Timer::Ping, now);
        }
        if due && able && self.stopping.is_none() {
            self.begin_handover(now, Rule::HandedOverDamaged);
        }
        self.handover.is_some()
    }

    /// A primary whose own syncs are slow gives its role to one whose are not, once per `T`.
    fn hand_over_when_slow(&mut self, now: Moment) {
        let due = self.syncs.handed_over.is_none_or(|at| now >= at + self.peer_timeout());
        if self.handover.is_some() || self.stopping.is_some() || !due || !self.is_slow(now) {
            return;
        }
        let able = self.peers.iter().any(|peer| {
            let member = peer.link.as_ref().map(|link| link.member);
            let known = member.filter(|m| self.config().is_some_and(|config| config.has(*m)));
            known.is_some() && !peer.health.slow && !peer.health.stopping
        });
        if able {
            self.syncs.handed_over = Some(now);
            self.begin_handover(now, Rule::HandedOverSlow);
        }
    }
}
