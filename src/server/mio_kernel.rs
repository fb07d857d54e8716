//! The kernel that ships: mio, the machine's clocks, and the threads that hash, index and look up.

use super::channel::Channel;
use super::event_loop::TOKENS_RESERVED;
use super::kernel::{Kernel, Socket};
use super::process_stats::{boot_time, resident_bytes};
use super::threads::{self, Done, Maker, Report};
use crate::ids::{GroupId, Secret, ServerId};
use crate::node::Job;
use crate::store::{FileJob, ServerDisk};
use crate::time::{Moment, WallTime};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Token, Waker};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, SystemTime};

/// TCP keep-alive: the idle time, the interval of probes, and their number.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// See the module.
pub(super) struct MioKernel {
    pub(super) poll: Poll,
    pub(super) listeners: Vec<TcpListener>,
    /// When the monotonic clock began, by [`boot_time`].
    began: Duration,
    /// Passwords for the thread that hashes.
    jobs: Sender<Job>,
    maker: Maker,
    report: Report,
    done: Receiver<Done>,
}

impl MioKernel {
    /// `waker` wakes the poll when a thread has a result.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn new(
        poll: Poll,
        waker: Arc<Waker>,
        listeners: Vec<TcpListener>,
        began: Duration,
        disk: ServerDisk,
    ) -> io::Result<MioKernel> {
        let (report, done) = Report::new(waker);
        let jobs = threads::hasher(report.clone())?;
        let maker = Maker::start(disk, report.clone())?;
        Ok(MioKernel { poll, listeners, began, jobs, maker, report, done })
    }

    /// Returns the next result of a thread.
    pub(super) fn take_done(&mut self) -> Option<Done> {
        self.done.try_recv().ok()
    }
}

impl Kernel for MioKernel {
    type Socket = TcpStream;
    type Channel = Channel;

    fn clock(&mut self) -> (Moment, WallTime) {
        let elapsed = boot_time().saturating_sub(self.began);
        let now = Moment(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        (now, WallTime::from_system(SystemTime::now()))
    }

    fn memory_bytes(&self) -> Option<u64> {
        resident_bytes()
    }

    fn accept(&mut self) -> io::Result<(TcpStream, IpAddr)> {
        let mut failed = io::Error::from(ErrorKind::WouldBlock);
        for listener in &self.listeners {
            loop {
                match listener.accept() {
                    Ok((socket, from)) => {
                        // It fails if the connection has ended already, which a read reports.
                        let _ = set_options(&socket);
                        return Ok((socket, from.ip().to_canonical()));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        // Connections may wait at the other listeners.
                        failed = error;
                        break;
                    }
                }
            }
        }
        Err(failed)
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    fn register(&mut self, socket: &mut TcpStream, number: usize) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.poll.registry().register(socket, Token(number + TOKENS_RESERVED), interest)
    }

    fn initiator(&self, secret: &Secret, group: GroupId, out: &mut Vec<u8>) -> Channel {
        Channel::initiator(secret, group, out)
    }

    fn responder(&self, secret: &Secret, group: GroupId) -> Channel {
        Channel::responder(secret, group)
    }

    fn hash(&mut self, job: Job) {
        self.jobs.send(job).expect("the thread lives as long as this end");
    }

    fn make(&mut self, job: FileJob) {
        self.maker.begin(job);
    }

    fn look_up(&mut self, id: ServerId, name: &str) -> io::Result<()> {
        threads::look_up(id, name.to_owned(), self.report.clone())
    }
}

/// Sets the options of an accepted connection.
fn set_options(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    // A telnet client sends its data mark as urgent data. It must stay in its place in the stream.
    SockRef::from(socket).set_out_of_band_inline(true)?;
    let (time, interval, retries) = KEEPALIVE;
    let keepalive =
        TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

impl Socket for TcpStream {
    fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        match (self.peer_addr(), self.local_addr()) {
            // The kernel may give the dial the very port that it dials, if nobody listens there.
            (Ok(peer), Ok(local)) if peer == local => Err(ErrorKind::ConnectionRefused.into()),
            (Ok(_), _) => Ok(true),
            (Err(error), _) if error.kind() == ErrorKind::NotConnected => Ok(false),
            (Err(error), _) => Err(error),
        }
    }

    fn shut_down_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn peer_ip(&self) -> Option<IpAddr> {
        self.peer_addr().ok().map(|address| address.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server may listen at several addresses of its name.
    #[test]
    fn a_listener_that_fails_does_not_keep_the_others_waiting() {
        let listen = || TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (failing, good) = (listen(), listen());
        SockRef::from(&failing).shutdown(Shutdown::Both).unwrap();
        let _client = std::net::TcpStream::connect(good.local_addr().unwrap()).unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let listeners = vec![failing, good];
        let folder = tempfile::tempdir().unwrap();
        let disk = ServerDisk::open(folder.path()).unwrap();
        let mut kernel = MioKernel::new(poll, waker, listeners, Duration::ZERO, disk).unwrap();
        assert!(kernel.accept().unwrap().1.is_loopback());
        assert_ne!(kernel.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
