//! Tests a single node with a log in memory and without a socket: what clients receive, line by
//! line.

mod fake_log;
mod passwords;
mod promises;
mod retention;
mod unreadable;

use super::*;
use crate::ids::{DiskId, GroupId, Incarnation, Member, ProcessId, Run, Secret};
use crate::ids::{SegmentId, UserName, Vote};
use crate::mailbox::{Change, List};
use crate::record::{self, Record};
use crate::replica::{self, Durable, Effect, LogReader, LogSummary, Shared, Takeover};
use crate::time::WallTime;
use fake_log::FakeLog;
use std::net::{IpAddr, Ipv4Addr};

/// A node in a group of one, its disk, and its clients.
struct World {
    now: Moment,
    /// The wall clock.
    wall: WallTime,
    node: Node,
    log: FakeLog,
    vote: Vote,
    flush: bool,
    stored: Index,
    jobs: Vec<Job>,
    packets: Vec<(LinkId, Packet, Vec<u8>)>,
    closed: Vec<LinkId>,
    /// How many passwords were hashed; `visitors`: how many clients and operators have connected.
    hashed: usize,
    visitors: u64,
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANN: SessionId = SessionId(1);
const BOB: SessionId = SessionId(2);

impl World {
    /// Starts a node on this log.
    fn started(log: FakeLog, vote: Vote) -> World {
        let me = Member { id: ServerId::all(1).next().unwrap(), disk: DiskId(1) };
        let shared = Shared {
            group: GroupId(1),
            servers: 1,
            peer_timeout_ms: 2000,
            copies_min: 1,
            survivor_auto: false,
        };
        let mut summary = LogSummary::default();
        log.0.iter().for_each(|record| summary.push(&Record::trust(record)).unwrap());
        let setup = replica::Setup {
            me,
            shared,
            takeover: Takeover::Coin,
            vote,
            summary,
            acknowledged: Index::ZERO,
            seen: Default::default(),
            runs: vec![Run { incarnation: Incarnation(1), process: ProcessId(1) }],
            former: None,
            seed: 1,
        };
        let about = Setup {
            addresses: vec!["127.0.0.1:5001".to_owned()],
            login_timeout: Duration::from_secs(60),
            accounts_open: true,
            secret: Secret::new([7; Secret::BYTES]),
            recovery: "postern recover".to_owned(),
            former: Vec::new(),
            digest_entries: crate::limits::DIGEST_ENTRIES,
            settings: String::new(),
            retention: Retention::default(),
        };
        let state = (Mailboxes::new(&about.secret), Index::ZERO);
        let stored = Index(log.0.len() as u64);
        World {
            now: Moment(0),
            wall: WallTime(0),
            node: Node::new(Moment(0), about, Replica::new(Moment(0), setup), state),
            log,
            vote,
            flush: false,
            stored,
            jobs: Vec::new(),
            packets: Vec::new(),
            closed: Vec::new(),
            hashed: 0,
            visitors: 100,
        }
    }

    /// Starts a node on the same log after a crash.
    fn restarted(self) -> World {
        World::started(self.log, self.vote)
    }

    fn new() -> World {
        let mut world = World::started(FakeLog::default(), Vote::default());
        for _ in 0..20 {
            world.now += Duration::from_millis(5);
            world.turn();
        }
        for (session, user) in [(ANN, "ann"), (BOB, "bob")] {
            world.tell(Input::Opened(session, HERE.into()));
            world.line(session, &format!("CREATE {user} correct-horse"));
            world.line(session, &format!("LOGIN {user} correct-horse"));
            assert_eq!(world.said(session), format!("OK {user}\nOK {user} 0\n"));
        }
        world
    }

