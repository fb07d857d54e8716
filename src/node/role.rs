//! Updates the sessions when this server stops, loses the primary role, or hands it over.

use super::Node;
use super::unanswered::Unanswered;
use crate::ids::{SessionId, Term};
use crate::protocol::Note;
use crate::replica::RoleView;
use crate::time::Moment;

/// The replica's role, as the node followed it last.
#[derive(Debug, Default)]
pub(super) struct SeenRole {
    /// The term in which this server was primary; `None` if it was not.
    led: Option<Term>,
    /// A handover was under way. No lines are accepted meanwhile.
    pub(super) handing_over: bool,
}

/// The stop of this server.
#[derive(Debug, Default)]
pub(super) struct Stop {
    /// When this server gives up the requests that are not yet answered.
    end: Option<Moment>,
    pub(super) given_up: bool,
}

impl Stop {
    /// Returns whether this server was told to stop.
    pub(super) fn is_asked(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.end.filter(|_| !self.given_up)
    }
}

impl Node {
    pub(super) fn stop(&mut self, now: Moment) {
        if self.stop.is_asked() {
            return;
        }
        self.stop.end = Some(now + self.replica.peer_timeout());
        self.replica.stop(now);
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.settle(now, id);
        }
    }

    /// Answers all requests and closes all sessions after this server has lost the primary role.
    pub(super) fn follow_role(&mut self, now: Moment) {
        let leads = (self.replica.role() == RoleView::Primary).then(|| self.replica.term());
        if leads == self.seen.led {
            return;
        }
        let was = std::mem::replace(&mut self.seen.led, leads);
        if was.is_none() {
            return;
        }
        self.unanswered = Unanswered::default();
        self.reads.clear();
        let refusal = self.not_primary(now);
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let session = self.sessions.get_mut(&id).expect("it was just listed");
            if session.answer_unknown() {
                session.send(refusal.clone());
            }
            self.close_with(id, Note::NotPrimary);
        }
    }

    /// Accepts lines again after a handover has failed.
    pub(super) fn follow_handover(&mut self) {
        let ended = self.seen.handing_over && !self.replica.is_handing_over();
        self.seen.handing_over = self.replica.is_handing_over();
        if ended {
            let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
            ids.into_iter().for_each(|id| self.mark_dirty(id));
            let stalled = std::mem::take(&mut self.delivery.stalled);
            stalled.into_iter().for_each(|id| self.start_moving(id));
        }
    }
}
