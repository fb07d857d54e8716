//! Verified passwords, cached in memory on all servers. A repeated login, also after a failover,
//! waits for no Argon2id hash, and a wrong guess costs almost nothing.
//!
//! The cache holds a keyed hash, which is useless without the group's secret. The hash is bound to
//! the user name and to the entry that set the password. It is never written to disk.

use super::{Node, Output};
use crate::fields::Field;
use crate::ids::{Index, LinkId, Secret, UserName};
use crate::keyed_hash::{Hash, MacKey};
use crate::limits::{PROOFS_PER_PIECE, PROOFS_SPARE};
use crate::replica::{Out, Packet, RoleView};
use std::collections::BTreeMap;

/// The keyed hash of a password, with what it is bound to.
type Proof = Hash;

/// What was sent to another server on one link.
#[derive(Debug)]
struct Told {
    link: LinkId,
    /// The arrival number of the next password to send. All earlier ones are sent.
    next: u64,
    /// Whether a piece is sent and not yet acknowledged.
    waits: bool,
}

/// The cached passwords of all accounts, at most one for each account.
#[derive(Debug)]
pub(super) struct PasswordCache {
    mac: MacKey,
    /// By the entry that set the password, with the number of its arrival.
    proofs: BTreeMap<Index, (u64, Proof)>,
    arrivals: BTreeMap<u64, Index>,
    arrived: u64,
    told: Vec<Told>,
}

impl PasswordCache {
    /// Creates an empty cache with a key derived from the group's secret.
    pub(super) fn new(secret: &Secret) -> PasswordCache {
        let mac = MacKey::derive(secret, b"password");
        let (proofs, arrivals) = (BTreeMap::new(), BTreeMap::new());
        PasswordCache { mac, proofs, arrivals, arrived: 0, told: Vec::new() }
    }

    /// Adds a verified password of an account, which entry `set` gave to it.
    pub(super) fn add(&mut self, user: UserName, set: Index, password: &str) {
        let proof = self.mac.hash(&parts(user.as_str(), &set.0.to_le_bytes(), password));
        self.insert(set, proof);
    }

    fn insert(&mut self, set: Index, proof: Proof) {
        if self.proofs.get(&set).is_some_and(|(_, known)| *known == proof) {
            return;
        }
        self.forget(set);
        self.arrived += 1;
        self.proofs.insert(set, (self.arrived, proof));
        self.arrivals.insert(self.arrived, set);
    }

    /// Removes the password that an entry set, after the password was replaced or the account
    /// deleted.
    pub(super) fn forget(&mut self, set: Index) {
        if let Some((arrival, _)) = self.proofs.remove(&set) {
            self.arrivals.remove(&arrival);
        }
    }

    /// Returns how many passwords are cached.
    #[cfg(feature = "simulate")]
    pub(super) fn count(&self) -> usize {
        self.proofs.len()
    }

    /// Removes all passwords.
    pub(super) fn clear(&mut self) {
        self.proofs.clear();
        self.arrivals.clear();
    }

    /// Returns whether this is the password that entry `set` gave to the account; `None` when that
    /// password is not cached. Takes equally long for every wrong password.
    pub(super) fn verify(&self, user: UserName, set: Index, password: &str) -> Option<bool> {
        let (_, proof) = self.proofs.get(&set)?;
        Some(self.mac.verify(&parts(user.as_str(), &set.0.to_le_bytes(), password), proof))
    }

    /// Sends the passwords that the linked servers do not have yet; called on a primary. At most
    /// one piece is under way on each link, so that many accounts neither fill a link nor delay
    /// its other packets.
    pub(super) fn tell(&mut self, links: impl Iterator<Item = LinkId> + Clone, out: &mut Out) {
        self.told.retain(|told| links.clone().any(|link| link == told.link));
        for link in links {
            let known = self.told.iter().position(|told| told.link == link);
            let at = known.unwrap_or_else(|| {
                self.told.push(Told { link, next: 1, waits: false });
                self.told.len() - 1
            });
            let told = &mut self.told[at];
            if told.waits || told.next > self.arrived {
                continue;
            }
            let mut bytes = Vec::new();
            let mut last = self.arrived;
            for (arrival, set) in self.arrivals.range(told.next..).take(PROOFS_PER_PIECE) {
                write(&mut bytes, *set, &self.proofs[set].1);
                last = *arrival;
            }
            told.next = last + 1;
            told.waits = !bytes.is_empty();
            if told.waits {
                out.send_with(link, Packet::Proofs, bytes);
            }
        }
    }

    /// Notes that the other server has received the piece sent on this link.
    pub(super) fn on_taken(&mut self, link: LinkId) {
        if let Some(told) = self.told.iter_mut().find(|told| told.link == link) {
            told.waits = false;
        }
    }

    /// Stops sending verified passwords, after this server has lost the primary role.
    pub(super) fn tell_nobody(&mut self) {
        self.told.clear();
    }

    /// Adds the passwords that the primary sent. Keeps at most `accounts` and `PROOFS_SPARE` more,
    /// for accounts that this server does not know yet, and removes the oldest first.
    pub(super) fn take(&mut self, mut bytes: &[u8], accounts: usize) {
        while let Some(set) = Field::read(&mut bytes)
            && let Some((proof, rest)) = bytes.split_first_chunk()
        {
            bytes = rest;
            self.insert(set, *proof);
            while self.proofs.len() > accounts + PROOFS_SPARE {
                let oldest = *self.arrivals.values().next().expect("one for each proof");
                self.forget(oldest);
            }
        }
    }
}

