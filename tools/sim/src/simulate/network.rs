//! Connections as TCP has them: ordered and reliable while they are open. A cut holds back what
//! is sent; it arrives later in order, or the connection breaks; nothing is lost in between.

use super::clock::Schedule;
use super::kernel::Wire;
use postern::rng::Rng;
use std::collections::VecDeque;

/// The place of the second process with a server's id in tables of hosts; servers have 0 to 2.
pub(super) const TWIN: usize = 3;
/// The place of the clients.
pub(super) const CLIENTS: usize = 4;
const HOSTS: usize = 5;

/// Who holds an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// 0 to 2 a server, else [`TWIN`] or [`CLIENTS`].
    pub(super) host: u8,
    /// Which client; of a server, which of its lives.
    pub(super) life: u32,
}

/// What travels.
#[derive(Debug)]
pub(super) enum Message {
    /// A dial was taken; goes back to the dialler.
    Taken,
    /// The dialler knows that; now the other side learns of the connection.
    Opened,
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: Owner,
    /// The owner's side is open: it may send, and is told what arrives.
    pub(super) open: bool,
    /// The owner was told of the connection.
    pub(super) known: bool,
    /// By which the dialler names the dial.
    pub(super) ticket: u32,
    /// The owner sends no more.
    pub(super) finished: bool,
    /// What this end sent, and when it arrives.
    flight: VecDeque<(u64, Message)>,
    /// What this end sent and a cut holds back.
    held: VecDeque<Message>,
    held_since: u64,
    last_arrival: u64,
}

#[derive(Debug)]
pub(super) struct Conn {
    serial: u32,
    pub(super) ends: [End; 2],
}

/// One end of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u32,
    pub(super) side: u8,
    pub(super) serial: u32,
}

impl Place {
    pub(super) fn wire(self) -> Wire {
        let low = u64::from(self.slot) << 1 | u64::from(self.side);
        Wire(u64::from(self.serial) << 32 | low)
    }

    pub(super) fn of(wire: Wire) -> Place {
        let low = wire.0 as u32;
        Place { slot: low >> 1, side: (low & 1) as u8, serial: (wire.0 >> 32) as u32 }
    }

    pub(super) fn other(self) -> Place {
        Place { side: 1 - self.side, ..self }
    }
}

/// What the network asks to be woken for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// The first message in flight from this end arrives.
    Arrival(Place),
    /// What a cut held back from this end was tried for long enough.
    GiveUp(Place),
}

/// One way from a host to another.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    /// How many faults cut it now.
    pub(super) cuts: u32,
    /// Added to every latency, in µs.
    pub(super) slow: u64,
    /// Dials vanish on it.
    pub(super) dials_lost: u32,
    /// What was held back by a cut.
    pub(super) stopped: u64,
}

#[derive(Debug)]
pub(super) struct Network {
    conns: Vec<Option<Conn>>,
    free: Vec<u32>,
    serial: u32,
    ways: [[Way; HOSTS]; HOSTS],
    pub(super) rng: Rng,
    latency: u64,
}

impl Network {
    pub(super) fn new(mut rng: Rng) -> Network {
        let latency = 50 + rng.below(400);
        let (conns, free, ways) = (Vec::new(), Vec::new(), Default::default());
        Network { conns, free, serial: 0, ways, rng, latency }
    }

    pub(super) fn way(&mut self, from: usize, to: usize) -> &mut Way {
        &mut self.ways[from][to]
    }

    pub(super) fn is_cut(&self, from: u8, to: u8) -> bool {
        self.ways[usize::from(from)][usize::from(to)].cuts > 0
    }

    /// Whether a dial from one host to the other comes through now.
    pub(super) fn takes_dials(&self, from: u8, to: u8) -> bool {
        let way = self.ways[usize::from(from)][usize::from(to)];
        way.dials_lost == 0 && !self.is_cut(from, to) && !self.is_cut(to, from)
    }

    pub(super) fn delay(&mut self, from: u8, to: u8) -> u64 {
        let way = self.ways[usize::from(from)][usize::from(to)];
        let slow = if way.slow > 0 { way.slow / 2 + self.rng.below(way.slow) } else { 0 };
        self.latency / 2 + self.rng.below(self.latency) + slow
    }

