//! Keys of ONCE: finds the message that a recent entry stored under a sender's key. Like the
//! whole replicated state, this follows from the log alone.

use crate::content::Content;
use crate::ids::{Index, Secret, UserName};
use crate::keyed_hash::{ByNumber, ShortKey};
use crate::limits::KEYS_KEPT;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// A message that a sender asks to store once.
#[derive(Clone, Copy, Debug)]
pub struct Once<'a> {
    /// The entry that created the sender's account: a key dies with it.
    pub sender: Index,
    /// The sender's own key.
    pub key: &'a str,
    /// The receiver.
    pub to: UserName,
    /// What it says.
    pub content: Content<'a>,
}

/// The message remembered under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The same message, which has this number in its mailbox.
    Same(u64),
    /// Another message.
    Other,
}

/// Where a message was stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// The entry that created the receiver's account: a key dies with it.
    pub(super) receiver: Index,
    /// The message's number in the mailbox.
    pub(super) number: u64,
}

/// The hash of a key and its sender. Nobody outside the group can choose two with the same hash.
type Name = u64;

/// The hashes of a request: of its key and sender, and of receiver and content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Print {
    name: Name,
    message: u64,
}

/// A key of ONCE, and the message that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The entry that stored the message.
    pub at: Index,
    /// The hash of the key and its sender.
    pub name: u64,
    /// The hash of the receiver and the content.
    pub message: u64,
    /// The entry that created the receiver's account.
    pub receiver: Index,
    /// The message's number in the mailbox.
    pub number: u64,
}

/// The deletion of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The entry that deleted it.
    pub at: Index,
    /// The entry that created it.
    pub account: Index,
}

/// The most keys in a block.
const BLOCK_KEYS: usize = 4096;

/// Keys that follow each other.
#[derive(Clone, Debug)]
struct Block {
    /// The number of the first one.
    first: u64,
    keys: Arc<Vec<Key>>,
}

impl Block {
    fn next(&self) -> u64 {
        self.first + self.keys.len() as u64
    }
}

/// The keys of the last [`KEYS_KEPT`] entries.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    mac: ShortKey,
    /// In the order of the log. A block ends where a segment of the log does.
    blocks: VecDeque<Block>,
    /// How many keys were added, and how many of them were forgotten. A key's number counts those
    /// that were added before it.
    added: u64,
    left: u64,
    /// How many keys were added before the segment.
    sealed: u64,
    /// The number of each key: the newest one of its name.
    numbers: ByNumber<Name, u64>,
    /// The deletions of the last [`KEYS_KEPT`] entries, in order.
    deletions: VecDeque<Deletion>,
    /// The accounts of `deletions`.
    deleted: BTreeSet<Index>,
}

impl Keys {
    pub(super) fn new(secret: &Secret) -> Keys {
        Keys::with(ShortKey::derive(secret, b"once-key"))
    }

    /// Returns the state without keys, of the same group.
    pub(super) fn emptied(&self) -> Keys {
        Keys::with(self.mac.clone())
    }

    fn with(mac: ShortKey) -> Keys {
        Keys {
            mac,
            blocks: VecDeque::new(),
            added: 0,
            left: 0,
            sealed: 0,
            numbers: ByNumber::default(),
            deletions: VecDeque::new(),
            deleted: BTreeSet::new(),
        }
    }

    /// Returns a number that shows under which secret names and messages are hashed.
    pub(super) fn secret_mark(&self) -> u64 {
        self.mac.hash(&[b"mark"])
    }

    /// Returns a hash that is the same on all servers of the group.
    pub(super) fn hash_of(&self, bytes: &[u8]) -> u64 {
        self.mac.hash(&[bytes])
    }

    pub(super) fn print(&self, once: &Once<'_>) -> Print {
        let name = self.mac.hash(&[&once.sender.0.to_le_bytes(), once.key.as_bytes()]);
        let Content { text, attributes } = once.content;
        let message = self.mac.hash(&[once.to.as_bytes(), text.as_bytes(), attributes.bytes()]);
        Print { name, message }
    }

    /// Returns the message remembered under the key of a request.
    pub(super) fn find(&self, print: Print) -> Option<Known> {
        let key = self.key(*self.numbers.get(&print.name)?);
        if self.deleted.contains(&key.receiver) {
            return None;
        }
        let is_same = key.message == print.message;
        Some(if is_same { Known::Same(key.number) } else { Known::Other })
    }

    /// The key of that number, which is remembered.
    fn key(&self, number: u64) -> &Key {
        let at = self.blocks.partition_point(|block| block.next() <= number);
        let block = &self.blocks[at];
        &block.keys[(number - block.first) as usize]
    }

    /// Remembers an unknown key, under which entry `at` has stored a message.
    pub(super) fn add(&mut self, at: Index, print: Print, stored: Stored) {
        let Print { name, message } = print;
        let Stored { receiver, number } = stored;
        self.restore(Key { at, name, message, receiver, number });
    }

    /// Remembers a key after those before it.
    pub(super) fn restore(&mut self, key: Key) {
        self.numbers.insert(key.name, self.added);
        let sealed = self.sealed;
        let is_open = |block: &&mut Block| block.first >= sealed && block.keys.len() < BLOCK_KEYS;
        let open = self.blocks.back_mut().filter(is_open);
        match open.and_then(|block| Arc::get_mut(&mut block.keys)) {
            Some(keys) => keys.push(key),
            None => {
                self.blocks.push_back(Block { first: self.added, keys: Arc::new(vec![key]) });
            }
        }
        self.added += 1;
    }

