//! The bytes of a log entry. They are encoded once, and are the same in memory, on every disk and
//! between servers.
//!
//! ```text
//! +--------+--------+-------+------+------+------+---------+
//! | length | crc32c | index | term | time | kind | body    |
//! | u32    | u32    | u64   | u64  | u64  | u8   | …       |
//! +--------+--------+-------+------+------+------+---------+
//! ```
//!
//! All numbers are little-endian. `length` counts the whole record; the checksum covers all of it
//! but itself; `time` is in milliseconds since the Unix epoch. Strings in a body are a `u16`
//! length and their bytes.

use crate::ids::{Index, Position, Term};
use crate::limits::RECORD_BYTES_MAX;
use crate::time::WallTime;
use byteorder::{ByteOrder, LE, ReadBytesExt};

/// Bytes of a record before its body.
pub const HEAD_BYTES: usize = 33;

/// The kind of an entry. A server stops at a kind that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u8);

impl Kind {
    /// The members of the group.
    pub const CONFIG: Kind = Kind(1);
    /// A new account.
    pub const CREATE: Kind = Kind(2);
    /// The deletion of an account.
    pub const DELETE: Kind = Kind(3);
    /// A new password for an account.
    pub const PASSWORD: Kind = Kind(4);
    /// A message for a mailbox.
    pub const MESSAGE: Kind = Kind(5);
    /// An epoch that the group has refused to follow.
    pub const REFUSAL: Kind = Kind(6);

    /// New limits of all mailboxes.
    pub const LIMITS: Kind = Kind(7);
    /// Old messages that mailboxes no longer keep.
    pub const FORGET: Kind = Kind(8);
    /// A message that was stored, and that its mailbox no longer keeps: without its content.
    pub const EMPTIED: Kind = Kind(9);

    /// Whether this version can apply such an entry.
    pub fn is_known(self) -> bool {
        (Kind::CONFIG.0..=Kind::EMPTIED.0).contains(&self.0)
    }
}

/// A record whose length and checksum are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The entry's place in the log.
    pub index: Index,
    /// The term it was written in.
    pub term: Term,
    /// When the primary accepted the entry, by the median of the servers' clocks where it knows
    /// them; never earlier than the entry before.
    pub time: WallTime,
    /// The kind of `body`.
    pub kind: Kind,
    /// The content of the entry.
    pub body: &'a [u8],
    /// The whole record, head included.
    pub bytes: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecord {
    /// The bytes end before the record does.
    Short,
    /// The length is below that of a head or above the bound.
    Length,
    /// The checksum does not match.
    Checksum,
}

