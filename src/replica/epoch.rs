//! Epochs: histories that begin where a person, or the last survivor's evidence, overruled an
//! election. Terms are ordered by epoch first.

use super::backup::Following;
use super::event::{Closing, Effect, Out, Quarantine};
use super::hello::Hello;
use super::members::{Config, Origin};
use super::packet::{Append, Packet};
use super::past::{Epoch, Past};
use super::rules::Rule;
use super::{Replica, Role};
use crate::ids::{DiskId, LinkId, Member, Position, Term, Vote};
use crate::record::{self, Kind, Record};
use crate::time::{Moment, WallTime};

/// The config and the terms with which a server begins an epoch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The term of the entry that holds `config`.
    pub term: Term,
    /// The server alone, and the entry that the epoch branched from.
    pub config: Config,
    /// The vote that is stored before that entry.
    pub vote: Vote,
}

impl Beginning {
    /// How `me` goes on alone behind `last`, in the epoch after that of `newest`, the highest
    /// term it has heard of.
    pub fn new(me: Member, newest: Term, last: Position, gate_open: bool) -> Beginning {
        let term = newest.max(last.term).next_epoch(me.id);
        // Nobody else can be elected in this term.
        let vote = Vote { term, given: Some(me), founder: Some(me.disk) };
        Beginning::again(me, vote, last, gate_open)
    }

    /// How `me` goes on with the epoch of a vote that is stored, behind `last`.
    fn again(me: Member, vote: Vote, last: Position, gate_open: bool) -> Beginning {
        let mut config = Config::new([me], gate_open);
        config.origin = Origin::Branch(last);
        Beginning { term: vote.term.beginning(), config, vote }
    }

    /// The bytes of the entry that begins the epoch.
    pub fn entry(&self, time: WallTime) -> Vec<u8> {
        let Origin::Branch(last) = self.config.origin else {
            unreachable!("an epoch branches from an entry");
        };
        let at = Position { index: last.index.next(), term: self.term };
        let mut entry = Vec::new();
        record::write(&mut entry, at, time, Kind::CONFIG, |body| self.config.encode(body));
        entry
    }
}

/// Epochs that a server refuses, at most.
pub(super) const REFUSED_MAX: usize = 64;

fn epoch_of(hello: &Hello, founder: DiskId) -> Epoch {
    Epoch { number: hello.term.epoch(), founder }
}

impl Replica {
    /// Only one whose log holds the entry that began its epoch votes and stands in it: a term
    /// alone must not let an epoch's terms into logs of another.
    pub(super) fn holds_epoch(&self) -> bool {
        self.summary.last().term.epoch() == self.vote.term.epoch()
    }

    /// A healthy group is never taken over by a recovered straggler.
    pub(super) fn is_healthy(&self, now: Moment) -> bool {
        match &self.role {
            Role::Primary(_) => self.hears_majority(now),
            _ => self.primary(now).is_some(),
        }
    }

    /// A later epoch is followed only after `T` without a primary of the own one: in an election,
    /// or just after a start, a healthy group looks like one that has nobody. A blank server has
    /// nothing to wait for, nor has one that knows that nobody else can be in the own epoch.
    pub(super) fn may_follow_epoch(&mut self, now: Moment) -> bool {
        let since = *self.later_epoch.get_or_insert(now);
        self.summary.config().is_none()
            || self.is_last_of_epoch()
            || now >= since + self.peer_timeout()
    }

    /// Whether every other server has said since this one's start that it is in a later epoch, or
    /// has no process: a refused connection means that with `last_survivor = "auto"` alone.
    fn is_last_of_epoch(&self) -> bool {
        let own = self.vote.term.epoch();
        self.peers.iter().all(|peer| {
            let dead = self.shared.survivor_auto && peer.link.is_none() && peer.refused;
            dead || peer.epoch.is_some_and(|epoch| epoch > own)
        })
    }

    /// Who has met a later epoch neither stands nor votes until it is clear which one counts,
    /// and the server that began it has had another `T` to come and be followed.
    pub(super) fn awaits_epoch(&self, now: Moment) -> bool {
        self.later_epoch.is_some_and(|since| now < since + self.peer_timeout() * 2)
    }

    /// The epoch of this server's term, if a person or the last survivor has begun it.
    pub(super) fn own_epoch(&self) -> Option<Epoch> {
        let founder = self.vote.founder?;
        Some(Epoch { number: self.vote.term.epoch(), founder })
    }

    /// Whether the epoch of a hello, or one that it descends from, was refused before: by this
    /// server, or by the group, as far as its log says. Only a person lifts that, by moving the
    /// directory away.
    pub(super) fn has_refused(&self, hello: &Hello, past: &Past) -> bool {
        let newest = hello.founder.map(|founder| epoch_of(hello, founder));
        past.epochs
            .iter()
            .copied()
            .chain(newest)
            .any(|epoch| self.summary.has_refused(epoch) || self.refused.contains(&epoch))
    }

    /// A later epoch is refused. Each member must know that, since each may be alone later: the
    /// primary logs it, and a backup asks the primary to. What a backup alone has refused does not
    /// count: its primary may have died a moment before.
    pub(super) fn remember_refusal(&mut self, now: Moment, hello: &Hello, out: &mut Out) {
        let Some(founder) = hello.founder else { return };
        let epoch = epoch_of(hello, founder);
        if let Role::Follower(Following { primary: Some(primary), .. }) = &self.role
            && let Some(link) = self.link_to(*primary)
        {
            out.send(link, Packet::Refuses(epoch));
        }
        self.remember_refused(now, epoch);
    }

