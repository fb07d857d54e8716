//! The state that is replicated: accounts and their mailboxes, made by applying the log's changes
//! in order. Pure and deterministic: the same log gives the same state on every server.

mod change;

pub use change::Change;

use crate::names::{Index, UserName};
use std::collections::BTreeMap;
use std::ops::Bound;

/// An account as the log has made it.
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

    /// The entry that holds message `n`.
    pub fn message(&self, n: u64) -> Option<Index> {
        self.mailbox.get(usize::try_from(n.checked_sub(1)?).ok()?).copied()
    }
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The account exists now, or has its new password, or is gone.
    Done,
    /// The message is in the mailbox under this number.
    Stored(u64),
    /// There is an account of that name.
    Exists,
    /// There is no account of that name.
    NoSuchUser,
    /// The account is not the one whose password was checked.
    WrongPassword,
    /// The sender's account is gone.
    NotLoggedIn,
}

/// All accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mailboxes {
    accounts: BTreeMap<UserName, Account>,
    messages: u64,
}

impl Mailboxes {
    /// Applies the change of entry `index`; entries come in the order of the log.
    pub fn apply(&mut self, index: Index, change: &Change<'_>) -> Outcome {
        match *change {
            Change::Create { user, hash } => {
                if self.accounts.contains_key(&user) {
                    return Outcome::Exists;
                }
                let hash = hash.into();
                let account =
                    Account { created: index, password_set: index, hash, mailbox: Vec::new() };
                self.accounts.insert(user, account);
                Outcome::Done
            }
            Change::Delete { user, checked } => match self.accounts.get(&user) {
                Some(account) if account.password_set == checked => {
                    self.messages -= account.last();
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
            Change::Message { to, from, sender, .. } => {
                if self.accounts.get(&from).is_none_or(|account| account.created != sender) {
                    return Outcome::NotLoggedIn;
                }
                let Some(account) = self.accounts.get_mut(&to) else { return Outcome::NoSuchUser };
                account.mailbox.push(index);
                self.messages += 1;
                Outcome::Stored(account.last())
            }
        }
    }

    /// The account of that name.
    pub fn account(&self, user: UserName) -> Option<&Account> {
        self.accounts.get(&user)
    }

    /// The names behind `after`, in order; all names for `None`.
    pub fn names_after(&self, after: Option<UserName>) -> impl Iterator<Item = UserName> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.accounts.range((from, Bound::Unbounded)).map(|(name, _)| *name)
    }

    /// How many accounts there are.
    pub fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// How many messages all mailboxes hold.
    pub fn messages(&self) -> u64 {
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn create(boxes: &mut Mailboxes, index: u64, name: &str) -> Outcome {
        boxes.apply(Index(index), &Change::Create { user: user(name), hash: "h" })
    }

    fn send(boxes: &mut Mailboxes, index: u64, sender: u64, to: &str) -> Outcome {
        let (to, from, sender) = (user(to), user("ann"), Index(sender));
        boxes.apply(Index(index), &Change::Message { to, from, sender, key: None, text: "t" })
    }

    #[test]
    fn numbers_are_dense_in_each_mailbox() {
        let mut boxes = Mailboxes::default();
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
        let mut boxes = Mailboxes::default();
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
}
