//! One server as a state machine, without sockets, files or clocks. It connects the client
//! protocol, the mailboxes and the replica. Inputs go in; effects, password jobs and output for
//! clients come out.
//!
//! `requests` parses and answers lines, and `session` holds the state of each client.
//! `unanswered` holds the changes that wait for their acknowledgement, `apply` turns acknowledged
//! entries into state and answers, `deliver` writes messages to their readers, and `sent` to their
//! senders. `logins` has
//! what `password_cache` and `login_throttle` remember of right and wrong passwords, and those that
//! `hash_queue` holds to hash. `trouble` finds out what keeps this server from accepting changes;
//! `refusals` and `status` report it. `compare` finds settings that differ, and `role` follows the
//! replica's role and the stop. `operator` serves connections that have proven that they know the
//! group's secret. `retention` lets mailboxes forget old messages.

mod apply;
mod compare;
mod deliver;
mod digest;
mod fetch;
mod hash_queue;
#[cfg(feature = "simulate")]
mod held;
mod interface;
mod login_throttle;
mod logins;
mod operator;
mod password_cache;
mod refusals;
mod replies;
mod requests;
mod retention;
mod role;
mod sent;
mod session;
mod status;
mod trouble;
mod unanswered;

use crate::frontend::{self, Request};
use crate::ids::{Index, LinkId, Origin, ServerId, SessionId, UserName};
use crate::latency::Meter;
use crate::limits::{OUTPUT_BYTES_MAX, REQUESTS_MAX, SURVEYED_PER_TURN};
use crate::mailbox::{Mailboxes, Part};
use crate::protocol::{self, Code, Note, Reply};
use crate::replica::{Event, Packet, Replica};
use crate::time::Moment;
use compare::Compared;
use deliver::Delivery;
use digest::Digests;
use fetch::Fetching;
pub use fetch::Wanted;
#[cfg(feature = "simulate")]
pub use held::Held;
pub use interface::{Context, Fatal, Gauges, Hashed, Input, Job, Outlet, Output, Setup};
use logins::Logins;
use replies::error;
#[cfg(test)]
pub(crate) use requests::NOBODY;
use retention::Forgetting;
pub use retention::Retention;
use role::{SeenRole, Stop};
use session::{RequestState, Session, Sessions};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use trouble::Reports;
use unanswered::Unanswered;

/// What a handler works with besides the node's own state.
struct Env<'a> {
    now: Moment,
    world: &'a Context<'a>,
    out: &'a mut Output,
}

/// The entry that created each account, and how many messages its mailbox has forgotten.
pub type Surveyed = Arc<Vec<(Index, u64)>>;

/// A survey of all accounts that is under way.
#[derive(Debug, Default)]
struct Surveying {
    /// The entry that was applied last when it began, and how many messages were removed.
    began: Option<(Index, u64)>,
    /// The last name that was asked.
    after: Option<UserName>,
    /// As of [`Surveyed`].
    found: Vec<(Index, u64)>,
}

/// One server.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    began: Moment,
    replica: Replica,
    mailboxes: Mailboxes,
    /// The highest index whose entry is applied to `mailboxes`.
    applied: Index,
    seen: SeenRole,
    sessions: Sessions,
    /// The sessions of operators, which arrive over links.
    operators: Vec<SessionId>,
    unanswered: Unanswered,
    /// Sessions that wait for a round of reads to be confirmed, in the order of the rounds.
    reads: VecDeque<(u64, SessionId)>,
    deadlines: BTreeSet<(Moment, SessionId)>,
    /// Sessions that have output or accept a line again, for the event loop.
    dirty: Vec<SessionId>,
    delivery: Delivery,
    logins: Logins,
    fetching: Fetching,
    digests: Digests,
    forgetting: Forgetting,
    surveying: Surveying,
    compared: Compared,
    reports: Reports,
    stop: Stop,
    /// Changes, from their acceptance to their acknowledgement.
    commits: Meter,
}

