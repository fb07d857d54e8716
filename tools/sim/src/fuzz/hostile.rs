//! Hostile packets, made from the bytes of a case and the state of the victim.

use super::case::{Args, pick};
use super::packets::peer;
use super::victim::{Victim, disk_of, past};
use crate::simulate::GROUP;
use postern::content::{Attributes, Content};
use postern::ids::{
    DiskId, Incarnation, Index, Member, Position, ProcessId, ServerId, Term, UserName,
};
use postern::mailbox::Change;
use postern::record::{self, Kind};
use postern::replica::{
    Append, Ask, Config, Epoch, Hello, Origin, Packet, PeerHealth, Refusal, RoleView, Verdict,
};
use postern::rng::Rng;
use postern::time::{Moment, WallTime};

/// How many kinds of packets [`build`] knows.
const KINDS: u8 = 28;
/// The length of a verified password in a packet.
const PROOF_BYTES: usize = 24;
/// More verified passwords than fit into a frame.
const PROOFS_MAX: u64 = 10_000;
/// Requests of an operator.
const REQUESTS: [&str; 6] = [
    "CREATE carl correct-horse",
    "USERS",
    "USERS ann",
    "RESET ann other-horse",
    "REMOVE ann",
    "no such request",
];

/// Makes a number: a known number of the victim, and the distance from it.
pub(super) fn number(rng: &mut Rng) -> [u8; 2] {
    let near = pick(rng, 13) as u8;
    let far = match rng.below(4) {
        0 => 0,
        1 => 1,
        2 => rng.below(8) as u8,
        _ => (rng.below(9) as u8).wrapping_sub(4),
    };
    [near, far]
}

/// Makes the bytes of a packet for [`build`], with mostly valid numbers.
pub(super) fn packet(rng: &mut Rng) -> Vec<u8> {
    let repeats = if rng.below(16) == 0 { rng.below(16) as u8 } else { 0 };
    // Half of all packets are appends.
    let kind = if rng.below(2) == 0 { 4 } else { rng.below(KINDS.into()) as u8 };
    let honest = rng.below(3) > 0;
    let mut out = vec![repeats, kind];
    let mut fields = |count: usize, honest: [u8; 2]| {
        for _ in 0..count {
            let wild = rng.below(6) == 0;
            out.extend(if wild { number(rng) } else { honest });
        }
    };
    match kind {
        4 => {
            // Term, index and term of the previous entry, committed, acknowledged, round.
            fields(1, [1, 0]);
            fields(1, [2, 0]);
            fields(1, [0, 0]);
            fields(1, [2, 2]);
            fields(1, [2, 2]);
            fields(1, [0, 1]);
            let near = rng.below(4);
            // Mostly after the last entry, sometimes at earlier ones.
            if near == 0 {
                out[5] = (rng.below(8) as u8).wrapping_neg();
            } else if near == 1 {
                out[4] = 4;
            }
            if rng.below(4) == 0 {
                out[3] = 1 + rng.below(2) as u8;
            }
            records(rng, &mut out);
        }
        // A blank server that has met the disks of the group.
        3 if honest => out.extend([0; 3]),
        _ => {
            fields(2, [1, 1]);
            fields(4, [2, 0]);
        }
    }
    out
}

/// Returns the bytes for [`build`] of a blank server that has met the disks of the group.
pub(super) fn blank() -> [u8; 5] {
    [0, 3, 0, 0, 0]
}

fn records(rng: &mut Rng, out: &mut Vec<u8>) {
    let count = rng.below(5);
    out.push(count as u8);
    for _ in 0..count {
        let kind = [1, 1, 2, 3, 4, 5, 5, 6, 99][pick(rng, 9)];
        let flags = if rng.below(5) == 0 { rng.below(256) as u8 } else { 0 };
        let config = 0b1_1100 | rng.below(2) as u8;
        let detail = if kind == 1 && rng.below(3) > 0 { config } else { rng.below(256) as u8 };
        out.extend([kind, flags, detail, (rng.below(4) / 3 * rng.below(256)) as u8]);
    }
}

