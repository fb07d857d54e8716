//! One server process: the same node and the same store as the real one, and its turn, in the
//! order of `server::Server::turn`. What it wants done to the outside is left in [`Process::acts`].

use super::mirror::Mirror;
use postern::limits::{LINE_BYTES_MAX, OUTPUT_BYTES_MAX, SEAL_TIME};
use postern::moment::{Moment, WallTime};
use postern::names::{
    DiskId, GroupId, LinkId, Member, ProcessId, Secret, ServerId, SessionId, Vote,
};
use postern::node::{self, Context, Fatal, Gauges, Hashed, Input, Job, Node, Output};
use postern::replica::{
    Aside, Closing, DialFailure, Effect, Event, Mark, Packet, Replica, Setup, Shape, Shared,
    Takeover,
};
use postern::rng::Rng;
use postern::store::memory::MemoryDisk;
use postern::store::{Identity, OpenError, OpenOptions, Opened, SetAside, Store};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use std::{fmt, io};

/// The group of every simulated world.
pub(crate) const GROUP: GroupId = GroupId(7);

/// What the servers share.
pub(super) fn secret() -> Secret {
    Secret::new([7; Secret::BYTES])
}

/// What reaches a process from outside.
#[derive(Debug)]
pub(crate) enum Incoming {
    Dialled(LinkId, ServerId),
    Accepted(LinkId),
    DialFailed(ServerId, bool),
    Ended(LinkId),
    Packet(LinkId, Packet, Vec<u8>),
    ClientOpened(SessionId),
    ClientBytes(SessionId, Vec<u8>),
    ClientEnded(SessionId),
    ClientBroken(SessionId),
    Hashed(SessionId, Hashed),
    /// SIGTERM.
    Stop,
}

/// What a process does to the outside, in order.
#[derive(Debug)]
pub(crate) enum Act {
    Send(LinkId, Packet, Vec<u8>),
    Dial(ServerId),
    EndLink(LinkId),
    Say(SessionId, Vec<u8>),
    EndClient(SessionId),
}

/// Why a process ended by itself.
#[derive(Debug)]
pub(crate) enum Fail {
    Io(&'static str, io::Error),
    Fatal(String),
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fail::Io(what, error) => write!(f, "{what}: {error}"),
            Fail::Fatal(why) => f.write_str(why),
        }
    }
}

/// The settings of a simulated group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) silence_ms: u32,
    pub(crate) takeover: Takeover,
    pub(crate) copies_min: u8,
    pub(crate) survivor_auto: bool,
    /// The size from which a segment of a log is followed by a new one.
    pub(crate) segment_bytes: u64,
}

impl Settings {
    /// `T` in µs.
    pub(super) fn silence_us(&self) -> u64 {
        u64::from(self.silence_ms) * 1000
    }
}

/// A text client's end at the server.
#[derive(Debug)]
struct Client {
    session: SessionId,
    input: Vec<u8>,
    input_closed: bool,
    skipping: bool,
    ended: bool,
    /// How many bytes its socket takes before it blocks.
    room: usize,
}

/// A running server.
pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) store: Store<MemoryDisk>,
    pub(crate) mirror: Mirror,
    /// What is to be carried out by the world; taken after every part of a turn.
    pub(crate) acts: Vec<Act>,
    /// Passwords to hash; taken like `acts`.
    pub(crate) jobs: VecDeque<Job>,
    /// The first job is under way.
    pub(super) hashing: bool,
    /// Its disk has little room left.
    full: bool,
    pub(crate) left: Option<Aside>,
    /// What the start found damaged and put aside.
    pub(super) set_aside: Option<SetAside>,
    stopping: bool,
    queued: Vec<Act>,
    clients: Vec<Client>,
    ready: Vec<SessionId>,
    touched: Vec<SessionId>,
    /// Clients whose sockets took nothing more, and have room again.
    unblocked: Vec<SessionId>,
    seal_at: Option<Moment>,
    out: Output,
    must_flush: bool,
    must_persist: Option<Vote>,
    vote: Vote,
    now: Moment,
    wall: WallTime,
}

/// Opens a directory and puts a node around it, as `commands::serve` does.
pub(crate) fn start(
    disk: &MemoryDisk,
    id: ServerId,
    settings: Settings,
    label: &str,
    rng: &mut Rng,
) -> Result<Process, OpenError> {
    let new = DiskId(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()));
    open(disk, &Identity::new(GROUP, 3, id, new), settings, label, rng)
}

