//! The packets between servers and their encoding: one kind byte, then the fields, little-endian.

mod hello;
mod past;

use crate::config::Config;
use crate::fields::{Field, fields, listed, numbered};
use crate::ids::{DiskId, GroupId, Index, Position, ServerId, Term};
use crate::time::{Moment, WallTime};
#[cfg(test)]
pub(crate) use hello::sample_hello;
pub use hello::{Hello, Refusal, Shared};
pub use past::{Epoch, Past};

/// The version of the packets; servers refuse other versions.
pub(crate) const VERSION: u16 = 9;

/// A server's state as it reports it in each ping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerHealth {
    /// It is primary. This also reports a step-down that happened while the link was lost.
    pub leads: bool,
    /// It is stopping: it wants to be dropped, and no primary hands over to it.
    pub stopping: bool,
    /// Its disk is slow: no primary hands over to it because of its own slow disk.
    pub slow: bool,
    /// Its disk is nearly full: while it is a member, the primary accepts only deletions from
    /// clients.
    pub full: bool,
    /// It could not read an entry of its log: no primary hands over to it for the same reason.
    pub damaged: bool,
    /// A damaged part of its log waits for repair: it does not campaign.
    pub lacks_entries: bool,
}

listed! {
    /// The answer to a [`Packet::Order`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Verdict {
        /// The order is being carried out.
        Taken,
        /// This server is not primary.
        NotPrimary,
        /// No backup could take over.
        NoBackup,
        /// The operator named another group.
        OtherGroup,
    }
}

/// The header of the entries after `prev`. The records, if there are any, follow the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append {
    /// The primary's term.
    pub term: Term,
    /// The entry before the first one sent.
    pub prev: Position,
    /// The highest index that the primary knows to be committed.
    pub committed: Index,
    /// The highest acknowledged index.
    pub acknowledged: Index,
    /// The primary's newest round of reads.
    pub round: u64,
}

/// A request for a vote or a pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The term to be elected in.
    pub term: Term,
    /// The end of the candidate's log.
    pub last: Position,
    /// The candidate's newest config: an uninitialized server grants only if this config names
    /// it.
    pub config: Config,
}

/// A message from one server to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// The first packet of each side; its bytes begin with the version. The encoded `Past`
    /// follows.
    Hello(Hello),
    /// A hello of another version; the rest of it is ignored.
    Foreign {
        /// The sender's version.
        version: u16,
    },
    /// Rejects a hello.
    Refused(Refusal),
    /// Asks for a pong.
    Ping {
        /// The sender's monotonic clock; the pong returns it unchanged.
        sent: Moment,
        /// The sender's wall clock at that moment.
        wall: WallTime,
        /// The sender's state.
        health: PeerHealth,
    },
    /// The answer to a ping.
    Pong {
        /// The ping's `sent`.
        sent: Moment,
        /// A promise of a primary of two members (*Last survivor, auto*). It names the sender's
        /// newest config, which the sender will not change before half a peer timeout after the
        /// ping was sent.
        promised: Option<Position>,
    },
    /// The sender is uninitialized, and is linked with these disks.
    Blank {
        /// The disks, by server id.
        met: [DiskId; 3],
    },
    /// See [`Append`].
    Append(Append),
    /// Acknowledges that the sender's log is durable, and equal to the primary's, up to `stored`.
    AppendAccepted {
        /// The term of the append that proved it.
        term: Term,
        /// The highest index that is proved equal and durable; the sender's log may be longer.
        stored: Index,
        /// The newest round that an append carried.
        round: u64,
    },
    /// Rejects an append because its `prev` is not in the sender's log.
    AppendRejected {
        /// The term of the append.
        term: Term,
        /// The highest index at which the two logs may be equal.
        hint: Index,
    },
    /// Rejects a packet because the sender's term is higher.
    HigherTerm {
        /// The sender's term.
        term: Term,
    },
    /// Asks for a pre-vote. It changes no state of the receiver's term or vote.
    AskPreVote(Ask),
    /// The answer to [`Packet::AskPreVote`].
    PreVote {
        /// The term of the request.
        term: Term,
        /// The sender would vote for the receiver.
        granted: bool,
        /// The sender's own term.
        own: Term,
    },
    /// Asks for a vote.
    AskVote(Ask),
    /// The answer to [`Packet::AskVote`]. A granted vote is durable.
    Vote {
        /// The sender's term.
        term: Term,
        /// The sender votes for the receiver.
        granted: bool,
    },
    /// The sender was primary in this term and has stepped down.
    SteppedDown {
        /// The term in which it was primary.
        term: Term,
    },
    /// Campaign now, without a pre-vote: the primary of this term hands over (`TimeoutNow` in
    /// Ongaro §3.10).
    TimeoutNow {
        /// The sender's term.
        term: Term,
    },
    /// The sender, a backup, has refused to follow this epoch; the primary logs the refusal.
    Refuses(Epoch),
    /// An operator's hello and order in one packet, on a link of its own: hand the primary role
    /// over. The server sends a verdict and closes the link. The operator is not a server, is
    /// never a member and never counts.
    Order {
        /// The group that the operator addresses.
        group: GroupId,
        /// The backup that takes over; `None` allows any backup.
        to: Option<ServerId>,
    },
    /// The answer to an order.
    Verdict(Verdict),
    /// Passwords that the primary has verified follow; the node processes them.
    Proofs,
    /// The answer to [`Packet::Proofs`]: the receiver may send more.
    ProofsTaken,
    /// An operator's hello and request about accounts in one packet. The request's line follows;
    /// the node processes it.
    Request {
        /// The group that the operator addresses.
        group: GroupId,
    },
    /// The answer to a request; its lines follow.
    Answer,
    /// The sender's settings follow; the node processes them.
    Settings,
    /// The sender, primary of two members, wants to change the members, and asks the receiver to
    /// give up the promise that pongs gave it.
    AskRelease {
        /// When the sender asked, by its own clock.
        asked: Moment,
    },
    /// The sender has given up that promise, and accepts none for pings that it sent before.
    Released {
        /// The request's `asked`.
        asked: Moment,
    },
    /// Asks for acknowledged entries that the sender can't read from its own disk any more; the
    /// node processes it.
    Fetch {
        /// The first one.
        first: Index,
        /// The last one.
        last: Index,
    },
    /// The digest of the sender's state after an entry; the node processes it.
    Digest {
        /// The entry.
        index: Index,
        /// The digest.
        digest: u64,
    },
    /// The answer to [`Packet::Fetch`]; the records of the first ones of these entries follow, or
    /// nothing. The node processes it.
    Fetched,
}

