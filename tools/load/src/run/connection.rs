//! One client of the load, with its connection when it has one.

use super::dialect::Dialect;
use super::ledger::Nanos;
use super::receiver::{Pace, Receiver};
use super::sender::{Sender, Shared};
use super::wire::{Wire, code};
use mio::{Registry, Token};
use std::net::SocketAddr;
use std::rc::Rc;

/// Makes the dialect of a new connection.
pub(crate) type MakeDialect = Rc<dyn Fn() -> Box<dyn Dialect>>;

/// What a client does.
pub(crate) enum Role {
    /// It asks.
    Sender(Sender, MakeDialect),
    /// It reads a mailbox.
    Receiver(Receiver),
}

/// A client.
pub(crate) struct Connection {
    /// Which clients it belongs to.
    pub(crate) part: usize,
    /// What it does.
    pub(crate) role: Role,
    /// The server that it is connected to, or will try next, by its place in the list.
    pub(crate) server: usize,
    /// How often it has tried since it was let in.
    pub(crate) attempts: usize,
    /// Whether it was let in.
    pub(crate) is_ready: bool,
    /// Whether its reconnect storm is not yet over.
    pub(crate) in_storm: bool,
    wire: Option<Wire>,
    /// When something was last heard, or a first request was sent.
    lively: Nanos,
}

impl Connection {
    /// A client without a connection.
    pub(crate) fn new(part: usize, role: Role, server: usize) -> Connection {
        Connection {
            part,
            role,
            server,
            attempts: 0,
            is_ready: false,
            in_storm: false,
            wire: None,
            lively: 0,
        }
    }

    /// Begins to connect, and to greet.
    pub(crate) fn dial(
        &mut self,
        address: SocketAddr,
        registry: &Registry,
        token: Token,
        shared: &mut Shared,
    ) -> Result<(), String> {
        self.attempts += 1;
        self.lively = shared.now;
        let mut wire = Wire::dial(address, registry, token).map_err(|error| code(&error))?;
        match &mut self.role {
            Role::Sender(sender, make) => sender.greet(make(), &mut wire.output),
            Role::Receiver(receiver) => receiver.greet(&mut wire.output),
        }
        wire.flush()?;
        self.wire = Some(wire);
        Ok(())
    }

    /// Whether there is a connection, or one that begins.
    pub(crate) fn has_wire(&self) -> bool {
        self.wire.is_some()
    }

    /// Reads what is there, at most `most` bytes, asks what may be asked, and sends it.
    pub(crate) fn visit(
        &mut self,
        scratch: &mut [u8],
        mut most: usize,
        is_closed: bool,
        shared: &mut Shared,
    ) -> Result<(), String> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        let limit = scratch.len();
        while most > 0 {
            let read = wire.read(scratch, most, |input, out| match &mut self.role {
                Role::Sender(sender, _) => sender.take(input, out, shared),
                Role::Receiver(receiver) => receiver.take(input, shared),
            });
            let Some(read) = read? else { break };
            self.lively = shared.now;
            most = most.saturating_sub(read);
            // Less than there was room for: nothing is left, and more is told of.
            if read < limit / 2 && !is_closed {
                break;
            }
        }
        self.is_ready |= shared.news.is_ready;
        self.ask(shared)
    }

    /// Asks what may be asked, and sends it.
    pub(crate) fn ask(&mut self, shared: &mut Shared) -> Result<(), String> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        if let Role::Sender(sender, _) = &mut self.role {
            if !sender.waits() && self.is_ready {
                self.lively = shared.now;
            }
            sender.ask(&mut wire.output, shared);
        }
        wire.flush()
    }

    /// Nothing is owed to it from this time on.
    pub(crate) fn rest(&mut self, now: Nanos) {
        self.lively = now;
    }

    /// Closes what there is.
    pub(crate) fn close(&mut self, shared: &mut Shared) {
        (self.wire, self.is_ready) = (None, false);
        match &mut self.role {
            Role::Sender(sender, _) => sender.lose(shared),
            Role::Receiver(receiver) => receiver.lose(),
        }
    }

    /// Whether something that must come has not come since then.
    pub(crate) fn is_overdue(&self, since: Nanos) -> bool {
        let awaits = match &self.role {
            Role::Sender(sender, _) => sender.waits() || !self.is_ready,
            // A long mailbox is shown before LOGIN is answered; a slow reader waits for himself.
            Role::Receiver(receiver) => !self.is_ready && !matches!(receiver.pace, Pace::Slow(_)),
        };
        self.wire.is_some() && awaits && self.lively < since
    }

    /// Whether a request has no answer yet.
    pub(crate) fn is_behind(&self) -> bool {
        matches!(&self.role, Role::Sender(sender, _) if sender.is_behind())
    }

    /// Whether nothing is awaited on this very connection.
    pub(crate) fn may_leave(&self) -> bool {
        !matches!(&self.role, Role::Sender(sender, _) if sender.waits())
    }

    /// How many bytes are read when the server has sent something.
    pub(crate) fn appetite(&self) -> usize {
        match &self.role {
            Role::Receiver(Receiver { pace: Pace::Slow(_), is_ready: false, .. }) => usize::MAX,
            Role::Receiver(Receiver { pace: Pace::Slow(_), .. }) => 0,
            _ => usize::MAX,
        }
    }
}
