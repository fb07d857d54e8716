//! Round trips over loopback between the load generator and an echo.

use super::Measured;
use crate::run::driver::drive;
use crate::run::load::Part;
use crate::run::plan::Clients;
use crate::run::protocol::{Event, Parsed, Protocol};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

const TEXT_BYTES: usize = 100;
const CONNECTIONS: usize = 64;
/// Texts outstanding on each connection.
const DEPTH: usize = 16;
const READ_BYTES: usize = 64 * 1024;
/// The measurement fails after this time without an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Times many texts at a time: one thread with a mio loop echoes what it reads, and the load
/// generator drives it like a server.
pub(super) fn time_echo(time: Duration) -> Result<Measured, String> {
    let failed = |error: io::Error| error.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // The thread ends when all connections are closed.
    thread::spawn(move || serve(&listener));
    let clients = Clients { connections: CONNECTIONS, outstanding: DEPTH, ..Clients::default() };
    let protocol = Rc::new(|| -> Box<dyn Protocol> { Box::<Echo>::default() });
    let parts = vec![Part { clients: clients.complete()?, protocol, accounts: None }];
    let spans = [Duration::ZERO, time, TIMEOUT];
    let counts = drive(spans, parts, &[address], &AtomicBool::new(false), &mut |_| ())?.counts;
    let time = Duration::from_nanos(counts.measured);
    Ok(Measured { latencies: counts.latencies, count: counts.acked, time })
}

/// The protocol of the echo: a text is acknowledged when all of its bytes are back.
#[derive(Default)]
struct Echo {
    is_open: bool,
}

impl Protocol for Echo {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[b'x'; TEXT_BYTES]);
    }

    fn request(&mut self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(text);
    }

    fn parse(&mut self, input: &[u8], _out: &mut Vec<u8>, events: &mut Vec<Event>) -> Parsed {
        let texts = input.len() / TEXT_BYTES;
        for _ in 0..texts {
            let is_open = std::mem::replace(&mut self.is_open, true);
            events.push(if is_open { Event::Acked(None) } else { Event::Ready });
        }
        Ok(texts * TEXT_BYTES)
    }
}

fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let (mut events, mut buffer) = (Events::with_capacity(CONNECTIONS), vec![0; READ_BYTES]);
    let mut streams = Vec::new();
    for at in 0..CONNECTIONS {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(at), Interest::READABLE)?;
        streams.push(stream);
    }
    let mut open = streams.len();
    while open > 0 {
        poll.poll(&mut events, Some(TIMEOUT))?;
        for event in &events {
            let stream = &mut streams[event.token().0];
            // Events are edge-triggered: the stream is read until nothing is there.
            loop {
                match stream.read(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Ok(0) | Err(_) => {
                        poll.registry().deregister(stream)?;
                        open -= 1;
                        break;
                    }
                    // Outstanding texts always fit into the socket's buffer. A closed connection
                    // is found by the next read.
                    Ok(bytes) => drop(stream.write_all(&buffer[..bytes])),
                }
            }
        }
    }
    Ok(())
}
