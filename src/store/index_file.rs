//! The index file of a sealed segment: for each account, where in the segment the messages are
//! that it has received and sent; and for some entries, where they begin.
//!
//! The file consists of sections, each beginning with a page:
//!
//! * the head: [`Head`];
//! * points: entry and offset, each `u32`, of the first record, and of about one in 4 KiB;
//! * positions, each `u32`: for each account the offsets of the messages that it has received;
//!   then, of each message that it has sent, the offset, and the place among those that the
//!   receiver has received in this segment, from 0;
//! * changes of accounts: [`ChangeRow`]s in the order of the accounts, and then of the entries;
//! * mailboxes that have forgotten messages: [`ForgottenRow`] in the order of the accounts;
//! * keys of ONCE: [`Key`]s in the order of the entries;
//! * the summary of the log up to the end of the segment;
//! * the table: [`Row`]s in the order of the accounts;
//! * fences: the first account, `u64`, of each page of the table; then of each page of these, and
//!   so on.
//!
//! Entries count from the first one of the segment, offsets from the segment's beginning. The last
//! level of fences is one page.

use super::disk::Disk;
use super::paged::{self, PAGE_DATA, damaged};
use super::segment::Seal;
use crate::fields::{Field, fields, read_all};
use crate::ids::{Index, SegmentId};
use crate::mailbox::{Done, Earlier, Forgotten, Key, Limits, List};
use byteorder::{ByteOrder, LE};
use std::cell::OnceCell;
use std::io;
use std::rc::Rc;

/// Also the version: a file of another version is made again.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"postidx\x04");
pub(super) const ROW_BYTES: usize = 56;
pub(super) const ROWS_PER_PAGE: usize = PAGE_DATA / ROW_BYTES;
pub(super) const FENCES_PER_PAGE: usize = PAGE_DATA / 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) magic: u64,
    /// The number of the segment.
    pub(super) id: SegmentId,
    /// What the segment and this file must agree on.
    pub(super) seal: Seal,
    /// Shows the secret under which names of keys are hashed.
    pub(super) secret_mark: u64,
    /// The limits of mailboxes at the end of the segment.
    pub(super) limits: Limits,
    /// How many messages are emptied here.
    pub(super) emptied: u32,
    /// The number of points, positions, rows, changes, mailboxes that have forgotten messages, and
    /// keys.
    pub(super) points: u32,
    /// See `points`.
    pub(super) positions: u32,
    pub(super) rows: u32,
    pub(super) changes: u32,
    pub(super) forgotten: u32,
    pub(super) keys: u32,
    /// The number of bytes of the summary.
    pub(super) summary: u32,
}

fields!(Seal { first, entries, end, last, last_checksum });
fields! {
    Head {
        magic, id, seal, secret_mark, limits, emptied,
        points, positions, rows, changes, forgotten, keys, summary
    }
}
const HEAD_BYTES: usize = 8 + 4 + (8 + 8 + 8 + 4 + 4) + 8 + 2 * 8 + 8 * 4;

/// A change of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangeRow {
    /// The entry that created the account.
    pub(super) account: Index,
    /// The entry that has changed it, and the offset of its record.
    pub(super) entry: u32,
    /// See `entry`.
    pub(super) offset: u32,
    pub(super) done: Done,
}

impl Field for Done {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }

    fn read(rest: &mut &[u8]) -> Option<Done> {
        [Done::Created, Done::PasswordSet, Done::Deleted].get(usize::from(u8::read(rest)?)).copied()
    }
}

fields!(ChangeRow { account, entry, offset, done });
fields!(Key { at, name, message, receiver, number });

/// A mailbox, and all that it has forgotten up to the end of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ForgottenRow {
    /// The entry that created the account.
    pub(super) account: Index,
    pub(super) forgotten: Forgotten,
}

fields!(ForgottenRow { account, forgotten });
pub(super) const FORGOTTEN_BYTES: usize = 3 * 8;
pub(super) const CHANGE_BYTES: usize = 8 + 4 + 4 + 1;
pub(super) const KEY_BYTES: usize = 5 * 8;

impl Field for SegmentId {
    fn write(&self, out: &mut Vec<u8>) {
        self.number().write(out);
    }

