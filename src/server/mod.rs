//! One thread, one poll, one readiness set for the listener, clients, unclassified connections and
//! peers together.
//!
//! A [`Server`] is the table of connections around a host: it classifies connections, dials,
//! authenticates and encrypts links, and keeps deadlines and bounds. It is generic over the calls
//! to the kernel ([`Kernel`]), so that a simulator runs all of it. The kernel that ships is
//! [`EventLoop`]: mio, signals, the clock, and the threads that hash passwords, read and make files
//! and look up names.

mod addresses;
mod buffer_pool;
pub mod channel;
mod classify;
mod client;
mod connection;
mod dial;
mod event_loop;
mod frame;
mod kernel;
mod linger;
mod link;
mod log_limiter;
mod mio_kernel;
pub mod operator_client;
mod process_stats;
mod sockets;
mod table;
mod threads;

pub use crate::host::Fail;
use crate::host::Host;
use crate::ids::{GroupId, Secret, ServerId, SessionId};
use crate::node::{Hashed, Input};
use crate::replica::Event;
use crate::store::disk::Disk;
use crate::store::{JobDone, JobError};
use crate::time::Moment;
pub use addresses::Found;
pub use classify::LINK_BYTE;
use connection::Kind;
pub use event_loop::{EventLoop, Parts};
pub use frame::{LENGTH_BYTES, begin_frame, end_frame, next_frame};
pub use kernel::{Kernel, Ready, Seal, Socket};
pub use process_stats::boot_time;
use sockets::Sockets;
use std::net::SocketAddr;

/// What a server knows beside its host and its kernel.
#[derive(Debug)]
pub struct Setup {
    /// `host:port` of each server, by id.
    pub names: Vec<String>,
    /// The addresses at which this server listens.
    pub listens: Vec<SocketAddr>,
    /// The group. With the secret, its servers authenticate each other.
    pub group: GroupId,
    /// See [`Setup::group`].
    pub secret: Secret,
    /// The highest number of text clients.
    pub max_clients: usize,
}

/// A server: a host, and its connections.
///
/// A turn: [`begin_turn`](Server::begin_turn), then what the kernel reports
/// ([`on_ready`](Server::on_ready), [`on_listener`](Server::on_listener),
/// [`on_hashed`](Server::on_hashed), [`on_made`](Server::on_made),
/// [`on_looked_up`](Server::on_looked_up), [`stop`](Server::stop)), then
/// [`finish_turn`](Server::finish_turn) or its three parts.
pub struct Server<K: Kernel, D: Disk> {
    host: Host<D>,
    sockets: Sockets<K>,
    /// When to accept connections again after descriptors ran out.
    accept_again: Option<Moment>,
    stopping: bool,
}

impl<K: Kernel, D: Disk> Server<K, D> {
    /// Creates a server without connections.
    pub fn new(host: Host<D>, kernel: K, setup: Setup) -> Server<K, D> {
        let sockets = Sockets::new(kernel, setup, host.node());
        Server { host, sockets, accept_again: None, stopping: false }
    }

    /// Returns the host.
    pub fn host(&self) -> &Host<D> {
        &self.host
    }

    /// Returns the kernel.
    pub fn kernel(&self) -> &K {
        &self.sockets.kernel
    }

