//! Keys of ONCE: finds the recent entry that stored a message under a sender's key. Like the
//! whole replicated state, this follows from the log alone.

use crate::content::Content;
use crate::ids::{Index, Secret, UserName};
use crate::keyed_hash::{ByNumber, ShortKey};
use crate::limits::KEYS_KEPT;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;

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
    /// The same message, stored by this entry.
    Same(Index),
    /// Another message.
    Other,
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
    /// The entry that stored a message, and the hash of receiver and content.
    known: ByNumber<Name, (Index, u64)>,
    /// In the order of the log.
    order: VecDeque<(Index, Name)>,
}

impl Keys {
    pub(super) fn new(secret: &Secret) -> Keys {
        let mac = ShortKey::derive(secret, b"once-key");
        Keys { mac, known: ByNumber::default(), order: VecDeque::new() }
    }

    pub(super) fn print(&self, once: &Once<'_>) -> Print {
        let name = self.mac.hash(&[&once.sender.0.to_le_bytes(), once.key.as_bytes()]);
        let Content { text, attributes } = once.content;
        let message = self.mac.hash(&[once.to.as_bytes(), text.as_bytes(), attributes.bytes()]);
        Print { name, message }
    }

    /// Returns the message remembered under the key of a request.
    pub(super) fn find(&self, print: Print) -> Option<Known> {
        self.known.get(&print.name).map(|known| compare(*known, print))
    }

    /// Like `find`, but remembers an unknown key as stored by entry `index`.
    pub(super) fn find_or_add(&mut self, index: Index, print: Print) -> Option<Known> {
        match self.known.entry(print.name) {
            Entry::Occupied(known) => Some(compare(*known.get(), print)),
            Entry::Vacant(place) => {
                place.insert((index, print.message));
                self.order.push_back((index, print.name));
                None
            }
        }
    }

    /// Forgets the keys that are too old when entry `index` is applied.
    pub(super) fn expire(&mut self, index: Index) {
        while let Some((at, name)) = self.order.front().copied()
            && at.0 + KEYS_KEPT < index.0
        {
            self.order.pop_front();
            self.remove(at, name);
        }
    }

    /// Forgets the key of entry `at`, whose message was deleted with its receiver's account.
    pub(super) fn forget(&mut self, at: Index) {
        if let Ok(place) = self.order.binary_search_by_key(&at, |(at, _)| *at) {
            let (_, name) = self.order[place];
            self.remove(at, name);
        }
    }

    fn remove(&mut self, at: Index, name: Name) {
        if let Entry::Occupied(known) = self.known.entry(name)
            && known.get().0 == at
        {
            known.remove();
        }
    }
}

fn compare((at, message): (Index, u64), print: Print) -> Known {
    if message == print.message { Known::Same(at) } else { Known::Other }
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
        assert_eq!(keys.find_or_add(index, keys.print(&once)), None);
    }

    #[test]
    fn a_key_is_of_its_sender_and_of_one_message() {
        let mut keys = Keys::new(&Secret::new([1; 32]));
        assert_eq!(find(&keys, once("k")), None);
        add(&mut keys, Index(5), once("k"));
        assert_eq!(find(&keys, once("k")), Some(Known::Same(Index(5))));
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
        assert!(keys.order.is_empty() && keys.known.is_empty());
    }

    #[test]
    fn a_key_that_died_may_be_used_again() {
        let mut keys = Keys::new(&Secret::new([1; 32]));
        add(&mut keys, Index(5), once("k"));
        add(&mut keys, Index(6), once("l"));
        keys.forget(Index(5));
        keys.forget(Index(7));
        assert_eq!(find(&keys, once("k")), None);
        assert_eq!(find(&keys, once("l")), Some(Known::Same(Index(6))));
        add(&mut keys, Index(9), once("k"));
        // The first use of the key has expired, the second has not.
        keys.expire(Index(8 + KEYS_KEPT));
        assert_eq!(find(&keys, once("k")), Some(Known::Same(Index(9))));
    }
}
