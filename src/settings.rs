//! `postern.toml`: read into a type whose values are valid, or refused with file, line and key.

use crate::address;
use crate::host::ScrubSettings;
use crate::ids::{GroupId, Secret};
use crate::limits::{PEER_TIMEOUT_MS_MAX, PEER_TIMEOUT_MS_MIN};
use crate::mailbox::Limits;
use crate::node::Retention;
use crate::replica::{Shared, Takeover};
use base64ct::{Base64, Encoding};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

const DATA_DEFAULT: &str = "/var/lib/postern";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The highest bound of a mailbox: more than any disk holds.
const BOUND_MAX: u64 = 1 << 50;

/// The settings of a group, the same file on all its servers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of each server as written, by id.
    pub servers: Vec<String>,
    /// What must be equal on all servers.
    pub shared: Shared,
    /// The secret that authenticates and encrypts the links between servers.
    pub secret: Secret,
    /// `host:port` to listen on, when it is not the server's own entry.
    pub listen: Option<String>,
    /// The data directory.
    pub data: PathBuf,
    /// Which backup campaigns first.
    pub takeover: Takeover,
    /// The most text clients; 0 follows the file limit.
    pub max_clients: u32,
    /// How long a client may stay without logging in.
    pub login_timeout: Duration,
    /// Whether everybody may create an account, or only an operator.
    pub accounts_open: bool,
    /// How fast and how often a server reads its log again, to find damage.
    pub scrub: ScrubSettings,
    /// How much mailboxes keep.
    pub retention: Retention,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    servers: Spanned<Vec<Spanned<String>>>,
    group: Spanned<String>,
    secret: Spanned<String>,
    listen: Option<Spanned<String>>,
    data: Option<PathBuf>,
    peer_timeout_ms: Option<Spanned<u64>>,
    /// The former name of `peer_timeout_ms`.
    silence_ms: Option<Spanned<IgnoredAny>>,
    takeover: Option<Spanned<String>>,
    min_copies: Option<Spanned<u64>>,
    last_survivor: Option<Spanned<String>>,
    max_clients: Option<Spanned<u64>>,
    login_timeout_s: Option<Spanned<u64>>,
    accounts: Option<Spanned<String>>,
    scrub_mib_per_s: Option<Spanned<u64>>,
    scrub_hours: Option<Spanned<u64>>,
    keep_days: Option<Spanned<u64>>,
    keep_messages: Option<Spanned<u64>>,
    max_messages: Option<Spanned<u64>>,
    max_bytes: Option<Spanned<u64>>,
}

/// The part of a file that clients need.
#[derive(Deserialize)]
struct ServersOnly {
    servers: Spanned<Vec<Spanned<String>>>,
}

/// Reads only the `servers` line of a file. Clients need neither the rest nor the secret.
///
/// # Errors
/// One line that names the file, and the line in it.
pub fn servers(path: &Path) -> Result<Vec<String>, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{shown}: {error}; name the servers instead"),
        _ => format!("{shown}: {error}"),
    })?;
    let parse = || {
        let file: ServersOnly = toml::from_str(&text).map_err(|error| refusal(&error))?;
        let servers = read_entries(&file.servers)?;
        if servers.is_empty() {
            return Err((at(&file.servers), "servers: the list is empty".to_owned()));
        }
        Ok(servers)
    };
    parse().map_err(|wrong| in_file(path, &text, wrong))
}

/// A mistake in a text: the offset of its byte, and a description.
type Wrong = (usize, String);

fn refusal(error: &toml::de::Error) -> Wrong {
    (error.span().map_or(0, |span| span.start), error.message().replace('\n', " "))
}

fn in_file(path: &Path, text: &str, (at, why): Wrong) -> String {
    // A value in the message may hold any character; the error must stay one line.
    let why = why.replace(char::is_control, " ");
    let line = text[..at.min(text.len())].matches('\n').count() + 1;
    format!("{}: line {line}: {why}", path.display())
}

impl Settings {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// One line that names the file, the line and the key.
    pub fn read(path: &Path) -> Result<Settings, String> {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        let mode = fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?.mode();
        if mode & 0o077 != 0 {
            return Err(format!(
                "{shown}: others can read it (mode {:03o}), and it holds the secret: \
                 chmod 600 {shown}",
                mode & 0o777
            ));
        }
        Settings::parse(&text).map_err(|wrong| in_file(path, &text, wrong))
    }