    /// A primary whom a majority answers refuses an epoch, for good.
    pub(super) fn remember_refused(&mut self, now: Moment, epoch: Epoch) {
        let own = self.summary.epochs().any(|held| held == epoch);
        let known = own || self.refused.contains(&epoch) || self.refused.len() >= REFUSED_MAX;
        if !known && self.leads_majority(now) {
            log::warn!("history {epoch} is refused: this group goes on without it");
            self.refused.push(epoch);
            self.needs_tick = true;
        }
    }

    /// A primary logs what was refused.
    pub(super) fn log_refusals(&mut self, wall: WallTime, out: &mut Out) {
        let able = self.stopping.is_none() && self.handover.is_none() && self.own_term_committed();
        if !able || self.summary.refusals() >= REFUSED_MAX {
            return;
        }
        let new = self.refused.iter().find(|epoch| !self.summary.has_refused(**epoch));
        if let Some(epoch) = new.copied() {
            self.note(Rule::LoggedRefusal);
            let term = self.vote.term;
            self.append_own(term, wall, Kind::REFUSAL, |body| epoch.encode(body), out);
            self.needs_tick = true;
        }
    }

    /// Takes what a hello says of terms: a higher one of the own epoch, or a higher epoch.
    pub(super) fn adopt_hello(&mut self, now: Moment, hello: &Hello, link: LinkId, out: &mut Out) {
        if hello.term.epoch() <= self.vote.term.epoch() {
            return self.adopt(hello.term, out);
        }
        let number = hello.term.epoch();
        log::warn!("server {} has begun history {number}: it is followed", hello.from);
        self.note(Rule::EpochFollowed);
        self.later_epoch = None;
        self.step_down("there is a later history", out);
        self.set_vote(Vote { term: hello.term, given: None, founder: hello.founder }, out);
        self.greet_anew(now, Some(link), out);
    }

    /// Epochs are told in hellos only: links that speak of the one before are begun again.
    pub(super) fn greet_anew(&mut self, now: Moment, but: Option<LinkId>, out: &mut Out) {
        for at in 0..self.peers.len() {
            let link = self.peers[at].link.as_ref().map(|link| link.id);
            if link.is_some() && link != but {
                self.lose_link(now, at, Some(Closing::Restated), out);
            }
        }
    }

    /// A conflict of this log, which is of an earlier epoch, with an entry of a later epoch's
    /// primary: what that does not have is quarantined, never deleted.
    pub(super) fn leave_for_epoch(&mut self, record: &Record<'_>, out: &mut Out) {
        let before = self.summary.position(record.index.before());
        let begins = record.kind == Kind::CONFIG
            && record.term.begins_epoch()
            && Config::decode(record.body)
                .is_some_and(|config| config.origin == Origin::Branch(before));
        if begins {
            log::warn!("entries behind {before} are not part of the history that is followed");
            self.note(Rule::LeftTail);
            self.leave(Quarantine::Tail(before.index), out);
        } else {
            log::warn!("this log and the history that is followed part at entry {}", record.index);
            self.note(Rule::LeftHistory);
            self.leave(Quarantine::Everything, out);
        }
    }

    /// Whether a conflict with this append is one between epochs.
    pub(super) fn crosses_epoch(&self, append: &Append) -> bool {
        append.term.epoch() > self.summary.last().term.epoch()
    }

    /// Ends this life.
    pub(super) fn leave(&mut self, quarantine: Quarantine, out: &mut Out) {
        self.left = true;
        out.push(Effect::Quarantine(quarantine));
    }

    /// Goes on alone, in an epoch of its own.
    pub(super) fn begin_epoch(&mut self, now: Moment, wall: WallTime, out: &mut Out) {
        let gate = self.config().is_some_and(|config| config.gate_open);
        let begin = Beginning::new(self.me, self.vote.term, self.summary.last(), gate);
        self.step_down("this server goes on alone", out);
        self.begin(now, wall, begin, out);
    }

    /// A crash may have come when the vote of an epoch that this server begins was stored, and
    /// not yet its entry. Others may follow it already, so there is no way back. Only what was
    /// stored here counts: an old copy hears of epochs that it began in a later life.
    pub(super) fn complete_epoch(&mut self, now: Moment, wall: WallTime, out: &mut Out) {
        if !std::mem::take(&mut self.epoch_begun) {
            return;
        }
        let gate = self.config().is_some_and(|config| config.gate_open);
        let begin = Beginning::again(self.me, self.vote, self.summary.last(), gate);
        log::warn!("the history {} that was begun here is gone on with", begin.term.epoch());
        self.note(Rule::EpochCompleted);
        self.begin(now, wall, begin, out);
    }

    fn begin(&mut self, now: Moment, wall: WallTime, begin: Beginning, out: &mut Out) {
        self.append_config(begin.term, wall, begin.config, out);
        self.vote = begin.vote;
        self.greet_anew(now, None, out);
        self.ask_for_votes(now, begin.vote.term.next(), out);
    }
}
