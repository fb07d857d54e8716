//! Redis: a master and two replicas that sync their append-only files, and three sentinels.

use super::System;
use super::lines::{Split, parse_each, split_body, split_line};
use super::servers::{Servers, fetch};
use crate::run::postern::invalid_answer;
use crate::run::protocol::{Event, Parsed, Protocol};
use postern_testkit::group::{SERVERS, draw_addresses};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

/// `WAIT` after each message.
pub(crate) const PER_MESSAGE: System = System {
    key: "redis",
    name: "redis",
    variant: "a WAIT per message",
    program: "redis-server",
    version: "--version",
    meaning: "`XADD` and `WAIT 2 1000`, `appendfsync always`: on three disks, the replicas' after \
              the master's. Less: what a `WAIT` refuses is stored all the same, and redis does \
              not promise that a failover keeps what a `WAIT` has confirmed",
    start,
    protocol: |at| Box::new(Redis::new(at, BOTH, false)),
    survivor: Some(|at| Box::new(Redis::new(at, BOTH - 1, false))),
};

/// One `WAIT` for all messages of a batch.
pub(crate) const PER_BATCH: System = System {
    key: "redis-batch",
    variant: "a WAIT per batch",
    meaning: "the same, asked once for all messages that a connection sends together",
    protocol: |at| Box::new(Redis::new(at, BOTH, true)),
    survivor: None,
    ..PER_MESSAGE
};

/// Both replicas: with the master, the message is on three disks.
const BOTH: i64 = 2;
/// The sentinels' name of the group.
const GROUP: &str = "box";
const DOWN_AFTER_MS: u32 = 1000;

