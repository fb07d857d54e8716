//! Keyed hashes (BLAKE2s, RFC 7693; for tables SipHash-2-4, Aumasson, Bernstein 2012). Their keys
//! are derived from the secret of the group: they are the same on all servers, and useless
//! elsewhere. Numbers that nobody outside can choose need no key.

use crate::ids::Secret;
use blake2::Blake2sMac;
use blake2::digest::Mac;
use blake2::digest::consts::{U16, U32};
use siphasher::sip::SipHasher24;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// A keyed hash.
pub type Hash = [u8; 16];

/// The key of one purpose: no other purpose gives the same hashes.
#[derive(Clone)]
pub struct MacKey {
    key: [u8; 32],
    purpose: [u8; 8],
}

impl MacKey {
    /// Derives the key of a purpose.
    pub fn derive(secret: &Secret, purpose: &[u8; 8]) -> MacKey {
        let mac = Blake2sMac::<U32>::new_with_salt_and_personal(Some(secret.bytes()), &[], purpose);
        let key = mac.expect("a secret is as long as a key").finalize().into_bytes();
        MacKey { key: key.into(), purpose: *purpose }
    }

    fn mac(&self, parts: &[&[u8]]) -> Blake2sMac<U16> {
        let mac = Blake2sMac::new_with_salt_and_personal(Some(&self.key), &[], &self.purpose);
        let mut mac = mac.expect("a key has its length");
        for part in parts {
            // Include each length, so that the same bytes split elsewhere have another hash.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }

    /// The hash of these parts, in this order.
    pub fn hash(&self, parts: &[&[u8]]) -> Hash {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Whether this is the hash of these parts. Compares in constant time.
    pub fn verify(&self, parts: &[&[u8]], hash: &Hash) -> bool {
        self.mac(parts).verify_slice(hash).is_ok()
    }
}

/// The key of one purpose, for short hashes that are fast to compute. Nobody outside the group
/// can choose two texts with the same hash.
#[derive(Clone)]
pub struct ShortKey([u8; 16]);

impl ShortKey {
    /// Derives the key of a purpose.
    pub fn derive(secret: &Secret, purpose: &[u8; 8]) -> ShortKey {
        ShortKey(MacKey::derive(secret, purpose).hash(&[]))
    }

    /// The hash of these parts, in this order.
    pub fn hash(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        for part in parts {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        hasher.finish()
    }
}

impl fmt::Debug for ShortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShortKey")
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey")
    }
}

/// A table by numbers that nobody outside the group can choose. Its hash has no key, so that it is
/// fast, and the same in every run.
pub type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads numbers over a table: Knuth's multiplicative hashing, with the golden ratio.
#[derive(Clone, Copy, Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u64(&mut self, number: u64) {
        // `HashMap` takes the bucket from the low bits, and a tag from the high bits.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_its_parts_key_and_purpose_only() {
        let derive = |secret: u8, purpose| MacKey::derive(&Secret::new([secret; 32]), purpose);
        let key = derive(1, b"purpose1");
        let hash = key.hash(&[b"ab", b"c"]);
        assert_eq!(hash, derive(1, b"purpose1").hash(&[b"ab", b"c"]));
        assert!(key.verify(&[b"ab", b"c"], &hash));
        for parts in [&[b"a" as &[u8], b"bc"] as &[&[u8]], &[b"abc"], &[b"ab", b"c", b""], &[]] {
            assert!(!key.verify(parts, &hash), "{parts:?}");
        }
        assert!(!derive(2, b"purpose1").verify(&[b"ab", b"c"], &hash));
        assert!(!derive(1, b"purpose2").verify(&[b"ab", b"c"], &hash));
    }

    #[test]
    fn short_hashes_are_the_same_on_all_servers_of_all_versions() {
        let pinned = 10_600_767_355_860_270_890;
        let key = ShortKey::derive(&Secret::new([1; 32]), b"purpose1");
        assert_eq!(key.hash(&[b"ab", b"c"]), pinned);
        assert_ne!(key.hash(&[b"a", b"bc"]), pinned);
        assert_ne!(
            ShortKey::derive(&Secret::new([2; 32]), b"purpose1").hash(&[b"ab", b"c"]),
            pinned
        );
    }
}
