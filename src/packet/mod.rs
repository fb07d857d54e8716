//! The packets between servers and their encoding: one kind byte, then the fields, little-endian.

mod hello;
mod past;

use crate::config::Config;
use crate::ids::{DiskId, GroupId, Index, Position, ServerId, Term};
use crate::time::{Moment, WallTime};
use byteorder::{LE, ReadBytesExt, WriteBytesExt};
#[cfg(test)]
pub(crate) use hello::sample_hello;
pub use hello::{Hello, Refusal, Shared};
pub use past::{Epoch, Past};
use std::{fmt, io};

/// The version of the packets; servers refuse other versions.
pub(crate) const VERSION: u16 = 5;

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
}

/// An operator's order, sent over a link of its own. The operator is not a server (its hello has
/// id 0), is never a member and never counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Hand the primary role over to this backup, or to any backup.
    HandOver(Option<ServerId>),
}

/// The answer to an [`Order`].
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
    /// An operator's hello and order in one packet. The server sends a verdict and closes the
    /// link.
    Order {
        /// The group that the operator addresses.
        group: GroupId,
        /// The order.
        order: Order,
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
}

/// The bytes are no valid packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPacket;

impl From<io::Error> for BadPacket {
    fn from(_: io::Error) -> BadPacket {
        BadPacket
    }
}

