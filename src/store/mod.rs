#![doc = include_str!("README.md")]

mod base;
pub mod check;
mod checkpoint;
mod compact;
mod derived;
pub mod disk;
#[cfg(debug_assertions)]
mod faulty;
mod file_job;
mod former;
mod identity;
mod index_file;
mod index_write;
mod indexed;
mod log;
#[cfg(any(test, feature = "simulate"))]
pub mod memory;
mod merge;
mod paged;
mod quarantine;
mod recovery;
mod reserve;
mod rewrite;
mod salvage;
mod scrub;
mod segment;
mod vote;
mod whole;

pub use compact::Survey;
pub use file_job::{FileJob, JobDone, JobError, Lost};
pub use former::Former;
pub use identity::Identity;
pub use recovery::{Progress, Torn};
pub use rewrite::{NewSegment, Rewrite, Rewritten};
pub use scrub::{Damage, Verified, VerifiedTo};
pub use segment::HEADER_BYTES;

use crate::ids::{Index, SegmentId, Vote};
use crate::mailbox::{Archive, List, Mailboxes, Visit};
use crate::record::{Kind, Record};
use crate::replica::{LogReader, LogSummary, SeenDisk};
use base::Base;
use derived::Checkpointed;
use disk::Disk;
use identity::Found;
use log::Log;
use recovery::{Known, Reading};
use std::{fmt, io};
use vote::VoteFile;

/// The disk of a server. A debug build can inject faults, for tests.
#[cfg(debug_assertions)]
pub type ServerDisk = faulty::FaultyDisk;
/// The disk of a server.
#[cfg(not(debug_assertions))]
pub type ServerDisk = disk::RealDisk;

/// The folder of the log's segments.
const LOG: &str = "log";
const BAD_VOTE: &str = "vote: it is missing or unreadable";
/// A vote older than the log is damage, because a term is durable before any entry of it.
const OLD_VOTE: &str = "vote: it is older than the log";
const LONE_VOTE: &str = "identity: it is missing, the vote is not";
const NO_LOG: &str = "log: it holds no segment; is the disk that holds it mounted?";

/// Why a data directory can't be used.
#[derive(Debug)]
pub enum OpenError {
    /// The operating system reported an error.
    Io(io::Error),
    /// The directory belongs to another server or group, or needs a newer version. Nothing was
    /// changed.
    Refused(String),
    /// Durable data is missing or differs from what was written, and this may be the only copy.
    /// Nothing was changed.
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
    /// Something was recorded of other disks that `identity` on disk does not contain yet.
    unsaved: bool,
    vote: VoteFile<D::File>,
    log: Log<D::File>,
    checkpoint: Checkpointed,
}

/// What to open.
#[derive(Debug)]
pub struct Opening<'a> {
    /// The identity of the directory; of a new one, also the disk.
    pub expected: &'a Identity,
    /// A time, which names what is quarantined.
    pub label: &'a str,
    /// The state before the first entry of the log.
    pub empty: &'a Mailboxes,
}

/// The result of opening a directory.
#[derive(Debug)]
pub struct Opened<D: Disk> {
    /// The open directory. The incarnation of this start is durable.
    pub store: Store<D>,
    /// The vote as stored.
    pub vote: Vote,
    /// The torn tail that was cut, if any.
    pub torn: Option<Torn>,
    /// The summary of the whole log.
    pub summary: LogSummary,
    /// The last entry that is known to be acknowledged: that of a sealed segment, or 0.
    pub acknowledged: Index,
    /// The state after that entry.
    pub mailboxes: Mailboxes,
    /// Set when the old directory was damaged and is now quarantined. The open directory is then
    /// a new one.
    pub quarantined: Option<Quarantined>,
    /// The quarantined directories that are remembered.
    pub former: Vec<Former>,
}

/// A damaged directory that is now in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its folder, relative to the data directory.
    pub folder: String,
    /// What was damaged, and where.
    pub why: String,
}

/// A config with at least this many members proves that another copy of everything exists.
const MEMBERS_SAFE: usize = 3;

