//! The addresses of the group's servers. Each look-up of a name runs on its own thread and is
//! repeated: a resolver may take ten seconds to fail, and the event loop never waits for it. To
//! start, a server needs only its own address.

use crate::address;
use crate::ids::ServerId;
use crate::time::Moment;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The interval between look-ups of a name while dials of its server fail.
const LOOKUP_TIME: Duration = Duration::from_secs(1);
/// A look-up that takes longer than this is logged.
const SILENT_TIME: Duration = Duration::from_secs(5);

/// The result of a look-up; an error says why it failed.
pub type Found = Result<Vec<SocketAddr>, String>;

/// The addresses of all servers of the group, by id.
#[derive(Debug)]
pub(super) struct Addresses {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// `host:port`, as the settings have it.
    name: String,
    /// The result of the last look-up that succeeded.
    found: Vec<SocketAddr>,
    is_literal: bool,
    /// When the current look-up began, or the last one.
    begun: Option<Moment>,
    under_way: bool,
    /// Why the last look-up failed.
    failed: Option<String>,
}

impl Addresses {
    /// The servers of these names.
    pub(super) fn new(names: &[String]) -> Addresses {
        let entry = |name: &String| {
            let literal = address::literal(name);
            Entry {
                name: name.clone(),
                found: literal.into_iter().collect(),
                is_literal: literal.is_some(),
                begun: None,
                under_way: false,
                failed: None,
            }
        };
        Addresses { entries: names.iter().map(entry).collect() }
    }

    /// `host:port` of a server.
    pub(super) fn name(&self, id: ServerId) -> &str {
        &self.entries[id.slot()].name
    }

    /// The addresses of a server, as far as they are known.
    pub(super) fn of(&self, id: ServerId) -> &[SocketAddr] {
        &self.entries[id.slot()].found
    }

    /// All known addresses.
    pub(super) fn all(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.entries.iter().flat_map(|entry| entry.found.iter().copied())
    }

    /// Begins a look-up of a name, unless one began within the last second. `begin` gets the name.
    pub(super) fn look_up(
        &mut self,
        now: Moment,
        id: ServerId,
        begin: impl FnOnce(&str) -> io::Result<()>,
    ) {
        let entry = &mut self.entries[id.slot()];
        let recent = entry.begun.is_some_and(|at| now < at + LOOKUP_TIME);
        if entry.is_literal || entry.under_way || recent {
            return;
        }
        entry.begun = Some(now);
        match begin(&entry.name) {
            Ok(()) => entry.under_way = true,
            Err(error) => entry.failed = Some(error.to_string()),
        }
    }

    /// Stores the result of a look-up.
    pub(super) fn store(&mut self, id: ServerId, found: Found) {
        let entry = &mut self.entries[id.slot()];
        entry.under_way = false;
        match found {
            // The known addresses stay valid: the resolver may be down, too.
            Err(why) => entry.failed = Some(why),
            Ok(found) => (entry.found, entry.failed) = (found, None),
        }
    }

    /// Describes why a server's address is unknown or out of date.
    pub(super) fn trouble(&self, now: Moment, id: ServerId) -> Option<String> {
        let Entry { name, found, begun, under_way, failed, .. } = &self.entries[id.slot()];
        let silent = *under_way && begun.is_some_and(|at| now >= at + SILENT_TIME);
        let why = match (silent, failed) {
            (true, _) => "the resolver does not answer",
            (false, Some(why)) => why,
            (false, None) => return None,
        };
        let next = if found.is_empty() { "" } else { "; its last known address is used" };
        Some(format!("cannot look up {name} (server {id}): {why}{next}"))
    }

