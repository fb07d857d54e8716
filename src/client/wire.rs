//! A connection to a server: lines in, bytes out, and waiting for both.

use crate::limits::LINE_BYTES_MAX;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// What is read at a time, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Connects to who listens at an address, whoever that is.
///
/// # Errors
/// Nobody listens there, or nobody answers in `patience`.
pub(crate) fn dial(address: SocketAddr, patience: Duration) -> io::Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect_timeout(&address, patience)?;
    if stream.local_addr()? == stream.peer_addr()? {
        // A port that is free may be taken by the call itself: nobody listens there.
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    /// How much of the input is taken.
    taken: usize,
    /// Edge-triggered readiness says once that there is more to read.
    readable: bool,
}

impl Wire {
    /// Connects to the first of a server's addresses where somebody listens.
    pub(super) fn open(
        server: &str,
        patience: Duration,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Wire> {
        let nameless = |why: &str| io::Error::new(ErrorKind::AddrNotAvailable, why);
        let mut last = nameless("the name has no address");
        for address in server.to_socket_addrs().map_err(|why| nameless(&why.to_string()))? {
            match dial(address, patience) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    let mut stream = TcpStream::from_std(stream);
                    let both = Interest::READABLE | Interest::WRITABLE;
                    registry.register(&mut stream, token, both)?;
                    return Ok(Wire { stream, input: Vec::new(), taken: 0, readable: true });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// There may be something to read.
    pub(super) fn on_readable(&mut self) {
        self.readable = true;
    }

    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Sends from the front of `out` what the socket takes.
    pub(super) fn send(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            match self.stream.write(&out[done..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out.drain(..done);
        Ok(())
    }

    /// Reads once; whether something came. The end of the connection is an error.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let before = self.input.len();
        self.input.resize(before + READ_BYTES, 0);
        let read = loop {
            match self.stream.read(&mut self.input[before..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.input.truncate(before + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the next line that is here, without its end.
    pub(super) fn line(&mut self) -> io::Result<Option<&str>> {
        let Some((line, bytes)) = first_line(&self.input[self.taken..])? else { return Ok(None) };
        self.taken += bytes;
        Ok(Some(line))
    }
}

/// Returns the first line of `input` without its end, and how many bytes both have; `None` when
/// its end has not come.
///
/// # Errors
/// When the line is too long, or is no text.
pub(super) fn first_line(input: &[u8]) -> io::Result<Option<(&str, usize)>> {
    let nonsense = |why: &str| Err(io::Error::new(ErrorKind::InvalidData, why));
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return if input.len() < LINE_BYTES_MAX { Ok(None) } else { nonsense("an endless line") };
    };
    match std::str::from_utf8(&input[..end]) {
        Ok(line) => Ok(Some((line.trim_end_matches('\r'), end + 1))),
        Err(_) => nonsense("a line that is no text"),
    }
}
