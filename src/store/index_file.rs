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
//! * the table: [`Row`]s in the order of the accounts;
//! * fences: the first account, `u64`, of each page of the table; then of each page of these, and
//!   so on.
//!
//! Entries count from the first one of the segment, offsets from the segment's beginning. The last
//! level of fences is one page.

use super::disk::Disk;
use super::paged::{self, PAGE_DATA, PagedWriter};
use crate::fields::{Field, fields, read_all};
use crate::ids::{Index, SegmentId};
use crate::mailbox::{Block, Earlier, List, Listed, Part};
use byteorder::{ByteOrder, LE};
use std::cell::OnceCell;
use std::io;
use std::rc::Rc;

/// Also the version: a file of another version is made again.
const MAGIC: u64 = u64::from_le_bytes(*b"postidx\x02");
/// Bytes of the log from one point to the next, at least.
const POINT_BYTES: u32 = 4096;
const ROW_BYTES: usize = 48;
const ROWS_PER_PAGE: usize = PAGE_DATA / ROW_BYTES;
const FENCES_PER_PAGE: usize = PAGE_DATA / 8;

/// What a segment and its index file must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The number of the segment.
    pub(super) id: SegmentId,
    /// The first entry.
    pub(super) first: Index,
    /// The number of entries.
    pub(super) entries: u64,
    /// The size of the segment in bytes.
    pub(super) end: u64,
    /// The checksum of the last record, by which a segment of the same size is told apart.
    pub(super) last_checksum: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    magic: u64,
    segment: Segment,
    /// The number of points, positions and rows.
    points: u32,
    positions: u32,
    rows: u32,
}

fields!(Segment { id, first, entries, end, last_checksum });
fields!(Head { magic, segment, points, positions, rows });
const HEAD_BYTES: usize = 8 + 4 + 8 + 8 + 8 + 4 + 3 * 4;

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
    account: Index,
    /// The numbers of its first messages here: received and sent.
    first: [u64; 2],
    /// How many messages each list has here.
    count: [u32; 2],
    /// The place of its first position among all positions.
    position: u32,
    /// The segments before with messages of the account.
    pub(super) earlier: Earlier,
}

impl Row {
    fn write(&self, out: &mut Vec<u8>) {
        self.account.write(out);
        self.first.iter().for_each(|first| first.write(out));
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
        let count = [u32::read(rest)?, u32::read(rest)?];
        let position = u32::read(rest)?;
        let mut segment = || u32::read(rest).map(SegmentId::new);
        let (previous, skips) = (segment()?, [segment()?, segment()?]);
        Some(Row { account, first, count, position, earlier: Earlier { previous, skips } })
    }

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
struct Sections {
    points: u64,
    positions: u64,
    table: u64,
    fences: u64,
}

impl Head {
    fn sections(&self) -> Sections {
        let page = PAGE_DATA as u64;
        let pages = |bytes: u64| bytes.div_ceil(page) * page;
        let points = page;
        let positions = points + pages(u64::from(self.points) * 8);
        let table = positions + pages(u64::from(self.positions) * 4);
        let fences = table + (self.rows as usize).div_ceil(ROWS_PER_PAGE) as u64 * page;
        Sections { points, positions, table, fences }
    }
}

/// Writes the index file of a segment to `path`. `offsets` are those of its records. The file is
/// durable on return, its name is not.
pub(super) fn write<D: Disk>(
    disk: &D,
    path: &str,
    segment: Segment,
    offsets: &[u32],
    part: &Part,
) -> io::Result<()> {
    let mut blocks: Vec<&Block> = part.blocks.iter().collect();
    blocks.sort_unstable_by_key(|block| block.account);
    let mut points: Vec<(u32, u32)> = Vec::new();
    for (entry, offset) in (0..).zip(offsets) {
        if points.last().is_none_or(|(_, last)| offset - last >= POINT_BYTES) {
            points.push((entry, *offset));
        }
    }
    let count = |block: &Block| LISTS.map(|list| block.run(list).count);
    let positions = blocks.iter().map(|block| words(count(block))).sum();
    let (points_count, rows) = (points.len() as u32, blocks.len() as u32);
    let head = Head { magic: MAGIC, segment, points: points_count, positions, rows };
    let mut file = PagedWriter::create(disk, path)?;
    let mut bytes = Vec::new();
    head.write(&mut bytes);
    file.write(&bytes)?;
    file.pad()?;
    for (entry, offset) in points {
        file.write(&entry.to_le_bytes())?;
        file.write(&offset.to_le_bytes())?;
    }
    file.pad()?;
    let mut entries = Vec::new();
    for (block, list) in blocks.iter().flat_map(|block| LISTS.map(|list| (block, list))) {
        let run = block.run(list);
        entries.clear();
        part.list(block, list, run.first, run.count as usize, &mut entries);
        for Listed { entry, rank } in &entries {
            file.write(&offsets[(entry.0 - segment.first.0) as usize].to_le_bytes())?;
            if list == List::Sent {
                file.write(&rank.to_le_bytes())?;
            }
        }
    }
    file.pad()?;
    let (mut position, mut fences) = (0, Vec::new());
    for (at, block) in blocks.iter().enumerate() {
        if at % ROWS_PER_PAGE == 0 {
            file.pad()?;
            fences.push(block.account.0);
        }
        let row = Row {
            account: block.account,
            first: LISTS.map(|list| block.run(list).first),
            count: count(block),
            position,
            earlier: block.earlier,
        };
        bytes.clear();
        row.write(&mut bytes);
        file.write(&bytes)?;
        position += words(row.count);
    }
    while fences.len() > 1 {
        for page in fences.chunks(FENCES_PER_PAGE) {
            file.pad()?;
            page.iter().try_for_each(|fence| file.write(&fence.to_le_bytes()))?;
        }
        fences = fences.iter().step_by(FENCES_PER_PAGE).copied().collect();
    }
    file.finish()
}

/// How many positions an account has: one for a received message, two for a sent one.
fn words([received, sent]: [u32; 2]) -> u32 {
    received + 2 * sent
}

const LISTS: [List; 2] = [List::Received, List::Sent];

/// Entries and the offsets of their records, in order. The first entry of the segment is one.
pub(super) type Points = Rc<[(u32, u32)]>;

/// An index file that is open for reading.
#[derive(Debug)]
pub(super) struct IndexFile<F> {
    file: F,
    head: Head,
    /// The points, once they were needed.
    points: OnceCell<Points>,
}

impl<F> IndexFile<F> {
    /// Opens the file; `None` if it is missing, damaged, or of another segment or version.
    pub(super) fn open<D: Disk<File = F>>(
        disk: &D,
        path: &str,
        segment: Option<Segment>,
    ) -> io::Result<Option<IndexFile<F>>> {
        let Some(file) = super::whole::open(disk, path)? else { return Ok(None) };
        let mut bytes = [0; HEAD_BYTES];
        let head = match paged::read(disk, &file, 0, &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            read => read.map(|()| read_all::<Head>(&bytes))?,
        };
        let same = |head: &Head| {
            head.magic == MAGIC && segment.is_none_or(|segment| segment == head.segment)
        };
        let head = head.filter(same);
        Ok(head.map(|head| IndexFile { file, head, points: OnceCell::new() }))
    }

