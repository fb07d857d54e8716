//! Checks whether the other servers answer at the addresses where clients look for them, and
//! records why a server is not linked.

use super::Replica;
use super::event::{Effect, Obstacle, Out};
use super::peer::{Link, Peer};
use crate::ids::{LinkId, ServerId};

impl Replica {
    /// Records that the server that answered a dial does not know the secret.
    pub(super) fn on_not_authentic(&mut self, link: LinkId) {
        let pending = self.pending.iter().find(|pending| pending.link == link);
        let dialled = pending.and_then(|pending| pending.dialled);
        self.note_obstacle(dialled, Obstacle::WrongSecret);
    }

    /// Records why a server that is not linked can't be linked.
    pub(super) fn note_obstacle(&mut self, id: Option<ServerId>, why: Obstacle) {
        let unlinked = |peer: &&mut Peer| Some(peer.id) == id && peer.link.is_none();
        if let Some(peer) = self.peers.iter_mut().find(unlinked) {
            peer.obstacle = Some(why);
        }
    }

    /// Dials the servers whose link they dialled themselves, to check that they answer at their
    /// own addresses. Clients connect to those addresses, and a dead server is detected there.
    pub(super) fn seek_links(&mut self, out: &mut Out) {
        for at in 0..self.peers.len() {
            let begun = self.is_greeting(self.peers[at].id);
            let peer = &mut self.peers[at];
            if peer.link.is_some() && !peer.reached && !begun && !peer.dialling.seeking {
                peer.dialling.seeking = true;
                peer.dialling.under_way += 1;
                out.push(Effect::Dial(peer.id));
            }
        }
    }

    /// Records that a link was established, if only for a moment. If this server dialled it, the
    /// other one answers at its own address.
    pub(super) fn note_reached(&mut self, at: usize, new: &Link) {
        let peer = &mut self.peers[at];
        if peer.life.replace(new.life()) != Some(new.life()) {
            (peer.reached, peer.unreachable) = (false, None);
        }
        if new.dialled {
            (peer.reached, peer.unreachable) = (true, None);
        }
        self.note_evidence(new);
    }
}
