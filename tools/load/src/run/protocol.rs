//! The client's side of a server's protocol, as the load needs it.

use std::net::SocketAddr;

/// What a server's answer means for the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The connection is open: requests may be sent.
    Ready,
    /// The oldest outstanding request is stored as safely as the system promises, with its number
    /// if the system assigns one.
    Acked(Option<u64>),
    /// The oldest outstanding request was rejected with this code, or its outcome is unknown.
    Rejected(String),
    /// This server accepts no requests; the named one does. Outstanding requests may still be
    /// answered.
    Redirected(Option<SocketAddr>),
    /// The server closes the connection and has stored no request without an answer.
    Closing,
}

/// The length of parsed answers, or why the connection must be closed: the first word is the code.
pub(crate) type Parsed = Result<usize, String>;

/// The protocol state of one connection. Pure: bytes in, bytes out.
pub(crate) trait Protocol: Send {
    /// Writes what opens the connection, or opens it again after a redirection.
    fn open(&mut self, out: &mut Vec<u8>);

    /// Selects the mailbox (subject, queue, key) of the next requests. Default: there is one.
    fn select_mailbox(&mut self, _mailbox: usize) {}

    /// Writes a request that stores `text`. Its first word is unique in a run, so that a system can
    /// recognize a repetition by it.
    fn request(&mut self, text: &[u8], out: &mut Vec<u8>);

    /// Ends a batch of requests that are sent together, for systems that confirm batches.
    fn end_batch(&mut self, _out: &mut Vec<u8>) {}

    /// Parses all complete answers at the front of `input` and returns their length. May write
    /// answers to `out`, such as a PONG.
    fn parse(&mut self, input: &[u8], out: &mut Vec<u8>, events: &mut Vec<Event>) -> Parsed;
}
