//! What a host can't do itself.

use crate::ids::{Index, LinkId, ServerId, SessionId};
use crate::node::{Gauges, Input, Job};
use crate::replica::{Closing, Packet};
use crate::store::FileJob;
use crate::time::{Moment, WallTime};
use std::io;

/// The edges of a host: sockets, clocks and the threads that hash and index; or what a simulator
/// has instead. No method calls the host: what happens on the way is reported by
/// [`Edges::next_gone`], or handed over in the next turn.
pub trait Edges {
    /// The monotonic time since this host began, and the time of the wall clock.
    fn clock(&mut self) -> (Moment, WallTime);

    /// What `STATUS` shows of connections and of the process. The host adds what it knows itself.
    fn gauges(&self) -> Gauges;

    /// Queues a frame on a link: a packet, and what `rest` appends to it. On a link that has ended
    /// nothing is sent.
    ///
    /// # Errors
    /// Those of `rest`; nothing is sent then.
    fn send(
        &mut self,
        link: LinkId,
        packet: Packet,
        rest: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()>;

    /// Dials a server. The outcome is an event: `Dialled` or `DialFailed`.
    fn dial(&mut self, to: ServerId);

    /// Closes a link when the frames that are queued on it are sent; of a silent one, at once.
    fn close_link(&mut self, link: LinkId, why: Closing);

    /// Sends the frames that are queued, as far as the sockets accept them.
    fn flush_links(&mut self);

    /// Hashes a password. The outcome is an input: `Hashed`.
    fn hash(&mut self, job: Job);

    /// Runs a job that reads or makes files. The outcome is passed to
    /// [`Host::on_made`](super::Host::on_made).
    fn make(&mut self, job: FileJob);

    /// Sends a client the beginning of `output`, as much as its socket accepts, and removes that;
    /// returns whether the socket had accepted less than it was given before. `must_read`: the
    /// connection may be closed if the client does not read.
    fn write(&mut self, session: SessionId, output: &mut Vec<u8>, must_read: bool) -> bool;

    /// Closes the connection of a client that was sent everything.
    fn finish(&mut self, session: SessionId);

    /// Notes that a session accepts a request again: what its client has sent is to be fed.
    fn resume(&mut self, session: SessionId);

    /// The next connection that has ended and was not reported yet: `Input::Gone` for a client,
    /// `Event::Ended` for a link.
    fn next_gone(&mut self) -> Option<Input<'static>>;

    /// Logs a warning, once a minute.
    fn warn(&mut self, words: &str);

    /// For edges that keep an account of the log: these records are appended to it.
    fn on_append(&mut self, _records: &[u8]) {}

    /// The same: the entries after `last` are cut off.
    fn on_cut(&mut self, _last: Index) {}
}
