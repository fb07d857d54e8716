//! The links between the servers of a cluster. Packets wait in the inbox of the receiver.

use postern::ids::{LinkId, ServerId};
use postern::replica::Packet;
use std::io;
use std::mem;
use std::ops::Range;

/// What has arrived since the latest turn of a server.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) arrivals: Vec<Arrival>,
    /// The packets, each with the data after it.
    pub(super) bytes: Vec<u8>,
}

pub(super) enum Arrival {
    Dialled(LinkId, ServerId),
    Accepted(LinkId),
    Packet(LinkId, Range<usize>),
    Ended(LinkId),
}

/// All links. The number of a link is its place in `links`.
#[derive(Default)]
pub(super) struct Links {
    inboxes: [Inbox; 3],
    /// The servers at the ends of each.
    links: Vec<[ServerId; 2]>,
}

impl Links {
    pub(super) fn dial(&mut self, from: ServerId, to: ServerId) {
        let link = LinkId(self.links.len() as u64);
        self.links.push([from, to]);
        self.inboxes[from.slot()].arrivals.push(Arrival::Dialled(link, to));
        self.inboxes[to.slot()].arrivals.push(Arrival::Accepted(link));
    }

    /// Sends a packet, followed by what `rest` writes.
    pub(super) fn send(
        &mut self,
        from: ServerId,
        link: LinkId,
        packet: Packet,
        rest: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let [first, second] = self.links[link.0 as usize];
        let to = if from == first { second } else { first };
        let inbox = &mut self.inboxes[to.slot()];
        let start = inbox.bytes.len();
        packet.encode(&mut inbox.bytes);
        rest(&mut inbox.bytes)?;
        inbox.arrivals.push(Arrival::Packet(link, start..inbox.bytes.len()));
        Ok(())
    }

    /// Ends a link after the packets that were sent on it.
    pub(super) fn end(&mut self, link: LinkId) {
        for at in self.links[link.0 as usize] {
            self.inboxes[at.slot()].arrivals.push(Arrival::Ended(link));
        }
    }

    pub(super) fn has_packets(&self, to: ServerId) -> bool {
        !self.inboxes[to.slot()].arrivals.is_empty()
    }

    /// Replaces the contents of `inbox` by what has arrived at a server.
    pub(super) fn receive_into(&mut self, to: ServerId, inbox: &mut Inbox) {
        inbox.arrivals.clear();
        inbox.bytes.clear();
        mem::swap(inbox, &mut self.inboxes[to.slot()]);
    }
}
