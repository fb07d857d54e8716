//! A client without sockets, for programs that feed it the lines of a hostile server.

use super::client_state::{ClientState, Stop};
use super::servers::Servers;
use super::wire::Input;
use super::{Account, Attributes, Error, Event};
use crate::time::Moment;

/// A client and its simulated connection, if any.
#[derive(Debug)]
pub struct Probe {
    state: ClientState,
    servers: Servers,
    connected: bool,
    input: Input,
}

/// How much of each kind a server made a client hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Requests that await answers.
    pub asked: usize,
    /// Events for the caller.
    pub events: usize,
    /// Memory for the data of an answer, in bytes.
    pub data: usize,
    /// Lines of a `STATUS`.
    pub status: usize,
    /// Bytes to be sent.
    pub out: usize,
    /// Servers to try.
    pub servers: usize,
}

impl Probe {
    /// Creates a client that is not connected yet.
    pub fn new(account: Account) -> Probe {
        Probe {
            state: ClientState::new(account, "key".to_owned()),
            servers: Servers::new(vec!["lab1:5001".to_owned()]),
            connected: false,
            input: Input::default(),
        }
    }

    /// Connects to the server whose turn it is, if it has an address.
    pub fn connect(&mut self, now: Moment) {
        if self.connected {
            self.lose("another connection");
        }
        let (server, _) = self.servers.next();
        if server == "lab1:5001" {
            self.state.begin(now, &server);
            self.connected = true;
        }
    }

    /// Returns whether the client is connected.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Handles bytes from the server, as [`Client`](super::Client) does.
    ///
    /// # Errors
    /// Why the client can't continue on any connection.
    pub fn hear(&mut self, now: Moment, bytes: &[u8]) -> Result<(), Error> {
        if !self.connected {
            return Ok(());
        }
        self.input.rest().extend_from_slice(bytes);
        match self.state.on_input(now, &mut self.input) {
            Ok(()) => {}
            Err(Stop::Ever(error)) => return Err(error),
            Err(Stop::Here { why, named }) => {
                self.lose(&why);
                if let Some(named) = named {
                    self.servers.on_named(&named);
                }
            }
        }
        if self.state.logged_in
            && let Some(servers) = self.state.said.get("servers")
        {
            self.servers.learn(servers.split(','));
        }
        Ok(())
    }

    /// Ends the connection.
    pub fn lose(&mut self, why: &str) {
        self.state.on_lost(why);
        self.connected = false;
        self.input = Input::default();
    }

    /// Submits a message, if it is valid and there is room.
    pub fn submit(&mut self, now: Moment, to: &str, text: &str) {
        if self.state.unanswered() < super::UNANSWERED_MAX {
            let _ = self.state.submit(now, to, text, &Attributes::default());
        }
    }

    /// Asks for the list of all accounts.
    pub fn list(&mut self) {
        let _ = self.state.ask("LIST", &["*"], true);
    }

    /// Asks for the `STATUS`, and for messages that were not kept.
    pub fn look(&mut self, now: Moment) {
        if self.connected && self.state.logged_in {
            self.state.ask_status(now);
            self.state.refill();
        }
    }

    /// Removes and returns an event, and discards the answer to the list.
    pub fn take_event(&mut self) -> Option<Event> {
        let _ = self.state.take_answer();
        self.state.take_event()
    }

    /// Removes and returns the bytes to send.
    pub fn sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.state.out)
    }

    /// Counts what this client holds.
    pub fn held(&self) -> Held {
        let [asked, events, data, status, out] = self.state.held();
        Held { asked, events, data, status, out, servers: self.servers.held() }
    }

    /// Returns how many bytes of an unfinished line are held.
    pub fn unfinished(&self) -> usize {
        self.input.unfinished()
    }
}