    fn read(rest: &mut &[u8]) -> Option<SegmentId> {
        SegmentId::new(u32::read(rest)?)
    }
}

/// An account in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The entry that created the account.
    pub(super) account: Index,
    /// The numbers of its first messages here: received and sent.
    pub(super) first: [u64; 2],
    /// The bytes of all that it has received up to the end of the segment.
    pub(super) bytes: u64,
    /// How many messages each list has here.
    pub(super) count: [u32; 2],
    /// The place of its first position among all positions.
    pub(super) position: u32,
    /// The segments before with messages of the account.
    pub(super) earlier: Earlier,
}

impl Field for Row {
    fn write(&self, out: &mut Vec<u8>) {
        self.account.write(out);
        self.first.iter().for_each(|first| first.write(out));
        self.bytes.write(out);
        self.count.iter().for_each(|count| count.write(out));
        self.position.write(out);
        let Earlier { previous, skips: [near, far] } = self.earlier;
        for segment in [previous, near, far] {
            segment.map_or(0, SegmentId::number).write(out);
        }
    }

    fn read(rest: &mut &[u8]) -> Option<Row> {
        let account = Index::read(rest)?;
        let first = [u64::read(rest)?, u64::read(rest)?];
        let bytes = u64::read(rest)?;
        let count = [u32::read(rest)?, u32::read(rest)?];
        let position = u32::read(rest)?;
        let mut segment = || u32::read(rest).map(SegmentId::new);
        let (previous, skips) = (segment()?, [segment()?, segment()?]);
        Some(Row { account, first, bytes, count, position, earlier: Earlier { previous, skips } })
    }
}

impl Row {
    /// The number of the first message that the list has here, or would have.
    pub(super) fn first(&self, list: List) -> u64 {
        self.first[list as usize]
    }

    /// The number after the last message that the list has here.
    pub(super) fn next(&self, list: List) -> u64 {
        self.first(list) + u64::from(self.count[list as usize])
    }
}

/// The offsets in data bytes at which the sections begin.
pub(super) struct Sections {
    points: u64,
    positions: u64,
    pub(super) changes: u64,
    pub(super) forgotten: u64,
    pub(super) keys: u64,
    pub(super) summary: u64,
    pub(super) table: u64,
    fences: u64,
}

impl Head {
    pub(super) fn sections(&self) -> Sections {
        let page = PAGE_DATA as u64;
        let pages =
            |count: u32, bytes: usize| (u64::from(count) * bytes as u64).next_multiple_of(page);
        let points = page;
        let positions = points + pages(self.points, 8);
        let changes = positions + pages(self.positions, 4);
        let forgotten = changes + pages(self.changes, CHANGE_BYTES);
        let keys = forgotten + pages(self.forgotten, FORGOTTEN_BYTES);
        let summary = keys + pages(self.keys, KEY_BYTES);
        let table = summary + pages(self.summary, 1);
        let fences = table + (self.rows as usize).div_ceil(ROWS_PER_PAGE) as u64 * page;
        Sections { points, positions, changes, forgotten, keys, summary, table, fences }
    }
}

/// Entries and the offsets of their records, in order. The first entry of the segment is one.
pub(super) type Points = Rc<[(u32, u32)]>;

/// An index file that is open for reading.
#[derive(Debug)]
pub(super) struct IndexFile<F> {
    pub(super) file: F,
    pub(super) head: Head,
    /// The points, once they were needed.
    points: OnceCell<Points>,
}

impl<F> IndexFile<F> {
    /// Opens the file; `None` if it is missing, unreadable, or of another segment or version.
    pub(super) fn open<D: Disk<File = F>>(
        disk: &D,
        path: &str,
        described: Option<(SegmentId, Seal)>,
    ) -> Option<IndexFile<F>> {
        let file = disk.open(path, false).ok()?;
        let mut bytes = [0; HEAD_BYTES];
        paged::read(disk, &file, 0, &mut bytes).ok()?;
        let head: Head = read_all(&bytes)?;
        let own = (head.id, head.seal);
        let fits = head.magic == MAGIC && described.is_none_or(|described| described == own);
        fits.then(|| IndexFile { file, head, points: OnceCell::new() })
    }

