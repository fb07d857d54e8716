//! `last_survivor = "auto"`: a backup of two members continues alone when it is proved that the
//! primary has died. The proof needs the primary's promise not to change the members, which this
//! module gives and takes back.

use super::{Env, Raft, Timer};
use crate::config::Config;
use crate::ids::{Member, Position};
use crate::packet::Packet;
use crate::rules::Rule;
use crate::time::Moment;

/// A promise of the primary of two members to the other one: not to change the members.
#[derive(Clone, Debug, Default)]
pub(super) struct Promise {
    /// This server promised not to change the members before this time.
    until: Option<Moment>,
    /// This server gives no new promise, since a change of the members waits.
    pub(super) is_withheld: bool,
    /// The member that was asked, since the last promise, to give that promise up, and when.
    release_asked: Option<(Member, Moment)>,
}

impl Raft {
    /// Continues alone if this server is a backup of two members and the primary has died.
    pub(super) fn tick_survivor(&mut self, env: &mut Env<'_>) {
        if !self.is_primary() && !self.condition.is_stopping() && self.is_only_survivor(env) {
            log::warn!("the primary of two is down: this server continues alone");
            self.note(Rule::WentOnAlone);
            self.begin_epoch(env);
        }
    }

    fn is_only_survivor(&self, env: &Env<'_>) -> bool {
        let Some((index, config)) = self.log.summary().config() else { return false };
        if config.count() != 2 || !config.has(self.me) || !self.holds_epoch() {
            return false;
        }
        let at = self.log.summary().position(index);
        let other = config.members().find(|member| *member != self.me);
        // Evidence exists only with `last_survivor = "auto"`.
        other.is_some_and(|other| env.peers.is_proved_dead(other, at, env.now))
    }

    /// Returns the promise of a primary of two members to the other one; each pong carries one.
    pub(crate) fn promise_to(&mut self, to: Member, now: Moment) -> Option<Position> {
        if !self.shared.survivor_auto || self.promise.is_withheld || !self.is_primary() {
            return None;
        }
        let (index, config) = self.log.summary().config()?;
        if config.count() != 2 || !config.has(to) || index > self.log.acknowledged() {
            return None;
        }
        let at = self.log.summary().position(index);
        self.promise.until = Some(now + self.peer_timeout() / 2);
        // A release from now on refers to an earlier promise.
        self.promise.release_asked = None;
        self.note(Rule::Promised);
        Some(at)
    }

    /// Ends this primary's promise: the other member has given up every promise made before the
    /// request.
    pub(super) fn on_released(&mut self, now: Moment, from: Member, asked: Moment) {
        if self.promise.release_asked == Some((from, asked)) {
            self.promise.release_asked = None;
            self.promise.until = self.promise.until.min(Some(now));
            self.note(Rule::PromiseReleased);
            self.dirty = true;
        }
    }

    /// Returns whether no promise prevents a change of the members now. If one does, this server
    /// stops giving promises, and the change waits until the other member gives up the last one
    /// or until that expires.
    pub(super) fn is_free_of_promises(&mut self, env: &mut Env<'_>) -> bool {
        let Some(until) = self.promise.until.filter(|until| env.now < *until) else { return true };
        // Only the other one of two members ever receives a promise.
        let others = self.log.config().into_iter().flat_map(Config::members);
        let other = others.into_iter().find(|member| *member != self.me);
        if let Some(other) = other.filter(|_| self.promise.release_asked.is_none())
            && let Some(link) = env.peers.link_to(other)
        {
            self.promise.release_asked = Some((other, env.now));
            env.out.send(link, Packet::AskRelease { asked: env.now });
        }
        self.note(Rule::PromiseAwaited);
        self.promise.is_withheld = true;
        self.timers.set(Timer::Promise, until);
        false
    }
}
