//! The state at the end of a sealed segment, as the checkpoint and index files have it. All that
//! they list was acknowledged, so a start goes on from there.

use super::checkpoint::{Checkpoint, Covered, Sealed};
use super::disk::{Disk, join};
use super::index_file::{Head, IndexFile};
use super::merge::{At, Updates, merge};
use super::segment::{Seal, first_index, index_name, path};
use crate::ids::{Index, SegmentId};
use crate::limits::{KEYS_KEPT, MERGED_MAX};
use crate::mailbox::{Deletion, Key, Mailboxes, SavedAccount};
use crate::replica::LogSummary;
use std::io;

/// The state at the end of a sealed segment.
#[derive(Debug)]
pub(super) struct Base {
    /// The segments whose entries it contains.
    pub(super) segments: Vec<Sealed>,
    /// Of the log up to their end.
    pub(super) summary: LogSummary,
    pub(super) mailboxes: Mailboxes,
    /// The number of segments that come from the checkpoint, and its size in bytes.
    pub(super) of_checkpoint: (usize, u64),
}

/// What can't be used.
#[derive(Debug)]
pub(super) enum Broken {
    Checkpoint(io::Error),
    /// The index file of this segment.
    Index(SegmentId, io::Error),
    /// What is being written.
    Output(io::Error),
}

/// Returns the number of the segment at this place among all segments.
pub(super) fn segment_id(at: usize) -> SegmentId {
    SegmentId::new(at as u32 + 1).expect("numbers begin with 1")
}

/// The files that describe the first segments of a log.
pub(super) struct Files<'a, D: Disk> {
    disk: &'a D,
    folder: &'a str,
    checkpoint: Option<Checkpoint<D::File>>,
    /// The index files of the segments after the checkpoint.
    indexes: Vec<IndexFile<D::File>>,
    /// The entries whose keys are remembered come after this one.
    keys_after: Index,
}