    /// Whether the file is of this segment of the log.
    pub(super) fn is_of(&self, segment: &super::log::Segment) -> bool {
        let Seal { first, entries, end, .. } = self.head.seal;
        (first, entries, end) == (segment.first, segment.entries(), segment.end)
    }

    /// Finds an account that has messages in the segment.
    ///
    /// # Errors
    /// When the file can't be read or is damaged.
    pub(super) fn find<D: Disk<File = F>>(
        &self,
        disk: &D,
        account: Index,
    ) -> io::Result<Option<Row>> {
        let Sections { table, fences, .. } = self.head.sections();
        // The sizes of the levels of fences, from the table upwards.
        let mut levels = vec![(self.head.rows as usize).div_ceil(ROWS_PER_PAGE)];
        while levels.last().is_some_and(|pages| *pages > 1) {
            levels.push(levels[levels.len() - 1].div_ceil(FENCES_PER_PAGE));
        }
        let page_bytes = PAGE_DATA as u64;
        let start = |level: usize| match level {
            0 => table,
            _ => fences + levels[1..level].iter().sum::<usize>() as u64 * page_bytes,
        };
        let (mut page, mut bytes) = (0, [0; PAGE_DATA]);
        for level in (1..levels.len()).rev() {
            let children = levels[level - 1] - page * FENCES_PER_PAGE;
            let count = children.min(FENCES_PER_PAGE);
            let at = start(level) + page as u64 * page_bytes;
            paged::read(disk, &self.file, at, &mut bytes[..count * 8])?;
            let fences = bytes[..count * 8].chunks_exact(8).map(LE::read_u64);
            let after = fences.take_while(|fence| *fence <= account.0).count();
            let Some(child) = after.checked_sub(1) else { return Ok(None) };
            page = page * FENCES_PER_PAGE + child;
        }
        let rows = (self.head.rows as usize - page * ROWS_PER_PAGE).min(ROWS_PER_PAGE);
        let bytes = &mut bytes[..rows * ROW_BYTES];
        paged::read(disk, &self.file, table + page as u64 * page_bytes, bytes)?;
        let row = bytes.chunks_exact(ROW_BYTES).find(|row| LE::read_u64(row) == account.0);
        row.map(|mut row| Row::read(&mut row).ok_or_else(|| damaged("a row is invalid")))
            .transpose()
    }

    /// Returns where messages of a list are: those from number `from` on, which must be here,
    /// `most` at most. Each has an offset, and a rank: see [`Listed`]. The rank of a received one
    /// is 0 here.
    ///
    /// # Errors
    /// When the file can't be read or is damaged.
    pub(super) fn offsets<D: Disk<File = F>>(
        &self,
        disk: &D,
        row: &Row,
        list: List,
        from: u64,
        most: usize,
    ) -> io::Result<Vec<(u32, u32)>> {
        let skipped = from - row.first(list);
        let count = (row.next(list) - from).min(most as u64);
        let (before, words) = match list {
            List::Received => (0, 1),
            List::Sent => (u64::from(row.count[0]), 2),
        };
        let position = u64::from(row.position) + before + skipped * words;
        if position + count * words > u64::from(self.head.positions) {
            return Err(damaged("a row names positions that do not exist"));
        }
        let mut bytes = vec![0; (count * words) as usize * 4];
        let at = self.head.sections().positions + position * 4;
        paged::read(disk, &self.file, at, &mut bytes)?;
        let rank = |at: &[u8]| at.get(4..).filter(|rank| !rank.is_empty()).map_or(0, LE::read_u32);
        let listed = bytes.chunks_exact(words as usize * 4);
        Ok(listed.map(|at| (LE::read_u32(at), rank(at))).collect())
    }

