//! The encrypted link between two servers, with somebody in the middle who flips, drops, repeats,
//! reorders, truncates and inserts bytes, or speaks first.
//!
//! `a` and `b` make a side say bytes, `A` and `B` deliver what it said, and the other letters
//! change what is on its way from the dialler (an even second byte) or to it (an odd one).
//!
//! The keys are random: what a change of bytes leads to is the same each time, but the bytes are
//! not.

use super::case::{Args, Case};
use postern::ids::{GroupId, Secret};
use postern::limits::{FIRST_BYTES_MAX, FRAME_BYTES_MAX};
use postern::rng::Rng;
use postern::server::Seal;
use postern::server::channel::{Channel, HANDSHAKE_BYTES};
use std::mem;

/// Letters of pieces that change bytes on their way.
const CHANGES: &[u8] = b"fdrxtgp";
/// The most bytes that a side says in one case: more than a message of the link holds, and less
/// than a frame.
const SAID_MAX: usize = 100_000;
const _: () = assert!(SAID_MAX < FRAME_BYTES_MAX);

/// Makes a case: a talk, and mostly a few changes by somebody in the middle.
pub(super) fn generate(rng: &mut Rng) -> Case {
    let mut pieces = Vec::new();
    if rng.below(12) == 0 {
        pieces.push(vec![b'k', rng.below(3) as u8]);
    }
    let changes = rng.below(3) > 0;
    for _ in 0..4 + rng.below(20) {
        let side = rng.below(2) as u8;
        pieces.push(match rng.below(8) {
            0..3 => vec![b'a' + side, rng.below(256) as u8, said_size(rng)],
            3 if changes => {
                let letter = CHANGES[rng.below(CHANGES.len() as u64) as usize];
                let place = if rng.below(2) == 0 { 0 } else { rng.below(256) as u8 };
                vec![letter, side, place, 0, rng.below(70) as u8, rng.below(256) as u8]
            }
            4 => vec![b'A' + side, rng.below(100) as u8, 0],
            _ => vec![b'A' + side, 0xff, 0xff],
        });
    }
    Case(pieces)
}

/// Mostly few bytes.
fn said_size(rng: &mut Rng) -> u8 {
    match rng.below(12) {
        0 => 200 + rng.below(20) as u8,
        1 => 220 + rng.below(24) as u8,
        _ => rng.below(40) as u8,
    }
}

/// One side of the link.
struct Side {
    channel: Channel,
    /// On its way to the other side.
    out: Vec<u8>,
    /// What has arrived and is not yet opened.
    input: Vec<u8>,
    said: Vec<u8>,
    opened: Vec<u8>,
    broken: bool,
}

impl Side {
    fn new(channel: Channel, out: Vec<u8>) -> Side {
        let (input, said, opened) = (Vec::new(), Vec::new(), Vec::new());
        Side { channel, out, input, said, opened, broken: false }
    }

    fn say(&mut self, count: usize, first: u8) {
        let count = count.min(SAID_MAX - self.said.len().min(SAID_MAX));
        let start = self.said.len();
        self.said.extend((0..count).map(|at| first.wrapping_add((start + at) as u8)));
        self.channel.seal(&self.said[start..], &mut self.out);
    }

    /// Opens what arrived, as the loop of a server does.
    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.input.extend_from_slice(bytes);
        loop {
            let (opened, out) = (self.opened.len(), self.out.len());
            let taken = self.channel.open(&self.input, &mut self.opened, &mut self.out);
            let more = self.opened.len() - opened;
            if self.broken && (taken.is_ok() || more > 0 || self.out.len() > out) {
                return Err("a broken channel goes on: it opens or says more".to_owned());
            }
            let Ok(taken) = taken else {
                self.broken = true;
                return match more {
                    0 => Ok(()),
                    _ => Err(format!("a bad message is delivered: {more} bytes")),
                };
            };
            if more > taken || taken > self.input.len() {
                return Err(format!("more is opened than came: {more} of {taken} bytes"));
            }
            if taken == 0 {
                let most = usize::from(u16::MAX) + 2;
                return match self.input.len() {
                    0..=65_537 => Ok(()),
                    held => Err(format!("a message is waited for too long: {held} of {most}")),
                };
            }
            self.input.drain(..taken);
        }
    }
}