impl Packet {
    /// Appends the packet to `out`. The caller appends what follows an append, a hello, proofs,
    /// settings, a request or its answer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(out).expect("a vector takes every byte");
    }

    fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        match *self {
            Packet::Hello(hello) => {
                out.write_u8(1)?;
                out.write_u16::<LE>(VERSION)?;
                hello.write(out)
            }
            Packet::Foreign { version } => {
                out.write_u8(1)?;
                out.write_u16::<LE>(version)
            }
            Packet::Refused(refusal) => out.write_u8(2).and_then(|()| out.write_u8(refusal as u8)),
            Packet::Ping { sent, wall, health } => {
                out.write_u8(3).and_then(|()| out.write_u64::<LE>(sent.0))?;
                out.write_u64::<LE>(wall.0).and_then(|()| out.write_u8(health.bits()))
            }
            Packet::Pong { sent, promised } => {
                out.write_u8(4)?;
                out.write_u64::<LE>(sent.0)?;
                write_option(out, promised, write_position)
            }
            Packet::Blank { met } => {
                out.write_u8(5)?;
                met.iter().try_for_each(|disk| out.write_u128::<LE>(disk.0))
            }
            Packet::Append(append) => {
                out.write_u8(6)?;
                out.write_u64::<LE>(append.term.0)?;
                write_position(out, append.prev)?;
                out.write_u64::<LE>(append.committed.0)?;
                out.write_u64::<LE>(append.acknowledged.0)?;
                out.write_u64::<LE>(append.round)
            }
            Packet::AppendAccepted { term, stored, round } => {
                out.write_u8(7)?;
                out.write_u64::<LE>(term.0)?;
                out.write_u64::<LE>(stored.0)?;
                out.write_u64::<LE>(round)
            }
            Packet::AppendRejected { term, hint } => {
                out.write_u8(8)?;
                out.write_u64::<LE>(term.0)?;
                out.write_u64::<LE>(hint.0)
            }
            Packet::HigherTerm { term } => {
                out.write_u8(9).and_then(|()| out.write_u64::<LE>(term.0))
            }
            Packet::AskPreVote(ask) => out.write_u8(10).and_then(|()| ask.write(out)),
            Packet::PreVote { term, granted, own } => {
                out.write_u8(11)?;
                out.write_u64::<LE>(term.0)?;
                out.write_u8(u8::from(granted))?;
                out.write_u64::<LE>(own.0)
            }
            Packet::AskVote(ask) => out.write_u8(12).and_then(|()| ask.write(out)),
            Packet::Vote { term, granted } => {
                out.write_u8(13)?;
                out.write_u64::<LE>(term.0)?;
                out.write_u8(u8::from(granted))
            }
            Packet::SteppedDown { term } => {
                out.write_u8(14).and_then(|()| out.write_u64::<LE>(term.0))
            }
            Packet::TimeoutNow { term } => {
                out.write_u8(15).and_then(|()| out.write_u64::<LE>(term.0))
            }
            Packet::Order { group, order } => {
                out.write_u8(16)?;
                out.write_u16::<LE>(VERSION)?;
                out.write_u128::<LE>(group.0)?;
                out.write_u8(order.number())
            }
            Packet::Verdict(verdict) => out.write_u8(17).and_then(|()| out.write_u8(verdict as u8)),
            Packet::Proofs => out.write_u8(18),
            Packet::ProofsTaken => out.write_u8(19),
            Packet::Request { group } => {
                out.write_u8(20)?;
                out.write_u16::<LE>(VERSION)?;
                out.write_u128::<LE>(group.0)
            }
            Packet::Answer => out.write_u8(21),
            Packet::Settings => out.write_u8(23),
            Packet::AskRelease { asked } => {
                out.write_u8(24).and_then(|()| out.write_u64::<LE>(asked.0))
            }
            Packet::Released { asked } => {
                out.write_u8(25).and_then(|()| out.write_u64::<LE>(asked.0))
            }
            Packet::Refuses(epoch) => {
                out.write_u8(22)?;
                epoch.encode(out);
                Ok(())
            }
        }
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
    pub fn decode(mut from: &[u8]) -> Result<(Packet, &[u8]), BadPacket> {
        let rest = &mut from;
        let packet = match rest.read_u8()? {
            1 => match rest.read_u16::<LE>()? {
                VERSION => return Ok((Packet::Hello(Hello::read(rest)?), rest)),
                // The format of another version's fields is unknown.
                version => return Ok((Packet::Foreign { version }, &[])),
            },
            2 => Packet::Refused(Refusal::from_number(rest.read_u8()?)?),
            3 => {
                let (sent, wall) =
                    (Moment(rest.read_u64::<LE>()?), WallTime(rest.read_u64::<LE>()?));
                Packet::Ping { sent, wall, health: PeerHealth::from_bits(rest.read_u8()?)? }
            }
            4 => {
                let sent = Moment(rest.read_u64::<LE>()?);
                Packet::Pong { sent, promised: read_option(rest, read_position)? }
            }
            5 => {
                let mut met = [DiskId(0); 3];
                for disk in &mut met {
                    *disk = DiskId(rest.read_u128::<LE>()?);
                }
                Packet::Blank { met }
            }
            6 => {
                let append = Append {
                    term: Term(rest.read_u64::<LE>()?),
                    prev: read_position(rest)?,
                    committed: Index(rest.read_u64::<LE>()?),
                    acknowledged: Index(rest.read_u64::<LE>()?),
                    round: rest.read_u64::<LE>()?,
                };
                return Ok((Packet::Append(append), rest));
            }
            7 => Packet::AppendAccepted {
                term: Term(rest.read_u64::<LE>()?),
                stored: Index(rest.read_u64::<LE>()?),
                round: rest.read_u64::<LE>()?,
            },
            8 => Packet::AppendRejected {
                term: Term(rest.read_u64::<LE>()?),
                hint: Index(rest.read_u64::<LE>()?),
            },
            9 => Packet::HigherTerm { term: Term(rest.read_u64::<LE>()?) },
            10 => Packet::AskPreVote(Ask::read(rest)?),
            11 => Packet::PreVote {
                term: Term(rest.read_u64::<LE>()?),
                granted: read_bool(rest)?,
                own: Term(rest.read_u64::<LE>()?),
            },
            12 => Packet::AskVote(Ask::read(rest)?),
            13 => Packet::Vote { term: Term(rest.read_u64::<LE>()?), granted: read_bool(rest)? },
            14 => Packet::SteppedDown { term: Term(rest.read_u64::<LE>()?) },
            15 => Packet::TimeoutNow { term: Term(rest.read_u64::<LE>()?) },
            16 => match rest.read_u16::<LE>()? {
                VERSION => {
                    let group = GroupId(rest.read_u128::<LE>()?);
                    Packet::Order { group, order: Order::from_number(rest.read_u8()?)? }
                }
                version => return Ok((Packet::Foreign { version }, &[])),
            },
            17 => Packet::Verdict(Verdict::from_number(rest.read_u8()?)?),
            18 => return Ok((Packet::Proofs, rest)),
            19 => Packet::ProofsTaken,
            20 => match rest.read_u16::<LE>()? {
                VERSION => {
                    let group = GroupId(rest.read_u128::<LE>()?);
                    return Ok((Packet::Request { group }, rest));
                }
                version => return Ok((Packet::Foreign { version }, &[])),
            },
            21 => return Ok((Packet::Answer, rest)),
            23 => return Ok((Packet::Settings, rest)),
            24 => Packet::AskRelease { asked: Moment(rest.read_u64::<LE>()?) },
            25 => Packet::Released { asked: Moment(rest.read_u64::<LE>()?) },
            22 => {
                let epoch = Epoch::decode(rest).ok_or(BadPacket)?;
                return Ok((Packet::Refuses(epoch), &[]));
            }
            _ => return Err(BadPacket),
        };
        if rest.is_empty() { Ok((packet, &[])) } else { Err(BadPacket) }
    }
}

