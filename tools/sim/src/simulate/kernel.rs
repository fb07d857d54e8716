//! The kernel of a simulated server: sockets whose bytes the world carries. What the server wants
//! done to the outside is left in [`SimKernel::take_acts`], for the world to carry out.

use super::mirror::Mirror;
use super::seal::SimSeal;
use postern::ids::{GroupId, Index, LinkId, Secret, ServerId};
use postern::node::Job;
use postern::replica::Packet;
use postern::server::{Kernel, LENGTH_BYTES, Ready, Socket};
use postern::time::{Moment, WallTime};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

/// The port of all servers.
const PORT: u16 = 5001;

/// The number by which the world and a process name a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Wire(pub(crate) u64);

/// What a process does to the outside, in order.
#[derive(Debug)]
pub(crate) enum Act {
    /// Begins to connect to a server. The outcome is reported with the ticket.
    Dial {
        ticket: u32,
        to: ServerId,
    },
    Send(Wire, Vec<u8>),
    /// Sends no more on a connection.
    Finish(Wire),
    Close(Wire),
}

type Acts = Rc<RefCell<Vec<Act>>>;

/// The process's end of a connection.
#[derive(Debug)]
struct End {
    /// `None` until a dial is decided.
    wire: Option<Wire>,
    /// The number with which the server has registered it.
    number: Option<usize>,
    from: IpAddr,
    input: VecDeque<u8>,
    /// The other side sends no more.
    finished: bool,
    /// Why nothing can be sent any more.
    broken: Option<ErrorKind>,
    /// The server has closed it.
    closed: bool,
    /// How many bytes it accepts before it blocks.
    room: usize,
}

impl End {
    fn new(wire: Option<Wire>, from: IpAddr) -> Rc<RefCell<End>> {
        Rc::new(RefCell::new(End {
            wire,
            number: None,
            from,
            input: VecDeque::new(),
            finished: false,
            broken: None,
            closed: false,
            room: usize::MAX,
        }))
    }
}

/// A socket that the server holds. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct SimSocket {
    end: Rc<RefCell<End>>,
    acts: Acts,
}

impl SimSocket {
    fn wire(&self) -> Option<Wire> {
        self.end.borrow().wire
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut end = self.end.borrow_mut();
        end.closed = true;
        if let Some(wire) = end.wire {
            self.acts.borrow_mut().push(Act::Close(wire));
        }
    }
}

