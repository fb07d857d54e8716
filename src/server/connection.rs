//! A socket: bytes in, bytes out, and what the shell remembers of it.

use super::channel::{Broken, Channel};
use crate::frontend::Text;
use crate::ids::{LinkId, ServerId, SessionId};
use crate::limits::{CLIENT_KEPT_BYTES_MAX, LINK_KEPT_BYTES_MAX};
use crate::time::Moment;
use mio::net::TcpStream;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

/// What is known of who is at the other end.
#[derive(Debug)]
pub(super) enum Kind {
    /// It has sent nothing yet. `over`: beyond `max_clients`, in one of the places kept for peers.
    Unknown { over: bool, from: IpAddr },
    /// A text client.
    Client { session: SessionId, text: Text },
    /// It says to be a server, and has not proved yet that it knows the secret.
    Handshaking { from: IpAddr },
    /// Another server; `dialled`: by us, and not proved to be one before its channel says so.
    Link { link: LinkId, dialled: Option<ServerId> },
    /// A dial under way, and the addresses to try after this one.
    Dialling { to: ServerId, rest: Vec<SocketAddr>, all_refused: bool },
    /// All is said: what still comes is thrown away, so that a reset does not overtake our last
    /// words.
    Lingering,
}

/// A connection of any kind.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) kind: Kind,
    /// Tells this connection from an earlier one in the same place of the table.
    pub(super) serial: u32,
    /// What came in and was not taken yet; no memory is held when it is empty.
    pub(super) input: Vec<u8>,
    /// What a link has and others have not; apart, for there may be many of those.
    pub(super) tunnel: Option<Box<Tunnel>>,
    /// The socket may have more to read; edge-triggered readiness says so only once.
    pub(super) readable: bool,
    /// A read that takes less than it might does not say that the socket is empty: the end of the
    /// stream follows, or it stopped at urgent data.
    pub(super) drain: bool,
    /// It is on the list of connections to look at in this turn.
    pub(super) listed: bool,
    /// The other side will send no more, and all that it sent was read.
    pub(super) input_closed: bool,
    /// The other side will send no more. What it sent may not have been read yet: a client's input
    /// is not read while its answers wait.
    pub(super) hung_up: bool,
    /// The socket took less than it was given.
    pub(super) blocked: bool,
    /// Empty buffers keep their memory.
    pub(super) warm: bool,
    /// Close when `output` is sent.
    pub(super) closing: bool,
    /// When something must have happened.
    pub(super) deadline: Option<Moment>,
}

/// What makes a link authentic and secret.
#[derive(Debug)]
pub(super) struct Tunnel {
    channel: Channel,
    /// What the channel has opened and was not taken yet.
    pub(super) opened: Vec<u8>,
    /// What is to be sent, sealed. A client's output is kept by its session.
    output: Vec<u8>,
}

impl Tunnel {
    /// `output`: what the channel has begun with.
    pub(super) fn new(channel: Channel, output: Vec<u8>) -> Box<Tunnel> {
        Box::new(Tunnel { channel, opened: Vec::new(), output })
    }
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The bound was reached; there may be more.
    More,
    /// There is nothing more now.
    Drained,
    /// The other side has closed its direction.
    Closed,
    /// The connection is broken.
    Broken,
}

/// The place in the table that a connection's number speaks of.
pub(super) fn key_of(number: u64) -> usize {
    (number & 0xffff_ffff) as usize
}

impl Connection {
    pub(super) fn new(socket: TcpStream, kind: Kind, serial: u32) -> Connection {
        Connection {
            socket,
            kind,
            serial,
            input: Vec::new(),
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

    /// A number for this connection in place `key` of the table that is never used again.
    pub(super) fn number(&self, key: usize) -> u64 {
        (u64::from(self.serial) << 32) | key as u64
    }

    /// The session of a client.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self.kind {
            Kind::Client { session, .. } => Some(session),
            _ => None,
        }
    }

    /// Reads once into `buffer`, and adds what came to `input`.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Reading {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => {
                    self.readable = false;
                    self.input_closed = true;
                    return Reading::Closed;
                }
                Ok(count) => {
                    // What comes after a short read is a new edge (epoll(7)).
                    self.readable = count == buffer.len() || self.drain;
                    self.input.extend_from_slice(&buffer[..count]);
                    return Reading::More;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Reading::Drained;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.readable = false;
                    return Reading::Broken;
                }
            }
        }
    }

    /// Forgets the first `count` bytes of the input.
    pub(super) fn consume(&mut self, count: usize) {
        let kept = if self.warm { CLIENT_KEPT_BYTES_MAX } else { 0 };
        forget_front(&mut self.input, count, kept);
    }

    /// Gives back the memory of what is empty.
    pub(super) fn cool(&mut self) {
        self.warm = false;
        let of_link = self.tunnel.as_mut().map(|tunnel| [&mut tunnel.opened, &mut tunnel.output]);
        let buffers = of_link.into_iter().flatten().chain([&mut self.input]);
        for buffer in buffers.filter(|buffer| buffer.is_empty()) {
            *buffer = Vec::new();
        }
    }

    /// Opens the message of a link that lies behind the first `used` bytes of the input; gives its
    /// length, or 0 when not all of it is here.
    pub(super) fn open(&mut self, used: usize) -> Result<usize, Broken> {
        let Some(tunnel) = &mut self.tunnel else { return Ok(0) };
        tunnel.channel.open(&self.input[used..], &mut tunnel.opened, &mut tunnel.output)
    }

    /// Queues a frame of a link.
    pub(super) fn seal(&mut self, frame: &[u8]) {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.channel.seal(frame, &mut tunnel.output);
        }
    }

    /// Whether the other side of a link has proved to know the secret.
    pub(super) fn is_proven(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| tunnel.channel.is_proven())
    }

    /// Whether a link has something to send.
    pub(super) fn has_output(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| !tunnel.output.is_empty())
    }

    /// Forgets what a link had to send.
    pub(super) fn drop_output(&mut self) {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.output = Vec::new();
        }
    }

    /// Sends what a link has to send.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(mut tunnel) = self.tunnel.take() else { return Ok(()) };
        let sent = self.write(&tunnel.output);
        if let Ok(count) = sent {
            forget_front(&mut tunnel.output, count, LINK_KEPT_BYTES_MAX);
        }
        self.tunnel = Some(tunnel);
        sent.map(|_| ())
    }

    /// Sends from the front of `output` what the socket takes, after what the front end owes the
    /// client.
    pub(super) fn send(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
        if let Kind::Client { text, .. } = &self.kind
            && !text.owed().is_empty()
        {
            let sent = self.write(text.owed())?;
            if let Kind::Client { text, .. } = &mut self.kind {
                text.note_sent(sent);
            }
            if self.blocked {
                return Ok(());
            }
        }
        let done = self.write(output)?;
        forget_front(output, done, if self.warm { CLIENT_KEPT_BYTES_MAX } else { 0 });
        Ok(())
    }

    /// Writes what the socket takes, and says how much that was.
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

/// Forgets the first `count` bytes of a buffer. When it is empty then, it keeps up to `kept` bytes
/// of memory for the next ones.
pub(super) fn forget_front(buffer: &mut Vec<u8>, count: usize, kept: usize) {
    if count < buffer.len() {
        buffer.drain(..count);
    } else if buffer.capacity() > kept {
        *buffer = Vec::new();
    } else {
        buffer.clear();
    }
}
