//! One client of the load, with its connection if it has one.

use super::counts::Nanos;
use super::load::MakeProtocol;
use super::receiver::{Pace, Receiver};
use super::sender::{Sender, Shared};
use super::socket::{Socket, code};
use mio::{Registry, Token};
use std::net::SocketAddr;

/// What a client does.
pub(crate) enum Role {
    Sender(Sender, MakeProtocol),
    Receiver(Receiver),
}

/// A client.
pub(crate) struct Connection {
    /// The index of its part.
    pub(crate) part: usize,
    pub(crate) role: Role,
    /// The index of the server that it is connected to, or tries next.
    pub(crate) server: usize,
    /// Attempts to connect since the last login.
    pub(crate) attempts: usize,
    pub(crate) is_logged_in: bool,
    /// Whether it was closed by a reconnect storm and is not yet logged in again.
    pub(crate) in_storm: bool,
    socket: Option<Socket>,
    /// When the last byte arrived, or the first outstanding request was sent.
    pub(crate) last_activity: Nanos,
}

impl Connection {
    /// Creates a client without a connection.
    pub(crate) fn new(part: usize, role: Role, server: usize) -> Connection {
        Connection {
            part,
            role,
            server,
            attempts: 0,
            is_logged_in: false,
            in_storm: false,
            socket: None,
            last_activity: 0,
        }
    }

    /// Begins to connect and to log in.
    pub(crate) fn dial(
        &mut self,
        address: SocketAddr,
        registry: &Registry,
        token: Token,
        shared: &mut Shared,
    ) -> Result<(), String> {
        self.attempts += 1;
        self.last_activity = shared.now;
        let mut socket = Socket::dial(address, registry, token).map_err(|error| code(&error))?;
        match &mut self.role {
            Role::Sender(sender, make) => sender.open(make(), &mut socket.output),
            Role::Receiver(receiver) => receiver.open(&mut socket.output),
        }
        socket.flush()?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Returns whether a connection exists or is being made.
    pub(crate) fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// Reads at most `most` bytes, and sends the requests that may be sent then.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        mut most: usize,
        is_closed: bool,
        shared: &mut Shared,
    ) -> Result<(), String> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        let limit = scratch.len();
        while most > 0 {
            let read = socket.read(scratch, most, |input, out| match &mut self.role {
                Role::Sender(sender, _) => sender.parse(input, out, shared),
                Role::Receiver(receiver) => receiver.parse(input, shared),
            });
            let Some(read) = read? else { break };
            self.last_activity = shared.now;
            most = most.saturating_sub(read);
            // After a short read the socket is empty, and the next bytes raise a new event.
            if read < limit / 2 && !is_closed {
                break;
            }
        }
        self.is_logged_in |= shared.news.is_ready;
        self.send(shared)
    }

    /// Sends the requests that may be sent now.
    pub(crate) fn send(&mut self, shared: &mut Shared) -> Result<(), String> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        if let Role::Sender(sender, _) = &mut self.role {
            if !sender.has_outstanding() && self.is_logged_in {
                self.last_activity = shared.now;
            }
            sender.send(&mut socket.output, shared);
        }
        socket.flush()
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self, shared: &mut Shared) {
        (self.socket, self.is_logged_in) = (None, false);
        match &mut self.role {
            Role::Sender(sender, _) => sender.lose(shared),
            Role::Receiver(receiver) => receiver.is_ready = false,
        }
    }

    /// Returns whether an expected answer has not arrived since `since`.
    pub(crate) fn is_overdue(&self, since: Nanos) -> bool {
        let expects = match &self.role {
            Role::Sender(sender, _) => sender.has_outstanding() || !self.is_logged_in,
            // The contents of a long mailbox precede the answer to LOGIN, and a slow reader delays
            // it itself.
            Role::Receiver(receiver) => {
                !self.is_logged_in && !matches!(receiver.pace, Pace::Slow(_))
            }
        };
        self.socket.is_some() && expects && self.last_activity < since
    }

    /// Returns whether a request has no answer on this connection.
    pub(crate) fn has_outstanding(&self) -> bool {
        matches!(&self.role, Role::Sender(sender, _) if sender.has_outstanding())
    }

    /// Returns how many bytes may be read at an event.
    pub(crate) fn read_limit(&self) -> usize {
        match &self.role {
            Role::Receiver(Receiver { pace: Pace::Slow(_), is_ready: true, .. }) => 0,
            _ => usize::MAX,
        }
    }
}
