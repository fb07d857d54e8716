//! Carrying out the plan: how each fault begins and ends.

use super::clock::What;
use super::faults::{Fault, Kind, Moments};
use super::kernel::Wire;
use super::link_end::LinkEnd;
use super::machine::Busy;
use super::network::{CLIENTS, Message, Way};
use super::process::{GROUP, Incoming, Process};
use super::story;
use super::world::{World, address_of};
use postern::ids::ServerId;
use postern::replica::{Order, Packet, RoleView};
use postern::rng::Rng;

/// A fault that waits for its moment strikes after so long without it, in µs.
const LURKS: u64 = 10_000_000;

impl World {
    pub(super) fn fault_begins(&mut self, at: u32) {
        let fault = self.plan[at as usize];
        if self.calm || self.left_out.contains(&(at as usize)) {
            return;
        }
        if self.struck.contains(&at) {
            return;
        }
        if self.now < self.quiet_until {
            return self.schedule.add(self.quiet_until, What::Fault { at });
        }
        let lurks = self.lurking.contains(&at);
        if fault.waits_for.is_some() && !lurks {
            self.lurking.push(at);
            return self.schedule.add(fault.at + LURKS, What::Fault { at });
        }
        self.struck.push(at);
        self.strikes(at, fault);
    }

    /// Something happened at a server that makes a good moment.
    pub(super) fn moment(&mut self, server: usize, moment: Moments) {
        if self.lurking.is_empty() {
            return;
        }
        let plan = &self.plan;
        let now = self.now;
        for at in &self.lurking {
            let fault = &plan[*at as usize];
            if fault.waits_for == Some(moment) && usize::from(fault.server) == server {
                // Right after, when this turn has carried out what it does.
                self.schedule.add(now + fault.draw % 400, What::Fault { at: *at });
            }
        }
    }

    fn strikes(&mut self, at: u32, fault: Fault) {
        self.lurking.retain(|other| *other != at);
        story::at(self.now, fault.server + 1);
        let took = self.begin(&fault);
        if took {
            story::tell(|| format!("FAULT {fault}"));
            self.took[fault.kind as usize] += 1;
        }
        self.active.push(at);
        self.schedule.add(self.now + fault.span, What::Heal { at });
    }

    /// Whether the fault has any effect; of cuts, that is known when they are over.
    fn begin(&mut self, fault: &Fault) -> bool {
        let (n, other) = (usize::from(fault.server), usize::from(fault.other));
        let mut rng = Rng::new(fault.draw);
        match fault.kind {
            Kind::Reset => self.reset(n, other),
            Kind::Cut | Kind::OneWay | Kind::Isolate | Kind::Clog | Kind::Burst => {
                story::tell(|| format!("FAULT {fault}"));
                self.each_way(fault, |way| way.cuts += 1);
                false
            }
            Kind::Slow => {
                let slow = 1_000 * 500u64.pow(rng.below(2) as u32) + rng.below(20_000);
                self.each_way(fault, |way| way.slow += slow);
                true
            }
            Kind::Refuse => {
                self.servers[n].refuses += 1;
                true
            }
            Kind::DialsLost => {
                self.each_way(fault, |way| way.dials_lost += 1);
                true
            }
            Kind::Kill => self.kill(n, &mut rng, false),
            Kind::Stop => self.ask_to_stop(n),
            Kind::StopAll => (0..3).filter(|n| self.ask_to_stop(*n)).count() > 0,
            Kind::HandOver => self.order_handover(n, None),
            Kind::PowerLoss => self.kill(n, &mut rng, true),
            Kind::Straggler => self.quieten(n),
            Kind::StopBesidePowerLoss => self.kill(n, &mut rng, true) && self.ask_to_stop(other),
            Kind::AllDown => {
                let power = rng.below(2) == 0;
                (0..3).filter(|n| self.kill(*n, &mut rng, power)).count() > 0
            }
            Kind::Storm => {
                self.servers[n].storm = 2 + rng.below(8) as u32;
                self.kill(n, &mut rng, false)
            }
            Kind::Pause => self.pause(n, fault.span),
            Kind::Rate => self.set_rate(n, 900 + rng.below(201)),
            Kind::WallJump => self.jump(n, &mut rng),
            Kind::SlowSync => {
                self.servers[n].slow_sync_us =
                    [100_000, 2_000_000, 30_000_000][rng.below(3) as usize];
                true
            }
            Kind::SyncFails => {
                let after = rng.below(4) as u32;
                self.servers[n].disk.fail(|failures| failures.sync_after = Some(after));
                true
            }
            Kind::WritesFail => {
                self.servers[n].disk.fail(|failures| failures.writes = true);
                true
            }
            Kind::Full => {
                // Seen in time, or not.
                match rng.below(2) == 0 {
                    true => self.servers[n].disk.fail(|failures| failures.nearly_full = true),
                    false => self.servers[n].disk.fail(|failures| failures.full = true),
                }
                true
            }
            Kind::Flip | Kind::FlipOld | Kind::Wipe | Kind::RollBack => {
                self.destroy(n, fault.kind, &mut rng)
            }
            Kind::FlipTwo => self.destroy_two(n, other, &mut rng),
            Kind::Twin => self.begin_twin(n, None, fault.draw),
            Kind::TwinCopy => self.begin_old_copy(n, fault.draw),
            Kind::Misconfigure => self.configure(n, true, &mut rng),
            Kind::Misdial => {
                let third = 3 - fault.server - fault.other;
                self.servers[n].misdials = Some((fault.other, third));
                self.reset(n, other)
            }
        }
    }

