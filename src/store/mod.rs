#![doc = include_str!("README.md")]

pub mod check;
mod configs;
pub mod disk;
#[cfg(debug_assertions)]
mod faulty;
mod former;
mod identity;
mod log;
#[cfg(any(test, feature = "simulate"))]
pub mod memory;
mod quarantine;
mod recovery;
mod reserve;
mod salvage;
mod segment;
mod vote;
mod whole;

pub use former::Former;
pub use identity::Identity;
pub use recovery::Torn;
pub use segment::HEADER_BYTES;

use crate::ids::{Index, Position, ProcessId, Vote};
use crate::limits::SEGMENT_BYTES;
use crate::record::Record;
use crate::replica::{LogReader, SeenDisk};
use disk::Disk;
use identity::Found;
use log::Log;
use recovery::{Known, Reading};
use std::{fmt, io};
use vote::VoteFile;

/// The disk of a server. That of a debug build does wrong what it is told to, for tests.
#[cfg(debug_assertions)]
pub type ServerDisk = faulty::FaultyDisk;
/// The disk of a server.
#[cfg(not(debug_assertions))]
pub type ServerDisk = disk::RealDisk;

/// The folder of the log's segments.
const LOG: &str = "log";
const BAD_VOTE: &str = "vote: it is missing or unreadable";
/// A term is durable before any entry of it.
const OLD_VOTE: &str = "vote: it is older than the log";
const LONE_VOTE: &str = "identity: it is missing, the vote is not";
const NO_LOG: &str = "log: it holds no segment; is the disk that holds it mounted?";

/// Why a data directory can't be used.
#[derive(Debug)]
pub enum OpenError {
    /// The operating system says no.
    Io(io::Error),
    /// It belongs to somebody else, or to a newer version. Nothing was touched.
    Refused(String),
    /// What was durable is not there as it was written, and there may be no other copy. Nothing
    /// was touched.
    Damaged(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

impl OpenError {
    fn newer(version: u32) -> OpenError {
        OpenError::Refused(format!("its format {version} needs a newer version of postern"))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(error) => error.fmt(f),
            OpenError::Refused(why) => f.write_str(why),
            OpenError::Damaged(what) => {
                write!(f, "damaged: {what}; this may be the only copy: nothing was touched")
            }
        }
    }
}

/// An open data directory.
#[derive(Debug)]
pub struct Store<D: Disk> {
    disk: D,
    identity: Identity,
    /// Something was seen of others that `identity` on disk does not have yet.
    unsaved: bool,
    vote: VoteFile<D::File>,
    log: Log<D::File>,
}

/// How a directory is opened. A label alone stands for segments of the usual size.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions<'a> {
    /// Names the folder that damaged files are moved to: a time.
    pub label: &'a str,
    /// The size from which a segment of the log is followed by a new one, in bytes.
    pub segment_bytes: u64,
}

impl<'a> From<&'a str> for OpenOptions<'a> {
    fn from(label: &'a str) -> OpenOptions<'a> {
        OpenOptions { label, segment_bytes: SEGMENT_BYTES }
    }
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
    /// Everything was damaged and is quarantined; the directory is a new one, and what the records
    /// told is void.
    pub quarantined: Option<Quarantined>,
    /// All that was ever quarantined.
    pub former: Vec<Former>,
}

/// What was damaged and is quarantined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The folder within the directory that has it now.
    pub folder: String,
    /// What was wrong with it, and where.
    pub why: String,
}

/// The config of a group that has more than one copy of everything has at least so many members.
const MEMBERS_SAFE: usize = 3;

