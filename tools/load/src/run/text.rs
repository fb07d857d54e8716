//! The texts of a run: each begins with its sender and serial, which determine the rest, so that
//! nothing is stored for a repetition or a comparison.

use super::postern::parse_number;
use postern::limits::TEXT_BYTES_MAX;
use postern::rng::Rng;
use serde::{Deserialize, Serialize};

/// A range of text lengths in bytes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sizes {
    least: usize,
    most: usize,
}

/// One message of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// The index of its sender in the run.
    pub sender: u32,
    /// Its index among the messages of its sender.
    pub serial: u64,
}

/// The alphabet twice, so that every rotation of it is a slice.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";

impl Sizes {
    /// Creates a range of one length.
    pub const fn fixed(bytes: usize) -> Sizes {
        Sizes { least: bytes, most: bytes }
    }

    fn of(self, message: Message) -> usize {
        if self.least == self.most {
            return self.least;
        }
        let span = (self.most - self.least + 1) as u64;
        let seed = u64::from(message.sender) << 40 ^ message.serial;
        self.least + Rng::new(seed).below(span) as usize
    }
}

impl std::str::FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        let number = |text: &str| {
            let bytes = text.parse().ok().filter(|bytes| (1..=TEXT_BYTES_MAX).contains(bytes));
            bytes.ok_or_else(|| format!("`{text}` is not within 1 to {TEXT_BYTES_MAX} bytes"))
        };
        let (least, most) = match text.split_once("..") {
            Some((least, most)) => (number(least)?, number(most)?),
            None => (number(text)?, number(text)?),
        };
        if least <= most {
            Ok(Sizes { least, most })
        } else {
            Err(format!("`{text}` ends before it begins"))
        }
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sizes { least, most } if least == most => write!(f, "{least}"),
            Sizes { least, most } => write!(f, "{least}..{most}"),
        }
    }
}

impl From<Sizes> for String {
    fn from(sizes: Sizes) -> String {
        sizes.to_string()
    }
}

impl TryFrom<String> for Sizes {
    type Error = String;

    fn try_from(text: String) -> Result<Sizes, String> {
        text.parse()
    }
}

impl Message {
    /// Writes its text. It exceeds its length if sender and serial need more.
    pub fn write(self, sizes: Sizes, out: &mut Vec<u8>) {
        let begin = out.len();
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(digits.format(self.sender).as_bytes());
        out.push(b'.');
        out.extend_from_slice(digits.format(self.serial).as_bytes());
        let end = begin + sizes.of(self);
        if end > out.len() + 1 {
            out.push(b' ');
            let start = (self.serial.wrapping_add(self.sender.into()) % 26) as usize;
            while out.len() < end {
                let length = 26.min(end - out.len());
                out.extend_from_slice(&LETTERS[start..start + length]);
            }
        }
    }

    /// Returns the message that a text claims to be.
    pub fn read(text: &[u8]) -> Option<Message> {
        let word = memchr::memchr(b' ', text).map_or(text, |end| &text[..end]);
        let dot = memchr::memchr(b'.', word)?;
        let sender = parse_number(&word[..dot])?.try_into().ok()?;
        Some(Message { sender, serial: parse_number(&word[dot + 1..])? })
    }

    /// Returns whether this is its text, to the byte. `scratch` is overwritten.
    pub fn is_text(self, sizes: Sizes, text: &[u8], scratch: &mut Vec<u8>) -> bool {
        scratch.clear();
        self.write(sizes, scratch);
        scratch == text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_a_number_or_a_range() {
        let table = [
            ("100", Ok((100, 100))),
            ("10..1000", Ok((10, 1000))),
            ("1..3840", Ok((1, 3840))),
            ("0", Err(())),
            ("3841", Err(())),
            ("9..8", Err(())),
            ("a", Err(())),
            ("1..", Err(())),
        ];
        for (text, expected) in table {
            let sizes = text.parse::<Sizes>().map(|sizes| (sizes.least, sizes.most));
            assert_eq!(sizes.map_err(|_| ()), expected, "{text}");
        }
    }

    #[test]
    fn texts_name_their_message_and_have_the_length_that_is_wanted() {
        let sizes: Sizes = "20..40".parse().unwrap();
        let mut lengths = std::collections::BTreeSet::new();
        for serial in 0..500 {
            let message = Message { sender: 12, serial };
            let mut text = Vec::new();
            message.write(sizes, &mut text);
            lengths.insert(text.len());
            assert_eq!(Message::read(&text), Some(message));
            assert!(message.is_text(sizes, &text, &mut Vec::new()));
            let last = text.len() - 1;
            text[last] ^= 1;
            assert!(!message.is_text(sizes, &text, &mut Vec::new()));
        }
        assert_eq!((lengths.first(), lengths.last(), lengths.len()), (Some(&20), Some(&40), 21));
        let mut short = Vec::new();
        Message { sender: 7, serial: 123 }.write(Sizes::fixed(1), &mut short);
        assert_eq!(short, b"7.123");
    }

    #[test]
    fn other_texts_name_no_message() {
        for text in ["", "x", "1", "1.", ".1", "1.x y", "-1.2", "+1.2", "4294967296.1"] {
            assert_eq!(Message::read(text.as_bytes()), None, "{text}");
        }
    }
}
