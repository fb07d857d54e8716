//! One run: injects the planned faults, waits for recovery, and checks the result.

use super::Options;
use super::clients::{Clients, Counts};
use super::environment::Environment;
use super::fault::{self, ActiveFault};
use super::load;
use super::monitor::Monitor;
use super::plan::{Plan, PlannedFault, Resource};
use super::timeline::Timeline;
use super::verdict;
use postern::commands::Answer;
use postern_load::run::background::Background;
use postern_load::run::load::Outcome;
use postern_testkit::group::{SERVERS, describe, healthy_primary};
use rustix::process::Signal;
use signal_hook::consts::SIGTERM;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Recovery may take 10 peer timeouts, the wait of a server that was dropped three times, and
/// what a busy machine adds.
const RECOVERY_TIME: Duration = Duration::from_secs(20 + 30);
/// An exit after SIGTERM may take 2 peer timeouts, and some syncs of a slow disk.
const EXIT_TIME: Duration = Duration::from_secs(30);
/// Maximum time until a started server handles SIGTERM.
const START_TIME: Duration = Duration::from_secs(1);
/// How long after the end of a disk fault the server may still exit because of it.
const CRASH_GRACE: Duration = Duration::from_secs(3);

/// The event that all servers are members and one of them is primary.
const HEALTHY: &str = "healthy";

/// Why a run ends early.
pub(super) enum Error {
    /// The group violated a property that must hold.
    Finding(String),
    /// An operation of this program failed. That says nothing about the group.
    Tool(String),
    /// A signal, such as that of Ctrl+C, ended the run.
    Interrupted,
}

impl From<String> for Error {
    fn from(why: String) -> Error {
        Error::Tool(why)
    }
}

/// A group under faults.
pub(super) struct Run<'a> {
    environment: &'a mut Environment,
    options: &'a Options,
    clients: Clients,
    load: Background,
    monitor: Monitor,
    timeline: Timeline,
    active: Vec<ActiveFault>,
    /// When each server was last restarted.
    restarted: [Option<Instant>; SERVERS],
    /// Until when each server may exit because of a disk fault.
    may_crash_until: [Option<Instant>; SERVERS],
    /// When a fault was last injected or ended, or a server restarted.
    changed_at: Instant,
    peer_timeout: Duration,
    interrupted: Arc<AtomicBool>,
}

/// The result of a run without a finding.
pub(super) struct Summary {
    pub(super) faults: usize,
    pub(super) counts: Counts,
    pub(super) load: Outcome,
    pub(super) entries: usize,
    /// The longest time without an acknowledgement, and when it began in the timeline.
    pub(super) longest_gap: (Duration, Duration),
}

impl<'a> Run<'a> {
    /// Starts the group, its clients and the load.
    pub(super) fn start(
        environment: &'a mut Environment,
        options: &'a Options,
        seed: u64,
        peer_timeout: Duration,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Run<'a>, Error> {
        environment.group.start_all()?;
        let servers: [_; SERVERS] = std::array::from_fn(|at| environment.group.address(at));
        let addresses = servers.iter().map(ToString::to_string).collect();
        Ok(Run {
            clients: Clients::start(addresses, seed)?,
            load: load::start(servers.to_vec(), options)?,
            monitor: Monitor::start(servers),
            timeline: Timeline::start()?,
            environment,
            options,
            active: Vec::new(),
            restarted: [None; SERVERS],
            may_crash_until: [None; SERVERS],
            changed_at: Instant::now(),
            peer_timeout,
            interrupted,
        })
    }

    /// Injects faults of the plan, to the bounds of the options, and checks the result.
    pub(super) fn execute(mut self, plan: Plan) -> Result<Summary, Error> {
        let result = self.inject_and_check(plan);
        // After a failure, the last event is the most interesting one.
        self.timeline.print_last(&self.monitor, &self.clients)?;
        result
    }

