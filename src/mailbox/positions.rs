//! Where the messages of each account are in the log, as long as no index file lists them.
//!
//! Each segment of the log has a part, and each account with a message in that segment a block in
//! the part. A block names the account's block before it. A part is dropped when the index file of
//! its segment is durable; the numbers of segments stay, to find the files.

use super::keys::Key;
use super::retention::{Forgotten, Limits};
use crate::ids::{Index, SegmentId};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Which messages of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// Those in its mailbox.
    Received,
    /// Those that it has sent to accounts that exist.
    Sent,
}

/// The segments with messages of an account that precede a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The nearest one.
    pub previous: Option<SegmentId>,
    /// The nearest one in an earlier group of 16 segments, and in an earlier one of 256. They
    /// make the search for an old message short.
    pub skips: [Option<SegmentId>; 2],
}

/// The base-2 logarithms of the sizes of groups.
const GROUPS: [u32; 2] = [4, 8];

/// Where the newest block of an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    /// Its segment.
    segment: Option<SegmentId>,
    /// Its place in the part of that segment, while that is in memory.
    slot: u32,
    skips: [Option<SegmentId>; 2],
}

impl Newest {
    /// Of an account without messages.
    pub(super) const NONE: Newest = Newest { segment: None, slot: 0, skips: [None; 2] };

    /// What precedes a block of `segment`.
    fn before(self, segment: SegmentId) -> Earlier {
        let mut skips = self.skips;
        for (skip, group) in skips.iter_mut().zip(GROUPS) {
            if self
                .segment
                .is_some_and(|newest| newest.number() >> group < segment.number() >> group)
            {
                *skip = self.segment;
            }
        }
        Earlier { previous: self.segment, skips }
    }
}

/// Messages of a list of one account within a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The number of the first one. In an empty run, the number that the next message gets.
    pub first: u64,
    /// How many there are.
    pub count: u32,
    /// The place of the last one in [`Part::nodes`].
    last: u32,
}

/// A message in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its entry.
    pub entry: Index,
    /// Its place among the messages that the receiver gets in this segment, from 0.
    pub rank: u32,
}

/// The messages of one account within a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The entry that created the account.
    pub account: Index,
    /// The segments before.
    pub earlier: Earlier,
    received: Run,
    sent: Run,
    /// The bytes of all messages that the account has received up to the last one here.
    pub bytes: u64,
    /// The place of the block before it in the part of its segment.
    slot_before: u32,
}

impl Block {
    /// The messages of a list.
    pub fn run(&self, list: List) -> Run {
        match list {
            List::Received => self.received,
            List::Sent => self.sent,
        }
    }

    fn run_mut(&mut self, list: List) -> &mut Run {
        match list {
            List::Received => &mut self.received,
            List::Sent => &mut self.sent,
        }
    }
}

/// A stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    /// Its entry, counted from the first one of the segment.
    entry: u32,
    /// Its place among the messages that the receiver gets in this segment, from 0.
    rank: u32,
    /// The places of the messages before it in the receiver's and the sender's list. Without
    /// meaning for the first one of a segment.
    before: [u32; 2],
}

/// What an entry has done to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Created it. The account is named by that entry.
    Created,
    /// Set its password.
    PasswordSet,
    /// Deleted it.
    Deleted,
}

/// A change of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// The entry that created the account.
    pub account: Index,
    /// The entry that has changed it.
    pub entry: Index,
    /// What it has done.
    pub done: Done,
}

/// What the entries of one segment have changed: accounts, keys, and the positions of messages.
#[derive(Clone, Debug)]
pub struct Part {
    /// The segment.
    pub segment: SegmentId,
    /// Its first entry.
    pub first: Index,
    /// One for each account with messages here, in no order.
    pub blocks: Vec<Block>,
    /// The changes of accounts, in order.
    pub changes: Vec<AccountChange>,
    /// The accounts whose mailboxes have forgotten messages, and all that each has forgotten then,
    /// in the order of the entries.
    pub forgotten: Vec<(Index, Forgotten)>,
    /// The keys of ONCE that its entries have used, but for those that were forgotten when it
    /// ended. Empty before that.
    pub keys: Vec<Arc<Vec<Key>>>,
    /// The limits of mailboxes at its end. Without meaning before that.
    pub limits: Limits,
    /// How many messages are emptied here.
    pub emptied: u32,
    nodes: Vec<Node>,
    /// Of a list of an account with many messages here, the place of every [`MARKED`]th one.
    marks: BTreeMap<(Index, List), Vec<u32>>,
}

/// How far marked messages of a list lie apart. The way back from the newest one may be long.
const MARKED: u32 = 256;

