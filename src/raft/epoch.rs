//! Epochs. A new epoch begins where an operator, or the last survivor's evidence, overrules
//! elections. Terms are ordered by epoch first.

use super::{Env, Raft, Role};
use crate::config::{Config, Origin};
use crate::effect::{Out, Quarantine};
use crate::ids::{LinkId, Member, Position, Term, Vote};
use crate::packet::{Append, Epoch, Hello, Packet, Past, Refusal};
use crate::peers::Peers;
use crate::record::{self, Kind, Record};
use crate::rules::Rule;
use crate::time::{Moment, WallTime};
use std::time::Duration;

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
const REFUSED_MAX: usize = 64;

/// What this server knows of epochs besides its log and its vote.
#[derive(Clone, Debug)]
pub(super) struct Epochs {
    /// This server stored the vote of its own epoch, but not the entry that begins the epoch.
    begun: bool,
    /// When this server first met a later epoch that it does not follow, while its own epoch had
    /// no primary.
    pub(super) later: Option<Moment>,
    /// Later epochs that this server refused; `log_refusals` logs those that the log does not
    /// hold.
    pub(super) refused: Vec<Epoch>,
    /// When another server last reported that this directory may be an old copy.
    pub(super) doubted: Option<Moment>,
}

impl Epochs {
    pub(super) fn new(begun: bool) -> Epochs {
        Epochs { begun, later: None, refused: Vec::new(), doubted: None }
    }

    /// Returns whether this server waits because it has met a later epoch. Until it is clear
    /// which epoch counts, it neither campaigns nor votes. The founder of the later epoch has one
    /// more peer timeout to connect and be followed.
    pub(super) fn awaits(&self, now: Moment, peer_timeout: Duration) -> bool {
        self.later.is_some_and(|since| now < since + peer_timeout * 2)
    }
}

fn epoch_of(hello: &Hello) -> Option<Epoch> {
    hello.founder.map(|founder| Epoch { number: hello.term.epoch(), founder })
}

impl Raft {
    /// Returns whether the log holds the entry that began this server's epoch. Without it the
    /// server neither votes nor campaigns: a term alone must not bring an epoch's terms into logs
    /// of another epoch.
    pub(super) fn holds_epoch(&self) -> bool {
        self.last_position().term.epoch() == self.ballot.term().epoch()
    }

    /// Returns whether the group is healthy. A straggler that an operator recovered never takes
    /// over a healthy group.
    pub(super) fn is_healthy(&self, now: Moment, peers: &Peers) -> bool {
        match &self.role {
            Role::Primary(_) => self.is_majority_active(now, peers),
            _ => self.primary(now, peers).is_some(),
        }
    }

    /// Returns whether another server recently reported that this directory may be an old copy,
    /// and no primary has decided that. An old copy must neither lead a term that had a primary
    /// nor vote in it.
    pub(super) fn is_doubted(&self, now: Moment) -> bool {
        self.epochs.doubted.is_some_and(|since| now < since + self.peer_timeout() * 2)
    }

    /// Judges the epoch of a hello, and remembers one that this server refuses.
    pub(crate) fn judge_epoch(
        &mut self,
        env: &mut Env<'_>,
        (hello, past): (&Hello, &Past),
    ) -> Result<(), Refusal> {
        let (own, theirs) = (self.ballot.term().epoch(), hello.term.epoch());
        if theirs == own && hello.founder != self.ballot.vote().founder {
            return Err(Refusal::Epoch);
        }
        if theirs > own && self.is_healthy(env.now, env.peers) {
            self.remember_refusal(env, hello);
            return Err(Refusal::Straggler);
        }
        let refused =
            |epoch| self.log.summary().has_refused(epoch) || self.epochs.refused.contains(&epoch);
        // Only an operator can lift a refusal, by moving the directory away.
        if theirs > own && past.epochs.iter().copied().chain(epoch_of(hello)).any(refused) {
            return Err(Refusal::Parted);
        }
        Ok(())
    }

    /// Returns whether this server may follow the epoch of a hello. It follows a later epoch only
    /// after its own epoch had no primary for the peer timeout. During an election, or just after
    /// a start, a healthy group looks like one without a primary. An uninitialized server does
    /// not wait, nor does a server that knows that no other server is in its own epoch.
    pub(crate) fn may_follow(&mut self, now: Moment, peers: &Peers, hello: &Hello) -> bool {
        if hello.term.epoch() <= self.ballot.term().epoch() {
            return true;
        }
        let since = *self.epochs.later.get_or_insert(now);
        self.log.config().is_none()
            || self.is_last_of_epoch(peers)
            || now >= since + self.peer_timeout()
    }

