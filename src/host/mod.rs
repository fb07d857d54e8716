#![doc = include_str!("README.md")]

mod build;
mod care;
mod compaction;
mod edges;
mod storage;

pub use build::{Setup, in_use};
pub use care::ScrubSettings;
pub use edges::Edges;

use crate::frontend::Text;
use crate::ids::{SessionId, Vote};
use crate::limits::{OUTPUT_BYTES_MAX, SPACE_RESERVED, SPACE_TIME};
use crate::node::{Context, Fatal, Gauges, Input, Node, Outlet, Output};
use crate::replica::{Effect, Event, Packet, Quarantine};
use crate::store::disk::Disk;
use crate::store::{JobDone, JobError, Store};
use crate::time::{Moment, WallTime};
use std::io::{self, Write};
use std::{fmt, mem};
use storage::Storage;

/// Why a server ends although nobody has stopped it.
#[derive(Debug)]
pub enum Fail {
    /// The disk or the poll failed. After a failed sync the page cache can't be trusted.
    Io(&'static str, io::Error),
    /// See [`Fatal`].
    Fatal(Fatal),
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fail::Io(what, error) => write!(f, "{what}: {error}"),
            Fail::Fatal(Fatal(why)) => f.write_str(why),
        }
    }
}

/// A node and its log.
///
/// Getters: [`node`](Host::node), [`store`](Host::store), [`now`](Host::now), [`vote`](Host::vote),
/// [`quarantine`](Host::quarantine), [`next_deadline`](Host::next_deadline). The turn: see the
/// module. Beside it: [`read_clock`](Host::read_clock) after a read that took long,
/// [`cool`](Host::cool) now and then, [`close`](Host::close) at the end.
#[derive(Debug)]
pub struct Host<D: Disk> {
    core: Core<D>,
    /// When to check the free space again, as soon as anything else wakes the loop.
    space_at: Moment,
    turns: u64,
    /// Empty between inputs.
    out: Output,
    /// Empty between turns.
    dirty: Vec<SessionId>,
}

/// What effects change.
#[derive(Debug)]
struct Core<D: Disk> {
    node: Node,
    storage: Storage<D>,
    /// The time, as it was when the clocks were last read.
    now: Moment,
    wall: WallTime,
    /// What is quarantined before this server restarts. Once it is set, the node gets no input and
    /// nothing is stored; frames and replies that were queued before are still sent.
    quarantine: Option<Quarantine>,
}

impl<D: Disk> Host<D> {
    /// `vote` is the one that is stored.
    fn new(node: Node, store: Store<D>, vote: Vote, scrub: ScrubSettings) -> Host<D> {
        let storage = Storage::new(store, vote, scrub);
        Host {
            core: Core { node, storage, now: Moment(0), wall: WallTime(0), quarantine: None },
            space_at: Moment(0),
            turns: 0,
            out: Output::default(),
            dirty: Vec::new(),
        }
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.core.node
    }

    /// The log.
    pub fn store(&self) -> &Store<D> {
        &self.core.storage.store
    }

    /// The time, as it was when the clocks were last read.
    pub fn now(&self) -> Moment {
        self.core.now
    }

    /// The vote that is durable.
    pub fn vote(&self) -> Vote {
        self.core.storage.vote
    }

    /// What is to be quarantined before this server starts again, once its life is over.
    pub fn quarantine(&self) -> Option<Quarantine> {
        self.core.quarantine
    }

