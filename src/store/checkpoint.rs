//! The checkpoint: the accounts and keys of ONCE at the end of a sealed segment, so that a start
//! need not read the log from its beginning.
//!
//! A paged file of these sections, each of which begins with a page:
//!
//! * the head: [`Head`];
//! * the sealed segments, in order: first entry `u64`. Their sizes are those of the files;
//! * the summary of the log up to the end of the last one;
//! * [`Key`]s in the order of the entries, then one of zeros; [`Deletion`]s in the order of the
//!   entries, then one of zeros; accounts in the order in which they were created, then a zero
//!   `u64`.
//!
//! Nothing in it is needed: a server that finds it missing or damaged reads index files, or the
//! log, and makes it again.

use super::base::Output;
use super::disk::Disk;
use super::index_file::KEY_BYTES;
use super::paged::{PAGE_DATA, PagedReader, PagedWriter, damaged};
use super::segment::Seal;
use crate::fields::{Field, fields};
use crate::ids::{Index, SegmentId, UserName};
use crate::mailbox::{Deletion, Forgotten, Key, Limits, Messages, PasswordHash, SavedAccount};
use crate::record;
use crate::replica::LogSummary;
use std::io;

/// The name of the file.
pub(super) const FILE: &str = "checkpoint";
/// Also the version: a file of another version is made again.
const MAGIC: u64 = u64::from_le_bytes(*b"postchk\x02");

#[derive(Clone, Copy, Debug)]
struct Head {
    magic: u64,
    /// Shows the secret under which names of keys are hashed.
    secret_mark: u64,
    /// The limits of mailboxes.
    limits: Limits,
    /// The number of sealed segments.
    segments: u32,
    /// The number of bytes of the summary.
    summary: u32,
    /// The offset of the last record in the last segment, and its checksum.
    last: u32,
    last_checksum: u32,
    /// The size of that segment.
    end: u64,
}

/// A sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// Its first entry.
    pub(super) first: Index,
    /// Its size in bytes.
    pub(super) end: u64,
}

fields!(Head { magic, secret_mark, limits, segments, summary, last, last_checksum, end });
fields!(Deletion { at, account });
const HEAD_BYTES: usize = 8 + 8 + 2 * 8 + 4 * 4 + 8;
const SEALED_BYTES: usize = 8;
const DELETION_BYTES: usize = 16;
/// Bytes of an account between its creation and its name.
const ACCOUNT_BYTES: usize = 8 + 3 * 8 + 3 * 4 + 2 * 8;

const NO_KEY: Key = Key { at: Index::ZERO, name: 0, message: 0, receiver: Index::ZERO, number: 0 };
const NO_DELETION: Deletion = Deletion { at: Index::ZERO, account: Index::ZERO };

/// The part of a log that a checkpoint describes: its first segments.
#[derive(Clone, Debug)]
pub(super) struct Covered {
    /// The first entries of the segments: of all up to one of them.
    pub(super) segments: Vec<Index>,
    /// Of the log up to their end.
    pub(super) summary: LogSummary,
    /// The last one.
    pub(super) seal: Seal,
    /// See [`Mailboxes::secret_mark`](crate::mailbox::Mailboxes::secret_mark).
    pub(super) secret_mark: u64,
    /// The limits of mailboxes there.
    pub(super) limits: Limits,
}

/// A checkpoint that is being written: keys first, then deletions, then accounts.
pub(super) struct Writer<'a, D: Disk> {
    file: PagedWriter<'a, D>,
    bytes: Vec<u8>,
    /// All keys, and all deletions, are written.
    ended: [bool; 2],
}

