//! Conversations with the server under test, written as they are typed and shown.

use crate::common::{Client, Group};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// The password of all users who have not changed it.
pub(crate) const PASSWORD: &str = "correct-horse";

/// Returns the address of a server that somebody else started, if the tests are to use that.
pub(crate) fn foreign() -> Option<&'static str> {
    static ADDRESS: OnceLock<Option<String>> = OnceLock::new();
    ADDRESS.get_or_init(|| std::env::var("POSTERN_ADDR").ok()).as_deref()
}

/// The server under test. If the tests started it, it ends with the last scene that uses it.
struct Server {
    address: String,
    _own: Option<Group>,
}

impl Server {
    fn find() -> Arc<Server> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = match foreign() {
                Some(address) => Server { address: address.to_owned(), _own: None },
                None => {
                    let group = Group::alone();
                    Server { address: group.servers[0].clone(), _own: Some(group) }
                }
            };
            let server = Arc::new(server);
            *shared = Arc::downgrade(&server);
            server
        })
    }
}

/// Returns a part of names that is unique to this run, since a server may keep the accounts of
/// many runs.
fn run_id() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = format!("{:06x}", RandomState::new().hash_one("conformance") & 0xff_ffff);
        eprintln!("the names of this run end in -{run} and a number");
        run
    })
}

/// The users of one test, which no other test uses, and their connections.
pub(crate) struct Scene {
    server: Arc<Server>,
    number: u32,
    people: Vec<String>,
    clients: BTreeMap<String, Client>,
}

impl Scene {
    /// Creates a scene of these users: each has an account and is logged in.
    pub(crate) fn of(people: &[&str]) -> Scene {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut scene = Scene {
            server: Server::find(),
            number,
            people: people.iter().map(|who| (*who).to_owned()).collect(),
            clients: BTreeMap::new(),
        };
        for who in people {
            let name = scene.name(who);
            let client = scene.client(who);
            assert_eq!(client.ask(&format!("CREATE {name} {PASSWORD}")), format!("OK {name}"));
            let login = format!("LOGIN {name} {PASSWORD}");
            assert_eq!(client.ask(&login), format!("OK {name} 0"));
        }
        scene
    }

    /// Returns the name of a user's account.
    pub(crate) fn name(&self, who: &str) -> String {
        format!("{who}-{}-{}", run_id(), self.number)
    }

    /// Opens a connection that belongs to no user of the scene.
    pub(crate) fn stranger(&self) -> Client {
        Client::try_connect(&self.server.address).expect("the server listens")
    }

    /// Returns a user's connection. Opens one if the user is not connected.
    pub(crate) fn client(&mut self, who: &str) -> &mut Client {
        let address = &self.server.address;
        let connect = || Client::try_connect(address).expect("the server listens");
        self.clients.entry(who.to_owned()).or_insert_with(connect)
    }

    /// Returns the text, with each `@ann` replaced by the name of her account.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut parts = text.split('@');
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(part.len());
            filled += &self.name(&part[..end]);
            filled += &part[end..];
        }
        filled
    }

    /// Plays a scene: `ann > typed`, `ann < shown`, and `ann end` where her connection ends. In a
    /// shown line, `TIME` stands for a time and `...` for the rest of the line. Fails if anything
    /// else arrives.
    pub(crate) fn play(&mut self, script: &str) {
        for line in script.split('\n').map(str::trim_start).filter(|line| !line.is_empty()) {
            let filled = self.fill(line);
            let (who, rest) = filled.split_once(' ').expect("a line says who");
            match rest.split_at(1) {
                (">", typed) => self.client(who).send(typed.strip_prefix(' ').unwrap_or(typed)),
                ("<", shown) => {
                    let got = self.client(who).try_line();
                    let fit = got.as_deref().is_some_and(|got| fits(&shown[1..], got));
                    assert!(fit, "{filled}\nbut came: {got:?}");
                }
                _ if rest == "end" => {
                    let left = self.clients.remove(who).expect("a connection").rest();
                    assert_eq!(left, Vec::<String>::new(), "{who} gets nothing more");
                }
                _ => panic!("what is {line:?}?"),
            }
        }
        for (who, client) in &mut self.clients {
            client.send("PING nothing else");
            assert_eq!(client.line(), "OK nothing else", "{who} gets nothing more");
        }
    }

    /// Sends each of the lines, and compares the code of the refusal.
    pub(crate) fn refused(&mut self, who: &str, code: &str, lines: &[&str]) {
        let script = lines.iter().map(|line| format!("{who} > {line}\n{who} < ERR {code} ...\n"));
        self.play(&script.collect::<String>());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for (who, mut client) in std::mem::take(&mut self.clients) {
            if std::thread::panicking() {
                return;
            }
            let name = self.name(&who);
            if self.people.contains(&who) {
                client.send(&format!("LOGIN {name} {PASSWORD} end"));
            }
            client.send(&format!("DELETE {name} {PASSWORD}\nQUIT"));
            while client.try_line().is_some() {}
        }
    }
}

fn fits(expected: &str, got: &str) -> bool {
    let mut got = got.split(' ');
    for word in expected.split(' ') {
        match (word, got.next()) {
            ("...", Some(_)) => return true,
            ("TIME", Some(time)) if is_time(time) => {}
            (word, Some(same)) if word == same => {}
            _ => return false,
        }
    }
    got.next().is_none()
}

/// Returns whether this is a time as messages contain it: RFC 3339, UTC, with milliseconds.
pub(crate) fn is_time(text: &str) -> bool {
    let form = "0000-00-00T00:00:00.000Z";
    let same = |(form, c): (char, char)| if form == '0' { c.is_ascii_digit() } else { c == form };
    text.len() == form.len() && form.chars().zip(text.chars()).all(same)
}