    /// Reads and checks the text of a file. An error names the byte.
    fn parse(text: &str) -> Result<Settings, Wrong> {
        let file: File = toml::from_str(text).map_err(|error| refusal(&error))?;
        if let Some(former) = &file.silence_ms {
            let why = "silence_ms: this setting is called peer_timeout_ms now; rename it";
            return Err((at(former), why.to_owned()));
        }
        let timeouts = PEER_TIMEOUT_MS_MIN..=PEER_TIMEOUT_MS_MAX;
        let peer_timeout_ms = in_range("peer_timeout_ms", &file.peer_timeout_ms, 2000, timeouts)?;
        let max_clients = in_range("max_clients", &file.max_clients, 0, 0..=1_000_000)?;
        let login_timeout = in_range("login_timeout_s", &file.login_timeout_s, 60, 1..=86_400)?;
        let scrub_rate = in_range("scrub_mib_per_s", &file.scrub_mib_per_s, 4, 0..=1024)?;
        let scrub_hours = in_range("scrub_hours", &file.scrub_hours, 24, 1..=8760)?;
        let scrub = ScrubSettings {
            bytes_per_second: scrub_rate * 1024 * 1024,
            round: Duration::from_secs(scrub_hours * 3600),
        };
        let days = in_range("keep_days", &file.keep_days, 0, 0..=36_500)?;
        let bound = |key, value| in_range(key, value, 0, 0..=BOUND_MAX);
        let keep_messages = bound("keep_messages", &file.keep_messages)?;
        let limit = |bound| if bound == 0 { u64::MAX } else { bound };
        let retention = Retention {
            keep_time: (days > 0).then(|| DAY * days as u32),
            keep_messages: (keep_messages > 0).then_some(keep_messages),
            limits: Limits {
                messages: limit(bound("max_messages", &file.max_messages)?),
                bytes: limit(bound("max_bytes", &file.max_bytes)?),
            },
        };
        let most = retention.limits.messages;
        if let Some(keep) = retention.keep_messages.filter(|keep| *keep >= most) {
            let why = format!(
                "keep_messages: {keep} is not below max_messages, {most}: full \
                               mailboxes would never forget anything"
            );
            return Err((file.keep_messages.as_ref().map_or(0, at), why));
        }
        let takeovers = [("coin", Takeover::Coin), ("rank", Takeover::Rank)];
        let takeover = one_of("takeover", &file.takeover, takeovers)?;
        let survivors = [("ask", false), ("auto", true)];
        let survivor_auto = one_of("last_survivor", &file.last_survivor, survivors)?;
        let accounts_open =
            one_of("accounts", &file.accounts, [("open", true), ("operator", false)])?;
        let group = u128::from_str_radix(file.group.get_ref(), 16).ok();
        let group = group.filter(|_| file.group.get_ref().len() == 32).map(GroupId);
        let why = "group: is not 32 hex digits as init draws them";
        let group = group.ok_or((at(&file.group), why.to_owned()))?;
        let secret = Base64::decode_vec(file.secret.get_ref()).unwrap_or_default();
        let secret: [u8; Secret::BYTES] = secret
            .try_into()
            .map_err(|_| (at(&file.secret), "secret: is not 32 bytes in base64".to_owned()))?;
        let servers = read_servers(&file.servers)?;
        let copies_min = in_range("min_copies", &file.min_copies, 1, 1..=servers.len() as u64)?;
        let shared = Shared {
            group,
            servers: servers.len() as u8,
            peer_timeout_ms: peer_timeout_ms as u32,
            copies_min: copies_min as u8,
            survivor_auto,
        };
        let listen = file.listen.as_ref().map(|entry| read_address("listen", entry)).transpose()?;
        Ok(Settings {
            servers,
            shared,
            secret: Secret::new(secret),
            listen,
            data: file.data.unwrap_or_else(|| DATA_DEFAULT.into()),
            takeover,
            max_clients: max_clients as u32,
            login_timeout: Duration::from_secs(login_timeout),
            accounts_open,
            scrub,
            retention,
        })
    }

    /// The settings that the servers of a group exchange to find differences: a line `key=value`
    /// for each. Settings that must be equal are compared earlier, and a server that differs is
    /// refused.
    pub fn compared(&self) -> String {
        let takeover = match self.takeover {
            Takeover::Coin => "coin",
            Takeover::Rank => "rank",
        };
        let Retention { keep_time, keep_messages, limits } = self.retention;
        let limit = |most| if most == u64::MAX { 0 } else { most };
        format!(
            "servers={}\ntakeover={takeover}\nmax_clients={}\nlogin_timeout_s={}\naccounts={}\n\
             keep_days={}\nkeep_messages={}\nmax_messages={}\nmax_bytes={}\n",
            self.servers.join(","),
            self.max_clients,
            self.login_timeout.as_secs(),
            if self.accounts_open { "open" } else { "operator" },
            keep_time.unwrap_or_default().as_secs() / DAY.as_secs(),
            keep_messages.unwrap_or(0),
            limit(limits.messages),
            limit(limits.bytes),
        )
    }

