//! The bytes of one connection.

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// A socket that never blocks, with its buffers.
pub(crate) struct Socket {
    stream: TcpStream,
    /// The beginning of an incomplete answer.
    rest: Vec<u8>,
    /// Bytes to send, of which the first `sent` are sent.
    pub(crate) output: Vec<u8>,
    sent: usize,
}

impl Socket {
    /// Begins to connect. Events are edge-triggered, in both directions.
    pub(crate) fn dial(
        server: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Socket> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Socket { stream, rest: Vec::new(), output: Vec::new(), sent: 0 })
    }

    /// Reads once, at most `most` bytes, and calls `parse` with all unparsed bytes; it returns how
    /// many it has parsed. Returns how many were read; `None` if nothing is there.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        most: usize,
        mut parse: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, String>,
    ) -> Result<Option<usize>, String> {
        let kept = self.rest.len();
        scratch[..kept].copy_from_slice(&self.rest);
        let end = scratch.len().min(kept.saturating_add(most));
        let read = match self.stream.read(&mut scratch[kept..end]) {
            Ok(0) => return Err("closed by the server".to_owned()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Some(0)),
            Err(error) => return Err(code(&error)),
        };
        let all = &scratch[..kept + read];
        let parsed = parse(all, &mut self.output)?;
        self.rest.clear();
        self.rest.extend_from_slice(&all[parsed..]);
        if self.rest.len() >= scratch.len() / 2 {
            return Err("endless-answer".to_owned());
        }
        Ok(Some(read))
    }

    /// Sends until the socket blocks.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::NotConnected => return Ok(()),
                    ErrorKind::Interrupted => {}
                    _ => return Err(code(&error)),
                },
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Returns the code by which an error is counted.
pub(crate) fn code(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection-refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "connection-reset".to_owned(),
        _ => format!("socket {error}"),
    }
}
