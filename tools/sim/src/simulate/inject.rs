//! Fault injection: how each fault begins and ends.

use super::clock::Event;
use super::faults::{Fault, Kind, Trigger};
use super::machine::Busy;
use super::network::{Message, Route};
use super::process::Incoming;
use super::trace;
use super::world::World;
use postern::rng::Rng;
use postern::store::memory::Failures;
use postern::time::WallTime;

/// How long a fault waits for its trigger, in µs.
const TRIGGER_TIMEOUT: u64 = 10_000_000;

impl World {
    pub(super) fn begin_fault(&mut self, at: usize) {
        let (now, faults) = (self.now, &mut self.faults);
        let fault = faults.plan[at];
        if faults.over || faults.excluded.contains(&at) || faults.injected.contains(&at) {
            return;
        }
        if now < faults.quiet_until {
            return self.schedule.add(faults.quiet_until, Event::Fault(at));
        }
        if fault.trigger.is_some() && !faults.awaiting_trigger.contains(&at) {
            faults.awaiting_trigger.push(at);
            return self.schedule.add(fault.at + TRIGGER_TIMEOUT, Event::Fault(at));
        }
        faults.injected.push(at);
        faults.awaiting_trigger.retain(|other| *other != at);
        trace::stamp(now, fault.server as u8 + 1);
        if self.inject(&fault) {
            trace::line(|| format!("FAULT {fault}"));
            self.results.counts.effects[fault.kind as usize] += 1;
        }
        self.faults.active.push(at);
        self.schedule.add(self.now + fault.duration, Event::Heal(at));
    }

    /// A server does what may trigger faults.
    pub(super) fn on_trigger(&mut self, server: usize, trigger: Trigger) {
        for at in &self.faults.awaiting_trigger {
            let fault = &self.faults.plan[*at];
            if fault.trigger == Some(trigger) && fault.server == server {
                // Soon after this turn, whose outputs are carried out first.
                self.schedule.add(self.now + fault.seed % 400, Event::Fault(*at));
            }
        }
    }

    /// Begins a fault. Returns whether it has an effect; of a cut, that is known only at its end.
    fn inject(&mut self, fault: &Fault) -> bool {
        let (n, other) = (fault.server, fault.other);
        let mut rng = Rng::new(fault.seed);
        let server = &mut self.servers[n];
        match fault.kind {
            Kind::Reset => return self.reset(n, other),
            Kind::Cut | Kind::OneWay | Kind::Isolate | Kind::Clog | Kind::Burst => {
                trace::line(|| format!("FAULT {fault}"));
                self.each_route(fault, |route| route.cuts += 1);
                return false;
            }
            Kind::Slow => {
                let slow = slowness(&mut rng);
                self.each_route(fault, |route| route.slow += slow);
            }
            Kind::DialsLost => self.each_route(fault, |route| route.dials_lost += 1),
            Kind::Refuse => server.faults.refuses += 1,
            Kind::Kill => return self.kill(n, &mut rng, false),
            Kind::Stop => return self.ask_to_stop(n),
            Kind::StopAll => return (0..3).filter(|n| self.ask_to_stop(*n)).count() > 0,
            Kind::HandOver => return self.order_handover(n, None),
            Kind::PowerLoss => return self.kill(n, &mut rng, true),
            Kind::Straggler => self.prepare_straggler(n),
            Kind::StopBesidePowerLoss => {
                return self.kill(n, &mut rng, true) && self.ask_to_stop(other);
            }
            Kind::AllDown => return self.kill_all(&mut rng),
            Kind::Storm => {
                server.faults.crashes_left = 2 + rng.below(8) as u32;
                return self.kill(n, &mut rng, false);
            }
            Kind::Pause => return self.pause(n, fault.duration),
            Kind::Rate => self.set_rate(n, 900 + rng.below(201)),
            Kind::WallJump => {
                let (by, drift) = (wall_jump(&mut rng), rng.below(20_001) as i64 - 10_000);
                server.wall.jump(self.now, by, drift);
            }
            Kind::SlowSync => {
                let times = [100_000, 2_000_000, 30_000_000];
                server.faults.slow_sync_us = times[rng.below(3) as usize];
            }
            Kind::SyncFails | Kind::WritesFail | Kind::Full => {
                server.disk.fail(|failures| fail_disk(failures, fault.kind, &mut rng));
            }
            Kind::Flip | Kind::FlipOld | Kind::Wipe | Kind::RollBack => {
                return self.destroy(n, fault.kind, &mut rng);
            }
            Kind::FlipTwo => return self.destroy_two(n, other, &mut rng),
            Kind::Twin => return self.begin_twin(n, None, fault.seed),
            Kind::TwinCopy => return self.begin_old_copy(n, fault.seed),
            Kind::Misconfigure => return self.configure(n, true, &mut rng),
            Kind::Misdial => {
                server.faults.misdials = Some((other, 3 - n - other));
                return self.reset(n, other);
            }
        }
        true
    }

