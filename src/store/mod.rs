//! The one durable thing: an append-only log of replicated entries, and beside it who this
//! directory is and whom it voted for. The only code that names files.
//!
//! | file | holds |
//! | --- | --- |
//! | `lock` | held while a server runs |
//! | `identity` | format, group, server, disk number, incarnation, newest segment |
//! | `vote` | current term and the vote given in it |
//! | `log/NNNN.log` | segments of the log, named by their first index |
//!
//! What survives what: all that [`Store::flush`] and [`Store::persist`] covered survives every
//! crash. Of what was appended since, a crash leaves any part; the next start cuts it where it
//! is torn. A failed write or sync is final: the page cache can't be trusted after it.

pub mod disk;
mod identity;
mod log;
#[cfg(any(test, feature = "simulate"))]
pub mod memory;
mod recovery;
mod segment;
mod vote;

pub use identity::Identity;
pub use recovery::Torn;

use crate::names::{DiskId, Incarnation, Index, Vote};
use crate::record::Record;
use disk::Disk;
use identity::Found;
use log::Log;
use std::{fmt, io};
use vote::VoteFile;

/// Why a data directory can't be used.
#[derive(Debug)]
pub enum OpenError {
    /// The operating system says no.
    Io(io::Error),
    /// It belongs to somebody else, or to a newer version. Nothing was touched.
    Refused(String),
    /// What was durable is not there as it was written. Nothing was touched.
    Damaged(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(error) => error.fmt(f),
            OpenError::Refused(why) => f.write_str(why),
            OpenError::Damaged(what) => write!(
                f,
                "damaged: {what}; what can't be trusted must not vote: move the directory away, \
                 and this server comes back empty, to be filled by the others"
            ),
        }
    }
}

/// An open data directory.
#[derive(Debug)]
pub struct Store<D: Disk> {
    disk: D,
    identity: Identity,
    /// Incarnations were seen that `identity` on disk does not have yet.
    unsaved: bool,
    vote: VoteFile<D::File>,
    log: Log<D::File>,
}

/// What opening a directory found, beside the records.
#[derive(Debug)]
pub struct Opened<D: Disk> {
    /// The directory, with this start's incarnation durable.
    pub store: Store<D>,
    /// The vote as stored.
    pub vote: Vote,
    /// A tail that was cut.
    pub torn: Option<Torn>,
}

impl<D: Disk> Store<D> {
    /// Opens the directory that `expected` describes, making it with `expected.disk` when it is
    /// new, and counts the start. Every record is handed to `visit`, which may refuse it.
    ///
    /// # Errors
    /// See [`OpenError`]; the directory is as it was before.
    pub fn open(
        disk: D,
        expected: &Identity,
        mut visit: impl FnMut(&Record<'_>) -> Result<(), &'static str>,
    ) -> Result<Opened<D>, OpenError> {
        let mut identity = match Identity::read(&disk)? {
            Found::Good(identity) => identity,
            Found::Nothing => return Store::create(disk, expected),
            Found::Newer(version) => {
                return Err(OpenError::Refused(format!(
                    "its format {version} needs a newer version of postern"
                )));
            }
            Found::Damaged(why) => return Err(OpenError::Damaged(format!("identity: {why}"))),
        };
        refuse_foreign(&identity, expected)?;
        let Some((vote, stored)) = VoteFile::open(&disk)? else {
            return Err(OpenError::Damaged("vote: it is missing or unreadable".to_owned()));
        };
        let (log, torn) = recovery::read_log(&disk, &identity, &mut visit)?;
        identity.incarnation.0 += 1;
        identity.write(&disk)?;
        let mut store = Store { disk, identity, unsaved: false, vote, log };
        store.seal()?;
        Ok(Opened { store, vote: stored, torn })
    }

    fn create(disk: D, expected: &Identity) -> Result<Opened<D>, OpenError> {
        let log_files = disk.list("log")?;
        if log_files.iter().any(|name| segment::first_index(name) != Some(Index(1)))
            || log_files.iter().any(|name| holds_records(&disk, name))
        {
            return Err(OpenError::Damaged("identity: it is missing, the log is not".to_owned()));
        }
        let vote = VoteFile::create(&disk)?;
        let log = Log::create(&disk)?;
        let mut identity = expected.clone();
        identity.incarnation = Incarnation(1);
        identity.segment = Index(1);
        identity.write(&disk)?;
        let store = Store { disk, identity, unsaved: false, vote, log };
        Ok(Opened { store, vote: Vote::default(), torn: None })
    }

    /// Who this directory is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The disk that the directory lies on.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The index of the last entry, stored or not.
    pub fn last(&self) -> Index {
        self.log.last()
    }

    /// The index of the last entry that is stored.
    pub fn stored(&self) -> Index {
        self.log.stored()
    }

    /// The log's size in bytes.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Adds records to the batch that the next [`Store::flush`] writes.
    pub fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.log.append(&self.disk, records)
    }

