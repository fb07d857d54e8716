//! Who is let in, and what it is: servers and clients come to one port, in any order and mixed.

use super::Server;
use super::channel::Channel;
use super::connection::{Kind, Reading, Tunnel};
use super::sockets::Sockets;
use crate::frontend::{self, Text};
use crate::host::{Edges, Fail};
use crate::ids::SessionId;
use crate::limits::{HANDSHAKING_LINKS_MAX, OVERFLOW_PLACES, OVERFLOW_TIME};
use crate::node::Input;
use crate::protocol::{Code, Note, Reply, Words};
use mio::net::TcpStream;
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
                    Ok((socket, from)) => {
                        self.sockets.admit(socket, from.ip().to_canonical());
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        // Out of descriptors: what waits goes on waiting; spinning helps nobody.
                        self.sockets.warn(&format!("cannot accept connections: {error}"));
                        self.accept_again = Some(self.host.now() + Duration::from_millis(100));
                        break;
                    }
                }
            }
        }
    }

    /// Reads the first byte of a connection.
    pub(super) fn read_unknown(&mut self, key: usize) -> Result<(), Fail> {
        let sockets = &mut self.sockets;
        let connection = &mut sockets.table[key];
        match connection.read(&mut sockets.buffer) {
            Reading::Drained => return Ok(()),
            Reading::More => {}
            Reading::Closed | Reading::Broken => {
                sockets.close(key);
                return Ok(());
            }
        }
        let Kind::Unknown { over, from } = connection.kind else { return Ok(()) };
        if connection.input.first() == Some(&LINK_BYTE) {
            sockets.begin_handshake(key, from);
        } else if over {
            refuse_busy(&connection.socket);
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

impl Sockets {
    fn admit(&mut self, socket: TcpStream, from: IpAddr) {
        let over = self.unauthenticated >= self.knows.max_clients;
        let taken = self.unauthenticated.saturating_sub(self.knows.max_clients);
        if over && !self.has_place(taken, OVERFLOW_PLACES, from) {
            return refuse_busy(&socket);
        }
        if prepare(&socket).is_err() {
            return;
        }
        if let Some(key) = self.insert(socket, Kind::Unknown { over, from }) {
            self.unauthenticated += 1;
            let time = if over { OVERFLOW_TIME } else { self.knows.login_timeout };
            self.table.set_deadline(key, Some(self.now + time));
            self.table.list(key);
        }
    }

    /// Closes a connection that has sent nothing for too long.
    pub(super) fn drop_silent(&mut self, key: usize, over: bool) {
        let socket = &self.table[key].socket;
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

    /// Who says to be a server gets little time and few bytes to prove it.
    fn begin_handshake(&mut self, key: usize, from: IpAddr) {
        if !self.has_place(self.handshaking, HANDSHAKING_LINKS_MAX, from) {
            self.warn(&format!("{from} says to be a server, as too many others do: closed"));
            return self.close(key);
        }
        self.unauthenticated -= 1;
        self.handshaking += 1;
        let channel = Channel::responder(&self.knows.secret, self.knows.group);
        let connection = &mut self.table[key];
        connection.consume(1);
        connection.kind = Kind::Handshaking { from };
        connection.tunnel = Some(Tunnel::new(channel, Vec::new()));
        self.table.set_deadline(key, Some(self.now + self.knows.peer_timeout / 4));
        self.table.list(key);
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
    say(socket, Reply::Error(Code::Busy, Words::Text("too many connections; try again")));
}

/// Says why to who has sent nothing.
pub(super) fn say_note(socket: &TcpStream, note: Note) {
    say(socket, Reply::Note(note));
}

/// Says one line to who has not been let in.
fn say(mut socket: &TcpStream, reply: Reply<'_>) {
    let mut line = Vec::new();
    frontend::encode(reply, &mut line);
    // Best effort: an empty socket buffer takes one line.
    let _ = socket.write(&line);
}