    /// When the next turn is wanted, at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        let Core { node, storage, .. } = &self.core;
        [
            node.next_deadline(),
            storage.next_deadline(),
            storage.job_deadline(node),
            storage.repair_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether everything that was accepted before a stop is answered.
    pub fn is_stopped(&self) -> bool {
        self.core.node.is_stopped(self.core.now)
    }

    /// Reads the clocks: not for every line, but before a tick, and after each read from another
    /// server. Promises are counted from there: what was received must not seem to have come
    /// earlier than it was sent, and none may seem to hold that has run out.
    pub fn read_clock(&mut self, edges: &mut impl Edges) {
        (self.core.now, self.core.wall) = edges.clock();
    }

    /// Begins a turn.
    ///
    /// # Errors
    /// As [`Host::handle`].
    pub fn begin_turn<E: Edges>(&mut self, edges: &mut E) -> Result<(), Fail> {
        self.read_clock(edges);
        self.turns += 1;
        let Core { node, storage, now, quarantine, .. } = &mut self.core;
        if quarantine.is_none()
            && let Some(job) = storage.next_job(*now, node)?
        {
            edges.make(job);
        }
        if let Some((is_damaged, wanted)) = self.core.storage.damage_news(self.core.now) {
            self.handle(Input::Damaged(is_damaged, wanted), edges)?;
        }
        if self.space_at > self.core.now {
            return Ok(());
        }
        self.space_at = self.core.now + SPACE_TIME;
        // A disk that does not tell fails when it is written.
        match self.core.storage.store.disk().free_bytes() {
            Ok(free) => self.handle(Input::Full(free < SPACE_RESERVED), edges),
            Err(_) => Ok(()),
        }
    }

    /// Hands an input to the node, after the connections that have ended since the last one, and
    /// performs what the node wants done.
    ///
    /// # Errors
    /// The server must end; nothing that is not durable was acknowledged.
    pub fn handle<E: Edges>(&mut self, input: Input<'_>, edges: &mut E) -> Result<(), Fail> {
        self.note_gone(edges)?;
        self.handle_one(input, edges)
    }

    /// Hands the requests to the node that `input` holds, as long as the session accepts them;
    /// returns how many bytes of it are consumed. `input_closed`: the client sends no more.
    ///
    /// # Errors
    /// As [`Host::handle`].
    pub fn feed<E: Edges>(
        &mut self,
        session: SessionId,
        text: &mut Text,
        input: &[u8],
        input_closed: bool,
        edges: &mut E,
    ) -> Result<usize, Fail> {
        let mut consumed = 0;
        loop {
            let wanted = self.core.node.wants_line(session);
            let (used, request) = text.next(&input[consumed..], input_closed, wanted);
            consumed += used;
            let Some(request) = request else { return Ok(consumed) };
            self.handle(Input::Request(session, request), edges)?;
        }
    }

    /// Ends the first part of a turn. Returns whether [`Host::store_all`] must follow.
    ///
    /// # Errors
    /// As [`Host::handle`].
    pub fn submit<E: Edges>(&mut self, edges: &mut E) -> Result<bool, Fail> {
        if self.core.quarantine.is_none() {
            self.core.storage.keep_seal(self.core.now)?;
        }
        self.read_clock(edges);
        self.handle(Input::Replica(Event::Tick), edges)?;
        edges.flush_links();
        self.note_gone(edges)?;
        self.core.storage.skip_empty_flush();
        Ok(self.core.quarantine.is_none() && self.core.storage.has_unstored())
    }

    /// Stores the vote, then all that the turn appended, with one write and one sync, and reports
    /// that to the node.
    ///
    /// # Errors
    /// The disk has failed.
    pub fn store_all<E: Edges>(&mut self, edges: &mut E) -> Result<(), Fail> {
        self.core.storage.store_vote()?;
        self.read_clock(edges);
        let before = self.core.now;
        if self.core.storage.store_log()? {
            self.read_clock(edges);
            let Core { storage, now, .. } = &mut self.core;
            storage.syncs.note(*now, *now - before);
            storage.seal_soon(*now);
        }
        self.handle(Input::Replica(Event::Durable(self.core.storage.mark())), edges)
    }

    /// Sends what is queued for other servers, then for clients.
    ///
    /// # Errors
    /// As [`Host::handle`].
    pub fn flush<E: Edges>(&mut self, edges: &mut E) -> Result<(), Fail> {
        edges.flush_links();
        self.note_gone(edges)?;
        let mut dirty = mem::take(&mut self.dirty);
        self.core.node.take_dirty(&mut dirty);
        for session in dirty.drain(..) {
            self.flush_client(session, edges)?;
        }
        self.dirty = dirty;
        // The node may send frames because a link has ended, and sending them may end another link.
        // Nothing of that may wait for the next turn: no deadline would start it.
        loop {
            edges.flush_links();
            if !self.note_gone(edges)? {
                return Ok(());
            }
        }
    }

    /// The last three parts of a turn.
    ///
    /// # Errors
    /// As [`Host::handle`] and [`Host::store_all`].
    pub fn finish_turn<E: Edges>(&mut self, edges: &mut E) -> Result<(), Fail> {
        if self.submit(edges)? {
            self.store_all(edges)?;
        }
        self.flush(edges)
    }

    /// Sends a client what its session has for it; after the last of it the connection is closed.
    ///
    /// # Errors
    /// As [`Host::handle`].
    pub fn flush_client<E: Edges>(
        &mut self,
        session: SessionId,
        edges: &mut E,
    ) -> Result<(), Fail> {
        let Some(Outlet { output, closing, must_read }) = self.core.node.outlet(session) else {
            return Ok(());
        };
        let before = output.len();
        let was_blocked = edges.write(session, output, must_read);
        // Only bytes that were sent make room: else the node would be asked again and again.
        if output.len() < before && (before >= OUTPUT_BYTES_MAX || was_blocked) {
            self.handle(Input::Drained(session), edges)?;
        }
        if closing && self.core.node.is_finished(session) {
            edges.finish(session);
        } else if self.core.node.wants_line(session) {
            edges.resume(session);
        }
        Ok(())
    }

    /// Gives back the memory that a client's session holds and does not use.
    pub fn cool(&mut self, session: SessionId) {
        self.core.node.cool(session);
    }

    /// See [`Node::corrupt`].
    #[cfg(feature = "simulate")]
    pub fn corrupt(&mut self) {
        self.core.node.corrupt();
    }

    /// Handles the end of a [`FileJob`](crate::store::FileJob).
    ///
    /// # Errors
    /// The disk has failed.
    pub fn on_made(&mut self, made: Result<JobDone, JobError>) -> Result<(), Fail> {
        let Core { node, storage, now, wall, .. } = &mut self.core;
        storage.on_made((*now, *wall), node, made)
    }

    /// Makes everything durable that may be lost without harm, at the end.
    ///
    /// # Errors
    /// The disk has failed.
    pub fn close(&mut self) -> Result<(), Fail> {
        self.core.storage.seal()
    }

    /// Reports to the node which connections have ended; whether there was one.
    fn note_gone<E: Edges>(&mut self, edges: &mut E) -> Result<bool, Fail> {
        let mut any = false;
        while let Some(gone) = edges.next_gone() {
            any = true;
            self.handle_one(gone, edges)?;
        }
        Ok(any)
    }

    fn handle_one<E: Edges>(&mut self, input: Input<'_>, edges: &mut E) -> Result<(), Fail> {
        let Host { core, out, turns, .. } = self;
        if core.quarantine.is_some() {
            return Ok(());
        }
        let Storage { store, syncs, care, .. } = &core.storage;
        let gauges = || Gauges {
            log_bytes: store.log_bytes(),
            disk_free_bytes: store.disk().free_bytes().ok(),
            syncs: syncs.clone(),
            turns: *turns,
            repaired: care.repaired,
            unrepaired: care.unrepaired(),
            scrubbed: care.last_round(),
            ..edges.gauges()
        };
        let world =
            Context { now: core.now, wall: core.wall, log: store, archive: store, gauges: &gauges };
        core.node.handle(&world, input, out).map_err(Fail::Fatal)?;
        for effect in out.replica.effects.drain(..) {
            let performed = core.perform(effect, &out.replica.bytes, edges);
            performed.map_err(|error| Fail::Io("the log", error))?;
        }
        out.replica.clear();
        if let Some(records) = out.fetched.take() {
            core.storage.care.take(records);
        }
        // Rare, and a drain of nothing costs 46 instructions of each SEND.
        if !out.jobs.is_empty() {
            out.jobs.drain(..).for_each(|job| edges.hash(job));
        }
        Ok(())
    }
}

impl<D: Disk> Core<D> {
    fn perform<E: Edges>(&mut self, effect: Effect, bytes: &[u8], edges: &mut E) -> io::Result<()> {
        let store = &mut self.storage.store;
        match effect {
            Effect::Append(range) => {
                edges.on_append(&bytes[range.clone()]);
                store.append(&bytes[range])?;
            }
            Effect::Cut(last) => {
                edges.on_cut(last);
                if let Some(folder) = store.cut(last, &self.wall.label())? {
                    log::info!("moved the stored entries after {last} to {folder}");
                }
            }
            Effect::SendEntries { link, append, first, last } => {
                let copy = |frame: &mut Vec<u8>| store.copy(first, last, frame);
                if let Err(error) = edges.send(link, Packet::Append(append), copy) {
                    // Whoever lacks them is served by another one, if there is one that can.
                    edges.warn(&format!("cannot send entries {first} to {last}: {error}"));
                    self.node.note_unreadable(self.now, link);
                }
            }
            Effect::Flush => self.storage.must_flush = true,
            Effect::Persist(vote) => self.storage.must_persist = Some(vote),
            Effect::Send(link, packet) => edges.send(link, packet, |_| Ok(()))?,
            Effect::SendWith(link, sent) => {
                let (packet, bytes) = *sent;
                edges.send(link, packet, |frame| frame.write_all(&bytes))?;
            }
            Effect::Dial(to) => edges.dial(to),
            Effect::Close(link, why) => edges.close_link(link, why),
            Effect::RecordIncarnation(disk) => {
                // It is saved with the next seal.
                store.see(*disk);
                self.storage.seal_soon(self.now);
            }
            Effect::Quarantine(quarantine) => self.quarantine = Some(quarantine),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
