//! The interface of a node: its inputs, outputs and surroundings.

use super::fetch::Wanted;
use super::retention::Retention;
use crate::frontend::Request;
use crate::ids::{Origin, Position, Secret, SessionId};
use crate::latency::Meter;
use crate::mailbox::Archive;
use crate::replica::{Event, LogReader, Out};
use crate::time::{Moment, WallTime};
use std::time::Duration;

/// An event from outside that a node handles.
#[derive(Debug)]
pub enum Input<'a> {
    /// An event for the replica. `Event::Tick` ends every turn.
    Replica(Event<'a>),
    /// A text client has connected.
    Opened(SessionId, Origin),
    /// A client's request. A line is allowed only while
    /// [`Node::wants_line`](super::Node::wants_line) returns true.
    Request(SessionId, Request<'a>),
    /// The socket of a client has accepted some of its output.
    Drained(SessionId),
    /// The connection of a client has ended.
    Gone(SessionId),
    /// A password job is done.
    Hashed(SessionId, Hashed),
    /// The disk has become nearly full, or has space again.
    Full(bool),
    /// A part of the log is damaged, or no part any more; and the entries that are needed next.
    Damaged(bool, Option<Wanted>),
    /// Answer the accepted requests, then stop.
    Stop,
}

/// Work for the thread that hashes passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The session that waits for the result.
    pub session: SessionId,
    /// The password.
    pub password: String,
    /// The hash to check the password against; `None` to make a new hash.
    pub against: Option<String>,
}

/// The result of a [`Job`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hashed {
    /// Whether the password is right.
    Checked(bool),
    /// The hash of a new password.
    Made(String),
}

/// The work that a node asks for.
#[derive(Debug, Default)]
pub struct Output {
    /// The effects of the replica, then those of the node, to be performed in this order.
    pub replica: Out,
    /// Passwords to hash.
    pub jobs: Vec<Job>,
    /// Records that another server has sent: the first ones of the wanted ones.
    pub fetched: Option<Vec<u8>>,
}

/// Measurements of the event loop and the process, for `STATUS`.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Open connections of every kind.
    pub connections: u64,
    /// Size of the log, in bytes.
    pub log_bytes: u64,
    /// Free space on the log's disk, in bytes.
    pub disk_free_bytes: Option<u64>,
    /// Resident memory of the process, in bytes.
    pub memory_bytes: Option<u64>,
    /// Latencies of syncs.
    pub syncs: Meter,
    /// Turns of the event loop since the start.
    pub turns: u64,
    /// Entries that were repaired since the start.
    pub repaired: u64,
    /// Entries that are known to be damaged.
    pub unrepaired: u64,
    /// When the last full check of sealed segments ended.
    pub scrubbed: Option<WallTime>,
}

/// The surroundings of a node while it handles one input.
pub struct Context<'a> {
    /// Monotonic time.
    pub now: Moment,
    /// Wall time.
    pub wall: WallTime,
    /// The log.
    pub log: &'a dyn LogReader,
    /// Its segments and their index files.
    pub archive: &'a dyn Archive,
    /// Takes new measurements at each call.
    pub gauges: &'a dyn Fn() -> Gauges,
}

/// A failure that a node can't continue after. The server must end with this message.
#[derive(Debug, PartialEq, Eq)]
pub struct Fatal(pub String);

/// The configuration of a node, fixed at start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `host:port` of each server, by id.
    pub addresses: Vec<String>,
    /// How long a client that is not logged in may go without a request.
    pub login_timeout: Duration,
    /// Whether every client may create an account, or only an operator.
    pub accounts_open: bool,
    /// The secret that the servers of the group share.
    pub secret: Secret,
    /// The command with which an operator makes this server continue alone.
    pub recovery: String,
    /// The directories that this server has quarantined and that clients may have used: the folder
    /// within the data directory, and the last readable entry.
    pub former: Vec<(String, Position)>,
    /// The settings that this server sends to the others so that they find differences: a line
    /// `key=value` for each.
    pub settings: String,
    /// How much mailboxes keep.
    pub retention: Retention,
    /// Entries after each of which the members compare a digest of their state; the same on all.
    pub digest_entries: u64,
}

/// The output of a client that waits for its socket.
#[derive(Debug)]
pub struct Outlet<'a> {
    /// Bytes to send. The edges remove from the front what the socket accepts.
    pub output: &'a mut Vec<u8>,
    /// Whether to close the connection when all output is sent.
    pub closing: bool,
    /// Whether to close a client that does not read for too long. A client that is logged in and
    /// may still send requests can read when it wants to; others must not hold their places.
    pub must_read: bool,
}
