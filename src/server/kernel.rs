//! The calls to the kernel that a server makes, so that a simulator can answer them instead.

use super::channel::Broken;
use crate::ids::{GroupId, Index, LinkId, Secret, ServerId};
use crate::node::Job;
use crate::replica::Packet;
use crate::store::FileJob;
use crate::time::{Moment, WallTime};
use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

/// The kernel, and the threads that wait for it. No call blocks.
pub trait Kernel {
    /// A socket of a connection.
    type Socket: Socket;
    /// The encryption of a link.
    type Channel: Seal;

    /// Reads the monotonic time since this server began, and the wall clock.
    fn clock(&mut self) -> (Moment, WallTime);

    /// Returns the resident memory of this process, in bytes.
    fn memory_bytes(&self) -> Option<u64>;

    /// Returns the next connection that waits at a listener, and the address of its other side.
    ///
    /// # Errors
    /// `WouldBlock` when no connection waits; any other kind if descriptors ran out.
    fn accept(&mut self) -> io::Result<(Self::Socket, IpAddr)>;

    /// Begins to connect to an address. The socket is writable once the outcome is known.
    ///
    /// # Errors
    /// The connection failed at once.
    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Socket>;

    /// Reports the readiness of a socket from now on, under this number, until it is dropped.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    fn register(&mut self, socket: &mut Self::Socket, number: usize) -> io::Result<()>;

    /// Returns the dialler's side of a link, and appends its first bytes to `out`.
    fn initiator(&self, secret: &Secret, group: GroupId, out: &mut Vec<u8>) -> Self::Channel;

    /// Returns the side of a link that was dialled.
    fn responder(&self, secret: &Secret, group: GroupId) -> Self::Channel;

    /// Hashes a password. The result is passed to [`Server::on_hashed`](super::Server::on_hashed).
    fn hash(&mut self, job: Job);

    /// Runs a job that reads or makes files. The outcome is passed to
    /// [`Server::on_made`](super::Server::on_made).
    fn make(&mut self, job: FileJob);

    /// Looks up the addresses of a server's name. The result is passed to
    /// [`Server::on_looked_up`](super::Server::on_looked_up).
    ///
    /// # Errors
    /// The look-up can't begin.
    fn look_up(&mut self, id: ServerId, name: &str) -> io::Result<()>;

    /// Lets a simulator observe, and change, a frame before it is sealed and sent on a link.
    fn on_frame(&mut self, _socket: &Self::Socket, _frame: &mut [u8]) {}

    /// Lets a simulator observe a packet that a link has delivered, on the socket with this number.
    fn on_received(&mut self, _link: LinkId, _number: usize, _packet: &Packet) {}

    /// See [`Edges::on_append`](crate::host::Edges::on_append).
    fn on_append(&mut self, _records: &[u8]) {}

    /// See [`Edges::on_cut`](crate::host::Edges::on_cut).
    fn on_cut(&mut self, _last: Index) {}
}

/// A TCP socket that never blocks. `write` and `read` return `WouldBlock` instead.
pub trait Socket: Read + Write + Debug {
    /// Returns whether a connection that was begun is open by now.
    ///
    /// # Errors
    /// It has failed: `ConnectionRefused` if nobody listens there.
    fn is_connected(&self) -> io::Result<bool>;

    /// Ends the direction to the other side.
    ///
    /// # Errors
    /// The connection has ended.
    fn shut_down_write(&self) -> io::Result<()>;

    /// Returns the address of the other side.
    fn peer_ip(&self) -> Option<IpAddr>;
}

/// One side of a link whose servers authenticate each other, as bytes in and bytes out.
pub trait Seal: Debug {
    /// Returns whether the other side has proved, on this link, that it knows the secret.
    fn is_proven(&self) -> bool;

    /// Seals `bytes` and appends the messages to `out`. Until the handshake is complete, they are
    /// held back.
    fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>);

    /// Opens the message at the front of `input` if it is complete, and returns its length, else
    /// 0. Its content is appended to `opened`, and bytes to send to `out`.
    ///
    /// # Errors
    /// When the message is not from the other side as it should be. Nothing more is opened then.
    fn open(
        &mut self,
        input: &[u8],
        opened: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, Broken>;
}

/// What the kernel reports of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// There is something to read.
    pub readable: bool,
    /// There is room to write, or a connection is decided.
    pub writable: bool,
    /// The other side sends no more, or the connection is broken.
    pub ended: bool,
    /// Urgent data has arrived.
    pub urgent: bool,
}
