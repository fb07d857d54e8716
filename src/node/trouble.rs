//! Determines why this server does not accept changes, which servers it waits for, and what would
//! help. The result is the same for `STATUS`, refusals, the log and the commands that read them.

use super::Node;
use crate::ids::{Member, ServerId};
use crate::replica::{Config, DialFailure, Obstacle, RoleView};
use crate::time::{Moment, in_words};
use std::time::Duration;

/// How often `report_trouble` checks whether changes are accepted.
const LOOK_TIME: Duration = Duration::from_secs(1);
/// How often an outage is logged until it has lasted for `LONG_TIME`.
const REPORT_TIME: Duration = Duration::from_secs(10);
/// How often an outage that has lasted this long is logged.
const LONG_TIME: Duration = Duration::from_secs(60);

/// The reason why changes are not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The message: the reason, the servers that are waited for, and what would help.
    pub(super) words: String,
    /// The servers that are waited for.
    pub(super) servers: Vec<ServerId>,
    /// Whether no server of the group accepts changes, as far as this server knows. An operator
    /// may have to act.
    is_outage: bool,
}

impl Trouble {
    fn new(words: String) -> Trouble {
        Trouble { words, servers: Vec::new(), is_outage: false }
    }

    /// Returns the message text of an error. Adds the word "waiting", which is the key in
    /// `STATUS`.
    pub(super) fn as_refusal(&self) -> String {
        match self.words.starts_with("for ") {
            true => format!("waiting {}", self.words),
            false => self.words.clone(),
        }
    }
}

/// The state of the repeated log lines about an outage.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// When to check for an outage next.
    look_at: Moment,
    /// When the outage began, and when it is logged next.
    outage: Option<(Moment, Moment)>,
    logged: bool,
}

impl Node {
    /// Returns why this server does not accept changes; `None` when it does.
    pub(super) fn trouble(&self, now: Moment) -> Option<Trouble> {
        if self.stop.is_asked() {
            return Some(Trouble::new("this server stops".to_owned()));
        }
        if let Some(words) = self.lost() {
            return Some(Trouble { is_outage: true, ..Trouble::new(words) });
        }
        let role = self.replica.role();
        if !self.replica.gate_open() {
            return Some(self.gate_closed(now));
        }
        match self.replica.primary(now) {
            Some(primary) if primary != self.replica.me() => {
                Some(Trouble::new(format!("not primary; server {} is", primary.id)))
            }
            _ if role != RoleView::Primary => Some(self.no_primary(now)),
            _ if self.replica.confirmed_read().is_none() => {
                let servers = self.other_members().map(|member| member.id).collect();
                let config = self.replica.config();
                Some(self.waited(now, "for the first entry of the term", servers, config))
            }
            _ if self.replica.is_handing_over() => {
                Some(Trouble::new("the role is being handed over".to_owned()))
            }
            _ if self.replica.has_too_few_copies() => {
                Some(self.waited(now, "for more copies", self.unattached(), None))
            }
            _ => {
                let id = self.replica.full_member()?;
                Some(Trouble::new(format!("for space on the disk of server {id}")))
            }
        }
    }

    fn gate_closed(&self, now: Moment) -> Trouble {
        let missing = self.unattached();
        if missing.is_empty() {
            let words = "for all servers once: all are connected, and none of them is primary yet";
            return Trouble { is_outage: true, ..Trouble::new(words.to_owned()) };
        }
        self.waited(now, "for all servers once", missing, None)
    }

    /// Returns what is missing for a primary, when no server is primary as far as this server
    /// knows.
    pub(super) fn no_primary(&self, now: Moment) -> Trouble {
        let config = self.replica.config();
        let linked = |member: &Member| self.replica.linked().any(|linked| linked == *member);
        let lost: Vec<ServerId> =
            self.other_members().filter(|member| !linked(member)).map(|member| member.id).collect();
        let is_member = config.is_some_and(|config| config.has(self.replica.me()));
        if lost.is_empty() || (is_member && !self.replica.may_be_last()) {
            let words = match is_member {
                true => "for a primary; one is being elected",
                false => "for a primary; this server is no member, the others elect one",
            };
            return Trouble { is_outage: true, ..Trouble::new(words.to_owned()) };
        }
        let mut found = self.waited(now, "for a primary", lost, config);
        if self.replica.may_be_last() {
            let (command, which) = (&self.setup.recovery, pronoun(&found.servers));
            found.words += &format!(
                "; start {which} again, or if {which} is lost for good, stop this server and go on \
                 alone with: {command}"
            );
        }
        found
    }

