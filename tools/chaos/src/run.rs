//! One run: faults in the order of the plan, then peace, then the verdict.

use super::arena::Arena;
use super::clients::{Clients, Counts};
use super::load::{self, Rate};
use super::plan::{Part, Plan, Step};
use super::story::Story;
use super::strike::{self, Active};
use super::verdict;
use super::watch::Watch;
use postern_load::run::background::{Background, Totals};
use postern_testkit::group::{SERVERS, describe, healthy_primary};
use rustix::process::Signal;
use signal_hook::consts::SIGTERM;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at everything.
const TICK: Duration = Duration::from_millis(5);
/// What a busy machine needs beside what the rules give: 10 `T`, and what a server waits that was
/// dropped three times.
const WHOLE_TIME: Duration = Duration::from_secs(20 + 30);
/// The same for a server that is asked to stop, whose disk may be slow: 2 `T`, and some syncs.
const STOP_TIME: Duration = Duration::from_secs(30);
/// How long a server may take to its first breath.
const START_TIME: Duration = Duration::from_secs(1);
/// How long after its fault a server may still end of it.
const EXCUSE_TIME: Duration = Duration::from_secs(3);

/// The event that all servers are members.
const WHOLE: &str = "whole";

/// Why a run ends before its time.
pub(super) enum Fail {
    /// The group did what it must not do.
    Found(String),
    /// Something else is in the way, and nothing is said of the group.
    Trouble(String),
    /// Ctrl+C.
    Interrupted,
}

impl From<String> for Fail {
    fn from(why: String) -> Fail {
        Fail::Trouble(why)
    }
}

/// A group among faults.
pub(super) struct Run<'a> {
    arena: &'a mut Arena,
    clients: Clients,
    load: Background,
    watch: Watch,
    story: Story,
    active: Vec<Active>,
    /// When a server was started last, of those that were started again.
    started: [Option<Instant>; SERVERS],
    /// Until when a server may end by itself.
    excused: [Option<Instant>; SERVERS],
    /// When the last thing was done to the group.
    touched: Instant,
    silence: Duration,
    interrupted: Arc<AtomicBool>,
}

/// What came of a run without a finding.
pub(super) struct Outcome {
    pub(super) faults: usize,
    pub(super) counts: Counts,
    pub(super) load: Totals,
    pub(super) entries: u64,
    /// See [`Clients::longest_silence`].
    pub(super) silence: (Duration, Duration),
}

impl<'a> Run<'a> {
    /// Begins: the group is whole, its clients send.
    pub(super) fn begin(
        arena: &'a mut Arena,
        seed: u64,
        silence: Duration,
        rate: Rate,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Run<'a>, Fail> {
        arena.group.start_all()?;
        let servers: [_; SERVERS] = std::array::from_fn(|at| arena.group.address(at));
        let names = servers.iter().map(ToString::to_string).collect();
        Ok(Run {
            clients: Clients::start(names, seed)?,
            load: load::start(servers.to_vec(), rate)?,
            watch: Watch::start(servers),
            story: Story::begin()?,
            arena,
            active: Vec::new(),
            started: [None; SERVERS],
            excused: [None; SERVERS],
            touched: Instant::now(),
            silence,
            interrupted,
        })
    }

    /// Carries out the plan until that many faults have struck, or that much time is over.
    pub(super) fn play(
        mut self,
        plan: Plan,
        faults: usize,
        time: Duration,
    ) -> Result<Outcome, Fail> {
        let outcome = self.carry_out(plan, faults, time);
        // What came last matters most when it fails.
        self.story.end(&self.watch, &self.clients)?;
        outcome
    }

    fn carry_out(&mut self, plan: Plan, faults: usize, time: Duration) -> Result<Outcome, Fail> {
        let end = Instant::now() + time;
        let mut struck = 0;
        self.wait_whole()?;
        for step in plan {
            if struck >= faults || Instant::now() >= end {
                break;
            }
            if step.calm {
                self.wait_whole()?;
            }
            self.wait(step.pause)?;
            struck += usize::from(self.strike(&step)?);
        }
        self.wait_whole()?;
        let load = self.load.finish().map_err(Fail::Found)?;
        let counts = self.clients.judge().map_err(Fail::Found)?;
        self.wait_same()?;
        // All are stopped before the first link closes: else who dies last logs that one is lost.
        for at in 0..SERVERS {
            self.arena.group.signal(at, Signal::STOP)?;
        }
        for at in 0..SERVERS {
            self.arena.group.kill(at)?;
        }
        for at in 0..SERVERS {
            self.arena.group.reap(at)?;
        }
        let entries = verdict::judge(&self.arena.group).map_err(Fail::Found)?;
        let silence = self.clients.longest_silence();
        Ok(Outcome { faults: struck, counts, load, entries, silence })
    }

    /// Whether there was anybody to strike.
    fn strike(&mut self, step: &Step) -> Result<bool, Fail> {
        let primary = self.watch.primary();
        let aimed = strike::aim(step, primary.unwrap_or(0), &self.active, self.arena);
        let Some(mut fault) = aimed else { return Ok(false) };
        if fault.may_end(fault.server) {
            self.excused[fault.server] = Some(fault.until + EXCUSE_TIME);
        }
        // What follows is counted from before the strike.
        let whom = fault.whom(primary);
        self.tell(&step.kind.name(), &whom)?;
        let word = strike::begin(self.arena, &mut fault, step.draw)?;
        self.story.name(word);
        self.touched = Instant::now();
        self.active.push(fault);
        Ok(true)
    }

