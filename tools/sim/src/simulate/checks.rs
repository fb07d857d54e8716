//! What must always be true, by the truth of the simulated disks and not by what servers believe.

use super::mirror::{Entry, Mirror};
use super::process::Process;
use super::truth::Truth;
use postern::ids::{DiskId, Index, Member, Term, Vote};
use postern::record::Kind;
use postern::replica::{Config, Packet, Replica, RoleView};
use postern::store::memory::MemoryDisk;

/// In which no primary need have an entry.
const NO_TERM: Term = Term(u64::MAX);

/// The directories that are there now, each with the disk that it is to the group.
type Disks<'a> = [(Option<DiskId>, &'a MemoryDisk); 4];

/// What the checks remember of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    acknowledged: Index,
    committed: Index,
    /// Up to here it knew what was committed when a disk was damaged: that was true, and need not
    /// be any more.
    doubtful: Index,
    led: Option<Term>,
}

/// What was learned of the group as a whole.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) acknowledged: Vec<Entry>,
    committed: Vec<Entry>,
    /// In which term each was committed: all primaries of later terms have it, one of an earlier
    /// term that counts its votes late need not.
    committed_in: Vec<Term>,
    truths: Vec<Truth>,
    led: Vec<(Term, Member)>,
    gate_open: bool,
    /// The newest answered config.
    pub(super) config: Option<Config>,
    /// The disks that answered configs have added, since somebody took note of it.
    pub(super) added: Vec<DiskId>,
    pub(super) seen: [Seen; 4],
    /// Who began an epoch by a person's mistake, beside a group that goes on: what is committed
    /// there is nothing to the group.
    pub(super) strays: Vec<DiskId>,
    pub(super) elections: u64,
    pub(super) configs: u64,
}

impl Checks {
    pub(super) fn truth(&mut self, disk: DiskId) -> &mut Truth {
        let at = self.truths.iter().position(|truth| truth.disk == disk);
        let at = at.unwrap_or_else(|| {
            self.truths.push(Truth::new(disk));
            self.truths.len() - 1
        });
        &mut self.truths[at]
    }

    /// A process was started on a disk that has this vote.
    pub(super) fn started(
        &mut self,
        server: usize,
        disk: DiskId,
        vote: Vote,
    ) -> Result<(), String> {
        self.seen[server] = Seen::default();
        self.stored_vote(disk, vote)
    }

    /// Terms never fall on a disk.
    pub(super) fn stored_vote(&mut self, disk: DiskId, vote: Vote) -> Result<(), String> {
        let truth = self.truth(disk);
        if vote.term < truth.term {
            return Err(format!("disk {disk}: its term fell from {} to {}", truth.term, vote.term));
        }
        truth.term = vote.term;
        Ok(())
    }

    /// A fault is about to damage a disk.
    pub(super) fn damages(&mut self, id: DiskId, disk: &MemoryDisk, gone: bool) {
        self.look(id, disk);
        self.damaged(id, gone);
    }

    /// Reads what became durable, while it is there to be read.
    pub(super) fn look(&mut self, id: DiskId, disk: &MemoryDisk) {
        let truth = self.truth(id);
        if !truth.gone {
            truth.refresh(disk);
        }
    }

    /// A disk that was just looked at is damaged, or gone.
    pub(super) fn damaged(&mut self, id: DiskId, gone: bool) {
        let truth = self.truth(id);
        if truth.gone {
            return;
        }
        if truth.entries.len() > truth.before_damage.len() {
            truth.before_damage.clone_from(&truth.entries);
        }
        truth.gone = gone;
        truth.term = Term::ZERO;
        // What was committed by a majority with this disk need not be any more.
        self.committed.truncate(self.acknowledged.len());
        self.committed_in.truncate(self.acknowledged.len());
        for seen in &mut self.seen {
            seen.doubtful = seen.doubtful.max(seen.committed);
            seen.committed = seen.committed.min(Index(self.committed.len() as u64));
        }
    }

    /// Whether all that was answered is durable on a disk.
    pub(super) fn keeps_all(&mut self, id: DiskId, disk: &MemoryDisk) -> bool {
        self.truth(id).refresh(disk);
        let acknowledged = self.acknowledged.len();
        let entries = &self.truths.iter().find(|truth| truth.disk == id).expect("made").entries;
        entries.len() >= acknowledged && entries[..acknowledged] == self.acknowledged[..]
    }

    /// Whether a replica follows an epoch that does not belong to the group: see
    /// [`Checks::strays`].
    pub(super) fn is_stray(&self, replica: &Replica) -> bool {
        replica.founder().is_some_and(|founder| self.strays.contains(&founder))
    }

    /// Looks at a process after a part of its turn.
    pub(super) fn observe(
        &mut self,
        server: usize,
        replica: &Replica,
        mirror: &Mirror,
        config_before: Option<Config>,
        disks: Disks<'_>,
    ) -> Result<(), String> {
        if self.is_stray(replica) {
            return Ok(());
        }
        let seen = self.seen[server];
        if replica.role() == RoleView::Primary && seen.led != Some(replica.term()) {
            self.seen[server].led = Some(replica.term());
            self.elected(replica, mirror)?;
        }
        if replica.committed() > seen.committed {
            self.seen[server].committed = replica.committed();
            self.learn_committed(seen, replica, mirror)?;
        }
        if replica.acknowledged() > seen.acknowledged {
            self.seen[server].acknowledged = replica.acknowledged();
            self.learn_answered(seen.acknowledged, replica, mirror, config_before, disks)?;
        }
        Ok(())
    }

