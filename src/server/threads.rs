//! The helper threads. The event loop must never wait for the hash of a password, which takes about
//! 30 ms, for files that are read or made, which takes longer, or for the look-up of a name, which
//! may take minutes.

use super::Found;
use crate::address;
use crate::ids::{ServerId, SessionId};
use crate::node::{Hashed, Job};
use crate::store::{FileJob, JobDone, JobError, ServerDisk};
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use mio::Waker;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// The cost of a hash: memory in KiB, passes, lanes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);

/// What a thread has done.
#[derive(Debug)]
pub(super) enum Done {
    Hashed(SessionId, Hashed),
    LookedUp(ServerId, Found),
    Made(Result<JobDone, JobError>),
}

/// A thread's way to the event loop.
#[derive(Clone, Debug)]
pub(super) struct Report {
    done: Sender<Done>,
    waker: Arc<Waker>,
}

impl Report {
    /// Also returns where the results arrive.
    pub(super) fn new(waker: Arc<Waker>) -> (Report, Receiver<Done>) {
        let (sender, done) = channel();
        (Report { done: sender, waker }, done)
    }

    /// Passes a result to the event loop, and wakes it.
    pub(super) fn send(&self, done: Done) {
        // An error means that the event loop has ended.
        let _ = self.done.send(done).map(|()| self.waker.wake());
    }
}

/// Starts the thread that hashes passwords, one after the other. Dropping the sender of jobs ends
/// it after those that wait.
pub(super) fn hasher(report: Report) -> io::Result<Sender<Job>> {
    let (jobs, todo) = channel::<Job>();
    thread::Builder::new().name("hasher".to_owned()).spawn(move || {
        for job in todo {
            report.send(Done::Hashed(job.session, hash(job)));
        }
    })?;
    Ok(jobs)
}

/// The thread that reads and makes files, one after the other.
#[derive(Debug)]
pub(super) struct Maker {
    /// `None` once it is to end.
    jobs: Option<Sender<FileJob>>,
    thread: Option<JoinHandle<()>>,
    /// The thread is to end soon.
    ends: Arc<AtomicBool>,
}

impl Maker {
    /// Starts the thread.
    pub(super) fn start(disk: ServerDisk, report: Report) -> io::Result<Maker> {
        let (jobs, todo) = channel::<FileJob>();
        let ends = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ends);
        let work = move || {
            for job in todo {
                let made = job.run(&disk, || asked.load(Ordering::Relaxed));
                report.send(Done::Made(made));
            }
        };
        let thread = thread::Builder::new().name("maker".to_owned()).spawn(work)?;
        Ok(Maker { jobs: Some(jobs), thread: Some(thread), ends })
    }

    /// Passes a job to the thread.
    pub(super) fn begin(&self, job: FileJob) {
        let jobs = self.jobs.as_ref().expect("it has not been dropped");
        jobs.send(job).expect("the thread lives as long as this end");
    }
}

impl Drop for Maker {
    /// Waits for the file that is being made: afterwards the directory may be moved.
    fn drop(&mut self) {
        self.jobs = None;
        self.ends.store(true, Ordering::Relaxed);
        // A panic of the thread was reported when it happened.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Starts a thread that looks up the addresses of a server's name.
pub(super) fn look_up(id: ServerId, name: String, report: Report) -> io::Result<()> {
    let work = move || report.send(Done::LookedUp(id, address::look_up(&name)));
    thread::Builder::new().name("lookup".to_owned()).spawn(work).map(drop)
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
