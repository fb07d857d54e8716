//! Links: dials, their delays, and the loss of a link.

use super::greeting::OwnState;
use super::peer::Peer;
use super::{Env, Peers};
use crate::effect::{Closing, DialFailure, Effect, Obstacle};
use crate::ids::{LinkId, ServerId};
use crate::limits::{DIAL_UNDECIDED_TIME, QUICK_DIALS_MAX, REDIAL_TIME, UNKNOWN_LINKS_MAX};
use crate::packet::Refusal;
use crate::time::Moment;

/// A link on which the other side has not sent its hello.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) link: LinkId,
    /// The server that this one dialled; `None` for an accepted link.
    pub(crate) dialled: Option<ServerId>,
    pub(super) deadline: Moment,
}

impl Env<'_> {
    pub(crate) fn on_dialled(&mut self, link: LinkId, to: ServerId, own: &OwnState) {
        let Some(at) = self.peers.position(to) else { return };
        let dialling = &mut self.peers.all[at].dialling;
        dialling.under_way = dialling.under_way.saturating_sub(1);
        let seeking = std::mem::take(&mut dialling.seeking);
        if self.peers.all[at].link.is_some() && !seeking {
            return self.out.push(Effect::Close(link, Closing::Spare));
        }
        self.say_hello(link, to, own);
        self.await_hello(link, Some(to));
    }

    pub(crate) fn on_accepted(&mut self, link: LinkId) {
        let unknown = self.peers.pending.iter().filter(|pending| pending.dialled.is_none()).count();
        if unknown >= UNKNOWN_LINKS_MAX {
            return self.out.push(Effect::Close(link, Closing::Silent));
        }
        self.await_hello(link, None);
    }

    fn await_hello(&mut self, link: LinkId, dialled: Option<ServerId>) {
        let deadline = self.now + self.peers.peer_timeout() / 4;
        self.peers.pending.push(Pending { link, dialled, deadline });
    }

    fn dial_now(&mut self, at: usize) {
        let begun = self.peers.is_greeting(self.peers.all[at].id);
        let peer = &mut self.peers.all[at];
        let first = peer.dialling.under_way == 0 && !begun;
        peer.dialling.under_way += 1;
        // The kernel still accepts connections to a dying process for a moment, and such a dial
        // is never answered. So a second dial starts beside the first one, but no third one.
        peer.dialling.next = first.then_some(self.now + DIAL_UNDECIDED_TIME);
        self.out.push(Effect::Dial(peer.id));
    }

    /// Dials the servers whose link they dialled themselves, to check that they answer at their
    /// own addresses. Clients connect to those addresses, and a dead server is detected there.
    pub(super) fn seek_links(&mut self) {
        for at in 0..self.peers.all.len() {
            let begun = self.peers.is_greeting(self.peers.all[at].id);
            let peer = &mut self.peers.all[at];
            if peer.link.is_some() && !peer.reached && !begun && !peer.dialling.seeking {
                peer.dialling.seeking = true;
                peer.dialling.under_way += 1;
                self.out.push(Effect::Dial(peer.id));
            }
        }
    }

    pub(crate) fn on_ended(&mut self, link: LinkId) {
        if let Some(pending) = self.peers.take_pending(link) {
            return self.on_dial_ended(pending.dialled, true);
        }
        self.peers.newcomers.retain(|new| new.link != link);
        if let Some(at) = self.peers.position_on(link) {
            self.lose_link(at, None);
        }
    }

    /// Redials after a dial that succeeded, but ended before the hello.
    pub(crate) fn on_dial_ended(&mut self, to: Option<ServerId>, quick: bool) {
        let Some(at) = to.and_then(|to| self.peers.position(to)) else { return };
        let peer = &mut self.peers.all[at];
        self.peers.changed |= !std::mem::replace(&mut peer.met, true);
        if peer.link.is_some() {
            return;
        }
        if quick && peer.dialling.quick < QUICK_DIALS_MAX {
            peer.dialling.quick += 1;
            self.dial_now(at);
        } else {
            self.peers.dial_later(self.now, at);
        }
    }

    /// Closes the links whose other side has sent no hello in time.
    pub(crate) fn expire_pending(&mut self) {
        let now = self.now;
        let is_late = |pending: &Pending| pending.deadline <= now;
        while let Some(at) = self.peers.pending.iter().position(is_late) {
            let pending = self.peers.pending.remove(at);
            self.out.push(Effect::Close(pending.link, Closing::Silent));
            self.peers.note_obstacle(pending.dialled, Obstacle::Dial(DialFailure::NoAnswer));
            self.on_dial_ended(pending.dialled, false);
        }
    }

    /// Dials the servers whose next dial is due.
    pub(super) fn dial_due(&mut self) {
        for at in 0..self.peers.all.len() {
            if self.peers.all[at].dialling.next.is_some_and(|next| next <= self.now) {
                self.peers.all[at].dialling.next = None;
                if self.peers.all[at].link.is_none() {
                    self.dial_now(at);
                }
            }
        }
    }

    /// Handles the end of the link in use, or closes it if a reason is given.
    pub(super) fn lose_link(&mut self, at: usize, why: Option<Closing>) {
        let peer = &mut self.peers.all[at];
        let Some(link) = peer.link.take() else { return };
        if let Some(why) = why {
            self.out.push(Effect::Close(link.id, why));
        }
        peer.reset_link_state();
        peer.lost_at = Some(self.now);
        peer.evidence.on_lost(peer.dialling.under_way);
        self.dial_now(at);
        // Pings the others now, not at the next heartbeat, to learn whether they are still
        // active.
        self.peers.ping();
        self.peers.changed = true;
    }

    /// Handles the refusal of this server's hello on the link in use. Returns whether the link
    /// was in use.
    pub(crate) fn on_refused(&mut self, link: LinkId, why: Refusal) -> bool {
        let Some(at) = self.peers.position_on(link) else { return false };
        let id = self.peers.all[at].id;
        self.lose_link(at, Some(Closing::RefusedBy(Some(id), why)));
        self.peers.note_obstacle(Some(id), Obstacle::RefusedBy(why));
        // The other side will refuse the next hello as well, so the next dial has the longest
        // delay.
        self.peers.all[at].dialling.delay = self.peers.peer_timeout() / 2;
        true
    }

    /// Closes a link on which a packet arrived that no correct server sends there, and refuses
    /// the server for a while.
    pub(crate) fn close_nonsense(&mut self, link: LinkId) {
        let at = self.peers.position_on(link).expect("the packet came on this peer's link");
        self.lose_link(at, Some(Closing::Nonsense));
        let least = self.peers.peer_timeout() / 2;
        self.peers.all[at].shun(self.now, least);
    }

    /// Closes the links whose hello named another epoch than this server's present one, all `but`
    /// one. Only hellos carry epochs, so each link must start again.
    pub(crate) fn restate(&mut self, but: Option<LinkId>) {
        for at in 0..self.peers.all.len() {
            let link = self.peers.all[at].link.as_ref().map(|link| link.id);
            if link.is_some() && link != but {
                self.lose_link(at, Some(Closing::Restated));
            }
        }
    }
}

