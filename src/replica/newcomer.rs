//! A server that comes with the id of another one which is linked. It may be the same server after
//! a restart whose end was not noticed, or a second process with that id: the first one decides,
//! by an answer.

use super::Replica;
use super::event::{Closing, Effect, Out};
use super::hello::{Hello, Refusal};
use super::packet::Packet;
use super::past::Past;
use super::peer::Link;
use super::rules::Rule;
use crate::ids::{LinkId, ServerId};
use crate::time::Moment;

/// How many links of one id wait, at most.
const NEWCOMERS_MAX: usize = 4;

/// Who came, and waits. While the linked server answers a ping that was sent after this, it stays.
#[derive(Clone, Debug)]
pub(super) struct Newcomer {
    pub(super) link: LinkId,
    hello: Hello,
    past: Past,
    since: Moment,
    /// The linked server has until then to answer.
    pub(super) deadline: Moment,
}

impl Replica {
    /// Whether the id of a hello belongs to another server that is linked; if so the linked one is
    /// asked whether it is there, and the newcomer waits.
    pub(super) fn waits_for_place(
        &mut self,
        now: Moment,
        link: LinkId,
        dialled: bool,
        (hello, past): (&Hello, &Past),
        out: &mut Out,
    ) -> bool {
        let new = Link::new(link, dialled, hello);
        let Some(peer) = self.peer(hello.from.id) else { return false };
        let Some(old) = peer.link.as_ref().filter(|old| !old.same_life(&new)) else { return false };
        out.send(old.id, self.own_ping(now));
        // Who dials twice, since nobody answered at once, waits twice.
        let waiting = self.newcomers.iter().filter(|new| new.hello.from.id == hello.from.id);
        if waiting.count() >= NEWCOMERS_MAX || dialled {
            // What was dialled has our hello already: it is asked to come again.
            out.push(Effect::Close(link, Closing::Spare));
        } else {
            self.newcomers.push(Newcomer {
                link,
                hello: *hello,
                past: past.clone(),
                since: now,
                deadline: now + self.peer_timeout() / 8,
            });
        }
        true
    }

    /// The linked server `id` has answered what was sent at `sent`: who came before that with its
    /// id is another one.
    pub(super) fn turn_away(&mut self, id: ServerId, sent: Moment, out: &mut Out) {
        let Some(stays) = self.peer(id).and_then(|peer| peer.link.as_ref()) else { return };
        let (stays, holder) = (stays.id, stays.member);
        let came = |new: &Newcomer| new.hello.from.id == id && new.since <= sent;
        while let Some(at) = self.newcomers.iter().position(came) {
            let Newcomer { link, hello, .. } = self.newcomers.remove(at);
            let newcomer = hello.from;
            self.note(Rule::RefusedOccupied);
            out.send(link, Packet::Refused(Refusal::Occupied));
            out.push(Effect::Close(link, Closing::Occupied { stays, holder, newcomer }));
        }
    }

    /// Lets those in for whose place nobody has answered.
    pub(super) fn tick_newcomers(&mut self, now: Moment, out: &mut Out) {
        loop {
            let free = |new: &Newcomer| {
                let peer = self.peer(new.hello.from.id);
                new.deadline <= now || peer.is_none_or(|peer| peer.link.is_none())
            };
            let Some(at) = self.newcomers.iter().position(free) else { return };
            let Newcomer { link, hello, past, .. } = self.newcomers.remove(at);
            let peer = self.peers.iter().position(|peer| peer.id == hello.from.id);
            if let Some(peer) = peer {
                self.lose_link(now, peer, Some(Closing::Silent), out);
            }
            self.greet(now, link, None, (&hello, &past), out);
        }
    }

    pub(super) fn forget_newcomer(&mut self, link: LinkId) {
        self.newcomers.retain(|new| new.link != link);
    }
}