    pub(super) fn end_fault(&mut self, at: usize) {
        if !self.faults.active.contains(&at) {
            return;
        }
        let fault = self.faults.plan[at];
        if !self.may_end_twin_of(&fault) {
            return self.schedule.add(self.now + 500_000, Event::Heal(at));
        }
        self.faults.active.retain(|other| *other != at);
        let n = fault.server;
        trace::stamp(self.now, n as u8 + 1);
        trace::line(|| format!("over: {:?}", fault.kind));
        let mut rng = Rng::new(fault.seed);
        let server = &mut self.servers[n];
        match fault.kind {
            Kind::Cut | Kind::OneWay | Kind::Isolate | Kind::Clog | Kind::Burst => {
                self.heal_routes(&fault);
            }
            Kind::Slow => {
                let slow = slowness(&mut rng);
                self.each_route(&fault, |route| route.slow = route.slow.saturating_sub(slow));
            }
            Kind::DialsLost => self.each_route(&fault, |route| {
                route.dials_lost = route.dials_lost.saturating_sub(1);
            }),
            Kind::Refuse => server.faults.refuses = server.faults.refuses.saturating_sub(1),
            Kind::Kill
            | Kind::Stop
            | Kind::Storm
            | Kind::Flip
            | Kind::FlipOld
            | Kind::Wipe
            | Kind::RollBack => self.start(n),
            Kind::FlipTwo => {
                self.recover_intact_third();
                self.start(n);
                self.start(fault.other);
            }
            Kind::PowerLoss | Kind::StopBesidePowerLoss => self.power_on(n),
            Kind::AllDown => (0..3).for_each(|n| self.power_on(n)),
            Kind::Rate => self.set_rate(n, 1000),
            Kind::SlowSync => server.faults.slow_sync_us = 0,
            Kind::Misconfigure => drop(self.configure(n, false, &mut rng)),
            Kind::Misdial => server.faults.misdials = None,
            Kind::SyncFails => server.disk.fail(|failures| failures.sync_after = None),
            Kind::WritesFail => server.disk.fail(|failures| failures.writes = false),
            Kind::Full => server.disk.fail(|failures| {
                (failures.nearly_full, failures.full) = (false, false);
            }),
            Kind::WallJump => {
                // Every second clock is set back. None drifts any more.
                let by = Some(wall_jump(&mut rng)).filter(|by| by % 2 == 0).unwrap_or(0);
                server.wall.jump(self.now, -by, 0);
            }
            Kind::Reset | Kind::StopAll | Kind::HandOver | Kind::Pause | Kind::Straggler => {}
            Kind::Twin | Kind::TwinCopy => self.end_twin_of(&fault),
        }
    }

    /// Restarts a server with a wrong config file, or with the right one.
    fn configure(&mut self, n: usize, wrong: bool, rng: &mut Rng) -> bool {
        self.servers[n].faults.misconfigured = wrong;
        let killed = self.kill(n, rng, false);
        self.start_in(n, 10_000);
        killed
    }

    /// Changes the routes that a fault concerns.
    fn each_route(&mut self, fault: &Fault, mut change: impl FnMut(&mut Route)) {
        let (n, other) = (fault.server, fault.other);
        if fault.kind == Kind::Isolate {
            return self.net.each_route_of(n, change);
        }
        change(self.net.route(n, other));
        if !matches!(fault.kind, Kind::OneWay | Kind::Clog) {
            change(self.net.route(other, n));
        }
    }

    fn heal_routes(&mut self, fault: &Fault) {
        let mut held_back = 0;
        self.each_route(fault, |route| {
            route.cuts = route.cuts.saturating_sub(1);
            held_back += std::mem::take(&mut route.held_back);
        });
        if held_back > 0 {
            self.results.counts.effects[fault.kind as usize] += 1;
        }
        self.net.release(self.now, &mut self.schedule);
    }

    /// Resets all connections between two servers.
    pub(super) fn reset(&mut self, n: usize, other: usize) -> bool {
        let ends = self.net.ends(|end| end.open && [n, other].contains(&end.owner.host));
        let mut any = false;
        for end_id in ends.iter().filter(|end_id| end_id.side == 0) {
            if ends.contains(&end_id.other()) {
                any = true;
                // Both ends receive it, as from a router between them.
                self.send_message(*end_id, Message::Reset);
                self.send_message(end_id.other(), Message::Reset);
            }
        }
        any
    }

