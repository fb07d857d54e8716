//! `last_survivor = "auto"`: the evidence that the other one of two members is dead, separate
//! from all other state. The rule assumes that a refused connection means a dead process; see the
//! description of the setting.

use super::peer::Link;
use super::{Env, Peers};
use crate::ids::{LinkId, Member, Position, Run, ServerId};
use crate::packet::Packet;
use crate::time::Moment;

/// The evidence about the server whose death would leave this one alone.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    process: (Member, Run),
    /// This process has answered this server's hello on a link that this server dialled.
    answered_there: bool,
    /// The config that it promised not to change, and until when.
    promised: Option<(Position, Moment)>,
    /// When this server last gave up a promise. Promises for pings sent before that do not count.
    released: Option<Moment>,
    /// The number of dials without a result when the link was lost.
    older_dials: Option<u32>,
    /// The number of dials refused since then.
    refused: u32,
}

impl Env<'_> {
    /// Gives up the promise of the primary of two members, which wants to change the members.
    pub(crate) fn on_ask_release(&mut self, from: Member, link: LinkId, asked: Moment) {
        if let Some(known) = &mut self.peers.evidence[from.id.slot()] {
            (known.promised, known.released) = (None, Some(self.now));
        }
        self.out.send(link, Packet::Released { asked });
    }
}

impl Peers {
    /// Records that a link was established, if only for a moment. Evidence about an earlier
    /// process is discarded.
    pub(super) fn note_evidence(&mut self, new: &Link) {
        if !self.own.shared.survivor_auto {
            return;
        }
        let known = self.evidence[new.member.id.slot()].take();
        let known = known.filter(|known| known.process == new.process());
        let mut known = known.unwrap_or(Evidence {
            process: new.process(),
            answered_there: false,
            promised: None,
            released: None,
            older_dials: None,
            refused: 0,
        });
        known.older_dials = None;
        known.refused = 0;
        known.answered_there |= new.dialled;
        self.evidence[new.member.id.slot()] = Some(known);
    }

    /// Records the promise in a pong, if it carries one.
    pub(super) fn note_promise(&mut self, from: Member, sent: Moment, config: Option<Position>) {
        let until = sent + self.peer_timeout() / 2;
        if let Some(known) = &mut self.evidence[from.id.slot()]
            && known.process.0 == from
            && known.released.is_none_or(|released| sent > released)
        {
            known.promised = config.map(|config| (config, until)).or(known.promised);
        }
    }

    /// Records the loss of a server's link; `under_way` dials started before it.
    pub(super) fn note_lost(&mut self, member: Member, under_way: u32) {
        if let Some(known) = &mut self.evidence[member.id.slot()] {
            known.older_dials = Some(under_way);
            known.refused = 0;
        }
    }

    /// Records that a dial was refused: exactly `ECONNREFUSED`, at the address that had answered.
    pub(super) fn note_refused(&mut self, id: ServerId) {
        if let Some(known) = &mut self.evidence[id.slot()]
            && known.older_dials.is_some()
        {
            known.refused += 1;
        }
    }

    /// Returns whether it is proved that this primary has died while `config` was its newest
    /// config.
    pub(crate) fn is_proved_dead(&self, primary: Member, config: Position, now: Moment) -> bool {
        let Some(known) = &self.evidence[primary.id.slot()] else { return false };
        known.process.0 == primary
            && self.link_to(primary).is_none()
            && known.answered_there
            // More dials were refused than had started before the loss, so at least one of them
            // started after it.
            && known.older_dials.is_some_and(|older| known.refused > older)
            && known.promised.is_some_and(|(at, until)| at == config && now < until)
    }
}
