//! The replicated state: accounts and their mailboxes, built by applying the log's changes in
//! order. Pure and deterministic: the same log gives the same state on every server.

mod change;
mod keys;

pub use change::Change;
pub use keys::Once;

use crate::ids::{Index, Secret, UserName};
use keys::{Keys, Known};
use std::collections::BTreeMap;
use std::ops::Bound;

/// An account, as built from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The entry that created it.
    pub created: Index,
    /// The entry that set its password.
    pub password_set: Index,
    /// The hash of its password, as a PHC string.
    pub hash: Box<str>,
    /// The entries that hold its messages: message `n` is at `n - 1`.
    mailbox: Vec<Index>,
}

impl Account {
    /// The number of its last message; 0 when it has none.
    pub fn last(&self) -> u64 {
        self.mailbox.len() as u64
    }

    /// The number of the message that an entry holds.
    fn number(&self, at: Index) -> Option<u64> {
        self.mailbox.binary_search(&at).ok().map(|place| place as u64 + 1)
    }

    /// The entry that holds message `n`.
    pub fn message(&self, n: u64) -> Option<Index> {
        self.mailbox.get(usize::try_from(n.checked_sub(1)?).ok()?).copied()
    }
}

/// The result of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The account was created, has its new password, or was deleted.
    Done,
    /// The message is in the mailbox under this number.
    Stored(u64),
    /// An account has that name already.
    Exists,
    /// No account has that name.
    NoSuchUser,
    /// The account is not the one whose password was checked.
    WrongPassword,
    /// The sender's account was deleted.
    NotLoggedIn,
    /// The key was used for another message.
    KeyReused,
}

/// All accounts.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    accounts: BTreeMap<UserName, Account>,
    messages: u64,
    keys: Keys,
}

impl Mailboxes {
    /// Returns the state without accounts, of a group that has this secret.
    pub fn new(secret: &Secret) -> Mailboxes {
        Mailboxes { accounts: BTreeMap::new(), messages: 0, keys: Keys::new(secret) }
    }

    /// Applies the change of entry `index`. Entries must come in the order of the log.
    pub fn apply(&mut self, index: Index, change: &Change<'_>) -> Outcome {
        self.keys.expire(index);
        match *change {
            Change::Create { user, hash } => {
                if self.accounts.contains_key(&user) {
                    return Outcome::Exists;
                }
                let (created, password_set, hash) = (index, index, hash.into());
                let account = Account { created, password_set, hash, mailbox: Vec::new() };
                self.accounts.insert(user, account);
                Outcome::Done
            }
            Change::Delete { user, checked } => match self.accounts.get(&user) {
                Some(account) if account.password_set == checked => {
                    self.messages -= account.last();
                    account.mailbox.iter().for_each(|at| self.keys.forget(*at));
                    self.accounts.remove(&user);
                    Outcome::Done
                }
                _ => Outcome::WrongPassword,
            },
            Change::Password { user, checked, hash } => match self.accounts.get_mut(&user) {
                Some(account) if account.password_set == checked => {
                    account.password_set = index;
                    account.hash = hash.into();
                    Outcome::Done
                }
                _ => Outcome::WrongPassword,
            },
            Change::Message { to, from, sender, key, content } => {
                if self.accounts.get(&from).is_none_or(|account| account.created != sender) {
                    return Outcome::NotLoggedIn;
                }
                let print = key.map(|key| self.keys.print(&Once { sender, key, to, content }));
                let receiver = self.accounts.get_mut(&to);
                let known = print.and_then(|print| match receiver {
                    Some(_) => self.keys.find_or_add(index, print),
                    None => self.keys.find(print),
                });
                match (known, receiver) {
                    (Some(known), _) => self.outcome(to, known),
                    (None, None) => Outcome::NoSuchUser,
                    (None, Some(account)) => {
                        account.mailbox.push(index);
                        self.messages += 1;
                        Outcome::Stored(account.last())
                    }
                }
            }
        }
    }

    /// Returns the result of an earlier request with the same key, if it is remembered.
    pub fn known(&self, once: &Once<'_>) -> Option<Outcome> {
        self.keys.find(self.keys.print(once)).map(|known| self.outcome(once.to, known))
    }

    fn outcome(&self, to: UserName, known: Known) -> Outcome {
        let stored = match known {
            Known::Other => None,
            // Deleting the receiver's account deletes its keys, too.
            Known::Same(at) => self.accounts.get(&to).and_then(|account| account.number(at)),
        };
        stored.map_or(Outcome::KeyReused, Outcome::Stored)
    }

    /// The account of that name.
    pub fn account(&self, user: UserName) -> Option<&Account> {
        self.accounts.get(&user)
    }