    fn tell(&mut self, input: Input<'_>) {
        let mut out = Output::default();
        let gauges = Gauges::default;
        let world = Context {
            now: self.now,
            wall: self.wall,
            log: &self.log,
            archive: &self.log,
            gauges: &gauges,
        };
        self.node.handle(&world, input, &mut out).unwrap();
        for effect in out.replica.effects {
            match effect {
                Effect::Append(range) => {
                    let records = record::each(&out.replica.bytes[range]);
                    self.log.0.extend(records.map(|record| record.unwrap().bytes.to_vec()));
                }
                Effect::Persist(vote) => self.vote = vote,
                Effect::Flush => self.flush = true,
                Effect::Close(link, _) => self.closed.push(link),
                Effect::SendWith(link, sent) => self.packets.push((link, sent.0, sent.1)),
                other => panic!("a server alone does not {other:?}"),
            }
        }
        self.jobs.extend(out.jobs);
    }

    /// Sends an operator's request, and returns the answer.
    fn operate(&mut self, group: GroupId, line: &str) -> Option<String> {
        self.visitors += 1;
        let (link, packet) = (LinkId(self.visitors), Packet::Request { group });
        let records = line.as_bytes();
        self.tell(Input::Replica(Event::Accepted { link }));
        self.tell(Input::Replica(Event::Received { link, packet, records }));
        self.turn();
        let (to, packet, lines) = self.packets.pop()?;
        assert_eq!((to, packet, self.packets.len()), (link, Packet::Answer, 0));
        Some(String::from_utf8(lines).unwrap())
    }

    /// Connects a client, sends lines, and returns the answers.
    fn visit(&mut self, from: IpAddr, lines: &[&str]) -> String {
        self.visitors += 1;
        let session = SessionId(self.visitors);
        self.tell(Input::Opened(session, from.into()));
        lines.iter().for_each(|line| self.line(session, line));
        let said = self.said(session);
        self.tell(Input::Gone(session));
        said
    }

    /// Runs twenty turns, after which nothing should be left to do. Hashing a password takes no
    /// time.
    fn turn(&mut self) {
        for _ in 0..20 {
            self.hash_all();
            self.tell(Input::Replica(Event::Tick));
            if std::mem::take(&mut self.flush) {
                self.stored = Index(self.log.0.len() as u64);
            }
            self.report();
            self.now += Duration::from_millis(1);
        }
    }

    /// Hashes the passwords of all jobs. The changes that are logged by that are not yet stored.
    fn hash_all(&mut self) {
        while let Some(job) = self.jobs.pop() {
            self.hashed += 1;
            let hash = format!("hash of {}", job.password);
            let hashed = match job.against {
                None => Hashed::Made(hash),
                Some(against) => Hashed::Checked(against == hash),
            };
            self.tell(Input::Hashed(job.session, hashed));
        }
    }

    /// Reports what is already stored.
    fn report(&mut self) {
        let mark = Durable { last: self.stored, vote: self.vote };
        self.tell(Input::Replica(Event::Durable(mark)));
    }

    /// Runs a tick and reports what is already stored, which confirms reads.
    fn tick(&mut self) {
        self.tell(Input::Replica(Event::Tick));
        self.report();
    }

    fn line(&mut self, session: SessionId, line: &str) {
        assert!(self.node.wants_line(session), "{line}");
        self.tell(Input::Request(session, Request::Line(line.as_bytes())));
        self.turn();
    }