    /// Starts a server again with a wrong config file, or with the right one.
    fn configure(&mut self, n: usize, wrong: bool, rng: &mut Rng) -> bool {
        self.servers[n].misconfigured = wrong;
        let killed = self.kill(n, rng, false);
        self.start_in(n, 10_000);
        killed
    }

    fn each_way(&mut self, fault: &Fault, change: impl Fn(&mut Way)) {
        let (n, other) = (usize::from(fault.server), usize::from(fault.other));
        if fault.kind == Kind::Isolate {
            for host in (0..=CLIENTS).filter(|host| *host != n) {
                change(self.net.way(n, host));
                change(self.net.way(host, n));
            }
            return;
        }
        change(self.net.way(n, other));
        let one_way = matches!(fault.kind, Kind::OneWay | Kind::Clog);
        if !one_way {
            change(self.net.way(other, n));
        }
    }

    pub(super) fn fault_ends(&mut self, at: u32) {
        if !self.active.contains(&at) {
            return;
        }
        let fault = self.plan[at as usize];
        if !self.may_part_with_twin_of(&fault) {
            return self.schedule.add(self.now + 500_000, What::Heal { at });
        }
        self.active.retain(|other| *other != at);
        let n = usize::from(fault.server);
        story::at(self.now, fault.server + 1);
        story::tell(|| format!("over: {:?}", fault.kind));
        let mut rng = Rng::new(fault.draw);
        match fault.kind {
            Kind::Cut | Kind::OneWay | Kind::Isolate | Kind::Clog | Kind::Burst => {
                self.heal_ways(&fault);
            }
            Kind::Slow => {
                let slow = 1_000 * 500u64.pow(rng.below(2) as u32) + rng.below(20_000);
                self.each_way(&fault, |way| way.slow = way.slow.saturating_sub(slow));
            }
            Kind::Refuse => self.servers[n].refuses = self.servers[n].refuses.saturating_sub(1),
            Kind::DialsLost => {
                self.each_way(&fault, |way| way.dials_lost = way.dials_lost.saturating_sub(1));
            }
            Kind::Kill
            | Kind::Stop
            | Kind::Storm
            | Kind::Flip
            | Kind::FlipOld
            | Kind::Wipe
            | Kind::RollBack => self.start(n),
            Kind::FlipTwo => {
                self.go_on_with_the_third();
                self.start(n);
                self.start(usize::from(fault.other));
            }
            Kind::PowerLoss => self.power_on(n),
            Kind::StopBesidePowerLoss => self.power_on(n),
            Kind::AllDown => (0..3).for_each(|n| self.power_on(n)),
            Kind::Rate => drop(self.set_rate(n, 1000)),
            Kind::SlowSync => self.servers[n].slow_sync_us = 0,
            Kind::Misconfigure => drop(self.configure(n, false, &mut rng)),
            Kind::Misdial => self.servers[n].misdials = None,
            Kind::SyncFails => {
                self.servers[n].disk.fail(|failures| failures.sync_after = None);
            }
            Kind::WritesFail => self.servers[n].disk.fail(|failures| failures.writes = false),
            Kind::Full => {
                self.servers[n].disk.fail(|failures| failures.nearly_full = false);
                self.servers[n].disk.fail(|failures| failures.full = false);
            }
            Kind::WallJump => self.jump_back(n, &mut rng),
            Kind::Reset | Kind::StopAll | Kind::HandOver | Kind::Pause | Kind::Straggler => {}
            Kind::Twin | Kind::TwinCopy => self.forget_twin_of(&fault),
        }
    }

