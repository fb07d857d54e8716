//! What goes into a node, and what comes out.

use crate::ids::{LinkId, Origin, Position, Secret, SessionId};
use crate::latency::Meter;
use crate::replica::{Event, LogReader, Out, Packet};
use crate::time::{Moment, WallTime};
use std::fmt;
use std::time::Duration;

/// What a node is told from outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// For the replica. `Event::Tick` ends every turn.
    Replica(Event<'a>),
    /// A text client is there.
    Opened(SessionId, Origin),
    /// It sent a line, given without its end; only while
    /// [`Node::wants_line`](super::Node::wants_line).
    Line(SessionId, &'a [u8]),
    /// It sent a line over the bound.
    LongLine(SessionId),
    /// It will send no more; `unfinished` when a last line had no end.
    InputEnded {
        /// Which client.
        session: SessionId,
        /// A line without its end was left.
        unfinished: bool,
    },
    /// The socket took some of its output.
    Drained(SessionId),
    /// It is gone.
    Gone(SessionId),
    /// A password job is done.
    Hashed(SessionId, Hashed),
    /// The disk is nearly full, or is not any more.
    Full(bool),
    /// Finish what is taken, then end.
    Stop,
}

/// Work for the thread that hashes passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Who waits for it.
    pub session: SessionId,
    /// The password.
    pub password: String,
    /// The hash to check it against; to make a new one, none.
    pub against: Option<String>,
}

/// What came of a [`Job`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hashed {
    /// The password is right, or not.
    Checked(bool),
    /// The hash of a new password.
    Made(String),
}

/// What a node wants done.
#[derive(Debug, Default)]
pub struct Output {
    /// The replica's effects, to be performed in their order.
    pub replica: Out,
    /// Passwords to hash.
    pub jobs: Vec<Job>,
    /// What the node itself says to other servers, and what follows each packet.
    pub packets: Vec<(LinkId, Packet, Vec<u8>)>,
    /// Links on which all is said behind that.
    pub said: Vec<LinkId>,
}

impl Output {
    /// Whether the node wants something done beside the replica: seldom.
    pub fn has_own(&self) -> bool {
        !(self.jobs.is_empty() && self.packets.is_empty() && self.said.is_empty())
    }
}

/// What the shell measures, for `STATUS`.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Open connections of every kind.
    pub connections: u64,
    /// Size of the log.
    pub log_bytes: u64,
    /// Free space for it.
    pub disk_free_bytes: Option<u64>,
    /// Resident memory of the process.
    pub memory_bytes: Option<u64>,
    /// Latencies of syncs.
    pub syncs: Meter,
    /// Turns of the event loop since the start.
    pub turns: u64,
}

/// The world as a node sees it during one input.
pub struct Context<'a> {
    /// Monotonic time.
    pub now: Moment,
    /// Wall time.
    pub wall: WallTime,
    /// The log.
    pub log: &'a dyn LogReader,
    /// Measured anew when asked for.
    pub gauges: &'a dyn Fn() -> Gauges,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context at {:?}", self.now)
    }
}

/// What a node can't go on after; the server must end with these words.
#[derive(Debug, PartialEq, Eq)]
pub struct Fatal(pub String);

/// What a node is told once.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `host:port` of each server, by id.
    pub addresses: Vec<String>,
    /// How long a client may stay without logging in.
    pub login_timeout: Duration,
    /// Whether everybody may make an account, or only an operator.
    pub accounts_open: bool,
    /// What the servers of the group share.
    pub secret: Secret,
    /// This build.
    pub version: &'static str,
    /// The command with which an operator makes this server go on alone.
    pub recovery: String,
    /// The directories that this server has quarantined and that clients may have used: the folder
    /// within the data directory, and its last readable entry.
    pub former: Vec<(String, Position)>,
    /// What the other servers are told of its settings, to find differences: keys and values.
    pub settings: Vec<(String, String)>,
}

/// Where the answers to a client wait for its socket.
#[derive(Debug)]
pub struct Outlet<'a> {
    /// What is to be sent; the edges remove from the front what the socket accepts.
    pub output: &'a mut Vec<u8>,
    /// When all of it is sent, the connection is closed.
    pub closing: bool,
    /// The client may be closed if it does not read. One that is logged in and may still send
    /// requests reads when it wants to; others must not hold their places.
    pub must_read: bool,
}
