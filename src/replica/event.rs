//! The replica's whole surface: what happens to it, and what it wants done.

use super::hello::{Hello, Refusal};
use super::packet::{Append, Packet};
use super::seen::SeenDisk;
use crate::ids::{Index, LinkId, Member, ServerId, Vote};
use crate::record::Record;
use std::ops::Range;
use std::{fmt, io};

/// What the world tells a replica.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The end of a turn, or a deadline: decide, and send what gathered.
    Tick,
    /// A dial was answered; the link is open.
    Dialled {
        /// The new link.
        link: LinkId,
        /// Whom it was meant to reach.
        to: ServerId,
    },
    /// Another server has dialled.
    Accepted {
        /// The new link.
        link: LinkId,
    },
    /// A dial came to nothing.
    DialFailed {
        /// Whom it was meant to reach.
        to: ServerId,
        /// Why.
        why: DialFailure,
    },
    /// Who answered a dial does not know the group's secret; the link's end follows.
    NotAuthentic {
        /// The link.
        link: LinkId,
    },
    /// A link has ended.
    Ended {
        /// Which one.
        link: LinkId,
    },
    /// A packet came in.
    Received {
        /// On which link.
        link: LinkId,
        /// What it says.
        packet: Packet,
        /// The records of an append.
        records: &'a [u8],
    },
    /// What was appended and persisted is durable.
    Durable(Durable),
}

/// Why a dial came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// Every address was refused: no process listens there.
    Refused,
    /// Nothing came in time, or the network says that it leads nowhere.
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
    /// The last dial came to nothing.
    Dial(DialFailure),
    /// Who listens at its address does not know the group's secret.
    WrongSecret,
    /// The other server refuses this one.
    RefusedBy(Refusal),
    /// This server refuses the other one.
    Refused(Refusal),
}

/// What is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// All entries up to here.
    pub last: Index,
    /// This vote.
    pub vote: Vote,
}

/// What a replica wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Add these records, a range of [`Out::bytes`], to the log.
    Append(Range<usize>),
    /// Remove the entries after this one; those that were stored are copied aside first.
    Cut(Index),
    /// Write and sync what was appended, after what is to be sent was sent.
    Flush,
    /// Write and sync the vote, after what is to be sent was sent.
    Persist(Vote),
    /// Say something.
    Send(LinkId, Packet),
    /// Say hello, and what this server's directory and log have been through.
    Greet(LinkId, Box<(Hello, Vec<u8>)>),
    /// Say that the entries `first` to `last` follow.
    SendEntries {
        /// On which link.
        link: LinkId,
        /// What comes before the records.
        append: Append,
        /// The first entry.
        first: Index,
        /// The last entry.
        last: Index,
    },
    /// Dial a server. Exactly one `Dialled` or `DialFailed` must follow.
    Dial(ServerId),
    /// Close a link when what is queued on it was sent.
    Close(LinkId, Closing),
    /// Remember this of another disk, soon.
    RecordIncarnation(Box<SeenDisk>),
    /// Store and send nothing more: end the process, quarantine what can't be kept, and start
    /// again.
    Quarantine(Quarantine),
}

/// What of a data directory is quarantined, never deleted, before the server starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quarantine {
    /// All of it: it is an old copy, or part of another history. The server comes back blank.
    Everything,
    /// The entries behind this one, which a later epoch does not have.
    Tail(Index),
}

/// Why a link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Another link to the same server stays.
    Spare,
    /// Nothing was heard on it for too long.
    Silent,
    /// What came is no packet, or not one that may come there.
    Nonsense,
    /// We refuse the other side.
    Refused(ServerId, Refusal),
    /// The other side refuses us.
    RefusedBy(Option<ServerId>, Refusal),
    /// What was said on it no longer holds.
    Restated,
    /// A server came with the id of another one that is linked and answers.
    Occupied {
        /// The link that stays.
        stays: LinkId,
        /// Who is at its other end.
        holder: Member,
        /// Who came.
        newcomer: Member,
    },
}

/// Effects, and the bytes that they speak of. The caller owns and reuses it.
#[derive(Debug, Default)]
pub struct Out {
    /// What ranges of effects point into.
    pub bytes: Vec<u8>,
    /// In the order in which they are to be performed.
    pub effects: Vec<Effect>,
}

impl Out {
    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.effects.clear();
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn send(&mut self, link: LinkId, packet: Packet) {
        self.effects.push(Effect::Send(link, packet));
    }
}

/// The log as its readers see it.
pub trait LogReader {
    /// The last entry up to `through` that can be read together with `from` in `bytes_max`
    /// bytes; at least `from`.
    fn last_within(&self, from: Index, through: Index, bytes_max: usize) -> Index;
    /// Hands the records `from` to `through` to `visit`, one by one, without copying what is in
    /// memory.
    ///
    /// # Errors
    /// When the log can't be read there.
    fn for_each(
        &self,
        from: Index,
        through: Index,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> io::Result<()>;
}
