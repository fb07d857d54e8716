//! Whether the others are found where clients are sent, and why there is no link to one of them.

use super::Replica;
use super::event::{Effect, Obstacle, Out};
use super::peer::{Link, Peer};
use crate::ids::{LinkId, ServerId};

impl Replica {
    /// Who answered a dial does not know the secret.
    pub(super) fn on_not_authentic(&mut self, link: LinkId) {
        let pending = self.pending.iter().find(|pending| pending.link == link);
        let dialled = pending.and_then(|pending| pending.dialled);
        self.note_obstacle(dialled, Obstacle::WrongSecret);
    }

    /// Remembers why a server that is not linked can't be linked.
    pub(super) fn note_obstacle(&mut self, id: Option<ServerId>, why: Obstacle) {
        let unlinked = |peer: &&mut Peer| Some(peer.id) == id && peer.link.is_none();
        if let Some(peer) = self.peers.iter_mut().find(unlinked) {
            peer.obstacle = Some(why);
        }
    }

    /// Dials those who dialled us, to see that they answer at their own addresses: there clients
    /// are sent, and there a server would be missed.
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

    /// A link counts now, or for a moment: a server that we dialled answers at its own address.
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
