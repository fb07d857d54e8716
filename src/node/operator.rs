//! Serves operators: a connection that knows the group's secret may manage accounts, with one
//! request on a link of its own.

use super::fetch::copy_first;
use super::replies::error;
use super::session::Session;
use super::{Env, Node, Output};
use crate::ids::{Index, LinkId, Origin, SessionId, UserName};
use crate::limits::{LINE_BYTES_MAX, USERS_PER_ANSWER};
use crate::protocol::{self, Answer, Code, Reply};
use crate::replica::{Closing, Effect, Packet};
use crate::time::Moment;

/// Reads a request for entries of the log.
fn parse_backup(line: &[u8]) -> Option<Index> {
    let number = line.strip_prefix(b"BACKUP ")?;
    std::str::from_utf8(number).ok()?.parse().ok().map(Index)
}

impl Node {
    /// Handles the request of an operator's link, which sends only this one. The operator gets a
    /// session like a client's, whose id is made from the link's number.
    pub(super) fn on_operator(&mut self, env: &mut Env<'_>, link: LinkId, line: &[u8]) {
        if let Some(first) = parse_backup(line) {
            return self.send_backup(env, link, first);
        }
        let id = SessionId::of_operator(link);
        self.sessions.insert(id, Box::new(Session::new(Origin::OPERATOR)));
        self.operators.push(id);
        match line.len() {
            ..LINE_BYTES_MAX => self.take_line(env, id, protocol::parse_operator(line)),
            _ => {
                self.answer(id, error(Code::TooLong, "a line is too long"));
            }
        }
    }

    /// Answers an operator who copies the log: with the last acknowledged entry and the size of the
    /// log, each `u64`, and the first records from `first` on. Any server does it.
    fn send_backup(&self, env: &mut Env<'_>, link: LinkId, first: Index) {
        let (world, last) = (env.world, self.replica.acknowledged());
        let mut answer = last.0.to_le_bytes().to_vec();
        answer.extend_from_slice(&(world.gauges)().log_bytes.to_le_bytes());
        copy_first(world, (first, last), &mut answer);
        env.out.replica.send_with(link, Packet::Answer, answer);
        env.out.replica.push(Effect::Close(link, Closing::Spare));
    }

    /// Sends the answers that are complete, and removes the sessions of their operators.
    pub(super) fn answer_operators(&mut self, out: &mut Output) {
        for at in (0..self.operators.len()).rev() {
            let id = self.operators[at];
            let asked = self.sessions.get_mut(&id);
            let answered = asked.filter(|session| session.is_idle() && !session.out.is_empty());
            if let Some(session) = answered {
                let lines = std::mem::take(&mut session.out);
                let link = id.operator_link();
                out.replica.send_with(link, Packet::Answer, lines);
                out.replica.push(Effect::Close(link, Closing::Spare));
                self.remove(id);
            }
            if !self.sessions.contains_key(&id) {
                self.operators.swap_remove(at);
            }
        }
    }

    /// Lists the next accounts after a name. An answer without accounts marks the end.
    pub(super) fn list_users(&mut self, now: Moment, id: SessionId, after: Option<UserName>) {
        let names = self.mailboxes.names_after(after).take(USERS_PER_ANSWER);
        let user = |name| Reply::User { name, online: self.delivery.online.contains_key(&name) };
        let mut replies: Vec<Reply<'_>> = names.map(user).collect();
        replies.push(Reply::Ok(Answer::Number(replies.len() as u64)));
        self.finish_all(now, id, replies);
    }
}
