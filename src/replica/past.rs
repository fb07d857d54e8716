//! What follows a hello: what its sender's directory and log have been through. It tells a copy of
//! a directory from the directory, and whose history a log descends from.

use super::hello::Hello;
use super::packet::{read_option, read_position, write_option, write_position};
use super::rules::Rule;
use crate::limits::{ANCESTRY_MAX, RUNS_KEPT, SEEN_MAX};
use crate::names::{DiskId, Incarnation, Position, ProcessId, Run};
use byteorder::{LE, ReadBytesExt, WriteBytesExt};
use std::{fmt, io};

/// A lineage, for good: a person may begin two of one number on two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The upper 16 bits of its terms.
    pub number: u16,
    /// The disk of the server that began it.
    pub founder: DiskId,
}

impl Lineage {
    /// Bytes of a lineage as an entry's body holds it.
    const BYTES: usize = 18;

    /// Writes it as the body of an entry of [`crate::record::Kind::REFUSAL`] holds it.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend(self.number.to_le_bytes());
        out.extend(self.founder.0.to_le_bytes());
    }

    /// Reads it from an entry's body.
    pub fn decode(mut body: &[u8]) -> Option<Lineage> {
        if body.len() != Lineage::BYTES {
            return None;
        }
        let number = body.read_u16::<LE>().ok()?;
        Some(Lineage { number, founder: DiskId(body.read_u128::<LE>().ok()?) })
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of disk {}", self.number, self.founder)
    }
}

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

fn bad() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// What was seen of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its newest run.
    pub run: Run,
    /// The newest entry that adds the disk to the group, as that run and those before knew it at
    /// their starts; `None` when it was not asked for.
    pub added: Option<Position>,
}

impl Sighting {
    /// Writes it as identities hold it.
    pub(crate) fn write(self, out: &mut Vec<u8>) -> io::Result<()> {
        self.run.write(out)?;
        write_option(out, self.added, write_position)
    }

    /// Reads what [`Sighting::write`] wrote.
    pub(crate) fn read(rest: &mut &[u8]) -> io::Result<Sighting> {
        let run = Run::read(rest)?;
        let added = read_option(rest, read_position).map_err(|_| bad())?;
        Ok(Sighting { run, added })
    }

    /// Whether the group has added the disk again after this was seen.
    ///
    /// Before that it had dropped it: what the disk had acknowledged until then was no longer
    /// counted on, nor were its votes. A copy lacks what was seen, and holds that addition: so it
    /// was the copy that was added, and it is the disk from then on.
    fn is_before(&self, added: Position) -> bool {
        self.added.is_some_and(|known| added > known)
    }
}

/// What was seen of the last [`SEEN_MAX`] disks, the latest seen last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<(DiskId, Sighting)>);

impl Seen {
    /// What was seen of `disk`.
    pub fn of(&self, disk: DiskId) -> Option<Sighting> {
        self.0.iter().find(|(known, _)| *known == disk).map(|(_, sighting)| *sighting)
    }

    /// Notes that a disk was seen; whether that was news.
    pub fn note(&mut self, disk: DiskId, new: Sighting) -> bool {
        let known = self.of(disk);
        let again = known.zip(new.added).is_some_and(|(known, added)| known.is_before(added));
        if !again && known.is_some_and(|known| known.run.incarnation >= new.run.incarnation) {
            return false;
        }
        // A log whose end was cut may know of less.
        let added = new.added.max(known.and_then(|known| known.added));
        self.0.retain(|(known, _)| *known != disk);
        self.0.push((disk, Sighting { added, ..new }));
        let surplus = self.0.len().saturating_sub(SEEN_MAX);
        self.0.drain(..surplus);
        true
    }

    /// All disks, and what was seen of them.
    pub fn all(&self) -> &[(DiskId, Sighting)] {
        &self.0
    }
}

