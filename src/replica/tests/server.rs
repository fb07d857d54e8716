//! One replica with its log in memory. A test takes it out of a formed group, or starts it from a
//! stored log, and drives it alone with events.

pub(super) use crate::ids::*;
pub(super) use crate::record::{self, Kind, Record};
pub(super) use crate::replica::{
    Append, Ask, Closing, Config, DialFailure, Durable, Effect, Epoch, Event, Hello, LogReader,
    LogSummary, NotTaken, Origin, Out, Packet, Past, PeerHealth, Quarantine, Refusal, Replica,
    RoleView, Rule, Setup, Shared, Takeover, Verdict,
};
pub(super) use crate::time::{Moment, WallTime};
use std::io;
pub(super) use std::time::Duration;

/// The peer timeout of every server.
pub(super) const T: Duration = Duration::from_millis(2000);

/// The group of every server.
pub(super) const GROUP: GroupId = GroupId(7);

/// The smallest time.
pub(super) const US: Duration = Duration::from_micros(1);

/// When the servers of a test start.
pub(super) const START: Moment = Moment(1_000_000_000);

pub(super) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) fn id(n: u8) -> ServerId {
    ServerId::new(n).unwrap()
}

/// Returns server `n` with the disk that it has in every test.
pub(super) fn member(n: u8) -> Member {
    Member { id: id(n), disk: DiskId(100 + u128::from(n)) }
}

/// Returns the first run of server `n`.
pub(super) fn run(n: u8) -> Run {
    Run { incarnation: Incarnation(1), process: ProcessId(n.into()) }
}

/// Returns the config of these servers, with an open gate.
pub(super) fn config(members: &[u8]) -> Config {
    Config::new(members.iter().map(|n| member(*n)), true)
}

pub(super) fn at(term: u64, index: u64) -> Position {
    Position { term: Term(term), index: Index(index) }
}

/// Returns a vote of the first epoch.
pub(super) fn vote(term: u64, given: Option<u8>) -> Vote {
    Vote { term: Term(term), given: given.map(member), founder: None }
}

/// Returns an encoded entry.
pub(super) fn entry(at: Position, kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::write(&mut bytes, at, WallTime(0), kind, |out| out.extend_from_slice(body));
    bytes
}

pub(super) fn config_entry(at: Position, config: &Config) -> Vec<u8> {
    let mut body = Vec::new();
    config.encode(&mut body);
    entry(at, Kind::CONFIG, &body)
}

pub(super) fn message(at: Position) -> Vec<u8> {
    entry(at, Kind::MESSAGE, b"hi")
}

/// Returns the encoded past of a server that had only these runs.
pub(super) fn past(runs: &[Run]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Past { runs: runs.to_vec(), ..Past::default() }.encode(&mut bytes);
    bytes
}

