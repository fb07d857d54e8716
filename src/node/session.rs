//! The state of one client: its login, its position in the mailbox, and the request that it waits
//! for.

use super::replies::UNKNOWN_OUTCOME;
use crate::content::AttributeList;
use crate::frontend;
use crate::ids::{Index, Origin, SessionId, UserName};
use crate::keyed_hash::ByNumber;
use crate::mailbox::List;
use crate::protocol::{Pattern, Reply, Task};
use crate::time::Moment;
use std::collections::VecDeque;

/// The login of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login {
    pub(super) user: UserName,
    /// The entry that created the account.
    pub(super) created: Index,
    /// The entry that set the password of this login.
    pub(super) set: Index,
    /// The number of the next message to push.
    pub(super) next: u64,
}

/// An answer's place among the answers of a session.
#[derive(Clone, Debug)]
pub(super) enum PendingReply {
    /// A message that is logged at this index and not yet acknowledged.
    Logged(Index),
    /// An answer that waits for the answers before it.
    Ready(Vec<u8>),
}

/// A request whose password is being checked, or was right.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    /// The account.
    pub(super) user: UserName,
    pub(super) task: Task,
    /// The entry that set the password which the request is checked against.
    pub(super) set: Index,
    /// The number of the last message in the mailbox when the read was confirmed.
    pub(super) last: u64,
}

/// The state of a request that runs alone. Small, since most sessions are idle.
#[derive(Clone, Debug, Default)]
pub(super) enum RequestState {
    /// No request runs.
    #[default]
    Idle,
    /// The task waits for the answers to earlier requests.
    Queued(Box<Task>),
    /// The task waits until this server has proven that it is primary.
    Reading(Box<Task>),
    /// The password of the task is being checked.
    Checking(Box<Checked>),
    /// The new password of this account is being hashed. The entry set the password that it
    /// replaces; `None` for a new account.
    Hashing(Box<(UserName, Option<Index>)>),
    /// The change of the task is logged and not yet acknowledged.
    Logged,
    /// Messages `next` to `last` of a list are being shown. `login` becomes the session's login
    /// with the answer.
    Showing { list: List, next: u64, last: u64, login: Option<Box<Login>> },
    /// Names are being shown.
    Listing(Box<Listing>),
}

/// The progress of a LIST.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// The last name that was examined.
    pub(super) after: Option<UserName>,
    pub(super) pattern: Pattern,
    /// How many names were shown.
    pub(super) count: u64,
}

/// All clients by id. The server numbers connections itself, so clients can't choose ids whose
/// hashes collide.
pub(super) type Sessions = ByNumber<SessionId, Box<Session>>;

/// One text client.
#[derive(Debug)]
pub(super) struct Session {
    /// The address that the client connected from.
    pub(super) from: Origin,
    /// Bytes to send that the socket has not yet accepted.
    pub(super) out: Vec<u8>,
    pub(super) login: Option<Box<Login>>,
    /// Answers in the order of the requests. Empty while a task runs.
    pub(super) pending_replies: VecDeque<PendingReply>,
    pub(super) request: RequestState,
    /// The attributes that belong to the next request alone, whatever becomes of it.
    pub(super) attributes: Option<Box<AttributeList>>,
    /// Whether messages come with their attributes in lines of their own.
    pub(super) shows_attributes: bool,
    /// The client has closed its sending direction: the session gets no pushes, and ends when
    /// every request is answered.
    pub(super) input_ended: bool,
    /// The session closes when `out` is empty. It accepts no requests and adds no output.
    pub(super) closing: bool,
    /// The login timeout, or the time at which a read fails, depending on `request`.
    pub(super) deadline: Option<Moment>,
    /// Whether the session is in `Node::dirty`; `moving`: in `Node::moving`.
    pub(super) dirty: bool,
    pub(super) moving: bool,
}

impl Session {
    /// Creates the session of a client that has just connected.
    pub(super) fn new(from: Origin) -> Session {
        Session {
            from,
            out: Vec::new(),
            login: None,
            pending_replies: VecDeque::new(),
            request: RequestState::Idle,
            attributes: None,
            shows_attributes: false,
            input_ended: false,
            closing: false,
            deadline: None,
            dirty: false,
            moving: false,
        }
    }

    /// Frees the memory of empty buffers.
    pub(super) fn cool(&mut self) {
        if self.out.is_empty() {
            self.out = Vec::new();
        }
        if self.pending_replies.is_empty() {
            self.pending_replies = VecDeque::new();
        }
    }

    /// Returns the login of the session.
    pub(super) fn login(&self) -> Option<Login> {
        self.login.as_deref().copied()
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.request, RequestState::Idle) && self.pending_replies.is_empty()
    }

    /// Returns whether messages may be pushed. They may not before the answer to a request that
    /// reads the mailbox.
    pub(super) fn may_push(&self) -> bool {
        let reads = match &self.request {
            RequestState::Queued(task) | RequestState::Reading(task) => {
                matches!(
                    **task,
                    Task::Log { .. }
                        | Task::Sent { .. }
                        | Task::Login { .. }
                        | Task::Logout
                        | Task::Quit
                )
            }
            RequestState::Showing { .. } => true,
            _ => false,
        };
        !reads && !self.input_ended && !self.closing
    }

    /// Returns the buffer for the next answer: the output, or a place in the queue while an
    /// earlier answer is missing.
    pub(super) fn next_answer(&mut self) -> &mut Vec<u8> {
        if self.pending_replies.is_empty() {
            return &mut self.out;
        }
        self.pending_replies.push_back(PendingReply::Ready(Vec::new()));
        match self.pending_replies.back_mut() {
            Some(PendingReply::Ready(bytes)) => bytes,
            _ => unreachable!("it was just added"),
        }
    }

    /// Sends a reply immediately, even if earlier answers are missing.
    pub(super) fn send(&mut self, reply: Reply<'_>) {
        frontend::encode(reply, &mut self.out);
    }

    /// Answers the outstanding requests of a session that is being closed: a logged change may or
    /// may not take effect. Returns whether a task is left that has changed nothing.
    pub(super) fn answer_unknown(&mut self) -> bool {
        for pending in self.pending_replies.drain(..) {
            match pending {
                PendingReply::Logged(_) => frontend::encode(UNKNOWN_OUTCOME, &mut self.out),
                PendingReply::Ready(bytes) => self.out.extend_from_slice(&bytes),
            }
        }
        match std::mem::take(&mut self.request) {
            RequestState::Logged => self.send(UNKNOWN_OUTCOME),
            RequestState::Idle | RequestState::Showing { .. } | RequestState::Listing { .. } => {}
            RequestState::Queued(_)
            | RequestState::Reading(_)
            | RequestState::Checking(_)
            | RequestState::Hashing(_) => return true,
        }
        false
    }

    /// Answers the change logged at `index`, and then the answers that waited for it.
    pub(super) fn answer_logged(&mut self, index: Index, reply: Reply<'_>) {
        let first = self.pending_replies.pop_front();
        assert!(
            matches!(first, Some(PendingReply::Logged(at)) if at == index),
            "changes are answered in the order of the log"
        );
        self.send(reply);
        while let Some(PendingReply::Ready(bytes)) = self.pending_replies.front() {
            self.out.extend_from_slice(bytes);
            self.pending_replies.pop_front();
        }
    }
}