    fn said(&mut self, session: SessionId) -> String {
        let said = std::mem::take(self.node.outlet(session).unwrap().output);
        self.tell(Input::Drained(session));
        self.node.take_dirty(&mut Vec::new());
        String::from_utf8(said).unwrap()
    }
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let mut world = World::new();
    for line in ["SEND bob one", "PING x", "FOO", "SEND bob two"] {
        world.tell(Input::Request(ANN, Request::Line(line.as_bytes())));
    }
    world.tell(Input::Request(ANN, Request::Line(b"LOG")));
    assert!(!world.node.wants_line(ANN), "a reading runs alone");
    assert_eq!(world.said(ANN), "", "nothing is said before it is stored");
    world.turn();
    let said = world.said(ANN);
    let words: Vec<&str> = said.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(words, ["1", "x", "bad-command", "2", "0"], "{said}");
    let pushed = world.said(BOB);
    assert!(
        pushed.lines().eq([
            "MSG 1 1970-01-01T00:00:00.000Z ann one",
            "MSG 2 1970-01-01T00:00:00.000Z ann two"
        ])
    );
}

/// Whether there is no such account is known after a confirmed read. Meanwhile it may be made.
#[test]
fn a_message_that_waits_for_a_read_keeps_its_attributes() {
    let mut world = World::new();
    world.tell(Input::Request(BOB, Request::Line(b"CREATE carol correct-horse")));
    world.tick();
    world.hash_all();
    world.tell(Input::Replica(Event::Tick));
    for line in ["WITH title a", "SEND carol b␤c"] {
        world.tell(Input::Request(ANN, Request::Line(line.as_bytes())));
    }
    assert!(!world.node.wants_line(ANN), "the message waits for a read");
    world.stored = Index(world.log.0.len() as u64);
    world.report();
    world.turn();
    assert_eq!(world.said(ANN), "OK\nOK 1\n");
    let read = world.visit(HERE, &["LOGIN carol correct-horse"]);
    assert_eq!(read, "MSG 1 1970-01-01T00:00:00.000Z ann a: b␤c\nOK carol 1\n");
}

#[test]
fn one_hash_serves_all_who_wait_with_the_same_password() {
    let mut world = World::new();
    world.line(ANN, "PASSWD correct-horse other-horse");
    let ids: Vec<SessionId> = (500..510).map(SessionId).collect();
    for id in &ids {
        world.tell(Input::Opened(*id, HERE.into()));
        world.tell(Input::Request(*id, Request::Line(b"LOGIN ann other-horse")));
    }
    let wrong = SessionId(510);
    world.tell(Input::Opened(wrong, HERE.into()));
    world.tell(Input::Request(wrong, Request::Line(b"LOGIN ann wrong-horse")));
    let before = world.hashed;
    world.turn();
    for id in &ids {
        assert_eq!(world.said(*id), "OK ann 0\n");
    }
    assert!(world.said(wrong).starts_with("ERR wrong-password "));
    assert_eq!(world.hashed - before, 2, "as many as the thread had when the first was known");
    assert!(world.node.logins.hash_queue.is_empty());
}

#[test]
fn no_more_than_64_requests_wait() {
    let mut world = World::new();
    for _ in 0..REQUESTS_MAX {
        assert!(world.node.wants_line(ANN));
        world.tell(Input::Request(ANN, Request::Line(b"SEND bob hi")));
    }
    assert!(!world.node.wants_line(ANN));
    world.turn();
    assert!(world.node.wants_line(ANN));
}

#[test]
fn a_full_buffer_stops_reading_and_pushing() {
    let mut world = World::new();
    let text = "x".repeat(3000);
    for _ in 0..100 {
        world.line(ANN, &format!("SEND bob {text}"));
        world.said(ANN);
    }
    let held = world.node.output_bytes(BOB);
    assert!((OUTPUT_BYTES_MAX..OUTPUT_BYTES_MAX + 4096).contains(&held), "{held}");
    assert!(!world.node.wants_line(BOB));
    let mut read = 0;
    while read < 100 {
        let lines = world.said(BOB).lines().count();
        assert!(lines > 0, "{read} of 100 were read");
        read += lines;
    }
    assert_eq!(world.said(BOB), "");
}

#[test]
fn a_session_that_ends_while_it_waits_harms_nobody() {
    let mut world = World::new();
    world.tell(Input::Request(ANN, Request::Line(b"SEND bob hi")));
    world.tell(Input::Gone(ANN));
    world.tell(Input::Request(BOB, Request::Line(b"PASSWD correct-horse other-horse")));
    (0..3).for_each(|_| world.tick());
    world.tell(Input::Gone(BOB));
    world.turn();
    assert!(world.node.logins.hash_queue.is_empty());
    assert!(world.node.sessions.is_empty() && world.node.delivery.online.is_empty());
    assert_eq!(world.node.mailboxes.messages(), 1, "a request that was taken is carried out");
}

#[test]
fn a_session_closed_by_another_one_may_have_changes_under_way() {
    let mut world = World::new();
    let phone = SessionId(7);
    world.tell(Input::Opened(phone, HERE.into()));
    world.line(phone, "LOGIN ann correct-horse");
    for closing in ["PASSWD correct-horse other-horse", "DELETE ann other-horse"] {
        world.tell(Input::Request(ANN, Request::Line(closing.as_bytes())));
        world.tick();
        // While the password is checked, the phone's messages are logged after the change.
        world.hash_all();
        if world.node.wants_line(phone) {
            world.tell(Input::Request(phone, Request::Line(b"SEND bob late")));
            world.tell(Input::Request(phone, Request::Line(b"SEND bob later")));
        }
        world.turn();
    }
    let said = world.said(phone);
    let unknown = said.lines().filter(|line| line.starts_with("ERR unknown-outcome ")).count();
    assert_eq!(unknown, 2, "every request gets its line: {said}");
    assert!(said.lines().last().unwrap().starts_with("NOTE "));
    assert!(world.node.is_finished(phone));
    assert_eq!(world.node.mailboxes.messages(), 2);
}

#[test]
fn guesses_that_are_under_way_together_are_counted_together() {
    let mut world = World::new();
    let guessers: Vec<SessionId> = (200..230).map(SessionId).collect();
    for session in &guessers {
        world.tell(Input::Opened(*session, HERE.into()));
        // The account does not exist, so every attempt is hashed.
        world.tell(Input::Request(*session, Request::Line(b"LOGIN carl wrong-horse")));
    }
    world.turn();
    let said: Vec<String> = guessers.iter().map(|session| world.said(*session)).collect();
    let count = |code: &str| said.iter().filter(|said| said.contains(code)).count();
    assert_eq!((count("wrong-password"), count("too-many-attempts")), (5, 25), "{said:?}");
}

#[test]
fn one_address_does_not_keep_the_others_from_logging_in() {
    let mut world = World::new();
    let there = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let greedy: Vec<SessionId> = (200..600).map(SessionId).collect();
    for session in &greedy {
        world.tell(Input::Opened(*session, there.into()));
        let line = format!("CREATE user{} correct-horse", session.0);
        world.tell(Input::Request(*session, Request::Line(line.as_bytes())));
    }
    // The reads are confirmed. Two jobs are at the thread, and those beyond the bound are refused.
    world.tell(Input::Replica(Event::Tick));
    assert_eq!(world.jobs.len(), crate::limits::HASHES_AT_WORK);
    let refused =
        |world: &mut World, session: &SessionId| world.said(*session).starts_with("ERR busy ");
    let count = greedy.iter().filter(|session| refused(&mut world, session)).count();
    assert_eq!(count, greedy.len() - crate::limits::HASHES_MAX - crate::limits::HASHES_AT_WORK);

    let modest = SessionId(900);
    world.tell(Input::Opened(modest, HERE.into()));
    world.tell(Input::Request(modest, Request::Line(b"CREATE modest correct-horse")));
    world.tell(Input::Replica(Event::Tick));
    for _ in 0..=crate::limits::HASHES_AT_WORK {
        let job = world.jobs.remove(0);
        let made = Hashed::Made(format!("hash of {}", job.password));
        world.tell(Input::Hashed(job.session, made));
    }
    world.turn();
    assert_eq!(world.said(modest), "OK modest\n");
}

#[test]
fn a_long_list_is_shown_in_bounded_pieces() {
    let mut world = World::new();
    let accounts = 100_000;
    for n in 0..accounts {
        let user = UserName::parse(&format!("user{n}")).unwrap();
        world.node.mailboxes.apply(world.node.applied, &Change::Create { user, hash: "-" });
    }
    world.tell(Input::Request(ANN, Request::Line(b"LIST user*")));
    assert!(!world.node.wants_line(ANN), "the requests behind it wait");
    let (mut said, mut turns) = (String::new(), 0);
    while !said.contains("OK ") {
        world.tell(Input::Replica(Event::Tick));
        let held = world.node.output_bytes(ANN);
        assert!(held < OUTPUT_BYTES_MAX + 64, "{held}");
        said += &world.said(ANN);
        turns += 1;
    }
    // Each turn lists names twice: at the tick, and after the socket has accepted output.
    assert!(turns >= accounts / (2 * crate::limits::LISTED_PER_STEP), "{turns} turns");
    let mut lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.pop(), Some("OK 100000"));
    assert!(lines.is_sorted() && lines.len() == accounts);
}

