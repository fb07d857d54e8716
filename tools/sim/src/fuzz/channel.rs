//! The encrypted link between two servers, with a man in the middle who flips, drops, repeats,
//! reorders, truncates and inserts bytes, or sends first.
//!
//! `a` and `b` make a side send bytes, `A` and `B` deliver them, and the other letters change bytes
//! in flight from the dialler (even second byte) or to it (odd).
//!
//! The keys are random: the effect of a case is the same each time, but the bytes are not.

use super::case::{Args, Case};
use crate::require;
use postern::ids::{GroupId, Secret};
use postern::limits::{FIRST_BYTES_MAX, FRAME_BYTES_MAX};
use postern::rng::Rng;
use postern::server::Seal;
use postern::server::channel::{Channel, HANDSHAKE_BYTES};
use std::mem;

/// Letters of pieces that change bytes in flight.
const CHANGES: &[u8] = b"fdrxtgp";
/// The most bytes that a side sends in a case: more than a message of the link, less than a frame.
const SENT_MAX: usize = 100_000;
const _: () = assert!(SENT_MAX < FRAME_BYTES_MAX);

/// Makes a case: bytes of both sides, and mostly a few changes in flight.
pub(super) fn generate(rng: &mut Rng) -> Case {
    let mut pieces = Vec::new();
    if rng.below(12) == 0 {
        pieces.push(vec![b'k', rng.below(3) as u8]);
    }
    let changes = rng.below(3) > 0;
    for _ in 0..4 + rng.below(20) {
        let side = rng.below(2) as u8;
        pieces.push(match rng.below(8) {
            0..3 => vec![b'a' + side, rng.below(256) as u8, send_size(rng)],
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

/// Draws a size, mostly a small one.
fn send_size(rng: &mut Rng) -> u8 {
    match rng.below(12) {
        0 => 200 + rng.below(20) as u8,
        1 => 220 + rng.below(24) as u8,
        _ => rng.below(40) as u8,
    }
}

/// One side of the link.
struct Side {
    channel: Channel,
    /// Bytes in flight to the other side.
    out: Vec<u8>,
    /// Bytes that have arrived and are not yet decrypted.
    input: Vec<u8>,
    sent: Vec<u8>,
    opened: Vec<u8>,
    broken: bool,
}

impl Side {
    fn new(channel: Channel, out: Vec<u8>) -> Side {
        let (input, sent, opened) = (Vec::new(), Vec::new(), Vec::new());
        Side { channel, out, input, sent, opened, broken: false }
    }

    fn send(&mut self, count: usize, first: u8) {
        let count = count.min(SENT_MAX - self.sent.len().min(SENT_MAX));
        let start = self.sent.len();
        self.sent.extend((0..count).map(|at| first.wrapping_add((start + at) as u8)));
        self.channel.seal(&self.sent[start..], &mut self.out);
    }

    /// Decrypts bytes that arrive, as the event loop of a server does.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.input.extend_from_slice(bytes);
        loop {
            let (opened, out) = (self.opened.len(), self.out.len());
            let taken = self.channel.open(&self.input, &mut self.opened, &mut self.out);
            let more = self.opened.len() - opened;
            require(
                !self.broken || (taken.is_err() && more == 0 && self.out.len() == out),
                || "a broken channel continues: it decrypts or sends more".to_owned(),
            )?;
            let Ok(taken) = taken else {
                self.broken = true;
                return match more {
                    0 => Ok(()),
                    _ => Err(format!("a forged message is delivered: {more} bytes")),
                };
            };
            require(more <= taken && taken <= self.input.len(), || {
                format!("more is decrypted than arrived: {more} of {taken} bytes")
            })?;
            if taken == 0 {
                let most = usize::from(u16::MAX) + 2;
                return match self.input.len() {
                    0..=65_537 => Ok(()),
                    held => Err(format!("an unfinished message is too long: {held} of {most}")),
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
        check_sides(&sides, other != 0)?;
    }
    // The remaining bytes arrive. A side may answer the handshake in between.
    for side in [0, 1, 0, 1] {
        deliver(&mut sides, side, usize::MAX)?;
    }
    check_sides(&sides, other != 0)?;
    let [a, b] = &sides;
    let complete = a.opened == b.sent && b.opened == a.sent;
    match !changed && other == 0 && (!complete || a.broken || b.broken) {
        true => Err("an unchanged link loses bytes: not all have arrived".to_owned()),
        false => Ok(()),
    }
}

/// Plays a piece. Returns whether bytes in flight have changed.
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
            sides[at].send(count, first);
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
    let after = out.split_off(out.len().min(count));
    let bytes = mem::replace(out, after);
    sides[1 - from].receive(&bytes)
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

/// Checks the invariants.
fn check_sides(sides: &[Side; 2], stranger: bool) -> Result<(), String> {
    for (here, there) in [(0, 1), (1, 0)] {
        let (side, other) = (&sides[here], &sides[there]);
        require(other.sent.starts_with(&side.opened), || {
            format!("bytes arrive that were not sent: at side {here}")
        })?;
        require(!stranger || (!side.channel.is_proven() && side.opened.is_empty()), || {
            format!("a peer without the secret is accepted: by side {here}")
        })?;
        // The dialler accepts its peer after the handshake, the other side after a message.
        require(here == 0 || !side.channel.is_proven() || !side.opened.is_empty(), || {
            "a dialler is accepted too early: before its first message".to_owned()
        })?;
    }
    Ok(())
}
