//! A connection to a server: lines in, bytes out, and waiting for both.

use crate::limits::LINE_BYTES_MAX;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};

/// What is read at a time, in bytes.
const READ_BYTES: usize = 64 * 1024;

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
    /// Takes a connection over from `std`.
    pub(super) fn new(
        stream: std::net::TcpStream,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Wire { stream, input: Vec::new(), taken: 0, readable: true })
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