/// The same for a directory with any identity, whose group may have one server.
pub(crate) fn open(
    disk: &MemoryDisk,
    expected: &Identity,
    settings: Settings,
    label: &str,
    rng: &mut Rng,
) -> Result<Process, OpenError> {
    let (process, seed) = (ProcessId(rng.next_u64()), rng.next_u64());
    let mut expected = expected.clone();
    expected.process = process;
    let mut shape = Shape::default();
    let mut mirror = Mirror::default();
    let options = OpenOptions { label, segment_bytes: settings.segment_bytes };
    let opened = Store::open(disk.clone(), &expected, options, |record| {
        mirror.push(record);
        shape.push(record)
    })?;
    if opened.set_aside.is_some() {
        (shape, mirror) = (Shape::default(), Mirror::default());
    }
    let node = build(&opened, shape, settings, seed);
    Ok(Process {
        node,
        vote: opened.vote,
        store: opened.store,
        set_aside: opened.set_aside,
        mirror,
        acts: Vec::new(),
        jobs: VecDeque::new(),
        hashing: false,
        full: false,
        left: None,
        stopping: false,
        queued: Vec::new(),
        clients: Vec::new(),
        ready: Vec::new(),
        touched: Vec::new(),
        unblocked: Vec::new(),
        seal_at: None,
        out: Output::default(),
        must_flush: false,
        must_persist: None,
        now: Moment(0),
        wall: WallTime(0),
    })
}

/// The only place that knows what a replica and a node are made of.
pub(crate) fn build(
    opened: &Opened<MemoryDisk>,
    shape: Shape,
    settings: Settings,
    seed: u64,
) -> Node {
    let identity = opened.store.identity();
    let setup = Setup {
        me: Member { id: identity.id, disk: identity.disk },
        incarnation: identity.incarnation,
        process: identity.process,
        shared: Shared {
            group: GROUP,
            servers: identity.servers,
            silence_ms: settings.silence_ms,
            copies_min: settings.copies_min,
            survivor_auto: settings.survivor_auto,
        },
        takeover: settings.takeover,
        vote: opened.vote,
        shape,
        seen: identity.seen().clone(),
        runs: identity.runs().to_vec(),
        former: opened.former.iter().filter(|former| former.opened).map(|former| former.last).max(),
        seed,
    };
    let about = node::Setup {
        addresses: (1..=identity.servers).map(|n| format!("s{n}:5001")).collect(),
        login_timeout: Duration::from_secs(60),
        accounts_open: true,
        secret: secret(),
        version: "simulated",
        recovery: "postern recover".to_owned(),
        former: Vec::new(),
        settings: vec![("takeover".to_owned(), format!("{:?}", settings.takeover))],
    };
    Node::new(Moment(0), about, Replica::new(Moment(0), setup))
}

impl Process {
    /// When a turn is wanted, at the latest, on this process's clock.
    pub(crate) fn next_turn(&self) -> Option<Moment> {
        if !self.ready.is_empty() {
            return Some(Moment(0));
        }
        [self.node.next_deadline(), self.seal_at].into_iter().flatten().min()
    }

    /// The first part of a turn, up to the sync; whether there is something to sync.
    pub(crate) fn turn(
        &mut self,
        now: Moment,
        wall: WallTime,
        full: bool,
        inbox: &mut Vec<Incoming>,
    ) -> Result<bool, Fail> {
        (self.now, self.wall) = (now, wall);
        if std::mem::replace(&mut self.full, full) != full {
            self.tell(Input::Full(full))?;
        }
        for incoming in inbox.drain(..) {
            self.take(incoming)?;
        }
        for session in std::mem::take(&mut self.ready) {
            self.feed(session)?;
        }
        if self.seal_at.is_some_and(|at| at <= now) {
            self.seal_at = None;
            self.store.seal().map_err(|error| Fail::Io("the log", error))?;
        }
        self.tell(Input::Replica(Event::Tick))?;
        self.flush_links()?; // before the sync: three disks work at once
        let flush = self.must_flush && self.store.has_unwritten();
        if self.left.is_some() || (!flush && self.must_persist.is_none()) {
            self.must_flush = false;
            self.finish()?;
            return Ok(false);
        }
        Ok(true)
    }

    /// The second part of a turn, when the time that the sync took is over.
    pub(crate) fn store_all(&mut self, now: Moment, wall: WallTime) -> Result<(), Fail> {
        (self.now, self.wall) = (now, wall);
        let flush = std::mem::take(&mut self.must_flush) && self.store.has_unwritten();
        if let Some(vote) = self.must_persist.take() {
            self.store.persist(vote).map_err(|error| Fail::Io("the vote", error))?;
            self.vote = vote;
        }
        if flush {
            self.store.flush().map_err(|error| Fail::Io("the log", error))?;
            self.node.note_flush(now);
            self.seal_soon();
        }
        let last = self.store.stored();
        self.tell(Input::Replica(Event::Stored(Mark { last, vote: self.vote })))?;
        self.finish()
    }

