//! A client's standing: who it is, where it reads in its mailbox, what it waits for.

use crate::frontend;
use crate::ids::{Index, Origin, SessionId, UserName};
use crate::protocol::{After, Code, Pattern, Reply, Words};
use crate::time::Moment;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Who is logged in on a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login {
    pub(super) user: UserName,
    /// The entry that created the account.
    pub(super) created: Index,
    /// The entry that set the password it was let in with.
    pub(super) set: Index,
    /// The next message to push.
    pub(super) next: u64,
}

/// An answer's place among the answers of a session.
#[derive(Clone, Debug)]
pub(super) enum PendingReply {
    /// A message that is logged at this entry and not answered.
    Logged(Index),
    /// An answer that waits for those before it.
    Ready(Vec<u8>),
}

/// A request that runs alone: after the answers before it, and before the requests behind it.
#[derive(Clone, Debug)]
pub(super) enum Task {
    Create { user: UserName, password: String },
    Login { user: UserName, password: String, after: After },
    Send { to: UserName, key: Option<String>, text: String },
    Log { after: After, limit: Option<u64> },
    List { pattern: Pattern },
    Passwd { old: String, new: String },
    Delete { user: UserName, password: String },
    Logout,
    Quit,
    Users { after: Option<UserName> },
    Reset { user: UserName, password: String },
    Remove { user: UserName },
}

impl Task {
    /// The password with which the client proves who it is; of a task without one, none.
    pub(super) fn password(&self) -> &str {
        match self {
            Task::Login { password, .. } | Task::Delete { password, .. } => password,
            Task::Passwd { old, .. } => old,
            _ => "",
        }
    }
}

/// A request whose password is compared.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    /// The account.
    pub(super) user: UserName,
    pub(super) task: Task,
    /// The entry that set the password that counts.
    pub(super) set: Index,
    /// The mailbox held so many messages when the read was confirmed.
    pub(super) last: u64,
}

/// How far such a request is. Small, for most sessions are idle.
#[derive(Clone, Debug, Default)]
pub(super) enum RequestState {
    /// There is none.
    #[default]
    Idle,
    /// Answers before it are missing.
    Queued(Box<Task>),
    /// It waits until this server has proved to be primary.
    Reading(Box<Task>),
    /// Its password is being checked.
    Checking(Box<Checked>),
    /// A new password is being hashed; see [`Checked::set`].
    Hashing { task: Box<Task>, set: Index },
    /// It is logged, and not answered.
    Logged(Box<Task>),
    /// Messages `next` to `last` are being shown; `login` begins with the answer.
    Showing { next: u64, last: u64, login: Option<Box<Login>> },
    /// Names are being shown.
    Listing(Box<Listing>),
}

/// How far a LIST is.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// Names behind this one are to come.
    pub(super) after: Option<UserName>,
    pub(super) pattern: Pattern,
    /// How many were shown.
    pub(super) count: u64,
}

/// All clients, by their ids. Shells number them as they come: nobody can choose ids whose hashes
/// meet.
pub(super) type Sessions = HashMap<SessionId, Box<Session>, BuildHasherDefault<IdHasher>>;

/// Spreads ids over a table: Knuth's multiplicative hashing, with the golden ratio.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is one number");
    }

    fn write_u64(&mut self, id: u64) {
        // A table takes its place from the low bits, and a tag from the high ones.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// One text client.
#[derive(Debug)]
pub(super) struct Session {
    /// Where it comes from.
    pub(super) from: Origin,
    /// What is to be sent, and not yet taken by the socket.
    pub(super) out: Vec<u8>,
    pub(super) login: Option<Box<Login>>,
    /// Answers in the order of the requests; empty while a task runs.
    pub(super) pending_replies: VecDeque<PendingReply>,
    pub(super) request: RequestState,
    /// Closed by the other side in its direction: no pushes, and an end when all is answered.
    pub(super) input_ended: bool,
    /// To be closed when `out` is empty; nothing more is taken or said.
    pub(super) closing: bool,
    /// When something must have happened; what, depends on the step.
    pub(super) deadline: Option<Moment>,
    /// It is on the list of those that the shell looks at, or that have messages to move.
    pub(super) dirty: bool,
    pub(super) moving: bool,
}

impl Session {
    /// A client that has just come.
    pub(super) fn new(from: Origin) -> Session {
        Session {
            from,
            out: Vec::new(),
            login: None,
            pending_replies: VecDeque::new(),
            request: RequestState::Idle,
            input_ended: false,
            closing: false,
            deadline: None,
            dirty: false,
            moving: false,
        }
    }

    /// Gives back the memory of what is empty.
    pub(super) fn cool(&mut self) {
        if self.out.is_empty() {
            self.out = Vec::new();
        }
        if self.pending_replies.is_empty() {
            self.pending_replies = VecDeque::new();
        }
    }

    /// Who is logged in.
    pub(super) fn login(&self) -> Option<Login> {
        self.login.as_deref().copied()
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.request, RequestState::Idle) && self.pending_replies.is_empty()
    }

    /// Whether messages may be pushed: not before the answer to a reading that was asked for.
    pub(super) fn may_push(&self) -> bool {
        let reads = match &self.request {
            RequestState::Queued(task) | RequestState::Reading(task) => {
                matches!(**task, Task::Log { .. } | Task::Login { .. } | Task::Logout | Task::Quit)
            }
            RequestState::Showing { .. } => true,
            _ => false,
        };
        !reads && !self.input_ended && !self.closing
    }

    /// Answers a request: at once when no answer is missing before it.
    pub(super) fn answer(&mut self, reply: Reply<'_>) {
        frontend::encode(reply, self.next_answer());
    }

    /// Where the next answer goes: to the client, or behind those that are missing before it.
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

    /// Sends a reply, whatever else is owed.
    pub(super) fn send(&mut self, reply: Reply<'_>) {
        frontend::encode(reply, &mut self.out);
    }

    /// Answers what is owed to a session that is closed now: a change that is logged may or may
    /// not take effect. Whether a task is left that changed nothing.
    pub(super) fn answer_unknown(&mut self) -> bool {
        let words = Words::Text("this change may or may not take effect");
        let mut unknown = Vec::new();
        frontend::encode(Reply::Error(Code::UnknownOutcome, words), &mut unknown);
        for slot in self.pending_replies.drain(..) {
            match slot {
                PendingReply::Logged(_) => self.out.extend_from_slice(&unknown),
                PendingReply::Ready(bytes) => self.out.extend_from_slice(&bytes),
            }
        }
        match std::mem::take(&mut self.request) {
            RequestState::Logged(_) => self.out.extend_from_slice(&unknown),
            RequestState::Idle | RequestState::Showing { .. } | RequestState::Listing { .. } => {}
            RequestState::Queued(_)
            | RequestState::Reading(_)
            | RequestState::Checking(_)
            | RequestState::Hashing { .. } => {
                return true;
            }
        }
        false
    }

    /// Answers the change logged at `index`, and what waited behind it.
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
