//! One turn of the loop: what was told, what is due, and who is lost.

use super::connection::{Connection, Role};
use super::driver::{Alarm, Driver, SLOW_TIME, TIMER};
use super::ledger::{Nanos, Storm, Takeover, nanos};
use super::receiver::{Pace, Receiver};
use super::sender::News;
use mio::{Events, Token};
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

/// Between two tries, when each server was tried once.
const RETRY_TIME: Duration = Duration::from_millis(10);
/// Below this, the poll's milliseconds are too coarse for what is due.
const FINE: Nanos = 20_000_000;

impl Driver<'_> {
    /// Waits for something until then, and does all that is to be done.
    pub(super) fn turn(&mut self, until: Nanos) -> Result<(), String> {
        let wait = self.wait_time(until)?;
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        if let Err(error) = self.poll.poll(&mut events, Some(wait))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(format!("poll: {error}"));
        }
        self.shared.now = nanos(self.began.elapsed());
        for event in &events {
            if event.token() != TIMER {
                let is_closed = event.is_read_closed() || event.is_error();
                self.visit(event.token().0, is_closed);
            }
        }
        self.events = events;
        self.ring();
        self.tell_due();
        Ok(())
    }

    fn wait_time(&mut self, until: Nanos) -> Result<Duration, String> {
        let now = self.shared.now;
        let alarm = self.alarms.peek().map_or(until, |Reverse((at, _))| until.min(*at));
        let dues = self
            .places
            .iter()
            .filter_map(|place| place.schedule.map(|schedule| schedule.due_turn(place.told)));
        let is_asking = !self.shared.is_over;
        let due = dues.min().filter(|_| is_asking).unwrap_or(Nanos::MAX);
        if due <= now {
            return Ok(Duration::ZERO);
        }
        if due < alarm && due - now < FINE {
            let set = self.timer.set(Duration::from_nanos(due - now));
            set.map_err(|error| format!("timer: {error}"))?;
        }
        Ok(Duration::from_nanos(alarm.min(due).saturating_sub(now)))
    }

    /// One connection has something to read, or room to write.
    fn visit(&mut self, at: usize, is_closed: bool) {
        let Some(connection) = self.connections.get_mut(at) else { return };
        let most = connection.appetite();
        self.read(at, most, is_closed);
    }

    fn read(&mut self, at: usize, most: usize, is_closed: bool) {
        self.shared.news = News::default();
        let connection = &mut self.connections[at];
        let was_ready = connection.is_ready;
        let visited = connection.visit(&mut self.scratch, most, is_closed, &mut self.shared);
        let is_new = !was_ready && connection.is_ready;
        if is_new {
            self.welcome(at);
        }
        match visited {
            Err(why) => self.lose(at, &why, None),
            Ok(()) => {
                if let Some(hint) = self.shared.news.elsewhere
                    && self.connections[at].may_leave()
                {
                    self.move_on(at, hint);
                }
            }
        }
    }

    /// A server has let a client in: it is the primary.
    fn welcome(&mut self, at: usize) {
        let now = self.shared.now;
        let connection = &mut self.connections[at];
        connection.attempts = 0;
        let (part, server) = (connection.part, connection.server);
        if std::mem::take(&mut connection.in_storm) {
            self.end_storm(part);
        }
        self.silent = None;
        if self.leader == Some(server) {
            self.leader_lost = None;
            return;
        }
        if self.leader.replace(server).is_some() {
            let after = now - self.leader_lost.take().unwrap_or(now);
            let primary = self.servers[server];
            self.shared.ledger.takeovers.push(Takeover { at: now, after, primary });
            self.call_receivers(server);
        }
    }

    /// Who reads elsewhere comes to the new primary: the old one may be silent for long.
    fn call_receivers(&mut self, server: usize) {
        for at in 0..self.connections.len() {
            let connection = &mut self.connections[at];
            let reads = matches!(connection.role, Role::Receiver(_));
            if reads && connection.has_wire() && connection.server != server {
                connection.close(&mut self.shared);
                connection.server = server;
                self.wake_at(0, Alarm::Dial(at));
            }
        }
    }

    fn end_storm(&mut self, part: usize) {
        let Some((storm, away)) = &mut self.places[part].away else { return };
        *away -= 1;
        if *away == 0 {
            let storm = &mut self.shared.ledger.storms[*storm];
            storm.took = Some(self.shared.now - storm.at);
            self.places[part].away = None;
        }
    }

    /// The connection failed: another is tried.
    fn lose(&mut self, at: usize, why: &str, hint: Option<SocketAddr>) {
        self.shared.ledger.note_error(why);
        self.shared.ledger.lost += u64::from(self.connections[at].is_ready);
        self.move_on(at, hint);
    }

    /// Leaves a server for the one that was named, or the one that others have found, or the next.
    fn move_on(&mut self, at: usize, hint: Option<SocketAddr>) {
        let connection = &mut self.connections[at];
        let left = connection.server;
        if self.leader == Some(left) && self.leader_lost.is_none() && connection.is_ready {
            self.leader_lost = Some(self.shared.now);
        }
        connection.close(&mut self.shared);
        let hinted = hint.and_then(|hint| self.servers.iter().position(|server| *server == hint));
        let found = self.leader.filter(|_| self.leader_lost.is_none());
        let next = hinted.or(found).filter(|next| *next != left);
        let next = next.unwrap_or_else(|| self.after(left));
        self.connections[at].server = self.unless_silent(at, next);
        let connection = &self.connections[at];
        let tried_all = connection.attempts >= self.servers.len();
        let wait = if tried_all { RETRY_TIME } else { Duration::ZERO };
        self.wake_at(self.shared.now + nanos(wait), Alarm::Dial(at));
    }

    fn after(&self, server: usize) -> usize {
        (server + 1) % self.servers.len()
    }

    /// The server, or the one after it when it is the silent one and somebody waits for it.
    fn unless_silent(&mut self, at: usize, server: usize) -> usize {
        match &mut self.silent {
            Some((silent, probe)) if *silent == server => {
                if probe.is_none_or(|probe| probe == at) {
                    *probe = Some(at);
                    return server;
                }
                self.after(server)
            }
            _ => server,
        }
    }

    /// Does what is due.
    fn ring(&mut self) {
        let now = self.shared.now;
        while let Some(Reverse((at, alarm))) = self.alarms.peek().copied()
            && at <= now
        {
            self.alarms.pop();
            match alarm {
                Alarm::Dial(at) => self.dial(at),
                Alarm::ReadSlowly(at) => self.read_slowly(at),
                Alarm::Storm(part) => self.storm(part),
            }
        }
    }

    fn dial(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.has_wire() {
            return;
        }
        let address = self.servers[connection.server];
        let registry = self.poll.registry();
        if let Err(why) = connection.dial(address, registry, Token(at), &mut self.shared) {
            self.lose(at, &why, None);
        }
    }

    fn read_slowly(&mut self, at: usize) {
        self.wake_at(self.shared.now + nanos(SLOW_TIME), Alarm::ReadSlowly(at));
        let connection = &self.connections[at];
        if let Role::Receiver(Receiver { pace: Pace::Slow(bytes), .. }) = &connection.role
            && connection.is_ready
        {
            let share = *bytes as f64 * SLOW_TIME.as_secs_f64();
            self.read(at, share.ceil() as usize, false);
        }
    }

    fn storm(&mut self, part: usize) {
        let now = self.shared.now;
        let Some(every) = self.places[part].storm else { return };
        self.wake_at(now + nanos(every), Alarm::Storm(part));
        if self.places[part].away.is_some() {
            // The one before is not over: it will say so.
            return;
        }
        let mut away = 0;
        for at in self.places[part].all.clone() {
            let connection = &mut self.connections[at];
            if connection.is_ready {
                connection.close(&mut self.shared);
                connection.in_storm = true;
                away += 1;
                self.wake_at(now, Alarm::Dial(at));
            }
        }
        if away > 0 {
            self.places[part].away = Some((self.shared.ledger.storms.len(), away));
            self.shared.ledger.storms.push(Storm { at: now, connections: away, took: None });
        }
    }

    /// Lets senders of open loops ask what is due.
    fn tell_due(&mut self) {
        if self.shared.is_over {
            return;
        }
        for part in 0..self.places.len() {
            let place = &self.places[part];
            let Some(schedule) = place.schedule else { continue };
            let (turns, first) = (schedule.turns(self.shared.now), place.senders.start);
            let senders = schedule.senders as u64;
            // Each sender asks all that is due for him: once is enough.
            for turn in place.told.max(turns.saturating_sub(senders))..turns {
                self.ask(first + (turn % senders) as usize);
            }
            self.places[part].told = turns;
        }
    }

    /// Lets a client ask what it may.
    pub(super) fn ask(&mut self, at: usize) {
        if let Err(why) = self.connections[at].ask(&mut self.shared) {
            self.lose(at, &why, None);
        }
    }

    /// Gives up connections on which nothing came for too long.
    pub(super) fn drop_overdue(&mut self) {
        let since = self.shared.now.saturating_sub(self.patience);
        for at in 0..self.connections.len() {
            if self.connections[at].is_overdue(since) {
                self.silent = Some((self.connections[at].server, None));
                self.lose(at, "timeout", None);
            }
        }
    }

    /// A client that was made on the way begins to connect.
    pub(super) fn join(&mut self, connection: Connection) -> usize {
        self.connections.push(connection);
        let at = self.connections.len() - 1;
        self.wake_at(0, Alarm::Dial(at));
        at
    }
}