impl Part {
    fn new(segment: SegmentId, first: Index) -> Part {
        Part {
            segment,
            first,
            blocks: Vec::new(),
            changes: Vec::new(),
            forgotten: Vec::new(),
            keys: Vec::new(),
            limits: Limits::NONE,
            emptied: 0,
            nodes: Vec::new(),
            marks: BTreeMap::new(),
        }
    }

    /// Appends some messages of a block to `into`, in order: those from number `from` on, `most` at
    /// most.
    pub fn list(&self, block: &Block, list: List, from: u64, most: usize, into: &mut Vec<Listed>) {
        let run = block.run(list);
        let skipped = from.saturating_sub(run.first).min(u64::from(run.count)) as u32;
        let wanted = (run.count - skipped).min(most.try_into().unwrap_or(u32::MAX));
        let start = into.len();
        into.resize(start + wanted as usize, Listed { entry: Index::ZERO, rank: 0 });
        let (mut at, count) = self.mark_after(block, list, skipped + wanted);
        for place in (skipped..count).rev() {
            let node = self.nodes[at as usize];
            if place - skipped < wanted {
                let entry = Index(self.first.0 + u64::from(node.entry));
                into[start + (place - skipped) as usize] = Listed { entry, rank: node.rank };
            }
            at = node.before[list as usize];
        }
    }

    /// Returns the place of the first marked message of a list that is not before its first `count`
    /// ones, and how many there are up to it; without one, those of the last message.
    fn mark_after(&self, block: &Block, list: List, count: u32) -> (u32, u32) {
        let run = block.run(list);
        let marks = self.marks.get(&(block.account, list)).map_or(&[][..], Vec::as_slice);
        let at = count.div_ceil(MARKED).max(1);
        marks.get(at as usize - 1).map_or((run.last, run.count), |mark| (*mark, at * MARKED))
    }

    #[cold]
    fn mark(&mut self, account: Index, list: List, at: u32) {
        self.marks.entry((account, list)).or_default().push(at);
    }

    /// The place of an account's block, which is added if it is missing.
    fn slot(&mut self, holder: &Holder) -> u32 {
        let newest = holder.newest.get();
        if newest.segment == Some(self.segment) {
            return newest.slot;
        }
        let earlier = newest.before(self.segment);
        let run = |list| Run { first: holder.count(list) + 1, count: 0, last: 0 };
        let slot = self.blocks.len() as u32;
        self.blocks.push(Block {
            account: holder.created,
            earlier,
            received: run(List::Received),
            sent: run(List::Sent),
            bytes: holder.bytes(),
            slot_before: newest.slot,
        });
        holder.newest.set(Newest { segment: Some(self.segment), slot, skips: earlier.skips });
        slot
    }

    /// Adds the node at place `at` to a list of an account. Returns the place of the one before it,
    /// and how many there were before in this segment.
    fn add(&mut self, holder: &Holder, list: List, at: u32) -> (u32, u32) {
        let slot = self.slot(holder);
        let run = self.blocks[slot as usize].run_mut(list);
        run.count += 1;
        let before = (std::mem::replace(&mut run.last, at), run.count - 1);
        if run.count.is_multiple_of(MARKED) {
            self.mark(holder.created, list, at);
        }
        let count = &holder.counts[list as usize];
        count.set(count.get() + 1);
        before
    }
}

/// The positions of all messages that no index file lists.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    /// The parts of sealed segments, oldest first. They change no more.
    sealed: VecDeque<Arc<Part>>,
    active: Part,
}

/// Where a message is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// In this block of a part in memory.
    Memory(&'a Part, &'a Block),
    /// In the index file of this segment, or of one before.
    File(SegmentId),
}

impl Positions {
    pub(super) fn new() -> Positions {
        Positions { sealed: VecDeque::new(), active: Part::new(SegmentId::FIRST, Index::ZERO) }
    }

    /// The first entry of the active part.
    pub(super) fn active_first(&self) -> Index {
        self.active.first
    }

    /// Begins the part of the next segment, whose first entry is `first`. `keys` are those that
    /// the entries of the segment before have used, `limits` those at its end.
    pub(super) fn begin_segment(
        &mut self,
        segment: SegmentId,
        first: Index,
        keys: Vec<Arc<Vec<Key>>>,
        limits: Limits,
    ) {
        let mut sealed = std::mem::replace(&mut self.active, Part::new(segment, first));
        if sealed.first != Index::ZERO {
            (sealed.keys, sealed.limits) = (keys, limits);
            self.sealed.push_back(Arc::new(sealed));
        }
    }

    /// Adds a change of an account.
    pub(super) fn add_change(&mut self, change: AccountChange) {
        self.active.changes.push(change);
    }

    /// Notes all that the mailbox of an account has forgotten now.
    pub(super) fn add_forgotten(&mut self, account: Index, forgotten: Forgotten) {
        self.active.forgotten.push((account, forgotten));
    }