    /// Kills a process at any point of its turn, with none, some or all syncs of its batch done
    /// and nothing sent. With `power`, the machine loses power.
    pub(super) fn kill(&mut self, n: usize, rng: &mut Rng, power: bool) -> bool {
        let stage = rng.below(5) as u32;
        let (seed, keeps) = (rng.next_u64(), rng.below(3));
        let server = &mut self.servers[n];
        if server.process.is_none() && !power {
            return false;
        }
        if let Some(process) = &mut server.process
            && server.state.busy == Busy::Storing
            && stage > 0
        {
            server.disk.fail(|failures| failures.syncs_left = Some(stage - 1));
            // The outputs of this part of the turn are discarded.
            drop(process.store_all(server.clock.read(self.now), WallTime(0)));
        }
        server.disk.fail(|failures| failures.syncs_left = None);
        self.end_process(n, !power);
        if power {
            let server = &mut self.servers[n];
            server.faults.power_off = true;
            let mut picks = Rng::new(seed);
            server.disk = server.disk.crash(|| match keeps {
                0 => false,
                1 => true,
                _ => picks.below(2) == 0,
            });
        }
        true
    }

    fn kill_all(&mut self, rng: &mut Rng) -> bool {
        let power = rng.below(2) == 0;
        (0..3).filter(|n| self.kill(*n, rng, power)).count() > 0
    }

    /// Sends SIGTERM.
    pub(super) fn ask_to_stop(&mut self, n: usize) -> bool {
        let runs = self.servers[n].process.is_some();
        if runs {
            self.deliver(n, Incoming::Stop);
        }
        runs
    }

    pub(super) fn power_on(&mut self, n: usize) {
        if !self.servers[n].faults.stays_down {
            self.servers[n].faults.power_off = false;
            self.net.release(self.now, &mut self.schedule);
            self.start(n);
        }
    }

    /// Plans the next kill of a process that crashes after each start ([`Kind::Storm`]).
    pub(super) fn crash_again(&mut self, n: usize) {
        let faults = &mut self.servers[n].faults;
        if faults.crashes_left > 0 && !self.faults.over {
            faults.crashes_left -= 1;
            let at = self.now + 1_000 + self.rng.below(400_000);
            let (kind, trigger, seed) = (Kind::Kill, None, self.rng.next_u64());
            let duration = 1_000 + self.rng.below(200_000);
            self.schedule.add(at, Event::Fault(self.faults.plan.len()));
            let fault = Fault { at, trigger, kind, server: n, other: n, duration, seed };
            self.faults.plan.push(fault);
        }
    }

    /// Pauses a process for `duration` µs.
    pub(super) fn pause(&mut self, n: usize, duration: u64) -> bool {
        let server = &mut self.servers[n];
        if server.process.is_none() || server.state.paused {
            return false;
        }
        self.schedule.add(self.now + duration, Event::Resume(n, server.pause()));
        true
    }

    fn set_rate(&mut self, n: usize, rate: u64) {
        self.servers[n].clock.set_rate(self.now, rate);
        self.run(n);
    }

    /// Kills, cuts off or pauses a server for the rest of the run.
    pub(super) fn lose_for_good(&mut self, n: usize, how: u64) {
        match how {
            0 => {
                self.servers[n].faults.stays_down = true;
                self.end_process(n, true);
            }
            1 => self.net.each_route_of(n, |route| route.cuts += 1),
            _ => drop(self.servers[n].pause()),
        }
    }

    /// Ends all faults and starts every server that is down.
    pub(super) fn end_all_faults(&mut self) {
        self.faults.over = true;
        self.faults.awaiting_trigger.clear();
        for at in self.faults.active.clone() {
            self.end_fault(at);
        }
        if let Some(n) = self.faults.straggler {
            self.end_straggler(n);
        }
        for n in 0..3 {
            self.servers[n].faults.crashes_left = 0;
            self.power_on(n);
            let server = &self.servers[n];
            if server.state.busy != Busy::No {
                self.schedule.add(self.now + 1_000, Event::Synced(server.owner(n)));
            }
            if server.state.paused {
                self.schedule.add(self.now, Event::Resume(n, server.state.pauses));
            }
        }
    }
}

/// Draws an additional latency, in µs.
fn slowness(rng: &mut Rng) -> u64 {
    1_000 * 500u64.pow(rng.below(2) as u32) + rng.below(20_000)
}

fn fail_disk(failures: &mut Failures, kind: Kind, rng: &mut Rng) {
    match kind {
        Kind::SyncFails => failures.sync_after = Some(rng.below(4) as u32),
        Kind::WritesFail => failures.writes = true,
        // The server notices a disk that is nearly full before writes fail.
        _ if rng.below(2) == 0 => failures.nearly_full = true,
        _ => failures.full = true,
    }
}

/// Draws a jump of a wall clock: 1 ms to a day, log-uniform, forwards or backwards, in µs.
fn wall_jump(rng: &mut Rng) -> i64 {
    let size = 1_000.0 * 86_400_000f64.powf(rng.below(1001) as f64 / 1000.0);
    size as i64 * if rng.below(2) == 0 { 1 } else { -1 }
}
