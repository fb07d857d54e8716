//! Keys of ONCE: finds the message that a recent entry stored under a sender's key. Like the
//! whole replicated state, this follows from the log alone.

use crate::content::Content;
use crate::ids::{Index, Secret, UserName};
use crate::keyed_hash::{ByNumber, ShortKey};
use crate::limits::KEYS_KEPT;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, VecDeque};

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

/// The keys of the last [`KEYS_KEPT`] entries.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    mac: ShortKey,
    /// In the order of the log.
    kept: VecDeque<Key>,
    /// How many keys have left `kept`.
    left: u64,
    /// The number of each key: the newest one of its name. `kept` holds number `left` first.
    numbers: ByNumber<Name, u64>,
    /// The deletions of the last [`KEYS_KEPT`] entries, in order, each with the entry that created
    /// the deleted account.
    deletions: VecDeque<(Index, Index)>,
    /// The accounts of `deletions`.
    deleted: BTreeSet<Index>,
}

/// A key, and the message that it stands for.
#[derive(Clone, Copy, Debug)]
struct Key {
    at: Index,
    print: Print,
    stored: Stored,
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
            kept: VecDeque::new(),
            left: 0,
            numbers: ByNumber::default(),
            deletions: VecDeque::new(),
            deleted: BTreeSet::new(),
        }
    }

    pub(super) fn print(&self, once: &Once<'_>) -> Print {
        let name = self.mac.hash(&[&once.sender.0.to_le_bytes(), once.key.as_bytes()]);
        let Content { text, attributes } = once.content;
        let message = self.mac.hash(&[once.to.as_bytes(), text.as_bytes(), attributes.bytes()]);
        Print { name, message }
    }

    /// Returns the message remembered under the key of a request.
    pub(super) fn find(&self, print: Print) -> Option<Known> {
        let number = self.numbers.get(&print.name)?;
        let key = &self.kept[(number - self.left) as usize];
        if self.deleted.contains(&key.stored.receiver) {
            return None;
        }
        let is_same = key.print.message == print.message;
        Some(if is_same { Known::Same(key.stored.number) } else { Known::Other })
    }

    /// Remembers an unknown key, under which entry `at` has stored a message.
    pub(super) fn add(&mut self, at: Index, print: Print, stored: Stored) {
        self.numbers.insert(print.name, self.left + self.kept.len() as u64);
        self.kept.push_back(Key { at, print, stored });
    }

    /// Forgets the keys that are too old when entry `index` is applied.
    pub(super) fn expire(&mut self, index: Index) {
        let is_old = |at: Index| at.0 + KEYS_KEPT < index.0;
        while let Some(key) = self.kept.front().filter(|key| is_old(key.at)) {
            // After a deletion the same name may have a newer key.
            if let Entry::Occupied(number) = self.numbers.entry(key.print.name)
                && *number.get() == self.left
            {
                number.remove();
            }
            self.kept.pop_front();
            self.left += 1;
        }
        while let Some((_, account)) = self.deletions.front().filter(|(at, _)| is_old(*at)) {
            self.deleted.remove(account);
            self.deletions.pop_front();
        }
    }

    /// Forgets the keys of all messages to an account, which entry `at` deletes.
    pub(super) fn forget_receiver(&mut self, at: Index, account: Index) {
        self.deletions.push_back((at, account));
        self.deleted.insert(account);
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
        assert!(keys.kept.is_empty() && keys.numbers.is_empty());
    }

    #[test]
    fn a_key_dies_with_the_receiver_and_may_be_used_again() {
        let mut keys = Keys::new(&Secret::new([1; 32]));
        add(&mut keys, Index(5), once("k"));
        add(&mut keys, Index(6), once("l"));
        keys.forget_receiver(Index(7), Index(1005));
        keys.forget_receiver(Index(8), Index(1007));
        assert_eq!(find(&keys, once("k")), None);
        assert_eq!(find(&keys, once("l")), Some(Known::Same(106)));
        add(&mut keys, Index(9), once("k"));
        // The first use of the key has expired, the second has not.
        keys.expire(Index(8 + KEYS_KEPT));
        assert_eq!(find(&keys, once("k")), Some(Known::Same(109)));
        keys.expire(Index(9 + KEYS_KEPT));
        assert!(keys.deletions.is_empty() && keys.deleted.is_empty());
    }
}
