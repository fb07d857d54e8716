//! Lines of text clients, sent to a real server of a group of one: in fragments, with half-closed
//! connections, sockets that block, slow password hashing, a full disk, and a stop.
//!
//! | piece | meaning |
//! | --- | --- |
//! | `o` `S` | client S connects |
//! | `b` `S` bytes | it sends bytes |
//! | `e` `S` | it half-closes its connection |
//! | `x` `S` | its connection breaks |
//! | `t` `S` `NN` | its socket accepts `NN` more bytes; ffff: it never blocks |
//! | `w` `N` | `N` times 10 ms pass |
//! | `h` | the oldest password job completes |
//! | `f` `N` | the disk is nearly full (odd `N`), or has room |
//! | `z` | the server receives SIGTERM |

use super::case::{Args, Case, pick};
use super::session::ClientSession;
use crate::require;
use crate::simulate::{self, ConnId, GROUP, Incoming, Output, Process, Settings, address_of};
use postern::ids::{DiskId, ServerId};
use postern::limits::{LINE_BYTES_MAX, OUTPUT_BYTES_MAX, REQUESTS_MAX, SPACE_TIME};
use postern::node::Hashed;
use postern::rng::Rng;
use postern::store::Identity;
use postern::store::memory::MemoryDisk;
use postern::time::{Moment, WallTime};

const CLIENTS: usize = 4;
const NAMES: [&str; 4] = ["ann", "bob", "carl", "x-"];
const PASSWORDS: [&str; 3] = ["correct-horse", "other-horse", "short"];
/// The most bytes in the output buffer of a client: a full one, and answers to all requests.
const HELD_MAX: usize = OUTPUT_BYTES_MAX + (REQUESTS_MAX + 1) * LINE_BYTES_MAX;
/// The most turns at the end of a case until all requests are answered.
const LAST_TURNS: usize = 400;

/// Makes a case of mostly sensible sessions.
pub(super) fn generate(rng: &mut Rng) -> Case {
    let mut pieces = Vec::new();
    for client in b'0'..b'0' + CLIENTS as u8 {
        pieces.push(vec![b'o', client]);
        let name = NAMES[pick(rng, 3)];
        let both = format!("CREATE {name} correct-horse\nLOGIN {name} correct-horse\n");
        pieces.push([&[b'b', client][..], both.as_bytes()].concat());
        if rng.below(2) == 0 {
            pieces.extend([vec![b'h'], vec![b'w', 1]]);
        }
    }
    for _ in 0..rng.below(40) {
        let client = b'0' + rng.below(CLIENTS as u64) as u8;
        pieces.push(match rng.below(24) {
            0 => vec![b'o', client],
            1 => vec![b'e', client],
            2 if rng.below(2) == 0 => vec![b'x', client],
            3 => vec![b't', client, rng.below(256) as u8, rng.below(2) as u8],
            4 => vec![b't', client, 0xff, 0xff],
            5 | 6 => vec![b'w', rng.below(3) as u8],
            7 | 8 => vec![b'h'],
            9 if rng.below(4) == 0 => vec![b'f', rng.below(2) as u8],
            10 if rng.below(12) == 0 => vec![b'z'],
            _ => [&[b'b', client][..], &lines(rng)].concat(),
        });
    }
    Case(pieces)
}

/// Makes requests. The last one may be unfinished.
fn lines(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let most = 1 << rng.below(7);
    for _ in 0..1 + rng.below(most) {
        out.extend(request(rng).into_bytes());
        out.extend([&b"\n"[..], b"\r\n", b"\n", b" \n"][pick(rng, 4)]);
    }
    match rng.below(16) {
        0 => out.truncate(out.len() / 2),
        1 => out.extend(std::iter::repeat_n(b'x', LINE_BYTES_MAX + pick(rng, 3) - 1)),
        2 => out.extend(b"PING \xff\xfe\n\x00\n"),
        _ => {}
    }
    out
}

