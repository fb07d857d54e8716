//! Scenarios: tests as text. Each line is an action, or a condition that must become true.
//!
//! ```text
//! timeout 1000          the peer timeout T in ms. This and the settings `auto`, `rank`, `copies 2`
//!                       and `blank` (no group yet) come before all other lines
//! segments 2048         a setting: the size in bytes from which the log continues in a new segment
//! keep 5                a setting: how many newest messages a mailbox keeps; `age 60`: for how
//!                       many seconds it keeps them; `limit 9`: the most that it takes
//! primary 1             waits until 1 is primary; `primary 2,3`: until one of them is
//! lead 2                waits for a primary; unless that is 2, an operator orders a handover to 2
//! members 1,2,3         waits until a primary has exactly these members, with equal logs
//! state 2 backup        waits until 2 is primary, backup, learner, blank, candidate or down
//! gate open             waits until the gate is open
//! crash 2               kill -9; `power 2`: loses power and all unsynced bytes; `start 2`
//! stop 2                SIGTERM; `handover`: an operator orders a handover
//! pause 2, resume 2     SIGSTOP, SIGCONT
//! wipe 2, damage 2      of a server that is down: loses its disk, or flips a bit of its log
//! damage 2 old          flips a bit in a segment that is not the newest; `end`: in the last byte
//! corrupt 2             changes an account in the memory of 2
//! copy 2, restore 2     copies the directory of 2; swaps directory and copy while 2 is down
//! twin 2, untwin        starts a second process with the id of 2 on a new disk; ends it for good
//! twin 2 copy           the same on a copy of the directory of 2
//! recover 2             an operator recovers 2, which is down, alone
//! cut 1 3, cut 1 > 3    no message arrives, in both directions or one; `heal`; `reset 1 3`
//! refuse 1, accept 1    the address of 1 refuses connections although it runs
//! undialled 1 > 2       dials from 1 to 2 are lost, open connections work; `heal` ends it
//! full 2, room 2        the disk of 2 is nearly full; has room again
//! clock 2 +86400000     sets how many ms the wall clock of 2 is ahead of true time
//! sync 3 2500           sets how many ms each sync of 3 takes
//! login 1               ann logs in at 1 and sends on that connection from now on
//! send 1 bob hi -> OK   ann sends at 1; the result is OK, an error code, or `nothing`
//! once 1 k bob hi -> OK the same with a key
//! fill 1 bob 60         ann sends this number of messages at 1, each with the result OK
//! begin 1 bob hi        sends without waiting; `answer OK` waits for the result
//! read 1 bob -> hi,ho   reads the mailbox of bob at 1; the result is its texts or an error code
//! timely 1 bob 30       the newest message of bob is at most this number of ms old
//! within 20 send …      the line that follows takes at most this number of ms
//! not members 1         a condition is false: primary, members, state, gate or rule
//! wait 50               waits for this number of ms
//! never 3 for 2000      3 is not primary for this number of ms
//! rule Withdrawn        waits until a rule has decided
//! found TEXT            the checks have this finding
//! ```
//!
//! `P` names the server that is primary with the highest term, without one that was recovered alone
//! although the group runs.

use super::damage::FlipTarget;
use super::kernel::ConnId;
use super::network::Route;
use super::process::{Incoming, Settings};
use super::trace;
use super::trial::{check_end, describe, is_healthy};
use super::wall_clock::true_wall;
use super::world::{World, address_of, id};
use crate::catch_panic;
use crate::require;
use postern::replica::{RoleView, Rule, Takeover};
use postern::rng::Rng;
use postern::store::memory::MemoryDisk;
use postern::time::WallTime;
use postern_testkit::checker::{OpId, Outcome, Request};
use std::time::Duration;

/// The mean time of a sync.
const SYNC_US: u64 = 400;
const PASSWORD: &str = "correct-horse";

/// A connection of a client of a scenario.
#[derive(Debug)]
pub(super) struct ScenarioClient {
    pub(super) session: ConnId,
    pub(super) read: Vec<u8>,
    /// How many answers precede the one to the latest request.
    skips: usize,
    server: usize,
    generation: u32,
    /// A SEND in the history that is checked at the end.
    op: Option<OpId>,
}