    fn tell(&mut self, what: &str, whom: &str) -> Result<(), String> {
        self.story.tell(what, whom, &self.watch, &self.clients)
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) -> Result<(), Fail> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.tick()?;
        }
        Ok(())
    }

    /// Lets all faults end, and waits until all servers are members.
    fn wait_whole(&mut self) -> Result<(), Fail> {
        while !self.active.is_empty() {
            self.tick()?;
        }
        let patience = 10 * self.silence + WHOLE_TIME;
        loop {
            let states = self.watch.states(self.touched);
            if healthy_primary(&states).is_some() {
                let told = self.story.is_at(WHOLE);
                return if told { Ok(()) } else { Ok(self.tell(WHOLE, "-")?) };
            }
            if self.touched.elapsed() > patience {
                let seconds = patience.as_secs();
                let states = describe(&states);
                return Err(Fail::Found(format!(
                    "not whole {seconds} s after all faults: {states}"
                )));
            }
            self.tick()?;
        }
    }

    /// Waits until all servers have the same, now that nobody sends.
    fn wait_same(&mut self) -> Result<(), Fail> {
        let (since, end) = (Instant::now(), Instant::now() + 10 * self.silence);
        loop {
            let states = self.watch.states(since);
            let known: Vec<_> = states.iter().flatten().collect();
            let same = known.len() == SERVERS
                && known.iter().all(|state| {
                    let of = |key| state.get(key);
                    of("last_index") == known[0].get("last_index")
                        && ["committed_index", "acknowledged_index", "applied_index"]
                            .iter()
                            .all(|key| of(key) == of("last_index"))
                });
            if same {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Fail::Found("the logs do not become the same in peace".to_owned()));
            }
            self.tick()?;
        }
    }

    /// One look at everything.
    fn tick(&mut self) -> Result<(), Fail> {
        thread::sleep(TICK);
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Fail::Interrupted);
        }
        if let Some(finding) = self.clients.finding().or_else(|| self.load.finding()) {
            return Err(Fail::Found(finding));
        }
        for at in 0..SERVERS {
            self.look_for_end(at)?;
        }
        let now = Instant::now();
        let is_over = |fault: &Active| fault.until <= now && !self.is_stopping(fault);
        if let Some(place) = self.active.iter().position(is_over) {
            let fault = self.active.swap_remove(place);
            return self.heal(fault);
        }
        let patience = 2 * self.silence + STOP_TIME;
        let late = |fault: &&Active| fault.until + patience <= now;
        match self.active.iter().find(late) {
            Some(fault) => Err(Fail::Found(format!("server {} does not stop", fault.server + 1))),
            None => Ok(()),
        }
    }

    /// Whether a server was asked to end and has not yet ended.
    fn is_stopping(&self, fault: &Active) -> bool {
        fault.is_stop() && self.arena.group.is_running(fault.server)
    }

    /// Finds a server that has ended by itself.
    fn look_for_end(&mut self, at: usize) -> Result<(), Fail> {
        let Some(status) = self.arena.group.try_wait(at)? else { return Ok(()) };
        let last = self.arena.group.log_lines(at).pop().unwrap_or_default();
        let asked = self.active.iter().any(|fault| fault.is_stop() && fault.server == at);
        // Right after its start, nobody listens to signals yet.
        let too_early = status.signal() == Some(SIGTERM)
            && self.started[at].is_some_and(|started| started.elapsed() < START_TIME);
        if asked && (status.success() || too_early) {
            return Ok(self.tell("ends", &(at + 1).to_string())?);
        }
        let excused = self.excused[at].is_some_and(|until| Instant::now() < until);
        if !excused || status.code() != Some(1) {
            return Err(Fail::Found(format!(
                "server {} ended by itself: {status}: {last}",
                at + 1
            )));
        }
        let reason = last.rsplit(": ").next().unwrap_or_default();
        let reason = reason.split(" (os error").next().unwrap_or_default();
        self.tell(&format!("ends: {reason}"), &(at + 1).to_string())?;
        if !self.active.iter().any(|fault| fault.holds(Part::Process, at)) {
            self.start(at)?;
        }
        Ok(())
    }

    fn heal(&mut self, mut fault: Active) -> Result<(), Fail> {
        let whom = fault.whom(None);
        let (word, mut again) = strike::heal(self.arena, &mut fault)?;
        let server = fault.server;
        if fault.may_end(server) {
            self.look_for_end(server)?;
            if !self.arena.group.is_running(server) {
                again.push(server);
            }
        }
        self.tell(word, &whom)?;
        self.touched = Instant::now();
        again.into_iter().try_for_each(|at| self.start(at))
    }

    fn start(&mut self, at: usize) -> Result<(), Fail> {
        if !self.arena.group.is_running(at) {
            self.arena.group.start_server(at)?;
            self.started[at] = Some(Instant::now());
            self.touched = Instant::now();
        }
        Ok(())
    }
}