    /// Returns the kernel.
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.sockets.kernel
    }

    /// Returns the session on the socket with this number, if it is that of a text client.
    pub fn session(&self, number: usize) -> Option<SessionId> {
        self.sockets.table.get(number)?.session()
    }

    /// Returns whether the next turn has work even if no socket is ready.
    pub fn has_work(&self) -> bool {
        self.sockets.has_work()
    }

    /// Returns when the next turn is wanted, at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        [self.host.next_deadline(), self.sockets.next_deadline(), self.accept_again]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns whether this server was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Returns whether this server was told to stop, and everything that it accepted before is
    /// answered.
    pub fn is_stopped(&self) -> bool {
        self.stopping && self.host.is_stopped()
    }

    /// Reads the clocks outside of a turn, and returns the monotonic time.
    pub fn read_clock(&mut self) -> Moment {
        self.host.read_clock(&mut self.sockets);
        self.host.now()
    }

    /// See [`Host::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(&mut self) -> Result<(), Fail> {
        self.host.close()
    }

    /// Begins a turn.
    ///
    /// # Errors
    /// As [`Host::handle`].
    pub fn begin_turn(&mut self) -> Result<(), Fail> {
        self.host.begin_turn(&mut self.sockets)
    }

    /// Handles the readiness of the socket with this number.
    ///
    /// # Errors
    /// As [`Host::handle`].
    pub fn on_ready(&mut self, key: usize, ready: Ready) -> Result<(), Fail> {
        let Some(connection) = self.sockets.table.get_mut(key) else { return Ok(()) };
        connection.drain |= ready.ended || ready.urgent;
        connection.hung_up |= ready.ended;
        if let Kind::Dialling { .. } = connection.kind {
            return self.dial_decided(key, false);
        }
        let readable = ready.readable || ready.ended;
        connection.readable |= readable;
        // A client that has hung up gets a deadline for the rest of its output.
        let writable = ready.writable || ready.ended;
        let session = connection.session();
        let is_link = matches!(connection.kind, Kind::Link { .. } | Kind::Handshaking { .. });
        if readable {
            self.sockets.table.list(key);
        }
        match session {
            Some(session) if writable => self.host.flush_client(session, &mut self.sockets)?,
            None if writable && is_link => self.sockets.flush_link(key),
            _ => {}
        }
        Ok(())
    }

    /// Handles the result of [`Kernel::hash`].
    ///
    /// # Errors
    /// As [`Host::handle`].
    pub fn on_hashed(&mut self, session: SessionId, hashed: Hashed) -> Result<(), Fail> {
        self.handle(Input::Hashed(session, hashed))
    }

    /// See [`Host::corrupt`].
    #[cfg(feature = "simulate")]
    pub fn corrupt(&mut self) {
        self.host.corrupt();
    }

    /// Handles the result of [`Kernel::make`].
    ///
    /// # Errors
    /// The disk has failed.
    pub fn on_made(&mut self, made: Result<JobDone, JobError>) -> Result<(), Fail> {
        self.host.on_made(made)
    }

    /// Handles the result of [`Kernel::look_up`].
    pub fn on_looked_up(&mut self, id: ServerId, found: Found) {
        self.sockets.store_addresses(id, found);
    }

    /// Begins to stop: requests in progress are finished, and the others learn of it.
    ///
    /// # Errors
    /// As [`Host::handle`].
    pub fn stop(&mut self) -> Result<(), Fail> {
        log::info!("stopping: requests in progress are finished");
        self.stopping = true;
        self.handle(Input::Stop)
    }

    /// Reads everything that is ready, acts on deadlines, and sends frames to the other servers.
    /// Returns whether [`store_all`](Server::store_all) must follow.
    ///
    /// # Errors
    /// As [`Host::handle`].
    pub fn submit(&mut self) -> Result<bool, Fail> {
        self.free_buffers();
        self.read_ready()?;
        self.expire()?;
        self.host.submit(&mut self.sockets)
    }

    /// See [`Host::store_all`].
    ///
    /// # Errors
    /// As there.
    pub fn store_all(&mut self) -> Result<(), Fail> {
        self.host.store_all(&mut self.sockets)
    }

    /// See [`Host::flush`].
    ///
    /// # Errors
    /// As there.
    pub fn flush(&mut self) -> Result<(), Fail> {
        self.host.flush(&mut self.sockets)
    }

    /// Ends a turn: the last three methods.
    ///
    /// # Errors
    /// As [`Host::handle`] and [`Host::store_all`].
    pub fn finish_turn(&mut self) -> Result<(), Fail> {
        if self.submit()? {
            self.store_all()?;
        }
        self.flush()
    }

    fn read_ready(&mut self) -> Result<(), Fail> {
        for key in self.sockets.table.take_listed() {
            let Some(connection) = self.sockets.table.unlist(key) else { continue };
            match connection.kind {
                Kind::Unknown { .. } => self.read_unknown(key)?,
                Kind::Client(session) => self.read_client(key, session)?,
                Kind::Handshaking { from } => self.read_handshaking(key, from)?,
                Kind::Link { link, .. } => self.read_link(key, link)?,
                Kind::Lingering => self.sockets.read_lingering(key),
                Kind::Dialling { .. } => {}
            }
        }
        Ok(())
    }

    fn expire(&mut self) -> Result<(), Fail> {
        for (to, why) in self.sockets.take_failed_dials() {
            self.handle(Input::Replica(Event::DialFailed { to, why }))?;
            self.report_failed_dial(to);
        }
        while let Some(key) = self.sockets.table.expired(self.host.now()) {
            match self.sockets.table[key].kind {
                Kind::Dialling { .. } => self.dial_decided(key, true)?,
                Kind::Handshaking { from } => {
                    self.sockets.drop_handshaking(key, from, "took too long");
                }
                Kind::Unknown { over, .. } => self.sockets.drop_silent(key, over),
                _ => self.sockets.close(key),
            }
        }
        if self.accept_again.is_some_and(|at| at <= self.host.now()) {
            self.accept_again = None;
            self.on_listener();
        }
        Ok(())
    }

    fn handle(&mut self, input: Input<'_>) -> Result<(), Fail> {
        self.host.handle(input, &mut self.sockets)
    }
}
