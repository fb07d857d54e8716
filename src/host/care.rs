//! The care of sealed segments: a slow check of all of them, again and again, and the repair of
//! what is damaged, with entries of other servers.

use crate::ids::SegmentId;
use crate::limits::{DAMAGED_TIME, SCRUB_BYTES};
use crate::node::Wanted;
use crate::store::disk::Disk;
use crate::store::{Damage, FileJob, Rewrite, Rewritten, Store, Verified, VerifiedTo};
use crate::time::{Moment, WallTime};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::time::Duration;

/// How fast and how often sealed segments are read.
#[derive(Clone, Copy, Debug)]
pub struct ScrubSettings {
    /// Bytes in a second; 0: never.
    pub bytes_per_second: u64,
    /// The time from the beginning of one round to that of the next one.
    pub round: Duration,
}

/// What a job of this care does.
#[derive(Clone, Copy, Debug)]
pub(super) enum CareJob {
    /// Reads the next part of the round.
    Scrub,
    /// Reads a segment in which a read has failed, or that was written anew.
    Verify(SegmentId),
    /// Writes a damaged segment anew.
    Rewrite,
}

/// The entries that a rewrite needs.
#[derive(Clone, Debug, Default)]
enum Fetch {
    /// Another server is to be asked for them.
    #[default]
    Needed,
    /// These records arrived.
    Arrived(Vec<u8>),
    /// They are being written, or there is nothing to ask for.
    Taken,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Care {
    settings: ScrubSettings,
    /// When the round began, and the place of the segment that is read next; `None` between two
    /// rounds.
    round: Option<(Moment, usize)>,
    /// How far that segment is read.
    read_to: Option<VerifiedTo>,
    /// When the next part, or the next round, is due.
    due: Moment,
    /// When the last round ended.
    last_round: Option<WallTime>,
    /// What is damaged in each segment.
    damage: BTreeMap<SegmentId, Vec<Damage>>,
    /// The segment that is being written anew, unless a step of that runs.
    rewrite: Option<Rewrite>,
    /// The segment that could not be written anew. The next one comes first then.
    failed: Option<SegmentId>,
    fetch: Fetch,
    /// No rewrite begins or goes on before this.
    repair_at: Moment,
    /// How many damaged entries the segments had that are written anew and not verified since.
    put_back: BTreeMap<SegmentId, u64>,
    /// No segment in which a read has failed is read before this.
    verify_at: Moment,
    /// How many entries were repaired since the start.
    pub(super) repaired: u64,
}

impl Care {
    pub(super) fn new(settings: ScrubSettings) -> Care {
        Care {
            settings,
            round: None,
            read_to: None,
            due: Moment(0),
            last_round: None,
            damage: BTreeMap::new(),
            rewrite: None,
            failed: None,
            fetch: Fetch::Needed,
            repair_at: Moment(0),
            put_back: BTreeMap::new(),
            verify_at: Moment(0),
            repaired: 0,
        }
    }

    /// When the last round ended.
    pub(super) fn last_round(&self) -> Option<WallTime> {
        self.last_round
    }

    /// How many entries are known to be damaged.
    pub(super) fn unrepaired(&self) -> u64 {
        self.damage.values().flatten().map(|part| part.next.0.saturating_sub(part.first.0)).sum()
    }

    /// Whether anything is known to be damaged, or was until a repair that is not verified.
    pub(super) fn is_damaged(&self) -> bool {
        !self.damage.is_empty() || !self.put_back.is_empty()
    }

    /// The entries that another server is to be asked for.
    pub(super) fn wanted(&self, now: Moment) -> Option<Wanted> {
        let is_needed = matches!(self.fetch, Fetch::Needed) && now >= self.repair_at;
        let lacks = self.rewrite.as_ref().filter(|_| is_needed)?.lacks();
        lacks.map(|(first, last)| Wanted { first, last })
    }

    /// Takes records that another server has sent: the first of those that are wanted.
    pub(super) fn take(&mut self, records: Vec<u8>) {
        if let (Fetch::Needed, Some(_)) = (&self.fetch, &self.rewrite) {
            self.fetch = Fetch::Arrived(records);
        }
    }

    /// When the next job is due; `None` if there is nothing to do.
    pub(super) fn deadline(&self, store: &Store<impl Disk>) -> Option<Moment> {
        let rewrite = match (&self.fetch, &self.rewrite) {
            (Fetch::Arrived(_), _) => Some(Moment(0)),
            (Fetch::Needed, Some(rewrite)) if rewrite.lacks().is_some() => None,
            _ => Some(self.repair_at).filter(|_| !self.damage.is_empty()),
        };
        let verify = store.has_suspects().then_some(self.verify_at);
        let rests = self.settings.bytes_per_second == 0 || self.is_damaged();
        let scrub = Some(self.due).filter(|_| !rests && store.sealed_segments() > 0);
        [rewrite, verify, scrub].into_iter().flatten().min()
    }

    /// When entries are needed again of which those that came did not fit.
    pub(super) fn retry_at(&self) -> Option<Moment> {
        let lacks = self.rewrite.as_ref().is_some_and(|rewrite| rewrite.lacks().is_some());
        (lacks && matches!(self.fetch, Fetch::Needed)).then_some(self.repair_at)
    }

