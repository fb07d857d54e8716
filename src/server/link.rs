//! Links to other servers: dialling, and frames of `u32` length and packet.
//!
//! This is also the place where a link becomes authentic and secret: between the socket's bytes
//! and the frames. Until it does, settings name loopback addresses only.

use super::connection::{Connection, Kind, Reading, key_of};
use super::{Fail, Server};
use crate::limits::{FRAME_BYTES_MAX, PEER_READ_BYTES_PER_TURN};
use crate::names::{Index, LinkId, ServerId};
use crate::node::Input;
use crate::replica::{Append, Closing, Event, Packet};
use byteorder::{ByteOrder, LE};
use mio::net::TcpStream;
use std::io;
use std::net::SocketAddr;

const LENGTH_BYTES: usize = 4;

impl Server {
    /// Begins a dial; its outcome is told to the replica.
    pub(super) fn dial(&mut self, to: ServerId) {
        let addresses = self.addresses[to.slot()].clone();
        self.dial_next(to, addresses, true);
    }

    fn dial_next(&mut self, to: ServerId, mut rest: Vec<SocketAddr>, mut all_refused: bool) {
        while let Some(address) = (!rest.is_empty()).then(|| rest.remove(0)) {
            match TcpStream::connect(address) {
                Ok(socket) => {
                    let kind = Kind::Dialling { to, rest: rest.clone(), all_refused };
                    if let Some(key) = self.insert(socket, kind) {
                        self.connections[key].readable = false;
                        let deadline = self.now() + self.node.replica().silence() / 2;
                        return self.set_deadline(key, Some(deadline));
                    }
                    all_refused = false;
                }
                Err(error) => all_refused &= error.kind() == io::ErrorKind::ConnectionRefused,
            }
        }
        self.failed_dials.push((to, all_refused));
    }

    /// A dial has an outcome, or its time is over.
    pub(super) fn dial_decided(&mut self, key: usize, timed_out: bool) -> Result<(), Fail> {
        let connection = &mut self.connections[key];
        let Kind::Dialling { to, rest, all_refused } = &mut connection.kind else { return Ok(()) };
        let (to, rest, all_refused) = (*to, std::mem::take(rest), *all_refused);
        let outcome = outcome(&connection.socket, timed_out);
        match outcome {
            Outcome::Open => {
                let link = LinkId(connection.number(key));
                connection.kind = Kind::Link { link };
                connection.readable = true;
                connection.output.push(super::classify::LINK_BYTE);
                // An error here shows as the link's end.
                let _ = connection.socket.set_nodelay(true);
                self.set_deadline(key, None);
                self.tell(Input::Replica(Event::Dialled { link, to }))?;
                self.dirty.push(key);
                self.list(key);
            }
            Outcome::Undecided => {}
            Outcome::Refused | Outcome::Failed => {
                self.close(key);
                self.dial_next(to, rest, all_refused && outcome == Outcome::Refused);
            }
        }
        Ok(())
    }

    pub(super) fn link_accepted(&mut self, key: usize) {
        if let Kind::Link { link } = self.connections[key].kind {
            self.tell_or_fail(Input::Replica(Event::Accepted { link }));
            self.list(key);
        }
    }

    /// Reads frames from a link and hands them to the replica.
    pub(super) fn read_link(&mut self, key: usize, link: LinkId) -> Result<(), Fail> {
        let mut budget = PEER_READ_BYTES_PER_TURN / self.buffer.len();
        loop {
            self.take_frames(key, link)?;
            let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
            if connection.closing || !connection.readable {
                return Ok(());
            }
            if budget == 0 {
                self.list(key);
                return Ok(());
            }
            budget -= 1;
            match connection.read(&mut self.buffer) {
                Reading::More => {}
                Reading::Drained => return Ok(()),
                Reading::Closed | Reading::Broken => {
                    // What came before the end counts.
                    self.take_frames(key, link)?;
                    self.close(key);
                    return Ok(());
                }
            }
        }
    }

