//! Updates the sessions when this server stops, loses the primary role, or hands it over.

use super::Node;
use crate::ids::SessionId;
use crate::protocol::Note;
use crate::replica::RoleView;
use crate::time::Moment;

impl Node {
    pub(super) fn stop(&mut self, now: Moment) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now + self.replica.peer_timeout());
        self.replica.stop(now);
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.settle(now, id);
        }
    }

    /// Answers all requests and closes all sessions after this server has lost the primary role.
    pub(super) fn follow_role(&mut self, now: Moment) {
        let leads = (self.replica.role() == RoleView::Primary).then(|| self.replica.term());
        if leads == self.led {
            return;
        }
        let was = std::mem::replace(&mut self.led, leads);
        if was.is_none() {
            return;
        }
        self.pending.clear();
        self.reads.clear();
        self.unanswered_bytes = 0;
        let refusal = self.not_primary(now);
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let session = self.sessions.get_mut(&id).expect("it was just listed");
            if session.answer_unknown() {
                session.send(refusal.reply());
            }
            self.close_with(id, Note::NotPrimary);
        }
    }

    /// Accepts lines again after a handover has failed.
    pub(super) fn follow_handover(&mut self) {
        let ended = self.handing_over && !self.replica.is_handing_over();
        self.handing_over = self.replica.is_handing_over();
        if ended {
            let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
            ids.into_iter().for_each(|id| self.mark_dirty(id));
            let stalled = std::mem::take(&mut self.stalled);
            stalled.into_iter().for_each(|id| self.start_moving(id));
        }
    }
}
