//! Shows clients what they have sent.

use super::deliver::{Unreadable, not_listed, read_list};
use super::{Context, Node};
use crate::frontend;
use crate::ids::{Index, SegmentId, SessionId};
use crate::limits::{OUTPUT_BYTES_MAX, SENT_PER_TURN};
use crate::mailbox::{Account, Change, List, Mailboxes};
use crate::protocol::Reply;
use crate::record::Record;
use std::io;

/// Finds the numbers that messages have in the mailboxes of their receivers.
struct Numbers<'a> {
    world: &'a Context<'a>,
    mailboxes: &'a Mailboxes,
    /// The last result: the receiver, the segment, and the number of its first message there.
    last: Option<(Index, SegmentId, u64)>,
}

impl Numbers<'_> {
    fn find(&mut self, receiver: &Account, entry: Index, rank: u32) -> io::Result<u64> {
        let (segment, _) = self.world.archive.segment_of(entry);
        let key = (receiver.created(), segment);
        let known = self.last.filter(|(account, segment, _)| (*account, *segment) == key);
        let first = match known {
            Some((.., first)) => first,
            None => match self.mailboxes.first_received(receiver, segment) {
                Some(first) => first,
                None => self.world.archive.first_received(segment, receiver.created())?,
            },
        };
        self.last = Some((key.0, key.1, first));
        Ok(first + u64::from(rank))
    }
}

/// Messages that went to accounts which were deleted since, or have forgotten them: the first and
/// the last one of a row.
struct Gone(Option<(u64, u64)>);

impl Gone {
    fn add(&mut self, number: u64) {
        let first = self.0.map_or(number, |(first, _)| first);
        self.0 = Some((first, number));
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        if let Some((first, last)) = self.0.take() {
            frontend::encode(Reply::Gone(first, last), out);
        }
    }
}

impl Node {
    /// Writes messages that an account has sent, while the output has room. Returns the number of
    /// the next one.
    pub(super) fn write_sent(
        &mut self,
        world: &Context<'_>,
        id: SessionId,
        first: u64,
        last: u64,
    ) -> Result<u64, Unreadable> {
        let Node { sessions, mailboxes, delivery, .. } = self;
        let Some(session) = sessions.get_mut(&id) else { return Ok(first) };
        let login = session.login();
        let Some(account) = login.and_then(|login| mailboxes.account(login.user)) else {
            return Ok(first);
        };
        let (mut next, mut failed, mut gone) = (first, Ok(()), Gone(None));
        let mut numbers = Numbers { world, mailboxes, last: None };
        let end = last.min(first + SENT_PER_TURN as u64 - 1);
        let (attributes, out) = (session.shows_attributes, &mut session.out);
        let part = (account, List::Sent, first, end);
        let created = account.created();
        let mut write = |number, rank, record: &Record<'_>| {
            failed = write_one(
                &mut numbers,
                &mut gone,
                (created, number, rank),
                record,
                attributes,
                out,
            );
            next = number + u64::from(failed.is_ok());
            failed.is_ok() && out.len() < OUTPUT_BYTES_MAX
        };
        let read = read_list(world, mailboxes, part, &mut delivery.reading, &mut write);
        gone.write(out);
        self.mark_dirty(id);
        self.end_step(id, read.and(failed), (first, next, last))
    }
}

fn write_one(
    numbers: &mut Numbers<'_>,
    gone: &mut Gone,
    (account, i, rank): (Index, u64, u32),
    record: &Record<'_>,
    attributes: bool,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let change = Change::decode(record.kind, record.body);
    if let Some(Change::Emptied { sender, .. }) = change
        && sender == account
    {
        gone.add(i);
        return Ok(());
    }
    let message = change
        .filter(|change| matches!(change, Change::Message { sender, .. } if *sender == account));
    let Some(Change::Message { to, content, .. }) = message else { return Err(not_listed(record)) };
    // An account that was created later under the same name has not got it.
    let receiver = numbers.mailboxes.account(to);
    let Some(receiver) = receiver.filter(|account| account.created() < record.index) else {
        gone.add(i);
        return Ok(());
    };
    let n = numbers.find(receiver, record.index, rank)?;
    if n <= receiver.forgotten.messages {
        gone.add(i);
        return Ok(());
    }
    gone.write(out);
    frontend::encode(Reply::Sent { i, n, time: record.time, to, content, attributes }, out);
    Ok(())
}
