//! The events that a replica handles.

use crate::effect::DialFailure;
use crate::ids::{LinkId, ServerId};
use crate::packet::Packet;
use crate::raft::Durable;

/// An input of the replica.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The end of a turn, or a deadline: the replica decides, and sends what has accumulated.
    Tick,
    /// A dial succeeded; the link is open.
    Dialled {
        /// The new link.
        link: LinkId,
        /// The server that was dialled.
        to: ServerId,
    },
    /// Another server dialled this one.
    Accepted {
        /// The new link.
        link: LinkId,
    },
    /// A dial failed.
    DialFailed {
        /// The server that was dialled.
        to: ServerId,
        /// Why it failed.
        why: DialFailure,
    },
    /// The server that answered a dial does not know the group's secret; `Ended` follows.
    NotAuthentic {
        /// The link.
        link: LinkId,
    },
    /// A link has ended.
    Ended {
        /// The link.
        link: LinkId,
    },
    /// A packet arrived.
    Received {
        /// The link.
        link: LinkId,
        /// The packet.
        packet: Packet,
        /// The bytes after the packet, such as the records of an append.
        records: &'a [u8],
    },
    /// Appended entries and the vote are durable.
    Durable(Durable),
}
