//! Asking a server for its `STATUS`, as a text client does.

use crate::client::dial;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::ToSocketAddrs;
use std::time::Duration;

/// What a server says of itself, by key.
pub type Answer = BTreeMap<String, String>;

/// Whether a server says this value of itself.
pub fn is(answer: &Answer, key: &str, value: &str) -> bool {
    answer.get(key).is_some_and(|found| found == value)
}

/// Asks one server; `None` when it can't be reached in `patience` or answers nonsense.
pub fn ask_status(server: &str, patience: Duration) -> Option<Answer> {
    let address = server.to_socket_addrs().ok()?.next()?;
    let stream = dial(address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.set_write_timeout(Some(patience)).ok()?;
    (&stream).write_all(b"STATUS\nQUIT\n").ok()?;
    let mut answer = Answer::new();
    for line in BufReader::new(&stream).lines() {
        let line = line.ok()?;
        if line == "OK" {
            return Some(answer);
        }
        let (key, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
        answer.insert(key.to_owned(), value.to_owned());
    }
    None
}