/// Reads a number near one of the victim.
fn value(victim: &Victim, args: &mut Args<'_>) -> u64 {
    let replica = victim.process.node().replica();
    let term = replica.term();
    let epoch = u64::from(term.epoch()) << 48;
    let base = match args.byte() {
        0 => 0,
        1 => term.0,
        2 => replica.last().0,
        3 => replica.committed().0,
        4 => replica.acknowledged().0,
        5 => victim.process.store().stored().0,
        6 => epoch | ((1 << 48) - 1),
        7 => epoch.wrapping_add(1 << 48),
        8 => epoch.wrapping_add(2 << 48),
        9 => u64::MAX,
        10 => 0xffff << 48,
        11 => i64::MAX as u64,
        12 => 1 << 32,
        other => u64::from(other),
    };
    base.wrapping_add_signed(i64::from(args.byte() as i8))
}

fn position(victim: &Victim, args: &mut Args<'_>) -> Position {
    let index = Index(value(victim, args));
    let term = value(victim, args);
    if term == 0 { victim.position(index) } else { Position { index, term: Term(term) } }
}

/// Reads a hello. Zeros make an honest one.
pub(super) fn hello(victim: &Victim, args: &mut Args<'_>) -> Hello {
    let which = args.byte();
    let flags = args.byte();
    let mut hello = victim.hello(peer(victim, which));
    let mut number = |victim: &Victim| {
        let honest = args.0.iter().take(2).all(|byte| *byte == 0);
        let number = value(victim, args);
        (!honest).then_some(number)
    };
    hello.term = number(victim).map_or(hello.term, Term);
    hello.last.index = number(victim).map_or(hello.last.index, Index);
    hello.last.term = number(victim).map_or(hello.last.term, Term);
    hello.run.incarnation = number(victim).map_or(hello.run.incarnation, Incarnation);
    hello.run.process = number(victim).map_or(hello.run.process, ProcessId);
    hello.serial = number(victim).unwrap_or(hello.serial);
    hello.has_other = flags & 8 != 0;
    let epoch = hello.term.epoch();
    if epoch != victim.process.node().replica().term().epoch() || flags & 16 != 0 {
        hello.founder = Some(DiskId(epoch.into()));
    }
    if flags & 32 != 0 {
        // A new disk each time.
        hello.from.disk = DiskId(u128::from(hello.serial) << 64 | u128::from(which));
    }
    hello
}

