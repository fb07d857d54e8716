//! Interface for an exhaustive search: makes the decisions that timers and dials lead to, at any
//! time. It checks only the conditions that safety requires, so a search covers every order of
//! events.

use super::event::{LogReader, Out};
use super::{Config, Replica, Role};
use crate::ids::ServerId;
use crate::time::{Moment, WallTime};
use std::fmt::{self, Write};

/// A decision that may come at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Ask for votes, as after a pre-vote that was won; a pre-vote itself changes no state.
    Campaign,
    /// Drop a member, or the member of that id under another disk.
    Drop(ServerId),
    /// Add a linked learner.
    Add(ServerId),
    /// Write the last committed members again.
    Withdraw,
}

impl Replica {
    /// Makes a decision if the rules allow it now. Returns whether they do.
    pub fn decide(&mut self, now: Moment, wall: WallTime, what: Decision, out: &mut Out) -> bool {
        match what {
            Decision::Campaign => {
                let able = self.may_campaign().is_some() && !matches!(self.role, Role::Primary(_));
                if able {
                    self.ask_for_votes(now, self.vote.term.next(), out);
                }
                able
            }
            Decision::Drop(id) => self.rewrite(wall, true, out, |config| {
                config.member(id).map(|_| config.without(id)).filter(|left| left.count() > 0)
            }),
            Decision::Add(id) => {
                let learner = self.linked().find(|member| member.id == id);
                let learner = learner.and_then(|new| self.run_of(new).map(|run| (new, run)));
                self.rewrite(wall, true, out, |config| {
                    let new = learner.filter(|_| config.member(id).is_none());
                    new.map(|(new, run)| config.with(new, run))
                })
            }
            Decision::Withdraw => {
                let before = self.summary.config_up_to(self.committed).copied();
                self.rewrite(wall, false, out, |config| {
                    before
                        .filter(|before| !before.members().eq(config.members()))
                        .map(|b| b.restated())
                })
            }
        }
    }

    fn rewrite(
        &mut self,
        wall: WallTime,
        settled: bool,
        out: &mut Out,
        change: impl FnOnce(&Config) -> Option<Config>,
    ) -> bool {
        let Role::Primary(_) = self.role else { return false };
        let Some((index, config)) = self.summary.config() else { return false };
        let allowed = (index <= self.committed) == settled && self.own_term_committed() == settled;
        let allowed = allowed || (!settled && index > self.committed);
        match change(config).filter(|next| allowed && next.has(self.me)) {
            Some(next) => {
                self.append_config(self.vote.term, wall, next, out);
                true
            }
            None => false,
        }
    }

    /// Ends a turn without any decision by the replica itself.
    pub fn step(&mut self, now: Moment, wall: WallTime, log: &dyn LogReader, out: &mut Out) {
        self.advance();
        self.count_votes(now, wall, out);
        match self.role {
            Role::Primary(_) => self.send_all(now, log, out),
            _ => self.tick_backup(now, out),
        }
        self.check();
    }

    /// Writes all state that may affect the future, except the time.
    ///
    /// # Errors
    /// When `into` fails.
    pub fn picture(&self, into: &mut dyn Write) -> fmt::Result {
        write!(
            into,
            "{:?} {} {} {} {} {} {:?} {:?}",
            self.vote,
            self.vote_stored,
            self.flushed,
            self.stored,
            self.committed,
            self.acknowledged,
            self.role,
            self.owed_vote(),
        )
    }
}