#[test]
fn an_operator_is_answered_once_and_forgotten() {
    let mut world = World::new();
    let group = GroupId(1);
    assert_eq!(world.operate(GroupId(2), "USERS"), None, "of another group");
    for (line, answer) in [
        ("USERS", "USER ann online\nUSER bob online\nOK 2\n"),
        ("USERS ann", "USER bob online\nOK 1\n"),
        ("USERS zed", "OK 0\n"),
        ("CREATE cyd correct-horse", "OK cyd\n"),
        ("CREATE cyd correct-horse", "ERR exists there is an account cyd\n"),
        ("RESET cyd other-horse", "OK\n"),
        ("RESET dan other-horse", "ERR no-such-user there is no account dan\n"),
        ("REMOVE ann", "OK\n"),
        ("SEND bob hi", "ERR bad-command unknown command; HELP lists all\n"),
        ("LOGIN bob correct-horse", "ERR bad-command unknown command; HELP lists all\n"),
        ("", "ERR bad-command unknown command; HELP lists all\n"),
        ("NONSENSE", "ERR bad-command unknown command; HELP lists all\n"),
    ] {
        assert_eq!(world.operate(group, line).as_deref(), Some(answer), "{line}");
    }
    assert!(world.said(ANN).ends_with("NOTE deleted this account was deleted\n"));
    assert_eq!(world.visit(HERE, &["LOGIN cyd other-horse"]), "OK cyd 0\n");
    assert!(world.node.operators.is_empty());
    // The link of an operator ends before the answer.
    let (link, packet) = (LinkId(99), Packet::Request { group });
    let records = b"CREATE eve correct-horse";
    world.tell(Input::Replica(Event::Accepted { link }));
    world.tell(Input::Replica(Event::Received { link, packet, records }));
    assert_eq!(world.node.operators.len(), 1);
    // A second request on the same link is ignored.
    world.tell(Input::Replica(Event::Received { link, packet, records: b"USERS" }));
    assert_eq!(world.node.operators.len(), 1);
    world.tell(Input::Replica(Event::Ended { link }));
    world.turn();
    assert!(world.node.operators.is_empty() && world.packets.is_empty());
}

