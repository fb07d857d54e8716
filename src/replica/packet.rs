//! What servers say to each other, and its bytes: one kind byte, then the fields, little-endian.

use super::members::Config;
use crate::moment::Moment;
use crate::names::{
    DiskId, GroupId, Incarnation, Index, Member, Position, ProcessId, ServerId, Term,
};
use byteorder::{LE, ReadBytesExt, WriteBytesExt};
use std::{fmt, io};

/// The version of the packets; servers of other versions are refused.
pub(super) const VERSION: u16 = 1;

/// What must agree between the servers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The group.
    pub group: GroupId,
    /// How many servers it has.
    pub servers: u8,
    /// `T` in milliseconds.
    pub silence_ms: u32,
    /// Fewest members with which changes are taken.
    pub copies_min: u8,
    /// Whether a last survivor goes on by itself.
    pub survivor_auto: bool,
}

/// The first packet on a link, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Settings that must agree.
    pub shared: Shared,
    /// Who speaks.
    pub from: Member,
    /// Whom the sender takes the receiver for.
    pub to: ServerId,
    /// How often the sender's disk was started.
    pub incarnation: Incarnation,
    /// Which run of the server speaks.
    pub process: ProcessId,
    /// Counts the hellos of a process: of two, tells the later.
    pub serial: u64,
    /// The sender has another link to the receiver, or has begun one.
    pub has_other: bool,
    /// The sender's term.
    pub term: Term,
    /// The end of the sender's stored log.
    pub last: Position,
}

/// Why a link is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another version of the packets.
    Version,
    /// Another group.
    Group,
    /// Another number of servers, silence, copies or survivor rule.
    Settings,
    /// Both have the same id.
    SameId,
    /// The receiver is not whom the sender dialled.
    WrongId,
    /// Its disk was seen in a later life: an old copy of a directory.
    OldCopy,
    /// A history that a person began over another one.
    Lineage,
}

/// Entries behind `prev`, or none; the records follow the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append {
    /// The primary's term.
    pub term: Term,
    /// The entry before the first one sent.
    pub prev: Position,
    /// How far the primary knows entries committed.
    pub committed: Index,
    /// How far they are answered.
    pub answered: Index,
    /// The primary's newest round of reads.
    pub round: u64,
}

/// A request for a vote, or for a promise of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The term to be elected in.
    pub term: Term,
    /// The end of the candidate's log.
    pub last: Position,
    /// The candidate's newest config: a blank server looks for itself in it.
    pub config: Config,
}

/// What one server says to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// The first packet of each side; its bytes begin with the version.
    Hello(Hello),
    /// A hello of another version, of which nothing else is read.
    Foreign {
        /// The sender's version.
        version: u16,
    },
    /// The answer to a hello that is not accepted.
    Refused(Refusal),
    /// Asks for a pong.
    Ping {
        /// The sender's clock, returned as it is.
        sent: Moment,
        /// The sender is primary: who stepped down while a link was lost says so here.
        leads: bool,
    },
    /// The answer to a ping.
    Pong {
        /// The ping's `sent`.
        sent: Moment,
    },
    /// The sender has no config, and has met these disks.
    Blank {
        /// By id.
        met: [DiskId; 3],
    },
    /// See [`Append`].
    Append(Append),
    /// The sender's log is equal to the primary's, and durable, up to `stored`.
    Stored {
        /// The term in which the primary said what it holds.
        term: Term,
        /// Never simply the last index.
        stored: Index,
        /// The newest round that came with an append.
        round: u64,
    },
    /// An append's `prev` is not in the sender's log.
    Behind {
        /// The term of the append.
        term: Term,
        /// Where both logs may be equal, at most.
        hint: Index,
    },
    /// The sender's term is higher than that of what was said to it.
    Stale {
        /// The sender's term.
        term: Term,
    },
    /// Would you vote for me? Changes nothing.
    AskPreVote(Ask),
    /// The answer to [`Packet::AskPreVote`].
    PreVote {
        /// The term asked for.
        term: Term,
        /// The sender would vote.
        granted: bool,
        /// The sender's own term.
        own: Term,
    },
    /// Vote for me.
    AskVote(Ask),
    /// The answer to [`Packet::AskVote`], durable.
    Vote {
        /// The sender's term.
        term: Term,
        /// The sender votes for the receiver.
        granted: bool,
    },
    /// The sender was primary in this term and is no more.
    SteppedDown {
        /// The term it led.
        term: Term,
    },
}