impl<'a, D: Disk> Writer<'a, D> {
    pub(super) fn create(disk: &'a D, path: &str, place: &Covered) -> io::Result<Writer<'a, D>> {
        let Covered { segments, summary, seal, secret_mark, limits } = place;
        let mut summary_bytes = Vec::new();
        summary.encode(&mut summary_bytes);
        let head = Head {
            magic: MAGIC,
            secret_mark: *secret_mark,
            limits: *limits,
            segments: segments.len() as u32,
            summary: summary_bytes.len() as u32,
            last: seal.last,
            last_checksum: seal.last_checksum,
            end: seal.end,
        };
        let file = PagedWriter::create(disk, path)?;
        let mut writer = Writer { file, bytes: Vec::new(), ended: [false; 2] };
        writer.put(&head)?;
        writer.file.pad()?;
        segments.iter().try_for_each(|first| writer.put(first))?;
        writer.file.pad()?;
        writer.file.write(&summary_bytes)?;
        writer.file.pad()?;
        Ok(writer)
    }

    fn put(&mut self, value: &impl Field) -> io::Result<()> {
        self.bytes.clear();
        value.write(&mut self.bytes);
        self.file.write(&self.bytes)
    }

    fn end_keys(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.ended[0], true) { Ok(()) } else { self.put(&NO_KEY) }
    }

    fn end_deletions(&mut self) -> io::Result<()> {
        self.end_keys()?;
        if std::mem::replace(&mut self.ended[1], true) { Ok(()) } else { self.put(&NO_DELETION) }
    }

    /// Ends the file. It is durable on return, its name is not.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.end_deletions()?;
        self.put(&Index::ZERO)?;
        self.file.finish()
    }
}

impl<D: Disk> Output for Writer<'_, D> {
    fn key(&mut self, key: Key) -> io::Result<()> {
        self.put(&key)
    }

    fn deletion(&mut self, deletion: Deletion) -> io::Result<()> {
        self.end_keys()?;
        self.put(&deletion)
    }

    fn account(&mut self, saved: SavedAccount) -> io::Result<()> {
        self.end_deletions()?;
        let SavedAccount { created, password_set, messages, forgotten, name, hash } = saved;
        let Messages { counts, bytes, newest, skips } = messages;
        let out = &mut self.bytes;
        out.clear();
        created.write(out);
        password_set.write(out);
        counts.iter().for_each(|count| count.write(out));
        bytes.write(out);
        for segment in [newest, skips[0], skips[1]] {
            segment.map_or(0, SegmentId::number).write(out);
        }
        forgotten.write(out);
        record::write_bytes(out, name.as_bytes());
        let [usual, own] = hash.parts();
        ((usual.len() + own.len()) as u16).write(out);
        [usual, own].iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        self.file.write(&self.bytes)
    }
}

/// A checkpoint that is open for reading.
#[derive(Debug)]
pub(super) struct Checkpoint<F> {
    file: F,
    pub(super) place: Covered,
    /// Where its keys begin.
    keys: u64,
}

impl<F> Checkpoint<F> {
    /// Opens the checkpoint; `None` if it is missing, unreadable, or of another version.
    pub(super) fn open<D: Disk<File = F>>(disk: &D) -> Option<Checkpoint<F>> {
        let file = disk.open(FILE, false).ok()?;
        let (place, keys) = Self::read(disk, &file).ok()?;
        Some(Checkpoint { file, place, keys })
    }

    fn read<D: Disk<File = F>>(disk: &D, file: &F) -> io::Result<(Covered, u64)> {
        let page = PAGE_DATA as u64;
        let head: Head = PagedReader::from(disk, file, 0)?.value(HEAD_BYTES)?;
        if head.magic != MAGIC {
            return Err(damaged("it is of another version"));
        }
        let mut reader = PagedReader::from(disk, file, page)?;
        let count = head.segments as usize;
        let segments = (0..count).map(|_| reader.value(SEALED_BYTES));
        let segments = segments.collect::<io::Result<Vec<Index>>>()?;
        let at = page + (count as u64 * SEALED_BYTES as u64).next_multiple_of(page);
        let bytes = head.summary as usize;
        let mut reader = PagedReader::from(disk, file, at)?;
        let summary = LogSummary::decode(reader.take(bytes)?);
        let summary = summary.ok_or_else(|| damaged("its summary is invalid"))?;
        let keys = at + (bytes as u64).next_multiple_of(page);
        let first = *segments.last().ok_or_else(|| damaged("it has no segment"))?;
        let next = summary.last().index.next().0;
        let entries = next.checked_sub(first.0).ok_or_else(|| damaged("it ends early"))?;
        let Head { last, last_checksum, end, secret_mark, limits, .. } = head;
        let seal = Seal { first, entries, end, last, last_checksum };
        Ok((Covered { segments, summary, seal, secret_mark, limits }, keys))
    }