impl PeerHealth {
    fn bits(self) -> u8 {
        let bits = [self.leads, self.stopping, self.slow, self.full, self.damaged];
        bits.into_iter().rev().fold(0, |bits, bit| bits << 1 | u8::from(bit))
    }

    fn from_bits(bits: u8) -> Result<PeerHealth, BadPacket> {
        let [leads, stopping, slow, full, damaged] = [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
        let health = PeerHealth { leads, stopping, slow, full, damaged };
        if bits < 32 { Ok(health) } else { Err(BadPacket) }
    }
}

impl Order {
    /// Returns the id of the chosen backup, or 0 for any backup.
    fn number(self) -> u8 {
        let Order::HandOver(to) = self;
        to.map_or(0, ServerId::number)
    }

    fn from_number(number: u8) -> Result<Order, BadPacket> {
        match number {
            0 => Ok(Order::HandOver(None)),
            id => ServerId::new(id).map(|id| Order::HandOver(Some(id))).ok_or(BadPacket),
        }
    }
}

impl Verdict {
    const ALL: [Verdict; 4] =
        [Verdict::Taken, Verdict::NotPrimary, Verdict::NoBackup, Verdict::OtherGroup];

    fn from_number(number: u8) -> Result<Verdict, BadPacket> {
        Verdict::ALL.get(usize::from(number)).copied().ok_or(BadPacket)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Taken => "it is begun",
            Verdict::NotPrimary => "this server is not primary",
            Verdict::NoBackup => "no backup is connected, reachable and not stopping",
            Verdict::OtherGroup => "it belongs to another group",
        })
    }
}

impl Ask {
    fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        out.write_u64::<LE>(self.term.0)?;
        write_position(out, self.last)?;
        self.config.encode(out);
        Ok(())
    }

    fn read(rest: &mut &[u8]) -> Result<Ask, BadPacket> {
        let term = Term(rest.read_u64::<LE>()?);
        let last = read_position(rest)?;
        let config = Config::decode(rest).ok_or(BadPacket)?;
        *rest = &[];
        Ok(Ask { term, last, config })
    }
}

pub(crate) fn write_position(out: &mut Vec<u8>, at: Position) -> io::Result<()> {
    out.write_u64::<LE>(at.term.0)?;
    out.write_u64::<LE>(at.index.0)
}

pub(crate) fn read_position(rest: &mut &[u8]) -> Result<Position, BadPacket> {
    Ok(Position { term: Term(rest.read_u64::<LE>()?), index: Index(rest.read_u64::<LE>()?) })
}

pub(crate) fn write_option<T>(
    out: &mut Vec<u8>,
    value: Option<T>,
    write: impl FnOnce(&mut Vec<u8>, T) -> io::Result<()>,
) -> io::Result<()> {
    out.write_u8(u8::from(value.is_some()))?;
    value.map_or(Ok(()), |value| write(out, value))
}

pub(crate) fn read_option<T>(
    rest: &mut &[u8],
    read: impl FnOnce(&mut &[u8]) -> Result<T, BadPacket>,
) -> Result<Option<T>, BadPacket> {
    if read_bool(rest)? { read(rest).map(Some) } else { Ok(None) }
}

pub(crate) fn read_id(rest: &mut &[u8]) -> Result<ServerId, BadPacket> {
    ServerId::new(rest.read_u8()?).ok_or(BadPacket)
}

pub(crate) fn read_bool(rest: &mut &[u8]) -> Result<bool, BadPacket> {
    match rest.read_u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(BadPacket),
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
            Packet::Order { group: GroupId(1), order: Order::HandOver(None) },
            Packet::Order { group: GroupId(1), order: Order::HandOver(ServerId::new(3)) },
            Packet::Request { group: GroupId(1) },
            Packet::Answer,
            Packet::Refuses(Epoch { number: 5, founder: DiskId(6) }),
            Packet::Proofs,
            Packet::ProofsTaken,
            Packet::Settings,
            Packet::AskRelease { asked: Moment(3) },
            Packet::Released { asked: Moment(3) },
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
                | Packet::Settings => {
                    assert_eq!(Packet::decode(&bytes), Ok((packet, &[7][..])));
                }
                _ => assert_eq!(Packet::decode(&bytes), Err(BadPacket), "{packet:?}"),
            }
        }
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
