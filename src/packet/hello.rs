//! The hello, the first packet of each side of a link: it names the sender and the settings that
//! must be equal. Also the reasons to refuse a hello.

use crate::fields::{fields, listed, numbered};
use crate::ids::{DiskId, GroupId, Member, Position, Run, ServerId, Term};
use std::fmt;

/// The settings that must be equal on all servers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The group.
    pub group: GroupId,
    /// The number of servers.
    pub servers: u8,
    /// The peer timeout in milliseconds.
    pub peer_timeout_ms: u32,
    /// The fewest members with which the primary accepts changes.
    pub copies_min: u8,
    /// Whether a last survivor continues without an operator.
    pub survivor_auto: bool,
}

/// The first packet on a link, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Settings that must agree.
    pub shared: Shared,
    /// The sender.
    pub from: Member,
    /// The server that the sender expects at the other end.
    pub to: ServerId,
    /// The sender's start.
    pub run: Run,
    /// Numbers the hellos of a process, so that the receiver can tell which of two is later.
    pub serial: u64,
    /// The sender has another link to the receiver, or is opening one.
    pub has_other: bool,
    /// The sender's term.
    pub term: Term,
    /// The disk of the server that began the term's epoch; `None` for the first epoch.
    pub founder: Option<DiskId>,
    /// The end of the sender's stored log.
    pub last: Position,
}

listed! {
    /// Why a server refuses a link.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Refusal {
        /// The other side uses another version of the packets.
        Version,
        /// The other side belongs to another group.
        Group,
        /// The settings in `Shared` differ.
        Settings,
        /// Both servers have the same id.
        SameId,
        /// The receiver is not the server that the sender dialled.
        WrongId,
        /// The data directory is an old copy: its disk was recorded with a later start, or with
        /// other starts.
        OldCopy,
        /// Different servers began two epochs with the same number; an operator must decide.
        Epoch,
        /// The sender began a later epoch, while the receiver's group is healthy.
        Straggler,
        /// The data directory may be an old copy. Only a primary that a majority answers decides
        /// that.
        Doubtful,
        /// Another server with this id is linked and answers.
        Occupied,
        /// The sender recently sent packets that no correct server sends.
        Nonsense,
        /// The receiver's group refused this epoch before.
        Parted,
    }
}

fields!(Shared { group, servers, peer_timeout_ms, copies_min, survivor_auto });
fields!(Hello { shared, from, to, run, serial, has_other, term, founder, last });
numbered!(Refusal);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Version => "it uses another version of the link protocol",
            Refusal::Group => "it belongs to another group",
            Refusal::Settings => {
                "its settings differ (servers, peer_timeout_ms, min_copies or last_survivor)"
            }
            Refusal::SameId => "both servers have the same id",
            Refusal::WrongId => "another server answers at that address",
            Refusal::OldCopy => "its data directory is an old copy",
            Refusal::Epoch => {
                "two servers have begun an epoch of the same number: keep one of them, and move \
                 the other's directory away"
            }
            Refusal::Straggler => {
                "it continued alone from an older state, while this group is healthy: move its \
                 directory away, and it is filled again"
            }
            Refusal::Doubtful => {
                "its data directory may be an old copy; it waits for a primary to decide that"
            }
            Refusal::Occupied => "another server with its id is linked, and answers",
            Refusal::Parted => {
                "two epochs that continued without each other can't be joined: keep one, and move \
                 the directories of the other away"
            }
            Refusal::Nonsense => {
                "it has just sent an invalid packet: the log of this server says which"
            }
        })
    }
}

#[cfg(test)]
pub(crate) fn sample_hello() -> Hello {
    Hello {
        shared: Shared {
            group: GroupId(1),
            servers: 3,
            peer_timeout_ms: 2000,
            copies_min: 1,
            survivor_auto: false,
        },
        from: Member { id: ServerId::new(2).unwrap(), disk: DiskId(99) },
        to: ServerId::new(1).unwrap(),
        run: Run { incarnation: crate::ids::Incarnation(6), process: crate::ids::ProcessId(7) },
        serial: 8,
        has_other: true,
        term: Term(9),
        founder: None,
        last: Position { term: Term(3), index: crate::ids::Index(4) },
    }
}
