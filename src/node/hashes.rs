//! Password jobs that wait for the thread that hashes: bounded, and fair to all addresses, so that
//! one that asks for hundreds keeps nobody else waiting.

use super::Job;
use crate::limits::{HASHES_AT_WORK, HASHES_MAX};
use crate::names::{Origin, SessionId};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// The jobs of each address, served in turns.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    /// No queue is empty.
    waiting: BTreeMap<Origin, VecDeque<Job>>,
    /// Of all queues together.
    count: usize,
    /// Whose turn was last.
    served: Option<Origin>,
    /// Jobs that the thread has.
    at_work: usize,
}

impl Hashes {
    /// Lets a job wait. Who has no place any more, this one or the newest of the address with the
    /// most, is given back.
    pub(super) fn push(&mut self, from: Origin, job: Job) -> Option<SessionId> {
        self.waiting.entry(from).or_default().push_back(job);
        self.count += 1;
        if self.count <= HASHES_MAX {
            return None;
        }
        let longest = self.waiting.iter().max_by_key(|(_, jobs)| jobs.len());
        let greediest = longest.map_or(from, |(origin, _)| *origin);
        self.take(greediest, VecDeque::pop_back).map(|job| job.session)
    }

    /// The next job for the thread, if it can use one.
    pub(super) fn next(&mut self) -> Option<Job> {
        if self.at_work >= HASHES_AT_WORK {
            return None;
        }
        let behind = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        let mut others = self.waiting.range((behind, Bound::Unbounded));
        let turn = others.next().or_else(|| self.waiting.first_key_value()).map(|(from, _)| *from);
        let job = turn.and_then(|from| self.take(from, VecDeque::pop_front))?;
        self.served = turn;
        self.at_work += 1;
        Some(job)
    }

    /// The thread is done with one.
    pub(super) fn on_done(&mut self) {
        self.at_work -= 1;
    }

    /// Nobody waits for the job of this session any more.
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
        }
        self.count -= 1;
        Some(job)
    }

    /// Whether nothing waits and nothing is at work.
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

    fn served(hashes: &mut Hashes) -> Vec<u64> {
        let next = || {
            let job = hashes.next()?;
            hashes.on_done();
            Some(job.session.0)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn addresses_take_turns() {
        let mut hashes = Hashes::default();
        for (from, session) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (3, 31)] {
            assert_eq!(hashes.push(origin(from), job(session)), None);
        }
        hashes.forget(origin(1), SessionId(11));
        hashes.forget(origin(9), SessionId(12));
        assert_eq!(served(&mut hashes), [10, 20, 30, 12, 31]);
        assert!(hashes.is_empty());
    }

    #[test]
    fn the_thread_has_few_at_a_time() {
        let mut hashes = Hashes::default();
        (0..5).for_each(|n| assert_eq!(hashes.push(origin(1), job(n)), None));
        (0..HASHES_AT_WORK).for_each(|_| assert!(hashes.next().is_some()));
        assert!(hashes.next().is_none());
        hashes.on_done();
        assert!(hashes.next().is_some());
    }

    #[test]
    fn who_asks_for_most_makes_room() {
        let mut hashes = Hashes::default();
        for n in 0..HASHES_MAX as u64 {
            assert_eq!(hashes.push(origin(1), job(n)), None);
        }
        let newest = HASHES_MAX as u64 - 1;
        assert_eq!(hashes.push(origin(2), job(1000)), Some(SessionId(newest)), "of the other");
        assert_eq!(hashes.push(origin(1), job(1001)), Some(SessionId(1001)), "its own");
        assert_eq!(hashes.count, HASHES_MAX);
        assert_eq!(served(&mut hashes)[..3], [0, 1000, 1]);
    }
}
