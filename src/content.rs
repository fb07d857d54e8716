//! The content of a message: its text, and attributes such as a title.

use std::fmt;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// The text. Lines in it end with LF; it has no other control character but tabs.
    pub text: &'a str,
    /// What goes with the text.
    pub attributes: Attributes<'a>,
}

impl<'a> Content<'a> {
    /// A text without attributes.
    pub fn plain(text: &'a str) -> Content<'a> {
        Content { text, attributes: Attributes::default() }
    }

    /// The bytes of the text and of the encoded attributes.
    pub fn bytes(&self) -> u64 {
        (self.text.len() + self.attributes.bytes().len()) as u64
    }
}

/// A known attribute of a message. Its number is its key in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// What the message is about; at most 250 bytes.
    Title = 1,
    /// From 1, the least urgent, to 5.
    Priority = 2,
    /// Words by which programs sort messages; at most 255 bytes.
    Tags = 3,
    /// The address that a click on the message opens; at most 255 bytes.
    Click = 4,
}

impl Attribute {
    /// All known attributes, in the order of their keys.
    pub const ALL: [Attribute; 4] =
        [Attribute::Title, Attribute::Priority, Attribute::Tags, Attribute::Click];

    /// The name in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Attribute::Title => "title",
            Attribute::Priority => "priority",
            Attribute::Tags => "tags",
            Attribute::Click => "click",
        }
    }

    /// Returns the attribute of this name.
    pub fn named(name: &str) -> Option<Attribute> {
        Attribute::ALL.into_iter().find(|attribute| attribute.name() == name)
    }

    fn of_key(key: u8) -> Option<Attribute> {
        Attribute::ALL.into_iter().find(|attribute| *attribute as u8 == key)
    }

    /// Whether the attribute may have this value.
    pub fn accepts(self, value: &str) -> bool {
        let fits = match self {
            Attribute::Title => value.len() <= 250,
            Attribute::Priority => matches!(value, "1" | "2" | "3" | "4" | "5"),
            Attribute::Tags | Attribute::Click => value.len() <= 255,
        };
        fits && !value.is_empty() && !value.contains(char::is_control)
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The attributes of a message, as a record holds them: for each a key and a length, one byte
/// each, and the value. Keys ascend. A value is UTF-8 without control characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Reads attributes that are all of `bytes`; `None` when these are none. Accepts unknown keys,
    /// which a newer version may have written.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Option<Attributes<'a>> {
        if bytes.is_empty() { Some(Attributes(bytes)) } else { Attributes::decode_some(bytes) }
    }

    #[cold]
    fn decode_some(bytes: &'a [u8]) -> Option<Attributes<'a>> {
        let (mut rest, mut last) = (bytes, 0);
        while !rest.is_empty() {
            let (key, value, after) = split(rest)?;
            if key <= last || value.contains(char::is_control) {
                return None;
            }
            (rest, last) = (after, key);
        }
        Some(Attributes(bytes))
    }

    /// The encoded bytes: none without attributes.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The known attributes and their values, in the order of their keys.
    pub fn known(self) -> impl Iterator<Item = (Attribute, &'a str)> {
        let mut rest = self.0;
        let each = std::iter::from_fn(move || {
            let (key, value, after) = split(rest)?;
            rest = after;
            Some((key, value))
        });
        each.filter_map(|(key, value)| Some((Attribute::of_key(key)?, value)))
    }

    /// The value of an attribute, if the message has it.
    pub fn get(self, attribute: Attribute) -> Option<&'a str> {
        self.known().find(|(known, _)| *known == attribute).map(|(_, value)| value)
    }
}

/// Splits the first attribute off.
fn split(bytes: &[u8]) -> Option<(u8, &str, &[u8])> {
    let (&[key, length], rest) = bytes.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(usize::from(length))?;
    Some((key, std::str::from_utf8(value).ok()?, rest))
}

/// Attributes that are being collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeList(Vec<u8>);

impl AttributeList {
    /// Copies attributes.
    pub fn of(attributes: Attributes<'_>) -> AttributeList {
        AttributeList(attributes.0.to_vec())
    }

    /// Sets an attribute to a value that it accepts, in place of an earlier one.
    pub fn set(&mut self, attribute: Attribute, value: &str) {
        debug_assert!(attribute.accepts(value), "values are checked before");
        let mut bytes = Vec::new();
        for known in Attribute::ALL {
            let value = if known == attribute { Some(value) } else { self.get().get(known) };
            if let Some(value) = value {
                bytes.extend([known as u8, value.len() as u8]);
                bytes.extend_from_slice(value.as_bytes());
            }
        }
        self.0 = bytes;
    }

    /// The attributes.
    pub fn get(&self) -> Attributes<'_> {
        Attributes(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_kept_in_the_order_of_their_keys() {
        let mut list = AttributeList::default();
        for (attribute, value) in [
            (Attribute::Click, "https://example.org/ü"),
            (Attribute::Title, "old"),
            (Attribute::Priority, "4"),
            (Attribute::Title, "new"),
        ] {
            list.set(attribute, value);
        }
        let bytes = b"\x01\x03new\x02\x014\x04\x16https://example.org/\xc3\xbc";
        assert_eq!(list.get().bytes(), bytes);
        let read = Attributes::decode(bytes).unwrap();
        assert_eq!(AttributeList::of(read), list);
        assert_eq!(read.get(Attribute::Title), Some("new"));
        assert_eq!(read.get(Attribute::Tags), None);
        let names: Vec<_> = read.known().map(|(attribute, _)| attribute.name()).collect();
        assert_eq!(names, ["title", "priority", "click"]);
    }

    #[test]
    fn other_bytes_are_no_attributes() {
        for bad in [
            &b"\x01"[..],
            b"\x01\x02a",
            b"\x00\x01a",
            b"\x02\x011\x01\x01a",
            b"\x01\x01a\x01\x01b",
            b"\x01\x01\xff",
            b"\x01\x01\n",
        ] {
            assert_eq!(Attributes::decode(bad), None, "{bad:?}");
        }
        // A newer version may know more.
        let newer = Attributes::decode(b"\x01\x01a\x09\x01b").unwrap();
        assert_eq!(newer.known().collect::<Vec<_>>(), [(Attribute::Title, "a")]);
    }

    #[test]
    fn values_have_bounds() {
        let long = "x".repeat(255);
        for (attribute, value, accepted) in [
            (Attribute::Title, &long[..250], true),
            (Attribute::Title, &long[..251], false),
            (Attribute::Title, "", false),
            (Attribute::Title, "a\tb", false),
            (Attribute::Priority, "1", true),
            (Attribute::Priority, "5", true),
            (Attribute::Priority, "0", false),
            (Attribute::Priority, "6", false),
            (Attribute::Priority, "01", false),
            (Attribute::Tags, &long, true),
            (Attribute::Click, &long, true),
        ] {
            assert_eq!(attribute.accepts(value), accepted, "{attribute} {value}");
        }
        for attribute in Attribute::ALL {
            assert_eq!(Attribute::named(attribute.name()), Some(attribute));
            assert!(!attribute.accepts(&"x".repeat(256)));
        }
    }
}
