//! The term and the vote of this server, which must be durable before anyone learns of them.

use crate::effect::{Effect, Out};
use crate::ids::{LinkId, Member, Term, Vote};
use crate::packet::{Epoch, Packet};

/// The term and the vote. The term never falls.
#[derive(Clone, Debug)]
pub(crate) struct Ballot {
    vote: Vote,
    /// `vote` is durable. Messages of its term wait until then.
    durable: bool,
    /// The vote to send to a candidate as soon as it is durable.
    owed: Option<(LinkId, Term)>,
}

impl Ballot {
    /// Returns a stored vote.
    pub(super) fn new(vote: Vote) -> Ballot {
        Ballot { vote, durable: true, owed: None }
    }

    pub(crate) fn term(&self) -> Term {
        self.vote.term
    }

    pub(crate) fn vote(&self) -> Vote {
        self.vote
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Returns whether this server may vote for `candidate` in the current term.
    pub(super) fn is_free_for(&self, candidate: Member) -> bool {
        self.vote.given.is_none_or(|given| given == candidate)
    }

    /// Returns the epoch of the term; `None` for the first epoch.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        let founder = self.vote.founder?;
        Some(Epoch { number: self.vote.term.epoch(), founder })
    }

    pub(super) fn set(&mut self, vote: Vote, out: &mut Out) {
        assert!(vote.term >= self.vote.term, "terms never fall");
        self.vote = vote;
        self.durable = false;
        out.push(Effect::Persist(vote));
    }

    /// Enters the term without a vote in it.
    pub(super) fn enter(&mut self, term: Term, out: &mut Out) {
        self.set(Vote { term, given: None, ..self.vote }, out);
    }

    /// Votes for `candidate` in `term`.
    pub(super) fn give(&mut self, term: Term, candidate: Member, out: &mut Out) {
        self.set(Vote { term, given: Some(candidate), ..self.vote }, out);
    }

    /// Replaces the vote by one that is stored together with a later vote of this event.
    pub(super) fn restate(&mut self, vote: Vote) {
        self.vote = vote;
    }

    pub(super) fn note_durable(&mut self, vote: Vote) {
        self.durable |= vote == self.vote;
    }

    /// Owes the candidate on this link the vote of the current term.
    pub(super) fn owe(&mut self, link: LinkId) {
        self.owed = Some((link, self.vote.term));
    }

    /// Sends the vote that is owed once it is durable.
    pub(super) fn send_owed(&mut self, out: &mut Out) {
        if self.durable
            && let Some((link, term)) = self.owed.take()
            && term == self.vote.term
        {
            out.send(link, Packet::Vote { term, granted: true });
        }
    }
}
