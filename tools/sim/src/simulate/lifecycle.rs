//! The lifecycle of server processes: their start, their end, their data directories in between,
//! and their password hasher.

use super::clock::Event;
use super::damage::Backup;
use super::durable;
use super::machine::ProcessState;
use super::network::TWIN;
use super::process::{self, GROUP, Incoming, Process};
use super::trace;
use super::world::World;
use postern::host::Fail;
use postern::ids::{DiskId, Member};
use postern::node::Fatal;
use postern::replica::{Beginning, Quarantine};
use postern::store::check::check;
use postern::store::memory::{Failures, MemoryDisk};
use postern::store::{FileJob, Identity, JobDone, OpenError, Quarantined, Store};

/// How many backups of a directory are kept.
const BACKUPS_MAX: usize = 4;

impl World {
    /// Starts a server, if it is down and has power.
    pub(super) fn start(&mut self, n: usize) {
        let server = &self.servers[n];
        let unused = n == TWIN && self.twin.is_none();
        let blocked = server.faults.power_off || server.faults.stays_down;
        if server.process.is_some() || blocked || unused {
            return;
        }
        let id = self.id_of(n);
        let server = &mut self.servers[n];
        trace::stamp(self.now, n as u8 + 1);
        server.generation += 1;
        server.clock.restart(self.now);
        server.state = ProcessState { pauses: server.state.pauses, ..ProcessState::default() };
        server.inbox.clear();
        if let Some(disk) = server.disk_id {
            self.checks.refresh(disk, &server.disk);
        }
        let mut settings = self.settings;
        settings.peer_timeout_ms += u32::from(server.faults.misconfigured);
        let (label, known) = (label(self.now), &self.checks.acknowledged);
        match process::start(&server.disk, id, settings, &label, known, &mut self.rng) {
            Ok(process) => {
                if let Some(quarantined) = &process.quarantined {
                    self.on_quarantined(n, quarantined);
                }
                self.on_started(n, process);
            }
            Err(error @ (OpenError::Damaged(_) | OpenError::Refused(_))) => {
                if !self.faults.disk_damaged {
                    let n = n + 1;
                    return self.fail(format!("a crash has made server {n} need repair: {error}"));
                }
                // A flipped bit may look like a newer version of the format, or be in what may be
                // the only copy. An operator who sees the other servers removes the directory.
                trace::line(|| format!("its directory is removed: {error}"));
                self.lose_disk(n);
                self.start_in(n, 10_000);
            }
            Err(error) => {
                trace::line(|| format!("can't start: {error}"));
                self.start_in(n, 500_000);
            }
        }
    }

    /// The start of a server has quarantined its damaged log.
    fn on_quarantined(&mut self, n: usize, quarantined: &Quarantined) {
        let Quarantined { folder, why, .. } = quarantined;
        if !self.faults.disk_damaged {
            self.fail(format!("a crash has damaged server {}: {why}", n + 1));
        }
        trace::line(|| format!("{folder} is quarantined: {why}"));
        self.servers[n].backups.clear();
        if let Some(disk) = self.servers[n].disk_id.take() {
            self.checks.damaged(disk, true);
        }
    }

    fn on_started(&mut self, n: usize, process: Process) {
        let identity = process.store().identity();
        let (disk, incarnation) = (identity.disk, identity.incarnation.0);
        let (last, vote) = (process.store().last(), process.vote());
        trace::line(|| format!("starts: disk {disk}, start {incarnation}, {last} entries"));
        let members = process.log_copy().newest_config().map_or(0, |(_, config)| config.count());
        let leads_alone = members <= 1 || vote.founder == Some(disk);
        self.servers[n].process = Some(process);
        self.checks.times.started(n);
        if n == TWIN {
            self.note_twin_disk(disk);
        }
        if !self.is_copy(n) {
            let server = &mut self.servers[n];
            server.disk_id = Some(disk);
            let backup = Backup { start: incarnation, leads_alone, disk: server.disk.copied() };
            server.backups.push(backup);
            let surplus = server.backups.len().saturating_sub(BACKUPS_MAX);
            server.backups.drain(..surplus);
            let noted = self.checks.started(n, disk, vote);
            self.note(noted);
        }
        if self.faults.liar == Some(n) {
            self.servers[n].disk.fail(|failures| failures.lies = true);
        }
        self.crash_again(n);
        self.run(n);
    }

