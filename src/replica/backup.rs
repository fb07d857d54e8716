//! The follower: compares appends with its log, appends and overwrites entries, and acknowledges
//! those that are proved equal and durable.

use super::event::{Closing, Effect, Out};
use super::packet::{Append, Packet};
use super::past::Epoch;
use super::rules::Rule;
use super::{Config, Replica, Role};
use crate::ids::{Index, LinkId, Member};
use crate::record::{self, BadRecord, Kind, Record};
use crate::time::Moment;
use std::fmt;

/// A follower's knowledge of the primary. Members and learners follow in the same way.
#[derive(Clone, Debug, Default)]
pub(super) struct Following {
    pub(super) primary: Option<Member>,
    /// The highest index up to which this log is proved equal to the primary's in this term.
    matched: Index,
    /// The highest committed and acknowledged indexes that the primary has sent.
    told_committed: Index,
    told_acknowledged: Index,
    /// The primary's newest round, and the link on which an acknowledgement is due.
    round: u64,
    owed: Option<LinkId>,
}

/// Why the records of an append are not accepted.
enum BadEntries {
    Record(BadRecord),
    Order,
    Config,
    /// An entry that this version can't apply.
    Kind(Index, Kind),
    /// The records would overwrite entries up to this one, which are committed or proved equal.
    Fixed(Index),
}

impl fmt::Display for BadEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadEntries::Record(why) => why.fmt(f),
            BadEntries::Order => f.write_str("entries are out of order"),
            BadEntries::Config => f.write_str("a config or a refusal is unreadable"),
            BadEntries::Kind(index, Kind(kind)) => {
                write!(f, "entry {index} is of kind {kind}: a newer version of postern is needed")
            }
            BadEntries::Fixed(index) => {
                write!(f, "it overwrites entries up to {index}, which can't change any more")
            }
        }
    }
}

/// Checks that this version can store an entry of this kind. The bodies of changes are checked
/// when they are applied; an unreadable change has no effect.
fn check_kind(record: &Record<'_>) -> Result<(), BadEntries> {
    match record.kind {
        Kind::CONFIG if Config::decode(record.body).is_none() => Err(BadEntries::Config),
        Kind::REFUSAL if Epoch::decode(record.body).is_none() => Err(BadEntries::Config),
        kind if kind.is_known() => Ok(()),
        kind => Err(BadEntries::Kind(record.index, kind)),
    }
}

impl Replica {
    pub(super) fn on_append(
        &mut self,
        now: Moment,
        from: Member,
        link: LinkId,
        append: Append,
        records: &[u8],
        out: &mut Out,
    ) {
        if append.term < self.vote.term {
            return out.send(link, Packet::HigherTerm { term: self.vote.term });
        }
        self.adopt(append.term, out);
        if append.term != self.vote.term {
            return; // another epoch
        }
        let first_news = match &self.role {
            Role::Primary(_) => {
                log::error!(
                    "server {from} claims to be primary in term {}, as this server is",
                    append.term
                );
                return self.close_nonsense(now, link, out);
            }
            Role::Candidate(_) => true,
            Role::Follower(following) => following.primary != Some(from),
        };
        if first_news {
            log::info!("following server {from} in term {}", append.term);
            self.step_down("there is a primary", out);
            self.role = Role::Follower(Following { primary: Some(from), ..Following::default() });
        }
        if self.summary.term(append.prev.index) != Some(append.prev.term) {
            let hint = self.equal_at_most(append.prev.index);
            return out.send(link, Packet::AppendRejected { term: append.term, hint });
        }
        match self.take_entries(now, append, records, out) {
            Ok(Some(matched)) => self.note_progress(link, append, matched),
            Ok(None) => {} // the process is ending for a quarantine
            Err(why) => {
                if let BadEntries::Fixed(_) = why {
                    self.note(Rule::KeptCommitted);
                }
                log::error!("closed the link to server {from}: invalid append: {why}");
                self.close_nonsense(now, link, out);
            }
        }
    }

    /// Closes a link on which a packet arrived that no correct server sends there.
    pub(super) fn close_nonsense(&mut self, now: Moment, link: LinkId, out: &mut Out) {
        let at = self.peers.iter().position(|peer| peer.has_link(link));
        let at = at.expect("the packet came on this peer's link");
        self.lose_link(now, at, Some(Closing::Nonsense), out);
        let least = self.peer_timeout() / 2;
        self.peers[at].shun(now, least);
    }

