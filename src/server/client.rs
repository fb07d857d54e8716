//! The connections of text clients: input to the front end, answers to the socket.

use super::Server;
use super::kernel::Kernel;
use super::sockets::Sockets;
use crate::host::Fail;
use crate::ids::SessionId;
use crate::limits::{READ_BYTES_PER_TURN, SLOW_TIME};
use crate::store::disk::Disk;

/// Bytes read at a time from a client: small, for each may leave a part of them unconsumed.
const READ_BYTES: usize = 16 * 1024;

impl<K: Kernel, D: Disk> Server<K, D> {
    /// Reads from a client and passes its requests to the node, within the bounds of a turn.
    pub(super) fn read_client(&mut self, key: usize, session: SessionId) -> Result<(), Fail> {
        self.keep_buffers(key);
        let mut budget = READ_BYTES_PER_TURN / READ_BYTES;
        loop {
            self.feed(key, session)?;
            let sockets = &mut self.sockets;
            let Some(connection) = sockets.table.get_mut(key) else { return Ok(()) };
            if !connection.readable || !self.host.node().wants_line(session) {
                return Ok(());
            }
            if budget == 0 {
                sockets.table.list(key);
                return Ok(());
            }
            budget -= 1;
            if !sockets.read(key, READ_BYTES) {
                return Ok(());
            }
        }
    }

    /// Passes the buffered requests to the node, as long as the session accepts them.
    fn feed(&mut self, key: usize, session: SessionId) -> Result<(), Fail> {
        let Some(connection) = self.sockets.table.get_mut(key) else { return Ok(()) };
        let mut text = connection.text;
        let input = std::mem::take(&mut connection.input);
        let closed = connection.input_closed;
        let used = self.host.feed(session, &mut text, &input, closed, &mut self.sockets)?;
        if let Some((_, client)) = self.sockets.client(session) {
            client.text = text;
            client.input = input;
            client.consume(used);
        }
        Ok(())
    }
}

impl<K: Kernel> Sockets<K> {
    /// Sends the beginning of `output` to a client, as much as its socket accepts, and removes
    /// that. Returns whether the socket was full before.
    pub(super) fn write_to_client(
        &mut self,
        session: SessionId,
        output: &mut Vec<u8>,
        must_read: bool,
    ) -> bool {
        if output.is_empty() {
            return false;
        }
        let Some((key, client)) = self.client(session) else { return false };
        let was_blocked = client.blocked;
        let before = output.len();
        if client.send(output).is_err() {
            self.close(key);
            return was_blocked;
        }
        let (sent, left) = (output.len() < before, !output.is_empty());
        let limited = must_read || client.hung_up || client.input_closed;
        if !left || !limited {
            self.table.set_deadline(key, None);
        } else if sent || client.deadline.is_none() {
            let patience = self.login_timeout.min(SLOW_TIME);
            self.table.set_deadline(key, Some(self.now + patience));
        }
        was_blocked
    }
}
