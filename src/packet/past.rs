//! The data that follows a hello: the past of the sender's directory and log. Its starts
//! distinguish a copy of a directory from the original. Its epochs show from which log the
//! sender's log descends.

use super::hello::Hello;
use crate::fields::{Field, fields, read_all, read_list, write_list};
use crate::ids::{DiskId, Position, Run};
use crate::limits::{ANCESTRY_MAX, RUNS_KEPT};
use std::fmt;

/// Identifies an epoch. The number is not enough: operators may begin two epochs with the same
/// number on two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The upper 16 bits of its terms.
    pub number: u16,
    /// The disk of the server that began it.
    pub founder: DiskId,
}

fields!(Epoch { number, founder });

impl Epoch {
    /// Appends the epoch as the body of an entry of [`crate::record::Kind::REFUSAL`].
    pub fn encode(self, out: &mut Vec<u8>) {
        self.write(out);
    }

    /// Reads an epoch from an entry's body.
    pub fn decode(body: &[u8]) -> Option<Epoch> {
        read_all(body)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of disk {}", self.number, self.founder)
    }
}

/// The past of a server's directory and log. It follows the server's hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The newest starts of the sender's disk, oldest first, this one included.
    pub runs: Vec<Run>,
    /// The newest epochs that the sender's log holds, oldest first.
    pub epochs: Vec<Epoch>,
    /// The best last entry among the directories that the sender has quarantined and that may
    /// hold acknowledged messages.
    pub former: Option<Position>,
    /// The run with which the sender's log last adds the sender's disk.
    pub added: Option<Run>,
}

impl Past {
    /// Appends the encoded past to `out`; on a link it follows the hello.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_list(&self.runs, out);
        write_list(&self.epochs, out);
        self.former.write(out);
        self.added.write(out);
    }

    /// Reads the bytes after `hello`; returns `None` if they are invalid or contradict it.
    pub(crate) fn decode(mut bytes: &[u8], hello: &Hello) -> Option<Past> {
        let runs: Vec<Run> = read_list(&mut bytes, RUNS_KEPT)?;
        let epochs = read_list(&mut bytes, ANCESTRY_MAX)?;
        let (former, added) = (Field::read(&mut bytes)?, Field::read(&mut bytes)?);
        let own = hello.run;
        let follow = runs.windows(2).all(|two| two[0].incarnation < two[1].incarnation);
        let valid = bytes.is_empty() && follow && runs.last() == Some(&own);
        valid.then_some(Past { runs, epochs, former, added })
    }
}

#[cfg(test)]
mod tests {
    use super::super::hello::sample_hello;
    use super::*;
    use crate::ids::{Incarnation, Index, ProcessId, Term};
    use crate::limits::{FIRST_BYTES_MAX, RUNS_KEPT};
    use crate::packet::Packet;

    fn run(incarnation: u64, process: u64) -> Run {
        Run { incarnation: Incarnation(incarnation), process: ProcessId(process) }
    }

    fn largest() -> (Hello, Past) {
        let runs: Vec<Run> = (1..=RUNS_KEPT as u64).map(|n| run(n, n + 100)).collect();
        let own = *runs.last().unwrap();
        let epoch = |number: u16| Epoch { number, founder: DiskId(number.into()) };
        let epochs = (1..=ANCESTRY_MAX as u16).map(epoch).collect();
        let former = Some(Position { term: Term(3), index: Index(4) });
        let hello = sample_hello();
        let hello = Hello { run: own, ..hello };
        (hello, Past { runs, epochs, former, added: Some(own) })
    }

    #[test]
    fn the_bytes_of_this_version_stay_the_same() {
        let mut bytes = Vec::new();
        largest().1.encode(&mut bytes);
        assert_eq!((bytes.len(), crc32c::crc32c(&bytes)), (580, 600_553_019));
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
        let other = Hello { run: run(hello.run.incarnation.0, 9), ..hello };
        assert_eq!(Past::decode(&bytes[..bytes.len() - 1], &other), None, "another run");
        let mut twice = past.clone();
        twice.runs[0].incarnation = twice.runs[1].incarnation;
        let mut repeated = Vec::new();
        twice.encode(&mut repeated);
        assert_eq!(Past::decode(&repeated, &hello), None, "two starts under one number");
        let mut first = Vec::new();
        Packet::Hello(Hello { founder: Some(DiskId(1)), ..hello }).encode(&mut first);
        assert!(first.len() + bytes.len() + 4 <= FIRST_BYTES_MAX, "{}", first.len() + bytes.len());
    }
}