    fn take_frames(&mut self, key: usize, link: LinkId) -> Result<(), Fail> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        let input = std::mem::take(&mut connection.input);
        let mut used = 0;
        while let Some(frame) = next_frame(&input[used..]) {
            let Some((packet, records)) = frame.ok().and_then(|frame| Packet::decode(frame).ok())
            else {
                self.close_link(link, Closing::Nonsense);
                break;
            };
            used += LENGTH_BYTES + LE::read_u32(&input[used..]) as usize;
            self.tell(Input::Replica(Event::Received { link, packet, records }))?;
            if self.connections.get(key).is_none_or(|connection| connection.closing) {
                break;
            }
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.input = input;
            connection.consume(used);
        }
        Ok(())
    }

    /// Queues a packet on a link.
    pub(super) fn send_packet(&mut self, link: LinkId, packet: Packet) {
        if let Some((key, connection)) = self.link(link) {
            let start = begin_frame(connection);
            packet.encode(&mut connection.output);
            end_frame(connection, start);
            self.dirty.push(key);
        }
    }

    /// Queues an append and its records on a link.
    pub(super) fn send_entries(
        &mut self,
        link: LinkId,
        append: Append,
        first: Index,
        last: Index,
    ) -> io::Result<()> {
        let key = key_of(link.0);
        let Some(connection) = self.connections.get_mut(key).filter(|c| c.is_link(link)) else {
            return Ok(());
        };
        let start = begin_frame(connection);
        Packet::Append(append).encode(&mut connection.output);
        self.store.copy(first, last, &mut connection.output)?;
        end_frame(connection, start);
        self.dirty.push(key);
        Ok(())
    }

    /// Closes a link when what is queued on it was sent, and says why.
    pub(super) fn close_link(&mut self, link: LinkId, why: Closing) {
        self.explain(why);
        let deadline = self.now() + self.node.replica().silence() / 4;
        if let Some((key, connection)) = self.link(link) {
            connection.closing = true;
            if matches!(why, Closing::Silent) {
                // What is still queued would come too late, if ever.
                connection.output = Vec::new();
            }
            self.dirty.push(key);
            self.set_deadline(key, Some(deadline));
        }
    }

    fn link(&mut self, link: LinkId) -> Option<(usize, &mut Connection)> {
        let key = key_of(link.0);
        let connection = self.connections.get_mut(key).filter(|c| c.is_link(link))?;
        Some((key, connection))
    }

    pub(super) fn flush_link(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let failed = connection.flush().is_err();
        if failed || (connection.closing && connection.output.is_empty()) {
            self.close(key);
        }
    }

    /// One line for what a person should know, at most once a minute for each reason.
    fn explain(&mut self, why: Closing) {
        let words = match why {
            Closing::Spare | Closing::Restated => return,
            Closing::Silent => "a link said nothing for too long: closed".to_owned(),
            Closing::Nonsense => "a link spoke nonsense: closed".to_owned(),
            Closing::Refused(id, why) if id == self.node.replica().me().id => {
                format!("refused a server: {why}")
            }
            Closing::Refused(id, why) => format!("refused server {id}: {why}"),
            Closing::RefusedBy(Some(id), why) => {
                let address = &self.names[id.slot()];
                format!("server {id} at {address} refuses this one: {why}, as it sees us")
            }
            Closing::RefusedBy(None, why) => {
                format!("a server refuses this one: {why}, as it sees us")
            }
        };
        let now = self.now();
        let minute = std::time::Duration::from_secs(60);
        self.explained.retain(|(_, at)| now < *at + minute);
        if !self.explained.iter().any(|(said, _)| *said == words) {
            log::warn!("{words}");
            self.explained.push((words, now));
        }
    }
}

impl Connection {
    fn is_link(&self, id: LinkId) -> bool {
        matches!(self.kind, Kind::Link { link } if link == id) && !self.closing
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Undecided,
    Refused,
    Failed,
}

fn outcome(socket: &TcpStream, timed_out: bool) -> Outcome {
    if timed_out {
        return Outcome::Failed;
    }
    match socket.take_error() {
        Ok(Some(error)) | Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Outcome::Refused,
            _ => Outcome::Failed,
        },
        Ok(None) => match (socket.peer_addr(), socket.local_addr()) {
            // A port that is free may be taken by the dial itself: nobody listens there.
            (Ok(peer), Ok(local)) if peer == local => Outcome::Refused,
            (Ok(_), _) => Outcome::Open,
            (Err(error), _) if error.kind() == io::ErrorKind::NotConnected => Outcome::Undecided,
            (Err(_), _) => Outcome::Failed,
        },
    }
}

fn begin_frame(connection: &mut Connection) -> usize {
    let start = connection.output.len();
    connection.output.extend([0; LENGTH_BYTES]);
    start
}

fn end_frame(connection: &mut Connection, start: usize) {
    let length = connection.output.len() - start - LENGTH_BYTES;
    assert!(length <= FRAME_BYTES_MAX, "a frame over its bound");
    LE::write_u32(&mut connection.output[start..], length as u32);
}

/// The next frame, if all of it is here; an error when its length is over the bound.
fn next_frame(input: &[u8]) -> Option<Result<&[u8], ()>> {
    let length = LE::read_u32(input.get(..LENGTH_BYTES)?) as usize;
    if length > FRAME_BYTES_MAX {
        return Some(Err(()));
    }
    input.get(LENGTH_BYTES..LENGTH_BYTES + length).map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_bounded_before_they_are_believed() {
        assert_eq!(next_frame(&[2, 0, 0, 0, 7, 8, 9]), Some(Ok(&[7, 8][..])));
        assert_eq!(next_frame(&[2, 0, 0, 0, 7]), None);
        assert_eq!(next_frame(&[2, 0, 0]), None);
        assert_eq!(next_frame(&[0xff; 4]), Some(Err(())));
    }
}
