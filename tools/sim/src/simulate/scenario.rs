//! Scenarios: one bad day each, told in lines that a person can read, and what must come of it.
//!
//! ```text
//! timeout 1000          the peer timeout T in ms; before anything else, like `auto`, `rank`,
//!                       `copies 2`, `blank`
//! segments 2048         from this size in bytes a segment is followed by a new one; like `timeout`
//! primary 1             waits until 1 leads; `primary 2,3`: until one of them does
//! lead 2                waits until one leads; an operator then hands over to 2, unless it leads
//! members 1,2,3         waits until one leads exactly these, and all is answered
//! state 2 backup        waits until 2 is that: primary, backup, learner, blank, candidate, down
//! gate open             waits until clients are let in
//! crash 2               kill -9; `power 2` loses what was not synced; `start 2`
//! stop 2                SIGTERM; `handover` is an operator's order
//! pause 2, resume 2     SIGSTOP, SIGCONT
//! wipe 2, damage 2      of one that is down: its disk is lost, or a bit of its log flips
//! damage 2 old          the same, in a segment that another follows; `end`: in the last byte
//! copy 2, restore 2     a copy of its directory is taken, or put in its place while it is down;
//!                       what was there is the copy then
//! twin 2, untwin        a second process with the id of 2 starts on a new disk; it ends for good
//! twin 2 copy           the same, on a copy of the directory of 2
//! recover 2             a person goes on with one that is down, alone
//! cut 1 3, cut 1 > 3    nothing comes through, both ways or one; `heal`; `reset 1 3`
//! refuse 1, accept 1    its address refuses although it lives
//! undialled 1 > 2       dials from 1 to 2 are lost, links that are open go on; `heal` ends it
//! full 2, room 2        its disk has little room left, and has again
//! clock 2 +86400000     the wall clock of 2 is so many ms ahead (-: behind); `clock 2 0`
//! sync 3 2500           from now on each sync of 3 takes so many ms
//! login 1               ann logs in at 1: her next sends there need no read
//! send 1 bob hi -> OK   ann sends at 1: the answer, its code, or `nothing`
//! once 1 k bob hi -> OK the same, with a key
//! begin 1 bob hi        the same, not waited for; `answer OK` waits for it
//! read 1 bob -> hi,ho   what bob's mailbox shows at 1, or the code of the error
//! timely 1 bob 30       the time of the newest message in bob's mailbox is so many ms ago, or less
//! within 20 send …      the line that follows is over in so many ms
//! not members 1         a condition does not hold now: primary, members, state, gate or rule
//! wait 50               ms
//! never 3 for 2000      3 is not primary for so many ms
//! rule Withdrawn        waits until a rule has decided
//! found TEXT            the checks find this, at the end
//! ```
//!
//! Where a server is named, `P` is the one that leads with the highest term; who goes on alone
//! beside a group that lives does not count.

use super::damage::Place;
use super::kernel::Wire;
use super::network::CLIENTS;
use super::process::{Incoming, Settings};
use super::story;
use super::trial::{is_well, judge, picture};
use super::wall::true_wall;
use super::world::{World, address_of, id};
use postern::replica::{RoleView, Rule, Takeover};
use postern::rng::Rng;
use postern::store::memory::MemoryDisk;
use postern::time::WallTime;
use postern_testkit::checker::{OpId, Outcome, Request};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a sync takes, before half of it is added or taken away by chance.
const SYNC_US: u64 = 400;
const PASSWORD: &str = "correct-horse";

/// What a client of a scenario has asked, and what it has read.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) session: Wire,
    pub(super) read: Vec<u8>,
    /// How many answers come before the one that counts.
    skips: usize,
    server: usize,
    life: u32,
    /// What is to be kept, of a SEND.
    op: Option<OpId>,
}

/// Plays a scenario.
///
/// # Errors
/// Which line did not come true, and the story up to there.
pub fn play(text: &str) -> Result<(), String> {
    story::begin();
    let played = catch_unwind(AssertUnwindSafe(|| Play::new(text)?.all(text)));
    let played = played.unwrap_or_else(|_| Err("a panic".to_owned()));
    let told = story::end();
    played.map_err(|why| format!("{}\n{why}", told.join("\n")))
}

