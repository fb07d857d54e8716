//! Elections: when to campaign, pre-votes and votes. Also the formation of the group, before the
//! first election.

use super::follower::Following;
use super::{Env, Raft, Role, Takeover, Timer};
use crate::config::Config;
use crate::ids::{DiskId, Index, LinkId, Member, ServerId, Term};
use crate::limits::{COIN_TIME, RANK_TIME};
use crate::packet::{Ask, Packet};
use crate::peers::Peers;
use crate::rng::Rng;
use crate::rules::Rule;
use crate::time::{Moment, WallTime};
use std::cmp::Reverse;
use std::time::Duration;

/// A round of votes or pre-votes that is not decided.
#[derive(Clone, Debug)]
pub(crate) struct Candidacy {
    /// The round asks for votes, not pre-votes.
    real: bool,
    /// The term in which to be elected.
    term: Term,
    began: Moment,
    granted: Vec<Member>,
    refused: Vec<Member>,
}

impl Candidacy {
    fn record(&mut self, from: Member, granted: bool) {
        let ballots = if granted { &mut self.granted } else { &mut self.refused };
        if !ballots.contains(&from) {
            ballots.push(from);
        }
    }

    fn is_won(&self, config: &Config) -> bool {
        config.count_of(|member| self.granted.contains(&member)) >= config.majority()
    }

    fn is_lost(&self, config: &Config) -> bool {
        let refused = config.count_of(|member| self.refused.contains(&member));
        refused > config.count() - config.majority()
    }
}

/// When this server campaigns. This state outlasts a single candidacy.
#[derive(Clone, Debug)]
pub(super) struct Election {
    takeover: Takeover,
    rng: Rng,
    /// The planned campaign does not depend on the primary staying unreachable.
    urgent: bool,
    /// Why a campaign is planned.
    reason: Option<Rule>,
    /// The number of rounds lost since a primary was last recently active.
    pub(super) lost: u32,
    /// How long the last successful vote took.
    took: Duration,
}

impl Election {
    pub(super) fn new(takeover: Takeover, rng: Rng) -> Election {
        let took = Duration::ZERO;
        Election { takeover, rng, urgent: false, reason: None, lost: 0, took }
    }

    /// Returns how long a candidate gets to win: twice the time of the last election.
    fn least_delay(&self) -> Duration {
        (self.took * 2).max(COIN_TIME)
    }

    /// Returns how long this server waits before it campaigns. `is_first` means that it is the
    /// backup with the lowest id; `is_down` that there is no primary.
    fn delay(&mut self, is_first: bool, is_down: bool, peer_timeout: Duration) -> Duration {
        if self.lost > 0 {
            let least = self.least_delay();
            let longest = peer_timeout.max(least);
            let delay = least.saturating_mul(1 << self.lost.min(16)).min(longest);
            return self.rng.up_to(delay);
        }
        match self.takeover {
            _ if !is_down => self.rng.up_to(peer_timeout),
            Takeover::Coin => self.rng.up_to(COIN_TIME),
            Takeover::Rank if is_first => Duration::ZERO,
            Takeover::Rank => RANK_TIME,
        }
    }
}

impl Raft {
    pub(super) fn tick_election(&mut self, env: &mut Env<'_>) {
        if self.log.config().is_none()
            && let Some(met) = env.form()
            && !self.condition.is_stopping()
        {
            self.note(Rule::Formed);
            self.form(env, met);
        }
        self.count_votes(env);
        if self.timers.expired(Timer::Round, env.now) && matches!(self.role, Role::Candidate(_)) {
            self.lose_round(env.now, env.peers);
        }
        self.consider_campaign(env.now, env.peers);
        if self.timers.expired(Timer::Campaign, env.now) {
            self.campaign(env);
        }
    }

    /// Writes the first entry: index 1, term 0, time 0.
    fn form(&mut self, env: &mut Env<'_>, disks: [DiskId; 3]) {
        assert_eq!(self.log.last(), Index::ZERO, "an uninitialized server has no entries");
        let members =
            ServerId::all(self.shared.servers).map(|id| Member { id, disk: disks[id.slot()] });
        let config = Config::new(members, false);
        self.append_config(Term::ZERO, WallTime(0), config, env.out);
    }

    /// Returns whether this server may campaign: it is a member of the newest config, is linked
    /// with a majority of it, and can read its log as far as it knows.
    pub(crate) fn may_campaign(&self, peers: &Peers) -> bool {
        !self.condition.is_stopping()
            && !self.condition.lacks_entries
            && self.holds_epoch()
            && self.ballot.term().has_next()
            && self.log.config().is_some_and(|config| config.has(self.me))
            && self.makes_majority(|member| peers.link_to(member).is_some())
    }

