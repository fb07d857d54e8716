//! How often texts can go to another thread and back over TCP.

use super::Measured;
use mio::net::TcpStream as PolledStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const TEXT_BYTES: usize = 100;
const CONNECTIONS: usize = 64;
/// Texts under way on each connection.
const DEPTH: usize = 16;
const READ_BYTES: usize = 64 * 1024;
/// After so long without an event something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Both ends of so many connections.
fn connect(count: usize) -> io::Result<Vec<(TcpStream, TcpStream)>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let one = |_| {
        let near = TcpStream::connect(address)?;
        let (far, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        Ok((near, far))
    };
    (0..count).map(one).collect()
}

/// One text at a time, by two threads that wait for each other.
pub(super) fn time_round_trips(time: Duration) -> Result<Measured, String> {
    let failed = |error: io::Error| error.to_string();
    let (mut near, far) = connect(1).map_err(failed)?.remove(0);
    let (began, mut samples) = (Instant::now(), Vec::new());
    near.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    thread::scope(|scope| {
        let echo = scope.spawn(move || echo(far));
        let mut buffer = [b'x'; TEXT_BYTES];
        let mut trip = || near.write_all(&buffer).and_then(|()| near.read_exact(&mut buffer));
        while began.elapsed() < time {
            let start = Instant::now();
            trip()?;
            samples.push(start.elapsed());
        }
        drop(near);
        echo.join().map_err(|_| io::Error::other("the echo panicked"))
    })
    .map_err(failed)?;
    Ok(Measured { count: samples.len() as u64, samples, time: began.elapsed() })
}

/// Ends when the other side does.
fn echo(mut stream: TcpStream) {
    let mut buffer = [0; TEXT_BYTES];
    while stream.read_exact(&mut buffer).and_then(|()| stream.write_all(&buffer)).is_ok() {}
}

/// Many texts at a time: one thread echoes whatever it reads and does nothing else, another one
/// keeps it busy. A sample is of the texts that came back with one read.
pub(super) fn time_echo(time: Duration) -> Result<Measured, String> {
    let (near, far): (Vec<_>, Vec<_>) =
        connect(CONNECTIONS).map_err(|error| error.to_string())?.into_iter().unzip();
    thread::scope(|scope| {
        let server = scope.spawn(move || serve(far));
        // The server ends when its clients have, even if they fail.
        let measured = drive(near, time);
        server.join().map_err(|_| io::Error::other("the echo panicked"))??;
        measured
    })
    .map_err(|error| error.to_string())
}

/// Registers each stream under its place.
fn register(streams: Vec<TcpStream>) -> io::Result<(Poll, Vec<PolledStream>)> {
    let poll = Poll::new()?;
    let polled = |(at, stream): (usize, TcpStream)| {
        stream.set_nonblocking(true)?;
        let mut stream = PolledStream::from_std(stream);
        poll.registry().register(&mut stream, Token(at), Interest::READABLE)?;
        Ok(stream)
    };
    let streams = streams.into_iter().enumerate().map(polled).collect::<io::Result<Vec<_>>>()?;
    Ok((poll, streams))
}

/// Reads what is there, once; `None` when there is nothing now. Events tell of changes only, so
/// that each is followed by reads until then.
fn read(stream: &mut PolledStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    match stream.read(into) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        read => read.map(Some),
    }
}

fn wait(poll: &mut Poll, events: &mut Events) -> io::Result<()> {
    match poll.poll(events, Some(PATIENCE)) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
        Ok(()) if events.is_empty() => Err(ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

fn serve(streams: Vec<TcpStream>) -> io::Result<()> {
    let mut open = streams.len();
    let (mut poll, mut streams) = register(streams)?;
    let (mut events, mut buffer) = (Events::with_capacity(CONNECTIONS), vec![0; READ_BYTES]);
    while open > 0 {
        wait(&mut poll, &mut events)?;
        for event in &events {
            let stream = &mut streams[event.token().0];
            loop {
                match read(stream, &mut buffer) {
                    Ok(None) => break,
                    // A client that ends with answers under way resets its connection.
                    Ok(Some(0)) | Err(_) => {
                        poll.registry().deregister(stream)?;
                        open -= 1;
                        break;
                    }
                    // What is under way on a connection always fits into its buffer. If the
                    // client is gone, the next read says so.
                    Ok(Some(bytes)) => drop(stream.write_all(&buffer[..bytes])),
                }
            }
        }
    }
    Ok(())
}

/// One connection of the client.
#[derive(Default)]
struct Under {
    /// When texts were sent, and how many bytes of them have not come back.
    way: VecDeque<(Instant, usize)>,
}

impl Under {
    fn sent(&mut self, now: Instant, texts: usize) {
        self.way.push_back((now, texts * TEXT_BYTES));
    }

    /// Takes bytes off in the order in which they were sent; when the oldest of them were sent.
    fn came_back(&mut self, mut bytes: usize) -> Option<Instant> {
        let since = self.way.front().map(|(at, _)| *at);
        while bytes > 0
            && let Some((_, left)) = self.way.front_mut()
        {
            let taken = bytes.min(*left);
            *left -= taken;
            bytes -= taken;
            if *left == 0 {
                self.way.pop_front();
            }
        }
        since
    }
}

fn drive(streams: Vec<TcpStream>, time: Duration) -> io::Result<Measured> {
    let (mut poll, mut streams) = register(streams)?;
    let (mut events, mut buffer) = (Events::with_capacity(CONNECTIONS), vec![0; READ_BYTES]);
    let texts = [b'x'; DEPTH * TEXT_BYTES];
    let began = Instant::now();
    let mut under: Vec<Under> = streams.iter().map(|_| Under::default()).collect();
    let mut parts = vec![0; streams.len()];
    for (stream, under) in streams.iter_mut().zip(&mut under) {
        stream.write_all(&texts)?;
        under.sent(began, DEPTH);
    }
    let mut measured = Measured::default();
    while began.elapsed() < time {
        wait(&mut poll, &mut events)?;
        for event in &events {
            let at = event.token().0;
            while let Some(bytes) = read(&mut streams[at], &mut buffer)? {
                if bytes == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                let now = Instant::now();
                measured.samples.extend(under[at].came_back(bytes).map(|since| now - since));
                let whole = (parts[at] + bytes) / TEXT_BYTES;
                parts[at] = (parts[at] + bytes) % TEXT_BYTES;
                measured.count += whole as u64;
                if whole > 0 {
                    streams[at].write_all(&texts[..whole * TEXT_BYTES])?;
                    under[at].sent(now, whole);
                }
            }
        }
    }
    measured.time = began.elapsed();
    Ok(measured)
}
