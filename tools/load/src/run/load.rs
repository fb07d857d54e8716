//! The input and the output of the load's event loop.

use super::accounts::Accounts;
use super::counts::{Counts, Interval};
use super::plan::Clients;
use super::protocol::Protocol;
use serde::Serialize;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Creates the protocol state of a new connection.
pub(crate) type MakeProtocol = Rc<dyn Fn() -> Box<dyn Protocol>>;

/// Clients with the same settings.
pub(crate) struct Part {
    /// How many of each kind, and how they send. Complete.
    pub(crate) clients: Clients,
    /// The protocol of senders.
    pub(crate) protocol: MakeProtocol,
    /// The accounts of receivers; `None` for other systems, whose messages are not read back.
    pub(crate) accounts: Option<Arc<Accounts>>,
}

/// The progress of a load.
pub(crate) enum Progress {
    /// The measured time begins.
    Begin,
    /// An interval has passed.
    Interval(Interval),
    /// The measured time ends.
    End,
}

/// The result of a load.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    #[serde(flatten)]
    pub counts: Counts,
    /// The first violation; `None` if every answer was right.
    pub(crate) finding: Option<String>,
    /// Mailboxes whose messages were all compared with what was acknowledged.
    pub mailboxes_read: usize,
    /// Messages of the open loop that were due and never sent.
    pub(crate) unsent: u64,
    /// The server that accepted requests last.
    pub(crate) primary: Option<SocketAddr>,
}
