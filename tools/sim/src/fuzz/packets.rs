//! Packets of a hostile server that knows the secret of the group: any terms, indices, kinds,
//! configs and hellos, on any number of links, to a victim in any role.
//!
//! Numbers in a case are relative to those of the victim: its term, its last entry, its commit
//! index. A piece therefore keeps its meaning when earlier pieces change.

use super::case::{Args, Case, mutate_bytes, pick};
use super::hostile;
use super::victim::{Start, Victim, disk_of};
use postern::ids::{DiskId, LinkId, Member, ServerId};
use postern::replica::Packet;
use postern::rng::Rng;

const STARTS: [Start; 5] =
    [Start::Blank, Start::Learner, Start::Backup, Start::Candidate, Start::Primary];
/// Lines of clients of the victim.
const LINES: [&str; 6] = [
    "CREATE bob correct-horse\n",
    "LOGIN ann correct-horse\nSEND ann hi\nSEND ann ho\nLOG\n",
    "LOGIN ann correct-horse\nSEND nobody hi\nPASSWD correct-horse other-horse\n",
    "LOGIN ann correct-horse\nONCE k ann hi\nONCE k ann hi\nLIST\nQUIT\n",
    "STATUS\nHELP\nLOGIN ann wrong-horse\n",
    "LOGIN ann correct-horse\nDELETE ann correct-horse\n",
];

/// Makes a case: the role of the victim, two links, then packets of all kinds.
pub(super) fn generate(rng: &mut Rng) -> Case {
    let start = rng.below(STARTS.len() as u64) as u8;
    let mut pieces = vec![vec![b's', start, rng.below(3) as u8, rng.below(16) as u8]];
    pieces.push(vec![b'l', 0]);
    if rng.below(2) == 0 {
        pieces.push(vec![b'l', 1]);
    }
    if start == 0 && rng.below(2) == 0 {
        // A group that is about to form: both peers report the disks that they have met.
        pieces.truncate(2);
        let blank = [&b"p"[..], &[0, 0, 0], &hostile::blank()].concat();
        pieces.extend([blank.clone(), vec![b'l', 1], blank]);
    }
    for _ in 0..1 + rng.below(24) {
        pieces.push(match rng.below(20) {
            0 => hello(rng, b'l'),
            1 => hello(rng, b'd'),
            2 => vec![b'w', rng.below(256) as u8],
            3 => vec![b'g'],
            4 => vec![b'c', rng.below(LINES.len() as u64) as u8],
            5 if rng.below(3) == 0 => vec![b'e', rng.below(3) as u8],
            6 => [&b"o"[..], &[rng.below(4) as u8], &hostile::packet(rng)].concat(),
            _ => [&b"p"[..], &[rng.below(4) as u8, 0, 0], &hostile::packet(rng)].concat(),
        });
        if rng.below(12) == 0 {
            let damaged = pick(rng, pieces.len());
            mutate_bytes(&mut pieces[damaged], rng, &[0, 0xff, 0x7f]);
        }
    }
    Case(pieces)
}

/// Makes a hello with mostly honest fields.
fn hello(rng: &mut Rng, letter: u8) -> Vec<u8> {
    let bits = if rng.below(32) == 0 { 128 } else { 64 };
    let flags = if rng.below(4) == 0 { rng.below(bits) } else { rng.below(2) };
    let mut piece = vec![letter, rng.below(2) as u8, flags as u8];
    for _ in 0..6 {
        let honest = rng.below(3) > 0;
        let number = if honest { [0, 0] } else { hostile::number(rng) };
        piece.extend(number);
    }
    piece
}

/// Plays a case against a victim.
pub(super) fn check(case: &Case) -> Result<(), String> {
    let first = case.0.first().filter(|piece| piece.first() == Some(&b's'));
    let mut args = Args(first.map_or(&[], |piece| &piece[1..]));
    let start = STARTS[usize::from(args.byte()) % STARTS.len()];
    let (me, settings) = (1 + args.byte() % 3, args.byte());
    let copies_min = if settings & 3 == 0 { 2 } else { 1 };
    let mut victim = Victim::start(me, start, copies_min, settings & 4 != 0)?;
    for piece in &case.0 {
        if victim.has_exited() {
            break;
        }
        play(&mut victim, piece)?;
    }
    // Timers expire: started operations must end.
    victim.wait(500)?;
    victim.answer_all()?;
    victim.wait(500)
}

fn play(victim: &mut Victim, piece: &[u8]) -> Result<(), String> {
    let mut args = Args(piece);
    match args.byte() {
        b'l' => {
            // Bit 6: a hundred times.
            let times = if args.0.get(1).is_some_and(|flags| flags & 64 != 0) { 100 } else { 1 };
            for _ in 0..times {
                let hello = hostile::hello(victim, &mut Args(args.0));
                victim.connect(hello)?;
            }
            Ok(())
        }
        b'd' => {
            let how = args.0.get(1).copied().unwrap_or(0);
            let hello = hostile::hello(victim, &mut args);
            victim.answer_dial(how, hello)
        }
        b'w' => victim.wait(u64::from(args.byte()) * 10),
        b'g' => {
            victim.answer_all()?;
            victim.answer_all()
        }
        b'c' => victim.client(LINES[usize::from(args.byte()) % LINES.len()].as_bytes()),
        b'e' => match link(victim, args.byte()) {
            Some((link, _)) => victim.end(link),
            None => Ok(()),
        },
        // On a link without a hello.
        b'o' => {
            let peer = peer(victim, args.byte());
            let link = victim.accept(peer);
            send(victim, link, peer, [0, 0], &mut args)
        }
        b'p' => {
            let which = args.byte();
            let damage = [args.byte(), args.byte()];
            match link(victim, which) {
                Some((link, peer)) => send(victim, link, peer, damage, &mut args),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Returns one of the four newest links.
fn link(victim: &Victim, which: u8) -> Option<(LinkId, Member)> {
    let count = victim.links.len().min(4);
    let at = usize::from(which).checked_rem(count)?;
    victim.links.iter().rev().nth(at).map(|link| (link.id, link.peer))
}

/// Returns one of the two other servers, with its own disk or another one.
pub(super) fn peer(victim: &Victim, which: u8) -> Member {
    let me = victim.me().id;
    let others: Vec<ServerId> = ServerId::all(3).filter(|id| *id != me).collect();
    let id = others[usize::from(which & 1)];
    let disk = match which >> 1 {
        0 => disk_of(id),
        other => DiskId(u128::from(other)),
    };
    Member { id, disk }
}

/// Sends a packet. Flips the bit of it that `damage` names, if that is not zero.
fn send(
    victim: &mut Victim,
    link: LinkId,
    peer: Member,
    damage: [u8; 2],
    args: &mut Args<'_>,
) -> Result<(), String> {
    let times = 1 + args.byte() % 16;
    for _ in 0..times {
        let mut again = Args(args.0);
        let (packet, rest) = hostile::build(victim, peer, &mut again);
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        let head = bytes.len();
        bytes.extend_from_slice(&rest);
        let at = usize::from(u16::from_le_bytes(damage));
        if at > 0 && head > 0 {
            let place = (at / 8) % bytes.len();
            bytes[place] ^= 1 << (at % 8);
        }
        match Packet::decode(&bytes) {
            Ok((packet, rest)) => {
                victim.send(link, packet, rest)?;
            }
            // The server closes such a link.
            Err(_) => return victim.end(link),
        }
        if victim.has_exited() {
            return Ok(());
        }
    }
    Ok(())
}
