//! One server without sockets, files or clocks: joins the protocol, the mailboxes and the
//! replica. Inputs in; effects, password jobs and bytes for clients out.
//!
//! `requests` takes lines and answers them, `apply` turns answered entries into state and
//! answers, `deliver` moves messages to readers, `passwords` and `throttle` know which passwords
//! were right and wrong, `hash_queue` which are to be hashed, `trouble` knows what keeps changes
//! from being taken, `refusals` and `status` say it, `compare` finds settings that differ, `role`
//! follows the replica's role, `operator` serves who knows the group's secret.

mod apply;
mod compare;
mod deliver;
mod hash_queue;
#[cfg(feature = "simulate")]
mod held;
mod interface;
mod login_throttle;
mod operator;
mod password_cache;
mod refusals;
mod replies;
mod requests;
mod role;
mod session;
mod status;
mod trouble;

use crate::frontend;
use crate::ids::{Index, LinkId, Origin, ServerId, SessionId, Term, UserName};
use crate::latency::Meter;
use crate::limits::{OUTPUT_BYTES_MAX, REQUESTS_MAX};
use crate::mailbox::Mailboxes;
use crate::protocol::{Code, Note, Reply, Words};
use crate::replica::{Event, Packet, Replica};
use crate::time::Moment;
use compare::Compared;
use deliver::Lines;
use hash_queue::HashQueue;
#[cfg(feature = "simulate")]
pub use held::Held;
pub use interface::{Context, Fatal, Gauges, Hashed, Input, Job, Outlet, Output, Setup};
use login_throttle::LoginThrottle;
use password_cache::PasswordCache;
#[cfg(test)]
pub(crate) use requests::NOBODY;
use session::{RequestState, Session, Sessions};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use trouble::Reports;

/// A change that is logged and not answered.
#[derive(Debug)]
struct Pending {
    index: Index,
    session: SessionId,
    bytes: usize,
    taken: Moment,
}

/// One server.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    began: Moment,
    replica: Replica,
    mailboxes: Mailboxes,
    /// Up to here entries are part of `mailboxes`.
    applied: Index,
    /// The term in which this server was primary when it last looked.
    led: Option<Term>,
    sessions: Sessions,
    /// Those of them that came over a link.
    operators: Vec<SessionId>,
    online: BTreeMap<UserName, Vec<SessionId>>,
    /// In the order of the log.
    pending: VecDeque<Pending>,
    unanswered_bytes: usize,
    /// Sessions that wait for a round of reads, in its order.
    reads: VecDeque<(u64, SessionId)>,
    deadlines: BTreeSet<(Moment, SessionId)>,
    /// Sessions that the shell must look at.
    dirty: Vec<SessionId>,
    /// Sessions with messages to move.
    moving: Vec<SessionId>,
    /// Those that wait for a handover, since the next message can't be read here.
    stalled: Vec<SessionId>,
    /// When it was last logged that an entry can't be read: readers may ask for it again and again.
    unreadable_at: Option<Moment>,
    hash_queue: HashQueue,
    passwords: PasswordCache,
    /// The epoch in which they were: entries of another one are others.
    epoch: u16,
    throttle: LoginThrottle,
    compared: Compared,
    reports: Reports,
    /// When whatever is unanswered is given up.
    stopping: Option<Moment>,
    given_up: bool,
    /// No lines are taken while the role is being handed over.
    handing_over: bool,
    commits: Meter,
    flushes: Meter,
    lines: Lines,
}

impl Node {
    /// A node around a replica.
    pub fn new(now: Moment, setup: Setup, replica: Replica) -> Node {
        Node {
            mailboxes: Mailboxes::new(&setup.secret),
            passwords: PasswordCache::new(&setup.secret),
            epoch: replica.term().epoch(),
            throttle: LoginThrottle::default(),
            compared: Compared::default(),
            reports: Reports::default(),
            setup,
            began: now,
            replica,
            applied: Index::ZERO,
            led: None,
            sessions: Sessions::default(),
            operators: Vec::new(),
            online: BTreeMap::new(),
            pending: VecDeque::new(),
            unanswered_bytes: 0,
            reads: VecDeque::new(),
            deadlines: BTreeSet::new(),
            dirty: Vec::new(),
            moving: Vec::new(),
            stalled: Vec::new(),
            unreadable_at: None,
            hash_queue: HashQueue::default(),
            stopping: None,
            given_up: false,
            handing_over: false,
            commits: Meter::default(),
            flushes: Meter::default(),
            lines: Lines::default(),
        }
    }

