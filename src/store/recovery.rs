//! Reading the log at start: good, a torn tail, or damage.

use super::OpenError;
use super::disk::Disk;
use super::identity::Identity;
use super::log::{Log, Segment};
use super::segment::{self, Scan, file_name, first_index};
use crate::limits::FILE_PIECE_BYTES;
use crate::names::{Index, Position, Term};
use crate::record::Record;
use std::io;

/// A torn tail that was cut off: the mark of a crash in the middle of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file it was in.
    pub file: String,
    /// Where the good items end.
    pub at: u64,
    /// How many bytes were cut.
    pub bytes: u64,
    /// What was wrong with them.
    pub why: &'static str,
}

/// Reads all segments, hands every record to `visit` in order, cuts a torn tail and makes the
/// rest durable.
pub(super) fn read_log<D: Disk>(
    disk: &D,
    identity: &Identity,
    visit: &mut dyn FnMut(&Record<'_>) -> Result<(), &'static str>,
) -> Result<(Log<D::File>, Option<Torn>), OpenError> {
    let mut names: Vec<Index> =
        disk.list("log")?.iter().filter_map(|name| first_index(name)).collect();
    names.sort_unstable();
    if !names.contains(&identity.segment) {
        let name = file_name(identity.segment);
        return Err(OpenError::Damaged(format!("log/{name}: it is missing")));
    }
    let mut last = Position { index: Index::ZERO, term: Term::ZERO };
    let mut segments: Vec<Segment<D::File>> = Vec::new();
    let mut sealed = 0;
    let mut torn = None;
    for (at, &first) in names.iter().enumerate() {
        let path = format!("log/{}", file_name(first));
        let damaged = |why: &str| OpenError::Damaged(format!("{path}: {why}"));
        if first != last.index.next() {
            return Err(damaged("entries before it are missing"));
        }
        let file = disk.open(&path, false)?;
        let mut offsets = Vec::new();
        let scan = segment::scan(disk, &file, last, |offset, record| {
            visit(record)?;
            offsets.push(offset);
            last = record.position();
            Ok(())
        })?;
        let is_last = at + 1 == names.len();
        if let Some(why) = scan.bad.or((scan.end == 0).then_some("it is empty")) {
            if !is_last || scan.end < scan.synced {
                return Err(damaged(&format!("at byte {}: {why}", scan.end)));
            }
            let size = disk.size(&file)?;
            torn = Some(Torn { file: path.clone(), at: scan.end, bytes: size - scan.end, why });
            if scan.end == 0 {
                if first == identity.segment {
                    return Err(damaged(why));
                }
                // The crash came before the new segment was named: nothing of it counts.
                disk.remove(&path)?;
                disk.sync_folder("log")?;
                break;
            }
            disk.truncate(&file, scan.end)?;
        }
        if is_last {
            store_again(disk, &file, &scan)?;
        }
        sealed = scan.synced;
        segments.push(Segment { first, file, offsets, end: scan.end });
    }
    if segments.is_empty() {
        return Err(OpenError::Damaged("log: no segment is left".to_owned()));
    }
    Ok((Log::new(segments, sealed), torn))
}

/// Writes again in place what no header says was synced: after a crash, or a failed sync, the
/// page cache may show what the disk does not have, and a sync alone would not write it.
fn store_again<D: Disk>(disk: &D, file: &D::File, scan: &Scan) -> io::Result<()> {
    let mut at = scan.synced;
    let mut piece = vec![0; FILE_PIECE_BYTES];
    while at < scan.end {
        let bytes = piece.len().min((scan.end - at) as usize);
        let read = disk.read_at(file, &mut piece[..bytes], at)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        disk.write_at(file, &piece[..read], at)?;
        at += read as u64;
    }
    disk.sync(file)
}
