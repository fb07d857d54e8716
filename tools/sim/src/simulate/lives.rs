//! How processes begin and end, what becomes of their directories in between, and what their
//! hasher does.

use super::clock::{Clock, What};
use super::damage::Copied;
use super::machine::{Busy, Server};
use super::network::{Owner, TWIN};
use super::process::{self, GROUP, Incoming, Process};
use super::story;
use super::world::World;
use postern::host::Fail;
use postern::ids::{DiskId, Member};
use postern::node::Fatal;
use postern::replica::{Beginning, Quarantine};
use postern::store::check::check;
use postern::store::memory::MemoryDisk;
use postern::store::{Identity, OpenError, OpenOptions, Store};

impl World {
    pub(super) fn start(&mut self, n: usize) {
        let server = &self.servers[n];
        let idle = n == TWIN && self.twin.is_none();
        if server.process.is_some() || !server.powered || server.for_good || idle {
            return;
        }
        let id = self.id_of(n);
        let server = &mut self.servers[n];
        story::at(self.now, n as u8 + 1);
        server.life += 1;
        server.clock = Clock::new(self.now, server.rate);
        (server.busy, server.paused, server.sync_over) = (Busy::No, false, false);
        server.inbox.clear();
        if let Some(disk) = server.disk_id {
            self.checks.look(disk, &server.disk);
        }
        let mut settings = self.settings;
        settings.peer_timeout_ms += u32::from(server.misconfigured);
        match process::start(&server.disk, id, settings, &label(self.now), &mut self.rng) {
            Ok(process) => {
                if let Some(quarantine) = &process.quarantined {
                    if !self.destroyed {
                        self.fail(format!(
                            "server {} is damaged by a crash: {}",
                            n + 1,
                            quarantine.why
                        ));
                    }
                    story::tell(|| {
                        format!("{} is quarantined: {}", quarantine.folder, quarantine.why)
                    });
                    self.servers[n].copies.clear();
                    if let Some(disk) = self.servers[n].disk_id.take() {
                        self.checks.damaged(disk, true);
                    }
                }
                self.started(n, process);
            }
            Err(error @ (OpenError::Damaged(_) | OpenError::Refused(_))) if self.destroyed => {
                // A flipped bit may look like a newer version, or be in what may be the only
                // copy; a person who sees the others moves the directory away.
                story::tell(|| format!("its directory is moved away: {error}"));
                self.lose(n);
                self.start_in(n, 10_000);
            }
            Err(error @ (OpenError::Damaged(_) | OpenError::Refused(_))) => {
                self.fail(format!("server {} needs a person after a crash: {error}", n + 1));
            }
            Err(error) => {
                story::tell(|| format!("can't start: {error}"));
                self.start_in(n, 500_000);
            }
        }
    }

    fn started(&mut self, n: usize, process: Process) {
        let identity = process.store().identity();
        let (disk, incarnation) = (identity.disk, identity.incarnation.0);
        let (last, vote) = (process.store().last(), process.vote());
        story::tell(|| format!("starts: disk {disk}, start {incarnation}, {last} entries"));
        let members = process.mirror().newest_config().map_or(0, |(_, config)| config.count());
        let leads_alone = members <= 1 || vote.founder == Some(disk);
        let server = &mut self.servers[n];
        server.process = Some(process);
        self.times.started(n);
        if n == TWIN {
            self.note_twin_disk(disk);
        }
        if !self.is_copy(n) {
            let server = &mut self.servers[n];
            server.disk_id = Some(disk);
            let copy = Copied { start: incarnation, leads_alone, disk: server.disk.copied() };
            server.copies.push(copy);
            let surplus = server.copies.len().saturating_sub(4);
            server.copies.drain(..surplus);
            let noted = self.checks.started(n, disk, vote);
            self.note(noted);
        }
        if self.liar == Some(n) {
            self.servers[n].disk.fail(|failures| failures.lies = true);
        }
        self.deaths_of_storm(n);
        self.run(n);
    }

    pub(super) fn start_in(&mut self, n: usize, delay: u64) {
        self.schedule.add(self.now + delay, What::Start { server: n as u8 });
    }

    /// A process ends by itself, and is started again by whoever watches over it.
    pub(super) fn dies(&mut self, n: usize, fail: &Fail) {
        story::at(self.now, n as u8 + 1);
        story::tell(|| format!("ends: {fail}"));
        if let Fail::Fatal(Fatal(why)) = fail
            && !self.destroyed
            && !why.contains("can't be read")
        {
            self.fail(format!("server {} can't go on: {why}", n + 1));
        }
        self.ends_life(n, true);
        let delay = 100_000 + self.rng.below(900_000);
        self.start_in(n, delay);
    }

    /// Ends a process; `says` when its machine closes its connections.
    pub(super) fn ends_life(&mut self, n: usize, says: bool) {
        let server = &mut self.servers[n];
        if let Some(process) = server.process.take() {
            let decisions = process.node().replica().decisions();
            for (sum, count) in self.decisions.iter_mut().zip(decisions.0) {
                *sum += count;
            }
        }
        server.inbox.clear();
        server.wake_at = u64::MAX;
        server.paused = false;
        let owner = Owner { host: n as u8, life: server.life };
        // Nothing that was asked for in this life reaches the next one.
        server.life += 1;
        for place in self.net.places(|end| end.owner == owner && end.open) {
            if says {
                self.finish(place);
            } else {
                self.net.forget(place);
            }
            self.net.sweep(place);
        }
    }

