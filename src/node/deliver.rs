//! Writes messages and names from the state to the sessions that read them, as far as their output
//! has room. A session that replays a year and one that receives new messages differ only in their
//! position in the mailbox.

use super::replies::{WRONG_PASSWORD, error};
use super::session::{Login, RequestState};
use super::{Context, Node};
use crate::frontend;
use crate::ids::{Index, SessionId, UserName};
use crate::limits::{
    DAMAGED_TIME, LISTED_PER_STEP, MESSAGES_PER_STEP, OUTPUT_BYTES_MAX, READ_STEPS_PER_TURN,
};
use crate::mailbox::{Account, Change, Found, List, Listed, Mailboxes, Visit};
use crate::protocol::{Answer, Code, Note, Reply};
use crate::record::Record;
use crate::time::Moment;
use std::collections::BTreeMap;
use std::io;

/// The message lines that were written last. Every session at the same position of the same
/// mailbox gets a copy: a message for a hundred sessions is read and encoded once.
#[derive(Debug, Default)]
pub(super) struct Lines {
    from: Start,
    /// The number of the message after them.
    next: u64,
    bytes: Vec<u8>,
}

/// Where message lines begin, and their form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Start {
    /// The entry that created the account.
    account: Index,
    /// The number of the first message.
    first: u64,
    /// Whether attributes have lines of their own.
    attributes: bool,
}

impl Lines {
    /// Appends the lines to `out` if they begin as `from` says, go no further than `last` and fit
    /// into the output. Returns the number of the next message then.
    fn copy(&self, from: Start, last: u64, out: &mut Vec<u8>) -> Option<u64> {
        let fits = self.from == from && self.next <= last + 1;
        let room = out.len() + self.bytes.len() <= OUTPUT_BYTES_MAX;
        (fits && room && self.next > from.first).then(|| {
            out.extend_from_slice(&self.bytes);
            self.next
        })
    }

    fn keep(&mut self, from: Start, next: u64, bytes: &[u8]) {
        (self.from, self.next) = (from, next);
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

/// What reading lists of messages needs.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The messages that are being written.
    listed: Vec<Listed>,
    /// How many steps were made in this turn; see [`READ_STEPS_PER_TURN`].
    pub(super) steps: usize,
}

/// What is under way to readers.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// The sessions of each user who is logged in.
    pub(super) online: BTreeMap<UserName, Vec<SessionId>>,
    /// Sessions with messages or names to write to their output.
    pub(super) moving: Vec<SessionId>,
    /// Sessions that wait for a handover, since this server can't read their next message.
    pub(super) stalled: Vec<SessionId>,
    /// When an unreadable entry was last logged. Limits the logging, since readers may request the
    /// entry again and again.
    unreadable_at: Option<Moment>,
    lines: Lines,
    pub(super) reading: Reading,
}

impl Node {
    /// Adds a session to those with something to write.
    pub(super) fn start_moving(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !std::mem::replace(&mut session.moving, true)
        {
            self.delivery.moving.push(id);
        }
    }

    /// Writes messages or names for every session in `moving`. An entry that can't be read fails
    /// only one session.
    pub(super) fn move_messages(&mut self, world: &Context<'_>) {
        let mut moving = std::mem::take(&mut self.delivery.moving).into_iter();
        while self.delivery.reading.steps < READ_STEPS_PER_TURN
            && let Some(id) = moving.next()
        {
            self.move_session(world, id);
        }
        // Those that had no turn come first in the next one.
        self.delivery.moving.splice(0..0, moving);
    }

    /// Writes messages or names for a session.
    fn move_session(&mut self, world: &Context<'_>, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.moving = false;
        if session.closing {
            return;
        }
        let moved = match session.request {
            RequestState::Showing { .. } => self.show_messages(world, id),
            RequestState::Listing(_) => {
                self.list_names(world, id);
                Ok(())
            }
            _ => self.push_messages(world, id),
        };
        if let Err(Unreadable { number, error }) = moved {
            let logged_at = self.delivery.unreadable_at;
            if logged_at.is_none_or(|last| world.now >= last + DAMAGED_TIME) {
                self.delivery.unreadable_at = Some(world.now);
                log::error!("message {number} of an account can't be read: {error}");
            }
            self.on_unreadable(world.now, id, number);
        }
    }