    /// Returns whether no other server can be in this server's epoch. Since this server started,
    /// each has reported a later epoch, or has no process. A refused connection proves the latter
    /// only with `last_survivor = "auto"`.
    fn is_last_of_epoch(&self, peers: &Peers) -> bool {
        let own = self.ballot.term().epoch();
        peers.iter().all(|peer| {
            let dead = self.shared.survivor_auto && peer.is_refused_unlinked();
            dead || peer.epoch.is_some_and(|epoch| epoch > own)
        })
    }

    /// Remembers the refusal of a later epoch. Each member must know it, since each may be alone
    /// later: the primary logs it, and a backup asks the primary to do so. A refusal by a backup
    /// alone does not count, since the backup's primary may have died a moment before.
    fn remember_refusal(&mut self, env: &mut Env<'_>, hello: &Hello) {
        let Some(epoch) = epoch_of(hello) else { return };
        if let Role::Follower(following) = &self.role
            && let Some(primary) = following.primary
            && let Some(link) = env.peers.link_to(primary)
        {
            env.out.send(link, Packet::Refuses(epoch));
        }
        self.remember_refused(env.now, env.peers, epoch);
    }

    /// As a primary that a majority answers, refuses an epoch permanently.
    pub(super) fn remember_refused(&mut self, now: Moment, peers: &Peers, epoch: Epoch) {
        let own = self.log.summary().epochs().any(|held| held == epoch);
        let refused = &self.epochs.refused;
        let known = own || refused.contains(&epoch) || refused.len() >= REFUSED_MAX;
        if !known && self.leads_majority(now, peers) {
            log::warn!("refused epoch {epoch}: this group continues without it");
            self.epochs.refused.push(epoch);
            self.dirty = true;
        }
    }

    /// As primary, logs the next refusal that is not in the log.
    pub(super) fn log_refusals(&mut self, env: &mut Env<'_>) {
        let able =
            !self.condition.is_stopping() && self.handover.is_none() && self.own_term_committed();
        if !able || self.log.summary().refusals() >= REFUSED_MAX {
            return;
        }
        let new = self.epochs.refused.iter().find(|epoch| !self.log.summary().has_refused(**epoch));
        if let Some(epoch) = new.copied() {
            self.note(Rule::LoggedRefusal);
            let term = self.ballot.term();
            self.log.append(term, env.wall, Kind::REFUSAL, |body| epoch.encode(body), env.out);
            self.dirty = true;
        }
    }

    /// Adopts the term of a hello: a higher term of the same epoch, or a later epoch.
    pub(crate) fn adopt_hello(&mut self, env: &mut Env<'_>, hello: &Hello, link: LinkId) {
        if hello.term.epoch() <= self.ballot.term().epoch() {
            return self.adopt(env, hello.term);
        }
        let number = hello.term.epoch();
        log::warn!("following epoch {number}, which server {} has begun", hello.from);
        self.note(Rule::EpochFollowed);
        self.epochs.later = None;
        self.step_down(env.peers, "there is a later epoch", env.out);
        let vote = Vote { term: hello.term, given: None, founder: hello.founder };
        self.ballot.set(vote, env.out);
        env.restate(Some(link));
    }

    /// Handles a conflict of this log, which is of an earlier epoch, with an entry of a later
    /// epoch's primary. Entries that the later epoch lacks are quarantined, never deleted.
    pub(super) fn leave_for_epoch(&mut self, record: &Record<'_>, out: &mut Out) {
        let before = self.log.summary().position(record.index.before());
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
        append.term.epoch() > self.last_position().term.epoch()
    }

    /// Continues alone, in a new epoch.
    pub(super) fn begin_epoch(&mut self, env: &mut Env<'_>) {
        let gate = self.log.config().is_some_and(|config| config.gate_open);
        let begin = Beginning::new(self.me, self.ballot.term(), self.last_position(), gate);
        self.step_down(env.peers, "this server continues alone", env.out);
        self.begin(env, begin);
    }

    /// Completes the beginning of this server's epoch after a crash that came when the vote was
    /// stored and the entry was not. Other servers may follow the epoch already, so this server
    /// can't abandon it. Only this directory's own files count: an old copy can receive epochs
    /// that its original began later.
    pub(super) fn complete_epoch(&mut self, env: &mut Env<'_>) {
        if !std::mem::take(&mut self.epochs.begun) {
            return;
        }
        let gate = self.log.config().is_some_and(|config| config.gate_open);
        let begin = Beginning::again(self.me, self.ballot.vote(), self.last_position(), gate);
        log::warn!("resuming epoch {}, which this server has begun", begin.term.epoch());
        self.note(Rule::EpochCompleted);
        self.begin(env, begin);
    }

    fn begin(&mut self, env: &mut Env<'_>, begin: Beginning) {
        self.append_config(begin.term, env.wall, begin.config, env.out);
        self.ballot.restate(begin.vote);
        env.restate(None);
        self.ask_for_votes(env, begin.vote.term.next());
    }
}
