//! The kernel of a simulated server: sockets whose bytes the world carries. What the server wants
//! done to the outside is left in [`SimKernel::take_outputs`], for the world to carry out.

use super::log_copy::LogCopy;
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
pub(crate) struct ConnId(pub(crate) u64);

/// What a process does to the outside, in order.
#[derive(Debug)]
pub(crate) enum Output {
    /// Begins to connect to a server. The outcome is reported with the ticket.
    Dial {
        ticket: u32,
        to: ServerId,
    },
    Send(ConnId, Vec<u8>),
    /// Sends no more on a connection.
    Finish(ConnId),
    Close(ConnId),
}

type Outputs = Rc<RefCell<Vec<Output>>>;

/// The process's end of a connection.
#[derive(Debug)]
struct End {
    /// `None` until a dial is decided.
    conn: Option<ConnId>,
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
    fn new(conn: Option<ConnId>, from: IpAddr) -> Rc<RefCell<End>> {
        Rc::new(RefCell::new(End {
            conn,
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
    outputs: Outputs,
}

impl SimSocket {
    fn conn(&self) -> Option<ConnId> {
        self.end.borrow().conn
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut end = self.end.borrow_mut();
        end.closed = true;
        if let Some(conn) = end.conn {
            self.outputs.borrow_mut().push(Output::Close(conn));
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
        let conn = match (end.broken, end.conn) {
            (Some(kind), _) => return Err(kind.into()),
            (None, Some(conn)) if end.room > 0 => conn,
            (None, _) => return Err(ErrorKind::WouldBlock.into()),
        };
        let count = bytes.len().min(end.room);
        if end.room != usize::MAX {
            end.room -= count;
        }
        self.outputs.borrow_mut().push(Output::Send(conn, bytes[..count].to_vec()));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for SimSocket {
    fn is_connected(&self) -> io::Result<bool> {
        let end = self.end.borrow();
        end.broken.map_or(Ok(end.conn.is_some()), |kind| Err(kind.into()))
    }

    fn set_options(&self) -> io::Result<()> {
        self.end.borrow().broken.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn set_no_delay(&self) {}

    fn shut_down_write(&self) -> io::Result<()> {
        let end = self.end.borrow();
        match (end.broken, end.conn) {
            (None, Some(conn)) => {
                self.outputs.borrow_mut().push(Output::Finish(conn));
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
    pub(crate) conn: ConnId,
    pub(crate) packet: Packet,
    /// Entries follow the packet.
    pub(crate) has_records: bool,
}

/// A ping that the server has received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pinged {
    pub(crate) link: LinkId,
    pub(crate) conn: ConnId,
    pub(crate) sent: Moment,
}

/// The outside of one process.
pub(crate) struct SimKernel {
    outputs: Outputs,
    ends: BTreeMap<ConnId, Rc<RefCell<End>>>,
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
    pub(crate) log_copy: LogCopy,
    /// What was sent and received since the world looked.
    pub(crate) sent: Vec<Sent>,
    pub(super) pinged: Vec<Pinged>,
    /// The wall clock of each server, which pings to it then show as their sender's.
    pub(super) echoed: Option<[WallTime; 3]>,
}

impl SimKernel {
    /// The kernel of the process whose log this is.
    pub(super) fn new(log_copy: LogCopy, encrypts: bool) -> SimKernel {
        SimKernel {
            outputs: Outputs::default(),
            ends: BTreeMap::new(),
            dials: BTreeMap::new(),
            tickets: 0,
            waiting: VecDeque::new(),
            now: Moment(0),
            wall: WallTime(0),
            encrypts,
            jobs: VecDeque::new(),
            log_copy,
            sent: Vec::new(),
            pinged: Vec::new(),
            echoed: None,
        }
    }

    /// `host:port` of a server.
    pub(super) fn name(id: ServerId) -> String {
        format!("{}:{PORT}", SimKernel::address(id.slot()))
    }

    /// The address of a machine.
    pub(super) fn address(host: usize) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, host as u8 + 1).into()
    }

    pub(super) fn set_clock(&mut self, now: Moment, wall: WallTime) {
        (self.now, self.wall) = (now, wall);
    }

    /// Takes what the process has done to the outside.
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        // Ends that the server has closed are named no more.
        self.ends.retain(|_, end| !end.borrow().closed);
        std::mem::take(&mut self.outputs.borrow_mut())
    }

    /// The number of the socket of a connection.
    pub(super) fn number_of(&self, conn: ConnId) -> Option<usize> {
        self.ends.get(&conn)?.borrow().number
    }

    /// A connection waits to be accepted.
    pub(super) fn open(&mut self, conn: ConnId, from: IpAddr) {
        let end = End::new(Some(conn), from);
        self.ends.insert(conn, Rc::clone(&end));
        self.waiting.push_back(end);
    }

    /// A dial is decided. Returns the number of the socket that is ready.
    pub(super) fn decide(
        &mut self,
        ticket: u32,
        outcome: Result<ConnId, ErrorKind>,
    ) -> Option<usize> {
        let end = self.dials.remove(&ticket)?;
        let mut state = end.borrow_mut();
        match outcome {
            // The server has given this dial up.
            Ok(conn) if state.closed => self.outputs.borrow_mut().push(Output::Close(conn)),
            Ok(conn) => {
                state.conn = Some(conn);
                self.ends.insert(conn, Rc::clone(&end));
            }
            Err(kind) => state.broken = Some(kind),
        }
        state.number.filter(|_| !state.closed)
    }

    /// Something has happened to a connection. Returns the number of its socket, and what is
    /// ready.
    fn change(
        &mut self,
        conn: ConnId,
        change: impl FnOnce(&mut End) -> Ready,
    ) -> Option<(usize, Ready)> {
        let mut end = self.ends.get(&conn)?.borrow_mut();
        let ready = change(&mut end);
        Some((end.number?, ready))
    }

    pub(super) fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> Option<(usize, Ready)> {
        self.change(conn, |end| {
            end.input.extend(bytes);
            Ready { readable: true, ..Ready::default() }
        })
    }

    pub(super) fn finish(&mut self, conn: ConnId) -> Option<(usize, Ready)> {
        self.change(conn, |end| {
            end.finished = true;
            Ready { readable: true, ended: true, ..Ready::default() }
        })
    }

    pub(super) fn reset(&mut self, conn: ConnId) -> Option<(usize, Ready)> {
        self.change(conn, |end| {
            end.broken = Some(ErrorKind::ConnectionReset);
            Ready { readable: true, writable: true, ended: true, ..Ready::default() }
        })
    }

    /// Lets a connection accept `room` bytes before it blocks. At first it never blocks.
    pub(super) fn set_room(&mut self, conn: ConnId, room: usize) -> Option<(usize, Ready)> {
        self.change(conn, |end| {
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
        Ok((SimSocket { end, outputs: Rc::clone(&self.outputs) }, from))
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
        self.outputs.borrow_mut().push(Output::Dial { ticket: self.tickets, to: to_id });
        Ok(SimSocket { end, outputs: Rc::clone(&self.outputs) })
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
        let Some(conn) = socket.conn() else { return };
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
        self.sent.push(Sent { conn, packet, has_records });
    }

    fn on_received(&mut self, link: LinkId, socket: &SimSocket, packet: &Packet) {
        if let (Packet::Ping { sent, .. }, Some(conn)) = (packet, socket.conn()) {
            self.pinged.push(Pinged { link, conn, sent: *sent });
        }
    }

    fn on_append(&mut self, records: &[u8]) {
        self.log_copy.append(records);
    }

    fn on_cut(&mut self, last: Index) {
        self.log_copy.cut(last);
    }
}
