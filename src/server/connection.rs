//! A connection: its socket, its buffers and its state.

use super::channel::Broken;
use super::kernel::{Kernel, Seal};
use crate::frontend::Text;
use crate::ids::{LinkId, ServerId, SessionId};
use crate::limits::{CLIENT_KEPT_BYTES_MAX, LINK_KEPT_BYTES_MAX};
use crate::time::Moment;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

/// What is known about the other side.
#[derive(Debug)]
pub(super) enum Kind {
    /// It has sent nothing yet. `over`: it is beyond `max_clients`, in one of the places for
    /// servers.
    Unknown { over: bool, from: IpAddr },
    /// A text client.
    Client(SessionId),
    /// It claims to be a server, and has not proved yet that it knows the secret.
    Handshaking { from: IpAddr },
    /// Another server. `dialled`: this server dialled it; until its channel says so, it is not
    /// proved to be one.
    Link { link: LinkId, dialled: Option<ServerId> },
    /// A dial in progress, and the addresses to try after this one.
    Dialling { to: ServerId, rest: Vec<SocketAddr>, all_refused: bool },
    /// Everything was sent. Input is read and dropped, so that a TCP reset does not destroy the
    /// last lines on their way.
    Lingering,
}

/// A connection of any kind.
pub(super) struct Connection<K: Kernel> {
    pub(super) socket: K::Socket,
    pub(super) kind: Kind,
    /// Distinguishes this connection from an earlier one at the same place of the table.
    pub(super) serial: u32,
    /// Received bytes that are not consumed yet. An empty buffer holds no memory, unless the
    /// connection is busy.
    pub(super) input: Vec<u8>,
    /// The state of a text client's input.
    pub(super) text: Text,
    /// The encryption of a link. In a box, since most connections are clients.
    pub(super) tunnel: Option<Box<Tunnel<K::Channel>>>,
    /// The socket may have more to read: edge-triggered readiness is reported only once.
    pub(super) readable: bool,
    /// A short read does not prove that the socket is empty: the end of the stream or urgent data
    /// follows.
    pub(super) drain: bool,
    /// It is on the list of connections to read in this turn.
    pub(super) listed: bool,
    /// The other side sends no more, and everything that it sent was read.
    pub(super) input_closed: bool,
    /// The other side sends no more. Its last bytes may not have been read yet: a client's input is
    /// not read while its answers wait.
    pub(super) hung_up: bool,
    /// The socket accepted less than it was given.
    pub(super) blocked: bool,
    /// It is busy: empty buffers keep their memory.
    pub(super) warm: bool,
    /// The link is closed when its output is sent.
    pub(super) closing: bool,
    /// When the connection is closed unless something happens before.
    pub(super) deadline: Option<Moment>,
}

/// The encryption of a link, and its buffers.
#[derive(Debug)]
pub(super) struct Tunnel<C> {
    channel: C,
    /// Bytes that the channel has opened and nobody has consumed yet.
    pub(super) opened: Vec<u8>,
    /// Sealed bytes to send. The output of a client is kept by its session.
    output: Vec<u8>,
}

impl<C> Tunnel<C> {
    /// `output`: the first bytes that the channel sends.
    pub(super) fn new(channel: C, output: Vec<u8>) -> Box<Tunnel<C>> {
        Box::new(Tunnel { channel, opened: Vec::new(), output })
    }
}

/// The place in the table that is part of a connection's number.
pub(super) fn key_of(number: u64) -> usize {
    (number & 0xffff_ffff) as usize
}

impl<K: Kernel> Connection<K> {
    pub(super) fn new(socket: K::Socket, kind: Kind, serial: u32) -> Connection<K> {
        Connection {
            socket,
            kind,
            serial,
            input: Vec::new(),
            text: Text::default(),
            tunnel: None,
            readable: true,
            drain: false,
            listed: false,
            input_closed: false,
            hung_up: false,
            blocked: false,
            warm: false,
            closing: false,
            deadline: None,
        }
    }

