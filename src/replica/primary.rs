//! The primary: orders and sends entries, counts which are stored, commits them, and reports
//! which are acknowledged.

use super::event::{Effect, LogReader, Out};
use super::members::reached_by_majority;
use super::packet::{Append, Packet};
use super::rules::Rule;
use super::{Config, Replica, Role, Timer};
use crate::ids::{Index, LinkId, Member, ProcessId, ServerId, Term};
use crate::limits::{
    BATCH_TIME, ENTRIES_BYTES_MAX, PENALTY_TIME, PENALTY_WINDOW, PIECES_IN_FLIGHT_MAX,
};
use crate::time::{Moment, WallTime};
use std::collections::VecDeque;
use std::time::Duration;

/// Replication progress of one other server. Valid for the primary's own term only.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) member: Member,
    /// The process that acknowledged last. An earlier process of the same disk stored no more
    /// than this one has.
    pub(super) process: Option<ProcessId>,
    /// The highest acknowledged index: proved equal, and durable on the server's disk. It never
    /// decreases.
    pub(super) stored: Index,
    /// The next entry to send.
    next: Index,
    /// The primary is still searching for the last equal entry, with one append in flight at a
    /// time.
    probing: bool,
    /// Appends that the server has not acknowledged, oldest first.
    in_flight: VecDeque<InFlight>,
    /// Since when the server has acknowledged nothing on earlier links: a new link alone does not
    /// prove health.
    waited: Option<Moment>,
    /// An entry that the server needs could not be read: the primary sends it nothing until then.
    pub(super) blocked: Option<Moment>,
    /// The newest round that the server has answered, and the newest that was sent to it.
    round: u64,
    round_sent: u64,
    /// The committed and acknowledged indexes last sent to it; `None` when they must be sent
    /// again.
    told: Option<(Index, Index)>,
    /// The server has stored every entry that was committed when the append that it last
    /// acknowledged was sent.
    pub(super) caught_up: bool,
}

/// An append that is not acknowledged.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    /// Its last entry; for an append without entries, `prev`.
    last: Index,
    sent: Moment,
    /// No entry after `last` was committed when it was sent.
    complete: bool,
}

/// The state of a primary.
#[derive(Clone, Debug)]
pub(super) struct Primary {
    pub(super) since: Moment,
    /// The first entry of the primary's own term. Older entries are committed only together with
    /// it.
    pub(super) term_start: Index,
    progress: Vec<Progress>,
    /// When the last batch began.
    flushed_at: Moment,
    round: u64,
    round_asked: bool,
    pub(super) confirmed: u64,
    /// Per id, when the member was first found lost.
    pub(super) lost_at: [Option<Moment>; 3],
    pub(super) has_loss: bool,
    /// Recent drops of members that had not announced a stop.
    pub(super) drops: Vec<(ServerId, Moment)>,
}

/// The most servers whose progress a primary remembers. A group exceeds it only when disks are
/// lost again and again within one term.
pub(super) const REMEMBERED_MAX: usize = 16;

impl Primary {
    pub(super) fn progress(&self, member: Member) -> Option<&Progress> {
        self.progress.iter().find(|progress| progress.member == member)
    }

    pub(super) fn progress_mut(&mut self, member: Member) -> Option<&mut Progress> {
        self.progress.iter_mut().find(|progress| progress.member == member)
    }

    pub(super) fn read_index(&mut self) -> u64 {
        self.round_asked = true;
        self.round + 1
    }

    /// Records the drop of a member that had not announced a stop.
    pub(super) fn note_drop(&mut self, id: ServerId, now: Moment) {
        self.drops.retain(|(_, at)| now < *at + PENALTY_WINDOW + PENALTY_TIME);
        self.drops.push((id, now));
    }

    fn remember(
        &mut self,
        member: Member,
        next: Index,
        stays: impl Fn(Member) -> bool,
    ) -> &mut Progress {
        let at = self.progress.iter().position(|progress| progress.member == member);
        let at = at.unwrap_or_else(|| {
            if self.progress.len() >= REMEMBERED_MAX {
                // Forget a server that is neither a member nor linked, if there is one.
                let strange = |known: &Progress| !stays(known.member);
                let gone = self.progress.iter().position(strange).unwrap_or(0);
                self.progress.remove(gone);
            }
            self.progress.push(Progress {
                member,
                process: None,
                stored: Index::ZERO,
                next,
                probing: true,
                in_flight: VecDeque::new(),
                waited: None,
                blocked: None,
                round: 0,
                round_sent: 0,
                told: None,
                caught_up: false,
            });
            self.progress.len() - 1
        });
        &mut self.progress[at]
    }
}

impl Progress {
    /// Returns since when the oldest unacknowledged append waits.
    pub(super) fn waits_since(&self) -> Option<Moment> {
        self.waited.or(self.in_flight.front().map(|piece| piece.sent))
    }

