//! The helper thread that hashes passwords. A hash takes about 30 ms, for which the event loop must
//! never wait.

use crate::ids::SessionId;
use crate::node::{Hashed, Job};
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use mio::Waker;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// The cost of a hash: memory in KiB, passes, lanes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);

/// The event loop's handle of the thread. Dropping it ends the thread after the current job.
#[derive(Debug)]
pub(super) struct Hasher {
    jobs: Sender<Job>,
    done: Receiver<(SessionId, Hashed)>,
}

impl Hasher {
    /// Starts the thread. It wakes the event loop after each job.
    pub(super) fn start(waker: Arc<Waker>) -> io::Result<Hasher> {
        let (jobs, todo) = channel::<Job>();
        let (results, done) = channel();
        std::thread::Builder::new().name("hasher".to_owned()).spawn(move || {
            for job in todo {
                let session = job.session;
                if results.send((session, hash(job))).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        })?;
        Ok(Hasher { jobs, done })
    }

    pub(super) fn push(&self, job: Job) {
        self.jobs.send(job).expect("the thread lives as long as this end");
    }

    pub(super) fn pop(&self) -> Option<(SessionId, Hashed)> {
        self.done.try_recv().ok()
    }
}

fn hash(job: Job) -> Hashed {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).expect("the cost is within the bounds");
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    match job.against {
        None => {
            let hash = argon.hash_password(job.password.as_bytes());
            Hashed::Made(hash.expect("passwords are within the bounds").to_string())
        }
        Some(against) => {
            let right = PasswordHash::new(&against)
                .is_ok_and(|hash| argon.verify_password(job.password.as_bytes(), &hash).is_ok());
            Hashed::Checked(right)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(password: &str, against: Option<&str>) -> Hashed {
        let password = password.to_owned();
        hash(Job { session: SessionId(1), password, against: against.map(str::to_owned) })
    }

    #[test]
    fn hashes_are_salted_and_check() {
        let (Hashed::Made(a), Hashed::Made(b)) = (run("secret-one", None), run("secret-one", None))
        else {
            panic!("a new password gives a hash");
        };
        assert_ne!(a, b);
        assert!(a.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{a}");
        assert!(a.len() <= crate::limits::HASH_BYTES_MAX);
        assert_eq!(run("secret-one", Some(&a)), Hashed::Checked(true));
        assert_eq!(run("secret-two", Some(&a)), Hashed::Checked(false));
        assert_eq!(run("secret-one", Some("no hash")), Hashed::Checked(false));
    }

    #[test]
    fn nobody_has_a_hash_of_the_same_cost() {
        assert!(PasswordHash::new(crate::node::NOBODY).is_ok());
        assert_eq!(run("secret-one", Some(crate::node::NOBODY)), Hashed::Checked(false));
    }
}
