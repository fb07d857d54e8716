//! The end of a connection, and of the server: whoever was told something last gets to read it.

use super::connection::{Connection, Kind, Reading};
use super::{Fail, Server, classify};
use crate::node::Input;
use crate::protocol::Note;
use mio::Events;
use signal_hook::consts::SIGHUP;
use std::io::{self, Read};
use std::time::Duration;

/// How long a client may still send after our last words.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How long that may hold up the end of the server.
const FAREWELL_TIME: Duration = Duration::from_millis(200);

impl Server {
    pub(super) fn on_signals(&mut self) -> Result<(), Fail> {
        for signal in self.signals.pending().collect::<Vec<_>>() {
            match signal {
                SIGHUP => log::info!("SIGHUP: there is nothing to reopen"),
                _ if self.stopping => {
                    log::warn!("a second signal: ends at once");
                    log::logger().flush();
                    std::process::exit(1);
                }
                _ => self.stop()?,
            }
        }
        Ok(())
    }

    pub(super) fn on_stdin(&mut self) -> Result<(), Fail> {
        // Nobody writes there: it only tells when the parent is gone.
        match io::stdin().read(&mut [0; 64]) {
            Ok(count) if count > 0 => Ok(()),
            _ => self.stop(),
        }
    }

    fn stop(&mut self) -> Result<(), Fail> {
        log::info!("stopping: what is taken is finished");
        self.stopping = true;
        self.tell(Input::Stop)
    }

    /// Ends a client's connection so that it gets to read our last words.
    pub(super) fn linger(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Kind::Client { session, .. } = connection.kind {
            self.tell_or_fail(Input::Gone(session));
        }
        let deadline = self.now + LINGER_TIME;
        let Some(connection) = self.connections.get_mut(key) else { return };
        let shut = connection.socket.shutdown(std::net::Shutdown::Write);
        connection.kind = Kind::Lingering;
        connection.input = Vec::new();
        if shut.is_err() || connection.input_closed {
            return self.close(key);
        }
        self.set_deadline(key, Some(deadline));
        self.list(key);
    }

    /// Throws away what still comes after our last words.
    pub(super) fn read_lingering(&mut self, key: usize) {
        let connection: &mut Connection = &mut self.connections[key];
        let reading = connection.read(&mut self.buffer);
        connection.input = Vec::new();
        match reading {
            Reading::More => self.list(key),
            Reading::Drained => {}
            Reading::Closed | Reading::Broken => self.close(key),
        }
    }

    /// Lets the others act, and clients read our last words.
    pub(super) fn say_farewell(&mut self, events: &mut Events) -> Result<(), Fail> {
        self.listeners.clear();
        self.look_at_clock(); // the last sync may have taken longer than the farewell may
        let links: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| !matches!(connection.kind, Kind::Lingering))
            .map(|(key, _)| key)
            .collect();
        for key in links {
            let connection = self.connections.remove(key);
            if let Kind::Unknown { over: false, .. } = connection.kind {
                classify::say_note(&connection.socket, Note::Stopping);
            }
        }
        let end = self.now + FAREWELL_TIME;
        while !self.connections.is_empty() && self.now < end {
            let left = end - self.now;
            match self.poll.poll(events, Some(left)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                polled => polled.map_err(|error| Fail::Io("waiting", error))?,
            }
            self.look_at_clock();
            let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
            for key in keys {
                self.read_lingering(key);
            }
        }
        Ok(())
    }
}
