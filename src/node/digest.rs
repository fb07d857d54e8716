//! Compares a digest of the applied state with the other members, now and then. A server whose
//! state differs from that of two others must not answer any more: a fault in memory or in the
//! program has changed it.

use super::{Fatal, Node, Output};
use crate::ids::{Index, LinkId, ServerId};
use crate::limits::DIGESTS_KEPT;
use crate::replica::{Packet, RoleView};
use std::collections::VecDeque;

/// The newest digests of a server, oldest first.
type Known = VecDeque<(Index, u64)>;

/// The digests of all servers, by id.
#[derive(Debug, Default)]
pub(super) struct Digests {
    known: [Known; 3],
    /// The last entry with a digest that was computed and is not sent yet.
    unsent: Option<(Index, u64)>,
    /// The entries whose digests are to be compared.
    changed: Vec<Index>,
}

fn at(known: &Known, index: Index) -> Option<u64> {
    known.iter().find(|(of, _)| *of == index).map(|(_, digest)| *digest)
}

/// What the digests of the members show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Nothing, or nothing yet.
    None,
    /// This server differs from two others, which are equal.
    Odd,
    /// This server and another one are equal, and that one differs.
    OddOther(ServerId),
    /// None of them is equal to another one.
    AllDiffer,
}

/// Compares the own digest with those of the other members, as far as they are known. `members` is
/// the number of all members.
fn compare(own: u64, others: &[(ServerId, u64)], members: usize) -> Finding {
    match (members, others) {
        (2, [(_, other)]) if *other != own => Finding::AllDiffer,
        (3, [(a_id, a), (b_id, b)]) => match (own == *a, own == *b) {
            (true, true) => Finding::None,
            (true, false) => Finding::OddOther(*b_id),
            (false, true) => Finding::OddOther(*a_id),
            (false, false) if a == b => Finding::Odd,
            (false, false) => Finding::AllDiffer,
        },
        _ => Finding::None,
    }
}

impl Digests {
    fn add(&mut self, id: ServerId, index: Index, digest: u64) {
        let known = &mut self.known[id.slot()];
        // Another run of the server may apply the same entries again.
        known.retain(|(of, _)| *of < index);
        known.push_back((index, digest));
        if known.len() > DIGESTS_KEPT {
            known.pop_front();
        }
        self.changed.push(index);
    }
}

impl Node {
    /// Notes the digest after an applied entry, if that is one with a digest.
    pub(super) fn note_digest(&mut self, index: Index) {
        let count = self.setup.digest_entries;
        if !index.0.is_multiple_of(count) {
            return;
        }
        if let Some(digest) = self.mailboxes.digest(index, count) {
            self.digests.add(self.replica.me().id, index, digest);
            self.digests.unsent = Some((index, digest));
        }
    }

    /// Handles the digest of another server.
    pub(super) fn on_digest(&mut self, link: LinkId, index: Index, digest: u64) {
        if let Some(member) = self.replica.member_on(link) {
            self.digests.add(member.id, index, digest);
        }
    }

    /// Sends the newest digest, and compares those that have come.
    ///
    /// # Errors
    /// The states of two members differ, and this backup ends.
    pub(super) fn keep_digests(&mut self, out: &mut Output) -> Result<(), Fatal> {
        if let Some((index, digest)) = self.digests.unsent.take() {
            for link in self.replica.links() {
                out.replica.send(link, Packet::Digest { index, digest });
            }
        }
        while let Some(index) = self.digests.changed.pop() {
            self.compare_digests(index, out)?;
        }
        Ok(())
    }

    fn compare_digests(&mut self, index: Index, out: &mut Output) -> Result<(), Fatal> {
        let me = self.replica.me();
        let Some(config) = self.replica.config().filter(|config| config.has(me)) else {
            return Ok(());
        };
        let Some(own) = at(&self.digests.known[me.id.slot()], index) else { return Ok(()) };
        let others = config.members().filter(|member| *member != me);
        let others = others.filter_map(|member| {
            Some((member.id, at(&self.digests.known[member.id.slot()], index)?))
        });
        let others: Vec<(ServerId, u64)> = others.collect();
        match compare(own, &others, config.count()) {
            Finding::None => {}
            Finding::OddOther(id) => {
                log::error!("at entry {index} the state of server {id} differs from the others'");
            }
            Finding::Odd => {
                log::error!("at entry {index} the state of this server differs from the others'");
                self.replica.leave_diverged(&mut out.replica);
            }
            Finding::AllDiffer => {
                let words = format!("the states of the members differ at entry {index}");
                if self.replica.role() != RoleView::Primary {
                    return Err(Fatal(format!("{words}; this backup ends, the primary continues")));
                }
                log::error!("{words}; this primary continues, the backups end");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_one_of_three_is_found_and_two_can_not_tell() {
        let [two, three] = [2, 3].map(|n| ServerId::new(n).unwrap());
        for (others, members, finding) in [
            (&[][..], 3, Finding::None),
            (&[(two, 1)], 3, Finding::None),
            (&[(two, 2)], 3, Finding::None),
            (&[(two, 1), (three, 1)], 3, Finding::None),
            (&[(two, 1), (three, 2)], 3, Finding::OddOther(three)),
            (&[(two, 2), (three, 1)], 3, Finding::OddOther(two)),
            (&[(two, 2), (three, 2)], 3, Finding::Odd),
            (&[(two, 2), (three, 3)], 3, Finding::AllDiffer),
            (&[(two, 1)], 2, Finding::None),
            (&[(two, 2)], 2, Finding::AllDiffer),
            (&[], 1, Finding::None),
        ] {
            assert_eq!(compare(1, others, members), finding, "{others:?} of {members}");
        }
    }

    #[test]
    fn few_digests_are_kept_and_a_new_run_replaces_them() {
        let (mut digests, one) = (Digests::default(), ServerId::new(1).unwrap());
        for n in 1..=2 * DIGESTS_KEPT as u64 {
            digests.add(one, Index(n), n);
        }
        assert_eq!(digests.known[0].len(), DIGESTS_KEPT);
        digests.add(one, Index(5), 0);
        assert_eq!(digests.known[0], [(Index(5), 0)]);
    }
}