    /// Writes the file of a new group of these servers, with a new group number and secret. With
    /// `survivor_auto`, a last survivor continues without an operator. Never overwrites a file.
    ///
    /// # Errors
    /// One line with the reason.
    pub fn init(path: &Path, servers: &[String], survivor_auto: bool) -> Result<(), String> {
        let mut random = [0; 16 + Secret::BYTES];
        getrandom::fill(&mut random).map_err(|error| format!("no randomness: {error}"))?;
        let mut text = template(servers, &random);
        if survivor_auto {
            text = text.replace("# last_survivor = \"ask\" ", "last_survivor = \"auto\" ");
        }
        count_servers(servers.len())?;
        if let Some(twice) = address::repeated(servers) {
            return Err(format!("servers: {} stands twice", servers[twice]));
        }
        let shown = path.display();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!("{shown}: exists, and is not overwritten"),
            _ => format!("{shown}: {error}"),
        })
    }
}

fn template(servers: &[String], random: &[u8]) -> String {
    let (group, secret) = random.split_at(16);
    let group: String = group.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = Base64::encode_string(secret);
    format!(
        "# The same file on every server of the group. Keep it secret: mode 0600.\n\
         servers = {servers:?}   # ids 1, 2, 3 by position\n\
         group   = \"{group}\"\n\
         secret  = \"{secret}\"   # shared by the servers, never given to clients\n\
         \n\
         # Everything below is optional, shown with its default.\n\
         # listen = \"127.0.0.1:5001\"   # default: what this server's own entry resolves to\n\
         # data = \"{DATA_DEFAULT}\"\n\
         # peer_timeout_ms = 2000 # {PEER_TIMEOUT_MS_MIN} to {PEER_TIMEOUT_MS_MAX}: a server that \
         does not answer for this long is given up\n\
         # takeover = \"coin\"      # or \"rank\": the lower id goes first\n\
         # min_copies = 1         # 1 to 3: refuse changes when fewer servers are attached\n\
         # last_survivor = \"ask\"  # or \"auto\": continues alone when the other one is refused;\n\
         #                        # wrong behind a firewall that rejects, a proxy that answers\n\
         #                        # for it, or with a machine that is paused and resumed\n\
         # max_clients = 0        # 0: from the file limit\n\
         # login_timeout_s = 60   # 1 to 86400\n\
         # accounts = \"open\"      # or \"operator\": only `postern user` makes them\n\
         # scrub_mib_per_s = 4    # 0 to 1024: how fast the log is checked for damage; 0: never\n\
         # scrub_hours = 24       # 1 to 8760: from one such check to the next\n\
         # keep_days = 0          # forget older messages; 0: keep all\n\
         # keep_messages = 0      # of each mailbox forget all but the newest; 0: keep all\n\
         # max_messages = 0       # a mailbox that keeps so many takes no more; 0: no limit\n\
         # max_bytes = 0          # the same for the bytes of their texts; 0: no limit\n"
    )
}

fn at<T>(spanned: &Spanned<T>) -> usize {
    spanned.span().start
}

/// The value of a word in `table`. The first one is the default.
fn one_of<T>(key: &str, word: &Option<Spanned<String>>, table: [(&str, T); 2]) -> Result<T, Wrong> {
    let [(first, default), (second, other)] = table;
    match word {
        None => Ok(default),
        Some(word) if word.get_ref() == first => Ok(default),
        Some(word) if word.get_ref() == second => Ok(other),
        Some(word) => Err((at(word), format!("{key}: is \"{first}\" or \"{second}\""))),
    }
}

fn in_range(
    key: &str,
    value: &Option<Spanned<u64>>,
    default: u64,
    range: RangeInclusive<u64>,
) -> Result<u64, Wrong> {
    match value {
        None => Ok(default),
        Some(value) if range.contains(value.get_ref()) => Ok(*value.get_ref()),
        Some(value) => {
            Err((at(value), format!("{key}: is not within {} to {}", range.start(), range.end())))
        }
    }
}