    /// Whether there is anything that a flush would write.
    pub fn has_unwritten(&self) -> bool {
        self.log.has_unwritten()
    }

    /// Makes everything appended durable: one write, one sync.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(segment) = self.log.flush(&self.disk)? {
            self.identity.segment = segment;
            self.save_identity()?;
        }
        Ok(())
    }

    /// Makes a vote durable.
    pub fn persist(&mut self, vote: Vote) -> io::Result<()> {
        self.vote.write(&self.disk, vote)
    }

    /// Removes all entries behind `last`; the cut is durable on return.
    pub fn cut(&mut self, last: Index) -> io::Result<()> {
        if let Some(segment) = self.log.cut_reaches(last) {
            self.identity.segment = segment;
            self.save_identity()?;
        }
        self.log.cut(&self.disk, last)
    }

    /// Notes the incarnation of another disk; it is saved at the next [`Store::seal`].
    pub fn see(&mut self, disk: DiskId, incarnation: Incarnation) {
        self.unsaved |= self.identity.see(disk, incarnation);
    }

    /// Whether [`Store::seal`] has anything to do.
    pub fn has_unsealed(&self) -> bool {
        self.unsaved || (self.log.has_unsealed() && !self.log.has_unwritten())
    }

    /// For quiet times: writes down that the last batch was synced, and what was seen of others.
    pub fn seal(&mut self) -> io::Result<()> {
        if self.unsaved {
            self.save_identity()?;
        }
        self.log.seal(&self.disk)
    }

    /// The last entry up to `through` that can be read together with `from` in `bytes_max`
    /// bytes; at least `from`.
    pub fn fit(&self, from: Index, through: Index, bytes_max: usize) -> Index {
        self.log.fit(from, through, bytes_max)
    }

    /// Copies the records `from` to `through` behind `out`.
    ///
    /// # Errors
    /// When a file can't be read, or does not hold what was written to it.
    pub fn copy(&self, from: Index, through: Index, out: &mut Vec<u8>) -> io::Result<()> {
        self.log.copy(&self.disk, from, through, out)
    }

    fn save_identity(&mut self) -> io::Result<()> {
        self.unsaved = false;
        self.identity.write(&self.disk)
    }
}

fn refuse_foreign(found: &Identity, expected: &Identity) -> Result<(), OpenError> {
    let refusal = if found.group != expected.group {
        format!("it belongs to group {}, not to {}", found.group, expected.group)
    } else if found.id != expected.id {
        format!("it belongs to server {}, not to server {}", found.id, expected.id)
    } else if found.servers != expected.servers {
        format!("its group has {} servers, not {}", found.servers, expected.servers)
    } else {
        return Ok(());
    };
    Err(OpenError::Refused(refusal))
}

/// Whether a first segment holds more than the header that its creation writes.
fn holds_records<D: Disk>(disk: &D, name: &str) -> bool {
    let size = disk.open(&format!("log/{name}"), false).and_then(|file| disk.size(&file));
    !size.is_ok_and(|size| size <= segment::HEADER_BYTES as u64)
}

#[cfg(test)]
mod tests;