    /// Notes that a message here is emptied.
    pub(super) fn count_emptied(&mut self) {
        self.active.emptied += 1;
    }

    /// The oldest sealed part.
    pub(super) fn oldest_sealed(&self) -> Option<&Arc<Part>> {
        self.sealed.front()
    }

    /// Drops the oldest sealed part: its index file is durable.
    pub(super) fn drop_oldest_sealed(&mut self) {
        self.sealed.pop_front();
    }

    /// Adds a message of so many bytes that entry `index` has stored: to the lists of its receiver
    /// and its sender.
    pub(super) fn add(&mut self, index: Index, receiver: &Holder, sender: &Holder, bytes: u64) {
        let active = &mut self.active;
        let at = active.nodes.len() as u32;
        let (received, rank) = active.add(receiver, List::Received, at);
        let bytes = receiver.bytes() + bytes;
        active.blocks[receiver.newest.get().slot as usize].bytes = bytes;
        receiver.bytes.set(bytes);
        let (sent, _) = active.add(sender, List::Sent, at);
        let entry = (index.0 - active.first.0) as u32;
        active.nodes.push(Node { entry, rank, before: [received, sent] });
    }

    /// Returns the place of message `number` in a list, which has such a message.
    pub(super) fn find(&self, holder: &Holder, list: List, number: u64) -> Option<Place<'_>> {
        self.newest_block(holder, |_, block| block.run(list).first <= number)
    }

    /// Returns the number of the first message that an account gets in a segment; `None` if an
    /// index file must tell.
    pub(super) fn first_received(&self, holder: &Holder, segment: SegmentId) -> Option<u64> {
        match self.newest_block(holder, |part, _| part.segment == segment)? {
            Place::Memory(_, block) => Some(block.received.first),
            Place::File(_) => None,
        }
    }

    /// Returns the newest block of an account that is wanted, if it is in memory; else the newest
    /// segment whose index file may have it.
    fn newest_block(
        &self,
        holder: &Holder,
        is_wanted: impl Fn(&Part, &Block) -> bool,
    ) -> Option<Place<'_>> {
        let Newest { segment, mut slot, .. } = holder.newest.get();
        let mut segment = segment?;
        loop {
            let Some(part) = self.part(segment) else { return Some(Place::File(segment)) };
            let block = &part.blocks[slot as usize];
            if is_wanted(part, block) {
                return Some(Place::Memory(part, block));
            }
            (segment, slot) = (block.earlier.previous?, block.slot_before);
        }
    }

    fn part(&self, segment: SegmentId) -> Option<&Part> {
        let sealed = self.sealed.iter().rev().map(|part| &**part);
        std::iter::once(&self.active).chain(sealed).find(|part| part.segment == segment)
    }
}

/// What an account knows of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// The entry that created the account.
    pub(super) created: Index,
    newest: Cell<Newest>,
    /// How many messages each list has. The numbers of messages are 1 to this.
    counts: [Cell<u64>; 2],
    /// The bytes of all that it has received.
    bytes: Cell<u64>,
}

impl Holder {
    /// Of an account that entry `created` creates.
    pub(super) fn new(created: Index) -> Holder {
        let (newest, counts) = (Cell::new(Newest::NONE), Default::default());
        Holder { created, newest, counts, bytes: Cell::default() }
    }

    /// Of an account whose messages index files list.
    pub(super) fn restored(created: Index, messages: &Messages) -> Holder {
        let Messages { counts, bytes, newest: segment, skips } = *messages;
        let newest = Cell::new(Newest { segment, slot: 0, skips });
        Holder { created, newest, counts: counts.map(Cell::new), bytes: Cell::new(bytes) }
    }

    /// The bytes of all messages that it has received: of their texts and attributes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// How many messages a list has.
    pub(super) fn count(&self, list: List) -> u64 {
        self.counts[list as usize].get()
    }
}

