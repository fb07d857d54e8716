//! Epochs. A new epoch begins where an operator, or the last survivor's evidence, overrules
//! elections. Terms are ordered by epoch first.

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

/// The config and the terms with which a server begins its own epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The term of the entry that holds `config`.
    pub term: Term,
    /// The config with this server alone, and with the entry from which the epoch branched.
    pub config: Config,
    /// The vote to store before that entry.
    pub vote: Vote,
}

impl Beginning {
    /// Returns how `me` continues alone after `last`. The new epoch follows that of `newest`, the
    /// highest term that `me` knows of.
    pub fn new(me: Member, newest: Term, last: Position, gate_open: bool) -> Beginning {
        let term = newest.max(last.term).next_epoch(me.id);
        // No other server can be elected in this term.
        let vote = Vote { term, given: Some(me), founder: Some(me.disk) };
        Beginning::again(me, vote, last, gate_open)
    }

    /// Returns how `me` continues the epoch of a stored vote after `last`.
    fn again(me: Member, vote: Vote, last: Position, gate_open: bool) -> Beginning {
        let mut config = Config::new([me], gate_open);
        config.origin = Origin::Branch(last);
        Beginning { term: vote.term.beginning(), config, vote }
    }

    /// Returns the encoded entry that begins the epoch.
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

/// The most epochs that a server refuses.
pub(super) const REFUSED_MAX: usize = 64;

fn epoch_of(hello: &Hello, founder: DiskId) -> Epoch {
    Epoch { number: hello.term.epoch(), founder }
}

impl Replica {
    /// Returns whether the log holds the entry that began this server's epoch. Without it the
    /// server neither votes nor campaigns: a term alone must not bring an epoch's terms into logs
    /// of another epoch.
    pub(super) fn holds_epoch(&self) -> bool {
        self.summary.last().term.epoch() == self.vote.term.epoch()
    }

    /// Returns whether the group is healthy. A straggler that an operator recovered never takes
    /// over a healthy group.
    pub(super) fn is_healthy(&self, now: Moment) -> bool {
        match &self.role {
            Role::Primary(_) => self.hears_majority(now),
            _ => self.primary(now).is_some(),
        }
    }

    /// Returns whether this server may follow a later epoch: only after its own epoch had no
    /// primary for the peer timeout. During an election, or just after a start, a healthy group
    /// looks like one without a primary. An uninitialized server does not wait, nor does a server
    /// that knows that no other server is in its own epoch.
    pub(super) fn may_follow_epoch(&mut self, now: Moment) -> bool {
        let since = *self.later_epoch.get_or_insert(now);
        self.summary.config().is_none()
            || self.is_last_of_epoch()
            || now >= since + self.peer_timeout()
    }

    /// Returns whether no other server can be in this server's epoch. Since this server started,
    /// each has reported a later epoch, or has no process. A refused connection proves the latter
    /// only with `last_survivor = "auto"`.
    fn is_last_of_epoch(&self) -> bool {
        let own = self.vote.term.epoch();
        self.peers.iter().all(|peer| {
            let dead = self.shared.survivor_auto && peer.link.is_none() && peer.refused;
            dead || peer.epoch.is_some_and(|epoch| epoch > own)
        })
    }

    /// Returns whether this server waits because it has met a later epoch. Until it is clear
    /// which epoch counts, it neither campaigns nor votes. The founder of the later epoch has one
    /// more peer timeout to connect and be followed.
    pub(super) fn awaits_epoch(&self, now: Moment) -> bool {
        self.later_epoch.is_some_and(|since| now < since + self.peer_timeout() * 2)
    }

    /// Returns the epoch of this server's term; `None` for the first epoch.
    pub(super) fn own_epoch(&self) -> Option<Epoch> {
        let founder = self.vote.founder?;
        Some(Epoch { number: self.vote.term.epoch(), founder })
    }

    /// Returns whether this server, or the group according to its log, has refused the epoch of a
    /// hello or one of that epoch's ancestors. Only an operator can lift that, by moving the
    /// directory away.
    pub(super) fn has_refused(&self, hello: &Hello, past: &Past) -> bool {
        let newest = hello.founder.map(|founder| epoch_of(hello, founder));
        past.epochs
            .iter()
            .copied()
            .chain(newest)
            .any(|epoch| self.summary.has_refused(epoch) || self.refused.contains(&epoch))
    }