/// A packet that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPacket;

impl From<io::Error> for BadPacket {
    fn from(_: io::Error) -> BadPacket {
        BadPacket
    }
}

impl Packet {
    /// Writes the packet behind `out`. The records of an append follow it.
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
            Packet::Ping { sent, leads } => {
                out.write_u8(3)?;
                out.write_u64::<LE>(sent.0)?;
                out.write_u8(u8::from(leads))
            }
            Packet::Pong { sent } => out.write_u8(4).and_then(|()| out.write_u64::<LE>(sent.0)),
            Packet::Blank { met } => {
                out.write_u8(5)?;
                met.iter().try_for_each(|disk| out.write_u128::<LE>(disk.0))
            }
            Packet::Append(append) => {
                out.write_u8(6)?;
                out.write_u64::<LE>(append.term.0)?;
                write_position(out, append.prev)?;
                out.write_u64::<LE>(append.committed.0)?;
                out.write_u64::<LE>(append.answered.0)?;
                out.write_u64::<LE>(append.round)
            }
            Packet::Stored { term, stored, round } => {
                out.write_u8(7)?;
                out.write_u64::<LE>(term.0)?;
                out.write_u64::<LE>(stored.0)?;
                out.write_u64::<LE>(round)
            }
            Packet::Behind { term, hint } => {
                out.write_u8(8)?;
                out.write_u64::<LE>(term.0)?;
                out.write_u64::<LE>(hint.0)
            }
            Packet::Stale { term } => out.write_u8(9).and_then(|()| out.write_u64::<LE>(term.0)),
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
        }
    }

    /// Reads a packet, and gives what lies behind it: the records of an append, else nothing.
    pub fn decode(mut from: &[u8]) -> Result<(Packet, &[u8]), BadPacket> {
        let rest = &mut from;
        let packet = match rest.read_u8()? {
            1 => match rest.read_u16::<LE>()? {
                VERSION => Packet::Hello(Hello::read(rest)?),
                // The fields of another version are not ours to judge.
                version => return Ok((Packet::Foreign { version }, &[])),
            },
            2 => Packet::Refused(Refusal::from_number(rest.read_u8()?)?),
            3 => {
                let sent = Moment(rest.read_u64::<LE>()?);
                Packet::Ping { sent, leads: read_bool(rest)? }
            }
            4 => Packet::Pong { sent: Moment(rest.read_u64::<LE>()?) },
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
                    answered: Index(rest.read_u64::<LE>()?),
                    round: rest.read_u64::<LE>()?,
                };
                return Ok((Packet::Append(append), rest));
            }
            7 => Packet::Stored {
                term: Term(rest.read_u64::<LE>()?),
                stored: Index(rest.read_u64::<LE>()?),
                round: rest.read_u64::<LE>()?,
            },
            8 => Packet::Behind {
                term: Term(rest.read_u64::<LE>()?),
                hint: Index(rest.read_u64::<LE>()?),
            },
            9 => Packet::Stale { term: Term(rest.read_u64::<LE>()?) },
            10 => Packet::AskPreVote(Ask::read(rest)?),
            11 => Packet::PreVote {
                term: Term(rest.read_u64::<LE>()?),
                granted: read_bool(rest)?,
                own: Term(rest.read_u64::<LE>()?),
            },
            12 => Packet::AskVote(Ask::read(rest)?),
            13 => Packet::Vote { term: Term(rest.read_u64::<LE>()?), granted: read_bool(rest)? },
            14 => Packet::SteppedDown { term: Term(rest.read_u64::<LE>()?) },
            _ => return Err(BadPacket),
        };
        if rest.is_empty() { Ok((packet, &[])) } else { Err(BadPacket) }
    }
}

