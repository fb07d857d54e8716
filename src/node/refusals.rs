//! Why a server does not do what it was asked, and who could: for a person.

use super::Node;
use crate::moment::Moment;
use crate::names::{Position, ServerId};
use crate::protocol::{self, Code};
use crate::replica::{Config, NotTaken};

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
                let waited: Vec<String> = self
                    .replica
                    .config()
                    .into_iter()
                    .flat_map(Config::members)
                    .filter(|member| *member != self.replica.me())
                    .filter(|member| self.replica.linked().all(|linked| linked != *member))
                    .map(|member| format!("server {} ({})", member.id, self.address(member.id)))
                    .collect();
                let words = if waited.is_empty() {
                    "- no primary is known yet; one is being elected".to_owned()
                } else {
                    format!("- no primary is known; {}", self.advice(&waited.join(" or ")))
                };
                protocol::error(out, Code::NotPrimary, words);
            }
        }
        line
    }

    /// What a person may do who knows more than this server can.
    pub(super) fn advice(&self, waited: &str) -> String {
        let wait = format!("waiting for {waited}");
        if !self.replica.may_be_last() {
            return wait;
        }
        let command = &self.setup.recovery;
        format!("{wait}; if lost for good, stop this server and go on alone with: {command}")
    }

    /// The line that says why a change is not taken.
    pub(super) fn not_taken(&self, now: Moment, why: NotTaken) -> Vec<u8> {
        let mut line = Vec::new();
        let out = &mut line;
        match why {
            NotTaken::NotPrimary | NotTaken::HandingOver => return self.not_primary(now),
            NotTaken::GateClosed => self.write_gate_closed(out),
            NotTaken::NoSpace(id) => {
                let words = format!("the disk of server {id} is nearly full");
                protocol::error(out, Code::NoSpace, words);
            }
            NotTaken::TooFewCopies => {
                let (count, missing) =
                    (self.replica.config().map_or(0, Config::count), self.missing());
                let words = format!("{count} servers are attached; missing: {missing}");
                protocol::error(out, Code::TooFewCopies, words);
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

    pub(super) fn write_gate_closed(&self, out: &mut Vec<u8>) {
        if let Some(words) = self.lost() {
            return protocol::error(out, Code::NotReady, words);
        }
        let words = match &self.missing()[..] {
            // The primary has not said yet what it knows.
            "-" => "all servers are attached, since a moment ago; try again".to_owned(),
            missing => format!("not all servers were attached yet; missing: {missing}"),
        };
        protocol::error(out, Code::NotReady, words);
    }

    /// The servers that are not attached, for a person.
    pub(super) fn missing(&self) -> String {
        let config = self.replica.config();
        let missing: Vec<String> = (1..=self.setup.addresses.len() as u8)
            .filter_map(ServerId::new)
            .filter(|id| {
                let member = config.and_then(|config| config.member(*id));
                let linked = self.replica.linked().any(|linked| linked.id == *id);
                let attached = linked && (config.is_none() || member.is_some());
                *id != self.replica.me().id && !attached
            })
            .map(|id| format!("server {id} ({})", self.address(id)))
            .collect();
        if missing.is_empty() { "-".to_owned() } else { missing.join(", ") }
    }
}
