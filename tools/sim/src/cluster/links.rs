//! The links between the three: what one sends lies in the inbox of another until its turn.

use postern::ids::{LinkId, ServerId};
use postern::replica::Packet;
use std::io;
use std::mem;
use std::ops::Range;

/// What a server finds when its turn comes.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) arrivals: Vec<Arrival>,
    /// The packets, and what follows each.
    pub(super) bytes: Vec<u8>,
}

pub(super) enum Arrival {
    Dialled(LinkId, ServerId),
    Accepted(LinkId),
    Packet(LinkId, Range<usize>),
    Ended(LinkId),
}

/// All links.
#[derive(Default)]
pub(super) struct Links {
    inboxes: [Inbox; 3],
    /// Who is at the ends of each; its number is its place.
    links: Vec<[ServerId; 2]>,
}

impl Links {
    pub(super) fn dial(&mut self, from: ServerId, to: ServerId) {
        let link = LinkId(self.links.len() as u64);
        self.links.push([from, to]);
        self.inboxes[from.slot()].arrivals.push(Arrival::Dialled(link, to));
        self.inboxes[to.slot()].arrivals.push(Arrival::Accepted(link));
    }

    /// Sends a packet, and behind it what `rest` writes.
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

    /// Ends a link, behind what was sent on it.
    pub(super) fn end(&mut self, link: LinkId) {
        for at in self.links[link.0 as usize] {
            self.inboxes[at.slot()].arrivals.push(Arrival::Ended(link));
        }
    }

    pub(super) fn has_mail(&self, to: ServerId) -> bool {
        !self.inboxes[to.slot()].arrivals.is_empty()
    }

    /// Replaces what was in `inbox` by what is there for a server.
    pub(super) fn empty_into(&mut self, to: ServerId, inbox: &mut Inbox) {
        inbox.arrivals.clear();
        inbox.bytes.clear();
        mem::swap(inbox, &mut self.inboxes[to.slot()]);
    }
}