/// The bytes are no valid packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPacket;

/// The kinds of first packets. Their bytes begin with the version.
const FIRST_KINDS: [u8; 3] = [1, 16, 20];

/// The packets of this version: their kinds and fields.
macro_rules! packets {
    ($($kind:literal $name:ident $(($value:ident))? $({ $($field:ident),* })?)*) => {
        fn write(packet: &Packet, out: &mut Vec<u8>) {
            match packet {
                Packet::Foreign { version } => {
                    out.push(1);
                    version.write(out);
                }
                $(Packet::$name $(($value))? $({ $($field),* })? => {
                    out.push($kind);
                    if FIRST_KINDS.contains(&$kind) {
                        VERSION.write(out);
                    }
                    $($value.write(out);)?
                    $($($field.write(out);)*)?
                })*
            }
        }

        fn read(rest: &mut &[u8]) -> Option<Packet> {
            let kind = u8::read(rest)?;
            if FIRST_KINDS.contains(&kind) {
                let version = u16::read(rest)?;
                if version != VERSION {
                    // The format of another version's fields is unknown.
                    *rest = &[];
                    return Some(Packet::Foreign { version });
                }
            }
            Some(match kind {
                $($kind => {
                    $(let $value = Field::read(rest)?;)?
                    $($(let $field = Field::read(rest)?;)*)?
                    Packet::$name $(($value))? $({ $($field),* })?
                })*
                _ => return None,
            })
        }
    };
}

packets! {
    1 Hello(hello)
    2 Refused(refusal)
    3 Ping { sent, wall, health }
    4 Pong { sent, promised }
    5 Blank { met }
    6 Append(append)
    7 AppendAccepted { term, stored, round }
    8 AppendRejected { term, hint }
    9 HigherTerm { term }
    10 AskPreVote(ask)
    11 PreVote { term, granted, own }
    12 AskVote(ask)
    13 Vote { term, granted }
    14 SteppedDown { term }
    15 TimeoutNow { term }
    16 Order { group, to }
    17 Verdict(verdict)
    18 Proofs
    19 ProofsTaken
    20 Request { group }
    21 Answer
    22 Refuses(epoch)
    23 Settings
    24 AskRelease { asked }
    25 Released { asked }
    26 Fetch { first, last }
    27 Fetched
    28 Digest { index, digest }
}

fields!(Append { term, prev, committed, acknowledged, round } Ask { term, last, config });
fields!(PeerHealth { leads, stopping, slow, full, damaged, lacks_entries });
numbered!(Verdict);

impl Packet {
    /// Appends the packet to `out`. The caller appends what follows an append, a hello, proofs,
    /// settings, a request or its answer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write(self, out);
    }

    /// Returns the term that the sender claims to be in, or wants to be elected in.
    pub(crate) fn term(&self) -> Option<Term> {
        match *self {
            Packet::Hello(hello) => Some(hello.term),
            Packet::Append(append) => Some(append.term),
            Packet::AppendAccepted { term, .. }
            | Packet::AppendRejected { term, .. }
            | Packet::HigherTerm { term }
            | Packet::Vote { term, .. }
            | Packet::SteppedDown { term }
            | Packet::TimeoutNow { term } => Some(term),
            Packet::AskPreVote(ask) | Packet::AskVote(ask) => Some(ask.term),
            Packet::PreVote { term, own, .. } => Some(term.max(own)),
            _ => None,
        }
    }

    /// Reads a packet, and returns the bytes after it: records, a past, proofs, settings, lines,
    /// or nothing.
    pub fn decode(mut bytes: &[u8]) -> Result<(Packet, &[u8]), BadPacket> {
        let packet = read(&mut bytes).ok_or(BadPacket)?;
        let may_follow = matches!(
            packet,
            Packet::Hello(_)
                | Packet::Append(_)
                | Packet::Proofs
                | Packet::Request { .. }
                | Packet::Answer
                | Packet::Settings
                | Packet::Fetched
        );
        if may_follow || bytes.is_empty() { Ok((packet, bytes)) } else { Err(BadPacket) }
    }
}