impl Node {
    /// Creates a node around a replica. The state is that after the entry `applied`.
    pub fn new(
        now: Moment,
        setup: Setup,
        replica: Replica,
        (mailboxes, applied): (Mailboxes, Index),
    ) -> Node {
        Node {
            mailboxes,
            logins: Logins::new(&setup.secret, replica.term().epoch()),
            fetching: Fetching::default(),
            digests: Digests::default(),
            forgetting: Forgetting::default(),
            surveying: Surveying::default(),
            compared: Compared::default(),
            reports: Reports::default(),
            setup,
            began: now,
            replica,
            applied,
            seen: SeenRole::default(),
            sessions: Sessions::default(),
            operators: Vec::new(),
            unanswered: Unanswered::default(),
            reads: VecDeque::new(),
            deadlines: BTreeSet::new(),
            dirty: Vec::new(),
            delivery: Delivery::default(),
            stop: Stop::default(),
            commits: Meter::default(),
        }
    }

    /// Handles one input and adds the work that results from it to `out`.
    ///
    /// # Errors
    /// When the log can't be read, or holds an entry that this version does not understand.
    pub fn handle(
        &mut self,
        world: &Context<'_>,
        input: Input<'_>,
        out: &mut Output,
    ) -> Result<(), Fatal> {
        let env = &mut Env { now: world.now, world, out };
        match input {
            Input::Replica(event) => {
                let operator = self.replica.takes_request(&event);
                match event {
                    Event::Tick => {
                        self.keep_deadlines(env.now);
                        self.delivery.reading.steps = 0;
                    }
                    Event::Ended { link } => self.remove(SessionId::of_operator(link)),
                    _ => {}
                }
                self.replica.handle(env.now, world.wall, event, world.log, &mut env.out.replica);
                match event {
                    Event::Tick => {
                        self.tell_proofs(env.out);
                        self.keep_fetching(env.now, env.out);
                        self.answer_fetches(world, env.out);
                    }
                    Event::Received { link, packet, records } => {
                        self.on_packet(world, (link, packet, records), env.out);
                    }
                    _ => {}
                }
                if let Some((link, line)) = operator {
                    self.on_operator(env, link, line);
                }
                if let Event::Tick | Event::Durable(_) = event {
                    self.follow_role(env.now);
                    self.follow_handover();
                    self.apply_acknowledged(world)?;
                    self.keep_digests(env.out)?;
                    self.keep_retention(env);
                    self.resume_reads(env);
                    self.move_messages(world);
                    self.report_trouble(env.now);
                }
            }
            Input::Opened(session, from) => self.open(env.now, session, from),
            Input::Request(session, Request::Line(line)) => {
                self.take_line(env, session, protocol::parse(line));
            }
            Input::Request(session, Request::LongLine) => {
                self.extend_login(env.now, session);
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.attributes = None;
                }
                self.answer(session, error(Code::TooLong, "a line has at most 4096 bytes"));
            }
            Input::Request(session, Request::End { unfinished }) => {
                self.on_input_ended(env.now, session, unfinished);
            }
            Input::Drained(session) => {
                self.start_moving(session);
                // Lines that waited for room in the output may be accepted now.
                self.mark_dirty(session);
                self.move_messages(world);
            }
            Input::Gone(session) => self.remove(session),
            Input::Hashed(session, hashed) => self.on_hashed(env, session, hashed),
            Input::Full(full) => self.replica.note_space(env.now, full),
            Input::Damaged(is_damaged, wanted) => {
                self.note_damaged(env.now, is_damaged, wanted);
                self.keep_fetching(env.now, env.out);
            }
            Input::Stop => self.stop(env.now),
        }
        self.answer_operators(env.out);
        assert!(self.applied <= self.replica.acknowledged(), "only answered entries are applied");
        Ok(())
    }

    /// Handles the packets that servers exchange in addition to replication.
    fn on_packet(
        &mut self,
        world: &Context<'_>,
        (link, packet, records): (LinkId, Packet, &[u8]),
        out: &mut Output,
    ) {
        match packet {
            // Every established link soon carries a ping, so each peer gets the settings.
            Packet::Ping { .. } => self.tell_settings(link, out),
            Packet::Settings => self.on_settings(link, records),
            Packet::Proofs => self.on_proofs(link, records, out),
            Packet::ProofsTaken => self.logins.passwords.on_taken(link),
            Packet::Digest { index, digest } => self.on_digest(link, index, digest),
            Packet::Fetch { first, last } => self.on_fetch(link, Wanted { first, last }),
            Packet::Fetched => self.on_fetched(world.now, link, records, out),
            _ => {}
        }
    }

    /// Returns when the node needs `Event::Tick` at the latest; `None` when no deadline is set.
    pub fn next_deadline(&self) -> Option<Moment> {
        let backlog = self.applied < self.replica.acknowledged()
            || !self.delivery.moving.is_empty()
            || !self.dirty.is_empty();
        let backlog = backlog.then_some(Moment(0));
        let sessions = self.deadlines.first().map(|(at, _)| *at);
        let fetching = self.fetching.next_deadline();
        let forgetting = self.forgetting.next_deadline();
        [
            backlog,
            sessions,
            fetching,
            forgetting,
            self.stop.next_deadline(),
            self.replica.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns whether the node accepts a line from this client now.
    pub fn wants_line(&self, session: SessionId) -> bool {
        !self.stop.is_asked()
            && !self.replica.is_handing_over()
            && self.sessions.get(&session).is_some_and(|session| {
                matches!(session.request, RequestState::Idle)
                    && !session.closing
                    && session.pending_replies.len() < REQUESTS_MAX
                    && session.out.len() < OUTPUT_BYTES_MAX
            })
    }

    /// Returns the output of a client; `None` when its session has ended.
    pub fn outlet(&mut self, session: SessionId) -> Option<Outlet<'_>> {
        let session = self.sessions.get_mut(&session)?;
        let (closing, logged_in) = (session.closing, session.login.is_some());
        Some(Outlet { output: &mut session.out, closing, must_read: closing || !logged_in })
    }

    /// Returns how many bytes wait to be sent to a client.
    pub fn output_bytes(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |session| session.out.len())
    }

    /// Frees the memory of the empty buffers of a client's session.
    pub fn cool(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.cool();
        }
    }

    /// Returns whether a client's connection must be closed: its session has ended, or it is
    /// closing and all its output is sent.
    pub fn is_finished(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_none_or(|session| session.closing && session.out.is_empty())
    }

    /// Moves the clients that have output or accept a line again into `into`, each once. Clears
    /// `into` first.
    pub fn take_dirty(&mut self, into: &mut Vec<SessionId>) {
        into.clear();
        std::mem::swap(into, &mut self.dirty);
        for id in into {
            if let Some(session) = self.sessions.get_mut(id) {
                session.dirty = false;
            }
        }
    }

    /// Returns whether a stopping server may end: every request is answered or the time for that
    /// is over, and the replica is released.
    pub fn is_stopped(&self, now: Moment) -> bool {
        let served = self.sessions.is_empty() && self.applied >= self.replica.acknowledged();
        self.stop.is_asked() && (served || self.stop.given_up) && self.replica.is_released(now)
    }

    /// Returns how long a client that is not logged in may go without a request.
    pub fn login_timeout(&self) -> Duration {
        self.setup.login_timeout
    }

    /// Returns the replica.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Notes that this server can't read the entries which the peer on this link lacks.
    pub fn note_unreadable(&mut self, now: Moment, link: LinkId) {
        self.replica.note_unsent(now, link);
    }

    /// Returns the positions of the messages in the oldest segment that is wholly applied and that
    /// has no index file, as far as this node knows.
    pub fn unindexed(&self) -> Option<&Arc<Part>> {
        self.mailboxes.unindexed()
    }

    /// See [`Mailboxes::corrupt`].
    #[cfg(feature = "simulate")]
    pub fn corrupt(&mut self) {
        self.mailboxes.corrupt();
    }

    /// Returns the state.
    pub fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// How many messages were deleted or forgotten since the start.
    pub fn removed(&self) -> u64 {
        self.mailboxes.removed()
    }

    /// Asks a part of the accounts what their mailboxes keep. After the last part, returns the
    /// entry up to which all was applied when it began, how many messages were removed then, and
    /// the answers.
    pub fn survey(&mut self) -> Option<(Index, u64, Surveyed)> {
        let Surveying { began, after, found } = &mut self.surveying;
        let (through, removed) = *began.get_or_insert((self.applied, self.mailboxes.removed()));
        *after = self.mailboxes.survey(*after, SURVEYED_PER_TURN, found);
        if after.is_some() {
            return None;
        }
        *began = None;
        Some((through, removed, Arc::new(std::mem::take(found))))
    }

    /// Forgets the positions that [`Node::unindexed`] returns: an index file has them.
    pub fn forget_indexed(&mut self) {
        self.mailboxes.forget_indexed();
    }

    fn mark_dirty(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !std::mem::replace(&mut session.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    fn answer(&mut self, id: SessionId, reply: Reply<'_>) {
        self.answer_all(id, [reply]);
    }

    /// Answers a request with several lines.
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
        if self.stop.is_asked() {
            self.close_with(id, Note::Stopping);
        }
    }

    fn remove(&mut self, id: SessionId) {
        self.set_deadline(id, None);
        self.log_out(id);
        let Some(gone) = self.sessions.remove(&id) else { return };
        self.logins.hash_queue.forget(gone.from, id);
        if matches!(gone.request, RequestState::Reading(_)) {
            self.reads.retain(|(_, reader)| *reader != id);
        }
    }

    fn log_out(&mut self, id: SessionId) {
        let Some(login) = self.sessions.get_mut(&id).and_then(|session| session.login.take())
        else {
            return;
        };
        if let Some(sessions) = self.delivery.online.get_mut(&login.user) {
            sessions.retain(|other| *other != id);
            if sessions.is_empty() {
                self.delivery.online.remove(&login.user);
            }
        }
    }

    /// Answers the outstanding requests, sends `note` as the reason, and closes the session when
    /// all output is sent.
    fn close_with(&mut self, id: SessionId, note: Note) {
        self.log_out(id);
        self.set_deadline(id, None);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.closing {
            self.logins.hash_queue.forget(session.from, id);
            if session.answer_unknown() {
                // The request waited and changed nothing.
                session.send(error(note.refusal(), note.to_string()));
            }
            session.closing = true;
            session.send(Reply::Note(note));
        }
        self.mark_dirty(id);
    }

    /// Updates a session after each answer. Closes it if the client has half-closed it or this
    /// server is stopping; otherwise starts the login timeout if no user is logged in.
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
        if self.stop.is_asked() {
            self.close_with(id, Note::Stopping);
        }
    }

    fn on_input_ended(&mut self, now: Moment, id: SessionId, unfinished: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.input_ended = true;
        if unfinished {
            self.answer(id, error(Code::BadArgument, "the last line has no end"));
        }
        self.settle(now, id);
        self.mark_dirty(id);
    }

    fn keep_deadlines(&mut self, now: Moment) {
        if self.stop.next_deadline().is_some_and(|end| end <= now) {
            self.stop.given_up = true;
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
                    self.finish(
                        now,
                        id,
                        error(Code::NotReady, "the primary could not answer in time; try again"),
                    );
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

    /// Ends the task of a session with an answer of several lines.
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

    /// Returns `host:port` of a server; `-` when it is not configured.
    fn address(&self, id: ServerId) -> &str {
        self.setup.addresses.get(id.slot()).map_or("-", String::as_str)
    }
}

#[cfg(test)]
mod tests;
