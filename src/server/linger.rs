//! The end of connections and of the server, such that clients can read the last lines sent to
//! them.

use super::connection::{Connection, Kind, Reading};
use super::sockets::Sockets;
use super::{Fail, Server, classify};
use crate::host::Gone;
use crate::ids::SessionId;
use crate::node::Input;
use crate::protocol::Note;
use mio::Events;
use signal_hook::consts::SIGHUP;
use std::io::{self, Read};
use std::time::Duration;

/// How long a client may still send after the last line to it.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How long that may delay the end of the server.
const SHUTDOWN_TIME: Duration = Duration::from_millis(200);

impl Server {
    pub(super) fn on_signals(&mut self) -> Result<(), Fail> {
        for signal in self.signals.pending().collect::<Vec<_>>() {
            match signal {
                SIGHUP => log::info!("SIGHUP: there is nothing to reopen"),
                _ if self.stopping => {
                    log::warn!("second signal: stopping at once");
                    log::logger().flush();
                    std::process::exit(1);
                }
                _ => self.stop()?,
            }
        }
        Ok(())
    }

    pub(super) fn on_stdin(&mut self) -> Result<(), Fail> {
        // Nothing is written there. Its end means that the parent process has ended.
        match io::stdin().read(&mut [0; 64]) {
            Ok(count) if count > 0 => Ok(()),
            _ => self.stop(),
        }
    }

    fn stop(&mut self) -> Result<(), Fail> {
        log::info!("stopping: requests in progress are finished");
        self.stopping = true;
        self.handle(Input::Stop)
    }

    /// Closes links, so that other servers react at once, and gives clients time to read.
    pub(super) fn shut_down(&mut self, events: &mut Events) -> Result<(), Fail> {
        self.listeners.clear();
        let sockets = &mut self.sockets;
        // The last sync may have taken longer than the shutdown may.
        self.host.read_clock(sockets);
        for key in sockets.table.places(|kind| !matches!(kind, Kind::Lingering)) {
            if let Some(connection) = sockets.table.remove(key)
                && let Kind::Unknown { over: false, .. } = connection.kind
            {
                classify::say_note(&connection.socket, Note::Stopping);
            }
        }
        let end = self.host.now() + SHUTDOWN_TIME;
        while sockets.table.len() > 0 && self.host.now() < end {
            let left = end - self.host.now();
            match sockets.poll.poll(events, Some(left)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                polled => polled.map_err(|error| Fail::Io("waiting", error))?,
            }
            self.host.read_clock(sockets);
            for key in sockets.table.places(|_| true) {
                sockets.read_lingering(key);
            }
        }
        Ok(())
    }
}

impl Sockets {
    /// Ends the connection of a client such that it can read the last lines.
    pub(super) fn linger(&mut self, session: SessionId) {
        let Some((key, client)) = self.client(session) else { return };
        let shut = client.socket.shutdown(std::net::Shutdown::Write);
        client.kind = Kind::Lingering;
        client.input = Vec::new();
        let is_over = shut.is_err() || client.input_closed;
        self.note_gone(Gone::Client(session));
        if is_over {
            return self.close(key);
        }
        self.table.set_deadline(key, Some(self.now + LINGER_TIME));
        self.table.list(key);
    }

    /// Reads and drops what a client still sends after the last line to it.
    pub(super) fn read_lingering(&mut self, key: usize) {
        let connection: &mut Connection = &mut self.table[key];
        let reading = connection.read(&mut self.buffer);
        connection.input = Vec::new();
        match reading {
            Reading::More => self.table.list(key),
            Reading::Drained => {}
            Reading::Closed | Reading::Broken => self.close(key),
        }
    }
}
