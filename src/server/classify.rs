//! Admission and classification of connections: servers and clients share one port.

use super::Server;
use super::connection::{Kind, Tunnel};
use super::kernel::{Kernel, Socket};
use super::sockets::Sockets;
use crate::frontend::{self, Text};
use crate::host::{Edges, Fail};
use crate::ids::SessionId;
use crate::limits::{HANDSHAKING_LINKS_MAX, OVERFLOW_PLACES, OVERFLOW_TIME};
use crate::node::Input;
use crate::protocol::{Code, Note, Reply, Words};
use crate::store::disk::Disk;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// The first byte of a link between servers. Any other first byte begins text.
pub const LINK_BYTE: u8 = 0;

/// How long a server accepts no connections after descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl<K: Kernel, D: Disk> Server<K, D> {
    /// Accepts every connection that waits at the listeners.
    pub fn on_listener(&mut self) {
        loop {
            match self.sockets.kernel.accept() {
                Ok((socket, from)) => self.sockets.admit(socket, from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Descriptors ran out. Waiting connections stay in the kernel's queue; trying
                    // again at once would spin.
                    self.sockets.warn(&format!("cannot accept connections: {error}"));
                    self.accept_again = Some(self.host.now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Reads the first byte of a connection.
    pub(super) fn read_unknown(&mut self, key: usize) -> Result<(), Fail> {
        let sockets = &mut self.sockets;
        if !sockets.read(key, sockets.buffer.len()) {
            return Ok(());
        }
        let connection = &mut sockets.table[key];
        let Kind::Unknown { over, from } = connection.kind else { return Ok(()) };
        if connection.input.first() == Some(&LINK_BYTE) {
            sockets.begin_handshake(key, from);
        } else if over {
            refuse_busy(&mut connection.socket);
            sockets.close(key);
        } else {
            let session = SessionId(connection.number(key));
            connection.kind = Kind::Client { session, text: Text::default() };
            sockets.table.set_deadline(key, None);
            sockets.table.list(key);
            self.handle(Input::Opened(session, from.into()))?;
        }
        Ok(())
    }
}

/// Counts the connections that are not authenticated links, and bounds them.
#[derive(Debug)]
pub(super) struct Places {
    /// Text clients, and connections that have sent nothing yet.
    pub(super) clients: usize,
    /// Connections that claim to be links and have not proved it yet.
    pub(super) handshakes: usize,
    clients_max: usize,
}

impl Places {
    pub(super) fn new(clients_max: usize) -> Places {
        Places { clients: 0, handshakes: 0, clients_max }
    }

    /// Whether all places for clients are in use. The few other places are for servers.
    fn is_full(&self) -> bool {
        self.clients >= self.clients_max
    }

    /// Whether a place beyond those for clients is free.
    fn has_overflow(&self, is_known: bool) -> bool {
        has_place(self.clients.saturating_sub(self.clients_max), OVERFLOW_PLACES, is_known)
    }

    /// Whether one more connection may claim to be a server.
    fn has_handshake(&self, is_known: bool) -> bool {
        has_place(self.handshakes, HANDSHAKING_LINKS_MAX, is_known)
    }
}

/// Whether one of `places` is free when `taken` are in use. Half of them are reserved for the
/// addresses of this group's servers, so that other machines can't keep them out.
fn has_place(taken: usize, places: usize, is_known: bool) -> bool {
    taken < if is_known { places } else { places / 2 }
}

impl<K: Kernel> Sockets<K> {
    fn admit(&mut self, mut socket: K::Socket, from: IpAddr) {
        let over = self.places.is_full();
        if over && !self.places.has_overflow(self.is_known(from)) {
            return refuse_busy(&mut socket);
        }
        if socket.set_options().is_err() {
            return;
        }
        if let Some(key) = self.insert(socket, Kind::Unknown { over, from }) {
            self.places.clients += 1;
            let time = if over { OVERFLOW_TIME } else { self.knows.login_timeout };
            self.table.set_deadline(key, Some(self.now + time));
            self.table.list(key);
        }
    }

    /// Closes a connection that has sent nothing for too long.
    pub(super) fn drop_silent(&mut self, key: usize, over: bool) {
        let socket = &mut self.table[key].socket;
        if over {
            refuse_busy(socket);
        } else {
            say_note(socket, Note::LoginTimeout);
        }
        self.close(key);
    }

    /// Whether a server of this group has this address.
    fn is_known(&self, from: IpAddr) -> bool {
        self.addresses.all().any(|address| address.ip().to_canonical() == from)
    }

    /// Begins the handshake of a connection that claims to be a server. It gets little time and few
    /// bytes for that.
    fn begin_handshake(&mut self, key: usize, from: IpAddr) {
        if !self.places.has_handshake(self.is_known(from)) {
            self.warn(&format!(
                "too many unauthenticated server connections; closed one from {from}"
            ));
            return self.close(key);
        }
        self.places.clients -= 1;
        self.places.handshakes += 1;
        let channel = self.kernel.responder(&self.knows.secret, self.knows.group);
        let connection = &mut self.table[key];
        connection.consume(1);
        connection.kind = Kind::Handshaking { from };
        connection.tunnel = Some(Tunnel::new(channel, Vec::new()));
        self.table.set_deadline(key, Some(self.now + self.knows.peer_timeout / 4));
        self.table.list(key);
    }
}

fn refuse_busy(socket: &mut impl Socket) {
    say(socket, Reply::Error(Code::Busy, Words::Text("too many connections; try again")));
}

/// Sends a note to a connection that has sent nothing.
pub(super) fn say_note(socket: &mut impl Socket, note: Note) {
    say(socket, Reply::Note(note));
}

/// Sends one line to a connection that was not admitted.
fn say(socket: &mut impl Socket, reply: Reply<'_>) {
    let mut line = Vec::new();
    frontend::encode(reply, &mut line);
    // Best effort: an empty socket buffer takes one line.
    let _ = socket.write(&line);
}
