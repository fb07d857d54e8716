//! The replicated state: accounts and their mailboxes, built by applying the log's changes in
//! order. Pure and deterministic: the same log gives the same state on every server.

mod archive;
mod change;
mod digest;
mod keys;
mod password_hash;
mod positions;
mod retention;

pub use archive::{Archive, Visit};
pub use change::Change;
pub use keys::{Deletion, Key, Once};
pub use password_hash::PasswordHash;
pub use positions::{AccountChange, Block, Done, Earlier, List, Listed, Messages, Part, Run};
pub use retention::{Forget, Forgets, Forgotten, Limits};

use crate::content::Content;
use crate::ids::{Index, Secret, SegmentId, UserName};
use crate::record::Record;
use digest::Window;
use keys::{Keys, Known, Print, Stored};
use positions::{Holder, Place, Positions};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// An account, as built from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The entry that set its password.
    pub password_set: Index,
    /// The messages that its mailbox no longer keeps.
    pub forgotten: Forgotten,
    hash: PasswordHash,
    holder: Holder,
}

impl Account {
    /// The entry that created it.
    pub fn created(&self) -> Index {
        self.holder.created
    }

    /// The hash of its password, as a PHC string.
    pub fn hash(&self) -> String {
        self.hash.parts().concat()
    }

    /// The number of the last message in its mailbox; 0 when it has none.
    pub fn last(&self) -> u64 {
        self.count(List::Received)
    }

    /// How many messages its mailbox keeps.
    pub fn kept(&self) -> u64 {
        self.last() - self.forgotten.messages
    }

    /// The bytes of the messages that its mailbox keeps: of their texts and attributes.
    pub fn kept_bytes(&self) -> u64 {
        self.holder.bytes() - self.forgotten.bytes
    }

    /// The number of the last message in a list; 0 when it has none.
    pub fn count(&self, list: List) -> u64 {
        self.holder.count(list)
    }
}

/// An account as files keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedAccount {
    /// The entry that created it.
    pub created: Index,
    /// The entry that set its password.
    pub password_set: Index,
    /// Where its messages are.
    pub messages: Messages,
    /// Those that its mailbox no longer keeps.
    pub forgotten: Forgotten,
    /// Its name.
    pub name: UserName,
    /// The hash of its password.
    pub hash: PasswordHash,
}

impl SavedAccount {
    /// Whether the mailbox has forgotten no more than it had.
    pub fn is_sound(&self) -> bool {
        let SavedAccount { messages, forgotten, .. } = self;
        let received = messages.counts[List::Received as usize];
        forgotten.messages <= received && forgotten.bytes <= messages.bytes
    }
}

/// Where messages of a list are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// These are consecutive messages. The list may have more.
    Listed,
    /// In the index file of this segment, or of one before.
    File(SegmentId),
}

/// The result of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The account was created, has its new password, or was deleted; limits are set; messages
    /// are forgotten.
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
    /// The mailbox keeps as much as it may.
    MailboxFull,
}

/// All accounts.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    accounts: BTreeMap<UserName, Account>,
    /// How many messages all mailboxes keep.
    messages: u64,
    /// How many were deleted or forgotten since this state was made.
    removed: u64,
    limits: Limits,
    keys: Keys,
    positions: Positions,
    window: Window,
}

impl Mailboxes {
    /// Returns the state without accounts, of a group that has this secret.
    pub fn new(secret: &Secret) -> Mailboxes {
        Mailboxes::with(Keys::new(secret))
    }

    /// Returns the state without accounts, of the same group.
    pub fn emptied(&self) -> Mailboxes {
        Mailboxes::with(self.keys.emptied())
    }

    fn with(keys: Keys) -> Mailboxes {
        let (positions, window) = (Positions::new(), Window::default());
        let (accounts, limits) = (BTreeMap::new(), Limits::NONE);
        Mailboxes { accounts, messages: 0, removed: 0, limits, keys, positions, window }
    }

