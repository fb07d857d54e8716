//! The results that a caller gets: messages, outcomes, changes of the connection, and errors.

use super::answer::Refusal;
use crate::content::Attribute;
use serde::Serialize;
use std::{fmt, io};

/// A message of the own mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Its place in the mailbox, from 1, without a gap but for messages that are no longer kept.
    #[serde(rename = "n")]
    pub number: u64,
    /// When the primary accepted the message: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// The sender.
    pub from: String,
    /// The message text. Its lines end with LF.
    pub text: String,
    /// What goes with the text.
    #[serde(flatten)]
    pub attributes: Attributes,
}

/// A message that the account has sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SentMessage {
    /// Its place among all that the account has sent, from 1. Messages to accounts that were
    /// deleted since, or no longer keep them, are missing.
    #[serde(rename = "i")]
    pub place: u64,
    /// Its number in the receiver's mailbox.
    #[serde(rename = "n")]
    pub number: u64,
    /// When the primary accepted the message: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// The receiver.
    pub to: String,
    /// The message text. Its lines end with LF.
    pub text: String,
    /// What goes with the text.
    #[serde(flatten)]
    pub attributes: Attributes,
}

/// The attributes of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attributes {
    /// What the message is about: at most 250 bytes, and 3,840 together with the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// From 1, the least urgent, to 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Words by which programs sort messages: at most 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
    /// The address that a click on the message opens: at most 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub click: Option<String>,
}

impl Attributes {
    /// The attributes that are set, with their values as text.
    pub(super) fn each(&self) -> impl Iterator<Item = (Attribute, String)> {
        let all = [
            (Attribute::Title, self.title.clone()),
            (Attribute::Priority, self.priority.map(|priority| priority.to_string())),
            (Attribute::Tags, self.tags.clone()),
            (Attribute::Click, self.click.clone()),
        ];
        all.into_iter().filter_map(|(attribute, value)| Some((attribute, value?)))
    }

    /// Sets an attribute that a server has sent.
    pub(super) fn set(&mut self, attribute: Attribute, value: &str) {
        let text = || Some(value.to_owned());
        match attribute {
            Attribute::Title => self.title = text(),
            Attribute::Priority => self.priority = value.parse().ok(),
            Attribute::Tags => self.tags = text(),
            Attribute::Click => self.click = text(),
        }
    }
}

/// Identifies a message that was submitted with [`Client::submit`](super::Client::submit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// An event of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next message of the own mailbox.
    Message(Message),
    /// The mailbox no longer keeps the messages before the next one.
    KeptFrom {
        /// The number of the first message that it keeps.
        first: u64,
    },
    /// A message is on the disk of every attached server.
    Stored {
        /// The message.
        ticket: Ticket,
        /// Its number in the receiver's mailbox.
        number: u64,
    },
    /// A message was not stored, and never will be.
    Refused {
        /// The message.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
    /// It is unknown whether a message was stored: the connection was lost for too long.
    Unknown {
        /// The message.
        ticket: Ticket,
    },
    /// The client has logged in at the primary. The messages up to `last` were returned already,
    /// unless the caller was too slow: then they follow.
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
        /// The reason, as far as it is known.
        why: String,
    },
}

impl Event {
    /// Returns the message whose outcome this event reports.
    pub fn ticket(&self) -> Option<Ticket> {
        match self {
            Event::Stored { ticket, .. }
            | Event::Refused { ticket, .. }
            | Event::Unknown { ticket } => Some(*ticket),
            _ => None,
        }
    }
}

/// Why a request failed, or why the client can't continue.
#[derive(Debug)]
pub enum Error {
    /// The servers refuse the request, or would refuse it.
    Refused(Refusal),
    /// The servers refuse the login. The client can't be used any more.
    NotLetIn(Refusal),
    /// No primary was found in the time set with
    /// [`Client::set_patience`](super::Client::set_patience). Contains the last error of each
    /// server.
    NoPrimary(String),
    /// The request may or may not have taken effect: the connection was lost before the answer
    /// came.
    Unknown,
    /// A message is missing in the mailbox. This is a fault of the servers.
    Gap {
        /// The number of the first missing message.
        missing: u64,
        /// The number of the message that came instead.
        came: u64,
    },
    /// An operation of the operating system failed.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(why) | Error::NotLetIn(why) => write!(f, "{} ({})", why.words, why.code),
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
