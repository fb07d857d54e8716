//! `last_survivor = "auto"`: the evidence that the other one of two members is dead, separate
//! from all other state. The rule assumes that a refused connection means a dead process; see the
//! description of the setting.

use super::{Env, Peer, Peers};
use crate::ids::{LinkId, Member, Position};
use crate::packet::Packet;
use crate::time::Moment;

/// The evidence that the process which was linked last is dead.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// The config that it promised not to change, and until when.
    promised: Option<(Position, Moment)>,
    /// When this server last gave up a promise. Promises for pings sent before that do not count.
    released: Option<Moment>,
    /// The number of refused dials that the proof still needs. Each loss of the link sets it to one
    /// more than the number of dials that were under way then, so at least one of the refused
    /// dials started after the loss. A refusal is exactly `ECONNREFUSED`, at the address that had
    /// answered. It means nothing while there is a link.
    refusals_due: Option<u32>,
}

impl Evidence {
    /// Records the loss of the link; `under_way` dials started before it.
    pub(super) fn on_lost(&mut self, under_way: u32) {
        self.refusals_due = Some(under_way + 1);
    }

    /// Records that a dial was refused.
    pub(super) fn on_refused(&mut self) {
        self.refusals_due = self.refusals_due.map(|due| due.saturating_sub(1));
    }
}

impl Env<'_> {
    /// Gives up the promise of the primary of two members, which wants to change the members.
    pub(crate) fn on_ask_release(&mut self, from: Member, link: LinkId, asked: Moment) {
        if let Some(at) = self.peers.position(from.id) {
            let known = &mut self.peers.all[at].evidence;
            (known.promised, known.released) = (None, Some(self.now));
        }
        self.out.send(link, Packet::Released { asked });
    }
}

impl Peers {
    /// Records the promise in a pong, if it carries one.
    pub(super) fn note_promise(&mut self, from: Member, sent: Moment, config: Option<Position>) {
        let until = sent + self.peer_timeout() / 2;
        let Some(at) = self.position(from.id) else { return };
        let Peer { process, evidence, .. } = &mut self.all[at];
        if process.is_some_and(|(member, _)| member == from)
            && evidence.released.is_none_or(|released| sent > released)
        {
            evidence.promised = config.map(|config| (config, until)).or(evidence.promised);
        }
    }

    /// Returns whether it is proved that this primary has died while `config` was its newest
    /// config.
    pub(crate) fn is_proved_dead(&self, primary: Member, config: Position, now: Moment) -> bool {
        let Some(peer) = self.peer(primary.id) else { return false };
        self.own.shared.survivor_auto
            && peer.process.is_some_and(|(member, _)| member == primary)
            && peer.link.is_none()
            && peer.reached
            && peer.evidence.refusals_due == Some(0)
            && peer.evidence.promised.is_some_and(|(at, until)| at == config && now < until)
    }
}