/// Reads a packet and the data after it.
pub(super) fn build(victim: &Victim, from: Member, args: &mut Args<'_>) -> (Packet, Vec<u8>) {
    let kind = args.byte() % KINDS;
    if kind == 4 {
        let append = append(victim, args);
        return (Packet::Append(append), entries(victim, append, args));
    }
    if kind == 18 {
        let packet = Packet::Proofs;
        return (packet, proofs(victim, args));
    }
    let packet = match kind {
        0 => Packet::Hello(hello(victim, args)),
        1 => {
            let (sent, health) = (Moment(value(victim, args)), health(args.byte()));
            Packet::Ping { sent, wall: WallTime(value(victim, args)), health }
        }
        2 => {
            let sent = Moment(value(victim, args));
            Packet::Pong { sent, promised: Some(position(victim, args)) }
        }
        3 => Packet::Blank { met: met(args) },
        5 => Packet::AppendAccepted {
            term: Term(value(victim, args)),
            stored: Index(value(victim, args)),
            round: value(victim, args),
        },
        6 => Packet::AppendRejected {
            term: Term(value(victim, args)),
            hint: Index(value(victim, args)),
        },
        7 => Packet::HigherTerm { term: Term(value(victim, args)) },
        8 => Packet::AskPreVote(ask(victim, from, args)),
        10 => Packet::AskVote(ask(victim, from, args)),
        12 => Packet::SteppedDown { term: Term(value(victim, args)) },
        13 => Packet::TimeoutNow { term: Term(value(victim, args)) },
        14 => Packet::Order { group: GROUP, to: None },
        15 => Packet::Request { group: GROUP },
        16 => Packet::Answer,
        17 => Packet::Verdict(Verdict::NotPrimary),
        19 => Packet::ProofsTaken,
        23 => Packet::Settings,
        24 => Packet::AskRelease { asked: Moment(value(victim, args)) },
        25 => Packet::Released { asked: Moment(value(victim, args)) },
        // Not `Digest`: of two members that differ, one ends, as intended.
        26 => Packet::Fetch { first: Index(value(victim, args)), last: Index(value(victim, args)) },
        27 => Packet::Fetched,
        20 => Packet::Foreign { version: 77 },
        21 => Packet::Refused(refusal(args.byte())),
        22 => {
            let founder = disk_of(from.id);
            Packet::Refuses(Epoch { number: value(victim, args) as u16, founder })
        }
        _ => ballot(victim, kind, args),
    };
    if let Packet::Hello(hello) = packet {
        return (packet, past(&hello));
    }
    let rest = match packet {
        Packet::Request { .. } => REQUESTS[usize::from(args.byte()) % REQUESTS.len()],
        _ => "",
    };
    (packet, rest.as_bytes().to_vec())
}

/// Reads the disks that a blank server has met. Zeros mean those of the group.
fn met(args: &mut Args<'_>) -> [DiskId; 3] {
    let mut met = [DiskId(0); 3];
    for (to, id) in met.iter_mut().zip(ServerId::all(3)) {
        *to = match args.byte() {
            0 => disk_of(id),
            other => DiskId(other.into()),
        };
    }
    met
}

fn ballot(victim: &Victim, kind: u8, args: &mut Args<'_>) -> Packet {
    let term = Term(value(victim, args));
    let own = Term(value(victim, args));
    let granted = args.byte() & 1 == 0;
    match kind {
        9 => Packet::PreVote { term, granted, own },
        _ => Packet::Vote { term, granted },
    }
}

fn refusal(which: u8) -> Refusal {
    // Without the refusal of an old copy: it makes a server quarantine everything, as intended.
    use Refusal::{Doubtful, Epoch, Group, Nonsense, Occupied, SameId, Settings, Straggler};
    use Refusal::{Version, WrongId};
    let all = [
        [Version, Group, Settings, SameId, WrongId],
        [Epoch, Straggler, Doubtful, Occupied, Nonsense],
    ];
    all.concat()[usize::from(which) % 10]
}

fn health(bits: u8) -> PeerHealth {
    let bits = [1, 2, 4, 8, 16, 32].map(|bit| bits & bit != 0);
    let [leads, stopping, slow, full, damaged, lacks_entries] = bits;
    PeerHealth { leads, stopping, slow, full, damaged, lacks_entries }
}

fn ask(victim: &Victim, from: Member, args: &mut Args<'_>) -> Ask {
    let term = Term(value(victim, args));
    let last = position(victim, args);
    let own = victim.process.node().replica().config().copied();
    let flags = args.byte();
    let config = own.filter(|_| flags & 1 == 0);
    let members = [from, victim.me()].into_iter().skip(usize::from(flags & 2) / 2);
    Ask { term, last, config: config.unwrap_or_else(|| Config::new(members, flags & 4 != 0)) }
}

fn append(victim: &Victim, args: &mut Args<'_>) -> Append {
    Append {
        term: Term(value(victim, args)),
        prev: position(victim, args),
        committed: Index(value(victim, args)),
        acknowledged: Index(value(victim, args)),
        round: value(victim, args),
    }
}

