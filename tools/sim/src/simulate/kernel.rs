//! The kernel of a simulated server: sockets whose bytes the world carries. The world carries out
//! the outputs that [`SimKernel::take_outputs`] returns.

use super::log_copy::LogCopy;
use super::seal::SimSeal;
use postern::ids::{GroupId, Index, LinkId, Secret, ServerId};
use postern::node::Job;
use postern::replica::Packet;
use postern::server::{Kernel, LENGTH_BYTES, Socket};
use postern::store::FileJob;
use postern::time::{Moment, WallTime};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

/// The port of all servers.
const PORT: u16 = 5001;

/// The number of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnId(pub(crate) u64);

/// An output of a process.
#[derive(Debug)]
pub(crate) enum Output {
    /// Connects to a server. The outcome is reported with the ticket.
    Dial {
        ticket: u32,
        to: ServerId,
    },
    Send(ConnId, Vec<u8>),
    /// Shuts down the write side of a connection.
    Finish(ConnId),
    Close(ConnId),
}

type Outputs = Rc<RefCell<Vec<Output>>>;

/// The end of a connection at the process.
#[derive(Debug)]
pub(super) struct End {
    /// `None` until a dial succeeds.
    conn: Option<ConnId>,
    /// The number with which the server has registered it.
    number: Option<usize>,
    from: IpAddr,
    pub(super) input: VecDeque<u8>,
    /// The other side has shut down its write side.
    pub(super) finished: bool,
    /// The error of the connection, if it is broken.
    pub(super) broken: Option<ErrorKind>,
    /// The server has closed the socket.
    closed: bool,
    /// The number of bytes that can be written before the socket blocks.
    pub(super) room: usize,
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
        end.number = None;
        if let Some(conn) = end.conn {
            self.outputs.borrow_mut().push(Output::Close(conn));
        }
    }
}

impl Read for SimSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut end = self.end.borrow_mut();
        if !end.input.is_empty() {
            // Fills the buffer if it can: after a short read a server waits for the next event.
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

/// The kernel of one process.
#[derive(Default)]
pub(crate) struct SimKernel {
    outputs: Outputs,
    ends: BTreeMap<ConnId, Rc<RefCell<End>>>,
    dials: BTreeMap<u32, Rc<RefCell<End>>>,
    tickets: u32,
    /// Connections that wait for `accept`.
    waiting: VecDeque<Rc<RefCell<End>>>,
    now: Moment,
    wall: WallTime,
    /// Links are encrypted.
    encrypts: bool,
    /// The job with files to run.
    pub(crate) file_job: Option<FileJob>,
    /// Passwords to hash.
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) log_copy: LogCopy,
    /// Frames sent, and pings received, since the last turn.
    pub(crate) sent: Vec<Sent>,
    pub(super) pinged: Vec<Pinged>,
    /// The clock of each server, if pings contain that of their receiver.
    pub(super) echoed: Option<[WallTime; 3]>,
}

impl SimKernel {
    /// `log_copy` is the log of the process.
    pub(super) fn new(log_copy: LogCopy, encrypts: bool) -> SimKernel {
        SimKernel { log_copy, encrypts, ..SimKernel::default() }
    }

    /// The `host:port` of a server.
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

    /// Removes and returns the outputs of the process.
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        self.ends.retain(|_, end| !end.borrow().closed);
        std::mem::take(&mut self.outputs.borrow_mut())
    }

    /// The number with which the server has registered a connection.
    pub(super) fn number_of(&self, conn: ConnId) -> Option<usize> {
        self.ends.get(&conn)?.borrow().number
    }

    /// Adds a connection that waits for `accept`.
    pub(super) fn open(&mut self, conn: ConnId, from: IpAddr) {
        let end = End::new(Some(conn), from);
        self.ends.insert(conn, Rc::clone(&end));
        self.waiting.push_back(end);
    }

    /// Completes a dial. Returns the number of its socket, which becomes writable.
    pub(super) fn complete_dial(
        &mut self,
        ticket: u32,
        outcome: Result<ConnId, ErrorKind>,
    ) -> Option<usize> {
        let end = self.dials.remove(&ticket)?;
        let mut state = end.borrow_mut();
        match outcome {
            // The server has closed the socket meanwhile.
            Ok(conn) if state.closed => self.outputs.borrow_mut().push(Output::Close(conn)),
            Ok(conn) => {
                state.conn = Some(conn);
                self.ends.insert(conn, Rc::clone(&end));
            }
            Err(kind) => state.broken = Some(kind),
        }
        state.number.filter(|_| !state.closed)
    }

    /// Changes the state of a connection. Returns the number of its socket.
    pub(super) fn change(&mut self, conn: ConnId, change: impl FnOnce(&mut End)) -> Option<usize> {
        let mut end = self.ends.get(&conn)?.borrow_mut();
        change(&mut end);
        end.number
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

    fn initiator(&self, secret: &Secret, group: GroupId, out: &mut Vec<u8>) -> SimSeal {
        SimSeal::initiator(self.encrypts, secret, group, out)
    }

    fn responder(&self, secret: &Secret, group: GroupId) -> SimSeal {
        SimSeal::responder(self.encrypts, secret, group)
    }

    fn hash(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    fn make(&mut self, job: FileJob) {
        self.file_job = Some(job);
    }

    fn look_up(&mut self, _id: ServerId, _name: &str) -> io::Result<()> {
        unreachable!("the names of simulated servers are addresses")
    }

    fn on_frame(&mut self, socket: &SimSocket, frame: &mut [u8]) {
        let Some(conn) = socket.conn() else { return };
        let decoded = Packet::decode(&frame[LENGTH_BYTES..]);
        let (mut packet, records) = decoded.expect("a server sends valid packets");
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

    fn on_received(&mut self, link: LinkId, number: usize, packet: &Packet) {
        let Packet::Ping { sent, .. } = *packet else { return };
        let of_link = |end: &&Rc<RefCell<End>>| end.borrow().number == Some(number);
        if let Some(conn) = self.ends.values().find(of_link).and_then(|end| end.borrow().conn) {
            self.pinged.push(Pinged { link, conn, sent });
        }
    }

    fn on_append(&mut self, records: &[u8]) {
        self.log_copy.append(records);
    }

    fn on_cut(&mut self, last: Index) {
        self.log_copy.cut(last);
    }
}
