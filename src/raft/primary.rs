//! The primary: orders and sends entries, counts which are stored, commits them, and reports
//! which are acknowledged.

use super::membership::Losses;
use super::progress::{Progress, Source};
use super::{Env, LogReader, Raft, Role, Timer};
use crate::effect::Out;
use crate::ids::{Index, LinkId, Member, Term};
use crate::limits::BATCH_TIME;
use crate::packet::Hello;
use crate::peers::Peers;
use crate::rules::Rule;
use crate::time::Moment;

/// The rounds in which the primary asks whether it still leads (ReadIndex, Ongaro §6.4).
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    newest: u64,
    /// A read waits for a round that has not begun.
    asked: bool,
    /// The newest round that a majority has answered.
    confirmed: u64,
}

/// The state of a primary.
#[derive(Clone, Debug)]
pub(crate) struct Primary {
    pub(super) since: Moment,
    /// The first entry of the primary's own term. Older entries are committed only together with
    /// it.
    pub(super) term_start: Index,
    progress: Vec<Progress>,
    /// When the last batch began.
    flushed_at: Moment,
    rounds: Rounds,
    pub(super) losses: Losses,
}

/// The most servers whose progress a primary remembers. A group exceeds it only when disks are
/// lost again and again within one term.
const REMEMBERED_MAX: usize = 16;

impl Primary {
    pub(super) fn progress(&self, member: Member) -> Option<&Progress> {
        self.progress.iter().find(|progress| progress.member == member)
    }

    pub(super) fn progress_mut(&mut self, member: Member) -> Option<&mut Progress> {
        self.progress.iter_mut().find(|progress| progress.member == member)
    }

    /// Returns the highest index that the server has acknowledged.
    pub(crate) fn match_index(&self, member: Member) -> Index {
        self.progress(member).map_or(Index::ZERO, |progress| progress.match_index)
    }

    /// Returns the progress of `member`, a new one if there is none. Then a server that does not
    /// satisfy `stays` is forgotten if too many are remembered.
    fn remember(&mut self, member: Member, stays: impl Fn(Member) -> bool) -> &mut Progress {
        let at = self.progress.iter().position(|progress| progress.member == member);
        let at = at.unwrap_or_else(|| {
            if self.progress.len() >= REMEMBERED_MAX {
                let surplus = self.progress.iter().position(|known| !stays(known.member));
                self.progress.remove(surplus.unwrap_or(0));
            }
            self.progress.push(Progress::new(member, self.term_start));
            self.progress.len() - 1
        });
        &mut self.progress[at]
    }
}

impl Raft {
    pub(super) fn become_primary(&mut self, env: &mut Env<'_>) {
        let (term, given) = (self.ballot.term(), self.ballot.vote().given);
        assert!(self.ballot.is_durable() && given == Some(self.me), "elected with a stored vote");
        log::info!("elected primary in term {term}");
        self.note(Rule::Elected);
        self.handover = None;
        self.promise.is_withheld = false;
        self.role = Role::Primary(Primary {
            since: env.now,
            term_start: self.log.last().next(),
            progress: Vec::new(),
            flushed_at: env.now,
            rounds: Rounds::default(),
            losses: Losses::default(),
        });
        self.election.lost = 0;
        self.timers.clear(Timer::Round);
        self.timers.clear(Timer::Campaign);
        let config = self.log.config().expect("an elected server has a config").restated();
        self.append_config(term, env.wall, config, env.out);
        for (member, _) in env.peers.linked() {
            self.restart_progress(env.now, env.peers, member);
        }
        self.dirty = true;
    }

    /// On a primary: starts again to send entries to a server, on its new link.
    pub(super) fn restart_progress(&mut self, now: Moment, peers: &Peers, to: Member) {
        let patience = self.peer_timeout();
        let Role::Primary(primary) = &mut self.role else { return };
        let config = self.log.config();
        let stays = |member: Member| {
            config.is_some_and(|config| config.has(member)) || peers.link_to(member).is_some()
        };
        let next = primary.term_start;
        let progress = primary.remember(to, stays);
        progress.restart(next, now, patience);
        progress.process = peers.run_of(to).map(|run| run.process);
    }