    /// Handles a session that needs an entry which this server can't read. Another server may be
    /// able to read it: this one hands the role over, and the session waits for that. If no server
    /// can take over, only this read fails.
    fn on_unreadable(&mut self, now: Moment, id: SessionId, number: u64) {
        if self.replica.leave_damaged(now) {
            return self.delivery.stalled.push(id);
        }
        let Some(session) = self.sessions.get(&id) else { return };
        if let RequestState::Showing { .. } = session.request {
            let words = format!("message {number} can't be read from the disk of this server");
            return self.finish(now, id, error(Code::Unreadable, words));
        }
        self.close_with(id, Note::Unreadable);
    }

    /// Writes the next part of the answer to a LOG, SENT or LOGIN.
    fn show_messages(&mut self, world: &Context<'_>, id: SessionId) -> Result<(), Unreadable> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let RequestState::Showing { list, next, last, ref login } = session.request else {
            return Ok(());
        };
        let login = login.as_deref().copied();
        let Some(reader) = login.or(session.login()) else { return Ok(()) };
        // A LOGIN under way is not in `online`, so a changed account does not close it.
        let account = self.mailboxes.account(reader.user);
        let same = account.is_some_and(|account| {
            account.created() == reader.created
                && (login.is_none() || account.password_set == reader.set)
        });
        if !same {
            self.finish(world.now, id, WRONG_PASSWORD);
            return Ok(());
        }
        let reached = match list {
            List::Received => self.write_messages(world, id, reader, next, last)?,
            List::Sent => self.write_sent(world, id, next, last)?,
        };
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        if reached <= last {
            if let RequestState::Showing { next, .. } = &mut session.request {
                *next = reached;
            }
            return Ok(());
        }
        let Some(login) = login else {
            self.finish(world.now, id, Reply::Ok(Answer::Number(last)));
            return Ok(());
        };
        session.login = Some(Box::new(login));
        self.delivery.online.entry(login.user).or_default().push(id);
        let user = login.user;
        self.finish(world.now, id, Reply::Ok(Answer::Login(user, last)));
        Ok(())
    }

    /// Pushes new messages to a session that is logged in.
    fn push_messages(&mut self, world: &Context<'_>, id: SessionId) -> Result<(), Unreadable> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let Some(login) = session.login().filter(|_| session.may_push()) else { return Ok(()) };
        let last = self.mailboxes.account(login.user).map_or(0, Account::last);
        let next = self.write_messages(world, id, login, login.next, last)?;
        if let Some(login) = self.sessions.get_mut(&id).and_then(|session| session.login.as_mut()) {
            login.next = next;
        }
        Ok(())
    }

    /// Writes messages while the output has room. Returns the number of the next message.
    fn write_messages(
        &mut self,
        world: &Context<'_>,
        id: SessionId,
        reader: Login,
        mut next: u64,
        last: u64,
    ) -> Result<u64, Unreadable> {
        let account = self.mailboxes.account(reader.user);
        let kept_from = account.map_or(0, |account| account.forgotten.messages + 1);
        if next < kept_from {
            next = kept_from;
            if let Some(session) = self.sessions.get_mut(&id) {
                frontend::encode(Reply::KeptFrom(kept_from), &mut session.out);
            }
            self.mark_dirty(id);
            if next > last {
                return Ok(next);
            }
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(next) };
        let Some(account) = self.mailboxes.account(reader.user) else { return Ok(next) };
        let (first, before, attributes) = (next, session.out.len(), session.shows_attributes);
        let from = Start { account: account.created(), first, attributes };
        if let Some(after) = self.delivery.lines.copy(from, last, &mut session.out) {
            next = after;
        }
        let copied = next > first;
        let (mut read, mut failed) = (Ok(()), Ok(()));
        if next <= last && session.out.len() < OUTPUT_BYTES_MAX {
            let part = (account, List::Received, next, last);
            let mut write = |number, _, record: &Record<'_>| {
                failed = write_message(record, (reader.user, number), attributes, &mut session.out);
                next = number + u64::from(failed.is_ok());
                failed.is_ok() && session.out.len() < OUTPUT_BYTES_MAX
            };
            let reading = &mut self.delivery.reading;
            read = read_list(world, &self.mailboxes, part, reading, &mut write).and(failed);
        }
        if session.out.len() > before {
            if !copied
                && self.delivery.online.get(&reader.user).is_some_and(|online| online.len() > 1)
            {
                self.delivery.lines.keep(from, next, &session.out[before..]);
            }
            self.mark_dirty(id);
        }
        self.end_step(id, read, (first, next, last))
    }

    /// Ends a step of a session that reads a list: from message `first` up to that before `next`.
    /// Returns the error of the step only if it has read nothing. Otherwise the next step returns
    /// it; it comes at once, unless the output is full.
    pub(super) fn end_step(
        &mut self,
        id: SessionId,
        read: io::Result<()>,
        (first, next, last): (u64, u64, u64),
    ) -> Result<u64, Unreadable> {
        if let Err(error) = read
            && next == first
        {
            return Err(Unreadable { number: next, error });
        }
        let has_room = self.output_bytes(id) < OUTPUT_BYTES_MAX;
        if next <= last && has_room {
            self.start_moving(id);
        }
        Ok(next)
    }

    fn list_names(&mut self, world: &Context<'_>, id: SessionId) {
        self.delivery.reading.steps += 1;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let RequestState::Listing(listing) = &mut session.request else { return };
        let mut ended = true;
        for (seen, name) in self.mailboxes.names_after(listing.after).enumerate() {
            if seen == LISTED_PER_STEP || session.out.len() >= OUTPUT_BYTES_MAX {
                ended = false;
                break;
            }
            listing.after = Some(name);
            if listing.pattern.matches(name.as_str()) {
                listing.count += 1;
                let online = self.delivery.online.contains_key(&name);
                frontend::encode(Reply::User { name, online }, &mut session.out);
            }
        }
        if ended {
            let found = listing.count;
            return self.finish(world.now, id, Reply::Ok(Answer::Number(found)));
        }
        let full = session.out.len() >= OUTPUT_BYTES_MAX;
        self.mark_dirty(id);
        if !full {
            self.start_moving(id);
        }
    }
}