    /// Returns the points.
    ///
    /// # Errors
    /// When the file can't be read or is damaged.
    pub(super) fn points<D: Disk<File = F>>(&self, disk: &D) -> io::Result<Points> {
        if let Some(points) = self.points.get() {
            return Ok(Rc::clone(points));
        }
        let mut bytes = vec![0; self.head.points as usize * 8];
        paged::read(disk, &self.file, self.head.sections().points, &mut bytes)?;
        let point = |point: &[u8]| (LE::read_u32(point), LE::read_u32(&point[4..]));
        let points: Points = bytes.chunks_exact(8).map(point).collect();
        if points.first().is_none_or(|(entry, _)| *entry != 0) {
            return Err(damaged("it has no first point"));
        }
        Ok(Rc::clone(self.points.get_or_init(|| points)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::index_write::{Contents, write};
    use super::super::memory::MemoryDisk;
    use super::*;
    use crate::content::Content;
    use crate::ids::{Secret, UserName};
    use crate::mailbox::{Change, Mailboxes, Outcome, Part};
    use crate::replica::LogSummary;
    use std::sync::Arc;

    const LISTS: [List; 2] = [List::Received, List::Sent];
    const PATH: &str = "index";

    /// Number and entry of each message: received and sent.
    type Lists = [Vec<(u64, u64)>; 2];

    /// Makes `accounts` accounts, each of which gets some messages from the one before it, in the
    /// second segment. Returns the positions in it, and the lists of each account as they should
    /// be: number and entry.
    fn sample(accounts: u64, messages: u64) -> (Arc<Part>, Vec<Lists>) {
        let mut mailboxes = Mailboxes::new(&Secret::new([1; 32]));
        let name = |n: u64| UserName::parse(&format!("user-{n}")).unwrap();
        mailboxes.begin_segment(SegmentId::FIRST, Index(1));
        for n in 1..=accounts {
            mailboxes.apply(Index(n), &Change::Create { user: name(n), hash: "" });
        }
        let mut lists = vec![[Vec::new(), Vec::new()]; accounts as usize + 1];
        let mut sent = vec![0; accounts as usize + 1];
        let mut index = accounts;
        let mut send = |mailboxes: &mut Mailboxes, from: u64, to: u64| {
            index += 1;
            let (content, sender) = (Content::plain("x"), Index(from));
            let (to_name, from_name) = (name(to), name(from));
            let change =
                Change::Message { to: to_name, from: from_name, sender, key: None, content };
            let outcome = mailboxes.apply(Index(index), &change);
            let Outcome::Stored(number) = outcome else { panic!("{outcome:?}") };
            sent[from as usize] += 1;
            [(to, number, index), (from, sent[from as usize], index)]
        };
        // A message of the first segment: numbers in the second one do not begin with 1.
        send(&mut mailboxes, 1, 1);
        let first = Index(accounts + 2);
        mailboxes.begin_segment(SegmentId::new(2).unwrap(), first);
        for n in 0..messages {
            let to = n * 7919 % accounts + 1;
            // Every third account has no messages here.
            if to.is_multiple_of(3) {
                continue;
            }
            let [received, sent] = send(&mut mailboxes, 1 + n % 2, to);
            lists[received.0 as usize][0].push((received.1, received.2));
            lists[sent.0 as usize][1].push((sent.1, sent.2));
        }
        mailboxes.begin_segment(SegmentId::new(3).unwrap(), Index(u64::MAX));
        mailboxes.forget_indexed();
        (Arc::clone(mailboxes.unindexed().unwrap()), lists)
    }

    fn described(part: &Part, entries: u64) -> (SegmentId, Seal) {
        let end = entries * 100;
        let seal = Seal { first: part.first, entries, end, last: 1, last_checksum: 7 };
        (part.segment, seal)
    }

    fn written(part: &Part, entries: u64) -> MemoryDisk {
        let disk = MemoryDisk::default();
        let offsets: Vec<u32> = (0..entries as u32).map(|entry| entry * 100 + 32).collect();
        let ((_, seal), summary) = (described(part, entries), &LogSummary::default());
        let contents = Contents { seal, offsets: &offsets, part, summary, secret_mark: 5 };
        write(&disk, PATH, &contents).unwrap();
        disk
    }

    fn open(disk: &MemoryDisk, segment: (SegmentId, Seal)) -> IndexFile<usize> {
        IndexFile::open(disk, PATH, Some(segment)).expect("a valid file")
    }

    #[test]
    fn each_account_has_its_messages_and_no_other() {
        // The tables have one page, a few pages, and so many that the fences have three levels.
        for (accounts, messages) in [(2, 50), (127, 3000), (200, 10_000), (70_000, 70_000)] {
            let (part, lists) = sample(accounts, messages);
            let disk = written(&part, messages);
            let file = open(&disk, described(&part, messages));
            for (account, lists) in lists.iter().enumerate() {
                let row = file.find(&disk, Index(account as u64)).unwrap();
                assert_eq!(row.is_none(), lists.iter().all(Vec::is_empty), "{account}");
                let Some(row) = row else { continue };
                assert_eq!(row.earlier.previous.is_some(), account == 1);
                for list in LISTS {
                    let expected = &lists[list as usize];
                    assert_eq!(row.next(list) - row.first(list), expected.len() as u64);
                    let offset = |index: u64| ((index - part.first.0) * 100 + 32) as u32;
                    let all: Vec<u32> = expected.iter().map(|(_, at)| offset(*at)).collect();
                    let numbers = expected.iter().map(|(number, _)| *number);
                    for (at, number) in numbers.enumerate().step_by(expected.len() / 3 + 1) {
                        assert_eq!(row.first(list) + at as u64, number);
                        for most in [1, 10, 100_000] {
                            let found = file.offsets(&disk, &row, list, number, most).unwrap();
                            let found: Vec<u32> = found.iter().map(|at| at.0).collect();
                            assert_eq!(found, all[at..all.len().min(at + most)], "{account}");
                        }
                    }
                }
            }
            assert_eq!(file.find(&disk, Index(u64::MAX)).unwrap(), None);
        }
    }

    #[test]
    fn points_are_a_page_apart_and_begin_with_the_first_record() {
        let (part, _) = sample(5, 1000);
        let disk = written(&part, 1000);
        let file = open(&disk, described(&part, 1000));
        let points = file.points(&disk).unwrap();
        assert_eq!(points[..2], [(0, 32), (41, 4132)]);
        assert!(points.windows(2).all(|pair| (4096..4196).contains(&(pair[1].1 - pair[0].1))));
    }

    #[test]
    fn the_file_of_another_segment_or_version_is_none() {
        let (part, _) = sample(5, 100);
        let disk = written(&part, 100);
        let own = described(&part, 100);
        let opens = |segment| IndexFile::open(&disk, PATH, segment).is_some();
        assert!(opens(None) && opens(Some(own)));
        let (id, seal) = own;
        for other in [
            (SegmentId::new(9).unwrap(), seal),
            (id, Seal { first: seal.first.next(), ..seal }),
            (id, Seal { entries: 101, ..seal }),
            (id, Seal { end: seal.end + 1, ..seal }),
            (id, Seal { last: 2, ..seal }),
            (id, Seal { last_checksum: 8, ..seal }),
        ] {
            assert!(!opens(Some(other)), "{other:?}");
        }
        disk.edit(PATH, |bytes| bytes.truncate(5000));
        assert!(opens(Some(own)), "the head says nothing of what follows");
        disk.edit(PATH, |bytes| bytes[0] ^= 1);
        assert!(!opens(Some(own)));
        assert!(IndexFile::open(&disk, "none", None).is_none());
    }

    #[test]
    fn every_changed_byte_is_noticed_or_harmless() {
        let (part, _) = sample(300, 2000);
        let good = written(&part, 2000);
        let own = described(&part, 2000);
        type Read = Vec<(Option<Row>, Vec<(u32, u32)>)>;
        let read = |disk: &MemoryDisk| -> io::Result<Read> {
            let Some(file) = IndexFile::open(disk, PATH, Some(own)) else {
                return Err(damaged("the head"));
            };
            file.points(disk)?;
            let each = (0..=300).map(|account| {
                let row = file.find(disk, Index(account))?;
                let offsets = row.map(|row| {
                    file.offsets(disk, &row, List::Received, row.first(List::Received), 9999)
                });
                Ok((row, offsets.transpose()?.unwrap_or_default()))
            });
            each.collect()
        };
        let expected = read(&good).unwrap();
        let file = good.open(PATH, false).unwrap();
        let size = good.size(&file).unwrap() as usize;
        for at in (0..size).step_by(37) {
            let disk = good.copied();
            disk.edit(PATH, |bytes| bytes[at] ^= 0x40);
            if let Ok(found) = read(&disk) {
                assert_eq!(found, expected, "byte {at}");
            }
        }
    }
}