    /// Returns the number of this connection, which is at place `key` of the table. It is never
    /// reused.
    pub(super) fn number(&self, key: usize) -> u64 {
        (u64::from(self.serial) << 32) | key as u64
    }

    /// The session, if this is a client's connection.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self.kind {
            Kind::Client(session) => Some(session),
            _ => None,
        }
    }

    /// Reads once by way of `buffer`, and appends the bytes to `input`. Returns whether there was
    /// something to read: bytes, or the end of the other side's direction.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let read = loop {
            match self.socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.readable = false;
        match read {
            Ok(0) => self.input_closed = true,
            Ok(count) => {
                // Bytes that arrive after a short read are a new edge (epoll(7)).
                self.readable = count == buffer.len() || self.drain;
                self.input.extend_from_slice(&buffer[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Removes the first `count` bytes of the input.
    pub(super) fn consume(&mut self, count: usize) {
        let kept = if self.warm { CLIENT_KEPT_BYTES_MAX } else { 0 };
        forget_front(&mut self.input, count, kept);
    }

    /// Frees the memory of empty buffers.
    pub(super) fn cool(&mut self) {
        self.warm = false;
        let of_link = self.tunnel.as_mut().map(|tunnel| [&mut tunnel.opened, &mut tunnel.output]);
        let buffers = of_link.into_iter().flatten().chain([&mut self.input]);
        for buffer in buffers.filter(|buffer| buffer.is_empty()) {
            *buffer = Vec::new();
        }
    }

    /// Opens the message of a link that begins after the first `used` bytes of the input. Returns
    /// its length, or 0 if it is incomplete.
    pub(super) fn open(&mut self, used: usize) -> Result<usize, Broken> {
        let Some(tunnel) = &mut self.tunnel else { return Ok(0) };
        tunnel.channel.open(&self.input[used..], &mut tunnel.opened, &mut tunnel.output)
    }

    /// Seals a frame and queues it on a link.
    pub(super) fn seal(&mut self, frame: &[u8]) {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.channel.seal(frame, &mut tunnel.output);
        }
    }

    /// Whether the other side of a link has proved that it knows the secret.
    pub(super) fn is_proven(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| tunnel.channel.is_proven())
    }

    /// Whether a link has bytes to send.
    pub(super) fn has_output(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| !tunnel.output.is_empty())
    }

    /// Drops the bytes that a link had to send.
    pub(super) fn drop_output(&mut self) {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.output = Vec::new();
        }
    }

    /// Sends the queued bytes of a link, as many as the socket accepts.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(mut tunnel) = self.tunnel.take() else { return Ok(()) };
        let sent = self.write(&tunnel.output);
        if let Ok(count) = sent {
            forget_front(&mut tunnel.output, count, LINK_KEPT_BYTES_MAX);
        }
        self.tunnel = Some(tunnel);
        sent.map(|_| ())
    }

    /// Sends the bytes that the front end owes the client, then the beginning of `output`, as much
    /// as the socket accepts; removes what was sent.
    pub(super) fn send(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
        let owed = self.write(self.text.owed())?;
        self.text.note_sent(owed);
        if self.blocked {
            return Ok(());
        }
        let done = self.write(output)?;
        forget_front(output, done, if self.warm { CLIENT_KEPT_BYTES_MAX } else { 0 });
        Ok(())
    }

    /// Writes as much as the socket accepts, and returns how much that was.
    fn write(&mut self, output: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        self.blocked = false;
        while done < output.len() {
            match self.socket.write(&output[done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Removes the first `count` bytes of a buffer. A buffer that is empty then keeps its memory only
/// if that is at most `kept` bytes.
pub(super) fn forget_front(buffer: &mut Vec<u8>, count: usize, kept: usize) {
    if count < buffer.len() {
        buffer.drain(..count);
    } else if buffer.capacity() > kept {
        *buffer = Vec::new();
    } else {
        buffer.clear();
    }
}