fn request(rng: &mut Rng) -> String {
    let (name, other) = (NAMES[pick(rng, 4)], NAMES[pick(rng, 4)]);
    let password = PASSWORDS[pick(rng, 3)];
    let number = [0, 1, 2, 5, 4096, u64::MAX][pick(rng, 6)];
    let text = match rng.below(12) {
        0 => "y".repeat([3839, 3840, 3841, 4080][pick(rng, 4)]),
        1 => "\u{202e}\u{85}".to_owned(),
        3 => "␤".repeat([1, 2, 1279, 1280, 1281][pick(rng, 5)]),
        2 => String::new(),
        _ => format!("{} hi  there ", rng.below(1000)),
    };
    match rng.below(23) {
        22 => format!("SENT {number} {}", rng.below(3)),
        20 => format!("ATTR {}", ["on", "off", "x"][pick(rng, 3)]),
        21 => {
            let attribute = ["title", "priority", "tags", "click", "x"][pick(rng, 5)];
            let long = "z".repeat([1, 249, 250, 251, 255, 256][pick(rng, 6)]);
            format!("WITH {attribute} {}", ["5", "6", &long, &text][pick(rng, 4)])
        }
        0 => "HELP".to_owned(),
        1 => format!("HELP {}", ["send", "USERS", "x"][pick(rng, 3)]),
        2 | 3 => format!("PING {text}"),
        4 => "STATUS".to_owned(),
        5 if rng.below(3) == 0 => "QUIT".to_owned(),
        6 => format!("CREATE {name} {password}"),
        7 => format!("LOGIN {name} {password}"),
        8 => format!("LOGIN {name} {password} {}", ["end", "-5", "99", "x"][pick(rng, 4)]),
        9 => format!("LOG {number} {}", rng.below(3)),
        10 => format!("LOG -{number}"),
        11 => format!("LIST {}", ["*", "a*", "?*?", "[", ""][pick(rng, 5)]),
        12 => format!("PASSWD {password} {}", PASSWORDS[pick(rng, 3)]),
        13 => format!("DELETE {name} {password}"),
        14 => "LOGOUT".to_owned(),
        15 | 16 => format!("ONCE k{} {other} {text}", rng.below(3)),
        17 => [" ", "\u{0}", "USERS", "SEND", "send  bob  x"][pick(rng, 5)].to_owned(),
        _ => format!("SEND {other} {text}"),
    }
}

/// The server, its clock and its clients.
struct World {
    process: Process,
    disk: MemoryDisk,
    now: Moment,
    inbox: Vec<Incoming>,
    clients: Vec<ClientSession>,
    sessions: u64,
}

/// Plays a case.
pub(super) fn check(case: &Case) -> Result<(), String> {
    let mut world = World::new()?;
    for piece in &case.0 {
        world.play(piece)?;
    }
    world.finish()
}

impl World {
    fn new() -> Result<World, String> {
        let me = ServerId::new(1).expect("1 to 3");
        let identity = Identity::new(GROUP, 1, me, DiskId(1));
        let disk = MemoryDisk::default();
        let process =
            simulate::open(&disk, &identity, Settings::by_rank(), "0", &[], &mut Rng::new(1));
        let process = process.map_err(|error| format!("the directory can't be opened: {error}"))?;
        let clients = (0..CLIENTS).map(|_| ClientSession::default()).collect();
        let mut world =
            World { process, disk, now: Moment(0), inbox: Vec::new(), clients, sessions: 0 };
        for _ in 0..100 {
            world.turn(5)?;
            if world.process.node().replica().confirmed_read().is_some() {
                return Ok(world);
            }
        }
        Err("a group of one has no primary: after 100 turns".to_owned())
    }