fn parts<'a>(user: &'a str, set: &'a [u8; 8], password: &'a str) -> [&'a [u8]; 3] {
    [user.as_bytes(), set, password.as_bytes()]
}

fn write(out: &mut Vec<u8>, set: Index, proof: &Proof) {
    set.write(out);
    out.extend_from_slice(proof);
}

impl Node {
    /// Sends verified passwords to the other servers if this server is primary. Called each turn.
    pub(super) fn tell_proofs(&mut self, out: &mut Output) {
        let epoch = self.replica.term().epoch();
        let other = std::mem::replace(&mut self.logins.epoch, epoch) != epoch;
        // A server that begins an epoch keeps its own entries.
        let began = matches!(self.replica.role(), RoleView::Candidate | RoleView::Primary);
        if other && !began {
            self.logins.passwords.clear();
        }
        if self.replica.role() == RoleView::Primary {
            self.logins.passwords.tell(self.replica.links(), &mut out.replica);
        } else {
            self.logins.passwords.tell_nobody();
        }
    }

    /// Handles the verified passwords that another server sent.
    pub(super) fn on_proofs(&mut self, link: LinkId, records: &[u8], out: &mut Output) {
        if self.replica.follows_on(link) {
            self.logins.passwords.take(records, self.mailboxes.accounts());
        }
        if self.replica.links().any(|open| open == link) {
            out.replica.send(link, Packet::ProofsTaken);
        }
    }
}

#[cfg(test)]
mod bounds {
    use super::*;

    /// A primary that sends many passwords can't fill the memory: the number of accounts limits
    /// the cache.
    #[test]
    fn what_is_told_is_bounded_and_the_newest_stay() {
        let mut passwords = PasswordCache::new(&Secret::new([7; Secret::BYTES]));
        let mut bytes = Vec::new();
        for set in 1..=3 * PROOFS_SPARE as u64 {
            write(&mut bytes, Index(set), &Proof::default());
        }
        passwords.take(&bytes, 10);
        assert_eq!(passwords.proofs.len(), PROOFS_SPARE + 10);
        assert_eq!(passwords.arrivals.len(), PROOFS_SPARE + 10);
        let last = Index(3 * PROOFS_SPARE as u64);
        assert!(passwords.proofs.contains_key(&last) && !passwords.proofs.contains_key(&Index(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Effect;

    fn name(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn passwords(secret: u8) -> PasswordCache {
        PasswordCache::new(&Secret::new([secret; 32]))
    }

    /// Sends pieces until all passwords are sent, and returns the number of pieces.
    fn tell_all(from: &mut PasswordCache, to: &mut PasswordCache) -> usize {
        for pieces in 0.. {
            let mut out = Out::default();
            from.tell([LinkId(1)].into_iter(), &mut out);
            let Some(Effect::SendWith(link, sent)) = out.effects.pop() else { return pieces };
            let (Packet::Proofs, bytes) = *sent else { panic!("{sent:?}") };
            from.tell([LinkId(1)].into_iter(), &mut out);
            assert!(out.effects.is_empty(), "one piece at a time");
            to.take(&bytes, 5_000);
            from.on_taken(link);
        }
        unreachable!()
    }

    #[test]
    fn a_proof_counts_for_its_name_entry_password_and_secret_only() {
        let mut one = passwords(1);
        let (ann, set) = (name("ann"), Index(5));
        assert_eq!(one.verify(ann, set, "correct-horse"), None);
        one.add(ann, set, "correct-horse");
        assert_eq!(one.verify(ann, set, "correct-horse"), Some(true));
        assert_eq!(one.verify(ann, set, "correct-horsf"), Some(false));
        assert_eq!(one.verify(name("bob"), set, "correct-horse"), Some(false));
        assert_eq!(one.verify(ann, Index(6), "correct-horse"), None);
        let mut other = passwords(2);
        tell_all(&mut one, &mut other);
        assert_eq!(other.verify(ann, set, "correct-horse"), Some(false), "another secret");
        one.forget(set);
        assert_eq!(one.verify(ann, set, "correct-horse"), None);
    }

    #[test]
    fn all_of_them_reach_another_server_in_bounded_pieces() {
        let (mut one, mut two) = (passwords(1), passwords(1));
        let count = 2 * PROOFS_PER_PIECE as u64 + 1;
        for n in 1..=count {
            one.add(name(&format!("u{n}")), Index(n), "correct-horse");
        }
        assert_eq!(tell_all(&mut one, &mut two), 3);
        for n in 1..=count {
            let verified = two.verify(name(&format!("u{n}")), Index(n), "correct-horse");
            assert_eq!(verified, Some(true), "{n}");
        }
        assert_eq!(tell_all(&mut one, &mut two), 0, "nothing is new");
        one.add(name("u7"), Index(7), "correct-horse");
        assert_eq!(tell_all(&mut one, &mut two), 0, "known");
        one.add(name("late"), Index(3), "other-horse");
        assert_eq!(tell_all(&mut one, &mut two), 1);
        assert_eq!(two.verify(name("late"), Index(3), "other-horse"), Some(true));
        assert_eq!(two.proofs.len(), count as usize, "one of each account");
        // Every link starts from the beginning, also after this server has become primary again.
        one.tell_nobody();
        assert_eq!(tell_all(&mut one, &mut two), 3);
    }

    #[test]
    fn half_a_proof_is_none() {
        let mut one = passwords(1);
        let mut bytes = Vec::new();
        write(&mut bytes, Index(9), &Proof::default());
        for length in 0..bytes.len() {
            one.take(&bytes[..length], 0);
            assert!(one.proofs.is_empty());
        }
        one.take(&bytes, 0);
        assert_eq!(one.proofs.len(), 1);
    }
}
