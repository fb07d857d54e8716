//! Elections: when to campaign, pre-votes and votes. Also the formation of the group, before the
//! first election.

use super::backup::Following;
use super::event::{Closing, Out};
use super::members::Config;
use super::packet::{Ask, Packet};
use super::rules::Rule;
use super::{Replica, Role, Takeover, Timer};
use crate::ids::{DiskId, Index, LinkId, Member, ServerId, Term, Vote};
use crate::limits::{COIN_TIME, RANK_TIME};
use crate::time::{Moment, WallTime};
use std::time::Duration;

/// A round of votes or pre-votes that is not decided.
#[derive(Clone, Debug)]
pub(super) struct Candidacy {
    /// The round asks for votes, not pre-votes.
    pub(super) real: bool,
    /// The term in which to be elected.
    term: Term,
    began: Moment,
    granted: Vec<Member>,
    refused: Vec<Member>,
}

/// Election state that outlasts a single candidacy.
#[derive(Clone, Debug, Default)]
pub(super) struct ElectionState {
    /// The planned campaign does not depend on the primary staying unreachable.
    pub(super) urgent: bool,
    /// Why a campaign is planned.
    reason: Option<Rule>,
    /// The number of rounds lost since a primary was last recently active.
    pub(super) lost: u32,
    /// How long the last successful vote took.
    pub(super) took: Duration,
    /// The vote to send to a candidate as soon as it is durable.
    owed: Option<(LinkId, Term)>,
}

impl Replica {
    pub(super) fn tick_election(&mut self, now: Moment, wall: WallTime, out: &mut Out) {
        if self.config().is_none() {
            self.tick_formation(now, out);
        }
        self.count_votes(now, wall, out);
        if self.timers.expired(Timer::Round, now) && matches!(self.role, Role::Candidate(_)) {
            self.lose_round(now);
        }
        self.consider_campaign(now);
        if self.timers.expired(Timer::Campaign, now) {
            self.campaign(now, out);
        }
    }

    /// Returns the newest config if this server may campaign: it is a member of that config, and
    /// is linked with a majority of it.
    pub(super) fn may_campaign(&self) -> Option<&Config> {
        let able = self.stopping.is_none() && self.holds_epoch() && self.vote.term.has_next();
        let config = self.config().filter(|config| config.has(self.me) && able)?;
        let linked = config.members().filter(|m| *m == self.me || self.link_to(*m).is_some());
        (linked.count() >= config.majority()).then_some(config)
    }

    /// Returns whether this server just started, knows of no primary, and has not yet reached
    /// every other server. One of them may know of a later epoch, or that this directory is an
    /// old copy.
    fn looks_around(&self, now: Moment, primary: Option<Member>) -> bool {
        let unmet = self.peers.iter().any(|peer| !peer.met);
        primary.is_none() && unmet && now < self.started + self.peer_timeout()
    }

    pub(super) fn consider_campaign(&mut self, now: Moment) {
        let Role::Follower(following) = &self.role else { return };
        let primary = following.primary;
        let heard = primary.is_some_and(|member| self.hears(member, now));
        let gone = primary.is_none_or(|member| self.is_gone(member));
        // A primary that is unreachable, but not down, has the full peer timeout to answer.
        let silent = primary.is_some_and(|member| {
            let peer = self.peer(member.id).and_then(|peer| peer.heard);
            peer.is_none_or(|heard| now >= heard + self.peer_timeout())
        });
        let waits =
            self.awaits_epoch(now) || self.looks_around(now, primary) || self.is_doubted(now);
        let able = self.may_campaign().is_some() && !waits;
        if heard || !able || !(gone || silent) {
            if heard {
                self.election.lost = 0;
            }
            return self.timers.clear(Timer::Campaign);
        }
        if self.timers.is_set(Timer::Campaign) && (self.election.urgent || !gone) {
            return;
        }
        let delay = self.stand_delay(primary, gone);
        self.election.urgent = gone;
        self.election.reason = Some(match primary {
            None => Rule::CampaignNoPrimary,
            Some(_) if gone => Rule::CampaignGone,
            Some(_) => Rule::CampaignUnheard,
        });
        self.timers.set(Timer::Campaign, now + delay);
    }

    pub(super) fn stand_delay(&mut self, primary: Option<Member>, gone: bool) -> Duration {
        let lost = self.election.lost;
        if lost > 0 {
            let least = (self.election.took * 2).max(COIN_TIME);
            let longest = self.peer_timeout().max(least);
            let delay = least.saturating_mul(1 << lost.min(16)).min(longest);
            return self.rng.up_to(delay);
        }
        match self.takeover {
            _ if !gone => self.rng.up_to(self.peer_timeout()),
            Takeover::Coin => self.rng.up_to(COIN_TIME),
            Takeover::Rank => {
                let backups = self.config().into_iter().flat_map(Config::members);
                let first = backups.filter(|member| Some(*member) != primary).min();
                if first == Some(self.me) { Duration::ZERO } else { RANK_TIME }
            }
        }
    }

