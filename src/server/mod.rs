//! The shell around a node: the only place with sockets, files and a clock. One thread, one poll,
//! one readiness set for the listener, clients, unclassified connections and peers together.

mod addresses;
pub mod call;
pub mod channel;
mod classify;
mod client;
mod connection;
mod farewell;
mod hasher;
mod link;
mod machine;
mod reasons;
mod telnet;
mod warm;

use crate::limits::{FILE_PIECE_BYTES, SEAL_TIME, SPACE_RESERVED, SPACE_TIME};
use crate::meter::Meter;
use crate::moment::{Moment, WallTime};
use crate::names::{GroupId, Secret, ServerId, SessionId, Vote};
use crate::node::{Context, Fatal, Gauges, Input, Node, Output};
use crate::replica::{Aside, Closing, DialFailure, Effect, Event, Mark, Packet};
use crate::store::{ServerDisk, Store};
use addresses::Addresses;
use connection::{Connection, Kind, key_of};
use hasher::Hasher;
pub use machine::boot_time;
use machine::resident_bytes;
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use reasons::Reasons;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fmt, mem};

const SIGNALS: Token = Token(0);
const WAKER: Token = Token(1);
const STDIN: Token = Token(2);
const LISTENER: Token = Token(3);
/// Connections' tokens begin here; a name may resolve to a few addresses to listen on.
const TOKENS_RESERVED: usize = 3 + LISTENERS_MAX;
const LISTENERS_MAX: usize = 8;

/// Why a server ends that was not asked to.
#[derive(Debug)]
pub enum Fail {
    /// The disk or the poll failed; after a failed sync the page cache can't be trusted.
    Io(&'static str, io::Error),
    /// See [`Fatal`].
    Fatal(Fatal),
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fail::Io(what, error) => write!(f, "{what}: {error}"),
            Fail::Fatal(Fatal(why)) => f.write_str(why),
        }
    }
}

/// How a server's life ended, with its directory closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to end.
    Stopped,
    /// It is to start again after this was put aside.
    Left(Aside),
}

/// What a server is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where it listens; at least one.
    pub listeners: Vec<std::net::TcpListener>,
    /// `host:port` of each server, by id.
    pub names: Vec<String>,
    /// The group, and what its servers know each other by.
    pub group: GroupId,
    /// See [`Parts::group`].
    pub secret: Secret,
    /// Its data directory.
    pub store: Store<ServerDisk>,
    /// Most text clients.
    pub max_clients: usize,
    /// It ends when its standard input does.
    pub stop_with_stdin: bool,
    /// When its clock began, by [`boot_time`].
    pub began: Duration,
}

/// A running server.
pub struct Server {
    poll: Poll,
    signals: Signals,
    listeners: Vec<TcpListener>,
    hasher: Hasher,
    store: Store<ServerDisk>,
    node: Node,
    began: Duration,
    /// The time, as it was when the clock was last looked at.
    now: Moment,
    wall: WallTime,
    addresses: Addresses,
    group: GroupId,
    secret: Secret,
    connections: Slab<Connection>,
    serial: u32,
    /// Connections that are no links, and how many of them there may be.
    strangers: usize,
    max_clients: usize,
    /// Connections that have not proved yet to be links.
    unproven: usize,
    /// Connections to look at in this turn.
    ready: Vec<usize>,
    /// Clients to say something to; empty between turns.
    touched: Vec<SessionId>,
    /// Connections whose empty buffers keep their memory.
    warm: VecDeque<usize>,
    /// Links with something to send.
    dirty: Vec<usize>,
    failed_dials: Vec<(ServerId, DialFailure)>,
    deadlines: BTreeSet<(Moment, usize)>,
    accept_again: Option<Moment>,
    seal_at: Option<Moment>,
    /// When to look at the free space again, as soon as anything else wakes the loop.
    space_at: Moment,
    reasons: Reasons,
    out: Output,
    must_flush: bool,
    must_persist: Option<Vote>,
    vote: Vote,
    syncs: Meter,
    turns: u64,
    failed: Option<Fail>,
    stopping: bool,
    /// This life is over: nothing more is taken, stored or said.
    left: Option<Aside>,
    buffer: Vec<u8>,
    /// Where a frame is put together before it is sealed.
    frame: Vec<u8>,
}

