//! Lines of a hostile server, sent to `postern::client`.
//!
//! `l` sends a line once. `r` repeats a line as often as the two bytes before it say, and replaces
//! `#` by a counter. The other letters are actions of the caller and of the socket.

use super::case::{Args, Case, mutate_bytes, pick};
use super::target::check_memory;
use crate::require;
use postern::client::probe::Probe;
use postern::client::{Account, After, Event};
use postern::limits::LINE_BYTES_MAX;
use postern::rng::Rng;
use postern::time::Moment;
use std::time::Duration;

/// The most events: those that the caller has not received, and one for each message.
const EVENTS_MAX: usize = 4096 + 2 * 256 + 64;
const ASKED_MAX: usize = 256 + 8;
const DATA_BYTES_MAX: usize = 16 * 1024 * 1024;
const STATUS_MAX: usize = 256;
/// All unanswered messages, and a few requests.
const OUT_MAX: usize = (256 + 8) * LINE_BYTES_MAX;
/// The servers that were given, and a few that others have named.
const SERVERS_MAX: usize = 64;
/// Lines of a server.
const LINES: [&str; 23] = [
    "OK",
    "OK ann 0",
    "OK 1",
    "OK ann 18446744073709551615",
    "OK ann x",
    "STAT role primary",
    "STAT last_index 100",
    "STAT servers a:1,b:2,c:3",
    "STAT server 2/00000002",
    "STAT",
    "MSG # 2026-11-23T11:58:03.120Z bob text #",
    "MSG 1 2026-11-23T11:58:03.120Z bob hi",
    "MSG 9223372036854775807 t bob hi",
    "USER u# online",
    "NOTE stopping this server stops",
    "NOTE kept-from 5 older messages are no longer kept",
    "NOTE kept-from #",
    "ERR not-primary h#:5001 ask there",
    "ERR wrong-password no",
    "ERR unknown-outcome x",
    "ERR no-such-user there is no account bob",
    "ERR busy try again",
    "ERR",
];

/// Makes a case: mostly a login, then anything.
pub(super) fn generate(rng: &mut Rng) -> Case {
    let mut pieces = vec![vec![b'a', rng.below(4) as u8], b"c".to_vec()];
    if rng.below(4) > 0 {
        pieces.extend(["STAT role primary", "OK", "OK ann 0"].map(line));
    }
    for _ in 0..rng.below(24) {
        let text = LINES[pick(rng, LINES.len())];
        pieces.push(match rng.below(16) {
            0 => b"c".to_vec(),
            1 => b"s".to_vec(),
            2 => b"q".to_vec(),
            3 => b"k".to_vec(),
            4 => vec![b'n', rng.below(256) as u8],
            5 => b"o".to_vec(),
            6 if rng.below(3) == 0 => {
                let times = [200u16, 300, 5000][pick(rng, 3)].to_le_bytes();
                [&b"r"[..], &times, text.as_bytes()].concat()
            }
            7 => {
                let mut piece = line(text);
                mutate_bytes(&mut piece, rng, b"MSG 1 \x1b\xff\r\n");
                piece
            }
            8 if rng.below(4) == 0 => [&b"b"[..], &vec![b'x'; 4090 + pick(rng, 8)]].concat(),
            9 => [&b"h"[..], text.as_bytes()].concat(),
            _ => line(text),
        });
    }
    Case(pieces)
}

fn line(text: &str) -> Vec<u8> {
    [b"l", text.as_bytes()].concat()
}

/// Plays a case.
pub(super) fn check(case: &Case) -> Result<(), String> {
    let kind = case.0.first().filter(|piece| piece.first() == Some(&b'a'));
    let kind = kind.map_or(0, |piece| Args(&piece[1..]).byte());
    let account = Account::new("ann", "correct-horse");
    let account = match kind % 4 {
        0 => account,
        1 => account.created(),
        2 => account.after(After::Number(0)),
        _ => account.after(After::Last(5)),
    };
    let mut world = World { probe: Probe::new(account), now: Moment(0), last: None };
    for piece in &case.0 {
        if !world.play(piece)? {
            break;
        }
        world.check_bounds()?;
    }
    Ok(())
}

struct World {
    probe: Probe,
    now: Moment,
    /// The number of the latest message that the caller received.
    last: Option<u64>,
}

impl World {
    /// Plays a piece. Returns whether the client continues.
    fn play(&mut self, piece: &[u8]) -> Result<bool, String> {
        self.now += Duration::from_millis(700);
        let mut args = Args(piece);
        match args.byte() {
            b'l' => return Ok(self.receive(&[args.rest(), b"\n"].concat())),
            b'b' => return Ok(self.receive(args.rest())),
            b'h' => {
                // In two parts.
                let line = [args.rest(), b"\n"].concat();
                let (one, two) = line.split_at(line.len() / 2);
                return Ok(self.receive(one) && self.receive(two));
            }
            b'r' => {
                let (times, line) = (args.short() % 6000, args.rest());
                let line = String::from_utf8_lossy(line).into_owned();
                for n in 1..=times {
                    self.reconnect();
                    let line = format!("{}\n", line.replace('#', &n.to_string()));
                    if !self.receive(line.as_bytes()) {
                        return Ok(false);
                    }
                    self.check_bounds()?;
                }
            }
            b'c' => self.probe.connect(self.now),
            b's' => self.probe.submit(self.now, "bob", "a text"),
            b'q' => self.probe.list(),
            b'k' => self.probe.look(self.now),
            b'o' => drop(self.probe.sent()),
            b'n' => {
                for _ in 0..args.byte() {
                    self.take()?;
                }
            }
            _ => {}
        }
        Ok(true)
    }

    fn reconnect(&mut self) {
        for _ in 0..2 {
            if !self.probe.is_connected() {
                self.probe.connect(self.now);
            }
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> bool {
        self.probe.hear(self.now, bytes).is_ok()
    }

    /// Checks that messages arrive in order and without a gap.
    fn take(&mut self) -> Result<(), String> {
        let Some(Event::Message(message)) = self.probe.take_event() else { return Ok(()) };
        let last = self.last.replace(message.number);
        require(last.is_none_or(|last| message.number == last + 1), || {
            format!("messages have a gap: {} after {last:?}", message.number)
        })
    }

    fn check_bounds(&self) -> Result<(), String> {
        let held = self.probe.held();
        let bounds = [
            ("requests", held.asked, ASKED_MAX),
            ("events", held.events, EVENTS_MAX),
            ("bytes of data", held.data, DATA_BYTES_MAX),
            ("lines of a status", held.status, STATUS_MAX),
            ("bytes to send", held.out, OUT_MAX),
            ("servers", held.servers, SERVERS_MAX),
            ("an unfinished line", self.probe.unfinished(), LINE_BYTES_MAX),
        ];
        check_memory(&bounds)
    }
}
