//! The edges of a host: connections over sockets, and what a kernel does.

use super::Setup;
use super::addresses::Addresses;
use super::buffer_pool::BufferPool;
use super::connection::{Connection, Kind, forget_front, key_of};
use super::frame::{begin_frame, end_frame};
use super::kernel::Kernel;
use super::log_limiter::LogLimiter;
use super::table::Table;
use crate::host::Edges;
use crate::ids::{Index, LinkId, ServerId, SessionId};
use crate::limits::{FILE_PIECE_BYTES, LINK_KEPT_BYTES_MAX};
use crate::node::{Gauges, Input, Job, Node};
use crate::replica::{Closing, DialFailure, Event, Packet};
use crate::store::FileJob;
use crate::time::{Moment, WallTime};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::time::Duration;

/// The edges of a server.
pub(super) struct Sockets<K: Kernel> {
    pub(super) kernel: K,
    pub(super) table: Table<K>,
    pub(super) setup: Setup,
    /// This server.
    pub(super) me: ServerId,
    pub(super) peer_timeout: Duration,
    pub(super) login_timeout: Duration,
    /// The time of the last reading of the clock.
    pub(super) now: Moment,
    pub(super) addresses: Addresses,
    /// The number of text clients, and of connections that have sent nothing yet.
    pub(super) clients: usize,
    /// The number of connections that claim to be links and have not proved it yet.
    pub(super) handshakes: usize,
    /// Links with bytes to send.
    pub(super) dirty: Vec<usize>,
    pub(super) failed_dials: Vec<(ServerId, DialFailure)>,
    /// Connections that have ended, to be reported to the host.
    pub(super) gone: VecDeque<Input<'static>>,
    pub(super) pool: BufferPool,
    log_limiter: LogLimiter,
    /// The buffer for one read from a socket.
    pub(super) buffer: Vec<u8>,
    /// The buffer for a frame before it is sealed.
    pub(super) frame: Vec<u8>,
}

impl<K: Kernel> Sockets<K> {
    /// No connections yet.
    pub(super) fn new(kernel: K, setup: Setup, node: &Node) -> Sockets<K> {
        Sockets {
            kernel,
            table: Table::default(),
            me: node.replica().me().id,
            peer_timeout: node.replica().peer_timeout(),
            login_timeout: node.login_timeout(),
            now: Moment(0),
            addresses: Addresses::new(&setup.names),
            setup,
            clients: 0,
            handshakes: 0,
            dirty: Vec::new(),
            failed_dials: Vec::new(),
            gone: VecDeque::new(),
            pool: BufferPool::default(),
            log_limiter: LogLimiter::default(),
            buffer: vec![0; FILE_PIECE_BYTES / 4],
            frame: Vec::new(),
        }
    }

    /// Whether the next turn has work even if no socket is ready.
    pub(super) fn has_work(&self) -> bool {
        self.table.has_listed() || !self.failed_dials.is_empty()
    }

    /// The next deadline of a connection.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.table.next_deadline()
    }

    pub(super) fn take_failed_dials(&mut self) -> Vec<(ServerId, DialFailure)> {
        mem::take(&mut self.failed_dials)
    }

    /// Registers a connection and gives it a place in the table.
    pub(super) fn insert(&mut self, mut socket: K::Socket, kind: Kind) -> Option<usize> {
        if let Err(error) = self.kernel.register(&mut socket, self.table.next_place()) {
            log::warn!("can't watch a connection: {error}");
            return None;
        }
        Some(self.table.insert(socket, kind))
    }

    /// Returns the connection of a session, and its place in the table.
    pub(super) fn client(&mut self, session: SessionId) -> Option<(usize, &mut Connection<K>)> {
        let key = key_of(session.0);
        let connection = self.table.get_mut(key).filter(|c| c.session() == Some(session))?;
        Some((key, connection))
    }

    /// Reads at most `max` bytes from a connection. Returns whether there was something to read. A
    /// connection that is broken, or has ended and is not a client's, is closed instead.
    pub(super) fn read(&mut self, key: usize, max: usize) -> bool {
        let connection = &mut self.table[key];
        let read = connection.read(&mut self.buffer[..max]);
        let is_over = connection.input_closed && connection.session().is_none();
        if read.is_err() || is_over {
            self.close(key);
            return false;
        }
        read.is_ok_and(|any| any)
    }

    /// Closes a connection and records that for the host.
    pub(super) fn close(&mut self, key: usize) {
        let Some(connection) = self.table.remove(key) else { return };
        match connection.kind {
            Kind::Client(session) => {
                self.clients -= 1;
                self.gone.push_back(Input::Gone(session));
            }
            Kind::Unknown { .. } | Kind::Lingering => self.clients -= 1,
            Kind::Handshaking { .. } => self.handshakes -= 1,
            Kind::Link { link, .. } => self.gone.push_back(Input::Replica(Event::Ended { link })),
            Kind::Dialling { .. } => {}
        }
    }
}

impl<K: Kernel> Edges for Sockets<K> {
    fn clock(&mut self) -> (Moment, WallTime) {
        let (now, wall) = self.kernel.clock();
        self.now = now;
        (now, wall)
    }

    fn gauges(&self) -> Gauges {
        let (connections, memory_bytes) = (self.table.len() as u64, self.kernel.memory_bytes());
        Gauges { connections, memory_bytes, ..Gauges::default() }
    }

    fn send(
        &mut self,
        link: LinkId,
        packet: Packet,
        rest: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let key = key_of(link.0);
        let connection = self.table.get_mut(key).filter(|connection| connection.is_link(link));
        let Some(connection) = connection else { return Ok(()) };
        begin_frame(&mut self.frame);
        packet.encode(&mut self.frame);
        rest(&mut self.frame)?;
        end_frame(&mut self.frame);
        self.kernel.on_frame(&connection.socket, &mut self.frame);
        connection.seal(&self.frame);
        self.dirty.push(key);
        let length = self.frame.len();
        forget_front(&mut self.frame, length, LINK_KEPT_BYTES_MAX);
        Ok(())
    }

    fn dial(&mut self, to: ServerId) {
        self.begin_dial(to);
    }

    fn close_link(&mut self, link: LinkId, why: Closing) {
        self.end_link(link, why);
    }

    fn flush_links(&mut self) {
        for key in mem::take(&mut self.dirty) {
            self.flush_link(key);
        }
    }

    fn hash(&mut self, job: Job) {
        self.kernel.hash(job);
    }

    fn make(&mut self, job: FileJob) {
        self.kernel.make(job);
    }

    fn write(&mut self, session: SessionId, output: &mut Vec<u8>, must_read: bool) -> bool {
        self.write_to_client(session, output, must_read)
    }

    fn finish(&mut self, session: SessionId) {
        self.linger(session);
    }

    fn resume(&mut self, session: SessionId) {
        if let Some((key, client)) = self.client(session)
            && (client.readable || client.input_closed || !client.input.is_empty())
        {
            self.table.list(key);
        }
    }

    fn next_gone(&mut self) -> Option<Input<'static>> {
        self.gone.pop_front()
    }

    fn warn(&mut self, words: &str) {
        self.log_limiter.warn(self.now, words);
    }

    fn on_append(&mut self, records: &[u8]) {
        self.kernel.on_append(records);
    }

    fn on_cut(&mut self, last: Index) {
        self.kernel.on_cut(last);
    }
}