    /// Schedules a start in `delay` µs.
    pub(super) fn start_in(&mut self, n: usize, delay: u64) {
        self.schedule.add(self.now + delay, Event::Start(n));
    }

    /// A process exits with an error. Its service manager restarts it.
    pub(super) fn on_failure(&mut self, n: usize, fail: &Fail) {
        trace::stamp(self.now, n as u8 + 1);
        trace::line(|| format!("exits: {fail}"));
        if let Fail::Fatal(Fatal(why)) = fail
            && !self.faults.disk_damaged
            && !why.contains("can't be read")
            && self.faults.corrupted.take().is_none()
        {
            self.fail(format!("server {} exits: {why}", n + 1));
        }
        self.end_process(n, true);
        let delay = 100_000 + self.rng.below(900_000);
        self.start_in(n, delay);
    }

    /// Ends a process. `closes` is false if its machine has lost power and so does not close the
    /// connections.
    pub(super) fn end_process(&mut self, n: usize, closes: bool) {
        let server = &mut self.servers[n];
        if let Some(mut process) = server.process.take() {
            if let Some(job) = process.kernel().file_job.take() {
                cut_short(job, &server.disk, self.rng.below(8) as u32);
            }
            let decisions = process.node().replica().decisions();
            for (sum, count) in self.results.counts.decisions.iter_mut().zip(decisions.0) {
                *sum += count;
            }
        }
        server.inbox.clear();
        server.wake_at = u64::MAX;
        server.state.paused = false;
        let owner = server.owner(n);
        // Scheduled events of this process do not reach the next one.
        server.generation += 1;
        for end_id in self.net.ends(|end| end.owner == owner && end.open) {
            if closes {
                self.close_end(end_id);
            } else {
                self.net.close_without_sending(end_id);
            }
            self.net.free_if_unused(end_id);
        }
    }

    /// Ends a process that requests the quarantine of its directory, and starts the next one.
    pub(super) fn end_if_quarantined(&mut self, n: usize) -> bool {
        let process = self.servers[n].process.as_ref();
        let Some(quarantine) = process.and_then(Process::quarantine) else { return false };
        trace::line(|| format!("exits: {quarantine:?} is quarantined"));
        self.end_process(n, true);
        self.quarantine(n, quarantine);
        self.start_in(n, 10_000);
        true
    }

    /// Ends a process that has completed its stop, and schedules its next start.
    pub(super) fn end_if_stopped(&mut self, n: usize) -> bool {
        let server = &mut self.servers[n];
        let Some(process) = server.process.as_mut().filter(|process| process.is_stopped()) else {
            return false;
        };
        if let Err(fail) = process.close() {
            trace::line(|| fail.to_string());
        }
        self.perform_outputs(n);
        trace::line(|| "has stopped".to_owned());
        self.end_process(n, true);
        let delay = 10_000 + self.rng.below(2_000_000);
        self.start_in(n, delay);
        true
    }

    /// Quarantines what a process has requested, as the start of a real server does.
    fn quarantine(&mut self, n: usize, quarantine: Quarantine) {
        let (label, id) = (label(self.now), self.id_of(n));
        let server = &mut self.servers[n];
        let quarantine = match quarantine {
            Quarantine::Tail(last)
                if process::has_emptied(&server.disk, id, last, &label, &mut self.rng) =>
            {
                Quarantine::Everything
            }
            other => other,
        };
        let done = match quarantine {
            Quarantine::Everything | Quarantine::Diverged => {
                if let Some(disk) = server.disk_id {
                    self.checks.refresh(disk, &server.disk);
                }
                let has_diverged = quarantine == Quarantine::Diverged;
                let kind = if has_diverged { "diverged" } else { "old-copy" };
                let done = Store::quarantine(&server.disk, kind, &label).map(drop);
                if let Some(disk) = server.disk_id.take_if(|_| done.is_ok()) {
                    self.checks.damaged(disk, true);
                    server.backups.clear();
                }
                done
            }
            Quarantine::Tail(last) => {
                process::quarantine_tail(&server.disk, id, last, &label, &mut self.rng)
            }
        };
        if let Err(error) = done {
            trace::line(|| format!("the quarantine failed: {error}"));
        }
        if quarantine == Quarantine::Diverged && self.faults.corrupted.take() != Some(n) {
            self.fail(format!("the state of server {} differs from that of the others", n + 1));
        }
    }