    /// Requests a round of reads and returns its number. Returns `None` if this server is not
    /// primary.
    pub(crate) fn read_index(&mut self) -> Option<u64> {
        let Role::Primary(primary) = &mut self.role else { return None };
        primary.rounds.asked = true;
        Some(primary.rounds.newest + 1)
    }

    /// Returns the newest round in which a majority confirmed that this server is still primary.
    /// Returns `None` until an entry of its own term is acknowledged.
    pub(crate) fn confirmed_read(&self) -> Option<u64> {
        match &self.role {
            Role::Primary(primary) if self.log.acknowledged() >= primary.term_start => {
                Some(primary.rounds.confirmed)
            }
            _ => None,
        }
    }

    /// Sends the committed and acknowledged indexes to a server again: it has not noticed that
    /// this server is primary.
    pub(super) fn tell_again(&mut self, member: Member) {
        if let Role::Primary(primary) = &mut self.role
            && let Some(progress) = primary.progress_mut(member)
        {
            progress.sent_indexes = None;
            self.dirty = true;
        }
    }

    /// Makes the next append report the newest indexes to backups that lack them. Otherwise
    /// backups learn them only with the next entries.
    pub(crate) fn refresh_indexes(&mut self) {
        let newest = Some((self.log.committed(), self.log.acknowledged()));
        if let Role::Primary(primary) = &mut self.role {
            let lacking = |progress: &&mut Progress| progress.sent_indexes != newest;
            primary.progress.iter_mut().filter(lacking).for_each(|p| p.sent_indexes = None);
        }
    }

    pub(super) fn tick_primary(&mut self, env: &mut Env<'_>, log: &dyn LogReader) {
        self.advance();
        self.tick_handover(env);
        self.change_members(env);
        self.log_refusals(env);
        self.send_all(env, log);
    }

    /// Begins a batch when it is due, and sends the entries that each server lacks.
    pub(super) fn send_all(&mut self, env: &mut Env<'_>, log: &dyn LogReader) {
        let Role::Primary(primary) = &mut self.role else { return }; // it may have stepped down
        if std::mem::take(&mut primary.rounds.asked) {
            primary.rounds.newest += 1;
        }
        self.timers.clear(Timer::Batch);
        if self.log.has_unflushed() {
            let due = primary.flushed_at + BATCH_TIME;
            let config = self.log.summary().config();
            let urgent = config.is_some_and(|(index, _)| index > self.log.flushed());
            let idle = self.log.acknowledged() >= self.log.flushed();
            if urgent || idle || env.now >= due {
                primary.flushed_at = env.now;
                self.condition.sync_began = Some(env.now);
                self.log.flush(env.out);
            } else {
                self.timers.set(Timer::Batch, due);
            }
        }
        for (member, link) in env.peers.linked() {
            self.send_to((env.now, member, link), log, env.out);
        }
        self.advance();
    }

    fn send_to(
        &mut self,
        (now, member, link): (Moment, Member, LinkId),
        reader: &dyn LogReader,
        out: &mut Out,
    ) {
        let peer_timeout = self.peer_timeout();
        let Role::Primary(primary) = &mut self.role else { return };
        let (round, start) = (primary.rounds.newest, primary.term_start);
        let Some(progress) = primary.progress_mut(member) else { return };
        if progress.blocked > Some(now) {
            return;
        }
        // A server that stores nothing is dropped after one peer timeout. After two, its
        // unacknowledged appends may never have arrived, so they are sent again.
        if progress.waits_since().is_some_and(|since| now >= since + peer_timeout * 2) {
            progress.restart(start, now, peer_timeout);
        }
        // Learners receive committed entries only: a learner that rejoins must not bring back an
        // entry that the members have overwritten.
        let is_member = self.log.config().is_some_and(|config| config.has(member));
        let flushed = self.log.flushed();
        let limit = if is_member { flushed } else { self.log.committed().min(flushed) };
        let source = Source { log: &self.log, reader, term: self.ballot.term(), round };
        progress.send(now, link, limit, &source, out);
    }

