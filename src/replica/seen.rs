//! What a server remembers of other disks: their newest starts, by which a copy of a directory is
//! told from the directory.

use super::rules::Rule;
use crate::ids::{DiskId, Incarnation, ProcessId, Run};
use crate::limits::{COPIES_MAX, RUNS_KEPT, SEEN_MAX};
use byteorder::{LE, ReadBytesExt, WriteBytesExt};
use std::io;

impl Run {
    /// Writes it as hellos and identities hold it.
    pub(crate) fn write(self, out: &mut Vec<u8>) -> io::Result<()> {
        out.write_u64::<LE>(self.incarnation.0)?;
        out.write_u64::<LE>(self.process.0)
    }

    /// Reads what [`Run::write`] wrote.
    pub(crate) fn read(rest: &mut &[u8]) -> io::Result<Run> {
        let incarnation = Incarnation(rest.read_u64::<LE>()?);
        Ok(Run { incarnation, process: ProcessId(rest.read_u64::<LE>()?) })
    }
}

/// Writes at most [`RUNS_KEPT`] runs as hellos and identities hold them.
pub(crate) fn write_runs(out: &mut Vec<u8>, runs: &[Run]) -> io::Result<()> {
    out.write_u8(runs.len() as u8)?;
    runs.iter().try_for_each(|run| run.write(out))
}

/// Reads what [`write_runs`] wrote.
pub(crate) fn read_runs(rest: &mut &[u8]) -> io::Result<Vec<Run>> {
    let count = usize::from(rest.read_u8()?);
    if count > RUNS_KEPT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    (0..count).map(|_| Run::read(rest)).collect()
}

/// Whether a disk with these newest starts can't have been started as `known`. Of starts before
/// the oldest of them nothing is known.
fn lacks(runs: &[Run], known: Run) -> bool {
    let listed = runs.first().is_some_and(|oldest| oldest.incarnation <= known.incarnation);
    known.process != ProcessId::UNKNOWN && listed && !runs.contains(&known)
}

/// What is remembered of another disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenDisk {
    /// Which disk.
    pub disk: DiskId,
    /// Its newest starts, in order, as it told them when it was let in last; none if it never was.
    pub runs: Vec<Run>,
    /// Of each of the copies that were refused last the newest start, at most [`COPIES_MAX`]. By it
    /// a copy is recognized when its hello no longer reaches back to where it parted from the disk.
    pub copies: Vec<Run>,
}

impl SeenDisk {
    /// A disk that was let in with these newest starts, and of which no copy is known.
    pub fn new(disk: DiskId, runs: Vec<Run>) -> SeenDisk {
        SeenDisk { disk, runs, copies: Vec::new() }
    }
}

/// What is remembered of the last [`SEEN_MAX`] disks, the latest seen last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<SeenDisk>);

impl Seen {
    /// What is remembered of `disk`.
    pub fn of(&self, disk: DiskId) -> Option<&SeenDisk> {
        self.0.iter().find(|seen| seen.disk == disk)
    }

    /// The newest start of `disk` that was let in.
    pub fn newest(&self, disk: DiskId) -> Option<Run> {
        self.of(disk).and_then(|seen| seen.runs.last().copied())
    }

    /// All disks.
    pub fn all(&self) -> &[SeenDisk] {
        &self.0
    }

    /// Takes the place of what was remembered of the same disk; whether it is another thing.
    pub fn put(&mut self, new: SeenDisk) -> bool {
        let known = self.0.iter().position(|seen| seen.disk == new.disk);
        let known = known.map(|at| self.0.remove(at));
        let news = known.is_none_or(|known| known != new);
        self.0.push(new);
        let surplus = self.0.len().saturating_sub(SEEN_MAX);
        self.0.drain(..surplus);
        news
    }

    /// Notes a disk that is let in with these newest starts; whether the newest is another one than
    /// before.
    pub(super) fn note(&mut self, disk: DiskId, runs: &[Run]) -> bool {
        let mut new = self.of_or_new(disk);
        let news = !runs.is_empty() && new.runs.last() != runs.last();
        if news {
            new.runs = runs.to_vec();
        }
        new.copies.retain(|copy| !runs.contains(copy));
        self.put(new);
        news
    }

