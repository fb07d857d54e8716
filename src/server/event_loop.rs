//! The event loop that ships: one poll for the listeners, all connections, signals, and the
//! threads that hash, index and look up.

use super::mio_kernel::MioKernel;
use super::threads::Done;
use super::{Fail, Ready, Server, Setup};
use crate::host::Host;
use crate::replica::Quarantine;
use crate::store::ServerDisk;
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

const SIGNALS: Token = Token(0);
const WAKER: Token = Token(1);
const STDIN: Token = Token(2);
const LISTENER: Token = Token(3);
/// The first token of a connection. A name may resolve to several addresses to listen on.
pub(super) const TOKENS_RESERVED: usize = 3 + LISTENERS_MAX;
const LISTENERS_MAX: usize = 8;
/// How long the last lines to clients may delay the end of the server.
const SHUTDOWN_TIME: Duration = Duration::from_millis(200);

/// The parts of a server beside its host.
#[derive(Debug)]
pub struct Parts {
    /// The sockets on which it listens, at least one.
    pub listeners: Vec<std::net::TcpListener>,
    /// What the server knows.
    pub setup: Setup,
    /// The server stops when its standard input ends.
    pub stop_with_stdin: bool,
    /// When its monotonic clock began, by [`boot_time`](super::boot_time).
    pub began: Duration,
}

/// A running server.
pub struct EventLoop {
    server: Server<MioKernel, ServerDisk>,
    signals: Signals,
}

impl EventLoop {
    /// Registers everything that the poll waits for.
    ///
    /// # Errors
    /// The poll, or a thread, can't be had.
    pub fn new(parts: Parts, host: Host<ServerDisk>) -> io::Result<EventLoop> {
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
        let disk = host.store().disk().clone();
        let kernel = MioKernel::new(poll, waker, listeners, parts.began, disk)?;
        Ok(EventLoop { server: Server::new(host, kernel, parts.setup), signals })
    }

    /// Runs until a signal stops the server, or until it must quarantine a part of its directory.
    /// Returns that part; the caller quarantines it and starts the server again.
    ///
    /// # Errors
    /// When it can't go on; nothing that was not durable was acknowledged.
    pub fn run(mut self) -> Result<Option<Quarantine>, Fail> {
        let mut events = Events::with_capacity(1024);
        while !self.server.is_stopped() {
            self.turn(&mut events)?;
            let quarantine = self.server.host().quarantine();
            if quarantine.is_some() {
                return Ok(quarantine);
            }
        }
        self.server.close()?;
        self.shut_down(&mut events)?;
        Ok(None)
    }

    /// Runs one turn: reads everything that is ready, syncs once, and sends the results.
    fn turn(&mut self, events: &mut Events) -> Result<(), Fail> {
        let now = self.server.read_clock();
        let timeout = if self.server.has_work() {
            Some(Duration::ZERO)
        } else {
            self.server.next_deadline().map(|at| at - now)
        };
        self.wait(events, timeout)?;
        self.server.begin_turn()?;
        for event in &*events {
            match event.token() {
                SIGNALS => self.on_signals()?,
                WAKER => self.on_woken()?,
                STDIN => self.on_stdin()?,
                Token(at) if at < TOKENS_RESERVED => self.server.on_listener(),
                Token(at) => {
                    let ready = Ready {
                        readable: event.is_readable(),
                        writable: event.is_writable(),
                        ended: event.is_read_closed() || event.is_error(),
                        urgent: event.is_priority(),
                    };
                    self.server.on_ready(at - TOKENS_RESERVED, ready)?;
                }
            }
        }
        self.server.finish_turn()
    }

    /// Waits until a source is ready.
    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> Result<(), Fail> {
        match self.server.kernel_mut().poll.poll(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(Fail::Io("waiting", error)),
            _ => Ok(()),
        }
    }

    fn on_signals(&mut self) -> Result<(), Fail> {
        for signal in self.signals.pending().collect::<Vec<_>>() {
            match signal {
                SIGHUP => log::info!("SIGHUP: there is nothing to reopen"),
                _ if self.server.is_stopping() => {
                    log::warn!("second signal: stopping at once");
                    log::logger().flush();
                    std::process::exit(1);
                }
                _ => self.server.stop()?,
            }
        }
        Ok(())
    }

    fn on_stdin(&mut self) -> Result<(), Fail> {
        // Nothing is written there. Its end means that the parent process has ended.
        match io::stdin().read(&mut [0; 64]) {
            Ok(count) if count > 0 => Ok(()),
            _ => self.server.stop(),
        }
    }

    /// Handles what the threads have done.
    fn on_woken(&mut self) -> Result<(), Fail> {
        while let Some(done) = self.server.kernel_mut().take_done() {
            match done {
                Done::Hashed(session, hashed) => self.server.on_hashed(session, hashed)?,
                Done::Made(made) => self.server.on_made(made)?,
                Done::LookedUp(id, found) => self.server.on_looked_up(id, found),
            }
        }
        Ok(())
    }

    /// Closes links, so that other servers react at once, and gives clients time to read.
    fn shut_down(&mut self, events: &mut Events) -> Result<(), Fail> {
        self.server.kernel_mut().listeners.clear();
        // The last sync may have taken longer than the shutdown may.
        let end = self.server.read_clock() + SHUTDOWN_TIME;
        self.server.close_connections();
        let mut now = self.server.read_clock();
        while self.server.is_lingering() && now < end {
            self.wait(events, Some(end - now))?;
            now = self.server.read_clock();
            self.server.read_all_lingering();
        }
        Ok(())
    }
}