impl Read for SimSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut end = self.end.borrow_mut();
        if !end.input.is_empty() {
            // As much as fits: after a short read a server waits for more to arrive.
            let count = buffer.len().min(end.input.len());
            return end.input.read_exact(&mut buffer[..count]).map(|()| count);
        }
        match (end.broken, end.finished) {
            (Some(kind), _) => Err(kind.into()),
            (None, true) => Ok(0),
            (None, false) => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for SimSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut end = self.end.borrow_mut();
        let wire = match (end.broken, end.wire) {
            (Some(kind), _) => return Err(kind.into()),
            (None, Some(wire)) if end.room > 0 => wire,
            (None, _) => return Err(ErrorKind::WouldBlock.into()),
        };
        let count = bytes.len().min(end.room);
        if end.room != usize::MAX {
            end.room -= count;
        }
        self.acts.borrow_mut().push(Act::Send(wire, bytes[..count].to_vec()));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for SimSocket {
    fn is_connected(&self) -> io::Result<bool> {
        let end = self.end.borrow();
        end.broken.map_or(Ok(end.wire.is_some()), |kind| Err(kind.into()))
    }

    fn set_options(&self) -> io::Result<()> {
        self.end.borrow().broken.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn set_no_delay(&self) {}

    fn shut_down_write(&self) -> io::Result<()> {
        let end = self.end.borrow();
        match (end.broken, end.wire) {
            (None, Some(wire)) => {
                self.acts.borrow_mut().push(Act::Finish(wire));
                Ok(())
            }
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn peer_ip(&self) -> Option<IpAddr> {
        Some(self.end.borrow().from)
    }
}

/// A frame that the server sent on a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) wire: Wire,
    pub(crate) packet: Packet,
    /// Entries follow the packet.
    pub(crate) has_records: bool,
}

/// A ping that the server has received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pinged {
    pub(crate) link: LinkId,
    pub(crate) wire: Wire,
    pub(crate) sent: Moment,
}

/// The outside of one process.
pub(crate) struct SimKernel {
    acts: Acts,
    ends: BTreeMap<Wire, Rc<RefCell<End>>>,
    dials: BTreeMap<u32, Rc<RefCell<End>>>,
    tickets: u32,
    /// Connections that the server has not accepted yet.
    waiting: VecDeque<Rc<RefCell<End>>>,
    now: Moment,
    wall: WallTime,
    /// Links are encrypted.
    encrypts: bool,
    /// Passwords to hash.
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) mirror: Mirror,
    /// What was sent and received since the world looked.
    pub(crate) sent: Vec<Sent>,
    pub(super) pinged: Vec<Pinged>,
    /// The wall clock of each server, which pings to it then show as their sender's.
    pub(super) echoed: Option<[WallTime; 3]>,
}

impl SimKernel {
    /// The kernel of the process whose log this is.
    pub(super) fn new(mirror: Mirror, encrypts: bool) -> SimKernel {
        SimKernel {
            acts: Acts::default(),
            ends: BTreeMap::new(),
            dials: BTreeMap::new(),
            tickets: 0,
            waiting: VecDeque::new(),
            now: Moment(0),
            wall: WallTime(0),
            encrypts,
            jobs: VecDeque::new(),
            mirror,
            sent: Vec::new(),
            pinged: Vec::new(),
            echoed: None,
        }
    }

    /// `host:port` of a server.
    pub(super) fn name(id: ServerId) -> String {
        format!("{}:{PORT}", SimKernel::address(id.slot() as u8))
    }

    /// The address of a machine.
    pub(super) fn address(host: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, host + 1).into()
    }

    pub(super) fn set_clock(&mut self, now: Moment, wall: WallTime) {
        (self.now, self.wall) = (now, wall);
    }

    /// Takes what the process has done to the outside.
    pub(crate) fn take_acts(&mut self) -> Vec<Act> {
        // Ends that the server has closed are named no more.
        self.ends.retain(|_, end| !end.borrow().closed);
        std::mem::take(&mut self.acts.borrow_mut())
    }

    /// The number of the socket of a connection.
    pub(super) fn number_of(&self, wire: Wire) -> Option<usize> {
        self.ends.get(&wire)?.borrow().number
    }

    /// A connection waits to be accepted.
    pub(super) fn open(&mut self, wire: Wire, from: IpAddr) {
        let end = End::new(Some(wire), from);
        self.ends.insert(wire, Rc::clone(&end));
        self.waiting.push_back(end);
    }

    /// A dial is decided. Returns the number of the socket that is ready.
    pub(super) fn decide(
        &mut self,
        ticket: u32,
        outcome: Result<Wire, ErrorKind>,
    ) -> Option<usize> {
        let end = self.dials.remove(&ticket)?;
        let mut state = end.borrow_mut();
        match outcome {
            // The server has given this dial up.
            Ok(wire) if state.closed => self.acts.borrow_mut().push(Act::Close(wire)),
            Ok(wire) => {
                state.wire = Some(wire);
                self.ends.insert(wire, Rc::clone(&end));
            }
            Err(kind) => state.broken = Some(kind),
        }
        state.number.filter(|_| !state.closed)
    }

    /// Something has happened to a connection. Returns the number of its socket, and what is
    /// ready.
    fn change(
        &mut self,
        wire: Wire,
        change: impl FnOnce(&mut End) -> Ready,
    ) -> Option<(usize, Ready)> {
        let mut end = self.ends.get(&wire)?.borrow_mut();
        let ready = change(&mut end);
        Some((end.number?, ready))
    }

    pub(super) fn receive(&mut self, wire: Wire, bytes: &[u8]) -> Option<(usize, Ready)> {
        self.change(wire, |end| {
            end.input.extend(bytes);
            Ready { readable: true, ..Ready::default() }
        })
    }

    pub(super) fn finish(&mut self, wire: Wire) -> Option<(usize, Ready)> {
        self.change(wire, |end| {
            end.finished = true;
            Ready { readable: true, ended: true, ..Ready::default() }
        })
    }

    pub(super) fn reset(&mut self, wire: Wire) -> Option<(usize, Ready)> {
        self.change(wire, |end| {
            end.broken = Some(ErrorKind::ConnectionReset);
            Ready { readable: true, writable: true, ended: true, ..Ready::default() }
        })
    }

    /// Lets a connection accept `room` bytes before it blocks. At first it never blocks.
    pub(super) fn set_room(&mut self, wire: Wire, room: usize) -> Option<(usize, Ready)> {
        self.change(wire, |end| {
            end.room = room;
            Ready { writable: true, ..Ready::default() }
        })
    }
}

