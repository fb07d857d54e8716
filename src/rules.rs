//! The names of the rules, and how often each has decided. A simulation has not tested a rule
//! that it never reaches.

use crate::fields::listed;
use std::ops::Add;

listed! {
    /// A rule that makes a decision.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Rule {
        Formed,
        GateOpened,
        CampaignGone,
        CampaignUnheard,
        CampaignNoPrimary,
        CampaignHandedOver,
        CampaignBack,
        Elected,
        RoundLost,
        PreVoteRefusedLed,
        PreVoteRefusedOld,
        VoteRefused,
        VoteOfBlank,
        Withdrawn,
        DroppedGone,
        DroppedStopping,
        DroppedUnheard,
        DroppedSick,
        Added,
        Penalized,
        SteppedDownTerm,
        SteppedDownUnheard,
        RefusedVersion,
        RefusedGroup,
        RefusedSettings,
        RefusedSameId,
        RefusedWrongId,
        RefusedOldIncarnation,
        RefusedCopy,
        RefusedForgot,
        RefusedOccupied,
        RefusedEpoch,
        RefusedStraggler,
        LoggedRefusal,
        EpochFollowed,
        LeftOldCopy,
        LeftTail,
        LeftHistory,
    /// Quarantined the directory, since its state differs from that of two other members.
    LeftDiverged,
        ConflictCut,
        KeptCommitted,
        HandedOverStop,
        HandedOverOrder,
        HandedOverSlow,
        HandedOverDamaged,
        HandoverGivenUp,
        Promised,
        PromiseAwaited,
        /// The other member gave up a promise of a primary of two members.
        PromiseReleased,
        WentOnAlone,
        EpochCompleted,
    }
}

/// How often each rule has decided, in the order of [`Rule::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decisions(pub [u64; Rule::ALL.len()]);

impl Default for Decisions {
    fn default() -> Decisions {
        Decisions([0; Rule::ALL.len()])
    }
}

impl Decisions {
    pub(crate) fn note(&mut self, rule: Rule) {
        self.0[rule as usize] += 1;
    }
}

impl Add for Decisions {
    type Output = Decisions;

    fn add(mut self, other: Decisions) -> Decisions {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own += other);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rules_stand_in_their_order() {
        assert!(Rule::ALL.iter().enumerate().all(|(at, rule)| *rule as usize == at));
    }
}