/// Does not resolve names. A running server resolves them, repeatedly: a machine or the resolver
/// may be down now.
fn read_servers(list: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<String>, Wrong> {
    let servers = read_entries(list)?;
    if let Some(twice) = address::repeated(&servers) {
        let why = format!("servers: {} stands twice", servers[twice]);
        return Err((at(&list.get_ref()[twice]), why));
    }
    count_servers(servers.len()).map_err(|why| (at(list), why))?;
    Ok(servers)
}

fn read_entries(list: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<String>, Wrong> {
    list.get_ref().iter().map(|entry| read_address("servers", entry)).collect()
}

fn read_address(key: &str, entry: &Spanned<String>) -> Result<String, Wrong> {
    address::parse(entry.get_ref()).map_err(|why| (at(entry), format!("{key}: {why}")))
}

fn count_servers(count: usize) -> Result<(), String> {
    match count {
        1 | 3 => Ok(()),
        other => Err(format!("servers: a group has 1 or 3, not {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> String {
        let servers = [1, 2, 3].map(|n| format!("127.0.0.1:500{n}"));
        template(&servers, &[7; 48])
    }

    #[test]
    fn init_writes_what_serve_reads_and_never_overwrites() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postern.toml");
        let servers = [1, 2, 3].map(|n| format!("127.0.0.1:500{n}"));
        Settings::init(&path, &servers, true).unwrap();
        let settings = Settings::read(&path).unwrap();
        assert_eq!(settings.servers, servers);
        assert_eq!((settings.shared.peer_timeout_ms, settings.shared.copies_min), (2000, 1));
        assert!(settings.shared.survivor_auto);
        let before = fs::read(&path).unwrap();
        assert!(Settings::init(&path, &servers, true).unwrap_err().contains("not overwritten"));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn names_need_no_address() {
        let text = good().replace("127.0.0.1:5002", " gone.invalid:5002 ");
        let settings = Settings::parse(&text).unwrap();
        assert_eq!(settings.servers[1], "gone.invalid:5002");
    }

    #[test]
    fn the_secret_is_read_and_never_shown() {
        let settings = Settings::parse(&good()).unwrap();
        assert_eq!(settings.secret.bytes(), &[7; Secret::BYTES]);
        assert!(format!("{settings:?}").contains("secret: Secret,"), "{settings:?}");
    }

    /// Otherwise a full mailbox would stay full.
    #[test]
    fn fewer_messages_are_kept_than_a_mailbox_may_have() {
        for (keep, most, is_fine) in [(9, 9, false), (9, 8, false), (9, 10, true), (9, 0, true)] {
            let text = format!("{}\nkeep_messages = {keep}\nmax_messages = {most}\n", good());
            assert_eq!(Settings::parse(&text).is_ok(), is_fine, "{keep} of {most}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postern.toml");
        fs::write(&path, good()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Settings::read(&path).unwrap_err().contains("chmod 600"));
    }

    #[test]
    fn errors_name_line_and_key() {
        let table = [
            (
                "# peer_timeout_ms = 2000 ",
                "peer_timeout_ms = 50 #",
                "peer_timeout_ms: is not within 100 to 60000",
            ),
            (
                "# peer_timeout_ms = 2000 ",
                "silence_ms = 2000 #",
                "silence_ms: this setting is called peer_timeout_ms now; rename it",
            ),
            ("# takeover = \"coin\" ", "takeover = \"dice\" #", "takeover:"),
            ("# min_copies = 1 ", "min_copies = 4 #", "min_copies: is not within 1 to 3"),
            ("# last_survivor = \"ask\" ", "last_survivor = \"me\" #", "last_survivor: is"),
            ("# max_clients = 0 ", "max_client = 0 #", "unknown field"),
            ("# login_timeout_s = 60 ", "login_timeout_s = \"x\" #", "invalid type"),
            ("# accounts = \"open\" ", "accounts = \"all\" #", "accounts: is \"open\""),
            ("# scrub_hours = 24 ", "scrub_hours = 0 #", "scrub_hours: is not within"),
            ("# keep_days = 0 ", "keep_days = 40000 #", "keep_days: is not within 0 to 36500"),
            ("# max_bytes = 0 ", "max_bytes = 2000000000000000 #", "max_bytes: is not within"),
            ("# scrub_mib_per_s = 4 ", "scrub_mib_per_s = 2000 #", "scrub_mib_per_s: is not"),
            ("\"127.0.0.1:5002\"", "\"127.0.0.1:5001\"", "stands twice"),
            ("\"127.0.0.1:5002\"", "\"127.0.0.1\"", "the port is missing"),
            ("127.0.0.1:5002", "[::ffff:127.0.0.1]:5001", "stands twice"),
            ("127.0.0.1:5002", "", "a comma too many"),
            (", \"127.0.0.1:5002\"", "", "a group has 1 or 3, not 2"),
            ("group   = \"07", "group   = \"7", "group:"),
            ("secret  = \"", "secret  = \"!", "secret:"),
        ];
        for (from, to, expected) in table {
            let text = good().replace(from, to);
            assert_ne!(text, good(), "{from}");
            let (byte, why) = Settings::parse(&text).expect_err(from);
            assert!(why.contains(expected), "{why}");
            let line = text[..byte].matches('\n').count();
            let changed = text.lines().position(|l| l.contains(to) && !to.is_empty());
            assert!(to.is_empty() || changed == Some(line), "{why}: line {line}, not {changed:?}");
        }
    }
}
