//! Formation: what the servers of a group without a config agree on.

use super::{Env, Peers};
use crate::effect::Closing;
use crate::ids::{DiskId, LinkId, ServerId};
use crate::packet::Packet;

impl Env<'_> {
    /// Makes progress with the formation of a group, while this server has no config. Server 1
    /// forms it when both others, on links that are open now, have reported that they are
    /// uninitialized and linked with exactly these disks. Returns these disks then.
    ///
    /// A server that has quarantined a directory which clients may have used never forms a group:
    /// a new group would not notice that those messages are missing. Such a server only joins an
    /// existing group.
    pub(crate) fn form(&mut self) -> Option<[DiskId; 3]> {
        if self.peers.own.former.is_some() {
            return None;
        }
        let first = ServerId::all(1).next().expect("every group has a server 1");
        let met = self.peers.met()?;
        if self.peers.own.me.id == first {
            let agreed = self.peers.all.iter().all(|peer| peer.blank.received == Some(met));
            return agreed.then_some(met);
        }
        let at = self.peers.position(first)?;
        match self.peers.all[at].blank.sent {
            Some(sent) if sent == met => {}
            // A report can't be changed on the same link.
            Some(_) => self.lose_link(at, Some(Closing::Restated)),
            None => {
                self.peers.all[at].blank.sent = Some(met);
                let link = self.peers.all[at].link.as_ref().expect("all three were met");
                self.out.send(link.id, Packet::Blank { met });
            }
        }
        None
    }
}

impl Peers {
    /// Records the disks that an uninitialized server is linked with.
    pub(crate) fn on_blank(&mut self, link: LinkId, met: [DiskId; 3]) {
        if let Some(at) = self.position_on(link) {
            self.all[at].blank.received = Some(met);
            self.changed = true;
        }
    }

    /// Returns the disks of the whole group if all servers are linked now. In a group of one the
    /// other places stay zero.
    fn met(&self) -> Option<[DiskId; 3]> {
        let mut met = [DiskId(0); 3];
        met[self.own.me.id.slot()] = self.own.me.disk;
        for peer in &self.all {
            met[peer.id.slot()] = peer.link.as_ref()?.member.disk;
        }
        Some(met)
    }
}
