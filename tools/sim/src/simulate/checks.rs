//! Invariants of a group, checked against the durable contents of the simulated disks.

use super::durable::DurableLog;
use super::log_copy::{Entry, LogCopy};
use super::process::Process;
use super::wall_clock::TimeChecks;
use crate::require;
use postern::ids::{DiskId, Index, Member, Term, Vote};
use postern::record::Kind;
use postern::replica::{Config, Packet, Replica, RoleView};
use postern::store::memory::MemoryDisk;
use std::collections::BTreeMap;

/// The term of entries that no primary must have.
const NO_TERM: Term = Term(u64::MAX);

/// The current directories with their disk ids.
pub(super) type Disks<'a> = [(Option<DiskId>, &'a MemoryDisk); 4];

/// A process after a part of its turn.
#[derive(Clone, Copy)]
pub(super) struct Observation<'a> {
    pub(super) server: usize,
    pub(super) replica: &'a Replica,
    pub(super) log_copy: &'a LogCopy,
    /// Its config before that part of the turn, if it was primary.
    pub(super) config_before: Option<Config>,
    /// All directories.
    pub(super) disks: Disks<'a>,
}

impl Observation<'_> {
    /// Returns the entry at place `at` of the log.
    fn entry(&self, at: u64) -> Result<Entry, String> {
        let entry = self.log_copy.entry(Index(at + 1));
        entry.ok_or_else(|| format!("the log has no entry {}, which is committed", at + 1))
    }
}

/// The latest state of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Observed {
    acknowledged: Index,
    committed: Index,
    /// The commit index at the time when a disk was damaged. Entries up to here may be lost.
    doubtful: Index,
    led: Option<Term>,
}

/// The history of the group.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) acknowledged: Vec<Entry>,
    /// The records of messages that may be emptied since.
    pub(super) emptied: BTreeMap<Index, Vec<u8>>,
    committed: Vec<Entry>,
    /// The term in which each was committed. Primaries of later terms must have the entry. One of
    /// an earlier term, which counts its votes late, need not.
    committed_in: Vec<Term>,
    durable_logs: Vec<DurableLog>,
    led: Vec<(Term, Member)>,
    gate_open: bool,
    /// The newest acknowledged config.
    pub(super) config: Option<Config>,
    /// Disks that acknowledged configs have added since the world handled them.
    pub(super) added: Vec<DiskId>,
    observed: [Observed; 4],
    /// Founders of epochs that an operator has begun by mistake, although the group runs. The
    /// checks ignore their followers.
    pub(super) strays: Vec<DiskId>,
    pub(super) elections: u64,
    pub(super) configs: u64,
    /// A primary delays the addition of a server that was dropped often.
    pub(super) penalty: bool,
    pub(super) times: TimeChecks,
}

impl Checks {
    pub(super) fn durable_log(&mut self, disk: DiskId) -> &mut DurableLog {
        let at = self.durable_logs.iter().position(|log| log.disk == disk);
        let at = at.unwrap_or_else(|| {
            self.durable_logs.push(DurableLog::new(disk));
            self.durable_logs.len() - 1
        });
        &mut self.durable_logs[at]
    }

    /// A process has started on a disk with this vote.
    pub(super) fn started(
        &mut self,
        server: usize,
        disk: DiskId,
        vote: Vote,
    ) -> Result<(), String> {
        self.observed[server] = Observed::default();
        self.stored_vote(disk, vote)
    }

    /// Checks that the term on a disk does not decrease.
    pub(super) fn stored_vote(&mut self, disk: DiskId, vote: Vote) -> Result<(), String> {
        let log = self.durable_log(disk);
        require(vote.term >= log.term, || {
            format!("disk {disk}: its term decreased from {} to {}", log.term, vote.term)
        })?;
        log.term = vote.term;
        Ok(())
    }

    /// Handles a disk that a fault is about to damage.
    pub(super) fn damages(&mut self, id: DiskId, disk: &MemoryDisk, lost: bool) {
        self.refresh(id, disk);
        self.damaged(id, lost);
    }

    /// Reads the durable contents of a disk.
    pub(super) fn refresh(&mut self, id: DiskId, disk: &MemoryDisk) {
        let log = self.durable_log(id);
        if !log.lost {
            log.refresh(disk);
        }
    }

    /// Handles damage to a disk, after a refresh.
    pub(super) fn damaged(&mut self, id: DiskId, lost: bool) {
        let log = self.durable_log(id);
        if log.lost {
            return;
        }
        if log.entries.len() > log.before_damage.len() {
            log.before_damage.clone_from(&log.entries);
        }
        log.lost = lost;
        log.term = Term::ZERO;
        // Entries that are not acknowledged may be lost with this disk.
        self.committed.truncate(self.acknowledged.len());
        self.committed_in.truncate(self.acknowledged.len());
        for before in &mut self.observed {
            before.doubtful = before.doubtful.max(before.committed);
            before.committed = before.committed.min(Index(self.committed.len() as u64));
        }
    }

    /// Whether a disk has all acknowledged entries.
    pub(super) fn has_all_acknowledged(&mut self, id: DiskId, disk: &MemoryDisk) -> bool {
        self.durable_log(id).refresh(disk);
        let acknowledged = self.acknowledged.len();
        let entries = &self.durable_logs.iter().find(|log| log.disk == id).expect("made").entries;
        entries.len() >= acknowledged && entries[..acknowledged] == self.acknowledged[..]
    }

    /// Whether a replica follows one of [`Checks::strays`].
    pub(super) fn is_stray(&self, replica: &Replica) -> bool {
        replica.founder().is_some_and(|founder| self.strays.contains(&founder))
    }

