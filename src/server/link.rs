//! Links to other servers: dialling, and frames of `u32` length and packet inside a [`Channel`].
//!
//! The replica hears of a dial when it is taken, and what it says at once waits until the other
//! side is known; of who dialled us it hears only after that.

use super::channel::{Broken, Channel};
use super::connection::{Connection, Kind, Reading, Tunnel, forget_front, key_of};
use super::sockets::Sockets;
use super::{Fail, Server};
use crate::host::Edges;
use crate::ids::{LinkId, ServerId};
use crate::limits::{
    FIRST_BYTES_MAX, FRAME_BYTES_MAX, LINK_KEPT_BYTES_MAX, PEER_READ_BYTES_PER_TURN,
};
use crate::node::Input;
use crate::replica::{Append, Closing, DialFailure, Event, Packet};
use byteorder::{ByteOrder, LE};
use mio::net::TcpStream;
use std::net::{IpAddr, SocketAddr};
use std::{io, mem};

pub(super) const LENGTH_BYTES: usize = 4;

impl Server {
    /// A server that has dialled us and does not answer at its own address: nobody else would
    /// notice, and clients that are sent there are lost.
    pub(super) fn report_failed_dial(&mut self, to: ServerId) {
        let looking = self.sockets.addresses.of(to).is_empty()
            && self.sockets.addresses.trouble(self.host.now(), to).is_none();
        if let Some(why) = self.host.node().replica().unreachable(to).filter(|_| !looking) {
            let name = self.sockets.addresses.name(to).to_owned();
            self.sockets.warn(&format!(
                "server {to} reached this one, but {name} {why}: clients that are sent there do \
                 not get in; correct the name, its `listen` or a firewall"
            ));
        }
    }

    /// A dial has an outcome, or its time is over.
    pub(super) fn dial_decided(&mut self, key: usize, timed_out: bool) -> Result<(), Fail> {
        let connection = &mut self.sockets.table[key];
        let Kind::Dialling { to, rest, all_refused } = &mut connection.kind else { return Ok(()) };
        let (to, rest, all_refused) = (*to, mem::take(rest), *all_refused);
        let outcome = outcome(&connection.socket, timed_out);
        match outcome {
            Outcome::Open => {
                let link = LinkId(connection.number(key));
                connection.kind = Kind::Link { link, dialled: Some(to) };
                connection.readable = true;
                let mut output = vec![super::classify::LINK_BYTE];
                let channel = Channel::initiator(
                    &self.sockets.knows.secret,
                    self.sockets.knows.group,
                    &mut output,
                );
                connection.tunnel = Some(Tunnel::new(channel, output));
                // An error here shows as the link's end.
                let _ = connection.socket.set_nodelay(true);
                self.sockets.table.set_deadline(key, None);
                self.handle(Input::Replica(Event::Dialled { link, to }))?;
                self.sockets.dirty.push(key);
                self.sockets.table.list(key);
            }
            Outcome::Undecided => {}
            Outcome::Refused | Outcome::Failed => {
                self.sockets.close(key);
                self.sockets.dial_next(to, rest, all_refused && outcome == Outcome::Refused);
            }
        }
        Ok(())
    }

    /// Reads from somebody who says to be a server, until it has proved that.
    pub(super) fn read_handshaking(&mut self, key: usize, from: IpAddr) -> Result<(), Fail> {
        loop {
            let connection = &mut self.sockets.table[key];
            match connection.open(0) {
                Ok(0) if !connection.readable => return Ok(()),
                Ok(0) => match connection.read(&mut self.sockets.buffer[..FIRST_BYTES_MAX]) {
                    Reading::More => {}
                    Reading::Drained => return Ok(()),
                    Reading::Closed | Reading::Broken => {
                        self.sockets.close(key);
                        return Ok(());
                    }
                },
                Ok(taken) => {
                    connection.consume(taken);
                    self.sockets.dirty.push(key);
                    if self.sockets.table[key].is_proven() {
                        return self.link_accepted(key);
                    }
                }
                Err(broken) => {
                    // Best effort: an empty socket buffer takes our words.
                    let _ = connection.flush();
                    self.sockets.drop_handshaking(key, from, &broken.to_string());
                    return Ok(());
                }
            }
        }
    }

    fn link_accepted(&mut self, key: usize) -> Result<(), Fail> {
        let connection = &mut self.sockets.table[key];
        let link = LinkId(connection.number(key));
        connection.kind = Kind::Link { link, dialled: None };
        self.sockets.handshaking -= 1;
        self.sockets.table.set_deadline(key, None);
        self.sockets.table.list(key);
        self.handle(Input::Replica(Event::Accepted { link }))
    }