    /// Whether it was told to stop, and has nothing more to do.
    pub(super) fn is_stopped(&self, now: Moment) -> bool {
        self.stopping && self.node.is_stopped(now)
    }

    /// The vote that is durable, as far as this process knows.
    pub(crate) fn vote(&self) -> Vote {
        self.vote
    }

    /// Lets the socket of a client take so many bytes before it blocks; at first it never does.
    pub(crate) fn set_room(&mut self, session: SessionId, room: usize) {
        if let Some(client) = self.client(session) {
            client.room = room;
            self.unblocked.push(session);
        }
    }

    fn finish(&mut self) -> Result<(), Fail> {
        self.flush_links()?;
        self.flush_clients()
    }

    fn take(&mut self, incoming: Incoming) -> Result<(), Fail> {
        let event = match &incoming {
            Incoming::Dialled(link, to) => Event::Dialled { link: *link, to: *to },
            Incoming::Accepted(link) => Event::Accepted { link: *link },
            Incoming::DialFailed(to, refused) => {
                let why = if *refused { DialFailure::Refused } else { DialFailure::NoAnswer };
                Event::DialFailed { to: *to, why }
            }
            Incoming::Ended(link) => Event::Ended { link: *link },
            Incoming::Packet(link, packet, records) => {
                Event::Received { link: *link, packet: *packet, records }
            }
            _ => return self.take_of_client(incoming),
        };
        self.tell(Input::Replica(event))
    }

    fn take_of_client(&mut self, incoming: Incoming) -> Result<(), Fail> {
        match incoming {
            Incoming::ClientOpened(session) => {
                let (input, input_closed, skipping, ended) = (Vec::new(), false, false, false);
                let room = usize::MAX;
                self.clients.push(Client { session, input, input_closed, skipping, ended, room });
                // Each from an address of its own: who guesses there is another test's business.
                let from = IpAddr::from(Ipv6Addr::from_bits(u128::from(session.0) << 64));
                self.tell(Input::Opened(session, from.into()))
            }
            Incoming::ClientBytes(session, bytes) => {
                if let Some(client) = self.client(session) {
                    client.input.extend_from_slice(&bytes);
                }
                self.feed(session)
            }
            Incoming::ClientEnded(session) => {
                if let Some(client) = self.client(session) {
                    client.input_closed = true;
                }
                self.feed(session)
            }
            Incoming::ClientBroken(session) => {
                let known = self.clients.iter().position(|client| client.session == session);
                let Some(at) = known else { return Ok(()) };
                self.clients.swap_remove(at);
                self.tell(Input::Gone(session))
            }
            Incoming::Hashed(session, hashed) => self.tell(Input::Hashed(session, hashed)),
            Incoming::Stop => {
                self.stopping = true;
                self.tell(Input::Stop)
            }
            _ => unreachable!("the others come from servers"),
        }
    }

