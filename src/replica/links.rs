//! Links: dialling, the hello, and the choice between two links to the same server.

use super::event::{Closing, DialFailure, Effect, Event, Obstacle, Out, Quarantine};
use super::hello::{Hello, Refusal};
use super::packet::{Packet, PeerHealth};
use super::past::{Epoch, Past};
use super::peer::Link;
use super::rules::Rule;
use super::{Replica, Role, Timer};
use crate::ids::{DiskId, LinkId, Member, Run, ServerId};
use crate::limits::{
    ANCESTRY_MAX, DIAL_UNDECIDED_TIME, QUICK_DIALS_MAX, REDIAL_TIME, UNKNOWN_LINKS_MAX,
};
use crate::time::Moment;

/// A link on which the other side has not sent its hello.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) link: LinkId,
    /// The server that this one dialled; `None` for an accepted link.
    pub(super) dialled: Option<ServerId>,
    pub(super) deadline: Moment,
}

impl Replica {
    pub(super) fn on_dialled(&mut self, now: Moment, link: LinkId, to: ServerId, out: &mut Out) {
        let Some(at) = self.peers.iter().position(|peer| peer.id == to) else { return };
        let dialling = &mut self.peers[at].dialling;
        dialling.under_way = dialling.under_way.saturating_sub(1);
        let seeking = std::mem::take(&mut dialling.seeking);
        if self.peers[at].link.is_some() && !seeking {
            return out.push(Effect::Close(link, Closing::Spare));
        }
        self.say_hello(link, to, out);
        self.await_hello(now, link, Some(to));
    }

    pub(super) fn on_accepted(&mut self, now: Moment, link: LinkId, out: &mut Out) {
        let unknown = self.pending.iter().filter(|pending| pending.dialled.is_none()).count();
        if unknown >= UNKNOWN_LINKS_MAX {
            return out.push(Effect::Close(link, Closing::Silent));
        }
        self.await_hello(now, link, None);
    }

    fn await_hello(&mut self, now: Moment, link: LinkId, dialled: Option<ServerId>) {
        let deadline = now + self.peer_timeout() / 4;
        self.pending.push(Pending { link, dialled, deadline });
    }

    pub(super) fn hello(&mut self, to: ServerId) -> Hello {
        self.hellos += 1;
        let begun = self.is_greeting(to);
        let linked = self.peer(to).is_some_and(|peer| peer.link.is_some());
        Hello {
            shared: self.shared,
            from: self.me,
            to,
            incarnation: self.incarnation,
            process: self.process,
            serial: self.hellos,
            has_other: begun || linked,
            term: self.vote.term,
            founder: self.vote.founder,
            last: self.summary.position(self.stored),
        }
    }

    /// Returns what follows this server's hello.
    pub(super) fn past(&self) -> Past {
        let heard = self.vote.term.epoch() > self.summary.last().term.epoch();
        let heard = self.own_epoch().filter(|_| heard);
        let mut epochs: Vec<Epoch> = self.summary.epochs().chain(heard).collect();
        let surplus = epochs.len().saturating_sub(ANCESTRY_MAX);
        epochs.drain(..surplus);
        Past { runs: self.runs.clone(), epochs, former: self.former }
    }

    pub(super) fn say_hello(&mut self, link: LinkId, to: ServerId, out: &mut Out) {
        let hello = self.hello(to);
        let mut past = Vec::new();
        self.past().encode(&mut past);
        out.push(Effect::Greet(link, Box::new((hello, past))));
    }

    /// Returns whether a dial to this server succeeded and its hello has not arrived.
    pub(super) fn is_greeting(&self, id: ServerId) -> bool {
        self.pending.iter().any(|pending| pending.dialled == Some(id))
    }