/// What index files must tell of an account, to find its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// How many each list has.
    pub counts: [u64; 2],
    /// The bytes of all that it has received: of their texts and attributes.
    pub bytes: u64,
    /// The newest segment with messages of the account.
    pub newest: Option<SegmentId>,
    /// See [`Earlier::skips`]: those of a segment after `newest` in the same groups.
    pub skips: [Option<SegmentId>; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(positions: &mut Positions, segment: SegmentId, first: Index) {
        if positions.active_first() != first {
            positions.begin_segment(segment, first, Vec::new(), Limits::NONE);
        }
    }

    /// Sends messages between three accounts, and begins segments in between. Returns the lists
    /// as they should be.
    fn fill(
        positions: &mut Positions,
        accounts: &[Holder],
        sends: impl IntoIterator<Item = (u64, usize, usize)>,
        segment_entries: u64,
    ) -> Vec<[Vec<u64>; 2]> {
        let mut lists = vec![[Vec::new(), Vec::new()]; accounts.len()];
        for (index, to, from) in sends {
            let segment = (index - 1) / segment_entries;
            let id = SegmentId::new(segment as u32 + 1).unwrap();
            begin(positions, id, Index(segment * segment_entries + 1));
            positions.add(Index(index), &accounts[to], &accounts[from], 10);
            lists[to][List::Received as usize].push(index);
            lists[from][List::Sent as usize].push(index);
        }
        lists
    }

    fn accounts(count: u64) -> Vec<Holder> {
        (1..=count).map(|created| Holder::new(Index(created))).collect()
    }

    /// A sequence of sends from a fixed generator.
    fn sends(count: u64, accounts: u64) -> impl Iterator<Item = (u64, usize, usize)> {
        let mut state = 7u64;
        (1..=count).map(move |index| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (index, (state >> 33) as usize % accounts as usize, (state >> 53) as usize % 2)
        })
    }

    #[test]
    fn every_message_is_found_by_its_number() {
        let (mut positions, accounts) = (Positions::new(), accounts(4));
        let lists = fill(&mut positions, &accounts, sends(1000, 4), 100);
        for (holder, lists) in accounts.iter().zip(&lists) {
            for list in [List::Received, List::Sent] {
                let expected = &lists[list as usize];
                assert_eq!(holder.count(list), expected.len() as u64);
                for (number, index) in (1..).zip(expected) {
                    let Some(Place::Memory(part, block)) = positions.find(holder, list, number)
                    else {
                        panic!("in memory")
                    };
                    let mut found = Vec::new();
                    part.list(block, list, number, 1, &mut found);
                    assert_eq!(found[0].entry, Index(*index));
                }
            }
        }
    }

    #[test]
    fn a_part_lists_the_messages_of_a_block_in_order() {
        let (mut positions, accounts) = (Positions::new(), accounts(2));
        let lists = fill(&mut positions, &accounts, sends(1500, 2), 10_000);
        let holder = &accounts[0];
        let expected = &lists[0][List::Received as usize];
        for from in 1..=expected.len() {
            for most in [0, 1, 2, 50, 300, 10_000] {
                let place = positions.find(holder, List::Received, from as u64);
                let Some(Place::Memory(part, block)) = place else { panic!("in memory") };
                let mut found = vec![Listed { entry: Index(0), rank: 0 }];
                part.list(block, List::Received, from as u64, most, &mut found);
                let last = expected.len().min(from - 1 + most);
                let found: Vec<u64> = found.into_iter().skip(1).map(|at| at.entry.0).collect();
                assert_eq!(found, expected[from - 1..last]);
            }
        }
    }

    /// After the parts of old segments are gone, what they held is found by segment.
    #[test]
    fn what_is_indexed_is_found_by_its_segment() {
        let (mut positions, accounts) = (Positions::new(), accounts(4));
        let lists = fill(&mut positions, &accounts, sends(1000, 4), 100);
        for dropped in 0..=9u64 {
            for (holder, lists) in accounts.iter().zip(&lists) {
                for list in [List::Received, List::Sent] {
                    for (number, index) in (1..).zip(&lists[list as usize]) {
                        let is_file = match positions.find(holder, list, number) {
                            Some(Place::File(segment)) => {
                                let segment = u64::from(segment.number()) - 1;
                                assert!(segment >= (index - 1) / 100 && segment < dropped);
                                true
                            }
                            Some(Place::Memory(..)) => false,
                            None => panic!("nowhere"),
                        };
                        assert_eq!(is_file, (index - 1) / 100 < dropped);
                    }
                }
            }
            let oldest = positions.oldest_sealed().map(|part| u64::from(part.segment.number()));
            assert_eq!(oldest, (dropped < 9).then_some(dropped + 1));
            positions.drop_oldest_sealed();
        }
    }

    #[test]
    fn a_block_names_the_segments_before() {
        let (mut positions, accounts) = (Positions::new(), accounts(1));
        let with_messages = [1, 3, 15, 16, 17, 40, 255, 256, 300, 512];
        let mut earlier = Vec::new();
        for segment in with_messages {
            let id = SegmentId::new(segment).unwrap();
            begin(&mut positions, id, Index(u64::from(segment) * 10 + 1));
            positions.add(Index(u64::from(segment) * 10 + 2), &accounts[0], &accounts[0], 1);
            let Earlier { previous, skips } = positions.active.blocks[0].earlier;
            earlier.push((segment, previous, skips[0], skips[1]));
        }
        for (segment, previous, by_16, by_256) in earlier {
            let before = |group: u32| {
                let end = segment >> group << group;
                with_messages.into_iter().rfind(|other| *other < end).and_then(SegmentId::new)
            };
            assert_eq!((previous, by_16, by_256), (before(0), before(4), before(8)), "{segment}");
        }
    }
}
