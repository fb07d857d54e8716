//! Buffers keep their memory while their connections are busy, and only then: nothing is allocated
//! for each message, and thousands of idle clients hold none.

use super::Server;
use crate::limits::{SPACE_TIME, WARM_CONNECTIONS_MAX};
use std::mem;

impl Server {
    /// A connection is busy. When too many are, the one that has been so for longest begins anew.
    pub(super) fn keep_warm(&mut self, key: usize) {
        let Some(connection) = self.sockets.table.get_mut(key) else { return };
        if mem::replace(&mut connection.warm, true) {
            return;
        }
        self.sockets.warm.push_back(key);
        if self.sockets.warm.len() > WARM_CONNECTIONS_MAX
            && let Some(oldest) = self.sockets.warm.pop_front()
        {
            self.cool_one(oldest);
        }
    }

    /// Every now and then: whoever is still busy is warm again with its next bytes.
    pub(super) fn cool(&mut self) {
        if self.sockets.cool_at > self.host.now() {
            return;
        }
        self.sockets.cool_at = self.host.now() + SPACE_TIME;
        while let Some(key) = self.sockets.warm.pop_front() {
            self.cool_one(key);
        }
        self.sockets.frame = Vec::new();
    }

    fn cool_one(&mut self, key: usize) {
        // It may be another one by now, which then is warm in vain or not at all.
        let Some(connection) = self.sockets.table.get_mut(key) else { return };
        connection.cool();
        if let Some(session) = connection.session() {
            self.host.cool(session);
        }
    }
}
