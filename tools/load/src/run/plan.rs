//! The options of clients: on the command line, or in a mix file with the same names.

use super::check::SENDERS_MAX;
use super::text::Sizes;
use clap::{Args, Command, FromArgMatches};
use postern::limits::REQUESTS_MAX;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The default number of mailboxes: creating an account takes the server 30 ms.
const MAILBOXES: usize = 16;
/// Creating 10,000 accounts takes five minutes.
const MAILBOXES_MAX: usize = 10_000;
/// One address has no more ports for outgoing connections.
const CONNECTIONS_MAX: usize = 50_000;
const _: () = assert!(CONNECTIONS_MAX <= SENDERS_MAX);

/// Clients with the same settings; in a mix file one table of `clients`.
#[derive(Clone, Debug, PartialEq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Clients {
    /// Connections that send.
    #[arg(short, long, visible_alias = "senders", value_name = "N", default_value_t = 64)]
    #[serde(alias = "senders")]
    pub connections: usize,
    /// Outstanding requests of each; with --rate, at most.
    #[arg(short = 'd', long, value_name = "N", default_value_t = 16)]
    pub outstanding: usize,
    /// Length of texts, or a range. Sender and serial need about 10 bytes.
    #[arg(short, long, value_name = "N|N..M", default_value = "100")]
    pub bytes: Sizes,
    /// Messages per second, regardless of the server (open loop): latencies count from when a
    /// message was due. 0: each connection sends again when it is answered (closed loop).
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub rate: u64,
    /// Mailboxes to send to; 1 is fan-in. 0: one for each connection, but at most 16.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub mailboxes: usize,
    /// Connections that read these mailboxes live.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub receivers: usize,
    /// Connections that read them slowly.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub slow: usize,
    /// Bytes per second that each slow connection reads.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub slow_bytes: u64,
    /// Connections that log in and do nothing.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub idle: usize,
    /// Close all these connections and log in again at this interval; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub storm: f64,
    /// Send with keys, and repeat unanswered requests after a lost connection. Otherwise they count
    /// as unknown.
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
        let command = Clients::augment_args(Command::new("clients"));
        let empty = command.get_matches_from(["clients"]);
        Clients::from_arg_matches(&empty).expect("every option has a default")
    }
}

impl Clients {
    /// Fills in defaults that depend on other options.
    ///
    /// # Errors
    /// An option is out of range.
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
            return Err(format!("{all} connections: 1 to {CONNECTIONS_MAX} are possible"));
        }
        if self.connections > 0 && !(1..=REQUESTS_MAX).contains(&self.outstanding) {
            return Err(format!("outstanding: 1 to {REQUESTS_MAX}; a server accepts no more"));
        }
        if self.storm != 0.0 && !(0.1..=1e6).contains(&self.storm) {
            return Err("storm: at least every 0.1 s".to_owned());
        }
        Ok(self)
    }

    /// Returns the number of connections.
    pub fn all(&self) -> usize {
        [self.connections, self.receivers, self.slow, self.idle]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// Returns the interval of reconnect storms.
    pub fn storm_interval(&self) -> Option<Duration> {
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
                write!(f, ", {} per second", self.rate)?;
            }
            write!(f, "; ")?;
        }
        write!(f, "{} mailboxes", self.mailboxes)?;
        for (count, what) in kinds.iter().filter(|(count, _)| *count > 0) {
            write!(f, "; {count} {what}")?;
        }
        if self.storm > 0.0 {
            write!(f, "; all reconnect every {} s", self.storm)?;
        }
        Ok(())
    }
}

/// Parses a mix file.
///
/// # Errors
/// The file is not valid.
pub fn read_mix(text: &str) -> Result<Vec<Clients>, String> {
    let mix: Mix = toml::from_str(text).map_err(|error| error.to_string())?;
    if mix.clients.is_empty() {
        return Err("it has no clients".to_owned());
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