    /// Returns the segment whose next part is to be written anew, with entries of other servers, if
    /// any are needed.
    pub(super) fn next_rewrite(
        &mut self,
        now: Moment,
        store: &Store<impl Disk>,
    ) -> Option<(Rewrite, Vec<u8>)> {
        if self.rewrite.is_none() && now >= self.repair_at {
            let after = self.failed.map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.damage.range((after, Bound::Unbounded)).next();
            let next = next.or(self.damage.first_key_value());
            self.rewrite = next.and_then(|(_, damage)| store.begin_rewrite(damage.clone()));
            self.fetch = Fetch::Needed;
        }
        let rewrite = self.rewrite.as_ref()?;
        let records = match &mut self.fetch {
            Fetch::Arrived(records) => std::mem::take(records),
            Fetch::Needed if rewrite.lacks().is_none() && now >= self.repair_at => Vec::new(),
            _ => return None,
        };
        self.fetch = Fetch::Taken;
        Some((rewrite.clone(), records))
    }

    /// Returns the job that reads a segment where something is wrong.
    pub(super) fn suspect_job(
        &mut self,
        now: Moment,
        store: &Store<impl Disk>,
    ) -> Option<(CareJob, FileJob)> {
        if now < self.verify_at {
            return None;
        }
        // Where damage is known, reads fail until it is repaired.
        let waits = |id: &SegmentId| self.damage.contains_key(id);
        let id = std::iter::from_fn(|| store.take_suspect()).find(|id| !waits(id))?;
        Some((CareJob::Verify(id), store.verify_job(id, None, u64::MAX)?))
    }

    /// Returns the job that reads the next part, if it is time for it.
    pub(super) fn scrub_job(
        &mut self,
        now: Moment,
        store: &Store<impl Disk>,
    ) -> Option<(CareJob, FileJob)> {
        if now < self.due || self.settings.bytes_per_second == 0 || self.is_damaged() {
            return None;
        }
        let (_, at) = *self.round.get_or_insert((now, 0));
        let job =
            store.segment_id(at).and_then(|id| store.verify_job(id, self.read_to, SCRUB_BYTES));
        if job.is_none() {
            // The log was cut.
            (self.round, self.read_to, self.due) = (None, None, now + self.settings.round);
        }
        job.map(|job| (CareJob::Scrub, job))
    }

    /// Handles the end of a read. Returns whether the index file of the segment is lost.
    pub(super) fn on_verified(
        &mut self,
        (now, wall): (Moment, WallTime),
        job: CareJob,
        id: SegmentId,
        verified: Verified,
        store: &Store<impl Disk>,
    ) -> bool {
        let Verified { rest, bytes, damage, index_is_lost } = verified;
        if let CareJob::Scrub = job {
            self.advance((now, wall), rest, bytes, store);
        }
        if rest.is_some() {
            return false;
        }
        let put_back = self.put_back.remove(&id);
        let was_put_back = put_back.is_some();
        if let Some(entries) = put_back.filter(|_| damage.is_empty()) {
            self.repaired += entries;
            log::info!("a damaged part of the log is repaired: {entries} entries of other servers");
        }
        for Damage { first, next, why, .. } in &damage {
            match first < next {
                true => log::error!(
                    "entries {first} to {} are damaged ({why}): other servers are asked for them",
                    next.before()
                ),
                false => log::error!("before entry {first}: {why}: the segment is written anew"),
            }
        }
        if was_put_back && !damage.is_empty() {
            // What was put back did not help.
            self.repair_at = now + DAMAGED_TIME;
        }
        match damage.is_empty() {
            true => self.damage.remove(&id),
            false => self.damage.insert(id, damage),
        };
        index_is_lost
    }

    /// Plans the next part of the round.
    fn advance(
        &mut self,
        (now, wall): (Moment, WallTime),
        rest: Option<VerifiedTo>,
        bytes: u64,
        store: &Store<impl Disk>,
    ) {
        self.read_to = rest;
        let pause = bytes.saturating_mul(1_000_000) / self.settings.bytes_per_second.max(1);
        self.due = now + Duration::from_micros(pause);
        let Some((began, at)) = &mut self.round else { return };
        if rest.is_none() {
            *at += 1;
        }
        if *at >= store.sealed_segments() {
            self.due = self.due.max(*began + self.settings.round);
            (self.round, self.last_round) = (None, Some(wall));
        }
    }

    /// Handles the end of a step of a rewrite.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn on_rewritten(
        &mut self,
        rewritten: Rewritten,
        store: &mut Store<impl Disk>,
    ) -> io::Result<()> {
        self.fetch = Fetch::Needed;
        match rewritten {
            Rewritten::Part(rewrite) => self.rewrite = Some(rewrite),
            Rewritten::Whole(new) => {
                self.rewrite = None;
                // Also if the disk fails: the old damage may describe the old file.
                self.damage.remove(&new.id);
                self.put_back.insert(new.id, new.entries);
                store.note_suspect(new.id);
                store.put_rewritten(&new)?;
            }
        }
        Ok(())
    }

    /// Handles a job that has failed: what was sent does not fit, or the disk does not work.
    pub(super) fn on_failed(&mut self, now: Moment, job: CareJob, store: &Store<impl Disk>) {
        let later = now + DAMAGED_TIME;
        match job {
            CareJob::Scrub => self.due = later,
            CareJob::Verify(id) => {
                store.note_suspect(id);
                self.verify_at = later;
            }
            CareJob::Rewrite => self.postpone_repair(later),
        }
    }

    /// Begins the repair again, at `until`.
    pub(super) fn postpone_repair(&mut self, until: Moment) {
        self.failed = self.rewrite.take().map(|rewrite| rewrite.id());
        (self.repair_at, self.fetch) = (until, Fetch::Needed);
    }
}
