//! The event loop of a simulation: advances virtual time, dispatches events, runs the processes
//! and carries out their outputs.

use super::checks::{Checks, Observation, premature_claim};
use super::clients::{ClientIo, Clients};
use super::clock::{Event, Schedule};
use super::faults::{Fault, Faults, Trigger};
use super::kernel::{ConnId, Output, SimKernel};
use super::machine::{Busy, Server};
use super::network::{CLIENTS, Due, EndId, Message, Network, Owner, TWIN};
use super::operator::Operator;
use super::process::{Incoming, Process, Settings};
use super::scenario::ScenarioClient;
use super::trace;
use super::trial::Outcome;
use super::twin::Twin;
use postern::ids::ServerId;
use postern::replica::{Config, Packet, RoleView};
use postern::rng::Rng;
use postern::time::WallTime;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr};

/// The most turns of one process without an advance of virtual time. More turns are a busy loop.
const TURNS_MAX: u32 = 10_000;

/// A group of servers, its machines, its clients and its faults.
pub(super) struct World {
    /// Virtual time in µs.
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) settings: Settings,
    pub(super) schedule: Schedule,
    pub(super) net: Network,
    /// The three servers, and at [`TWIN`] a second process with the id of one of them.
    pub(super) servers: [Server; 4],
    pub(super) twin: Option<Twin>,
    pub(super) clients: Clients,
    pub(super) scenario_clients: Vec<ScenarioClient>,
    pub(super) operator: Operator,
    pub(super) faults: Faults,
    pub(super) checks: Checks,
    pub(super) results: Outcome,
}

impl World {
    pub(super) fn new(seed: u64, settings: Settings, plan: Vec<Fault>) -> World {
        let mut world = World::empty(seed, settings);
        world.clients = Clients::new(Rng::new(world.rng.next_u64()), &mut world.schedule);
        if settings.retention.keep_time.is_some() || settings.retention.keep_messages.is_some() {
            // So long that the space of forgotten ones is worth freeing.
            world.clients.lengthen(200);
        }
        for server in 0..3 {
            world.schedule.add(world.rng.below(1_000_000), Event::Start(server));
        }
        world.faults.schedule(plan, &mut world.schedule);
        world
    }

