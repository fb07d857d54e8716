//! Handles a server that connects with the id of another server that is linked. It may be the
//! same server after a restart whose disconnect was not noticed, or a second process with that
//! id. The linked server decides: if it answers a ping, it stays.

use super::Env;
use super::peer::Link;
use crate::effect::{Closing, Effect};
use crate::ids::{LinkId, ServerId};
use crate::packet::{Hello, Packet, Past, Refusal};
use crate::rules::Rule;
use crate::time::Moment;

/// The most links of one id that wait.
const NEWCOMERS_MAX: usize = 4;

/// A server that waits. If the linked server answers a ping that was sent after `since`, the
/// linked server stays.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer {
    pub(crate) link: LinkId,
    pub(crate) hello: Hello,
    pub(crate) past: Past,
    since: Moment,
    /// The time by which the linked server must answer.
    pub(super) deadline: Moment,
}

impl Env<'_> {
    /// Returns whether the id of a hello belongs to another process that is linked. If so, this
    /// pings the linked server, and the newcomer waits.
    pub(crate) fn waits_for_place(
        &mut self,
        (link, dialled): (LinkId, bool),
        (hello, past): (&Hello, &Past),
    ) -> bool {
        let new = Link::new(link, dialled, hello);
        let Some(at) = self.peers.position(hello.from.id) else { return false };
        let peer = &mut self.peers.all[at];
        if peer.link.as_ref().is_none_or(|old| old.process() == new.process()) {
            return false;
        }
        peer.ping_due = true;
        // A server that dials twice because nobody answered at once waits with both links.
        let waiting = self.peers.newcomers.iter().filter(|new| new.hello.from.id == hello.from.id);
        if waiting.count() >= NEWCOMERS_MAX || dialled {
            // A server that this one dialled already has this server's hello, so its link can't
            // wait. Closing the link makes it reconnect.
            self.out.push(Effect::Close(link, Closing::Spare));
        } else {
            self.peers.newcomers.push(Newcomer {
                link,
                hello: *hello,
                past: past.clone(),
                since: self.now,
                deadline: self.now + self.peers.peer_timeout() / 8,
            });
        }
        true
    }

    /// Refuses the newcomers with this id: the linked server `id` answered a ping sent at `sent`,
    /// after they connected, so they are another server.
    pub(super) fn turn_away(&mut self, id: ServerId, sent: Moment) {
        let Some(stays) = self.peers.peer(id).and_then(|peer| peer.link.as_ref()) else { return };
        let (stays, holder) = (stays.id, stays.member);
        let came = |new: &Newcomer| new.hello.from.id == id && new.since <= sent;
        while let Some(at) = self.peers.newcomers.iter().position(came) {
            let Newcomer { link, hello, .. } = self.peers.newcomers.remove(at);
            let newcomer = hello.from;
            self.peers.note(Rule::RefusedOccupied);
            self.out.send(link, Packet::Refused(Refusal::Occupied));
            self.out.push(Effect::Close(link, Closing::Occupied { stays, holder, newcomer }));
        }
    }

    /// Removes and returns a newcomer whose linked server did not answer in time, or has lost its
    /// link. Closes that server's link.
    pub(crate) fn take_newcomer(&mut self) -> Option<Newcomer> {
        let free = |new: &Newcomer| {
            let peer = self.peers.peer(new.hello.from.id);
            new.deadline <= self.now || peer.is_none_or(|peer| peer.link.is_none())
        };
        let at = self.peers.newcomers.iter().position(free)?;
        let newcomer = self.peers.newcomers.remove(at);
        if let Some(peer) = self.peers.position(newcomer.hello.from.id) {
            self.lose_link(peer, Some(Closing::Silent));
        }
        Some(newcomer)
    }
}
