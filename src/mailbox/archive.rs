//! What the state needs from the log beside its entries, in order.

use super::List;
use crate::ids::{Index, SegmentId};
use crate::record::Record;
use std::io;

/// Is passed messages, each with its number and its rank (see [`Listed`](super::Listed)). Returns
/// whether it wants more.
pub type Visit<'a> = dyn FnMut(u64, u32, &Record<'_>) -> bool + 'a;

/// Read access to the segments of a log, and to their index files.
pub trait Archive {
    /// Returns the segment that holds an entry, and its first entry.
    fn segment_of(&self, index: Index) -> (SegmentId, Index);

    /// Passes messages of a list of an account to `visit`, from number `from` on, until `visit`
    /// returns false, or the segment that holds message `from` has no more of them. The rank of a
    /// received one is 0. The account is named by the entry that created it. `newest` is a segment
    /// that holds the message, or a later one that holds messages of the account.
    ///
    /// # Errors
    /// When a file can't be read, or does not hold what was written to it.
    fn read_messages(
        &self,
        newest: SegmentId,
        account: (Index, List),
        from: u64,
        visit: &mut Visit<'_>,
    ) -> io::Result<()>;

    /// Returns the number of the first message that an account gets in a segment that has an index
    /// file.
    ///
    /// # Errors
    /// When a file can't be read, or the account gets none there.
    fn first_received(&self, segment: SegmentId, account: Index) -> io::Result<u64>;
}