    pub(super) fn on_dial_failed(&mut self, now: Moment, to: ServerId, why: DialFailure) {
        let Some(at) = self.peers.iter().position(|peer| peer.id == to) else { return };
        let peer = &mut self.peers[at];
        peer.dialling.under_way = peer.dialling.under_way.saturating_sub(1);
        peer.dialling.seeking = false;
        self.needs_tick |= !std::mem::replace(&mut peer.met, true);
        if peer.link.is_some() {
            if !peer.reached {
                peer.unreachable = Some(why);
            }
            return;
        }
        peer.obstacle = Some(Obstacle::Dial(why));
        peer.log_loss();
        if why == DialFailure::Refused {
            peer.refused = true;
            self.needs_tick = true;
            self.note_refused(to.slot());
        }
        self.dial_later(now, at);
    }

    /// Schedules the next dial after a failed one, with an increasing delay, unless another dial
    /// is under way.
    fn dial_later(&mut self, now: Moment, at: usize) {
        let longest = self.peer_timeout() / 2;
        let begun = self.is_greeting(self.peers[at].id);
        let dialling = &mut self.peers[at].dialling;
        if dialling.under_way > 0 || begun {
            return;
        }
        let delay = dialling.delay.max(REDIAL_TIME).min(longest);
        dialling.delay = (delay * 2).min(longest);
        dialling.next = Some(now + self.dial_rng.about(delay));
    }

    fn dial_now(&mut self, now: Moment, at: usize, out: &mut Out) {
        let begun = self.is_greeting(self.peers[at].id);
        let peer = &mut self.peers[at];
        let first = peer.dialling.under_way == 0 && !begun;
        peer.dialling.under_way += 1;
        // The kernel still accepts connections to a dying process for a moment, and such a dial
        // is never answered. So a second dial starts beside the first one, but no third one.
        peer.dialling.next = first.then_some(now + DIAL_UNDECIDED_TIME);
        out.push(Effect::Dial(peer.id));
    }

    pub(super) fn on_ended(&mut self, now: Moment, link: LinkId, out: &mut Out) {
        if let Some(at) = self.pending.iter().position(|pending| pending.link == link) {
            let pending = self.pending.remove(at);
            return self.on_dial_ended(now, pending.dialled, true, out);
        }
        self.forget_newcomer(link);
        if let Some(at) = self.peers.iter().position(|peer| peer.has_link(link)) {
            self.lose_link(now, at, None, out);
        }
    }

    /// Redials after a dial that succeeded, but ended before the hello.
    fn on_dial_ended(&mut self, now: Moment, to: Option<ServerId>, quick: bool, out: &mut Out) {
        let Some(at) = self.peers.iter().position(|peer| Some(peer.id) == to) else { return };
        let peer = &mut self.peers[at];
        self.needs_tick |= !std::mem::replace(&mut peer.met, true);
        if peer.link.is_some() {
            return;
        }
        if quick && peer.dialling.quick < QUICK_DIALS_MAX {
            peer.dialling.quick += 1;
            self.dial_now(now, at, out);
        } else {
            self.dial_later(now, at);
        }
    }

    /// Handles the end of the link in use, or closes it if a reason is given.
    pub(super) fn lose_link(
        &mut self,
        now: Moment,
        at: usize,
        why: Option<Closing>,
        out: &mut Out,
    ) {
        let peer = &mut self.peers[at];
        let Some(link) = peer.link.take() else { return };
        if let Some(why) = why {
            out.push(Effect::Close(link.id, why));
        }
        peer.begin_anew();
        peer.lost_at = Some(now);
        let under_way = peer.dialling.under_way;
        self.note_lost(link.member, under_way);
        self.dial_now(now, at, out);
        // Pings the others now, not at the next heartbeat, to learn whether they are still
        // active.
        self.ping();
        self.needs_tick = true;
    }

    pub(super) fn health(&self, now: Moment) -> PeerHealth {
        PeerHealth {
            leads: matches!(self.role, Role::Primary(_)),
            stopping: self.stopping.is_some(),
            slow: self.is_slow(now),
            full: self.full,
            damaged: self.damaged.is_some(),
        }
    }

