//! The edges of a simulated server: what it wants done to the outside is left in [`Edges::acts`],
//! for the world to carry out.

use super::mirror::Mirror;
use super::process::Act;
use postern::frontend::Text;
use postern::host::{self, Gone, Usage};
use postern::ids::{Index, LinkId, ServerId, SessionId};
use postern::node::Job;
use postern::replica::{Append, Closing, Packet};
use postern::time::{Moment, WallTime};
use std::collections::{BTreeSet, VecDeque};
use std::io;

/// A text client's end at the server.
#[derive(Debug)]
pub(super) struct Client {
    session: SessionId,
    pub(super) text: Text,
    pub(super) input: Vec<u8>,
    pub(super) input_closed: bool,
    /// How many bytes its socket accepts before it blocks.
    room: usize,
    /// The socket has accepted less than it was given.
    blocked: bool,
}

/// The outside of one process.
#[derive(Default)]
pub(crate) struct Edges {
    /// What is to be carried out by the world; taken after every part of a turn.
    pub(crate) acts: Vec<Act>,
    /// Passwords to hash; taken like `acts`.
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) mirror: Mirror,
    now: Moment,
    wall: WallTime,
    /// Acts on links, until they are flushed.
    queued: Vec<Act>,
    /// Links that this server has closed: nothing more is sent on them.
    closed: BTreeSet<LinkId>,
    clients: Vec<Client>,
    /// Clients whose input is to be fed in the next turn.
    ready: Vec<SessionId>,
    /// Clients whose sockets accepted nothing more, and have room again.
    unblocked: Vec<SessionId>,
    gone: VecDeque<Gone>,
}

impl Edges {
    /// Nobody is connected yet to the process whose log this is.
    pub(super) fn new(mirror: Mirror) -> Edges {
        Edges { mirror, ..Edges::default() }
    }

    pub(super) fn set_clock(&mut self, now: Moment, wall: WallTime) {
        (self.now, self.wall) = (now, wall);
    }

    /// Whether a client's input is to be fed.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn take_ready(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.ready)
    }

    pub(super) fn take_unblocked(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.unblocked)
    }

    pub(super) fn open(&mut self, session: SessionId) {
        let text = Text::default();
        let (input, room) = (Vec::new(), usize::MAX);
        let client = Client { session, text, input, input_closed: false, room, blocked: false };
        self.clients.push(client);
    }

    /// Removes a client; whether it was there.
    pub(super) fn remove(&mut self, session: SessionId) -> bool {
        let known = self.clients.iter().position(|client| client.session == session);
        known.map(|at| self.clients.swap_remove(at)).is_some()
    }

    pub(super) fn client(&mut self, session: SessionId) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.session == session)
    }

    /// Lets the socket of a client accept `room` bytes before it blocks. At first it never blocks.
    pub(crate) fn set_room(&mut self, session: SessionId, room: usize) {
        if let Some(client) = self.client(session) {
            client.room = room;
            self.unblocked.push(session);
        }
    }
}

impl host::Edges for Edges {
    fn clock(&mut self) -> (Moment, WallTime) {
        (self.now, self.wall)
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn send(&mut self, link: LinkId, packet: Packet, rest: &[u8]) {
        if !self.closed.contains(&link) {
            self.queued.push(Act::Send(link, packet, rest.to_vec()));
        }
    }

    fn send_entries(
        &mut self,
        link: LinkId,
        append: Append,
        copy: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.closed.contains(&link) {
            return Ok(());
        }
        let mut records = Vec::new();
        copy(&mut records)?;
        self.queued.push(Act::Send(link, Packet::Append(append), records));
        Ok(())
    }

    fn dial(&mut self, to: ServerId) {
        self.acts.push(Act::Dial(to));
    }

    fn close_link(&mut self, link: LinkId, why: Closing) {
        if !self.closed.insert(link) {
            return;
        }
        if matches!(why, Closing::Silent) {
            // What is still queued would come too late, if ever.
            self.queued.retain(|act| !matches!(act, Act::Send(to, ..) if *to == link));
        }
        self.queued.push(Act::EndLink(link));
    }

    fn flush_links(&mut self) {
        for act in self.queued.drain(..) {
            if let Act::EndLink(link) = act {
                self.gone.push_back(Gone::Link(link));
            }
            self.acts.push(act);
        }
    }

    fn hash(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    fn write(&mut self, session: SessionId, output: &mut Vec<u8>, _must_read: bool) -> bool {
        if output.is_empty() {
            return false;
        }
        let Some(client) = self.client(session) else { return false };
        let was_blocked = client.blocked;
        // As a socket does: first what the front end owes, then the output, while there is room.
        let owed = client.text.owed();
        let owed = &owed[..owed.len().min(client.room)];
        client.text.note_sent(owed.len());
        client.room -= owed.len();
        let count = output.len().min(client.room);
        client.blocked = count < output.len();
        client.room -= count;
        let left = output.split_off(count);
        let answers = std::mem::replace(output, left);
        let bytes = if owed.is_empty() { answers } else { [owed, &answers].concat() };
        if !bytes.is_empty() {
            self.acts.push(Act::Say(session, bytes));
        }
        was_blocked
    }

    fn finish(&mut self, session: SessionId) {
        if self.remove(session) {
            self.gone.push_back(Gone::Client(session));
            self.acts.push(Act::EndClient(session));
        }
    }

    fn resume(&mut self, session: SessionId) {
        let client = self.client(session);
        if client.is_some_and(|client| client.input_closed || !client.input.is_empty())
            && !self.ready.contains(&session)
        {
            self.ready.push(session);
        }
    }

    fn next_gone(&mut self) -> Option<Gone> {
        self.gone.pop_front()
    }

    fn warn(&mut self, _words: &str) {}

    fn on_append(&mut self, records: &[u8]) {
        self.mirror.append(records);
    }

    fn on_cut(&mut self, last: Index) {
        self.mirror.cut(last);
    }
}