    fn elected(&mut self, replica: &Replica, mirror: &Mirror) -> Result<(), String> {
        let (term, me) = (replica.term(), replica.me());
        self.elections += 1;
        if let Some((_, other)) = self.led.iter().find(|(led, _)| *led == term) {
            return Err(format!("{other} and {me} were both primary in term {term}"));
        }
        self.led.push((term, me));
        let known = self.committed_in.partition_point(|committed_in| *committed_in < term);
        let common = mirror.entries().len().min(known);
        if mirror.entries()[..common] != self.committed[..common] {
            return Err(format!("{me} leads term {term} with another log than was committed"));
        }
        if common < known {
            let last = mirror.entries().len();
            return Err(format!("{me} leads term {term} with {last} entries, {known} committed"));
        }
        Ok(())
    }

    fn learn_committed(
        &mut self,
        seen: Seen,
        replica: &Replica,
        mirror: &Mirror,
    ) -> Result<(), String> {
        for at in seen.committed.0..replica.committed().0 {
            let entry = mirror.entry(Index(at + 1)).ok_or("committed goes beyond the log")?;
            let term = if at < seen.doubtful.0 { NO_TERM } else { replica.term() };
            match self.committed.get(at as usize) {
                Some(_) if self.committed_in[at as usize] == NO_TERM => {
                    // What was committed before the damage may be another one.
                    self.committed[at as usize] = entry;
                    self.committed_in[at as usize] = term;
                }
                Some(known) if *known != entry => {
                    let me = replica.me();
                    return Err(format!("{me}: committed entry {} is another one now", at + 1));
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

    fn learn_answered(
        &mut self,
        from: Index,
        replica: &Replica,
        mirror: &Mirror,
        config_before: Option<Config>,
        disks: Disks<'_>,
    ) -> Result<(), String> {
        let me = replica.me();
        let fresh = self.acknowledged.len() as u64;
        for at in from.0..replica.acknowledged().0 {
            let entry = mirror.entry(Index(at + 1)).ok_or("answered goes beyond the log")?;
            match self.acknowledged.get(at as usize) {
                Some(known) if *known != entry => {
                    return Err(format!("{me}: acknowledged entry {} is another one now", at + 1));
                }
                Some(_) => continue,
                None => self.acknowledged.push(entry),
            }
            if entry.kind == Kind::CONFIG {
                self.configs += 1;
                let config = mirror.config_up_to(Index(at + 1)).map(|(_, config)| config);
                self.gate_open |= config.is_some_and(|config| config.gate_open);
                let before = self.config;
                let new = |m: &Member| before.is_none_or(|before| !before.has(*m));
                let members = config.iter().flat_map(Config::members).filter(new);
                self.added.extend(members.map(|member| member.disk));
                self.config = config;
            } else if !self.gate_open {
                return Err(format!("{me}: entry {} was taken with the gate closed", at + 1));
            }
        }
        if fresh == self.acknowledged.len() as u64 {
            return Ok(());
        }
        // One that led may have counted, and stepped down, in one turn.
        if replica.role() != RoleView::Primary && config_before.is_none() {
            return Err(format!("{me} is no primary and the first to know what is answered"));
        }
        self.check_stored_by_all(fresh as usize, replica, config_before, disks)
    }

    /// Every answered entry is durable on every member of the config it was answered under.
    fn check_stored_by_all(
        &mut self,
        fresh: usize,
        replica: &Replica,
        config_before: Option<Config>,
        disks: Disks<'_>,
    ) -> Result<(), String> {
        let config_now = replica.config().copied();
        let mut missing = None;
        // Which of the two counted can't be seen from outside: a turn may answer and change.
        for config in [config_before, config_now].into_iter().flatten() {
            missing = config.members().find(|member| !self.stores(*member, fresh, disks));
            if missing.is_none() {
                return Ok(());
            }
        }
        let member = missing.ok_or("entries were acknowledged without a config")?;
        Err(format!(
            "{} answered entries {} to {} that {member} does not have on its disk",
            replica.me(),
            fresh + 1,
            self.acknowledged.len()
        ))
    }

    fn stores(&mut self, member: Member, from: usize, disks: Disks<'_>) -> bool {
        let at = self.truths.iter().position(|truth| truth.disk == member.disk);
        let Some(at) = at else { return false };
        let disk = disks.iter().find(|(id, _)| *id == Some(member.disk));
        if let Some((_, disk)) = disk.filter(|_| !self.truths[at].gone) {
            self.truths[at].refresh(disk);
        }
        let truth = &self.truths[at];
        (from..self.acknowledged.len()).all(|at| truth.held(at, self.acknowledged[at]))
    }
}

/// What a packet says although it is not durable yet.
pub(super) fn said_too_early(process: &Process, packet: &Packet) -> Option<String> {
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
