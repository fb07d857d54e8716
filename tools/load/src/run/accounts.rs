//! The accounts of a run: creates and deletes them.

use super::load::{MakeProtocol, Part};
use super::plan::Clients;
use super::postern::Postern;
use super::receiver::{Pace, Receiver};
use postern::commands::ask_status;
use postern_testkit::client::{Client, PASSWORD};
use postern_testkit::group::leads;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Until a group has a primary.
const TIMEOUT: Duration = Duration::from_secs(30);
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The accounts of clients with the same settings, and how they send.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    /// The account that sends.
    pub(crate) sender: String,
    /// The accounts that receive.
    pub(crate) mailboxes: Vec<String>,
    /// Whether requests are sent as ONCE, with the first word of their text as the key.
    pub(crate) once: bool,
}

impl Accounts {
    /// Returns names for clients; `run` distinguishes them from those of other runs.
    pub(crate) fn new(run: &str, at: usize, clients: &Clients) -> Arc<Accounts> {
        let mailboxes = (0..clients.mailboxes).map(|n| format!("load-{run}-{at}-{n}")).collect();
        Arc::new(Accounts { sender: format!("load-{run}-{at}"), mailboxes, once: clients.once })
    }

    /// Returns a reader of one of the mailboxes.
    pub(crate) fn receiver(&self, mailbox: usize, pace: Pace) -> Receiver {
        Receiver::new(mailbox, pace, &self.mailboxes[mailbox], &self.sender)
    }

    /// Returns the clients that use these accounts.
    pub(crate) fn part(self: &Arc<Accounts>, clients: &Clients) -> Part {
        let own = Arc::clone(self);
        let protocol: MakeProtocol = Rc::new(move || Box::new(Postern::new(own.clone())));
        Part { clients: clients.clone(), protocol, accounts: Some(Arc::clone(self)) }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.mailboxes.iter().chain([&self.sender])
    }
}

/// Waits until one of these servers is a primary that accepts requests.
pub(crate) fn find_primary(servers: &[SocketAddr]) -> Result<SocketAddr, String> {
    let end = Instant::now() + TIMEOUT;
    loop {
        for server in servers {
            let state = ask_status(&server.to_string(), STATUS_TIMEOUT).ok();
            if state.as_ref().is_some_and(leads) {
                return Ok(*server);
            }
        }
        if Instant::now() > end {
            return Err("none of the servers is a primary that accepts requests".to_owned());
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Creates all accounts, and logs in once to each of those that many clients log in to at once: the
/// server hashes a password only at its first login.
pub(crate) fn create(
    primary: SocketAddr,
    accounts: &Accounts,
    clients: &Clients,
) -> Result<(), String> {
    let mut client = Client::connect(primary)?;
    for name in accounts.names() {
        client.must(&format!("CREATE {name} {PASSWORD}"))?;
    }
    let readers = clients.receivers + clients.slow;
    for name in accounts.mailboxes.iter().take(readers).chain([&accounts.sender]) {
        client.must(&format!("LOGIN {name} {PASSWORD} end"))?;
        client.must("LOGOUT")?;
    }
    Ok(())
}

/// Deletes all accounts, with the contents of their mailboxes.
pub(crate) fn delete(primary: SocketAddr, accounts: &Accounts) -> Result<(), String> {
    for name in accounts.names() {
        // The server disconnects a client that deletes its own account.
        let mut client = Client::connect(primary)?;
        client.must(&format!("LOGIN {name} {PASSWORD} end"))?;
        client.must(&format!("DELETE {name} {PASSWORD}"))?;
    }
    Ok(())
}