    /// Whether the file is of this segment of the log.
    pub(super) fn is_of(&self, segment: &super::log::Segment) -> bool {
        let Segment { first, entries, end, .. } = self.head.segment;
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

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryDisk;
    use super::*;
    use crate::content::Content;
    use crate::ids::{Secret, UserName};
    use crate::mailbox::{Change, Mailboxes, Outcome};
    use std::sync::Arc;

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

    fn segment(part: &Part, entries: u64) -> Segment {
        let (id, first) = (part.segment, part.first);
        Segment { id, first, entries, end: entries * 100, last_checksum: 7 }
    }

    fn written(part: &Part, entries: u64) -> MemoryDisk {
        let disk = MemoryDisk::default();
        let offsets: Vec<u32> = (0..entries as u32).map(|entry| entry * 100 + 32).collect();
        write(&disk, PATH, segment(part, entries), &offsets, part).unwrap();
        disk
    }

    fn open(disk: &MemoryDisk, segment: Segment) -> IndexFile<usize> {
        IndexFile::open(disk, PATH, Some(segment)).unwrap().expect("a valid file")
    }

    #[test]
    fn each_account_has_its_messages_and_no_other() {
        // The tables have one page, a few pages, and so many that the fences have three levels.
        for (accounts, messages) in [(2, 50), (127, 3000), (200, 10_000), (70_000, 70_000)] {
            let (part, lists) = sample(accounts, messages);
            let disk = written(&part, messages);
            let file = open(&disk, segment(&part, messages));
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
        let file = open(&disk, segment(&part, 1000));
        let points = file.points(&disk).unwrap();
        assert_eq!(points[..2], [(0, 32), (41, 4132)]);
        assert!(points.windows(2).all(|pair| (4096..4196).contains(&(pair[1].1 - pair[0].1))));
    }

    #[test]
    fn the_file_of_another_segment_or_version_is_none() {
        let (part, _) = sample(5, 100);
        let disk = written(&part, 100);
        let own = segment(&part, 100);
        let opens = |segment| IndexFile::open(&disk, PATH, segment).unwrap().is_some();
        assert!(opens(None) && opens(Some(own)));
        for other in [
            Segment { first: own.first.next(), ..own },
            Segment { entries: 101, ..own },
            Segment { end: own.end + 1, ..own },
            Segment { last_checksum: 8, ..own },
        ] {
            assert!(!opens(Some(other)), "{other:?}");
        }
        disk.edit(PATH, |bytes| bytes.truncate(5000));
        assert!(opens(Some(own)), "the head says nothing of what follows");
        disk.edit(PATH, |bytes| bytes[0] ^= 1);
        assert!(!opens(Some(own)));
        assert!(IndexFile::open(&disk, "none", None).unwrap().is_none());
    }

    #[test]
    fn every_changed_byte_is_noticed_or_harmless() {
        let (part, _) = sample(300, 2000);
        let good = written(&part, 2000);
        let own = segment(&part, 2000);
        type Read = Vec<(Option<Row>, Vec<(u32, u32)>)>;
        let read = |disk: &MemoryDisk| -> io::Result<Read> {
            let Some(file) = IndexFile::open(disk, PATH, Some(own))? else {
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