#[cfg(test)]
mod tests {
    use super::sample_hello;
    use super::*;
    use crate::rng::Rng;

    fn samples() -> Vec<Packet> {
        let hello = sample_hello();
        let (member, at) = (hello.from, hello.last);
        let ask = Ask { term: Term(5), last: at, config: Config::new([member], true) };
        let append = Append {
            term: Term(1),
            prev: at,
            committed: Index(2),
            acknowledged: Index(3),
            round: 4,
        };
        let mut all = vec![
            Packet::Hello(hello),
            Packet::Foreign { version: 77 },
            Packet::Hello(Hello { founder: Some(DiskId(10)), ..hello }),
            Packet::Ping { sent: Moment(1), wall: WallTime(0), health: PeerHealth::default() },
            Packet::Ping {
                sent: Moment(1),
                wall: WallTime(u64::MAX),
                health: PeerHealth {
                    leads: true,
                    stopping: true,
                    slow: true,
                    full: true,
                    damaged: true,
                    lacks_entries: true,
                },
            },
            Packet::Pong { sent: Moment(2), promised: None },
            Packet::Pong { sent: Moment(2), promised: Some(at) },
            Packet::Blank { met: [DiskId(1), DiskId(2), DiskId(3)] },
            Packet::Append(append),
            Packet::AppendAccepted { term: Term(1), stored: Index(2), round: 3 },
            Packet::AppendRejected { term: Term(1), hint: Index(2) },
            Packet::HigherTerm { term: Term(1) },
            Packet::AskPreVote(ask),
            Packet::PreVote { term: Term(1), granted: true, own: Term(2) },
            Packet::AskVote(ask),
            Packet::Vote { term: Term(1), granted: false },
            Packet::SteppedDown { term: Term(1) },
            Packet::TimeoutNow { term: Term(1) },
            Packet::Order { group: GroupId(1), to: None },
            Packet::Order { group: GroupId(1), to: ServerId::new(3) },
            Packet::Request { group: GroupId(1) },
            Packet::Answer,
            Packet::Refuses(Epoch { number: 5, founder: DiskId(6) }),
            Packet::Proofs,
            Packet::ProofsTaken,
            Packet::Settings,
            Packet::AskRelease { asked: Moment(3) },
            Packet::Released { asked: Moment(3) },
            Packet::Fetch { first: Index(1), last: Index(9) },
            Packet::Fetched,
            Packet::Digest { index: Index(50), digest: 7 },
        ];
        all.extend(Verdict::ALL.map(Packet::Verdict));
        all.extend(Refusal::ALL.map(Packet::Refused));
        all
    }

    #[test]
    fn every_packet_survives_its_bytes() {
        for packet in samples() {
            let mut bytes = Vec::new();
            packet.encode(&mut bytes);
            assert_eq!(Packet::decode(&bytes), Ok((packet, &[][..])));
            for length in 0..bytes.len() {
                assert_eq!(Packet::decode(&bytes[..length]), Err(BadPacket), "{packet:?}");
            }
            bytes.push(7);
            match packet {
                Packet::Foreign { .. } => assert_eq!(Packet::decode(&bytes), Ok((packet, &[][..]))),
                Packet::Hello(_)
                | Packet::Append(_)
                | Packet::Request { .. }
                | Packet::Answer
                | Packet::Proofs
                | Packet::Settings
                | Packet::Fetched => {
                    assert_eq!(Packet::decode(&bytes), Ok((packet, &[7][..])));
                }
                _ => assert_eq!(Packet::decode(&bytes), Err(BadPacket), "{packet:?}"),
            }
        }
    }

    /// Servers of one version understand each other: a change of these bytes needs another one.
    #[test]
    fn the_bytes_of_this_version_stay_the_same() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|packet| packet.encode(&mut bytes));
        assert_eq!((VERSION, bytes.len(), crc32c::crc32c(&bytes)), (9, 740, 2_132_843_175));
    }

    #[test]
    fn garbage_never_panics() {
        let seed = 11;
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        for _ in 0..20_000 {
            let length = rng.below(80);
            let bytes: Vec<u8> = (0..length).map(|_| rng.below(256) as u8).collect();
            let _ = Packet::decode(&bytes);
        }
    }
}