    /// Checks a process after a part of its turn.
    pub(super) fn observe(&mut self, view: Observation<'_>) -> Result<(), String> {
        let Observation { server, replica, log_copy, .. } = view;
        if self.is_stray(replica) {
            return Ok(());
        }
        let before = self.observed[server];
        if replica.role() == RoleView::Primary && before.led != Some(replica.term()) {
            self.observed[server].led = Some(replica.term());
            self.elected(replica, log_copy)?;
        }
        if replica.committed() > before.committed {
            self.observed[server].committed = replica.committed();
            self.learn_committed(before, &view)?;
        }
        if replica.acknowledged() > before.acknowledged {
            self.observed[server].acknowledged = replica.acknowledged();
            self.learn_acknowledged(before.acknowledged, &view)?;
        }
        Ok(())
    }

    fn elected(&mut self, replica: &Replica, log_copy: &LogCopy) -> Result<(), String> {
        let (term, me) = (replica.term(), replica.me());
        self.elections += 1;
        if let Some((_, other)) = self.led.iter().find(|(led, _)| *led == term) {
            return Err(format!("{other} and {me} were both primary in term {term}"));
        }
        self.led.push((term, me));
        let known = self.committed_in.partition_point(|committed_in| *committed_in < term);
        let common = log_copy.entries().len().min(known);
        require(log_copy.entries()[..common] == self.committed[..common], || {
            format!("{me} is primary in term {term} with other entries than those committed")
        })?;
        let last = log_copy.entries().len();
        require(common == known, || {
            format!("{me} is primary in term {term} with {last} entries, but {known} are committed")
        })
    }

    fn learn_committed(&mut self, before: Observed, view: &Observation<'_>) -> Result<(), String> {
        let replica = view.replica;
        for at in before.committed.0..replica.committed().0 {
            let entry = view.entry(at)?;
            let term = if at < before.doubtful.0 { NO_TERM } else { replica.term() };
            match self.committed.get(at as usize) {
                Some(_) if self.committed_in[at as usize] == NO_TERM => {
                    // The entry that was committed before the damage may be replaced.
                    self.committed[at as usize] = entry;
                    self.committed_in[at as usize] = term;
                }
                Some(known) if *known != entry => {
                    let me = replica.me();
                    return Err(format!("{me}: committed entry {} has changed", at + 1));
                }
                Some(_) => {}
                None => {
                    self.committed.push(entry);
                    self.committed_in.push(term);
                }
            }
        }
        Ok(())
    }

    fn learn_acknowledged(&mut self, from: Index, view: &Observation<'_>) -> Result<(), String> {
        let Observation { replica, log_copy, config_before, .. } = *view;
        let me = replica.me();
        let fresh = self.acknowledged.len() as u64;
        for at in from.0..replica.acknowledged().0 {
            let entry = view.entry(at)?;
            match self.acknowledged.get(at as usize) {
                Some(known) if *known != entry => {
                    return Err(format!("{me}: acknowledged entry {} has changed", at + 1));
                }
                Some(_) => continue,
                None => self.acknowledged.push(entry),
            }
            if entry.kind == Kind::CONFIG {
                self.configs += 1;
                let config = log_copy.config_up_to(Index(at + 1)).map(|(_, config)| config);
                self.gate_open |= config.is_some_and(|config| config.gate_open);
                let before = self.config;
                let new = |m: &Member| before.is_none_or(|before| !before.has(*m));
                let members = config.iter().flat_map(Config::members).filter(new);
                self.added.extend(members.map(|member| member.disk));
                self.config = config;
            } else if !self.gate_open {
                return Err(format!(
                    "{me}: entry {} was accepted while the gate was closed",
                    at + 1
                ));
            }
        }
        if fresh == self.acknowledged.len() as u64 {
            return Ok(());
        }
        // A primary may acknowledge an entry and step down in one turn.
        require(replica.role() == RoleView::Primary || config_before.is_some(), || {
            format!("{me} is no primary, but the first to acknowledge an entry")
        })?;
        self.check_stored_by_all(fresh as usize, view)
    }

    /// Checks that every acknowledged entry is durable on all members of the config under which it
    /// was acknowledged.
    fn check_stored_by_all(&mut self, fresh: usize, view: &Observation<'_>) -> Result<(), String> {
        let config_now = view.replica.config().copied();
        let mut missing = None;
        // A turn may acknowledge entries and change the config, in any order.
        for config in [view.config_before, config_now].into_iter().flatten() {
            missing = config.members().find(|member| !self.stores(*member, fresh, view.disks));
            if missing.is_none() {
                return Ok(());
            }
        }
        let member = missing.ok_or("entries were acknowledged without a config")?;
        Err(format!(
            "{} acknowledged entries {} to {} that {member} does not have on its disk",
            view.replica.me(),
            fresh + 1,
            self.acknowledged.len()
        ))
    }

    fn stores(&mut self, member: Member, from: usize, disks: Disks<'_>) -> bool {
        let at = self.durable_logs.iter().position(|log| log.disk == member.disk);
        let Some(at) = at else { return false };
        let disk = disks.iter().find(|(id, _)| *id == Some(member.disk));
        if let Some((_, disk)) = disk.filter(|_| !self.durable_logs[at].lost) {
            self.durable_logs[at].refresh(disk);
        }
        let log = &self.durable_logs[at];
        (from..self.acknowledged.len()).all(|at| log.held(at, self.acknowledged[at]))
    }
}

/// Returns what a packet claims although it is not durable yet.
pub(super) fn premature_claim(process: &Process, packet: &Packet) -> Option<String> {
    match *packet {
        Packet::Vote { granted: true, term } if process.vote().term < term => {
            Some(format!("votes in term {term}"))
        }
        Packet::AppendAccepted { stored, .. } if stored > process.store().stored() => {
            Some(format!("acknowledges entry {stored}"))
        }
        _ => None,
    }
}
