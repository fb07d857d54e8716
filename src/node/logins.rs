//! The state of logins: which passwords are known to be right, which are hashed, and who guesses.

use super::hash_queue::HashQueue;
use super::login_throttle::LoginThrottle;
use super::password_cache::PasswordCache;
use crate::ids::Secret;

/// See the module.
#[derive(Debug)]
pub(super) struct Logins {
    pub(super) passwords: PasswordCache,
    /// The epoch in which `passwords` were verified. In another epoch the same index may hold
    /// another entry.
    pub(super) epoch: u16,
    pub(super) throttle: LoginThrottle,
    pub(super) hash_queue: HashQueue,
}

impl Logins {
    pub(super) fn new(secret: &Secret, epoch: u16) -> Logins {
        Logins {
            passwords: PasswordCache::new(secret),
            epoch,
            throttle: LoginThrottle::default(),
            hash_queue: HashQueue::default(),
        }
    }
}