    fn client(&mut self, session: SessionId) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.session == session)
    }

    /// Hands in the lines that are here, while the node wants them.
    fn feed(&mut self, session: SessionId) -> Result<(), Fail> {
        let Some(client) = self.client(session) else { return Ok(()) };
        let input = std::mem::take(&mut client.input);
        let (mut skipping, mut ended) = (client.skipping, client.ended);
        let input_closed = client.input_closed;
        let mut used = 0;
        while !ended && (skipping || self.node.wants_line(session)) {
            let rest = &input[used..];
            match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) if skipping || end + 1 > LINE_BYTES_MAX => {
                    used += end + 1;
                    if !std::mem::take(&mut skipping) {
                        self.tell(Input::LongLine(session))?;
                    }
                }
                Some(end) => {
                    used += end + 1;
                    let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
                    self.tell(Input::Line(session, line))?;
                }
                None if !rest.is_empty() && (skipping || rest.len() >= LINE_BYTES_MAX) => {
                    used = input.len();
                    if !std::mem::replace(&mut skipping, true) {
                        self.tell(Input::LongLine(session))?;
                    }
                }
                None if input_closed && self.node.wants_line(session) => {
                    ended = true;
                    let unfinished = !rest.is_empty();
                    self.tell(Input::InputEnded { session, unfinished })?;
                }
                None => break,
            }
        }
        if let Some(client) = self.client(session) {
            (client.skipping, client.ended) = (skipping, ended);
            client.input = input;
            client.input.drain(..used);
        }
        Ok(())
    }

    /// Hands an input to the node and does what it wants done.
    fn tell(&mut self, input: Input<'_>) -> Result<(), Fail> {
        if self.left.is_some() {
            return Ok(());
        }
        let mut out = std::mem::take(&mut self.out);
        let gauges = Gauges::default;
        let world = Context { now: self.now, wall: self.wall, log: &self.store, gauges: &gauges };
        let handled = self.node.handle(&world, input, &mut out);
        handled.map_err(|Fatal(why)| Fail::Fatal(why))?;
        for effect in out.replica.effects.drain(..) {
            self.perform(effect, &out.replica.bytes).map_err(|error| Fail::Io("the log", error))?;
        }
        out.replica.clear();
        let packets = out.packets.drain(..);
        self.queued.extend(packets.map(|(link, packet, rest)| Act::Send(link, packet, rest)));
        for link in out.said.drain(..) {
            self.close_link(link, Closing::Spare);
        }
        self.jobs.extend(out.jobs.drain(..));
        self.out = out;
        Ok(())
    }

    fn perform(&mut self, effect: Effect, bytes: &[u8]) -> io::Result<()> {
        match effect {
            Effect::Append(range) => {
                self.mirror.append(&bytes[range.clone()]);
                self.store.append(&bytes[range])?;
            }
            Effect::Cut(last) => {
                self.mirror.cut(last);
                self.store.cut(last, &self.now.0.to_string())?;
            }
            Effect::SendEntries { link, append, first, last } => {
                let mut records = Vec::new();
                if self.store.copy(first, last, &mut records).is_err() {
                    self.node.note_unreadable(self.now, link);
                    return Ok(());
                }
                self.queued.push(Act::Send(link, Packet::Append(append), records));
            }
            Effect::Flush => self.must_flush = true,
            Effect::Persist(vote) => self.must_persist = Some(vote),
            Effect::Send(link, packet) => self.queued.push(Act::Send(link, packet, Vec::new())),
            Effect::Greet(link, greeting) => {
                let (hello, past) = *greeting;
                self.queued.push(Act::Send(link, Packet::Hello(hello), past));
            }
            Effect::Dial(to) => self.acts.push(Act::Dial(to)),
            Effect::Close(link, why) => self.close_link(link, why),
            Effect::See(disk) => {
                self.store.see(*disk);
                self.seal_soon();
            }
            Effect::Leave(aside) => self.left = Some(aside),
        }
        Ok(())
    }

    fn close_link(&mut self, link: LinkId, why: Closing) {
        if matches!(why, Closing::Silent) {
            // What is still queued would come too late, if ever.
            self.queued.retain(|act| !matches!(act, Act::Send(to, ..) if *to == link));
        }
        self.queued.push(Act::EndLink(link));
    }

    fn seal_soon(&mut self) {
        // What was seen of others is saved in time, whatever goes on.
        let due = self.seal_at.filter(|_| self.store.has_unsaved());
        let at = due.unwrap_or(self.now + SEAL_TIME);
        self.seal_at = self.store.has_unsealed().then_some(at);
    }

    fn flush_links(&mut self) -> Result<(), Fail> {
        while !self.queued.is_empty() {
            let mut ended = Vec::new();
            for act in self.queued.drain(..) {
                if let Act::EndLink(link) = act {
                    ended.push(link);
                }
                self.acts.push(act);
            }
            for link in ended {
                self.tell(Input::Replica(Event::Ended { link }))?;
            }
        }
        Ok(())
    }

    fn flush_clients(&mut self) -> Result<(), Fail> {
        let mut touched = std::mem::take(&mut self.touched);
        self.node.take_touched(&mut touched);
        touched.append(&mut self.unblocked);
        for session in touched.drain(..) {
            let Some(room) = self.client(session).map(|client| client.room) else { continue };
            let Some(output) = self.node.output(session) else { continue };
            if !output.is_empty() && room > 0 {
                let full = output.len() >= OUTPUT_BYTES_MAX;
                let behind = output.split_off(output.len().min(room));
                let bytes = std::mem::replace(output, behind);
                if let Some(client) = self.client(session) {
                    client.room = room.saturating_sub(bytes.len());
                }
                self.acts.push(Act::Say(session, bytes));
                if full {
                    self.tell(Input::Drained(session))?;
                }
            }
            if self.node.is_finished(session) {
                self.clients.retain(|client| client.session != session);
                self.tell(Input::Gone(session))?;
                self.acts.push(Act::EndClient(session));
            } else if self.has_lines(session) {
                self.ready.push(session);
            }
        }
        self.touched = touched;
        Ok(())
    }

    fn has_lines(&mut self, session: SessionId) -> bool {
        let wants = self.node.wants_line(session);
        self.client(session).is_some_and(|client| {
            let long = client.input.len() >= LINE_BYTES_MAX;
            let more = long || client.input.contains(&b'\n') || client.input_closed;
            wants && more && !client.ended
        })
    }
}

/// What the fake hasher makes of a job.
pub(crate) fn hash(job: &Job) -> Hashed {
    let made = format!("h:{}", job.password);
    match &job.against {
        None => Hashed::Made(made),
        Some(against) => Hashed::Checked(*against == made),
    }
}