#[test]
fn an_operator_is_told_of_many_accounts_in_bounded_answers() {
    let mut world = World::new();
    let count = 3 * crate::limits::USERS_PER_ANSWER;
    for n in 0..count {
        let user = UserName::parse(&format!("user{n:05}")).unwrap();
        world.node.mailboxes.apply(world.node.applied, &Change::Create { user, hash: "-" });
    }
    let (mut after, mut names) = ("bob".to_owned(), Vec::new());
    loop {
        let answer = world.operate(GroupId(1), &format!("USERS {after}")).unwrap();
        assert!(answer.len() < OUTPUT_BYTES_MAX);
        let users: Vec<&str> = answer.lines().filter_map(|l| l.strip_prefix("USER ")).collect();
        let Some(last) = users.last() else { break };
        after = last.split(' ').next().unwrap().to_owned();
        names.extend(users.iter().map(|user| (*user).to_owned()));
    }
    assert_eq!(names.len(), count);
    assert!(names.is_sorted());
}

#[test]
fn an_operator_waits_as_long_as_a_change_may_take() {
    let mut world = World::new();
    let (link, packet) = (LinkId(99), Packet::Request { group: GroupId(1) });
    world.tell(Input::Replica(Event::Accepted { link }));
    world.tell(Input::Replica(Event::Received { link, packet, records: b"REMOVE ann" }));
    // The node waits for a silent member. Nothing is stored meanwhile.
    for _ in 0..20 {
        world.now += Duration::from_millis(90);
        world.tell(Input::Replica(Event::Tick));
    }
    assert_eq!(world.closed, []);
    world.turn();
    let (to, _, lines) = world.packets.pop().expect("an answer");
    assert_eq!((to, &lines[..]), (link, &b"OK\n"[..]));
}

