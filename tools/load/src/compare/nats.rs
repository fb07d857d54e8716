//! NATS: a cluster of three servers, and a JetStream stream with three replicas.

use super::lines::{Split, split_body, split_line, strange, take_each, text};
use super::peer::Peer;
use super::servers::{Servers, fetch};
use crate::run::dialect::{Dialect, Heard};
use postern_testkit::group::{SERVERS, draw_addresses};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

pub(crate) const PEER: Peer = Peer {
    name: "NATS JetStream",
    way: "3 replicas",
    program: "nats-server",
    version: "--version",
    meaning: "`PUB` to a stream in files, and its acknowledgement: in the memory of a majority. \
              Less: two servers of three, and **nothing is synced** before it (2.9 has no setting \
              for that), so a power failure can lose what was acknowledged",
    start,
    dialect: |at| Box::new(Nats::new(at)),
    survivor: Some(|at| Box::new(Nats::new(at))),
};

/// Where a connection hears its answers; nobody else hears what is sent to it.
const INBOX: &str = "_INBOX.box";
/// The conversation's beginning, whose end the server's `PONG` tells.
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
        Ok(ask(addresses[0], "CREATE", CREATE)?.config.map(|_| ()))
    })?;
    let leader = servers.wait_for("a leader with two replicas", || {
        let stream = ask(addresses[0], "INFO", "")?;
        let Some(cluster) = stream.cluster else { return Ok(None) };
        let current = cluster.replicas.iter().filter(|replica| replica.current).count();
        let number = cluster.leader.strip_prefix("nats").and_then(|at| at.parse::<usize>().ok());
        Ok(number.filter(|_| current == SERVERS - 1))
    })?;
    servers.set_leader(leader - 1);
    Ok(servers)
}

/// What the servers say of a stream.
#[derive(Deserialize)]
struct Stream {
    error: Option<Failure>,
    config: Option<serde::de::IgnoredAny>,
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(default)]
    leader: String,
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Deserialize)]
struct Replica {
    current: bool,
}

#[derive(Deserialize)]
struct Failure {
    code: u32,
    #[serde(default)]
    description: String,
}

/// Asks for something to be done to the stream.
fn ask(server: SocketAddr, verb: &str, body: &str) -> Result<Stream, String> {
    let question = format!(
        "{CONNECT}SUB {INBOX} 1\r\nPUB $JS.API.STREAM.{verb}.box {INBOX} {}\r\n{body}\r\n",
        body.len(),
    );
    let stream: Stream = fetch(server, question.as_bytes(), |answer| {
        let mut rest = answer;
        while let Some((said, after)) = said(rest)? {
            match said {
                Said::Message(body) => return parse(body).map(Some),
                Said::Nobody => return Err("no server answers for streams".to_owned()),
                Said::Error(why) => return Err(why.to_owned()),
                Said::Ping | Said::Pong | Said::Other => rest = after,
            }
        }
        Ok(None)
    })?;
    match stream.error {
        Some(failure) => Err(failure.description),
        None => Ok(stream),
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|_| strange(body))
}

/// One connection, with a subject and an inbox of its own.
struct Nats {
    /// `PUB` and its subjects.
    publish: String,
    greeting: String,
    greeted: bool,
    /// The number of the message that was acknowledged last; they must grow.
    last: u64,
}

/// The acknowledgement of a message.
#[derive(Deserialize)]
struct Ack {
    seq: Option<u64>,
    error: Option<Failure>,
}

impl Nats {
    fn new(connection: usize) -> Nats {
        Nats {
            publish: format!("PUB box.{connection} {INBOX}.{connection} "),
            greeting: format!("{CONNECT}SUB {INBOX}.{connection} 1\r\nPING\r\n"),
            greeted: false,
            last: 0,
        }
    }

    fn hear_ack(&mut self, body: &[u8], heard: &mut Vec<Heard>) -> Result<(), String> {
        match parse::<Ack>(body)? {
            Ack { error: Some(failure), .. } => {
                heard.push(Heard::Refused(failure.code.to_string()));
            }
            Ack { seq: Some(seq), .. } if seq > self.last => {
                self.last = seq;
                heard.push(Heard::Acked(None));
            }
            _ => return Err(strange(body)),
        }
        Ok(())
    }
}