    /// Returns a reader of its keys, deletions and accounts.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn contents<'a, D: Disk<File = F>>(
        &'a self,
        disk: &'a D,
    ) -> io::Result<Contents<'a, D>> {
        let reader = PagedReader::from(disk, &self.file, self.keys)?;
        Ok(Contents { reader, ended: false })
    }

    /// Its size in bytes, if the disk tells.
    pub(super) fn bytes<D: Disk<File = F>>(&self, disk: &D) -> u64 {
        disk.size(&self.file).unwrap_or(0)
    }
}

/// What a checkpoint holds, in its order: all keys must be read first, then all deletions. The
/// accounts follow.
pub(super) struct Contents<'a, D: Disk> {
    reader: PagedReader<'a, D>,
    ended: bool,
}

impl<D: Disk> Contents<'_, D> {
    /// The next key; `None` after the last one.
    pub(super) fn next_key(&mut self) -> io::Result<Option<Key>> {
        let key = self.reader.value(KEY_BYTES)?;
        Ok(Some(key).filter(|key| *key != NO_KEY))
    }

    /// The next deletion; `None` after the last one.
    pub(super) fn next_deletion(&mut self) -> io::Result<Option<Deletion>> {
        let deletion = self.reader.value(DELETION_BYTES)?;
        Ok(Some(deletion).filter(|deletion| *deletion != NO_DELETION))
    }

    fn account(&mut self) -> io::Result<Option<SavedAccount>> {
        let created: Index = self.reader.value(8)?;
        if created == Index::ZERO {
            return Ok(None);
        }
        let bytes = self.reader.take(ACCOUNT_BYTES)?;
        let account = read_account(bytes).ok_or_else(|| invalid("an account"))?;
        let (password_set, messages, forgotten) = account;
        let name = UserName::parse(self.text()?).ok_or_else(|| invalid("a name"))?;
        let hash = PasswordHash::new(self.text()?);
        let saved = SavedAccount { created, password_set, messages, forgotten, name, hash };
        if !saved.is_sound() {
            return Err(invalid("an account"));
        }
        Ok(Some(saved))
    }

    fn text(&mut self) -> io::Result<&str> {
        let length: u16 = self.reader.value(2)?;
        std::str::from_utf8(self.reader.take(length.into())?).map_err(|_| invalid("a text"))
    }
}

fn invalid(what: &str) -> io::Error {
    damaged(&format!("{what} in it is invalid"))
}

fn read_account(mut rest: &[u8]) -> Option<(Index, Messages, Forgotten)> {
    let rest = &mut rest;
    let password_set = Index::read(rest)?;
    let (counts, bytes) = ([u64::read(rest)?, u64::read(rest)?], u64::read(rest)?);
    let mut segment = || u32::read(rest).map(SegmentId::new);
    let (newest, skips) = (segment()?, [segment()?, segment()?]);
    let messages = Messages { counts, bytes, newest, skips };
    Some((password_set, messages, Field::read(rest)?))
}

impl<D: Disk> Iterator for Contents<'_, D> {
    type Item = io::Result<SavedAccount>;

    fn next(&mut self) -> Option<io::Result<SavedAccount>> {
        if self.ended {
            return None;
        }
        let account = self.account().transpose();
        self.ended = !matches!(account, Some(Ok(_)));
        account
    }
}
