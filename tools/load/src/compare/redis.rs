//! Redis: a master and two replicas that sync their append-only files, with three sentinels.

use super::lines::{Split, split_body, split_line, strange, take_each, text};
use super::peer::Peer;
use super::servers::{Servers, fetch};
use crate::run::dialect::{Dialect, Heard};
use postern_testkit::group::{SERVERS, draw_addresses};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

/// `WAIT` after each message.
pub(crate) const PER_MESSAGE: Peer = Peer {
    name: "redis",
    way: "a WAIT per message",
    program: "redis-server",
    version: "--version",
    meaning: "`XADD` and `WAIT 2 1000`, `appendfsync always`: on three disks, the replicas' after \
              the master's. Less: what a `WAIT` refuses is stored all the same, and redis does \
              not promise that a failover keeps what a `WAIT` has confirmed",
    start,
    dialect: |at| Box::new(Redis::new(at, BOTH, false)),
    survivor: Some(|at| Box::new(Redis::new(at, BOTH - 1, false))),
};

/// One `WAIT` for all messages that are sent together.
pub(crate) const PER_BATCH: Peer = Peer {
    way: "a WAIT per batch",
    meaning: "the same, asked once for all messages that a connection sends together",
    dialect: |at| Box::new(Redis::new(at, BOTH, true)),
    survivor: None,
    ..PER_MESSAGE
};

/// Replicas that have a message when it is on three disks.
const BOTH: i64 = 2;
/// The name by which sentinels know the group.
const GROUP: &str = "box";
const DOWN_AFTER_MS: u32 = 1000;

fn start(program: &Path, folder: TempDir) -> Result<Servers, String> {
    let addresses: [SocketAddr; SERVERS] = draw_addresses()?;
    let mut servers = Servers::new(folder, &addresses);
    let master = addresses[0];
    for (at, address) in addresses.iter().enumerate() {
        let name = format!("redis{}", at + 1);
        let data = servers.make_folder(&name)?.display().to_string();
        let (ip, port) = (address.ip(), address.port());
        let mut settings = format!(
            "bind {ip}\nport {port}\ndir \"{data}\"\nappendonly yes\nappendfsync always\n\
             save \"\"\nrepl-diskless-sync-delay 0\nreplica-announce-ip {ip}\n",
        );
        if at > 0 {
            settings += &format!("replicaof {} {}\n", master.ip(), master.port());
        }
        start_one(&mut servers, program, &name, &settings, &[])?;
    }
    let info = |server: SocketAddr, section: &str| {
        fetch(server, format!("INFO {section}\r\n").as_bytes(), whole_bulk)
    };
    servers.wait_for("both replicas online", || {
        let text = info(master, "replication")?;
        let online = text.lines().filter(|line| line.contains(",state=online,")).count();
        Ok((online == SERVERS - 1).then_some(()))
    })?;
    let sentinels: [SocketAddr; SERVERS] = draw_addresses()?;
    for (at, address) in sentinels.iter().enumerate() {
        let name = format!("sentinel{}", at + 1);
        let data = servers.make_folder(&name)?.display().to_string();
        let (ip, port) = (address.ip(), address.port());
        let settings = format!(
            "bind {ip}\nport {port}\ndir \"{data}\"\nsentinel announce-ip {ip}\n\
             sentinel monitor {GROUP} {} {} 2\n\
             sentinel down-after-milliseconds {GROUP} {DOWN_AFTER_MS}\n",
            master.ip(),
            master.port(),
        );
        start_one(&mut servers, program, &name, &settings, &["--sentinel".to_owned()])?;
    }
    servers.wait_for("sentinels that know each other", || {
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

fn start_one(
    servers: &mut Servers,
    program: &Path,
    name: &str,
    settings: &str,
    arguments: &[String],
) -> Result<(), String> {
    let settings = servers.write(&format!("{name}.conf"), settings)?.display().to_string();
    let arguments = [&[settings], arguments].concat();
    servers.start(name, program, &arguments)
}

/// The text of a bulk reply.
fn whole_bulk(answer: &[u8]) -> Result<Option<String>, String> {
    match reply(answer)? {
        Some((Reply::Bulk(body), _)) => Ok(Some(String::from_utf8_lossy(body).into_owned())),
        Some((other, _)) => Err(format!("strange-answer {other:?}")),
        None => Ok(None),
    }
}

/// One connection, which has a stream of its own.
struct Redis {
    /// `XADD`, as far as it is the same for every message.
    add: Vec<u8>,
    wait: Vec<u8>,
    copies: i64,
    /// Whether one `WAIT` is for all of a burst.
    batches: bool,
    /// Whether a message waits for the end of its burst.
    pending: bool,
    /// What the outstanding replies are to.
    asked: VecDeque<Asked>,
    /// What became of messages whose `WAIT` is not answered: the code of a refusal.
    added: Vec<Option<String>>,
}

#[derive(Clone, Copy)]
enum Asked {
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
            asked: VecDeque::new(),
            added: Vec::new(),
        }
    }

    fn wait(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.wait);
        self.asked.push_back(Asked::Wait);
    }

    fn hear(&mut self, reply: &Reply<'_>, heard: &mut Vec<Heard>) -> Result<(), String> {
        let asked = self.asked.pop_front().ok_or("strange-answer that nobody asked for")?;
        match (asked, reply) {
            (Asked::Ping, Reply::Line("PONG")) => heard.push(Heard::Ready),
            (Asked::Add, Reply::Bulk(_)) => self.added.push(None),
            (Asked::Add, Reply::Error(why)) => self.added.push(Some(code(why))),
            (Asked::Wait, Reply::Integer(copies)) if *copies >= self.copies => {
                let acked = |refusal| match refusal {
                    None => Heard::Acked(None),
                    Some(code) => Heard::Refused(code),
                };
                heard.extend(self.added.drain(..).map(acked));
            }
            (Asked::Wait, Reply::Integer(copies)) => {
                self.refuse(&format!("copies-{copies}"), heard);
            }
            (Asked::Wait, Reply::Error(why)) => self.refuse(&code(why), heard),
            (_, other) => return Err(format!("strange-answer {other:?}")),
        }
        Ok(())
    }

    /// All that was added is not safe; what was not has its own reason.
    fn refuse(&mut self, code: &str, heard: &mut Vec<Heard>) {
        let refused = |refusal: Option<String>| Heard::Refused(refusal.unwrap_or(code.to_owned()));
        heard.extend(self.added.drain(..).map(refused));
    }
}