impl Server {
    /// Puts the shell around a node; `vote` is the one that is stored.
    pub fn new(parts: Parts, node: Node, vote: Vote) -> io::Result<Server> {
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
        Ok(Server {
            poll,
            signals,
            listeners,
            hasher: Hasher::start(Arc::clone(&waker))?,
            store: parts.store,
            node,
            began: parts.began,
            now: Moment(0),
            wall: WallTime::from_system(SystemTime::now()),
            addresses: Addresses::new(&parts.names, waker),
            group: parts.group,
            secret: parts.secret,
            connections: Slab::new(),
            serial: 0,
            strangers: 0,
            max_clients: parts.max_clients,
            unproven: 0,
            ready: Vec::new(),
            touched: Vec::new(),
            warm: VecDeque::new(),
            dirty: Vec::new(),
            failed_dials: Vec::new(),
            deadlines: BTreeSet::new(),
            accept_again: None,
            seal_at: None,
            space_at: Moment(0),
            reasons: Reasons::default(),
            out: Output::default(),
            must_flush: false,
            must_persist: None,
            vote,
            syncs: Meter::default(),
            turns: 0,
            failed: None,
            stopping: false,
            left: None,
            buffer: vec![0; FILE_PIECE_BYTES / 4],
            frame: Vec::new(),
        })
    }

    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// When it can't go on; nothing that was not durable was acknowledged.
    pub fn run(mut self) -> Result<Ending, Fail> {
        let mut events = Events::with_capacity(1024);
        while !(self.stopping && self.node.is_stopped(self.now)) {
            self.turn(&mut events)?;
            if let Some(aside) = self.left {
                return Ok(Ending::Left(aside));
            }
        }
        self.store.seal().map_err(|error| Fail::Io("the log", error))?;
        self.say_farewell(&mut events)?;
        Ok(Ending::Stopped)
    }