/// A message that can't be read.
pub(super) struct Unreadable {
    pub(super) number: u64,
    pub(super) error: io::Error,
}

/// Passes messages `from` to `last` of a list to `visit`, each with its number and its rank, until
/// that returns false. Ends early after one search in an index file.
pub(super) fn read_list(
    world: &Context<'_>,
    mailboxes: &Mailboxes,
    (account, list, from, last): (&Account, List, u64, u64),
    Reading { listed, steps }: &mut Reading,
    visit: &mut Visit<'_>,
) -> io::Result<()> {
    let mut next = from;
    while next <= last {
        let most = (last - next + 1).min(MESSAGES_PER_STEP as u64) as usize;
        listed.clear();
        let found = mailboxes.find(account, list, next, most, listed);
        if let Found::File(newest) = found.expect("the list has the message") {
            *steps += 1;
            let mut within =
                |number, rank, record: &Record<'_>| visit(number, rank, record) && number < last;
            let of = (account.created(), list);
            return world.archive.read_messages(newest, of, next, &mut within);
        }
        for Listed { entry, rank } in &*listed {
            let mut wants_more = true;
            world.log.for_each(*entry, *entry, &mut |record| {
                wants_more = visit(next, *rank, record);
            })?;
            if !wants_more {
                return Ok(());
            }
            next += 1;
        }
    }
    Ok(())
}

/// Writes a message as an answer.
///
/// # Errors
/// The record is no message to this account: an index file names a wrong one.
fn write_message(
    record: &Record<'_>,
    (user, n): (UserName, u64),
    attributes: bool,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    match Change::decode(record.kind, record.body) {
        Some(Change::Message { to, from, content, .. }) if to == user => {
            let time = record.time;
            frontend::encode(Reply::Message { n, time, from, content, attributes }, out);
            Ok(())
        }
        _ => Err(not_listed(record)),
    }
}

/// Returns the error that an entry of a list is no message of that list.
pub(super) fn not_listed(record: &Record<'_>) -> io::Error {
    io::Error::other(format!("entry {} does not belong to the account's messages", record.index))
}