fn start(program: &Path, folder: TempDir) -> Result<Servers, String> {
    let addresses: [SocketAddr; SERVERS] = draw_addresses()?;
    let sentinels: [SocketAddr; SERVERS] = draw_addresses()?;
    let mut servers = Servers::new(folder, &addresses);
    let (master, master_port) = (addresses[0].ip(), addresses[0].port());
    let info = |server: SocketAddr, section: &str| {
        fetch(server, format!("INFO {section}\r\n").as_bytes(), whole_bulk)
    };
    for (at, address) in addresses.iter().enumerate() {
        let replica = format!("replicaof {master} {master_port}\n");
        let role = if at > 0 { &replica } else { "" };
        let settings = format!(
            "appendonly yes\nappendfsync always\nsave \"\"\nrepl-diskless-sync-delay 0\n\
             replica-announce-ip {}\n{role}",
            address.ip(),
        );
        start_one(&mut servers, program, &format!("redis{}", at + 1), *address, &settings)?;
    }
    servers.wait_for("both replicas online", || {
        let text = info(addresses[0], "replication")?;
        let online = text.lines().filter(|line| line.contains(",state=online,")).count();
        Ok((online == SERVERS - 1).then_some(()))
    })?;
    for (at, address) in sentinels.iter().enumerate() {
        let settings = format!(
            "sentinel announce-ip {}\nsentinel monitor {GROUP} {master} {master_port} 2\n\
             sentinel down-after-milliseconds {GROUP} {DOWN_AFTER_MS}\n",
            address.ip(),
        );
        start_one(&mut servers, program, &format!("sentinel{}", at + 1), *address, &settings)?;
    }
    servers.wait_for("three connected sentinels", || {
        for sentinel in sentinels {
            let text = info(sentinel, "sentinel")?;
            if !text.contains("status=ok") || !text.contains(",slaves=2,sentinels=3") {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    Ok(servers)
}

/// Starts a server or a sentinel, which its name decides.
fn start_one(
    servers: &mut Servers,
    program: &Path,
    name: &str,
    address: SocketAddr,
    settings: &str,
) -> Result<(), String> {
    let data = servers.make_folder(name)?.display().to_string();
    let (ip, port) = (address.ip(), address.port());
    let settings = format!("bind {ip}\nport {port}\ndir \"{data}\"\n{settings}");
    let settings = servers.write(&format!("{name}.conf"), &settings)?.display().to_string();
    let sentinel = name.starts_with("sentinel").then(|| "--sentinel".to_owned());
    servers.start(name, program, &[settings].into_iter().chain(sentinel).collect::<Vec<_>>())
}

/// Returns the text of a bulk reply.
fn whole_bulk(answer: &[u8]) -> Result<Option<String>, String> {
    match reply(answer)? {
        Some((Reply::Bulk(body), _)) => Ok(Some(String::from_utf8_lossy(body).into_owned())),
        Some((other, _)) => Err(format!("invalid-answer {other:?}")),
        None => Ok(None),
    }
}

/// One connection with its own stream.
struct Redis {
    /// The constant part of `XADD`.
    add: Vec<u8>,
    wait: Vec<u8>,
    copies: i64,
    /// Whether one `WAIT` confirms a whole batch.
    batches: bool,
    /// Whether the current batch has a message.
    pending: bool,
    /// The commands without a reply.
    sent: VecDeque<Command>,
    /// The messages whose `WAIT` has no reply: the error code of their `XADD`, if any.
    added: Vec<Option<String>>,
}

#[derive(Clone, Copy)]
enum Command {
    Ping,
    Add,
    Wait,
}

impl Redis {
    fn new(connection: usize, copies: i64, batches: bool) -> Redis {
        let key = format!("box{connection}");
        let add =
            format!("*5\r\n$4\r\nXADD\r\n${}\r\n{key}\r\n$1\r\n*\r\n$1\r\nt\r\n$", key.len(),);
        let wait = format!("*3\r\n$4\r\nWAIT\r\n$1\r\n{copies}\r\n$4\r\n1000\r\n");
        Redis {
            add: add.into_bytes(),
            wait: wait.into_bytes(),
            copies,
            batches,
            pending: false,
            sent: VecDeque::new(),
            added: Vec::new(),
        }
    }

    fn wait(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.wait);
        self.sent.push_back(Command::Wait);
    }

    fn handle(&mut self, reply: &Reply<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        let command = self.sent.pop_front().ok_or("invalid-answer without a command")?;
        match (command, reply) {
            (Command::Ping, Reply::Line("PONG")) => events.push(Event::Ready),
            (Command::Add, Reply::Bulk(_)) => self.added.push(None),
            (Command::Add, Reply::Error(why)) => self.added.push(Some(code(why))),
            (Command::Wait, Reply::Integer(copies)) if *copies >= self.copies => {
                let acked = |error| match error {
                    None => Event::Acked(None),
                    Some(code) => Event::Rejected(code),
                };
                events.extend(self.added.drain(..).map(acked));
            }
            (Command::Wait, Reply::Integer(copies)) => {
                self.reject(&format!("copies-{copies}"), events);
            }
            (Command::Wait, Reply::Error(why)) => self.reject(&code(why), events),
            (_, other) => return Err(format!("invalid-answer {other:?}")),
        }
        Ok(())
    }

    /// Rejects all messages of a `WAIT`; a failed `XADD` has its own code.
    fn reject(&mut self, code: &str, events: &mut Vec<Event>) {
        let rejected = |error: Option<String>| Event::Rejected(error.unwrap_or(code.to_owned()));
        events.extend(self.added.drain(..).map(rejected));
    }
}

impl Protocol for Redis {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        self.sent.push_back(Command::Ping);
    }

    fn request(&mut self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.add);
        out.extend_from_slice(text.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
        self.sent.push_back(Command::Add);
        if self.batches {
            self.pending = true;
        } else {
            self.wait(out);
        }
    }

    fn end_batch(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.pending) {
            self.wait(out);
        }
    }

    fn parse(&mut self, input: &[u8], _out: &mut Vec<u8>, events: &mut Vec<Event>) -> Parsed {
        parse_each(input, reply, |one| self.handle(&one, events))
    }
}

/// Returns the first word of an error.
fn code(why: &str) -> String {
    why.split(' ').next().unwrap_or_default().to_lowercase()
}

#[derive(Debug, PartialEq, Eq)]
enum Reply<'a> {
    Line(&'a str),
    Error(&'a str),
    Integer(i64),
    Bulk(&'a [u8]),
}

/// Splits off the first reply.
fn reply(input: &[u8]) -> Split<'_, Reply<'_>> {
    let Some((line, rest)) = split_line(input)? else { return Ok(None) };
    let invalid = || invalid_answer(line.as_bytes());
    let (kind, value) = line.split_at_checked(1).ok_or_else(invalid)?;
    let reply = match kind {
        "+" => Reply::Line(value),
        "-" => Reply::Error(value),
        ":" => Reply::Integer(value.parse().map_err(|_| invalid())?),
        "$" => {
            let length = value.parse().map_err(|_| invalid())?;
            let Some((body, rest)) = split_body(rest, length)? else { return Ok(None) };
            return Ok(Some((Reply::Bulk(body), rest)));
        }
        _ => return Err(invalid()),
    };
    Ok(Some((reply, rest)))
}
