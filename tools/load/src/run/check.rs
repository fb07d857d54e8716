//! Judges every answer and every delivery while the load runs, in constant time and eight bytes
//! a message. The [checker of histories](postern_load::checker) knows when each request was
//! asked, and needs everything at once at the end: too much for millions a minute.

use super::text::{Message, Sizes};
use std::collections::HashSet;

/// Which sender writes to which mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Routes {
    /// How many write.
    pub(crate) senders: usize,
    /// How many mailboxes are written to.
    pub(crate) mailboxes: usize,
}

impl Routes {
    /// The mailbox of a message: senders share them when there are fewer, and else each takes
    /// turns between his own.
    pub(crate) fn mailbox(self, sender: usize, serial: u64) -> usize {
        if self.mailboxes <= self.senders {
            return sender % self.mailboxes.max(1);
        }
        sender + self.senders * (serial % self.own(sender) as u64) as usize
    }

    /// How many mailboxes a sender writes to.
    fn own(self, sender: usize) -> usize {
        if self.mailboxes <= self.senders {
            return 1;
        }
        (self.mailboxes - sender).div_ceil(self.senders)
    }

    /// Whether nobody else writes where this sender does.
    fn is_sole(self, sender: usize) -> bool {
        self.mailboxes > self.senders || {
            let first = sender % self.mailboxes.max(1);
            first + self.mailboxes >= self.senders
        }
    }
}

/// What is known of all mailboxes and senders of a run.
#[derive(Default)]
pub(crate) struct Checker {
    parts: Vec<Part>,
    mailboxes: Vec<Mailbox>,
    senders: Vec<Sender>,
    /// Messages that may or may not stand somewhere, once.
    unknown: HashSet<Message>,
    /// A text to compare with.
    scratch: Vec<u8>,
}

/// Clients with the same settings.
struct Part {
    routes: Routes,
    sizes: Sizes,
    first_sender: usize,
    first_mailbox: usize,
}

struct Sender {
    part: usize,
    is_sole: bool,
    /// The last number that was acknowledged, by mailbox.
    last: Vec<u64>,
    /// Messages of which it never knew.
    unknown: u64,
    /// Numbers between those that were acknowledged, where only such messages can stand.
    gaps: u64,
}

/// The messages by their numbers, in pieces, so that nothing is ever moved.
#[derive(Default)]
struct Mailbox {
    pieces: Vec<Box<[Slot]>>,
    acked_to: u64,
    read_to: u64,
}

/// Sender, serial, and what is known of them: zero when nothing is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Slot(u64);

const ACKED: u64 = 1;
const READ: u64 = 2;
const SERIAL_BITS: u32 = 42;
/// The most senders that the checker tells apart.
pub(crate) const SENDERS_MAX: usize = 1 << (62 - SERIAL_BITS);
const PIECE: usize = 1 << 13;
/// Far more than a run stores; a number beyond is wrong, and must not cost memory.
const NUMBER_MAX: u64 = 1 << 32;

impl Slot {
    fn of(message: Message) -> Slot {
        Slot((u64::from(message.sender) << SERIAL_BITS | message.serial) << 2)
    }

    fn message(self) -> Message {
        let serial = self.0 >> 2 & ((1 << SERIAL_BITS) - 1);
        Message { sender: (self.0 >> 2 >> SERIAL_BITS) as u32, serial }
    }

    fn is(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

impl Mailbox {
    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        if number > NUMBER_MAX {
            return None;
        }
        while self.pieces.len() <= at / PIECE {
            self.pieces.push(vec![Slot::default(); PIECE].into_boxed_slice());
        }
        Some(&mut self.pieces[at / PIECE][at % PIECE])
    }

    /// Notes that a message stands at a number; whether that was known as `flag` says.
    fn note(&mut self, number: u64, message: Message, flag: u64) -> Result<bool, String> {
        let slot = self.slot(number).ok_or_else(|| format!("{number} is no number"))?;
        let new = Slot::of(message);
        if slot.0 == 0 {
            slot.0 = new.0 | flag;
            return Ok(false);
        }
        if slot.0 & !(ACKED | READ) != new.0 {
            let (other, how) = (slot.message(), if slot.is(READ) { "stands" } else { "is told" });
            return Err(format!("{number} is that of {message}, where {other} {how} to be"));
        }
        let known = slot.is(flag);
        slot.0 |= flag;
        Ok(known)
    }
}

impl Checker {
    /// Makes room for clients with new, empty mailboxes; the first of their senders.
    pub(crate) fn add(&mut self, routes: Routes, sizes: Sizes) -> usize {
        let (part, first_sender) = (self.parts.len(), self.senders.len());
        self.parts.push(Part { routes, sizes, first_sender, first_mailbox: self.mailboxes.len() });
        self.mailboxes.extend((0..routes.mailboxes).map(|_| Mailbox::default()));
        self.senders.extend((0..routes.senders).map(|at| Sender {
            part,
            is_sole: routes.is_sole(at),
            last: vec![0; routes.own(at)],
            unknown: 0,
            gaps: 0,
        }));
        first_sender
    }

