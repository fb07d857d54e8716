//! Connects to a server by name within a time limit. The resolver may be silent, a name may have
//! several addresses, and some of them may be unreachable.

use crate::address;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the attempt at an address may take before the attempt at the next one starts (RFC 8305
/// calls it the connection attempt delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long the result of a lookup is used before a new lookup starts.
const FRESH_TIME: Duration = Duration::from_secs(1);

/// Why there is no connection to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// The name of the server has no address, according to the resolver.
    NoName(String),
    /// The resolver did not answer in time.
    NoResolver,
    /// The machine refused the connection: no process listens.
    Refused,
    /// No answer came in time.
    NoAnswer,
    /// Another error.
    Failed(String),
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreached::NoName(why) => write!(f, "no such name ({why})"),
            Unreached::NoResolver => f.write_str("the resolver does not answer"),
            Unreached::Refused => f.write_str("refused"),
            Unreached::NoAnswer => f.write_str("no answer"),
            Unreached::Failed(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Unreached {
    fn from(error: io::Error) -> Unreached {
        match error.kind() {
            ErrorKind::ConnectionRefused => Unreached::Refused,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Unreached::NoAnswer,
            _ => Unreached::Failed(error.to_string()),
        }
    }
}

/// Looks a server up and connects to the first of its addresses that answers, all within
/// `patience`.
///
/// # Errors
/// See [`Unreached`].
pub fn dial(server: &str, patience: Duration) -> Result<TcpStream, Unreached> {
    let until = Instant::now() + patience;
    let addresses = Lookups::default().addresses(server, patience)?;
    connect(&addresses, until.saturating_duration_since(Instant::now()))
}

/// Connects to the first of these addresses that answers in time. The attempts run in parallel,
/// and each starts `ATTEMPT_DELAY` after the one before, or when an attempt fails.
pub(super) fn connect(
    addresses: &[SocketAddr],
    patience: Duration,
) -> Result<TcpStream, Unreached> {
    let until = Instant::now() + patience;
    if let [address] = addresses {
        return connect_to(*address, patience).map_err(Unreached::from);
    }
    let (sender, outcomes) = channel();
    let mut waiting = addresses.iter();
    let mut failures = Vec::new();
    let mut begun = 0;
    loop {
        if let Some(&address) = waiting.next() {
            let sender = sender.clone();
            let left = until.saturating_duration_since(Instant::now());
            let attempt = move || drop(sender.send(connect_to(address, left)));
            let thread = thread::Builder::new().name("dial".to_owned()).spawn(attempt);
            thread.map_err(|error| Unreached::Failed(error.to_string()))?;
            begun += 1;
        }
        if failures.len() == begun {
            break;
        }
        let left = until.saturating_duration_since(Instant::now());
        let pause = if waiting.len() > 0 { left.min(ATTEMPT_DELAY) } else { left };
        match outcomes.recv_timeout(pause) {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failures.push(Unreached::from(error)),
            Err(RecvTimeoutError::Timeout) if left > pause => {}
            Err(_) => return Err(Unreached::NoAnswer),
        }
    }
    // A failure other than a refusal says more about what to fix.
    let other = failures.iter().position(|failure| *failure != Unreached::Refused).unwrap_or(0);
    let none = || Unreached::NoName("it has no address".to_owned());
    Err(failures.into_iter().nth(other).unwrap_or_else(none))
}

fn connect_to(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    if patience.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    let stream = TcpStream::connect_timeout(&address, patience)?;
    if stream.local_addr()? == stream.peer_addr()? {
        // The dial may pick the destination port as its own source port and connect to itself; no
        // server listens there.
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Looks names up, each on its own thread, since a resolver may take ten seconds to fail.
#[derive(Clone, Debug, Default)]
pub(super) struct Lookups(Arc<(Mutex<HashMap<String, Lookup>>, Condvar)>);

#[derive(Debug, Default)]
struct Lookup {
    under_way: bool,
    /// When the last lookup ended.
    ended: Option<Instant>,
    /// The result of the last successful lookup; while none was successful, that of the last one.
    result: Option<Result<Vec<SocketAddr>, String>>,
}

impl Lookup {
    fn end(&mut self, result: Result<Vec<SocketAddr>, String>) {
        (self.under_way, self.ended) = (false, Some(Instant::now()));
        if result.is_ok() || !matches!(self.result, Some(Ok(_))) {
            self.result = Some(result);
        }
    }
}

impl Lookups {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Lookup>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a lookup of a name, unless `server` is a literal address, the last result is fresh,
    /// or a lookup is running.
    pub(super) fn begin(&self, server: &str) {
        let mut all = self.all();
        let lookup = all.entry(server.to_owned()).or_default();
        let is_fresh = lookup.ended.is_some_and(|at| at.elapsed() < FRESH_TIME);
        if lookup.under_way || is_fresh || address::literal(server).is_some() {
            return;
        }
        let (lookups, server) = (self.clone(), server.to_owned());
        let look = move || {
            let found = address::look_up(&server);
            lookups.all().entry(server).or_default().end(found);
            lookups.0.1.notify_all();
        };
        match thread::Builder::new().name("lookup".to_owned()).spawn(look) {
            Ok(_) => lookup.under_way = true,
            Err(error) => lookup.end(Err(error.to_string())),
        }
    }

    /// Returns the addresses of a server. The result of an earlier lookup, also a failure, counts
    /// until a newer one has ended. Waits only for the first lookup, at most `patience`.
    pub(super) fn addresses(
        &self,
        server: &str,
        patience: Duration,
    ) -> Result<Vec<SocketAddr>, Unreached> {
        if let Some(address) = address::literal(server) {
            return Ok(vec![address]);
        }
        self.begin(server);
        let waits = |all: &mut HashMap<String, Lookup>| {
            all.get(server).is_some_and(|lookup| lookup.under_way && lookup.result.is_none())
        };
        let waited = self.0.1.wait_timeout_while(self.all(), patience, waits);
        let all = waited.unwrap_or_else(PoisonError::into_inner).0;
        match all.get(server).and_then(|lookup| lookup.result.clone()) {
            Some(result) => result.map_err(Unreached::NoName),
            None => Err(Unreached::NoResolver),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn all_addresses_of_a_name_are_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listens = listener.local_addr().unwrap();
        let refuses = {
            let gone = TcpListener::bind("127.0.0.1:0").unwrap();
            gone.local_addr().unwrap()
        };
        let patience = Duration::from_secs(20);
        for addresses in [&[listens][..], &[refuses, listens], &[listens, refuses]] {
            let stream = connect(addresses, patience).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), listens);
        }
        let refused = connect(&[refuses, refuses], patience).unwrap_err();
        assert_eq!(refused, Unreached::Refused);
        assert!(matches!(connect(&[], patience), Err(Unreached::NoName(_))));
    }

    #[test]
    fn a_name_without_an_address_is_told_from_a_silent_resolver() {
        let lookups = Lookups::default();
        let found = lookups.addresses("localhost:5001", Duration::from_secs(20)).unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 5001));
        assert_eq!(lookups.addresses("[::1]:7", Duration::ZERO).unwrap().len(), 1);
        // A lookup that started and never ended.
        lookups
            .all()
            .insert("lab1:5001".to_owned(), Lookup { under_way: true, ..Lookup::default() });
        let silent = lookups.addresses("lab1:5001", Duration::from_millis(1)).unwrap_err();
        assert_eq!(silent, Unreached::NoResolver);
    }
}
