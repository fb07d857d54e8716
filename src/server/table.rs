//! The table of connections, with the list of those to read and their deadlines.

use super::connection::{Connection, Kind};
use super::kernel::Kernel;
use crate::time::Moment;
use slab::Slab;
use std::collections::BTreeSet;
use std::mem;
use std::ops::{Index, IndexMut};

/// All connections, by their places.
pub(super) struct Table<K: Kernel> {
    connections: Slab<Connection<K>>,
    /// Distinguishes a connection from an earlier one at its place.
    serial: u32,
    /// The places of connections to read in the next turn.
    listed: Vec<usize>,
    /// The deadlines, earliest first.
    deadlines: BTreeSet<(Moment, usize)>,
}

impl<K: Kernel> Default for Table<K> {
    fn default() -> Table<K> {
        let (connections, listed, deadlines) = (Slab::new(), Vec::new(), BTreeSet::new());
        Table { connections, serial: 0, listed, deadlines }
    }
}

impl<K: Kernel> Table<K> {
    /// The place of the connection that is inserted next.
    pub(super) fn next_place(&self) -> usize {
        self.connections.vacant_key()
    }

    /// Adds a connection at [`Table::next_place`].
    pub(super) fn insert(&mut self, socket: K::Socket, kind: Kind) -> usize {
        self.serial = self.serial.wrapping_add(1);
        self.connections.insert(Connection::new(socket, kind, self.serial))
    }

    /// Removes a connection and its deadline.
    pub(super) fn remove(&mut self, key: usize) -> Option<Connection<K>> {
        self.set_deadline(key, None);
        self.connections.try_remove(key)
    }

    pub(super) fn get(&self, key: usize) -> Option<&Connection<K>> {
        self.connections.get(key)
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut Connection<K>> {
        self.connections.get_mut(key)
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// The places of all connections whose kind is wanted.
    pub(super) fn places(&self, is_wanted: impl Fn(&Kind) -> bool) -> Vec<usize> {
        let wanted = self.connections.iter().filter(|(_, connection)| is_wanted(&connection.kind));
        wanted.map(|(key, _)| key).collect()
    }

    /// Adds a connection to the list of those to read.
    pub(super) fn list(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !mem::replace(&mut connection.listed, true)
        {
            self.listed.push(key);
        }
    }

    /// Whether the list of connections to read has an entry.
    pub(super) fn has_listed(&self) -> bool {
        !self.listed.is_empty()
    }

    /// Takes the list of places to read. Connections that are listed later belong to the next turn.
    pub(super) fn take_listed(&mut self) -> Vec<usize> {
        mem::take(&mut self.listed)
    }

    /// Takes a connection off the list, if it still exists.
    pub(super) fn unlist(&mut self, key: usize) -> Option<&mut Connection<K>> {
        let connection = self.connections.get_mut(key)?;
        connection.listed = false;
        Some(connection)
    }

    /// Sets or removes the deadline of a connection.
    pub(super) fn set_deadline(&mut self, key: usize, deadline: Option<Moment>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(old) = mem::replace(&mut connection.deadline, deadline) {
            self.deadlines.remove(&(old, key));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, key));
        }
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes the next connection whose deadline has passed, and removes that deadline.
    pub(super) fn expired(&mut self, now: Moment) -> Option<usize> {
        let (_, key) = self.deadlines.first().copied().filter(|(at, _)| *at <= now)?;
        self.set_deadline(key, None);
        Some(key)
    }
}

impl<K: Kernel> Index<usize> for Table<K> {
    type Output = Connection<K>;

    fn index(&self, key: usize) -> &Connection<K> {
        &self.connections[key]
    }
}

impl<K: Kernel> IndexMut<usize> for Table<K> {
    fn index_mut(&mut self, key: usize) -> &mut Connection<K> {
        &mut self.connections[key]
    }
}