    /// Returns the hint of a rejection, the next index to try when `prev` does not match. It is
    /// the end of this log, or the last entry before the term of the conflicting entry.
    fn equal_at_most(&self, prev: Index) -> Index {
        if prev > self.last() { self.last() } else { self.summary.before_term(prev) }
    }

    /// Appends new entries and overwrites conflicting ones. Returns the index up to which the
    /// logs are now proved equal, or `None` if this process ends for a quarantine.
    fn take_entries(
        &mut self,
        now: Moment,
        append: Append,
        records: &[u8],
        out: &mut Out,
    ) -> Result<Option<Index>, BadEntries> {
        // Entries that are committed, or proved equal to this primary's log, can't change.
        let fixed = match &self.role {
            Role::Follower(following) => self.committed.max(following.matched),
            _ => self.committed,
        };
        let mut matched = append.prev;
        let start = out.bytes.len();
        // Every log begins with the config that the formation wrote.
        let first = record::each(records).next().and_then(Result::ok);
        if append.prev.index == Index::ZERO && first.is_some_and(|r| r.kind != Kind::CONFIG) {
            return Err(BadEntries::Order);
        }
        // Checks all records before appending any.
        for record in record::each(records) {
            let record = record.map_err(BadEntries::Record)?;
            let follows = record.index == matched.index.next();
            if !follows || record.term < matched.term || record.term > append.term {
                return Err(BadEntries::Order);
            }
            if record.kind != Kind::MESSAGE {
                check_kind(&record)?;
            }
            if record.index <= fixed
                && self.summary.term(record.index) != Some(record.term)
                && !self.crosses_epoch(&append)
            {
                return Err(BadEntries::Fixed(fixed));
            }
            matched = record.position();
        }
        for record in record::each(records) {
            let record = record.expect("all were just checked");
            match self.summary.term(record.index) {
                Some(term) if term == record.term => continue,
                Some(_) if self.crosses_epoch(&append) => {
                    self.leave_for_epoch(&record, out);
                    return Ok(None);
                }
                Some(_) => self.cut_conflict(&record, start, out),
                None => {}
            }
            self.summary.push(&record).expect("its configs were just read");
            out.bytes.extend_from_slice(record.bytes);
            if record.kind == Kind::CONFIG {
                self.close_copies(now, out);
            }
        }
        let end = out.bytes.len();
        if end > start {
            out.push(Effect::Append(start..end));
        }
        Ok(Some(matched.index))
    }

    fn cut_conflict(&mut self, record: &Record<'_>, start: usize, out: &mut Out) {
        assert_eq!(out.bytes.len(), start, "a log conflicts only where it is older");
        let keep = record.index.before();
        assert!(
            keep >= self.committed,
            "told to overwrite entry {} although {} are committed",
            record.index,
            self.committed
        );
        self.note(Rule::ConflictCut);
        log::info!("cut entries {} to {}: they were never committed", record.index, self.last());
        self.summary.cut(keep);
        self.flushed = self.flushed.min(keep);
        self.stored = self.stored.min(keep);
        out.push(Effect::Cut(keep));
    }

    fn note_progress(&mut self, link: LinkId, append: Append, matched: Index) {
        let Role::Follower(following) = &mut self.role else { return };
        following.matched = following.matched.max(matched);
        following.told_committed = following.told_committed.max(append.committed);
        following.told_acknowledged = following.told_acknowledged.max(append.acknowledged);
        following.round = following.round.max(append.round);
        following.owed = Some(link);
        self.learn_committed();
        self.needs_tick = true;
    }

    fn learn_committed(&mut self) {
        let Role::Follower(following) = &self.role else { return };
        let equal = following.matched;
        self.committed = self.committed.max(following.told_committed.min(equal));
        // A backup never applies entries that are not durable on its own disk.
        let acknowledged = following.told_acknowledged.min(self.committed).min(self.stored);
        self.acknowledged = self.acknowledged.max(acknowledged);
        self.summary.settle(self.committed);
    }

    pub(super) fn tick_backup(&mut self, now: Moment, out: &mut Out) {
        if self.flushed < self.last() {
            self.flushed = self.last();
            self.syncs.begin(now);
            out.push(Effect::Flush);
        } else {
            self.acknowledge(out);
        }
    }

    /// Acknowledges received entries once they are durable.
    pub(super) fn acknowledge(&mut self, out: &mut Out) {
        self.learn_committed();
        let Role::Follower(following) = &mut self.role else { return };
        if self.vote_stored
            && let Some(link) = following.owed.take()
        {
            out.send(
                link,
                Packet::AppendAccepted {
                    term: self.vote.term,
                    stored: following.matched.min(self.stored),
                    round: following.round,
                },
            );
        }
    }
}
