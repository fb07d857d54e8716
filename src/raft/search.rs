//! Interface for an exhaustive search: makes the decisions that timers and dials lead to, at any
//! time. It checks only the conditions that safety requires, so a search covers every order of
//! events.

use super::{Env, LogReader, Raft, Role};
use crate::config::Config;
use crate::ids::ServerId;
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

impl Raft {
    /// Makes a decision if the rules allow it now. Returns whether they do.
    pub(crate) fn decide(&mut self, env: &mut Env<'_>, what: Decision) -> bool {
        match what {
            Decision::Campaign => {
                let able = self.may_campaign(env.peers) && !self.is_primary();
                if able {
                    self.ask_for_votes(env, self.ballot.term().next());
                }
                able
            }
            Decision::Drop(id) => self.rewrite(env, true, |config| {
                config.member(id).map(|_| config.without(id)).filter(|left| left.count() > 0)
            }),
            Decision::Add(id) => {
                let link = env.peers.peer(id).and_then(|peer| peer.link.as_ref());
                let learner = link.map(|link| (link.member, link.run));
                self.rewrite(env, true, |config| {
                    let new = learner.filter(|_| config.member(id).is_none());
                    new.map(|(new, run)| config.with(new, run))
                })
            }
            Decision::Withdraw => {
                let before = self.log.committed_config().copied();
                self.rewrite(env, false, |config| {
                    before
                        .filter(|before| !before.members().eq(config.members()))
                        .map(|b| b.restated())
                })
            }
        }
    }

    fn rewrite(
        &mut self,
        env: &mut Env<'_>,
        settled: bool,
        change: impl FnOnce(&Config) -> Option<Config>,
    ) -> bool {
        let Role::Primary(_) = self.role else { return false };
        let Some((index, config)) = self.log.summary().config() else { return false };
        let is_settled = index <= self.log.committed();
        let allowed = is_settled == settled && self.own_term_committed() == settled;
        let allowed = allowed || (!settled && !is_settled);
        match change(config).filter(|next| allowed && next.has(self.me)) {
            Some(next) => {
                self.append_config(self.ballot.term(), env.wall, next, env.out);
                true
            }
            None => false,
        }
    }

    /// Ends a turn without any decision by the consensus itself.
    pub(crate) fn step(&mut self, env: &mut Env<'_>, log: &dyn LogReader) {
        self.advance();
        self.count_votes(env);
        match self.role {
            Role::Primary(_) => self.send_all(env, log),
            _ => self.tick_follower(env),
        }
        self.check();
    }

    /// Writes all state that may affect the future, except the time.
    ///
    /// # Errors
    /// When `into` fails.
    pub(crate) fn picture(&self, into: &mut dyn Write) -> fmt::Result {
        write!(into, "{:?} {:?} {:?}", self.ballot, self.log.indexes(), self.role)
    }
}
