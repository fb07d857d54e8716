//! Directories of a group that has stored many messages, written without running it.

use postern::content::Content;
use postern::ids::{DiskId, Index, Member, Position, ServerId, Term, UserName, Vote};
use postern::mailbox::{Change, Mailboxes};
use postern::record::{self, Kind};
use postern::replica::Config;
use postern::settings::Settings;
use postern::store::disk::RealDisk;
use postern::store::{Identity, Opening, Store};
use postern::time::WallTime;
use postern_testkit::group::{Group, SERVERS};

/// The hash of [`PASSWORD`](postern_testkit::client::PASSWORD), as a server makes it.
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$fPM9GuY/fJg9s6+6udbmWA$E8LshXWGzEDRWycEjJtNIVwY\
                    xrbumTwUEEJ0IQzOM9Q";
/// The account with the large mailbox.
pub(super) const LARGE: &str = "large";
/// Bytes that are written and synced at a time.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// When the first entry was logged, in ms since 1970. Each later one came 1 ms later.
const BEGAN_MS: u64 = 1_700_000_000_000;
const TERM: Term = Term(1);

/// What the directories hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amount {
    pub(super) messages: u64,
    pub(super) mailboxes: u64,
    /// How many of the messages are in the mailbox of [`LARGE`], evenly among the others.
    pub(super) large: u64,
    /// The length of each text.
    pub(super) bytes: usize,
}

/// Returns the name of the account with mailbox `n`, from 0.
pub(super) fn name(n: u64) -> String {
    format!("user-{n:06}")
}

/// The directories of the servers, to which the same entries are appended.
struct Logs {
    stores: Vec<Store<RealDisk>>,
    batch: Vec<u8>,
    last: u64,
}

/// Fills the directories of a group that was never started.
pub(super) fn fill(group: &Group, amount: Amount) -> Result<(), String> {
    let settings = Settings::read(&group.config())?;
    let disk_of = |id: ServerId| DiskId(u128::from(id.number()) << 96 | 0x00f1_1ed0);
    let members: Vec<Member> =
        ServerId::all(SERVERS as u8).map(|id| Member { id, disk: disk_of(id) }).collect();
    let open = |member: &Member| {
        let data = group.data(member.id.slot());
        let failed = |why: String| format!("{}: {why}", data.display());
        let disk = RealDisk::open(data).map_err(|error| failed(error.to_string()))?;
        let shared = settings.shared;
        let identity = Identity::new(shared.group, shared.servers, member.id, member.disk);
        let empty = Mailboxes::new(&settings.secret);
        let opening = Opening { expected: &identity, label: "fill", empty: &empty };
        let opened = Store::open(disk, &opening, &mut |_| {});
        let mut store = opened.map_err(|error| failed(error.to_string()))?.store;
        let vote = Vote { term: TERM, given: None, founder: None };
        store.persist(vote).map_err(|error| failed(error.to_string()))?;
        Ok::<_, String>(store)
    };
    let stores = members.iter().map(open).collect::<Result<_, _>>()?;
    let mut logs = Logs { stores, batch: Vec::new(), last: 0 };
    for gate_open in [false, true] {
        let config = Config::new(members.iter().copied(), gate_open);
        logs.append(Kind::CONFIG, |out| config.encode(out))?;
    }
    let mut users = Vec::new();
    for name in (0..amount.mailboxes).map(name).chain([LARGE.to_owned()]) {
        let user = UserName::parse(&name).ok_or("a name is too long")?;
        let create = Change::Create { user, hash: HASH };
        users.push((user, logs.append(create.kind(), |out| create.encode(out))?));
    }
    let text = "x".repeat(amount.bytes);
    let content = Content::plain(&text);
    // A large step that visits all mailboxes in an order that looks random.
    let step = (amount.mailboxes * 618 / 1000) | 1;
    for n in 0..amount.messages {
        let is_large =
            n * amount.large / amount.messages != (n + 1) * amount.large / amount.messages;
        let to = if is_large { amount.mailboxes } else { n * step % amount.mailboxes };
        let (from, sender) = users[(n * 7 % amount.mailboxes) as usize];
        let (to, key) = (users[to as usize].0, None);
        let message = Change::Message { to, from, sender, key, content };
        logs.append(message.kind(), |out| message.encode(out))?;
    }
    logs.flush()?;
    logs.stores.iter_mut().try_for_each(Store::seal).map_err(|error| error.to_string())
}

impl Logs {
    /// Adds an entry to the batch, and returns its index.
    fn append(&mut self, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) -> Result<Index, String> {
        self.last += 1;
        let index = Index(self.last);
        let at = Position { index, term: TERM };
        record::write(&mut self.batch, at, WallTime(BEGAN_MS + self.last), kind, body);
        if self.batch.len() >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(index)
    }

    fn flush(&mut self) -> Result<(), String> {
        for store in &mut self.stores {
            let done = store.append(&self.batch).and_then(|()| store.flush());
            done.map_err(|error| error.to_string())?;
        }
        self.batch.clear();
        Ok(())
    }
}