impl Dialect for Redis {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        self.asked.push_back(Asked::Ping);
    }

    fn request(&mut self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.add);
        out.extend_from_slice(text.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
        self.asked.push_back(Asked::Add);
        if self.batches {
            self.pending = true;
        } else {
            self.wait(out);
        }
    }

    fn end_burst(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.pending) {
            self.wait(out);
        }
    }

    fn take(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, String> {
        take_each(input, reply, |one| self.hear(&one, heard))
    }
}

/// The first word of an error.
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

/// The first reply.
fn reply(input: &[u8]) -> Split<'_, Reply<'_>> {
    let Some((line, rest)) = split_line(input) else { return Ok(None) };
    let line = text(line)?;
    let strange = || strange(line.as_bytes());
    let (kind, value) = line.split_at_checked(1).ok_or_else(strange)?;
    let reply = match kind {
        "+" => Reply::Line(value),
        "-" => Reply::Error(value),
        ":" => Reply::Integer(value.parse().map_err(|_| strange())?),
        "$" => {
            let length = value.parse().map_err(|_| strange())?;
            let Some((body, rest)) = split_body(rest, length)? else { return Ok(None) };
            return Ok(Some((Reply::Bulk(body), rest)));
        }
        _ => return Err(strange()),
    };
    Ok(Some((reply, rest)))
}

#[cfg(test)]
mod tests {
    //! Only what is on three disks counts as acknowledged; answers as a 7.0 server gave them.

    use super::*;

