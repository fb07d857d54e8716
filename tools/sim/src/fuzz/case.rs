//! An input of a fuzz target: a list of pieces, its text form in files, and its mutations.

use postern::rng::Rng;
use std::fmt::Write;

/// The most pieces that a mutation leaves in a case.
const PIECES_MAX: usize = 256;
/// The most bytes that a mutation leaves in a piece.
const PIECE_BYTES_MAX: usize = 8192;
/// Numbers near which comparisons and additions fail.
const BOUNDARIES: [u64; 16] = {
    let (max32, epoch) = (u32::MAX as u64, 1 << 48);
    let max63 = i64::MAX as u64;
    [
        0,
        1,
        2,
        127,
        128,
        255,
        256,
        0x7fff,
        0xffff,
        max32 >> 1,
        max32,
        epoch - 1,
        epoch,
        0xffff << 48,
        max63,
        u64::MAX,
    ]
};

/// An input. A piece is one step of a target: a line, a packet or a change of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Case(pub(super) Vec<Vec<u8>>);

impl Case {
    /// Returns the text form: each piece is a line. Bytes that are no visible ASCII characters,
    /// spaces at an end and backslashes are written as `\xNN`.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            for (at, byte) in piece.iter().enumerate() {
                let at_end = at == 0 || at + 1 == piece.len();
                match byte {
                    b'\\' => text.push_str("\\x5c"),
                    b'#' if at == 0 => text.push_str("\\x23"),
                    b' ' if at_end => text.push_str("\\x20"),
                    0x20..=0x7e => text.push(char::from(*byte)),
                    _ => write!(text, "\\x{byte:02x}").expect("a write to a string does not fail"),
                }
            }
            text.push('\n');
        }
        text
    }

    /// Reads the text form. Lines that begin with `#` are comments.
    ///
    /// # Errors
    /// A line is not in this form.
    pub(super) fn from_text(text: &str) -> Result<Case, String> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        let read = |(at, line)| {
            read_line(line).ok_or_else(|| format!("line {}: not a piece of a case", at + 1))
        };
        lines.map(read).collect::<Result<Vec<_>, _>>().map(Case)
    }

    /// Returns the hexadecimal digits of each piece.
    pub(super) fn to_hex(&self) -> Vec<String> {
        let digits = |piece: &Vec<u8>| piece.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.iter().map(digits).collect()
    }

    /// Returns the number of bytes in all pieces.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Changes the case in one place: its list of pieces, or the bytes of a piece. Pieces may be
    /// copied from `other`.
    pub(super) fn mutate(&mut self, rng: &mut Rng, other: &Case) {
        if self.0.is_empty() || rng.below(3) == 0 {
            self.mutate_list(rng, other);
        } else {
            let at = pick(rng, self.0.len());
            let donor = other.0.get(pick(rng, other.0.len())).map_or(&[][..], Vec::as_slice);
            mutate_bytes(&mut self.0[at], rng, donor);
            self.0[at].truncate(PIECE_BYTES_MAX);
        }
        self.0.truncate(PIECES_MAX);
    }

    fn mutate_list(&mut self, rng: &mut Rng, other: &Case) {
        let pieces = &mut self.0;
        let (a, b) = (pick(rng, pieces.len()), pick(rng, pieces.len()));
        match rng.below(6) {
            0 if pieces.len() > 1 => drop(pieces.remove(a)),
            1 if !pieces.is_empty() => pieces.insert(b, pieces[a].clone()),
            2 if !pieces.is_empty() => pieces.swap(a, b),
            3 if !pieces.is_empty() => {
                let moved = pieces.remove(a);
                pieces.insert(b.min(pieces.len()), moved);
            }
            4 if pieces.len() > 2 => pieces.truncate(a.max(1)),
            _ => {
                let from = pick(rng, other.0.len());
                let count = 1 + pick(rng, 4);
                let copied: Vec<_> = other.0.iter().skip(from).take(count).cloned().collect();
                pieces.splice(a..a, copied);
            }
        }
    }
}

/// Changes bytes in one place.
pub(super) fn mutate_bytes(bytes: &mut Vec<u8>, rng: &mut Rng, donor: &[u8]) {
    let at = pick(rng, bytes.len());
    let end = (at + 1 + pick(rng, 16)).min(bytes.len());
    let number = BOUNDARIES[pick(rng, BOUNDARIES.len())].wrapping_add(rng.below(3)).wrapping_sub(1);
    match rng.below(8) {
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
        2 if !bytes.is_empty() => bytes[at] = number as u8,
        3 => {
            let width = [1, 2, 4, 8][pick(rng, 4)];
            for (to, from) in bytes[at..].iter_mut().zip(&number.to_le_bytes()[..width]) {
                *to = *from;
            }
        }
        4 => drop(bytes.drain(at..end)),
        5 => {
            let copied = bytes[at..end].to_vec();
            bytes.splice(at..at, copied);
        }
        6 => {
            let from = pick(rng, donor.len());
            let count = (1 + pick(rng, 32)).min(donor.len() - from);
            bytes.splice(at..at, donor[from..from + count].to_vec());
        }
        _ => bytes.insert(at, rng.below(256) as u8),
    }
}

/// Returns a place in a list of this length; 0 for an empty one.
pub(super) fn pick(rng: &mut Rng, length: usize) -> usize {
    rng.below(length.max(1) as u64) as usize
}

fn read_line(line: &str) -> Option<Vec<u8>> {
    let mut piece = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        match rest.split_once("\\x") {
            Some((before, after)) => {
                piece.extend_from_slice(before.as_bytes());
                piece.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
                rest = &after[2..];
            }
            None => {
                piece.extend_from_slice(rest.as_bytes());
                rest = "";
            }
        }
    }
    Some(piece)
}

/// Reads numbers from the bytes of a piece. After its end it returns zeros, so that every piece is
/// valid.
pub(super) struct Args<'a>(pub(super) &'a [u8]);

impl<'a> Args<'a> {
    /// Returns the next byte.
    pub(super) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// Returns the next two bytes as a number.
    pub(super) fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Returns the remaining bytes.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
