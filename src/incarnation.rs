//! A server's record of other disks: their newest starts, which distinguish a copy of a directory
//! from the original.

use crate::ids::{DiskId, ProcessId, Run};
use crate::limits::{COPIES_MAX, SEEN_MAX};
use crate::rules::Rule;

/// Returns whether a disk with these newest starts was certainly never started as `known`. Starts
/// before the oldest listed one are unknown.
fn lacks(runs: &[Run], known: Run) -> bool {
    let listed = runs.first().is_some_and(|oldest| oldest.incarnation <= known.incarnation);
    known.process != ProcessId::UNKNOWN && listed && !runs.contains(&known)
}

/// The record of another disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenDisk {
    /// The disk.
    pub disk: DiskId,
    /// Its newest starts, oldest first, from the last hello that was accepted; empty if none was.
    pub runs: Vec<Run>,
    /// The newest start of each copy that was refused, at most [`COPIES_MAX`]. It identifies a
    /// copy whose hello no longer lists the starts at which it diverged from the disk.
    pub copies: Vec<Run>,
}

impl SeenDisk {
    /// Returns the record of a disk that was accepted with these newest starts and has no known
    /// copies.
    pub fn new(disk: DiskId, runs: Vec<Run>) -> SeenDisk {
        SeenDisk { disk, runs, copies: Vec::new() }
    }
}

/// The records of the last [`SEEN_MAX`] disks, the most recently recorded last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<SeenDisk>);

impl Seen {
    /// Returns the record of `disk`.
    pub fn of(&self, disk: DiskId) -> Option<&SeenDisk> {
        self.0.iter().find(|seen| seen.disk == disk)
    }

    /// Returns the newest accepted start of `disk`.
    pub fn newest(&self, disk: DiskId) -> Option<Run> {
        self.of(disk).and_then(|seen| seen.runs.last().copied())
    }

    /// Returns all records.
    pub fn all(&self) -> &[SeenDisk] {
        &self.0
    }

    /// Replaces the record of the same disk. Returns whether the record changed.
    pub fn put(&mut self, new: SeenDisk) -> bool {
        let known = self.0.iter().position(|seen| seen.disk == new.disk);
        let known = known.map(|at| self.0.remove(at));
        let news = known.is_none_or(|known| known != new);
        self.0.push(new);
        let surplus = self.0.len().saturating_sub(SEEN_MAX);
        self.0.drain(..surplus);
        news
    }

    /// Records that a disk was accepted with these newest starts. Returns whether its newest
    /// start changed.
    pub(crate) fn note(&mut self, disk: DiskId, runs: &[Run]) -> bool {
        let mut new = self.of_or_new(disk);
        let news = !runs.is_empty() && new.runs.last() != runs.last();
        if news {
            new.runs = runs.to_vec();
        }
        new.copies.retain(|copy| !runs.contains(copy));
        self.put(new);
        news
    }

    /// Records the newest start of a copy of `disk` that is refused.
    pub(crate) fn note_copy(&mut self, disk: DiskId, runs: &[Run]) {
        let mut new = self.of_or_new(disk);
        if !runs.last().is_none_or(|run| new.copies.contains(run)) {
            new.copies.retain(|copy| !runs.contains(copy));
            new.copies.extend(runs.last());
            let surplus = new.copies.len().saturating_sub(COPIES_MAX);
            new.copies.drain(..surplus);
        }
        self.put(new);
    }

    fn of_or_new(&self, disk: DiskId) -> SeenDisk {
        self.of(disk).cloned().unwrap_or_else(|| SeenDisk::new(disk, Vec::new()))
    }

    /// Returns whether the directory that was last accepted as `disk` was certainly never started
    /// as `run`.
    pub(crate) fn is_other_life(&self, disk: DiskId, run: Run) -> bool {
        self.of(disk).is_some_and(|seen| lacks(&seen.runs, run))
    }