#[test]
fn nothing_is_said_behind_the_note_that_closes() {
    let mut world = World::new();
    let visit = |world: &mut World, n: u64, from: IpAddr| {
        let session = SessionId(1000 + n);
        world.tell(Input::Opened(session, from.into()));
        world.tell(Input::Request(
            session,
            Request::Line(format!("CREATE user{n} correct-horse").as_bytes()),
        ));
    };
    let others = crate::limits::HASHES_AT_WORK + crate::limits::HASHES_MAX - 1;
    (0..others as u64).for_each(|n| visit(&mut world, n, HERE));
    world.tell(Input::Request(ANN, Request::Line(b"PASSWD correct-horse other-horse")));
    world.tell(Input::Replica(Event::Tick));
    assert!(
        matches!(world.node.sessions[&ANN].request, RequestState::Hashing(_)),
        "hers is the last one"
    );
    world.node.close_with(ANN, Note::Deleted);
    // A job from another address would take the place of the last one from this address.
    visit(&mut world, 999, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    world.tell(Input::Replica(Event::Tick));
    assert!(world.said(ANN).ends_with("NOTE deleted this account was deleted\n"));
}

#[test]
fn who_does_not_log_in_is_told_and_closed() {
    let mut world = World::new();
    let late = SessionId(9);
    world.tell(Input::Opened(late, HERE.into()));
    world.now += Duration::from_secs(59);
    world.turn();
    assert!(!world.node.is_finished(late));
    world.now += Duration::from_secs(2);
    world.turn();
    assert!(world.said(late).starts_with("NOTE login-timeout "));
    assert!(world.node.is_finished(late) && !world.node.is_finished(ANN));
}

#[test]
fn a_stopping_node_answers_what_it_took() {
    let mut world = World::new();
    world.tell(Input::Request(ANN, Request::Line(b"SEND bob hi")));
    world.tell(Input::Stop);
    assert!(!world.node.wants_line(ANN));
    world.turn();
    let said = world.said(ANN);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "OK 1");
    assert!(lines[1].starts_with("NOTE stopping ") && lines.len() == 2);
    assert!(world.said(BOB).lines().last().unwrap().starts_with("NOTE stopping "));
    assert!(world.node.is_finished(ANN) && world.node.is_finished(BOB));
}

#[test]
fn a_kind_of_entry_from_the_future_stops_the_node() {
    let mut world = World::new();
    let mut out = crate::replica::Out::default();
    let kind = crate::record::Kind(77);
    world.node.replica.propose(Moment(0), WallTime(0), kind, |_| {}, &mut out).unwrap();
    let record = Record::parse(&out.bytes).unwrap();
    world.log.0.push(record.bytes.to_vec());
    let gauges = Gauges::default;
    let context = Context {
        now: world.now,
        wall: WallTime(0),
        log: &world.log,
        archive: &world.log,
        gauges: &gauges,
    };
    let mut out = Output::default();
    world.node.handle(&context, Input::Replica(Event::Tick), &mut out).unwrap();
    let mark = Durable { last: record.index, vote: world.vote };
    let stopped = world.node.handle(&context, Input::Replica(Event::Durable(mark)), &mut out);
    assert!(stopped.unwrap_err().0.contains("a newer version"));
}

/// Lines that waited for a handover are accepted after it has failed.
#[test]
fn a_handover_that_came_to_nothing_wakes_every_client() {
    let mut world = World::new();
    world.turn();
    assert_eq!(world.node.dirty, []);
    world.node.seen.handing_over = true;
    world.tell(Input::Replica(Event::Tick));
    assert!([ANN, BOB].iter().all(|id| world.node.dirty.contains(id)));
    assert!(!world.node.seen.handing_over);
}