impl BadRecord {
    /// Describes the fault.
    pub fn as_str(self) -> &'static str {
        match self {
            BadRecord::Short => "a record ends early",
            BadRecord::Length => "a record has an impossible length",
            BadRecord::Checksum => "a record has a wrong checksum",
        }
    }
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes` and ignores everything after it.
    pub fn parse(bytes: &'a [u8]) -> Result<Record<'a>, BadRecord> {
        if bytes.len() < HEAD_BYTES {
            return Err(BadRecord::Short);
        }
        let length = LE::read_u32(bytes) as usize;
        if !(HEAD_BYTES..=RECORD_BYTES_MAX).contains(&length) {
            return Err(BadRecord::Length);
        }
        let bytes = bytes.get(..length).ok_or(BadRecord::Short)?;
        if LE::read_u32(&bytes[4..]) != checksum(bytes) {
            return Err(BadRecord::Checksum);
        }
        Ok(Record::trust(bytes))
    }

    /// Reads a record that this process has checked before. `bytes` hold all of it and no more.
    ///
    /// # Panics
    /// When `bytes` are shorter than a head.
    pub fn trust(bytes: &'a [u8]) -> Record<'a> {
        Record {
            index: Index(LE::read_u64(&bytes[8..])),
            term: Term(LE::read_u64(&bytes[16..])),
            time: WallTime(LE::read_u64(&bytes[24..])),
            kind: Kind(bytes[32]),
            body: &bytes[HEAD_BYTES..],
            bytes,
        }
    }

    /// The position of this record in the log.
    pub fn position(&self) -> Position {
        Position { term: self.term, index: self.index }
    }
}

/// Returns the checksum of a record, a batch header or a vote: of all but bytes 4 to 7, which hold
/// it.
pub(crate) fn checksum(item: &[u8]) -> u32 {
    crc32c::crc32c_append(checksum_of_number(LE::read_u32(item)), &item[8..])
}

/// The checksum of the four bytes of a number. For so few bytes, a call of the library costs a
/// third of that for a whole short record.
fn checksum_of_number(number: u32) -> u32 {
    let bytes = (!number).to_le_bytes();
    let parts = STEPS.iter().zip(bytes).map(|(step, byte)| step[usize::from(byte)]);
    !parts.fold(0, |sum, part| sum ^ part)
}

/// What each value of the first, second, third and fourth byte contributes to the checksum of four
/// bytes.
static STEPS: [[u32; 256]; 4] = steps();

const fn steps() -> [[u32; 256]; 4] {
    /// The polynomial of CRC-32C, its bits in the order of the bits of a byte.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut steps = [[0; 256]; 4];
    let mut value = 0;
    while value < 256 {
        let (mut sum, mut bit) = (value as u32, 0);
        while bit < 32 {
            sum = if sum & 1 == 0 { sum >> 1 } else { sum >> 1 ^ POLYNOMIAL };
            bit += 1;
            if bit % 8 == 0 {
                steps[4 - bit / 8][value] = sum;
            }
        }
        value += 1;
    }
    steps
}

/// Appends a record to `out`; `body` writes its body.
///
/// # Panics
/// When the body makes the record longer than [`RECORD_BYTES_MAX`]: callers bound what they
/// accept.
pub fn write(
    out: &mut Vec<u8>,
    at: Position,
    time: WallTime,
    kind: Kind,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.resize(start + HEAD_BYTES, 0);
    body(out);
    let record = &mut out[start..];
    assert!(record.len() <= RECORD_BYTES_MAX, "a record over its bound");
    let length = record.len() as u32;
    LE::write_u32(record, length);
    LE::write_u64(&mut record[8..], at.index.0);
    LE::write_u64(&mut record[16..], at.term.0);
    LE::write_u64(&mut record[24..], time.0);
    record[32] = kind.0;
    let sum = checksum(record);
    LE::write_u32(&mut record[4..], sum);
}

/// Iterates over the consecutive records in `bytes`. Ends after the first error.
pub fn each(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, BadRecord>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = Record::parse(rest);
        rest = record.map_or(&[], |record| &rest[record.bytes.len()..]);
        Some(record)
    })
}

/// Appends a string as a body holds it.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    write_bytes(out, text.as_bytes());
}

/// Appends the bytes of a string as a body holds it.
pub fn write_bytes(out: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).expect("strings are bounded far below 64 KiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text);
}

/// Reads a string as a body holds it; `None` when it is cut off or not UTF-8.
pub fn read_str<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(read_bytes(rest)?).ok()
}

/// Reads the bytes of a string as a body holds it; `None` when it is cut off.
pub fn read_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::from(rest.read_u16::<LE>().ok()?);
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let at = Position { index: Index(7), term: Term(3) };
        write(&mut out, at, WallTime(1_000), Kind::MESSAGE, |out| write_str(out, "hi"));
        out
    }

    #[test]
    fn reads_what_it_wrote() {
        let bytes = sample();
        let record = Record::parse(&bytes).unwrap();
        assert_eq!(record.index, Index(7));
        assert_eq!(record.term, Term(3));
        assert_eq!(record.time, WallTime(1_000));
        assert_eq!(record.kind, Kind::MESSAGE);
        assert_eq!(read_str(&mut &*record.body), Some("hi"));
        assert_eq!(Record::trust(&bytes), record);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = sample();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::parse(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_library() {
        for length in [33, 256, 0x1fff, 0x8080_8080, u32::MAX, 0xfec0_fe80] {
            let mut item = sample();
            LE::write_u32(&mut item, length);
            let without = [&item[..4], &item[8..]].concat();
            assert_eq!(checksum(&item), crc32c::crc32c(&without), "{length}");
        }
    }

    #[test]
    fn every_cut_is_short() {
        let good = sample();
        for length in 0..good.len() {
            assert_eq!(Record::parse(&good[..length]), Err(BadRecord::Short));
        }
    }

    #[test]
    fn walks_over_many_and_stops_at_the_first_error() {
        let one = sample();
        let mut bytes = one.repeat(3);
        assert_eq!(each(&bytes).filter(Result::is_ok).count(), 3);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let found: Vec<_> = each(&bytes).map(|r| r.is_ok()).collect();
        assert_eq!(found, [true, true, false]);
    }
}