    /// Pings all linked servers at the end of this event.
    pub(super) fn ping(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.ping_due = true);
    }

    /// Sends the pings that are due. They are sent at the end of an event, so that they report
    /// the state that the event leads to.
    pub(super) fn send_pings(&mut self, now: Moment, out: &mut Out) {
        if self.peers.iter().any(|peer| peer.ping_due) {
            let (wall, health) = (self.clocks.own(now), self.health(now));
            for peer in &mut self.peers {
                if let (true, Some(link)) = (std::mem::take(&mut peer.ping_due), &peer.link) {
                    out.send(link.id, Packet::Ping { sent: now, wall, health });
                }
            }
        }
    }

    /// Pings at once if this server's own ping is due soon: servers that wake up together sleep
    /// longer.
    pub(super) fn ping_together(&mut self, now: Moment) {
        if self.timers.expired(Timer::Ping, now + self.peer_timeout() / 16) {
            self.timers.set(Timer::Ping, now);
        }
    }

    pub(super) fn on_pong(&mut self, at: usize, sent: Moment, now: Moment, out: &mut Out) {
        // This server sent no ping in the future, so such a pong is invalid.
        if sent > now {
            return;
        }
        self.turn_away(self.peers[at].id, sent, out);
        let peer = &mut self.peers[at];
        if peer.answered.is_none_or(|answered| answered < sent) {
            (peer.heard, peer.answered) = (peer.heard.max(Some(sent)), Some(sent));
            self.needs_tick |= matches!(&self.role, Role::Primary(primary) if primary.has_loss);
        }
    }

    pub(super) fn tick_links(&mut self, now: Moment, out: &mut Out) {
        while let Some(at) = self.pending.iter().position(|pending| pending.deadline <= now) {
            let pending = self.pending.remove(at);
            out.push(Effect::Close(pending.link, Closing::Silent));
            self.note_obstacle(pending.dialled, Obstacle::Dial(DialFailure::NoAnswer));
            self.on_dial_ended(now, pending.dialled, false, out);
        }
        self.tick_newcomers(now, out);
        for at in 0..self.peers.len() {
            if self.peers[at].dialling.next.is_some_and(|next| next <= now) {
                self.peers[at].dialling.next = None;
                if self.peers[at].link.is_none() {
                    self.dial_now(now, at, out);
                }
            }
        }
        if self.timers.expired(Timer::Ping, now) {
            self.timers.set(Timer::Ping, now + self.peer_timeout() / 8);
            let peer_timeout = self.peer_timeout();
            for at in 0..self.peers.len() {
                let peer = &self.peers[at];
                let silent = peer.heard.is_some_and(|heard| now >= heard + peer_timeout);
                if peer.link.is_none() {
                    self.peers[at].log_loss();
                } else if silent {
                    self.lose_link(now, at, Some(Closing::Silent), out);
                }
            }
            self.ping();
            self.seek_links(out);
            self.refresh_told();
        }
    }

    pub(super) fn on_first_packet(
        &mut self,
        now: Moment,
        at: usize,
        (packet, rest): (Packet, &[u8]),
        out: &mut Out,
    ) {
        let Pending { link, dialled, .. } = self.pending.remove(at);
        let hello = match packet {
            Packet::Hello(hello) => hello,
            Packet::Foreign { .. } => {
                self.refuse(link, dialled, Refusal::Version, out);
                return self.on_dial_ended(now, dialled, false, out);
            }
            Packet::Refused(why) => {
                out.push(Effect::Close(link, Closing::RefusedBy(dialled, why)));
                self.note_obstacle(dialled, Obstacle::RefusedBy(why));
                self.on_dial_ended(now, dialled, false, out);
                return self.heed_refusal(now, why, out);
            }
            Packet::Order { group, order } if dialled.is_none() => {
                let verdict = self.on_order(now, group, order);
                out.send(link, Packet::Verdict(verdict));
                return out.push(Effect::Close(link, Closing::Spare));
            }
            // The node answers it later.
            Packet::Request { group } if dialled.is_none() && group == self.shared.group => return,
            _ => {
                out.push(Effect::Close(link, Closing::Nonsense));
                return self.on_dial_ended(now, dialled, false, out);
            }
        };
        match Past::decode(rest, &hello).filter(|_| hello.term.is_credible(self.vote.term)) {
            Some(past) => self.greet(now, link, dialled, (&hello, &past), out),
            None => {
                out.push(Effect::Close(link, Closing::Nonsense));
                self.on_dial_ended(now, dialled, false, out);
            }
        }
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
        if let Err(why) = self.judge(now, (hello, past), dialled, out) {
            if hello.process == self.process {
                // This server dialled itself: no other server listens at that address.
                out.push(Effect::Close(link, Closing::Nonsense));
                return self.on_reached_itself(now, Some(hello.to));
            }
            if why == Refusal::Straggler {
                self.remember_refusal(now, hello, out);
            }
            self.refuse(link, Some(hello.from.id), why, out);
            return self.on_dial_ended(now, dialled, false, out);
        }
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == hello.from.id) {
            peer.epoch = Some(hello.term.epoch());
        }
        if hello.term.epoch() > self.vote.term.epoch() && !self.may_follow_epoch(now) {
            out.push(Effect::Close(link, Closing::Spare));
            return self.on_dial_ended(now, dialled, false, out);
        }
        if self.waits_for_place(now, link, dialled.is_some(), (hello, past), out) {
            return self.on_dial_ended(now, dialled, false, out);
        }
        if dialled.is_none() {
            self.say_hello(link, hello.from.id, out);
        }
        self.establish(now, Link::new(link, dialled.is_some(), hello), past, out);
        self.adopt_hello(now, hello, link, out);
    }

    /// Returns an operator's request about accounts, if the event is one. Only the first packet
    /// of a link can be one.
    pub fn takes_request<'a>(&self, event: &Event<'a>) -> Option<(LinkId, &'a [u8])> {
        let Event::Received { link, packet: Packet::Request { group }, records } = *event else {
            return None;
        };
        let new = |pending: &Pending| pending.link == link && pending.dialled.is_none();
        let taken = group == self.shared.group && self.pending.iter().any(new);
        taken.then_some((link, records))
    }

    /// Records that no other server listens at the address that was dialled.
    fn on_reached_itself(&mut self, now: Moment, to: Option<ServerId>) {
        let Some(at) = self.peers.iter().position(|peer| Some(peer.id) == to) else { return };
        if self.peers[at].link.is_none() {
            (self.peers[at].refused, self.peers[at].met) = (true, true);
            self.needs_tick = true;
            self.dial_later(now, at);
        }
    }

    /// Handles the refusal of this server's hello on the link in use.
    pub(super) fn on_refused(&mut self, now: Moment, link: LinkId, why: Refusal, out: &mut Out) {
        let Some(at) = self.peers.iter().position(|peer| peer.has_link(link)) else { return };
        let id = self.peers[at].id;
        self.lose_link(now, at, Some(Closing::RefusedBy(Some(id), why)), out);
        self.note_obstacle(Some(id), Obstacle::RefusedBy(why));
        // The other side will refuse the next hello as well, so the next dial has the longest
        // delay.
        self.peers[at].dialling.delay = self.peer_timeout() / 2;
        self.heed_refusal(now, why, out);
    }

    /// Reacts to a refusal: a server whose directory is an old copy quarantines it and restarts
    /// uninitialized.
    fn heed_refusal(&mut self, now: Moment, why: Refusal, out: &mut Out) {
        match why {
            // A server that a majority follows is not an old copy, whatever one other server
            // remembers.
            Refusal::OldCopy if !self.leads_majority(now) => {
                log::warn!("this directory is an old copy: quarantining it");
                self.note(Rule::LeftOldCopy);
                self.leave(Quarantine::Everything, out);
            }
            Refusal::Doubtful => {
                self.doubted = Some(now);
                if matches!(self.role, Role::Candidate(_)) {
                    self.lose_round(now);
                }
            }
            _ => {}
        }
    }

    /// Returns whether this server is a primary that a majority answers.
    pub(super) fn leads_majority(&self, now: Moment) -> bool {
        matches!(self.role, Role::Primary(_)) && self.hears_majority(now)
    }

    /// Returns whether another server recently reported that this directory may be an old copy,
    /// and no primary has decided that. An old copy must neither lead a term that had a primary
    /// nor vote in it.
    pub(super) fn is_doubted(&self, now: Moment) -> bool {
        self.doubted.is_some_and(|since| now < since + self.peer_timeout() * 2)
    }

    fn refuse(&mut self, link: LinkId, from: Option<ServerId>, why: Refusal, out: &mut Out) {
        out.send(link, Packet::Refused(why));
        self.note_obstacle(from, Obstacle::Refused(why));
        let from = from.unwrap_or(self.me.id);
        out.push(Effect::Close(link, Closing::Refused(from, why)));
        match why {
            Refusal::Version => self.note(Rule::RefusedVersion),
            Refusal::Group => self.note(Rule::RefusedGroup),
            Refusal::Settings => self.note(Rule::RefusedSettings),
            Refusal::SameId => self.note(Rule::RefusedSameId),
            Refusal::WrongId => self.note(Rule::RefusedWrongId),
            Refusal::Epoch => self.note(Rule::RefusedEpoch),
            Refusal::Straggler | Refusal::Parted => self.note(Rule::RefusedStraggler),
            Refusal::OldCopy | Refusal::Doubtful | Refusal::Nonsense => {} // noted with its reason
            Refusal::Occupied => self.note(Rule::RefusedOccupied),
        }
    }

    fn judge(
        &mut self,
        now: Moment,
        (hello, past): (&Hello, &Past),
        dialled: Option<ServerId>,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        if hello.shared.group != self.shared.group {
            return Err(Refusal::Group);
        }
        if hello.shared != self.shared {
            return Err(Refusal::Settings);
        }
        if hello.from.id == self.me.id {
            return Err(Refusal::SameId);
        }
        let unexpected = dialled.is_some_and(|id| id != hello.from.id);
        if unexpected || hello.to != self.me.id || self.peer(hello.from.id).is_none() {
            return Err(Refusal::WrongId);
        }
        if self.peer(hello.from.id).is_some_and(|peer| peer.shunned > Some(now)) {
            return Err(Refusal::Nonsense);
        }
        let (own, theirs) = (self.vote.term.epoch(), hello.term.epoch());
        if theirs == own && hello.founder != self.vote.founder {
            return Err(Refusal::Epoch);
        }
        if theirs > own && self.is_healthy(now) {
            return Err(Refusal::Straggler);
        }
        if theirs > own && self.has_refused(hello, past) {
            return Err(Refusal::Parted);
        }
        match self.is_old_copy(hello, past) {
            // The memory of one server is not enough to quarantine a directory.
            Some(rule) => {
                self.note(rule);
                if rule == Rule::RefusedCopy {
                    self.seen.note_copy(hello.from.disk, &past.runs);
                    self.store_seen(hello.from.disk, out);
                }
                let decides = self.leads_majority(now);
                Err(if decides { Refusal::OldCopy } else { Refusal::Doubtful })
            }
            None => Ok(()),
        }
    }

    /// Returns why the sender's directory is an old copy, if it is one. It is an earlier
    /// incarnation of the disk, or a copy that was started after it was made. Or, in a term not
    /// higher than this primary's, its log lacks entries that the primary has counted as stored.
    fn is_old_copy(&self, hello: &Hello, past: &Past) -> Option<Rule> {
        let disk = hello.from.disk;
        let copy = self.seen.copy_rule(disk, &past.runs, self.summary.run_added(disk));
        if copy.is_some() {
            return copy;
        }
        let Role::Primary(primary) = &self.role else { return None };
        if hello.term > self.vote.term {
            return None;
        }
        let known = primary.progress(hello.from)?;
        // A hello may have been in flight for a long time. If the same process sent it, the
        // entries that the process acknowledged since then are not lost.
        let forgot = known.process != Some(hello.process)
            && hello.last < self.summary.position(known.stored);
        forgot.then_some(Rule::RefusedForgot)
    }

    /// Closes the link to a disk that the log has added with a run that the linked directory
    /// lacks.
    pub(super) fn close_copies(&mut self, now: Moment, out: &mut Out) {
        let is_copy = |link: &Link| {
            let (added, seen) = (self.summary.run_added(link.member.disk), &self.seen);
            added.is_some_and(|added| seen.is_other_life(link.member.disk, added))
        };
        let copy = self.peers.iter().position(|peer| peer.link.as_ref().is_some_and(is_copy));
        let Some(at) = copy else { return };
        self.note(Rule::RefusedCopy);
        let (id, link) = (self.peers[at].id, self.peers[at].link.as_ref().map(|link| link.id));
        out.send(link.expect("it was just found"), Packet::Refused(Refusal::Doubtful));
        self.lose_link(now, at, Some(Closing::Refused(id, Refusal::Doubtful)), out);
    }

    pub(super) fn establish(&mut self, now: Moment, new: Link, past: &Past, out: &mut Out) {
        let id = new.member.id;
        let lower_dialled = |link: &Link| link.dialled == (self.me.id < id);
        let at = self.peers.iter().position(|peer| peer.id == id);
        let at = at.expect("the hello of a stranger was refused");
        let new_stays = match &self.peers[at].link {
            None => true,
            Some(old) if !old.same_life(&new) => true,
            Some(old) => {
                // The hellos of two links may arrive in either order; the hello with the higher
                // serial is later.
                let later = new.serial > old.serial;
                if later && !new.has_other {
                    true
                } else if !later && !old.has_other {
                    false
                } else if old.dialled == new.dialled {
                    later
                } else {
                    lower_dialled(&new)
                }
            }
        };
        self.note_reached(at, &new);
        if !new_stays {
            return out.push(Effect::Close(new.id, Closing::Spare));
        }
        let (member, process) = (new.member, new.process);
        let peer = &mut self.peers[at];
        if peer.announced.replace(new.life()) != Some(new.life()) {
            log::info!("linked with server {member}");
        }
        let new_life = peer.link.as_ref().is_some_and(|old| !old.same_life(&new));
        if let Some(old) = peer.link.replace(new) {
            out.push(Effect::Close(old.id, Closing::Spare));
        }
        peer.begin_anew();
        (peer.heard, peer.met, peer.former) = (Some(now), true, past.former);
        // The ping reports this server's health before any acknowledgement.
        peer.ping_due = true;
        if self.shared.survivor_auto {
            // No server may continue alone without this evidence. In other setups the next ping
            // starts these dials, since a second link resets the packets in flight on the first
            // one.
            self.seek_links(out);
        }
        self.note_life(member, &past.runs, new_life, out);
        self.on_linked(now, member, process);
        self.needs_tick = true;
    }

    fn store_seen(&self, disk: DiskId, out: &mut Out) {
        let seen = self.seen.of(disk);
        out.effects.extend(seen.map(|seen| Effect::RecordIncarnation(Box::new(seen.clone()))));
    }

    /// Records the server's starts. If the followed primary has started again, this server stops
    /// following it.
    fn note_life(&mut self, member: Member, runs: &[Run], new_life: bool, out: &mut Out) {
        let later = self.seen.note(member.disk, runs);
        if later {
            self.store_seen(member.disk, out);
        }
        if let Role::Follower(following) = &mut self.role
            && (later || new_life)
            && following.primary.is_some_and(|primary| primary.id == member.id)
        {
            following.primary = None;
        }
    }
}