    /// Three machines without processes, and no clients.
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
            clients: Clients::none(Rng::new(rng.next_u64())),
            scenario_clients: Vec::new(),
            operator: Operator::default(),
            faults: Faults::default(),
            checks: Checks::default(),
            results: Outcome::default(),
            settings,
            rng,
        }
    }

    /// Records a finding; the first one counts.
    pub(super) fn fail(&mut self, why: String) {
        trace::line(|| format!("FOUND {why}"));
        self.results.finding.get_or_insert(why);
    }

    /// Records the error of a check as a finding.
    pub(super) fn note(&mut self, result: Result<(), String>) {
        if let Err(why) = result {
            self.fail(why);
        }
    }

    pub(super) fn found_something(&self) -> bool {
        self.results.finding.is_some()
    }

    /// Reads the wall clock of a process.
    pub(super) fn read_wall(&self, n: usize) -> WallTime {
        self.servers[self.place_of(n)].wall.read(self.now)
    }

    fn mix(&mut self, value: u64) {
        let hash = &mut self.results.hash;
        *hash = (*hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    /// Runs until `end`, or until the first finding.
    pub(super) fn run_to(&mut self, end: u64) {
        while !self.found_something() && self.step(end) {}
        self.now = self.now.max(end);
    }

    /// Handles the next event. Returns false if that is after `end`.
    pub(super) fn step(&mut self, end: u64) -> bool {
        let scheduled = self.schedule.next_at().unwrap_or(u64::MAX);
        let wakes = self.servers.iter().map(|server| server.wake_at).enumerate();
        let (n, wake) = wakes.min_by_key(|(_, at)| *at).expect("there are servers");
        let next = scheduled.min(wake);
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        self.results.counts.events += 1;
        self.mix(self.now);
        if wake < scheduled {
            self.mix(n as u64);
            self.servers[n].wake_at = u64::MAX;
            self.run(n);
        } else if let Some(event) = self.schedule.pop() {
            self.handle(event);
        }
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Network(Due::Arrival(from)) => self.on_arrival(from),
            Event::Network(Due::Timeout(end)) => self.on_timeout(end),
            Event::Dial { from, ticket, to } => self.on_dial(from, ticket, to),
            Event::DialRefused { from, ticket } => self.on_dial_refused(from, ticket),
            Event::Synced(owner) if self.is_alive(owner) => self.on_synced(owner.host),
            Event::Hashed(owner) if self.is_alive(owner) => self.on_hashed(owner.host),
            Event::Made(owner) if self.is_alive(owner) => self.on_made(owner.host),
            Event::Synced(_) | Event::Hashed(_) | Event::Made(_) => {}
            Event::Start(n) => self.start(n),
            Event::Resume(n, pause) => self.resume(n, pause),
            Event::Client(client, timer) => {
                self.with_clients(|clients, io| clients.on_timer(client, timer, io));
            }
            Event::Fault(at) => self.begin_fault(at),
            Event::Heal(at) => self.end_fault(at),
            Event::BeginStraggler(n) => self.begin_straggler(n),
            Event::EndStraggler(n) => self.end_straggler(n),
        }
    }

    /// Whether the process that an event is meant for still runs.
    fn is_alive(&self, owner: Owner) -> bool {
        self.servers[owner.host].generation == owner.generation
    }

    pub(super) fn with_clients(&mut self, work: impl FnOnce(&mut Clients, &mut ClientIo<'_>)) {
        let (now, net, schedule) = (self.now, &mut self.net, &mut self.schedule);
        work(&mut self.clients, &mut ClientIo { now, net, schedule });
    }

    /// Sends a message from one end of a connection to the other.
    pub(super) fn send_message(&mut self, from: EndId, message: Message) {
        self.net.send(from, message, self.now, &mut self.schedule);
    }

    fn on_dial(&mut self, from: Owner, ticket: u32, to: usize) {
        let misdials = self.servers.get(from.host).and_then(|server| server.faults.misdials);
        let host = misdials.filter(|(wanted, _)| *wanted == to).map_or(to, |(_, reaches)| reaches);
        let target = &self.servers[host];
        if target.faults.power_off || !self.net.accepts_dials(from.host, host) {
            // No answer: the dialler has a timeout of its own.
            return;
        }
        if target.process.is_none() || target.faults.refuses > 0 {
            let at = self.now + self.net.delay(host, from.host);
            return self.schedule.add(at, Event::DialRefused { from, ticket });
        }
        let end_id = self.net.open(from, target.owner(host), ticket);
        self.send_message(end_id.other(), Message::Accepted);
    }

    fn on_dial_refused(&mut self, dialler: Owner, ticket: u32) {
        if dialler.host == CLIENTS {
            self.with_clients(|clients, io| clients.on_refused_dial(dialler.generation, io));
        } else if self.is_alive(dialler) {
            let why = ErrorKind::ConnectionRefused;
            self.deliver(dialler.host, Incoming::DialFailed(ticket, why));
        }
    }

    fn on_timeout(&mut self, end_id: EndId) {
        if !self.net.times_out(end_id, self.now) {
            return;
        }
        let Some(end) = self.net.end(end_id).filter(|end| end.open) else { return };
        let owner = end.owner;
        self.break_end(end_id, owner);
    }

    /// Reports to the owner of an end that its connection is broken.
    fn break_end(&mut self, end_id: EndId, owner: Owner) {
        let Some(end) = self.net.end(end_id) else { return };
        end.open = false;
        let notified = end.notified;
        if owner.host == CLIENTS {
            self.with_clients(|clients, io| {
                clients.receive(owner.generation, end_id, Message::Reset, io);
            });
        } else if notified && self.is_alive(owner) {
            self.deliver(owner.host, Incoming::Reset(end_id.conn()));
        }
    }

    fn on_arrival(&mut self, from: EndId) {
        let Some((to, message)) = self.net.arrive(from) else { return };
        let Some(end) = self.net.end(to) else { return };
        let (owner, open) = (end.owner, end.open);
        if matches!(message, Message::Accepted) && open {
            // If the dialler has closed its end, it answers with a reset.
            self.send_message(to, Message::Opened);
        }
        if owner.host == CLIENTS && open {
            self.with_clients(|clients, io| clients.receive(owner.generation, to, message, io));
        } else if owner.host != CLIENTS && self.servers[owner.host].faults.power_off {
            return self.net.hold_back(from, message, self.now, &mut self.schedule);
        } else if !open || !self.is_alive(owner) {
            if !matches!(message, Message::Fin | Message::Reset) {
                self.send_message(to, Message::Reset);
            }
        } else {
            self.arrive_at_server(owner, to, message);
        }
        self.net.free_if_unused(to);
    }

    fn arrive_at_server(&mut self, owner: Owner, to: EndId, message: Message) {
        let conn = to.conn();
        let dialler = self.net.end(to.other()).map(|end| end.owner.host);
        let Some(end) = self.net.end(to) else { return };
        end.notified |= matches!(message, Message::Accepted | Message::Opened);
        let incoming = match message {
            Message::Accepted => Incoming::Dialled(end.ticket, conn),
            Message::Opened => {
                let server = dialler.filter(|host| *host != CLIENTS);
                Incoming::Opened(conn, server.map_or(address_of(conn), SimKernel::address))
            }
            Message::Bytes(bytes) => Incoming::Bytes(conn, bytes),
            Message::Fin => Incoming::Finished(conn),
            Message::Reset => return self.break_end(to, owner),
        };
        self.deliver(owner.host, incoming);
    }

    pub(super) fn deliver(&mut self, server: usize, incoming: Incoming) {
        self.servers[server].inbox.push(incoming);
        self.run(server);
    }

    /// Runs turns of a process until it waits.
    pub(super) fn run(&mut self, n: usize) {
        loop {
            let wall = self.read_wall(n);
            let echoed = self.checks.times.echoed;
            let echoed = echoed.then(|| [0, 1, 2].map(|host| self.read_wall(host)));
            let server = &mut self.servers[n];
            server.wake_at = u64::MAX;
            let blocked = server.state.busy != Busy::No || server.state.paused;
            if blocked || self.results.finding.is_some() {
                return;
            }
            let Some(process) = &mut server.process else { return server.inbox.clear() };
            trace::stamp(self.now, n as u8 + 1);
            let now = server.clock.read(self.now);
            process.kernel().echoed = echoed;
            let config_before = led_config(process);
            let configs = process.log_copy().configs();
            let syncs = server.disk.syncs();
            let result = process.turn(now, wall, &mut server.inbox);
            let appended = process.log_copy().configs() > configs;
            let syncs = server.disk.syncs() - syncs;
            self.perform_outputs(n);
            let stores = match result {
                Ok(stores) => stores,
                Err(fail) => return self.on_failure(n, &fail),
            };
            self.observe(n, config_before);
            if appended {
                self.on_trigger(n, Trigger::ConfigAppended);
            }
            if self.servers[n].process.is_none() || self.has_ended(n) {
                return;
            }
            if stores || syncs > 0 {
                return self.begin_sync(n, stores, syncs);
            }
            if !self.needs_turn(n) {
                return;
            }
        }
    }

    /// Whether a process has another turn now. Otherwise schedules its next one.
    fn needs_turn(&mut self, n: usize) -> bool {
        let now = self.now;
        let server = &mut self.servers[n];
        let Some(process) = &server.process else { return false };
        let next = process.next_turn().map_or(u64::MAX, |at| server.clock.when(at));
        if next > now && server.inbox.is_empty() {
            server.wake_at = next;
            return false;
        }
        let (at, count) = &mut server.state.turns;
        (*at, *count) = if *at == now { (now, *count + 1) } else { (now, 0) };
        if *count > TURNS_MAX {
            self.fail(format!("server {} is in a busy loop: {TURNS_MAX} turns", n + 1));
        }
        true
    }

    /// Schedules the end of a turn's syncs: `before` that the turn has already done, and that of a
    /// batch if it `stores` one.
    fn begin_sync(&mut self, n: usize, stores: bool, before: u64) {
        let server = &mut self.servers[n];
        server.state.busy = if stores { Busy::Storing } else { Busy::Syncing };
        let random = server.sync_us / 2 + self.rng.below(server.sync_us + 1);
        let took = (random + server.faults.slow_sync_us) * (before + u64::from(stores));
        self.schedule.add(self.now + took, Event::Synced(server.owner(n)));
    }

    pub(super) fn on_synced(&mut self, n: usize) {
        let state = &mut self.servers[n].state;
        if state.paused {
            state.sync_over = true;
            return;
        }
        if std::mem::take(&mut state.busy) == Busy::Storing {
            trace::stamp(self.now, n as u8 + 1);
            let wall = self.read_wall(n);
            let server = &mut self.servers[n];
            let Some(process) = &mut server.process else { return };
            let now = server.clock.read(self.now);
            let config_before = led_config(process);
            let result = process.store_all(now, wall);
            self.perform_outputs(n);
            if let Err(fail) = result {
                return self.on_failure(n, &fail);
            }
            let Some(process) = &self.servers[n].process else { return };
            let (disk, vote) = (process.store().identity().disk, process.vote());
            if !self.is_copy(n) {
                let noted = self.checks.stored_vote(disk, vote);
                self.note(noted);
            }
            self.observe(n, config_before);
            if self.has_ended(n) {
                return;
            }
        }
        if self.needs_turn(n) {
            self.run(n);
        }
    }

    /// Ends a process that has quarantined its directory, or has stopped.
    fn has_ended(&mut self, n: usize) -> bool {
        self.end_if_quarantined(n) || self.end_if_stopped(n)
    }

    /// Runs the checks on a process after a part of its turn.
    fn observe(&mut self, n: usize, config_before: Option<Config>) {
        if self.is_copy(n) {
            return self.observe_copy();
        }
        self.note_named(n);
        let disks = [0, 1, 2, TWIN].map(|n| (self.servers[n].disk_id, &self.servers[n].disk));
        let Some(process) = &self.servers[n].process else { return };
        let replica = process.node().replica();
        let (server, log_copy) = (n, process.log_copy());
        let view = Observation { server, replica, log_copy, config_before, disks };
        let checked = self.checks.observe(view);
        if self.faults.over && replica.role() == RoleView::Primary {
            let now = self.servers[n].clock.read(self.now);
            let mut peers = ServerId::all(3);
            self.checks.penalty |= peers.any(|id| replica.peer_state(id, now) == "penalty");
        }
        for disk in self.checks.added.drain(..) {
            for server in &mut self.servers {
                server.rolled_back.take_if(|rolled_back| *rolled_back == disk);
            }
        }
        self.note(checked);
        self.check_times(n);
    }

    /// Carries out the outputs of a process.
    pub(super) fn perform_outputs(&mut self, n: usize) {
        let Some(process) = &mut self.servers[n].process else { return };
        let sent = std::mem::take(&mut process.kernel().sent);
        let outputs = process.kernel().take_outputs();
        let hashes = !process.kernel().jobs.is_empty() && !process.hashing;
        let has_job = process.kernel().file_job.is_some() && !process.making;
        for output in outputs {
            match output {
                Output::Send(conn, bytes) => self.send(n, conn, bytes),
                Output::Dial { ticket, to } => {
                    let (from, to) = (self.servers[n].owner(n), to.slot());
                    let at = self.now + self.net.delay(n, to);
                    self.schedule.add(at, Event::Dial { from, ticket, to });
                }
                Output::Finish(conn) => self.send_fin(EndId::of(conn)),
                Output::Close(conn) => self.close_end(EndId::of(conn)),
            }
        }
        for frame in sent {
            self.check_sent(n, EndId::of(frame.conn), &frame.packet, frame.has_records);
        }
        if hashes {
            self.hash_next(n);
        }
        if has_job {
            self.begin_job(n);
        }
    }

    fn send_fin(&mut self, end_id: EndId) {
        let Some(end) = self.net.end(end_id).filter(|end| end.open) else { return };
        if !std::mem::replace(&mut end.finished, true) {
            self.send_message(end_id, Message::Fin);
        }
    }

    pub(super) fn close_end(&mut self, end_id: EndId) {
        self.send_fin(end_id);
        self.net.close(end_id);
    }

    fn send(&mut self, n: usize, conn: ConnId, bytes: Vec<u8>) {
        let client = self.scenario_clients.iter_mut().find(|client| client.session == conn);
        if let Some(client) = client {
            return client.read.extend_from_slice(&bytes);
        }
        if self.operator.has(conn) {
            return self.on_operator_bytes(n, conn, &bytes);
        }
        let end_id = EndId::of(conn);
        if self.net.end(end_id).is_some_and(|end| end.open) {
            self.send_message(end_id, Message::Bytes(bytes));
        }
    }

    /// Checks a packet that a server has sent to another one. It may trigger a fault.
    fn check_sent(&mut self, n: usize, from: EndId, packet: &Packet, has_records: bool) {
        let process = self.servers[n].process.as_ref();
        if let Some(what) = process.and_then(|process| premature_claim(process, packet)) {
            return self.fail(format!("server {} {what} before that is on its disk", n + 1));
        }
        let trigger = match packet {
            Packet::Ping { sent, .. } => return self.note_ping(n, from, *sent),
            Packet::Vote { granted: true, .. } => Trigger::VoteSent,
            Packet::Append(append) if has_records && append.prev.term != append.term => {
                Trigger::FirstOfTermSent
            }
            Packet::AppendAccepted { .. } => Trigger::Acknowledged,
            _ => return,
        };
        self.on_trigger(n, trigger);
    }
}

/// The address of a client. Each has its own, since the server limits failed logins by address.
pub(crate) fn address_of(conn: ConnId) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(conn.0) << 64).into()
}

pub(super) fn id(server: usize) -> ServerId {
    ServerId::new(server as u8 + 1).expect("servers are 1 to 3")
}

/// Returns the config of a process that is primary.
fn led_config(process: &Process) -> Option<Config> {
    let replica = process.node().replica();
    let leads = replica.role() == RoleView::Primary;
    replica.config().copied().filter(|_| leads)
}