/// Returns what server `n` starts with: this vote, these entries, and its first run.
pub(super) fn setup(n: u8, vote: Vote, log: &[Vec<u8>]) -> Setup {
    let mut summary = LogSummary::default();
    log.iter().for_each(|record| summary.push(&Record::parse(record).unwrap()).unwrap());
    let peer_timeout_ms = T.as_millis() as u32;
    Setup {
        me: member(n),
        shared: Shared {
            group: GROUP,
            servers: 3,
            peer_timeout_ms,
            copies_min: 1,
            survivor_auto: false,
        },
        takeover: Takeover::Rank,
        vote,
        summary,
        acknowledged: Index::ZERO,
        seen: Default::default(),
        runs: vec![run(n)],
        former: None,
        seed: n.into(),
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Log(pub(super) Vec<Vec<u8>>);

impl LogReader for Log {
    /// Limits an append to three entries, so that a few entries need several appends.
    fn last_within(&self, from: Index, through: Index, _: usize) -> Index {
        Index(from.0 + 2).min(through)
    }

    fn for_each(
        &self,
        from: Index,
        through: Index,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> io::Result<()> {
        (from.0..=through.0).for_each(|at| visit(&Record::trust(&self.0[at as usize - 1])));
        Ok(())
    }
}

/// The effects of one or more events, oldest first.
#[derive(Debug, Default)]
pub(super) struct Effects(pub(super) Out);

impl Effects {
    pub(super) fn has(&self, effect: &Effect) -> bool {
        self.0.effects.contains(effect)
    }

    /// Returns the packets to server `n`, appends without their entries included.
    pub(super) fn sent(&self, n: u8) -> Vec<Packet> {
        let packet = |effect: &Effect| match effect {
            Effect::Send(link, packet) => (peer(*link) == n).then_some(*packet),
            Effect::SendWith(link, sent) => (peer(*link) == n).then_some(sent.0),
            Effect::SendEntries { link, append, .. } => {
                (peer(*link) == n).then_some(Packet::Append(*append))
            }
            _ => None,
        };
        self.0.effects.iter().filter_map(packet).collect()
    }

    /// Returns the first and last entry of each append to server `n`; for an append without
    /// entries, `prev` twice.
    pub(super) fn appends(&self, n: u8) -> Vec<(Index, Index)> {
        let range = |effect: &Effect| match effect {
            Effect::SendEntries { link, first, last, .. } if peer(*link) == n => {
                Some((*first, *last))
            }
            Effect::Send(link, Packet::Append(append)) if peer(*link) == n => {
                Some((append.prev.index, append.prev.index))
            }
            _ => None,
        };
        self.0.effects.iter().filter_map(range).collect()
    }

    /// Returns why the server closed links to server `n`.
    pub(super) fn closed(&self, n: u8) -> Vec<Closing> {
        let why = |effect: &Effect| match effect {
            Effect::Close(link, why) if peer(*link) == n => Some(*why),
            _ => None,
        };
        self.0.effects.iter().filter_map(why).collect()
    }

    /// Returns the number of appended entries.
    pub(super) fn appended(&self) -> usize {
        let count = |effect: &Effect| match effect {
            Effect::Append(range) => record::each(&self.0.bytes[range.clone()]).count(),
            _ => 0,
        };
        self.0.effects.iter().map(count).sum()
    }
}

/// Returns the server at the other end of a link: the last digit of the link's number.
pub(super) fn peer(link: LinkId) -> u8 {
    (link.0 % 10) as u8
}

/// A replica, its log, and the requested writes that are not durable.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) n: u8,
    pub(super) now: Moment,
    pub(super) replica: Replica,
    pub(super) log: Log,
    /// What is durable once the requested writes are.
    pub(super) written: Durable,
    pub(super) is_writing: bool,
    shared: Shared,
    links: u64,
}

impl Server {
    /// Starts a server with this log, to which its setup belongs.
    pub(super) fn start(now: Moment, setup: Setup, log: Vec<Vec<u8>>) -> Server {
        let written = Durable { last: Index(log.len() as u64), vote: setup.vote };
        let (n, shared) = (setup.me.id.number(), setup.shared);
        let (replica, log) = (Replica::new(now, setup), Log(log));
        Server { n, now, replica, log, written, is_writing: false, shared, links: 1_000 }
    }

    /// Passes an event to the replica. Appends and cuts are done at once.
    pub(super) fn handle(&mut self, event: Event<'_>, out: &mut Effects) {
        let before = out.0.effects.len();
        let wall = WallTime(self.now.0 / 1_000);
        self.replica.handle(self.now, wall, event, &self.log, &mut out.0);
        self.perform(before, out);
    }

    fn perform(&mut self, before: usize, out: &Effects) {
        for effect in &out.0.effects[before..] {
            match effect {
                Effect::Append(range) => {
                    let records = record::each(&out.0.bytes[range.clone()]);
                    self.log.0.extend(records.map(|record| record.unwrap().bytes.to_vec()));
                }
                Effect::Cut(last) => {
                    self.log.0.truncate(last.0 as usize);
                    self.written.last = self.written.last.min(*last);
                }
                Effect::Flush => {
                    self.written.last = Index(self.log.0.len() as u64);
                    self.is_writing = true;
                }
                Effect::Persist(vote) => {
                    self.written.vote = *vote;
                    self.is_writing = true;
                }
                _ => {}
            }
        }
    }

    fn event(&mut self, event: Event<'_>) -> Effects {
        let mut out = Effects::default();
        self.handle(event, &mut out);
        out
    }

    pub(super) fn tick(&mut self) -> Effects {
        self.event(Event::Tick)
    }

    /// Lets time pass without an event.
    pub(super) fn advance(&mut self, time: Duration) -> &mut Server {
        self.now += time;
        self
    }

    /// Lets time pass, with a tick at each deadline. The servers in `active` answer pings.
    pub(super) fn wait(&mut self, time: Duration, active: &[u8]) -> Effects {
        self.wait_for(time, active, |_| false).unwrap_err()
    }

    /// Like [`Server::wait`], but stops after the first tick with an effect that `found` accepts.
    /// Returns the time until then, or all effects if there was none.
    pub(super) fn wait_for(
        &mut self,
        time: Duration,
        active: &[u8],
        found: impl Fn(&Effect) -> bool,
    ) -> Result<Duration, Effects> {
        let (start, mut out) = (self.now, Effects::default());
        while let Some(next) = self.replica.next_deadline().filter(|next| *next <= start + time) {
            self.now = self.now.max(next);
            let before = out.0.effects.len();
            self.handle(Event::Tick, &mut out);
            let new = out.0.effects[before..].to_vec();
            if new.iter().any(&found) {
                return Ok(self.now - start);
            }
            for effect in new {
                if let Effect::Send(link, Packet::Ping { sent, .. }) = effect
                    && active.contains(&peer(link))
                {
                    let packet = Packet::Pong { sent, promised: None };
                    self.handle(Event::Received { link, packet, records: &[] }, &mut out);
                }
            }
        }
        self.now = start + time;
        Err(out)
    }

    /// Makes all requested writes durable.
    pub(super) fn durable(&mut self) -> Effects {
        self.is_writing = false;
        self.event(Event::Durable(self.written))
    }

    /// Makes the log durable up to this entry, and the vote.
    pub(super) fn durable_to(&mut self, last: Index) -> Effects {
        self.event(Event::Durable(Durable { last, ..self.written }))
    }

    /// Carries out an operator's order to hand over, and returns the answer.
    pub(super) fn order(&mut self, group: GroupId, to: Option<u8>) -> Verdict {
        let (mut out, link) = (Effects::default(), self.new_link(0));
        self.handle(Event::Accepted { link }, &mut out);
        let packet = Packet::Order { group, to: to.map(id) };
        self.handle(Event::Received { link, packet, records: &[] }, &mut out);
        let [Packet::Verdict(verdict)] = out.sent(0)[..] else { panic!("{out:?}") };
        verdict
    }

    /// Returns the open link to server `n`.
    pub(super) fn link(&self, n: u8) -> LinkId {
        self.replica.links().find(|link| peer(*link) == n).expect("there is no link")
    }

    pub(super) fn is_linked(&self, n: u8) -> bool {
        self.replica.links().any(|link| peer(link) == n)
    }

    pub(super) fn receive(&mut self, from: u8, packet: Packet) -> Effects {
        self.event(Event::Received { link: self.link(from), packet, records: &[] })
    }

    /// Returns the end of the log.
    pub(super) fn last(&self) -> Position {
        self.log.0.last().map_or(Position::default(), |last| Record::trust(last).position())
    }

    /// Returns an append in this server's term, after its last entry, without news.
    pub(super) fn append(&self) -> Append {
        let (committed, acknowledged) = (self.replica.committed(), self.replica.acknowledged());
        Append { term: self.replica.term(), prev: self.last(), committed, acknowledged, round: 0 }
    }

    /// Follows server `n` from now on.
    pub(super) fn follow(&mut self, n: u8) {
        self.receive(n, Packet::Append(self.append()));
        self.tick();
    }

    /// Receives an append with these entries.
    pub(super) fn receive_entries(&mut self, append: Append, from: u8, log: &[Vec<u8>]) -> Effects {
        let (link, records) = (self.link(from), log.concat());
        self.event(Event::Received { link, packet: Packet::Append(append), records: &records })
    }

    /// Receives the answer to a ping that was sent at this moment.
    pub(super) fn pong(&mut self, from: u8) -> Effects {
        self.receive(from, Packet::Pong { sent: self.now, promised: None })
    }

    /// Receives a ping that reports this health.
    pub(super) fn report(&mut self, from: u8, health: PeerHealth) -> Effects {
        self.receive(from, Packet::Ping { sent: self.now, wall: WallTime(0), health })
    }

    /// Receives the report, in this server's term, that `from` has stored the log up to an entry.
    pub(super) fn accept(&mut self, from: u8, stored: Index) -> Effects {
        let term = self.replica.term();
        self.receive(from, Packet::AppendAccepted { term, stored, round: 0 })
    }

    /// Returns a new link to server `n`; the replica does not know it yet.
    pub(super) fn new_link(&mut self, n: u8) -> LinkId {
        self.links += 1;
        LinkId(self.links * 10 + u64::from(n))
    }

    /// Returns a hello of server `n`'s first run, in this server's term, with an empty log.
    pub(super) fn hello_of(&self, n: u8) -> Hello {
        let (term, founder) = (self.replica.term(), self.replica.founder());
        let shared = self.shared;
        let (run, from, to) = (run(n), member(n), id(self.n));
        let (serial, has_other, last) = (self.links, false, Position::default());
        Hello { shared, from, to, run, serial, has_other, term, founder, last }
    }

    /// Server `n` dials this one, and sends its hello.
    pub(super) fn connect(&mut self, n: u8) -> Effects {
        let (hello, link) = (self.hello_of(n), self.new_link(n));
        self.connect_with(link, hello, false)
    }

    /// Like [`Server::connect`], but server `n` has another disk.
    pub(super) fn connect_as(&mut self, n: u8, disk: DiskId) -> Effects {
        let (hello, link) = (self.hello_of(n), self.new_link(n));
        let hello = Hello { from: Member { id: id(n), disk }, ..hello };
        self.connect_with(link, hello, false)
    }

    /// A link is established: this server or the other one dialled it, and this hello arrives.
    pub(super) fn connect_with(&mut self, link: LinkId, hello: Hello, dialled: bool) -> Effects {
        let mut out = Effects::default();
        let opened = match dialled {
            true => Event::Dialled { link, to: id(peer(link)) },
            false => Event::Accepted { link },
        };
        self.handle(opened, &mut out);
        let records = past(&[hello.run]);
        let packet = Packet::Hello(hello);
        self.handle(Event::Received { link, packet, records: &records }, &mut out);
        out
    }

    pub(super) fn end_link(&mut self, n: u8) -> Effects {
        self.event(Event::Ended { link: self.link(n) })
    }

    /// The process of server `n` ends: its link is lost, and its address refuses a dial.
    pub(super) fn kill(&mut self, n: u8) {
        self.end_link(n);
        self.refuse_dial(n);
    }

    pub(super) fn fail_dial(&mut self, n: u8, why: DialFailure) -> Effects {
        self.event(Event::DialFailed { to: id(n), why })
    }

    pub(super) fn refuse_dial(&mut self, n: u8) -> Effects {
        self.fail_dial(n, DialFailure::Refused)
    }

    /// Wins an election with the votes of these linked servers. They have not answered the first
    /// append, and its entries are not durable.
    pub(super) fn elect(&mut self, voters: &[u8]) -> Effects {
        let (term, own) = (self.replica.term().next(), self.replica.term());
        self.wait(ms(20), voters);
        voters.iter().for_each(|n| drop(self.pre_vote(*n, true)));
        self.tick();
        assert!(own < self.replica.term(), "it asks for no votes");
        voters.iter().for_each(|n| drop(self.receive(*n, Packet::Vote { term, granted: true })));
        self.durable();
        assert_eq!(self.replica.role(), RoleView::Primary);
        self.tick()
    }

    /// Receives the answer to this server's request for a pre-vote.
    pub(super) fn pre_vote(&mut self, from: u8, granted: bool) -> Effects {
        let own = self.replica.term();
        self.receive(from, Packet::PreVote { term: own.next(), granted, own })
    }

    /// Proposes a change of this kind.
    pub(super) fn propose(&mut self, kind: Kind) -> Result<Index, NotTaken> {
        let (mut out, wall) = (Effects::default(), WallTime(self.now.0 / 1_000));
        let index = self.replica.propose(self.now, wall, kind, |_| (), &mut out.0);
        self.perform(0, &out);
        index
    }

    /// Returns the ids in the newest config.
    pub(super) fn members(&self) -> Vec<u8> {
        let config = self.replica.config();
        config.into_iter().flat_map(Config::members).map(|member| member.id.number()).collect()
    }

    /// Returns how often a rule has decided.
    pub(super) fn decided(&self, rule: Rule) -> u64 {
        self.replica.decisions().0[rule as usize]
    }
}
