//! A client of any system that waits for each answer.

use crate::run::dialect::{Dialect, Heard};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection, on which one message at a time is sent.
pub(crate) struct Asker {
    stream: TcpStream,
    dialect: Box<dyn Dialect>,
    input: Vec<u8>,
    heard: Vec<Heard>,
}

impl Asker {
    /// Connects, and is greeted. Each step, here and later, may take as long as `patience`.
    ///
    /// # Errors
    /// The server can't be reached, or wants nothing of this client.
    pub(crate) fn connect(
        server: SocketAddr,
        dialect: Box<dyn Dialect>,
        patience: Duration,
    ) -> Result<Asker, String> {
        let failed = |error| format!("{server}: {error}");
        let stream = TcpStream::connect_timeout(&server, patience).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(patience)).map_err(failed)?;
        stream.set_write_timeout(Some(patience)).map_err(failed)?;
        let mut asker = Asker { stream, dialect, input: Vec::new(), heard: Vec::new() };
        let mut greeting = Vec::new();
        asker.dialect.greet(&mut greeting);
        match asker.exchange(&greeting)? {
            Heard::Ready => Ok(asker),
            other => Err(format!("{server}: instead of a greeting: {other:?}")),
        }
    }

    /// Sends a message and waits until it is safe, or refused: then the code of that.
    ///
    /// # Errors
    /// The connection is lost, and what became of the message is not known.
    pub(crate) fn store(&mut self, text: &[u8]) -> Result<Result<(), String>, String> {
        let mut request = Vec::new();
        self.dialect.request(text, &mut request);
        self.dialect.end_burst(&mut request);
        match self.exchange(&request)? {
            Heard::Acked(_) => Ok(Ok(())),
            Heard::Refused(code) => Ok(Err(code)),
            other => Err(format!("instead of an acknowledgement: {other:?}")),
        }
    }

    /// The first that is heard after something was said.
    fn exchange(&mut self, said: &[u8]) -> Result<Heard, String> {
        let lost = |error| format!("lost: {error}");
        self.stream.write_all(said).map_err(lost)?;
        let mut buffer = [0; 4096];
        let mut out = Vec::new();
        loop {
            let taken = self.dialect.take(&self.input, &mut out, &mut self.heard)?;
            self.input.drain(..taken);
            if !out.is_empty() {
                self.stream.write_all(&out).map_err(lost)?;
                out.clear();
            }
            if !self.heard.is_empty() {
                return Ok(self.heard.remove(0));
            }
            let read = self.stream.read(&mut buffer).map_err(lost)?;
            if read == 0 {
                return Err("closed by the server".to_owned());
            }
            self.input.extend_from_slice(&buffer[..read]);
        }
    }
}
