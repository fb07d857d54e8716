//! Buffers keep their memory while their connections are busy, and only then: nothing is allocated
//! for each message, and thousands of idle clients hold none.

use super::Server;
use super::connection::Kind;
use crate::limits::WARM_CONNECTIONS_MAX;
use std::mem;

impl Server {
    /// A connection is busy. When too many are, the one that has been so for longest begins anew.
    pub(super) fn keep_warm(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if mem::replace(&mut connection.warm, true) {
            return;
        }
        self.warm.push_back(key);
        if self.warm.len() > WARM_CONNECTIONS_MAX
            && let Some(oldest) = self.warm.pop_front()
        {
            self.cool(oldest);
        }
    }

    /// Every now and then: whoever is still busy is warm again with its next bytes.
    pub(super) fn cool_all(&mut self) {
        while let Some(key) = self.warm.pop_front() {
            self.cool(key);
        }
        self.frame = Vec::new();
    }

    fn cool(&mut self, key: usize) {
        // It may be another one by now, which then is warm in vain or not at all.
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.cool();
        if let Kind::Client { session, .. } = connection.kind {
            self.node.cool(session);
        }
    }
}
