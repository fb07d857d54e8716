//! Links to other servers: the handshake of those that dial us, and the packets of all.
//!
//! A link that we dialled is reported to the replica when the connection opens. What the replica
//! sends at once waits until the other side has proved that it knows the secret. A link from
//! another server is reported only after that proof.

use super::channel::Broken;
use super::connection::{Connection, Kind, forget_front, key_of};
use super::frame::{LENGTH_BYTES, next_frame};
use super::kernel::{Kernel, Socket};
use super::sockets::Sockets;
use super::{Fail, Server};
use crate::host::Edges;
use crate::ids::LinkId;
use crate::limits::{FIRST_BYTES_MAX, LINK_KEPT_BYTES_MAX, PEER_READ_BYTES_PER_TURN};
use crate::node::Input;
use crate::replica::{Closing, Event, Packet};
use crate::store::disk::Disk;
use std::mem;
use std::net::IpAddr;

impl<K: Kernel, D: Disk> Server<K, D> {
    /// Reads from a connection that claims to be a server, until it has proved that.
    pub(super) fn read_handshaking(&mut self, key: usize, from: IpAddr) -> Result<(), Fail> {
        loop {
            let connection = &mut self.sockets.table[key];
            match connection.open(0) {
                Ok(0) => {
                    if !connection.readable || !self.sockets.read(key, FIRST_BYTES_MAX) {
                        return Ok(());
                    }
                }
                Ok(taken) => {
                    connection.consume(taken);
                    self.sockets.dirty.push(key);
                    if self.sockets.table[key].is_proven() {
                        return self.link_accepted(key);
                    }
                }
                Err(broken) => {
                    // Best effort: the empty socket buffer accepts the few bytes.
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
        self.sockets.handshakes -= 1;
        self.sockets.table.set_deadline(key, None);
        self.sockets.table.list(key);
        self.handle(Input::Replica(Event::Accepted { link }))
    }

    /// Reads frames from a link and passes them to the replica.
    pub(super) fn read_link(&mut self, key: usize, link: LinkId) -> Result<(), Fail> {
        self.keep_buffers(key);
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
            let read = self.sockets.read(key, self.sockets.buffer.len());
            self.host.read_clock(&mut self.sockets);
            if !read {
                return Ok(());
            }
        }
    }

    /// Opens the received bytes of a link, and passes the frames to the replica.
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
                        // Bytes that were held back until the handshake was complete.
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

    /// Closes a link whose received bytes the other side did not seal.
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
        sockets.warn(&format!("closed a link: the answer for server {to} at {address} {broken}"));
        self.handle(Input::Replica(Event::NotAuthentic { link }))
    }

    /// Passes the opened frames to the replica.
    fn take_opened(&mut self, key: usize, link: LinkId) -> Result<(), Fail> {
        let tunnel = self.sockets.link(link).and_then(|(_, connection)| connection.tunnel.as_mut());
        let Some(tunnel) = tunnel else { return Ok(()) };
        let opened = mem::take(&mut tunnel.opened);
        let mut used = 0;
        while let Some(frame) = next_frame(&opened[used..]) {
            let length = LENGTH_BYTES + frame.map_or(0, <[u8]>::len);
            let Some((packet, records)) = frame.ok().and_then(|frame| Packet::decode(frame).ok())
            else {
                self.sockets.end_link(link, Closing::Nonsense);
                break;
            };
            used += length;
            self.sockets.kernel.on_received(link, key, &packet);
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

impl<K: Kernel> Sockets<K> {
    pub(super) fn drop_handshaking(&mut self, key: usize, from: IpAddr, why: &str) {
        self.warn(&format!("closed a connection from {from}: it claims to be a server, but {why}"));
        self.close(key);
    }

    /// Closes a link after its queued frames are sent, and logs why.
    pub(super) fn end_link(&mut self, link: LinkId, why: Closing) {
        if let Some(words) = self.explain(link, why) {
            self.warn(&words);
        }
        let deadline = self.now + self.peer_timeout / 4;
        if let Some((key, connection)) = self.link(link) {
            connection.closing = true;
            if matches!(why, Closing::Silent) {
                // The other side does not receive: queued frames are dropped.
                connection.drop_output();
            }
            self.dirty.push(key);
            self.table.set_deadline(key, Some(deadline));
        }
    }

    /// The address of the other side of a link, for a log line.
    fn address_of(&mut self, link: LinkId) -> String {
        // Without the port, which differs for each dial.
        let known = self.link(link).and_then(|(_, connection)| connection.socket.peer_ip());
        known.map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_string())
    }

    fn link(&mut self, link: LinkId) -> Option<(usize, &mut Connection<K>)> {
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

    /// Returns why a link is closed, in words for the log, unless that is of no interest.
    fn explain(&mut self, link: LinkId, why: Closing) -> Option<String> {
        Some(match why {
            Closing::Spare | Closing::Restated => return None,
            Closing::Silent => "closed a link: nothing was received for too long".to_owned(),
            Closing::Nonsense => "closed a link: an invalid packet was received".to_owned(),
            Closing::Refused(id, why) if id == self.me => format!("refused a server: {why}"),
            Closing::Refused(id, why) => format!("refused server {id}: {why}"),
            Closing::RefusedBy(id, why) => {
                let server = id.map_or_else(
                    || "a server".to_owned(),
                    |id| format!("server {id} at {}", self.addresses.name(id)),
                );
                format!("{server} refuses this one: {why}, as it sees us")
            }
            Closing::Occupied { stays, holder, newcomer } => {
                let (there, here) = (self.address_of(link), self.address_of(stays));
                format!(
                    "two servers run as id {}: {newcomer} at {there} is refused, since {holder} \
                     at {here} is linked and answers; stop one of them",
                    holder.id
                )
            }
        })
    }
}

impl<K: Kernel> Connection<K> {
    pub(super) fn is_link(&self, id: LinkId) -> bool {
        matches!(self.kind, Kind::Link { link, .. } if link == id) && !self.closing
    }
}
