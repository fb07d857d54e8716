//! The time from the loss of a leader to the next acknowledged message, of any system.

use crate::run::protocol::{Event, Protocol};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Pause after a rejection.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// More than any system needs.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The text of all messages; the load's checker never reads them.
const TEXT: &[u8] =
    b"0.0 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// A blocking client that sends one message at a time.
pub(crate) struct Client<'a> {
    server: SocketAddr,
    new_protocol: &'a (dyn Fn() -> Box<dyn Protocol> + Sync),
    /// The most time of each step: connecting, reading, writing.
    timeout: Duration,
    connection: Option<Connection>,
}

struct Connection {
    stream: TcpStream,
    protocol: Box<dyn Protocol>,
    is_open: bool,
    input: Vec<u8>,
    events: Vec<Event>,
}

impl<'a> Client<'a> {
    /// Creates a client without a connection.
    pub(crate) fn new(
        server: SocketAddr,
        new_protocol: &'a (dyn Fn() -> Box<dyn Protocol> + Sync),
        timeout: Duration,
    ) -> Client<'a> {
        Client { server, new_protocol, timeout, connection: None }
    }

    /// Connects if necessary, sends a message and waits for its acknowledgement. A rejection leaves
    /// the connection open.
    pub(crate) fn store(&mut self, text: &[u8]) -> Result<(), String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().map_err(|error| format!("{}: {error}", self.server))?,
        };
        let (mut out, mut event) = (Vec::new(), Event::Ready);
        if !connection.is_open {
            connection.protocol.open(&mut out);
            event = connection.exchange(&out)?;
            connection.is_open = event == Event::Ready;
            out.clear();
        }
        if connection.is_open {
            connection.protocol.request(text, &mut out);
            connection.protocol.end_batch(&mut out);
            event = connection.exchange(&out)?;
        }
        // A further event says that the connection is of no use any more.
        if connection.events.is_empty() {
            self.connection = Some(connection);
        }
        match event {
            Event::Acked(_) => Ok(()),
            Event::Rejected(code) => Err(code),
            other => Err(format!("instead of an acknowledgement: {other:?}")),
        }
    }

    fn connect(&self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.server, self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let protocol = (self.new_protocol)();
        let (input, events) = (Vec::new(), Vec::new());
        Ok(Connection { stream, protocol, is_open: false, input, events })
    }
}

impl Connection {
    /// Sends a request and returns the first event after it.
    fn exchange(&mut self, request: &[u8]) -> Result<Event, String> {
        let lost = |error| format!("lost: {error}");
        self.stream.write_all(request).map_err(lost)?;
        let mut buffer = [0; 4096];
        let mut out = Vec::new();
        loop {
            let parsed = self.protocol.parse(&self.input, &mut out, &mut self.events)?;
            self.input.drain(..parsed);
            self.stream.write_all(&out).map_err(lost)?;
            out.clear();
            if !self.events.is_empty() {
                return Ok(self.events.remove(0));
            }
            match self.stream.read(&mut buffer).map_err(lost)? {
                0 => return Err("closed by the server".to_owned()),
                read => self.input.extend_from_slice(&buffer[..read]),
            }
        }
    }
}

/// Calls `lose` to lose the leader, and lets a client at each other server send until one of them
/// gets an acknowledgement. Returns the time from the loss until then.
pub(crate) fn next_ack(
    survivors: &[SocketAddr],
    new_protocol: &(dyn Fn() -> Box<dyn Protocol> + Sync),
    timeout: Duration,
    lose: impl FnOnce() -> Result<(), String>,
) -> Result<Duration, String> {
    let began = Instant::now();
    lose()?;
    let done = AtomicBool::new(false);
    let send = |server: SocketAddr| {
        let mut client = Client::new(server, new_protocol, timeout);
        let mut last = "not tried".to_owned();
        while !done.load(Ordering::Relaxed) && began.elapsed() < TIMEOUT {
            match client.store(TEXT) {
                Ok(()) => {
                    let took = began.elapsed();
                    done.store(true, Ordering::Relaxed);
                    return Ok(took);
                }
                Err(why) => last = why,
            }
            thread::sleep(RETRY_INTERVAL);
        }
        Err(format!("{server}: {last}"))
    };
    let ends: Vec<Result<Duration, String>> = thread::scope(|scope| {
        let send = &send;
        let threads: Vec<_> =
            survivors.iter().map(|server| scope.spawn(move || send(*server))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a client panicked".to_owned()))
        };
        threads.into_iter().map(join).collect()
    });
    ends.iter().flatten().min().copied().ok_or_else(|| {
        let last: Vec<String> = ends.into_iter().filter_map(Result::err).collect();
        format!("no takeover in {} s: {}", TIMEOUT.as_secs(), last.join("; "))
    })
}