    /// Reads frames from a link and hands them to the replica.
    pub(super) fn read_link(&mut self, key: usize, link: LinkId) -> Result<(), Fail> {
        self.keep_warm(key);
        let mut budget = PEER_READ_BYTES_PER_TURN / self.sockets.buffer.len();
        loop {
            self.take_frames(key, link)?;
            let Some(connection) = self.sockets.table.get_mut(key) else { return Ok(()) };
            if connection.closing || !connection.readable {
                return Ok(());
            }
            if budget == 0 {
                self.sockets.table.list(key);
                return Ok(());
            }
            budget -= 1;
            let reading = connection.read(&mut self.sockets.buffer);
            self.host.read_clock(&mut self.sockets);
            match reading {
                Reading::More => {}
                Reading::Drained => return Ok(()),
                Reading::Closed | Reading::Broken => {
                    // What came before the end counts.
                    self.take_frames(key, link)?;
                    self.sockets.close(key);
                    return Ok(());
                }
            }
        }
    }

    /// Opens what came on a link, and hands its frames to the replica.
    fn take_frames(&mut self, key: usize, link: LinkId) -> Result<(), Fail> {
        let mut used = 0;
        loop {
            self.take_opened(key, link)?;
            let Some((_, connection)) = self.sockets.link(link) else { return Ok(()) };
            match connection.open(used) {
                Ok(0) => break,
                Ok(taken) => {
                    used += taken;
                    if connection.has_output() {
                        // What was held back until the other side was known.
                        self.sockets.dirty.push(key);
                    }
                }
                Err(broken) => return self.close_broken(link, broken),
            }
        }
        if let Some((_, connection)) = self.sockets.link(link) {
            forget_front(&mut connection.input, used, LINK_KEPT_BYTES_MAX);
        }
        Ok(())
    }

    /// Closes a link on which something came that the other side did not seal.
    fn close_broken(&mut self, link: LinkId, broken: Broken) -> Result<(), Fail> {
        let sockets = &mut self.sockets;
        let Some((key, connection)) = sockets.link(link) else { return Ok(()) };
        let dialled = match connection.kind {
            Kind::Link { dialled, .. } if broken != Broken::Tampered => dialled,
            _ => None,
        };
        let Some(to) = dialled else {
            sockets.end_link(link, Closing::Nonsense);
            return Ok(());
        };
        connection.closing = true;
        connection.drop_output();
        sockets.dirty.push(key);
        let address = sockets.addresses.name(to).to_owned();
        sockets.warn(&format!("who answers for server {to} at {address} {broken}: closed"));
        self.handle(Input::Replica(Event::NotAuthentic { link }))
    }

    /// Hands the frames to the replica that are here and opened.
    fn take_opened(&mut self, key: usize, link: LinkId) -> Result<(), Fail> {
        let tunnel = self.sockets.link(link).and_then(|(_, connection)| connection.tunnel.as_mut());
        let Some(tunnel) = tunnel else { return Ok(()) };
        let opened = mem::take(&mut tunnel.opened);
        let mut used = 0;
        while let Some(frame) = next_frame(&opened[used..]) {
            let Some((packet, records)) = frame.ok().and_then(|frame| Packet::decode(frame).ok())
            else {
                self.sockets.end_link(link, Closing::Nonsense);
                break;
            };
            used += LENGTH_BYTES + LE::read_u32(&opened[used..]) as usize;
            self.handle(Input::Replica(Event::Received { link, packet, records }))?;
            if self.sockets.table.get(key).is_none_or(|connection| connection.closing) {
                break;
            }
        }
        let tunnel = self.sockets.link(link).and_then(|(_, connection)| connection.tunnel.as_mut());
        if let Some(tunnel) = tunnel {
            tunnel.opened = opened;
            forget_front(&mut tunnel.opened, used, LINK_KEPT_BYTES_MAX);
        }
        Ok(())
    }
}

impl Sockets {
    /// Begins a dial; its outcome is told to the replica.
    pub(super) fn begin_dial(&mut self, to: ServerId) {
        self.addresses.look_up(self.now, to);
        if let Some(trouble) = self.addresses.trouble(self.now, to) {
            self.warn(&trouble);
        }
        let addresses = self.addresses.of(to).to_vec();
        if addresses.is_empty() {
            return self.failed_dials.push((to, DialFailure::NoName));
        }
        self.dial_next(to, addresses, true);
    }

    fn dial_next(&mut self, to: ServerId, mut rest: Vec<SocketAddr>, mut all_refused: bool) {
        while let Some(address) = (!rest.is_empty()).then(|| rest.remove(0)) {
            match TcpStream::connect(address) {
                Ok(socket) => {
                    let kind = Kind::Dialling { to, rest: rest.clone(), all_refused };
                    if let Some(key) = self.insert(socket, kind) {
                        self.table[key].readable = false;
                        let deadline = self.now + self.knows.peer_timeout / 2;
                        return self.table.set_deadline(key, Some(deadline));
                    }
                    all_refused = false;
                }
                Err(error) => all_refused &= error.kind() == io::ErrorKind::ConnectionRefused,
            }
        }
        let why = if all_refused { DialFailure::Refused } else { DialFailure::NoAnswer };
        self.failed_dials.push((to, why));
    }