    const ADD: &str = "*5\r\n$4\r\nXADD\r\n$4\r\nbox7\r\n$1\r\n*\r\n$1\r\nt\r\n$5\r\nhello\r\n";
    const WAIT: &str = "*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$4\r\n1000\r\n";
    const ADDED: &str = "$15\r\n1795650503174-0\r\n";
    const READONLY: &str = "-READONLY You can't write against a read only replica.\r\n";
    const NO_WAIT: &str = "-ERR WAIT cannot be used with replica instances.\r\n";

    /// A greeted connection that has sent so many messages in one burst, and what it wrote.
    fn burst(batches: bool, messages: usize) -> (Redis, String) {
        let mut redis = Redis::new(7, BOTH, batches);
        let mut out = Vec::new();
        redis.greet(&mut out);
        assert_eq!(out, b"*1\r\n$4\r\nPING\r\n");
        let mut heard = Vec::new();
        assert_eq!(redis.take(b"+PONG\r\n+", &mut Vec::new(), &mut heard), Ok(7));
        assert_eq!(heard, [Heard::Ready]);
        out.clear();
        for _ in 0..messages {
            redis.request(b"hello", &mut out);
        }
        redis.end_burst(&mut out);
        (redis, String::from_utf8(out).expect("text"))
    }

    fn hear(redis: &mut Redis, input: &str) -> (usize, Vec<Heard>) {
        let mut heard = Vec::new();
        let taken = redis.take(input.as_bytes(), &mut Vec::new(), &mut heard);
        (taken.expect("answers"), heard)
    }

    #[test]
    fn copies_are_asked_for_per_message_or_per_burst() {
        assert_eq!(burst(false, 2).1, [ADD, WAIT, ADD, WAIT].concat());
        assert_eq!(burst(true, 2).1, [ADD, ADD, WAIT].concat());
        assert_eq!(burst(true, 0).1, "");
    }

    #[test]
    fn answers_count_when_the_copies_are_there() {
        let acked = || Heard::Acked(None);
        let refused = |code: &str| Heard::Refused(code.to_owned());
        let table = [
            (false, [ADDED, ":2\r\n", ADDED, ":2\r\n"], vec![acked(), acked()]),
            (false, [ADDED, ":1\r\n", ADDED, ":3\r\n"], vec![refused("copies-1"), acked()]),
            (
                false,
                [READONLY, NO_WAIT, READONLY, NO_WAIT],
                vec![refused("readonly"), refused("readonly")],
            ),
            (false, [ADDED, NO_WAIT, ADDED, ""], vec![refused("err")]),
            (true, [ADDED, ADDED, "", ""], vec![]),
            (true, [ADDED, ADDED, ":2\r\n", ""], vec![acked(), acked()]),
            (true, [ADDED, READONLY, ":2\r\n", ""], vec![acked(), refused("readonly")]),
            (true, [READONLY, ADDED, ":0\r\n", ""], vec![refused("readonly"), refused("copies-0")]),
        ];
        for (batches, answers, expected) in table {
            let (mut redis, _) = burst(batches, 2);
            let input = answers.concat();
            assert_eq!(hear(&mut redis, &input), (input.len(), expected), "{input}");
        }
    }

    #[test]
    fn answers_may_come_in_pieces() {
        let input = [ADDED, ":2\r\n"].concat();
        for at in 0..input.len() {
            let (mut redis, _) = burst(false, 1);
            let (taken, mut heard) = hear(&mut redis, &input[..at]);
            heard.extend(hear(&mut redis, &input[taken..]).1);
            assert_eq!(heard, [Heard::Acked(None)], "cut at {at}");
        }
    }

    #[test]
    fn what_is_no_answer_ends_the_conversation() {
        for input in [":2\r\n", "+OK\r\n", "hello\r\n", "\r\n", "$x\r\n", "$1\r\nabc", ":x\r\n"] {
            let (mut redis, _) = burst(false, 1);
            let taken = redis.take(input.as_bytes(), &mut Vec::new(), &mut Vec::new());
            assert!(taken.is_err(), "{input}");
        }
        let (mut redis, _) = burst(false, 0);
        assert!(redis.take(b":2\r\n", &mut Vec::new(), &mut Vec::new()).is_err());
    }
}
