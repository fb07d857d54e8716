//! Queues the password jobs for the hashing thread. The queue is bounded and fair to all
//! addresses, so that an address with hundreds of jobs does not delay the others.

use super::Job;
use crate::ids::{Origin, SessionId};
use crate::limits::{HASHES_AT_WORK, HASHES_MAX};
use std::collections::{BTreeMap, VecDeque};

/// The jobs of each address, served round-robin.
#[derive(Debug, Default)]
pub(super) struct HashQueue {
    /// The queue of each address that has jobs. No queue is empty.
    waiting: BTreeMap<Origin, VecDeque<Job>>,
    /// The addresses that have jobs, each once. An address goes to the end when it gets its first
    /// job and whenever it was served.
    turns: VecDeque<Origin>,
    /// The number of jobs in all queues together.
    count: usize,
    /// The number of jobs at the hashing thread.
    at_work: usize,
}

impl HashQueue {
    /// Queues a job. If the queue is full, removes the newest job of the address with the most
    /// jobs, which may be this one, and returns its session.
    pub(super) fn push(&mut self, from: Origin, job: Job) -> Option<SessionId> {
        let jobs = self.waiting.entry(from).or_default();
        if jobs.is_empty() {
            self.turns.push_back(from);
        }
        jobs.push_back(job);
        self.count += 1;
        if self.count <= HASHES_MAX {
            return None;
        }
        // Operators know the secret and keep their places. Among equals, the address of the new
        // job loses.
        let others = self.waiting.iter().filter(|(origin, _)| **origin != Origin::OPERATOR);
        let longest = others.max_by_key(|(origin, jobs)| (jobs.len(), **origin == from));
        let greediest = longest.map_or(from, |(origin, _)| *origin);
        self.take(greediest, VecDeque::pop_back).map(|job| job.session)
    }

    /// Returns the next job for the thread, if the thread can use one.
    pub(super) fn next(&mut self) -> Option<Job> {
        if self.at_work >= HASHES_AT_WORK {
            return None;
        }
        let turn = *self.turns.front()?;
        let job = self.take(turn, VecDeque::pop_front)?;
        if self.waiting.contains_key(&turn) {
            self.turns.rotate_left(1);
        }
        self.at_work += 1;
        Some(job)
    }

    /// Notes that the thread has finished a job.
    pub(super) fn on_done(&mut self) {
        self.at_work -= 1;
    }

    /// Removes the queued job of this session, which no longer waits for it.
    pub(super) fn forget(&mut self, from: Origin, session: SessionId) {
        self.take(from, |jobs| {
            let at = jobs.iter().position(|job| job.session == session)?;
            jobs.remove(at)
        });
    }

    fn take(
        &mut self,
        from: Origin,
        which: impl FnOnce(&mut VecDeque<Job>) -> Option<Job>,
    ) -> Option<Job> {
        let jobs = self.waiting.get_mut(&from)?;
        let job = which(jobs)?;
        if jobs.is_empty() {
            self.waiting.remove(&from);
            self.turns.retain(|origin| *origin != from);
        }
        self.count -= 1;
        Some(job)
    }

    /// Returns whether no job waits and none is at the thread.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && self.at_work == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn origin(n: u8) -> Origin {
        Origin::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, n)))
    }

    fn job(session: u64) -> Job {
        Job { session: SessionId(session), password: String::new(), against: None }
    }

    fn served(hash_queue: &mut HashQueue) -> Vec<u64> {
        let next = || {
            let job = hash_queue.next()?;
            hash_queue.on_done();
            Some(job.session.0)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn addresses_take_turns() {
        let mut hash_queue = HashQueue::default();
        for (from, session) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (3, 31)] {
            assert_eq!(hash_queue.push(origin(from), job(session)), None);
        }
        hash_queue.forget(origin(1), SessionId(11));
        hash_queue.forget(origin(9), SessionId(12));
        assert_eq!(served(&mut hash_queue), [10, 20, 30, 12, 31]);
        assert!(hash_queue.is_empty());
    }

    #[test]
    fn who_waits_is_not_overtaken_by_those_who_come_later() {
        let mut hash_queue = HashQueue::default();
        assert_eq!(hash_queue.push(origin(9), job(9)), None);
        let mut turns = 0;
        while hash_queue.next().is_some_and(|job| job.session != SessionId(9)) {
            hash_queue.on_done();
            hash_queue.push(origin(turns % 8), job(100));
            turns += 1;
            assert!(turns < 10, "it starves");
        }
    }

    #[test]
    fn among_equals_the_last_one_finds_no_place() {
        let mut hash_queue = HashQueue::default();
        assert_eq!(hash_queue.push(Origin::OPERATOR, job(1000)), None);
        for n in 1..HASHES_MAX {
            assert_eq!(hash_queue.push(origin(n as u8), job(n as u64)), None);
        }
        assert_eq!(hash_queue.push(origin(0), job(2000)), Some(SessionId(2000)));
        let operators = hash_queue.push(Origin::OPERATOR, job(1001));
        assert!(operators.is_some_and(|session| session.0 < 1000), "{operators:?}");
    }

    #[test]
    fn the_thread_has_few_at_a_time() {
        let mut hash_queue = HashQueue::default();
        (0..5).for_each(|n| assert_eq!(hash_queue.push(origin(1), job(n)), None));
        (0..HASHES_AT_WORK).for_each(|_| assert!(hash_queue.next().is_some()));
        assert!(hash_queue.next().is_none());
        hash_queue.on_done();
        assert!(hash_queue.next().is_some());
    }

    #[test]
    fn who_asks_for_most_makes_room() {
        let mut hash_queue = HashQueue::default();
        for n in 0..HASHES_MAX as u64 {
            assert_eq!(hash_queue.push(origin(1), job(n)), None);
        }
        let newest = HASHES_MAX as u64 - 1;
        assert_eq!(hash_queue.push(origin(2), job(1000)), Some(SessionId(newest)), "of the other");
        assert_eq!(hash_queue.push(origin(1), job(1001)), Some(SessionId(1001)), "its own");
        assert_eq!(hash_queue.count, HASHES_MAX);
        assert_eq!(served(&mut hash_queue)[..3], [0, 1000, 1]);
    }
}
