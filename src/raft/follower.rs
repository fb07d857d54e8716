//! The follower: compares appends with its log, appends and overwrites entries, and acknowledges
//! those that are proved equal and durable.

use super::raft_log::RaftLog;
use super::{Env, Raft, Role};
use crate::config::Config;
use crate::effect::{Effect, Out};
use crate::ids::{Index, LinkId, Member};
use crate::packet::{Append, Epoch, Packet};
use crate::record::{self, BadRecord, Kind, Record};
use crate::rules::Rule;
use std::fmt;

/// A follower's knowledge of the primary. Members and learners follow in the same way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Following {
    pub(crate) primary: Option<Member>,
    /// The highest index up to which this log is proved equal to the primary's in this term.
    match_index: Index,
    /// The highest committed and acknowledged indexes that the primary has sent.
    sent_committed: Index,
    sent_acknowledged: Index,
    /// The primary's newest round, and the link on which an acknowledgement is due.
    round: u64,
    owed: Option<LinkId>,
}

impl Following {
    /// Records what an append has proved: the logs are equal up to `matched`.
    fn note(&mut self, link: LinkId, append: &Append, matched: Index) {
        self.match_index = self.match_index.max(matched);
        self.sent_committed = self.sent_committed.max(append.committed);
        self.sent_acknowledged = self.sent_acknowledged.max(append.acknowledged);
        self.round = self.round.max(append.round);
        self.owed = Some(link);
    }

    /// Raises the indexes of the log as far as the primary's appends allow.
    fn apply_to(&self, log: &mut RaftLog) {
        log.commit(self.sent_committed.min(self.match_index));
        // A backup never applies entries that are not durable on its own disk.
        log.acknowledge(self.sent_acknowledged.min(log.committed()).min(log.stored()));
    }
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

impl Raft {
    pub(super) fn on_append(
        &mut self,
        env: &mut Env<'_>,
        (from, link): (Member, LinkId),
        append: Append,
        records: &[u8],
    ) {
        if append.term < self.ballot.term() {
            return env.out.send(link, Packet::HigherTerm { term: self.ballot.term() });
        }
        self.adopt(env, append.term);
        if append.term != self.ballot.term() {
            return; // another epoch
        }
        let first_news = match &self.role {
            Role::Primary(_) => {
                log::error!(
                    "server {from} claims to be primary in term {}, as this server is",
                    append.term
                );
                return env.peers.close_nonsense(env.now, link, env.out);
            }
            Role::Candidate(_) => true,
            Role::Follower(following) => following.primary != Some(from),
        };
        if first_news {
            log::info!("following server {from} in term {}", append.term);
            self.step_down(env.peers, "there is a primary", env.out);
            self.role = Role::Follower(Following { primary: Some(from), ..Following::default() });
        }
        if self.log.summary().term(append.prev.index) != Some(append.prev.term) {
            let hint = self.equal_at_most(append.prev.index);
            return env.out.send(link, Packet::AppendRejected { term: append.term, hint });
        }
        match self.accept_entries(env, append, records) {
            Ok(Some(matched)) => {
                if let Role::Follower(following) = &mut self.role {
                    following.note(link, &append, matched);
                    following.apply_to(&mut self.log);
                    self.dirty = true;
                }
            }
            Ok(None) => {} // the process is ending for a quarantine
            Err(why) => {
                if let BadEntries::Fixed(_) = why {
                    self.note(Rule::KeptCommitted);
                }
                log::error!("closed the link to server {from}: invalid append: {why}");
                env.peers.close_nonsense(env.now, link, env.out);
            }
        }
    }

    /// Returns the hint of a rejection, the next index to try when `prev` does not match. It is
    /// the end of this log, or the last entry before the term of the conflicting entry.
    fn equal_at_most(&self, prev: Index) -> Index {
        if prev > self.log.last() { self.log.last() } else { self.log.summary().before_term(prev) }
    }

    /// Checks the records of an append, before any of them is accepted.
    fn check_entries(&self, append: &Append, records: &[u8]) -> Result<Index, BadEntries> {
        // Entries that are committed, or proved equal to this primary's log, can't change.
        let fixed = match &self.role {
            Role::Follower(following) => self.log.committed().max(following.match_index),
            _ => self.log.committed(),
        };
        // Every log begins with the config that the formation wrote.
        let first = record::each(records).next().and_then(Result::ok);
        if append.prev.index == Index::ZERO && first.is_some_and(|r| r.kind != Kind::CONFIG) {
            return Err(BadEntries::Order);
        }
        let mut matched = append.prev;
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
                && self.log.summary().term(record.index) != Some(record.term)
                && !self.crosses_epoch(append)
            {
                return Err(BadEntries::Fixed(fixed));
            }
            matched = record.position();
        }
        Ok(matched.index)
    }

    /// Appends new entries and overwrites conflicting ones. Returns the index up to which the
    /// logs are now proved equal, or `None` if this process ends for a quarantine.
    fn accept_entries(
        &mut self,
        env: &mut Env<'_>,
        append: Append,
        records: &[u8],
    ) -> Result<Option<Index>, BadEntries> {
        let matched = self.check_entries(&append, records)?;
        let start = env.out.bytes.len();
        for record in record::each(records) {
            let record = record.expect("all were just checked");
            match self.log.summary().term(record.index) {
                Some(term) if term == record.term => continue,
                Some(_) if self.crosses_epoch(&append) => {
                    self.leave_for_epoch(&record, env.out);
                    return Ok(None);
                }
                Some(_) => {
                    assert_eq!(
                        env.out.bytes.len(),
                        start,
                        "a log conflicts only where it is older"
                    );
                    let (first, last) = (record.index, self.log.last());
                    self.note(Rule::ConflictCut);
                    self.log.cut(first.before(), env.out);
                    log::info!("cut entries {first} to {last}: they were never committed");
                }
                None => {}
            }
            self.log.push_received(&record, env.out);
            if record.kind == Kind::CONFIG {
                let summary = self.log.summary();
                env.peers.close_copies(env.now, |disk| summary.run_added(disk), env.out);
            }
        }
        let end = env.out.bytes.len();
        if end > start {
            env.out.push(Effect::Append(start..end));
        }
        Ok(Some(matched))
    }

    pub(super) fn tick_follower(&mut self, env: &mut Env<'_>) {
        if self.log.has_unflushed() {
            self.condition.sync_began = Some(env.now);
            self.log.flush(env.out);
        } else {
            self.acknowledge(env.out);
        }
    }

    /// Acknowledges received entries once they are durable.
    pub(super) fn acknowledge(&mut self, out: &mut Out) {
        let Role::Follower(following) = &mut self.role else { return };
        following.apply_to(&mut self.log);
        if self.ballot.is_durable()
            && let Some(link) = following.owed.take()
        {
            out.send(
                link,
                Packet::AppendAccepted {
                    term: self.ballot.term(),
                    stored: following.match_index.min(self.log.stored()),
                    round: following.round,
                },
            );
        }
    }
}
