//! The edges that ship: sockets, signals, the clock and the thread that hashes passwords. One
//! thread, one poll, one readiness set for the listener, clients, unclassified connections and
//! peers together.

mod addresses;
mod buffer_pool;
pub mod channel;
mod classify;
mod client;
mod connection;
mod dial;
mod frame;
mod hasher;
mod link;
mod log_limiter;
pub mod operator_client;
mod process_stats;
mod shutdown;
mod sockets;
mod table;

pub use crate::host::Fail;
use crate::host::Host;
use crate::ids::{GroupId, Secret};
use crate::node::Input;
use crate::replica::{Event, Quarantine};
use crate::store::ServerDisk;
use crate::time::Moment;
use connection::Kind;
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
pub use process_stats::boot_time;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use sockets::Sockets;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

const SIGNALS: Token = Token(0);
const WAKER: Token = Token(1);
const STDIN: Token = Token(2);
const LISTENER: Token = Token(3);
/// The first token of a connection. A name may resolve to several addresses to listen on.
const TOKENS_RESERVED: usize = 3 + LISTENERS_MAX;
const LISTENERS_MAX: usize = 8;

/// How a server ended. Its directory is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to stop.
    Stopped,
    /// It restarts after this part of the directory is quarantined.
    Quarantine(Quarantine),
}

/// The parts of a server beside its host.
#[derive(Debug)]
pub struct Parts {
    /// The sockets on which it listens, at least one.
    pub listeners: Vec<std::net::TcpListener>,
    /// `host:port` of each server, by id.
    pub names: Vec<String>,
    /// The group. With the secret, its servers authenticate each other.
    pub group: GroupId,
    /// See [`Parts::group`].
    pub secret: Secret,
    /// The highest number of text clients.
    pub max_clients: usize,
    /// The server stops when its standard input ends.
    pub stop_with_stdin: bool,
    /// When its monotonic clock began, by [`boot_time`].
    pub began: Duration,
}

/// A running server.
pub struct Server {
    host: Host<ServerDisk>,
    sockets: Sockets,
    signals: Signals,
    listeners: Vec<TcpListener>,
    /// When to accept connections again after file descriptors ran out.
    accept_again: Option<Moment>,
    stopping: bool,
}

impl Server {
    /// Creates the edges around a host.
    pub fn new(parts: Parts, host: Host<ServerDisk>) -> io::Result<Server> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        registry.register(&mut signals, SIGNALS, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(registry, WAKER)?);
        let mut listeners = Vec::new();
        for listener in parts.listeners.into_iter().take(LISTENERS_MAX) {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            let token = Token(LISTENER.0 + listeners.len());
            registry.register(&mut listener, token, Interest::READABLE)?;
            listeners.push(listener);
        }
        if parts.stop_with_stdin {
            let stdin = io::stdin().as_raw_fd();
            registry.register(&mut SourceFd(&stdin), STDIN, Interest::READABLE)?;
        }
        let listens = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let knows = sockets::Setup {
            me: host.node().replica().me().id,
            names: parts.names,
            listens,
            group: parts.group,
            secret: parts.secret,
            max_clients: parts.max_clients,
            began: parts.began,
            peer_timeout: host.node().replica().peer_timeout(),
            login_timeout: host.node().login_timeout(),
        };
        Ok(Server {
            host,
            sockets: Sockets::new(poll, waker, knows)?,
            signals,
            listeners,
            accept_again: None,
            stopping: false,
        })
    }

    /// Runs until a signal stops it.
    ///
    /// # Errors
    /// When it can't go on; nothing that was not durable was acknowledged.
    pub fn run(mut self) -> Result<Ending, Fail> {
        let mut events = Events::with_capacity(1024);
        while !(self.stopping && self.host.is_stopped()) {
            self.turn(&mut events)?;
            if let Some(quarantine) = self.host.quarantine() {
                return Ok(Ending::Quarantine(quarantine));
            }
        }
        self.host.close()?;
        self.shut_down(&mut events)?;
        Ok(Ending::Stopped)
    }

    /// Runs one turn: reads everything that is ready, syncs once, and sends the results.
    fn turn(&mut self, events: &mut Events) -> Result<(), Fail> {
        self.wait(events)?;
        self.host.begin_turn(&mut self.sockets)?;
        self.note_ready(events)?;
        self.free_buffers();
        self.read_ready()?;
        self.expire()?;
        self.host.finish_turn(&mut self.sockets)
    }

    /// Waits until a source is ready, or for the next deadline.
    fn wait(&mut self, events: &mut Events) -> Result<(), Fail> {
        self.host.read_clock(&mut self.sockets);
        let timeout = if self.sockets.has_work() {
            Some(Duration::ZERO)
        } else {
            let deadlines =
                [self.host.next_deadline(), self.sockets.next_deadline(), self.accept_again];
            deadlines.into_iter().flatten().min().map(|at| at - self.host.now())
        };
        match self.sockets.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(Fail::Io("waiting", error))
            }
            _ => Ok(()),
        }
    }

    fn note_ready(&mut self, events: &Events) -> Result<(), Fail> {
        for event in events {
            match event.token() {
                SIGNALS => self.on_signals()?,
                WAKER => self.on_woken()?,
                STDIN => self.on_stdin()?,
                Token(at) if at < TOKENS_RESERVED => self.accept(),
                Token(at) => self.on_ready(at - TOKENS_RESERVED, event)?,
            }
        }
        Ok(())
    }

    fn on_ready(&mut self, key: usize, event: &mio::event::Event) -> Result<(), Fail> {
        let Some(connection) = self.sockets.table.get_mut(key) else { return Ok(()) };
        let ended = event.is_read_closed() || event.is_error();
        connection.drain |= ended || event.is_priority();
        connection.hung_up |= ended;
        if let Kind::Dialling { .. } = connection.kind {
            return self.dial_decided(key, false);
        }
        let readable = event.is_readable() || ended;
        connection.readable |= readable;
        // A client that has hung up gets a deadline for the rest of its output.
        let writable = event.is_writable() || ended;
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

    /// Handles hashed passwords and results of look-ups.
    fn on_woken(&mut self) -> Result<(), Fail> {
        self.sockets.take_addresses();
        while let Some((session, hashed)) = self.sockets.take_hash() {
            self.handle(Input::Hashed(session, hashed))?;
        }
        Ok(())
    }

    fn read_ready(&mut self) -> Result<(), Fail> {
        for key in self.sockets.table.take_listed() {
            let Some(connection) = self.sockets.table.unlist(key) else { continue };
            match connection.kind {
                Kind::Unknown { .. } => self.read_unknown(key)?,
                Kind::Client { session, .. } => self.read_client(key, session)?,
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
            self.accept();
        }
        Ok(())
    }

    fn handle(&mut self, input: Input<'_>) -> Result<(), Fail> {
        self.host.handle(input, &mut self.sockets)
    }
}