    /// Takes in what look-ups have found, and says what is wrong with the addresses.
    pub(super) fn take_addresses(&mut self) {
        if self.addresses.take_results()
            && let Some(conflict) = self.addresses.conflict(self.knows.me, &self.knows.listens)
        {
            self.warn(&conflict);
        }
    }

    pub(super) fn drop_handshaking(&mut self, key: usize, from: IpAddr, why: &str) {
        self.warn(&format!("{from} says to be a server, but {why}: closed"));
        self.close(key);
    }

    /// Queues a packet on a link, and what follows it.
    pub(super) fn send_packet(&mut self, link: LinkId, packet: Packet, rest: &[u8]) {
        let mut frame = mem::take(&mut self.frame);
        begin_frame(&mut frame);
        packet.encode(&mut frame);
        frame.extend_from_slice(rest);
        self.send_frame(link, frame);
    }

    /// Seals a frame on a link, and gives its memory back for the next one.
    fn send_frame(&mut self, link: LinkId, mut frame: Vec<u8>) {
        end_frame(&mut frame);
        if let Some((key, connection)) = self.link(link) {
            connection.seal(&frame);
            self.dirty.push(key);
        }
        let length = frame.len();
        forget_front(&mut frame, length, LINK_KEPT_BYTES_MAX);
        self.frame = frame;
    }

    /// Queues an append and the records that `copy` appends to it.
    pub(super) fn send_append(
        &mut self,
        link: LinkId,
        append: Append,
        copy: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.link(link).is_none() {
            return Ok(());
        }
        let mut frame = mem::take(&mut self.frame);
        begin_frame(&mut frame);
        Packet::Append(append).encode(&mut frame);
        copy(&mut frame)?;
        self.send_frame(link, frame);
        Ok(())
    }

    /// Closes a link when what is queued on it was sent, and says why.
    pub(super) fn end_link(&mut self, link: LinkId, why: Closing) {
        match why {
            Closing::Occupied { stays, holder, newcomer } => {
                let (there, here) = (self.address_of(link), self.address_of(stays));
                self.warn(&format!(
                    "two servers run as id {}: {newcomer} at {there} is refused, since {holder} \
                     at {here} is linked and answers; stop one of them",
                    holder.id
                ));
            }
            why => self.explain(why),
        }
        let deadline = self.now + self.knows.peer_timeout / 4;
        if let Some((key, connection)) = self.link(link) {
            connection.closing = true;
            if matches!(why, Closing::Silent) {
                // What is still queued would come too late, if ever.
                connection.drop_output();
            }
            self.dirty.push(key);
            self.table.set_deadline(key, Some(deadline));
        }
    }

    /// The address at the other end of a link, for a person.
    fn address_of(&mut self, link: LinkId) -> String {
        // Without the port, which is another one each time that somebody dials.
        let known = self.link(link).and_then(|(_, connection)| connection.socket.peer_addr().ok());
        known.map_or_else(|| "an unknown address".to_owned(), |known| known.ip().to_string())
    }

    fn link(&mut self, link: LinkId) -> Option<(usize, &mut Connection)> {
        let key = key_of(link.0);
        let connection = self.table.get_mut(key).filter(|c| c.is_link(link))?;
        Some((key, connection))
    }

    pub(super) fn flush_link(&mut self, key: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let failed = connection.flush().is_err();
        if failed || (connection.closing && !connection.has_output()) {
            self.close(key);
        }
    }

    /// One line for what a person should know, at most once a minute for each reason.
    fn explain(&mut self, why: Closing) {
        let words = match why {
            Closing::Spare | Closing::Restated => return,
            Closing::Silent => "a link said nothing for too long: closed".to_owned(),
            Closing::Nonsense => "a link spoke nonsense: closed".to_owned(),
            Closing::Refused(id, why) if id == self.knows.me => {
                format!("refused a server: {why}")
            }
            Closing::Refused(id, why) => format!("refused server {id}: {why}"),
            Closing::RefusedBy(Some(id), why) => {
                let address = self.addresses.name(id);
                format!("server {id} at {address} refuses this one: {why}, as it sees us")
            }
            Closing::RefusedBy(None, why) => {
                format!("a server refuses this one: {why}, as it sees us")
            }
            Closing::Occupied { .. } => return,
        };
        self.warn(&words);
    }
}

impl Connection {
    fn is_link(&self, id: LinkId) -> bool {
        matches!(self.kind, Kind::Link { link, .. } if link == id) && !self.closing
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

/// Begins a frame in an empty buffer.
pub(super) fn begin_frame(frame: &mut Vec<u8>) {
    frame.clear();
    frame.extend([0; LENGTH_BYTES]);
}

pub(super) fn end_frame(frame: &mut [u8]) {
    let length = frame.len() - LENGTH_BYTES;
    assert!(length <= FRAME_BYTES_MAX, "a frame over its bound");
    LE::write_u32(frame, length as u32);
}

/// The next frame, if all of it is here; an error when its length is over the bound.
pub(super) fn next_frame(input: &[u8]) -> Option<Result<&[u8], ()>> {
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
