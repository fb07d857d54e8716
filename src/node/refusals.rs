//! Why a server does not do what it was asked, and who could: for a person.

use super::Node;
use crate::moment::Moment;
use crate::names::Position;
use crate::protocol::{self, Code};
use crate::replica::NotTaken;

impl Node {
    /// The line that says where the primary is, or who is waited for.
    pub(super) fn not_primary(&self, now: Moment) -> Vec<u8> {
        let mut line = Vec::new();
        let out = &mut line;
        match self.replica.primary(now).filter(|primary| *primary != self.replica.me()) {
            Some(primary) => {
                let address = self.address(primary.id);
                let words = format!("{address} server {} is the primary", primary.id);
                protocol::error(out, Code::NotPrimary, words);
            }
            None => {
                let trouble = self.trouble(now).unwrap_or_else(|| self.no_primary(now));
                protocol::error(out, Code::NotPrimary, format!("- {}", trouble.as_refusal()));
            }
        }
        line
    }

    /// The line that says why a change is not taken.
    pub(super) fn not_taken(&self, now: Moment, why: NotTaken) -> Vec<u8> {
        let mut line = Vec::new();
        let out = &mut line;
        match why {
            NotTaken::NotPrimary | NotTaken::HandingOver => return self.not_primary(now),
            NotTaken::GateClosed => return self.not_ready(now),
            NotTaken::NoSpace(id) => {
                let words = format!("the disk of server {id} is nearly full");
                protocol::error(out, Code::NoSpace, words);
            }
            NotTaken::TooFewCopies => {
                let words = self.trouble(now).map(|trouble| trouble.as_refusal());
                protocol::error(out, Code::TooFewCopies, words.unwrap_or_default());
            }
        }
        line
    }

    /// What was set aside here, for a person; `-` when that is nothing.
    pub(super) fn set_aside(&self) -> String {
        let each = |(folder, last): &(String, Position)| format!("{folder} up to entry {last}");
        let all: Vec<String> = self.setup.former.iter().map(each).collect();
        if all.is_empty() { "-".to_owned() } else { all.join(", ") }
    }

    /// Why a server with an empty log forms no group, and what a person can do about it: a
    /// directory was set aside here, or at another server that is linked.
    pub(super) fn lost(&self) -> Option<String> {
        if self.replica.config().is_some() {
            return None;
        }
        let own = self.setup.former.iter().max_by_key(|(_, last)| *last);
        let others: Vec<String> = self
            .replica
            .former_of_peers()
            .map(|(id, last)| format!("server {id} has set one aside up to entry {last}"))
            .collect();
        if own.is_none() && others.is_empty() {
            return None;
        }
        let mut words = match own {
            Some(_) => format!("this server has set its log aside ({})", self.set_aside()),
            None => "this server has no log".to_owned(),
        };
        for other in &others {
            words += &format!("; {other}");
        }
        words += "; it waits for a server that has the group's log, and forms no new group";
        if let Some((folder, _)) = own {
            let command = &self.setup.recovery;
            words += &format!(
                "; if no server has it, stop all and go on with the highest term, then entry: \
                 {command} --from {folder}"
            );
        }
        Some(words)
    }

    /// The line that says who was never attached yet.
    pub(super) fn not_ready(&self, now: Moment) -> Vec<u8> {
        let mut line = Vec::new();
        if let Some(trouble) = self.trouble(now) {
            protocol::error(&mut line, Code::NotReady, trouble.as_refusal());
        }
        line
    }
}