    /// The mailbox of a message, of all mailboxes of the run.
    fn mailbox_of(&self, message: Message) -> Option<usize> {
        let sender = message.sender as usize;
        let part = &self.parts[self.senders.get(sender)?.part];
        Some(part.first_mailbox + part.routes.mailbox(sender - part.first_sender, message.serial))
    }

    /// The greatest number that anybody was told or shown of a mailbox: what is asked from now on
    /// must stand above it.
    pub(crate) fn floor(&self, mailbox: usize) -> u64 {
        self.mailboxes.get(mailbox).map_or(0, |mailbox| mailbox.acked_to.max(mailbox.read_to))
    }

    /// A message was acknowledged with this number. `floor` is that of its mailbox when it was
    /// asked.
    pub(crate) fn acked(
        &mut self,
        message: Message,
        number: u64,
        floor: u64,
    ) -> Result<(), String> {
        if number <= floor {
            return Err(format!(
                "{message} has the number {number}, but {floor} was told before it was asked"
            ));
        }
        let at = self.mailbox_of(message).ok_or_else(|| format!("nobody sends {message}"))?;
        let sender = &mut self.senders[message.sender as usize];
        let own = sender.last.len() as u64;
        let last = &mut sender.last[(message.serial % own) as usize];
        if number <= *last {
            return Err(format!("{message} has the number {number}, after {last} was given out"));
        }
        sender.gaps += number - *last - 1;
        if sender.is_sole && sender.gaps > sender.unknown {
            return Err(format!(
                "{message} has the number {number}, after {last}: nobody else writes there"
            ));
        }
        *last = number;
        let mailbox = &mut self.mailboxes[at];
        mailbox.acked_to = mailbox.acked_to.max(number);
        match mailbox.note(number, message, ACKED) {
            Ok(false) => Ok(()),
            Ok(true) => Err(format!("{message} was acknowledged twice, at {number}")),
            Err(why) => Err(format!("mailbox {at}: the number {why}")),
        }
    }

    /// The sender will never know whether a message was stored.
    pub(crate) fn unknown(&mut self, message: Message) {
        self.senders[message.sender as usize].unknown += 1;
        self.unknown.insert(message);
    }

    /// A reader, who has read up to `after`, is shown a message.
    pub(crate) fn read(
        &mut self,
        at: usize,
        after: u64,
        number: u64,
        text: &[u8],
    ) -> Result<(), String> {
        let failed = |why: &str| Err(format!("mailbox {at}: {number} {why}"));
        if number != after + 1 {
            return failed(&format!("is shown after {after}"));
        }
        let Some(message) = Message::read(text) else {
            return failed(&format!("is `{}`", String::from_utf8_lossy(text)));
        };
        if self.mailbox_of(message) != Some(at) {
            return failed(&format!("is {message}, which was not sent there"));
        }
        let sizes = self.parts[self.senders[message.sender as usize].part].sizes;
        if !message.is_text(sizes, text, &mut self.scratch) {
            let text = String::from_utf8_lossy(text);
            return failed(&format!("is {message}, but its text was changed: `{text}`"));
        }
        let mailbox = &mut self.mailboxes[at];
        mailbox.read_to = mailbox.read_to.max(number);
        match mailbox.note(number, message, READ) {
            Ok(_) => Ok(()),
            Err(why) => Err(format!("mailbox {at}: the number {why}")),
        }
    }

    /// The greatest number that was acknowledged in a mailbox.
    pub(crate) fn acked_to(&self, mailbox: usize) -> u64 {
        self.mailboxes[mailbox].acked_to
    }

    /// Judges a mailbox that was read from its beginning to `end`, after the last answer.
    pub(crate) fn finish(&mut self, at: usize, end: u64) -> Result<(), String> {
        let floor = self.floor(at);
        if end < floor {
            return Err(format!("mailbox {at} ends at {end}, but {floor} was told or shown"));
        }
        let mailbox = &self.mailboxes[at];
        let slots = mailbox.pieces.iter().flat_map(|piece| piece.iter());
        for (slot, number) in slots.zip(1..=end) {
            let message = slot.message();
            if !slot.is(ACKED) && !self.unknown.remove(&message) {
                return Err(format!(
                    "mailbox {at}: {message} stands at {number}, but was refused, or stands \
                     elsewhere, or was never sent"
                ));
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message {} of sender {}", self.serial, self.sender)
    }
}

#[cfg(test)]
mod tests;
