//! Replication progress of one other server, as the primary sees it.

use super::LogReader;
use super::raft_log::RaftLog;
use crate::effect::{Effect, Out};
use crate::ids::{Index, LinkId, Member, ProcessId, Term};
use crate::limits::{APPENDS_IN_FLIGHT_MAX, ENTRIES_BYTES_MAX};
use crate::packet::{Append, Packet};
use crate::time::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// An append that is not acknowledged.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    /// Its last entry; for an append without entries, `prev`.
    last: Index,
    sent: Moment,
    /// No entry after `last` was committed when it was sent.
    complete: bool,
}

/// How appends are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The primary is still searching for the last equal entry, with one append in flight at a
    /// time.
    Probe,
    /// Appends are in flight up to a window.
    Replicate,
}

/// Replication progress of one other server. Valid for the primary's own term only.
///
/// Invariant: `match_index < next`. In `Probe`, at most one append is in flight.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) member: Member,
    /// The process that acknowledged last. An earlier process of the same disk stored no more
    /// than this one has.
    pub(super) process: Option<ProcessId>,
    /// The highest acknowledged index: proved equal, and durable on the server's disk. It never
    /// decreases.
    pub(super) match_index: Index,
    /// The next entry to send.
    next: Index,
    state: State,
    /// Appends that the server has not acknowledged, oldest first.
    in_flight: VecDeque<InFlight>,
    /// Since when the server has acknowledged nothing on earlier links: a new link alone does not
    /// prove health.
    waited: Option<Moment>,
    /// An entry that the server needs could not be read: the primary sends it nothing until then.
    pub(super) blocked: Option<Moment>,
    /// The newest round that the server has answered, and the newest that was sent to it.
    pub(super) round: u64,
    round_sent: u64,
    /// The committed and acknowledged indexes last sent to it; `None` when they must be sent
    /// again.
    pub(super) sent_indexes: Option<(Index, Index)>,
    /// The server has stored every entry that was committed when the append that it last
    /// acknowledged was sent.
    pub(super) caught_up: bool,
}

/// What the primary sends appends from.
pub(super) struct Source<'a> {
    pub(super) log: &'a RaftLog,
    pub(super) reader: &'a dyn LogReader,
    pub(super) term: Term,
    /// The newest round of reads.
    pub(super) round: u64,
}

impl Source<'_> {
    fn append(&self, next: Index) -> Append {
        Append {
            term: self.term,
            prev: self.log.summary().position(next.before()),
            committed: self.log.committed_since_start(),
            acknowledged: self.log.acknowledged(),
            round: self.round,
        }
    }
}

impl Progress {
    pub(super) fn new(member: Member, next: Index) -> Progress {
        Progress {
            member,
            process: None,
            match_index: Index::ZERO,
            next,
            state: State::Probe,
            in_flight: VecDeque::new(),
            waited: None,
            blocked: None,
            round: 0,
            round_sent: 0,
            sent_indexes: None,
            caught_up: false,
        }
    }

    /// Returns since when the oldest unacknowledged append waits.
    pub(super) fn waits_since(&self) -> Option<Moment> {
        self.waited.or(self.in_flight.front().map(|append| append.sent))
    }

    /// Starts again on a new link; earlier acknowledgements stay valid. If the wait has lasted
    /// for `patience`, it starts again as well.
    pub(super) fn restart(&mut self, next: Index, now: Moment, patience: Duration) {
        self.waited = self.waits_since().filter(|since| now < *since + patience);
        self.next = if self.match_index > Index::ZERO { self.match_index.next() } else { next };
        self.state = State::Probe;
        self.in_flight.clear();
        self.sent_indexes = None;
        self.caught_up = false;
    }

    /// Sends the entries up to `limit` as far as the window allows. Sends an append without
    /// entries when only a probe, a round or the indexes are due.
    pub(super) fn send(
        &mut self,
        now: Moment,
        link: LinkId,
        limit: Index,
        source: &Source<'_>,
        out: &mut Out,
    ) {
        let window = if self.state == State::Probe { 1 } else { APPENDS_IN_FLIGHT_MAX };
        let committed = source.log.committed();
        let mut sent = false;
        while self.next <= limit && self.in_flight.len() < window {
            let first = self.next;
            let last = source.reader.last_within(first, limit, ENTRIES_BYTES_MAX);
            out.push(Effect::SendEntries { link, append: source.append(first), first, last });
            self.in_flight.push_back(InFlight { last, sent: now, complete: last >= committed });
            self.next = last.next();
            sent = true;
        }
        let probe = self.state == State::Probe && self.in_flight.is_empty();
        let owes_round = self.round_sent < source.round;
        if !sent && (probe || owes_round || self.sent_indexes.is_none()) {
            let append = source.append(self.next);
            out.send(link, Packet::Append(append));
            if probe {
                let last = append.prev.index;
                self.in_flight.push_back(InFlight { last, sent: now, complete: last >= committed });
            }
            sent = true;
        }
        if sent {
            self.round_sent = source.round;
            self.sent_indexes = Some((committed, source.log.acknowledged()));
        }
    }

    /// Records that the server's log is durable, and equal to the primary's, up to `stored`.
    pub(super) fn on_accepted(&mut self, stored: Index, round: u64, committed: Index) {
        self.match_index = self.match_index.max(stored);
        self.next = self.next.max(stored.next());
        self.round = self.round.max(round);
        self.caught_up = stored >= committed;
        while let Some(append) = self.in_flight.front().filter(|append| append.last <= stored) {
            self.caught_up |= append.complete;
            self.waited = None;
            self.in_flight.pop_front();
            self.state = State::Replicate;
        }
    }

    /// Continues the search for the last equal entry at `hint`.
    pub(super) fn on_rejected(&mut self, hint: Index) {
        let lowest = self.match_index.next();
        self.next = self.next.before().min(hint.next()).max(lowest);
        self.state = State::Probe;
        self.in_flight.clear();
    }
}