    /// Ends a segment of the log. Returns the keys that its entries have used, but for forgotten
    /// ones.
    pub(super) fn seal(&mut self) -> Vec<Arc<Vec<Key>>> {
        let begun = self.blocks.partition_point(|block| block.first < self.sealed);
        self.sealed = self.added;
        self.blocks.range(begun..).map(|block| Arc::clone(&block.keys)).collect()
    }

    /// Forgets the keys that are too old when entry `index` is applied.
    pub(super) fn expire(&mut self, index: Index) {
        let is_old = |at: Index| at.0 + KEYS_KEPT < index.0;
        while let Some(block) = self.blocks.front() {
            let key = block.keys[(self.left - block.first) as usize];
            if !is_old(key.at) {
                break;
            }
            let is_last = self.left + 1 == block.next();
            // After a deletion the same name may have a newer key.
            if let Entry::Occupied(number) = self.numbers.entry(key.name)
                && *number.get() == self.left
            {
                number.remove();
            }
            self.left += 1;
            if is_last {
                self.blocks.pop_front();
            }
        }
        while let Some(deletion) = self.deletions.front().filter(|deletion| is_old(deletion.at)) {
            self.deleted.remove(&deletion.account);
            self.deletions.pop_front();
        }
    }

    /// Forgets the keys of all messages to an account that was deleted.
    pub(super) fn forget_receiver(&mut self, deletion: Deletion) {
        self.deletions.push_back(deletion);
        self.deleted.insert(deletion.account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Attributes;

    fn once(key: &str) -> Once<'_> {
        Once {
            sender: Index(1),
            key,
            to: UserName::parse("bob").unwrap(),
            content: Content::plain("hi"),
        }
    }

    fn find(keys: &Keys, once: Once<'_>) -> Option<Known> {
        keys.find(keys.print(&once))
    }

    fn add(keys: &mut Keys, index: Index, once: Once<'_>) {
        let print = keys.print(&once);
        assert_eq!(keys.find(print), None);
        let receiver = Index(index.0 + 1000);
        keys.add(index, print, Stored { receiver, number: index.0 + 100 });
    }

    #[test]
    fn a_key_is_of_its_sender_and_of_one_message() {
        let mut keys = Keys::new(&Secret::new([1; 32]));
        assert_eq!(find(&keys, once("k")), None);
        add(&mut keys, Index(5), once("k"));
        assert_eq!(find(&keys, once("k")), Some(Known::Same(105)));
        assert_eq!(find(&keys, once("l")), None);
        assert_eq!(find(&keys, Once { sender: Index(2), ..once("k") }), None);
        assert_eq!(
            find(&keys, Once { content: Content::plain("ho"), ..once("k") }),
            Some(Known::Other)
        );
        let attributes = Attributes::decode(b"\x01\x01a").unwrap();
        let titled = Content { text: "hi", attributes };
        assert_eq!(find(&keys, Once { content: titled, ..once("k") }), Some(Known::Other));
        let cyd = UserName::parse("cyd").unwrap();
        assert_eq!(find(&keys, Once { to: cyd, ..once("k") }), Some(Known::Other));
    }

    #[test]
    fn a_key_lives_for_so_many_entries() {
        let mut keys = Keys::new(&Secret::new([1; 32]));
        add(&mut keys, Index(5), once("k"));
        keys.expire(Index(5 + KEYS_KEPT));
        assert!(find(&keys, once("k")).is_some());
        keys.expire(Index(6 + KEYS_KEPT));
        assert!(find(&keys, once("k")).is_none());
        assert!(keys.blocks.is_empty() && keys.numbers.is_empty());
    }

    #[test]
    fn a_key_dies_with_the_receiver_and_may_be_used_again() {
        let mut keys = Keys::new(&Secret::new([1; 32]));
        add(&mut keys, Index(5), once("k"));
        add(&mut keys, Index(6), once("l"));
        keys.forget_receiver(Deletion { at: Index(7), account: Index(1005) });
        keys.forget_receiver(Deletion { at: Index(8), account: Index(1007) });
        assert_eq!(find(&keys, once("k")), None);
        assert_eq!(find(&keys, once("l")), Some(Known::Same(106)));
        add(&mut keys, Index(9), once("k"));
        // The first use of the key has expired, the second has not.
        keys.expire(Index(8 + KEYS_KEPT));
        assert_eq!(find(&keys, once("k")), Some(Known::Same(109)));
        keys.expire(Index(9 + KEYS_KEPT));
        assert!(keys.deletions.is_empty() && keys.deleted.is_empty());
    }

    #[test]
    fn a_segment_lists_its_keys_and_no_others() {
        let mut keys = Keys::new(&Secret::new([1; 32]));
        let names: Vec<String> = (0..BLOCK_KEYS + 10).map(|n| format!("k{n}")).collect();
        let sealed = |keys: &mut Keys| -> Vec<u64> {
            keys.seal().iter().flat_map(|block| block.iter().map(|key| key.at.0)).collect()
        };
        assert!(sealed(&mut keys).is_empty());
        for (index, name) in (1..=3).zip(&names) {
            add(&mut keys, Index(index), once(name));
        }
        assert_eq!(keys.seal()[0].len(), 3);
        for name in &names[3..] {
            add(&mut keys, Index(4), once(name));
        }
        assert_eq!(sealed(&mut keys), vec![4; names.len() - 3]);
        assert!(sealed(&mut keys).is_empty());
        assert!(names.iter().all(|name| find(&keys, once(name)).is_some()));
        keys.expire(Index(4 + KEYS_KEPT));
        assert_eq!(names.iter().filter(|name| find(&keys, once(name)).is_none()).count(), 3);
        keys.expire(Index(5 + KEYS_KEPT));
        assert!(keys.blocks.is_empty() && keys.numbers.is_empty());
    }
}
