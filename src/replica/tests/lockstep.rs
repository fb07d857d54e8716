//! A group of servers in lockstep: it delivers everything at once and in order, and makes every
//! write durable at once. Server 1 becomes primary.

pub(super) use super::server::*;
use std::collections::{BTreeMap, VecDeque};

/// An event that waits for its server.
enum Input {
    Dialled(LinkId),
    Accepted(LinkId),
    Refused(u8),
    Ended(LinkId),
    Packet(LinkId, Packet, Vec<u8>),
}

/// Servers that are linked with each other.
pub(super) struct Group {
    pub(super) now: Moment,
    /// The servers that run.
    pub(super) servers: BTreeMap<u8, Server>,
    inputs: VecDeque<(u8, Input)>,
    links: u64,
}

/// Returns a group of three with an open gate. Its primary is server 1.
pub(super) fn formed() -> Group {
    form(|_| ())
}

/// Like [`formed`], with a changed setup of every server, such as other settings.
pub(super) fn form(change: impl Fn(&mut Setup)) -> Group {
    let now = START;
    let start = |n: u8| {
        let mut setup = setup(n, Vote::default(), &[]);
        change(&mut setup);
        (n, Server::start(now, setup, Vec::new()))
    };
    let servers = (1..=3).map(start).collect();
    let mut group = Group { now, servers, inputs: VecDeque::new(), links: 0 };
    group.run(ms(500));
    assert!(group.servers.values().all(|server| server.replica.gate_open()));
    assert_eq!(group.servers[&1].replica.role(), RoleView::Primary);
    group
}

impl Group {
    /// Returns a copy of server `n`, for a test to drive alone.
    pub(super) fn take(&self, n: u8) -> Server {
        let mut server = self.servers[&n].clone();
        server.now = self.now;
        server
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let next = self.servers.values().filter_map(|server| server.replica.next_deadline());
            let Some(next) = next.min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
        }
        self.now = end;
    }

    /// Kills a server: its links end, and its address refuses connections.
    pub(super) fn kill(&mut self, n: u8) -> Server {
        let dead = self.servers.remove(&n).expect("it runs");
        for server in self.servers.values().filter(|server| server.is_linked(n)) {
            self.inputs.push_back((server.n, Input::Ended(server.link(n))));
        }
        self.settle();
        dead
    }

    /// Handles events, ticks and writes until none is due.
    pub(super) fn settle(&mut self) {
        loop {
            if let Some((to, input)) = self.inputs.pop_front() {
                self.deliver(to, &input);
                continue;
            }
            let due = |server: &&mut Server| {
                server.is_writing || server.replica.next_deadline() <= Some(self.now)
            };
            let Some(server) = self.servers.values_mut().find(due) else { return };
            server.now = self.now;
            let out = if server.is_writing { server.durable() } else { server.tick() };
            let n = server.n;
            self.perform(n, &out);
        }
    }

    fn deliver(&mut self, to: u8, input: &Input) {
        let Some(server) = self.servers.get_mut(&to) else { return };
        server.now = self.now;
        let mut out = Effects::default();
        let event = match input {
            Input::Dialled(link) => Event::Dialled { link: *link, to: id(peer(*link)) },
            Input::Accepted(link) => Event::Accepted { link: *link },
            Input::Refused(n) => Event::DialFailed { to: id(*n), why: DialFailure::Refused },
            Input::Ended(link) => Event::Ended { link: *link },
            Input::Packet(link, packet, records) => {
                Event::Received { link: *link, packet: *packet, records }
            }
        };
        server.handle(event, &mut out);
        self.perform(to, &out);
    }

    fn perform(&mut self, n: u8, out: &Effects) {
        for effect in &out.0.effects {
            match effect {
                Effect::Send(link, packet) => self.send(n, *link, *packet, Vec::new()),
                Effect::SendWith(link, sent) => self.send(n, *link, sent.0, sent.1.clone()),
                Effect::SendEntries { link, append, first, last } => {
                    let log = &self.servers[&n].log.0;
                    let records = log[first.before().0 as usize..last.0 as usize].concat();
                    self.send(n, *link, Packet::Append(*append), records);
                }
                Effect::Dial(to) => self.dial(n, to.number()),
                Effect::Close(link, _) => {
                    self.inputs.push_back((peer(*link), Input::Ended(other_end(n, *link))));
                }
                Effect::Quarantine(..) => panic!("server {n} requests a quarantine"),
                Effect::Append(_) | Effect::Cut(_) | Effect::Flush | Effect::Persist(_) => {}
                Effect::RecordIncarnation(_) => {}
            }
        }
    }

    fn send(&mut self, from: u8, link: LinkId, packet: Packet, records: Vec<u8>) {
        let packet = Input::Packet(other_end(from, link), packet, records);
        self.inputs.push_back((peer(link), packet));
    }

    fn dial(&mut self, from: u8, to: u8) {
        if !self.servers.contains_key(&to) {
            return self.inputs.push_back((from, Input::Refused(to)));
        }
        self.links += 1;
        let link = LinkId(self.links * 10 + u64::from(to));
        self.inputs.push_back((from, Input::Dialled(link)));
        self.inputs.push_back((to, Input::Accepted(other_end(from, link))));
    }
}

/// Returns the number that a link of server `n` has at its other end.
fn other_end(n: u8, link: LinkId) -> LinkId {
    LinkId(link.0 - u64::from(peer(link)) + u64::from(n))
}
