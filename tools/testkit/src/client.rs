//! A text client that sends one request at a time and waits for its answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The account that sends in all measurements.
pub const SENDER: &str = "ann";
/// The account that receives in all measurements. It never logs in, so that no measurement
/// includes the delivery of its messages.
pub const RECEIVER: &str = "box";
/// The password of both.
pub const PASSWORD: &str = "correct-horse";
/// Maximum time to connect, and to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
    line: String,
}

impl Client {
    /// Connects without logging in.
    pub fn connect(server: SocketAddr) -> Result<Client, String> {
        let lost = |error| format!("{server}: {error}");
        let stream = TcpStream::connect_timeout(&server, PATIENCE).map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
        // Measurements hold thousands of clients, and none of their answers is long.
        let reader = BufReader::with_capacity(512, stream);
        Ok(Client { reader, line: String::new() })
    }

    /// Sends a request, and returns the last line of its answer, `OK …` or `ERR …`. Fails if the
    /// connection is lost.
    pub fn ask(&mut self, request: &str) -> Result<&str, String> {
        // One write, so that the request is one segment.
        let bytes = format!("{request}\n");
        let written = self.reader.get_mut().write_all(bytes.as_bytes());
        written.map_err(|error| format!("lost: {error}"))?;
        loop {
            self.line.clear();
            let read = self.reader.read_line(&mut self.line);
            if read.map_err(|error| format!("no answer: {error}"))? == 0 {
                return Err("closed by the server".to_owned());
            }
            if self.line.starts_with("OK") || self.line.starts_with("ERR ") {
                return Ok(self.line.trim_end());
            }
        }
    }

    /// Sends a request that must be answered with `OK`.
    pub fn must(&mut self, request: &str) -> Result<(), String> {
        let answer = self.ask(request)?;
        let is_ok = answer == "OK" || answer.starts_with("OK ");
        if is_ok { Ok(()) } else { Err(format!("{request}: {answer}")) }
    }

    /// Connects and logs in as [`SENDER`], without replaying its mailbox.
    pub fn log_in(server: SocketAddr) -> Result<Client, String> {
        let mut client = Client::connect(server)?;
        client.must(&format!("LOGIN {SENDER} {PASSWORD} end"))?;
        Ok(client)
    }
}

/// Creates the accounts [`SENDER`] and [`RECEIVER`].
pub fn create_accounts(primary: SocketAddr) -> Result<(), String> {
    let mut client = Client::connect(primary)?;
    client.must(&format!("CREATE {SENDER} {PASSWORD}"))?;
    client.must(&format!("CREATE {RECEIVER} {PASSWORD}"))
}

/// Returns the request that sends a text of `bytes` bytes to [`RECEIVER`].
pub fn send(bytes: usize) -> String {
    format!("SEND {RECEIVER} {}", "x".repeat(bytes))
}