    pub(super) fn campaign(&mut self, now: Moment, out: &mut Out) {
        if self.may_campaign().is_some() && matches!(self.role, Role::Follower(_)) {
            if let Some(reason) = self.election.reason.take() {
                self.note(reason);
            }
            self.begin_round(now, false, self.vote.term.next(), out);
        }
    }

    pub(super) fn begin_round(&mut self, now: Moment, real: bool, term: Term, out: &mut Out) {
        // This server's own vote is included, but counts only when it is durable.
        let (granted, refused) = (vec![self.me], Vec::new());
        self.role = Role::Candidate(Candidacy { real, term, began: now, granted, refused });
        self.timers.clear(Timer::Campaign);
        // After lost rounds the disks may be slow, so votes get more time.
        let patience = self.peer_timeout() / 4 * (1 << self.election.lost.min(2));
        self.timers.set(Timer::Round, now + patience);
        self.needs_tick = true;
        let config = *self.config().expect("who stands has a config");
        let ask = Ask { term, last: self.summary.last(), config };
        for member in config.members() {
            if let Some(link) = self.link_to(member) {
                let packet = if real { Packet::AskVote(ask) } else { Packet::AskPreVote(ask) };
                out.send(link, packet);
            }
        }
    }

    /// Continues the election when a majority has granted, or can no longer grant.
    pub(super) fn count_votes(&mut self, now: Moment, wall: WallTime, out: &mut Out) {
        let Some(config) = self.config().copied() else { return };
        let Role::Candidate(candidacy) = &self.role else { return };
        let count = |voters: &[Member]| config.members().filter(|m| voters.contains(m)).count();
        // The candidate's own vote must be durable before it leads the term, even if the others'
        // votes suffice.
        let stored = !candidacy.real || (self.vote_stored && self.vote.given == Some(self.me));
        let won = stored && count(&candidacy.granted) >= config.majority();
        let lost = count(&candidacy.refused) > config.count() - config.majority();
        let (real, began, term) = (candidacy.real, candidacy.began, candidacy.term);
        if won && real {
            self.election.took = now - began;
            self.become_primary(now, wall, out);
        } else if won {
            self.ask_for_votes(now, term, out);
        } else if lost {
            self.lose_round(now);
        }
    }

    /// Votes for this server and asks the others for their votes, while its own vote is being
    /// stored.
    pub(super) fn ask_for_votes(&mut self, now: Moment, term: Term, out: &mut Out) {
        self.set_vote(Vote { term, given: Some(self.me), ..self.vote }, out);
        self.begin_round(now, true, term, out);
    }

    /// Returns to following; the next round starts later.
    pub(super) fn lose_round(&mut self, now: Moment) {
        self.election.lost += 1;
        self.note(Rule::RoundLost);
        self.role = Role::Follower(Following::default());
        self.timers.clear(Timer::Round);
        self.consider_campaign(now);
    }

    /// Returns whether the candidate's log is at least as new as this one (Raft §5.4.1). An
    /// uninitialized server also requires that the candidate's config names it.
    fn may_lead(&self, ask: &Ask) -> bool {
        let known = self.config().is_some() || ask.config.has(self.me);
        let epoch = self.holds_epoch() && ask.term.epoch() == self.vote.term.epoch();
        known && epoch && ask.last >= self.summary.last()
    }

    pub(super) fn on_ask_pre_vote(
        &mut self,
        now: Moment,
        from: Member,
        link: LinkId,
        ask: Ask,
        out: &mut Out,
    ) {
        self.leave_primary(from);
        let own = self.vote.term;
        let free = ask.term > own
            || (ask.term == own && self.vote.given.is_none_or(|given| given == from));
        let led = match &self.role {
            Role::Primary(_) => self.hears_majority(now),
            Role::Follower(_) => self.primary(now).is_some(),
            Role::Candidate(candidacy) => {
                // Of two candidates that meet, the one with the older log yields; with equal
                // logs, the one with the higher id.
                let mine = (self.summary.last(), std::cmp::Reverse(self.me.id));
                candidacy.real || mine > (ask.last, std::cmp::Reverse(from.id))
            }
        };
        let waits = self.awaits_epoch(now) || self.is_doubted(now);
        let granted = free && !led && !waits && self.may_lead(&ask);
        out.send(link, Packet::PreVote { term: ask.term, granted, own });
        match (granted, led) {
            (true, _) => {}
            (false, true) => self.note(Rule::PreVoteRefusedLed),
            (false, false) => self.note(Rule::PreVoteRefusedOld),
        }
        self.tell_again(from);
        if granted && !matches!(self.role, Role::Primary(_)) {
            if matches!(self.role, Role::Candidate(_)) {
                self.note(Rule::CampaignBack);
                self.lose_round(now);
            }
            self.yield_to_candidate(now);
        }
    }

    /// Delays this server's own campaign, so that a candidate that may win has time to do so.
    fn yield_to_candidate(&mut self, now: Moment) {
        self.election.urgent = true;
        let delay = (self.election.took * 2).max(COIN_TIME) + self.rng.up_to(COIN_TIME);
        self.timers.set(Timer::Campaign, now + delay);
    }