    /// Returns the state of the same group that files have kept: the accounts in any order, keys
    /// and deletions in that of the log. The next entry is in `segment`, whose first entry is
    /// `first`.
    pub fn restored(
        &self,
        accounts: impl IntoIterator<Item = SavedAccount>,
        keys: impl IntoIterator<Item = Key>,
        deletions: impl IntoIterator<Item = Deletion>,
        limits: Limits,
        (segment, first): (SegmentId, Index),
    ) -> Mailboxes {
        let mut restored = Mailboxes { limits, ..self.emptied() };
        let account = |saved: SavedAccount| {
            let SavedAccount { created, password_set, messages, forgotten, name, hash } = saved;
            let holder = Holder::restored(created, &messages);
            (name, Account { password_set, hash, forgotten, holder })
        };
        restored.accounts = accounts.into_iter().map(account).collect();
        restored.messages = restored.accounts.values().map(Account::kept).sum();
        keys.into_iter().for_each(|key| restored.keys.restore(key));
        deletions.into_iter().for_each(|deletion| restored.keys.forget_receiver(deletion));
        restored.begin_segment(segment, first);
        restored
    }

    /// Returns a number that shows whether the keys of another state, as files have kept them, are
    /// of the same secret.
    pub fn secret_mark(&self) -> u64 {
        self.keys.secret_mark()
    }

    /// Notes that the next entry is in a segment whose first entry is `first`.
    pub fn begin_segment(&mut self, segment: SegmentId, first: Index) {
        if self.positions.active_first() != first {
            let keys = self.keys.seal();
            self.positions.begin_segment(segment, first, keys, self.limits);
        }
    }

    fn note(&mut self, account: Index, entry: Index, done: Done) -> Outcome {
        self.positions.add_change(AccountChange { account, entry, done });
        Outcome::Done
    }

    /// The positions in the oldest segment that is wholly applied and has no index file yet.
    pub fn unindexed(&self) -> Option<&Arc<Part>> {
        self.positions.oldest_sealed()
    }

    /// Forgets the positions that [`Mailboxes::unindexed`] returns: an index file has them.
    pub fn forget_indexed(&mut self) {
        self.positions.drop_oldest_sealed();
    }

    /// Applies the change of entry `index`. Entries must come in the order of the log.
    pub fn apply(&mut self, index: Index, change: &Change<'_>) -> Outcome {
        let outcome = self.apply_change(index, change);
        self.window.add(index, Some(&outcome));
        outcome
    }

    /// Applies an entry of any kind. Returns its outcome, if it is a change.
    pub fn apply_record(&mut self, record: &Record<'_>) -> Option<Outcome> {
        let change = Change::decode(record.kind, record.body);
        if change.is_none() {
            self.pass_over(record.index);
        }
        change.map(|change| self.apply(record.index, &change))
    }

    fn apply_change(&mut self, index: Index, change: &Change<'_>) -> Outcome {
        self.keys.expire(index);
        match *change {
            Change::Create { user, hash } => {
                if self.accounts.contains_key(&user) {
                    return Outcome::Exists;
                }
                let (password_set, hash, holder) =
                    (index, PasswordHash::new(hash), Holder::new(index));
                let forgotten = Forgotten::default();
                self.accounts.insert(user, Account { password_set, hash, forgotten, holder });
                self.note(index, index, Done::Created)
            }
            Change::Delete { user, checked } => match self.accounts.get(&user) {
                Some(account) if account.password_set == checked => {
                    self.messages -= account.kept();
                    self.removed += account.kept();
                    let account = account.created();
                    self.keys.forget_receiver(Deletion { at: index, account });
                    self.accounts.remove(&user);
                    self.note(account, index, Done::Deleted)
                }
                _ => Outcome::WrongPassword,
            },
            Change::Password { user, checked, hash } => match self.accounts.get_mut(&user) {
                Some(account) if account.password_set == checked => {
                    account.password_set = index;
                    account.hash = PasswordHash::new(hash);
                    let account = account.created();
                    self.note(account, index, Done::PasswordSet)
                }
                _ => Outcome::WrongPassword,
            },
            Change::Message { to, from, sender, key, content } => {
                let print = key.map(|key| self.keys.print(&Once { sender, key, to, content }));
                self.store(index, to, (from, sender), print, content.bytes())
            }
            Change::Emptied { to, from, sender, bytes } => {
                self.positions.count_emptied();
                self.store(index, to, (from, sender), None, bytes)
            }
            Change::Limits(limits) => {
                self.limits = limits;
                Outcome::Done
            }
            Change::Forget(forgets) => {
                forgets.each().for_each(|forget| self.forget(&forget));
                Outcome::Done
            }
        }
    }