    fn inject_and_check(&mut self, plan: Plan) -> Result<Summary, Error> {
        let end = Instant::now() + Duration::from_secs(self.options.seconds);
        let mut injected = 0;
        self.wait_healthy()?;
        for planned in plan {
            let has_all = self.options.faults.is_some_and(|max| injected >= max);
            if has_all || Instant::now() >= end {
                break;
            }
            if planned.after_recovery {
                self.wait_healthy()?;
            }
            self.wait(planned.pause)?;
            injected += usize::from(self.inject(&planned)?);
        }
        self.wait_healthy()?;
        let load = self.load.finish().map_err(Error::Finding)?;
        let counts = self.clients.finish().map_err(Error::Finding)?;
        self.wait_identical()?;
        self.kill_all()?;
        let entries = verdict::check_servers(&self.environment.group).map_err(Error::Finding)?;
        let (gap, since) = self.clients.longest_gap().unwrap_or((Duration::ZERO, Instant::now()));
        let longest_gap = (gap, self.timeline.seconds(since));
        Ok(Summary { faults: injected, counts, load, entries, longest_gap })
    }

    /// Injects a fault. Returns false if active faults occupy all its possible targets.
    fn inject(&mut self, planned: &PlannedFault) -> Result<bool, Error> {
        let primary = self.monitor.primary();
        let environment = &mut *self.environment;
        let chosen =
            fault::choose_targets(planned, primary.unwrap_or(0), &self.active, environment);
        let Some(mut fault) = chosen else { return Ok(false) };
        if fault.may_crash() {
            self.may_crash_until[fault.server] = Some(fault.until + CRASH_GRACE);
        }
        let (at, targets) = (Instant::now(), fault.targets(primary));
        let event = fault::inject(environment, &mut fault, planned.seed)?;
        self.record(at, &event, &targets)?;
        self.changed_at = Instant::now();
        self.active.push(fault);
        Ok(true)
    }

