//! Connections as TCP provides them: ordered and reliable while they are open. During a cut, the
//! sending end keeps its messages. They arrive in order after the cut, or the connection breaks.

use super::clock::{Event, Schedule};
use super::kernel::ConnId;
use postern::rng::Rng;
use std::collections::{BTreeMap, VecDeque};

/// The place of the second process with a server's id in tables of hosts. Servers have 0 to 2.
pub(super) const TWIN: usize = 3;
/// The place of all clients.
pub(super) const CLIENTS: usize = 4;
const HOSTS: usize = 5;
/// How long a connection that can't deliver lasts at least, in µs.
const TIMEOUT_MIN: u64 = 2_000_000;

/// The process or client that holds an end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    /// A server's place, or [`CLIENTS`].
    pub(super) host: usize,
    /// The number of a client, or the generation of a server's process.
    pub(super) generation: u32,
}

/// A message on a connection.
#[derive(Debug)]
pub(super) enum Message {
    /// Reports to the dialler that its dial was accepted.
    Accepted,
    /// Reports the connection to the side that was dialled, once the dialler knows of it.
    Opened,
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) owner: Owner,
    /// The owner may send and receive.
    pub(super) open: bool,
    /// The owner knows of the connection.
    pub(super) notified: bool,
    /// The dialler's name of the dial.
    pub(super) ticket: u32,
    /// The owner has sent a FIN.
    pub(super) finished: bool,
    /// Messages that this end has sent, with their times of arrival.
    in_flight: VecDeque<(u64, Message)>,
    /// Messages that this end can't send during a cut.
    held: VecDeque<Message>,
    held_since: u64,
    last_arrival: u64,
}

/// Names an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndId {
    pub(super) serial: u32,
    pub(super) side: u8,
}

impl EndId {
    pub(super) fn conn(self) -> ConnId {
        ConnId(u64::from(self.serial) << 1 | u64::from(self.side))
    }

    pub(super) fn of(conn: ConnId) -> EndId {
        EndId { serial: (conn.0 >> 1) as u32, side: (conn.0 & 1) as u8 }
    }

    pub(super) fn other(self) -> EndId {
        EndId { side: 1 - self.side, ..self }
    }
}

/// An event of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The first message in flight from this end arrives.
    Arrival(EndId),
    /// This end stops its attempts to deliver what a cut holds back.
    Timeout(EndId),
}

/// One direction between two hosts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Route {
    /// How many active faults cut it.
    pub(super) cuts: u32,
    /// Added to every latency, in µs.
    pub(super) slow: u64,
    /// How many active faults drop its dials.
    pub(super) dials_lost: u32,
    /// How many messages the current cut has held back.
    pub(super) held_back: u64,
}

#[derive(Debug)]
pub(super) struct Network {
    /// The ends of each connection, by the serial number of the connection.
    conns: BTreeMap<u32, [End; 2]>,
    serial: u32,
    routes: [[Route; HOSTS]; HOSTS],
    pub(super) rng: Rng,
    latency: u64,
}

impl Network {
    pub(super) fn new(mut rng: Rng) -> Network {
        let latency = 50 + rng.below(400);
        Network { conns: BTreeMap::new(), serial: 0, routes: Default::default(), rng, latency }
    }

    pub(super) fn route(&mut self, from: usize, to: usize) -> &mut Route {
        &mut self.routes[from][to]
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.routes[from][to].cuts > 0
    }

    /// Changes both directions between a host and every other one.
    pub(super) fn each_route_of(&mut self, n: usize, mut change: impl FnMut(&mut Route)) {
        for host in (0..HOSTS).filter(|host| *host != n) {
            change(self.route(n, host));
            change(self.route(host, n));
        }
    }

    /// Whether a dial from one host reaches the other.
    pub(super) fn accepts_dials(&self, from: usize, to: usize) -> bool {
        let route = self.routes[from][to];
        route.dials_lost == 0 && !self.is_cut(from, to) && !self.is_cut(to, from)
    }

    pub(super) fn delay(&mut self, from: usize, to: usize) -> u64 {
        let route = self.routes[from][to];
        let slow = if route.slow > 0 { route.slow / 2 + self.rng.below(route.slow) } else { 0 };
        self.latency / 2 + self.rng.below(self.latency) + slow
    }

    /// Opens a connection. Returns the end of the dialler; no end is notified yet.
    pub(super) fn open(&mut self, dialler: Owner, dialled: Owner, ticket: u32) -> EndId {
        self.serial += 1;
        let end = |owner| End { owner, open: true, ticket, ..End::default() };
        self.conns.insert(self.serial, [end(dialler), end(dialled)]);
        EndId { serial: self.serial, side: 0 }
    }

