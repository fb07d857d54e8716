//! What a server remembers of other disks: their newest starts, by which a copy of a directory is
//! told from the directory.

use crate::limits::{RUNS_KEPT, SEEN_MAX};
use crate::names::{DiskId, Incarnation, ProcessId, Run};
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

/// Whether a disk with these newest starts can't have been started as `known`. Of starts before
/// the oldest of them nothing is known.
pub(super) fn lacks(runs: &[Run], known: Run) -> bool {
    let listed = runs.first().is_some_and(|oldest| oldest.incarnation <= known.incarnation);
    known.process != ProcessId::UNKNOWN && listed && !runs.contains(&known)
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

/// The newest starts of each of the last [`SEEN_MAX`] disks that were seen, the latest seen last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<(DiskId, Vec<Run>)>);

impl Seen {
    /// The newest starts of `disk`, in order, as it told them when it was seen last.
    pub fn of(&self, disk: DiskId) -> Option<&[Run]> {
        self.0.iter().find(|(known, _)| *known == disk).map(|(_, runs)| &runs[..])
    }

    /// Notes a disk with its newest starts; whether the newest is another one than before.
    pub fn note(&mut self, disk: DiskId, runs: &[Run]) -> bool {
        let news = !runs.is_empty() && self.of(disk).and_then(<[Run]>::last) != runs.last();
        let known = self.0.iter().position(|(known, _)| *known == disk);
        let known = known.map(|at| self.0.remove(at));
        let latest = if news { Some((disk, runs.to_vec())) } else { known };
        self.0.extend(latest);
        let surplus = self.0.len().saturating_sub(SEEN_MAX);
        self.0.drain(..surplus);
        news
    }

    /// Whether the life of `disk` that was seen surely lacks this run.
    pub(super) fn is_other_life(&self, disk: DiskId, run: Run) -> bool {
        self.of(disk).is_some_and(|runs| lacks(runs, run))
    }

    /// All disks and their starts.
    pub fn all(&self) -> &[(DiskId, Vec<Run>)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!((seen.of(DiskId(5)), seen.of(DiskId(7))), (Some(&runs[..]), None));
    }
}