impl<D: Disk> Store<D> {
    /// Opens the directory that is expected and counts the start. Creates a missing one. Calls
    /// `watch` after each segment that was read.
    ///
    /// Moves a damaged directory to a quarantine folder, and creates a new one.
    ///
    /// # Errors
    /// See [`OpenError`]. The directory is unchanged unless the disk failed.
    pub fn open(
        disk: D,
        opening: &Opening<'_>,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<Opened<D>, OpenError> {
        let Opening { expected, label, empty } = *opening;
        let found = Identity::read(&disk)?;
        found.refuse_foreign(expected)?;
        if let Some(folder) = quarantine::finish(&disk)? {
            let why = "a crash came while it was quarantined".to_owned();
            return Store::create(disk, opening, Some(Quarantined { folder, why }));
        }
        let identity = found.good();
        let disk_id = identity.map(|identity| identity.disk);
        let is_segment = |name: &String| segment::first_index(name).is_some();
        if !matches!(found, Found::Nothing) && !disk.list(LOG)?.iter().any(is_segment) {
            return Err(OpenError::Damaged(NO_LOG.to_owned()));
        }
        // Reads everything before changing anything.
        let vote = VoteFile::open(&disk)?;
        let voted = vote.as_ref().map(|(_, vote)| *vote);
        let known = Known::new(&disk, identity);
        let mut base = base::load(&disk, LOG, empty, usize::MAX)?;
        let mut reading = recovery::read(&disk, LOG, known, base.as_ref(), watch)?;
        if let Some(found) = base.as_ref().filter(|base| !reading.has_begun_after(base)) {
            // The segment before the unfinished one grows again, so it must be known as a whole.
            base = base::load(&disk, LOG, empty, found.segments.len() - 1)?;
            reading = recovery::read(&disk, LOG, known, base.as_ref(), watch)?;
        }
        let (last, opened) = (reading.last, reading.may_have_opened(voted));
        let damage = std::mem::take(&mut reading.damage).into_iter().next();
        let why = match (found, vote, damage) {
            (Found::Good(_), Some((_, vote)), None) if vote.term < last.term => OLD_VOTE.to_owned(),
            (Found::Good(identity), Some(vote), None) => {
                return Store::go_on(disk, identity, opening, vote, (reading, base));
            }
            (Found::Nothing, ..) if !reading.holds_records() => {
                if voted.unwrap_or_default() != Vote::default() {
                    return Err(OpenError::Damaged(LONE_VOTE.to_owned()));
                }
                // The state that a crash during the creation of a directory leaves.
                return Store::create(disk, opening, None);
            }
            (Found::Nothing, ..) => "identity: it is missing, the log is not".to_owned(),
            (Found::Damaged(why), ..) => format!("identity: {why}"),
            (_, _, Some(damage)) => damage,
            (..) => BAD_VOTE.to_owned(),
        };
        let safe = match reading.config {
            // The unreadable config may have fewer members, this disk among them.
            _ if reading.unread_config().is_some() => false,
            None => reading.records() == 0,
            // A dropped server holds nothing that the members lack.
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
        Store::create(disk, opening, Some(Quarantined { folder, why }))
    }

    fn go_on(
        disk: D,
        mut identity: Identity,
        opening: &Opening<'_>,
        (mut vote_file, vote): (VoteFile<D::File>, Vote),
        (reading, base): (Reading, Option<Base>),
    ) -> Result<Opened<D>, OpenError> {
        // After a crash or a failed sync, the page cache may show data that is not on disk.
        vote_file.write(&disk, vote)?;
        let torn = reading.torn.clone();
        let mut log = recovery::settle(&disk, LOG, reading)?;
        // On a full disk this makes room for what follows.
        log.tidy(&disk)?;
        whole::remove(&disk, &format!("{}.new", checkpoint::FILE))?;
        identity.start(opening.expected.process, disk.boot());
        // A crash may have come after the first batch of a segment and before `identity` named
        // it.
        identity.segment = log.newest();
        identity.write(&disk)?;
        let (segments, bytes) = base.as_ref().map_or((0, 0), |base| base.of_checkpoint);
        let checkpoint = Checkpointed { segments, bytes, ..Checkpointed::default() };
        let mut store = Store { disk, identity, unsaved: false, vote: vote_file, log, checkpoint };
        store.seal()?;
        store.plan_checkpoint();
        let (former, summary) = (former::read(&store.disk)?, store.log.summary.clone());
        let (acknowledged, mailboxes) = match base {
            Some(Base { summary, mailboxes, .. }) => (summary.last().index, mailboxes),
            None => (Index::ZERO, opening.empty.emptied()),
        };
        let quarantined = None;
        Ok(Opened { store, vote, torn, summary, acknowledged, mailboxes, quarantined, former })
    }

    fn create(
        disk: D,
        opening: &Opening<'_>,
        quarantined: Option<Quarantined>,
    ) -> Result<Opened<D>, OpenError> {
        let expected = opening.expected;
        let vote = VoteFile::create(&disk, Vote::default())?;
        disk.make_folder(LOG)?;
        let log = Log::create(&disk, LOG, Index(1))?;
        disk.sync_folder(".")?;
        let mut identity = expected.clone();
        identity.start(expected.process, disk.boot());
        identity.segment = Index(1);
        identity.write(&disk)?;
        let former = former::read(&disk)?;
        let checkpoint = Checkpointed::default();
        let store = Store { disk, identity, unsaved: false, vote, log, checkpoint };
        Ok(Opened {
            store,
            vote: Vote::default(),
            torn: None,
            summary: LogSummary::default(),
            acknowledged: Index::ZERO,
            mailboxes: opening.empty.emptied(),
            quarantined,
            former,
        })
    }

    /// Quarantines a closed directory in a folder named by `kind` and `label`, a time. The next
    /// start then creates a new directory. Returns the folder, relative to the data directory.
    pub fn quarantine(disk: &D, kind: &str, label: &str) -> io::Result<String> {
        let known = Known::new(disk, Identity::read(disk)?.good());
        let reading = recovery::read(disk, LOG, known, None, &mut |_| {})?;
        let vote = VoteFile::open(disk)?.map(|(_, vote)| vote);
        quarantine::everything(disk, kind, label, reading.last, reading.may_have_opened(vote))
    }

    /// Whether messages among the entries up to `last` are emptied, or may be. That nobody keeps
    /// them may follow from entries after `last` alone.
    pub fn has_emptied(&self, last: Index) -> bool {
        let mut found = false;
        let mut visit = |record: &Record<'_>| found |= record.kind == Kind::EMPTIED;
        let read = self.for_each(Index(1), last.min(self.last()), &mut visit);
        found || read.is_err()
    }

    /// Moves the entries after `last` from the log to a quarantine folder: copies them first,
    /// then removes them. Their epoch and `label`, a time, name the folder. Returns the folder,
    /// relative to the data directory, or `None` without such entries.
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

    /// Removes all entries after `last`, which another primary has overwritten. The cut is
    /// durable on return. Entries on disk are never deleted: they are copied first, to a
    /// quarantine folder named by `label`, a time. Returns that folder, relative to the data
    /// directory.
    pub fn cut(&mut self, last: Index, label: &str) -> io::Result<Option<String>> {
        let folder = match last < self.stored() {
            true => Some(quarantine::tail(&self.disk, &self.log, last, "overwritten", label)?),
            false => None,
        };
        self.remove_tail(last)?;
        Ok(folder)
    }

    fn remove_tail(&mut self, last: Index) -> io::Result<()> {
        if self.log.indexed().last().is_some_and(|segment| last < segment.next().before()) {
            self.remove_checkpoint()?;
        }
        if let Some(segment) = self.log.cut_reaches(last) {
            self.identity.segment = segment;
            self.save_identity()?;
        }
        self.log.cut(&self.disk, last)
    }

    fn remove_checkpoint(&mut self) -> io::Result<()> {
        self.checkpoint = Checkpointed::default();
        whole::remove(&self.disk, checkpoint::FILE)?;
        self.disk.sync_folder(".")
    }

    /// The identity of this directory.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The disk that holds this directory.
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

    /// Whether a flush would write anything.
    pub fn has_unwritten(&self) -> bool {
        self.log.has_unwritten()
    }

    /// Makes everything appended durable, with one write and one sync.
    ///
    /// After a failure, reads may not show what was written although the machine keeps running.
    /// The store then clears `boot` in `identity`, if it still can, so that the next start
    /// assumes a power cut.
    pub fn flush(&mut self) -> io::Result<()> {
        let flushed = self.log.flush(&self.disk);
        if flushed.is_err() {
            self.identity.boot = None;
            // Nothing more can be done when this fails, too.
            let _ = self.save_identity();
        }
        if let Some(segment) = flushed? {
            self.identity.segment = segment;
            self.save_identity()?;
        }
        Ok(())
    }

    /// Starts a new segment, as if the current one were full. The current one must hold an entry,
    /// and all of it must be flushed.
    #[cfg(any(test, feature = "simulate"))]
    pub fn roll(&mut self) -> io::Result<()> {
        self.log.roll(&self.disk)
    }

    /// Makes a vote durable.
    pub fn persist(&mut self, vote: Vote) -> io::Result<()> {
        self.vote.write(&self.disk, vote)
    }

    /// Records what is known of another disk. The next [`Store::seal`] saves it.
    pub fn see(&mut self, disk: SeenDisk) {
        self.unsaved |= self.identity.see(disk);
    }

    /// Whether something was recorded of other disks that is not on disk yet.
    pub fn has_unsaved(&self) -> bool {
        self.unsaved
    }

    /// Whether [`Store::seal`] has anything to do.
    pub fn has_unsealed(&self) -> bool {
        self.unsaved || (self.log.has_unsealed() && !self.log.has_unwritten())
    }

    /// Saves what was recorded of other disks. While no batch is unwritten, also records that the
    /// last batch was synced.
    pub fn seal(&mut self) -> io::Result<()> {
        if self.unsaved {
            self.save_identity()?;
        }
        self.log.seal(&self.disk)
    }

    /// Appends the records `from` to `through` to `out`.
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

impl<D: Disk> Archive for Store<D> {
    fn segment_of(&self, index: Index) -> (SegmentId, Index) {
        self.log.segment_at(index)
    }

    fn read_messages(
        &self,
        newest: SegmentId,
        account: (Index, List),
        from: u64,
        visit: &mut Visit<'_>,
    ) -> io::Result<()> {
        self.log.read_messages(&self.disk, newest, account, from, visit)
    }

    fn first_received(&self, segment: SegmentId, account: Index) -> io::Result<u64> {
        self.log.first_received(&self.disk, segment, account)
    }
}

impl<D: Disk> LogReader for Store<D> {
    fn last_within(&self, from: Index, through: Index, bytes_max: usize) -> Index {
        self.log.last_within(&self.disk, from, through, bytes_max)
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

#[cfg(test)]
mod tests;
