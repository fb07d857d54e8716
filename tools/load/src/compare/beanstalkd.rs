//! beanstalkd: one server that syncs each message.

use super::System;
use super::lines::{parse_each, split_line};
use super::servers::{Servers, fetch};
use crate::run::postern::invalid_answer;
use crate::run::protocol::{Event, Parsed, Protocol};
use postern_testkit::group::draw_addresses;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

pub(crate) const SYSTEM: System = System {
    key: "beanstalkd",
    name: "beanstalkd",
    variant: "-f0",
    program: "beanstalkd",
    version: "-v",
    meaning: "`put`, with `-b` and `-f0`: on one disk. Less: **no copy**, and no other server that \
              could take over",
    start,
    protocol: |at| Box::new(Beanstalkd::new(at)),
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
        let answered = |answer: &[u8]| Ok(split_line(answer)?.map(|_| ()));
        fetch(addresses[0], b"list-tube-used\r\n", answered).map(Some)
    })?;
    Ok(servers)
}

/// One connection with its own tube.
struct Beanstalkd {
    tube: String,
    /// The number of the last job; numbers must grow.
    last: u64,
}

impl Beanstalkd {
    fn new(connection: usize) -> Beanstalkd {
        Beanstalkd { tube: format!("box{connection}"), last: 0 }
    }

    fn parse_line(&mut self, line: &str) -> Result<Event, String> {
        let invalid = || invalid_answer(line.as_bytes());
        match line.split_once(' ') {
            Some(("USING", tube)) if tube == self.tube => Ok(Event::Ready),
            Some(("INSERTED", number)) => {
                let number = number.parse().ok().filter(|number| *number > self.last);
                self.last = number.ok_or_else(invalid)?;
                Ok(Event::Acked(None))
            }
            // Out of memory: the job is stored, but no worker gets it.
            Some(("BURIED", _)) => Ok(Event::Rejected("buried".to_owned())),
            None if matches!(line, "JOB_TOO_BIG" | "DRAINING" | "OUT_OF_MEMORY") => {
                Ok(Event::Rejected(line.to_lowercase().replace('_', "-")))
            }
            _ => Err(invalid()),
        }
    }
}

impl Protocol for Beanstalkd {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("use {}\r\n", self.tube).as_bytes());
    }

    fn request(&mut self, text: &[u8], out: &mut Vec<u8>) {
        // Priority, delay, and time limit of a worker.
        out.extend_from_slice(format!("put 0 0 60 {}\r\n", text.len()).as_bytes());
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }

    fn parse(&mut self, input: &[u8], _out: &mut Vec<u8>, events: &mut Vec<Event>) -> Parsed {
        parse_each(input, split_line, |line| self.parse_line(line).map(|event| events.push(event)))
    }
}
