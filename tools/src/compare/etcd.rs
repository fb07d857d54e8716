//! etcd: a cluster of three, asked over gRPC.

use super::grpc::{Connection, Event};
use super::peer::Peer;
use super::servers::{Servers, fetch};
use crate::group::{SERVERS, draw_addresses};
use crate::load::dialect::{Dialect, Heard};
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

pub(crate) const PEER: Peer = Peer {
    name: "etcd",
    way: "",
    program: "etcd",
    version: "--version",
    meaning: "`Put` of a new key over gRPC, default settings: on the disks of a majority. Less: \
              two disks of three, and requests that are outstanding together are stored in any \
              order",
    start,
    dialect: |at| Box::new(Etcd::new(at)),
    survivor: Some(|at| Box::new(Etcd::new(at))),
};

fn start(program: &Path, folder: TempDir) -> Result<Servers, String> {
    let addresses: [SocketAddr; SERVERS] = draw_addresses()?;
    let links: [SocketAddr; SERVERS] = draw_addresses()?;
    let mut servers = Servers::new(folder, &addresses);
    let members: Vec<String> =
        (1..).zip(links).map(|(at, link)| format!("etcd{at}=http://{link}")).collect();
    let members = members.join(",");
    for (at, (address, link)) in addresses.iter().zip(links).enumerate() {
        let name = format!("etcd{}", at + 1);
        let data = servers.make_folder(&name)?.display().to_string();
        let (client, peer) = (format!("http://{address}"), format!("http://{link}"));
        let arguments = [
            "--name",
            &name,
            "--data-dir",
            &data,
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &members,
            "--initial-cluster-state",
            "new",
        ];
        servers.start(&name, program, &arguments.map(str::to_owned))?;
    }
    let leader = servers.wait_for("a leader that all follow", || {
        let mut leader = None;
        for (at, address) in addresses.iter().enumerate() {
            match fetch(*address, b"GET /metrics HTTP/1.0\r\n\r\n", |answer| Ok(role(answer)))? {
                Role::Alone => return Ok(None),
                Role::Follower => {}
                Role::Leader => leader = Some(at),
            }
        }
        Ok(leader)
    })?;
    servers.set_leader(leader);
    Ok(servers)
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    Alone,
    Follower,
    Leader,
}

/// What a member's metrics say; none until that part has come.
fn role(metrics: &[u8]) -> Option<Role> {
    let text = String::from_utf8_lossy(metrics);
    let value = |name: &str| {
        let (_, after) = text.split_once(&format!("\n{name} "))?;
        Some(after.split_once('\n')?.0 == "1")
    };
    Some(match (value("etcd_server_has_leader")?, value("etcd_server_is_leader")?) {
        (false, _) => Role::Alone,
        (true, false) => Role::Follower,
        (true, true) => Role::Leader,
    })
}

/// One connection.
struct Etcd {
    connection: Connection,
    /// Its keys begin so, and no others do.
    prefix: String,
}

impl Etcd {
    fn new(number: usize) -> Etcd {
        let prefix = format!("box{number}/");
        Etcd { connection: Connection::new("/etcdserverpb.KV/Put"), prefix }
    }
}

impl Dialect for Etcd {
    fn greet(&mut self, out: &mut Vec<u8>) {
        self.connection.open(out);
    }

    fn request(&mut self, text: &[u8], out: &mut Vec<u8>) {
        // No other text of this connection begins with the same word.
        let word = text.split(|byte| *byte == b' ').next().unwrap_or(text);
        let key = [self.prefix.as_bytes(), word].concat();
        self.connection.call(&put_request(&key, text), out);
    }

    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, String> {
        // Calls may be answered in another order. Which of the outstanding ones is meant makes no
        // difference to how many are, nor to the mean of their times.
        self.connection.take(input, out, |event| {
            heard.push(match event {
                Event::Open => Heard::Ready,
                Event::Done => Heard::Acked(None),
                Event::Failed(status) => Heard::Refused(format!("grpc-{status}")),
            });
        })
    }
}

/// A message of protocol buffers with the fields `key` and `value` of `PutRequest`.
fn put_request(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(key.len() + value.len() + 8);
    for (tag, field) in [(0x0a, key), (0x12, value)] {
        message.push(tag);
        let mut length = field.len();
        // Seven bits a byte, the lowest first.
        while length > 0x7f {
            message.push(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(field);
    }
    message
}

#[cfg(test)]
mod tests {
    //! The leader is found by what members say of themselves, and puts are as etcd reads them.

    use super::*;

    #[test]
    fn members_say_their_roles() {
        let table = [
            ("HTTP/1.0 200 OK\r\n\r\n", None),
            ("# HELP x\netcd_server_has_leader 1\n# TYPE y\netcd_server_is_leader 1", None),
            ("\netcd_server_has_leader 0\netcd_server_is_leader 0\n", Some(Role::Alone)),
            ("\netcd_server_has_leader 1\n\netcd_server_is_leader 0\n", Some(Role::Follower)),
            ("\netcd_server_has_leader 1\n\netcd_server_is_leader 1\n", Some(Role::Leader)),
        ];
        for (metrics, expected) in table {
            assert_eq!(role(metrics.as_bytes()), expected, "{metrics}");
        }
    }

    #[test]
    fn fields_have_their_tags_and_lengths() {
        assert_eq!(put_request(b"k", b"hello"), b"\x0a\x01k\x12\x05hello");
        let long = [b'x'; 300];
        let message = put_request(b"", &long);
        assert_eq!(message[..5], [0x0a, 0, 0x12, 0xac, 2]);
        assert_eq!(message[5..], long);
    }

    #[test]
    fn keys_are_of_their_connection_and_text() {
        let mut etcd = Etcd::new(7);
        let mut out = Vec::new();
        etcd.request(b"3.14 hello", &mut out);
        assert!(out.ends_with(b"\x0a\x09box7/3.14\x12\x0a3.14 hello"), "{}", out.escape_ascii());
    }
}
