//! A digest of the applied state, which is equal on all servers that have applied the same entries.
//! It covers the outcomes of the entries since the digest before, and everything that is kept of
//! some accounts: others each time.

use super::{Account, List, Mailboxes, Outcome};
use crate::ids::{Index, UserName};
use std::ops::Bound;

/// Accounts that a digest covers.
const ACCOUNTS: usize = 256;

/// The outcomes of entries, up to the next digest.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    hash: u64,
    /// How many entries it covers.
    entries: u64,
}

impl Window {
    /// Adds the outcome of an entry; `None` if it changed nothing by its kind.
    pub(super) fn add(&mut self, index: Index, outcome: Option<&Outcome>) {
        let number = match outcome {
            None => 0,
            Some(Outcome::Stored(number)) => number << 4,
            Some(Outcome::Done) => 1,
            Some(Outcome::Exists) => 2,
            Some(Outcome::NoSuchUser) => 3,
            Some(Outcome::WrongPassword) => 4,
            Some(Outcome::NotLoggedIn) => 5,
            Some(Outcome::KeyReused) => 6,
            Some(Outcome::MailboxFull) => 7,
        };
        self.hash = mix(self.hash, number ^ index.0.rotate_left(40));
        self.entries += 1;
    }
}

/// Multiplies by the odd number next to the golden ratio, so that each bit changes higher ones, and
/// turns these back.
fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

impl Mailboxes {
    /// Returns the digest after the entry `index`, which was applied last, and begins the next one.
    /// `None` if not all of the last `count` entries were applied to this state.
    pub fn digest(&mut self, index: Index, count: u64) -> Option<u64> {
        let Window { hash, entries } = std::mem::take(&mut self.window);
        let mut hash = (entries == count).then_some(hash)?;
        hash = mix(hash, self.messages);
        hash = mix(hash, self.limits.messages);
        hash = mix(hash, self.limits.bytes);
        hash = mix(hash, self.accounts.len() as u64);
        let first = any_name(mix(0, index.0));
        let from = self.accounts.range((Bound::Included(first), Bound::Unbounded));
        let before = self.accounts.range((Bound::Unbounded, Bound::Excluded(first)));
        let mut bytes = Vec::new();
        for (name, account) in from.chain(before).take(ACCOUNTS) {
            bytes.clear();
            write(name, account, &mut bytes);
            hash = mix(hash, self.keys.hash_of(&bytes));
        }
        Some(hash)
    }

    /// Changes an account as a fault in memory may do.
    #[cfg(any(test, feature = "simulate"))]
    pub fn corrupt(&mut self) {
        if let Some(account) = self.accounts.values_mut().next() {
            account.password_set = account.password_set.next();
        }
    }
}

/// Appends what is kept of an account to `out`.
fn write(name: &UserName, account: &Account, out: &mut Vec<u8>) {
    let numbers = [
        account.created().0,
        account.password_set.0,
        account.count(List::Received),
        account.count(List::Sent),
        account.holder.bytes(),
        account.forgotten.messages,
        account.forgotten.bytes,
    ];
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    account.hash.parts().iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// A name that follows from a number, as any other name does.
fn any_name(mut number: u64) -> UserName {
    let letters: String = std::iter::repeat_with(|| {
        let letter = (b'a' + (number % 26) as u8) as char;
        number /= 26;
        letter
    })
    .take(8)
    .collect();
    UserName::parse(&letters).expect("it consists of letters")
}

#[cfg(test)]
mod tests {
    use super::super::Change;
    use super::*;
    use crate::content::Content;
    use crate::ids::Secret;

    const DIGEST_ENTRIES: u64 = 50;

    fn user(n: u64) -> UserName {
        UserName::parse(&format!("user-{n}")).unwrap()
    }

    /// Applies entries; the accounts are more than a digest covers. Returns the digests.
    fn run(boxes: &mut Mailboxes, from: u64, to: u64) -> Vec<Option<u64>> {
        let mut digests = Vec::new();
        for index in from..=to {
            match index {
                1..=600 => {
                    let change = Change::Create { user: user(index), hash: "h" };
                    let _ = boxes.apply(Index(index), &change);
                }
                _ if index % 7 == 0 => boxes.pass_over(Index(index)),
                _ => {
                    let (n, content) = (index % 600 + 1, Content::plain("x"));
                    let (to, from, sender) = (user(n), user(1), Index(1));
                    let change = Change::Message { to, from, sender, key: None, content };
                    let _ = boxes.apply(Index(index), &change);
                }
            }
            if index % DIGEST_ENTRIES == 0 {
                digests.push(boxes.digest(Index(index), DIGEST_ENTRIES));
            }
        }
        digests
    }

    #[test]
    fn the_same_entries_give_the_same_digests_and_a_changed_account_another_one() {
        let new = || Mailboxes::new(&Secret::new([1; 32]));
        let end = 40 * DIGEST_ENTRIES;
        let digests = run(&mut new(), 1, end);
        assert!(digests.iter().all(Option::is_some));
        assert_eq!(run(&mut new(), 1, end), digests);
        let mut distinct = digests.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), digests.len());

        let mut other = new();
        let half = run(&mut other, 1, 20 * DIGEST_ENTRIES);
        assert_eq!(half, digests[..20]);
        other.corrupt();
        let rest = run(&mut other, 20 * DIGEST_ENTRIES + 1, end);
        assert_ne!(rest, digests[20..], "some digest covers the account");
        // From the first difference of numbers on, each digest differs.
        let mut other = new();
        run(&mut other, 1, 20 * DIGEST_ENTRIES);
        let to = other.account(user(2)).unwrap().clone();
        other.accounts.insert(user(3), to);
        let rest = run(&mut other, 20 * DIGEST_ENTRIES + 1, end);
        assert!(rest.iter().zip(&digests[20..]).all(|(own, right)| own != right));
    }

    #[test]
    fn a_digest_needs_all_entries_since_the_one_before() {
        let mut boxes = Mailboxes::new(&Secret::new([1; 32]));
        assert_eq!(run(&mut boxes, 5, 2 * DIGEST_ENTRIES)[0], None);
        assert!(run(&mut boxes, 2 * DIGEST_ENTRIES + 1, 3 * DIGEST_ENTRIES)[0].is_some());
    }
}