impl Peers {
    /// Returns whether this is a link that another server opened and that waits for its first
    /// packet.
    pub(crate) fn is_accepted(&self, link: LinkId) -> bool {
        self.pending.iter().any(|pending| pending.link == link && pending.dialled.is_none())
    }

    /// Removes and returns a link that waits for its first packet.
    pub(crate) fn take_pending(&mut self, link: LinkId) -> Option<Pending> {
        let at = self.pending.iter().position(|pending| pending.link == link)?;
        Some(self.pending.remove(at))
    }

    /// Returns whether a dial to this server succeeded and its hello has not arrived.
    fn is_greeting(&self, id: ServerId) -> bool {
        self.pending.iter().any(|pending| pending.dialled == Some(id))
    }

    /// Returns whether this server has a link to another one, or is opening one.
    pub(super) fn has_link_or_greets(&self, id: ServerId) -> bool {
        self.is_greeting(id) || self.peer(id).is_some_and(|peer| peer.link.is_some())
    }

    pub(crate) fn on_dial_failed(&mut self, now: Moment, to: ServerId, why: DialFailure) {
        let Some(at) = self.position(to) else { return };
        let peer = &mut self.all[at];
        peer.dialling.under_way = peer.dialling.under_way.saturating_sub(1);
        peer.dialling.seeking = false;
        self.changed |= !std::mem::replace(&mut peer.met, true);
        if peer.link.is_some() {
            if !peer.reached {
                peer.unreachable = Some(why);
            }
            return;
        }
        peer.obstacle = Some(Obstacle::Dial(why));
        peer.log_loss();
        if why == DialFailure::Refused {
            peer.dialling.refused = true;
            peer.evidence.on_refused();
            self.changed = true;
        }
        self.dial_later(now, at);
    }

    /// Records that the server that answered a dial does not know the secret.
    pub(crate) fn on_not_authentic(&mut self, link: LinkId) {
        let pending = self.pending.iter().find(|pending| pending.link == link);
        let dialled = pending.and_then(|pending| pending.dialled);
        self.note_obstacle(dialled, Obstacle::WrongSecret);
    }

    /// Records why a server that is not linked can't be linked.
    pub(crate) fn note_obstacle(&mut self, id: Option<ServerId>, why: Obstacle) {
        let unlinked = |peer: &&mut Peer| Some(peer.id) == id && peer.link.is_none();
        if let Some(peer) = self.all.iter_mut().find(unlinked) {
            peer.obstacle = Some(why);
        }
    }

    /// Records that no other server listens at the address that was dialled.
    pub(crate) fn on_reached_itself(&mut self, now: Moment, to: ServerId) {
        let Some(at) = self.position(to) else { return };
        let peer = &mut self.all[at];
        if peer.link.is_none() {
            (peer.dialling.refused, peer.met) = (true, true);
            self.changed = true;
            self.dial_later(now, at);
        }
    }

    /// Schedules the next dial after a failed one, with an increasing delay, unless another dial
    /// is under way.
    fn dial_later(&mut self, now: Moment, at: usize) {
        let longest = self.peer_timeout() / 2;
        let begun = self.is_greeting(self.all[at].id);
        let dialling = &mut self.all[at].dialling;
        if dialling.under_way > 0 || begun {
            return;
        }
        let delay = dialling.delay.max(REDIAL_TIME).min(longest);
        dialling.delay = (delay * 2).min(longest);
        dialling.next = Some(now + self.rng.about(delay));
    }
}
