//! A server of the cluster: a host that sends through [`Links`].

use super::links::{Arrival, Inbox, Links};
use crate::simulate::{GROUP, Settings, hash, open_store};
use postern::host::{self, Fail, Host};
use postern::ids::{DiskId, LinkId, ProcessId, ServerId, SessionId};
use postern::node::{Gauges, Input, Job};
use postern::replica::{Closing, Event, Packet, RoleView};
use postern::store::memory::MemoryDisk;
use postern::store::{FileJob, Identity};
use postern::time::{Moment, WallTime};
use std::{io, mem};

pub(super) struct Server {
    host: Host<MemoryDisk>,
    jobs: Vec<Job>,
    file_jobs: Vec<FileJob>,
    /// Reused by all turns.
    inbox: Inbox,
}

/// The environment of a host. Nothing blocks and nothing is lost.
struct Edges<'a> {
    me: ServerId,
    now: Moment,
    links: &'a mut Links,
    jobs: &'a mut Vec<Job>,
    file_jobs: &'a mut Vec<FileJob>,
    answers: &'a mut Vec<u8>,
}

impl Server {
    /// Starts on an empty disk.
    pub(super) fn start(id: ServerId) -> Result<Server, String> {
        let number = u64::from(id.number());
        let mut identity = Identity::new(GROUP, 3, id, DiskId(number.into()));
        identity.process = ProcessId(number);
        let opened = open_store(MemoryDisk::default(), &identity, "0");
        let opened = opened.map_err(|error| error.to_string())?;
        Ok(Server {
            host: Host::build(opened, Settings::by_rank().setup(3, number)),
            jobs: Vec::new(),
            file_jobs: Vec::new(),
            inbox: Inbox::default(),
        })
    }

    /// Whether it is primary of three members and the gate is open.
    pub(super) fn is_open_primary(&self) -> bool {
        let replica = self.host.node().replica();
        let complete = replica.config().is_some_and(|config| config.count() == 3);
        replica.role() == RoleView::Primary && complete && replica.gate_open()
    }

    /// Whether a turn is due although no packet has arrived.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        let has_jobs = !self.jobs.is_empty() || !self.file_jobs.is_empty();
        has_jobs || self.host.next_deadline().is_some_and(|due| due <= now)
    }

    /// Runs a turn as a real server does: input, one sync, output. Appends the answers to clients
    /// to `answers`.
    pub(super) fn turn(
        &mut self,
        now: Moment,
        links: &mut Links,
        answers: &mut Vec<u8>,
    ) -> Result<(), String> {
        let (jobs, file_jobs) = (mem::take(&mut self.jobs), mem::take(&mut self.file_jobs));
        let mut inbox = mem::take(&mut self.inbox);
        links.receive_into(self.host.node().replica().me().id, &mut inbox);
        self.with_edges(now, links, answers, |host, edges| {
            host.begin_turn(edges)?;
            for arrival in &inbox.arrivals {
                let event = match arrival {
                    Arrival::Dialled(link, to) => Event::Dialled { link: *link, to: *to },
                    Arrival::Accepted(link) => Event::Accepted { link: *link },
                    Arrival::Ended(link) => Event::Ended { link: *link },
                    Arrival::Packet(link, range) => {
                        let read = Packet::decode(&inbox.bytes[range.clone()]);
                        let (packet, records) = read.expect("a server sends valid packets");
                        Event::Received { link: *link, packet, records }
                    }
                };
                host.handle(Input::Replica(event), edges)?;
            }
            for job in jobs {
                host.handle(Input::Hashed(job.session, hash(&job)), edges)?;
            }
            for job in file_jobs {
                host.on_made(job.run(host.store().disk(), || false))?;
            }
            host.finish_turn(edges)
        })?;
        self.inbox = inbox;
        Ok(())
    }

    /// Handles an input and carries out its outputs.
    pub(super) fn handle(
        &mut self,
        now: Moment,
        links: &mut Links,
        input: Input<'_>,
    ) -> Result<(), String> {
        // Answers to clients are written at the end of a turn.
        self.with_edges(now, links, &mut Vec::new(), |host, edges| {
            host.read_clock(edges);
            host.handle(input, edges)
        })
    }

    fn with_edges(
        &mut self,
        now: Moment,
        links: &mut Links,
        answers: &mut Vec<u8>,
        work: impl FnOnce(&mut Host<MemoryDisk>, &mut Edges<'_>) -> Result<(), Fail>,
    ) -> Result<(), String> {
        let me = self.host.node().replica().me().id;
        let Server { host, jobs, file_jobs, .. } = self;
        let done = work(host, &mut Edges { me, now, links, jobs, file_jobs, answers });
        match (done, self.host.quarantine()) {
            (Err(fail), _) => Err(fail.to_string()),
            (Ok(()), Some(quarantine)) => Err(format!("{quarantine:?}")),
            (Ok(()), None) => Ok(()),
        }
    }
}

impl host::Edges for Edges<'_> {
    fn clock(&mut self) -> (Moment, WallTime) {
        (self.now, WallTime(self.now.0 / 1000))
    }

    fn gauges(&self) -> Gauges {
        Gauges::default()
    }

    fn send(
        &mut self,
        link: LinkId,
        packet: Packet,
        rest: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.links.send(self.me, link, packet, rest)
    }

    fn dial(&mut self, to: ServerId) {
        self.links.dial(self.me, to);
    }

    fn close_link(&mut self, link: LinkId, _why: Closing) {
        self.links.end(link);
    }

    fn flush_links(&mut self) {}

    fn hash(&mut self, job: Job) {
        self.jobs.push(job);
    }

    fn make(&mut self, job: FileJob) {
        self.file_jobs.push(job);
    }

    fn write(&mut self, _session: SessionId, output: &mut Vec<u8>, _must_read: bool) -> bool {
        self.answers.extend_from_slice(output);
        // As if the socket had accepted everything.
        output.clear();
        false
    }

    fn finish(&mut self, _session: SessionId) {}

    fn resume(&mut self, _session: SessionId) {}

    fn next_gone(&mut self) -> Option<Input<'static>> {
        None
    }

    fn warn(&mut self, _words: &str) {}
}