    fn play(&mut self, piece: &[u8]) -> Result<(), String> {
        let mut args = Args(piece);
        let letter = args.byte();
        match letter {
            b'w' => {
                for _ in 0..args.byte() {
                    self.turn(10)?;
                }
                return Ok(());
            }
            b'h' => return self.hash(),
            b'f' => {
                return self.fill(args.byte() & 1 != 0);
            }
            b'z' => {
                self.inbox.push(Incoming::Stop);
                return self.turn(1);
            }
            _ => {}
        }
        let at = usize::from(args.byte() % CLIENTS as u8);
        let open = self.clients[at].session;
        match (letter, open) {
            (b'o', _) => {
                self.sessions += 1;
                let session = ConnId(self.sessions);
                if let Some(old) = self.clients[at].open(session) {
                    self.inbox.push(Incoming::Reset(old));
                }
                self.inbox.push(Incoming::Opened(session, address_of(session)));
            }
            (b'b', Some(session)) if !self.clients[at].sent_all => {
                let bytes = args.rest().to_vec();
                self.clients[at].send(&bytes);
                self.inbox.push(Incoming::Bytes(session, bytes));
            }
            (b'e', Some(session)) => {
                self.clients[at].send_no_more();
                self.inbox.push(Incoming::Finished(session));
            }
            (b'x', Some(session)) => {
                self.clients[at].forget();
                self.inbox.push(Incoming::Reset(session));
            }
            (b't', Some(session)) => {
                let room = usize::from(args.short());
                let room = if room == usize::from(u16::MAX) { usize::MAX } else { room };
                self.inbox.push(Incoming::Room(session, room));
            }
            _ => return Ok(()),
        }
        self.turn(0)
    }

    /// Makes the disk nearly full, or not, and waits until the server has noticed that.
    fn fill(&mut self, nearly_full: bool) -> Result<(), String> {
        self.disk.fail(|failures| failures.nearly_full = nearly_full);
        self.turn(SPACE_TIME.as_millis() as u64)
    }

    /// Completes the oldest password job.
    fn hash(&mut self) -> Result<(), String> {
        if let Some(job) = self.process.kernel().jobs.pop_front() {
            let hashed: Hashed = simulate::hash(&job);
            self.inbox.push(Incoming::Hashed(job.session, hashed));
        }
        self.turn(0)
    }

    fn turn(&mut self, ms: u64) -> Result<(), String> {
        if let Some(job) = self.process.kernel().file_job.take() {
            self.inbox.push(Incoming::Made(job.run(&self.disk, || false)));
        }
        self.now = Moment(self.now.0 + ms * 1000 + 100);
        let wall = WallTime(1_700_000_000_000 + self.now.0 / 1000);
        let done = self.process.full_turn(self.now, wall, &mut self.inbox);
        done.map_err(|fail| format!("the server exits: {fail}"))?;
        for act in self.process.kernel().take_outputs() {
            match act {
                Output::Send(session, bytes) => {
                    if let Some(client) = self.client(session) {
                        client.receive(&bytes)?;
                    }
                }
                Output::Finish(session) | Output::Close(session) => {
                    if let Some(client) = self.client(session) {
                        client.end()?;
                    }
                }
                Output::Dial { .. } => {
                    return Err("a group of one dials: a server".to_owned());
                }
            }
        }
        for session in self.clients.iter().filter_map(|client| client.session) {
            let held = self.process.output_bytes(session);
            require(held <= HELD_MAX, || format!("an output buffer is too large: {held} bytes"))?;
        }
        Ok(())
    }

    fn client(&mut self, session: ConnId) -> Option<&mut ClientSession> {
        self.clients.iter_mut().find(|client| client.session == Some(session))
    }

    /// Unblocks all sockets, frees the disk and completes password jobs. Then every request must be
    /// answered.
    fn finish(&mut self) -> Result<(), String> {
        self.fill(false)?;
        let sessions: Vec<ConnId> = self.clients.iter().filter_map(|c| c.session).collect();
        let free = |session: &ConnId| Incoming::Room(*session, usize::MAX);
        self.inbox.extend(sessions.iter().map(free));
        for _ in 0..LAST_TURNS {
            self.hash()?;
            if self.clients.iter().all(ClientSession::is_answered) {
                break;
            }
        }
        // No other answers may follow.
        self.turn(10)?;
        self.turn(10)?;
        self.clients.iter().try_for_each(ClientSession::check_end)
    }
}