    fn record(&mut self, at: Instant, event: &str, targets: &str) -> Result<(), String> {
        self.timeline.record(at, event, targets, &self.monitor, &self.clients)
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) -> Result<(), Error> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.tick()?;
        }
        Ok(())
    }

    /// Waits until all faults have ended and the group is healthy.
    fn wait_healthy(&mut self) -> Result<(), Error> {
        while !self.active.is_empty() {
            self.tick()?;
        }
        let patience = 10 * self.peer_timeout + RECOVERY_TIME;
        loop {
            let states = self.monitor.states(self.changed_at);
            if healthy_primary(&states).is_some() {
                if !self.timeline.last_is(HEALTHY) {
                    self.record(Instant::now(), HEALTHY, "-")?;
                }
                return Ok(());
            }
            if self.changed_at.elapsed() > patience {
                let (seconds, states) = (patience.as_secs(), describe(&states));
                return Err(Error::Finding(format!(
                    "the group has not recovered {seconds} s after the last fault: {states}"
                )));
            }
            self.tick()?;
        }
    }

    /// Waits until all servers have applied the same entries. No client may send.
    fn wait_identical(&mut self) -> Result<(), Error> {
        let (since, end) = (Instant::now(), Instant::now() + 10 * self.peer_timeout);
        loop {
            let states = self.monitor.states(since);
            let last = states[0].as_ref().and_then(|state| state.get("last_index"));
            let keys = ["last_index", "committed_index", "acknowledged_index", "applied_index"];
            let is_identical = |state| keys.iter().all(|key| Answer::get(state, *key) == last);
            if last.is_some() && states.iter().all(|state| state.as_ref().is_some_and(is_identical))
            {
                return Ok(());
            }
            if Instant::now() > end {
                let why = "the servers do not apply the same entries after the last request";
                return Err(Error::Finding(why.to_owned()));
            }
            self.tick()?;
        }
    }

    /// Kills all servers. None may notice the end of another and append an entry about it, so
    /// all are stopped before the first one is killed.
    fn kill_all(&mut self) -> Result<(), String> {
        let group = &mut self.environment.group;
        (0..SERVERS).try_for_each(|at| group.signal(at, Signal::STOP))?;
        (0..SERVERS).try_for_each(|at| group.kill(at))?;
        (0..SERVERS).try_for_each(|at| group.reap(at))
    }

    /// Pauses, then handles everything that has happened: a signal, a finding, the exit of a
    /// server, the end of a fault.
    fn tick(&mut self) -> Result<(), Error> {
        thread::sleep(POLL_INTERVAL);
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        if let Some(finding) = self.clients.finding().or_else(|| self.load.finding()) {
            return Err(Error::Finding(finding));
        }
        (0..SERVERS).try_for_each(|at| self.check_exit(at))?;
        let now = Instant::now();
        let is_over = |fault: &ActiveFault| fault.until <= now && !self.is_terminating(fault);
        if let Some(at) = self.active.iter().position(is_over) {
            let fault = self.active.swap_remove(at);
            return self.end(fault);
        }
        let patience = 2 * self.peer_timeout + EXIT_TIME;
        match self.active.iter().find(|fault| fault.until + patience <= now) {
            None => Ok(()),
            Some(fault) => Err(Error::Finding(format!(
                "server {} does not exit after SIGTERM",
                fault.server + 1
            ))),
        }
    }

    /// Returns whether a server received SIGTERM and has not exited.
    fn is_terminating(&self, fault: &ActiveFault) -> bool {
        fault.is_termination() && self.environment.group.is_running(fault.server)
    }

    /// Records the exit of a server. Fails if no fault explains it.
    fn check_exit(&mut self, at: usize) -> Result<(), Error> {
        let Some(status) = self.environment.group.try_wait(at)? else { return Ok(()) };
        let last_line = self.environment.group.log_lines(at).pop().unwrap_or_default();
        let asked = self.active.iter().any(|fault| fault.is_termination() && fault.server == at);
        // A server that has just started does not handle SIGTERM yet.
        let unhandled = status.signal() == Some(SIGTERM)
            && self.restarted[at].is_some_and(|restarted| restarted.elapsed() < START_TIME);
        let n = at + 1;
        if asked && (status.success() || unhandled) {
            return Ok(self.record(Instant::now(), "exits after SIGTERM", &n.to_string())?);
        }
        let may_crash = self.may_crash_until[at].is_some_and(|until| Instant::now() < until);
        if !may_crash || status.code() != Some(1) {
            return Err(Error::Finding(format!(
                "server {n} exited unexpectedly ({status}); last line of its log: {last_line}"
            )));
        }
        let why = last_line.rsplit(": ").next().unwrap_or_default();
        let why = why.split(" (os error").next().unwrap_or_default();
        self.record(Instant::now(), &format!("exits: {why}"), &n.to_string())?;
        if !self.active.iter().any(|fault| fault.occupies(Resource::Process, at)) {
            self.restart(at)?;
        }
        Ok(())
    }

    /// Ends a fault, and restarts the servers that it has ended.
    fn end(&mut self, mut fault: ActiveFault) -> Result<(), Error> {
        let targets = fault.targets(None);
        let (mut event, mut restart) = fault::end(self.environment, &mut fault)?;
        let server = fault.server;
        if fault.may_crash() {
            self.check_exit(server)?;
            if !self.environment.group.is_running(server) {
                restart.push(server);
            }
        }
        if !restart.is_empty() {
            event += ": restart";
        }
        self.record(Instant::now(), &event, &targets)?;
        self.changed_at = Instant::now();
        restart.into_iter().try_for_each(|at| self.restart(at))
    }

    fn restart(&mut self, at: usize) -> Result<(), Error> {
        if !self.environment.group.is_running(at) {
            self.environment.group.start_server(at)?;
            self.restarted[at] = Some(Instant::now());
            self.changed_at = Instant::now();
        }
        Ok(())
    }
}