impl Hello {
    fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        out.write_u128::<LE>(self.shared.group.0)?;
        out.write_u8(self.shared.servers)?;
        out.write_u32::<LE>(self.shared.silence_ms)?;
        out.write_u8(self.shared.copies_min)?;
        out.write_u8(u8::from(self.shared.survivor_auto))?;
        out.write_u8(self.from.id.number())?;
        out.write_u128::<LE>(self.from.disk.0)?;
        out.write_u8(self.to.number())?;
        out.write_u64::<LE>(self.incarnation.0)?;
        out.write_u64::<LE>(self.process.0)?;
        out.write_u64::<LE>(self.serial)?;
        out.write_u8(u8::from(self.has_other))?;
        out.write_u64::<LE>(self.term.0)?;
        write_position(out, self.last)
    }

    fn read(rest: &mut &[u8]) -> Result<Hello, BadPacket> {
        let shared = Shared {
            group: GroupId(rest.read_u128::<LE>()?),
            servers: rest.read_u8()?,
            silence_ms: rest.read_u32::<LE>()?,
            copies_min: rest.read_u8()?,
            survivor_auto: read_bool(rest)?,
        };
        Ok(Hello {
            shared,
            from: Member { id: read_id(rest)?, disk: DiskId(rest.read_u128::<LE>()?) },
            to: read_id(rest)?,
            incarnation: Incarnation(rest.read_u64::<LE>()?),
            process: ProcessId(rest.read_u64::<LE>()?),
            serial: rest.read_u64::<LE>()?,
            has_other: read_bool(rest)?,
            term: Term(rest.read_u64::<LE>()?),
            last: read_position(rest)?,
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

impl Refusal {
    const ALL: [Refusal; 7] = [
        Refusal::Version,
        Refusal::Group,
        Refusal::Settings,
        Refusal::SameId,
        Refusal::WrongId,
        Refusal::OldCopy,
        Refusal::Lineage,
    ];

    fn from_number(number: u8) -> Result<Refusal, BadPacket> {
        Refusal::ALL.get(usize::from(number)).copied().ok_or(BadPacket)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Version => "it speaks another version",
            Refusal::Group => "it belongs to another group",
            Refusal::Settings => "its settings differ (number of servers, silence_ms)",
            Refusal::SameId => "both servers have the same id",
            Refusal::WrongId => "another server answers at that address",
            Refusal::OldCopy => "its data directory is an old copy",
            Refusal::Lineage => "a person began another history there",
        })
    }
}

fn write_position(out: &mut Vec<u8>, at: Position) -> io::Result<()> {
    out.write_u64::<LE>(at.term.0)?;
    out.write_u64::<LE>(at.index.0)
}

fn read_position(rest: &mut &[u8]) -> Result<Position, BadPacket> {
    Ok(Position { term: Term(rest.read_u64::<LE>()?), index: Index(rest.read_u64::<LE>()?) })
}

fn read_id(rest: &mut &[u8]) -> Result<ServerId, BadPacket> {
    ServerId::new(rest.read_u8()?).ok_or(BadPacket)
}

fn read_bool(rest: &mut &[u8]) -> Result<bool, BadPacket> {
    match rest.read_u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(BadPacket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn samples() -> Vec<Packet> {
        let member = Member { id: ServerId::new(2).unwrap(), disk: DiskId(99) };
        let at = Position { term: Term(3), index: Index(4) };
        let ask = Ask { term: Term(5), last: at, config: Config::new([member], true) };
        let shared = Shared {
            group: GroupId(1),
            servers: 3,
            silence_ms: 2000,
            copies_min: 1,
            survivor_auto: false,
        };
        let hello = Hello {
            shared,
            from: member,
            to: ServerId::new(1).unwrap(),
            incarnation: Incarnation(6),
            process: ProcessId(7),
            serial: 8,
            has_other: true,
            term: Term(9),
            last: at,
        };
        let append =
            Append { term: Term(1), prev: at, committed: Index(2), answered: Index(3), round: 4 };
        let mut all = vec![
            Packet::Hello(hello),
            Packet::Foreign { version: 77 },
            Packet::Ping { sent: Moment(1), leads: true },
            Packet::Pong { sent: Moment(2) },
            Packet::Blank { met: [DiskId(1), DiskId(2), DiskId(3)] },
            Packet::Append(append),
            Packet::Stored { term: Term(1), stored: Index(2), round: 3 },
            Packet::Behind { term: Term(1), hint: Index(2) },
            Packet::Stale { term: Term(1) },
            Packet::AskPreVote(ask),
            Packet::PreVote { term: Term(1), granted: true, own: Term(2) },
            Packet::AskVote(ask),
            Packet::Vote { term: Term(1), granted: false },
            Packet::SteppedDown { term: Term(1) },
        ];
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
                Packet::Append(_) => assert_eq!(Packet::decode(&bytes), Ok((packet, &[7][..]))),
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
