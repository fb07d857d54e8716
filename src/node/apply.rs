//! Applies acknowledged entries to the state, and answers the clients that wait for them.

use super::replies::{error, outcome_of};
use super::session::RequestState;
use super::unanswered::Pending;
use super::{Context, Fatal, Node};
use crate::ids::{Index, SessionId, UserName};
use crate::limits::{APPLIED_PER_TURN, ENTRIES_BYTES_MAX};
use crate::mailbox::{Change, Outcome};
use crate::protocol::{Code, Note};
use crate::record::{Kind, Record};
use crate::time::Moment;

impl Node {
    pub(super) fn apply_acknowledged(&mut self, world: &Context<'_>) -> Result<(), Fatal> {
        let acknowledged = self.replica.acknowledged();
        let until = acknowledged.min(Index(self.applied.0 + APPLIED_PER_TURN as u64));
        while self.applied < until {
            let from = self.applied.next();
            // These are in one segment.
            let through = world.log.last_within(from, until, ENTRIES_BYTES_MAX);
            let (segment, first) = world.archive.segment_of(from);
            self.mailboxes.begin_segment(segment, first);
            let mut done = Ok(());
            let read = world.log.for_each(from, through, &mut |record| {
                if done.is_ok() {
                    done = self.apply(world.now, record);
                }
            });
            read.map_err(|error| Fatal(format!("the log can't be read: {error}"))).and(done)?;
        }
        Ok(())
    }

    fn apply(&mut self, now: Moment, record: &Record<'_>) -> Result<(), Fatal> {
        assert_eq!(record.index, self.applied.next(), "entries are applied in order");
        self.applied = record.index;
        let Some(change) = Change::decode(record.kind, record.body) else {
            return self.pass_over(record);
        };
        let outcome = self.mailboxes.apply(record.index, &change);
        self.note_digest(record.index);
        let pending = self.unanswered.take(record.index);
        let by = pending.as_ref().map(|pending| pending.session);
        if let Some(pending) = pending {
            self.commits.note(now, now - pending.taken);
            self.answer_change(now, &pending, &change, outcome);
        }
        self.spread(&change, outcome, by);
        Ok(())
    }

    /// Skips an entry that changes nothing. A server of this group never writes an undecodable
    /// change, but a program that knows the secret may have. Every server skips such an entry, so
    /// that all stay equal.
    #[cold]
    fn pass_over(&mut self, record: &Record<'_>) -> Result<(), Fatal> {
        self.mailboxes.pass_over(record.index);
        self.note_digest(record.index);
        if matches!(record.kind, Kind::CONFIG | Kind::REFUSAL) {
            return Ok(());
        }
        let (index, kind) = (record.index, record.kind.0);
        if !record.kind.is_known() {
            let words = "a newer version of postern is needed";
            return Err(Fatal(format!("entry {index} is of kind {kind}: {words}")));
        }
        if self.unanswered.awaits(index) {
            return Err(Fatal(format!("entry {index} was written here and can't be read")));
        }
        log::error!("entry {index} of kind {kind} is unreadable: it changes nothing");
        Ok(())
    }

    fn answer_change(
        &mut self,
        now: Moment,
        pending: &Pending,
        change: &Change<'_>,
        outcome: Outcome,
    ) {
        let id = pending.session;
        // A session that is closing already has its answer. The change takes effect all the same.
        let open = self.sessions.get_mut(&id).filter(|session| !session.closing);
        let Some(session) = open else { return };
        // The change was accepted before a drop left fewer members than `min_copies`.
        if self.replica.has_too_few_copies() {
            return self.close_with(id, Note::TooFewCopies);
        }
        let operates = self.operators.contains(&id);
        let reply = match outcome {
            Outcome::WrongPassword if operates => {
                error(Code::Busy, "the account was changed meanwhile; try again")
            }
            _ => outcome_of(change, outcome),
        };
        if let RequestState::Logged = session.request {
            self.finish(now, id, reply);
            let deleted = matches!(change, Change::Delete { .. }) && outcome == Outcome::Done;
            // A client deletes no account but its own.
            if deleted && !operates {
                self.log_out(id);
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.closing = true;
                }
            }
            return;
        }
        session.answer_logged(pending.index, reply);
        if session.pending_replies.is_empty()
            && let RequestState::Queued(_) = session.request
            && let RequestState::Queued(task) = std::mem::take(&mut session.request)
        {
            self.begin(now, id, *task);
        }
        self.mark_dirty(id);
        self.settle(now, id);
    }

    /// Updates the sessions of the account that a change affects: pushes a message, or forgets a
    /// password that is no longer right and closes them.
    fn spread(&mut self, change: &Change<'_>, outcome: Outcome, by: Option<SessionId>) {
        match (change, outcome) {
            (Change::Message { to, .. }, Outcome::Stored(_)) => {
                for at in 0..self.delivery.online.get(to).map_or(0, Vec::len) {
                    let id = self.delivery.online[to][at];
                    self.start_moving(id);
                }
                self.note_stored(*to);
            }
            (Change::Delete { user, checked }, Outcome::Done) => {
                self.logins.passwords.forget(*checked);
                self.close_sessions(*user, None, Note::Deleted);
            }
            (Change::Password { user, checked, .. }, Outcome::Done) => {
                self.logins.passwords.forget(*checked);
                self.close_sessions(*user, by, Note::PasswordChanged);
            }
            _ => {}
        }
    }

    fn close_sessions(&mut self, user: UserName, but: Option<SessionId>, note: Note) {
        let sessions = self.delivery.online.get(&user).cloned().unwrap_or_default();
        for id in sessions.into_iter().filter(|id| Some(*id) != but) {
            self.close_with(id, note);
        }
    }
}
