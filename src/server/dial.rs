//! Dials of other servers: each address of a name in turn.

use super::addresses::Found;
use super::classify::LINK_BYTE;
use super::connection::{Kind, Tunnel};
use super::kernel::{Kernel, Socket};
use super::sockets::Sockets;
use super::{Fail, Server};
use crate::host::Edges;
use crate::ids::{LinkId, ServerId};
use crate::node::Input;
use crate::replica::{DialFailure, Event};
use crate::store::disk::Disk;
use std::net::SocketAddr;
use std::{io, mem};

impl<K: Kernel, D: Disk> Server<K, D> {
    /// Handles the outcome of a dial, or its timeout.
    pub(super) fn dial_decided(&mut self, key: usize, timed_out: bool) -> Result<(), Fail> {
        let connection = &mut self.sockets.table[key];
        let Kind::Dialling { to, rest, all_refused } = &mut connection.kind else { return Ok(()) };
        let to = *to;
        let connected = match timed_out {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => connection.socket.is_connected(),
        };
        match connected {
            Ok(true) => {
                let link = LinkId(connection.number(key));
                connection.kind = Kind::Link { link, dialled: Some(to) };
                connection.readable = true;
                let mut output = vec![LINK_BYTE];
                let setup = &self.sockets.setup;
                let channel =
                    self.sockets.kernel.initiator(&setup.secret, setup.group, &mut output);
                connection.tunnel = Some(Tunnel::new(channel, output));
                self.sockets.table.set_deadline(key, None);
                self.handle(Input::Replica(Event::Dialled { link, to }))?;
                self.sockets.dirty.push(key);
                self.sockets.table.list(key);
            }
            // Not decided yet.
            Ok(false) => {}
            Err(error) => {
                let rest = mem::take(rest);
                let all_refused = *all_refused && is_refused(&error);
                self.sockets.close(key);
                self.sockets.dial_next(to, rest, all_refused);
            }
        }
        Ok(())
    }

    /// Warns of a server that has dialled this one and does not answer at its own address. No other
    /// server would notice, and clients that are redirected there are lost.
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
}

impl<K: Kernel> Sockets<K> {
    /// Begins a dial. Its outcome is reported to the replica.
    pub(super) fn begin_dial(&mut self, to: ServerId) {
        let kernel = &mut self.kernel;
        self.addresses.look_up(self.now, to, |name| kernel.look_up(to, name));
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
            match self.kernel.connect(address) {
                Ok(socket) => {
                    let kind = Kind::Dialling { to, rest: rest.clone(), all_refused };
                    if let Some(key) = self.insert(socket, kind) {
                        self.table[key].readable = false;
                        let deadline = self.now + self.peer_timeout / 2;
                        return self.table.set_deadline(key, Some(deadline));
                    }
                    all_refused = false;
                }
                Err(error) => all_refused &= is_refused(&error),
            }
        }
        let why = if all_refused { DialFailure::Refused } else { DialFailure::NoAnswer };
        self.failed_dials.push((to, why));
    }

    /// Stores the result of a look-up, and warns of what is wrong with the addresses.
    pub(super) fn store_addresses(&mut self, id: ServerId, found: Found) {
        self.addresses.store(id, found);
        if let Some(conflict) = self.addresses.conflict(self.me, &self.setup.listens) {
            self.warn(&conflict);
        }
    }
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}
