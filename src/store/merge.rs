//! Merges the accounts of a checkpoint with what index files list of the segments after it. All of
//! them are read from their beginning to their end, in the order of the accounts, so that memory
//! does not grow with accounts.

use super::disk::Disk;
use super::index_file::{
    CHANGE_BYTES, ChangeRow, FORGOTTEN_BYTES, ForgottenRow, IndexFile, KEY_BYTES, ROW_BYTES,
    ROWS_PER_PAGE, Row,
};
use super::paged::{PAGE_DATA, PagedReader, damaged};
use crate::ids::{Index, SegmentId};
use crate::limits::RECORD_BYTES_MAX;
use crate::mailbox::{self, Done, Forgotten, Key, List, Messages, PasswordHash, SavedAccount};
use crate::record::{BadRecord, Record};
use crate::replica::LogSummary;
use std::io;

/// What an index file lists of accounts, in their order.
pub(super) struct Updates<'a, D: Disk> {
    disk: &'a D,
    segment: SegmentId,
    first: Index,
    rows: Values<'a, D, Row>,
    changes: Values<'a, D, ChangeRow>,
    forgets: Values<'a, D, ForgottenRow>,
    /// The segment, which holds names and hashes.
    log: D::File,
}

impl<'a, D: Disk> Updates<'a, D> {
    /// Of the segment in the file `log`.
    pub(super) fn new(
        disk: &'a D,
        index: &'a IndexFile<D::File>,
        log: D::File,
    ) -> io::Result<Self> {
        let (head, sections) = (index.head, index.head.sections());
        let reader = |at| PagedReader::from(disk, &index.file, at);
        let rows = Values::new(reader(sections.table)?, head.rows, ROW_BYTES, ROWS_PER_PAGE)?;
        let (changes, endless) = (reader(sections.changes)?, usize::MAX);
        let changes = Values::new(changes, head.changes, CHANGE_BYTES, endless)?;
        let forgets = reader(sections.forgotten)?;
        let forgets = Values::new(forgets, head.forgotten, FORGOTTEN_BYTES, endless)?;
        let (segment, first) = (head.id, head.seal.first);
        Ok(Updates { disk, segment, first, rows, changes, forgets, log })
    }

    /// The next account.
    fn account(&self) -> Option<Index> {
        let row = self.rows.next.map(|row| row.account);
        let change = self.changes.next.map(|change| change.account);
        let forgets = self.forgets.next.map(|forgets| forgets.account);
        [row, change, forgets].into_iter().flatten().min()
    }

    /// Applies what is listed of an account, unless a later one is next.
    fn apply(
        &mut self,
        account: Index,
        mut saved: Option<SavedAccount>,
    ) -> io::Result<Option<SavedAccount>> {
        let unknown = || damaged("it names an account that does not exist");
        let mut is_deleted = false;
        while let Some(change) = self.changes.next.filter(|change| change.account == account) {
            match change.done {
                Done::Deleted => is_deleted = true,
                Done::Created => saved = Some(self.read_created(change)?),
                Done::PasswordSet => {
                    let saved = saved.as_mut().ok_or_else(unknown)?;
                    saved.hash = self.read_hash(change)?;
                    saved.password_set = self.entry(change);
                }
            }
            self.changes.advance()?;
        }
        if let Some(row) = self.rows.next.filter(|row| row.account == account) {
            let saved = saved.as_mut().ok_or_else(unknown)?;
            saved.messages = Messages {
                counts: [List::Received, List::Sent].map(|list| row.next(list) - 1),
                bytes: row.bytes,
                newest: Some(self.segment),
                skips: row.earlier.skips,
            };
            self.rows.advance()?;
        }
        if let Some(forgets) = self.forgets.next.filter(|forgets| forgets.account == account) {
            saved.as_mut().ok_or_else(unknown)?.forgotten = forgets.forgotten;
            self.forgets.advance()?;
        }
        if saved.as_ref().is_some_and(|saved| !saved.is_sound()) {
            return Err(damaged("a mailbox has forgotten more than it had"));
        }
        Ok(saved.filter(|_| !is_deleted))
    }

    fn entry(&self, change: ChangeRow) -> Index {
        Index(self.first.0 + u64::from(change.entry))
    }

    fn read_created(&self, change: ChangeRow) -> io::Result<SavedAccount> {
        let created = self.entry(change);
        self.read(change, |read| match read {
            mailbox::Change::Create { user, hash } => Some(SavedAccount {
                created,
                password_set: created,
                messages: Messages::default(),
                forgotten: Forgotten::default(),
                name: user,
                hash: PasswordHash::new(hash),
            }),
            _ => None,
        })
    }

    fn read_hash(&self, change: ChangeRow) -> io::Result<PasswordHash> {
        self.read(change, |read| match read {
            mailbox::Change::Password { hash, .. } => Some(PasswordHash::new(hash)),
            _ => None,
        })
    }

