//! How far the own mailbox was received, and how far its messages were passed to the caller.

use super::{After, Attributes, Error};
use crate::content::Attribute;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// The number of the last message that was passed to the caller. `None` before the first
    /// answer unless the account names a number.
    pub(super) seen: Option<u64>,
    /// The number of the last message that was received.
    came: u64,
    /// Attributes of the message that comes next, and its number.
    attributes: (u64, Attributes),
}

impl Received {
    /// Of an account that reads after a message.
    pub(super) fn new(after: After) -> Received {
        let seen = match after {
            After::Number(n) => Some(n),
            After::End | After::Last(_) => None,
        };
        Received { seen, came: seen.unwrap_or(0), ..Received::default() }
    }

    /// The last message that was passed to the caller, if later ones were received.
    pub(super) fn behind(&self) -> Option<u64> {
        self.seen.filter(|seen| *seen < self.came)
    }

    /// Handles the answer to a login: the number of the last message at that time.
    pub(super) fn on_logged_in(&mut self, last: u64) {
        self.seen = self.seen.or(Some(last));
        self.came = self.came.max(last);
    }

    /// Handles a message. Returns whether it is the caller's next one, who gets it if there
    /// `is_room`.
    ///
    /// # Errors
    /// A message before it is missing.
    pub(super) fn on_message(&mut self, number: u64, is_room: bool) -> Result<bool, Error> {
        let next = self.seen.map(|seen| seen.saturating_add(1));
        let expected = self.came.saturating_add(1);
        self.came = self.came.max(number);
        match next {
            Some(next) if number > next.max(expected) => {
                return Err(Error::Gap { missing: expected, came: number });
            }
            Some(next) if number != next => return Ok(false),
            None if !is_room => self.seen = Some(number - 1),
            _ if is_room => self.seen = Some(number),
            _ => {}
        }
        Ok(is_room)
    }

    /// Handles the news that messages before `first` are no longer kept. Returns whether the
    /// caller lacks any of them, and is told if there `is_room`.
    pub(super) fn on_kept_from(&mut self, first: u64, is_room: bool) -> bool {
        let before = first - 1;
        if self.seen.is_some_and(|seen| seen >= before) {
            return false;
        }
        // Nothing before it comes any more, whether the caller is told now or later.
        self.came = self.came.max(before);
        if is_room {
            self.seen = Some(before);
        }
        is_room
    }

    /// Adds an attribute of message `number`, which comes next; `None`: an unknown one.
    pub(super) fn on_attribute(&mut self, number: u64, known: Option<(Attribute, &str)>) {
        if self.attributes.0 != number {
            self.attributes = (number, Attributes::default());
        }
        known.iter().for_each(|(name, value)| self.attributes.1.set(*name, value));
    }

    /// Takes the attributes that came for the message of this number.
    pub(super) fn take_attributes(&mut self, number: u64) -> Attributes {
        let (of, attributes) = std::mem::take(&mut self.attributes);
        if of == number { attributes } else { Attributes::default() }
    }
}