impl<'a, D: Disk> Files<'a, D> {
    /// Opens files of the segments of `folder` with these first entries: the checkpoint if `begin`
    /// is `None`, and index files from that place on, up to the first one that is missing or does
    /// not fit, [`MERGED_MAX`] at most. The last segment is not sealed.
    pub(super) fn open(
        disk: &'a D,
        folder: &'a str,
        names: &[Index],
        begin: Option<usize>,
        secret_mark: u64,
    ) -> Files<'a, D> {
        let sealed = names.len().saturating_sub(1);
        // What can't be read does not fit.
        let is_segment = |seal: &Seal| {
            let log = disk.open(&path(folder, seal.first), false);
            log.and_then(|log| seal.fits(disk, &log)).unwrap_or(false)
        };
        let fits = |place: &Covered| {
            let Covered { segments, seal, .. } = place;
            let next = names.get(segments.len());
            let named = segments.len() <= sealed && next == Some(&seal.last_index().next());
            let same = segments.iter().zip(names).all(|(first, name)| first == name);
            named && same && place.secret_mark == secret_mark && is_segment(seal)
        };
        let checkpoint = if begin.is_none() { Checkpoint::open(disk) } else { None };
        let checkpoint = checkpoint.filter(|found| fits(&found.place));
        let of_checkpoint = checkpoint.as_ref().map_or(0, |found| found.place.segments.len());
        let begin = begin.unwrap_or(of_checkpoint);
        let mut indexes: Vec<IndexFile<D::File>> = Vec::new();
        for at in begin..sealed.min(begin + MERGED_MAX) {
            let file = join(folder, &index_name(names[at]));
            let Some(index) = IndexFile::open(disk, &file, None) else { break };
            let head = &index.head;
            let named = head.seal.first == names[at]
                && head.seal.last_index().next() == names[at + 1]
                && head.id == segment_id(at);
            if !named || head.secret_mark != secret_mark || !is_segment(&head.seal) {
                break;
            }
            indexes.push(index);
        }
        let mut files = Files { disk, folder, checkpoint, indexes, keys_after: Index::ZERO };
        files.keys_after = Index(files.last().0.saturating_sub(KEYS_KEPT + 1));
        files
    }

    /// The number of segments that they describe.
    pub(super) fn segments(&self) -> usize {
        self.of_checkpoint() + self.indexes.len()
    }

    /// The number of segments that the checkpoint describes.
    pub(super) fn of_checkpoint(&self) -> usize {
        self.checkpoint.as_ref().map_or(0, |found| found.place.segments.len())
    }

    /// Whether there are index files among them.
    pub(super) fn has_indexes(&self) -> bool {
        !self.indexes.is_empty()
    }

    /// The last entry that they describe.
    fn last(&self) -> Index {
        let of_checkpoint = self.checkpoint.as_ref().map(|found| found.place.seal.last_index());
        let last = self.indexes.last().map(|index| index.head.seal.last_index());
        last.or(of_checkpoint).unwrap_or_default()
    }

    /// Where in the log they end, if `before` is where they begin: there is one if that is neither
    /// the beginning of the log nor the checkpoint.
    pub(super) fn place(&self, before: Option<Covered>) -> Result<Option<Covered>, Broken> {
        let of_checkpoint = || self.checkpoint.as_ref().map(|found| found.place.clone());
        let before = before.or_else(of_checkpoint);
        let Some(last) = self.indexes.last() else { return Ok(before) };
        let summary = last.summary(self.disk);
        let summary = summary.map_err(|error| Broken::Index(last.head.id, error))?;
        let mut segments = before.map_or_else(Vec::new, |place| place.segments);
        segments.extend(self.indexes.iter().map(|index| index.head.seal.first));
        let Head { seal, secret_mark, limits, .. } = last.head;
        Ok(Some(Covered { segments, summary, seal, secret_mark, limits }))
    }

    /// Passes what they hold to `output`: first all keys in order, then all deletions, then the
    /// accounts in the order in which they were created. `base` are the accounts where the files
    /// begin, if that is neither the beginning of the log nor the checkpoint.
    pub(super) fn read(
        &self,
        base: Vec<SavedAccount>,
        output: &mut impl Output,
    ) -> Result<(), Broken> {
        let is_kept = |at: Index| at > self.keys_after;
        let contents = self.checkpoint.as_ref().map(|found| found.contents(self.disk));
        let mut contents = contents.transpose().map_err(Broken::Checkpoint)?;
        let mut deletions = Vec::new();
        if let Some(contents) = &mut contents {
            while let Some(key) = contents.next_key().map_err(Broken::Checkpoint)? {
                if is_kept(key.at) {
                    output.key(key).map_err(Broken::Output)?;
                }
            }
            while let Some(deletion) = contents.next_deletion().map_err(Broken::Checkpoint)? {
                deletions.extend(is_kept(deletion.at).then_some(deletion));
            }
        }
        for index in self.indexes.iter().filter(|index| is_kept(index.head.seal.last_index())) {
            let id = index.head.id;
            let keys = index.keys(self.disk).map_err(|error| Broken::Index(id, error))?;
            for key in keys {
                let key = key.map_err(|error| Broken::Index(id, error))?;
                if is_kept(key.at) {
                    output.key(key).map_err(Broken::Output)?;
                }
            }
            let kept = index.deletions(self.disk).map_err(|error| Broken::Index(id, error))?;
            deletions.extend(kept.into_iter().filter(|deletion| is_kept(deletion.at)));
        }
        for deletion in deletions {
            output.deletion(deletion).map_err(Broken::Output)?;
        }
        let base = contents.into_iter().flatten().chain(base.into_iter().map(Ok));
        self.merge(base, |saved| output.account(saved))
    }

    /// Merges accounts with the index files.
    fn merge(
        &self,
        base: impl Iterator<Item = io::Result<SavedAccount>>,
        emit: impl FnMut(SavedAccount) -> io::Result<()>,
    ) -> Result<(), Broken> {
        let of = |at: usize| self.indexes[at].head.id;
        let mut updates = Vec::new();
        for (at, index) in self.indexes.iter().enumerate() {
            let log = self.disk.open(&path(self.folder, index.head.seal.first), false);
            let update = log.and_then(|log| Updates::new(self.disk, index, log));
            updates.push(update.map_err(|error| Broken::Index(of(at), error))?);
        }
        merge(base, &mut updates, emit).map_err(|(at, error)| match at {
            At::Base => Broken::Checkpoint(error),
            At::Update(at) => Broken::Index(of(at), error),
            At::Output => Broken::Output(error),
        })
    }
}