    pub(super) fn end(&mut self, end_id: EndId) -> Option<&mut End> {
        self.conns.get_mut(&end_id.serial).map(|ends| &mut ends[usize::from(end_id.side)])
    }

    /// Sends from an end, whether or not its owner still holds it.
    pub(super) fn send(&mut self, from: EndId, message: Message, now: u64, due: &mut Schedule) {
        let Some(to) = self.end(from.other()).map(|end| end.owner.host) else { return };
        let Some(host) = self.end(from).map(|end| end.owner.host) else { return };
        let cut = self.is_cut(host, to);
        let delay = self.delay(host, to);
        let timeout = self.draw_timeout();
        if cut {
            self.routes[host][to].held_back += 1;
        }
        let Some(end) = self.end(from) else { return };
        if cut || !end.held.is_empty() {
            end.hold(from, message, now, timeout, due);
        } else {
            end.launch(from, message, now + delay, due);
        }
    }

    /// Removes the message that arrives from this end. Returns it with its destination.
    pub(super) fn arrive(&mut self, from: EndId) -> Option<(EndId, Message)> {
        let (_, message) = self.end(from)?.in_flight.pop_front()?;
        Some((from.other(), message))
    }

    /// Returns a message to its sender, since the receiving machine has no power.
    pub(super) fn hold_back(
        &mut self,
        from: EndId,
        message: Message,
        now: u64,
        due: &mut Schedule,
    ) {
        let timeout = self.draw_timeout();
        let Some(end) = self.end(from) else { return };
        end.hold(from, message, now, timeout, due);
    }

    fn draw_timeout(&mut self) -> u64 {
        TIMEOUT_MIN + self.rng.below(20_000_000)
    }

    /// Whether an end that could not deliver for too long breaks now.
    pub(super) fn times_out(&mut self, end_id: EndId, now: u64) -> bool {
        let Some(end) = self.end(end_id) else { return false };
        let breaks = !end.held.is_empty() && now >= end.held_since + TIMEOUT_MIN;
        if breaks {
            end.held.clear();
        }
        breaks
    }

    /// Sends held messages on all routes that are not cut.
    pub(super) fn release(&mut self, now: u64, due: &mut Schedule) {
        for end_id in self.ends(|end| !end.held.is_empty()) {
            let Some(to) = self.end(end_id.other()).map(|end| end.owner.host) else { continue };
            let Some(from) = self.end(end_id).map(|end| end.owner.host) else { continue };
            if self.is_cut(from, to) {
                continue;
            }
            // TCP retransmits with its own timer.
            let at = now + self.delay(from, to) + self.rng.below(300_000);
            let Some(end) = self.end(end_id) else { continue };
            while let Some(message) = end.held.pop_front() {
                end.launch(end_id, message, at, due);
            }
        }
    }

    /// All ends that `holds` is true of.
    pub(super) fn ends(&self, holds: impl Fn(&End) -> bool) -> Vec<EndId> {
        let sides = self.conns.iter().flat_map(|(serial, ends)| {
            ends.iter().zip(0..).map(|(end, side)| (end, EndId { serial: *serial, side }))
        });
        sides.filter(|(end, _)| holds(end)).map(|(_, end_id)| end_id).collect()
    }

    /// Closes an end.
    pub(super) fn close(&mut self, end_id: EndId) {
        if let Some(end) = self.end(end_id) {
            end.open = false;
        }
    }

    /// Closes an end whose machine loses power: held messages are lost.
    pub(super) fn close_without_sending(&mut self, end_id: EndId) {
        if let Some(end) = self.end(end_id) {
            end.open = false;
            end.held.clear();
        }
    }

    /// Frees a connection that is closed at both ends and has no messages.
    pub(super) fn free_if_unused(&mut self, end_id: EndId) {
        let over = |end: &End| !end.open && end.in_flight.is_empty() && end.held.is_empty();
        if self.conns.get(&end_id.serial).is_some_and(|ends| ends.iter().all(over)) {
            self.conns.remove(&end_id.serial);
        }
    }
}

impl End {
    fn hold(&mut self, id: EndId, message: Message, now: u64, timeout: u64, due: &mut Schedule) {
        if self.held.is_empty() {
            self.held_since = now;
            due.add(now + timeout, Event::Network(Due::Timeout(id)));
        }
        self.held.push_back(message);
    }

    /// Sends a message that arrives at `at`, but not before those that were sent earlier.
    fn launch(&mut self, id: EndId, message: Message, at: u64, due: &mut Schedule) {
        self.last_arrival = self.last_arrival.max(at);
        self.in_flight.push_back((self.last_arrival, message));
        due.add(self.last_arrival, Event::Network(Due::Arrival(id)));
    }
}
