//! Applies an operator's override (`recover`) to the directory of a stopped server. Keeps what is
//! readable of the log, quarantines what is damaged, and appends one entry that no election has
//! agreed to.

use super::disk::Disk;
use super::former;
use super::identity::{self, Identity};
use super::quarantine;
use super::recovery::{self, Known, Reading};
use super::segment::{file_name, path};
use super::vote::{self, VoteFile};
use super::whole;
use super::{Checkpointed, LOG, OpenError, Store};
use crate::ids::Vote;
use crate::record::Record;
use std::io;

impl<D: Disk> Store<D> {
    /// Gives the directory the identity `new`, which has another disk number: promises under the
    /// old number do not bind the new one. Quarantines what is damaged in a folder named by
    /// `label`, a time, and returns the folder. Then stores `vote` and appends `entry` after
    /// everything readable.
    ///
    /// A crash at any step leaves what is readable, and a directory for which this can be
    /// repeated.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing was changed if `entry` does not follow the last readable entry.
    pub fn salvage(
        disk: D,
        new: &Identity,
        vote: Vote,
        entry: &[u8],
        label: &str,
    ) -> Result<Option<String>, OpenError> {
        let found = Identity::read(&disk)?;
        found.refuse_foreign(new)?;
        let known = found.good();
        let mut reading = read(&disk, Known::new(&disk, known))?;
        if reading.last.index.next() != Record::trust(entry).index {
            return Err(OpenError::Refused("it is not as it was when it was read".to_owned()));
        }
        let vote_file = VoteFile::open(&disk)?;
        let mut folder = None;
        if known.is_none() || vote_file.is_none() || !reading.damage.is_empty() {
            let made = quarantine::make_new(&disk, "damaged", label)?;
            for name in [identity::FILE, vote::FILE] {
                copy(&disk, name, &format!("{made}/{name}"))?;
            }
            disk.sync_folder(&made)?;
            reading = cut_damage(&disk, known, &reading, &made)?;
            folder = Some(made);
        }
        let log = recovery::settle(&disk, LOG, reading)?;
        // A directory counts as damaged until it has a vote: write the vote first.
        let mut vote_file = match vote_file {
            Some((file, _)) => file,
            None => VoteFile::create(&disk, vote)?,
        };
        let mut identity = new.clone();
        identity.start(new.process, disk.boot());
        identity.segment = log.newest();
        for disk in known.into_iter().flat_map(|known| known.seen().all()) {
            identity.see(disk.clone());
        }
        identity.write(&disk)?;
        // From here on, a start sends this vote to others. The disk that it names must exist by
        // then.
        vote_file.write(&disk, vote)?;
        let (unsaved, checkpoint) = (false, Checkpointed::default());
        let mut store = Store { disk, identity, unsaved, vote: vote_file, log, checkpoint };
        store.append(entry)?;
        store.flush()?;
        store.seal()?;
        Ok(folder)
    }
}

impl<D: Disk> Store<D> {
    /// Moves the directory quarantined in `folder` back into use, for [`Store::salvage`]. First
    /// quarantines the directory in its place, in a folder of the kind `replaced` named by
    /// `label`, a time.
    ///
    /// # Errors
    /// When the disk fails, or when `folder` holds no log; in the latter case nothing was moved.
    pub fn take_back(disk: &D, folder: &str, label: &str) -> Result<(), OpenError> {
        if disk.list(&format!("{folder}/{LOG}"))?.is_empty() {
            return Err(OpenError::Refused(format!("{folder}: it holds no log")));
        }
        quarantine::finish(disk)?;
        if quarantine::is_used(disk)? {
            Store::quarantine(disk, "replaced", label)?;
        }
        quarantine::move_parts(disk, folder, ".")?;
        Ok(former::remove(disk, folder)?)
    }
}

fn read<D: Disk>(disk: &D, known: Known) -> io::Result<Reading> {
    recovery::read(disk, LOG, known, None, &mut |_| {})
}

/// Moves everything after the last entry before the first damage into `folder`. After each step,
/// the log is either still damaged or whole.
fn cut_damage<D: Disk>(
    disk: &D,
    known: Option<&Identity>,
    reading: &Reading,
    folder: &str,
) -> Result<Reading, OpenError> {
    let last = reading.last.index;
    let at = reading.segments.iter().take_while(|found| found.good.next() <= last).count();
    let newest = &reading.segments[at];
    let (first, end) = (newest.good.first, newest.good.end);
    if let Some(known) = known {
        // As with any cut into an earlier segment, name that segment before removing the later
        // ones.
        let mut identity = known.clone();
        identity.segment = first;
        identity.write(disk)?;
    }
    let folder = format!("{folder}/{LOG}");
    disk.make_folder(&folder)?;
    for found in reading.segments[at + 1..].iter().rev() {
        let name = file_name(found.good.first);
        disk.rename(&format!("{LOG}/{name}"), &format!("{folder}/{name}"))?;
        disk.sync_folder(&folder)?;
        disk.sync_folder(LOG)?;
    }
    if end < newest.size {
        let name = file_name(first);
        copy(disk, &format!("{LOG}/{name}"), &format!("{folder}/{name}"))?;
        disk.sync_folder(&folder)?;
        let file = disk.open(&path(LOG, first), false)?;
        disk.truncate(&file, end)?;
        disk.sync(&file)?;
    }
    let mut reading = read(disk, Known { segment: Some(first), ..Known::default() })?;
    match reading.damage.pop() {
        None => Ok(reading),
        Some(damage) => Err(OpenError::Damaged(damage)),
    }
}

/// Copies a file, if it exists. The bytes are durable on return, the name is not.
fn copy<D: Disk>(disk: &D, from: &str, to: &str) -> io::Result<()> {
    let Some(from) = whole::open(disk, from)? else { return Ok(()) };
    let to = disk.open(to, true)?;
    whole::copy(disk, &from, &to, 0)
}