    /// Remembers a copy of `disk` that is refused, by its newest start.
    pub(super) fn note_copy(&mut self, disk: DiskId, runs: &[Run]) {
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

    /// Whether what was let in last of `disk` surely has never been started as `run`.
    pub(super) fn is_other_life(&self, disk: DiskId, run: Run) -> bool {
        self.of(disk).is_some_and(|seen| lacks(&seen.runs, run))
    }

    /// Why a directory of `disk` with these newest starts is an old copy, if it is one: an earlier
    /// life of the disk, or a copy that has been started since it was made. `added` is the run as
    /// which the group added the disk last.
    ///
    /// Whoever has the entry that adds the disk counts on that run and on what follows it. What was
    /// seen besides follows it too, or it is a life that the group has given up: it dropped the
    /// disk before it added the copy, so nothing that this life acknowledged or voted for later
    /// counts.
    ///
    /// A copy that was refused stays one while its hello lists the start by which it is remembered,
    /// however often it was started; the group may add it all the same.
    pub(super) fn copy_rule(&self, disk: DiskId, runs: &[Run], added: Option<Run>) -> Option<Rule> {
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

    /// The group counts on the run that it added last; what was seen of another life is given up
    /// only if that is sure.
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
            // The run that was added is an earlier one, of both.
            (Some(run(3, 30)), &later[..3], copy),
            (Some(run(3, 30)), &later, old),
            (Some(run(2, 20)), &later, old),
            // It is one of the other life, whatever was seen.
            (Some(run(5, 50)), &[], copy),
            (Some(run(5, 50)), &[run(5, 51)], copy),
            (Some(run(7, 70)), &[run(5, 51)], copy),
            // It is one of this life.
            (Some(run(4, 41)), &later[..3], None),
            (Some(run(5, 51)), &later, None),
            // Perhaps of both: what was seen does not reach as far back.
            (Some(run(4, 41)), &later[2..], old),
            (Some(run(4, 41)), &later[2..3], copy),
        ] {
            let mut known = Seen::default();
            known.note(DISK, seen);
            assert_eq!(known.copy_rule(DISK, &runs, added), found, "{added:?} {seen:?}");
        }
    }

    /// The hello of a life that parted from another one after its start `common`, at its start
    /// `now`, the process numbers of which begin with `life`.
    fn life(life: u64, common: u64, now: u64) -> Vec<Run> {
        let process = |n: u64| if n <= common { n } else { life * 1000 + n };
        let oldest = (now + 1).saturating_sub(RUNS_KEPT as u64).max(1);
        (oldest..=now).map(|n| run(n, process(n))).collect()
    }

    /// However often it is started, as long as one of the starts that its hello lists was refused;
    /// also when the disk itself goes on meanwhile.
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
            // The list of a copy made more than sixteen starts ago proves nothing by itself: only
            // the memory of a refusal does.
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

    /// The life that the group gave up is the copy, also when its hello no longer reaches back to
    /// the run that was added.
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
        // Who has met neither life goes by what is added alone.
        let mut known = Seen::default();
        known.note_copy(DISK, &life(2, 9, 12));
        assert_eq!(known.copy_rule(DISK, &life(2, 9, 13), added), None);
    }

    /// An addition that was seen, and then cut from the log again, refuses nobody for good.
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

    /// The group counts on it then, and the life that was seen before is the copy.
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
        // A hello that is let in takes the starts that it lists off the list of copies.
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
        // The one that was seen least lately goes, not the one that was started least lately.
        assert!(!seen.note(DiskId(4), &[run(1, 10)]) && !seen.note(DiskId(5), &[run(3, 30)]));
        assert!(seen.note(DiskId(98), &[run(1, 10)]));
        assert!(seen.of(DiskId(4)).is_some() && seen.of(DiskId(6)).is_none());
        // A copy that was added may have been started less often.
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
