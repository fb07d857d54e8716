//! The first packet on a link: a hello, or an operator's order or request.

use super::Replica;
use crate::effect::{Closing, Effect, Obstacle, Out};
use crate::ids::{LinkId, ServerId};
use crate::packet::{Hello, Packet, Past, Refusal};
use crate::peers::Pending;
use crate::raft::Env;
use crate::replica::Event;
use crate::time::{Moment, WallTime};

impl Replica {
    pub(super) fn on_first_packet(
        &mut self,
        now: Moment,
        Pending { link, dialled, .. }: Pending,
        (packet, rest): (Packet, &[u8]),
        out: &mut Out,
    ) {
        match packet {
            Packet::Hello(hello) => {
                let past = Past::decode(rest, &hello);
                let own = self.raft.ballot().term();
                match past.filter(|_| hello.term.is_credible(own)) {
                    Some(past) => return self.greet(now, link, dialled, (&hello, &past), out),
                    None => out.push(Effect::Close(link, Closing::Nonsense)),
                }
            }
            Packet::Foreign { .. } => self.peers.refuse(link, dialled, Refusal::Version, out),
            Packet::Refused(why) => {
                out.push(Effect::Close(link, Closing::RefusedBy(dialled, why)));
                self.peers.note_obstacle(dialled, Obstacle::RefusedBy(why));
                self.peers.on_dial_ended(now, dialled, false, out);
                return self.heed_refusal(now, why, out);
            }
            Packet::Order { group, order } if dialled.is_none() => {
                let verdict = self.raft.on_order(now, &self.peers, group, order);
                out.send(link, Packet::Verdict(verdict));
                out.push(Effect::Close(link, Closing::Spare));
            }
            // The node answers it later.
            Packet::Request { group } if dialled.is_none() && group == self.shared.group => {}
            _ => out.push(Effect::Close(link, Closing::Nonsense)),
        }
        self.peers.on_dial_ended(now, dialled, false, out);
    }

    /// Processes a hello: refuses the server, or links it.
    pub(super) fn greet(
        &mut self,
        now: Moment,
        link: LinkId,
        dialled: Option<ServerId>,
        (hello, past): (&Hello, &Past),
        out: &mut Out,
    ) {
        let from = hello.from.id;
        if let Err(why) = self.judge(now, dialled, (hello, past), out) {
            if self.peers.is_itself(hello) {
                // This server dialled itself: no other server listens at that address.
                out.push(Effect::Close(link, Closing::Nonsense));
                return self.peers.on_reached_itself(now, hello.to);
            }
            self.peers.refuse(link, Some(from), why, out);
            return self.peers.on_dial_ended(now, dialled, false, out);
        }
        self.peers.note_epoch(hello);
        if !self.raft.may_follow(now, &self.peers, hello) {
            out.push(Effect::Close(link, Closing::Spare));
            return self.peers.on_dial_ended(now, dialled, false, out);
        }
        let new = (link, dialled.is_some());
        if self.peers.waits_for_place(now, new, (hello, past), out) {
            return self.peers.on_dial_ended(now, dialled, false, out);
        }
        if dialled.is_none() {
            self.peers.say_hello(link, from, &self.raft.own_state(), out);
        }
        if let Some(up) = self.peers.establish(now, new, (hello, past), out) {
            self.raft.on_up(now, &self.peers, up);
        }
        // No record is written for a hello, so its time does not matter.
        let env = &mut Env { now, wall: WallTime(0), peers: &mut self.peers, out };
        self.raft.adopt_hello(env, hello, link);
    }

    /// Judges a hello: who sends it, its epoch, and whether its directory is an old copy.
    fn judge(
        &mut self,
        now: Moment,
        dialled: Option<ServerId>,
        (hello, past): (&Hello, &Past),
        out: &mut Out,
    ) -> Result<(), Refusal> {
        self.peers.judge_sender(now, hello, dialled)?;
        let env = &mut Env { now, wall: WallTime(0), peers: &mut self.peers, out };
        self.raft.judge_epoch(env, (hello, past))?;
        let added = self.raft.run_added_by(hello, past);
        let forgot = self.raft.has_forgotten(hello);
        let decides = self.raft.leads_majority(now, &self.peers);
        self.peers.judge_directory((hello, past), added, forgot, decides, out)
    }

    pub(super) fn heed_refusal(&mut self, now: Moment, why: Refusal, out: &mut Out) {
        let env = &mut Env { now, wall: WallTime(0), peers: &mut self.peers, out };
        self.raft.heed_refusal(env, why);
    }

    /// Returns an operator's request about accounts, if the event is one. Only the first packet
    /// of a link can be one.
    pub fn takes_request<'a>(&self, event: &Event<'a>) -> Option<(LinkId, &'a [u8])> {
        let Event::Received { link, packet: Packet::Request { group }, records } = *event else {
            return None;
        };
        let taken = group == self.shared.group && self.peers.is_accepted(link);
        taken.then_some((link, records))
    }
}
