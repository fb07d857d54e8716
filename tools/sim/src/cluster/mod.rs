//! Three servers in one thread, without sockets, password hashing or waiting. It measures what a
//! SEND costs in the node and the store, from its line to the bytes of its answer. Packets are
//! encoded, but not encrypted. Disks are in memory. Equal calls execute equal instructions.

mod links;
mod server;

use links::Links;
use postern::frontend::Request;
use postern::ids::{ServerId, SessionId};
use postern::node::Input;
use postern::time::Moment;
use server::Server;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// The time of a round of turns on the clock of the servers.
const ROUND_TIME: Duration = Duration::from_micros(100);
/// The most rounds to wait for something.
const ROUNDS_MAX: usize = 100_000;
/// The first session number. Links have lower ones.
const SESSIONS_FROM: u64 = 1_000_000;
/// The receiver of all messages.
const RECEIVER: &str = "box";
const PASSWORD: &str = "correct-horse";

/// The group, and the clients of its primary.
pub struct Cluster {
    servers: Vec<Server>,
    links: Links,
    now: Moment,
    primary: usize,
    sessions: Vec<SessionId>,
    answers: Vec<u8>,
    sent: u64,
}

impl Cluster {
    /// Creates a group of three members with `clients` clients that are logged in.
    ///
    /// # Errors
    /// The group does not form, or refuses a request.
    pub fn new(clients: usize) -> Result<Cluster, String> {
        let servers = ServerId::all(3).map(Server::start).collect::<Result<Vec<_>, _>>()?;
        let mut cluster = Cluster {
            servers,
            links: Links::default(),
            now: Moment(0),
            primary: 0,
            sessions: Vec::new(),
            answers: Vec::new(),
            sent: 0,
        };
        cluster.form()?;
        let admin = cluster.open(0)?;
        cluster.ask(admin, &format!("CREATE {RECEIVER} {PASSWORD}"))?;
        for n in 1..=clients as u64 {
            cluster.ask(admin, &format!("CREATE user{n} {PASSWORD}"))?;
            let session = cluster.open(n)?;
            cluster.ask(session, &format!("LOGIN user{n} {PASSWORD} end"))?;
            cluster.sessions.push(session);
        }
        Ok(cluster)
    }

    /// Returns a SEND with a text of `bytes` bytes, without the line end.
    pub fn request(bytes: usize) -> Vec<u8> {
        format!("SEND {RECEIVER} {}", "x".repeat(bytes)).into_bytes()
    }

    /// Every client sends this request in the same turn. Waits for all answers.
    ///
    /// # Errors
    /// An answer is missing or unexpected.
    pub fn batch(&mut self, request: &[u8]) -> Result<(), String> {
        self.answers.clear();
        for session in &self.sessions {
            let primary = &mut self.servers[self.primary];
            primary.handle(
                self.now,
                &mut self.links,
                Input::Request(*session, Request::Line(request)),
            )?;
        }
        self.turn(self.primary)?;
        let count = self.sessions.len();
        let mut rounds = 0..ROUNDS_MAX;
        // An answer has at least five bytes.
        while self.answers.len() < 5 * count || answers(&self.answers).count() < count {
            rounds.next().ok_or("a batch is not answered")?;
            self.round(false)?;
        }
        self.sent += count as u64;
        // Answers arrive in the order of the log, so the last number proves that none is missing.
        match answers(&self.answers).next_back() {
            Some(last) if last == format!("OK {}", self.sent) => Ok(()),
            last => Err(format!("request {} is answered: {last:?}", self.sent)),
        }
    }

    /// Waits until a server is primary of all three.
    fn form(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            self.round(true)?;
            if let Some(at) = self.servers.iter().position(Server::is_open_primary) {
                self.primary = at;
                return Ok(());
            }
        }
        Err("no server is primary of three members".to_owned())
    }

    fn open(&mut self, n: u64) -> Result<SessionId, String> {
        let session = SessionId(SESSIONS_FROM + n);
        let from = IpAddr::from(Ipv6Addr::from_bits(u128::from(n + 1) << 64));
        let opened = Input::Opened(session, from.into());
        self.servers[self.primary].handle(self.now, &mut self.links, opened)?;
        Ok(session)
    }

    /// Sends a request that must succeed.
    fn ask(&mut self, session: SessionId, line: &str) -> Result<(), String> {
        self.answers.clear();
        let line = Input::Request(session, Request::Line(line.as_bytes()));
        self.servers[self.primary].handle(self.now, &mut self.links, line)?;
        for _ in 0..ROUNDS_MAX {
            self.round(true)?;
            match answers(&self.answers).next() {
                None => {}
                Some(answer) if answer.starts_with("OK") => return Ok(()),
                Some(answer) => return Err(answer.to_owned()),
            }
        }
        Err("a request is not answered".to_owned())
    }

    /// Runs a turn of every server that has work, or of all.
    fn round(&mut self, all: bool) -> Result<(), String> {
        self.now += ROUND_TIME;
        for (at, id) in ServerId::all(3).enumerate() {
            if all || self.links.has_packets(id) || self.servers[at].is_due(self.now) {
                self.turn(at)?;
            }
        }
        Ok(())
    }

    fn turn(&mut self, at: usize) -> Result<(), String> {
        self.servers[at].turn(self.now, &mut self.links, &mut self.answers)
    }
}

/// Returns the complete lines.
fn answers(bytes: &[u8]) -> impl DoubleEndedIterator<Item = &str> {
    let complete = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    std::str::from_utf8(&bytes[..complete]).unwrap_or_default().lines()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_gets_its_number() {
        let mut cluster = Cluster::new(64).unwrap();
        let request = Cluster::request(100);
        for _ in 0..10 {
            cluster.batch(&request).unwrap();
        }
        assert_eq!(cluster.sent, 640);
        assert_eq!(answers(&cluster.answers).next(), Some("OK 577"));
        cluster.batch(b"SEND nobody hi").unwrap_err();
    }
}