    /// Changes the directory of a server that is down as `postern recover` does.
    pub(super) fn recover(&mut self, n: usize) -> Result<(), String> {
        let text = |error: OpenError| error.to_string();
        let disk = self.servers[n].disk.clone();
        let found = check(&disk).map_err(text)?;
        let (_, config) = found.config.ok_or("it holds no config")?;
        let term = found.vote.map_or(found.last.term, |vote| vote.term);
        let me = Member { id: self.id_of(n), disk: DiskId(u128::from(self.rng.next_u64()) << 64) };
        let begin = Beginning::new(me, term, found.last, config.gate_open);
        if let Some(old) = self.servers[n].disk_id.replace(me.disk) {
            self.checks.damages(old, &disk, true);
        }
        if (0..3).any(|other| other != n && self.servers[other].process.is_some()) {
            self.checks.strays.push(me.disk);
        }
        let (new, entry) = (Identity::new(GROUP, 3, me.id, me.disk), begin.entry(found.last_time));
        Store::salvage(disk, &new, begin.vote, &entry, &label(self.now)).map_err(text)?;
        Ok(())
    }

    /// Replaces the disk of a server by an empty one.
    pub(super) fn lose_disk(&mut self, n: usize) {
        let server = &mut self.servers[n];
        if let Some(disk) = server.disk_id.take() {
            self.checks.damages(disk, &server.disk, true);
        }
        server.disk = MemoryDisk::default();
        server.backups.clear();
    }

    /// Resumes a process, unless it was paused again since pause number `pause`.
    pub(super) fn resume(&mut self, n: usize, pause: u32) {
        let state = &mut self.servers[n].state;
        if !state.paused || state.pauses != pause {
            return;
        }
        state.paused = false;
        trace::stamp(self.now, n as u8 + 1);
        trace::line(|| "resumes".to_owned());
        if std::mem::take(&mut state.sync_over) {
            self.on_synced(n);
        } else {
            self.run(n);
        }
    }

    /// Begins to hash the oldest password of a process.
    pub(super) fn hash_next(&mut self, n: usize) {
        let server = &mut self.servers[n];
        server.process.as_mut().expect("it has jobs").hashing = true;
        let takes = 20_000 + self.rng.below(20_000);
        self.schedule.add(self.now + takes, Event::Hashed(server.owner(n)));
    }

    pub(super) fn on_hashed(&mut self, n: usize) {
        let Some(process) = &mut self.servers[n].process else { return };
        process.hashing = false;
        let Some(job) = process.kernel().jobs.pop_front() else { return };
        if !process.kernel().jobs.is_empty() {
            self.hash_next(n);
        }
        self.deliver(n, Incoming::Hashed(job.session, process::hash(&job)));
    }

    /// Begins the job with files that a process asks for.
    pub(super) fn begin_job(&mut self, n: usize) {
        let server = &mut self.servers[n];
        server.process.as_mut().expect("it has a job").making = true;
        let takes = 1000 + self.rng.below(200_000);
        self.schedule.add(self.now + takes, Event::Made(server.owner(n)));
    }

    pub(super) fn on_made(&mut self, n: usize) {
        let server = &mut self.servers[n];
        let Some(process) = &mut server.process else { return };
        process.making = false;
        let Some(job) = process.kernel().file_job.take() else { return };
        let before = job.compacted().map(|path| durable::messages(&server.disk, &path));
        let made = job.run(&server.disk, || false);
        if let (Some(before), Ok(JobDone::Compacted(Some(_)))) = (before, &made) {
            self.checks.emptied.extend(before);
        }
        self.deliver(n, Incoming::Made(made));
    }
}

/// Does a part of a job with files, up to its sync of this number: the process ends meanwhile.
fn cut_short(job: FileJob, disk: &MemoryDisk, syncs: u32) {
    let mut before = Failures::default();
    disk.fail(|failures| {
        before = failures.clone();
        failures.syncs_left = Some(syncs);
    });
    // Whether it succeeds makes no difference to anybody.
    let _ = job.run(disk, || false);
    disk.fail(|failures| *failures = before);
}

/// The time as file names contain it.
fn label(now: u64) -> String {
    now.to_string()
}