struct Play {
    world: World,
    copies: [Option<MemoryDisk>; 3],
    probes: u64,
    begun: Option<Wire>,
    /// Sessions in which ann is logged in, by server.
    logged_in: [Option<Wire>; 3],
    expected: Option<String>,
}

/// A line without its comment, in words.
fn words(line: &str) -> Vec<&str> {
    line.split('#').next().unwrap_or("").split_whitespace().collect()
}

fn number(word: Option<&&str>) -> Result<u64, String> {
    word.and_then(|word| word.parse().ok()).ok_or_else(|| "a number is missing".to_owned())
}

fn server(word: Option<&&str>) -> Result<usize, String> {
    match number(word)? {
        n @ 1..=3 => Ok(n as usize - 1),
        n => Err(format!("there is no server {n}")),
    }
}

impl Play {
    fn new(text: &str) -> Result<Play, String> {
        let mut settings = Settings::default();
        let mut blank = false;
        for line in text.lines() {
            match &words(line)[..] {
                ["timeout", ms] => settings.peer_timeout_ms = number(Some(ms))? as u32,
                ["copies", n] => settings.copies_min = number(Some(n))? as u8,
                ["segments", bytes] => settings.segment_bytes = number(Some(bytes))?,
                ["auto"] => settings.survivor_auto = true,
                ["rank"] => settings.takeover = Takeover::Rank,
                ["blank"] => blank = true,
                _ => {}
            }
        }
        let mut world = World::empty(1, settings);
        world.servers.iter_mut().for_each(|server| server.sync_us = SYNC_US);
        let copies = [None, None, None];
        let mut play =
            Play { world, copies, probes: 0, begun: None, logged_in: [None; 3], expected: None };
        if !blank {
            (0..3).for_each(|n| play.world.start(n));
            play.line("gate open")?;
            play.line("members 1,2,3")?;
            for name in ["ann", "bob"] {
                let lines = format!("CREATE {name} {PASSWORD}\n");
                let leads = play.primary().ok_or("no primary")?;
                let session = play.ask(leads, &lines, 0);
                let answer = play.answer(session);
                if answer != "OK" {
                    return Err(format!("CREATE {name}: {answer}"));
                }
            }
        }
        Ok(play)
    }