/// Where the contents of files go.
pub(super) trait Output {
    fn key(&mut self, key: Key) -> io::Result<()>;
    fn deletion(&mut self, deletion: Deletion) -> io::Result<()>;
    fn account(&mut self, saved: SavedAccount) -> io::Result<()>;
}

/// Everything, in memory.
#[derive(Default)]
struct Held {
    keys: Vec<Key>,
    deletions: Vec<Deletion>,
    accounts: Vec<SavedAccount>,
}

impl Held {
    /// Forgets the keys and deletions up to an entry.
    fn forget(&mut self, last: Index) {
        self.keys.retain(|key| key.at > last);
        self.deletions.retain(|deletion| deletion.at > last);
    }
}

impl Output for Held {
    fn key(&mut self, key: Key) -> io::Result<()> {
        self.keys.push(key);
        Ok(())
    }

    fn deletion(&mut self, deletion: Deletion) -> io::Result<()> {
        self.deletions.push(deletion);
        Ok(())
    }

    fn account(&mut self, saved: SavedAccount) -> io::Result<()> {
        self.accounts.push(saved);
        Ok(())
    }
}

/// Returns the state at the end of the last segment up to which the files of `folder` describe the
/// log, `most` segments at most; `None` if they describe none. `empty` is the state before the
/// first entry.
///
/// # Errors
/// When the folder can't be read. A file that is damaged is not used.
pub(super) fn load<D: Disk>(
    disk: &D,
    folder: &str,
    empty: &Mailboxes,
    most: usize,
) -> io::Result<Option<Base>> {
    let mut names: Vec<Index> =
        disk.list(folder)?.iter().filter_map(|name| first_index(name)).collect();
    names.sort_unstable();
    names.truncate(most.saturating_add(1));
    if names.first() != Some(&Index(1)) {
        return Ok(None);
    }
    let mut begin = None;
    let (mut place, mut held): (Option<Covered>, Held) = (None, Held::default());
    let mut of_checkpoint = (0, 0);
    loop {
        let files = Files::open(disk, folder, &names, begin, empty.secret_mark());
        if files.segments() == 0 {
            break;
        }
        // What is read before a file turns out to be damaged does not count.
        let (keys, deletions) = (held.keys.clone(), held.deletions.clone());
        let mut next = Held { keys, deletions, accounts: Vec::new() };
        let read = files.place(place.clone());
        match read.and_then(|to| files.read(held.accounts.clone(), &mut next).map(|()| to)) {
            Ok(to) => {
                next.forget(files.keys_after);
                begin = to.as_ref().map(|place| place.segments.len());
                (place, held) = (to, next);
                if let Some(used) = &files.checkpoint {
                    of_checkpoint = (files.of_checkpoint(), used.bytes(disk));
                }
            }
            Err(Broken::Checkpoint(error)) => {
                log::warn!("the checkpoint is damaged, and not used: {error}");
                begin = Some(0);
            }
            Err(Broken::Index(id, error)) => {
                let at = id.number() as usize - 1;
                let name = join(folder, &index_name(names[at]));
                log::warn!("{name}: it is damaged, and not used: {error}");
                names.truncate(at + 1);
            }
            Err(Broken::Output(error)) => return Err(error),
        }
    }
    Ok(place.map(|Covered { segments, summary, limits, .. }| {
        let next = (segment_id(segments.len()), summary.last().index.next());
        // A segment may have been written anew since it was described.
        let size = |log: D::File| disk.size(&log);
        let sealed = |first| {
            let end = disk.open(&path(folder, first), false).and_then(size);
            Sealed { first, end: end.unwrap_or(0) }
        };
        let segments = segments.into_iter().map(sealed).collect();
        let Held { keys, deletions, accounts } = held;
        let mailboxes = empty.restored(accounts, keys, deletions, limits, next);
        Base { segments, summary, mailboxes, of_checkpoint }
    }))
}