impl<D: Disk> Store<D> {
    /// Opens the directory that `expected` describes, making it with `expected.disk` when it is
    /// new, and counts the start. Every record is handed to `visit`, which may refuse it. A
    /// damaged directory is quarantined in a folder named by the label, and a new one is made; the
    /// records that `visit` was given are none of the new one's.
    ///
    /// # Errors
    /// See [`OpenError`]; the directory is as it was before, if it is not the disk that failed.
    pub fn open<'a>(
        disk: D,
        expected: &Identity,
        options: impl Into<OpenOptions<'a>>,
        mut visit: impl FnMut(&Record<'_>) -> Result<(), &'static str>,
    ) -> Result<Opened<D>, OpenError> {
        let OpenOptions { label, segment_bytes } = options.into();
        let found = Identity::read(&disk)?;
        match &found {
            Found::Newer(version) => return Err(OpenError::newer(*version)),
            Found::Good(identity) => refuse_foreign(identity, expected)?,
            Found::Nothing | Found::Damaged(_) => {}
        }
        if let Some(folder) = quarantine::finish(&disk)? {
            let why = "a crash came while it was quarantined".to_owned();
            return Store::create(disk, expected, segment_bytes, Some(Quarantined { folder, why }));
        }
        let identity = if let Found::Good(identity) = &found { Some(identity) } else { None };
        let disk_id = identity.map(|identity| identity.disk);
        let is_segment = |name: &String| segment::first_index(name).is_some();
        if !matches!(found, Found::Nothing) && !disk.list(LOG)?.iter().any(is_segment) {
            return Err(OpenError::Damaged(NO_LOG.to_owned()));
        }
        // Everything is read before anything is touched.
        let vote = VoteFile::open(&disk)?;
        let voted = vote.as_ref().map(|(_, vote)| *vote);
        let mut last = Position::default();
        // Without an identity nothing else says that the first segment is missing.
        let mut in_order = |record: &Record<'_>| {
            let follows = record.index == last.index.next();
            last = record.position();
            if follows { visit(record) } else { Err("entries before it are missing") }
        };
        let known = Known::new(&disk, identity);
        let mut reading = recovery::read(&disk, LOG, known, &mut in_order)?;
        let opened = reading.may_have_opened(voted);
        let damage = std::mem::take(&mut reading.damage).into_iter().next();
        let why = match (found, vote, damage) {
            (Found::Good(_), Some((_, vote)), None) if vote.term < last.term => OLD_VOTE.to_owned(),
            (Found::Good(identity), Some(vote), None) => {
                let start = (expected.process, segment_bytes);
                return Store::go_on(disk, identity, start, vote, reading);
            }
            // All that the making of a directory leaves when a crash ends it.
            (Found::Nothing, ..) if !reading.holds_records() && voted.is_none_or(is_first) => {
                return Store::create(disk, expected, segment_bytes, None);
            }
            (Found::Nothing, ..) if !reading.holds_records() => {
                return Err(OpenError::Damaged(LONE_VOTE.to_owned()));
            }
            (Found::Nothing, ..) => "identity: it is missing, the log is not".to_owned(),
            (Found::Damaged(why), ..) => format!("identity: {why}"),
            (_, _, Some(damage)) => damage,
            (..) => BAD_VOTE.to_owned(),
        };
        let safe = match reading.config {
            // It may be of fewer members, and name this very disk.
            _ if reading.unread_config().is_some() => false,
            None => reading.records() == 0,
            // One that was dropped holds nothing that the others do not have.
            Some((_, config)) => {
                let member = config.member(expected.id);
                let dropped = member.is_none_or(|at| disk_id.is_some_and(|disk| at.disk != disk));
                dropped || config.count() >= MEMBERS_SAFE
            }
        };
        if expected.servers < MEMBERS_SAFE as u8 || !safe {
            return Err(OpenError::Damaged(why));
        }
        let folder = quarantine::everything(&disk, "damaged", label, last, opened)?;
        Store::create(disk, expected, segment_bytes, Some(Quarantined { folder, why }))
    }

    /// Keeps room for a later start on a full disk.
    ///
    /// # Errors
    /// The disk is full, or fails.
    pub fn keep_reserve(&self) -> io::Result<()> {
        reserve::keep(&self.disk)
    }

    /// Gives that room free, to open the directory; whether there was any.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn release_reserve(disk: &D) -> io::Result<bool> {
        reserve::release(disk)
    }

    fn go_on(
        disk: D,
        mut identity: Identity,
        (process, segment_bytes): (ProcessId, u64),
        (mut vote_file, vote): (VoteFile<D::File>, Vote),
        reading: Reading,
    ) -> Result<Opened<D>, OpenError> {
        // After a crash, or a failed sync, the page cache shows what need not be on the disk.
        vote_file.write(&disk, vote)?;
        let torn = reading.torn.clone();
        let log = recovery::settle(&disk, LOG, segment_bytes, reading)?;
        identity.start(process, disk.boot());
        // A crash may have come between the first batch of a segment and its naming.
        identity.segment = log.newest();
        identity.write(&disk)?;
        let mut store = Store { disk, identity, unsaved: false, vote: vote_file, log };
        store.seal()?;
        let former = former::read(&store.disk)?;
        Ok(Opened { store, vote, torn, quarantined: None, former })
    }

    fn create(
        disk: D,
        expected: &Identity,
        segment_bytes: u64,
        quarantined: Option<Quarantined>,
    ) -> Result<Opened<D>, OpenError> {
        let vote = VoteFile::create(&disk, Vote::default())?;
        disk.make_folder(LOG)?;
        let log = Log::create(&disk, LOG, segment_bytes, Index(1))?;
        disk.sync_folder(".")?;
        let mut identity = expected.clone();
        identity.start(expected.process, disk.boot());
        identity.segment = Index(1);
        identity.write(&disk)?;
        let former = former::read(&disk)?;
        let store = Store { disk, identity, unsaved: false, vote, log };
        Ok(Opened { store, vote: Vote::default(), torn: None, quarantined, former })
    }

    /// Quarantines everything of a closed directory, in a folder of this kind named by `label`, a
    /// time; the next start finds it new. The folder within the directory is returned.
    pub fn quarantine(disk: &D, kind: &str, label: &str) -> io::Result<String> {
        let mut last = Position::default();
        let identity = match Identity::read(disk)? {
            Found::Good(identity) => Some(identity),
            _ => None,
        };
        let known = Known::new(disk, identity.as_ref());
        let reading = recovery::read(disk, LOG, known, &mut |record| {
            last = record.position();
            Ok(())
        })?;
        let vote = VoteFile::open(disk)?.map(|(_, vote)| vote);
        quarantine::everything(disk, kind, label, last, reading.may_have_opened(vote))
    }

    /// Copies the entries behind `last` to a folder named by their epoch and by `label`, a
    /// time, and then removes them from the log. The folder within the directory is returned, if
    /// there were any.
    pub fn quarantine_tail(&mut self, last: Index, label: &str) -> io::Result<Option<String>> {
        if last >= self.last() {
            return Ok(None);
        }
        let mut first = Vec::new();
        self.copy(last.next(), last.next(), &mut first)?;
        let kind = format!("epoch-{}", Record::trust(&first).term.epoch());
        let folder = quarantine::tail(&self.disk, &self.log, last, &kind, label)?;
        self.remove_tail(last)?;
        Ok(Some(folder))
    }

    /// Removes all entries after `last`, which another primary has overwritten; the cut is durable
    /// on return. Those that were stored are copied first, to a folder within the directory that is
    /// named by `label`, a time, and returned: nothing that was on disk is ever deleted.
    pub fn cut(&mut self, last: Index, label: &str) -> io::Result<Option<String>> {
        let folder = match last < self.stored() {
            true => Some(quarantine::tail(&self.disk, &self.log, last, "overwritten", label)?),
            false => None,
        };
        self.remove_tail(last)?;
        Ok(folder)
    }

    fn remove_tail(&mut self, last: Index) -> io::Result<()> {
        if let Some(segment) = self.log.cut_reaches(last) {
            self.identity.segment = segment;
            self.save_identity()?;
        }
        self.log.cut(&self.disk, last)
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
    ///
    /// After a failure reads need not show what was written, although the machine runs on: the next
    /// start is told so, if that can be written.
    pub fn flush(&mut self) -> io::Result<()> {
        let flushed = self.log.flush(&self.disk);
        if flushed.is_err() {
            self.identity.boot = None;
            // Nothing more can be done when this fails as well.
            let _ = self.save_identity();
        }
        if let Some(segment) = flushed? {
            self.identity.segment = segment;
            self.save_identity()?;
        }
        Ok(())
    }

    /// Begins a new segment, as when the one before is full. That must hold an entry, and all
    /// of it must be flushed.
    #[cfg(feature = "simulate")]
    pub fn roll(&mut self) -> io::Result<()> {
        self.log.roll(&self.disk)
    }

    /// Makes a vote durable.
    pub fn persist(&mut self, vote: Vote) -> io::Result<()> {
        self.vote.write(&self.disk, vote)
    }

    /// Notes what is to be remembered of another disk; it is saved at the next [`Store::seal`].
    pub fn see(&mut self, disk: SeenDisk) {
        self.unsaved |= self.identity.see(disk);
    }

    /// Whether something was seen of others that is not on disk.
    pub fn has_unsaved(&self) -> bool {
        self.unsaved
    }

    /// Whether [`Store::seal`] has anything to do.
    pub fn has_unsealed(&self) -> bool {
        self.unsaved || (self.log.has_unsealed() && !self.log.has_unwritten())
    }

    /// Writes down what was seen of others, and, in quiet times, that the last batch was synced.
    pub fn seal(&mut self) -> io::Result<()> {
        if self.unsaved {
            self.save_identity()?;
        }
        self.log.seal(&self.disk)
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

impl<D: Disk> LogReader for Store<D> {
    fn last_within(&self, from: Index, through: Index, bytes_max: usize) -> Index {
        self.log.last_within(from, through, bytes_max)
    }

    fn for_each(
        &self,
        from: Index,
        through: Index,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> io::Result<()> {
        self.log.for_each(&self.disk, from, through, visit)
    }
}

/// Whether a vote is as the making of a directory leaves it.
fn is_first(vote: Vote) -> bool {
    vote == Vote::default()
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

#[cfg(test)]
mod tests;
