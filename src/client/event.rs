//! What a caller learns: messages, what became of its own, connections, and why it can't go on.

use super::answer::Refusal;
use std::{fmt, io};

/// A message of the own mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place in the mailbox, from 1, without a gap.
    pub number: u64,
    /// When the primary took it: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// Who sent it.
    pub from: String,
    /// What it says.
    pub text: String,
}

/// A message that was given to [`Client::submit`](super::Client::submit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// What happens to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message of the own mailbox, the one behind the last.
    Message(Message),
    /// A message is on the disk of every attached server.
    Stored {
        /// Which one.
        ticket: Ticket,
        /// Its number in the receiver's mailbox.
        number: u64,
    },
    /// A message was not stored, and never will be.
    Refused {
        /// Which one.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
    /// Nobody can say whether a message was stored: the connection was lost for too long.
    Unknown {
        /// Which one.
        ticket: Ticket,
    },
    /// Logged in at the primary. The messages that were there have been handed over, unless the
    /// caller was too slow: then they follow.
    Connected {
        /// `host:port` of the server.
        server: String,
        /// How many messages the mailbox held.
        last: u64,
    },
    /// The connection was lost; another one is being made.
    Lost {
        /// `host:port` of the server.
        server: String,
        /// What is known of the reason.
        why: String,
    },
}

impl Event {
    /// The message of which it tells what became of it.
    pub fn ticket(&self) -> Option<Ticket> {
        match self {
            Event::Stored { ticket, .. }
            | Event::Refused { ticket, .. }
            | Event::Unknown { ticket } => Some(*ticket),
            _ => None,
        }
    }
}

/// Why a client can't go on.
#[derive(Debug)]
pub enum Error {
    /// The servers say no to what was asked, or would.
    Refused(Refusal),
    /// The servers say no to the login: nothing more can be asked.
    NotLetIn(Refusal),
    /// No primary was found in the time that
    /// [`Client::set_patience`](super::Client::set_patience) gives; what each server said.
    NoPrimary(String),
    /// It may or may not have happened: the connection was lost before the answer came.
    Unknown,
    /// A message is missing in the mailbox. This is a fault of the servers.
    Gap {
        /// The first that is missing.
        missing: u64,
        /// The one that came.
        came: u64,
    },
    /// This machine can't do it.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(why) | Error::NotLetIn(why) => write!(f, "{}: {}", why.code, why.words),
            Error::NoPrimary(why) => write!(f, "no primary was found: {why}"),
            Error::Unknown => f.write_str("the connection was lost before the answer came"),
            Error::Gap { missing, came } => {
                write!(f, "message {came} came, and message {missing} never did")
            }
            Error::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