    pub(super) fn on_pre_vote(
        &mut self,
        from: Member,
        term: Term,
        granted: bool,
        own: Term,
        out: &mut Out,
    ) {
        if own > self.vote.term {
            return self.adopt(own, out);
        }
        self.on_ballot(false, from, term, granted);
    }

    pub(super) fn on_ask_vote(
        &mut self,
        now: Moment,
        from: Member,
        link: LinkId,
        ask: Ask,
        out: &mut Out,
    ) {
        if ask.term.epoch() != self.vote.term.epoch() {
            return;
        }
        self.adopt(ask.term, out);
        let free = self.vote.given.is_none_or(|given| given == from);
        let follows = matches!(self.role, Role::Follower(_));
        // An old copy could vote for a candidate that lacks entries which the original directory
        // has acknowledged.
        let able = follows && !self.is_doubted(now) && self.may_lead(&ask);
        if ask.term < self.vote.term || !free || !able {
            self.note(Rule::VoteRefused);
            return out.send(link, Packet::Vote { term: self.vote.term, granted: false });
        }
        if self.config().is_none() {
            self.note(Rule::VoteOfBlank);
        }
        if self.vote.given.is_none() {
            self.set_vote(Vote { given: Some(from), ..self.vote }, out);
        }
        self.yield_to_candidate(now);
        self.election.owed = Some((link, ask.term));
        self.send_owed_vote(out);
    }

    /// Sends a vote as soon as it is durable.
    pub(super) fn send_owed_vote(&mut self, out: &mut Out) {
        if !self.vote_stored {
            return;
        }
        if let Some((link, term)) = self.election.owed.take()
            && term == self.vote.term
        {
            out.send(link, Packet::Vote { term, granted: true });
        }
    }

    #[cfg(feature = "simulate")]
    pub(super) fn owed_vote(&self) -> Option<(LinkId, Term)> {
        self.election.owed
    }

    pub(super) fn on_vote(&mut self, from: Member, term: Term, granted: bool, out: &mut Out) {
        if term > self.vote.term {
            return self.adopt(term, out);
        }
        self.on_ballot(true, from, term, granted);
    }

    /// Records a ballot; `count_votes` counts them at the end of the turn.
    pub(super) fn on_ballot(&mut self, real: bool, from: Member, term: Term, granted: bool) {
        let Role::Candidate(candidacy) = &mut self.role else { return };
        if candidacy.real != real || candidacy.term != term {
            return; // an answer to an earlier round
        }
        let ballots = if granted { &mut candidacy.granted } else { &mut candidacy.refused };
        if !ballots.contains(&from) {
            ballots.push(from);
        }
        self.needs_tick = true;
    }

    /// Stops following this server, which has reported that it is not primary. A link preserves
    /// order, so every append before that report is from an earlier time.
    pub(super) fn leave_primary(&mut self, from: Member) {
        if let Role::Follower(following) = &mut self.role
            && following.primary == Some(from)
        {
            following.primary = None;
            self.needs_tick = true;
        }
    }

    /// Forms the group when there is no config yet. Server 1 writes the first entry when both
    /// others, on links that are open now, have reported that they are uninitialized and linked
    /// with exactly these disks.
    ///
    /// A server that has quarantined a directory which clients may have used never forms a group:
    /// a new group would not notice that those messages are missing. Such a server only joins an
    /// existing group.
    pub(super) fn tick_formation(&mut self, now: Moment, out: &mut Out) {
        if self.former.is_some() {
            return;
        }
        let first = ServerId::all(1).next().expect("every group has a server 1");
        let Some(met) = self.met() else { return };
        if self.me.id == first {
            let agreed = self.peers.iter().all(|peer| peer.said_blank == Some(met));
            if agreed && self.stopping.is_none() {
                self.note(Rule::Formed);
                self.form(met, out);
            }
            return;
        }
        let Some(at) = self.peers.iter().position(|peer| peer.id == first) else { return };
        match self.peers[at].told_blank {
            Some(told) if told == met => {}
            // A report can't be changed on the same link.
            Some(_) => self.lose_link(now, at, Some(Closing::Restated), out),
            None => {
                self.peers[at].told_blank = Some(met);
                let link = self.peers[at].link.as_ref().expect("all three were met");
                out.send(link.id, Packet::Blank { met });
            }
        }
    }

    /// Returns the disks of the whole group if all servers are linked now. In a group of one the
    /// other places stay zero.
    fn met(&self) -> Option<[DiskId; 3]> {
        let mut met = [DiskId(0); 3];
        met[self.me.id.slot()] = self.me.disk;
        for peer in &self.peers {
            met[peer.id.slot()] = peer.link.as_ref()?.member.disk;
        }
        Some(met)
    }

    /// Writes the first entry: index 1, term 0, time 0.
    fn form(&mut self, met: [DiskId; 3], out: &mut Out) {
        assert_eq!(self.last(), Index::ZERO, "a blank server has no entries");
        let members =
            ServerId::all(self.shared.servers).map(|id| Member { id, disk: met[id.slot()] });
        let config = Config::new(members, false);
        self.append_config(Term::ZERO, WallTime(0), config, out);
    }
}
