//! Formation: what the servers of a group without a config agree on.

use super::Peers;
use crate::effect::{Closing, Out};
use crate::ids::{DiskId, LinkId, ServerId};
use crate::packet::Packet;
use crate::time::Moment;

impl Peers {
    /// Records the disks that an uninitialized server is linked with.
    pub(crate) fn on_blank(&mut self, link: LinkId, met: [DiskId; 3]) {
        if let Some(at) = self.position_on(link) {
            self.peers[at].blank.received = Some(met);
            self.changed = true;
        }
    }

    /// Makes progress with the formation of a group, while this server has no config. Server 1
    /// forms it when both others, on links that are open now, have reported that they are
    /// uninitialized and linked with exactly these disks. Returns these disks then.
    ///
    /// A server that has quarantined a directory which clients may have used never forms a group:
    /// a new group would not notice that those messages are missing. Such a server only joins an
    /// existing group.
    pub(crate) fn form(&mut self, now: Moment, out: &mut Out) -> Option<[DiskId; 3]> {
        if self.own.former.is_some() {
            return None;
        }
        let first = ServerId::all(1).next().expect("every group has a server 1");
        let met = self.met()?;
        if self.own.me.id == first {
            let agreed = self.peers.iter().all(|peer| peer.blank.received == Some(met));
            return agreed.then_some(met);
        }
        let at = self.position(first)?;
        match self.peers[at].blank.sent {
            Some(sent) if sent == met => {}
            // A report can't be changed on the same link.
            Some(_) => self.lose_link(now, at, Some(Closing::Restated), out),
            None => {
                self.peers[at].blank.sent = Some(met);
                let link = self.peers[at].link.as_ref().expect("all three were met");
                out.send(link.id, Packet::Blank { met });
            }
        }
        None
    }

    /// Returns the disks of the whole group if all servers are linked now. In a group of one the
    /// other places stay zero.
    fn met(&self) -> Option<[DiskId; 3]> {
        let mut met = [DiskId(0); 3];
        met[self.own.me.id.slot()] = self.own.me.disk;
        for peer in &self.peers {
            met[peer.id.slot()] = peer.link.as_ref()?.member.disk;
        }
        Some(met)
    }
}