    /// Starts again on a new link; earlier acknowledgements stay valid. If the wait has lasted
    /// for `patience`, it starts again as well.
    fn reset(&mut self, next: Index, now: Moment, patience: Duration) {
        self.waited = self.waits_since().filter(|since| now < *since + patience);
        self.next = if self.stored > Index::ZERO { self.stored.next() } else { next };
        self.probing = true;
        self.in_flight.clear();
        self.told = None;
        self.caught_up = false;
    }
}

impl Replica {
    pub(super) fn become_primary(&mut self, now: Moment, wall: WallTime, out: &mut Out) {
        assert!(self.vote_stored && self.vote.given == Some(self.me), "elected with a stored vote");
        log::info!("elected primary in term {}", self.vote.term);
        self.note(Rule::Elected);
        self.handover = None;
        self.withholds = false;
        let next = self.last().next();
        self.role = Role::Primary(Primary {
            since: now,
            term_start: next,
            progress: Vec::new(),
            flushed_at: now,
            round: 0,
            round_asked: false,
            confirmed: 0,
            lost_at: [None; 3],
            has_loss: false,
            drops: Vec::new(),
        });
        self.election.lost = 0;
        self.timers.clear(Timer::Round);
        self.timers.clear(Timer::Campaign);
        let config = self.config().expect("who is elected has a config").restated();
        self.append_config(self.vote.term, wall, config, out);
        let links = self.peers.iter().filter_map(|peer| peer.link.as_ref());
        let linked: Vec<(Member, ProcessId)> = links.map(|l| (l.member, l.process)).collect();
        for (member, process) in linked {
            self.on_linked(now, member, process);
        }
        self.needs_tick = true;
    }

    pub(super) fn on_linked(&mut self, now: Moment, member: Member, process: ProcessId) {
        let peer_timeout = self.peer_timeout();
        let config = self.summary.config().map(|(_, config)| *config);
        let peers = &self.peers;
        let stays = |member: Member| {
            config.is_some_and(|config| config.has(member))
                || peers.iter().any(|peer| peer.is_linked(member))
        };
        if let Role::Primary(primary) = &mut self.role {
            let next = primary.term_start;
            let progress = primary.remember(member, next, stays);
            progress.reset(next, now, peer_timeout);
            progress.process = Some(process);
        }
    }

    /// Sends the committed and acknowledged indexes to a server again: it has not noticed that
    /// this server is primary.
    pub(super) fn tell_again(&mut self, member: Member) {
        if let Role::Primary(primary) = &mut self.role
            && let Some(progress) = primary.progress_mut(member)
        {
            progress.told = None;
            self.needs_tick = true;
        }
    }

    /// Makes the next append report the newest indexes to backups that lack them. Otherwise
    /// backups learn them only with the next entries.
    pub(super) fn refresh_told(&mut self) {
        let now_true = Some((self.committed, self.acknowledged));
        if let Role::Primary(primary) = &mut self.role {
            for progress in &mut primary.progress {
                if progress.told != now_true {
                    progress.told = None;
                }
            }
        }
    }

    pub(super) fn tick_primary(
        &mut self,
        now: Moment,
        wall: WallTime,
        log: &dyn LogReader,
        out: &mut Out,
    ) {
        self.advance();
        self.tick_handover(now, out);
        self.change_members(now, wall, out);
        self.log_refusals(wall, out);
        self.send_all(now, log, out);
    }

    /// Begins a batch when it is due, and sends the entries that each server lacks.
    pub(super) fn send_all(&mut self, now: Moment, log: &dyn LogReader, out: &mut Out) {
        let urgent = self.summary.config().is_some_and(|(index, _)| index > self.flushed);
        let Role::Primary(primary) = &mut self.role else { return }; // it may have stepped down
        if primary.round_asked {
            primary.round_asked = false;
            primary.round += 1;
        }
        self.timers.clear(Timer::Batch);
        if self.flushed < self.summary.last().index {
            let due = primary.flushed_at + BATCH_TIME;
            if urgent || self.acknowledged >= self.flushed || now >= due {
                primary.flushed_at = now;
                self.flushed = self.summary.last().index;
                self.syncs.begin(now);
                out.push(Effect::Flush);
            } else {
                self.timers.set(Timer::Batch, due);
            }
        }
        let links: Vec<(Member, LinkId)> = self
            .peers
            .iter()
            .filter_map(|peer| peer.link.as_ref().map(|link| (link.member, link.id)))
            .collect();
        for (member, link) in links {
            self.send_to(now, member, link, log, out);
        }
        self.advance();
    }

