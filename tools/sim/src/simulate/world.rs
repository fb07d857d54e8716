//! The loop: what happens next, in the order of virtual time, and what follows from it.

use super::checks::{Checks, said_too_early};
use super::clients::{Crowd, Hands};
use super::clock::{Schedule, What};
use super::faults::{Fault, Kind, Moments};
use super::machine::{Busy, Server};
use super::network::{CLIENTS, Due, Message, Network, Owner, Place, TWIN};
use super::process::{Act, Incoming, Process, Settings};
use super::scenario::Probe;
use super::story;
use super::twin::Twin;
use super::wall::Times;
use postern::ids::{LinkId, ServerId, SessionId};
use postern::replica::{Config, Packet, RoleView, Rule};
use postern::rng::Rng;
use postern::time::WallTime;

/// Turns of one process at one moment; more of them is a process that spins.
const TURNS_MAX: u32 = 10_000;

/// A group, its machines, its clients and what goes wrong.
pub(super) struct World {
    pub(super) now: u64,
    pub(super) schedule: Schedule,
    pub(super) net: Network,
    /// The three servers, and at [`TWIN`] a second process with the id of one of them.
    pub(super) servers: [Server; 4],
    pub(super) twin: Option<Twin>,
    pub(super) crowd: Crowd,
    /// The clients of a scenario.
    pub(super) probes: Vec<Probe>,
    pub(super) checks: Checks,
    pub(super) times: Times,
    pub(super) settings: Settings,
    pub(super) plan: Vec<Fault>,
    /// Faults that have begun and are not over, by their places in the plan.
    pub(super) active: Vec<u32>,
    /// Faults that wait for their moment.
    pub(super) lurking: Vec<u32>,
    pub(super) struck: Vec<u32>,
    /// No fault begins any more.
    pub(super) calm: bool,
    /// No fault begins before this.
    pub(super) quiet_until: u64,
    /// How often each kind of fault took effect.
    pub(super) took: [u64; Kind::ALL.len()],
    pub(super) destroyed: bool,
    /// The third of two whose disks were damaged: a person may have to go on with it.
    pub(super) left_alone: Option<usize>,
    /// Who went on alone beside a group that lives.
    pub(super) straggler: Option<usize>,
    pub(super) rng: Rng,
    pub(super) finding: Option<String>,
    pub(super) hash: u64,
    pub(super) events: u64,
    /// Packets take the way through their bytes.
    encodes: bool,
    scratch: Vec<u8>,
    /// A primary's `peer_state` said `penalty`.
    pub(super) penalty: bool,
    /// Faults of the plan that are left out, by their places.
    pub(super) left_out: Vec<usize>,
    /// How often each rule decided, in processes that have ended.
    pub(super) decisions: [u64; Rule::ALL.len()],
    /// Counts the links of operators.
    pub(super) orders: u64,
    /// Whose disk lies about its syncs.
    pub(super) liar: Option<usize>,
}

impl World {
    pub(super) fn new(seed: u64, settings: Settings, plan: Vec<Fault>) -> World {
        let mut world = World::empty(seed, settings);
        world.crowd = Crowd::new(Rng::new(world.rng.next_u64()), &mut world.schedule);
        for server in 0..3 {
            world.schedule.add(world.rng.below(1_000_000), What::Start { server });
        }
        for (at, fault) in plan.iter().enumerate() {
            world.schedule.add(fault.at, What::Fault { at: at as u32 });
        }
        world.plan = plan;
        world
    }

    /// Three machines on which nothing runs, and nobody else.
    pub(super) fn empty(seed: u64, settings: Settings) -> World {
        let mut rng = Rng::new(seed);
        let net = Network::new(Rng::new(rng.next_u64()));
        let sync_us = 100 * 50u64.pow(rng.below(2) as u32) + rng.below(3_000);
        World {
            now: 0,
            schedule: Schedule::default(),
            net,
            servers: [0, 1, 2, TWIN].map(|_| Server::new(sync_us)),
            twin: None,
            crowd: Crowd::nobody(Rng::new(rng.next_u64())),
            probes: Vec::new(),
            checks: Checks::default(),
            times: Times::default(),
            settings,
            plan: Vec::new(),
            active: Vec::new(),
            lurking: Vec::new(),
            struck: Vec::new(),
            calm: false,
            quiet_until: 0,
            straggler: None,
            took: [0; Kind::ALL.len()],
            destroyed: false,
            left_alone: None,
            encodes: rng.below(4) == 0,
            rng,
            finding: None,
            hash: 0,
            events: 0,
            scratch: Vec::new(),
            penalty: false,
            left_out: Vec::new(),
            decisions: [0; Rule::ALL.len()],
            orders: 0,
            liar: None,
        }
    }