    /// Returns whether this server just started, knows of no primary, and has not yet reached
    /// every other server. One of them may know of a later epoch, or that this directory is an
    /// old copy.
    fn looks_around(&self, now: Moment, peers: &Peers, primary: Option<Member>) -> bool {
        primary.is_none() && !peers.has_met_all() && now < self.started + self.peer_timeout()
    }

    fn consider_campaign(&mut self, now: Moment, peers: &Peers) {
        let Role::Follower(following) = &self.role else { return };
        let primary = following.primary;
        let active = primary.is_some_and(|member| peers.is_active(member, now));
        let down = primary.is_none_or(|member| peers.is_down(member));
        // A primary that is unreachable, but not down, has the full peer timeout to answer.
        let unreachable = primary.is_some_and(|member| !peers.was_active(member.id, now));
        let waits = self.epochs.awaits(now, self.peer_timeout())
            || self.looks_around(now, peers, primary)
            || self.is_doubted(now);
        let able = self.may_campaign(peers) && !waits;
        if active || !able || !(down || unreachable) {
            if active {
                self.election.lost = 0;
            }
            return self.timers.clear(Timer::Campaign);
        }
        if self.timers.is_set(Timer::Campaign) && (self.election.urgent || !down) {
            return;
        }
        let backups = self.log.config().into_iter().flat_map(Config::members);
        let first = backups.filter(|member| Some(*member) != primary).min();
        let peer_timeout = self.peer_timeout();
        let delay = self.election.delay(first == Some(self.me), down, peer_timeout);
        self.election.urgent = down;
        self.election.reason = Some(match primary {
            None => Rule::CampaignNoPrimary,
            Some(_) if down => Rule::CampaignGone,
            Some(_) => Rule::CampaignUnheard,
        });
        self.timers.set(Timer::Campaign, now + delay);
    }

    fn campaign(&mut self, env: &mut Env<'_>) {
        if self.may_campaign(env.peers) && matches!(self.role, Role::Follower(_)) {
            if let Some(reason) = self.election.reason.take() {
                self.note(reason);
            }
            self.begin_round(env, false, self.ballot.term().next());
        }
    }

    fn begin_round(&mut self, env: &mut Env<'_>, real: bool, term: Term) {
        // This server's own vote is included, but counts only when it is durable.
        let (granted, refused) = (vec![self.me], Vec::new());
        self.role = Role::Candidate(Candidacy { real, term, began: env.now, granted, refused });
        self.timers.clear(Timer::Campaign);
        // After lost rounds the disks may be slow, so votes get more time.
        let patience = self.peer_timeout() / 4 * (1 << self.election.lost.min(2));
        self.timers.set(Timer::Round, env.now + patience);
        self.dirty = true;
        let config = *self.log.config().expect("a candidate has a config");
        config.members().for_each(|member| self.ask(env, member));
    }

    /// Asks a member for its vote, if this server is a candidate. A new link to the same process
    /// may have replaced one that the question, or its answer, was on, so a candidate asks again
    /// there.
    pub(crate) fn ask(&self, env: &mut Env<'_>, member: Member) {
        if let Role::Candidate(Candidacy { real, term, .. }) = self.role
            && let Some(config) = self.log.config().filter(|config| config.has(member))
            && let Some(link) = env.peers.link_to(member)
        {
            let ask = Ask { term, last: self.last_position(), config: *config };
            env.out.send(link, if real { Packet::AskVote(ask) } else { Packet::AskPreVote(ask) });
        }
    }

    /// Continues the election when a majority has granted, or can no longer grant.
    pub(super) fn count_votes(&mut self, env: &mut Env<'_>) {
        let Some(config) = self.log.config() else { return };
        let Role::Candidate(candidacy) = &self.role else { return };
        // The candidate's own vote must be durable before it leads the term, even if the others'
        // votes suffice.
        let voted = self.ballot.is_durable() && self.ballot.vote().given == Some(self.me);
        let won = (voted || !candidacy.real) && candidacy.is_won(config);
        let lost = candidacy.is_lost(config);
        let (real, began, term) = (candidacy.real, candidacy.began, candidacy.term);
        if won && real {
            self.election.took = env.now - began;
            self.become_primary(env);
        } else if won {
            self.ask_for_votes(env, term);
        } else if lost {
            self.lose_round(env.now, env.peers);
        }
    }