    /// Returns the members of the newest config except this server.
    fn other_members(&self) -> impl Iterator<Item = Member> + '_ {
        let members = self.replica.config().into_iter().flat_map(Config::members);
        members.filter(|member| *member != self.replica.me())
    }

    /// Returns the other servers that are not attached: not linked, or not members of the existing
    /// group.
    pub(super) fn unattached(&self) -> Vec<ServerId> {
        let config = self.replica.config();
        let attached = |id: ServerId| {
            let linked = self.replica.linked().find(|linked| linked.id == id);
            linked.is_some_and(|linked| config.is_none_or(|config| config.has(linked)))
        };
        let all = ServerId::all(self.setup.addresses.len() as u8);
        all.filter(|id| *id != self.replica.me().id && !attached(*id)).collect()
    }

    /// Describes what is waited for, and the servers. `config` names the disks they need, if that
    /// matters.
    fn waited(
        &self,
        now: Moment,
        what: &str,
        servers: Vec<ServerId>,
        config: Option<&Config>,
    ) -> Trouble {
        let each = servers.iter().map(|id| {
            let disk = config.and_then(|config| config.member(*id));
            self.about(now, *id, disk)
        });
        let words = format!("{what}: {}", each.collect::<Vec<_>>().join("; "));
        Trouble { words, servers, is_outage: true }
    }

    /// Describes another server for a person.
    fn about(&self, now: Moment, id: ServerId, awaited: Option<Member>) -> String {
        let mut words = format!("server {id} ({}) ", self.address(id));
        let Some(peer) = self.replica.peer(id) else { return words + "is not connected" };
        if let Some(linked) = peer.link.as_ref().map(|link| link.member) {
            words += &match awaited {
                Some(awaited) if awaited != linked => format!(
                    "is connected with disk {:.8}, which can't help: its disk {:.8} is waited for",
                    linked.disk.to_string(),
                    awaited.disk.to_string()
                ),
                _ if peer.health.stopping => "is stopping".to_owned(),
                _ if self.replica.is_penalized(id, now) => {
                    "is connected, and waits because it was lost too often".to_owned()
                }
                _ => match self.replica.peer_lag(id) {
                    Some(1) => "is connected, and lacks 1 entry".to_owned(),
                    Some(lag) if lag > 0 => format!("is connected, and lacks {lag} entries"),
                    _ => "is connected".to_owned(),
                },
            };
            return words;
        }
        words += &match peer.obstacle {
            Some(Obstacle::Dial(why @ DialFailure::NoName)) => format!("{why}; see the log"),
            Some(Obstacle::Dial(why)) => why.to_string(),
            Some(Obstacle::WrongSecret) => "does not know this group's secret".to_owned(),
            Some(Obstacle::RefusedBy(why)) => format!("refuses this server: {why}, as it sees us"),
            Some(Obstacle::Refused(why)) => format!("is refused: {why}"),
            None => "is not connected".to_owned(),
        };
        if let Some(lost_at) = peer.lost_at {
            words += &format!(", lost {} ago", in_words(now - lost_at));
        }
        words
    }

    /// Logs an outage: after ten seconds and then every ten, and after the first minute once a
    /// minute.
    pub(super) fn report_trouble(&mut self, now: Moment) {
        if now < self.reports.look_at {
            return;
        }
        self.reports.look_at = now + LOOK_TIME;
        let trouble = self.trouble(now).filter(|trouble| trouble.is_outage);
        let Reports { outage, logged, .. } = &mut self.reports;
        let Some(trouble) = trouble else {
            let ended = outage.take();
            if let Some((since, _)) = ended.filter(|_| std::mem::take(logged)) {
                log::info!("the group takes changes again, after {}", in_words(now - since));
            }
            return;
        };
        let (since, next) = outage.get_or_insert((now, now + REPORT_TIME));
        if now >= *next {
            let lasting = now - *since;
            *next = now + if lasting < LONG_TIME { REPORT_TIME } else { LONG_TIME };
            *logged = true;
            let (lasting, why) = (in_words(lasting), trouble.as_refusal());
            log::warn!("no changes are taken for {lasting} now: {why}");
        }
    }
}

fn pronoun(servers: &[ServerId]) -> &'static str {
    if servers.len() == 1 { "it" } else { "one of them" }
}