/// Plays a scenario.
///
/// # Errors
/// The trace, and the line that failed.
pub fn play(text: &str) -> Result<(), String> {
    trace::start();
    let played = catch_panic(|| Player::new(text)?.all(text));
    let played = played.unwrap_or_else(|panic| Err(panic.to_string()));
    let lines = trace::finish();
    played.map_err(|why| format!("{}\n{why}", lines.join("\n")))
}

struct Player {
    world: World,
    copies: [Option<MemoryDisk>; 3],
    /// The client whose request was sent by `begin`.
    begun: Option<usize>,
    /// The clients as which ann is logged in, by server.
    logged_in: [Option<usize>; 3],
    /// The finding that the scenario expects.
    expected: Option<String>,
}

/// Splits a line into words, without its comment.
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

fn servers(list: &str) -> Result<Vec<usize>, String> {
    list.split(',').map(|n| server(Some(&n))).collect()
}

/// Returns the text after `->`.
fn result(line: &str) -> Result<&str, String> {
    Ok(line.split_once("->").ok_or("-> is missing")?.1.trim())
}

impl Player {
    fn new(text: &str) -> Result<Player, String> {
        let mut settings = Settings::default();
        let mut blank = false;
        for line in text.lines() {
            match &words(line)[..] {
                ["timeout", ms] => settings.peer_timeout_ms = number(Some(ms))? as u32,
                ["copies", n] => settings.copies_min = number(Some(n))? as u8,
                ["segments", bytes] => settings.segment_bytes = number(Some(bytes))?,
                ["keep", n] => settings.retention.keep_messages = Some(number(Some(n))?),
                ["age", s] => {
                    settings.retention.keep_time = Some(Duration::from_secs(number(Some(s))?));
                }
                ["limit", n] => settings.retention.limits.messages = number(Some(n))?,
                ["auto"] => settings.survivor_auto = true,
                ["rank"] => settings.takeover = Takeover::Rank,
                ["blank"] => blank = true,
                _ => {}
            }
        }
        let mut world = World::empty(1, settings);
        world.servers.iter_mut().for_each(|server| server.sync_us = SYNC_US);
        let copies = [None, None, None];
        let mut player =
            Player { world, copies, begun: None, logged_in: [None; 3], expected: None };
        if !blank {
            (0..3).for_each(|n| player.world.start(n));
            player.line("gate open")?;
            player.line("members 1,2,3")?;
            for name in ["ann", "bob"] {
                let n = player.primary().ok_or("no primary")?;
                let client = player.ask(n, &format!("CREATE {name} {PASSWORD}\n"), 0);
                let answer = player.answer(client);
                require(answer == "OK", || format!("CREATE {name}: {answer}"))?;
            }
        }
        Ok(player)
    }

