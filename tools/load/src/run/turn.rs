//! One turn of the load's event loop: reads what is ready, runs due tasks, sends due messages.

use super::connection::Role;
use super::counts::{Nanos, Storm, Takeover, ms, nanos, seconds};
use super::driver::{Driver, SLOW_INTERVAL, TIMER, Task};
use super::receiver::{Pace, Receiver};
use super::sender::News;
use mio::{Events, Token};
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

/// Pause of a client that has tried all servers.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Below this, the milliseconds of the poll are too coarse for due messages.
const FINE: Nanos = 20_000_000;

impl Driver<'_> {
    /// Waits for an event until `until`, and handles everything that is ready or due.
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
            let at = event.token().0;
            if event.token() != TIMER && at < self.connections.len() {
                let most = self.connections[at].read_limit();
                self.read(at, most, event.is_read_closed() || event.is_error());
            }
        }
        self.events = events;
        self.run_tasks();
        self.send_due();
        Ok(())
    }

    fn wait_time(&mut self, until: Nanos) -> Result<Duration, String> {
        let now = self.shared.now;
        let task = self.tasks.peek().map_or(until, |Reverse((at, _))| until.min(*at));
        let dues =
            self.parts.iter().filter_map(|part| Some(part.schedule?.due_turn(part.turns_sent)));
        let due = dues.min().filter(|_| !self.shared.is_over).unwrap_or(Nanos::MAX);
        if due <= now {
            return Ok(Duration::ZERO);
        }
        if due < task && due - now < FINE {
            let set = self.timer.set(Duration::from_nanos(due - now));
            set.map_err(|error| format!("timer: {error}"))?;
        }
        Ok(Duration::from_nanos(task.min(due).saturating_sub(now)))
    }

    fn read(&mut self, at: usize, most: usize, is_closed: bool) {
        self.shared.news = News::default();
        let connection = &mut self.connections[at];
        let was_logged_in = connection.is_logged_in;
        let done = connection.read(&mut self.scratch, most, is_closed, &mut self.shared);
        if !was_logged_in && connection.is_logged_in {
            self.on_login(at);
        }
        match done {
            Err(why) => self.lose(at, &why),
            Ok(()) => {
                if let Some(hint) = self.shared.news.redirected
                    && !self.connections[at].has_outstanding()
                {
                    self.move_on(at, hint);
                }
            }
        }
    }

    /// A server that accepts a login is the primary.
    fn on_login(&mut self, at: usize) {
        let now = self.shared.now;
        let connection = &mut self.connections[at];
        connection.attempts = 0;
        let (part, server) = (connection.part, connection.server);
        if std::mem::take(&mut connection.in_storm) {
            self.end_storm(part);
        }
        self.online += 1;
        self.primary.silent = None;
        let lost = self.primary.lost.take();
        if self.primary.server.replace(server).is_some_and(|before| before != server) {
            self.shared.counts.takeovers.push(Takeover {
                at: seconds(now),
                after_ms: ms(now - lost.unwrap_or(now)),
                reconnected_ms: None,
                primary: self.servers[server].to_string(),
            });
            self.move_receivers(server);
        }
        if self.online == self.connections.len()
            && let Some(last) = self.shared.counts.takeovers.last_mut()
        {
            let lost_at = last.at * 1e3 - last.after_ms;
            last.reconnected_ms.get_or_insert(ms(now) - lost_at);
        }
    }

    /// Moves receivers to the new primary: the old one may stay silent for long.
    fn move_receivers(&mut self, server: usize) {
        for at in 0..self.connections.len() {
            let connection = &self.connections[at];
            let reads = matches!(connection.role, Role::Receiver(_));
            if reads && connection.has_socket() && connection.server != server {
                self.close(at);
                self.connections[at].server = server;
                self.schedule(0, Task::Dial(at));
            }
        }
    }

    fn end_storm(&mut self, part: usize) {
        let Some((storm, began, away)) = &mut self.parts[part].away else { return };
        *away -= 1;
        if *away == 0 {
            self.shared.counts.storms[*storm].took_ms = Some(ms(self.shared.now - *began));
            self.parts[part].away = None;
        }
    }

    fn close(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        self.online -= usize::from(connection.is_logged_in);
        connection.close(&mut self.shared);
    }

    /// The connection failed: the client tries another server.
    fn lose(&mut self, at: usize, why: &str) {
        self.shared.counts.record_error(why);
        self.shared.counts.lost += u64::from(self.connections[at].is_logged_in);
        self.move_on(at, None);
    }

    /// Leaves a server for the named one, or the known primary, or the next one.
    fn move_on(&mut self, at: usize, hint: Option<SocketAddr>) {
        let connection = &self.connections[at];
        let left = connection.server;
        if self.primary.server == Some(left) && connection.is_logged_in {
            self.primary.lost.get_or_insert(self.shared.now);
        }
        self.close(at);
        let hinted = hint.and_then(|hint| self.servers.iter().position(|server| *server == hint));
        let known = self.primary.server.filter(|_| self.primary.lost.is_none());
        let next = hinted.or(known).filter(|next| *next != left);
        let next = next.unwrap_or_else(|| self.after(left));
        self.connections[at].server = self.skip_silent(at, next);
        let tried_all = self.connections[at].attempts >= self.servers.len();
        let wait = if tried_all { RETRY_INTERVAL } else { Duration::ZERO };
        self.schedule(self.shared.now + nanos(wait), Task::Dial(at));
    }

    fn after(&self, server: usize) -> usize {
        (server + 1) % self.servers.len()
    }

    /// Returns the server, or the one after it if it is silent and another client tries it.
    fn skip_silent(&mut self, at: usize, server: usize) -> usize {
        match &mut self.primary.silent {
            Some((silent, probe)) if *silent == server => {
                if *probe.get_or_insert(at) == at {
                    return server;
                }
                self.after(server)
            }
            _ => server,
        }
    }

    fn run_tasks(&mut self) {
        let now = self.shared.now;
        while let Some(Reverse((at, task))) = self.tasks.peek().copied()
            && at <= now
        {
            self.tasks.pop();
            match task {
                Task::Dial(at) => self.dial(at),
                Task::ReadSlowly(at) => self.read_slowly(at),
                Task::Storm(part) => self.storm(part),
            }
        }
    }

    fn dial(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.has_socket() {
            return;
        }
        let address = self.servers[connection.server];
        let registry = self.poll.registry();
        if let Err(why) = connection.dial(address, registry, Token(at), &mut self.shared) {
            self.lose(at, &why);
        }
    }

    fn read_slowly(&mut self, at: usize) {
        self.schedule(self.shared.now + nanos(SLOW_INTERVAL), Task::ReadSlowly(at));
        let connection = &self.connections[at];
        if let Role::Receiver(Receiver { pace: Pace::Slow(bytes), .. }) = &connection.role
            && connection.is_logged_in
        {
            let share = *bytes as f64 * SLOW_INTERVAL.as_secs_f64();
            self.read(at, share.ceil() as usize, false);
        }
    }

    fn storm(&mut self, part: usize) {
        let now = self.shared.now;
        let Some(every) = self.parts[part].storm else { return };
        self.schedule(now + nanos(every), Task::Storm(part));
        // A storm begins only after the previous one has ended.
        if self.parts[part].away.is_some() {
            return;
        }
        let mut connections = 0;
        for at in self.parts[part].all.clone() {
            if self.connections[at].is_logged_in {
                self.close(at);
                self.connections[at].in_storm = true;
                connections += 1;
                self.schedule(now, Task::Dial(at));
            }
        }
        if connections > 0 {
            let storms = &mut self.shared.counts.storms;
            self.parts[part].away = Some((storms.len(), now, connections));
            storms.push(Storm { at: seconds(now), connections, took_ms: None });
        }
    }

    /// Sends the due messages of open loops.
    fn send_due(&mut self) {
        if self.shared.is_over {
            return;
        }
        for part in 0..self.parts.len() {
            let state = &self.parts[part];
            let Some(schedule) = state.schedule else { continue };
            let (turns, first) = (schedule.turns(self.shared.now), state.all.start);
            let senders = schedule.senders as u64;
            // A sender sends all of its due messages at once.
            for turn in state.turns_sent.max(turns.saturating_sub(senders))..turns {
                self.send(first + (turn % senders) as usize);
            }
            self.parts[part].turns_sent = turns;
        }
    }

    /// Lets a client send what it may.
    pub(super) fn send(&mut self, at: usize) {
        if let Err(why) = self.connections[at].send(&mut self.shared) {
            self.lose(at, &why);
        }
    }

    /// Closes connections on which an answer is overdue.
    pub(super) fn drop_overdue(&mut self) {
        let since = self.shared.now.saturating_sub(self.timeout);
        for at in 0..self.connections.len() {
            if self.connections[at].is_overdue(since) {
                self.primary.silent = Some((self.connections[at].server, None));
                self.lose(at, "timeout");
            }
        }
    }
}
