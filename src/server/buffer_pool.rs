//! Which connections keep the memory of their empty buffers: the busy ones. So nothing is allocated
//! for each message, and thousands of idle clients hold no buffers.

use super::Server;
use super::kernel::Kernel;
use crate::limits::{SPACE_TIME, WARM_CONNECTIONS_MAX};
use crate::store::disk::Disk;
use crate::time::Moment;
use std::collections::VecDeque;
use std::mem;

/// The connections that keep their buffers.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    /// Their places in the table, oldest first; at most [`WARM_CONNECTIONS_MAX`]. A place may hold
    /// another connection by now.
    warm: VecDeque<usize>,
    /// When all of them give their buffers back. A connection that is still busy keeps the next.
    cool_at: Moment,
}

impl BufferPool {
    /// Adds a connection; returns the oldest one if there are too many.
    fn add(&mut self, key: usize) -> Option<usize> {
        self.warm.push_back(key);
        (self.warm.len() > WARM_CONNECTIONS_MAX).then(|| self.warm.pop_front()).flatten()
    }

    /// All connections, once a second.
    fn take_due(&mut self, now: Moment) -> Option<VecDeque<usize>> {
        if self.cool_at > now {
            return None;
        }
        self.cool_at = now + SPACE_TIME;
        Some(mem::take(&mut self.warm))
    }
}

impl<K: Kernel, D: Disk> Server<K, D> {
    /// Lets a busy connection keep its buffers.
    pub(super) fn keep_buffers(&mut self, key: usize) {
        let Some(connection) = self.sockets.table.get_mut(key) else { return };
        if mem::replace(&mut connection.warm, true) {
            return;
        }
        if let Some(oldest) = self.sockets.pool.add(key) {
            self.free_buffers_of(oldest);
        }
    }

    /// Frees the empty buffers of all connections, once a second.
    pub(super) fn free_buffers(&mut self) {
        let Some(warm) = self.sockets.pool.take_due(self.host.now()) else { return };
        for key in warm {
            self.free_buffers_of(key);
        }
        self.sockets.frame = Vec::new();
    }

    fn free_buffers_of(&mut self, key: usize) {
        let Some(connection) = self.sockets.table.get_mut(key) else { return };
        connection.cool();
        if let Some(session) = connection.session() {
            self.host.cool(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_its_buffers_back_and_all_do_once_a_second() {
        let mut pool = BufferPool::default();
        assert_eq!(pool.take_due(Moment(0)), Some(VecDeque::new()));
        for key in 0..WARM_CONNECTIONS_MAX {
            assert_eq!(pool.add(key), None);
        }
        assert_eq!(pool.add(9_999), Some(0));
        let second = Moment(0) + SPACE_TIME;
        assert_eq!(pool.take_due(Moment(second.0 - 1)), None);
        let all = pool.take_due(second).unwrap();
        assert_eq!((all.len(), all.back()), (WARM_CONNECTIONS_MAX, Some(&9_999)));
        assert_eq!(pool.take_due(second + SPACE_TIME), Some(VecDeque::new()));
    }
}
