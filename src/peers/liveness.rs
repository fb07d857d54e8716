//! Pings and pongs: who answers, and in which state the others are.

use super::Peers;
use super::wall_clock::PingClocks;
use crate::effect::{Closing, Out};
use crate::ids::{LinkId, Position, ServerId};
use crate::packet::{Packet, PeerHealth};
use crate::time::{Moment, WallTime};

impl Peers {
    /// Pings all linked servers at the end of this event.
    pub(crate) fn ping(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.ping_due = true);
    }

    /// Makes the next tick a heartbeat.
    pub(crate) fn heartbeat_now(&mut self, now: Moment) {
        self.heartbeat_at = now;
    }

    /// Sends the pings that are due. They are sent at the end of an event, so that they report
    /// the `health` that the event leads to.
    pub(crate) fn send_pings(&mut self, now: Moment, health: PeerHealth, out: &mut Out) {
        let wall = self.clocks.own(now);
        for peer in &mut self.peers {
            if let (true, Some(link)) = (std::mem::take(&mut peer.ping_due), &peer.link) {
                out.send(link.id, Packet::Ping { sent: now, wall, health });
            }
        }
    }

    /// Returns whether [`Peers::send_pings`] would send anything.
    pub(crate) fn owes_pings(&self) -> bool {
        self.peers.iter().any(|peer| peer.ping_due)
    }

    /// Answers a ping. `promised` is the promise of a primary of two members, and `primary` the
    /// server that this one follows.
    pub(crate) fn on_ping(
        &mut self,
        now: Moment,
        link: LinkId,
        (sent, wall, health): (Moment, WallTime, PeerHealth),
        promised: Option<Position>,
        primary: Option<ServerId>,
        out: &mut Out,
    ) {
        let Some(at) = self.position_on(link) else { return };
        let (peer, timeout) = (&self.peers[at], self.peer_timeout());
        if let Some(process) = peer.link.as_ref().map(|link| link.run.process) {
            self.clocks.measure(peer.id, PingClocks { process, sent, wall }, now, timeout);
        }
        if let Some(words) = self.clocks.warning(now, self.own.me.id, primary, timeout) {
            log::warn!("{words}");
        }
        out.send(link, Packet::Pong { sent, promised });
        // Pings at once if this server's own ping is due soon: servers that wake up together
        // sleep longer.
        if self.heartbeat_at <= now + self.peer_timeout() / 16 {
            self.heartbeat_at = now;
        }
        self.changed |= health != self.peers[at].health;
        self.peers[at].health = health;
    }

    /// Records the answer to a ping. Returns whether it is the newest answer on this link.
    pub(crate) fn on_pong(
        &mut self,
        now: Moment,
        link: LinkId,
        (sent, promised): (Moment, Option<Position>),
        out: &mut Out,
    ) -> bool {
        // This server sent no ping in the future, so such a pong is invalid and promises nothing.
        let Some(at) = self.position_on(link).filter(|_| sent <= now) else { return false };
        self.turn_away(self.peers[at].id, sent, out);
        let peer = &mut self.peers[at];
        let newer = peer.answered.is_none_or(|answered| answered < sent);
        if newer {
            (peer.heard, peer.answered) = (peer.heard.max(Some(sent)), Some(sent));
        }
        if let Some(from) = peer.link.as_ref().map(|link| link.member) {
            self.note_promise(from, sent, promised);
        }
        newer
    }

    /// Dials, and sends a heartbeat if one is due. Returns whether it was.
    pub(crate) fn tick(&mut self, now: Moment, out: &mut Out) -> bool {
        self.dial_due(now, out);
        let due = self.heartbeat_at <= now;
        if due {
            self.heartbeat(now, out);
        }
        due
    }

    /// Pings the others, and closes silent links.
    fn heartbeat(&mut self, now: Moment, out: &mut Out) {
        let peer_timeout = self.peer_timeout();
        self.heartbeat_at = now + peer_timeout / 8;
        for at in 0..self.peers.len() {
            let peer = &self.peers[at];
            let silent = peer.heard.is_some_and(|heard| now >= heard + peer_timeout);
            if peer.link.is_none() {
                self.peers[at].log_loss();
            } else if silent {
                self.lose_link(now, at, Some(Closing::Silent), out);
            }
        }
        self.ping();
        self.seek_links(out);
    }
}
