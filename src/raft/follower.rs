//! The follower: compares appends with its log, appends and overwrites entries, and acknowledges
//! those that are proved equal and durable.

use super::raft_log::RaftLog;
use super::{Env, Raft, Role};
use crate::config::Config;
use crate::effect::{Effect, Out};
use crate::ids::{Index, LinkId, Member};
use crate::packet::{Append, Epoch, Packet};
use crate::record::{self, Kind, Record};
use crate::rules::Rule;

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

/// Checks that this version can store an entry of this kind. The bodies of changes are checked
/// when they are applied; an unreadable change has no effect.
fn check_kind(record: &Record<'_>) -> Result<(), String> {
    let (index, Kind(kind)) = (record.index, record.kind);
    let readable = match record.kind {
        Kind::CONFIG => Config::decode(record.body).is_some(),
        Kind::REFUSAL => Epoch::decode(record.body).is_some(),
        _ if record.kind.is_known() => true,
        _ => {
            let why = "a newer version of postern is needed";
            return Err(format!("entry {index} is of kind {kind}: {why}"));
        }
    };
    if readable { Ok(()) } else { Err("a config or a refusal is unreadable".to_owned()) }
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
                return env.close_nonsense(link);
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
            // The next index to try: the end of this log, or the entry before the term of the
            // conflicting entry.
            let last = self.log.last();
            let before = self.log.summary().before_term(append.prev.index);
            let hint = if append.prev.index > last { last } else { before };
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
                log::error!("closed the link to server {from}: invalid append: {why}");
                env.close_nonsense(link);
            }
        }
    }

    /// Checks the records of an append, before any of them is accepted.
    fn check_entries(&mut self, append: &Append, records: &[u8]) -> Result<Index, String> {
        let out_of_order = || Err("entries are out of order".to_owned());
        // Entries that are committed, or proved equal to this primary's log, can't change.
        let fixed = match &self.role {
            Role::Follower(following) => self.log.committed().max(following.match_index),
            _ => self.log.committed(),
        };
        // Every log begins with the config that the formation wrote.
        let first = record::each(records).next().and_then(Result::ok);
        if append.prev.index == Index::ZERO && first.is_some_and(|r| r.kind != Kind::CONFIG) {
            return out_of_order();
        }
        let mut matched = append.prev;
        for record in record::each(records) {
            let record = record.map_err(|why| why.as_str().to_owned())?;
            let follows = record.index == matched.index.next();
            if !follows || record.term < matched.term || record.term > append.term {
                return out_of_order();
            }
            if record.kind != Kind::MESSAGE {
                check_kind(&record)?;
            }
            if record.index <= fixed
                && self.log.summary().term(record.index) != Some(record.term)
                && !self.crosses_epoch(append)
            {
                self.note(Rule::KeptCommitted);
                let why = "which can't change any more";
                return Err(format!("it overwrites entries up to {fixed}, {why}"));
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
    ) -> Result<Option<Index>, String> {
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
                env.close_copies(|disk| summary.run_added(disk));
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
