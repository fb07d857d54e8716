//! What a person asks for: options of the command line, or a mix file with the same names.

use super::check::SENDERS_MAX;
use super::text::Sizes;
use clap::Args;
use postern::limits::REQUESTS_MAX;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Mailboxes where the person names no number: making an account costs the server 30 ms.
const MAILBOXES: usize = 16;
/// More are refused before they cost an hour of hashing passwords.
const MAILBOXES_MAX: usize = 10_000;
/// More than one address can have.
const CONNECTIONS_MAX: usize = 50_000;
const _: () = assert!(CONNECTIONS_MAX <= SENDERS_MAX);

/// Connections with the same settings; in a mix file one table of `clients`.
#[derive(Clone, Debug, PartialEq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Clients {
    /// Connections that send; 0: none.
    #[arg(short, long, visible_alias = "senders", value_name = "N", default_value_t = 64)]
    #[serde(alias = "senders")]
    pub connections: usize,
    /// Requests that each has outstanding; with --rate, at most.
    #[arg(short = 'd', long, value_name = "N", default_value_t = 16)]
    pub outstanding: usize,
    /// Length of texts, or a range; at least what names sender and message.
    #[arg(short, long, value_name = "N|N..M", default_value = "100")]
    pub bytes: Sizes,
    /// Messages a second, whatever the server does (open loop): latencies count from when a message
    /// was due. 0: each connection asks as soon as it is answered.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub rate: u64,
    /// Mailboxes that are written to; 1 is fan-in. 0: one for each connection, but at most 16.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub mailboxes: usize,
    /// Connections that read these mailboxes live, in turns.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub receivers: usize,
    /// Connections that read them slowly.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub slow: usize,
    /// Bytes a second that each of those reads; 0: none at all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub slow_bytes: u64,
    /// Connections that log in and do nothing.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub idle: usize,
    /// All these connections close and come back every so many seconds; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub storm: f64,
    /// Sends with keys, and repeats what was not answered when a connection is lost. Without it
    /// that counts as unknown.
    #[arg(long)]
    pub once: bool,
}

/// A mix file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mix {
    clients: Vec<Clients>,
}

impl Default for Clients {
    /// The defaults of the options.
    fn default() -> Clients {
        Clients {
            connections: 64,
            outstanding: 16,
            bytes: Sizes::fixed(100),
            rate: 0,
            mailboxes: 0,
            receivers: 0,
            slow: 0,
            slow_bytes: 0,
            idle: 0,
            storm: 0.0,
            once: false,
        }
    }
}

impl Clients {
    /// The same with what was left open filled in.
    ///
    /// # Errors
    /// What can't be.
    pub fn complete(mut self) -> Result<Clients, String> {
        if self.mailboxes == 0 {
            let readers = self.receivers + self.slow;
            self.mailboxes = self.connections.clamp(usize::from(readers > 0), MAILBOXES);
        }
        if self.mailboxes > MAILBOXES_MAX {
            return Err(format!("mailboxes: at most {MAILBOXES_MAX}"));
        }
        let all = self.all();
        if all == 0 || all > CONNECTIONS_MAX {
            return Err(format!("{all} connections: 1 to {CONNECTIONS_MAX} can be had"));
        }
        if self.connections > 0 && !(1..=REQUESTS_MAX).contains(&self.outstanding) {
            return Err(format!("outstanding: 1 to {REQUESTS_MAX}, which is what a server takes"));
        }
        if self.storm != 0.0 && !(0.1..=1e6).contains(&self.storm) {
            return Err("storm: at least every 0.1 s".to_owned());
        }
        Ok(self)
    }

    /// How many connections there are.
    pub fn all(&self) -> usize {
        [self.connections, self.receivers, self.slow, self.idle]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// How often all close.
    pub fn storm_time(&self) -> Option<Duration> {
        (self.storm > 0.0).then(|| Duration::from_secs_f64(self.storm))
    }
}

impl std::fmt::Display for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = [
            (self.receivers, "receivers".to_owned()),
            (self.slow, format!("slow readers ({} bytes/s)", self.slow_bytes)),
            (self.idle, "idle".to_owned()),
        ];
        if self.connections > 0 {
            let (command, bytes) = (if self.once { "ONCE" } else { "SEND" }, self.bytes);
            let (senders, depth) = (self.connections, self.outstanding);
            write!(f, "{senders} connections x {depth}, {command} of {bytes} bytes")?;
            if self.rate > 0 {
                write!(f, ", {} a second", self.rate)?;
            }
            write!(f, "; ")?;
        }
        write!(f, "{} mailboxes", self.mailboxes)?;
        for (count, what) in kinds.iter().filter(|(count, _)| *count > 0) {
            write!(f, "; {count} {what}")?;
        }
        if self.storm > 0.0 {
            write!(f, "; all come back every {} s", self.storm)?;
        }
        Ok(())
    }
}

/// The clients of a mix file.
///
/// # Errors
/// What is wrong in it.
pub fn read_mix(text: &str) -> Result<Vec<Clients>, String> {
    let mix: Mix = toml::from_str(text).map_err(|error| error.to_string())?;
    if mix.clients.is_empty() {
        return Err("there are no clients in it".to_owned());
    }
    mix.clients.into_iter().map(Clients::complete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(lines: &str) -> Result<Clients, String> {
        read_mix(&format!("[[clients]]\n{lines}")).map(|mut all| all.remove(0))
    }

    #[test]
    fn a_mix_file_has_the_defaults_of_the_options() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            clients: Clients,
        }
        let line = <Line as clap::Parser>::parse_from(["load"]).clients;
        assert_eq!(line, Clients::default());
        assert_eq!(clients(""), line.complete());
    }

    #[test]
    fn mailboxes_follow_connections_and_readers() {
        let table = [
            ("", 16),
            ("connections = 3", 3),
            ("connections = 3\nmailboxes = 70", 70),
            ("connections = 0\nidle = 5", 0),
            ("connections = 0\nreceivers = 5", 1),
            ("senders = 1\nreceivers = 100", 1),
        ];
        for (lines, mailboxes) in table {
            assert_eq!(clients(lines).map(|one| one.mailboxes), Ok(mailboxes), "{lines}");
        }
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let table = [
            ("connections = 0", "0 connections"),
            ("outstanding = 65", "outstanding"),
            ("outstanding = 0", "outstanding"),
            ("bytes = '5000'", "3840"),
            ("storm = -1.0", "storm"),
            ("storm = nan", "storm"),
            ("idle = 60000", "connections"),
            ("mailboxes = 20000", "mailboxes"),
            ("speed = 1", "unknown field"),
        ];
        for (lines, words) in table {
            let why = clients(lines).expect_err(lines);
            assert!(why.contains(words), "{lines}: {why}");
        }
        assert!(read_mix("clients = []").is_err());
    }
}