/// Plays a case.
pub(super) fn check(case: &Case) -> Result<(), String> {
    let (secret, group) = (Secret::new([1; Secret::BYTES]), GroupId(1));
    let other = case.0.iter().find(|piece| piece.first() == Some(&b'k'));
    let other = other.map_or(0, |piece| Args(&piece[1..]).byte() % 3);
    let dialler_secret = if other == 1 { Secret::new([2; Secret::BYTES]) } else { secret.clone() };
    let dialler_group = if other == 2 { GroupId(2) } else { group };
    let mut first = Vec::new();
    let channel = Channel::initiator(&dialler_secret, dialler_group, &mut first);
    let mut sides =
        [Side::new(channel, first), Side::new(Channel::responder(&secret, group), Vec::new())];
    let mut changed = false;
    for piece in &case.0 {
        changed |= play(&mut sides, piece)?;
        judge(&sides, other != 0)?;
    }
    // What is left arrives; a reply of the handshake may be owed in between.
    for side in [0, 1, 0, 1] {
        deliver(&mut sides, side, usize::MAX)?;
    }
    judge(&sides, other != 0)?;
    let [a, b] = &sides;
    let complete = a.opened == b.said && b.opened == a.said;
    match !changed && other == 0 && (!complete || a.broken || b.broken) {
        true => Err("an honest link loses bytes: not all arrived".to_owned()),
        false => Ok(()),
    }
}

/// Whether somebody in the middle changed something.
fn play(sides: &mut [Side; 2], piece: &[u8]) -> Result<bool, String> {
    let mut args = Args(piece);
    let letter = args.byte();
    match letter {
        b'a' | b'b' => {
            let at = usize::from(letter - b'a');
            let (first, size) = (args.byte(), usize::from(args.byte()));
            // Small sizes are lengths; large ones are near the bounds of messages.
            let count = match size {
                0..200 => size,
                200..220 => FIRST_BYTES_MAX + size - 210,
                size => (size - 219) * 4096,
            };
            sides[at].say(count, first);
            Ok(false)
        }
        b'A' | b'B' => {
            let count = usize::from(args.short());
            let count = if count == usize::from(u16::MAX) { usize::MAX } else { count };
            deliver(sides, usize::from(letter - b'A'), count)?;
            Ok(false)
        }
        _ if CHANGES.contains(&letter) => {
            let side = usize::from(args.byte() & 1);
            let before = sides[side].out.clone();
            change(&mut sides[side].out, letter, &mut args);
            Ok(sides[side].out != before)
        }
        _ => Ok(false),
    }
}

fn deliver(sides: &mut [Side; 2], from: usize, count: usize) -> Result<(), String> {
    let out = &mut sides[from].out;
    let behind = out.split_off(out.len().min(count));
    let bytes = mem::replace(out, behind);
    sides[1 - from].take(&bytes)
}

fn change(wire: &mut Vec<u8>, letter: u8, args: &mut Args<'_>) {
    let at = usize::from(args.short()).min(wire.len());
    let (count, detail) = (usize::from(args.byte()) + 1, args.byte());
    let end = (at + count).min(wire.len());
    match letter {
        b'f' if at < wire.len() => wire[at] ^= 1 << (detail % 8),
        b'd' => drop(wire.drain(at..end)),
        b'r' => {
            let again = wire[at..end].to_vec();
            wire.splice(at..at, again);
        }
        b'x' => wire[at..end].reverse(),
        b't' => wire.truncate(at),
        b'g' => drop(wire.splice(at..at, vec![detail; count])),
        // A whole handshake message again.
        b'p' => {
            let first = wire.get(..HANDSHAKE_BYTES).unwrap_or_default().to_vec();
            wire.extend(first);
        }
        _ => {}
    }
}

/// What must hold at any time.
fn judge(sides: &[Side; 2], strange: bool) -> Result<(), String> {
    for (here, there) in [(0, 1), (1, 0)] {
        let (side, other) = (&sides[here], &sides[there]);
        if !other.said.starts_with(&side.opened) {
            return Err(format!("bytes arrive that were not said: by side {here}"));
        }
        if strange && (side.channel.is_proven() || !side.opened.is_empty()) {
            return Err(format!("a stranger is believed: by side {here}"));
        }
        // The dialler believes after the handshake, the other side after a message.
        if here == 1 && side.channel.is_proven() && side.opened.is_empty() {
            return Err("a dialler is believed too early: nothing was opened".to_owned());
        }
    }
    Ok(())
}