    fn heal_ways(&mut self, fault: &Fault) {
        let stopped = std::cell::Cell::new(0);
        self.each_way(fault, |way| {
            way.cuts = way.cuts.saturating_sub(1);
            stopped.set(stopped.get() + std::mem::take(&mut way.stopped));
        });
        if stopped.get() > 0 {
            self.took[fault.kind as usize] += 1;
        }
        self.net.release(self.now, &mut self.schedule);
    }

    pub(super) fn reset(&mut self, n: usize, other: usize) -> bool {
        let hosts = [n as u8, other as u8];
        let places = self.net.places(|end| end.open && hosts.contains(&end.owner.host));
        let mut any = false;
        for place in places.iter().filter(|place| place.side == 0) {
            let both = places.iter().any(|p| p.slot == place.slot && p.side == 1);
            if both {
                any = true;
                // To both ends, as from a router in between.
                for side in 0..2 {
                    let from = super::network::Place { side, ..*place };
                    self.net.send(from, Message::Reset, self.now, &mut self.schedule);
                }
            }
        }
        any
    }

    /// Ends a process at any place of its turn: nothing of its batch written, some of it synced,
    /// all of it synced and nothing said.
    pub(super) fn kill(&mut self, n: usize, rng: &mut Rng, power: bool) -> bool {
        let stage = rng.below(5) as u32;
        let (seed, keeps) = (rng.next_u64(), rng.below(3));
        let now = self.now;
        let server = &mut self.servers[n];
        if server.process.is_none() && !power {
            return false;
        }
        if let Some(process) = &mut server.process
            && server.busy == Busy::Storing
            && stage > 0
        {
            server.disk.fail(|failures| failures.syncs_left = Some(stage - 1));
            let (now, wall) = (server.clock.read(now), postern::time::WallTime(0));
            // Whatever it would do after that, it does not live to do.
            drop(process.store_all(now, wall));
        }
        server.disk.fail(|failures| failures.syncs_left = None);
        self.ends_life(n, !power);
        if power {
            let server = &mut self.servers[n];
            server.powered = false;
            let mut picks = Rng::new(seed);
            server.disk = server.disk.crash(|| match keeps {
                0 => false,
                1 => true,
                _ => picks.below(2) == 0,
            });
        }
        true
    }

    pub(super) fn ask_to_stop(&mut self, n: usize) -> bool {
        if self.servers[n].process.is_none() {
            return false;
        }
        self.deliver(n, Incoming::Stop);
        true
    }

    /// An operator asks whoever leads, over a link of its own, to hand over to `to`, or to anyone.
    pub(super) fn order_handover(&mut self, n: usize, to: Option<ServerId>) -> bool {
        let leads = |process: &Process| {
            let replica = process.node().replica();
            replica.role() == RoleView::Primary
        };
        let primary = (0..3).find(|n| self.servers[*n].process.as_ref().is_some_and(leads));
        let n = primary.unwrap_or(n);
        if self.servers[n].process.is_none() {
            return false;
        }
        // No place has such a number.
        self.orders += 1;
        let wire = Wire(u64::MAX - self.orders);
        let (end, first) = LinkEnd::dialler(self.settings.encrypts);
        self.operator = Some((wire, end, Order::HandOver(to)));
        self.servers[n].inbox.push(Incoming::Opened(wire, address_of(wire)));
        self.deliver(n, Incoming::Bytes(wire, first));
        true
    }

    /// An operator receives bytes of the server that it has dialled. Once that has proved who it
    /// is, the operator sends its order, and ends the connection.
    pub(super) fn on_operator_bytes(&mut self, n: usize, wire: Wire, bytes: &[u8]) {
        let Some((_, mut end, order)) = self.operator.take_if(|(own, ..)| *own == wire) else {
            return;
        };
        if end.receive(bytes).is_err() {
            return; // it is refused, in words
        }
        let order = Packet::Order { group: GROUP, order };
        let inbox = &mut self.servers[n].inbox;
        inbox.push(Incoming::Bytes(wire, end.send(&order, &[])));
        inbox.push(Incoming::Finished(wire));
    }