    /// The names after `after`, in order; all names for `None`.
    pub fn names_after(&self, after: Option<UserName>) -> impl Iterator<Item = UserName> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.accounts.range((from, Bound::Unbounded)).map(|(name, _)| *name)
    }

    /// The number of accounts.
    pub fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// The number of messages in all mailboxes.
    pub fn messages(&self) -> u64 {
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn message<'a>(
        to: UserName,
        from: UserName,
        sender: Index,
        key: Option<&'a str>,
        text: &'a str,
    ) -> Change<'a> {
        Change::Message { to, from, sender, key, content: Content::plain(text) }
    }

    fn create(boxes: &mut Mailboxes, index: u64, name: &str) -> Outcome {
        boxes.apply(Index(index), &Change::Create { user: user(name), hash: "h" })
    }

    fn send(boxes: &mut Mailboxes, index: u64, sender: u64, to: &str) -> Outcome {
        let (to, from, sender) = (user(to), user("ann"), Index(sender));
        boxes.apply(Index(index), &message(to, from, sender, None, "t"))
    }

    #[test]
    fn numbers_are_dense_in_each_mailbox() {
        let mut boxes = Mailboxes::new(&Secret::new([1; 32]));
        create(&mut boxes, 1, "ann");
        create(&mut boxes, 2, "bob");
        assert_eq!(create(&mut boxes, 3, "ann"), Outcome::Exists);
        assert_eq!(send(&mut boxes, 4, 1, "bob"), Outcome::Stored(1));
        assert_eq!(send(&mut boxes, 5, 1, "ann"), Outcome::Stored(1));
        assert_eq!(send(&mut boxes, 6, 1, "cyd"), Outcome::NoSuchUser);
        assert_eq!(send(&mut boxes, 7, 1, "bob"), Outcome::Stored(2));
        let bob = boxes.account(user("bob")).unwrap();
        assert_eq!((bob.last(), bob.message(2), bob.message(3)), (2, Some(Index(7)), None));
        assert_eq!(bob.message(0), None);
        assert_eq!((boxes.accounts(), boxes.messages()), (2, 3));
    }

    #[test]
    fn a_change_counts_only_for_the_account_that_was_checked() {
        let mut boxes = Mailboxes::new(&Secret::new([1; 32]));
        let ann = user("ann");
        create(&mut boxes, 1, "ann");
        let password = |checked| Change::Password { user: ann, checked: Index(checked), hash: "n" };
        let delete = |checked| Change::Delete { user: ann, checked: Index(checked) };
        assert_eq!(boxes.apply(Index(2), &password(1)), Outcome::Done);
        assert_eq!(boxes.apply(Index(3), &password(1)), Outcome::WrongPassword);
        assert_eq!(boxes.apply(Index(4), &delete(1)), Outcome::WrongPassword);
        send(&mut boxes, 5, 1, "ann");
        assert_eq!(boxes.apply(Index(6), &delete(2)), Outcome::Done);
        assert_eq!(boxes.messages(), 0);
        create(&mut boxes, 7, "ann");
        assert_eq!(boxes.apply(Index(8), &delete(2)), Outcome::WrongPassword);
        assert_eq!(send(&mut boxes, 9, 1, "ann"), Outcome::NotLoggedIn);
        assert_eq!(send(&mut boxes, 10, 7, "ann"), Outcome::Stored(1));
    }

    #[test]
    fn a_key_stores_once() {
        let mut boxes = Mailboxes::new(&Secret::new([1; 32]));
        for (index, name) in (1..).zip(["ann", "bob", "cyd"]) {
            create(&mut boxes, index, name);
        }
        let mut next = 3;
        let mut once = |boxes: &mut Mailboxes, to: &str, text: &str| {
            next += 1;
            let (to, from, sender) = (user(to), user("ann"), Index(1));
            let before = boxes.known(&Once { sender, key: "k", to, content: Content::plain(text) });
            let change = message(to, from, sender, Some("k"), text);
            let outcome = boxes.apply(Index(next), &change);
            assert!(before.is_none_or(|before| before == outcome), "a look tells what will come");
            (outcome, before.is_some())
        };
        assert_eq!(once(&mut boxes, "dot", "hi"), (Outcome::NoSuchUser, false));
        assert_eq!(once(&mut boxes, "bob", "hi"), (Outcome::Stored(1), false));
        assert_eq!(once(&mut boxes, "bob", "hi"), (Outcome::Stored(1), true));
        assert_eq!(once(&mut boxes, "bob", "ho"), (Outcome::KeyReused, true));
        assert_eq!(once(&mut boxes, "cyd", "hi"), (Outcome::KeyReused, true));
        assert_eq!((boxes.messages(), boxes.account(user("bob")).unwrap().last()), (1, 1));
    }

    #[test]
    fn a_key_dies_with_either_account() {
        let mut boxes = Mailboxes::new(&Secret::new([1; 32]));
        create(&mut boxes, 1, "ann");
        create(&mut boxes, 2, "bob");
        let once = |boxes: &mut Mailboxes, index: u64, sender: u64| {
            let (to, from, sender) = (user("bob"), user("ann"), Index(sender));
            let change = message(to, from, sender, Some("k"), "hi");
            boxes.apply(Index(index), &change)
        };
        assert_eq!(once(&mut boxes, 3, 1), Outcome::Stored(1));
        boxes.apply(Index(4), &Change::Delete { user: user("bob"), checked: Index(2) });
        assert_eq!(once(&mut boxes, 5, 1), Outcome::NoSuchUser);
        create(&mut boxes, 6, "bob");
        assert_eq!(once(&mut boxes, 7, 1), Outcome::Stored(1));
        assert_eq!(once(&mut boxes, 8, 1), Outcome::Stored(1));
        boxes.apply(Index(9), &Change::Delete { user: user("ann"), checked: Index(1) });
        create(&mut boxes, 10, "ann");
        assert_eq!(once(&mut boxes, 11, 1), Outcome::NotLoggedIn);
        assert_eq!(once(&mut boxes, 12, 10), Outcome::Stored(2));
    }
}