    pub(super) fn on_append_accepted(
        &mut self,
        env: &mut Env<'_>,
        from: Member,
        term: Term,
        stored: Index,
        round: u64,
    ) {
        if term > self.ballot.term() {
            return self.adopt(env, term);
        }
        let Role::Primary(primary) = &mut self.role else { return };
        if term < self.ballot.term() || stored > self.log.last() {
            return; // from an earlier term, or invalid
        }
        if let Some(progress) = primary.progress_mut(from) {
            progress.on_accepted(stored, round, self.log.committed());
            self.dirty = true;
        }
    }

    pub(super) fn on_append_rejected(&mut self, from: Member, term: Term, hint: Index) {
        let Role::Primary(primary) = &mut self.role else { return };
        if term != self.ballot.term() {
            return;
        }
        if let Some(progress) = primary.progress_mut(from) {
            progress.on_rejected(hint.min(self.log.last()));
            self.dirty = true;
        }
    }

    /// Advances the committed and acknowledged indexes as far as the stored entries allow, and
    /// confirms rounds.
    pub(super) fn advance(&mut self) {
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(config) = self.log.config().copied() else { return };
        let me = self.me;
        let own = self.log.stored();
        let stored = |member| if member == me { own } else { primary.match_index(member) };
        let by_all = config.members().map(stored).min().unwrap_or_default();
        let by_majority = config.reached_by_majority(stored);
        // Entries of earlier terms are committed only together with one of the primary's own term
        // (Raft §5.4.2).
        if by_majority >= primary.term_start {
            self.dirty |= self.log.commit(by_majority);
        }
        if self.log.committed() >= primary.term_start {
            self.dirty |= self.log.acknowledge(by_all.min(self.log.committed()));
        }
        let newest = primary.rounds.newest;
        let round = |member| {
            if member == me { newest } else { primary.progress(member).map_or(0, |p| p.round) }
        };
        let confirmed = config.reached_by_majority(round);
        primary.rounds.confirmed = primary.rounds.confirmed.max(confirmed);
    }

    /// Returns whether a majority of the members is recently active.
    pub(super) fn is_majority_active(&self, now: Moment, peers: &Peers) -> bool {
        self.makes_majority(|member| peers.is_active(member, now))
    }

    /// Returns whether this server and the other members that satisfy `is_so` are a majority of
    /// the newest config.
    pub(super) fn makes_majority(&self, is_so: impl Fn(Member) -> bool) -> bool {
        self.log.config().is_some_and(|config| {
            config.count_of(|member| member == self.me || is_so(member)) >= config.majority()
        })
    }

    /// Returns whether this server is a primary that a majority answers.
    pub(crate) fn leads_majority(&self, now: Moment, peers: &Peers) -> bool {
        self.is_primary() && self.is_majority_active(now, peers)
    }

    /// Returns whether the log in a hello lacks entries that the same disk has acknowledged to
    /// this primary.
    pub(crate) fn has_forgotten(&self, hello: &Hello) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        let Some(known) = primary.progress(hello.from) else { return false };
        // A hello may have been in flight for a long time. If the same process sent it, the
        // entries that the process acknowledged since then are not lost.
        hello.term <= self.ballot.term()
            && known.process != Some(hello.run.process)
            && hello.last < self.log.summary().position(known.match_index)
    }

    /// Records that entries for this link can't be read. This server does not retry for the peer
    /// timeout, and hands over to a server that may be able to read them.
    pub(crate) fn note_unsent(&mut self, now: Moment, peers: &mut Peers, link: LinkId) {
        let until = now + self.peer_timeout();
        if let (Role::Primary(primary), Some(member)) = (&mut self.role, peers.member_on(link))
            && let Some(progress) = primary.progress_mut(member)
        {
            progress.blocked = Some(until);
        }
        self.leave_damaged(now, peers);
    }
}
