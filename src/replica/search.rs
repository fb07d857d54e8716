//! Interface for an exhaustive search; see [`crate::raft::Decision`].

use super::{Decision, LogReader, Out, Replica};
use crate::peers::Env;
use crate::time::{Moment, WallTime};
use std::fmt::{self, Write};

impl Replica {
    /// Makes a decision if the rules allow it now. Returns whether they do.
    pub fn decide(&mut self, now: Moment, wall: WallTime, what: Decision, out: &mut Out) -> bool {
        self.raft.decide(&mut Env { now, wall, peers: &mut self.peers, out }, what)
    }

    /// Ends a turn without any decision by the replica itself.
    pub fn step(&mut self, now: Moment, wall: WallTime, log: &dyn LogReader, out: &mut Out) {
        self.raft.step(&mut Env { now, wall, peers: &mut self.peers, out }, log);
    }

    /// Writes all state that may affect the future, except the time.
    ///
    /// # Errors
    /// When `into` fails.
    pub fn picture(&self, into: &mut dyn Write) -> fmt::Result {
        self.raft.picture(into)
    }
}