/// What a server's directory and log have been through, as its hello tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The newest starts of the sender's disk, in order, this one included.
    pub runs: Vec<Run>,
    /// The newest lineages that the sender's log holds, in order.
    pub lineages: Vec<Lineage>,
    /// The sender has set directories aside that may hold what clients were told is stored: the
    /// best of their last entries.
    pub former: Option<Position>,
    /// The newest entry of the sender's log that adds its disk to the group; zero when none does.
    pub added: Position,
}

impl Past {
    /// Appends its bytes to `out`; on the link they follow the hello.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(out).expect("a vector takes every byte");
    }

    fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        out.write_u8(self.runs.len() as u8)?;
        self.runs.iter().try_for_each(|run| run.write(out))?;
        out.write_u8(self.lineages.len() as u8)?;
        self.lineages.iter().for_each(|lineage| lineage.encode(out));
        write_option(out, self.former, write_position)?;
        write_position(out, self.added)
    }

    /// Reads what follows `hello`; `None` when it can't be that.
    pub(super) fn decode(mut bytes: &[u8], hello: &Hello) -> Option<Past> {
        let past = Past::read(&mut bytes).ok()?;
        let own = Run { incarnation: hello.incarnation, process: hello.process };
        let follow = past.runs.windows(2).all(|two| two[0].incarnation < two[1].incarnation);
        (bytes.is_empty() && follow && past.runs.last() == Some(&own)).then_some(past)
    }

    fn read(rest: &mut &[u8]) -> io::Result<Past> {
        let mut past = Past::default();
        let runs = usize::from(rest.read_u8()?);
        for _ in 0..Some(runs).filter(|n| *n <= RUNS_KEPT).ok_or_else(bad)? {
            past.runs.push(Run::read(rest)?);
        }
        let lineages = usize::from(rest.read_u8()?);
        for _ in 0..Some(lineages).filter(|n| *n <= ANCESTRY_MAX).ok_or_else(bad)? {
            let (body, behind) = rest.split_at_checked(Lineage::BYTES).ok_or_else(bad)?;
            past.lineages.push(Lineage::decode(body).ok_or_else(bad)?);
            *rest = behind;
        }
        past.former = read_option(rest, read_position).map_err(|_| bad())?;
        past.added = read_position(rest).map_err(|_| bad())?;
        Ok(past)
    }

    /// Whether the sender's directory is another one than the one that was seen: an earlier life of
    /// it, or a copy that was made before that and has been started since. One that the group has
    /// added again since then is not.
    pub(super) fn differs(&self, seen: Sighting) -> Option<Rule> {
        let now = self.runs.last().map(|run| run.incarnation);
        if seen.is_before(self.added) {
            None
        } else if now < Some(seen.run.incarnation) {
            Some(Rule::RefusedOldIncarnation)
        } else {
            self.lacks(seen.run).then_some(Rule::RefusedCopy)
        }
    }

    /// Whether the sender's disk can't have been started as `known`: it is a copy that was made
    /// before that. Of starts before the oldest that is listed nothing is known.
    fn lacks(&self, known: Run) -> bool {
        let listed =
            self.runs.first().is_some_and(|oldest| oldest.incarnation <= known.incarnation);
        known.process != ProcessId::UNKNOWN && listed && !self.runs.contains(&known)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hello::sample_hello;
    use super::*;
    use crate::limits::FIRST_BYTES_MAX;
    use crate::names::{Index, Term};
    use crate::replica::Packet;

    fn run(incarnation: u64, process: u64) -> Run {
        Run { incarnation: Incarnation(incarnation), process: ProcessId(process) }
    }

    fn at(term: u64, index: u64) -> Position {
        Position { term: Term(term), index: Index(index) }
    }

    fn largest() -> (Hello, Past) {
        let runs: Vec<Run> = (1..=RUNS_KEPT as u64).map(|n| run(n, n + 100)).collect();
        let own = *runs.last().unwrap();
        let lineage = |number: u16| Lineage { number, founder: DiskId(number.into()) };
        let lineages = (1..=ANCESTRY_MAX as u16).map(lineage).collect();
        let former = Some(at(3, 4));
        let hello = sample_hello();
        let hello = Hello { incarnation: own.incarnation, process: own.process, ..hello };
        (hello, Past { runs, lineages, former, added: at(2, 5) })
    }

    #[test]
    fn it_survives_its_bytes_and_nothing_else_does() {
        let (hello, past) = largest();
        let mut bytes = Vec::new();
        past.encode(&mut bytes);
        assert_eq!(Past::decode(&bytes, &hello), Some(past.clone()));
        for length in 0..bytes.len() {
            assert_eq!(Past::decode(&bytes[..length], &hello), None, "{length} bytes");
        }
        bytes.push(0);
        assert_eq!(Past::decode(&bytes, &hello), None);
        let other = Hello { process: ProcessId(9), ..hello };
        assert_eq!(Past::decode(&bytes[..bytes.len() - 1], &other), None, "another run");
        let mut first = Vec::new();
        Packet::Hello(Hello { founder: Some(DiskId(1)), ..hello }).encode(&mut first);
        assert!(first.len() + bytes.len() + 4 <= FIRST_BYTES_MAX, "{}", first.len() + bytes.len());
    }

    #[test]
    fn only_a_run_that_should_be_listed_proves_a_copy() {
        let past = Past { runs: vec![run(3, 30), run(4, 40), run(6, 60)], ..Past::default() };
        for (known, lacks) in [
            (run(3, 30), false),
            (run(4, 40), false),
            (run(4, 41), true),
            (run(5, 50), true),
            (run(6, 61), true),
            (run(2, 20), false),
            (run(7, 70), true),
            (Run { process: ProcessId::UNKNOWN, ..run(4, 0) }, false),
        ] {
            assert_eq!(past.lacks(known), lacks, "{known:?}");
        }
    }

    /// What the group has added again is what it counts on, whatever was seen before that.
    #[test]
    fn a_copy_that_was_added_since_is_the_disk() {
        let past = Past { runs: vec![run(3, 30), run(4, 40)], added: at(5, 9), ..Past::default() };
        let (old, copy) = (Some(Rule::RefusedOldIncarnation), Some(Rule::RefusedCopy));
        for (known, added, found) in [
            (run(4, 40), Some(at(5, 9)), None),
            (run(4, 41), Some(at(5, 9)), copy),
            (run(5, 50), Some(at(5, 9)), old),
            (run(5, 50), Some(at(6, 8)), old),
            (run(5, 50), None, old),
            (run(4, 41), None, copy),
            (run(5, 50), Some(at(5, 8)), None),
            (run(4, 41), Some(at(4, 90)), None),
            (run(4, 41), Some(at(0, 0)), None),
        ] {
            let seen = Sighting { run: known, added };
            assert_eq!(past.differs(seen), found, "{seen:?}");
        }
        let lost = Past { added: at(0, 0), ..past };
        let seen = Sighting { run: run(5, 50), added: Some(at(0, 0)) };
        assert_eq!(lost.differs(seen), old, "no log says where it was added");
    }

    #[test]
    fn what_was_seen_last_is_the_later_run_or_the_later_addition() {
        let disk = DiskId(5);
        let known = Sighting { run: run(4, 40), added: Some(at(5, 9)) };
        let sighting = |incarnation, added| Sighting { run: run(incarnation, 7), added };
        for (new, kept) in [
            (known, None),
            (sighting(4, Some(at(5, 9))), None),
            (sighting(3, Some(at(5, 8))), None),
            (sighting(3, None), None),
            (sighting(3, Some(at(6, 1))), Some(at(6, 1))),
            (sighting(5, Some(at(5, 9))), Some(at(5, 9))),
            // The end of its log was cut, or its log is gone: what it was added for once stays.
            (sighting(5, Some(at(5, 2))), Some(at(5, 9))),
            (sighting(5, None), Some(at(5, 9))),
        ] {
            let mut seen = Seen::default();
            assert!(seen.note(disk, known));
            assert_eq!(seen.note(disk, new), kept.is_some(), "{new:?}");
            let wanted = kept.map_or(known, |at| Sighting { added: Some(at), ..new });
            assert_eq!(seen.all(), [(disk, wanted)], "{new:?}");
        }
    }
}
