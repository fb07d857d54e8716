//! The connections of a server, each in its place, with what is to be done about them and when.

use super::connection::{Connection, Kind};
use crate::time::Moment;
use mio::net::TcpStream;
use slab::Slab;
use std::collections::BTreeSet;
use std::mem;
use std::ops::{Index, IndexMut};

/// All connections, by their places.
#[derive(Debug, Default)]
pub(super) struct Table {
    connections: Slab<Connection>,
    /// Tells a connection from an earlier one in its place.
    serial: u32,
    /// Those that are to be read in this turn.
    listed: Vec<usize>,
    /// The deadline of each that has one, the next one first.
    deadlines: BTreeSet<(Moment, usize)>,
}

impl Table {
    /// The place of the connection that is inserted next.
    pub(super) fn next_place(&self) -> usize {
        self.connections.vacant_key()
    }

    /// Adds a connection at [`Table::next_place`].
    pub(super) fn insert(&mut self, socket: TcpStream, kind: Kind) -> usize {
        self.serial = self.serial.wrapping_add(1);
        self.connections.insert(Connection::new(socket, kind, self.serial))
    }

    /// Removes a connection and its deadline.
    pub(super) fn remove(&mut self, key: usize) -> Option<Connection> {
        self.set_deadline(key, None);
        self.connections.try_remove(key)
    }

    pub(super) fn get(&self, key: usize) -> Option<&Connection> {
        self.connections.get(key)
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut Connection> {
        self.connections.get_mut(key)
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// The places of all connections of such kinds.
    pub(super) fn places(&self, is_wanted: impl Fn(&Kind) -> bool) -> Vec<usize> {
        let wanted = self.connections.iter().filter(|(_, connection)| is_wanted(&connection.kind));
        wanted.map(|(key, _)| key).collect()
    }

    /// Notes that a connection is to be read, in this turn or the next one.
    pub(super) fn list(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !mem::replace(&mut connection.listed, true)
        {
            self.listed.push(key);
        }
    }

    /// Whether a connection is to be read.
    pub(super) fn has_listed(&self) -> bool {
        !self.listed.is_empty()
    }

    /// The places to be read; those that are listed from now on are of the next turn.
    pub(super) fn take_listed(&mut self) -> Vec<usize> {
        mem::take(&mut self.listed)
    }

    /// A connection that [`Table::take_listed`] named, if it is still there.
    pub(super) fn unlist(&mut self, key: usize) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(key)?;
        connection.listed = false;
        Some(connection)
    }

    /// Sets when a connection must have done something, or that it need not.
    pub(super) fn set_deadline(&mut self, key: usize, deadline: Option<Moment>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(old) = mem::replace(&mut connection.deadline, deadline) {
            self.deadlines.remove(&(old, key));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, key));
        }
    }

    /// The next deadline of all.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The next connection whose deadline has passed; it has none from now on.
    pub(super) fn expired(&mut self, now: Moment) -> Option<usize> {
        let (_, key) = self.deadlines.first().copied().filter(|(at, _)| *at <= now)?;
        self.set_deadline(key, None);
        Some(key)
    }
}

impl Index<usize> for Table {
    type Output = Connection;

    fn index(&self, key: usize) -> &Connection {
        &self.connections[key]
    }
}

impl IndexMut<usize> for Table {
    fn index_mut(&mut self, key: usize) -> &mut Connection {
        &mut self.connections[key]
    }
}
