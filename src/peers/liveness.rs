//! Pings and pongs: who answers, and in which state the others are.

use super::{Env, Peers};
use crate::effect::Closing;
use crate::ids::{LinkId, Position};
use crate::packet::{Packet, PeerHealth};
use crate::time::{Moment, WallTime};

impl Env<'_> {
    /// Sends the pings that are due. They are sent at the end of an event, so that they report
    /// the `health` that the event leads to.
    pub(crate) fn send_pings(&mut self, health: PeerHealth) {
        let wall = self.peers.clocks.own(self.now);
        for peer in &mut self.peers.all {
            if let (true, Some(link)) = (std::mem::take(&mut peer.ping_due), &peer.link) {
                self.out.send(link.id, Packet::Ping { sent: self.now, wall, health });
            }
        }
    }

    /// Answers a ping. `promised` is the promise of a primary of two members.
    pub(crate) fn on_ping(
        &mut self,
        link: LinkId,
        (sent, wall, health): (Moment, WallTime, PeerHealth),
        promised: Option<Position>,
    ) {
        let Some(at) = self.peers.position_on(link) else { return };
        let (now, timeout) = (self.now, self.peers.peer_timeout());
        let Peers { all, clocks, own, .. } = &mut *self.peers;
        if let Some(link) = &all[at].link {
            clocks.measure((all[at].id, link.run.process), (sent, wall), now, timeout);
        }
        if let Some(words) = clocks.warning(now, own.me.id, timeout) {
            log::warn!("{words}");
        }
        self.out.send(link, Packet::Pong { sent, promised });
        // Pings at once if this server's own ping is due soon: servers that wake up together
        // sleep longer.
        if self.peers.heartbeat_at <= now + timeout / 16 {
            self.peers.heartbeat_at = now;
        }
        self.peers.changed |= health != self.peers.all[at].health;
        self.peers.all[at].health = health;
    }

    /// Records the answer to a ping. Returns whether it is the newest answer on this link.
    pub(crate) fn on_pong(
        &mut self,
        link: LinkId,
        sent: Moment,
        promised: Option<Position>,
    ) -> bool {
        // This server sent no ping in the future, so such a pong is invalid and promises nothing.
        let at = self.peers.position_on(link).filter(|_| sent <= self.now);
        let Some(at) = at else { return false };
        self.turn_away(self.peers.all[at].id, sent);
        let peer = &mut self.peers.all[at];
        let newer = peer.answered.is_none_or(|answered| answered < sent);
        if newer {
            (peer.heard, peer.answered) = (peer.heard.max(Some(sent)), Some(sent));
        }
        if let Some(from) = peer.link.as_ref().map(|link| link.member) {
            self.peers.note_promise(from, sent, promised);
        }
        newer
    }

    /// Dials, and sends a heartbeat if one is due. Returns whether it was.
    pub(crate) fn tick(&mut self) -> bool {
        self.dial_due();
        let due = self.peers.heartbeat_at <= self.now;
        if due {
            self.heartbeat();
        }
        due
    }

    /// Pings the others, and closes silent links.
    fn heartbeat(&mut self) {
        let peer_timeout = self.peers.peer_timeout();
        self.peers.heartbeat_at = self.now + peer_timeout / 8;
        for at in 0..self.peers.all.len() {
            let peer = &self.peers.all[at];
            let silent = peer.heard.is_some_and(|heard| self.now >= heard + peer_timeout);
            if peer.link.is_none() {
                self.peers.all[at].log_loss();
            } else if silent {
                self.lose_link(at, Some(Closing::Silent));
            }
        }
        self.peers.ping();
        self.seek_links();
    }
}

impl Peers {
    /// Pings all linked servers at the end of this event.
    pub(crate) fn ping(&mut self) {
        self.all.iter_mut().for_each(|peer| peer.ping_due = true);
    }

    /// Makes the next tick a heartbeat.
    pub(crate) fn heartbeat_now(&mut self, now: Moment) {
        self.heartbeat_at = now;
    }

    /// Returns whether [`Env::send_pings`] would send anything.
    pub(crate) fn owes_pings(&self) -> bool {
        self.all.iter().any(|peer| peer.ping_due)
    }
}