    /// Describes what is wrong with the known addresses. This server, `me`, listens at `listens`.
    pub(super) fn conflict(&self, me: ServerId, listens: &[SocketAddr]) -> Option<String> {
        let ids = || ServerId::all(self.entries.len() as u8);
        for (one, other) in ids().flat_map(|one| ids().map(move |other| (one, other))) {
            let shared = self.of(one).iter().find(|address| self.of(other).contains(address));
            if let Some(shared) = shared.filter(|_| one < other) {
                let (one_name, other_name) = (self.name(one), self.name(other));
                return Some(format!(
                    "{one_name} (server {one}) and {other_name} (server {other}) both lead to \
                     {shared}: correct the names, or the list of servers"
                ));
            }
        }
        let is_loopback = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
        let far = |id: &ServerId| *id != me && self.of(*id).iter().any(|at| !is_loopback(at));
        let far = ids().find(far)?;
        let own = listens.first().filter(|_| listens.iter().all(is_loopback))?;
        Some(format!(
            "this server listens on {own}, which no other machine reaches, while {} leads to {}: \
             let {} lead to an address of the network (see /etc/hosts), or set `listen`",
            self.name(far),
            self.of(far).iter().find(|at| !is_loopback(at)).copied().unwrap_or(*own),
            self.name(me),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(names: [&str; 3]) -> Addresses {
        Addresses::new(&names.map(str::to_owned))
    }

    fn id(n: u8) -> ServerId {
        ServerId::new(n).unwrap()
    }

    /// Returns whether a look-up begins.
    fn looks_up(addresses: &mut Addresses, now: Moment, of: ServerId) -> bool {
        let mut begun = false;
        addresses.look_up(now, of, |_| {
            begun = true;
            Ok(())
        });
        begun
    }

    #[test]
    fn names_are_looked_up_again_and_keep_what_was_found() {
        let mut known = addresses(["127.0.0.1:1", "lab2:2", "gone.invalid:3"]);
        assert!(!looks_up(&mut known, Moment(1), id(1)), "an address needs no look-up");
        assert!(looks_up(&mut known, Moment(1), id(2)) && known.of(id(2)).is_empty());
        assert!(!looks_up(&mut known, Moment(2_000_000), id(2)), "one is under way");
        let found = vec!["192.0.2.2:2".parse().unwrap()];
        known.store(id(2), Ok(found.clone()));
        assert_eq!(known.of(id(2)), found);
        assert!(!looks_up(&mut known, Moment(1_000_000), id(2)), "it was looked up just now");
        assert!(looks_up(&mut known, Moment(1_000_001), id(2)));

        known.store(id(2), Err("Name or service not known".to_owned()));
        assert_eq!(known.of(id(2)), found);
        let trouble = known.trouble(Moment(2), id(2)).unwrap();
        assert!(trouble.ends_with("not known; its last known address is used"), "{trouble}");

        let begun = Moment(5_000_000);
        known.entries[2].under_way = true;
        known.entries[2].begun = Some(begun);
        assert_eq!(known.trouble(begun, id(3)), None);
        let trouble = known.trouble(begun + SILENT_TIME, id(3)).unwrap();
        assert_eq!(
            trouble,
            "cannot look up gone.invalid:3 (server 3): the resolver does not answer"
        );
    }

    #[test]
    fn addresses_that_cannot_work_are_noticed() {
        let far = addresses(["lab1:5001", "192.0.2.2:5001", "192.0.2.3:5001"]);
        let listens = |address: &str| [address.parse().unwrap()];
        let why = far.conflict(id(1), &listens("127.0.1.1:5001")).unwrap();
        assert!(why.starts_with("this server listens on 127.0.1.1:5001, which no"), "{why}");
        assert_eq!(far.conflict(id(1), &listens("192.0.2.1:5001")), None);
        assert_eq!(far.conflict(id(1), &listens("0.0.0.0:5001")), None);
        let near = addresses(["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
        assert_eq!(near.conflict(id(1), &listens("127.0.0.1:1")), None);
        let mut twice = addresses(["lab1:1", "lab2:1", "192.0.2.3:1"]);
        for slot in 0..2 {
            twice.entries[slot].found = vec!["192.0.2.1:1".parse().unwrap()];
        }
        let why = twice.conflict(id(3), &listens("192.0.2.3:1")).unwrap();
        assert!(why.starts_with("lab1:1 (server 1) and lab2:1 (server 2) both lead"), "{why}");
    }
}