    /// Stores a message of so many bytes.
    fn store(
        &mut self,
        index: Index,
        to: UserName,
        (from, sender): (UserName, Index),
        print: Option<Print>,
        bytes: u64,
    ) -> Outcome {
        let account = self.accounts.get(&from).filter(|account| account.created() == sender);
        let Some(sender) = account else { return Outcome::NotLoggedIn };
        if let Some(known) = print.and_then(|print| self.keys.find(print)) {
            return outcome(known);
        }
        let Some(receiver) = self.accounts.get(&to) else { return Outcome::NoSuchUser };
        if !self.limits.allow(receiver, bytes) {
            return Outcome::MailboxFull;
        }
        self.positions.add(index, &receiver.holder, &sender.holder, bytes);
        let number = receiver.last();
        if let Some(print) = print {
            self.keys.add(index, print, Stored { receiver: receiver.created(), number });
        }
        self.messages += 1;
        Outcome::Stored(number)
    }

    fn forget(&mut self, forget: &Forget) {
        let Forget { user, account: created, forgotten: to } = *forget;
        let account = self.accounts.get_mut(&user).filter(|account| account.created() == created);
        let Some(account) = account else { return };
        let from = account.forgotten;
        let bytes = from.bytes..=account.holder.bytes();
        if from.messages < to.messages && to.messages <= account.last() && bytes.contains(&to.bytes)
        {
            account.forgotten = to;
            self.messages -= to.messages - from.messages;
            self.removed += to.messages - from.messages;
            self.positions.add_forgotten(created, to);
        }
    }

    /// Passes over an entry that changes no account and no message. Each entry ends the time of an
    /// old key.
    pub fn pass_over(&mut self, index: Index) {
        self.keys.expire(index);
        self.window.add(index, None);
    }

    /// How many messages were deleted or forgotten since this state was made.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Appends the accounts after a name to `into`, `most` at most: the entry that created each,
    /// and how many of its first messages are forgotten. Returns the last name; `None` without any.
    pub fn survey(
        &self,
        after: Option<UserName>,
        most: usize,
        into: &mut Vec<(Index, u64)>,
    ) -> Option<UserName> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (name, account) in self.accounts.range((from, Bound::Unbounded)).take(most) {
            into.push((account.created(), account.forgotten.messages));
            last = Some(*name);
        }
        last
    }

    /// The limits of all mailboxes.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether the mailbox of an account is too full for one more message.
    pub fn is_full(&self, account: &Account, content: Content<'_>) -> bool {
        !self.limits.allow(account, content.bytes())
    }

    /// Returns the result of an earlier request with the same key, if it is remembered.
    pub fn known(&self, once: &Once<'_>) -> Option<Outcome> {
        self.keys.find(self.keys.print(once)).map(outcome)
    }

    /// Finds message `number` in a list of an account, which must have it. Appends this message and
    /// the next ones, `most` at most, to `into`, if they are known without a file.
    pub fn find(
        &self,
        account: &Account,
        list: List,
        number: u64,
        most: usize,
        into: &mut Vec<Listed>,
    ) -> Option<Found> {
        Some(match self.positions.find(&account.holder, list, number)? {
            Place::File(segment) => Found::File(segment),
            Place::Memory(part, block) => {
                part.list(block, list, number, most, into);
                Found::Listed
            }
        })
    }

    /// Returns the number of the first message that an account gets in a segment, in which it gets
    /// one; `None` if an index file must tell.
    pub fn first_received(&self, account: &Account, segment: SegmentId) -> Option<u64> {
        self.positions.first_received(&account.holder, segment)
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

    /// How many messages all mailboxes keep.
    pub fn messages(&self) -> u64 {
        self.messages
    }
}