    /// Remembers the refusal of a later epoch. Each member must know it, since each may be alone
    /// later: the primary logs it, and a backup asks the primary to do so. A refusal by a backup
    /// alone does not count, since the backup's primary may have died a moment before.
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

    /// As a primary that a majority answers, refuses an epoch permanently.
    pub(super) fn remember_refused(&mut self, now: Moment, epoch: Epoch) {
        let own = self.summary.epochs().any(|held| held == epoch);
        let known = own || self.refused.contains(&epoch) || self.refused.len() >= REFUSED_MAX;
        if !known && self.leads_majority(now) {
            log::warn!("refused epoch {epoch}: this group continues without it");
            self.refused.push(epoch);
            self.needs_tick = true;
        }
    }

    /// As primary, logs the next refusal that is not in the log.
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

    /// Adopts the term of a hello: a higher term of the same epoch, or a later epoch.
    pub(super) fn adopt_hello(&mut self, now: Moment, hello: &Hello, link: LinkId, out: &mut Out) {
        if hello.term.epoch() <= self.vote.term.epoch() {
            return self.adopt(hello.term, out);
        }
        let number = hello.term.epoch();
        log::warn!("following epoch {number}, which server {} has begun", hello.from);
        self.note(Rule::EpochFollowed);
        self.later_epoch = None;
        self.step_down("there is a later history", out);
        self.set_vote(Vote { term: hello.term, given: None, founder: hello.founder }, out);
        self.greet_anew(now, Some(link), out);
    }

    /// Closes the links whose hello named the previous epoch. Only hellos carry epochs, so each
    /// link must start again.
    pub(super) fn greet_anew(&mut self, now: Moment, but: Option<LinkId>, out: &mut Out) {
        for at in 0..self.peers.len() {
            let link = self.peers[at].link.as_ref().map(|link| link.id);
            if link.is_some() && link != but {
                self.lose_link(now, at, Some(Closing::Restated), out);
            }
        }
    }

    /// Handles a conflict of this log, which is of an earlier epoch, with an entry of a later
    /// epoch's primary. Entries that the later epoch lacks are quarantined, never deleted.
    pub(super) fn leave_for_epoch(&mut self, record: &Record<'_>, out: &mut Out) {
        let before = self.summary.position(record.index.before());
        let begins = record.kind == Kind::CONFIG
            && record.term.begins_epoch()
            && Config::decode(record.body)
                .is_some_and(|config| config.origin == Origin::Branch(before));
        if begins {
            log::warn!("entries after {before} are not part of the followed epoch");
            self.note(Rule::LeftTail);
            self.leave(Quarantine::Tail(before.index), out);
        } else {
            log::warn!("this log and the followed epoch diverge at entry {}", record.index);
            self.note(Rule::LeftHistory);
            self.leave(Quarantine::Everything, out);
        }
    }

    /// Returns whether a conflict with this append is a conflict between epochs.
    pub(super) fn crosses_epoch(&self, append: &Append) -> bool {
        append.term.epoch() > self.summary.last().term.epoch()
    }

    /// Requests a quarantine, which ends this process.
    pub(super) fn leave(&mut self, quarantine: Quarantine, out: &mut Out) {
        self.left = true;
        out.push(Effect::Quarantine(quarantine));
    }

    /// Continues alone, in a new epoch.
    pub(super) fn begin_epoch(&mut self, now: Moment, wall: WallTime, out: &mut Out) {
        let gate = self.config().is_some_and(|config| config.gate_open);
        let begin = Beginning::new(self.me, self.vote.term, self.summary.last(), gate);
        self.step_down("this server goes on alone", out);
        self.begin(now, wall, begin, out);
    }

    /// Completes the beginning of this server's epoch after a crash that came when the vote was
    /// stored and the entry was not. Other servers may follow the epoch already, so this server
    /// can't abandon it. Only this directory's own files count: an old copy can receive epochs
    /// that its original began later.
    pub(super) fn complete_epoch(&mut self, now: Moment, wall: WallTime, out: &mut Out) {
        if !std::mem::take(&mut self.epoch_begun) {
            return;
        }
        let gate = self.config().is_some_and(|config| config.gate_open);
        let begin = Beginning::again(self.me, self.vote, self.summary.last(), gate);
        log::warn!("resuming epoch {}, which this server has begun", begin.term.epoch());
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