    fn all(mut self, text: &str) -> Result<(), String> {
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            story::at(self.world.now, 0);
            story::tell(|| format!("> {line}"));
            let line = &self.name_primary(line);
            self.line(line).map_err(|why| format!("line {}: `{line}`: {why}", at + 1))?;
            if self.world.finding.is_some() {
                break;
            }
        }
        if self.world.finding.is_none() {
            let judged = judge(&mut self.world, false);
            self.world.note(judged);
        }
        match (self.world.finding, self.expected) {
            (None, None) => Ok(()),
            (Some(found), Some(expected)) if found.contains(&expected) => Ok(()),
            (found, expected) => Err(format!("found {found:?}, expected {expected:?}")),
        }
    }

    fn name_primary(&self, line: &str) -> String {
        let leads = self.primary().map_or("-".to_owned(), |n| (n + 1).to_string());
        let words = line.split(' ').map(|word| if word == "P" { &leads } else { word });
        words.collect::<Vec<_>>().join(" ")
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let words = words(line);
        let of = |n: usize| server(words.get(n));
        match words[0] {
            "timeout" | "copies" | "segments" | "auto" | "rank" | "blank" => {}
            "primary" | "members" | "state" | "gate" | "rule" => return self.wait(line, &words),
            "send" | "once" => {
                let (asked, expected) = line.split_once("->").ok_or("-> is missing")?;
                let session = self.send(asked, of(1)?);
                return self.expect(session, expected.trim());
            }
            "login" => {
                let n = of(1)?;
                let session = self.ask(n, &format!("LOGIN ann {PASSWORD} end\n"), 0);
                self.logged_in[n] = Some(session);
                return self.expect(session, "OK");
            }
            "begin" => self.begun = Some(self.send(line, of(1)?)),
            "answer" => {
                let session = self.begun.take().ok_or("nothing was begun")?;
                return self.expect(session, words[1]);
            }
            "read" => {
                let expected = line.split_once("->").ok_or("-> is missing")?.1.trim();
                let lines = format!("LOGIN {} {PASSWORD} end\nLOG 0\n", words[2]);
                let session = self.ask(of(1)?, &lines, 1);
                let answer = self.answer(session);
                let read = self.texts(session);
                let told = if answer == "OK" { read } else { answer };
                return if told == expected { Ok(()) } else { Err(format!("told {told:?}")) };
            }
            "timely" => return self.timely(of(1)?, words[2], number(words.get(3))?),
            "within" => {
                let (began, most) = (self.world.now, number(words.get(1))?);
                let rest = line.splitn(3, ' ').nth(2).ok_or("what?")?;
                self.line(rest)?;
                let took = (self.world.now - began) as f64 / 1e3;
                return if took <= most as f64 { Ok(()) } else { Err(format!("{took} ms")) };
            }
            "not" => {
                let holds = self.holds(&words[1..])?;
                return if holds { Err("it holds".to_owned()) } else { Ok(()) };
            }
            "wait" => {
                let end = self.world.now + number(words.get(1))? * 1000;
                self.world.run_to(end);
            }
            "never" => {
                let (n, end) = (of(1)?, self.world.now + number(words.get(3))? * 1000);
                while self.world.finding.is_none() && self.world.step(end) {
                    if self.stands(n) == "primary" {
                        return Err("it is primary".to_owned());
                    }
                }
                self.world.now = self.world.now.max(end);
            }
            "found" => {
                self.expected = Some(words[1..].join(" "));
            }
            _ => return self.harm(&words),
        }
        Ok(())
    }

    /// Whether the newest message in a mailbox has the time of now, or of at most `most` ms ago.
    fn timely(&mut self, n: usize, name: &str, most: u64) -> Result<(), String> {
        let session = self.ask(n, &format!("LOGIN {name} {PASSWORD} end\nLOG 0\n"), 1);
        let answer = self.answer(session);
        let text = String::from_utf8_lossy(&self.probe(session).read);
        let newest = text.lines().rfind(|line| line.starts_with("MSG "));
        let time = newest.and_then(|line| line.split(' ').nth(2)).unwrap_or(&answer);
        let now = true_wall(self.world.now);
        let [from, to] = [now.0 - most, now.0].map(|ms| WallTime(ms).rfc3339().to_string());
        let fits = (&from[..]..=&to).contains(&time);
        if fits { Ok(()) } else { Err(format!("{time} is not from {from} to {to}")) }
    }

    /// What goes wrong, or is repaired.
    fn harm(&mut self, words: &[&str]) -> Result<(), String> {
        let world = &mut self.world;
        if words[0] == "heal" {
            for (a, b) in ways() {
                (world.net.way(a, b).cuts, world.net.way(a, b).dials_lost) = (0, 0);
            }
            world.net.release(world.now, &mut world.schedule);
            return Ok(());
        }
        match words[0] {
            "lead" => {
                self.line("primary 1,2,3")?;
                let n = server(words.get(1))?;
                if self.stands(n) != "primary" {
                    self.world.order_handover(n, Some(id(n)));
                }
                return self.line(&format!("primary {}", n + 1));
            }
            "handover" => {
                world.order_handover(0, None);
                return Ok(());
            }
            "untwin" => {
                world.forget_twin();
                return Ok(());
            }
            _ => {}
        }
        let n = server(words.get(1))?;
        match words[0] {
            "crash" => world.ends_life(n, true),
            "power" => {
                world.ends_life(n, false);
                let server = &mut world.servers[n];
                server.powered = false;
                server.disk = server.disk.crash(|| false);
            }
            "start" => {
                world.servers[n].powered = true;
                world.net.release(world.now, &mut world.schedule);
                world.start(n);
            }
            "stop" => drop(world.ask_to_stop(n)),
            "pause" => drop(world.pause(n, u64::MAX >> 8)),
            "resume" => world.resume(n, world.servers[n].pauses),
            "refuse" => world.servers[n].refuses = 1,
            "accept" => world.servers[n].refuses = 0,
            "full" => world.servers[n].disk.fail(|failures| failures.nearly_full = true),
            "room" => world.servers[n].disk.fail(|failures| failures.nearly_full = false),
            "sync" => world.servers[n].slow_sync_us = number(words.get(2))? * 1000,
            "clock" => {
                let ahead: Option<i64> = words.get(2).and_then(|ms| ms.parse().ok());
                let ahead = ahead.ok_or("how far ahead?")?;
                world.servers[n].wall.set(world.now, ahead * 1000, 0);
            }
            "reset" => drop(world.reset(n, server(words.get(2))?)),
            "undialled" => world.net.way(n, server(words.get(3))?).dials_lost += 1,
            "cut" if words[2] == ">" => world.net.way(n, server(words.get(3))?).cuts += 1,
            "cut" => {
                let other = server(words.get(2))?;
                world.net.way(n, other).cuts += 1;
                world.net.way(other, n).cuts += 1;
            }
            "twin" => {
                let copy = words.contains(&"copy").then(|| world.servers[n].disk.copied());
                world.begin_twin(n, copy, 0);
            }
            "copy" => self.copies[n] = Some(world.servers[n].disk.copied()),
            _ if world.servers[n].process.is_some() => return Err("it is not down".to_owned()),
            "recover" => world.recover(n)?,
            "wipe" => world.lose(n),
            "damage" => {
                let place = match words.get(2) {
                    Some(&"old") => Place::OlderSegment,
                    Some(&"end") => Place::End,
                    _ => Place::Any,
                };
                world.damage(n, place, &mut Rng::new(7));
            }
            "restore" => {
                let copy = self.copies[n].take().ok_or("there is no copy")?;
                self.copies[n] = Some(world.servers[n].disk.copied());
                world.replace(n, copy);
            }
            _ => return Err("nobody knows this".to_owned()),
        }
        Ok(())
    }

    fn wait(&mut self, line: &str, words: &[&str]) -> Result<(), String> {
        let began = self.world.now;
        let end = began + 10 * u64::from(self.world.settings.peer_timeout_ms) * 1000 + 3_000_000;
        loop {
            if self.holds(words)? {
                return Ok(());
            }
            if self.world.finding.is_some() || !self.world.step(end) {
                return Err(format!("not within 10 T: {line}: {}", picture(&self.world)));
            }
        }
    }

    fn holds(&self, words: &[&str]) -> Result<bool, String> {
        let processes = self.world.servers.iter().filter_map(|server| server.process.as_ref());
        Ok(match words {
            ["primary", list] => {
                let mut any = false;
                for n in list.split(',') {
                    any |= self.stands(server(Some(&n))?) == "primary";
                }
                any
            }
            ["rule", name] => self.has_decided(name)?,
            ["state", n, word] => self.stands(server(Some(n))?) == *word,
            ["gate", "open"] => processes.clone().any(|process| {
                let replica = process.node().replica();
                replica.role() == RoleView::Primary && replica.gate_open()
            }),
            ["members", list] => {
                let mut wanted: Vec<usize> = Vec::new();
                for n in list.split(',') {
                    wanted.push(server(Some(&n))?);
                }
                let primary = self
                    .world
                    .replicas()
                    .filter(|replica| replica.role() == RoleView::Primary)
                    .max_by_key(|replica| replica.term());
                let exact = primary.and_then(|replica| replica.config()).is_some_and(|config| {
                    let members: Vec<usize> = config.members().map(|m| m.id.slot()).collect();
                    members == wanted
                });
                exact && is_well(&self.world, wanted.len())
            }
            _ => return Err("nobody knows this".to_owned()),
        })
    }

    fn stands(&self, n: usize) -> &'static str {
        let Some(process) = &self.world.servers[n].process else { return "down" };
        match process.node().replica().role() {
            RoleView::Primary => "primary",
            RoleView::Backup => "backup",
            RoleView::Learner => "learner",
            RoleView::Blank => "blank",
            RoleView::Candidate => "candidate",
        }
    }

    fn primary(&self) -> Option<usize> {
        let leads = self.world.replicas().filter(|r| r.role() == RoleView::Primary);
        leads.max_by_key(|replica| replica.term()).map(|replica| replica.me().id.slot())
    }

    fn has_decided(&self, name: &str) -> Result<bool, String> {
        let at = Rule::ALL.iter().position(|rule| format!("{rule:?}") == name);
        let at = at.ok_or("there is no such rule")?;
        let live = self.world.servers.iter().filter_map(|server| server.process.as_ref());
        let live: u64 = live.map(|process| process.node().replica().decisions().0[at]).sum();
        Ok(live + self.world.decisions[at] > 0)
    }

    /// `verb server to text`, as ann.
    fn send(&mut self, asked: &str, n: usize) -> Wire {
        let mut words = words(asked);
        let key = (words[0] == "once").then(|| words.remove(2).to_owned());
        let (to, text) = (words[2].to_owned(), words[3..].join(" "));
        let line = match &key {
            Some(key) => format!("ONCE {key} {to} {text}\n"),
            None => format!("SEND {to} {text}\n"),
        };
        let request = Request::Send { to, from: "ann".to_owned(), text, key };
        let op = self.world.crowd.history.asked(self.probes as u32, self.world.now, request);
        let life = self.world.servers[n].life;
        let logged_in = self.logged_in[n].filter(|session| self.probe(*session).life == life);
        let session = match logged_in {
            Some(session) => {
                let lines = line.as_bytes().to_vec();
                self.world.deliver(n, Incoming::Bytes(session, lines));
                session
            }
            None => self.ask(n, &format!("LOGIN ann {PASSWORD} end\n{line}"), 1),
        };
        let probe = self.world.probes.iter_mut().find(|probe| probe.session == session);
        let probe = probe.expect("it was asked");
        (probe.op, probe.skips) = (Some(op), 1 + usize::from(probe.op.is_some()) * probe.skips);
        session
    }

    fn ask(&mut self, n: usize, lines: &str, skips: usize) -> Wire {
        self.probes += 1;
        // No place has such a number.
        let session = Wire(u64::MAX / 2 - self.probes);
        let (read, life) = (Vec::new(), self.world.servers[n].life);
        self.world.probes.push(Probe { session, read, skips, server: n, life, op: None });
        self.world.servers[n].inbox.push(Incoming::Opened(session, address_of(session)));
        self.world.deliver(n, Incoming::Bytes(session, lines.as_bytes().to_vec()));
        session
    }

    fn probe(&self, session: Wire) -> &Probe {
        self.world.probes.iter().find(|probe| probe.session == session).expect("it was asked")
    }

    /// OK, the code of the error, or `nothing` when the server ends, or 10 `T` are over.
    fn answer(&mut self, session: Wire) -> String {
        let end = self.world.now + 10 * u64::from(self.world.settings.peer_timeout_ms) * 1000;
        loop {
            let probe = self.probe(session);
            let text = String::from_utf8_lossy(&probe.read);
            let mut answers =
                text.lines().filter(|line| line.starts_with("OK") || line.starts_with("ERR"));
            if let Some(line) = answers.nth(probe.skips) {
                let word = if line.starts_with("OK") { 0 } else { 1 };
                return line.split(' ').nth(word).unwrap_or("").to_owned();
            }
            // What makes a session end may be its only answer.
            let last = text.lines().rfind(|line| line.starts_with("ERR"));
            let last = last.and_then(|line| line.split(' ').nth(1)).unwrap_or("nothing").to_owned();
            let server = &self.world.servers[probe.server];
            let over = server.process.is_none() || server.life != probe.life;
            if over || self.world.finding.is_some() || !self.world.step(end) {
                return last;
            }
        }
    }

    fn expect(&mut self, session: Wire, expected: &str) -> Result<(), String> {
        let answer = self.answer(session);
        self.note_answer(session, &answer);
        let over = self.world.finding.is_some();
        if over || answer == expected { Ok(()) } else { Err(format!("the answer is {answer}")) }
    }

    fn note_answer(&mut self, session: Wire, answer: &str) {
        let probe = self.probe(session);
        let Some(op) = probe.op else { return };
        let text = String::from_utf8_lossy(&probe.read);
        let stored = text.lines().rfind(|line| line.starts_with("OK"));
        let number = stored.and_then(|line| line[2..].trim().parse().ok());
        let outcome = match (answer, number) {
            ("OK", Some(number)) => Outcome::Stored(number),
            ("OK" | "nothing" | "unknown-outcome", _) => return,
            (code, _) => Outcome::Refused(code.to_owned()),
        };
        self.world.crowd.history.answered(op, self.world.now, outcome);
    }

    fn texts(&self, session: Wire) -> String {
        let text = String::from_utf8_lossy(&self.probe(session).read).into_owned();
        let texts = text.lines().filter(|line| line.starts_with("MSG "));
        texts.filter_map(|line| line.splitn(5, ' ').nth(4)).collect::<Vec<_>>().join(",")
    }
}

fn ways() -> impl Iterator<Item = (usize, usize)> {
    let hosts = 0..=CLIENTS;
    hosts.clone().flat_map(move |a| hosts.clone().filter(move |b| *b != a).map(move |b| (a, b)))
}
