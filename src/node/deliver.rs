//! Messages and names move from the state to those who read, as far as their buffers have room.
//! Whether a session replays a year or follows live, it is a position in its mailbox that moves.

use super::session::{Login, Step};
use super::{Context, Fatal, Node};
use crate::limits::{LISTED_PER_TURN, OUTPUT_BYTES_MAX};
use crate::mailbox::{Account, Change};
use crate::names::{Index, SessionId, UserName};
use crate::protocol;
use crate::record::Record;

impl Node {
    /// Puts a session on the list of those with something to move.
    pub(super) fn start_moving(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !std::mem::replace(&mut session.moving, true)
        {
            self.moving.push(id);
        }
    }

    pub(super) fn move_messages(&mut self, world: &Context<'_>) -> Result<(), Fatal> {
        for id in std::mem::take(&mut self.moving) {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.moving = false;
            if session.closing {
                continue;
            }
            match session.step {
                Step::Showing { .. } => self.show_messages(world, id)?,
                Step::Listing { .. } => self.list_names(world, id),
                _ => self.push_messages(world, id)?,
            }
        }
        Ok(())
    }

    /// One step of the answer to a LOG or LOGIN.
    fn show_messages(&mut self, world: &Context<'_>, id: SessionId) -> Result<(), Fatal> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let Step::Showing { next, last, login } = session.step else { return Ok(()) };
        let Some(reader) = login.or(session.login) else { return Ok(()) };
        // A LOGIN under way is on no list of sessions that a changed account closes.
        let account = self.mailboxes.account(reader.user);
        let same = account.is_some_and(|account| {
            account.created == reader.created
                && (login.is_none() || account.password_set == reader.set)
        });
        if !same {
            self.finish(world.now, id, super::requests::wrong_password);
            return Ok(());
        }
        let reached = self.write_messages(world, id, reader, next, last)?;
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        if reached <= last {
            session.step = Step::Showing { next: reached, last, login };
            return Ok(());
        }
        let Some(login) = login else {
            self.finish(world.now, id, |out| protocol::ok(out, last));
            return Ok(());
        };
        session.login = Some(login);
        self.online.entry(login.user).or_default().push(id);
        let user = login.user;
        self.finish(world.now, id, |out| protocol::ok(out, format_args!("{user} {last}")));
        Ok(())
    }

    /// New messages, to one who is logged in.
    fn push_messages(&mut self, world: &Context<'_>, id: SessionId) -> Result<(), Fatal> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let Some(login) = session.login.filter(|_| session.may_push()) else { return Ok(()) };
        let last = self.mailboxes.account(login.user).map_or(0, Account::last);
        let next = self.write_messages(world, id, login, login.next, last)?;
        if let Some(login) = self.sessions.get_mut(&id).and_then(|session| session.login.as_mut()) {
            login.next = next;
        }
        Ok(())
    }

    /// Writes messages while the buffer has room; the number of the next one.
    fn write_messages(
        &mut self,
        world: &Context<'_>,
        id: SessionId,
        reader: Login,
        mut next: u64,
        last: u64,
    ) -> Result<u64, Fatal> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(next) };
        let Some(account) = self.mailboxes.account(reader.user) else { return Ok(next) };
        let before = session.out.len();
        while next <= last && session.out.len() < OUTPUT_BYTES_MAX {
            let Some(at) = account.message(next) else { break };
            write_message(world, at, next, &mut self.scratch, &mut session.out)?;
            next += 1;
        }
        if session.out.len() > before {
            self.touch(id);
        }
        Ok(next)
    }

    fn list_names(&mut self, world: &Context<'_>, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Step::Listing { after, pattern, count } = std::mem::take(&mut session.step) else {
            return;
        };
        let (mut at, mut found, mut ended) = (after, count, true);
        for (seen, name) in self.mailboxes.names_after(after).enumerate() {
            if seen == LISTED_PER_TURN || session.out.len() >= OUTPUT_BYTES_MAX {
                ended = false;
                break;
            }
            at = Some(name);
            if pattern.matches(name.as_str()) {
                found += 1;
                write_name(&mut session.out, name, self.online.contains_key(&name));
            }
        }
        if ended {
            return self.finish(world.now, id, |out| protocol::ok(out, found));
        }
        let full = session.out.len() >= OUTPUT_BYTES_MAX;
        session.step = Step::Listing { after: at, pattern, count: found };
        self.touch(id);
        if !full {
            self.start_moving(id);
        }
    }
}

pub(super) fn write_name(out: &mut Vec<u8>, name: UserName, online: bool) {
    out.extend_from_slice(b"USER ");
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(if online { b" online\n" } else { b" offline\n" });
}

fn write_message(
    world: &Context<'_>,
    at: Index,
    n: u64,
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), Fatal> {
    scratch.clear();
    let read = world.log.copy(at, at, scratch);
    read.map_err(|error| Fatal(format!("the log can't be read: {error}")))?;
    let record = Record::trust(scratch);
    match Change::decode(record.kind, record.body) {
        Some(Change::Message { from, text, .. }) => {
            protocol::message(out, n, record.time, from.as_str(), text);
            Ok(())
        }
        _ => Err(Fatal(format!("entry {at} was a message and is none"))),
    }
}