fn outcome(known: Known) -> Outcome {
    match known {
        Known::Same(number) => Outcome::Stored(number),
        Known::Other => Outcome::KeyReused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(bob.last(), 2);
        let mut entries = Vec::new();
        let found = boxes.find(bob, List::Received, 1, 10, &mut entries);
        let listed = |entry, rank| Listed { entry: Index(entry), rank };
        assert_eq!((found, entries), (Some(Found::Listed), vec![listed(4, 0), listed(7, 1)]));
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

    #[test]
    fn a_full_mailbox_takes_no_message_until_it_forgets_some() {
        let mut boxes = Mailboxes::new(&Secret::new([1; 32]));
        create(&mut boxes, 1, "ann");
        create(&mut boxes, 2, "bob");
        let limits = |messages, bytes| Change::Limits(Limits { messages, bytes });
        let kept = |boxes: &Mailboxes| {
            let bob = boxes.account(user("bob")).unwrap();
            (bob.last(), bob.kept(), bob.kept_bytes(), boxes.messages())
        };
        let forget = |boxes: &mut Mailboxes, index, account, messages, bytes| {
            let (account, forgotten) = (Index(account), Forgotten { messages, bytes });
            let mut body = Vec::new();
            Forget { user: user("bob"), account, forgotten }.encode(&mut body);
            let change = Change::Forget(Forgets::decode(&body).unwrap());
            assert_eq!(boxes.apply(Index(index), &change), Outcome::Done);
        };
        assert_eq!(boxes.apply(Index(3), &limits(2, u64::MAX)), Outcome::Done);
        assert_eq!(send(&mut boxes, 4, 1, "bob"), Outcome::Stored(1));
        assert_eq!(send(&mut boxes, 5, 1, "bob"), Outcome::Stored(2));
        assert_eq!(send(&mut boxes, 6, 1, "bob"), Outcome::MailboxFull);
        assert_eq!(send(&mut boxes, 7, 1, "ann"), Outcome::Stored(1), "each has its own");
        assert_eq!(kept(&boxes), (2, 2, 2, 3));
        // Of an earlier account of that name, of messages or bytes that are not there.
        for (at, account, messages, bytes) in [(8, 9, 1, 1), (9, 2, 3, 2), (10, 2, 1, 3)] {
            forget(&mut boxes, at, account, messages, bytes);
            assert_eq!(kept(&boxes), (2, 2, 2, 3));
        }
        forget(&mut boxes, 11, 2, 1, 1);
        assert_eq!(kept(&boxes), (2, 1, 1, 2));
        assert_eq!(send(&mut boxes, 12, 1, "bob"), Outcome::Stored(3), "numbers stay");
        // Nothing comes back.
        forget(&mut boxes, 13, 2, 0, 0);
        assert_eq!(kept(&boxes), (3, 2, 2, 3));
        assert_eq!(boxes.apply(Index(14), &limits(u64::MAX, 2)), Outcome::Done);
        assert_eq!(send(&mut boxes, 15, 1, "bob"), Outcome::MailboxFull);
        forget(&mut boxes, 16, 2, 3, 3);
        assert_eq!(kept(&boxes), (3, 0, 0, 1));
        assert_eq!(send(&mut boxes, 17, 1, "bob"), Outcome::Stored(4));
        boxes.apply(Index(18), &Change::Delete { user: user("bob"), checked: Index(2) });
        assert_eq!(boxes.messages(), 1);
    }

    /// A state that gets emptied messages in the place of some agrees on everything else.
    #[test]
    fn an_emptied_message_counts_as_the_message_did() {
        let run = |emptied: bool| {
            let mut boxes = Mailboxes::new(&Secret::new([1; 32]));
            create(&mut boxes, 1, "ann");
            create(&mut boxes, 2, "bob");
            boxes.apply(Index(3), &Change::Limits(Limits { messages: 3, bytes: 3 }));
            for index in 4..=8 {
                let (to, from, sender) = (user("bob"), user("ann"), Index(1));
                let message = message(to, from, sender, None, "t");
                let emptied_message = Change::Emptied { to, from, sender, bytes: 1 };
                let is_stored = index < 7;
                let change = if emptied && is_stored { emptied_message } else { message };
                let outcome = boxes.apply(Index(index), &change);
                let expected = Outcome::Stored(index - 3);
                assert_eq!(outcome, if is_stored { expected } else { Outcome::MailboxFull });
            }
            let mut entries = Vec::new();
            boxes.find(boxes.account(user("ann")).unwrap(), List::Sent, 1, 9, &mut entries);
            (boxes.digest(Index(8), 8), entries)
        };
        assert_eq!(run(true), run(false));
    }
}
