//! Writes index files.

use super::disk::Disk;
use super::index_file::{
    ChangeRow, FENCES_PER_PAGE, ForgottenRow, Head, MAGIC, ROWS_PER_PAGE, Row,
};
use super::paged::PagedWriter;
use super::segment::Seal;
use crate::fields::Field;
use crate::ids::Index;
use crate::mailbox::{AccountChange, Block, List, Listed, Part};
use crate::replica::LogSummary;
use std::collections::BTreeMap;
use std::io;

/// Bytes of the log from one point to the next, at least.
const POINT_BYTES: u32 = 4096;
const LISTS: [List; 2] = [List::Received, List::Sent];

/// What an index file is made of.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    pub(super) seal: Seal,
    /// The offsets of all records.
    pub(super) offsets: &'a [u32],
    pub(super) part: &'a Part,
    /// Of the log up to the end of the segment.
    pub(super) summary: &'a LogSummary,
    /// See [`Mailboxes::secret_mark`](crate::mailbox::Mailboxes::secret_mark).
    pub(super) secret_mark: u64,
}

/// Writes the index file of a segment to `path`. The file is durable on return, its name is not.
pub(super) fn write<D: Disk>(disk: &D, path: &str, contents: &Contents<'_>) -> io::Result<()> {
    let Contents { seal, offsets, part, summary, secret_mark } = *contents;
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
    let changes = changes(part, seal.first, offsets);
    // The last of each account counts.
    let forgotten: BTreeMap<Index, _> = part.forgotten.iter().copied().collect();
    let mut summary_bytes = Vec::new();
    summary.encode(&mut summary_bytes);
    let head = Head {
        magic: MAGIC,
        id: part.segment,
        seal,
        secret_mark,
        limits: part.limits,
        emptied: part.emptied,
        points: points.len() as u32,
        positions,
        rows: blocks.len() as u32,
        changes: changes.len() as u32,
        forgotten: forgotten.len() as u32,
        keys: part.keys.iter().map(|keys| keys.len() as u32).sum(),
        summary: summary_bytes.len() as u32,
    };
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
            file.write(&offsets[(entry.0 - seal.first.0) as usize].to_le_bytes())?;
            if list == List::Sent {
                file.write(&rank.to_le_bytes())?;
            }
        }
    }
    file.pad()?;
    write_all(&mut file, changes)?;
    let forgets = |(account, forgotten)| ForgottenRow { account, forgotten };
    write_all(&mut file, forgotten.into_iter().map(forgets))?;
    write_all(&mut file, part.keys.iter().flat_map(|keys| keys.iter().copied()))?;
    file.write(&summary_bytes)?;
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
            bytes: block.bytes,
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

/// Returns the changes of accounts in the order of the accounts.
fn changes(part: &Part, first: Index, offsets: &[u32]) -> Vec<ChangeRow> {
    let change = |at: &AccountChange| {
        let AccountChange { account, entry, done } = *at;
        let entry = (entry.0 - first.0) as u32;
        ChangeRow { account, entry, offset: offsets[entry as usize], done }
    };
    let mut changes: Vec<ChangeRow> = part.changes.iter().map(change).collect();
    changes.sort_unstable_by_key(|change| (change.account, change.entry));
    changes
}

/// Writes values, the last page of which is filled.
fn write_all<D: Disk, T: Field>(
    file: &mut PagedWriter<'_, D>,
    values: impl IntoIterator<Item = T>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    for value in values {
        bytes.clear();
        value.write(&mut bytes);
        file.write(&bytes)?;
    }
    file.pad()
}

/// How many positions an account has: one for a received message, two for a sent one.
fn words([received, sent]: [u32; 2]) -> u32 {
    received + 2 * sent
}