impl Kernel for SimKernel {
    type Socket = SimSocket;
    type Channel = SimSeal;

    fn clock(&mut self) -> (Moment, WallTime) {
        (self.now, self.wall)
    }

    fn memory_bytes(&self) -> Option<u64> {
        None
    }

    fn accept(&mut self) -> io::Result<(SimSocket, IpAddr)> {
        let end = self.waiting.pop_front().ok_or(ErrorKind::WouldBlock)?;
        let from = end.borrow().from;
        Ok((SimSocket { end, acts: Rc::clone(&self.acts) }, from))
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<SimSocket> {
        let id = match to.ip() {
            IpAddr::V4(ip) => ServerId::new(ip.octets()[3]),
            IpAddr::V6(_) => None,
        };
        let to_id = id.ok_or(ErrorKind::AddrNotAvailable)?;
        self.tickets += 1;
        let end = End::new(None, to.ip());
        self.dials.insert(self.tickets, Rc::clone(&end));
        self.acts.borrow_mut().push(Act::Dial { ticket: self.tickets, to: to_id });
        Ok(SimSocket { end, acts: Rc::clone(&self.acts) })
    }

    fn register(&mut self, socket: &mut SimSocket, number: usize) -> io::Result<()> {
        socket.end.borrow_mut().number = Some(number);
        Ok(())
    }

    fn deregister(&mut self, socket: &mut SimSocket) {
        socket.end.borrow_mut().number = None;
    }

    fn initiator(&self, secret: &Secret, group: GroupId, out: &mut Vec<u8>) -> SimSeal {
        SimSeal::initiator(self.encrypts, secret, group, out)
    }

    fn responder(&self, secret: &Secret, group: GroupId) -> SimSeal {
        SimSeal::responder(self.encrypts, secret, group)
    }

    fn hash(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    fn look_up(&mut self, _id: ServerId, _name: &str) -> io::Result<()> {
        unreachable!("the names of simulated servers are addresses")
    }

    fn on_frame(&mut self, socket: &SimSocket, frame: &mut [u8]) {
        let Some(wire) = socket.wire() else { return };
        let decoded = Packet::decode(&frame[LENGTH_BYTES..]);
        let (mut packet, records) = decoded.expect("a packet reads what it wrote");
        let has_records = !records.is_empty();
        if let (Packet::Ping { wall, .. }, Some(clocks)) = (&mut packet, &self.echoed)
            && let IpAddr::V4(ip) = socket.end.borrow().from
        {
            *wall = clocks[usize::from(ip.octets()[3] - 1).min(2)];
            let mut bytes = Vec::new();
            packet.encode(&mut bytes);
            frame[LENGTH_BYTES..].copy_from_slice(&bytes);
        }
        self.sent.push(Sent { wire, packet, has_records });
    }

    fn on_received(&mut self, link: LinkId, socket: &SimSocket, packet: &Packet) {
        if let (Packet::Ping { sent, .. }, Some(wire)) = (packet, socket.wire()) {
            self.pinged.push(Pinged { link, wire, sent: *sent });
        }
    }

    fn on_append(&mut self, records: &[u8]) {
        self.mirror.append(records);
    }

    fn on_cut(&mut self, last: Index) {
        self.mirror.cut(last);
    }
}
