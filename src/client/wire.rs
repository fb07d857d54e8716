//! A connection to a server that reads lines and writes bytes without blocking.

use crate::limits::LINE_BYTES_MAX;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};

/// How many bytes are read at a time.
const READ_BYTES: usize = 64 * 1024;

/// An open connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    pub(super) input: Input,
    /// Whether there may be more to read. Readiness is edge-triggered: it is reported only once.
    pub(super) readable: bool,
}

/// The bytes that a server has sent.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// How many of `bytes` are consumed.
    taken: usize,
}

impl Wire {
    /// Creates a connection from a stream of `std`.
    pub(super) fn new(
        stream: std::net::TcpStream,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Wire { stream, input: Input::default(), readable: true })
    }

    /// Sends from the front of `out` what the socket accepts.
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

    /// Reads once, and returns whether any bytes came. The end of the connection is an error.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let input = self.input.rest();
        let before = input.len();
        input.resize(before + READ_BYTES, 0);
        let read = loop {
            match self.stream.read(&mut input[before..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        input.truncate(before + read.as_ref().map_or(0, |count| *count));
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
}

impl Input {
    /// Drops the consumed bytes, and returns the others, to which more may be appended.
    pub(super) fn rest(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        &mut self.bytes
    }

    /// Returns how many bytes are not consumed.
    #[cfg(feature = "simulate")]
    pub(super) fn unfinished(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Consumes and returns the next complete line, without its end.
    ///
    /// # Errors
    /// When the line is too long, or is not UTF-8.
    pub(super) fn line(&mut self) -> io::Result<Option<&str>> {
        let nonsense = |why: &str| Err(io::Error::new(ErrorKind::InvalidData, why));
        let rest = &self.bytes[self.taken..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return if rest.len() < LINE_BYTES_MAX {
                Ok(None)
            } else {
                nonsense("an endless line")
            };
        };
        self.taken += end + 1;
        match std::str::from_utf8(&rest[..end]) {
            Ok(line) => Ok(Some(line.trim_end_matches('\r'))),
            Err(_) => nonsense("a line that is no text"),
        }
    }
}
