//! Admission and classification of connections: servers and clients share one port.

use super::Server;
use super::connection::{Kind, Tunnel};
use super::kernel::{Kernel, Socket};
use super::sockets::Sockets;
use crate::frontend;
use crate::host::{Edges, Fail};
use crate::ids::SessionId;
use crate::limits::{HANDSHAKING_LINKS_MAX, OVERFLOW_PLACES, OVERFLOW_TIME};
use crate::node::Input;
use crate::protocol::{Code, Note, Reply};
use crate::store::disk::Disk;
use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// The first byte of a link between servers. Any other first byte begins text.
pub const LINK_BYTE: u8 = 0;

/// How long a server accepts no connections after descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const BUSY: Reply<'_> = Reply::Error(Code::Busy, Cow::Borrowed("too many connections; try again"));

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
            say(&mut connection.socket, BUSY);
            sockets.close(key);
        } else {
            let session = SessionId(connection.number(key));
            connection.kind = Kind::Client(session);
            sockets.table.set_deadline(key, None);
            sockets.table.list(key);
            self.handle(Input::Opened(session, from.into()))?;
        }
        Ok(())
    }
}

impl<K: Kernel> Sockets<K> {
    fn admit(&mut self, mut socket: K::Socket, from: IpAddr) {
        let clients_max = self.setup.max_clients;
        // The few places beyond those for clients are for servers.
        let over = self.clients >= clients_max;
        if over && !self.has_place(self.clients - clients_max, OVERFLOW_PLACES, from) {
            return say(&mut socket, BUSY);
        }
        if let Some(key) = self.insert(socket, Kind::Unknown { over, from }) {
            self.clients += 1;
            let time = if over { OVERFLOW_TIME } else { self.login_timeout };
            self.table.set_deadline(key, Some(self.now + time));
            self.table.list(key);
        }
    }

    /// Closes a connection that has sent nothing for too long.
    pub(super) fn drop_silent(&mut self, key: usize, over: bool) {
        let why = if over { BUSY } else { Reply::Note(Note::LoginTimeout) };
        say(&mut self.table[key].socket, why);
        self.close(key);
    }

    /// Whether one of `places` is free for a connection from this address when `taken` are in use.
    /// Half of them are reserved for the addresses of this group's servers, so that other machines
    /// can't keep them out.
    fn has_place(&self, taken: usize, places: usize, from: IpAddr) -> bool {
        let is_known = self.addresses.all().any(|address| address.ip().to_canonical() == from);
        taken < if is_known { places } else { places / 2 }
    }

    /// Begins the handshake of a connection that claims to be a server. It gets little time and few
    /// bytes for that.
    fn begin_handshake(&mut self, key: usize, from: IpAddr) {
        if !self.has_place(self.handshakes, HANDSHAKING_LINKS_MAX, from) {
            self.warn(&format!(
                "too many unauthenticated server connections; closed one from {from}"
            ));
            return self.close(key);
        }
        self.clients -= 1;
        self.handshakes += 1;
        let channel = self.kernel.responder(&self.setup.secret, self.setup.group);
        let connection = &mut self.table[key];
        connection.consume(1);
        connection.kind = Kind::Handshaking { from };
        connection.tunnel = Some(Tunnel::new(channel, Vec::new()));
        self.table.set_deadline(key, Some(self.now + self.peer_timeout / 4));
        self.table.list(key);
    }
}

/// Sends one line to a connection that was not admitted.
pub(super) fn say(socket: &mut impl Socket, reply: Reply<'_>) {
    let mut line = Vec::new();
    frontend::encode(reply, &mut line);
    // Best effort: an empty socket buffer takes one line.
    let _ = socket.write(&line);
}
