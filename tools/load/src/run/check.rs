//! Checks every answer and every delivery while the load runs, in constant time and eight bytes per
//! message. The checker of histories in testkit also knows when each request was sent, but needs
//! everything at once at the end: too much for millions of messages per minute.

use super::text::{Message, Sizes};
use std::collections::HashSet;

/// Which sender writes to which mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Routes {
    pub(crate) senders: usize,
    pub(crate) mailboxes: usize,
}

impl Routes {
    /// Returns the mailbox of a message. Senders share mailboxes if there are fewer; otherwise each
    /// sender writes to its own mailboxes in turn.
    pub(crate) fn mailbox(self, sender: usize, serial: u64) -> usize {
        if self.mailboxes <= self.senders {
            return sender % self.mailboxes.max(1);
        }
        sender + self.senders * (serial % self.own(sender) as u64) as usize
    }

    /// Returns how many mailboxes a sender writes to.
    fn own(self, sender: usize) -> usize {
        if self.mailboxes <= self.senders {
            return 1;
        }
        (self.mailboxes - sender).div_ceil(self.senders)
    }

    /// Returns whether a sender shares its mailboxes with no other one.
    fn is_sole(self, sender: usize) -> bool {
        self.mailboxes > self.senders || {
            let first = sender % self.mailboxes.max(1);
            first + self.mailboxes >= self.senders
        }
    }
}

/// The known contents of all mailboxes of a run.
#[derive(Default)]
pub(crate) struct Checker {
    parts: Vec<Part>,
    mailboxes: Vec<Mailbox>,
    senders: Vec<Sender>,
    /// Messages that may be stored once, or not.
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
    /// The last acknowledged number, by mailbox.
    last: Vec<u64>,
    /// Messages of unknown outcome.
    unknown: u64,
    /// Numbers between acknowledged ones: only messages of unknown outcome can have them.
    gaps: u64,
}

/// The messages by number, in chunks, so that nothing is ever moved.
#[derive(Default)]
struct Mailbox {
    chunks: Vec<Box<[Entry]>>,
    acked_to: u64,
    read_to: u64,
}

/// Sender, serial and flags of a message; zero if nothing is known.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Entry(u64);

const ACKED: u64 = 1;
const READ: u64 = 2;
const SERIAL_BITS: u32 = 42;
/// The most senders that fit into an entry.
pub(crate) const SENDERS_MAX: usize = 1 << (62 - SERIAL_BITS);
const CHUNK: usize = 1 << 13;
/// No run stores as many messages. A higher number is wrong, and must not allocate memory.
const NUMBER_MAX: u64 = 1 << 32;

impl Entry {
    fn of(message: Message) -> Entry {
        Entry((u64::from(message.sender) << SERIAL_BITS | message.serial) << 2)
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
    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        if number > NUMBER_MAX {
            return None;
        }
        while self.chunks.len() <= at / CHUNK {
            self.chunks.push(vec![Entry::default(); CHUNK].into_boxed_slice());
        }
        Some(&mut self.chunks[at / CHUNK][at % CHUNK])
    }

    /// Records that a message has a number. Returns whether `flag` was already set.
    fn record(&mut self, number: u64, message: Message, flag: u64) -> Result<bool, String> {
        let entry = self.entry(number).ok_or_else(|| format!("{number} is not valid"))?;
        let new = Entry::of(message);
        if entry.0 == 0 {
            entry.0 = new.0 | flag;
            return Ok(false);
        }
        if entry.0 & !(ACKED | READ) != new.0 {
            let how = if entry.is(READ) { "read" } else { "acknowledged" };
            let other = entry.message();
            return Err(format!("{number} belongs to {message}, but was {how} as {other}"));
        }
        let known = entry.is(flag);
        entry.0 |= flag;
        Ok(known)
    }
}

impl Checker {
    /// Adds clients with new, empty mailboxes. Returns the index of their first sender.
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

    /// Returns the index of a message's mailbox in the run.
    fn mailbox_of(&self, message: Message) -> Option<usize> {
        let sender = message.sender as usize;
        let part = &self.parts[self.senders.get(sender)?.part];
        Some(part.first_mailbox + part.routes.mailbox(sender - part.first_sender, message.serial))
    }

    /// Returns the highest number of a mailbox that was acknowledged or read. Requests that are
    /// sent from now on must get higher numbers.
    pub(crate) fn floor(&self, mailbox: usize) -> u64 {
        self.mailboxes.get(mailbox).map_or(0, |mailbox| mailbox.acked_to.max(mailbox.read_to))
    }

    /// Checks an acknowledgement. `floor` is that of the mailbox when the request was sent.
    pub(crate) fn acked(
        &mut self,
        message: Message,
        number: u64,
        floor: u64,
    ) -> Result<(), String> {
        if number <= floor {
            return Err(format!(
                "{message} has the number {number}, but {floor} was known before it was sent"
            ));
        }
        let at = self.mailbox_of(message).ok_or_else(|| format!("no client sends {message}"))?;
        let sender = &mut self.senders[message.sender as usize];
        let own = sender.last.len() as u64;
        let last = &mut sender.last[(message.serial % own) as usize];
        if number <= *last {
            return Err(format!("{message} has the number {number}, after {last} was assigned"));
        }
        sender.gaps += number - *last - 1;
        if sender.is_sole && sender.gaps > sender.unknown {
            return Err(format!(
                "{message} has the number {number}, after {last}, but is the mailbox's only sender"
            ));
        }
        *last = number;
        let mailbox = &mut self.mailboxes[at];
        mailbox.acked_to = mailbox.acked_to.max(number);
        match mailbox.record(number, message, ACKED) {
            Ok(false) => Ok(()),
            Ok(true) => Err(format!("{message} was acknowledged twice, at {number}")),
            Err(why) => Err(format!("mailbox {at}: the number {why}")),
        }
    }

    /// Records that the outcome of a message is unknown.
    pub(crate) fn unknown(&mut self, message: Message) {
        self.senders[message.sender as usize].unknown += 1;
        self.unknown.insert(message);
    }

    /// Checks a message that a reader receives after the number `after`.
    pub(crate) fn read(
        &mut self,
        at: usize,
        after: u64,
        number: u64,
        text: &[u8],
    ) -> Result<(), String> {
        let failed = |why: &str| Err(format!("mailbox {at}: {number} {why}"));
        if number != after + 1 {
            return failed(&format!("was delivered after {after}"));
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
        let recorded = mailbox.record(number, message, READ);
        recorded.map(|_| ()).map_err(|why| format!("mailbox {at}: the number {why}"))
    }

    /// Returns the highest acknowledged number of a mailbox.
    pub(crate) fn acked_to(&self, mailbox: usize) -> u64 {
        self.mailboxes[mailbox].acked_to
    }

    /// Checks a mailbox that was read from its beginning to `end`, after the last answer.
    pub(crate) fn finish(&mut self, at: usize, end: u64) -> Result<(), String> {
        let floor = self.floor(at);
        if end < floor {
            return Err(format!("mailbox {at} ends at {end}, but {floor} was known"));
        }
        let mailbox = &self.mailboxes[at];
        let entries = mailbox.chunks.iter().flat_map(|chunk| chunk.iter());
        for (entry, number) in entries.zip(1..=end) {
            let message = entry.message();
            if !entry.is(ACKED) && !self.unknown.remove(&message) {
                return Err(format!(
                    "mailbox {at}: {message} has the number {number}, but was rejected, or has \
                     another number, or was never sent"
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