/// Reads the records of an append. Zeros in their second bytes make valid ones.
fn entries(victim: &Victim, append: Append, args: &mut Args<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last = append.prev;
    for _ in 0..args.byte() % 32 {
        let (kind, flags) = (args.byte(), args.byte());
        let (detail, more) = (args.byte(), args.byte());
        let skipped = u64::from(flags & 1);
        let term = match flags >> 1 & 3 {
            0 => append.term,
            1 => last.term,
            2 => Term(append.term.0.wrapping_add(1)),
            _ => Term(append.term.0.wrapping_sub(1)),
        };
        let at = Position { index: Index(last.index.0.wrapping_add(1 + skipped)), term };
        let start = out.len();
        let time = if flags & 8 != 0 { u64::MAX } else { 0 };
        record::write(&mut out, at, WallTime(time), Kind(kind), |out| {
            body(victim, Kind(kind), detail, more, out);
        });
        if flags & 16 != 0 {
            out[start + usize::from(more) % 33] ^= 1;
        }
        if flags & 32 != 0 {
            out.truncate(start + 20);
        }
        last = at;
    }
    out
}

fn body(victim: &Victim, kind: Kind, detail: u8, more: u8, out: &mut Vec<u8>) {
    let name = ["ann", "bob", "carl", "dora"][usize::from(detail & 3)];
    let user = UserName::parse(name).expect("a name");
    let account = Index(u64::from(detail >> 2));
    let text = "x".repeat(usize::from(more));
    let change = match kind {
        Kind::CONFIG => return config(victim, detail, more, out),
        Kind::CREATE => Change::Create { user, hash: &text },
        Kind::DELETE => Change::Delete { user, checked: account },
        Kind::PASSWORD => Change::Password { user, checked: account, hash: &text },
        Kind::MESSAGE => {
            let key = (detail & 0x80 != 0).then_some("key");
            let attributes = match detail & 0x40 {
                0 => Attributes::default(),
                // A newer version may know this attribute.
                _ => Attributes::decode(b"\x01\x01t\x09\x01x").expect("attributes"),
            };
            let content = Content { text: &text, attributes };
            Change::Message { to: user, from: user, sender: account, key, content }
        }
        _ => return out.extend(text.bytes()),
    };
    change.encode(out);
    if detail & 0xc0 == 0xc0 {
        out.pop();
    }
}

/// Writes a config. Bits of `detail`: 0 opens the gate, 1 makes a branch, 2 to 4 are the members, 7
/// truncates it.
fn config(victim: &Victim, detail: u8, more: u8, out: &mut Vec<u8>) {
    let mut members = Vec::new();
    for which in 0..2 {
        if detail & (4 << which) != 0 {
            members.push(peer(victim, which | more << 1));
        }
    }
    if detail & 16 != 0 {
        members.push(victim.me());
    }
    let mut config = Config::new(members, detail & 1 != 0);
    if detail & 2 != 0 {
        let replica = victim.process.node().replica();
        config.origin = Origin::Branch(victim.position(replica.last()));
    }
    config.encode(out);
    if detail & 0x80 != 0 {
        out.pop();
    }
}

/// Makes verified passwords of entries that may not exist.
fn proofs(victim: &Victim, args: &mut Args<'_>) -> Vec<u8> {
    let base = value(victim, args);
    let count = value(victim, args).min(PROOFS_MAX);
    let stride = 1 + u64::from(args.byte());
    let held = victim.process.node().held().proofs as u64;
    let mut out = Vec::new();
    // Different ones each time, so that they accumulate.
    for n in held..held + count {
        out.extend(base.wrapping_add(n.wrapping_mul(stride)).to_le_bytes());
        out.resize(out.len() + PROOF_BYTES - 8, n as u8);
    }
    if args.byte() & 1 != 0 {
        out.pop();
    }
    // A primary ignores them, so one is enough.
    let leads = victim.process.node().replica().role() == RoleView::Primary;
    out.truncate(if leads { PROOF_BYTES } else { out.len() });
    out
}