    /// A new connection, not yet known to the end that was dialled.
    pub(super) fn open(&mut self, dialler: Owner, dialled: Owner) -> Place {
        self.serial += 1;
        let end = |owner| End {
            owner,
            open: true,
            known: false,
            ticket: 0,
            finished: false,
            flight: VecDeque::new(),
            held: VecDeque::new(),
            held_since: 0,
            last_arrival: 0,
        };
        let conn = Conn { serial: self.serial, ends: [end(dialler), end(dialled)] };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() as u32 - 1
        });
        self.conns[slot as usize] = Some(conn);
        Place { slot, side: 0, serial: self.serial }
    }

    pub(super) fn end(&mut self, place: Place) -> Option<&mut End> {
        let conn = self.conns.get_mut(place.slot as usize)?.as_mut()?;
        (conn.serial == place.serial).then(|| &mut conn.ends[usize::from(place.side)])
    }

    /// Sends from an end, whether or not its owner still holds it.
    pub(super) fn send(&mut self, from: Place, message: Message, now: u64, due: &mut Schedule) {
        let Some(to) = self.end(from.other()).map(|end| end.owner.host) else { return };
        let Some(host) = self.end(from).map(|end| end.owner.host) else { return };
        let cut = self.is_cut(host, to);
        let delay = self.delay(host, to);
        let give_up = 2_000_000 + self.rng.below(20_000_000);
        if cut {
            self.ways[usize::from(host)][usize::from(to)].stopped += 1;
        }
        let Some(end) = self.end(from) else { return };
        if cut || !end.held.is_empty() {
            if end.held.is_empty() {
                end.held_since = now;
                due.network(now + give_up, Due::GiveUp(from));
            }
            return end.held.push_back(message);
        }
        let at = end.last_arrival.max(now + delay);
        end.last_arrival = at;
        end.flight.push_back((at, message));
        due.network(at, Due::Arrival(from));
    }

    /// Takes the message that arrives from this end, and where it arrives.
    pub(super) fn arrive(&mut self, from: Place) -> Option<(Place, Message)> {
        let (_, message) = self.end(from)?.flight.pop_front()?;
        Some((from.other(), message))
    }

    /// The receiving machine has no power: the message stays with the sender.
    pub(super) fn hold(&mut self, from: Place, message: Message, now: u64, due: &mut Schedule) {
        let give_up = 2_000_000 + self.rng.below(20_000_000);
        let Some(end) = self.end(from) else { return };
        if end.held.is_empty() {
            end.held_since = now;
            due.network(now + give_up, Due::GiveUp(from));
        }
        end.held.push_back(message);
    }

    /// Whether an end that held messages since too long ago breaks now.
    pub(super) fn gives_up(&mut self, place: Place, now: u64) -> bool {
        let Some(end) = self.end(place) else { return false };
        let breaks = !end.held.is_empty() && now >= end.held_since + 2_000_000;
        if breaks {
            end.held.clear();
        }
        breaks
    }

    /// Sends what cuts held back, where they are over.
    pub(super) fn release(&mut self, now: u64, due: &mut Schedule) {
        for slot in 0..self.conns.len() {
            for side in 0..2 {
                let Some(conn) = &self.conns[slot] else { continue };
                let (from, to) = (conn.ends[side].owner.host, conn.ends[1 - side].owner.host);
                if conn.ends[side].held.is_empty() || self.is_cut(from, to) {
                    continue;
                }
                let place = Place { slot: slot as u32, side: side as u8, serial: conn.serial };
                // TCP tries again in its own time.
                let at = now + self.delay(from, to) + self.rng.below(300_000);
                let Some(end) = self.end(place) else { continue };
                let at = end.last_arrival.max(at);
                end.last_arrival = at;
                while let Some(message) = end.held.pop_front() {
                    end.flight.push_back((at, message));
                    due.network(at, Due::Arrival(place));
                }
            }
        }
    }

    /// All ends that `holds` is true of.
    pub(super) fn places(&self, holds: impl Fn(&End) -> bool) -> Vec<Place> {
        let mut places = Vec::new();
        for (slot, conn) in self.conns.iter().enumerate() {
            let Some(conn) = conn else { continue };
            for side in 0..2u8 {
                if holds(&conn.ends[usize::from(side)]) {
                    places.push(Place { slot: slot as u32, side, serial: conn.serial });
                }
            }
        }
        places
    }

    /// The owner lets go of its end.
    pub(super) fn let_go(&mut self, place: Place) {
        if let Some(end) = self.end(place) {
            end.open = false;
        }
    }

    /// The machine of an end loses power: nothing that it still had to send leaves it.
    pub(super) fn forget(&mut self, place: Place) {
        if let Some(end) = self.end(place) {
            end.open = false;
            end.held.clear();
        }
    }

    /// Frees a connection that nobody holds and nothing travels on.
    pub(super) fn sweep(&mut self, place: Place) {
        let Some(conn) = self.conns.get(place.slot as usize).and_then(Option::as_ref) else {
            return;
        };
        let over = |end: &End| !end.open && end.flight.is_empty() && end.held.is_empty();
        if conn.serial == place.serial && conn.ends.iter().all(over) {
            self.conns[place.slot as usize] = None;
            self.free.push(place.slot);
        }
    }
}
