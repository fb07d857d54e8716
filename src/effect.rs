//! What the replication requests of its host, as plain data.

use crate::ids::{Index, LinkId, Member, ServerId, Vote};
use crate::incarnation::SeenDisk;
use crate::packet::{Append, Packet, Refusal};
use std::fmt;
use std::ops::Range;

/// Why a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// Every address refused the connection: no process listens there.
    Refused,
    /// No answer arrived in time, or the network reported the address as unreachable.
    NoAnswer,
    /// The server's name has no address.
    NoName,
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DialFailure::Refused => "refuses connections",
            DialFailure::NoAnswer => "does not answer",
            DialFailure::NoName => "has no known address",
        })
    }
}

/// Why there is no link to another server, as far as this one knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The last dial failed.
    Dial(DialFailure),
    /// The server at its address does not know the group's secret.
    WrongSecret,
    /// The other server refuses this one.
    RefusedBy(Refusal),
    /// This server refuses the other one.
    Refused(Refusal),
}

/// An action that a replica requests. The caller performs the effects in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Add these records, a range of [`Out::bytes`], to the log.
    Append(Range<usize>),
    /// Remove the entries after this one. Entries that were stored are copied to quarantine
    /// first.
    Cut(Index),
    /// Write and sync the appended entries, after all packets of this turn are sent.
    Flush,
    /// Write and sync the vote, after all packets of this turn are sent.
    Persist(Vote),
    /// Send a packet.
    Send(LinkId, Packet),
    /// Send a packet, followed by these bytes. In a box, since it is rare.
    SendWith(LinkId, Box<(Packet, Vec<u8>)>),
    /// Send an append, followed by the entries `first` to `last`.
    SendEntries {
        /// The link.
        link: LinkId,
        /// The packet before the records.
        append: Append,
        /// The first entry.
        first: Index,
        /// The last entry.
        last: Index,
    },
    /// Dial a server. Exactly one `Dialled` or `DialFailed` must follow.
    Dial(ServerId),
    /// Close a link after its queued packets are sent.
    Close(LinkId, Closing),
    /// Store this record of another disk soon.
    RecordIncarnation(Box<SeenDisk>),
    /// Stop storing and sending, end the process, quarantine what must not stay, and start again.
    Quarantine(Quarantine),
}

/// The part of a data directory that is quarantined, never deleted, before the server starts
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quarantine {
    /// The whole directory: it is an old copy, or part of another epoch. The server restarts
    /// uninitialized.
    Everything,
    /// The whole directory: the state that this server has made of its log differs from that of
    /// the others. The server restarts uninitialized.
    Diverged,
    /// The entries after this one, which a later epoch does not have.
    Tail(Index),
}

/// Why a link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Another link to the same server stays.
    Spare,
    /// No packet arrived in time.
    Silent,
    /// The bytes are no valid packet, or the packet is not allowed at this point.
    Nonsense,
    /// This server refuses the other side.
    Refused(ServerId, Refusal),
    /// The other side refuses this server.
    RefusedBy(Option<ServerId>, Refusal),
    /// Something that this server sent on it no longer holds, so a new hello is needed.
    Restated,
    /// A server connected with the id of another server that is linked and answers.
    Occupied {
        /// The link that stays.
        stays: LinkId,
        /// The server at the other end of that link.
        holder: Member,
        /// The server that connected.
        newcomer: Member,
    },
}

/// Effects and the bytes that they refer to. The caller owns and reuses this buffer.
#[derive(Debug, Default)]
pub struct Out {
    /// The bytes that the ranges in `effects` refer to.
    pub bytes: Vec<u8>,
    /// The effects, in the order in which to perform them.
    pub effects: Vec<Effect>,
}

impl Out {
    /// Removes all effects and bytes, but keeps the allocated memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.effects.clear();
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn send(&mut self, link: LinkId, packet: Packet) {
        self.effects.push(Effect::Send(link, packet));
    }

    pub(crate) fn send_with(&mut self, link: LinkId, packet: Packet, bytes: Vec<u8>) {
        self.effects.push(Effect::SendWith(link, Box::new((packet, bytes))));
    }
}