    /// One turn: everything that is ready, one sync for all of it, and what follows from that.
    fn turn(&mut self, events: &mut Events) -> Result<(), Fail> {
        self.wait(events)?;
        self.turns += 1;
        self.keep_house()?;
        self.read_ready()?;
        self.expire()?;
        self.look_at_clock();
        self.tell(Input::Replica(Event::Tick))?;
        self.flush_links(); // before the sync: three disks work at once
        self.store_all()?;
        self.flush_links();
        self.flush_clients()?;
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Looks at the clocks: not for every line, but before a tick and after each read from another
    /// server. Promises are counted from there: what was received must not seem to have come
    /// earlier than it was sent, and none may seem to hold that has run out.
    fn look_at_clock(&mut self) {
        let elapsed = boot_time().saturating_sub(self.began);
        self.now = Moment(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        self.wall = WallTime::from_system(SystemTime::now());
    }

    fn wait(&mut self, events: &mut Events) -> Result<(), Fail> {
        self.look_at_clock();
        let deadlines = [
            self.node.next_deadline(),
            self.deadlines.first().map(|(at, _)| *at),
            self.accept_again,
            self.seal_at,
        ];
        let timeout = if self.ready.is_empty() && self.failed_dials.is_empty() {
            deadlines.into_iter().flatten().min().map(|at| at - self.now)
        } else {
            Some(Duration::ZERO)
        };
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Fail::Io("waiting", error));
            }
            _ => {}
        }
        self.look_at_clock();
        for event in &*events {
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
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        let ended = event.is_read_closed() || event.is_error();
        connection.drain |= ended || event.is_priority();
        connection.hung_up |= ended;
        if let Kind::Dialling { .. } = connection.kind {
            return self.dial_decided(key, false);
        }
        if event.is_readable() || ended {
            connection.readable = true;
            self.list(key);
        }
        // A client that has hung up gets a deadline for what is left to be sent.
        if event.is_writable() || ended {
            match self.connections[key].kind {
                Kind::Link { .. } | Kind::Unproven { .. } => self.flush_link(key),
                Kind::Client { session, .. } => self.flush_client(key, session)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A password is hashed, or a name is looked up.
    fn on_woken(&mut self) -> Result<(), Fail> {
        if self.addresses.take_results() {
            self.report_addresses();
        }
        while let Some((session, hashed)) = self.hasher.pop() {
            self.tell(Input::Hashed(session, hashed))?;
        }
        Ok(())
    }

    fn read_ready(&mut self) -> Result<(), Fail> {
        for key in mem::take(&mut self.ready) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.listed = false;
            match connection.kind {
                Kind::Unknown { .. } => self.read_unknown(key),
                Kind::Client { session, .. } => self.read_client(key, session)?,
                Kind::Unproven { from } => self.read_unproven(key, from)?,
                Kind::Link { link, .. } => self.read_link(key, link)?,
                Kind::Lingering => self.read_lingering(key),
                Kind::Dialling { .. } => {}
            }
        }
        Ok(())
    }

    fn expire(&mut self) -> Result<(), Fail> {
        let now = self.now;
        for (to, why) in mem::take(&mut self.failed_dials) {
            self.tell(Input::Replica(Event::DialFailed { to, why }))?;
            self.report_failed_dial(to);
        }
        while let Some((at, key)) = self.deadlines.first().copied()
            && at <= now
        {
            self.set_deadline(key, None);
            match self.connections[key].kind {
                Kind::Dialling { .. } => self.dial_decided(key, true)?,
                Kind::Unproven { from } => self.drop_unproven(key, from, "took too long"),
                Kind::Unknown { over, .. } => self.drop_silent(key, over),
                _ => self.close(key),
            }
        }
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            self.accept();
        }
        if self.seal_at.is_some_and(|at| at <= now) {
            self.seal_at = None;
            self.store.seal().map_err(|error| Fail::Io("the log", error))?;
        }
        Ok(())
    }

    /// Looks at the free space, before anything is taken that needs it, and at idle buffers.
    fn keep_house(&mut self) -> Result<(), Fail> {
        if self.space_at > self.now {
            return Ok(());
        }
        self.space_at = self.now + SPACE_TIME;
        self.cool_all();
        // What can't be asked is seen when it is written.
        match self.store.disk().free_bytes() {
            Ok(free) => self.tell(Input::Full(free < SPACE_RESERVED)),
            Err(_) => Ok(()),
        }
    }

    /// Hands an input to the node and does what it wants done.
    fn tell(&mut self, input: Input<'_>) -> Result<(), Fail> {
        if self.left.is_some() {
            return Ok(());
        }
        let mut out = mem::take(&mut self.out);
        let (store, syncs, turns) = (&self.store, &self.syncs, self.turns);
        let connections = self.connections.len() as u64;
        let gauges = || Gauges {
            connections,
            log_bytes: store.log_bytes(),
            disk_free_bytes: store.disk().free_bytes().ok(),
            memory_bytes: resident_bytes(),
            syncs: syncs.clone(),
            turns,
        };
        let world = Context { now: self.now, wall: self.wall, log: store, gauges: &gauges };
        self.node.handle(&world, input, &mut out).map_err(Fail::Fatal)?;
        for effect in out.replica.effects.drain(..) {
            self.perform(effect, &out.replica.bytes)?;
        }
        out.replica.clear();
        for (link, packet, rest) in out.packets.drain(..) {
            self.send_packet(link, packet, &rest);
        }
        for link in out.said.drain(..) {
            self.close_link(link, Closing::Spare);
        }
        for job in out.jobs.drain(..) {
            self.hasher.push(job);
        }
        self.out = out;
        Ok(())
    }

    fn perform(&mut self, effect: Effect, bytes: &[u8]) -> Result<(), Fail> {
        let done = match effect {
            Effect::Append(range) => self.store.append(&bytes[range]),
            Effect::Cut(last) => self.store.cut(last, &self.wall.label()).map(|folder| {
                if let Some(folder) = folder {
                    log::info!("what was stored of the entries after {last} is in {folder} now");
                }
            }),
            Effect::SendEntries { link, append, first, last } => {
                if let Err(error) = self.send_entries(link, append, first, last) {
                    // Whoever lacks them is served by another one, if there is one that can.
                    self.warn(&format!("entries {first} to {last} can't be sent: {error}"));
                    self.node.note_unreadable(self.now, link);
                }
                Ok(())
            }
            Effect::Flush => {
                self.must_flush = true;
                Ok(())
            }
            Effect::Persist(vote) => {
                self.must_persist = Some(vote);
                Ok(())
            }
            Effect::Send(link, packet) => {
                self.send_packet(link, packet, &[]);
                Ok(())
            }
            Effect::Greet(link, greeting) => {
                self.send_packet(link, Packet::Hello(greeting.0), &greeting.1);
                Ok(())
            }
            Effect::Dial(to) => {
                self.dial(to);
                Ok(())
            }
            Effect::Close(link, why) => {
                self.close_link(link, why);
                Ok(())
            }
            Effect::See(disk) => {
                self.store.see(*disk);
                self.seal_soon();
                Ok(())
            }
            Effect::Leave(aside) => {
                self.left = Some(aside);
                Ok(())
            }
        };
        done.map_err(|error| Fail::Io("the log", error))
    }

    /// One write and one sync for all that the turn appended, and one for the vote.
    fn store_all(&mut self) -> Result<(), Fail> {
        let flush = mem::take(&mut self.must_flush) && self.store.has_unwritten();
        let persist = self.must_persist.take();
        if self.left.is_some() || (!flush && persist.is_none()) {
            return Ok(());
        }
        if let Some(vote) = persist {
            self.store.persist(vote).map_err(|error| Fail::Io("the vote", error))?;
            self.vote = vote;
        }
        self.look_at_clock();
        if flush {
            let before = self.now;
            self.store.flush().map_err(|error| Fail::Io("the log", error))?;
            self.look_at_clock();
            let now = self.now;
            self.syncs.note(now, now - before);
            self.node.note_flush(now);
            self.seal_soon();
        }
        let last = self.store.stored();
        self.tell(Input::Replica(Event::Stored(Mark { last, vote: self.vote })))
    }

    fn seal_soon(&mut self) {
        // What was seen of others is saved in time, whatever goes on.
        let due = self.seal_at.filter(|_| self.store.has_unsaved());
        let at = due.unwrap_or(self.now + SEAL_TIME);
        self.seal_at = self.store.has_unsealed().then_some(at);
    }

    fn flush_links(&mut self) {
        for key in mem::take(&mut self.dirty) {
            self.flush_link(key);
        }
    }

    fn flush_clients(&mut self) -> Result<(), Fail> {
        let mut touched = mem::take(&mut self.touched);
        self.node.take_touched(&mut touched);
        for session in touched.drain(..) {
            let key = key_of(session.0);
            if self.client(key, session) {
                self.flush_client(key, session)?;
                if self.client(key, session) && self.has_lines(key, session) {
                    self.list(key);
                }
            }
        }
        self.touched = touched;
        Ok(())
    }

    fn client(&self, key: usize, id: SessionId) -> bool {
        let kind = self.connections.get(key).map(|connection| &connection.kind);
        matches!(kind, Some(Kind::Client { session, .. }) if *session == id)
    }

    fn has_lines(&self, key: usize, session: SessionId) -> bool {
        let connection = &self.connections[key];
        let more = connection.readable || connection.input_closed || !connection.input.is_empty();
        more && self.node.wants_line(session)
    }

    /// Puts a connection on the list of those to look at.
    fn list(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !mem::replace(&mut connection.listed, true)
        {
            self.ready.push(key);
        }
    }

    fn set_deadline(&mut self, key: usize, deadline: Option<Moment>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(old) = mem::replace(&mut connection.deadline, deadline) {
            self.deadlines.remove(&(old, key));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, key));
        }
    }

    /// Ends a connection, and tells the node.
    fn close(&mut self, key: usize) {
        self.set_deadline(key, None);
        let Some(mut connection) = self.connections.try_remove(key) else { return };
        let _ = self.poll.registry().deregister(&mut connection.socket);
        match connection.kind {
            Kind::Client { session, .. } => {
                self.strangers -= 1;
                self.tell_or_fail(Input::Gone(session));
            }
            Kind::Unknown { .. } | Kind::Lingering => self.strangers -= 1,
            Kind::Unproven { .. } => self.unproven -= 1,
            Kind::Link { link, .. } => self.tell_or_fail(Input::Replica(Event::Ended { link })),
            Kind::Dialling { .. } => {}
        }
    }

    /// Tells the node where a failure can't be returned: the turn ends with it.
    fn tell_or_fail(&mut self, input: Input<'_>) {
        if let Err(fail) = self.tell(input) {
            self.failed.get_or_insert(fail);
        }
    }
}