impl Dialect for Nats {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.greeting.as_bytes());
    }

    fn request(&mut self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.publish.as_bytes());
        out.extend_from_slice(text.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }

    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, String> {
        take_each(input, said, |said| {
            match said {
                Said::Message(body) => self.hear_ack(body, heard)?,
                Said::Nobody => heard.push(Heard::Refused("no-responders".to_owned())),
                Said::Ping => out.extend_from_slice(b"PONG\r\n"),
                Said::Pong if !self.greeted => {
                    self.greeted = true;
                    heard.push(Heard::Ready);
                }
                Said::Error(why) => return Err(why.to_owned()),
                Said::Pong | Said::Other => {}
            }
            Ok(())
        })
    }
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    /// Something for the inbox.
    Message(&'a [u8]),
    /// Nobody takes what was published, which is a message with nothing but this status.
    Nobody,
    Ping,
    Pong,
    Error(&'a str),
    /// `INFO`, `+OK`.
    Other,
}

/// What is said first.
fn said(input: &[u8]) -> Split<'_, Said<'_>> {
    let Some((line, rest)) = split_line(input) else { return Ok(None) };
    let line = text(line)?;
    // A space may be doubled where a reply subject could stand.
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let said = match words.next().unwrap_or_default() {
        kind @ ("MSG" | "HMSG") => {
            let length = words.next_back().and_then(|length| length.parse().ok());
            let length = length.ok_or_else(|| strange(line.as_bytes()))?;
            let Some((body, rest)) = split_body(rest, length)? else { return Ok(None) };
            let said = match kind {
                "MSG" => Said::Message(body),
                _ if body.starts_with(b"NATS/1.0 503") => Said::Nobody,
                _ => return Err(strange(body)),
            };
            return Ok(Some((said, rest)));
        }
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "-ERR" => Said::Error(line),
        "INFO" | "+OK" => Said::Other,
        _ => return Err(strange(line.as_bytes())),
    };
    Ok(Some((said, rest)))
}

#[cfg(test)]
mod tests {
    //! Only an acknowledgement by the stream counts; answers as a 2.9 server gave them.

    use super::*;

    const INFO: &str = "INFO {\"server_id\":\"NAT5\",\"version\":\"2.9.10\",\"proto\":1} \r\n";
    const ACK: &str = "MSG _INBOX.box.7 1  25\r\n{\"stream\":\"box\", \"seq\":1}\r\n";
    const NEXT: &str = "MSG _INBOX.box.7 1  25\r\n{\"stream\":\"box\", \"seq\":9}\r\n";
    const NOBODY: &str = "HMSG _INBOX.box.7 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
    const FULL: &str = "MSG _INBOX.box.7 1 53\r\n\
                        {\"error\":{\"code\":503,\"description\":\"insufficient\"}}  \r\n";

    fn hear(nats: &mut Nats, input: &str) -> (Result<usize, String>, String, Vec<Heard>) {
        let (mut out, mut heard) = (Vec::new(), Vec::new());
        let taken = nats.take(input.as_bytes(), &mut out, &mut heard);
        (taken, String::from_utf8(out).expect("text"), heard)
    }

    #[test]
    fn requests_are_published_with_an_inbox_for_the_answer() {
        let mut nats = Nats::new(7);
        let mut out = Vec::new();
        nats.greet(&mut out);
        let greeting = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\
                        \"no_responders\":true}\r\nSUB _INBOX.box.7 1\r\nPING\r\n";
        assert_eq!(String::from_utf8_lossy(&out), greeting);
        out.clear();
        nats.request(b"hello", &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "PUB box.7 _INBOX.box.7 5\r\nhello\r\n");
    }

    #[test]
    fn answers_are_heard_one_by_one() {
        use Heard::{Acked, Ready, Refused};
        let table = [
            (vec![INFO], "", vec![]),
            (vec![INFO, "PONG\r\n"], "", vec![Ready]),
            (vec!["PONG\r\n", "PONG\r\n", "+OK\r\n"], "", vec![Ready]),
            (vec!["PONG\r\n", ACK, NEXT], "", vec![Ready, Acked(None), Acked(None)]),
            (vec!["PING\r\n", ACK, "PING\r\n"], "PONG\r\nPONG\r\n", vec![Acked(None)]),
            (vec![NOBODY, ACK], "", vec![Refused("no-responders".to_owned()), Acked(None)]),
            (vec![FULL], "", vec![Refused("503".to_owned())]),
        ];
        for (parts, said, expected) in table {
            let input = parts.concat();
            let heard = hear(&mut Nats::new(7), &input);
            assert_eq!(heard, (Ok(input.len()), said.to_owned(), expected), "{input}");
        }
    }

    #[test]
    fn answers_may_come_in_pieces() {
        let input = [INFO, "PONG\r\n", ACK, NOBODY].concat();
        let (_, _, whole) = hear(&mut Nats::new(7), &input);
        for at in 0..input.len() {
            let mut nats = Nats::new(7);
            let (taken, _, mut heard) = hear(&mut nats, &input[..at]);
            heard.extend(hear(&mut nats, &input[taken.expect("answers")..]).2);
            assert_eq!(heard, whole, "cut at {at}");
        }
    }

    #[test]
    fn what_is_no_answer_ends_the_conversation() {
        let twice = [ACK, ACK].concat();
        let table = [
            "-ERR 'Unknown Protocol Operation'\r\n",
            "hello\r\n",
            "MSG _INBOX.box.7 1 x\r\n",
            "MSG _INBOX.box.7 1 2\r\n{}\r\n",
            "MSG _INBOX.box.7 1 5\r\nhello\r\n",
            &twice,
        ];
        for input in table {
            assert!(hear(&mut Nats::new(7), input).0.is_err(), "{input}");
        }
    }
}
