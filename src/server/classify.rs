//! Who is let in, and what it is: servers and clients come to one port, in any order and mixed.

use super::channel::Channel;
use super::client::Cut;
use super::connection::{Connection, Kind, Reading, Tunnel};
use super::{Server, TOKENS_RESERVED};
use crate::limits::{OVERFLOW_PLACES, OVERFLOW_TIME, UNPROVEN_LINKS_MAX};
use crate::protocol::{self, Code, Note};
use mio::net::TcpStream;
use mio::{Interest, Token};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

/// The first byte of a link between servers; everything else is text.
pub(super) const LINK_BYTE: u8 = 0;

/// How long a connection without traffic is trusted before the kernel asks, and how it asks.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

impl Server {
    /// Takes every connection that waits at the listeners.
    pub(super) fn accept(&mut self) {
        for at in 0..self.listeners.len() {
            loop {
                match self.listeners[at].accept() {
                    Ok((socket, from)) => self.admit(socket, from.ip().to_canonical()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        // Out of descriptors: what waits goes on waiting; spinning helps nobody.
                        self.warn(&format!("cannot accept connections: {error}"));
                        self.accept_again = Some(self.now + Duration::from_millis(100));
                        break;
                    }
                }
            }
        }
    }

    fn admit(&mut self, socket: TcpStream, from: IpAddr) {
        let over = self.strangers >= self.max_clients;
        let taken = self.strangers.saturating_sub(self.max_clients);
        if over && !self.has_place(taken, OVERFLOW_PLACES, from) {
            return refuse_busy(&socket);
        }
        if prepare(&socket).is_err() {
            return;
        }
        if let Some(key) = self.insert(socket, Kind::Unknown { over, from }) {
            self.strangers += 1;
            let time = if over { OVERFLOW_TIME } else { self.node.login_timeout() };
            self.set_deadline(key, Some(self.now + time));
            self.list(key);
        }
    }

    /// Closes a connection that has sent nothing for too long.
    pub(super) fn drop_silent(&mut self, key: usize, over: bool) {
        let socket = &self.connections[key].socket;
        if over {
            refuse_busy(socket);
        } else {
            say_note(socket, Note::LoginTimeout);
        }
        self.close(key);
    }

    /// Whether one more may come to the `taken` of so many places. One half of them is for the
    /// addresses of this group's servers: others can't keep them out.
    fn has_place(&self, taken: usize, places: usize, from: IpAddr) -> bool {
        let is_known = self.addresses.all().any(|address| address.ip().to_canonical() == from);
        taken < if is_known { places } else { places / 2 }
    }

    /// Registers a connection and gives it a place in the table.
    pub(super) fn insert(&mut self, mut socket: TcpStream, kind: Kind) -> Option<usize> {
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let token = Token(key + TOKENS_RESERVED);
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        if let Err(error) = self.poll.registry().register(&mut socket, token, interest) {
            log::warn!("can't watch a connection: {error}");
            return None;
        }
        self.serial = self.serial.wrapping_add(1);
        entry.insert(Connection::new(socket, kind, self.serial));
        Some(key)
    }

    /// Who says to be a server gets little time and few bytes to prove it.
    fn begin_proof(&mut self, key: usize, from: IpAddr) {
        if !self.has_place(self.unproven, UNPROVEN_LINKS_MAX, from) {
            self.warn(&format!("{from} says to be a server, as too many others do: closed"));
            return self.close(key);
        }
        self.strangers -= 1;
        self.unproven += 1;
        let channel = Channel::responder(&self.secret, self.group);
        let connection = &mut self.connections[key];
        connection.consume(1);
        connection.kind = Kind::Unproven { from };
        connection.tunnel = Some(Tunnel::new(channel, Vec::new()));
        self.set_deadline(key, Some(self.now + self.node.replica().silence() / 4));
        self.list(key);
    }

    /// Looks at the first byte of a connection.
    pub(super) fn read_unknown(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        match connection.read(&mut self.buffer) {
            Reading::Drained => return,
            Reading::More => {}
            Reading::Closed | Reading::Broken => return self.close(key),
        }
        let Kind::Unknown { over, from } = connection.kind else { return };
        let id = connection.number(key);
        if connection.input.first() == Some(&LINK_BYTE) {
            self.begin_proof(key, from);
        } else if over {
            refuse_busy(&self.connections[key].socket);
            self.close(key);
        } else {
            let session = crate::names::SessionId(id);
            connection.kind = Kind::Client { session, cut: Cut::default() };
            self.set_deadline(key, None);
            self.client_opened(key, session, from);
        }
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    // A telnet client's data mark is urgent. The kernel must not take it out of its place.
    SockRef::from(socket).set_out_of_band_inline(true)?;
    let (time, interval, retries) = KEEPALIVE;
    let keepalive =
        TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

fn refuse_busy(socket: &TcpStream) {
    say(socket, |line| protocol::error(line, Code::Busy, "too many connections; try again"));
}

/// Says why to who has sent nothing.
pub(super) fn say_note(socket: &TcpStream, note: Note) {
    say(socket, |line| protocol::note(line, note));
}

/// Says one line to who has not been let in.
fn say(mut socket: &TcpStream, write: impl FnOnce(&mut Vec<u8>)) {
    let mut line = Vec::new();
    write(&mut line);
    // Best effort: an empty socket buffer takes one line.
    let _ = socket.write(&line);
}