    /// Takes in one input; what is to be done about it is added to `out`.
    ///
    /// # Errors
    /// When the log can't be read or holds what this version does not know.
    pub fn handle(
        &mut self,
        world: &Context<'_>,
        input: Input<'_>,
        out: &mut Output,
    ) -> Result<(), Fatal> {
        match input {
            Input::Replica(event) => {
                let operator = self.replica.takes_request(&event);
                match event {
                    Event::Tick => self.keep_deadlines(world.now),
                    Event::Ended { link } => self.remove(SessionId::of_operator(link)),
                    _ => {}
                }
                self.replica.handle(world.now, world.wall, event, world.log, &mut out.replica);
                match event {
                    Event::Tick => self.tell_proofs(&mut out.packets),
                    Event::Received { link, packet, records } => {
                        self.on_packet(link, packet, records, &mut out.packets);
                    }
                    _ => {}
                }
                if let Some((link, line)) = operator {
                    self.on_operator(world, link, line, out);
                }
                if let Event::Tick | Event::Durable(_) = event {
                    self.follow_role(world.now);
                    self.follow_handover();
                    self.apply_acknowledged(world)?;
                    self.resume_reads(world, out);
                    self.move_messages(world)?;
                    self.report_trouble(world.now);
                }
            }
            Input::Opened(session, from) => self.open(world.now, session, from),
            Input::Line(session, line) => self.on_line(world, session, line, out),
            Input::LongLine(session) => {
                self.extend_login(world.now, session);
                let words = Words::Text("a line has at most 4096 bytes");
                self.answer(session, Reply::Error(Code::TooLong, words));
            }
            Input::InputEnded { session, unfinished } => {
                self.on_input_ended(world.now, session, unfinished);
            }
            Input::Drained(session) => {
                self.on_drained(session);
                self.move_messages(world)?;
            }
            Input::Gone(session) => self.remove(session),
            Input::Hashed(session, hashed) => self.on_hashed(world, session, hashed, out),
            Input::Full(full) => self.replica.note_space(world.now, full),
            Input::Stop => self.stop(world.now),
        }
        self.answer_operators(out);
        assert!(self.applied <= self.replica.acknowledged(), "only answered entries are applied");
        Ok(())
    }

    /// What servers tell each other beside the replication.
    fn on_packet(
        &mut self,
        link: LinkId,
        packet: Packet,
        records: &[u8],
        packets: &mut Vec<(LinkId, Packet, Vec<u8>)>,
    ) {
        match packet {
            // It comes on each link that counts, and soon.
            Packet::Ping { .. } => self.tell_settings(link, packets),
            Packet::Settings => self.on_settings(link, records),
            Packet::Proofs => self.on_proofs(link, records, packets),
            Packet::ProofsTaken => self.passwords.on_taken(link),
            _ => {}
        }
    }

