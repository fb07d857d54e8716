//! What can be driven, and what is told of it: by `load` itself, and by others that need a load.

use super::connection::MakeDialect;
use super::ledger::Ledger;
use super::receiver::Receiver;
use super::text::Sizes;
use std::net::SocketAddr;
use std::time::Duration;

/// Makes the one who reads a mailbox of a part at the end.
pub(crate) type MakeReader = Box<dyn Fn(usize) -> Receiver>;

/// What is driven.
pub(crate) struct Load {
    /// Before anything is measured.
    pub(crate) warm_up: Duration,
    /// How long it is measured.
    pub(crate) measured: Duration,
    /// After this time without an answer a connection counts as lost.
    pub(crate) patience: Duration,
    /// The clients.
    pub(crate) parts: Vec<Part>,
}

/// Clients with the same settings.
pub(crate) struct Part {
    /// What senders speak.
    pub(crate) dialect: MakeDialect,
    /// Connections that send.
    pub(crate) senders: usize,
    /// Requests that each may have outstanding.
    pub(crate) depth: usize,
    /// The lengths of texts.
    pub(crate) sizes: Sizes,
    /// Messages a second of the open loop; 0 is the closed one.
    pub(crate) rate: u64,
    /// Mailboxes, to which nobody else writes.
    pub(crate) mailboxes: usize,
    /// Whether what was not answered is sent again elsewhere.
    pub(crate) repeats: bool,
    /// Connections that say nothing after their greeting.
    pub(crate) idle: usize,
    /// Connections that read; their mailboxes are counted from those of this part.
    pub(crate) receivers: Vec<Receiver>,
    /// All connections close so often.
    pub(crate) storm: Option<Duration>,
    /// Reads a mailbox at the end; none when it can't be read.
    pub(crate) read_back: Option<MakeReader>,
}

/// Who wants to know how the load is getting on.
pub(crate) trait Observer {
    /// The measured time begins.
    fn begin(&mut self) {}
    /// It is over.
    fn end(&mut self) {}
    /// A second has passed.
    fn second(&mut self, _live: &Live) {}
}

/// The last second.
pub(crate) struct Live {
    /// Since the load began.
    pub(crate) elapsed: Duration,
    /// Acknowledged messages per second.
    pub(crate) acked: f64,
    /// Deliveries per second.
    pub(crate) delivered: f64,
    /// The latency that 99 of 100 did not exceed.
    pub(crate) p99: Duration,
    /// Refusals and lost connections since the load began.
    pub(crate) errors: u64,
    /// Who takes requests.
    pub(crate) primary: Option<SocketAddr>,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Counts and times.
    pub(crate) ledger: Ledger,
    /// What was wrong; none when all was right.
    pub(crate) finding: Option<String>,
    /// Mailboxes whose messages were all compared with what was acknowledged.
    pub(crate) mailboxes_read: usize,
    /// Messages of the open loop that were due and never sent.
    pub(crate) unsent: u64,
    /// Who took requests last.
    pub(crate) primary: Option<SocketAddr>,
}