    /// Votes for this server and asks the others for their votes, while its own vote is being
    /// stored.
    pub(super) fn ask_for_votes(&mut self, env: &mut Env<'_>, term: Term) {
        self.ballot.give(term, self.me, env.out);
        self.begin_round(env, true, term);
    }

    /// Returns to following; the next round starts later.
    pub(super) fn lose_round(&mut self, now: Moment, peers: &Peers) {
        self.election.lost += 1;
        self.note(Rule::RoundLost);
        self.role = Role::Follower(Following::default());
        self.timers.clear(Timer::Round);
        self.consider_campaign(now, peers);
    }

    /// Returns whether the candidate's log is at least as new as this one (Raft §5.4.1). An
    /// uninitialized server also requires that the candidate's config names it.
    fn may_lead(&self, ask: &Ask) -> bool {
        let known = self.log.config().is_some() || ask.config.has(self.me);
        let epoch = self.holds_epoch() && ask.term.epoch() == self.ballot.term().epoch();
        known && epoch && ask.last >= self.last_position()
    }

    pub(super) fn on_ask_pre_vote(
        &mut self,
        env: &mut Env<'_>,
        (from, link): (Member, LinkId),
        ask: Ask,
    ) {
        self.leave_primary(from);
        let own = self.ballot.term();
        let free = ask.term > own || (ask.term == own && self.ballot.is_free_for(from));
        let led = match &self.role {
            Role::Primary(_) => self.is_majority_active(env.now, env.peers),
            Role::Follower(_) => self.primary(env.now, env.peers).is_some(),
            Role::Candidate(candidacy) => {
                // Of two candidates that meet, the one with the older log yields; with equal
                // logs, the one with the higher id.
                let mine = (self.last_position(), Reverse(self.me.id));
                candidacy.real || mine > (ask.last, Reverse(from.id))
            }
        };
        let waits = self.epochs.awaits(env.now, self.peer_timeout()) || self.is_doubted(env.now);
        let granted = free && !led && !waits && self.may_lead(&ask);
        env.out.send(link, Packet::PreVote { term: ask.term, granted, own });
        match (granted, led) {
            (true, _) => {}
            (false, true) => self.note(Rule::PreVoteRefusedLed),
            (false, false) => self.note(Rule::PreVoteRefusedOld),
        }
        self.tell_again(from);
        if granted && !self.is_primary() {
            if matches!(self.role, Role::Candidate(_)) {
                self.note(Rule::CampaignBack);
                self.lose_round(env.now, env.peers);
            }
            self.yield_to_candidate(env.now);
        }
    }

    /// Delays this server's own campaign, so that a candidate that may win has time to do so.
    fn yield_to_candidate(&mut self, now: Moment) {
        self.election.urgent = true;
        let delay = self.election.least_delay() + self.election.rng.up_to(COIN_TIME);
        self.timers.set(Timer::Campaign, now + delay);
    }

    pub(super) fn on_ask_vote(
        &mut self,
        env: &mut Env<'_>,
        (from, link): (Member, LinkId),
        ask: Ask,
    ) {
        if ask.term.epoch() != self.ballot.term().epoch() {
            return;
        }
        self.adopt(env, ask.term);
        let follows = matches!(self.role, Role::Follower(_));
        // An old copy could vote for a candidate that lacks entries which the original directory
        // has acknowledged.
        let able = follows && !self.is_doubted(env.now) && self.may_lead(&ask);
        if ask.term < self.ballot.term() || !self.ballot.is_free_for(from) || !able {
            self.note(Rule::VoteRefused);
            let refusal = Packet::Vote { term: self.ballot.term(), granted: false };
            return env.out.send(link, refusal);
        }
        if self.log.config().is_none() {
            self.note(Rule::VoteOfBlank);
        }
        if self.ballot.vote().given.is_none() {
            self.ballot.give(ask.term, from, env.out);
        }
        self.yield_to_candidate(env.now);
        self.ballot.owe(link);
        self.ballot.send_owed(env.out);
    }

    /// Records the answer to a request for a vote, or for a pre-vote if it is not `real`, of a
    /// server whose term is `own`. `count_votes` counts it at the end of the turn.
    pub(super) fn on_ballot(
        &mut self,
        env: &mut Env<'_>,
        from: Member,
        (real, term, granted): (bool, Term, bool),
        own: Term,
    ) {
        if own > self.ballot.term() {
            return self.adopt(env, own);
        }
        let Role::Candidate(candidacy) = &mut self.role else { return };
        if candidacy.real != real || candidacy.term != term {
            return; // an answer to an earlier round
        }
        candidacy.record(from, granted);
        self.dirty = true;
    }
}