    fn send_to(
        &mut self,
        now: Moment,
        member: Member,
        link: LinkId,
        log: &dyn LogReader,
        out: &mut Out,
    ) {
        let is_member = self.config().is_some_and(|config| config.has(member));
        let peer_timeout = self.peer_timeout();
        let Role::Primary(primary) = &mut self.role else { return };
        let (round, term) = (primary.round, self.vote.term);
        let (start, patience) = (primary.term_start, peer_timeout * 2);
        let Some(progress) = primary.progress_mut(member) else { return };
        if progress.blocked > Some(now) {
            return;
        }
        // A server that stores nothing is dropped after one peer timeout. After two, its
        // unacknowledged appends may never have arrived, so they are sent again.
        if progress.waits_since().is_some_and(|since| now >= since + patience) {
            progress.reset(start, now, peer_timeout);
        }
        // Learners receive committed entries only: a learner that rejoins must not bring back an
        // entry that the members have overwritten.
        let limit = if is_member { self.flushed } else { self.committed.min(self.flushed) };
        let allowed = if progress.probing { 1 } else { PIECES_IN_FLIGHT_MAX };
        let (committed, acknowledged) = (self.committed, self.acknowledged);
        let summary = &self.summary;
        let head = |next: Index| {
            let prev = summary.position(next.before());
            Append { term, prev, committed, acknowledged, round }
        };
        let mut sent = false;
        while progress.next <= limit && progress.in_flight.len() < allowed {
            let first = progress.next;
            let last = log.last_within(first, limit, ENTRIES_BYTES_MAX);
            out.push(Effect::SendEntries { link, append: head(first), first, last });
            progress.in_flight.push_back(InFlight { last, sent: now, complete: last >= committed });
            progress.next = last.next();
            sent = true;
        }
        let probe = progress.probing && progress.in_flight.is_empty();
        let owes_round = progress.round_sent < round;
        if !sent && (probe || owes_round || progress.told.is_none()) {
            let append = head(progress.next);
            out.send(link, Packet::Append(append));
            if probe {
                let last = append.prev.index;
                progress.in_flight.push_back(InFlight {
                    last,
                    sent: now,
                    complete: last >= committed,
                });
            }
            sent = true;
        }
        if sent {
            progress.round_sent = round;
            progress.told = Some((committed, acknowledged));
        }
    }

    pub(super) fn on_acknowledged(
        &mut self,
        from: Member,
        term: Term,
        stored: Index,
        round: u64,
        out: &mut Out,
    ) {
        if term > self.vote.term {
            return self.adopt(term, out);
        }
        let last = self.last();
        let committed = self.committed;
        let Role::Primary(primary) = &mut self.role else { return };
        if term < self.vote.term || stored > last {
            return; // from an earlier term, or invalid
        }
        let Some(progress) = primary.progress_mut(from) else { return };
        progress.stored = progress.stored.max(stored);
        progress.next = progress.next.max(stored.next());
        progress.round = progress.round.max(round);
        progress.caught_up = stored >= committed;
        while let Some(piece) = progress.in_flight.front().filter(|piece| piece.last <= stored) {
            progress.caught_up |= piece.complete;
            progress.waited = None;
            progress.in_flight.pop_front();
            progress.probing = false;
        }
        self.needs_tick = true;
    }

    pub(super) fn on_append_rejected(&mut self, from: Member, term: Term, hint: Index) {
        let hint = hint.min(self.last());
        let Role::Primary(primary) = &mut self.role else { return };
        if term != self.vote.term {
            return;
        }
        let Some(progress) = primary.progress_mut(from) else { return };
        let lowest = progress.stored.next();
        progress.next = progress.next.before().min(hint.next()).max(lowest);
        progress.probing = true;
        progress.in_flight.clear();
        self.needs_tick = true;
    }

    /// Advances the committed and acknowledged indexes as far as the stored entries allow, and
    /// confirms rounds.
    pub(super) fn advance(&mut self) {
        let Some((_, config)) = self.summary.config() else { return };
        let Role::Primary(primary) = &mut self.role else { return };
        let me = self.me;
        let mut stored = marks(config, |member| {
            if member == me {
                self.stored
            } else {
                primary.progress(member).map_or(Index::ZERO, |progress| progress.stored)
            }
        });
        let by_all = stored.iter().min().copied().unwrap_or_default();
        let by_majority = reached_by_majority(&mut stored).unwrap_or_default();
        // Entries of earlier terms are committed only together with one of the primary's own term
        // (Raft §5.4.2).
        if by_majority >= primary.term_start && by_majority > self.committed {
            self.committed = by_majority;
            self.needs_tick = true;
        }
        let acknowledged = by_all.min(self.committed);
        if self.committed >= primary.term_start && acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.needs_tick = true;
        }
        let mut rounds = marks(config, |member| {
            if member == me {
                primary.round
            } else {
                primary.progress(member).map_or(0, |progress| progress.round)
            }
        });
        primary.confirmed = primary.confirmed.max(reached_by_majority(&mut rounds).unwrap_or(0));
        let committed = self.committed;
        self.summary.settle(committed);
    }

    pub(super) fn hears_majority(&self, now: Moment) -> bool {
        let Some(config) = self.config() else { return false };
        let heard = config.members().filter(|m| *m == self.me || self.hears(*m, now)).count();
        heard >= config.majority()
    }
}

fn marks<T>(config: &Config, mark: impl FnMut(Member) -> T) -> Vec<T> {
    config.members().map(mark).collect()
}
