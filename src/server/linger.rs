//! The end of connections, such that clients can read the last lines sent to them.

use super::connection::Kind;
use super::kernel::{Kernel, Socket};
use super::sockets::Sockets;
use super::{Server, classify};
use crate::ids::SessionId;
use crate::node::Input;
use crate::protocol::{Note, Reply};
use crate::store::disk::Disk;
use std::time::Duration;

/// How long a client may still send after the last line to it.
const LINGER_TIME: Duration = Duration::from_secs(1);

impl<K: Kernel, D: Disk> Server<K, D> {
    /// Closes all connections but those of clients that may still read their last lines.
    pub fn close_connections(&mut self) {
        let table = &mut self.sockets.table;
        for key in table.places(|kind| !matches!(kind, Kind::Lingering)) {
            if let Some(mut connection) = table.remove(key)
                && let Kind::Unknown { over: false, .. } = connection.kind
            {
                classify::say(&mut connection.socket, Reply::Note(Note::Stopping));
            }
        }
    }

    /// Returns whether there is a connection left.
    pub fn is_lingering(&self) -> bool {
        self.sockets.table.len() > 0
    }

    /// Reads and drops what clients still send.
    pub fn read_all_lingering(&mut self) {
        for key in self.sockets.table.places(|_| true) {
            self.sockets.read_lingering(key);
        }
    }
}

impl<K: Kernel> Sockets<K> {
    /// Ends the connection of a client such that it can read the last lines.
    pub(super) fn linger(&mut self, session: SessionId) {
        let Some((key, client)) = self.client(session) else { return };
        let shut = client.socket.shut_down_write();
        client.kind = Kind::Lingering;
        client.input = Vec::new();
        let is_over = shut.is_err() || client.input_closed;
        self.gone.push_back(Input::Gone(session));
        if is_over {
            return self.close(key);
        }
        self.table.set_deadline(key, Some(self.now + LINGER_TIME));
        self.table.list(key);
    }

    /// Reads and drops what a client still sends after the last line to it.
    pub(super) fn read_lingering(&mut self, key: usize) {
        if self.read(key, self.buffer.len()) {
            self.table[key].input = Vec::new();
            self.table.list(key);
        }
    }
}