    pub(super) fn leaves(&mut self, n: usize) -> bool {
        let Some(quarantine) = self.servers[n].process.as_ref().and_then(Process::quarantine)
        else {
            return false;
        };
        story::tell(|| format!("leaves this life: {quarantine:?} is quarantined"));
        self.ends_life(n, true);
        self.quarantine(n, quarantine);
        self.start_in(n, 10_000);
        true
    }

    /// A process that was told to stop and may ends in good order.
    pub(super) fn stops(&mut self, n: usize) -> bool {
        let server = &mut self.servers[n];
        let Some(process) = server.process.as_mut().filter(|process| process.is_stopped()) else {
            return false;
        };
        if let Err(fail) = process.close() {
            story::tell(|| fail.to_string());
        }
        self.carry(n);
        story::tell(|| "has stopped".to_owned());
        self.ends_life(n, true);
        let delay = 10_000 + self.rng.below(2_000_000);
        self.start_in(n, delay);
        true
    }

    /// Quarantines what a process left, as its next life does.
    fn quarantine(&mut self, n: usize, quarantine: Quarantine) {
        let (label, id) = (label(self.now), self.id_of(n));
        let server = &mut self.servers[n];
        let done = match quarantine {
            Quarantine::Everything => {
                if let Some(disk) = server.disk_id {
                    self.checks.look(disk, &server.disk);
                }
                let done = Store::quarantine(&server.disk, "old-copy", &label).map(drop);
                if let Some(disk) = server.disk_id.take_if(|_| done.is_ok()) {
                    self.checks.damaged(disk, true);
                    server.copies.clear();
                }
                done
            }
            Quarantine::Tail(last) => {
                process::quarantine_tail(&server.disk, id, last, &label, &mut self.rng)
            }
        };
        if let Err(error) = done {
            story::tell(|| format!("nothing can be quarantined: {error}"));
        }
    }

    /// What `postern recover` does to the directory of one that is down.
    pub(super) fn recover(&mut self, n: usize) -> Result<(), String> {
        let words = |error: OpenError| error.to_string();
        let disk = self.servers[n].disk.clone();
        let found = check(&disk).map_err(words)?;
        let (_, config) = found.config.ok_or("it holds no config")?;
        let heard = found.vote.map_or(found.last.term, |vote| vote.term);
        let me = Member { id: self.id_of(n), disk: DiskId(u128::from(self.rng.next_u64()) << 64) };
        let begin = Beginning::new(me, heard, found.last, config.gate_open);
        if let Some(old) = self.servers[n].disk_id.replace(me.disk) {
            self.checks.damages(old, &disk, true);
        }
        if (0..3).any(|other| other != n && self.servers[other].process.is_some()) {
            self.checks.strays.push(me.disk);
        }
        let (new, entry) = (Identity::new(GROUP, 3, me.id, me.disk), begin.entry(found.last_time));
        let (label, segment_bytes) = (label(self.now), self.settings.segment_bytes);
        let options = OpenOptions { label: &label, segment_bytes };
        Store::salvage(disk, &new, begin.vote, &entry, options).map_err(words)?;
        Ok(())
    }

    /// A directory is gone.
    pub(super) fn lose(&mut self, n: usize) {
        let server = &mut self.servers[n];
        if let Some(disk) = server.disk_id.take() {
            self.checks.damages(disk, &server.disk, true);
        }
        server.disk = MemoryDisk::default();
        server.copies.clear();
    }

    pub(super) fn resume(&mut self, n: usize, serial: u32) {
        let server = &mut self.servers[n];
        if !server.paused || server.pauses != serial {
            return;
        }
        server.paused = false;
        story::at(self.now, n as u8 + 1);
        story::tell(|| "goes on".to_owned());
        if std::mem::take(&mut server.sync_over) {
            self.synced(n);
        } else {
            self.run(n);
        }
    }

    pub(super) fn hash_next(&mut self, n: usize) {
        let what = What::Hashed { server: n as u8, life: self.servers[n].life };
        self.servers[n].process.as_mut().expect("it has jobs").hashing = true;
        let takes = 20_000 + self.rng.below(20_000);
        self.schedule.add(self.now + takes, what);
    }

    pub(super) fn hashed(&mut self, n: usize, life: u32) {
        let server = &mut self.servers[n];
        if server.life != life {
            return;
        }
        let Some(process) = &mut server.process else { return };
        process.hashing = false;
        let Some(job) = process.kernel().jobs.pop_front() else { return };
        if !process.kernel().jobs.is_empty() {
            self.hash_next(n);
        }
        self.deliver(n, Incoming::Hashed(job.session, process::hash(&job)));
    }
}

impl Server {
    pub(super) fn hashing(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.hashing)
    }
}

/// The time, as names of files have it.
fn label(now: u64) -> String {
    now.to_string()
}
