//! NATS: a cluster of three servers, and a JetStream stream of three replicas.

use super::System;
use super::lines::{Split, parse_each, split_body, split_line};
use super::servers::{Servers, fetch};
use crate::run::postern::invalid_answer;
use crate::run::protocol::{Event, Parsed, Protocol};
use postern_testkit::group::{SERVERS, draw_addresses};
use serde::Deserialize;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

pub(crate) const SYSTEM: System = System {
    key: "nats",
    name: "NATS JetStream",
    variant: "3 replicas",
    program: "nats-server",
    version: "--version",
    meaning: "`PUB` to a stream in files, and its acknowledgement: in the memory of a majority. \
              Less: two servers of three, and **nothing is synced** before it (2.9 has no setting \
              for that), so a power failure can lose what was acknowledged",
    start,
    protocol: |at| Box::new(Nats::new(at)),
    survivor: Some(|at| Box::new(Nats::new(at))),
};

/// The prefix of the subjects of acknowledgements; each connection has its own.
const INBOX: &str = "_INBOX.box";
/// Opens a connection.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\
                       \"no_responders\":true}\r\n";
const CREATE: &str = "{\"name\":\"box\",\"subjects\":[\"box.*\"],\"storage\":\"file\",\
                      \"num_replicas\":3}";

fn start(program: &Path, folder: TempDir) -> Result<Servers, String> {
    let addresses: [SocketAddr; SERVERS] = draw_addresses()?;
    let links: [SocketAddr; SERVERS] = draw_addresses()?;
    let routes = links.map(|link| format!("\"nats://{link}\"")).join(", ");
    let mut servers = Servers::new(folder, &addresses);
    for (at, (address, link)) in addresses.iter().zip(links).enumerate() {
        let name = format!("nats{}", at + 1);
        let data = servers.make_folder(&name)?;
        let settings = format!(
            "server_name: {name}\nlisten: \"{address}\"\njetstream {{ store_dir: {data:?} }}\n\
             cluster {{ name: box, listen: \"{link}\", routes: [{routes}] }}\n",
        );
        let settings = servers.write(&format!("{name}.conf"), &settings)?;
        servers.start(&name, program, &["-c".to_owned(), settings.display().to_string()])?;
    }
    servers.wait_for("a stream of three replicas", || {
        Ok(ask(addresses[0], "CREATE", CREATE)?.get("config").map(|_| ()))
    })?;
    let leader = servers.wait_for("a leader with two replicas", || {
        let cluster = ask(addresses[0], "INFO", "")?["cluster"].take();
        let current = |replica: &&Value| replica["current"] == true;
        let current =
            cluster["replicas"].as_array().map_or(0, |all| all.iter().filter(current).count());
        let name = cluster["leader"].as_str().and_then(|name| name.strip_prefix("nats"));
        let number = name.and_then(|at| at.parse::<usize>().ok());
        Ok(number.filter(|_| current == SERVERS - 1))
    })?;
    servers.leader = leader - 1;
    Ok(servers)
}

/// Sends a request for the stream and returns the answer.
fn ask(server: SocketAddr, verb: &str, body: &str) -> Result<Value, String> {
    let question = format!(
        "{CONNECT}SUB {INBOX} 1\r\nPUB $JS.API.STREAM.{verb}.box {INBOX} {}\r\n{body}\r\n",
        body.len(),
    );
    let answer: Value = fetch(server, question.as_bytes(), |mut rest| {
        while let Some((item, after)) = split(rest)? {
            match item {
                Item::Message(body) => return parse(body).map(Some),
                Item::NoResponders => return Err("no server answers for streams".to_owned()),
                Item::Error(why) => return Err(why.to_owned()),
                Item::Ping | Item::Pong | Item::Other => rest = after,
            }
        }
        Ok(None)
    })?;
    match answer["error"]["description"].as_str() {
        Some(why) => Err(why.to_owned()),
        None => Ok(answer),
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|_| invalid_answer(body))
}

/// One connection with its own subject and inbox.
struct Nats {
    /// `PUB` with both subjects.
    publish: String,
    opening: String,
    is_open: bool,
    /// The number of the last acknowledged message; numbers must grow.
    last: u64,
}

/// The acknowledgement of a message.
#[derive(Deserialize)]
struct Ack {
    seq: Option<u64>,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    code: u32,
}

impl Nats {
    fn new(connection: usize) -> Nats {
        Nats {
            publish: format!("PUB box.{connection} {INBOX}.{connection} "),
            opening: format!("{CONNECT}SUB {INBOX}.{connection} 1\r\nPING\r\n"),
            is_open: false,
            last: 0,
        }
    }

    fn parse_ack(&mut self, body: &[u8]) -> Result<Event, String> {
        match parse::<Ack>(body)? {
            Ack { error: Some(error), .. } => Ok(Event::Rejected(error.code.to_string())),
            Ack { seq: Some(seq), .. } if seq > self.last => {
                self.last = seq;
                Ok(Event::Acked(None))
            }
            _ => Err(invalid_answer(body)),
        }
    }
}

impl Protocol for Nats {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.opening.as_bytes());
    }

    fn request(&mut self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.publish.as_bytes());
        out.extend_from_slice(text.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }

    fn parse(&mut self, input: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> Parsed {
        parse_each(input, split, |item| {
            match item {
                Item::Message(body) => events.push(self.parse_ack(body)?),
                Item::NoResponders => events.push(Event::Rejected("no-responders".to_owned())),
                Item::Ping => out.extend_from_slice(b"PONG\r\n"),
                Item::Pong if !self.is_open => {
                    self.is_open = true;
                    events.push(Event::Ready);
                }
                Item::Error(why) => return Err(why.to_owned()),
                Item::Pong | Item::Other => {}
            }
            Ok(())
        })
    }
}

/// One item of the server's output.
#[derive(Debug, PartialEq, Eq)]
enum Item<'a> {
    Message(&'a [u8]),
    /// An empty message with the status 503: no server handles the subject.
    NoResponders,
    Ping,
    Pong,
    Error(&'a str),
    /// `INFO`, `+OK`.
    Other,
}

/// Splits off the first item.
fn split(input: &[u8]) -> Split<'_, Item<'_>> {
    let Some((line, rest)) = split_line(input)? else { return Ok(None) };
    let invalid = || invalid_answer(line.as_bytes());
    // Without a reply subject, the server writes two spaces.
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let item = match words.next().unwrap_or_default() {
        kind @ ("MSG" | "HMSG") => {
            let length = words.next_back().and_then(|length| length.parse().ok());
            let Some((body, rest)) = split_body(rest, length.ok_or_else(invalid)?)? else {
                return Ok(None);
            };
            let item = match kind {
                "MSG" => Item::Message(body),
                _ if body.starts_with(b"NATS/1.0 503") => Item::NoResponders,
                _ => return Err(invalid_answer(body)),
            };
            return Ok(Some((item, rest)));
        }
        "PING" => Item::Ping,
        "PONG" => Item::Pong,
        "-ERR" => Item::Error(line),
        "INFO" | "+OK" => Item::Other,
        _ => return Err(invalid()),
    };
    Ok(Some((item, rest)))
}
