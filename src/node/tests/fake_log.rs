//! A log in memory whose entries can be lost.

use super::*;
use crate::mailbox::{Archive, Visit};
use std::io;

/// Entries as records. Reading an empty one fails.
#[derive(Default)]
pub(super) struct FakeLog(pub(super) Vec<Vec<u8>>);

impl LogReader for FakeLog {
    fn last_within(&self, _: Index, through: Index, _: usize) -> Index {
        through
    }

    fn for_each(
        &self,
        from: Index,
        through: Index,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> io::Result<()> {
        for record in &self.0[from.0 as usize - 1..through.0 as usize] {
            if record.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            visit(&Record::trust(record));
        }
        Ok(())
    }
}

impl Archive for FakeLog {
    fn segment_of(&self, _: Index) -> (SegmentId, Index) {
        (SegmentId::FIRST, Index(1))
    }

    fn read_messages(
        &self,
        _: SegmentId,
        _: (Index, List),
        _: u64,
        _: &mut Visit<'_>,
    ) -> io::Result<()> {
        unreachable!("it has no index files")
    }

    fn first_received(&self, _: SegmentId, _: Index) -> io::Result<u64> {
        unreachable!("it has no index files")
    }
}
