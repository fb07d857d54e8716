//! Parses the lines of a server.

use super::{Attributes, Message, SentMessage};
use crate::content::Attribute;
use crate::protocol;
use std::fmt::Display;
use std::str::SplitN;

/// The reason why a server refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code, which is part of the protocol (`no-such-user`, `busy`, …).
    pub code: String,
    /// The message text for a person.
    pub words: String,
}

impl Refusal {
    pub(crate) fn new(code: impl Display, words: &str) -> Refusal {
        Refusal { code: code.to_string(), words: words.to_owned() }
    }
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// The end of a successful answer.
    Ok(&'a str),
    /// The end of an answer with an error.
    Err(Refusal),
    /// An attribute of the message of this number, before the message. `None` if it is unknown.
    Attribute(u64, Option<(Attribute, &'a str)>),
    /// A message, as part of an answer or pushed, without its attributes.
    Message(Message),
    /// A message that was sent, as part of an answer, without its attributes.
    Sent(SentMessage),
    /// The messages of the mailbox before this number are no longer kept.
    KeptFrom(u64),
    /// A note of the server about the connection.
    Note(&'a str),
    /// A line of data before the end of an answer.
    Data(&'a str),
}

/// Parses a line without its end; `None` when no server sends such a line. Rejects control
/// characters, which could drive a terminal, and numbers that could overflow in later sums.
pub(super) fn read(line: &str) -> Option<Line<'_>> {
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return None;
    }
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "OK" => Some(Line::Ok(rest)),
        "ERR" => {
            let (code, words) = rest.split_once(' ').unwrap_or((rest, ""));
            (!code.is_empty()).then(|| Line::Err(Refusal::new(code, words)))
        }
        "NOTE" => match rest.strip_prefix("kept-from ") {
            Some(rest) => {
                let first = number(rest.split(' ').next()?).filter(|first| *first > 0)?;
                Some(Line::KeptFrom(first))
            }
            None => Some(Line::Note(rest)),
        },
        "STAT" | "USER" | "HELP" | "GONE" => Some(Line::Data(rest)),
        "ATTR" => {
            let (word, rest) = rest.split_once(' ')?;
            let (name, value) = rest.split_once(' ')?;
            let known = Attribute::named(name).filter(|attribute| attribute.accepts(value));
            Some(Line::Attribute(number(word)?, known.map(|attribute| (attribute, value))))
        }
        "MSG" => {
            let mut parts = Parts(rest.splitn(4, ' '));
            let (number, time) = (parts.number()?, parts.word()?);
            let (from, text) = (parts.word()?, parts.text()?);
            let attributes = Attributes::default();
            Some(Line::Message(Message { number, time, from, text, attributes }))
        }
        "SENT" => {
            let mut parts = Parts(rest.splitn(5, ' '));
            let (place, number) = (parts.number()?, parts.number()?);
            let (time, to, text) = (parts.word()?, parts.word()?, parts.text()?);
            let attributes = Attributes::default();
            Some(Line::Sent(SentMessage { place, number, time, to, text, attributes }))
        }
        _ => None,
    }
}

/// The parts of a message line. None is empty.
struct Parts<'a>(SplitN<'a, char>);

impl<'a> Parts<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.0.next().filter(|part| !part.is_empty())
    }

    fn number(&mut self) -> Option<u64> {
        number(self.next()?).filter(|number| *number > 0)
    }

    fn word(&mut self) -> Option<String> {
        self.next().map(str::to_owned)
    }

    fn text(&mut self) -> Option<String> {
        self.next().map(|text| protocol::with_breaks(text).into_owned())
    }
}

/// Parses the number of a message, or a count of messages. Servers never send one beyond this
/// bound, and sums with a number within it do not overflow.
pub(super) fn number(word: &str) -> Option<u64> {
    word.parse().ok().filter(|number| *number <= u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let refusal = |code: &str, words: &str| {
            Some(Line::Err(Refusal { code: code.to_owned(), words: words.to_owned() }))
        };
        let table = [
            ("OK", Some(Line::Ok(""))),
            ("OK ann 7", Some(Line::Ok("ann 7"))),
            ("ERR busy try again", refusal("busy", "try again")),
            ("ERR busy", refusal("busy", "")),
            ("ERR", None),
            ("NOTE stopping bye", Some(Line::Note("stopping bye"))),
            ("NOTE kept-from 7 older messages are gone", Some(Line::KeptFrom(7))),
            ("NOTE kept-from 0", None),
            ("NOTE kept-from x", None),
            ("STAT role primary", Some(Line::Data("role primary"))),
            ("USER ann online", Some(Line::Data("ann online"))),
            ("GONE 3 5", Some(Line::Data("3 5"))),
            ("SENT 0 1 2026-11-23T11:58:03.120Z bob hi", None),
            ("SENT 1 2026-11-23T11:58:03.120Z bob hi", None),
            ("SENT 1 1 2026-11-23T11:58:03.120Z bob", None),
            ("MSG 0 2026-11-23T11:58:03.120Z bob hi", None),
            ("MSG 1 2026-11-23T11:58:03.120Z bob", None),
            ("MSG x 2026-11-23T11:58:03.120Z bob hi", None),
            (
                "ATTR 7 title  Disk full",
                Some(Line::Attribute(7, Some((Attribute::Title, " Disk full")))),
            ),
            ("ATTR 7 icon x", Some(Line::Attribute(7, None))),
            ("ATTR 7 priority 9", Some(Line::Attribute(7, None))),
            ("ATTR 7 title", None),
            ("ATTR x title y", None),
            ("HTTP/1.1 400 Bad Request", None),
            ("MSG 18446744073709551615 2026-11-23T11:58:03.120Z bob hi", None),
            ("ERR busy \u{1b}]0;owned\u{7}", None),
            ("", None),
        ];
        for (line, expected) in table {
            assert_eq!(read(line), expected, "{line}");
        }
        let Some(Line::Message(message)) =
            read("MSG 7 2026-11-23T11:58:03.120Z bob  two  spaces ␤and lines")
        else {
            panic!("a message");
        };
        assert_eq!((message.number, &message.from[..]), (7, "bob"));
        assert_eq!(message.text, " two  spaces \nand lines");
        let Some(Line::Sent(sent)) = read("SENT 9 7 2026-11-23T11:58:03.120Z bob a␤b") else {
            panic!("a message that was sent");
        };
        assert_eq!((sent.place, sent.number, &sent.to[..], &sent.text[..]), (9, 7, "bob", "a\nb"));
    }
}
