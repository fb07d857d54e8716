//! Explains to a person why a server refuses a request, and which server would accept it.

use super::Node;
use super::replies::error;
use crate::ids::Position;
use crate::protocol::{Code, Reply};
use crate::replica::NotTaken;
use crate::time::Moment;

impl Node {
    /// Refuses a request that only a primary runs. Names the primary, or the servers that are
    /// waited for.
    pub(super) fn not_primary(&self, now: Moment) -> Reply<'static> {
        let words = match self.replica.primary(now) {
            Some(primary) if primary != self.replica.me() => {
                let address = self.address(primary.id);
                format!("{address} server {} is the primary", primary.id)
            }
            _ => {
                let trouble = self.trouble(now).unwrap_or_else(|| self.no_primary(now));
                format!("- {}", trouble.as_refusal())
            }
        };
        error(Code::NotPrimary, words)
    }

    /// Explains why a change was not accepted.
    pub(super) fn not_taken(&self, now: Moment, why: NotTaken) -> Reply<'static> {
        match why {
            NotTaken::NotPrimary | NotTaken::HandingOver => self.not_primary(now),
            NotTaken::GateClosed => self.troubled(now, Code::NotReady),
            NotTaken::TooFewCopies => self.troubled(now, Code::TooFewCopies),
            NotTaken::NoSpace(id) => {
                error(Code::NoSpace, format!("the disk of server {id} is nearly full"))
            }
        }
    }

    /// Refuses a request since this server accepts no changes, and explains why it does not.
    pub(super) fn troubled(&self, now: Moment, code: Code) -> Reply<'static> {
        let words = self.trouble(now).map(|trouble| trouble.as_refusal());
        error(code, words.unwrap_or_else(|| "the group does not accept clients yet".to_owned()))
    }

    /// Describes for a person what this server has quarantined; `-` when that is nothing.
    pub(super) fn quarantine(&self) -> String {
        let each = |(folder, last): &(String, Position)| format!("{folder} up to entry {last}");
        let all: Vec<String> = self.setup.former.iter().map(each).collect();
        if all.is_empty() { "-".to_owned() } else { all.join(", ") }
    }

    /// Explains why a server with an empty log forms no group, and what an operator can do. The
    /// reason is a directory that this server, or another linked one, has quarantined.
    pub(super) fn lost(&self) -> Option<String> {
        if self.replica.config().is_some() {
            return None;
        }
        let own = self.setup.former.iter().max_by_key(|(_, last)| *last);
        let others: Vec<String> = self
            .replica
            .former_of_peers()
            .map(|(id, last)| format!("server {id} has quarantined one up to entry {last}"))
            .collect();
        if own.is_none() && others.is_empty() {
            return None;
        }
        let mut words = match own {
            Some(_) => format!("this server has quarantined its log ({})", self.quarantine()),
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
}
