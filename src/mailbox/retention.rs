//! What bounds mailboxes: limits, beyond which a mailbox takes no more messages, and old messages
//! that it no longer keeps. Both are entries of the log, so that all servers agree on them,
//! whatever their settings and clocks say.

use super::Account;
use super::change::name;
use crate::fields::{Field, fields};
use crate::ids::{Index, UserName};
use crate::record::write_bytes;

/// How much a mailbox may keep. A mailbox that is full takes no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most messages.
    pub messages: u64,
    /// The most bytes of their texts and attributes.
    pub bytes: u64,
}

impl Limits {
    /// No limits.
    pub const NONE: Limits = Limits { messages: u64::MAX, bytes: u64::MAX };

    /// Whether the mailbox of an account takes one more message, of so many bytes.
    #[inline]
    pub(super) fn allow(&self, account: &Account, bytes: u64) -> bool {
        // Most groups have no limits, and no mailbox reaches these numbers.
        *self == Limits::NONE
            || account.kept() < self.messages
                && account.kept_bytes().saturating_add(bytes) <= self.bytes
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::NONE
    }
}

/// The first messages of a mailbox, which it no longer keeps. Their numbers stay theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many they are. The first message that is kept has the next number.
    pub messages: u64,
    /// The bytes of their texts and attributes.
    pub bytes: u64,
}

/// A mailbox, and all that it no longer keeps from an entry on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forget {
    /// The account's name.
    pub user: UserName,
    /// The entry that created the account.
    pub account: Index,
    /// What is no longer kept.
    pub forgotten: Forgotten,
}

fields! {
    Limits { messages, bytes }
    Forgotten { messages, bytes }
}

impl Forget {
    /// Appends it to the body of an entry.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_bytes(out, self.user.as_bytes());
        self.account.write(out);
        self.forgotten.write(out);
    }

    fn decode(rest: &mut &[u8]) -> Option<Forget> {
        let (user, account) = (name(rest)?, Field::read(rest)?);
        Some(Forget { user, account, forgotten: Field::read(rest)? })
    }
}

/// The body of an entry: a [`Forget`] for each of some mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgets<'a>(&'a [u8]);

impl<'a> Forgets<'a> {
    /// Reads a body; `None` if it is not one.
    pub fn decode(bytes: &'a [u8]) -> Option<Forgets<'a>> {
        let mut rest = bytes;
        while !rest.is_empty() {
            Forget::decode(&mut rest)?;
        }
        Some(Forgets(bytes))
    }

    /// The encoded bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Each of them, in order.
    pub fn each(self) -> impl Iterator<Item = Forget> {
        let mut rest = self.0;
        std::iter::from_fn(move || Forget::decode(&mut rest))
    }
}
