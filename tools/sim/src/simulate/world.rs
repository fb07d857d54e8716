//! The loop: what happens next, in the order of virtual time, and what follows from it.

use super::checks::{Checks, said_too_early};
use super::clients::{Crowd, Hands};
use super::clock::{Schedule, What};
use super::faults::{Fault, Kind, Moments};
use super::kernel::{Act, SimKernel, Wire};
use super::link_end::LinkEnd;
use super::machine::{Busy, Server};
use super::network::{CLIENTS, Due, Message, Network, Owner, Place, TWIN};
use super::process::{Incoming, Process, Settings};
use super::scenario::Probe;
use super::story;
use super::twin::Twin;
use super::wall::Times;
use postern::ids::ServerId;
use postern::replica::{Config, Order, Packet, RoleView, Rule};
use postern::rng::Rng;
use postern::time::WallTime;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr};

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
    /// A primary's `peer_state` said `penalty`.
    pub(super) penalty: bool,
    /// Faults of the plan that are left out, by their places.
    pub(super) left_out: Vec<usize>,
    /// How often each rule decided, in processes that have ended.
    pub(super) decisions: [u64; Rule::ALL.len()],
    /// Counts the links of operators.
    pub(super) orders: u64,
    /// The operator who waits for a server: its connection, and its order.
    pub(super) operator: Option<(Wire, LinkEnd, Order)>,
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
            rng,
            finding: None,
            hash: 0,
            events: 0,
            penalty: false,
            left_out: Vec::new(),
            decisions: [0; Rule::ALL.len()],
            orders: 0,
            operator: None,
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
            What::Dial { from, life, ticket, to } => {
                self.dialled(Owner { host: from, life }, ticket, to);
            }
            What::DialRefused { from, life, ticket } => {
                self.dial_refused(Owner { host: from, life }, ticket);
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

    fn dialled(&mut self, dialler: Owner, ticket: u32, to: u8) {
        let from = dialler.host;
        let misdials = self.servers.get(usize::from(from)).and_then(|server| server.misdials);
        let host = misdials.filter(|(wanted, _)| *wanted == to).map_or(to, |(_, reaches)| reaches);
        let goal = &self.servers[usize::from(host)];
        if !goal.powered || !self.net.takes_dials(from, host) {
            // The dialler hears nothing, and gives up in its own time.
            return;
        }
        if goal.process.is_none() || goal.refuses > 0 {
            let at = self.now + self.net.delay(host, from);
            let what = What::DialRefused { from, life: dialler.life, ticket };
            return self.schedule.add(at, what);
        }
        let place = self.net.open(dialler, Owner { host, life: goal.life });
        if let Some(end) = self.net.end(place) {
            end.ticket = ticket;
        }
        self.net.send(place.other(), Message::Taken, self.now, &mut self.schedule);
    }

    fn dial_refused(&mut self, dialler: Owner, ticket: u32) {
        let host = usize::from(dialler.host);
        if host == CLIENTS {
            let (crowd, mut hands) = self.crowd();
            return crowd.refused(dialler.life, &mut hands);
        }
        if self.servers[host].life == dialler.life {
            self.deliver(host, Incoming::DialFailed(ticket, ErrorKind::ConnectionRefused));
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
        let Some(end) = self.net.end(place) else { return };
        end.open = false;
        let known = end.known;
        let host = usize::from(owner.host);
        if host == CLIENTS {
            let (crowd, mut hands) = self.crowd();
            return crowd.receive(owner.life, place, Message::Reset, &mut hands);
        }
        if known && self.servers[host].life == owner.life {
            self.deliver(host, Incoming::Reset(place.wire()));
        }
    }

    fn arrives(&mut self, from: Place) {
        let Some((to, message)) = self.net.arrive(from) else { return };
        let Some(end) = self.net.end(to) else { return };
        let (owner, open) = (end.owner, end.open);
        let host = usize::from(owner.host);
        if matches!(message, Message::Taken) && open {
            // Else the dialler is gone, and answers with a reset.
            self.net.send(to, Message::Opened, self.now, &mut self.schedule);
        }
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
        let wire = to.wire();
        let dialler = self.net.end(to.other()).map(|end| end.owner);
        let Some(end) = self.net.end(to) else { return };
        let incoming = match message {
            Message::Taken => {
                end.known = true;
                Incoming::Dialled(end.ticket, wire)
            }
            Message::Opened => {
                end.known = true;
                let from = match dialler {
                    Some(owner) if usize::from(owner.host) != CLIENTS => {
                        SimKernel::address(owner.host)
                    }
                    _ => address_of(wire),
                };
                Incoming::Opened(wire, from)
            }
            Message::Bytes(bytes) => Incoming::Bytes(wire, bytes),
            Message::Fin => Incoming::Finished(wire),
            Message::Reset => return self.ends(to, owner),
        };
        self.deliver(host, incoming);
    }

    pub(super) fn deliver(&mut self, server: usize, incoming: Incoming) {
        self.servers[server].inbox.push(incoming);
        self.run(server);
    }

    /// Turns of a process, as long as it has something to do now.
    pub(super) fn run(&mut self, n: usize) {
        loop {
            let wall = self.read_wall(n);
            let echo = self.times.echoed.then(|| [0, 1, 2].map(|host| self.read_wall(host)));
            let server = &mut self.servers[n];
            server.wake_at = u64::MAX;
            if server.busy != Busy::No || server.paused || self.finding.is_some() {
                return;
            }
            let Some(process) = &mut server.process else { return server.inbox.clear() };
            story::at(self.now, n as u8 + 1);
            let now = server.clock.read(self.now);
            process.kernel().echoed = echo;
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
    pub(super) fn carry(&mut self, n: usize) {
        let Some(process) = &mut self.servers[n].process else { return };
        let sent = std::mem::take(&mut process.kernel().sent);
        let acts = process.kernel().take_acts();
        let hashes = process.kernel().jobs.len();
        for act in acts {
            match act {
                Act::Send(wire, bytes) => self.send(n, wire, bytes),
                Act::Dial { ticket, to } => {
                    let (from, life, to) = (n as u8, self.servers[n].life, to.slot() as u8);
                    let delay = self.net.delay(from, to);
                    self.schedule.add(self.now + delay, What::Dial { from, life, ticket, to });
                }
                Act::Finish(wire) => self.send_fin(Place::of(wire)),
                Act::Close(wire) => self.finish(Place::of(wire)),
            }
        }
        for frame in sent {
            self.note_sent(n, Place::of(frame.wire), &frame.packet, frame.has_records);
        }
        if hashes > 0 && !self.servers[n].hashing() {
            self.hash_next(n);
        }
    }

    /// An end sends no more.
    fn send_fin(&mut self, place: Place) {
        let Some(end) = self.net.end(place).filter(|end| end.open) else { return };
        if !std::mem::replace(&mut end.finished, true) {
            self.net.send(place, Message::Fin, self.now, &mut self.schedule);
        }
    }

    /// An end is closed.
    pub(super) fn finish(&mut self, place: Place) {
        self.send_fin(place);
        self.net.let_go(place);
    }

    fn send(&mut self, n: usize, wire: Wire, bytes: Vec<u8>) {
        let probe = self.probes.iter_mut().find(|probe| probe.session == wire);
        if let Some(probe) = probe {
            return probe.read.extend_from_slice(&bytes);
        }
        if self.operator.as_ref().is_some_and(|(own, ..)| *own == wire) {
            return self.on_operator_bytes(n, wire, &bytes);
        }
        let place = Place::of(wire);
        if self.net.end(place).is_some_and(|end| end.open) {
            self.net.send(place, Message::Bytes(bytes), self.now, &mut self.schedule);
        }
    }

    /// Checks a packet that a server has sent to another one, and notes what may be a moment for
    /// a fault.
    fn note_sent(&mut self, n: usize, place: Place, packet: &Packet, has_records: bool) {
        let process = self.servers[n].process.as_ref();
        let early = process.and_then(|process| said_too_early(process, packet));
        if let Some(what) = early {
            return self.fail(format!("server {} {what} before that is on its disk", n + 1));
        }
        let moment = match packet {
            Packet::Ping { sent, .. } => return self.note_ping(n, place, *sent),
            Packet::Vote { granted: true, .. } => Moments::VoteSent,
            Packet::Append(append) if has_records && append.prev.term != append.term => {
                Moments::FirstOfTermSent
            }
            Packet::AppendAccepted { .. } => Moments::Acknowledged,
            _ => return,
        };
        self.moment(n, moment);
    }
}

/// The address of a client, who has one alone: guesses of passwords are bounded by address.
pub(crate) fn address_of(wire: Wire) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(wire.0) << 64).into()
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