    pub(super) fn fail(&mut self, why: String) {
        story::tell(|| format!("FOUND {why}"));
        self.finding.get_or_insert(why);
    }

    pub(super) fn note(&mut self, result: Result<(), String>) {
        if let Err(why) = result {
            self.fail(why);
        }
    }

    /// What the wall clock of a process shows.
    pub(super) fn read_wall(&self, n: usize) -> WallTime {
        self.servers[self.place_of(n)].wall.read(self.now)
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    /// Runs until `end`, or until something is found.
    pub(super) fn run_to(&mut self, end: u64) {
        while self.finding.is_none() && self.step(end) {}
        self.now = self.now.max(end);
    }

    /// The next thing that happens, unless it is behind `end`.
    pub(super) fn step(&mut self, end: u64) -> bool {
        let scheduled = self.schedule.next_at().unwrap_or(u64::MAX);
        let wakes = self.servers.iter().map(|server| server.wake_at).enumerate();
        let (who, wake) = wakes.min_by_key(|(_, at)| *at).expect("there are servers");
        let next = scheduled.min(wake);
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        self.events += 1;
        self.mix(self.now);
        if wake < scheduled {
            self.mix(who as u64);
            self.servers[who].wake_at = u64::MAX;
            self.run(who);
        } else if let Some((_, what)) = self.schedule.pop() {
            self.happens(what);
        }
        true
    }

    fn happens(&mut self, what: What) {
        match what {
            What::Network(Due::Arrival(from)) => self.arrives(from),
            What::Network(Due::GiveUp(place)) => self.gives_up(place),
            What::Dial { from, life, to } => self.dialled(from, life, to),
            What::DialFailed { from, life, to, refused } => {
                self.dial_failed(from, life, to, refused);
            }
            What::Synced { server, life } => {
                let server = usize::from(server);
                if self.servers[server].life == life {
                    self.synced(server);
                }
            }
            What::Hashed { server, life } => self.hashed(usize::from(server), life),
            What::Start { server } => self.start(usize::from(server)),
            What::Resume { server, serial } => self.resume(usize::from(server), serial),
            What::Client { client, serial } => {
                let (crowd, mut hands) = self.crowd();
                crowd.ring(client, serial, &mut hands);
            }
            What::Fault { at } => self.fault_begins(at),
            What::Heal { at } => self.fault_ends(at),
            What::Part { server } => self.part_with(usize::from(server)),
            What::MoveAway { server } => self.move_strays_away(usize::from(server)),
        }
    }

    pub(super) fn crowd(&mut self) -> (&mut Crowd, Hands<'_>) {
        let (now, net, schedule) = (self.now, &mut self.net, &mut self.schedule);
        (&mut self.crowd, Hands { now, net, schedule })
    }

    fn dialled(&mut self, from: u8, life: u32, to: u8) {
        let misdials = self.servers.get(usize::from(from)).and_then(|server| server.misdials);
        let reaches = misdials.filter(|(wanted, _)| *wanted == to).map(|(_, reaches)| reaches);
        let (wanted, host) = (to, reaches.unwrap_or(to));
        let goal = &self.servers[usize::from(host)];
        let (powered, up) = (goal.powered, goal.process.is_some() && goal.refuses == 0);
        let owner = Owner { host, life: goal.life };
        let back = self.net.delay(host, from);
        if !powered || !self.net.takes_dials(from, host) {
            let patience = u64::from(self.settings.peer_timeout_ms) * 500;
            let what = What::DialFailed { from, life, to, refused: false };
            return self.schedule.add(self.now + patience, what);
        }
        if !up {
            let what = What::DialFailed { from, life, to, refused: true };
            return self.schedule.add(self.now + back, what);
        }
        let place = self.net.open(Owner { host: from, life }, owner);
        if let Some(end) = self.net.end(place) {
            end.wanted = reaches.map(|_| wanted);
        }
        let dialled = Place { side: 1, ..place };
        self.net.send(dialled, Message::Taken, self.now, &mut self.schedule);
    }

    fn dial_failed(&mut self, from: u8, life: u32, to: u8, refused: bool) {
        if usize::from(from) == CLIENTS {
            let (crowd, mut hands) = self.crowd();
            return crowd.refused(life, &mut hands);
        }
        if self.servers[usize::from(from)].life == life {
            let to = id(usize::from(to));
            self.deliver(usize::from(from), Incoming::DialFailed(to, refused));
        }
    }

    fn gives_up(&mut self, place: Place) {
        if !self.net.gives_up(place, self.now) {
            return;
        }
        let Some(end) = self.net.end(place).filter(|end| end.open) else { return };
        let owner = end.owner;
        self.ends(place, owner);
    }

    /// An end is told that its connection is broken.
    fn ends(&mut self, place: Place, owner: Owner) {
        let of_client = self.is_of_client(place);
        let Some(end) = self.net.end(place) else { return };
        let known = end.known;
        end.open = false;
        if usize::from(owner.host) == CLIENTS {
            let (crowd, mut hands) = self.crowd();
            return crowd.receive(owner.life, place, Message::Reset, &mut hands);
        }
        if known && self.servers[usize::from(owner.host)].life == owner.life {
            let number = place.number();
            let incoming = if of_client {
                Incoming::ClientBroken(SessionId(number))
            } else {
                Incoming::Ended(LinkId(number))
            };
            self.deliver(usize::from(owner.host), incoming);
        }
    }

    fn is_of_client(&mut self, place: Place) -> bool {
        let dialler = self.net.end(Place { side: 0, ..place });
        dialler.is_some_and(|end| usize::from(end.owner.host) == CLIENTS)
    }

    fn arrives(&mut self, from: Place) {
        let Some((to, message)) = self.net.arrive(from) else { return };
        let Some(end) = self.net.end(to) else { return };
        let (owner, open) = (end.owner, end.open);
        let host = usize::from(owner.host);
        if host == CLIENTS && open {
            let (crowd, mut hands) = self.crowd();
            crowd.receive(owner.life, to, message, &mut hands);
        } else if host != CLIENTS && !self.servers[host].powered {
            return self.net.hold(from, message, self.now, &mut self.schedule);
        } else if !open || self.servers[host].life != owner.life {
            if !matches!(message, Message::Fin | Message::Reset) {
                self.net.send(to, Message::Reset, self.now, &mut self.schedule);
            }
        } else {
            self.arrives_at_server(host, owner, to, message);
        }
        self.net.sweep(to);
    }

    fn arrives_at_server(&mut self, host: usize, owner: Owner, to: Place, message: Message) {
        let (link, session) = (LinkId(to.number()), SessionId(to.number()));
        let of_client = self.is_of_client(to);
        let goal = self.net.end(Place { side: 1, ..to }).map_or(0, |end| end.owner.host);
        let Some(end) = self.net.end(to) else { return };
        let known = std::mem::replace(&mut end.known, true);
        let incoming = match message {
            Message::Taken => {
                let wanted = end.wanted.unwrap_or(goal);
                Incoming::Dialled(link, id(usize::from(wanted)))
            }
            Message::Begin => Incoming::Accepted(link),
            Message::Packet(packet, records) => Incoming::Packet(link, packet, records),
            Message::Bytes(bytes) => {
                if !known {
                    self.servers[host].inbox.push(Incoming::ClientOpened(session));
                }
                Incoming::ClientBytes(session, bytes)
            }
            Message::Fin if known && of_client => Incoming::ClientEnded(session),
            Message::Fin | Message::Reset => {
                end.known = known;
                let fin = matches!(message, Message::Fin);
                self.ends(to, owner);
                if fin {
                    self.net.send(to, Message::Fin, self.now, &mut self.schedule);
                }
                return;
            }
        };
        self.deliver(host, incoming);
    }

    pub(super) fn deliver(&mut self, server: usize, incoming: Incoming) {
        self.times.arrives(server, &incoming);
        self.servers[server].inbox.push(incoming);
        self.run(server);
    }

    /// Turns of a process, as long as it has something to do now.
    pub(super) fn run(&mut self, n: usize) {
        loop {
            let wall = self.read_wall(n);
            let server = &mut self.servers[n];
            server.wake_at = u64::MAX;
            if server.busy != Busy::No || server.paused || self.finding.is_some() {
                return;
            }
            let Some(process) = &mut server.process else { return server.inbox.clear() };
            story::at(self.now, n as u8 + 1);
            let now = server.clock.read(self.now);
            let config_before = led_config(process);
            let configs = process.mirror().configs();
            let syncs = server.disk.syncs();
            let result = process.turn(now, wall, &mut server.inbox);
            let appended = process.mirror().configs() > configs;
            let syncs = server.disk.syncs() - syncs;
            self.carry(n);
            let stores = match result {
                Ok(stores) => stores,
                Err(fail) => return self.dies(n, &fail),
            };
            self.observe(n, config_before);
            if appended {
                self.moment(n, Moments::ConfigAppended);
            }
            if self.servers[n].process.is_none() || self.leaves(n) || self.stops(n) {
                return;
            }
            if stores || syncs > 0 {
                return self.begin_sync(n, stores, syncs);
            }
            if !self.goes_on(n) {
                return;
            }
        }
    }

    /// Whether a process has another turn to do now; else it sleeps.
    fn goes_on(&mut self, n: usize) -> bool {
        let now = self.now;
        let server = &mut self.servers[n];
        let Some(process) = &server.process else { return false };
        let next = process.next_turn().map_or(u64::MAX, |at| server.clock.when(at));
        if next > now && server.inbox.is_empty() {
            server.wake_at = next;
            return false;
        }
        let (at, count) = &mut server.turns;
        (*at, *count) = if *at == now { (now, *count + 1) } else { (now, 0) };
        if *count > TURNS_MAX {
            self.fail(format!("server {} spins: it never sleeps", n + 1));
        }
        true
    }

    fn begin_sync(&mut self, n: usize, stores: bool, before: u64) {
        let server = &mut self.servers[n];
        server.busy = if stores { Busy::Storing } else { Busy::Syncing };
        let each = server.sync_us / 2 + self.rng.below(server.sync_us + 1) + server.slow_sync_us;
        let what = What::Synced { server: n as u8, life: server.life };
        self.schedule.add(self.now + each * (before + u64::from(stores)), what);
    }

    pub(super) fn synced(&mut self, n: usize) {
        let server = &mut self.servers[n];
        if server.paused {
            server.sync_over = true;
            return;
        }
        let busy = std::mem::replace(&mut server.busy, Busy::No);
        if busy == Busy::Storing {
            story::at(self.now, n as u8 + 1);
            let wall = self.read_wall(n);
            let server = &mut self.servers[n];
            let Some(process) = &mut server.process else { return };
            let now = server.clock.read(self.now);
            let config_before = led_config(process);
            let result = process.store_all(now, wall);
            self.carry(n);
            if let Err(fail) = result {
                return self.dies(n, &fail);
            }
            let Some(process) = &self.servers[n].process else { return };
            let (disk, vote) = (process.store().identity().disk, process.vote());
            if !self.is_copy(n) {
                let noted = self.checks.stored_vote(disk, vote);
                self.note(noted);
            }
            self.observe(n, config_before);
            if self.leaves(n) || self.stops(n) {
                return;
            }
        }
        if self.goes_on(n) {
            self.run(n);
        }
    }

    fn observe(&mut self, n: usize, config_before: Option<Config>) {
        if self.is_copy(n) {
            return self.observe_copy();
        }
        self.note_named(n);
        let disks = [0, 1, 2, TWIN].map(|n| (self.servers[n].disk_id, &self.servers[n].disk));
        let Some(process) = &self.servers[n].process else { return };
        let replica = process.node().replica();
        let looked = self.checks.observe(n, replica, process.mirror(), config_before, disks);
        if self.calm && replica.role() == RoleView::Primary {
            let now = self.servers[n].clock.read(self.now);
            self.penalty |= ServerId::all(3).any(|id| replica.peer_state(id, now) == "penalty");
        }
        for disk in self.checks.added.drain(..) {
            self.servers.iter_mut().for_each(|server| server.note_added(disk));
        }
        self.note(looked);
        self.check_times(n);
    }

    /// Carries out what a process did to the outside.
    fn carry(&mut self, n: usize) {
        let Some(process) = &mut self.servers[n].process else { return };
        let mut acts = std::mem::take(&mut process.edges().acts);
        let life = self.servers[n].life;
        for act in acts.drain(..) {
            match act {
                Act::Send(link, packet, records) => self.send(n, link, packet, records),
                Act::Dial(to) => {
                    let (from, to) = (n as u8, to.slot() as u8);
                    let delay = self.net.delay(from, to);
                    self.schedule.add(self.now + delay, What::Dial { from, life, to });
                }
                Act::EndLink(link) => self.finish(Place::of_link(link)),
                Act::Say(session, bytes) => {
                    let probe = self.probes.iter_mut().find(|probe| probe.session == session);
                    if let Some(probe) = probe {
                        probe.read.extend_from_slice(&bytes);
                        continue;
                    }
                    let place = Place::of_session(session);
                    self.net.send(place, Message::Bytes(bytes), self.now, &mut self.schedule);
                }
                Act::EndClient(session) => self.finish(Place::of_session(session)),
            }
        }
        let hashes = self.servers[n].process.as_mut().map_or(0, |process| {
            process.edges().acts = acts;
            process.edges().jobs.len()
        });
        if hashes > 0 && !self.servers[n].hashing() {
            self.hash_next(n);
        }
    }

    pub(super) fn finish(&mut self, place: Place) {
        if self.net.end(place).is_some_and(|end| end.open) {
            self.net.send(place, Message::Fin, self.now, &mut self.schedule);
            self.net.let_go(place);
        }
    }

    fn send(&mut self, n: usize, link: LinkId, mut packet: Packet, records: Vec<u8>) {
        let place = Place::of_link(link);
        if !self.net.end(place).is_some_and(|end| end.open) {
            return;
        }
        let process = self.servers[n].process.as_ref();
        let early = process.and_then(|process| said_too_early(process, &packet));
        if let Some(what) = early {
            return self.fail(format!("server {} {what} before that is on its disk", n + 1));
        }
        let Some(end) = self.net.end(place) else { return };
        let begins = place.side == 0 && !std::mem::replace(&mut end.begun, true);
        if begins {
            self.net.send(place, Message::Begin, self.now, &mut self.schedule);
        }
        self.note_ping(n, place, &mut packet);
        let whole = if self.encodes { self.encode(packet, &records) } else { (packet, records) };
        let (packet, records) = whole;
        let moment = match packet {
            Packet::Vote { granted: true, .. } => Some(Moments::VoteSent),
            Packet::Append(append) if !records.is_empty() && append.prev.term != append.term => {
                Some(Moments::FirstOfTermSent)
            }
            Packet::AppendAccepted { .. } => Some(Moments::Acknowledged),
            _ => None,
        };
        self.net.send(place, Message::Packet(packet, records), self.now, &mut self.schedule);
        if let Some(moment) = moment {
            self.moment(n, moment);
        }
    }

    fn encode(&mut self, packet: Packet, records: &[u8]) -> (Packet, Vec<u8>) {
        self.scratch.clear();
        packet.encode(&mut self.scratch);
        self.scratch.extend_from_slice(records);
        let (decoded, rest) = Packet::decode(&self.scratch).expect("a packet reads what it wrote");
        assert_eq!(decoded, packet, "a packet is what it was before its bytes");
        (decoded, rest.to_vec())
    }
}

pub(super) fn id(server: usize) -> ServerId {
    ServerId::new(server as u8 + 1).expect("there are three")
}

/// The config of a process that leads.
fn led_config(process: &Process) -> Option<Config> {
    let replica = process.node().replica();
    let leads = replica.role() == RoleView::Primary;
    replica.config().copied().filter(|_| leads)
}