    fn all(mut self, text: &str) -> Result<(), String> {
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            trace::stamp(self.world.now, 0);
            trace::line(|| format!("> {line}"));
            let line = &self.name_primary(line);
            self.line(line).map_err(|why| format!("line {}: `{line}`: {why}", at + 1))?;
            if self.world.found_something() {
                break;
            }
        }
        if !self.world.found_something() {
            let checked = check_end(&mut self.world, false);
            self.world.note(checked);
        }
        match (self.world.results.finding, self.expected) {
            (None, None) => Ok(()),
            (Some(found), Some(expected)) if found.contains(&expected) => Ok(()),
            (found, expected) => Err(format!("found {found:?}, expected {expected:?}")),
        }
    }

    fn name_primary(&self, line: &str) -> String {
        let primary = self.primary().map_or("-".to_owned(), |n| (n + 1).to_string());
        let words = line.split(' ').map(|word| if word == "P" { &primary } else { word });
        words.collect::<Vec<_>>().join(" ")
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let words = words(line);
        let of = |n: usize| server(words.get(n));
        match words[0] {
            "timeout" | "copies" | "segments" | "keep" | "age" | "limit" | "auto" | "rank"
            | "blank" => Ok(()),
            "primary" | "members" | "state" | "gate" | "rule" => self.wait(line, &words),
            "send" | "once" => {
                let client = self.send(line, of(1)?);
                self.expect(client, result(line)?)
            }
            "login" => {
                let n = of(1)?;
                let client = self.ask(n, &format!("LOGIN ann {PASSWORD} end\n"), 0);
                self.logged_in[n] = Some(client);
                self.expect(client, "OK")
            }
            "fill" => {
                let count = number(words.get(3))?;
                let to = words.get(2).ok_or("a receiver is missing")?;
                (0..count)
                    .try_for_each(|n| self.line(&format!("send {} {to} m{n} -> OK", words[1])))
            }
            "corrupt" => {
                let n = of(1)?;
                self.world.servers[n].process.as_mut().ok_or("it is down")?.corrupt();
                self.world.faults.corrupted = Some(n);
                Ok(())
            }
            "begin" => {
                self.begun = Some(self.send(line, of(1)?));
                Ok(())
            }
            "answer" => {
                let client = self.begun.take().ok_or("there is no `begin`")?;
                self.expect(client, words[1])
            }
            "read" => self.read(of(1)?, words[2], result(line)?),
            "timely" => self.timely(of(1)?, words[2], number(words.get(3))?),
            "within" => {
                let (began, most) = (self.world.now, number(words.get(1))? * 1000);
                self.line(line.splitn(3, ' ').nth(2).ok_or("a line is missing")?)?;
                let took = self.world.now - began;
                require(took <= most, || format!("{} ms", took as f64 / 1e3))
            }
            "not" => {
                let holds = self.holds(&words[1..])?;
                require(!holds, || "it is true".to_owned())
            }
            "wait" => {
                let end = self.world.now + number(words.get(1))? * 1000;
                self.world.run_to(end);
                Ok(())
            }
            "never" => self.never(of(1)?, number(words.get(3))?),
            "found" => {
                self.expected = Some(words[1..].join(" "));
                Ok(())
            }
            "lead" => self.lead(of(1)?),
            _ => self.inject(&words),
        }
    }

    fn lead(&mut self, n: usize) -> Result<(), String> {
        self.line("primary 1,2,3")?;
        if self.role(n) != "primary" {
            self.world.order_handover(n, Some(id(n)));
        }
        self.line(&format!("primary {}", n + 1))
    }

    fn never(&mut self, n: usize, ms: u64) -> Result<(), String> {
        let end = self.world.now + ms * 1000;
        while !self.world.found_something() && self.world.step(end) {
            require(self.role(n) != "primary", || "it is primary".to_owned())?;
        }
        self.world.now = self.world.now.max(end);
        Ok(())
    }

    /// Reads the mailbox of a user. Returns its lines if the answer is OK, else the error code.
    fn log(&mut self, n: usize, name: &str) -> Result<Vec<String>, String> {
        let client = self.ask(n, &format!("LOGIN {name} {PASSWORD} end\nLOG 0\n"), 1);
        let answer = self.answer(client);
        require(answer == "OK", || answer)?;
        let text = String::from_utf8_lossy(&self.client(client).read);
        Ok(text.lines().filter(|line| line.starts_with("MSG ")).map(str::to_owned).collect())
    }

    fn read(&mut self, n: usize, name: &str, expected: &str) -> Result<(), String> {
        let text = |line: &String| line.splitn(5, ' ').nth(4).map(str::to_owned);
        let read = match self.log(n, name) {
            Ok(lines) => lines.iter().filter_map(text).collect::<Vec<_>>().join(","),
            Err(code) => code,
        };
        require(read == expected, || format!("the result is {read:?}"))
    }

    fn timely(&mut self, n: usize, name: &str, most: u64) -> Result<(), String> {
        let lines = self.log(n, name)?;
        let time = lines.last().and_then(|line| line.split(' ').nth(2)).unwrap_or_default();
        let now = true_wall(self.world.now);
        let [from, to] = [now.0 - most, now.0].map(|ms| WallTime(ms).rfc3339().to_string());
        let fits = (&from[..]..=&to).contains(&time);
        require(fits, || format!("{time} is not from {from} to {to}"))
    }

    /// Injects a fault, or repairs something.
    fn inject(&mut self, words: &[&str]) -> Result<(), String> {
        let world = &mut self.world;
        let global = ["heal", "handover", "untwin"].contains(&words[0]);
        let n = if global { 0 } else { server(words.get(1))? };
        let machine = &mut world.servers[n];
        match words[0] {
            "heal" => {
                let heal = |route: &mut Route| (route.cuts, route.dials_lost) = (0, 0);
                (0..4).for_each(|n| world.net.each_route_of(n, heal));
                world.net.release(world.now, &mut world.schedule);
            }
            "handover" => drop(world.order_handover(0, None)),
            "untwin" => world.end_twin(),
            "crash" => world.end_process(n, true),
            "power" => {
                world.end_process(n, false);
                let machine = &mut world.servers[n];
                machine.faults.power_off = true;
                machine.disk = machine.disk.crash(|| false);
            }
            "start" => world.power_on(n),
            "stop" => drop(world.ask_to_stop(n)),
            "pause" => drop(world.pause(n, u64::MAX >> 8)),
            "resume" => world.resume(n, world.servers[n].state.pauses),
            "refuse" => machine.faults.refuses = 1,
            "accept" => machine.faults.refuses = 0,
            "full" => machine.disk.fail(|failures| failures.nearly_full = true),
            "room" => machine.disk.fail(|failures| failures.nearly_full = false),
            "sync" => machine.faults.slow_sync_us = number(words.get(2))? * 1000,
            "clock" => {
                let ahead: Option<i64> = words.get(2).and_then(|ms| ms.parse().ok());
                machine.wall.set(world.now, ahead.ok_or("a number is missing")? * 1000, 0);
            }
            "copy" => self.copies[n] = Some(machine.disk.copied()),
            "twin" => {
                let copy = words.contains(&"copy").then(|| machine.disk.copied());
                world.begin_twin(n, copy, 0);
            }
            "reset" => drop(world.reset(n, server(words.get(2))?)),
            "undialled" => world.net.route(n, server(words.get(3))?).dials_lost += 1,
            "cut" if words[2] == ">" => world.net.route(n, server(words.get(3))?).cuts += 1,
            "cut" => {
                let other = server(words.get(2))?;
                world.net.route(n, other).cuts += 1;
                world.net.route(other, n).cuts += 1;
            }
            _ if machine.process.is_some() => return Err("it is not down".to_owned()),
            _ => return self.change_disk(n, words),
        }
        Ok(())
    }

    /// Changes the disk of a server that is down.
    fn change_disk(&mut self, n: usize, words: &[&str]) -> Result<(), String> {
        let world = &mut self.world;
        match words[0] {
            "recover" => world.recover(n)?,
            "wipe" => world.lose_disk(n),
            "damage" => {
                let target = match words.get(2) {
                    Some(&"old") => FlipTarget::OlderSegment,
                    Some(&"end") => FlipTarget::End,
                    _ => FlipTarget::Any,
                };
                world.damage(n, target, &mut Rng::new(7));
            }
            "restore" => {
                let copy = self.copies[n].take().ok_or("there is no copy")?;
                self.copies[n] = Some(world.servers[n].disk.copied());
                world.replace(n, copy);
            }
            _ => return Err("unknown word".to_owned()),
        }
        Ok(())
    }

    fn wait(&mut self, line: &str, words: &[&str]) -> Result<(), String> {
        let end = self.world.now + 10 * self.world.settings.peer_timeout_us() + 3_000_000;
        loop {
            if self.holds(words)? {
                return Ok(());
            }
            if self.world.found_something() || !self.world.step(end) {
                return Err(format!("not within 10 T: {line}: {}", describe(&self.world)));
            }
        }
    }

    fn holds(&self, words: &[&str]) -> Result<bool, String> {
        Ok(match words {
            ["primary", list] => servers(list)?.iter().any(|n| self.role(*n) == "primary"),
            ["rule", name] => self.has_decided(name)?,
            ["state", n, word] => self.role(server(Some(n))?) == *word,
            ["gate", "open"] => {
                let processes = self.world.servers.iter().filter_map(|s| s.process.as_ref());
                processes
                    .map(|process| process.node().replica())
                    .any(|replica| replica.role() == RoleView::Primary && replica.gate_open())
            }
            ["members", list] => {
                let wanted = servers(list)?;
                let config = self.world.primary().and_then(|replica| replica.config());
                let exact = config.is_some_and(|config| {
                    config.members().map(|m| m.id.slot()).eq(wanted.iter().copied())
                });
                exact && is_healthy(&self.world, wanted.len())
            }
            _ => return Err("unknown condition".to_owned()),
        })
    }

    fn role(&self, n: usize) -> &'static str {
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
        self.world.primary().map(|replica| replica.me().id.slot())
    }

    fn has_decided(&self, name: &str) -> Result<bool, String> {
        let at = Rule::ALL.iter().position(|rule| format!("{rule:?}") == name);
        let at = at.ok_or("there is no such rule")?;
        let live = self.world.servers.iter().filter_map(|server| server.process.as_ref());
        let live: u64 = live.map(|process| process.node().replica().decisions().0[at]).sum();
        Ok(live + self.world.results.counts.decisions[at] > 0)
    }

    /// Sends `verb server to text`, as ann. Returns the client.
    fn send(&mut self, line: &str, n: usize) -> usize {
        let mut words = words(line.split("->").next().unwrap_or_default());
        let key = (words[0] == "once").then(|| words.remove(2).to_owned());
        let (to, text) = (words[2].to_owned(), words[3..].join(" "));
        let line = match &key {
            Some(key) => format!("ONCE {key} {to} {text}\n"),
            None => format!("SEND {to} {text}\n"),
        };
        let request = Request::Send { to, from: "ann".to_owned(), text, key };
        let number = self.world.scenario_clients.len() as u32;
        let op = self.world.clients.history.asked(number, self.world.now, request);
        let generation = self.world.servers[n].generation;
        let logged_in = self.logged_in[n].filter(|at| self.client(*at).generation == generation);
        let at = match logged_in {
            Some(at) => {
                let bytes = Incoming::Bytes(self.client(at).session, line.into_bytes());
                self.world.deliver(n, bytes);
                at
            }
            None => self.ask(n, &format!("LOGIN ann {PASSWORD} end\n{line}"), 1),
        };
        let client = &mut self.world.scenario_clients[at];
        (client.op, client.skips) = (Some(op), 1 + usize::from(client.op.is_some()) * client.skips);
        at
    }

    /// Sends lines on a new connection. Returns its client.
    fn ask(&mut self, n: usize, lines: &str, skips: usize) -> usize {
        let world = &mut self.world;
        let at = world.scenario_clients.len();
        // No end of a connection in the network has such a number.
        let session = ConnId(u64::MAX / 2 - 1 - at as u64);
        let (read, generation) = (Vec::new(), world.servers[n].generation);
        let client = ScenarioClient { session, read, skips, server: n, generation, op: None };
        world.scenario_clients.push(client);
        world.servers[n].inbox.push(Incoming::Opened(session, address_of(session)));
        world.deliver(n, Incoming::Bytes(session, lines.as_bytes().to_vec()));
        at
    }

    fn client(&self, at: usize) -> &ScenarioClient {
        &self.world.scenario_clients[at]
    }

    /// Waits for the answer to the latest request of a client. Returns OK, an error code, or
    /// `nothing` if the server ends or 10 `T` are over.
    fn answer(&mut self, at: usize) -> String {
        let end = self.world.now + 10 * self.world.settings.peer_timeout_us();
        loop {
            let client = self.client(at);
            let text = String::from_utf8_lossy(&client.read);
            let code = |line: &str| line.split(' ').nth(1).unwrap_or("").to_owned();
            let mut answers =
                text.lines().filter(|line| line.starts_with("OK") || line.starts_with("ERR"));
            if let Some(line) = answers.nth(client.skips) {
                return if line.starts_with("OK") { "OK".to_owned() } else { code(line) };
            }
            // An error that ends the session may be its only answer.
            let last = text.lines().rfind(|line| line.starts_with("ERR"));
            let last = last.map_or_else(|| "nothing".to_owned(), code);
            let server = &self.world.servers[client.server];
            let over = server.process.is_none() || server.generation != client.generation;
            if over || self.world.found_something() || !self.world.step(end) {
                return last;
            }
        }
    }

    fn expect(&mut self, at: usize, expected: &str) -> Result<(), String> {
        let answer = self.answer(at);
        self.note_answer(at, &answer);
        let ok = self.world.found_something() || answer == expected;
        require(ok, || format!("the answer is {answer}"))
    }

    /// Adds an answer to the history.
    fn note_answer(&mut self, at: usize, answer: &str) {
        let client = self.client(at);
        let Some(op) = client.op else { return };
        let text = String::from_utf8_lossy(&client.read);
        let stored = text.lines().rfind(|line| line.starts_with("OK"));
        let number = stored.and_then(|line| line[2..].trim().parse().ok());
        let outcome = match (answer, number) {
            ("OK", Some(number)) => Outcome::Stored(number),
            ("OK" | "nothing" | "unknown-outcome", _) => return,
            (code, _) => Outcome::Refused(code.to_owned()),
        };
        self.world.clients.history.answered(op, self.world.now, outcome);
    }
}