    /// When `Event::Tick` is wanted, at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        let backlog = self.applied < self.replica.acknowledged()
            || !self.moving.is_empty()
            || !self.dirty.is_empty();
        let backlog = backlog.then_some(Moment(0));
        let sessions = self.deadlines.first().map(|(at, _)| *at);
        let stop = self.stopping.filter(|_| !self.given_up);
        [backlog, sessions, stop, self.replica.next_deadline()].into_iter().flatten().min()
    }

    /// Whether a line of this client may be handed in now.
    pub fn wants_line(&self, session: SessionId) -> bool {
        self.stopping.is_none()
            && !self.replica.is_handing_over()
            && self.sessions.get(&session).is_some_and(|session| {
                matches!(session.request, RequestState::Idle)
                    && !session.closing
                    && session.pending_replies.len() < REQUESTS_MAX
                    && session.out.len() < OUTPUT_BYTES_MAX
            })
    }

    /// What is to be sent to a client; none when it is gone.
    pub fn outlet(&mut self, session: SessionId) -> Option<Outlet<'_>> {
        let session = self.sessions.get_mut(&session)?;
        let (closing, logged_in) = (session.closing, session.login.is_some());
        Some(Outlet { output: &mut session.out, closing, must_read: closing || !logged_in })
    }

    /// How many bytes are to be sent to a client.
    pub fn output_bytes(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |session| session.out.len())
    }

    /// Gives back the memory of what a client's session holds empty.
    pub fn cool(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.cool();
        }
    }

    /// Whether a client's connection is to be closed.
    pub fn is_finished(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_none_or(|session| session.closing && session.out.is_empty())
    }

    /// The clients that have output, or want a line again; each once.
    pub fn take_dirty(&mut self, into: &mut Vec<SessionId>) {
        into.clear();
        std::mem::swap(into, &mut self.dirty);
        for id in into {
            if let Some(session) = self.sessions.get_mut(id) {
                session.dirty = false;
            }
        }
    }

    /// Whether everything taken is answered, or the time for that is over.
    pub fn is_stopped(&self, now: Moment) -> bool {
        let served = self.sessions.is_empty() && self.applied >= self.replica.acknowledged();
        self.stopping.is_some() && (served || self.given_up) && self.replica.is_released(now)
    }

    /// How long a client may stay without logging in, silent or not.
    pub fn login_timeout(&self) -> Duration {
        self.setup.login_timeout
    }

    /// The replica.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Notes how many answers one sync of the log served, for `STATUS`.
    pub fn note_flush(&mut self, now: Moment) {
        self.flushes.note(now, Duration::ZERO);
    }

    /// Entries that the server at the other end of this link lacks can't be read here.
    pub fn note_unreadable(&mut self, now: Moment, link: LinkId) {
        self.replica.note_unsent(now, link);
    }

    fn mark_dirty(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !std::mem::replace(&mut session.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    fn answer(&mut self, id: SessionId, reply: Reply<'_>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.answer(reply);
            self.mark_dirty(id);
        }
    }

    /// An answer of several lines.
    fn answer_all<'a>(&mut self, id: SessionId, replies: impl IntoIterator<Item = Reply<'a>>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let out = session.next_answer();
            replies.into_iter().for_each(|reply| frontend::encode(reply, out));
            self.mark_dirty(id);
        }
    }

    fn set_deadline(&mut self, id: SessionId, deadline: Option<Moment>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.deadline == deadline {
            return;
        }
        if let Some(old) = std::mem::replace(&mut session.deadline, deadline) {
            self.deadlines.remove(&(old, id));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, id));
        }
    }

    fn open(&mut self, now: Moment, id: SessionId, from: Origin) {
        self.sessions.insert(id, Box::new(Session::new(from)));
        self.set_deadline(id, Some(now + self.setup.login_timeout));
        if self.stopping.is_some() {
            self.close_with(id, Note::Stopping);
        }
    }

    fn remove(&mut self, id: SessionId) {
        self.set_deadline(id, None);
        self.log_out(id);
        let Some(gone) = self.sessions.remove(&id) else { return };
        self.hash_queue.forget(gone.from, id);
        if matches!(gone.request, RequestState::Reading(_)) {
            self.reads.retain(|(_, reader)| *reader != id);
        }
    }

    fn log_out(&mut self, id: SessionId) {
        let Some(login) = self.sessions.get_mut(&id).and_then(|session| session.login.take())
        else {
            return;
        };
        if let Some(sessions) = self.online.get_mut(&login.user) {
            sessions.retain(|other| *other != id);
            if sessions.is_empty() {
                self.online.remove(&login.user);
            }
        }
    }

    /// Answers what is owed, says why, and closes when that is sent.
    fn close_with(&mut self, id: SessionId, note: Note) {
        self.log_out(id);
        self.set_deadline(id, None);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.closing {
            self.hash_queue.forget(session.from, id);
            if session.answer_unknown() {
                // It waited, and did nothing.
                session.send(Reply::Error(note.refusal(), Words::Note(note)));
            }
            session.closing = true;
            session.send(Reply::Note(note));
        }
        self.mark_dirty(id);
    }

    /// After each answer: the end of a half-closed session, of one of a stopping server, and the
    /// time that an idle one has.
    fn settle(&mut self, now: Moment, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.closing || !session.is_idle() {
            return;
        }
        if session.input_ended {
            session.closing = true;
            self.set_deadline(id, None);
            self.log_out(id);
            return self.mark_dirty(id);
        }
        let timeout = session.login.is_none().then_some(now + self.setup.login_timeout);
        self.set_deadline(id, timeout);
        if self.stopping.is_some() {
            self.close_with(id, Note::Stopping);
        }
    }

    fn on_drained(&mut self, id: SessionId) {
        self.start_moving(id);
        // Lines that waited for room may be taken now.
        self.mark_dirty(id);
    }

    fn on_input_ended(&mut self, now: Moment, id: SessionId, unfinished: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.input_ended = true;
        if unfinished {
            let words = Words::Text("the last line has no end");
            session.answer(Reply::Error(Code::BadArgument, words));
        }
        self.settle(now, id);
        self.mark_dirty(id);
    }

    fn keep_deadlines(&mut self, now: Moment) {
        if !self.given_up && self.stopping.is_some_and(|end| end <= now) {
            self.given_up = true;
            for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                self.close_with(id, Note::Stopping);
            }
        }
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            self.set_deadline(id, None);
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            match &session.request {
                RequestState::Reading(_) => {
                    let words = Words::Text("the primary could not answer in time; try again");
                    self.finish(now, id, Reply::Error(Code::NotReady, words));
                    self.reads.retain(|(_, reader)| *reader != id);
                }
                RequestState::Idle
                    if session.login.is_none() && session.pending_replies.is_empty() =>
                {
                    self.close_with(id, Note::LoginTimeout);
                }
                _ => {}
            }
        }
    }

    /// Ends the task of a session with this answer.
    fn finish(&mut self, now: Moment, id: SessionId, reply: Reply<'_>) {
        self.finish_all(now, id, [reply]);
    }

    /// The same with an answer of several lines.
    fn finish_all<'a>(
        &mut self,
        now: Moment,
        id: SessionId,
        replies: impl IntoIterator<Item = Reply<'a>>,
    ) {
        let open = self.sessions.get_mut(&id).filter(|session| !session.closing);
        let Some(session) = open else { return };
        session.request = RequestState::Idle;
        replies.into_iter().for_each(|reply| session.send(reply));
        self.mark_dirty(id);
        self.start_moving(id);
        self.settle(now, id);
    }

    /// `host:port` of a server.
    fn address(&self, id: ServerId) -> &str {
        self.setup.addresses.get(id.slot()).map_or("-", String::as_str)
    }
}

#[cfg(test)]
mod tests;