    pub(super) fn power_on(&mut self, n: usize) {
        if !self.servers[n].for_good {
            self.servers[n].powered = true;
            self.net.release(self.now, &mut self.schedule);
            self.start(n);
        }
    }

    /// A process that was just started dies again, while a storm lasts.
    pub(super) fn deaths_of_storm(&mut self, n: usize) {
        let server = &mut self.servers[n];
        if server.storm > 0 && !self.calm {
            server.storm -= 1;
            let delay = 1_000 + self.rng.below(400_000);
            let at = self.plan.len() as u32;
            let kind = Kind::Kill;
            let (server, other, draw) = (n as u8, n as u8, self.rng.next_u64());
            let span = 1_000 + self.rng.below(200_000);
            let at_time = self.now + delay;
            self.plan.push(Fault { at: at_time, waits_for: None, kind, server, other, span, draw });
            self.schedule.add(at_time, What::Fault { at });
        }
    }

    pub(super) fn pause(&mut self, n: usize, span: u64) -> bool {
        let server = &mut self.servers[n];
        if server.process.is_none() || server.paused {
            return false;
        }
        server.paused = true;
        server.pauses += 1;
        server.wake_at = u64::MAX;
        let what = What::Resume { server: n as u8, serial: server.pauses };
        self.schedule.add(self.now + span, what);
        true
    }

    fn set_rate(&mut self, n: usize, rate: u64) -> bool {
        let now = self.now;
        let server = &mut self.servers[n];
        server.rate = rate;
        server.clock.set_rate(now, rate);
        self.run(n);
        true
    }

    /// A wall clock jumps by up to a day, and drifts from then on.
    fn jump(&mut self, n: usize, rng: &mut Rng) -> bool {
        let (by, drift) = (wall_jump(rng), rng.below(20_001) as i64 - 10_000);
        let (now, wall) = (self.now, &mut self.servers[n].wall);
        wall.set(now, wall.ahead(now) + by, drift);
        true
    }

    /// It drifts no more, and every second one is put back.
    fn jump_back(&mut self, n: usize, rng: &mut Rng) {
        let by = wall_jump(rng);
        let (now, wall) = (self.now, &mut self.servers[n].wall);
        let back = if by % 2 == 0 { by } else { 0 };
        wall.set(now, wall.ahead(now) - back, 0);
    }

    /// One server is killed, cut off or stopped, and stays so.
    pub(super) fn lose_for_good(&mut self, n: usize, how: u64) {
        match how {
            0 => {
                self.servers[n].for_good = true;
                self.ends_life(n, true);
            }
            1 => {
                for host in (0..=CLIENTS).filter(|host| *host != n) {
                    self.net.way(n, host).cuts += 1;
                    self.net.way(host, n).cuts += 1;
                }
            }
            _ => {
                self.servers[n].paused = true;
                self.servers[n].pauses += 1;
                self.servers[n].wake_at = u64::MAX;
            }
        }
    }

    /// All faults end, and everything that is down is started.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        self.lurking.clear();
        for at in self.active.clone() {
            self.fault_ends(at);
        }
        if let Some(n) = self.straggler {
            self.move_strays_away(n);
        }
        for n in 0..3 {
            self.servers[n].storm = 0;
            self.power_on(n);
            if self.servers[n].busy != Busy::No {
                let what = What::Synced { server: n as u8, life: self.servers[n].life };
                self.schedule.add(self.now + 1_000, what);
            }
            let (paused, serial) = (self.servers[n].paused, self.servers[n].pauses);
            if paused {
                let what = What::Resume { server: n as u8, serial };
                self.schedule.add(self.now, what);
            }
        }
    }
}

/// µs, evenly in the logarithm from a millisecond to a day, ahead or back.
fn wall_jump(rng: &mut Rng) -> i64 {
    let size = 1_000.0 * 86_400_000f64.powf(rng.below(1001) as f64 / 1000.0);
    size as i64 * if rng.below(2) == 0 { 1 } else { -1 }
}