    /// Reads the record of a change.
    fn read<T>(
        &self,
        change: ChangeRow,
        take: impl FnOnce(mailbox::Change<'_>) -> Option<T>,
    ) -> io::Result<T> {
        // Records of these kinds are short, as a rule.
        let (mut short, mut long) = ([0; 512], Vec::new());
        let at = change.offset.into();
        let read = self.disk.read_at(&self.log, &mut short, at)?;
        let mut record = Record::parse(&short[..read]);
        if record == Err(BadRecord::Short) {
            long.resize(RECORD_BYTES_MAX, 0);
            let read = self.disk.read_at(&self.log, &mut long, at)?;
            record = Record::parse(&long[..read]);
        }
        let record = record.ok().filter(|record| record.index == self.entry(change));
        let change = record.and_then(|record| mailbox::Change::decode(record.kind, record.body));
        change.and_then(take).ok_or_else(|| damaged("a change that it names is not in the log"))
    }
}

/// Values of the same size that a file lists one after the other.
struct Values<'a, D: Disk, T> {
    reader: PagedReader<'a, D>,
    /// The number of values after `next`.
    left: u32,
    bytes: usize,
    /// How many values a page holds whose rest is empty, and how many of them were read.
    per_page: usize,
    read: usize,
    next: Option<T>,
}

impl<'a, D: Disk, T: crate::fields::Field> Values<'a, D, T> {
    fn new(
        reader: PagedReader<'a, D>,
        count: u32,
        bytes: usize,
        per_page: usize,
    ) -> io::Result<Self> {
        let mut listed = Values { reader, left: count, bytes, per_page, read: 0, next: None };
        listed.advance()?;
        Ok(listed)
    }

    fn advance(&mut self) -> io::Result<()> {
        self.next = None;
        if self.left > 0 {
            if self.read == self.per_page {
                self.reader.take(PAGE_DATA - self.per_page * self.bytes)?;
                self.read = 0;
            }
            self.next = Some(self.reader.value(self.bytes)?);
            (self.left, self.read) = (self.left - 1, self.read + 1);
        }
        Ok(())
    }
}

/// Where a merge has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// In the accounts before the first update.
    Base,
    /// In this update.
    Update(usize),
    /// Where the accounts go.
    Output,
}

/// Passes all accounts after the last of these updates to `emit`, in the order in which they were
/// created. `base` are those before the first update, in the same order; the updates are of
/// segments that follow each other.
///
/// # Errors
/// When `base` or `emit` fails, and when an index file can't be read or does not fit to the rest.
pub(super) fn merge<D: Disk>(
    base: impl Iterator<Item = io::Result<SavedAccount>>,
    updates: &mut [Updates<'_, D>],
    mut emit: impl FnMut(SavedAccount) -> io::Result<()>,
) -> Result<(), (At, io::Error)> {
    let mut base = base.fuse();
    let mut take_base = || base.next().transpose().map_err(|error| (At::Base, error));
    let mut from_base = take_base()?;
    loop {
        let of_base = from_base.as_ref().map(|saved| saved.created);
        let next = updates.iter().filter_map(Updates::account).chain(of_base).min();
        let Some(account) = next else { return Ok(()) };
        let mut saved = None;
        if of_base == Some(account) {
            saved = std::mem::replace(&mut from_base, take_base()?);
        }
        for (at, update) in updates.iter_mut().enumerate() {
            saved = update.apply(account, saved).map_err(|error| (At::Update(at), error))?;
        }
        if let Some(saved) = saved {
            emit(saved).map_err(|error| (At::Output, error))?;
        }
    }
}

impl<F> IndexFile<F> {
    /// Returns the rows, in the order of the accounts.
    ///
    /// # Errors
    /// When the file can't be read or is damaged.
    pub(super) fn rows<'a, D: Disk<File = F>>(
        &'a self,
        disk: &'a D,
    ) -> io::Result<impl Iterator<Item = io::Result<Row>> + use<'a, F, D>> {
        let reader = PagedReader::from(disk, &self.file, self.head.sections().table)?;
        let mut rows = Values::new(reader, self.head.rows, ROW_BYTES, ROWS_PER_PAGE)?;
        Ok(std::iter::from_fn(move || {
            let row = rows.next?;
            Some(rows.advance().map(|()| row))
        }))
    }

    /// Returns the keys of ONCE that the entries of the segment have used, in order.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn keys<'a, D: Disk<File = F>>(
        &'a self,
        disk: &'a D,
    ) -> io::Result<impl Iterator<Item = io::Result<Key>> + use<'a, F, D>> {
        let mut reader = PagedReader::from(disk, &self.file, self.head.sections().keys)?;
        Ok((0..self.head.keys).map(move |_| reader.value(KEY_BYTES)))
    }

    /// Returns the deletions of accounts in the segment, in order.
    ///
    /// # Errors
    /// When the file can't be read or is damaged.
    pub(super) fn deletions<D: Disk<File = F>>(
        &self,
        disk: &D,
    ) -> io::Result<Vec<mailbox::Deletion>> {
        let mut reader = PagedReader::from(disk, &self.file, self.head.sections().changes)?;
        let mut deletions = Vec::new();
        for _ in 0..self.head.changes {
            let ChangeRow { account, entry, done, .. } = reader.value(CHANGE_BYTES)?;
            if done == Done::Deleted {
                let at = Index(self.head.seal.first.0 + u64::from(entry));
                deletions.push(mailbox::Deletion { at, account });
            }
        }
        deletions.sort_unstable_by_key(|deletion| deletion.at);
        Ok(deletions)
    }

    /// Returns the summary of the log up to the end of the segment.
    ///
    /// # Errors
    /// When the file can't be read or is damaged.
    pub(super) fn summary<D: Disk<File = F>>(&self, disk: &D) -> io::Result<LogSummary> {
        let bytes = self.head.summary as usize;
        let mut reader = PagedReader::from(disk, &self.file, self.head.sections().summary)?;
        LogSummary::decode(reader.take(bytes)?).ok_or_else(|| damaged("its summary is invalid"))
    }
}
