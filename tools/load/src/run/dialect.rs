//! What the load must know of the language of a server.

use std::net::SocketAddr;

/// What a client has heard from its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The greeting is over: requests may be sent.
    Ready,
    /// The oldest outstanding request is safe, as the system means it; the number it was given,
    /// if it says one.
    Acked(Option<u64>),
    /// The oldest outstanding request was refused, with this code.
    Refused(String),
    /// This server takes no requests; that one does, if it says one. What is still unanswered may
    /// get its answer, but nothing more is asked here.
    Elsewhere(Option<SocketAddr>),
}

/// How one connection speaks with one kind of server. Pure: bytes in, bytes out. A new connection
/// gets a new one.
pub(crate) trait Dialect {
    /// Writes what opens the conversation.
    fn greet(&mut self, out: &mut Vec<u8>);

    /// Says to which mailbox (subject, queue, key) the next requests go. Default: there is one.
    fn aim(&mut self, _mailbox: usize) {}

    /// Writes one request that stores `text`. It begins with a word that no other text of the run
    /// begins with, by which a system can tell a repeat.
    fn request(&mut self, text: &[u8], out: &mut Vec<u8>);

    /// Ends a burst of requests that are sent together (for systems that ask for safety once a
    /// batch). Default: nothing.
    fn end_burst(&mut self, _out: &mut Vec<u8>) {}

    /// Takes all complete answers at the front of `input`: how many bytes they were. May write to
    /// `out` (a PONG, a window update).
    ///
    /// # Errors
    /// What ends the connection: its code, in the first word.
    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, String>;
}
