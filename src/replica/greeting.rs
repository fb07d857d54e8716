//! The first packet on a link: a hello, or an operator's order or request.

use super::Replica;
use crate::effect::{Closing, Effect, Obstacle};
use crate::ids::{LinkId, ServerId};
use crate::packet::{Hello, Packet, Past, Refusal};
use crate::peers::{Env, Pending};
use crate::raft::Raft;
use crate::replica::Event;

pub(super) fn on_first_packet(
    raft: &mut Raft,
    env: &mut Env<'_>,
    Pending { link, dialled, .. }: Pending,
    (packet, rest): (Packet, &[u8]),
) {
    match packet {
        Packet::Hello(hello) => {
            let past = Past::decode(rest, &hello);
            match past.filter(|_| hello.term.is_credible(raft.ballot.term())) {
                Some(past) if greet(raft, env, (link, dialled), (&hello, &past)) => return,
                Some(_) => {}
                None => env.out.push(Effect::Close(link, Closing::Nonsense)),
            }
        }
        Packet::Foreign { .. } => env.refuse(link, dialled, Refusal::Version),
        Packet::Refused(why) => {
            env.out.push(Effect::Close(link, Closing::RefusedBy(dialled, why)));
            env.peers.note_obstacle(dialled, Obstacle::RefusedBy(why));
            env.on_dial_ended(dialled, false);
            return raft.heed_refusal(env, why);
        }
        Packet::Order { group, to } if dialled.is_none() => {
            let verdict = raft.on_order(env.now, env.peers, group, to);
            env.out.send(link, Packet::Verdict(verdict));
            env.out.push(Effect::Close(link, Closing::Spare));
        }
        // The node answers it later.
        Packet::Request { group } if dialled.is_none() && group == raft.shared.group => {}
        _ => env.out.push(Effect::Close(link, Closing::Nonsense)),
    }
    env.on_dial_ended(dialled, false);
}

/// Processes a hello: refuses the server, or links it. Returns whether no other dial must follow.
pub(super) fn greet(
    raft: &mut Raft,
    env: &mut Env<'_>,
    (link, dialled): (LinkId, Option<ServerId>),
    (hello, past): (&Hello, &Past),
) -> bool {
    let (from, new) = (hello.from.id, (link, dialled.is_some()));
    if let Err(why) = judge(raft, env, dialled, (hello, past)) {
        if env.peers.is_itself(hello) {
            // This server dialled itself: no other server listens at that address.
            env.out.push(Effect::Close(link, Closing::Nonsense));
            env.peers.on_reached_itself(env.now, hello.to);
            return true;
        }
        env.refuse(link, Some(from), why);
        return false;
    }
    env.peers.note_epoch(hello);
    if !raft.may_follow(env.now, env.peers, hello) {
        env.out.push(Effect::Close(link, Closing::Spare));
        return false;
    }
    if env.waits_for_place(new, (hello, past)) {
        return false;
    }
    if dialled.is_none() {
        env.say_hello(link, from, &raft.own_state());
    }
    let up = env.establish(new, (hello, past));
    if let Some(up) = up {
        raft.on_up(env.now, env.peers, up);
    }
    raft.adopt_hello(env, hello, link);
    if up.is_some() {
        raft.ask(env, hello.from);
    }
    true
}

/// Judges a hello: who sends it, its epoch, and whether its directory is an old copy.
fn judge(
    raft: &mut Raft,
    env: &mut Env<'_>,
    dialled: Option<ServerId>,
    (hello, past): (&Hello, &Past),
) -> Result<(), Refusal> {
    env.judge_sender(hello, dialled)?;
    raft.judge_epoch(env, (hello, past))?;
    let added = raft.run_added_by(hello, past);
    let forgot = raft.has_forgotten(hello);
    let decides = raft.leads_majority(env.now, env.peers);
    env.judge_directory((hello, past), added, forgot, decides)
}

impl Replica {
    /// Returns an operator's request about accounts, if the event is one. Only the first packet
    /// of a link can be one.
    pub fn takes_request<'a>(&self, event: &Event<'a>) -> Option<(LinkId, &'a [u8])> {
        let Event::Received { link, packet: Packet::Request { group }, records } = *event else {
            return None;
        };
        let taken = group == self.raft.shared.group && self.peers.is_accepted(link);
        taken.then_some((link, records))
    }
}
