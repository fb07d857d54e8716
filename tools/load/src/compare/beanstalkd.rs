//! beanstalkd: one server that syncs its log at every message.

use super::lines::{split_line, strange, take_each, text};
use super::peer::Peer;
use super::servers::{Servers, fetch};
use crate::run::dialect::{Dialect, Heard};
use postern_testkit::group::draw_addresses;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

pub(crate) const PEER: Peer = Peer {
    name: "beanstalkd",
    way: "-f0",
    program: "beanstalkd",
    version: "-v",
    meaning: "`put`, with `-b` and `-f0`: on one disk. Less: **no copy**, and no other server that \
              could take over",
    start,
    dialect: |at| Box::new(Beanstalkd::new(at)),
    survivor: None,
};

fn start(program: &Path, folder: TempDir) -> Result<Servers, String> {
    let addresses: [SocketAddr; 1] = draw_addresses()?;
    let mut servers = Servers::new(folder, &addresses);
    let data = servers.make_folder("data")?.display().to_string();
    let (ip, port) = (addresses[0].ip().to_string(), addresses[0].port().to_string());
    let arguments = ["-l", &ip, "-p", &port, "-b", &data, "-f0"].map(str::to_owned);
    servers.start("beanstalkd", program, &arguments)?;
    servers.wait_for("an answer", || {
        let answered = |answer: &[u8]| Ok(split_line(answer).map(|_| ()));
        fetch(addresses[0], b"list-tube-used\r\n", answered).map(Some)
    })?;
    Ok(servers)
}

/// One connection, which has a tube of its own.
struct Beanstalkd {
    tube: String,
    /// The number of the job that was inserted last; they must grow.
    last: u64,
}

impl Beanstalkd {
    fn new(connection: usize) -> Beanstalkd {
        Beanstalkd { tube: format!("box{connection}"), last: 0 }
    }

    fn hear(&mut self, line: &str) -> Result<Heard, String> {
        let strange = || strange(line.as_bytes());
        match line.split_once(' ') {
            Some(("USING", tube)) if tube == self.tube => Ok(Heard::Ready),
            Some(("INSERTED", number)) => {
                let number = number.parse().map_err(|_| strange())?;
                if number <= self.last {
                    return Err(strange());
                }
                self.last = number;
                Ok(Heard::Acked(None))
            }
            // It has no memory to put the job where it belongs, and keeps it.
            Some(("BURIED", _)) => Ok(Heard::Refused("buried".to_owned())),
            None if matches!(line, "JOB_TOO_BIG" | "DRAINING" | "OUT_OF_MEMORY") => {
                Ok(Heard::Refused(line.to_lowercase().replace('_', "-")))
            }
            _ => Err(strange()),
        }
    }
}

impl Dialect for Beanstalkd {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("use {}\r\n", self.tube).as_bytes());
    }

    fn request(&mut self, text: &[u8], out: &mut Vec<u8>) {
        // Priority, delay, and the time that a worker may take.
        out.extend_from_slice(format!("put 0 0 60 {}\r\n", text.len()).as_bytes());
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }

    fn take(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, String> {
        take_each(
            input,
            |rest| Ok(split_line(rest)),
            |line| {
                heard.push(self.hear(text(line)?)?);
                Ok(())
            },
        )
    }
}

#[cfg(test)]
mod tests {
    //! Only a job with a number counts; answers as a 1.12 server gave them.

    use super::*;

    fn hear(input: &str) -> (Result<usize, String>, Vec<Heard>) {
        let mut heard = Vec::new();
        let taken = Beanstalkd::new(1).take(input.as_bytes(), &mut Vec::new(), &mut heard);
        (taken, heard)
    }

    #[test]
    fn requests_are_jobs() {
        let mut out = Vec::new();
        let mut beanstalkd = Beanstalkd::new(1);
        beanstalkd.greet(&mut out);
        beanstalkd.request(b"hello", &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "use box1\r\nput 0 0 60 5\r\nhello\r\n");
    }

    #[test]
    fn answers_are_lines() {
        use Heard::{Acked, Ready, Refused};
        let refused = |code: &str| Refused(code.to_owned());
        let table = [
            ("USING box1\r", 0, vec![]),
            ("USING box1\r\nINSERTED 1\r\nINS", 24, vec![Ready, Acked(None)]),
            ("INSERTED 1\r\nINSERTED 3\r\n", 24, vec![Acked(None), Acked(None)]),
            ("JOB_TOO_BIG\r\nINSERTED 2\r\n", 25, vec![refused("job-too-big"), Acked(None)]),
            (
                "DRAINING\r\nOUT_OF_MEMORY\r\n",
                25,
                vec![refused("draining"), refused("out-of-memory")],
            ),
            ("BURIED 4\r\n", 10, vec![refused("buried")]),
        ];
        for (input, taken, expected) in table {
            assert_eq!(hear(input), (Ok(taken), expected), "{input}");
        }
    }

    #[test]
    fn what_is_no_answer_ends_the_conversation() {
        let table = [
            "USING box2\r\n",
            "INSERTED x\r\n",
            "INSERTED 2\r\nINSERTED 2\r\n",
            "UNKNOWN_COMMAND\r\n",
            "EXPECTED_CRLF\r\n",
            "\r\n",
        ];
        for input in table {
            assert!(hear(input).0.is_err(), "{input}");
        }
    }
}
