//! A text client that waits for each answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Who sends in all measurements.
pub const SENDER: &str = "ann";
/// Who is sent to, and never logged in: nobody has to be shown what is measured.
pub const RECEIVER: &str = "box";
/// The password of both.
pub const PASSWORD: &str = "correct-horse";
/// After this time without an answer a measurement has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
    line: String,
    /// The server said why it closes the connection.
    noted: bool,
}

impl Client {
    /// Connects, and says nothing.
    pub fn connect(server: SocketAddr) -> Result<Client, String> {
        let lost = |error| format!("{server}: {error}");
        let stream = TcpStream::connect_timeout(&server, PATIENCE).map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
        // A request is short, and so is every answer but a mailbox, which nobody asks for here.
        Ok(Client {
            reader: BufReader::with_capacity(512, stream),
            line: String::new(),
            noted: false,
        })
    }

    /// The last line of the answer to a request: `OK` or `ERR` and what follows.
    ///
    /// # Errors
    /// The connection is lost.
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
            self.noted |= self.line.starts_with("NOTE ");
            if self.line.starts_with("OK") || self.line.starts_with("ERR ") {
                return Ok(self.line.trim_end());
            }
        }
    }

    /// Whether the server said goodbye: it has taken nothing behind that.
    pub fn was_told(&self) -> bool {
        self.noted
    }

    /// Asks for what must be granted.
    pub fn must(&mut self, request: &str) -> Result<(), String> {
        let answer = self.ask(request)?;
        if is_ok(answer) { Ok(()) } else { Err(format!("{request}: {answer}")) }
    }

    /// A new session of the sender.
    pub fn log_in(server: SocketAddr) -> Result<Client, String> {
        let mut client = Client::connect(server)?;
        client.must(&login())?;
        Ok(client)
    }
}

/// Whether an answer is a good one.
pub fn is_ok(answer: &str) -> bool {
    answer == "OK" || answer.starts_with("OK ")
}

/// Makes both accounts.
pub fn create_accounts(primary: SocketAddr) -> Result<(), String> {
    let mut client = Client::connect(primary)?;
    client.must(&format!("CREATE {SENDER} {PASSWORD}"))?;
    client.must(&format!("CREATE {RECEIVER} {PASSWORD}"))
}

/// The request of the sender's session.
pub fn login() -> String {
    format!("LOGIN {SENDER} {PASSWORD} end")
}

/// The request that puts a text of so many bytes into the receiver's mailbox.
pub fn send(bytes: usize) -> String {
    format!("SEND {RECEIVER} {}", "x".repeat(bytes))
}
