//! The changes that log entries make, and their encoding as the body of a record.

use super::retention::{Forgets, Limits};
use crate::content::{Attributes, Content};
use crate::fields::{Field, read_all};
use crate::ids::{Index, UserName};
use crate::record::{Kind, read_bytes, read_str, write_bytes, write_str};

/// A change to the mailboxes. Indexes name entries of the log, so that a change that was checked
/// against one state has no effect on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A new account.
    Create {
        /// Its name.
        user: UserName,
        /// The hash of its password, as a PHC string.
        hash: &'a str,
    },
    /// The deletion of an account.
    Delete {
        /// Its name.
        user: UserName,
        /// The entry that set the password which was checked.
        checked: Index,
    },
    /// A new password.
    Password {
        /// The account's name.
        user: UserName,
        /// The entry that set the password which was checked.
        checked: Index,
        /// The hash of the new password.
        hash: &'a str,
    },
    /// A message.
    Message {
        /// The receiver.
        to: UserName,
        /// The sender.
        from: UserName,
        /// The entry that created the sender's account.
        sender: Index,
        /// The sender's own key for it: 1 to 64 visible ASCII characters.
        key: Option<&'a str>,
        /// What it says.
        content: Content<'a>,
    },
    /// A message that was stored, without its content: its mailbox no longer keeps it. A server
    /// puts it in the place of the message, long after all have applied that.
    Emptied {
        /// The receiver.
        to: UserName,
        /// The sender.
        from: UserName,
        /// The entry that created the sender's account.
        sender: Index,
        /// The bytes of the text and the attributes.
        bytes: u64,
    },
    /// New limits of all mailboxes.
    Limits(Limits),
    /// Old messages that mailboxes no longer keep.
    Forget(Forgets<'a>),
}

impl<'a> Change<'a> {
    /// The kind of record that carries this change.
    pub fn kind(&self) -> Kind {
        match self {
            Change::Create { .. } => Kind::CREATE,
            Change::Delete { .. } => Kind::DELETE,
            Change::Password { .. } => Kind::PASSWORD,
            Change::Message { .. } => Kind::MESSAGE,
            Change::Emptied { .. } => Kind::EMPTIED,
            Change::Limits(_) => Kind::LIMITS,
            Change::Forget(_) => Kind::FORGET,
        }
    }

    /// Appends the body of the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Change::Create { user, hash } => {
                write_bytes(out, user.as_bytes());
                write_str(out, hash);
            }
            Change::Delete { user, checked } => {
                write_bytes(out, user.as_bytes());
                checked.write(out);
            }
            Change::Password { user, checked, hash } => {
                write_bytes(out, user.as_bytes());
                checked.write(out);
                write_str(out, hash);
            }
            Change::Message { to, from, sender, key, content } => {
                write_bytes(out, to.as_bytes());
                write_bytes(out, from.as_bytes());
                sender.write(out);
                write_str(out, key.unwrap_or(""));
                write_str(out, content.text);
                out.extend_from_slice(content.attributes.bytes());
            }
            Change::Emptied { to, from, sender, bytes } => {
                write_bytes(out, to.as_bytes());
                write_bytes(out, from.as_bytes());
                sender.write(out);
                bytes.write(out);
            }
            Change::Limits(limits) => limits.write(out),
            Change::Forget(forgets) => out.extend_from_slice(forgets.bytes()),
        }
    }

    /// Decodes a body; `None` when it is not one of this kind, or when the kind carries no
    /// change.
    pub fn decode(kind: Kind, mut body: &'a [u8]) -> Option<Change<'a>> {
        let rest = &mut body;
        let change = match kind {
            Kind::CREATE => Change::Create { user: name(rest)?, hash: read_str(rest)? },
            Kind::DELETE => Change::Delete { user: name(rest)?, checked: Index::read(rest)? },
            Kind::PASSWORD => Change::Password {
                user: name(rest)?,
                checked: Index::read(rest)?,
                hash: read_str(rest)?,
            },
            Kind::MESSAGE => Change::Message {
                to: name(rest)?,
                from: name(rest)?,
                sender: Index::read(rest)?,
                key: Some(read_str(rest)?).filter(|key| !key.is_empty()),
                content: Content {
                    text: read_str(rest)?,
                    attributes: Attributes::decode(std::mem::take(rest))?,
                },
            },
            Kind::EMPTIED => Change::Emptied {
                to: name(rest)?,
                from: name(rest)?,
                sender: Index::read(rest)?,
                bytes: u64::read(rest)?,
            },
            Kind::LIMITS => return read_all(rest).map(Change::Limits),
            Kind::FORGET => return Forgets::decode(rest).map(Change::Forget),
            _ => return None,
        };
        rest.is_empty().then_some(change)
    }
}

pub(super) fn name(rest: &mut &[u8]) -> Option<UserName> {
    UserName::from_bytes(read_bytes(rest)?)
}

#[cfg(test)]
mod tests {
    use super::super::retention::{Forget, Forgotten};
    use super::*;

    #[test]
    fn every_change_survives_its_bytes() {
        let user = UserName::parse("ann").unwrap();
        let attributes = Attributes::decode(b"\x01\x01a\x09\x02bc").unwrap();
        let message = |key, attributes| {
            let content = Content { text: "hi", attributes };
            Change::Message { to: user, from: user, sender: Index(3), key, content }
        };
        let all = [
            Change::Create { user, hash: "$argon2id$…" },
            Change::Delete { user, checked: Index(1) },
            Change::Password { user, checked: Index(2), hash: "$x" },
            message(None, Attributes::default()),
            message(Some("k1"), Attributes::default()),
            message(None, attributes),
            Change::Limits(Limits { messages: 5, bytes: u64::MAX }),
            Change::Emptied { to: user, from: user, sender: Index(3), bytes: 7 },
        ];
        for change in all {
            let mut body = Vec::new();
            change.encode(&mut body);
            assert_eq!(Change::decode(change.kind(), &body), Some(change));
            // Attributes are the rest of a body, so that one without its last ones is valid.
            let attributes_bytes = match change {
                Change::Message { content, .. } => content.attributes.bytes().len(),
                _ => 0,
            };
            for length in 0..body.len() - attributes_bytes {
                assert_eq!(Change::decode(change.kind(), &body[..length]), None);
            }
            body.push(0);
            assert_eq!(Change::decode(change.kind(), &body), None);
        }
        assert_eq!(Change::decode(Kind(99), &[]), None);
    }

    #[test]
    fn an_entry_forgets_messages_of_several_mailboxes() {
        let forget = |account: u64| {
            let user = UserName::parse(&format!("user-{account}")).unwrap();
            let forgotten = Forgotten { messages: account + 1, bytes: account * 100 };
            Forget { user, account: Index(account), forgotten }
        };
        let all = [forget(1), forget(20), forget(300)];
        let mut body = Vec::new();
        let mut ends = vec![0];
        for forget in all {
            forget.encode(&mut body);
            ends.push(body.len());
        }
        for length in 0..=body.len() {
            let change = Change::decode(Kind::FORGET, &body[..length]);
            let whole = ends.iter().position(|end| *end == length);
            assert_eq!(change.is_some(), whole.is_some(), "{length}");
            let Some(Change::Forget(forgets)) = change else { continue };
            assert_eq!(forgets.each().collect::<Vec<_>>(), all[..whole.unwrap()]);
            let mut again = Vec::new();
            Change::Forget(forgets).encode(&mut again);
            assert_eq!(again, body[..length]);
        }
    }
}
