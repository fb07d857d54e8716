//! The log of a victim that does not start blank.

use super::victim::disk_of;
use crate::simulate::open_store;
use postern::content::Content;
use postern::ids::{Index, Member, Position, ServerId, Term, UserName, Vote};
use postern::mailbox::Change;
use postern::record::{self, Kind};
use postern::replica::Config;
use postern::store::Identity;
use postern::store::memory::MemoryDisk;
use postern::time::WallTime;

/// The wall clock at the start.
pub(super) const WALL_MS: u64 = 1_700_000_000_000;
/// The term of the last entries, and of the vote.
const TERM: Term = Term(2);

/// Writes a log of two terms: configs with an open gate, an account, messages.
pub(super) fn prepare(disk: &MemoryDisk, identity: &Identity, learner: bool) -> Result<(), String> {
    let opened = open_store(disk.clone(), identity, "0");
    let mut store = opened.map_err(|error| error.to_string())?.store;
    let members = ServerId::all(3).filter(|id| !(learner && *id == identity.id));
    let members: Vec<Member> = members.map(|id| Member { id, disk: disk_of(id) }).collect();
    let mut bytes = Vec::new();
    let config = |open| {
        let config = Config::new(members.clone(), open);
        move |out: &mut Vec<u8>| config.encode(out)
    };
    let mut index = 0;
    let mut write = |term: u64, kind: Kind, body: &dyn Fn(&mut Vec<u8>)| {
        index += 1;
        let at = Position { index: Index(index), term: Term(term) };
        record::write(&mut bytes, at, WallTime(WALL_MS), kind, body);
    };
    write(0, Kind::CONFIG, &config(false));
    write(1, Kind::CONFIG, &config(false));
    write(1, Kind::CONFIG, &config(true));
    let user = UserName::parse("ann").expect("a name");
    let create = Change::Create { user, hash: "h:correct-horse" };
    write(1, Kind::CREATE, &|out| create.encode(out));
    write(TERM.0, Kind::CONFIG, &config(true));
    for _ in 0..3 {
        let (to, from, sender) = (user, user, Index(4));
        let message =
            Change::Message { to, from, sender, key: None, content: Content::plain("hi") };
        write(TERM.0, Kind::MESSAGE, &|out| message.encode(out));
    }
    let vote = Vote { term: TERM, given: None, founder: None };
    let stored = store.append(&bytes).and_then(|()| store.flush()).and_then(|()| store.seal());
    stored.and_then(|()| store.persist(vote)).map_err(|error| error.to_string())
}