    /// Returns why a directory of `disk` with these newest starts is an old copy, if it is one.
    /// It is either an earlier state of the disk, or a copy that was started after it was made.
    /// `added` is the run with which the group last added the disk.
    ///
    /// A server with the entry that adds the disk relies on that run and on its successors. A
    /// recorded start is one of these successors, or it belongs to a directory that the group has
    /// given up. In the latter case the group dropped the disk before it added the copy, so
    /// nothing that the given-up directory acknowledged or voted for later counts.
    ///
    /// A refused copy stays refused while its hello lists the recorded start, however often it is
    /// started. The group may still add it.
    pub(crate) fn copy_rule(&self, disk: DiskId, runs: &[Run], added: Option<Run>) -> Option<Rule> {
        if added.is_some_and(|added| lacks(runs, added)) {
            return Some(Rule::RefusedCopy);
        }
        let (seen, now) = (self.of(disk)?, runs.last()?);
        let newest = seen.runs.last().copied();
        let given_up = added.is_some_and(|added| self.is_other_life(disk, added));
        let is_added = added.is_some_and(|added| runs.contains(&added));
        if is_added && (given_up || newest.is_none()) {
            return None;
        }
        if newest.is_some_and(|newest| runs.contains(&newest)) {
            return given_up.then_some(Rule::RefusedCopy);
        }
        if seen.copies.iter().any(|copy| runs.contains(copy)) {
            return Some(Rule::RefusedCopy);
        }
        let newest = newest?;
        if now.incarnation < newest.incarnation {
            return Some(Rule::RefusedOldIncarnation);
        }
        lacks(runs, newest).then_some(Rule::RefusedCopy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::limits::RUNS_KEPT;

    const DISK: DiskId = DiskId(5);

    fn run(incarnation: u64, process: u64) -> Run {
        Run { incarnation: Incarnation(incarnation), process: ProcessId(process) }
    }

    #[test]
    fn only_a_run_that_should_be_listed_is_lacking() {
        let runs = [run(3, 30), run(4, 40), run(6, 60)];
        for (known, lacking) in [
            (run(3, 30), false),
            (run(4, 40), false),
            (run(4, 41), true),
            (run(5, 50), true),
            (run(6, 61), true),
            (run(2, 20), false),
            (run(7, 70), true),
            (Run { process: ProcessId::UNKNOWN, ..run(4, 0) }, false),
        ] {
            assert_eq!(lacks(&runs, known), lacking, "{known:?}");
        }
    }

    /// The group relies on the run that it added last. Starts of another directory are given up
    /// only if it certainly is another one.
    #[test]
    fn a_copy_that_was_added_since_is_the_disk() {
        let (old, copy) = (Some(Rule::RefusedOldIncarnation), Some(Rule::RefusedCopy));
        let runs = [run(3, 30), run(4, 41), run(5, 51)];
        let later = [run(3, 30), run(4, 40), run(5, 50), run(6, 60)];
        for (added, seen, found) in [
            (None, &[] as &[Run], None),
            (None, &[run(3, 30)], None),
            (None, &[run(3, 30), run(4, 41)], None),
            (None, &later[..3], copy),
            (None, &later, old),
            // The added run is an earlier one, which both directories share.
            (Some(run(3, 30)), &later[..3], copy),
            (Some(run(3, 30)), &later, old),
            (Some(run(2, 20)), &later, old),
            // The added run is one of the other directory, whatever starts were recorded.
            (Some(run(5, 50)), &[], copy),
            (Some(run(5, 50)), &[run(5, 51)], copy),
            (Some(run(7, 70)), &[run(5, 51)], copy),
            // The added run is one of this directory.
            (Some(run(4, 41)), &later[..3], None),
            (Some(run(5, 51)), &later, None),
            // The added run may be one of both: the recorded starts do not reach that far back.
            (Some(run(4, 41)), &later[2..], old),
            (Some(run(4, 41)), &later[2..3], copy),
        ] {
            let mut known = Seen::default();
            known.note(DISK, seen);
            assert_eq!(known.copy_rule(DISK, &runs, added), found, "{added:?} {seen:?}");
        }
    }

    /// Returns the starts that a directory's hello lists at its start `now`. The directory
    /// diverged from another one after the start `common`; its own process numbers begin with
    /// `life`.
    fn life(life: u64, common: u64, now: u64) -> Vec<Run> {
        let process = |n: u64| if n <= common { n } else { life * 1000 + n };
        let oldest = (now + 1).saturating_sub(RUNS_KEPT as u64).max(1);
        (oldest..=now).map(|n| run(n, process(n))).collect()
    }

    /// A copy is recognized while its hello lists a start that was refused, however often it is
    /// started, and even if the original continues to start.
    #[test]
    fn a_copy_is_recognized_however_often_it_is_started() {
        let copy = Some(Rule::RefusedCopy);
        let added = run(8, 1008);
        for (seen, added) in
            [(life(1, 5, 9), None), (vec![], Some(added)), (life(1, 5, 9), Some(added))]
        {
            let mut known = Seen::default();
            known.note(DISK, &seen);
            let mut late = known.clone();
            for now in 10..100 {
                let (runs, original) = (life(2, 5, now), life(1, 5, now));
                assert_eq!(known.copy_rule(DISK, &runs, added), copy, "{now} {seen:?} {added:?}");
                known.note_copy(DISK, &runs);
                assert_eq!(known.of(DISK).unwrap().copies, runs[runs.len() - 1..]);
                assert_eq!(known.copy_rule(DISK, &life(2, 5, now + 15), added), copy);
                assert_eq!(known.copy_rule(DISK, &original, added), None, "the disk");
                if now % 3 == 0 {
                    let readded = Some(original[original.len() - 1]).filter(|_| now % 2 == 0);
                    known.note(DISK, &original);
                    for added in [None, readded] {
                        assert_eq!(known.copy_rule(DISK, &life(2, 5, now + 15), added), copy);
                        assert_eq!(known.copy_rule(DISK, &life(1, 5, now + 1), added), None);
                    }
                }
            }
            // The list of a copy made more than sixteen starts ago proves nothing by itself; only
            // the record of a refusal does.
            let runs = life(2, 5, 40);
            assert_eq!(late.copy_rule(DISK, &runs, added), None);
            late.note_copy(DISK, &life(3, 5, 30));
            assert_eq!(late.copy_rule(DISK, &runs, added), None, "another copy");
            late.note_copy(DISK, &life(2, 5, 20));
            assert_eq!(late.copy_rule(DISK, &life(2, 5, 35), added), copy);
            assert_eq!(late.copy_rule(DISK, &life(3, 5, 45), added), copy);
            assert_eq!(late.copy_rule(DISK, &life(2, 5, 36), added), None);
        }
    }

    /// The directory that the group gave up is the copy, even when its hello no longer lists the
    /// added run.
    #[test]
    fn the_original_of_a_copy_that_was_added_stays_refused() {
        let mut known = Seen::default();
        known.note(DISK, &life(1, 9, 25));
        let added = Some(run(10, 2010));
        for now in 25..100 {
            let runs = life(1, 9, now);
            assert_eq!(known.copy_rule(DISK, &runs, added), Some(Rule::RefusedCopy), "{now}");
            known.note_copy(DISK, &runs);
        }
        // A server that has met neither directory relies on the addition alone.
        let mut known = Seen::default();
        known.note_copy(DISK, &life(2, 9, 12));
        assert_eq!(known.copy_rule(DISK, &life(2, 9, 13), added), None);
    }

    /// An addition that was recorded and then cut from the log does not refuse a disk
    /// permanently.
    #[test]
    fn the_disk_that_an_addition_refused_returns_when_that_is_cut() {
        let mut known = Seen::default();
        let copy = Some(Rule::RefusedCopy);
        known.note(DISK, &life(1, 5, 9));
        let added = Some(run(7, 2007));
        for now in 10..20 {
            let runs = life(1, 5, now);
            assert_eq!(known.copy_rule(DISK, &runs, added), copy);
            known.note_copy(DISK, &runs);
            assert_eq!(known.copy_rule(DISK, &life(1, 5, now + 15), added), copy, "{now}");
            for added in [None, Some(run(3, 3)), Some(run(8, 1008))] {
                assert_eq!(known.copy_rule(DISK, &runs, added), None, "{now}");
            }
        }
        known.note(DISK, &life(1, 5, 20));
        assert_eq!(known.of(DISK).unwrap().copies, []);
    }

    /// After the addition the group relies on the copy, and the directory that was accepted
    /// before becomes the copy.
    #[test]
    fn a_copy_that_was_refused_and_then_added_is_the_disk() {
        let mut known = Seen::default();
        known.note(DISK, &life(1, 5, 9));
        let added = Some(run(15, 2015));
        for now in 10..=30 {
            let runs = life(2, 5, now);
            assert_eq!(known.copy_rule(DISK, &runs, None), Some(Rule::RefusedCopy));
            known.note_copy(DISK, &runs);
            let rule = known.copy_rule(DISK, &runs, added);
            assert_eq!(rule, (now < 15).then_some(Rule::RefusedCopy), "{now}");
        }
        known.note(DISK, &life(2, 5, 30));
        for now in 30..60 {
            let (runs, other) = (life(2, 5, now), life(1, 5, now));
            assert_eq!(known.copy_rule(DISK, &runs, added), None, "{now}");
            assert_eq!(known.copy_rule(DISK, &other, added), Some(Rule::RefusedCopy), "{now}");
            known.note(DISK, &runs);
            known.note_copy(DISK, &other);
        }
    }

    #[test]
    fn of_each_copy_the_newest_start_is_kept_and_of_few_copies() {
        let mut seen = Seen::default();
        let kept = |seen: &Seen| -> Vec<u64> {
            seen.of(DISK).unwrap().copies.iter().map(|run| run.process.0).collect()
        };
        for copy in 1..=COPIES_MAX as u64 + 1 {
            for now in 6..9 {
                seen.note_copy(DISK, &life(copy, 5, now));
            }
        }
        assert_eq!(kept(&seen), (2..).map(|n| n * 1000 + 8).take(COPIES_MAX).collect::<Vec<_>>());
        let before = seen.clone();
        seen.note_copy(DISK, &life(2, 5, 8));
        assert_eq!(seen, before, "one that is known changes nothing");
        // Accepting a hello removes the starts that it lists from the list of copies.
        seen.note(DISK, &life(3, 5, 9));
        assert_eq!((kept(&seen).len(), kept(&seen).contains(&3008)), (COPIES_MAX - 1, false));
    }

    #[test]
    fn the_starts_that_were_seen_last_are_kept_of_few_disks() {
        let mut seen = Seen::default();
        assert!(!seen.note(DiskId(5), &[]));
        assert!(seen.note(DiskId(5), &[run(3, 30)]));
        assert!(!seen.note(DiskId(5), &[run(2, 20), run(3, 30)]), "the same start");
        assert!(seen.note(DiskId(4), &[run(1, 10)]));
        for disk in 6..4 + SEEN_MAX as u128 {
            assert!(seen.note(DiskId(disk), &[run(1, 10)]));
        }
        // The disk that was recorded least recently is removed, not the one that was started
        // least recently.
        assert!(!seen.note(DiskId(4), &[run(1, 10)]) && !seen.note(DiskId(5), &[run(3, 30)]));
        assert!(seen.note(DiskId(98), &[run(1, 10)]));
        assert!(seen.of(DiskId(4)).is_some() && seen.of(DiskId(6)).is_none());
        // A copy that the group added may have fewer starts.
        let runs = [run(1, 10), run(2, 21)];
        assert!(seen.note(DiskId(5), &runs));
        assert!(seen.note(DiskId(99), &runs));
        assert_eq!(seen.all().len(), SEEN_MAX);
        let same = seen.of(DiskId(99)).unwrap().clone();
        assert!(!seen.put(same.clone()) && seen.put(SeenDisk { disk: DiskId(100), ..same }));
        assert!(seen.note(DiskId(5), &[run(9, 90)]) && seen.note(DiskId(5), &runs));
        assert_eq!(seen.newest(DiskId(5)), Some(runs[1]));
        assert_eq!((&seen.of(DiskId(5)).unwrap().runs, seen.of(DiskId(7))), (&runs.to_vec(), None));
    }
}
