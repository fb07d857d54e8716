//! One of the three: a node and a store, and their turn.

use super::wires::{Arrival, Inbox, Wires};
use crate::sim::{GROUP, Settings, build, hash};
use postern::limits::SEGMENT_BYTES;
use postern::moment::{Moment, WallTime};
use postern::names::{DiskId, ProcessId, ServerId, SessionId, Vote};
use postern::node::{Context, Fatal, Gauges, Input, Job, Node, Output};
use postern::replica::{Effect, Event, Mark, Packet, Shape, Standpoint, Takeover};
use postern::store::memory::MemoryDisk;
use postern::store::{Identity, Store};
use std::{io, mem};

const SETTINGS: Settings = Settings {
    silence_ms: 2000,
    takeover: Takeover::Rank,
    copies_min: 1,
    survivor_auto: false,
    segment_bytes: SEGMENT_BYTES,
};

pub(super) struct Server {
    node: Node,
    store: Store<MemoryDisk>,
    vote: Vote,
    out: Output,
    must_flush: bool,
    must_persist: Option<Vote>,
    jobs: Vec<Job>,
    touched: Vec<SessionId>,
    /// Taken in by the turn.
    inbox: Inbox,
}

impl Server {
    /// Begins on an empty disk.
    pub(super) fn start(id: ServerId) -> Result<Server, String> {
        let number = u64::from(id.number());
        let mut identity = Identity::new(GROUP, 3, id, DiskId(number.into()));
        identity.process = ProcessId(number);
        let mut shape = Shape::default();
        let opened =
            Store::open(MemoryDisk::default(), &identity, "0", |record| shape.push(record))
                .map_err(|error| error.to_string())?;
        let node = build(&opened, shape, SETTINGS, number);
        Ok(Server {
            node,
            vote: opened.vote,
            store: opened.store,
            out: Output::default(),
            must_flush: false,
            must_persist: None,
            jobs: Vec::new(),
            touched: Vec::new(),
            inbox: Inbox::default(),
        })
    }

    /// Whether it leads two backups, and lets clients in.
    pub(super) fn is_open_primary(&self) -> bool {
        let replica = self.node.replica();
        let complete = replica.config().is_some_and(|config| config.count() == 3);
        replica.standpoint() == Standpoint::Primary && complete && replica.gate_open()
    }

    /// Whether a turn is wanted although nothing arrived.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        !self.jobs.is_empty() || self.node.next_deadline().is_some_and(|due| due <= now)
    }

    /// One turn, as the server's: what arrived, one sync, and what follows from that. What
    /// clients are told goes behind `answers`.
    pub(super) fn turn(
        &mut self,
        now: Moment,
        wires: &mut Wires,
        answers: &mut Vec<u8>,
    ) -> Result<(), String> {
        self.take_in(now, wires)?;
        for job in mem::take(&mut self.jobs) {
            self.tell(now, wires, Input::Hashed(job.session, hash(&job)))?;
        }
        self.tell(now, wires, Input::Replica(Event::Tick))?;
        if self.store_all(now).map_err(|error| error.to_string())? {
            let mark = Mark { last: self.store.stored(), vote: self.vote };
            self.tell(now, wires, Input::Replica(Event::Stored(mark)))?;
        }
        self.node.take_touched(&mut self.touched);
        for session in &self.touched {
            let Some(output) = self.node.output(*session) else { continue };
            answers.extend_from_slice(output);
            // As a busy connection does when its socket has taken all.
            output.clear();
        }
        Ok(())
    }

    fn take_in(&mut self, now: Moment, wires: &mut Wires) -> Result<(), String> {
        let mut inbox = mem::take(&mut self.inbox);
        wires.empty_into(self.node.replica().me().id, &mut inbox);
        for arrival in &inbox.arrivals {
            let event = match arrival {
                Arrival::Dialled(link, to) => Event::Dialled { link: *link, to: *to },
                Arrival::Accepted(link) => Event::Accepted { link: *link },
                Arrival::Ended(link) => Event::Ended { link: *link },
                Arrival::Packet(link, range) => {
                    let read = Packet::decode(&inbox.bytes[range.clone()]);
                    let (packet, records) = read.map_err(|_| "a packet can't be read")?;
                    Event::Received { link: *link, packet, records }
                }
            };
            self.tell(now, wires, Input::Replica(event))?;
        }
        self.inbox = inbox;
        Ok(())
    }

    /// Hands an input to the node and does what it wants done.
    pub(super) fn tell(
        &mut self,
        now: Moment,
        wires: &mut Wires,
        input: Input<'_>,
    ) -> Result<(), String> {
        let mut out = mem::take(&mut self.out);
        let wall = WallTime(now.0 / 1000);
        let world = Context { now, wall, log: &self.store, gauges: &Gauges::default };
        self.node.handle(&world, input, &mut out).map_err(|Fatal(why)| why)?;
        for effect in out.replica.effects.drain(..) {
            let done = self.perform(wires, effect, &out.replica.bytes);
            done.map_err(|error| error.to_string())?;
        }
        out.replica.clear();
        let me = self.node.replica().me().id;
        for (link, packet, rest) in out.packets.drain(..) {
            wires.send(me, link, packet, |bytes| bytes.extend_from_slice(&rest));
        }
        for link in out.said.drain(..) {
            wires.end(link);
        }
        self.jobs.append(&mut out.jobs);
        self.out = out;
        Ok(())
    }

    fn perform(&mut self, wires: &mut Wires, effect: Effect, bytes: &[u8]) -> io::Result<()> {
        let me = self.node.replica().me().id;
        match effect {
            Effect::Append(range) => self.store.append(&bytes[range])?,
            Effect::Cut(last) => drop(self.store.cut(last, "0")?),
            Effect::Flush => self.must_flush = true,
            Effect::Persist(vote) => self.must_persist = Some(vote),
            Effect::See(disk) => self.store.see(*disk),
            Effect::Send(link, packet) => wires.send(me, link, packet, |_| {}),
            Effect::Greet(link, greeting) => {
                let (hello, past) = *greeting;
                wires.send(me, link, Packet::Hello(hello), |out| out.extend_from_slice(&past));
            }
            Effect::SendEntries { link, append, first, last } => {
                let mut copied = Ok(());
                let copy = |bytes: &mut Vec<u8>| copied = self.store.copy(first, last, bytes);
                wires.send(me, link, Packet::Append(append), copy);
                copied?;
            }
            Effect::Dial(to) => wires.dial(me, to),
            Effect::Close(link, _) => wires.end(link),
            Effect::Leave(aside) => return Err(io::Error::other(format!("{aside:?}"))),
        }
        Ok(())
    }

    /// Whether anything was to be stored.
    fn store_all(&mut self, now: Moment) -> io::Result<bool> {
        let flush = mem::take(&mut self.must_flush) && self.store.has_unwritten();
        let persist = self.must_persist.take();
        if let Some(vote) = persist {
            self.store.persist(vote)?;
            self.vote = vote;
        }
        if flush {
            self.store.flush()?;
            self.node.note_flush(now);
        }
        Ok(flush || persist.is_some())
    }
}
