//! The care of sealed segments: a slow check of all of them, again and again, and the repair of
//! what is damaged, with entries of other servers.

use crate::ids::SegmentId;
use crate::limits::{DAMAGED_TIME, SCRUB_BYTES};
use crate::node::Wanted;
use crate::store::disk::Disk;
use crate::store::{Damage, FileJob, Repaired, Store, Verified, VerifiedTo};
use crate::time::{Moment, WallTime};
use std::collections::BTreeMap;
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
    /// Reads a segment in which a read has failed, or that was repaired.
    Verify(SegmentId),
    Repair,
}

/// The entries that a repair needs.
#[derive(Clone, Debug, Default)]
enum Fetch {
    /// Another server is to be asked for them.
    #[default]
    Needed,
    /// These records arrived.
    Arrived(Vec<u8>),
    /// They are being written.
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
    /// What is damaged and not written again yet, the part that is repaired first.
    damage: Vec<Damage>,
    fetch: Fetch,
    /// No repair begins before this.
    repair_at: Moment,
    /// How many entries repairs have put back in segments that are not verified since.
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
            damage: Vec::new(),
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
        self.damage.iter().map(|damage| damage.next.0.saturating_sub(damage.first.0)).sum()
    }

    /// Whether anything is known to be damaged, or was until a repair that is not verified.
    pub(super) fn is_damaged(&self) -> bool {
        !self.damage.is_empty() || !self.put_back.is_empty()
    }

    /// Whether records wait to be written.
    pub(super) fn has_records(&self) -> bool {
        matches!(self.fetch, Fetch::Arrived(_))
    }

    /// The entries that another server is to be asked for.
    pub(super) fn wanted(&self, now: Moment) -> Option<Wanted> {
        let damage = self.damage.first().filter(|damage| damage.first < damage.next)?;
        let is_needed = matches!(self.fetch, Fetch::Needed) && now >= self.repair_at;
        is_needed.then(|| Wanted { first: damage.first, last: damage.next.before() })
    }

    /// Takes records that another server has sent: the first of those that are wanted.
    pub(super) fn take(&mut self, records: Vec<u8>) {
        if let (Fetch::Needed, false) = (&self.fetch, self.damage.is_empty()) {
            self.fetch = Fetch::Arrived(records);
        }
    }

    /// When the next job is due; `None` if there is nothing to do.
    pub(super) fn deadline(&self, store: &Store<impl Disk>) -> Option<Moment> {
        let repair = match self.fetch {
            Fetch::Arrived(_) => Some(Moment(0)),
            _ => Some(self.repair_at).filter(|_| self.needs_no_entries()),
        };
        let verify = store.has_suspects().then_some(self.verify_at);
        let rests = self.settings.bytes_per_second == 0 || self.is_damaged();
        let scrub = Some(self.due).filter(|_| !rests && store.sealed_segments() > 0);
        [repair, verify, scrub].into_iter().flatten().min()
    }

    /// Whether only batch headers are damaged, which are made anew.
    fn needs_no_entries(&self) -> bool {
        self.damage.first().is_some_and(|damage| damage.first == damage.next)
    }

    /// When entries are needed again of which those that came did not fit.
    pub(super) fn retry_at(&self) -> Option<Moment> {
        let lacks = self.damage.first().is_some_and(|damage| damage.first < damage.next);
        (lacks && matches!(self.fetch, Fetch::Needed)).then_some(self.repair_at)
    }

    /// Returns the next job that repairs something or reads where something is wrong.
    pub(super) fn repair_job(
        &mut self,
        now: Moment,
        store: &mut Store<impl Disk>,
    ) -> Option<(CareJob, FileJob)> {
        let needs_nothing = self.needs_no_entries() && now >= self.repair_at;
        let records = match &mut self.fetch {
            Fetch::Arrived(records) => Some(std::mem::take(records)),
            Fetch::Needed if needs_nothing => Some(Vec::new()),
            _ => None,
        };
        if let Some(records) = records {
            let damage = self.damage.first();
            let job = damage.and_then(|damage| store.repair_job(damage.clone(), records));
            self.fetch = if job.is_some() { Fetch::Taken } else { Fetch::Needed };
            return job.map(|job| (CareJob::Repair, job));
        }
        if now < self.verify_at {
            return None;
        }
        // Where damage is known, reads fail until it is repaired.
        let waits = |id: &SegmentId| self.damage.iter().any(|known| known.id == *id);
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
        let before = self.damage.first().cloned();
        self.damage.retain(|known| known.id != id);
        for Damage { first, next, why, .. } in &damage {
            match first < next {
                true => log::error!(
                    "entries {first} to {} are damaged ({why}): other servers are asked for them",
                    next.before()
                ),
                false => log::error!("before entry {first}: {why}: it is written again"),
            }
        }
        if was_put_back && !damage.is_empty() {
            // What was put back did not help.
            self.repair_at = now + DAMAGED_TIME;
        }
        self.damage.extend(damage);
        if self.damage.first() != before.as_ref() {
            self.fetch = Fetch::Needed;
        }
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

    /// Handles the end of a repair, or of a part of it. Returns the segment, and whether it is to
    /// be read again since no part of it is left to repair.
    pub(super) fn on_repaired(&mut self, repaired: Repaired) -> (SegmentId, bool) {
        let damage = self.damage.first_mut().expect("what is being repaired stays first");
        let id = damage.id;
        *self.put_back.entry(id).or_default() += repaired.rest.first.0 - damage.first.0;
        *damage = repaired.rest;
        if damage.is_filled() {
            self.damage.remove(0);
        }
        self.fetch = Fetch::Needed;
        (id, self.damage.iter().all(|left| left.id != id))
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
            CareJob::Repair => self.postpone_repair(later),
        }
    }

    /// Begins no repair before `until`. Another part is repaired first then.
    pub(super) fn postpone_repair(&mut self, until: Moment) {
        self.repair_at = until;
        self.fetch = Fetch::Needed;
        if !self.damage.is_empty() {
            self.damage.rotate_left(1);
        }
    }
}
